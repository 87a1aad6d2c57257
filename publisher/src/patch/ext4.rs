//! Finds the pieces of the files in an ext4 file system.
//!
//! `mkfs.ext4 -d` leaves out blocks of zeros, so that a file lies in pieces; its extents say where these are. Only
//! what is needed for that is read: superblock, group descriptors, inodes, extent trees.

/// A piece of a file: bytes that lie one after the other in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Offset of its first byte from the start of the file.
    pub(super) in_file: u64,
    /// Offset of its first byte from the start of the image.
    pub(super) in_image: u64,
    /// Bytes.
    pub(super) len: u64,
}

const SUPERBLOCK: u64 = 1024;
const MAGIC: u64 = 0xef53;
const INCOMPATIBLE_64BIT: u64 = 0x80;
const REGULAR: u64 = 0x8000;
const EXTENTS_FLAG: u64 = 0x8_0000;
const EXTENT_MAGIC: u64 = 0xf30a;
/// Deepest tree of extents (ext4's own limit).
const DEPTH_MAX: u64 = 5;
/// Most pieces of one file. Further pieces are ignored.
const PIECES_MAX: usize = 4096;
/// Most inodes that are looked at.
const INODES_MAX: u64 = 1 << 22;

/// The pieces of every regular file, in the order of the inodes. There are none if the image is no ext4 file
/// system.
pub(super) fn files(image: &[u8]) -> Option<Vec<Vec<Piece>>> {
    let system = FileSystem::open(image)?;
    let count = system.number(SUPERBLOCK, 4)?.min(INODES_MAX);
    Some((0..count).filter_map(|inode| system.pieces(inode)).collect())
}

struct FileSystem<'i> {
    image: &'i [u8],
    block: u64,
    /// The block after the superblock's.
    descriptors: u64,
    descriptor_bytes: u64,
    inodes_per_group: u64,
    inode_bytes: u64,
}

impl<'i> FileSystem<'i> {
    fn open(image: &'i [u8]) -> Option<Self> {
        let mut system = Self {
            image,
            block: 0,
            descriptors: 0,
            descriptor_bytes: 32,
            inodes_per_group: 0,
            inode_bytes: 0,
        };
        if system.at_super(56, 2)? != MAGIC {
            return None;
        }
        system.block =
            1024_u64.checked_shl(u32::try_from(system.at_super(24, 4)?).ok().filter(|log2| *log2 <= 6)?)?;
        system.descriptors = system.at_super(20, 4)? + 1;
        if system.at_super(96, 4)? & INCOMPATIBLE_64BIT != 0 {
            system.descriptor_bytes = system.at_super(254, 2)?.max(32);
        }
        system.inodes_per_group = system.at_super(40, 4)?;
        system.inode_bytes = system.at_super(88, 2)?;
        (system.inodes_per_group > 0 && system.inode_bytes >= 128).then_some(system)
    }

    /// A little-endian number of the image.
    fn number(&self, at: u64, len: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.image.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn at_super(&self, at: u64, len: usize) -> Option<u64> {
        self.number(SUPERBLOCK + at, len)
    }

    fn pieces(&self, inode: u64) -> Option<Vec<Piece>> {
        let (group, index) = (inode / self.inodes_per_group, inode % self.inodes_per_group);
        let descriptor = self.descriptors * self.block + group * self.descriptor_bytes;
        let high = if self.descriptor_bytes >= 64 { self.number(descriptor + 40, 4)? } else { 0 };
        let table = (high << 32 | self.number(descriptor + 8, 4)?).checked_mul(self.block)?;
        let inode = table.checked_add(index * self.inode_bytes)?;
        let is_file = self.number(inode, 2)? & 0xf000 == REGULAR;
        if !is_file || self.number(inode + 32, 4)? & EXTENTS_FLAG == 0 {
            return None;
        }
        let size = self.number(inode + 108, 4)? << 32 | self.number(inode + 4, 4)?;
        let mut pieces = Vec::new();
        self.walk(inode + 40, DEPTH_MAX, size, &mut pieces)?;
        pieces.sort_by_key(|piece| piece.in_file);
        (!pieces.is_empty()).then_some(pieces)
    }

    /// Collects the extents of the node at `at`.
    fn walk(&self, at: u64, depth_max: u64, size: u64, pieces: &mut Vec<Piece>) -> Option<()> {
        let (count, depth) = (self.number(at + 2, 2)?, self.number(at + 6, 2)?);
        if self.number(at, 2)? != EXTENT_MAGIC || depth > depth_max {
            return None;
        }
        for n in 0..count {
            let entry = at + 12 + n * 12;
            if depth > 0 {
                let leaf = self.number(entry + 8, 2)? << 32 | self.number(entry + 4, 4)?;
                self.walk(leaf.checked_mul(self.block)?, depth - 1, size, pieces)?;
                continue;
            }
            let in_file = self.number(entry, 4)? * self.block;
            let blocks = self.number(entry + 4, 2)?;
            let start = self.number(entry + 6, 2)? << 32 | self.number(entry + 8, 4)?;
            // Longer extents are reserved and not written yet.
            let len = (blocks * self.block).min(size.saturating_sub(in_file));
            let in_image = start.checked_mul(self.block)?;
            let fits = in_image.checked_add(len)? <= self.image.len() as u64;
            if blocks <= 0x8000 && len > 0 && fits && pieces.len() < PIECES_MAX {
                pieces.push(Piece { in_file, in_image, len });
            }
        }
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Blocks of noise with holes of zeros between them.
    fn content() -> Vec<u8> {
        let noise = |n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 1;
        (0..300_000).map(|n| if n / 20_000 % 3 == 1 { 0 } else { noise(n) }).collect()
    }

    /// The test makes its file system with the tool that makes real ones.
    #[test]
    fn files_of_a_real_file_system_are_found_in_their_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let (root, image) = (folder.path().join("root"), folder.path().join("image"));
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("a"), content()).unwrap();
        std::fs::write(root.join("b"), b"small").unwrap();
        let made = Command::new("mkfs.ext4")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["-q", "-d"])
            .args([&root, &image])
            .arg("4M")
            .status()
            .expect("mkfs.ext4 is installed (scripts/test does it)");
        assert!(made.success());
        let image = std::fs::read(image).unwrap();
        let files = files(&image).unwrap();
        // Before them comes what the file system keeps for itself, such as its journal.
        let files = files.get(files.len() - 2..).unwrap();
        let content = content();
        for (pieces, wanted) in files.iter().zip([&content[..], b"small"]) {
            let mut found = vec![0; wanted.len()];
            for piece in pieces {
                let (at, from, len) = (piece.in_file as usize, piece.in_image as usize, piece.len as usize);
                found[at..at + len].copy_from_slice(&image[from..from + len]);
            }
            assert!(found == wanted);
        }
        assert!(files[0].len() > 1, "holes were left out");
    }

    #[test]
    fn no_cut_of_a_file_system_and_no_noise_is_more_than_no_file() {
        let mut image = vec![0xff; 8192];
        assert_eq!(files(&image), None);
        image[1024 + 56..1024 + 58].copy_from_slice(&0xef53_u16.to_le_bytes());
        assert_eq!(files(&image), None);
        // A superblock of nonsense that passes its own checks.
        image[1024 + 24..1024 + 28].fill(0);
        assert_eq!(files(&image), Some(Vec::new()));
    }
}

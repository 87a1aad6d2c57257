//! Where an ext4 file system keeps its files.
//!
//! `mkfs.ext4 -d` leaves out blocks of zeros, so that a file lies in pieces; its extents say which. Only what is
//! needed for that is read: superblock, group descriptors, inodes, extent trees.

/// Bytes of a file that lie one after the other in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Of the first byte, from the start of the file.
    pub(super) in_file: u64,
    /// Of the first byte, from the start of the image.
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
/// Most pieces of a file that are of use.
const PIECES_MAX: usize = 4096;
/// Most inodes that are looked at.
const INODES_MAX: u64 = 1 << 22;

/// The pieces of every regular file, in the order of the inodes; none where the image is no ext4 file system.
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
            // Longer ones are reserved and not written yet.
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

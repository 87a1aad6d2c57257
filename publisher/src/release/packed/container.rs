//! Recognises file systems, firmware volumes, and images that are one compressed stream.

use super::{Packed, holds, method, u16_le, u32_le};

/// Finds compressed file systems, firmware volumes and streams.
pub(super) fn find(image: &[u8]) -> Option<Packed> {
    if let Some(name) = method(image) {
        return Some(Packed::new(
            format!("compressed with {name}"),
            "release what is in it, because the transfer compresses",
        ));
    }
    squashfs(image).or_else(|| firmware_volume(image))
}

/// A squashfs begins at a multiple of this many bytes: at a sector.
const SECTOR_BYTES: usize = 512;
/// Bits of the superblock's flags.
const UNCOMPRESSED_DATA: u16 = 1 << 1;
const UNCOMPRESSED_FRAGMENTS: u16 = 1 << 3;
const NO_FRAGMENTS: u16 = 1 << 4;

/// Finds a squashfs at the start of the image or after a kernel.
fn squashfs(image: &[u8]) -> Option<Packed> {
    let starts = (0..image.len()).step_by(SECTOR_BYTES);
    starts.filter_map(|at| image.get(at..)).find_map(squashfs_here)
}

fn squashfs_here(bytes: &[u8]) -> Option<Packed> {
    if !bytes.starts_with(b"hsqs") {
        return None;
    }
    let (block_size, block_log2) = (u32_le(bytes, 12)?, u16_le(bytes, 22)?);
    let version = (u16_le(bytes, 28)?, u16_le(bytes, 30)?);
    // The four letters of the magic number can stand anywhere by chance.
    if version != (4, 0) || block_size.checked_ilog2() != Some(block_log2.into()) {
        return None;
    }
    let name = match u16_le(bytes, 20)? {
        1 => "gzip",
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        _ => "a method of its own",
    };
    let flags = u16_le(bytes, 24)?;
    let files = flags & UNCOMPRESSED_DATA == 0;
    let fragments = flags & (UNCOMPRESSED_FRAGMENTS | NO_FRAGMENTS) == 0;
    let what = match (files, fragments) {
        (true, _) => format!("squashfs compressed with {name}"),
        (false, true) => format!("squashfs with its fragments compressed with {name}"),
        (false, false) => return None,
    };
    let packed = Packed::new(
        what,
        "build it with `mksquashfs -noI -noD -noF -noX`, because the transfer compresses; see README",
    );
    Some(if files { packed } else { Packed { effect: "a patch will be larger than it need be", ..packed } })
}

/// The signature that a firmware volume has at byte 40.
const VOLUME_MAGIC: &[u8] = b"_FVH";
/// GUIDs of sections that are compressed, as they stand in a volume (UEFI PI, and EDK II's own).
const SECTIONS: [(&str, [u8; 16]); 3] = [
    (
        "LZMA",
        [0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf],
    ),
    (
        "Tiano",
        [0xad, 0x80, 0x12, 0xa3, 0x1e, 0x48, 0xb6, 0x41, 0x95, 0xe8, 0x12, 0x7f, 0x4c, 0x98, 0x47, 0x79],
    ),
    (
        "Brotli",
        [0x50, 0x20, 0x53, 0x3d, 0xda, 0x5c, 0xd0, 0x4f, 0x87, 0x9e, 0x0f, 0x7f, 0x63, 0x0d, 0x5a, 0xfb],
    ),
];

/// Finds a volume of UEFI firmware with compressed volumes in it.
fn firmware_volume(image: &[u8]) -> Option<Packed> {
    if !holds(image, VOLUME_MAGIC) {
        return None;
    }
    let (name, _) = SECTIONS.into_iter().find(|(_, guid)| holds(image, guid))?;
    Some(Packed::new(
        format!("a firmware volume compressed with {name}"),
        "leave the compressed section out of its .fdf, because the transfer compresses",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{code, finds};
    use super::*;

    fn superblock(method: u16, flags: u16) -> Vec<u8> {
        let mut bytes = vec![0; 96];
        bytes[..4].copy_from_slice(b"hsqs");
        bytes[12..16].copy_from_slice(&(128 * 1024_u32).to_le_bytes());
        bytes[20..22].copy_from_slice(&method.to_le_bytes());
        bytes[22..24].copy_from_slice(&17_u16.to_le_bytes());
        bytes[24..26].copy_from_slice(&flags.to_le_bytes());
        bytes[28..30].copy_from_slice(&4_u16.to_le_bytes());
        bytes
    }

    #[test]
    fn a_compressed_squashfs_is_named_with_its_method_and_the_flags_that_help() {
        for (number, name) in [(1, "gzip"), (2, "lzma"), (3, "lzo"), (4, "xz"), (5, "lz4"), (6, "zstd")] {
            let image = [superblock(number, 0x40), code(20_000)].concat();
            finds(
                &image,
                &format!("image is squashfs compressed with {name}: a patch will be nearly as large"),
            );
            finds(&image, "mksquashfs -noI -noD -noF -noX");
        }
        let after_a_kernel = [code(65_536), superblock(4, 0x40), code(20_000)].concat();
        finds(&after_a_kernel, "squashfs compressed with xz");
        finds(&[superblock(4, 0x42), code(9000)].concat(), "compressed with xz: a patch will be larger than");
    }

    #[test]
    fn a_squashfs_with_its_files_as_they_are_is_fine() {
        for flags in [UNCOMPRESSED_DATA | UNCOMPRESSED_FRAGMENTS, UNCOMPRESSED_DATA | NO_FRAGMENTS, 0xffff] {
            assert_eq!(Packed::find(&[superblock(4, flags), code(20_000)].concat()), None);
        }
        let letters = [b"hsqs".to_vec(), code(20_000)].concat();
        assert_eq!(Packed::find(&letters), None);
    }

    #[test]
    fn a_firmware_volume_is_named_with_what_compresses_its_sections() {
        for (name, guid) in SECTIONS {
            let image = [&vec![0; 40][..], VOLUME_MAGIC, &code(5000), &guid, &code(5000)].concat();
            finds(&image, &format!("a firmware volume compressed with {name}"));
            assert_eq!(Packed::find(&[&code(5000)[..], &guid, &code(5000)].concat()), None);
        }
        assert_eq!(Packed::find(&[&vec![0; 40][..], VOLUME_MAGIC, &code(5000)].concat()), None);
    }
}

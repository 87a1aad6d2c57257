//! Recognises Linux kernels that decompress themselves, and U-Boot's legacy images.

use super::{Packed, array, method, u16_le, u32_be, u32_le};

/// Finds kernels and legacy images whose content is compressed.
pub(super) fn find(image: &[u8]) -> Option<Packed> {
    efi_zboot(image).or_else(|| x86(image)).or_else(|| arm(image)).or_else(|| legacy(image))
}

/// Finds `vmlinuz.efi`: a stub with `zimg` at byte 4 and the name of the method at byte 24 (Linux,
/// `drivers/firmware/efi/libstub/zboot-header.S`).
fn efi_zboot(image: &[u8]) -> Option<Packed> {
    let name = image.get(24..56).filter(|_| image.starts_with(b"MZ") && image.get(4..8) == Some(b"zimg"))?;
    let name = name.split(|byte| *byte == 0).next().and_then(|name| core::str::from_utf8(name).ok());
    let name = name.filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()));
    Some(Packed::new(
        format!("an EFI zboot kernel compressed with {}", name.unwrap_or("something")),
        "release arch/*/boot/Image (CONFIG_EFI_ZBOOT=n), because the transfer compresses",
    ))
}

/// Finds a bzImage, whose header says where the compressed kernel is (Linux,
/// `Documentation/arch/x86/boot.rst`).
fn x86(image: &[u8]) -> Option<Packed> {
    if image.get(0x202..0x206) != Some(b"HdrS") || u16_le(image, 0x1fe) != Some(0xaa55) {
        return None;
    }
    let setup_sectors = u32::from(array::<1>(image, 0x1f1)?[0]).max(1);
    let payload = usize::try_from(u32_le(image, 0x248)?).ok()?;
    let start = usize::try_from((setup_sectors + 1) * 512).ok()?.checked_add(payload)?;
    let name = method(image.get(start..)?)?;
    Some(Packed::new(
        format!("an x86 kernel compressed with {name}"),
        "build it with CONFIG_KERNEL_UNCOMPRESSED=y, because the transfer compresses",
    ))
}

/// The compressed kernel of a zImage begins within this many bytes.
const ZIMAGE_START_BYTES: usize = 128 * 1024;

/// Finds a zImage for ARM, which has its magic number at byte 36.
fn arm(image: &[u8]) -> Option<Packed> {
    if u32_le(image, 0x24) != Some(0x016f_2818) {
        return None;
    }
    let start = image.get(..ZIMAGE_START_BYTES.min(image.len()))?;
    let is_start = |at: &usize| at.is_multiple_of(4);
    let name = (0..start.len()).filter(is_start).filter_map(|at| image.get(at..)).find_map(method);
    Some(Packed::new(
        format!("a zImage compressed with {}", name.unwrap_or("something")),
        "release arch/arm/boot/Image, because the transfer compresses",
    ))
}

/// Finds a legacy image of U-Boot, which names its compression at byte 31.
fn legacy(image: &[u8]) -> Option<Packed> {
    let name = match (u32_be(image, 0)?, array::<1>(image, 31)?[0]) {
        (0x2705_1956, 1) => "gzip",
        (0x2705_1956, 2) => "bzip2",
        (0x2705_1956, 3) => "lzma",
        (0x2705_1956, 4) => "lzo",
        (0x2705_1956, 5) => "lz4",
        (0x2705_1956, 6) => "zstd",
        _ => return None,
    };
    Some(Packed::new(
        format!("a U-Boot image compressed with {name}"),
        "make it with `mkimage -C none`, because the transfer compresses",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{code, finds, noise};
    use super::*;

    fn with(len: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut image = code(len);
        for (at, bytes) in parts {
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    #[test]
    fn a_zboot_kernel_is_known_by_its_stub() {
        let image = with(50_000, &[(0, b"MZ"), (4, b"zimg"), (24, b"gzip\0")]);
        finds(&image, "an EFI zboot kernel compressed with gzip: a patch will be nearly as large");
        finds(&image, "arch/*/boot/Image");
        // An EFI program, and an arm64 Image, begin with MZ too.
        assert_eq!(Packed::find(&with(50_000, &[(0, b"MZ"), (56, b"ARM\x64")])), None);
        // A method that is not printable text is not shown.
        finds(&with(50_000, &[(0, b"MZ"), (4, b"zimg"), (24, b"\x1b[2J\0")]), "compressed with something");
    }

    #[test]
    fn an_x86_kernel_is_looked_into_where_its_header_says() {
        let head: [(usize, &[u8]); 4] =
            [(0x1f1, &[3]), (0x1fe, &[0x55, 0xaa]), (0x202, b"HdrS"), (0x248, &0x300_u32.to_le_bytes())];
        let mut parts = head.to_vec();
        let payload = [&[0x28, 0xb5, 0x2f, 0xfd][..], &noise(20_000)].concat();
        assert_eq!(find(&with(50_000, &parts)), None);
        parts.push((2048 + 0x300, &payload));
        finds(&with(50_000, &parts), "an x86 kernel compressed with zstd");
        // A header that points beyond the image.
        parts[3].1 = &[0xff; 4];
        assert_eq!(find(&with(50_000, &parts)), None);
    }

    #[test]
    fn a_zimage_is_known_and_its_method_found() {
        let magic = 0x016f_2818_u32.to_le_bytes();
        let image = with(50_000, &[(0x24, &magic), (8000, &[0x1f, 0x8b, 8])]);
        finds(&image, "a zImage compressed with gzip");
        finds(&with(50_000, &[(0x24, &magic)]), "a zImage compressed with something");
    }

    #[test]
    fn a_legacy_image_says_its_compression() {
        let magic = 0x2705_1956_u32.to_be_bytes();
        finds(&with(9000, &[(0, &magic), (31, &[3])]), "a U-Boot image compressed with lzma");
        assert_eq!(Packed::find(&with(9000, &[(0, &magic), (31, &[0])])), None);
    }

    #[test]
    fn every_start_of_a_kernel_is_looked_at_without_harm() {
        let image =
            with(3000, &[(0x1fe, &[0x55, 0xaa]), (0x202, b"HdrS"), (0x24, &0x016f_2818_u32.to_le_bytes())]);
        for len in 0..image.len() {
            drop(Packed::find(&image[..len]));
        }
    }
}

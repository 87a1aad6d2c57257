//! Checks the size of patches between real versions, as `scripts/bench-patches --check` does too.
//!
//! The images are other people's and have other licences, so they are not part of this project. These tests run if
//! somebody asks for them and `WHIMBREL_PATCH_PAIRS` names a folder with NAME.old and NAME.new, or the same with `.xz`.

use lzma_rust2::{Read as _, XzReader};
use whimbrel_protocol::patch::{Decoder, Header};
use whimbrel_publisher::patch::{PatchOptions, diff};

use crate::support::patch_pairs;

const KIB: u32 = 1024;
/// The memory that the decoder of a Linux device may have, and that of a microcontroller.
const LINUX_MEMORY: u32 = 256 * KIB;
const MCU_MEMORY: u32 = 40 * KIB;

/// An image of a pair.
fn image(name: &str) -> Vec<u8> {
    let folder = patch_pairs();
    if let Ok(image) = std::fs::read(folder.join(name)) {
        return image;
    }
    let packed = folder.join(format!("{name}.xz"));
    let bytes = std::fs::read(&packed)
        .unwrap_or_else(|error| panic!("neither {name} nor {}: {error}", packed.display()));
    let mut image = Vec::new();
    let mut reader = XzReader::new(&bytes[..], false);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            len => image.extend(&buffer[..len]),
        }
    }
    image
}

/// Neither architecture nor address is given, so that both have to be found.
fn within(name: &str, memory_bytes: u32, patch_bytes_max: usize) {
    let (old, new) = (image(&format!("{name}.old")), image(&format!("{name}.new")));
    let patch = diff(&old, &new, &PatchOptions { memory_bytes, ..PatchOptions::default() }, &mut |_| {});
    let (len, memory) = (patch.bytes.len(), patch.header.memory_bytes());
    assert!(len <= patch_bytes_max, "{name}: {len} bytes, at most {patch_bytes_max}");
    assert!(memory <= memory_bytes, "{name}: the decoder takes {memory} bytes, at most {memory_bytes}");
    assert!(decoded(&patch.bytes, &old) == new, "{name}");
    eprintln!("{name}: {len} bytes, at most {patch_bytes_max}; decoder {memory} bytes");
}

fn decoded(patch: &[u8], mut old: &[u8]) -> Vec<u8> {
    let (header, header_bytes) = Header::decode(patch).unwrap();
    let mut image = vec![0; header.image.size as usize];
    let mut decoder = Decoder::new(header);
    let input = &patch[header_bytes..];
    let (used, filled) = decoder.decode(input, true, &mut old, &mut image).unwrap();
    assert_eq!(filled, image.len());
    decoder.finish((input.len() - used) as u64).unwrap();
    image
}

/// 12 % more than with the memory of a Linux device.
const fn for_mcu(patch_bytes_max: usize) -> usize {
    patch_bytes_max * 112 / 100
}

const MOVEHUB: usize = 1_750;
const HACKRF: usize = 10_800;
const PRIME: usize = 124_000;
const OPENSBI: usize = 67_000;

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn a_minor_release_for_cortex_m0_takes_1750_bytes() {
    within("m0-movehub", LINUX_MEMORY, MOVEHUB);
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn a_release_for_cortex_m4_takes_10800_bytes() {
    within("m4-hackrf", LINUX_MEMORY, HACKRF);
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn a_major_release_for_cortex_m4_takes_124000_bytes() {
    within("m4-prime-major", LINUX_MEMORY, PRIME);
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn a_release_of_risc_v_firmware_takes_67000_bytes() {
    within("riscv-opensbi", LINUX_MEMORY, OPENSBI);
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn two_years_of_an_arm64_boot_loader_take_166000_bytes() {
    within("a64-uboot", LINUX_MEMORY, 166_000);
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn two_releases_of_a_static_arm64_program_take_621000_bytes() {
    within("a64-busybox", LINUX_MEMORY, 621_000);
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn patches_for_40_kib_of_memory_take_12_percent_more_on_cortex_m0() {
    within("m0-movehub", MCU_MEMORY, for_mcu(MOVEHUB));
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn patches_for_40_kib_of_memory_take_12_percent_more_on_cortex_m4() {
    within("m4-hackrf", MCU_MEMORY, for_mcu(HACKRF));
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn patches_for_40_kib_of_memory_take_12_percent_more_on_a_large_cortex_m4_image() {
    within("m4-prime-major", MCU_MEMORY, for_mcu(PRIME));
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn patches_for_40_kib_of_memory_take_12_percent_more_on_risc_v() {
    within("riscv-opensbi", MCU_MEMORY, for_mcu(OPENSBI));
}

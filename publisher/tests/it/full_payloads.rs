//! What full payloads take beside the xz of the system, on an image made here and on a real kernel where there is one.

use std::path::Path;
use std::process::{Command, Stdio};

use whimbrel_protocol::manifest::Filter;
use whimbrel_publisher::release::compress;

const DICTIONARY_BYTES: u32 = 8 << 20;

/// Bytes that xz makes of the file with the branch filter of ARM64, at its best; `None` where there is no xz that
/// knows the filter.
fn xz_arm64_bytes(image: &Path) -> Option<usize> {
    let out = Command::new("xz")
        .args(["--arm64", "--lzma2=preset=9e,dict=8MiB", "--stdout", "--keep"])
        .arg(image)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    out.status.success().then_some(out.stdout.len())
}

fn holds_beside_xz(image: &Path) {
    let Some(xz) = xz_arm64_bytes(image) else {
        eprintln!("skipped: no xz of 5.4 or later, which knows the filter of ARM64");
        return;
    };
    let image = std::fs::read(image).unwrap();
    let ours = compress(&image, DICTIONARY_BYTES, &mut |_| {});
    assert_eq!(ours.header.filter, Filter::Arm64);
    eprintln!("{} bytes, xz makes {xz}", ours.payload.len());
    assert!(ours.payload.len() * 100 <= xz * 101, "{} bytes, xz makes {xz}", ours.payload.len());
}

/// Functions of the kinds of instruction that programs have, with calls into each other from everywhere: some
/// 600 KB of what looks like code of ARM64.
fn arm64_program() -> Vec<u8> {
    const WORDS: u32 = 150_000;
    let mut state = 1_u64;
    let mut random = |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((state >> 33) % u64::from(below)).unwrap()
    };
    let functions: Vec<u32> = (0..900).map(|_| random(WORDS)).collect();
    (0..WORDS)
        .map(|at| match random(10) {
            0 | 1 => {
                let to = functions[(random(900) * random(900) / 900) as usize];
                0x9400_0000 | (to.wrapping_sub(at) & 0x03ff_ffff)
            }
            2 => 0x9000_0000 | random(8) << 29 & 0x6000_0000 | random(40) << 5 | random(10),
            3 | 4 => 0xf940_0000 | random(32) << 10 | random(10) << 5 | random(10),
            5 => 0x9100_0000 | random(64) << 12 | random(10) << 5 | random(10),
            6 => 0xaa00_03e0 | random(10) << 16 | random(10),
            7 => 0x5400_0000 | random(64) << 5 | random(14),
            8 => 0xa9bf_7bfd,
            _ => 0xd65f_03c0,
        })
        .flat_map(u32::to_le_bytes)
        .collect()
}

#[test]
fn a_full_payload_of_code_is_within_1_percent_of_xz_with_the_filter() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("program.bin");
    std::fs::write(&image, arm64_program()).unwrap();
    holds_beside_xz(&image);
}

/// `WHIMBREL_CORPUS` is a folder that `scripts/bench-patches --fetch` fills.
#[test]
fn a_full_payload_of_a_real_kernel_is_within_1_percent_of_xz_with_the_filter() {
    let image = std::env::var_os("WHIMBREL_CORPUS").map(|folder| Path::new(&folder).join("a64-linux.new"));
    match image.filter(|image| image.exists()) {
        Some(image) => holds_beside_xz(&image),
        None => eprintln!("skipped: WHIMBREL_CORPUS names no folder with a64-linux.new"),
    }
}

//! Compares the size of full payloads with that of xz, on an image made here and on a real kernel.

use std::path::Path;
use std::process::Command;

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::Filter;
use whimbrel_publisher::release::compress;

use crate::support::patch_pairs;

const DICTIONARY_BYTES: u32 = 8 << 20;

/// The payload is at most 1 % larger than what xz makes with the branch filter of ARM64, at its best.
fn holds_beside_xz(image: &[u8], xz_bytes: usize) {
    let ours = compress(image, DICTIONARY_BYTES, &mut |_| {});
    assert_eq!(ours.header.filter, Filter::Arm64);
    eprintln!("{} bytes, xz makes {xz_bytes}", ours.payload.len());
    assert!(ours.payload.len() * 100 <= xz_bytes * 101, "{} bytes, xz makes {xz_bytes}", ours.payload.len());
}

/// Bytes that the xz of this system makes; 5.4 is the first that knows the filter.
fn xz_arm64_bytes(image: &Path) -> usize {
    let out = Command::new("xz")
        .args(["--arm64", "--lzma2=preset=9e,dict=8MiB", "--stdout", "--keep"])
        .arg(image)
        .output()
        .expect("xz is installed, from xz-utils");
    assert!(out.status.success(), "xz is 5.4 or later: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout.len()
}

/// Makes about 600 KB that look like code of ARM64: functions with the kinds of instruction that programs
/// have, which call each other.
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

/// Bytes that `xz --arm64 --lzma2=preset=9e,dict=8MiB` of xz 5.4.1 makes of [`arm64_program`], and the digest
/// of that program.
const XZ_BYTES: usize = 256_056;
const PROGRAM: &str = "d068cb3d113b6b96f5f36fae2f49bc53876378ac33ecf825c23fbd022d658110";

#[test]
fn a_full_payload_of_code_is_within_1_percent_of_xz_with_the_filter() {
    let image = arm64_program();
    assert_eq!(
        Digest::of(&image).to_hex(),
        PROGRAM,
        "another program takes another number of bytes: measure it"
    );
    holds_beside_xz(&image, XZ_BYTES);
}

#[test]
#[ignore = "needs WHIMBREL_PATCH_PAIRS, a folder that `scripts/bench-patches --fetch FOLDER` fills"]
fn a_full_payload_of_a_real_kernel_is_within_1_percent_of_xz_with_the_filter() {
    let image = patch_pairs().join("a64-linux.new");
    let bytes = std::fs::read(&image).unwrap_or_else(|error| panic!("{}: {error}", image.display()));
    holds_beside_xz(&bytes, xz_arm64_bytes(&image));
}

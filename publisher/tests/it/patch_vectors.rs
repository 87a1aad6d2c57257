//! The patches of `protocol/vectors/patch`: the encoder gives the same bytes, today and in later versions.
//!
//! `WRITE_VECTORS=1 cargo test -p whimbrel-publisher patch_vectors` writes them anew, after a change of the format.

use std::path::{Path, PathBuf};

use whimbrel_publisher::patch::{PatchOptions, diff};

/// Images of these many bytes, and each with a decoder of at most these.
const PAIRS: [(&str, usize, u32); 2] = [("small", 6_000, 40 * 1024), ("medium", 40_000, 64 * 1024)];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors/patch")
}

/// Thumb code with calls, literals and pointers; the new image has a function more and a few values changed.
fn images(len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut state = 0x2545_f491_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let functions: Vec<Vec<u16>> = (0..len / 100)
        .map(|_| (0..8 + random() % 60).map(|_| (random() % 0x7000) as u16 & 0x3f1f | 0x2000).collect())
        .collect();
    let assemble = |functions: &[(usize, &[u16])], shift: u32| {
        let mut starts = vec![0_u32; functions.len() + 1];
        let mut at = 64;
        for (id, code) in functions {
            starts[*id] = at;
            at += code.len() as u32 * 2 + 8;
        }
        let mut image: Vec<u8> =
            (0..16_u32).flat_map(|n| (0x0800_0000 + starts[n as usize % 8] + 1).to_le_bytes()).collect();
        for (id, code) in functions {
            image.extend(code.iter().flat_map(|half| half.to_le_bytes()));
            let callee = starts[(id * 7 + 3) % (functions.len() - 1)];
            let delta = (callee as i32 - image.len() as i32 - 4) as u32 >> 1;
            image.extend((0xf000 | (delta >> 11 & 0x7ff) as u16).to_le_bytes());
            image.extend((0xf800 | (delta & 0x7ff) as u16).to_le_bytes());
            image.extend((0x2000_0000 + shift + *id as u32 * 12).to_le_bytes());
        }
        image
    };
    let old: Vec<(usize, &[u16])> = functions.iter().map(|code| &code[..]).enumerate().collect();
    let extra: Vec<u16> = (0..90_u16).map(|n| n.wrapping_mul(2654) & 0x3fff | 0x4000).collect();
    let mut new = old.clone();
    new.insert(functions.len() / 3, (functions.len(), &extra));
    (assemble(&old, 0), assemble(&new, 8))
}

/// The new image has 28 KiB in its middle that are nowhere in the old one and do not compress: a patch of many chunks.
fn fresh_images() -> (Vec<u8>, Vec<u8>) {
    let (old, mut new) = images(20_000);
    let mut state = 0x9e37_79b9_u32;
    let noise = core::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let middle = new.len() / 2;
    new.splice(middle..middle, noise.take(28 * 1024));
    (old, new)
}

#[test]
fn vectors_are_what_the_encoder_makes() {
    let code = PAIRS.map(|(name, len, memory_bytes)| (name, images(len), memory_bytes));
    for (name, (old, new), memory_bytes) in code.into_iter().chain([("fresh", fresh_images(), 40 * 1024)]) {
        let patch = diff(&old, &new, &PatchOptions { memory_bytes, ..PatchOptions::default() }, &mut |_| {});
        let files = [("old", &old), ("new", &new), ("patch", &patch.bytes)];
        for (kind, bytes) in files {
            let path = folder().join(format!("{name}.{kind}"));
            if std::env::var_os("WRITE_VECTORS").is_some() {
                std::fs::create_dir_all(folder()).unwrap();
                std::fs::write(&path, bytes).unwrap();
            }
            assert!(std::fs::read(&path).unwrap() == *bytes, "{}", path.display());
        }
    }
}

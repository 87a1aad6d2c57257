//! Measures the memory of decoders and of the encoder with an allocator that counts.
//!
//! This is a program of its own, because the allocator counts for all threads. Its tests run one after the other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::Path;
use std::sync::Mutex;

use peak_alloc::PeakAlloc;
use whimbrel_protocol::patch::{Decoder, Header};
use whimbrel_publisher::patch::{MEMORY_BYTES_MIN, PatchOptions, diff};
use whimbrel_publisher::release::EncoderWork;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const KIB: u32 = 1024;

/// Most heap that the decoder of `patch` takes, itself included, from its start to the whole image.
fn peak(patch: &[u8], mut old: &[u8], new: &[u8]) -> usize {
    let (header, header_bytes) = Header::decode(patch).unwrap();
    let mut input = &patch[header_bytes..];
    let mut out = [0; 512];
    let mut produced = 0;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut decoder = Box::new(Decoder::new(header));
    while !decoder.is_complete() {
        let (used, filled) = decoder.decode(input, true, &mut old, &mut out).unwrap();
        assert!(out[..filled] == new[produced..produced + filled]);
        (input, produced) = (&input[used..], produced + filled);
    }
    decoder.finish(input.len() as u64).unwrap();
    assert_eq!(produced, new.len());
    drop(decoder);
    ALLOCATOR.peak_usage() - before
}

/// An image of a pair.
fn image(pair: &str, kind: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors/patch");
    std::fs::read(folder.join(format!("{pair}.{kind}"))).unwrap()
}

#[test]
fn a_decoder_allocates_at_most_what_its_header_says_and_at_least_half_of_it() {
    let _turn = ONE_AT_A_TIME.lock();
    let pairs = ["small", "medium", "fresh"].map(|pair| (pair, image(pair, "old"), image(pair, "new")));
    for (pair, old, new) in pairs {
        for memory_bytes in [MEMORY_BYTES_MIN, 40 * KIB, 64 * KIB, 100 * KIB, 256 * KIB, 1024 * KIB] {
            let options = PatchOptions { memory_bytes, ..PatchOptions::default() };
            let patch = diff(&old, &new, &options, &mut |_| {});
            let (stated, peak) = (patch.header.memory_bytes() as usize, peak(&patch.bytes, &old, &new));
            eprintln!("{pair}, {memory_bytes} bytes allowed: {stated} stated, {peak} allocated");
            assert!(stated <= memory_bytes as usize);
            assert!(peak <= stated, "{pair}: {peak} bytes allocated, {stated} stated");
            assert!(peak >= stated / 2, "{pair}: {peak} bytes allocated, {stated} stated");
        }
    }
}

fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    core::iter::repeat_with(next).take(len).collect()
}

/// Most heap that making the patch takes, the images not included.
fn encoder_peak(old: &[u8], new: &[u8], options: &PatchOptions) -> u64 {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    drop(diff(old, new, options, &mut |_| {}));
    (ALLOCATOR.peak_usage() - before) as u64
}

#[test]
fn making_a_patch_takes_at_most_what_is_told_from_sizes() {
    let _turn = ONE_AT_A_TIME.lock();
    let len = 60_000;
    let (one, other) = (noise(len, 1), noise(len, 2));
    let edited: Vec<u8> =
        one.iter().enumerate().map(|(at, byte)| if at % 50 == 0 { !byte } else { *byte }).collect();
    let zeros = vec![0; len];
    let small = noise(5000, 3);
    for (what, old, new) in [
        ("nothing in common", &one, &other),
        ("a change every 50 bytes", &one, &edited),
        ("nothing but zeros", &zeros, &zeros),
        ("a large base", &one, &small),
        ("a large image", &small, &one),
    ] {
        for jobs in [1, 3] {
            let options = PatchOptions { jobs, ..PatchOptions::default() };
            let (bases, image) = (vec![old.len() as u64], new.len() as u64);
            let work = EncoderWork {
                bases,
                image,
                jobs,
                decoder: options.memory_bytes.into(),
                dictionary: 4096,
                full: false,
            };
            // The images are there before; no full payload is made here.
            let told = work.patches_bytes() - old.len() as u64;
            let peak = encoder_peak(old, new, &options);
            eprintln!("{what}, {jobs} jobs: {told} told, {peak} taken");
            assert!(peak <= told, "{what}, {jobs} jobs: {peak} bytes taken, {told} told");
        }
    }
}

#[test]
fn what_is_new_in_an_image_takes_no_memory_for_each_of_its_bytes() {
    let _turn = ONE_AT_A_TIME.lock();
    // With the least memory there are the fewest divisions of it to try.
    let options = PatchOptions { memory_bytes: MEMORY_BYTES_MIN, ..PatchOptions::default() };
    let old = noise(1000, 1);
    let peak = |len| encoder_peak(&old, &noise(len, 2), &options);
    let (shorter, longer) = (peak(280_000), peak(340_000));
    // The patches themselves grow by the bytes of the image, and one to twice that while it is moved.
    let most = shorter + 6 * 60_000;
    assert!(longer <= most, "{shorter} bytes, then {longer}, at most {most}");
}

//! Measures the memory of decoders with an allocator that counts.
//!
//! This is a program of its own with one test, because the allocator counts for all threads.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::Path;

use peak_alloc::PeakAlloc;
use whimbrel_protocol::patch::{Decoder, Header};
use whimbrel_publisher::patch::{MEMORY_BYTES_MIN, PatchOptions, diff};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

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

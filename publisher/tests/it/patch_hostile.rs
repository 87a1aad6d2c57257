//! Patches that no proper encoder makes: damaged ones, and ones that are coded well but have senseless
//! values.

use std::collections::BTreeMap;
use std::thread;

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::ImageId;
use whimbrel_protocol::patch::{
    Architecture, Base, Coder, DecodeFailure, Decoder, Engine, Entry, Header, INPUT_MARGIN, Mode, Op,
    PatchError, Region, SEGMENTS_MAX, Script, Segment, Tuning,
};
use whimbrel_publisher::patch::{MEMORY_BYTES_MIN, PatchOptions, diff};

use crate::patch_properties::{Random, code};

/// An old image of any size and content. It counts how often it is read, and panics if somebody reads beyond
/// its end.
struct Old<'o> {
    bytes: &'o [u8],
    size: u64,
    reads: u64,
}

impl Base for Old<'_> {
    type Error = core::convert::Infallible;

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        assert!(at + into.len() as u64 <= self.size, "read of {} bytes at {at}", into.len());
        self.reads += 1;
        for (place, at) in into.iter_mut().zip(at..) {
            *place = self.bytes[(at % self.bytes.len() as u64) as usize];
        }
        Ok(())
    }
}

/// Decoder memory above which a device does not begin, and the image that is decoded to its end.
const MEMORY_BYTES_MAX: u32 = 64 * 1024;
const IMAGE_BYTES_MAX: u64 = 16 * 1024;

/// The name of the result of decoding a patch.
fn outcome(patch: &[u8], old: &[u8]) -> &'static str {
    let header = match Header::decode(patch) {
        Ok((header, header_bytes)) => (header, &patch[header_bytes..]),
        Err(PatchError::Header(_)) => return "header",
        Err(other) => panic!("a header gives {other}"),
    };
    let (header, mut input) = header;
    if header.memory_bytes() > MEMORY_BYTES_MAX {
        return "memory";
    }
    let mut base = Old { bytes: old, size: header.base.size, reads: 0 };
    let mut decoder = Decoder::new(header);
    let mut image = vec![0; header.image.size.min(IMAGE_BYTES_MAX) as usize + 1];
    let result = decoder.decode(input, true, &mut base, &mut image);
    // Each byte of the image may be a copy of its own with a choice of its mode, or stand beside one.
    assert!(base.reads <= 2 * decoder.produced() + 600, "{} reads", base.reads);
    match result {
        Ok((used, filled)) => {
            assert!(filled as u64 <= header.image.size, "{filled} bytes");
            if filled == image.len() {
                return "long";
            }
            assert_eq!(filled as u64, header.image.size);
            input = &input[used..];
            match decoder.finish(input.len() as u64) {
                Ok(()) => "image",
                Err(PatchError::Trailing) => "trailing",
                Err(other) => panic!("the end gives {other}"),
            }
        }
        Err(DecodeFailure::Patch(PatchError::Truncated { produced })) => {
            assert!(produced <= header.image.size);
            "truncated"
        }
        Err(DecodeFailure::Patch(PatchError::Range { what, produced })) => {
            assert!(produced <= header.image.size);
            what
        }
        Err(DecodeFailure::Patch(other)) => panic!("decoding gives {other}"),
        Err(DecodeFailure::Base(never)) => match never {},
    }
}

/// A small pair of images with code of an architecture, and its patch. A piece was added, a piece was moved,
/// and a few bytes were changed.
fn small_patch(architecture: Architecture) -> (Vec<u8>, Vec<u8>) {
    let old = code(architecture, 11, 700);
    let mut new = old.clone();
    new.splice(200..200, code(architecture, 12, 40));
    new.extend_from_within(300..420);
    new[60..64].copy_from_slice(b"edit");
    let options = PatchOptions {
        memory_bytes: MEMORY_BYTES_MIN,
        architecture: Some(architecture),
        ..PatchOptions::default()
    };
    let patch = diff(&old, &new, &options, &mut |_| {});
    (old, patch.bytes)
}

fn damaged(good: &[u8], header_bytes: usize, other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut patch = good.to_vec();
    for _ in 0..=random.below(3) {
        // The first coded bytes say what the region is: half of the damage is near them, a tenth in the header.
        let (from, reach) = match random.below(10) {
            0 => (0, header_bytes),
            1..=5 => (header_bytes, 24),
            _ => (header_bytes, patch.len()),
        };
        let at = (from + random.below(reach as u32) as usize).min(patch.len().saturating_sub(1));
        match random.below(8) {
            _ if patch.is_empty() => {}
            0..=2 => patch[at] ^= 1 << random.below(8),
            3 | 4 => patch[at] = random.below(256) as u8,
            5 => drop(patch.drain(at..(at + 1 + random.below(4) as usize).min(patch.len()))),
            6 => patch.truncate(at),
            _ => {
                let from = random.below(other.len() as u32) as usize;
                patch.splice(at.., other[from..].iter().copied());
            }
        }
    }
    patch
}

#[test]
fn a_hundred_thousand_damaged_patches_give_images_or_named_errors_in_bounds() {
    const THREADS: u64 = 4;
    const PATCHES: usize = 100_000;
    let patches = Architecture::ALL.map(small_patch);
    let count = |thread: u64| {
        let mut random = Random(thread);
        let mut outcomes = BTreeMap::new();
        for round in 0..PATCHES / THREADS as usize {
            let (old, good) = &patches[round % patches.len()];
            let (_, other) = &patches[random.below(patches.len() as u32) as usize];
            let header_bytes = Header::decode(good).unwrap().1;
            let patch = damaged(good, header_bytes, other, &mut random);
            *outcomes.entry(outcome(&patch, old)).or_insert(0) += 1;
        }
        outcomes
    };
    let mut all = BTreeMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || count(thread))).collect();
        for thread in threads {
            for (name, number) in thread.join().unwrap() {
                *all.entry(name).or_insert(0) += number;
            }
        }
    });
    eprintln!("{all:?}");
    assert_eq!(all.values().sum::<usize>(), PATCHES);
    for name in [
        "header",
        "memory",
        "truncated",
        "trailing",
        "region",
        "match map",
        "entry",
        "match",
        "copy",
        "image",
    ] {
        assert!(all.contains_key(name), "{name} never came of it: {all:?}");
    }
}

/// A script of senseless values, as far as an encoder can code them.
struct Liar {
    random: Random,
    image_len: u32,
    base_len: u32,
    /// The ends of the last entry and of the region in the new image.
    new_end: u32,
    region_end: u32,
    /// The region that has begun.
    region: Region,
}

impl Liar {
    /// Numbers with which sums overflow, and others.
    fn edge(&mut self) -> u64 {
        let near = u64::from(self.random.below(5000));
        match self.random.below(6) {
            0 => near,
            1 => u64::from(u32::MAX) - near,
            2 => u64::from(u32::MAX) + near,
            3 => u64::MAX - near,
            4 => (1 << 63) + near,
            _ => u64::from(self.random.below(u32::MAX)) << 32 | near,
        }
    }

    fn edge32(&mut self) -> u32 {
        let near = self.random.below(3000);
        if self.random.below(3) == 0 { u32::MAX - near } else { near }
    }

    fn segments(&mut self) -> Vec<Segment> {
        let address = self.edge();
        (0..self.random.below(SEGMENTS_MAX as u32 + 1))
            .map(|_| {
                let whole = self.random.below(2) == 0;
                let offset = if whole { 0 } else { self.edge32() };
                let len = if whole { u32::MAX } else { self.edge32() };
                Segment { offset, address: if whole { address } else { self.edge() }, len }
            })
            .collect()
    }
}

impl Script for Liar {
    const CHOOSES: bool = true;

    fn region(&mut self, at: u32) -> Region {
        let rest = self.image_len - at;
        let len =
            if self.random.below(8) == 0 { self.edge32() } else { rest.min(200 + self.random.below(1000)) };
        (self.new_end, self.region_end) = (at, at.saturating_add(len));
        self.region = Region {
            len,
            architecture: Architecture::ALL[self.random.below(6) as usize],
            wide: self.random.below(2) == 0,
            old: self.segments(),
            new: self.segments(),
            memory: [self.random.below(256) as u8, self.random.below(256) as u8],
            entries: self.random.below(5),
        };
        self.region.clone()
    }

    fn segment(&mut self, of_new: bool, at: usize) -> Segment {
        let segments = if of_new { &self.region.new } else { &self.region.old };
        // One bit flipped may ask for more than there are.
        segments.get(at).copied().unwrap_or_default()
    }

    fn entry(&mut self) -> Entry {
        if self.random.below(30) == 0 {
            return Entry { old: self.edge32(), new: self.edge32(), len: self.edge32() };
        }
        let new = self.new_end + self.random.below(8);
        let len = (1 + self.random.below(250)).min(self.region_end.saturating_sub(new));
        self.new_end = new + len;
        // Copies also run to the end of the old image.
        let old = self.base_len - len.min(self.base_len);
        let old = if self.random.below(3) == 0 { old } else { self.random.below(old.max(1)) };
        Entry { old, new, len }
    }

    fn op(&mut self, at: u32, room: u32) -> Op {
        let len = 2 + self.random.below(room.min(200));
        match self.random.below(40) {
            0 => Op::Match { distance: self.edge32(), len: self.edge32() },
            1 => Op::Repeat { len: self.edge32() },
            2 => Op::Copy { old: self.edge32(), len: self.edge32() },
            3..=9 => Op::Match { distance: 1 + self.random.below(at.max(1)), len: len.min(room).max(2) },
            10..=19 if self.base_len > room => {
                Op::Copy { old: self.random.below(self.base_len - room), len: len.min(room) }
            }
            _ => Op::Literal,
        }
    }

    fn mode(&mut self, _: u32, last: Mode, _: [u32; Mode::ALL.len()]) -> Mode {
        // Mostly machine code, if there is any.
        if self.random.below(2) == 0 { last } else { Mode::ALL[self.random.below(5) as usize] }
    }

    fn byte(&self, at: u32) -> u8 {
        at.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]
    }
}

/// Takes every decision as it is given, except for some, and counts the bits that they would take.
struct Echo {
    random: Random,
    bits: f64,
}

impl Coder for Echo {
    fn bit(&mut self, p: u32, bit: bool) -> bool {
        let bit = bit ^ (self.random.below(5000) == 0);
        let p = f64::from(if bit { p } else { 65_536 - p }) / 65_536.0;
        self.bits -= p.log2();
        bit
    }
}

#[test]
fn well_coded_nonsense_ends_in_named_errors_or_images_and_no_step_takes_more_than_the_margin() {
    let (mut outcomes, mut most_bits) = (BTreeMap::new(), 0.0_f64);
    for round in 0..6000 {
        let mut random = Random(round);
        let architecture = Architecture::ALL[random.below(6) as usize];
        let bytes = code(architecture, round, 3000);
        let image_len = 1 + random.below(1500);
        // The largest images that there may be, too.
        let base_len = if random.below(3) == 0 { u32::MAX - 0xffff } else { 1 + random.below(3000) };
        let id = |size: u32| ImageId { digest: Digest::of(b""), size: size.into() };
        let tuning = Tuning {
            dictionary_log2: 8,
            literals_log2: 8,
            flags_log2: 8,
            bytes_log2: 8,
            map_entries: 4,
            table_entries: random.below(20),
        };
        let header = Header { base: id(base_len), image: id(image_len), tuning };
        let mut engine = Engine::new(&header);
        let mut base = Old { bytes: &bytes, size: base_len.into(), reads: 0 };
        let mut liar =
            Liar { random, image_len, base_len, new_end: 0, region_end: 0, region: Region::default() };
        let mut echo = Echo { random: Random(round ^ 0xec40), bits: 0.0 };
        let mut steps = 0_u32;
        let outcome = loop {
            if engine.is_complete() {
                break "image";
            }
            steps += 1;
            echo.bits = 0.0;
            match engine.step(&mut echo, &mut liar, &mut base) {
                Ok(()) => assert!(engine.produced() <= image_len),
                Err(DecodeFailure::Patch(PatchError::Range { what, .. })) => break what,
                Err(DecodeFailure::Patch(other)) => panic!("round {round}: {other}"),
                Err(DecodeFailure::Base(never)) => match never {},
            }
            // What is decided once more input has come, would be decided wrongly; the range coder reads 4 bytes ahead.
            most_bits = echo.bits.max(most_bits);
            assert!(
                most_bits <= 8.0 * (INPUT_MARGIN - 8) as f64,
                "round {round}: a step of {most_bits} bits"
            );
            // Every byte can be a region of its own, with an entry: its start, the entry, the copy, its end; and with
            // all segments that there may be.
            let most = 5 + 2 * SEGMENTS_MAX as u32;
            assert!(steps <= most * (engine.produced() + 2), "round {round}: {steps} steps");
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    eprintln!("{outcomes:?}; a step takes at most {most_bits:.0} bits");
    for name in ["region", "match map", "entry", "match", "copy", "image"] {
        assert!(outcomes.contains_key(name), "{name} never came of it: {outcomes:?}");
    }
}

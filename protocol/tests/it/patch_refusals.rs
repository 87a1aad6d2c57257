//! What a patch may not say, by the name of what is wrong, one byte beside what it may.

use std::collections::VecDeque;

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::ImageId;
use whimbrel_protocol::patch::{
    Base, Coder, DecodeFailure, Decoder, Engine, Entry, Header, MATCH_BYTES_MAX, Mode, Op, PatchError,
    Region, SEGMENTS_MAX, Script, Segment, Tuning,
};

/// Bytes of the old image and of the new one, and entries that the match map has room for.
const BASE: u32 = 1000;
const IMAGE: u32 = 600;
const ROOM: u32 = 3;
const DICTIONARY: u32 = 256;

/// Takes every decision as it was said.
struct Echo;

impl Coder for Echo {
    fn bit(&mut self, _: u32, bit: bool) -> bool {
        bit
    }
}

/// An old image of which nobody reads what it does not have.
struct Old;

impl Base for Old {
    type Error = core::convert::Infallible;

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        assert!(at + into.len() as u64 <= BASE.into(), "read of {} bytes at {at}", into.len());
        into.fill(7);
        Ok(())
    }
}

/// What is said, in this order; after it literals.
#[derive(Default)]
struct Said {
    regions: VecDeque<Region>,
    entries: VecDeque<Entry>,
    ops: VecDeque<Op>,
    region: Region,
}

impl Script for Said {
    const CHOOSES: bool = true;

    fn region(&mut self, at: u32) -> Region {
        let rest = Region { len: IMAGE - at, ..Region::default() };
        self.region = self.regions.pop_front().unwrap_or(rest);
        self.region.clone()
    }

    fn segment(&mut self, of_new: bool, at: usize) -> Segment {
        if of_new { self.region.new[at] } else { self.region.old[at] }
    }

    fn entry(&mut self) -> Entry {
        self.entries.pop_front().unwrap()
    }

    fn op(&mut self, _: u32, _: u32) -> Op {
        self.ops.pop_front().unwrap_or(Op::Literal)
    }

    fn mode(&mut self, _: u32, last: Mode, _: [u32; Mode::ALL.len()]) -> Mode {
        last
    }

    fn byte(&self, at: u32) -> u8 {
        at.to_le_bytes()[0]
    }
}

/// The whole image, or what is out of range and the bytes that there are by then.
fn decode(mut said: Said) -> Result<(), (&'static str, u64)> {
    let id = |size: u32| ImageId { digest: Digest::of(b""), size: size.into() };
    let tuning = Tuning {
        dictionary_log2: 8,
        literals_log2: 8,
        flags_log2: 8,
        bytes_log2: 8,
        map_entries: ROOM,
        table_entries: 4,
    };
    let mut engine = Engine::new(&Header { base: id(BASE), image: id(IMAGE), tuning });
    while !engine.is_complete() {
        match engine.step(&mut Echo, &mut said, &mut Old) {
            Ok(()) => {}
            Err(DecodeFailure::Patch(PatchError::Range { what, produced })) => return Err((what, produced)),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(engine.produced(), IMAGE);
    Ok(())
}

fn regions(regions: &[Region]) -> Result<(), (&'static str, u64)> {
    decode(Said { regions: regions.to_vec().into(), ..Said::default() })
}

fn region(len: u32) -> Region {
    Region { len, ..Region::default() }
}

#[test]
fn a_region_that_reaches_a_byte_past_the_image_is_refused() {
    assert_eq!(regions(&[region(IMAGE)]), Ok(()));
    assert_eq!(regions(&[region(IMAGE + 1)]), Err(("region", 0)));
    assert_eq!(regions(&[region(u32::MAX)]), Err(("region", 0)));
    assert_eq!(regions(&[region(0)]), Err(("region", 0)));
    assert_eq!(regions(&[region(200), region(IMAGE - 200)]), Ok(()));
    assert_eq!(regions(&[region(200), region(IMAGE - 199)]), Err(("region", 200)));
    assert_eq!(regions(&[region(200), region(0)]), Err(("region", 200)));
}

#[test]
fn a_region_with_more_segments_or_entries_than_there_is_room_for_is_refused() {
    let segments = |count: usize| vec![Segment { offset: 0, address: 0, len: 10 }; count];
    for count in [SEGMENTS_MAX, SEGMENTS_MAX + 1] {
        let want = if count > SEGMENTS_MAX { Err(("segments", 0)) } else { Ok(()) };
        assert_eq!(regions(&[Region { old: segments(count), ..region(IMAGE) }]), want);
        assert_eq!(regions(&[Region { new: segments(count), ..region(IMAGE) }]), want);
    }
    let entry = |at: u32| Entry { old: at, new: at, len: 1 };
    let full = Region { entries: ROOM, ..region(IMAGE) };
    let entries = (0..ROOM).map(entry).collect();
    assert_eq!(decode(Said { regions: [full].into(), entries, ..Said::default() }), Ok(()));
    assert_eq!(regions(&[Region { entries: ROOM + 1, ..region(IMAGE) }]), Err(("match map", 0)));
}

fn entries(len: u32, entries: &[Entry]) -> Result<(), (&'static str, u64)> {
    let region = Region { entries: u32::try_from(entries.len()).unwrap(), ..region(len) };
    decode(Said { regions: [region].into(), entries: entries.to_vec().into(), ..Said::default() })
}

#[test]
fn an_entry_that_reaches_a_byte_past_the_base_or_its_region_is_refused() {
    let entry = |old, new, len| Entry { old, new, len };
    let refused = Err(("entry", 0));
    for len in [1, 50, IMAGE] {
        assert_eq!(entries(IMAGE, &[entry(BASE - len, 0, len)]), Ok(()), "{len}");
        assert_eq!(entries(IMAGE, &[entry(BASE - len + 1, 0, len)]), refused, "{len}");
        assert_eq!(entries(IMAGE, &[entry(0, IMAGE - len, len)]), Ok(()), "{len}");
        assert_eq!(entries(IMAGE, &[entry(0, IMAGE - len + 1, len)]), refused, "{len}");
    }
    // A region that ends before the image does bounds its entries.
    assert_eq!(entries(200, &[entry(0, 150, 50)]), Ok(()));
    assert_eq!(entries(200, &[entry(0, 150, 51)]), refused);
    assert_eq!(entries(IMAGE, &[entry(0, 0, 0)]), refused);
    assert_eq!(entries(IMAGE, &[entry(u32::MAX, 0, 1)]), refused);
    assert_eq!(entries(IMAGE, &[entry(0, u32::MAX, 1)]), refused);
    // Entries follow each other in the new image, in any order in the old one.
    assert_eq!(entries(IMAGE, &[entry(500, 0, 50), entry(0, 50, 50)]), Ok(()));
    assert_eq!(entries(IMAGE, &[entry(500, 0, 50), entry(0, 49, 50)]), refused);
}

/// `before` literals, then one operation.
fn op(before: u32, op: Op) -> Result<(), (&'static str, u64)> {
    let ops = (0..before).map(|_| Op::Literal).chain([op]).collect();
    decode(Said { ops, ..Said::default() })
}

#[test]
fn a_copy_that_reaches_a_byte_past_the_base_is_refused() {
    let refused = |produced| Err(("copy", produced));
    for before in [0, 10] {
        for len in [1, 40, IMAGE - before] {
            assert_eq!(op(before, Op::Copy { old: BASE - len, len }), Ok(()), "{len}");
            assert_eq!(op(before, Op::Copy { old: BASE - len + 1, len }), refused(before.into()), "{len}");
        }
        assert_eq!(op(before, Op::Copy { old: 0, len: IMAGE - before }), Ok(()));
        assert_eq!(op(before, Op::Copy { old: 0, len: IMAGE - before + 1 }), refused(before.into()));
        assert_eq!(op(before, Op::Copy { old: 0, len: 0 }), refused(before.into()));
        assert_eq!(op(before, Op::Copy { old: BASE, len: 1 }), refused(before.into()));
        assert_eq!(op(before, Op::Copy { old: u32::MAX, len: 1 }), refused(before.into()));
    }
}

#[test]
fn a_match_before_the_first_byte_is_refused() {
    let refused = |produced: u32| Err(("match", u64::from(produced)));
    for before in [1, 2, 10, 200, DICTIONARY] {
        assert_eq!(op(before, Op::Match { distance: before, len: 2 }), Ok(()), "{before}");
        assert_eq!(op(before, Op::Match { distance: before + 1, len: 2 }), refused(before), "{before}");
    }
    assert_eq!(op(0, Op::Match { distance: 1, len: 2 }), refused(0));
    assert_eq!(op(0, Op::Repeat { len: 1 }), refused(0));
    assert_eq!(op(1, Op::Repeat { len: 1 }), Ok(()));
    assert_eq!(op(9, Op::Match { distance: 0, len: 2 }), refused(9));
    // Nor may it be farther back than the dictionary reaches.
    assert_eq!(op(300, Op::Match { distance: DICTIONARY, len: 2 }), Ok(()));
    assert_eq!(op(300, Op::Match { distance: DICTIONARY + 1, len: 2 }), refused(300));
}

#[test]
fn a_match_longer_than_it_may_be_is_refused() {
    let refused = |produced: u32| Err(("match", u64::from(produced)));
    let at = IMAGE - 9;
    for op_of in [|len| Op::Match { distance: 1, len }, |len| Op::Repeat { len }] {
        assert_eq!(op(at, op_of(9)), Ok(()));
        assert_eq!(op(at, op_of(10)), refused(at));
        assert_eq!(op(1, op_of(MATCH_BYTES_MAX)), Ok(()));
        assert_eq!(op(1, op_of(MATCH_BYTES_MAX + 1)), refused(1));
    }
    // The next entry bounds what stands before it.
    let before_entry = |len| {
        let region = Region { entries: 1, ..region(IMAGE) };
        let entries = [Entry { old: 0, new: 20, len: 30 }].into();
        let ops = [Op::Literal, Op::Match { distance: 1, len }].into();
        decode(Said { regions: [region].into(), entries, ops, ..Said::default() })
    };
    assert_eq!(before_entry(19), Ok(()));
    assert_eq!(before_entry(20), refused(1));
}

/// Decodes a whole patch, by pieces of the image.
fn whole(patch: &[u8], mut old: &[u8]) -> Result<Vec<u8>, PatchError> {
    let (header, start) = Header::decode(patch)?;
    let (mut decoder, mut at, mut image) = (Decoder::new(header), start, Vec::new());
    while !decoder.is_complete() {
        let mut room = [0; 777];
        match decoder.decode(&patch[at..], true, &mut old, &mut room) {
            Ok((used, filled)) => {
                at += used;
                image.extend_from_slice(&room[..filled]);
            }
            Err(DecodeFailure::Patch(error) | DecodeFailure::Base(error)) => return Err(error),
        }
    }
    let unused = (patch.len() - at) as u64;
    decoder.finish(unused)?;
    // Nor are bytes that the decoder never had to look at.
    for more in [1, 1000, u64::MAX] {
        assert_eq!(decoder.finish(more), Err(PatchError::Trailing));
    }
    Ok(image)
}

#[test]
fn bytes_behind_the_end_of_a_patch_are_refused() {
    let pairs: [[&[u8]; 3]; 2] = [
        [
            include_bytes!("../../vectors/patch/small.patch"),
            include_bytes!("../../vectors/patch/small.old"),
            include_bytes!("../../vectors/patch/small.new"),
        ],
        [
            include_bytes!("../../vectors/patch/medium.patch"),
            include_bytes!("../../vectors/patch/medium.old"),
            include_bytes!("../../vectors/patch/medium.new"),
        ],
    ];
    for [patch, old, new] in pairs {
        assert_eq!(whole(patch, old).as_deref(), Ok(new));
        for count in [1, 2, 3, 4, 5, 1023, 1024, 5000] {
            for byte in [0, 1, 0xff] {
                let longer = [patch, &vec![byte; count]].concat();
                assert_eq!(whole(&longer, old), Err(PatchError::Trailing), "{count} bytes of {byte}");
            }
        }
        // Nor may it end before: what is missing would be read as zeros.
        assert_ne!(whole(&patch[..patch.len() - 1], old).as_deref(), Ok(new));
    }
}

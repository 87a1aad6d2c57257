//! Regions: parts of the new image with one architecture and one set of addresses. A region is a file, or
//! what lies between files.

use alloc::vec::Vec;

use super::Architecture;
use super::numbers::{Number, Numbers};
use super::range::Coder;

/// A segment: bytes that lie one after the other both in the image and in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Offset of the first byte from the start of the image.
    pub offset: u32,
    /// Address of the first byte when the code runs.
    pub address: u64,
    /// Bytes.
    pub len: u32,
}

/// What predictions in one region of the new image need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Bytes of the new image.
    pub len: u32,
    /// Architecture of its code.
    pub architecture: Architecture,
    /// Whether pointers have 8 bytes instead of 4.
    pub wide: bool,
    /// The segments of the old image that this region is made from; at most [`SEGMENTS_MAX`].
    pub old: Vec<Segment>,
    /// The segments of the new image; at most [`SEGMENTS_MAX`].
    pub new: Vec<Segment>,
    /// High bytes of 32-bit addresses that are not in the image (RAM of a microcontroller); 0 is none.
    pub memory: [u8; 2],
    /// Entries of its match map.
    pub entries: u32,
}

/// Most segments of a region, in each of the images.
pub const SEGMENTS_MAX: usize = 32;

impl Region {
    /// Codes everything but the segments themselves, of which it codes the number in each image. A decoder's
    /// result may have any values; the caller has to check them.
    pub(super) fn code_head(&self, coder: &mut impl Coder, numbers: &mut Numbers) -> (Self, [u8; 2]) {
        let small =
            |coder: &mut _, numbers: &mut Numbers, value: u32| numbers.code(coder, Number::Segments, value);
        let len = numbers.code(coder, Number::RegionBytes, self.len);
        let architecture = small(coder, numbers, self.architecture as u32);
        let architecture = Architecture::from_number(architecture).unwrap_or_default();
        let wide = numbers.flag(coder, Number::Segments, 0, self.wide);
        let mut memory = [0; 2];
        for (place, value) in memory.iter_mut().zip(self.memory) {
            *place = u8::try_from(small(coder, numbers, value.into())).unwrap_or(0);
        }
        let counts = [&self.old, &self.new].map(|segments| {
            let count = small(coder, numbers, u32::try_from(segments.len()).unwrap_or(0));
            u8::try_from(count).unwrap_or(u8::MAX)
        });
        let entries = numbers.code(coder, Number::Entries, self.entries);
        (Self { len, architecture, wide, memory, entries, ..Self::default() }, counts)
    }

    /// The address of a byte of the old image.
    pub(super) fn old_address(&self, offset: u32) -> Option<u64> {
        address(&self.old, offset)
    }

    /// The address of a byte of the new image.
    pub(super) fn new_address(&self, offset: u32) -> Option<u64> {
        address(&self.new, offset)
    }

    /// The byte of the old image at an address.
    pub(super) fn old_offset(&self, address: u64) -> Option<u32> {
        self.old.iter().find_map(|segment| {
            let from_start = u32::try_from(address.checked_sub(segment.address)?).ok()?;
            (from_start < segment.len).then(|| segment.offset.wrapping_add(from_start))
        })
    }

    /// The addresses at which the images end in memory. Data that lies behind the end moves with it.
    pub(super) fn ends(&self) -> Option<(u64, u64)> {
        let end = |segments: &[Segment]| {
            segments.iter().map(|segment| segment.address.wrapping_add(segment.len.into())).max()
        };
        Some((end(&self.old)?, end(&self.new)?))
    }
}

fn address(segments: &[Segment], offset: u32) -> Option<u64> {
    segments.iter().find_map(|segment| {
        let from_start = offset.checked_sub(segment.offset)?;
        (from_start < segment.len).then(|| segment.address.wrapping_add(from_start.into()))
    })
}

impl Segment {
    /// Codes a segment as differences to the segment with the same number in the old image. `before` are the
    /// same two segments for the number before.
    pub(super) fn code(
        self,
        like: Self,
        before: (Self, Self),
        coder: &mut impl Coder,
        numbers: &mut Numbers,
    ) -> Self {
        let expected = i64::from(like.offset) + i64::from(before.0.offset) - i64::from(before.1.offset);
        let moved = numbers.code_signed(coder, Number::OldSkip, i64::from(self.offset) - expected);
        let grown = numbers.code_signed(coder, Number::EntryBytes, i64::from(self.len) - i64::from(like.len));
        let address = numbers.code_wide(coder, self.address.wrapping_sub(like.address));
        Self {
            offset: u32::try_from(expected + moved).unwrap_or(0),
            address: like.address.wrapping_add(address),
            len: u32::try_from(i64::from(like.len) + grown).unwrap_or(0),
        }
    }
}

//! Codes numbers: first the number of their bits, by a tree of decisions, then the bits. Only the first and
//! the last bits have models.

use super::model::Slots;
use super::range::Coder;

/// What a number counts. Each kind of number has its own models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Bytes of a region.
    RegionBytes,
    /// Segments, and everything that describes one.
    Segments,
    /// An address or an offset of a segment, in two halves.
    SegmentHigh,
    SegmentLow,
    /// Entries of a match map.
    Entries,
    /// Bytes between two entries, from the old end of one to the old start of the next, and of an entry.
    Gap,
    OldSkip,
    EntryBytes,
    /// The same for a copy that is not in the map.
    CopySkip,
    CopyBytes,
    /// A match in the dictionary: bytes, and how far back, for short and for long ones.
    MatchBytes,
    RepeatBytes,
    ShortDistance,
    LongDistance,
}

/// Kinds of numbers.
const KINDS: usize = 16;
const _: () = assert!((Number::LongDistance as usize) < KINDS);

/// Slots of one kind: the tree of lengths, the first bits by length, the last bits.
const KIND_SLOTS: usize = 256;
const FIRST_BITS: usize = 64;
const LAST_BITS: usize = FIRST_BITS + 33 * 4;
const SIGN: usize = LAST_BITS + 16;
const _: () = assert!(SIGN + 4 <= KIND_SLOTS);

/// log2 of all slots.
const SLOTS_LOG2: u8 = 12;
const _: () = assert!(KINDS * KIND_SLOTS == 1 << SLOTS_LOG2);

/// Limit of the number of observations that count (SPEC section 5.5).
const LIMIT: u32 = 15;

/// The models of all numbers.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    slots: Slots<u16>,
}

impl Numbers {
    /// Bytes of memory.
    pub(super) const BYTES: usize = size_of::<u16>() << SLOTS_LOG2;

    pub(super) fn new() -> Self {
        Self { slots: Slots::new(SLOTS_LOG2) }
    }

    pub(super) fn all_mut(&mut self) -> &mut [u16] {
        self.slots.all_mut()
    }

    /// Codes a number.
    pub(super) fn code(&mut self, coder: &mut impl Coder, kind: Number, value: u32) -> u32 {
        let base = kind as usize * KIND_SLOTS;
        let length = 32 - value.leading_zeros();
        let mut node = 1;
        for at in (0..6).rev() {
            let bit = self.slots.bit(coder, base + node, LIMIT, length >> at & 1 != 0);
            node = node << 1 | usize::from(bit);
        }
        let length = u32::try_from(node - 64).unwrap_or(0).min(32);
        if length < 2 {
            return length;
        }
        let mut result = 1_u32;
        let below = length - 1;
        for at in (0..below).rev() {
            let bit = value >> at & 1 != 0;
            let done = below - 1 - at;
            let index = if done < 2 {
                Some(FIRST_BITS + length as usize * 4 + (1 << done | (result as usize & ((1 << done) - 1))))
            } else if at < 2 {
                Some(LAST_BITS + at as usize * 4 + (result as usize & 1))
            } else {
                None
            };
            let bit = match index {
                Some(index) => self.slots.bit(coder, base + index, LIMIT, bit),
                None => coder.bit(1 << 15, bit),
            };
            result = result << 1 | u32::from(bit);
        }
        result
    }

    /// Codes a number with a sign.
    pub(super) fn code_signed(&mut self, coder: &mut impl Coder, kind: Number, value: i64) -> i64 {
        let magnitude = u32::try_from(value.unsigned_abs()).unwrap_or(u32::MAX);
        let magnitude = self.code(coder, kind, magnitude);
        if magnitude == 0 {
            return 0;
        }
        let minus = self.slots.bit(coder, kind as usize * KIND_SLOTS + SIGN, LIMIT, value < 0);
        if minus { -i64::from(magnitude) } else { i64::from(magnitude) }
    }

    /// Codes a decision about numbers of this kind; `which` is 0 to 2.
    pub(super) fn flag(&mut self, coder: &mut impl Coder, kind: Number, which: usize, bit: bool) -> bool {
        self.slots.bit(coder, kind as usize * KIND_SLOTS + SIGN + 1 + which.min(2), LIMIT, bit)
    }

    /// Codes 64 bits in two halves.
    pub(super) fn code_wide(&mut self, coder: &mut impl Coder, value: u64) -> u64 {
        let high = self.code(coder, Number::SegmentHigh, u32::try_from(value >> 32).unwrap_or(0));
        let low = self.code(coder, Number::SegmentLow, u32::try_from(value & 0xffff_ffff).unwrap_or(0));
        u64::from(high) << 32 | u64::from(low)
    }
}

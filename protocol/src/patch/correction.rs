//! Codes corrections: for each unit, whether its prediction is wrong; for a wrong unit, which bytes are wrong
//! and what they are.

use super::literal::{hash, spread};
use super::model::{Mixer, Slots};
use super::predict::CHUNK;
use super::range::Coder;

/// A chunk that was copied and predicted, with what surrounds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'c> {
    /// Bytes, at most [`CHUNK`].
    pub(super) len: usize,
    /// Place in the new image of the first.
    pub(super) at: u32,
    /// The predicted bytes, and for each the label of the reference that it is part of.
    pub(super) predicted: &'c [u8; CHUNK],
    pub(super) kinds: &'c [u8; CHUNK],
    /// The bytes of the old image.
    pub(super) old: &'c [u8; CHUNK],
    /// Bytes of a unit: 2 or 4.
    pub(super) unit: usize,
    /// How the block is predicted.
    pub(super) mode: u8,
    /// Bytes from the start of the copy, and to its end.
    pub(super) from_start: u32,
    pub(super) to_end: u32,
    /// The eight bytes before.
    pub(super) before: u64,
}

const FLAG_INPUTS: usize = 6;
const BYTE_INPUTS: usize = 6;
/// Limit of the number of observations that count (SPEC section 5.5).
const FLAG_LIMIT: u32 = 250;
const BYTE_LIMIT: u32 = 14;

/// The models of corrections.
#[derive(Clone, Debug)]
pub(super) struct Corrections {
    flags: Slots<u32>,
    bytes: Slots<u16>,
    unit_mixer: Mixer<FLAG_INPUTS>,
    byte_mixer: Mixer<3>,
    value_mixer: Mixer<BYTE_INPUTS>,
    /// For each of the last units, whether it was wrong.
    history: u32,
    /// Number of right units since one was wrong.
    run: u32,
    /// The value that was last added to a predicted byte, for each place in a unit.
    deltas: [u8; 4],
}

const UNIT_SETS_LOG2: u8 = 5;
const BYTE_SETS_LOG2: u8 = 4;
const VALUE_SETS_LOG2: u8 = 6;

impl Corrections {
    /// Bytes of memory besides the slots.
    pub(super) const FIXED_BYTES: usize = (size_of::<[i32; FLAG_INPUTS]>() << UNIT_SETS_LOG2)
        + (size_of::<[i32; 3]>() << BYTE_SETS_LOG2)
        + (size_of::<[i32; BYTE_INPUTS]>() << VALUE_SETS_LOG2);

    pub(super) fn new(flags_log2: u8, bytes_log2: u8) -> Self {
        Self {
            flags: Slots::new(flags_log2),
            bytes: Slots::new(bytes_log2),
            unit_mixer: Mixer::new(UNIT_SETS_LOG2, 4, 20_000),
            byte_mixer: Mixer::new(BYTE_SETS_LOG2, 4, 30_000),
            value_mixer: Mixer::new(VALUE_SETS_LOG2, 6, 24_000),
            history: 0,
            run: 0,
            deltas: [0; 4],
        }
    }

    pub(super) fn slots_mut(&mut self) -> (&mut [u32], &mut [u16]) {
        (self.flags.all_mut(), self.bytes.all_mut())
    }

    pub(super) fn weights_mut(&mut self) -> impl Iterator<Item = &mut i32> {
        let (units, bytes, values) = (&mut self.unit_mixer, &mut self.byte_mixer, &mut self.value_mixer);
        units.all_mut().chain(bytes.all_mut()).chain(values.all_mut())
    }

    pub(super) fn scalars_mut(&mut self) -> (&mut u32, &mut u32, &mut [u8; 4]) {
        (&mut self.history, &mut self.run, &mut self.deltas)
    }

    /// Codes a chunk. In an encoder `bytes` has what the chunk should become; a decoder puts the result
    /// there.
    pub(super) fn code(&mut self, coder: &mut impl Coder, chunk: &Chunk<'_>, bytes: &mut [u8; CHUNK]) {
        let mut before = chunk.before;
        let mut at = 0;
        while at < chunk.len {
            // Units stand on multiples of their size in the new image.
            let place = chunk.at as usize + at;
            let end = at + (chunk.unit - place % chunk.unit).min(chunk.len - at);
            self.unit(coder, chunk, at..end, &mut before, bytes);
            at = end;
        }
    }

    fn unit(
        &mut self,
        coder: &mut impl Coder,
        chunk: &Chunk<'_>,
        range: core::ops::Range<usize>,
        before: &mut u64,
        bytes: &mut [u8; CHUNK],
    ) {
        let predicted = |at: usize| chunk.predicted.get(at).copied().unwrap_or(0);
        let kind = chunk.kinds.get(range.start).copied().unwrap_or(0);
        let value = range.clone().fold(0_u64, |value, at| value << 8 | u64::from(predicted(at)));
        let whole = value | (range.len() as u64) << 32;
        let right = bytes.get(range.clone()) == chunk.predicted.get(range.clone());
        let last = self.history & 0xff;
        let ends = bucket(chunk.from_start.saturating_add(offset(range.start))) << 3
            | bucket(chunk.to_end.saturating_sub(offset(range.start)));
        let top = predicted(range.end.saturating_sub(1));
        let contexts = [
            hash(1, u64::from(kind) << 16 | u64::from(last & 7) << 3 | u64::from(chunk.mode)),
            hash(2, u64::from(last) << 8 | u64::from(kind >> 5)),
            hash(3, u64::from(top) << 8 | u64::from(kind)),
            hash(4, u64::from(bucket(self.run)) << 8 | u64::from(kind)),
            hash(5, u64::from(ends) << 2 | u64::from(last & 3)),
            hash(6, whole << 3 | u64::from(chunk.mode)),
        ];
        let set = usize::from(kind >> 5) << 3 | usize::from(chunk.mode & 7);
        let wrong = self.unit_mixer.bit(coder, &mut self.flags, contexts, set, FLAG_LIMIT, !right);
        self.history = self.history << 1 | u32::from(wrong);
        if !wrong {
            self.run = self.run.saturating_add(1);
            for at in range {
                let byte = predicted(at);
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
                *before = *before << 8 | u64::from(byte);
            }
            return;
        }
        self.run = 0;
        let (mut changed, last_at) = (0_u64, range.end - 1);
        for at in range.clone() {
            let actual = bytes.get(at).copied().unwrap_or(0);
            let place = (at - range.start) & 3;
            let same = actual == predicted(at);
            // At least one byte of the unit is wrong.
            let same = if at == last_at && changed == 0 {
                false
            } else {
                let context = (place as u64) << 8 | u64::from(kind);
                let contexts = [
                    hash(7, context << 8 | changed),
                    hash(8, (whole << 8 | changed) << 2 | place as u64),
                    hash(9, (u64::from(predicted(at)) << 8 | changed) << 2 | place as u64),
                ];
                let set = place << 2 | usize::from(kind >> 5);
                !self.byte_mixer.bit(coder, &mut self.flags, contexts, set, FLAG_LIMIT, !same)
            };
            let byte = if same {
                predicted(at)
            } else {
                self.value(coder, chunk, at, place, kind, whole << 8 | changed, *before, actual)
            };
            changed = changed << 1 | u64::from(!same);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            *before = *before << 8 | u64::from(byte);
        }
    }

    fn value(
        &mut self,
        coder: &mut impl Coder,
        chunk: &Chunk<'_>,
        at: usize,
        place: usize,
        kind: u8,
        unit: u64,
        before: u64,
        actual: u8,
    ) -> u8 {
        let predicted = chunk.predicted.get(at).copied().unwrap_or(0);
        let old = chunk.old.get(at).copied().unwrap_or(0);
        let delta = self.deltas.get(place).copied().unwrap_or(0);
        let label = (place as u64) << 8 | u64::from(kind);
        let contexts = [
            hash(10, label << 8 | u64::from(predicted)),
            hash(11, unit << 2 | place as u64),
            hash(12, label << 8 | u64::from(predicted.wrapping_add(delta))),
            hash(13, label << 8 | u64::from(old)),
            hash(14, label << 8 | before & 0xff),
            hash(15, label << 16 | before & 0xffff),
        ];
        let mut node = 1_usize;
        for bit in (0..8).rev() {
            let spread = spread(node);
            let indices = contexts.map(|context| context ^ spread);
            let set = place << 3 | bit;
            let bit = self.value_mixer.bit(
                coder,
                &mut self.bytes,
                indices,
                set,
                BYTE_LIMIT,
                actual >> bit & 1 != 0,
            );
            node = node << 1 | usize::from(bit);
        }
        let byte = u8::try_from(node & 0xff).unwrap_or(0);
        if let Some(delta) = self.deltas.get_mut(place) {
            *delta = byte.wrapping_sub(predicted);
        }
        byte
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The rough size of a number, as 0 to 7.
fn bucket(value: u32) -> u32 {
    (32 - value.leading_zeros()).div_ceil(2).min(7)
}

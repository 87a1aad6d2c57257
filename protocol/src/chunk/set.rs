//! Sets of chunk numbers, such as the chunks that are held.

use alloc::boxed::Box;
use core::ops::Range;

use crate::ids::ChunkIndex;

/// A set of chunk numbers below a fixed count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSet {
    words: Box<[u64]>,
    count: u32,
    held: u32,
    watermark: u32,
}

impl ChunkSet {
    /// The empty set for a payload of `count` chunks.
    #[must_use]
    pub fn empty(count: u32) -> Self {
        let words = (0..count.div_ceil(64)).map(|_| 0).collect();
        Self { words, count, held: 0, watermark: 0 }
    }

    /// The chunks `0..watermark` and those whose bits are set in `bitmap`, which starts at the watermark (bit
    /// 0 of byte 0 first). Bits beyond `count` are ignored.
    #[must_use]
    pub fn from_parts(count: u32, watermark: u32, bitmap: &[u8]) -> Self {
        let mut set = Self::empty(count);
        (0..watermark.min(count)).for_each(|chunk| {
            set.insert(ChunkIndex(chunk));
        });
        for (byte, at) in bitmap.iter().zip((0..).step_by(8)) {
            for bit in 0..8 {
                if byte >> bit & 1 == 1 {
                    set.insert(ChunkIndex(watermark.saturating_add(at + bit)));
                }
            }
        }
        set
    }

    /// Chunks in the set.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.held
    }

    /// Whether no chunk is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Whether every chunk of the payload is in the set.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.held == self.count
    }

    /// The first chunk that is not in the set, or the number of chunks if all are in it.
    #[must_use]
    pub fn watermark(&self) -> u32 {
        self.watermark
    }

    /// Whether `chunk` is in the set.
    #[must_use]
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        self.words.get((chunk.0 / 64) as usize).is_some_and(|word| word >> (chunk.0 % 64) & 1 == 1)
    }

    /// Adds `chunk`; `false` if it was in the set already or the payload has no such chunk.
    pub fn insert(&mut self, chunk: ChunkIndex) -> bool {
        let bit = 1 << (chunk.0 % 64);
        let word = match self.words.get_mut((chunk.0 / 64) as usize) {
            Some(word) if chunk.0 < self.count && *word & bit == 0 => word,
            _ => return false,
        };
        *word |= bit;
        self.held += 1;
        if chunk.0 == self.watermark {
            self.watermark = self.next_missing(chunk.0).unwrap_or(self.count);
        }
        true
    }

    /// Removes `chunk`; `false` if it was not in the set.
    pub fn remove(&mut self, chunk: ChunkIndex) -> bool {
        let bit = 1 << (chunk.0 % 64);
        match self.words.get_mut((chunk.0 / 64) as usize) {
            Some(word) if *word & bit != 0 => *word &= !bit,
            _ => return false,
        }
        self.held -= 1;
        self.watermark = self.watermark.min(chunk.0);
        true
    }

    /// The first chunk at or after `from` that is not in the set.
    #[must_use]
    pub fn next_missing(&self, from: u32) -> Option<u32> {
        let mut at = from;
        while let Some(word) = self.words.get((at / 64) as usize) {
            let missing = !word >> (at % 64);
            if missing != 0 {
                at += missing.trailing_zeros();
                return (at < self.count).then_some(at);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// The chunks of `range` that are not in the set, ascending.
    pub fn missing_in(&self, range: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        let end = range.end.min(self.count);
        core::iter::successors(self.next_missing(range.start), |at| self.next_missing(at + 1))
            .take_while(move |at| *at < end)
    }

    /// Writes the bits from the watermark on into `bitmap`, as [`ChunkSet::from_parts`] reads them.
    pub fn write_bitmap(&self, bitmap: &mut [u8]) {
        for (byte, at) in bitmap.iter_mut().zip((0..).step_by(8)) {
            *byte = (0..8).fold(0, |byte, bit| {
                let chunk = ChunkIndex(self.watermark.saturating_add(at + bit));
                byte | (u8::from(self.contains(chunk)) << bit)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(
            count in 1u32..300,
            steps in proptest::collection::vec((any::<bool>(), 0u32..300), 0..200),
        ) {
            let mut set = ChunkSet::empty(count);
            let mut model = alloc::collections::BTreeSet::new();
            for (insert, chunk) in steps {
                if insert {
                    prop_assert_eq!(set.insert(ChunkIndex(chunk)), chunk < count && model.insert(chunk));
                } else {
                    prop_assert_eq!(set.remove(ChunkIndex(chunk)), model.remove(&chunk));
                }
                prop_assert_eq!((set.len() as usize, set.is_empty()), (model.len(), model.is_empty()));
                let missing: Vec<u32> = (0..count).filter(|chunk| !model.contains(chunk)).collect();
                prop_assert_eq!(set.watermark(), missing.first().copied().unwrap_or(count));
                prop_assert_eq!(set.missing_in(0..count).collect::<Vec<_>>(), missing);
            }
            for from in 0..count + 70 {
                let next = (from..count).find(|chunk| !model.contains(chunk));
                prop_assert_eq!(set.next_missing(from), next);
            }
            let mut bitmap = [0; 40];
            set.write_bitmap(&mut bitmap);
            prop_assert_eq!(&ChunkSet::from_parts(count, set.watermark(), &bitmap), &set);
        }
    }

    #[test]
    fn bits_beyond_the_payload_are_ignored() {
        let set = ChunkSet::from_parts(10, 4, &[0xff; 400]);
        assert!(set.is_complete());
        assert!(ChunkSet::from_parts(10, u32::MAX, &[0xff]).is_complete());
    }
}

//! Finds the longest piece of some bytes in the old image.
//!
//! Only blocks that differ are sorted, so that what an image has twice, or does not use, takes no memory and no time.

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

use core::ops::Range;
use std::collections::HashSet;

/// Bytes of a block; file systems have blocks of this size.
pub(super) const BLOCK: usize = 4096;
const BLOCK_U32: u32 = 4096;
/// If fewer than one block in this many repeats, all are sorted: a copy of the others would take more memory than is
/// saved.
const REPEATS_MIN: usize = 8;

/// The old image with its suffixes in order.
#[derive(Debug)]
pub(super) struct Suffixes<'o> {
    old: &'o [u8],
    sorted: Vec<u32>,
    /// For each block that was sorted the next one that was; empty if all were.
    next: Vec<u32>,
}

impl<'o> Suffixes<'o> {
    /// Sorts the suffixes of `old`: 4 bytes of memory for each of its bytes that were sorted, and while that goes on a
    /// copy of them, if they are not all.
    pub(super) fn of(old: &'o [u8]) -> Self {
        let kept = distinct(old);
        if old.len().div_ceil(BLOCK) - kept.len() <= old.len() / BLOCK / REPEATS_MIN {
            return Self { old, sorted: sort(old, |at| at), next: Vec::new() };
        }
        let mut text = Vec::with_capacity(kept.len() * BLOCK);
        let mut next = vec![u32::MAX; old.len().div_ceil(BLOCK)];
        let mut last = None;
        for block in &kept {
            let start = *block as usize * BLOCK;
            text.extend_from_slice(&old[start..old.len().min(start + BLOCK)]);
            if let Some(last) = last.replace(*block) {
                next[last as usize] = *block;
            }
        }
        let in_old = |at: u32| kept[(at / BLOCK_U32) as usize] * BLOCK_U32 + at % BLOCK_U32;
        Self { old, sorted: sort(&text, in_old), next }
    }

    /// Place and length of the longest piece in the old image that is a prefix of `wanted`.
    pub(super) fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        let (mut low, mut high) = (0, self.sorted.len());
        let (mut low_common, mut high_common) = (0, 0);
        let mut best = (0, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.sorted[middle] as usize;
            let (common, follows) = self.common(at, wanted, low_common.min(high_common));
            if common > best.1 {
                best = (at, common);
            }
            if common == wanted.len() {
                break;
            }
            if follows < wanted.get(common).copied() {
                (low, low_common) = (middle + 1, common);
            } else {
                (high, high_common) = (middle, common);
            }
        }
        let (at, len) = best;
        // Behind a block whose next one was not sorted, the image goes on otherwise than what was sorted.
        let sure = if self.next.is_empty() { len } else { len.min(BLOCK - at % BLOCK) };
        if sure < len || (sure == BLOCK - at % BLOCK && !self.next.is_empty()) {
            return (at, sure + common(&self.old[at + sure..], &wanted[sure..]));
        }
        best
    }

    /// How many bytes `wanted` has in common with what was sorted from `at` on, at least `known`, and the byte that
    /// follows there.
    fn common(&self, mut at: usize, wanted: &[u8], known: usize) -> (usize, Option<u8>) {
        if self.next.is_empty() {
            let suffix = &self.old[at..];
            let known = known.min(suffix.len());
            let len = known + common(&suffix[known..], &wanted[known..]);
            return (len, suffix.get(len).copied());
        }
        let mut done = 0;
        loop {
            let end = self.old.len().min((at / BLOCK + 1) * BLOCK);
            let block = &self.old[at..end];
            let skip = known.saturating_sub(done).min(block.len());
            let len = skip + common(&block[skip..], wanted.get(done + skip..).unwrap_or_default());
            done += len;
            let next = self.next[at / BLOCK];
            if len < block.len() || done >= wanted.len() {
                let follows = block.get(len).copied();
                return (done, follows);
            }
            if next == u32::MAX {
                return (done, None);
            }
            at = next as usize * BLOCK;
        }
    }
}

/// Sorts the suffixes of `text`, and says of each where it is in the image.
fn sort(text: &[u8], in_image: impl Fn(u32) -> u32) -> Vec<u32> {
    let (_, sorted) = divsufsort::sort(text).into_parts();
    // The list keeps its memory.
    sorted.into_iter().map(|at| in_image(at.cast_unsigned())).collect()
}

/// The blocks that are sorted, in order: of equal ones the first. One that follows upon a block that differs from all
/// before it stays too, because what is at that block's end goes on there. Of the longest row of zeros the beginning
/// stays, so that a long row finds it and no shorter one.
#[expect(clippy::cast_possible_truncation, reason = "images are smaller than 4 GiB")]
fn distinct(image: &[u8]) -> Vec<u32> {
    let zeros = zeros(image);
    let mut seen = HashSet::new();
    let mut differs = true;
    let mut kept = Vec::new();
    for (at, block) in image.chunks(BLOCK).enumerate() {
        let stays = differs;
        differs = seen.insert(block);
        if differs || stays || zeros.contains(&at) {
            kept.push(at as u32);
        }
    }
    kept
}

/// Blocks that stay of the longest row of zeros.
const ZERO_BLOCKS: usize = 8;

/// The beginning of the longest row of blocks of zeros.
fn zeros(image: &[u8]) -> Range<usize> {
    let (mut longest, mut row) = (0..0, 0..0);
    for (at, block) in image.chunks(BLOCK).enumerate() {
        if block.iter().all(|byte| *byte == 0) {
            row = if row.end == at { row.start..at + 1 } else { at..at + 1 };
            longest = if row.len() > longest.len() { row.clone() } else { longest };
        }
    }
    longest.start..longest.end.min(longest.start + ZERO_BLOCKS)
}

/// How many bytes are the same at the start.
pub(super) fn common(one: &[u8], other: &[u8]) -> usize {
    let len = one.len().min(other.len());
    let (one, other) = (&one[..len], &other[..len]);
    let words = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
    let mut at = 0;
    for (a, b) in words {
        let differs = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differs != 0 {
            return at + (differs.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + one[at..].iter().zip(&other[at..]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of noise by their numbers; 0 is one of zeros.
    fn image(blocks: &[u8], tail: usize) -> Vec<u8> {
        let noise = |number: u8, at: u32| {
            let mixed = (u32::from(number) << 16 | at)
                .wrapping_mul(0x9e37_79b1)
                .rotate_left(13)
                .wrapping_mul(0x85eb_ca6b);
            if number == 0 { 0 } else { mixed.to_be_bytes()[0] }
        };
        let block = |number: &u8| (0..4096).map(|at| noise(*number, at)).collect::<Vec<_>>();
        let mut image: Vec<u8> = blocks.iter().flat_map(block).collect();
        image.extend((0..10_000).map(|at| noise(99, at)).take(tail));
        image
    }

    fn longest_of_all(old: &[u8], wanted: &[u8]) -> usize {
        (0..old.len()).map(|at| common(&old[at..], wanted)).max().unwrap_or(0)
    }

    #[test]
    fn blocks_that_repeat_are_sorted_once() {
        assert!(Suffixes::of(&vec![0; 1 << 20]).sorted.len() <= (ZERO_BLOCKS + 1) * BLOCK);
        let twice = image(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6], 0);
        // The first that repeats stays, because the block before it goes on with it.
        assert_eq!(Suffixes::of(&twice).sorted.len(), 7 * BLOCK);
        let gaps = image(&[1, 0, 0, 2, 0, 0, 0, 0, 3, 0, 1, 2, 3, 1, 2, 3], 0);
        let (place, len) = Suffixes::of(&gaps).longest(&vec![0; 5 * BLOCK]);
        assert_eq!((place, len), (4 * BLOCK, 4 * BLOCK), "the longest row of zeros is found");
        let differ = image(&[1, 2, 3, 4, 5, 6, 7, 8], 100);
        assert_eq!(Suffixes::of(&differ).sorted.len(), differ.len());
    }

    #[test]
    fn the_longest_piece_is_found_also_where_blocks_repeat() {
        let old = image(&[1, 2, 0, 0, 0, 3, 1, 2, 4, 0, 0, 5, 2, 3], 777);
        let suffixes = Suffixes::of(&old);
        assert!(suffixes.sorted.len() < old.len());
        let new = image(&[3, 0, 0, 0, 0, 5, 2, 4, 1, 2, 0, 3], 500);
        let ends = (1..12).flat_map(|block| [9, 5, 1].map(|before| block * BLOCK - before));
        for at in (0..new.len()).step_by(997).chain(ends) {
            let wanted = &new[at..new.len().min(at + 9000)];
            let (place, len) = suffixes.longest(wanted);
            assert_eq!(old[place..place + len], wanted[..len], "at {at}");
            // What goes on over the end of a block may be found at its other copy.
            let most = longest_of_all(&old, wanted);
            assert!(len == most || len >= (BLOCK - at % BLOCK).min(most), "at {at}: {len} of {most}");
        }
    }

    #[test]
    fn bytes_in_common_are_counted_to_the_first_that_differs() {
        let one: Vec<u8> = (0..100).collect();
        for at in 0..100 {
            let mut other = one.clone();
            other[at] ^= 0x80;
            assert_eq!(common(&one, &other), at);
            assert_eq!(common(&one, &one[..at]), at);
        }
    }
}

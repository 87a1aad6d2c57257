//! Finds out what a flat image is: its architecture, its load address, and the addresses of its memory.
//!
//! It counts instructions that every compiler emits very often. For each possible load address it counts the words
//! that would point to the start of a function; the address with the most is taken.

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

use std::collections::HashMap;

use whimbrel_protocol::patch::Architecture;

/// What was found of a flat image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flat {
    pub(super) load_address: u64,
    /// Whether pointers have 8 bytes.
    pub(super) wide: bool,
    /// High bytes of addresses of memory outside the image.
    pub(super) memory: [u8; 2],
}

/// Most bytes of an image that are looked at.
const LOOK_BYTES: usize = 4 << 20;
/// A load address is a multiple of this.
const GRAIN: u64 = 0x100;
/// If fewer words than this point to functions, they may do so by chance.
const VOTES_MIN: usize = 8;

/// The architectures that the image's code may be, the likeliest first, [`Architecture::None`] last.
pub(super) fn architectures(image: &[u8]) -> Vec<Architecture> {
    let image = &image[..image.len().min(LOOK_BYTES)];
    let mut scored: Vec<(usize, Architecture)> = Architecture::ALL
        .into_iter()
        .map(|architecture| (returns(image, architecture), architecture))
        .collect();
    scored.sort_by_key(|(score, _)| core::cmp::Reverse(*score));
    // Code has a return every few kilobytes; anything with fewer is no code.
    let least = image.len() / 8192 + 2;
    let likely = scored.iter().filter(|(score, _)| *score >= least).take(2);
    likely.map(|(_, architecture)| *architecture).chain([Architecture::None]).collect()
}

/// Instructions that return from a function, at places where instructions stand.
fn returns(image: &[u8], architecture: Architecture) -> usize {
    let halves = || image.chunks_exact(2).map(|half| u16::from_le_bytes([half[0], half[1]]));
    let words = || image.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    match architecture {
        Architecture::None => 0,
        Architecture::Arm64 => words().filter(|word| *word == 0xd65f_03c0).count(),
        // BX LR, POP {.., PC}
        Architecture::Thumb => halves().filter(|half| *half == 0x4770 || half & 0xff00 == 0xbd00).count(),
        // BX LR, LDMFD SP!, {.., PC}
        Architecture::Arm => {
            words().filter(|word| *word == 0xe12f_ff1e || word & 0xffff_8000 == 0xe8bd_8000).count()
        }
        Architecture::RiscV => {
            halves().filter(|half| *half == 0x8082).count() + words().filter(|word| *word == 0x8067).count()
        }
        // RET before padding or the next function: after LEAVE or POP.
        Architecture::X86 => image
            .windows(2)
            .filter(|pair| pair[1] == 0xc3 && (pair[0] == 0xc9 || (0x58..=0x5f).contains(&pair[0])))
            .count(),
    }
}

/// Finds where a flat image of this architecture runs.
pub(super) fn look(image: &[u8], architecture: Architecture) -> Flat {
    let image = &image[..image.len().min(LOOK_BYTES)];
    let memory = memory(image, architecture);
    let wide_first = matches!(architecture, Architecture::Arm64 | Architecture::RiscV | Architecture::X86);
    let widths: &[bool] = match architecture {
        // The halves of long words count as much as whole words do. If several are equal, the last one is
        // taken.
        Architecture::RiscV => &[false, true],
        _ if wide_first => &[true],
        _ => &[false],
    };
    let starts = starts(image, architecture);
    let best = widths.iter().map(|wide| (vote(image, &starts, architecture, *wide), *wide));
    let ((votes, load_address), wide) = best.max_by_key(|((votes, _), _)| *votes).unwrap_or_default();
    if votes < VOTES_MIN {
        return Flat { load_address: 0, wide: wide_first, memory };
    }
    Flat { load_address, wide, memory }
}

/// Places where functions begin.
fn starts(image: &[u8], architecture: Architecture) -> Vec<u64> {
    let step = match architecture {
        Architecture::Arm64 | Architecture::Arm => 4,
        Architecture::X86 => 16,
        _ => 2,
    };
    let is_start = |at: usize| {
        let Some(&[a, b, c, d]) = image.get(at..).and_then(|bytes| bytes.first_chunk()) else {
            return false;
        };
        let (half, word) = (u16::from_le_bytes([a, b]), u32::from_le_bytes([a, b, c, d]));
        match architecture {
            Architecture::None => false,
            // STP X29, X30, [SP, #-n]!; PACIASP; BTI C
            Architecture::Arm64 => {
                word & 0xffc0_7fff == 0xa980_7bfd || word == 0xd503_233f || word == 0xd503_245f
            }
            // PUSH {.., LR}
            Architecture::Thumb => half & 0xff00 == 0xb500 || half == 0xe92d,
            Architecture::Arm => word & 0xffff_4000 == 0xe92d_4000,
            // ADDI SP, SP, -n in both lengths
            Architecture::RiscV => {
                half & 0xff83 == 0x1101 || half & 0xff83 == 0x7101 || word & 0x800f_ffff == 0x8001_0113
            }
            Architecture::X86 => {
                word == 0xfa1e_0ff3 || a == 0x55 || (a == 0x41 && (0x54..=0x57).contains(&b))
            }
        }
    };
    (0..image.len()).step_by(step).filter(|at| is_start(*at)).map(|at| at as u64).collect()
}

/// Most starts of functions, and most words, that are compared with each other.
const STARTS_MAX: usize = 1500;
const WORDS_MAX: usize = 3000;

/// The load address with which most words point to starts of functions, and their number.
fn vote(image: &[u8], starts: &[u64], architecture: Architecture, wide: bool) -> (usize, u64) {
    let thumb = u64::from(architecture == Architecture::Thumb);
    let size = if wide { 8 } else { 4 };
    let words = image
        .chunks_exact(size)
        .map(|word| word.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)));
    let mut words: Vec<u64> =
        words.filter(|word| *word > 2 * GRAIN && word & 1 == thumb).map(|word| word - thumb).collect();
    words.sort_unstable();
    words.dedup();
    let sample = |len: usize, most: usize| len.div_ceil(most).max(1);
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for word in words.iter().step_by(sample(words.len(), WORDS_MAX)) {
        for start in starts.iter().step_by(sample(starts.len(), STARTS_MAX)) {
            if let Some(base) = word.checked_sub(*start).filter(|base| base % GRAIN == 0) {
                *votes.entry(base).or_default() += 1;
            }
        }
    }
    // If several are equal, the lowest is taken, so that the same image always gives the same answer.
    votes
        .into_iter()
        .map(|(base, count)| (count, base))
        .max_by_key(|(count, base)| (*count, !base))
        .unwrap_or((0, 0))
}

/// The high bytes of a microcontroller's memory addresses. The first word of a Cortex-M image points to its
/// stack.
fn memory(image: &[u8], architecture: Architecture) -> [u8; 2] {
    if !matches!(architecture, Architecture::Thumb | Architecture::Arm | Architecture::RiscV) {
        return [0; 2];
    }
    let mut counts = [0_usize; 256];
    for word in image.chunks_exact(4) {
        let middle = u16::from_le_bytes([word[1], word[2]]);
        if word[3] != 0 && middle != 0 {
            counts[usize::from(word[3])] += 1;
        }
    }
    // The usual places of static memory: tightly coupled, main, and those of larger parts.
    let mut usual: Vec<(usize, u8)> =
        [0x20, 0x10, 0x1f, 0x24, 0x30].into_iter().map(|high| (counts[usize::from(high)], high)).collect();
    usual.sort_by_key(|(count, _)| core::cmp::Reverse(*count));
    let most = usual.first().map_or(0, |(count, _)| *count);
    let mut memory = [0; 2];
    for (place, (count, high)) in memory.iter_mut().zip(usual) {
        if count >= VOTES_MIN.max(most / 16) {
            *place = high;
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: usize = 40;

    /// Makes an image of functions that begin with `start`, at different distances. Behind them are words
    /// that point to each function plus `offset`, for an image that runs at each of `bases`.
    fn image(start: &[u8], size: usize, bases: &[u64], offset: u64) -> Vec<u8> {
        let mut image = Vec::new();
        let mut starts = Vec::new();
        for function in 0..FUNCTIONS {
            starts.push(image.len() as u64);
            image.extend_from_slice(start);
            // Distances of no common period: only the right load address fits them all.
            image.resize(image.len() + 16 * (1 + function * function % 23), 0);
        }
        for base in bases {
            let words = starts.iter().map(|start| base + start + offset);
            image.extend(words.flat_map(|word| word.to_le_bytes()[..size].to_vec()));
        }
        image
    }

    #[test]
    fn a_flat_image_runs_where_its_words_point_to_starts_of_functions() {
        let push_lr = 0xb510_u16.to_le_bytes();
        let thumb = image(&push_lr, 4, &[0x0800_4000], 1);
        let found = look(&thumb, Architecture::Thumb);
        assert_eq!((found.load_address, found.wide), (0x0800_4000, false));
        let arm64 = image(&0xa9bf_7bfd_u32.to_le_bytes(), 8, &[0xffff_8000_0008_0000], 0);
        let found = look(&arm64, Architecture::Arm64);
        assert_eq!((found.load_address, found.wide), (0xffff_8000_0008_0000, true));
        let addi_sp = 0x1141_u16.to_le_bytes();
        for (size, wide) in [(4, false), (8, true)] {
            let riscv = image(&addi_sp, size, &[0x8020_0000], 0);
            let found = look(&riscv, Architecture::RiscV);
            assert_eq!((found.load_address, found.wide), (0x8020_0000, wide));
        }
    }

    /// A processor with Thumb code calls an address whose lowest bit is set.
    #[test]
    fn words_that_point_to_thumb_functions_are_odd_and_even_ones_count_for_nothing() {
        let push_lr = 0xb510_u16.to_le_bytes();
        // One odd word and three even ones for each function.
        let mut thumb = image(&push_lr, 4, &[0x0800_4000], 1);
        let decoys = image(&push_lr, 4, &[0x1000_0000, 0x1000_0000 + 0x100, 0x1000_0000 + 0x200], 0);
        thumb.extend_from_slice(&decoys[thumb.len() - 4 * FUNCTIONS..]);
        assert_eq!(look(&thumb, Architecture::Thumb).load_address, 0x0800_4000);
    }

    #[test]
    fn fewer_words_than_chance_makes_say_nothing_of_where_an_image_runs() {
        let push_lr = 0xb510_u16.to_le_bytes();
        let mut thumb = image(&push_lr, 4, &[0x0800_4000], 1);
        thumb.truncate(thumb.len() - 4 * (FUNCTIONS - VOTES_MIN));
        assert_eq!(look(&thumb, Architecture::Thumb).load_address, 0x0800_4000);
        thumb.truncate(thumb.len() - 4);
        assert_eq!(look(&thumb, Architecture::Thumb).load_address, 0);
    }

    /// The first word of a Cortex-M image is its stack; pointers to static memory have the same high byte.
    #[test]
    fn memory_is_where_words_of_its_usual_places_are_many() {
        let words = |high: u8, count: usize| {
            (0..count).flat_map(move |word| [4, u8::try_from(word).unwrap(), 0x10, high])
        };
        let image: Vec<u8> = words(0x20, 200).chain(words(0x10, 13)).chain(words(0x30, 12)).collect();
        assert_eq!(memory(&image, Architecture::Thumb), [0x20, 0x10]);
        assert_eq!(memory(&image, Architecture::Arm64), [0, 0]);
        let few: Vec<u8> = words(0x20, VOTES_MIN - 1).collect();
        assert_eq!(memory(&few, Architecture::Thumb), [0, 0]);
    }
}

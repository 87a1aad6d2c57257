//! What a flat image is: whose code, where it runs, where its memory is.
//!
//! Found by counting: instructions that every compiler emits in masses, and words that point to the starts of
//! functions from wherever the image is taken to run.

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

/// Bytes of an image that are looked at.
const LOOK_BYTES: usize = 4 << 20;
/// A load address is a multiple of this.
const GRAIN: u64 = 0x100;
/// Fewer words than this that point to functions are chance.
const VOTES_MIN: usize = 8;

/// The architectures that the image's code may be, the likeliest first, [`Architecture::None`] last.
pub(super) fn architectures(image: &[u8]) -> Vec<Architecture> {
    let image = &image[..image.len().min(LOOK_BYTES)];
    let mut scored: Vec<(usize, Architecture)> = Architecture::ALL
        .into_iter()
        .map(|architecture| (returns(image, architecture), architecture))
        .collect();
    scored.sort_by_key(|(score, _)| core::cmp::Reverse(*score));
    // A return each few kilobytes, or it is no code.
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
        Architecture::RiscV => &[true, false],
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

/// Most starts and words that are held against each other.
const STARTS_MAX: usize = 1500;
const WORDS_MAX: usize = 3000;

/// The load address that makes most words point to starts of functions, and how many.
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
    // Of equals the lowest, so that the same image gives the same answer.
    votes
        .into_iter()
        .map(|(base, count)| (count, base))
        .max_by_key(|(count, base)| (*count, !base))
        .unwrap_or((0, 0))
}

/// Where a microcontroller has its memory: the first word of a Cortex-M image is its stack.
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

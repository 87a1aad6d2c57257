//! RISC-V, 32 and 64 bit: jumps, branches, addresses in two parts, compressed jumps and branches.

use super::view::{View, distance, field, low, signed};
use super::{Reference, ReferenceKind};

/// Number of half-words before or behind in which the other part of an address is searched for.
const PAIR_REACH: u32 = 12;

/// Bytes of the instruction that begins with this half-word.
pub(super) fn len(half: u32) -> u32 {
    if half & 3 == 3 { 4 } else { 2 }
}

/// What the instruction at `at`, which runs at `address`, refers to.
pub(super) fn parse(view: View<'_>, at: u32, address: u64) -> Option<Reference> {
    let half = view.half(at)?;
    let relative =
        |value: i64, kind, len| Some(Reference::new(address.wrapping_add_signed(value), kind, len));
    if half & 3 != 3 {
        return match half & 0xe003 {
            0xa001 => relative(compressed_jump(half), ReferenceKind::ShortJump, 2),
            0xc001 | 0xe001 => relative(compressed_branch(half), ReferenceKind::ShortBranch, 2),
            _ => None,
        };
    }
    let word = view.word(at)?;
    match word & 0x7f {
        0x6f => relative(jump(word), ReferenceKind::Call, 4),
        0x63 => relative(branch(word), ReferenceKind::Branch, 4),
        0x17 | 0x37 => {
            let register = word >> 7 & 31;
            let part = (2..=PAIR_REACH).find_map(|n| {
                let other = view.word(at.checked_add(n * 2)?)?;
                low_part(other).filter(|_| other >> 15 & 31 == register)
            });
            // Without its other part a page says little, but it still moves with what is near it.
            Some(Reference::new(
                upper(word, address).wrapping_add_signed(part.unwrap_or(0)),
                upper_kind(word),
                4,
            ))
        }
        _ => {
            let part = low_part(word)?;
            let register = word >> 15 & 31;
            let (n, other) = (2..=PAIR_REACH).find_map(|n| {
                let other = view.word(at.checked_sub(n * 2)?)?;
                (matches!(other & 0x7f, 0x17 | 0x37) && other >> 7 & 31 == register).then_some((n, other))
            })?;
            let start = address.wrapping_sub(u64::from(n) * 2);
            let target = upper(other, start).wrapping_add_signed(part);
            let kind = if other & 0x7f == 0x17 { ReferenceKind::PageLow } else { ReferenceKind::Low };
            Some(Reference { behind: n * 2, ..Reference::new(target, kind, 4) })
        }
    }
}

/// The instruction `word` at `address`, made to refer to `target`; the other part stands `behind` bytes before.
pub(super) fn rewrite(word: u32, reference: &Reference, target: u64, address: u64) -> Option<u32> {
    let delta = distance(address, target);
    let value = low(target.cast_signed());
    Some(match reference.kind {
        ReferenceKind::ShortJump => with_compressed_jump(word, field(delta >> 1, 11)?),
        ReferenceKind::ShortBranch => with_compressed_branch(word, field(delta >> 1, 8)?),
        ReferenceKind::Call => with_jump(word, field(delta >> 1, 20)?),
        ReferenceKind::Branch => with_branch(word, field(delta >> 1, 12)?),
        ReferenceKind::Page => word & 0xfff | (low(delta).wrapping_add(0x800) & 0xffff_f000),
        ReferenceKind::High => word & 0xfff | (value.wrapping_add(0x800) & 0xffff_f000),
        ReferenceKind::PageLow => {
            let start = address.wrapping_sub(reference.behind.into());
            with_low_part(word, low(distance(start, target)) & 0xfff)
        }
        ReferenceKind::Low => with_low_part(word, value & 0xfff),
        _ => return None,
    })
}

/// The upper part of an address: relative to the instruction, or absolute.
fn upper(word: u32, address: u64) -> u64 {
    let value = i64::from((word & 0xffff_f000).cast_signed());
    if word & 0x7f == 0x17 { address.wrapping_add_signed(value) } else { value.cast_unsigned() & 0xffff_ffff }
}

fn upper_kind(word: u32) -> ReferenceKind {
    if word & 0x7f == 0x17 { ReferenceKind::Page } else { ReferenceKind::High }
}

/// The lower part of an address in an addition, a load, a store or an indirect jump.
fn low_part(word: u32) -> Option<i64> {
    match word & 0x7f {
        0x13 if word >> 12 & 7 == 0 => Some(signed(word >> 20, 12)),
        0x1b if word >> 12 & 7 == 0 => Some(signed(word >> 20, 12)),
        0x03 | 0x07 | 0x67 => Some(signed(word >> 20, 12)),
        0x23 | 0x27 => Some(signed((word >> 25) << 5 | word >> 7 & 31, 12)),
        _ => None,
    }
}

fn with_low_part(word: u32, part: u32) -> u32 {
    match word & 0x7f {
        0x23 | 0x27 => word & 0x01ff_f07f | (part >> 5) << 25 | (part & 31) << 7,
        _ => word & 0x000f_ffff | part << 20,
    }
}

fn jump(word: u32) -> i64 {
    let bits = (word >> 31) << 19 | (word >> 12 & 0xff) << 11 | (word >> 20 & 1) << 10 | word >> 21 & 0x3ff;
    signed(bits, 20) * 2
}

fn with_jump(word: u32, bits: u32) -> u32 {
    word & 0xfff
        | (bits >> 19) << 31
        | (bits >> 11 & 0xff) << 12
        | (bits >> 10 & 1) << 20
        | (bits & 0x3ff) << 21
}

fn branch(word: u32) -> i64 {
    let bits = (word >> 31) << 11 | (word >> 7 & 1) << 10 | (word >> 25 & 0x3f) << 4 | word >> 8 & 15;
    signed(bits, 12) * 2
}

fn with_branch(word: u32, bits: u32) -> u32 {
    word & 0x01ff_f07f
        | (bits >> 11) << 31
        | (bits >> 10 & 1) << 7
        | (bits >> 4 & 0x3f) << 25
        | (bits & 15) << 8
}

/// The places of the bits of a compressed jump's offset, from bit 1 on.
const JUMP_BITS: [u32; 11] = [3, 4, 5, 11, 2, 7, 6, 9, 10, 8, 12];
/// The places of the bits of a compressed branch's offset, from bit 1 on.
const BRANCH_BITS: [u32; 8] = [3, 4, 10, 11, 2, 5, 6, 12];

fn gather(half: u32, places: &[u32]) -> u32 {
    places.iter().enumerate().map(|(at, place)| (half >> place & 1) << at).sum()
}

fn scatter(half: u32, places: &[u32], bits: u32) -> u32 {
    places.iter().enumerate().fold(half, |half, (at, place)| half & !(1 << place) | (bits >> at & 1) << place)
}

fn compressed_jump(half: u32) -> i64 {
    signed(gather(half, &JUMP_BITS), 11) * 2
}

fn with_compressed_jump(half: u32, bits: u32) -> u32 {
    scatter(half, &JUMP_BITS, bits)
}

fn compressed_branch(half: u32) -> i64 {
    signed(gather(half, &BRANCH_BITS), 8) * 2
}

fn with_compressed_branch(half: u32, bits: u32) -> u32 {
    scatter(half, &BRANCH_BITS, bits)
}

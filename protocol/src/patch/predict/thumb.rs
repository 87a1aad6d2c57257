//! ARM Thumb-2: branches, literals, addresses in two halves.

use super::view::{View, distance, field, low, signed};
use super::{Reference, ReferenceKind};

/// Half-words before or behind in which the other half of an address is looked for.
const PAIR_REACH: u32 = 8;

/// Bytes of the instruction that begins with this half-word.
pub(super) fn len(half: u32) -> u32 {
    if half >= 0xe800 { 4 } else { 2 }
}

/// What the instruction at `at`, which runs at `address`, refers to.
pub(super) fn parse(view: View<'_>, at: u32, address: u64) -> Option<Reference> {
    let first = view.half(at)?;
    let pc = address.wrapping_add(4);
    let aligned = pc & !3;
    if len(first) == 2 {
        let words = u64::from(first & 0xff) * 4;
        let (target, kind) = match first {
            _ if first & 0xf800 == 0x4800 => (aligned.wrapping_add(words), ReferenceKind::Literal),
            _ if first & 0xf800 == 0xa000 => (aligned.wrapping_add(words), ReferenceKind::Near),
            _ if first & 0xf000 == 0xd000 && first & 0x0e00 != 0x0e00 => {
                (pc.wrapping_add_signed(signed(first, 8) * 2), ReferenceKind::ShortBranch)
            }
            _ if first & 0xf800 == 0xe000 => {
                (pc.wrapping_add_signed(signed(first, 11) * 2), ReferenceKind::Branch)
            }
            _ if first & 0xf500 == 0xb100 => {
                let halves = u64::from((first >> 9 & 1) << 5 | (first >> 3 & 31));
                (pc.wrapping_add(halves * 2), ReferenceKind::ZeroBranch)
            }
            _ => return None,
        };
        return Some(Reference::new(target, kind, 2));
    }
    let second = view.half(at.checked_add(2)?)?;
    let (target, kind) = match (first, second) {
        _ if first & 0xf800 == 0xf000 && matches!(second & 0xd000, 0xd000 | 0x9000) => {
            (pc.wrapping_add_signed(long_offset(first, second)), ReferenceKind::Call)
        }
        _ if first & 0xf800 == 0xf000 && second & 0xd000 == 0x8000 && first & 0x0380 != 0x0380 => {
            let bits = (first >> 10 & 1) << 19
                | (second >> 11 & 1) << 18
                | (second >> 13 & 1) << 17
                | (first & 0x3f) << 11
                | second & 0x7ff;
            (pc.wrapping_add_signed(signed(bits, 20) * 2), ReferenceKind::LongBranch)
        }
        _ if first & 0xff7f == 0xf85f => {
            let offset = i64::from(second & 0xfff);
            let offset = if first & 0x80 != 0 { offset } else { -offset };
            (aligned.wrapping_add_signed(offset), ReferenceKind::LongLiteral)
        }
        _ => {
            let half = half_of_address(first)?;
            let other = other_half(view, at, half, second >> 8 & 15)?;
            let value = immediate(first, second);
            let value = if half == ReferenceKind::Low { other << 16 | value } else { value << 16 | other };
            (value.into(), half)
        }
    };
    Some(Reference::new(target, kind, 4))
}

/// The instruction whose half-words are `first` and `second` at `address`, made to refer to `target`.
pub(super) fn rewrite(
    first: u32,
    second: u32,
    kind: ReferenceKind,
    target: u64,
    address: u64,
) -> Option<(u32, u32)> {
    let pc = address.wrapping_add(4);
    let delta = distance(pc, target);
    let from_aligned = distance(pc & !3, target);
    let words = |value: i64| u32::try_from(value >> 2).ok().filter(|n| *n < 256 && value & 3 == 0);
    Some(match kind {
        ReferenceKind::Literal | ReferenceKind::Near => (first & 0xff00 | words(from_aligned)?, second),
        ReferenceKind::ShortBranch => (first & 0xff00 | field(delta >> 1, 8)?, second),
        ReferenceKind::Branch => (first & 0xf800 | field(delta >> 1, 11)?, second),
        ReferenceKind::ZeroBranch => {
            let halves = u32::try_from(delta >> 1).ok().filter(|n| *n < 64)?;
            (first & !0x02f8 | (halves >> 5) << 9 | (halves & 31) << 3, second)
        }
        ReferenceKind::Call => {
            let bits = field(delta, 25)?;
            let sign = bits >> 24 & 1;
            let (one, two) = (bits >> 23 & 1 ^ 1 ^ sign, bits >> 22 & 1 ^ 1 ^ sign);
            let first = 0xf000 | sign << 10 | bits >> 12 & 0x3ff;
            (first, second & 0xd000 | one << 13 | two << 11 | bits >> 1 & 0x7ff)
        }
        ReferenceKind::LongBranch => {
            let bits = field(delta >> 1, 20)?;
            let first = first & 0xfbc0 | (bits >> 19 & 1) << 10 | bits >> 11 & 0x3f;
            (first, second & 0xd000 | (bits >> 17 & 1) << 13 | (bits >> 18 & 1) << 11 | bits & 0x7ff)
        }
        ReferenceKind::LongLiteral => {
            let offset = u32::try_from(from_aligned.unsigned_abs()).ok().filter(|n| *n < 4096)?;
            let up = u32::from(from_aligned >= 0) << 7;
            (first & !0x80 | up, second & 0xf000 | offset)
        }
        ReferenceKind::Low => with_immediate(first, second, low(target.cast_signed()) & 0xffff),
        ReferenceKind::High => with_immediate(first, second, low(target.cast_signed()) >> 16),
        _ => return None,
    })
}

fn long_offset(first: u32, second: u32) -> i64 {
    let sign = first >> 10 & 1;
    let one = second >> 13 & 1 ^ 1 ^ sign;
    let two = second >> 11 & 1 ^ 1 ^ sign;
    signed(sign << 24 | one << 23 | two << 22 | (first & 0x3ff) << 12 | (second & 0x7ff) << 1, 25)
}

/// Which half of an address a MOVW or MOVT has.
fn half_of_address(first: u32) -> Option<ReferenceKind> {
    match first & 0xfbf0 {
        0xf240 => Some(ReferenceKind::Low),
        0xf2c0 => Some(ReferenceKind::High),
        _ => None,
    }
}

fn immediate(first: u32, second: u32) -> u32 {
    (first & 15) << 12 | (first >> 10 & 1) << 11 | (second >> 12 & 7) << 8 | second & 0xff
}

fn with_immediate(first: u32, second: u32, value: u32) -> (u32, u32) {
    let first = first & 0xfbf0 | value >> 12 | (value >> 11 & 1) << 10;
    (first, second & 0x8f00 | (value >> 8 & 7) << 12 | value & 0xff)
}

/// The other half of an address that is built in `register`: a MOVT follows its MOVW.
fn other_half(view: View<'_>, at: u32, half: ReferenceKind, register: u32) -> Option<u32> {
    (2..=PAIR_REACH).find_map(|n| {
        let place = if half == ReferenceKind::Low { at.checked_add(n * 2)? } else { at.checked_sub(n * 2)? };
        let (first, second) = (view.half(place)?, view.half(place.checked_add(2)?)?);
        let other = half_of_address(first).filter(|other| *other != half)?;
        (second >> 8 & 15 == register && other != half).then(|| immediate(first, second))
    })
}

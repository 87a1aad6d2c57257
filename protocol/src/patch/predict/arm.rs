//! ARM, 32 bit instructions: branches, literals, addresses in two halves.

use super::view::{View, distance, field, low, signed};
use super::{Reference, ReferenceKind};

/// Number of instructions before or behind in which the other half of an address is searched for.
const PAIR_REACH: u32 = 8;

/// What the instruction at `at`, which runs at `address`, refers to.
pub(super) fn parse(view: View<'_>, at: u32, address: u64) -> Option<Reference> {
    let word = view.word(at)?;
    let pc = address.wrapping_add(8);
    if word & 0x0e00_0000 == 0x0a00_0000 && word >> 28 != 15 {
        return Some(Reference::new(pc.wrapping_add_signed(signed(word, 24) << 2), ReferenceKind::Call, 4));
    }
    if word & 0x0f7f_0000 == 0x051f_0000 {
        let offset = i64::from(word & 0xfff);
        let offset = if word & 0x0080_0000 != 0 { offset } else { -offset };
        return Some(Reference::new(pc.wrapping_add_signed(offset), ReferenceKind::Literal, 4));
    }
    let half = half_of_address(word)?;
    let register = word >> 12 & 15;
    let other = (1..=PAIR_REACH).find_map(|n| {
        let place = if half == ReferenceKind::Low { at.checked_add(n * 4)? } else { at.checked_sub(n * 4)? };
        let other = view.word(place)?;
        (half_of_address(other).is_some_and(|other| other != half) && other >> 12 & 15 == register)
            .then(|| immediate(other))
    })?;
    let value = immediate(word);
    let value = if half == ReferenceKind::Low { other << 16 | value } else { value << 16 | other };
    Some(Reference::new(value.into(), half, 4))
}

/// The instruction `word` at `address`, made to refer to `target`.
pub(super) fn rewrite(word: u32, kind: ReferenceKind, target: u64, address: u64) -> Option<u32> {
    let delta = distance(address.wrapping_add(8), target);
    let value = low(target.cast_signed());
    Some(match kind {
        ReferenceKind::Call => word & 0xff00_0000 | field(delta >> 2, 24)?,
        ReferenceKind::Literal => {
            let offset = u32::try_from(delta.unsigned_abs()).ok().filter(|n| *n < 4096)?;
            word & 0xff7f_f000 | u32::from(delta >= 0) << 23 | offset
        }
        ReferenceKind::Low => with_immediate(word, value & 0xffff),
        ReferenceKind::High => with_immediate(word, value >> 16),
        _ => return None,
    })
}

fn half_of_address(word: u32) -> Option<ReferenceKind> {
    match word & 0x0ff0_0000 {
        0x0300_0000 => Some(ReferenceKind::Low),
        0x0340_0000 => Some(ReferenceKind::High),
        _ => None,
    }
}

fn immediate(word: u32) -> u32 {
    word >> 4 & 0xf000 | word & 0xfff
}

fn with_immediate(word: u32, value: u32) -> u32 {
    word & 0xfff0_f000 | (value >> 12) << 16 | value & 0xfff
}

//! ARM, 64 bit: branches, page addresses with their low parts, literals.

use super::view::{View, distance, field, low, signed};
use super::{Reference, ReferenceKind, constant};

/// Number of instructions before or behind in which the other half of an address is searched for.
const PAIR_REACH: u32 = 8;

/// What the instruction at `at`, which runs at `address`, refers to.
pub(super) fn parse(view: View<'_>, at: u32, address: u64) -> Option<Reference> {
    let word = view.word(at)?;
    let relative = |value: i64, kind| Some(Reference::new(address.wrapping_add_signed(value), kind, 4));
    if word & 0x7c00_0000 == 0x1400_0000 {
        return relative(signed(word, 26) << 2, ReferenceKind::Call);
    }
    if word & 0xff00_0010 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        return relative(signed(word >> 5, 19) << 2, ReferenceKind::Branch);
    }
    if word & 0x3b00_0000 == 0x1800_0000 {
        return relative(signed(word >> 5, 19) << 2, ReferenceKind::Literal);
    }
    if word & 0x7e00_0000 == 0x3600_0000 {
        return relative(signed(word >> 5, 14) << 2, ReferenceKind::ShortBranch);
    }
    if word & 0x9f00_0000 == 0x1000_0000 {
        return relative(signed((word >> 29 & 3) | (word >> 5 & 0x7_ffff) << 2, 21), ReferenceKind::Near);
    }
    if is_page(word) {
        let page = page_of(word, address);
        let low_part = (1..=PAIR_REACH).find_map(|n| {
            let other = view.word(at.checked_add(n * 4)?)?;
            if other & 0x1f00_0000 == 0x1000_0000 && other & 31 == word & 31 {
                return Some(None);
            }
            low_part(other).filter(|_| other >> 5 & 31 == word & 31).map(Some)
        });
        let target = page.wrapping_add(low_part.flatten().unwrap_or(0).into());
        return Some(Reference::new(target, ReferenceKind::Page, 4));
    }
    if word & 0xffe0_0000 == 0x5280_0000 {
        return Some(Reference::new(constant(word & 31, word >> 5 & 0xffff), ReferenceKind::Constant, 4));
    }
    let part = low_part(word)?;
    let register = word >> 5 & 31;
    let (n, page) = (1..=PAIR_REACH).find_map(|n| {
        let other = view.word(at.checked_sub(n * 4)?)?;
        (is_page(other) && other & 31 == register).then_some((n, other))
    })?;
    let page = page_of(page, address.wrapping_sub(u64::from(n) * 4));
    Some(Reference::new(page.wrapping_add(part.into()), ReferenceKind::PageLow, 4))
}

/// The instruction `word` at `address`, made to refer to `target`.
pub(super) fn rewrite(word: u32, kind: ReferenceKind, target: u64, address: u64) -> Option<u32> {
    let delta = distance(address, target);
    Some(match kind {
        ReferenceKind::Call => word & 0xfc00_0000 | field(delta >> 2, 26)?,
        ReferenceKind::Branch | ReferenceKind::Literal => {
            word & !(0x7_ffff << 5) | field(delta >> 2, 19)? << 5
        }
        ReferenceKind::ShortBranch => word & !(0x3fff << 5) | field(delta >> 2, 14)? << 5,
        ReferenceKind::Near => with_page(word, field(delta, 21)?),
        ReferenceKind::Page => with_page(word, field(distance(address & !0xfff, target & !0xfff) >> 12, 21)?),
        ReferenceKind::Constant => word & !(0xffff << 5) | (low(target.cast_signed()) & 0xffff) << 5,
        ReferenceKind::PageLow => {
            let part = low(target.cast_signed()) & 0xfff;
            word & !(0xfff << 10) | (part >> scale(word)) << 10
        }
        _ => return None,
    })
}

fn with_page(word: u32, value: u32) -> u32 {
    word & 0x9f00_001f | (value & 3) << 29 | (value >> 2) << 5
}

fn is_page(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}

fn page_of(word: u32, address: u64) -> u64 {
    let pages = signed((word >> 29 & 3) | (word >> 5 & 0x7_ffff) << 2, 21);
    (address & !0xfff).wrapping_add_signed(pages << 12)
}

/// log2 of the unit of the immediate of an addition or an access.
fn scale(word: u32) -> u32 {
    match word {
        _ if word & 0xffc0_0000 == 0x9100_0000 => 0,
        _ if word & 0x0480_0000 == 0x0480_0000 => 4,
        _ => word >> 30,
    }
}

/// The low part of an address, if the instruction is an addition or an access that can have one.
fn low_part(word: u32) -> Option<u32> {
    let holds = word & 0xffc0_0000 == 0x9100_0000 || word & 0x3b00_0000 == 0x3900_0000;
    // A scaled offset may reach past 4,095 bytes. That is no position inside a page, so that it is not paired with an ADRP.
    holds.then(|| (word >> 10 & 0xfff) << scale(word)).filter(|part| *part < 0x1000)
}

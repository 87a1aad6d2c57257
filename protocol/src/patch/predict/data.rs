//! Predicts words of data: pointers, distances, and words that change like their neighbours.

use super::view::{View, distance, low};
use super::{Certainty, Mode, Note, Prediction, Reference, ReferenceKind, Resolver, Span};
use crate::patch::region::Region;
use crate::patch::table::Table;

/// Smaller words are numbers, not pointers.
const POINTER_MIN: u64 = 0x100;

pub(super) fn predict(resolver: &Resolver<'_>, mode: Mode, span: Span, into: &mut Prediction) {
    let wide = mode == Mode::Pointers && resolver.region.wide;
    let align = if wide { 8 } else { 4 };
    if mode == Mode::Raw || (span.old ^ span.new) & (align - 1) != 0 {
        return;
    }
    let mut at = span.old.next_multiple_of(align);
    while at.wrapping_add(align) <= span.old.wrapping_add(span.len) {
        let place = i64::from(at) - i64::from(span.old);
        match mode {
            Mode::Pointers if wide => {
                if let Some(old) = resolver.old.wide(at)
                    && old > 2 * POINTER_MIN
                    && let Some((new, certainty)) = resolver.resolve(old)
                {
                    into.put(place, &new.to_le_bytes(), ReferenceKind::Pointer, certainty);
                }
            }
            Mode::Pointers => {
                literal(resolver, at, span, into);
            }
            Mode::Relative => relative(resolver, at, span, into),
            _ => {
                if let Some(old) = resolver.old.word(at) {
                    let (new, certainty) = moved(resolver.table, old);
                    into.put(place, &new.to_le_bytes(), ReferenceKind::Word, certainty);
                }
            }
        }
        at += align;
    }
}

/// Predicts a word that looks like an address of 32 bits and returns its length in bytes; `None` if it does
/// not look like one.
pub(super) fn literal(resolver: &Resolver<'_>, at: u32, span: Span, into: &mut Prediction) -> Option<u32> {
    if at & 3 != 0 || (span.old ^ span.new) & 3 != 0 {
        return None;
    }
    let place = i64::from(at) - i64::from(span.old);
    let word = resolver.old.word(at)?;
    // In an address of code, the lowest bit says that the code is Thumb.
    let (target, thumb) = (u64::from(word & !1), word & 1);
    let (new, certainty, kind) = if resolver.is_memory(word) {
        let (new, certainty) = moved(resolver.table, word);
        (new, certainty, ReferenceKind::Memory)
    } else if target >= POINTER_MIN && resolver.region.old_offset(target).is_some() {
        match resolver.table.exact(word) {
            Some(new) => (new, Certainty::Seen, ReferenceKind::Pointer),
            None => {
                // Strings stand at odd addresses too. An address that moves by an odd distance is taken for
                // one.
                let (new, certainty) = resolver.resolve(target)?;
                (low(new.cast_signed()).wrapping_add(thumb), certainty, ReferenceKind::Pointer)
            }
        }
    } else {
        return None;
    };
    into.put(place, &new.to_le_bytes(), kind, certainty);
    if let Ok(at) = u32::try_from(place)
        && at + 4 <= span.len
    {
        let old = Reference::new(word.into(), kind, 4);
        into.notes.push(Note { at, old, new: new.into() });
    }
    Some(4)
}

fn relative(resolver: &Resolver<'_>, at: u32, span: Span, into: &mut Prediction) {
    let place = i64::from(at) - i64::from(span.old);
    let new_at = u32::try_from(place + i64::from(span.new)).ok();
    let addresses = (resolver.region.old_address(at), new_at.and_then(|at| resolver.region.new_address(at)));
    let (Some(old), (Some(from), Some(to))) = (resolver.old.word(at), addresses) else {
        return;
    };
    if old == 0 {
        return;
    }
    let target = from.wrapping_add_signed(old.cast_signed().into());
    if let Some((new, certainty)) = resolver.resolve(target) {
        into.put(place, &low(distance(to, new)).to_le_bytes(), ReferenceKind::Distance, certainty);
    }
}

/// What a word becomes if only the table is used.
pub(super) fn moved_word(table: &Table, word: u32) -> u32 {
    moved(table, word).0
}

fn moved(table: &Table, word: u32) -> (u32, Certainty) {
    match table.exact(word) {
        Some(new) => (new, Certainty::Seen),
        None => (table.near(word), Certainty::Near),
    }
}

/// Learns the words that changed.
pub(super) fn learn(
    region: &Region,
    mode: Mode,
    span: Span,
    old: View<'_>,
    recent: View<'_>,
    table: &mut Table,
) {
    if mode == Mode::Relative || (span.old ^ span.new) & 3 != 0 {
        return;
    }
    let mut at = span.old.next_multiple_of(4);
    while at.wrapping_add(4) <= span.old.wrapping_add(span.len) {
        let new_at = span.new.wrapping_add(at - span.old);
        if let (Some(before), Some(after)) = (old.word(at), recent.word(new_at)) {
            let memory = region.memory.iter().any(|high| *high != 0 && before >> 24 == u32::from(*high));
            if memory || (mode != Mode::Raw || region.wide) && before != 0 && before != after {
                table.learn(before, after);
            }
        }
        at += 4;
    }
}

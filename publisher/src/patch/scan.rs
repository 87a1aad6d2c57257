//! Finds which pieces of the new image are made from which pieces of the old one, with the method of bsdiff
//! (Percival, "Naive Differences of Executable Code", 2003).

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

use whimbrel_protocol::patch::Entry;

use super::suffix::{BLOCK, Suffixes, common};
use crate::release::Progress;

/// Most bytes for which the longest piece is searched at first. If it is longer, and begins something new, the one that
/// is the longest in all is found.
const REACH_BYTES: usize = 4 * BLOCK;
/// Within a piece of so many bytes no other is searched for at every place.
const LONG_BYTES: usize = 1024;

/// Finds the pieces, in the order of the new image. They do not overlap there. `progress` counts the bytes of that.
pub(super) fn scan(old: &[u8], new: &[u8], suffixes: &Suffixes<'_>, progress: Progress<'_>) -> Vec<Entry> {
    let mut found = Vec::new();
    let (mut told, mut covered) = (0, Covered::default());
    let same = |from_old: i64, at: usize| {
        usize::try_from(from_old).ok().and_then(|from| old.get(from)) == new.get(at)
    };
    let (mut at, mut len, mut place) = (0_usize, 0_usize, 0_usize);
    let (mut last_at, mut last_place, mut last_shift) = (0_usize, 0_usize, 0_i64);
    while at < new.len() {
        let mut score = 0_usize;
        at += len;
        let mut scored = at;
        while at < new.len() {
            if at >= told + TELL_BYTES {
                progress((at - told) as u64);
                told = at;
            }
            let straight = usize::try_from(at as i64 + last_shift).ok().and_then(|from| old.get(from..));
            // What goes on as the last piece did is not searched for.
            let reach = &new[at..new.len().min(at + REACH_BYTES)];
            if scored == at
                && reach.len() == REACH_BYTES
                && straight.is_some_and(|old| old.starts_with(reach))
            {
                (len, score) = (REACH_BYTES, REACH_BYTES);
                break;
            }
            // Neither is what the first half of a long piece covers that began before.
            let known = at < covered.until;
            if known {
                (place, len) = (covered.place + (at - covered.at), covered.end - at);
            } else {
                (place, len) = suffixes.longest(reach);
                if len == REACH_BYTES {
                    len += common(&old[place + len..], &new[at + len..]);
                }
                let until = if len < LONG_BYTES { at } else { at + len / 2 };
                covered = Covered { until, end: at + len, at, place };
            }
            while scored < at + len {
                score += usize::from(same(scored as i64 + last_shift, scored));
                scored += 1;
            }
            if len > score + 8 {
                if known || len >= REACH_BYTES {
                    (place, len) = suffixes.longest(&new[at..]);
                }
                break;
            }
            if len == score && len != 0 {
                break;
            }
            if same(at as i64 + last_shift, at) {
                score = score.saturating_sub(1);
            }
            at += 1;
        }
        if len == score && at != new.len() {
            continue;
        }
        let mut forward = extend(
            |step| last_at + step < at && last_place + step < old.len(),
            |step| old[last_place + step] == new[last_at + step],
        );
        let mut backward = 0;
        if at < new.len() {
            backward = extend(
                |step| at > last_at + step && place > step,
                |step| old[place - 1 - step] == new[at - 1 - step],
            );
        }
        if last_at + forward > at - backward {
            let overlap = last_at + forward - (at - backward);
            let (mut score, mut best, mut split) = (0_i64, 0_i64, 0);
            for step in 0..overlap {
                let (ahead, behind) = (forward - overlap + step, step);
                score += i64::from(new[last_at + ahead] == old[last_place + ahead]);
                score -= i64::from(new[at - backward + behind] == old[place - backward + behind]);
                if score > best {
                    (best, split) = (score, step + 1);
                }
            }
            forward = forward - overlap + split;
            backward -= split;
        }
        if forward > 0 {
            found.push(entry(last_place, last_at, forward));
        }
        last_at = at - backward;
        last_place = place.saturating_sub(backward);
        last_shift = place as i64 - at as i64;
    }
    progress((new.len() - told) as u64);
    found
}

/// The longest piece that was found last.
#[derive(Default)]
struct Covered {
    /// Where it begins in the new image, and where in the old one.
    at: usize,
    place: usize,
    /// The place up to which nothing else is searched for.
    until: usize,
    end: usize,
}

/// Progress is told after so many bytes.
const TELL_BYTES: usize = 1 << 20;

fn entry(old: usize, new: usize, len: usize) -> Entry {
    let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Entry { old: small(old), new: small(new), len: small(len) }
}

/// The length up to which a piece goes on with more bytes right than wrong.
fn extend(more: impl Fn(usize) -> bool, right: impl Fn(usize) -> bool) -> usize {
    let (mut step, mut score, mut best, mut len) = (0, 0_i64, 0_i64, 0);
    while more(step) {
        score += if right(step) { 1 } else { -1 };
        step += 1;
        if score > best {
            (best, len) = (score, step);
        }
    }
    len
}

//! Finds which pieces of the new image are made from which pieces of the old one, with the method of bsdiff
//! (Percival, "Naive Differences of Executable Code", 2003).

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

use whimbrel_protocol::patch::Entry;

use super::suffix::Suffixes;

/// Finds the pieces, in the order of the new image. They do not overlap there.
pub(super) fn scan(old: &[u8], new: &[u8], suffixes: &Suffixes<'_>) -> Vec<Entry> {
    let mut found = Vec::new();
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
            (place, len) = suffixes.longest(&new[at..]);
            while scored < at + len {
                score += usize::from(same(scored as i64 + last_shift, scored));
                scored += 1;
            }
            if (len == score && len != 0) || len > score + 8 {
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
    found
}

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

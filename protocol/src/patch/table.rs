//! The table of changed words. It tells what an old value became, and what values near it probably become.

use alloc::vec::Vec;

/// Old and new values of the most recent changed words, ordered by the old one.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    sorted: Vec<(u32, u32)>,
    /// The old values in the order in which they came, as a ring.
    recent: Vec<u32>,
    oldest: u32,
    room: u32,
}

/// Values that differ by this or more are not taken for neighbours.
const NEAR: u32 = 1 << 16;
/// Number of latest values that are looked at, and how near they have to be.
const LATEST: usize = 24;
const LATEST_NEAR: u32 = 400;

impl Table {
    /// Bytes of memory that an entry takes.
    pub(super) const ENTRY_BYTES: usize = size_of::<(u32, u32)>() + size_of::<u32>();

    pub(super) fn with_room(room: u32) -> Self {
        let count = room as usize;
        Self { sorted: Vec::with_capacity(count), recent: Vec::with_capacity(count), oldest: 0, room }
    }

    pub(super) fn parts_mut(&mut self) -> (&mut Vec<(u32, u32)>, &mut Vec<u32>, &mut u32, u32) {
        (&mut self.sorted, &mut self.recent, &mut self.oldest, self.room)
    }

    /// What `old` became, if the table has it.
    pub(super) fn exact(&self, old: u32) -> Option<u32> {
        let at = self.sorted.binary_search_by_key(&old, |(key, _)| *key).ok()?;
        self.sorted.get(at).map(|(_, new)| *new)
    }

    /// What `old` becomes if it moves like the next lower value that is known. If none is near, it stays.
    pub(super) fn near(&self, old: u32) -> u32 {
        let after = self.sorted.partition_point(|(key, _)| *key <= old);
        match after.checked_sub(1).and_then(|at| self.sorted.get(at)) {
            Some((key, new)) if old - key < NEAR => old.wrapping_add(new.wrapping_sub(*key)),
            _ => old,
        }
    }

    /// What `old` becomes if it moves like the latest of the known values that are near it. If none is near,
    /// it stays.
    pub(super) fn like_latest(&self, old: u32) -> u32 {
        let (older, newer) = self.recent.split_at_checked(self.oldest as usize).unwrap_or_default();
        let latest = older.iter().rev().chain(newer.iter().rev()).take(LATEST);
        let mut near = latest.filter(|key| key.abs_diff(old) < LATEST_NEAR);
        match near.next().and_then(|key| Some(self.exact(*key)?.wrapping_sub(*key))) {
            Some(moved) => old.wrapping_add(moved),
            None => old,
        }
    }

    /// The next lower value that is known, at most `reach` below, and what it became.
    pub(super) fn below(&self, old: u32, reach: u32) -> Option<(u32, u32)> {
        let after = self.sorted.partition_point(|(key, _)| *key <= old);
        let (key, new) = *self.sorted.get(after.checked_sub(1)?)?;
        (old - key < reach).then_some((key, new))
    }

    /// Learns what `old` became. If the table is full, the oldest pair is dropped.
    pub(super) fn learn(&mut self, old: u32, new: u32) {
        match self.sorted.binary_search_by_key(&old, |(key, _)| *key) {
            Ok(at) => {
                if let Some(entry) = self.sorted.get_mut(at) {
                    entry.1 = new;
                }
            }
            Err(at) => {
                if self.room == 0 {
                    return;
                }
                if self.recent.len() < self.room as usize {
                    self.recent.push(old);
                    self.sorted.insert(at.min(self.sorted.len()), (old, new));
                    return;
                }
                let Some(place) = self.recent.get_mut(self.oldest as usize) else {
                    return;
                };
                let gone = core::mem::replace(place, old);
                self.oldest = (self.oldest + 1) % self.room;
                if let Ok(at) = self.sorted.binary_search_by_key(&gone, |(key, _)| *key) {
                    self.sorted.remove(at);
                }
                let at = self.sorted.partition_point(|(key, _)| *key < old);
                self.sorted.insert(at, (old, new));
            }
        }
    }
}

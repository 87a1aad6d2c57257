//! The match map, which says where the bytes of the old image went.

use alloc::vec::Vec;

/// A piece of the new image that is made from a piece of the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its first byte in the old image.
    pub old: u32,
    /// Its first byte in the new image.
    pub new: u32,
    /// Bytes.
    pub len: u32,
}

/// Where a byte of the old image went, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) new: i64,
    /// Whether it is part of an entry, not only near one.
    pub(super) inside: bool,
}

/// The entries of a region: sorted by the new image, with an index sorted by the old one.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    pub(super) entries: Vec<Entry>,
    by_old: Vec<u16>,
}

/// Number of entries before a place that are searched for one that holds the place.
const LOOK_BACK: usize = 12;

impl Map {
    /// Bytes of memory that an entry takes.
    pub(super) const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<u16>();

    /// Room for `entries`, at most 65,535.
    pub(super) fn with_room(entries: u32) -> Self {
        let count = entries as usize;
        Self { entries: Vec::with_capacity(count), by_old: Vec::with_capacity(count) }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.by_old.clear();
    }

    /// Sorts the index. It has to be called when the entries are complete.
    pub(super) fn sort(&mut self) {
        self.by_old.clear();
        self.by_old.extend((0..self.entries.len()).filter_map(|at| u16::try_from(at).ok()));
        let entries = &self.entries;
        let key = |at: &u16| entries.get(usize::from(*at)).map(|entry| (entry.old, entry.len, entry.new));
        self.by_old.sort_unstable_by_key(key);
    }

    fn nth_by_old(&self, at: usize) -> Option<Entry> {
        self.entries.get(usize::from(*self.by_old.get(at)?)).copied()
    }

    /// Finds where the byte at `old` went: it moves with the entry that holds it, else with the nearer of its
    /// neighbours.
    pub(super) fn find(&self, old: u32) -> Mapped {
        let after = self
            .by_old
            .partition_point(|at| self.entries.get(usize::from(*at)).is_some_and(|entry| entry.old <= old));
        let moved = |entry: Entry| i64::from(old) + i64::from(entry.new) - i64::from(entry.old);
        for at in (after.saturating_sub(LOOK_BACK)..after).rev() {
            if let Some(entry) = self.nth_by_old(at)
                && old.wrapping_sub(entry.old) < entry.len
            {
                return Mapped { new: moved(entry), inside: true };
            }
        }
        let before = after.checked_sub(1).and_then(|at| self.nth_by_old(at));
        let new = match (before, self.nth_by_old(after)) {
            (None, None) => i64::from(old),
            (Some(only), None) | (None, Some(only)) => moved(only),
            (Some(before), Some(next)) => {
                let behind = old.saturating_sub(before.old).saturating_sub(before.len);
                moved(if next.old.saturating_sub(old) < behind { next } else { before })
            }
        };
        Mapped { new, inside: false }
    }
}

//! Resolves references: finds where they lead in the new image (SPEC section 5.5).

use super::view::{View, distance, low};
use crate::patch::map::Map;
use crate::patch::region::Region;
use crate::patch::table::Table;

/// How certain it is where a reference leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::patch) enum Certainty {
    // 0 stands for bytes that were not predicted.
    /// It leads into a piece that was matched.
    Inside = 1,
    /// It leads to a place between matched pieces, or behind the image.
    Near,
    /// It leads where an earlier reference to the same place led.
    Seen,
}

/// Everything that is needed to resolve references.
#[derive(Clone, Copy, Debug)]
pub(in crate::patch) struct Resolver<'s> {
    pub(in crate::patch) region: &'s Region,
    pub(in crate::patch) map: &'s Map,
    pub(in crate::patch) table: &'s Table,
    /// The old image around the span.
    pub(in crate::patch) old: View<'s>,
}

impl Resolver<'_> {
    /// Finds where a reference to an old address leads in the new image.
    pub(in crate::patch) fn resolve(&self, target: u64) -> Option<(u64, Certainty)> {
        let key = low(target.cast_signed());
        let moved = |new: u32| target.wrapping_add_signed(new.wrapping_sub(key).cast_signed().into());
        if let Some(new) = self.table.exact(key) {
            return Some((moved(new), Certainty::Seen));
        }
        if let Some(offset) = self.region.old_offset(target) {
            let mapped = self.map.find(offset);
            let new = self.region.new_address(u32::try_from(mapped.new).ok()?)?;
            if !mapped.inside {
                return Some((new, Certainty::Near));
            }
            return Some((new.wrapping_add_signed(self.deviation(offset, key)), Certainty::Inside));
        }
        self.behind(target, key, moved)
    }

    /// The deviation (SPEC section 5.5): how far the nearest known place below went from where the map says. It is 0
    /// if no entry of the map holds that place.
    ///
    /// In a row of similar pieces, such as stubs of imported functions, each may have been matched with its neighbour.
    /// Then the map is wrong by the same distance for all of them.
    fn deviation(&self, offset: u32, key: u32) -> i64 {
        // A flat image has no such stubs.
        let linked = self.region.old.len() > 1;
        let Some((below, new)) = self.table.below(key, DEVIATION_REACH).filter(|_| linked) else {
            return 0;
        };
        let Some(offset) = offset.checked_sub(key - below) else {
            return 0;
        };
        let mapped = self.map.find(offset);
        let said = u32::try_from(mapped.new).ok().and_then(|new| self.region.new_address(new));
        match said {
            Some(said) if mapped.inside => new.wrapping_sub(low(said.cast_signed())).cast_signed().into(),
            _ => 0,
        }
    }

    /// Data that lies in memory behind the image moves with the image's end, unless the table knows how a
    /// word near it moved.
    fn behind(&self, target: u64, key: u32, moved: impl Fn(u32) -> u64) -> Option<(u64, Certainty)> {
        let (old_end, new_end) = self.region.ends()?;
        if target < old_end || target - old_end >= BEHIND_MAX {
            return None;
        }
        let near = self.table.near(key);
        if near != key {
            return Some((moved(near), Certainty::Near));
        }
        Some((target.wrapping_add_signed(distance(old_end, new_end)), Certainty::Near))
    }

    /// Whether a word is an address outside the image that the region names.
    pub(super) fn is_memory(&self, word: u32) -> bool {
        self.region.memory.iter().any(|high| *high != 0 && word >> 24 == u32::from(*high))
    }
}

/// Places that are farther apart than this were not matched with their neighbours together.
const DEVIATION_REACH: u32 = 512;
/// Uninitialised data is taken to lie at most this far behind the image.
const BEHIND_MAX: u64 = 1 << 24;

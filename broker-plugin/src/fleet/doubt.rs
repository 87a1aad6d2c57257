//! While the calendar or the database cannot be believed, nothing is signed: what was signed before goes on.

use super::Fleet;
use super::command::Denied;
use crate::clock_guard::ClockDoubt;

impl Fleet {
    /// The calendar cannot be believed, or can again; then a beacon with the new time is due at once.
    pub(super) fn doubt_clock(&mut self, doubt: Option<ClockDoubt>) {
        if self.clock_doubt.is_some() && doubt.is_none() {
            self.beacon_due = self.now;
        }
        self.clock_doubt = doubt;
    }

    /// The database is believed from now on, and a beacon is due at once.
    pub(super) fn store_accepted(&mut self, versions_above: u64) {
        self.store_doubt = None;
        self.beacon_due = self.now;
        self.registry.number_above(versions_above);
    }

    /// Whether anything may be signed now.
    ///
    /// # Errors
    /// [`Denied::Clock`], [`Denied::Database`].
    pub(super) fn may_sign(&self) -> Result<(), Denied> {
        if let Some(doubt) = self.clock_doubt {
            return Err(Denied::Clock { doubt });
        }
        self.store_doubt.map_or(Ok(()), |doubt| Err(Denied::Database { doubt }))
    }
}

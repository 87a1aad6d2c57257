//! While the calendar cannot be believed, nothing is signed: what was signed before goes on.

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

    /// Whether anything may be signed now.
    ///
    /// # Errors
    /// [`Denied::Clock`].
    pub(super) fn may_sign(&self) -> Result<(), Denied> {
        self.clock_doubt.map_or(Ok(()), |doubt| Err(Denied::Clock { doubt }))
    }
}

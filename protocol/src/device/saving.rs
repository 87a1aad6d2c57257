//! The record, and whether the one in memory is the one on the medium (SPEC section 8.7).
//!
//! Nothing is done on account of a record that is not durable: durable before acted on, durable before claimed.

use super::context::Outputs;
use super::io::StoreOp;
use super::record::Record;
use super::timer::{Timer, Timers};
use crate::ids::OpId;
use crate::time::Instant;

/// The record with the state of its last save.
#[derive(Debug)]
pub(super) struct Saving {
    record: Record,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The medium has what is in memory.
    Durable,
    /// Something changed; if the last save failed, the next one waits.
    Changed { retry_at: Option<Instant> },
    /// A save is under way, and something may have changed since it began.
    UnderWay { op: OpId, changed: bool },
}

/// How long to wait before a failed save of the record is tried again.
const RETRY_MS: u64 = 30_000;

impl Saving {
    /// `record` is what the medium has.
    pub(super) const fn new(record: Record) -> Self {
        Self { record, state: State::Durable }
    }

    pub(super) const fn record(&self) -> &Record {
        &self.record
    }

    pub(super) const fn is_durable(&self) -> bool {
        matches!(self.state, State::Durable)
    }

    /// Changes the record; the change takes effect when it is durable.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
        self.state = match self.state {
            State::Durable => State::Changed { retry_at: None },
            State::UnderWay { op, .. } => State::UnderWay { op, changed: true },
            changed @ State::Changed { .. } => changed,
        };
    }

    /// Changes something that needs no save of its own. It becomes durable with the next change that does.
    pub(super) fn amend(&mut self, amend: impl FnOnce(&mut Record)) {
        amend(&mut self.record);
    }

    /// Begins to save what has changed. `true` if there is nothing left to save.
    pub(super) fn save(&mut self, now: Instant, outputs: &mut Outputs) -> bool {
        if let State::Changed { retry_at } = self.state
            && retry_at.is_none_or(|at| at <= now)
        {
            let op = outputs.store(StoreOp::SaveRecord(self.record.encode()));
            self.state = State::UnderWay { op, changed: false };
        }
        self.is_durable()
    }

    /// A store operation is done. `false` if it was not the save of the record.
    pub(super) fn stored(&mut self, op: OpId, good: bool, now: Instant) -> bool {
        match self.state {
            State::UnderWay { op: expected, changed } if expected == op => {
                self.state = match (good, changed) {
                    (true, false) => State::Durable,
                    (true, true) => State::Changed { retry_at: None },
                    (false, _) => State::Changed { retry_at: Some(now.plus_millis(RETRY_MS)) },
                };
                true
            }
            _ => false,
        }
    }

    pub(super) fn set_timers(&self, timers: &mut Timers) {
        if let State::Changed { retry_at } = self.state {
            timers.set(Timer::SaveRetry, retry_at);
        }
    }
}

//! What the whole fleet is doing, in counters that any device may touch at any time.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a device is doing, in the words of its reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the words that the manual explains")]
pub enum DeviceState {
    #[default]
    Idle,
    Offered,
    Deferred,
    Downloading,
    Downloaded,
    Installing,
    Rebooting,
    Testing,
    Confirmed,
    Reverted,
    Failed,
    Cancelled,
}

impl DeviceState {
    /// All of them, in the order in which an update goes through them.
    pub const ALL: [Self; 12] = [
        Self::Idle,
        Self::Offered,
        Self::Deferred,
        Self::Downloading,
        Self::Downloaded,
        Self::Installing,
        Self::Rebooting,
        Self::Testing,
        Self::Confirmed,
        Self::Reverted,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Offered => "offered",
            Self::Deferred => "deferred",
            Self::Downloading => "downloading",
            Self::Downloaded => "downloaded",
            Self::Installing => "installing",
            Self::Rebooting => "rebooting",
            Self::Testing => "testing",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The counters of a run. Devices only add; what is read while they run is right for some moment, not for one.
#[derive(Debug)]
pub struct Fleet {
    states: [AtomicU64; DeviceState::ALL.len()],
    connected: AtomicU64,
    link_cuts: AtomicU64,
    chunk_bytes: AtomicU64,
    troubles: AtomicU64,
    last_trouble: Mutex<Option<String>>,
}

/// The counters at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetCounts {
    /// Devices in each state, in the order of [`DeviceState::ALL`].
    pub states: [u64; DeviceState::ALL.len()],
    /// Devices with a connection that got its CONNACK.
    pub connected: u64,
    /// Connections that the plan of the run cut.
    pub link_cuts: u64,
    /// Transfer bytes that arrived for the first time.
    pub chunk_bytes: u64,
    /// Connections that failed or ended although nothing cut them.
    pub troubles: u64,
    /// Why the last of those did.
    pub last_trouble: Option<String>,
}

impl Fleet {
    /// So many idle devices.
    #[must_use]
    pub fn new(devices: u32) -> Self {
        let states: [AtomicU64; DeviceState::ALL.len()] = Default::default();
        let [idle, ..] = &states;
        idle.store(devices.into(), Ordering::Relaxed);
        Self {
            states,
            connected: AtomicU64::new(0),
            link_cuts: AtomicU64::new(0),
            chunk_bytes: AtomicU64::new(0),
            troubles: AtomicU64::new(0),
            last_trouble: Mutex::new(None),
        }
    }

    /// A device changes from one state to another.
    pub fn changed(&self, from: DeviceState, to: DeviceState) {
        self.state(to).fetch_add(1, Ordering::Relaxed);
        self.state(from).fetch_sub(1, Ordering::Relaxed);
    }

    /// A device got its CONNACK.
    pub fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that got its CONNACK is over.
    pub fn disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// The plan of the run cut a connection.
    pub fn cut(&self) {
        self.link_cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// A device got transfer bytes for the first time.
    pub fn fetched(&self, chunk_bytes: u64) {
        self.chunk_bytes.fetch_add(chunk_bytes, Ordering::Relaxed);
    }

    /// A connection failed, and nothing had cut it.
    pub fn trouble(&self, why: impl FnOnce() -> String) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
        // Thousands may fail at once for one reason; whoever finds the place taken leaves it to the others.
        if let Ok(mut last) = self.last_trouble.try_lock() {
            *last = Some(why());
        }
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> FleetCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FleetCounts {
            states: DeviceState::ALL.map(|state| read(self.state(state))),
            connected: read(&self.connected),
            link_cuts: read(&self.link_cuts),
            chunk_bytes: read(&self.chunk_bytes),
            troubles: read(&self.troubles),
            last_trouble: self.last_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn state(&self, state: DeviceState) -> &AtomicU64 {
        self.states.get(state as usize).expect("there is a counter for each state")
    }
}

impl FleetCounts {
    /// Devices in one state.
    #[must_use]
    pub fn in_state(&self, state: DeviceState) -> u64 {
        self.states.get(state as usize).copied().unwrap_or(0)
    }

    /// The states that any device is in, in words: `3 downloading, 7 confirmed`.
    #[must_use]
    pub fn states_in_words(&self) -> String {
        let words = DeviceState::ALL.into_iter().filter(|state| self.in_state(*state) > 0);
        words
            .map(|state| format!("{} {}", self.in_state(state), state.label()))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_in_one_state_at_a_time() {
        let fleet = Fleet::new(10);
        assert_eq!(fleet.counts().states_in_words(), "10 idle");
        for _ in 0..4 {
            fleet.changed(DeviceState::Idle, DeviceState::Downloading);
        }
        fleet.changed(DeviceState::Downloading, DeviceState::Confirmed);
        let counts = fleet.counts();
        assert_eq!(counts.states_in_words(), "6 idle, 3 downloading, 1 confirmed");
        assert_eq!(counts.states.iter().sum::<u64>(), 10);
    }

    #[test]
    fn a_state_counts_where_its_word_stands() {
        for (place, state) in DeviceState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place, "{}", state.label());
        }
    }

    #[test]
    fn connections_cuts_bytes_and_troubles_are_counted() {
        let fleet = Fleet::new(2);
        fleet.connected();
        fleet.connected();
        fleet.disconnected();
        fleet.cut();
        fleet.fetched(1000);
        fleet.trouble(|| "connection refused".to_owned());
        let counts = fleet.counts();
        assert_eq!(
            (counts.connected, counts.link_cuts, counts.chunk_bytes, counts.troubles),
            (1, 1, 1000, 1)
        );
        assert_eq!(counts.last_trouble.as_deref(), Some("connection refused"));
    }
}

//! Everything that the service counts: names, units, and what each number means.
//!
//! Counts since the start, unless the unit says that it is a gauge. The broker's own counters stand beside these in
//! the status, with `broker_` before their names.

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU64, Ordering};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things that happened.
    Count,
    /// Bytes.
    Bytes,
    /// Things that are there now.
    Gauge,
    /// Bytes that are there now.
    GaugeBytes,
}

/// One number: its name, its unit, its meaning.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Stable.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it means, for people.
    pub about: &'static str,
}

macro_rules! counters {
    ($($(#[doc = $about:literal])+ $name:ident: $unit:ident,)*) => {
        /// The numbers, updated without ordering between them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $about])+ pub $name: AtomicU64,)*
        }

        /// Every number that there is.
        pub const METRICS: &[Metric] =
            &[$(Metric { name: stringify!($name), unit: Unit::$unit, about: concat!($($about),+) },)*];

        impl Counters {
            /// Every number with its name.
            #[must_use]
            pub fn snapshot(&self) -> BTreeMap<String, u64> {
                BTreeMap::from([$((stringify!($name).to_owned(), self.$name.load(Ordering::Relaxed)),)*])
            }
        }
    };
}

counters! {
    /// Messages of devices.
    messages_in: Count,
    /// Messages to devices.
    messages_out: Count,
    /// Payload bytes sent to devices, with everything sent twice.
    served_bytes: Bytes,
    /// Chunk messages sent.
    chunk_messages: Count,
    /// Index pages sent.
    page_messages: Count,
    /// Envelopes sent.
    manifests: Count,
    /// Hellos answered.
    answers: Count,
    /// Hellos that were not answered because the clock or the database cannot be believed.
    answers_withheld: Count,
    /// Accepted devices whose last hello names newer documents than the service has signed.
    devices_ahead: Gauge,
    /// Refusals sent.
    refusals: Count,
    /// Requests that were told to come back because something was too busy.
    busy: Count,
    /// Requests that waited for the disk.
    waited_for_disk: Count,
    /// Messages that were not acted on: not well-formed.
    rejected_malformed: Count,
    /// Messages that were not acted on: not signed by whom they must be, or about somebody else.
    rejected_unauthentic: Count,
    /// Messages that were not acted on: nothing that the sender may ask for or send there.
    rejected_misbehaved: Count,
    /// Messages that were not acted on: more than a device may send or get.
    rejected_too_often: Count,
    /// Messages on topics that no device has, or kept by the broker.
    ignored_topic: Count,
    /// Enrolments of devices that were not known.
    enrolled: Count,
    /// Enrolments of known devices with another key.
    enrolled_with_other_key: Count,
    /// Pending devices that made room for newer ones.
    pending_dropped: Count,
    /// Reports stored.
    reports: Count,
    /// Reports that were here already.
    reports_again: Count,
    /// Reports that name no campaign that their device was ever part of, or an attempt that was never ordered.
    reports_of_nothing: Count,
    /// Transactions of the database that were made durable.
    commits: Count,
    /// Changes that the store refused; the disk is full, most likely.
    store_failures: Count,
    /// Changes that were not handed to the store because too many waited.
    store_overruns: Count,
    /// Pieces of payloads that could not be read.
    read_failures: Count,
    /// Pieces of payloads that were not what was signed; the payload has to be uploaded again.
    damaged_payloads: Count,
    /// Messages to devices that the link to the broker did not take.
    publish_failures: Count,
    /// Beacons published.
    beacons: Count,
    /// Gauge: what was begun and has not ended: reads, reports to be stored, changes of operators, documents to be sent.
    under_way: Gauge,
    /// Gauge: devices whose state is in memory.
    sessions: Gauge,
    /// Devices whose state was dropped to make room or after they were silent.
    sessions_dropped: Count,
    /// Gauge: bytes of chunk messages kept.
    frame_cache_bytes: GaugeBytes,
    /// Gauge: bytes of payloads kept.
    payload_cache_bytes: GaugeBytes,
}

impl Counters {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `n`.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub(crate) fn set(gauge: &AtomicU64, n: usize) {
        gauge.store(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a message that was not acted on.
    pub(crate) fn reject(&self, reason: &whimbrel_protocol::server::Reason) {
        Self::count(match reason.name() {
            "malformed" => &self.rejected_malformed,
            "unauthentic" => &self.rejected_unauthentic,
            "too-often" => &self.rejected_too_often,
            _ => &self.rejected_misbehaved,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_a_unit_and_a_meaning() {
        let counters = Counters::default();
        Counters::add(&counters.served_bytes, 7);
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.len(), METRICS.len());
        assert!(METRICS.iter().all(|metric| snapshot.contains_key(metric.name) && metric.about.len() > 9));
        assert_eq!(snapshot.get("served_bytes"), Some(&7));
    }
}

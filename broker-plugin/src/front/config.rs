//! Settings of the front door, and the check that the router can't outgrow its memory.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::HashMap;

use rumqttd::protocol::{Publish, PublishProperties};
use rumqttd::{RouterConfig, SegmentConfig};
use whimbrel_protocol::ids::Prefix;
use whimbrel_protocol::topic;

use super::access::TopicRules;
use super::error::FrontError;

/// Settings of the front door. The defaults suit a fleet of up to 2,000 devices on a machine with 4 GiB to spare.
#[derive(Clone, Debug)]
pub struct FrontConfig {
    /// Where to listen; plain TCP. Default 127.0.0.1:1883.
    pub listen: SocketAddr,
    /// First level of all topics. Default `ota`.
    pub prefix: Prefix,
    /// Clients connected at once, 1 to 1,000,000. About 20 % above the fleet. Default 2,500.
    pub connections_max: usize,
    /// Devices that the operator knows, 1 to 1,000,000. Default 2,048.
    pub devices_max: usize,
    /// Devices that the operator does not know and that are connected, 1 to 100,000. If there are more, the longest idle
    /// one of the address with most of them goes. Default 128.
    pub strangers_max: usize,
    /// Different groups ever subscribed to, up to 10,000. Default 256.
    pub groups_max: usize,
    /// Sockets that are not let in yet, 1 to 100,000. If there are more, the oldest of the address with most of them
    /// goes. Default 1,024.
    pub waiting_max: usize,
    /// Largest packet taken from a client, 1 KiB to 1 MiB. Default 65 KiB.
    pub packet_bytes_max: usize,
    /// CONNECT must have arrived within this. Default 10 s.
    pub connect_limit: Duration,
    /// CONNACK must be ready within this after CONNECT. Default 10 s.
    pub setup_limit: Duration,
    /// A client must take at least a byte in this time when there is something for it. Default 20 s.
    pub write_limit: Duration,
    /// Threads that serve the sockets, 1 to 64. Default 2.
    pub worker_threads: usize,
    /// Sizes of the router's logs.
    pub segments: Segments,
    /// Most memory that the router's logs and the connections may ever take. Default 4 GiB.
    pub memory_budget: u64,
    /// Extra topics that a device may publish to; `%d` stands for the device. A publish that nobody reads costs
    /// the router a look at every filter. Default none.
    pub extra_publish: Vec<String>,
    /// Extra topics that a device may subscribe to; `%d` stands for the device. Default none.
    pub extra_subscribe: Vec<String>,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            prefix: Prefix::default(),
            connections_max: 2_500,
            devices_max: 2_048,
            strangers_max: 128,
            groups_max: 256,
            waiting_max: 1_024,
            packet_bytes_max: 65 * 1024,
            connect_limit: Duration::from_secs(10),
            setup_limit: Duration::from_secs(10),
            write_limit: Duration::from_secs(20),
            worker_threads: 2,
            segments: Segments::default(),
            memory_budget: 4 << 30,
            extra_publish: Vec::new(),
            extra_subscribe: Vec::new(),
        }
    }
}

/// Sizes of the router's logs. Each filter that anyone subscribes to has one; what is delivered stays in it until
/// it rolls over, and what rolls over before it is delivered is lost.
#[derive(Clone, Debug)]
pub struct Segments {
    /// Requests of all devices, one log. At least twice devices x outstanding requests x 150 bytes. 4 MiB x 4.
    pub requests: SegmentSize,
    /// Reports of all devices, one log. 1 MiB x 4.
    pub reports: SegmentSize,
    /// Answers to one device. At least twice the largest window. 256 KiB x 2.
    pub answers: SegmentSize,
    /// The assignment of one device. 16 KiB x 2.
    pub assignments: SegmentSize,
    /// All others: groups, the beacon, extra topics. 64 KiB x 2.
    pub others: SegmentSize,
}

impl Default for Segments {
    fn default() -> Self {
        let kib = |bytes: usize, count| SegmentSize { bytes: bytes * 1024, count };
        Self {
            requests: kib(4 * 1024, 4),
            reports: kib(1024, 4),
            answers: kib(256, 2),
            assignments: kib(16, 2),
            others: kib(64, 2),
        }
    }
}

/// The size of one log of the router.
#[derive(Clone, Copy, Debug)]
pub struct SegmentSize {
    /// Bytes of topics and payloads in a segment, at least 1,024. One message may exceed it.
    pub bytes: usize,
    /// Segments kept, at least 1.
    pub count: usize,
}

impl FrontConfig {
    /// Checks every setting and the memory budget.
    ///
    /// # Errors
    /// [`FrontError::Setting`], [`FrontError::MemoryBudget`].
    pub fn check(&self) -> Result<(), FrontError> {
        within("connections_max", self.connections_max, 1, 1_000_000)?;
        within("devices_max", self.devices_max, 1, 1_000_000)?;
        within("strangers_max", self.strangers_max, 1, 100_000)?;
        within("groups_max", self.groups_max, 0, 10_000)?;
        within("waiting_max", self.waiting_max, 1, 100_000)?;
        within("packet_bytes_max", self.packet_bytes_max, 1024, 1 << 20)?;
        within("worker_threads", self.worker_threads, 1, 64)?;
        within("extra_publish", self.extra_publish.len(), 0, 32)?;
        within("extra_subscribe", self.extra_subscribe.len(), 0, 32)?;
        for (setting, limit) in [
            ("connect_limit", self.connect_limit),
            ("setup_limit", self.setup_limit),
            ("write_limit", self.write_limit),
        ] {
            if limit.is_zero() || limit > LIMIT_MAX {
                return Err(FrontError::Setting {
                    setting,
                    got: format!("{limit:?}"),
                    expected: "more than 0 and at most 1 h".to_owned(),
                });
            }
        }
        let segments = &self.segments;
        for size in
            [segments.requests, segments.reports, segments.answers, segments.assignments, segments.others]
        {
            within("segments.bytes", size.bytes, 1024, 1 << 30)?;
            within("segments.count", size.count, 1, 1024)?;
        }
        TopicRules::new(self.prefix.clone(), &self.extra_publish, &self.extra_subscribe)?;
        let needed = self.memory_worst_case();
        if needed > self.memory_budget {
            return Err(FrontError::MemoryBudget { needed, budget: self.memory_budget });
        }
        Ok(())
    }

    /// The most memory, in bytes, that the router's logs and the connections can come to take.
    ///
    /// The logs that devices fill are counted as full of the smallest messages, each with what the router keeps
    /// beside it; those that the service fills twice their size; connections with full buffers. What the service
    /// publishes to many devices as one shared `Bytes` takes far less.
    #[must_use]
    pub fn memory_worst_case(&self) -> u64 {
        let segments = &self.segments;
        let smallest_topic = topic::all_requests(&self.prefix).len() + 1; // a device id has at least 2 characters
        let of_devices = |size: SegmentSize| {
            let bytes = wide(size.bytes).saturating_mul(wide(size.count));
            bytes.saturating_add((bytes / wide(4 + smallest_topic)).saturating_mul(wide(ENTRY_BYTES)))
        };
        let of_service = |size: SegmentSize, filters: u64| {
            wide(size.bytes).saturating_mul(wide(size.count)).saturating_mul(2).saturating_mul(filters)
        };
        let devices = wide(self.devices_max + self.strangers_max);
        let others = wide(self.groups_max + 1)
            .saturating_add(devices.saturating_mul(wide(self.extra_subscribe.len())));
        let connection = wide(CONNECTION_BYTES + WRITE_BATCH_BYTES + 2 * self.packet_bytes_max);
        [
            of_devices(segments.requests),
            of_devices(segments.reports),
            of_service(segments.answers, devices),
            of_service(segments.assignments, devices),
            of_service(segments.others, others),
            wide(self.connections_max).saturating_mul(connection),
            wide(self.waiting_max).saturating_mul(wide(CONNECT_BYTES_MAX)),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// The settings as the router wants them.
    pub(crate) fn router(&self) -> RouterConfig {
        let segments = &self.segments;
        let custom = [
            (topic::all_requests(&self.prefix), segments.requests),
            (topic::all_reports(&self.prefix), segments.reports),
            (topic::all_answers(&self.prefix), segments.answers),
            (topic::all_assignments(&self.prefix), segments.assignments),
        ]
        .into_iter()
        .map(|(filter, size)| {
            (filter, SegmentConfig { max_segment_size: size.bytes, max_segment_count: size.count })
        })
        .collect::<HashMap<_, _>>();
        RouterConfig {
            // The door itself refuses before the router would: a link that the router refuses hangs its builder.
            max_connections: self.connections_max + OWN_LINKS_MAX,
            max_outgoing_packet_count: 200,
            max_segment_size: segments.others.bytes,
            max_segment_count: segments.others.count,
            custom_segment: Some(custom),
            ..RouterConfig::default()
        }
    }
}

/// The longest CONNECT that is read, in bytes: names, a password and a small will.
pub(crate) const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// Bytes gathered before they are written to a client.
pub(crate) const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Links of the process itself: heartbeat, reaper, service, and some for load tests.
const OWN_LINKS_MAX: usize = 64;
/// What a connection costs before it has said anything, in bytes; measured 32 to 39 KB, nearly all in the router.
const CONNECTION_BYTES: usize = 40 * 1024;
/// What the router keeps for a message beside its topic and payload, with the allocator's share.
const ENTRY_BYTES: usize = size_of::<(Publish, Option<PublishProperties>, std::time::Instant)>() + 96;
/// The longest time limit that may be set.
const LIMIT_MAX: Duration = Duration::from_secs(3600);

fn within(setting: &'static str, got: usize, min: usize, max: usize) -> Result<(), FrontError> {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(FrontError::Setting { setting, got: got.to_string(), expected: format!("{min} to {max}") })
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_settings_fit_their_budget() {
        let config = FrontConfig::default();
        config.check().unwrap();
        assert!(config.memory_worst_case() > 2 << 30, "{}", config.memory_worst_case());
    }

    #[test]
    fn a_fleet_that_the_memory_budget_cannot_hold_is_refused_at_the_start() {
        let config = FrontConfig { devices_max: 20_000, ..FrontConfig::default() };
        let error = config.check().unwrap_err();
        assert!(matches!(error, FrontError::MemoryBudget { needed, .. } if needed > 20 << 30), "{error}");
    }

    #[test]
    fn the_budget_counts_what_the_router_keeps_beside_the_smallest_messages() {
        let config = FrontConfig::default();
        let nominal = 4 * 4 * 1024 * 1024;
        let without = FrontConfig {
            segments: Segments { requests: SegmentSize { bytes: 1024, count: 1 }, ..config.segments.clone() },
            ..config.clone()
        };
        let requests = config.memory_worst_case() - without.memory_worst_case();
        assert!(requests > 10 * nominal, "{requests} for a log of {nominal}");
    }

    #[test]
    fn segments_that_the_router_would_panic_on_are_refused() {
        for size in [SegmentSize { bytes: 1023, count: 2 }, SegmentSize { bytes: 4096, count: 0 }] {
            let segments = Segments { others: size, ..Segments::default() };
            let config = FrontConfig { segments, ..FrontConfig::default() };
            assert!(matches!(config.check(), Err(FrontError::Setting { .. })), "{size:?}");
        }
    }

    #[test]
    fn limits_of_no_time_are_refused() {
        let config = FrontConfig { write_limit: Duration::ZERO, ..FrontConfig::default() };
        assert!(matches!(config.check(), Err(FrontError::Setting { setting: "write_limit", .. })));
    }
}

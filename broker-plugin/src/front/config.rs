//! Settings of the front door, and the check that what it may come to hold fits the memory.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use rumqttd::RouterConfig;
use whimbrel_protocol::ids::Prefix;
use whimbrel_protocol::limits::{DEVICE_ID_MAX, SIGNED_BYTES_MAX};

use super::access::TopicRules;
use super::error::FrontError;
use super::exchange::GROUPS_KEPT_MAX;
use super::inbox::INBOX_MESSAGES;
use super::outbox::{Bounds, OUTBOXES_OVER, SHARE_BYTES};

/// Settings of the front door. The defaults suit a fleet of up to 2,000 devices.
#[derive(Clone, Debug)]
pub struct FrontConfig {
    /// Where to listen; plain TCP. Default 127.0.0.1:1883.
    pub listen: SocketAddr,
    /// First level of all topics. Default `ota`.
    pub prefix: Prefix,
    /// Clients connected at once, 1 to 1,000,000. About 20 % above the fleet. Default 2,500.
    pub connections_max: usize,
    /// Devices that the operator knows, 1 to 1,000,000; of as many the assignment is kept. Default 2,048.
    pub devices_max: usize,
    /// Devices that the operator does not know and that are connected, 1 to 100,000. If there are more, the longest idle
    /// one of the address with most of them goes. Default 128.
    pub strangers_max: usize,
    /// Different groups subscribed to at once, up to 10,000. Default 256.
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
    /// Answers that may wait for one client, in bytes, 16 KiB to 1 GiB: at least twice the largest window. What is
    /// over it is lost, the oldest first. Default 512 KiB.
    pub answers_bytes_max: usize,
    /// Documents that may wait for one client, in bytes, 16 KiB to 1 GiB. Default 128 KiB.
    pub documents_bytes_max: usize,
    /// What may wait for all clients together, beside a share of 8 KiB for each; up to twice as much where each has one
    /// message only. Default 256 MiB.
    pub outstanding_bytes_max: usize,
    /// Bytes of each of the two segments of the router's log of one topic of the application, 1 KiB to 1 GiB. What
    /// rolls over before it is delivered is lost. Default 64 KiB.
    pub application_segment_bytes: usize,
    /// Most memory that all of this may ever take. Default 4 GiB.
    pub memory_budget: u64,
    /// Topics of the application that a device may publish to; `%d` stands for the device. A publish that nobody reads
    /// costs the router a look at every filter of the application. Default none.
    pub application_publish: Vec<String>,
    /// Topics of the application that a device may subscribe to; `%d` stands for the device. Default none.
    pub application_subscribe: Vec<String>,
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
            answers_bytes_max: 512 * 1024,
            documents_bytes_max: 128 * 1024,
            outstanding_bytes_max: 256 << 20,
            application_segment_bytes: 64 * 1024,
            memory_budget: 4 << 30,
            application_publish: Vec::new(),
            application_subscribe: Vec::new(),
        }
    }
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
        within("answers_bytes_max", self.answers_bytes_max, 16 * 1024, 1 << 30)?;
        within("documents_bytes_max", self.documents_bytes_max, 16 * 1024, 1 << 30)?;
        within("application_segment_bytes", self.application_segment_bytes, 1024, 1 << 30)?;
        within("application_publish", self.application_publish.len(), 0, 32)?;
        within("application_subscribe", self.application_subscribe.len(), 0, 32)?;
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
        TopicRules::new(self.prefix.clone(), &self.application_publish, &self.application_subscribe)?;
        let needed = self.memory_worst_case();
        if needed > self.memory_budget {
            return Err(FrontError::MemoryBudget { needed, budget: self.memory_budget });
        }
        Ok(())
    }

    /// The most memory, in bytes, that the door and its router can come to hold.
    ///
    /// Each number is one that something refuses to exceed: a document for each device and group, the queue to the
    /// service, what waits for clients, a packet that each connection has not sent to its end. The router counts only
    /// if the application has topics: two segments of each, of which some differ by device. What many clients are sent
    /// as one shared `Bytes` takes far less.
    #[must_use]
    pub fn memory_worst_case(&self) -> u64 {
        let document = wide(SIGNED_BYTES_MAX + KEPT_BYTES);
        let (devices, connections) = (wide(self.devices_max), wide(self.connections_max));
        let router = self.application_topics() > 0;
        let link = if router { ROUTER_LINK_BYTES } else { 0 };
        let connection = wide(CONNECTION_BYTES + link + SHARE_BYTES + READ_BYTES + self.packet_bytes_max);
        let log = wide(self.application_segment_bytes).saturating_mul(2 * 2);
        let logs = self
            .application_subscribe
            .iter()
            .fold(0_u64, |sum, topic| sum.saturating_add(if topic.contains("%d") { devices } else { 1 }));
        [
            devices.saturating_add(wide(GROUPS_KEPT_MAX)).saturating_mul(document),
            wide(INBOX_MESSAGES).saturating_mul(wide(self.packet_bytes_max)),
            wide(self.outstanding_bytes_max).saturating_mul(OUTBOXES_OVER),
            connections.saturating_mul(connection),
            log.saturating_mul(logs),
            wide(self.waiting_max).saturating_mul(wide(CONNECT_BYTES_MAX)),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    fn application_topics(&self) -> usize {
        self.application_publish.len() + self.application_subscribe.len()
    }

    /// How much may wait for clients.
    pub(crate) fn bounds(&self) -> Bounds {
        let (answers, documents) = (self.answers_bytes_max, self.documents_bytes_max);
        Bounds { answers, documents, all: self.outstanding_bytes_max }
    }

    /// The settings as the router wants them.
    pub(crate) fn router(&self) -> RouterConfig {
        RouterConfig {
            // The door itself refuses before the router would: a link that the router refuses hangs its builder.
            max_connections: self.connections_max + OWN_LINKS_MAX,
            max_outgoing_packet_count: 200,
            max_segment_size: self.application_segment_bytes,
            max_segment_count: 2,
            ..RouterConfig::default()
        }
    }
}

/// The longest CONNECT that is read, in bytes: names, a password and a small will.
pub(crate) const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// Bytes gathered before they are written to a client.
pub(crate) const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Links of the process itself: heartbeat, reaper, and some for tests.
const OWN_LINKS_MAX: usize = 64;
/// What a connection costs before it has said anything: its task, its socket's state, its entries in maps.
const CONNECTION_BYTES: usize = 6 * 1024;
/// What its link on the router costs beside that; measured.
const ROUTER_LINK_BYTES: usize = 36 * 1024;
/// Bytes read at once.
pub(crate) const READ_BYTES: usize = 8 * 1024;
/// What a document that is kept takes beside its own bytes: the longest name, its place in a map.
const KEPT_BYTES: usize = DEVICE_ID_MAX + 256;
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
    fn thirty_thousand_devices_fit_the_default_budget_connected_and_all() {
        FrontConfig::default().check().unwrap();
        let config = FrontConfig { devices_max: 30_000, ..FrontConfig::default() };
        config.check().unwrap();
        FrontConfig { connections_max: 36_000, ..config }.check().unwrap();
    }

    #[test]
    fn a_fleet_that_the_memory_budget_cannot_hold_is_refused_at_the_start() {
        let config = FrontConfig { devices_max: 1_000_000, ..FrontConfig::default() };
        let error = config.check().unwrap_err();
        assert!(matches!(error, FrontError::MemoryBudget { needed, .. } if needed > 4 << 30), "{error}");
    }

    #[test]
    fn the_router_counts_only_if_the_application_has_topics() {
        let without = FrontConfig::default();
        let topics = vec!["cmd/%d".to_owned(), "cmd/all".to_owned()];
        let with = FrontConfig { application_subscribe: topics, ..without.clone() };
        let router = with.memory_worst_case() - without.memory_worst_case();
        // Two segments for each device and for all, each of twice its nominal size; and a link for each client.
        assert_eq!(router, (2_048 + 1) * 256 * 1024 + 2_500 * 36 * 1024);
    }

    #[test]
    fn segments_that_the_router_would_panic_on_are_refused() {
        let config = FrontConfig { application_segment_bytes: 1023, ..FrontConfig::default() };
        assert!(matches!(config.check(), Err(FrontError::Setting { .. })));
    }

    #[test]
    fn limits_of_no_time_are_refused() {
        let config = FrontConfig { write_limit: Duration::ZERO, ..FrontConfig::default() };
        assert!(matches!(config.check(), Err(FrontError::Setting { setting: "write_limit", .. })));
    }
}

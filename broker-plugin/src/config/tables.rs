//! Every setting of the service, each declared once. `whimbreld config default` prints them.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;

use whimbrel_protocol::ids::Prefix;
use whimbrel_settings::{Program, read, settings};

use crate::attach::{BrokerUrl, Retain};
use crate::serving::admission::REQUEST_BYTES_SERVED_MAX;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

settings! {
    /// The service itself.
    ["service"] pub(super) struct Service {
        /// Folder of the database and the payloads. Made where there is none.
        pub(super) data: PathBuf = "data" => read::path();
        /// Where the admin API listens, address and port; port 0 picks one.
        pub(super) admin: SocketAddr = "127.0.0.1:7878" => read::address();
        /// true: the admin API may listen on an address that others can reach. It has no TLS: whoever sees the
        /// traffic has the token.
        pub(super) danger_admin_on_any_address: bool = "false" => read::switch();
        /// File with the token of the admin API, alone on one line.
        pub(super) token_file: PathBuf = "admin.token" => read::path();
        /// The root of trust, as `whimbrel init` makes it.
        pub(super) root: PathBuf = "root.cbor" => read::path();
        /// Private key that signs campaigns and assignments.
        pub(super) campaign_key: PathBuf = "keys/campaign.cose" => read::path();
        /// Private key that signs beacons and hello answers.
        pub(super) beacon_key: PathBuf = "keys/beacon.cose" => read::path();
        /// First level of all topics: 1 to 16 of A-Z a-z 0-9 _ -. The devices' setting must be the same.
        pub(super) prefix: Prefix = "ota" => read::parsed();
        /// How often a beacon is published if nothing changes, 1s to 30d.
        pub(super) beacon_every: Duration = "4h" => read::duration(SECOND..=30 * DAY);
        /// How long devices take a beacon for news, 1m to 90d: longer than beacon-every by a few beacons that may be
        /// lost. After that they report that nothing new comes.
        pub(super) beacon_life: Duration = "24h" => read::duration(MINUTE..=90 * DAY);
    }

    /// The broker: one of its own, or one whose client the service is.
    ["broker"] pub(super) struct Broker {
        /// Embedded broker: where devices connect, address and port; port 0 picks one. Plain TCP, no TLS yet:
        /// behind a tunnel or a TLS proxy where others can listen.
        pub(super) listen: SocketAddr = "127.0.0.1:1883" => read::address();
        /// Embedded broker: file of the devices' passwords, as `whimbrel device password` writes it. A device that is
        /// named there needs its password. The file is read again when it changes.
        pub(super) passwords: Option<PathBuf>, such as "devices.passwd" => read::optional(read::path());
        /// Embedded broker: true: a device without a password in that file may connect. Then anybody can take its place at
        /// the broker, and what it is is proved by enrolment and signatures alone.
        pub(super) open: bool = "false" => read::switch();
        /// Embedded broker: threads that serve the sockets, 1 to 64.
        pub(super) threads: usize = "2" => read::number(1..=64);
        /// Embedded broker: topics of the application, outside the prefix, that a device may publish to; %d stands for
        /// the device.
        pub(super) application_publish: Vec<String> = "" => read::list();
        /// Embedded broker: topics of the application that a device may subscribe to; %d stands for the device.
        pub(super) application_subscribe: Vec<String> = "" => read::list();
        /// Be a client of this broker instead; then broker.listen must not be set. The broker has to keep each device
        /// to its own topics.
        pub(super) connect: Option<BrokerUrl>, such as "mqtt://127.0.0.1:1884" => read::optional(read::parsed());
        /// Client of another broker: our client id. No other client may have it.
        pub(super) client_id: String = "whimbreld" => read::text();
        /// Client of another broker: whether it is asked to keep documents for devices that come later (the MQTT retain
        /// flag): on, off, or auto, which leaves the flag out once the broker has ended two connections because of it.
        pub(super) retain: Retain = "auto" => read::parsed();
        /// Client of another broker: user name, where it wants one.
        pub(super) user: Option<String>, such as "whimbreld" => read::optional(read::text());
        /// Client of another broker: file with the password, alone on one line.
        pub(super) password_file: Option<PathBuf>, such as "broker.password" => read::optional(read::path());
    }

    /// What bounds the service.
    #[derive(Clone, Debug, PartialEq, Eq)]
    ["limits"] pub struct Limits {
        /// Embedded broker: clients connected at once, 1 to 1000000. About 20 % above the fleet.
        pub connections: usize = "2500" => read::number(1..=1_000_000);
        /// Embedded broker: different devices that are accepted or have a password, 1 to 1000000.
        pub devices: usize = "2048" => read::number(1..=1_000_000);
        /// Embedded broker: other devices that are connected, 1 to 100000. If there are more, the longest idle one of the
        /// address with most of them is closed.
        pub strangers: usize = "128" => read::number(1..=100_000);
        /// Embedded broker: different groups subscribed to at once, 1 to 10000.
        pub groups: usize = "256" => read::number(1..=10_000);
        /// Embedded broker: most memory that it may ever take. Start is refused where the numbers above could exceed it.
        pub broker_memory_bytes as "broker-memory": u64 = "4GiB" => read::size(MIB..=TIB);
        /// Embedded broker: largest packet taken from a device, 2KiB to 1MiB.
        pub packet_bytes as "packet": usize = "65KiB" => read::size(2 * KIB..=MIB);
        /// Devices whose quotas are remembered, 16 to 10000000. About 1 KiB each.
        pub sessions: usize = "65536" => read::number(16..=10_000_000);
        /// How long the quotas of a silent device are remembered, 1s to 30d.
        pub session_idle: Duration = "24h" => read::duration(SECOND..=30 * DAY);
        /// Releases stored, 1 to 100000.
        pub releases: usize = "1000" => read::number(1..=100_000);
        /// Largest database, 1MiB to 16TiB. What would exceed it is refused, as on a full disk.
        pub database_bytes as "database": u64 = "64GiB" => read::size(MIB..=16 * TIB);
        /// Largest payload, 1KiB to 4GiB.
        pub payload_bytes as "payload": u64 = "4GiB" => read::size(KIB..=4096 * MIB);
        /// Memory for payloads as they are on the disk, 8MiB to 1TiB.
        pub payload_cache_bytes as "payload-cache": usize = "256MiB" => read::size(8 * MIB..=TIB);
        /// Memory for chunk messages that many devices get, 0B to 1TiB.
        pub frame_cache_bytes as "frame-cache": usize = "64MiB" => read::size(0..=TIB);
        /// Payload bytes per second that one device may get, 1KiB to 1TiB.
        pub device_rate: u64 = "64MiB" => read::size(KIB..=TIB);
        /// Payload bytes that one device may get at once, 128KiB to 1TiB. Below a second of the rate that is not reached.
        pub device_burst: u64 = "16MiB" => read::size(REQUEST_BYTES_SERVED_MAX..=TIB);
        /// Payload bytes per second for all devices of one campaign, 1KiB to 1TiB.
        pub campaign_rate: u64 = "4GiB" => read::size(KIB..=TIB);
        /// Payload bytes at once for all devices of one campaign, 128KiB to 1TiB.
        pub campaign_burst: u64 = "1GiB" => read::size(REQUEST_BYTES_SERVED_MAX..=TIB);
        /// Payload bytes per second for all devices, 1KiB to 1TiB. Lower it where the uplink is shared.
        pub total_rate: u64 = "4GiB" => read::size(KIB..=TIB);
        /// Payload bytes at once for all devices, 128KiB to 1TiB.
        pub total_burst: u64 = "1GiB" => read::size(REQUEST_BYTES_SERVED_MAX..=TIB);
        /// Requests of operators that are answered at once, 1 to 1000.
        pub admin_requests: usize = "32" => read::number(1..=1000);
    }
}

/// The service's settings.
pub(super) const PROGRAM: Program = Program {
    name: "whimbreld",
    variables: "WHIMBREL_SERVICE__",
    set: "broker.listen=127.0.0.1:1883",
    tables: &[Service::TABLE, Broker::TABLE, Limits::TABLE],
    others: &["publisher", "agent"],
};

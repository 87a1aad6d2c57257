//! Every key there is, with its default and what it is for. `config default` prints this list.

/// One key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// `table.key`.
    pub(super) name: &'static str,
    /// What the value is written as in TOML.
    pub(super) kind: Kind,
    /// The value where nothing else is said; `None`: nothing is.
    pub(super) default: Option<&'static str>,
    /// An example for keys without default.
    pub(super) example: &'static str,
    /// Meaning, unit, when to change it.
    pub(super) about: &'static str,
}

/// What a value is written as in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `"..."`.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// `["...", "..."]`; outside the file separated by spaces.
    List,
}

const fn key(kind: Kind, name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default: Some(default), example: default, about }
}

const fn text(name: &'static str, default: &'static str, about: &'static str) -> Key {
    key(Kind::Text, name, default, about)
}

const fn number(name: &'static str, default: &'static str, about: &'static str) -> Key {
    key(Kind::Number, name, default, about)
}

const fn open(name: &'static str, example: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Text, default: None, example, about }
}

/// Every key, table by table.
pub(super) const KEYS: &[Key] = &[
    text("service.data", "data", "Folder of the database and the payloads. Made where there is none."),
    text(
        "service.admin",
        "127.0.0.1:7878",
        "Where the admin API listens, address and port; port 0 picks one.",
    ),
    key(
        Kind::Switch,
        "service.danger-admin-on-any-address",
        "false",
        "true: the admin API may listen on an address that others can reach. It has no TLS: whoever sees the\n\
         traffic has the token.",
    ),
    text("service.token-file", "admin.token", "File with the token of the admin API, alone on one line."),
    text("service.root", "root.cbor", "The root of trust, as `whimbrel init` makes it."),
    text("service.campaign-key", "keys/campaign.cose", "Private key that signs campaigns and assignments."),
    text("service.beacon-key", "keys/beacon.cose", "Private key that signs beacons and hello answers."),
    text(
        "service.prefix",
        "ota",
        "First level of all topics: 1 to 16 of A-Z a-z 0-9 _ -. The devices' setting must be the same.",
    ),
    text("service.beacon-every", "4h", "How often a beacon is published if nothing changes, 1s to 30d."),
    text(
        "service.beacon-life",
        "24h",
        "How long devices take a beacon for news, 1m to 90d: longer than beacon-every by a few beacons that may be\n\
         lost. After that they report that nothing new comes.",
    ),
    text(
        "broker.listen",
        "127.0.0.1:1883",
        "Embedded broker: where devices connect, address and port; port 0 picks one. Plain TCP, no TLS yet:\n\
         behind a tunnel or a TLS proxy where others can listen.",
    ),
    open(
        "broker.passwords",
        "devices.passwd",
        "Embedded broker: lines `device:SHA-256 of its password in hex`. Where nothing is said anybody may connect\nas any device, and identity is proved by enrolment and signatures alone.",
    ),
    number("broker.threads", "2", "Embedded broker: threads that serve the sockets, 1 to 64."),
    key(
        Kind::List,
        "broker.extra-publish",
        "",
        "Embedded broker: other topics that a device may publish to; %d stands for the device.",
    ),
    key(
        Kind::List,
        "broker.extra-subscribe",
        "",
        "Embedded broker: other topics that a device may subscribe to; %d stands for the device.",
    ),
    open(
        "broker.connect",
        "mqtt://127.0.0.1:1884",
        "Be a client of this broker instead; then broker.listen must not be set. The broker has to keep each device\n\
         to its own topics.",
    ),
    text(
        "broker.client-id",
        "whimbreld",
        "Client of another broker: our client id. No other client may have it.",
    ),
    open("broker.user", "whimbreld", "Client of another broker: user name, where it wants one."),
    open(
        "broker.password-file",
        "broker.password",
        "Client of another broker: file with the password, alone on one line.",
    ),
    number(
        "limits.connections",
        "2500",
        "Embedded broker: clients connected at once, 1 to 1000000. About 20 % above the fleet.",
    ),
    number(
        "limits.devices",
        "2048",
        "Embedded broker: different devices ever seen before it is started again, 1 to 1000000.",
    ),
    number("limits.groups", "256", "Embedded broker: different groups subscribed to, 1 to 10000."),
    text(
        "limits.broker-memory",
        "4GiB",
        "Embedded broker: most memory that its logs may ever take. Start is refused where the numbers above could exceed it.",
    ),
    text("limits.packet", "65KiB", "Embedded broker: largest packet taken from a device, 2KiB to 1MiB."),
    number(
        "limits.sessions",
        "65536",
        "Devices whose quotas are remembered, 16 to 10000000. About 1 KiB each.",
    ),
    text("limits.session-idle", "24h", "How long the quotas of a silent device are remembered, 1s to 30d."),
    number("limits.releases", "1000", "Releases stored, 1 to 100000."),
    text(
        "limits.database",
        "64GiB",
        "Largest database, 1MiB to 16TiB. What would exceed it is refused, as on a full disk.",
    ),
    text("limits.payload", "4GiB", "Largest payload, 1KiB to 4GiB."),
    text("limits.payload-cache", "256MiB", "Memory for payloads as they are on the disk, 8MiB to 1TiB."),
    text("limits.frame-cache", "64MiB", "Memory for chunk messages that many devices get, 0B to 1TiB."),
    text("limits.device-rate", "64MiB", "Payload bytes per second that one device may get, 1KiB to 1TiB."),
    text(
        "limits.device-burst",
        "16MiB",
        "Payload bytes that one device may get at once, 128KiB to 1TiB. Below a second of the rate that is not reached.",
    ),
    text(
        "limits.campaign-rate",
        "4GiB",
        "Payload bytes per second for all devices of one campaign, 1KiB to 1TiB.",
    ),
    text(
        "limits.campaign-burst",
        "1GiB",
        "Payload bytes at once for all devices of one campaign, 128KiB to 1TiB.",
    ),
    text(
        "limits.total-rate",
        "4GiB",
        "Payload bytes per second for all devices, 1KiB to 1TiB. Lower it where the uplink is shared.",
    ),
    text("limits.total-burst", "1GiB", "Payload bytes at once for all devices, 128KiB to 1TiB."),
    number("limits.admin-requests", "32", "Requests of operators that are answered at once, 1 to 1000."),
];

/// Tables of the same file that are not ours.
pub(super) const OTHER_TABLES: [&str; 2] = ["publisher", "agent"];

/// Finds a key by name; `_` counts as `-`, since environment variables can't have that, and case does not count.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    let name = name.replace('_', "-").to_ascii_lowercase();
    KEYS.iter().find(|key| key.name == name)
}

/// What a wrong key could have been: those of its table, or the tables.
pub(super) fn hint(name: &str) -> String {
    let table = name.split_once('.').map_or(name, |(table, _)| table);
    let of_table =
        KEYS.iter().filter_map(|key| key.name.split_once('.')).filter(|(other, _)| *other == table);
    let keys: Vec<&str> = of_table.map(|(_, key)| key).collect();
    if keys.is_empty() {
        "the tables are service, broker, limits, publisher".to_owned()
    } else {
        format!("[{table}] has {}", keys.join(", "))
    }
}

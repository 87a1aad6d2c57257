//! Every key there is, with its default and what it is for. `config default` prints this list.

/// One key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// `table.key`.
    pub(super) name: &'static str,
    /// The value where nothing else is said; `None`: nothing is.
    pub(super) default: Option<&'static str>,
    /// An example for keys without default.
    pub(super) example: &'static str,
    /// Meaning, unit, when to change it.
    pub(super) about: &'static str,
}

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default: Some(default), example: default, about }
}

const fn open(name: &'static str, example: &'static str, about: &'static str) -> Key {
    Key { name, default: None, example, about }
}

/// Every key, table by table.
pub(super) const KEYS: &[Key] = &[
    open(
        "device.id",
        "meter-17",
        "Who this device is, as its broker proves it: 2 to 64 of A-Z a-z 0-9 _ -. Required.",
    ),
    open(
        "device.vendor",
        "example.com",
        "The maker: a domain, or the vendor id in 32 hexadecimal digits. Required.",
    ),
    open(
        "device.class",
        "gateway",
        "The hardware: the maker's name for it, or the class id in 32 hexadecimal digits. Required.",
    ),
    key(
        "device.root",
        "root.cbor",
        "The trust anchor, as `whimbrel init` makes it. Pinned at the first start.",
    ),
    open(
        "device.key",
        "device.cose",
        "The device's own key, a COSE_Key file; made at the first start, readable by its owner only.\n\
         Where nothing is said: device.cose in storage.data.",
    ),
    key("storage.data", "data", "Folder of the slots, the download and everything that the agent remembers."),
    open("broker.url", "mqtt://broker.example.com:1883", "The broker: mqtt://[user@]host[:port]. Required."),
    open("broker.user", "meter-17", "User name, where the broker wants one and broker.url has none."),
    open("broker.password-file", "broker.password", "File with the password, alone on its first line."),
    key(
        "broker.prefix",
        "ota",
        "First level of all topics: 1 to 16 of A-Z a-z 0-9 _ -. The service's setting must be the same.",
    ),
    key(
        "broker.client-id-suffix",
        "auto",
        "What follows device.id in the MQTT client id. `auto`: `-ota` where there is a user name, else nothing.\n\
         `none` and `-ota` say so outright. Without user name brokers take the client id for the identity.",
    ),
    key(
        "broker.keepalive",
        "60s",
        "Longest silence towards the broker, 5s to 18h. Longer costs less and notices a dead link later.",
    ),
    key(
        "broker.connect-limit",
        "30s",
        "How long connecting may take, 1s to 10m. Longer for satellite links.",
    ),
    key(
        "broker.reconnect-base",
        "2s",
        "The first wait before connecting is random below this, each next one below twice as much. 10ms to 1m.",
    ),
    key(
        "broker.reconnect-cap",
        "15m",
        "The longest such wait, up to 1h. Lower it for a handful of devices only: it protects the broker.",
    ),
    key(
        "download.message-size",
        "32KiB",
        "Most payload bytes of one message, 5KiB to 64KiB, and no less than the chunks of a release have. Lower it\n\
         where memory or the broker sets a limit.",
    ),
    key(
        "download.window",
        "64KiB",
        "Most payload bytes that are under way at once, 8KiB to 64KiB. Lower it where other messages to this\n\
         device must not wait: at 2 kB/s a window of 8KiB delays them by up to 4 s, and slows the download\n\
         down where the link's round trip is long. `status` says how long it is now.",
    ),
    key(
        "download.mean-time-between-losses",
        "1h",
        "How long the link usually holds, 1s to 30d. Shorter makes messages smaller, so that a loss costs less.",
    ),
    key(
        "download.decoder-memory",
        "2MiB",
        "Most memory for decoding a payload. Releases that need more are refused.",
    ),
    key(
        "download.accept-es256",
        "off",
        "`on`: also take ES256 signatures on releases, for releases that old tools signed.",
    ),
    key(
        "install.reboot",
        "restart",
        "How to start what the boot control chooses. `restart`: the agent takes the boot loader's step itself and\n\
         starts anew. `exit`: it ends with exit code 4, and a supervisor reboots. A path with arguments:\n\
         that command, such as `/sbin/reboot`; the boot script then runs `whimbrel-agent boot`.",
    ),
    key(
        "install.standalone",
        "root",
        "`root`: whoever may write storage.data may install a signed release from a folder. `off`: nobody.",
    ),
    key(
        "install.patch",
        "replay",
        "What is kept of a patch for after a power cut; nothing is fetched again in any case. `replay`: the patch, which\n\
         is then decoded again from its start and compared. `state`: the patch and the decoder's state, which goes on at\n\
         once. `stream`: the patch is applied as it arrives and not stored, only the state and install.patch-buffer are.",
    ),
    key(
        "install.patch-buffer",
        "256KiB",
        "How much of a patch `stream` keeps, 4KiB to 16MiB, at least four chunks. A smaller one takes less room and more\n\
         writing: the state is saved each time that half of it has come.",
    ),
    key("health.limit", "10m", "How long the health checks of a new image may ask for more time, up to 24h."),
    key(
        "health.reach-limit",
        "24h",
        "How long a new image may be connected without an answer of the service before it is given up, up to 30d;\n\
         time without connection does not count. `0s`: an answer is not required.",
    ),
    open("hooks.folder", "hooks", "Folder of hooks, executables named <State>_<Enter|Leave|Error>_NN_name."),
    key("hooks.limit", "1m", "How long one hook may run, 100ms to 1h."),
    key(
        "hooks.output",
        "4KiB",
        "How much of a hook's output goes to the log, up to 64KiB. The rest is dropped.",
    ),
];

/// Finds a key by name; `_` counts as `-`, since environment variables can't have that, and case does not count.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    let name = name.replace('_', "-").to_ascii_lowercase();
    KEYS.iter().find(|key| key.name == name)
}

/// What keys a wrong one could have been: those of its table, or the tables.
pub(super) fn hint(name: &str) -> String {
    let table = name.split_once('.').map_or(name, |(table, _)| table);
    let in_table: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.name.split_once('.').filter(|(other, _)| *other == table))
        .map(|(_, key)| key)
        .collect();
    if in_table.is_empty() {
        let mut tables: Vec<&str> = KEYS.iter().filter_map(|key| Some(key.name.split_once('.')?.0)).collect();
        tables.dedup();
        return format!("the tables are {}", tables.join(", "));
    }
    format!("[{table}] has {}", in_table.join(", "))
}

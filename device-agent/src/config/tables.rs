//! Every setting of the agent, each declared once. `whimbrel-agent config default` prints them.

use core::time::Duration;
use std::path::PathBuf;

use whimbrel_protocol::ids::{DeviceId, Prefix, VendorId};
use whimbrel_protocol::limits::{CHUNK_HEADER_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use whimbrel_settings::{Program, read, settings};

use super::parse::{self, Reboot, Url};
use whimbrel_engine::storage::PatchMode;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MS: Duration = Duration::from_millis(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

settings! {
    /// Who this device is.
    ["device"] pub(super) struct Device {
        /// Who this device is, as its broker proves it: 2 to 64 of A-Z a-z 0-9 _ -. Required.
        pub(super) id: DeviceId, such as "meter-17" => read::parsed();
        /// The maker: a domain, or the vendor id in 32 hexadecimal digits. Required.
        pub(super) vendor: VendorId, such as "example.com" => read::by(parse::vendor);
        /// The hardware: the maker's name for it, or the class id in 32 hexadecimal digits. Required.
        pub(super) class: String, such as "gateway" => read::text();
        /// The trust anchor, as `whimbrel init` makes it. Pinned at the first start.
        pub(super) root: PathBuf = "root.cbor" => read::absolute_path();
        /// The device's own key, a COSE_Key file; made at the first start, readable by its owner only.
        /// Where nothing is said: device.cose in storage.data.
        pub(super) key: Option<PathBuf>, such as "device.cose" => read::optional(read::absolute_path());
    }

    /// What the agent keeps.
    #[derive(Clone, Debug)]
    ["storage"] pub struct StorageConfig {
        /// Folder of the slots, the download and everything that the agent remembers.
        pub data: PathBuf = "data" => read::absolute_path();
    }

    /// How the broker is reached.
    #[derive(Clone, Debug)]
    ["broker"] pub struct BrokerConfig {
        /// The broker: mqtt://[user@]host[:port]. Required.
        pub url: Url, such as "mqtt://broker.example.com:1883" => read::by(Url::parse);
        /// User name, where the broker wants one and broker.url has none.
        pub user: Option<String>, such as "meter-17" => read::optional(read::text());
        /// File with the password, alone on its first line.
        pub password_file: Option<PathBuf>, such as "broker.password" => read::optional(read::absolute_path());
        /// First level of all topics: 1 to 16 of A-Z a-z 0-9 _ -. The service's setting must be the same.
        pub prefix: Prefix = "ota" => read::parsed();
        /// What follows device.id in the MQTT client id. `auto`: `-ota` where there is a user name, else nothing.
        /// `none` and `-ota` say so outright. Without user name brokers take the client id for the identity.
        pub client_id_suffix: Option<&'static str> = "auto" =>
            read::choice([("auto", None), ("none", Some("")), ("-ota", Some("-ota"))]);
        /// Longest silence towards the broker, 5s to 18h. Longer costs less and notices a dead link later.
        pub keepalive: Duration = "60s" => read::duration(5 * SECOND..=18 * HOUR);
        /// How long connecting may take, 1s to 10m. Longer for satellite links.
        pub connect_limit: Duration = "30s" => read::duration(SECOND..=10 * MINUTE);
        /// The first wait before connecting is random below this, each next one below twice as much. 10ms to 1m.
        pub reconnect_base: Duration = "2s" => read::duration(10 * MS..=MINUTE);
        /// The longest such wait, up to 1h. Lower it for a handful of devices only: it protects the broker.
        pub reconnect_cap: Duration = "15m" => read::duration(10 * MS..=HOUR);
    }

    /// How payloads are fetched.
    #[derive(Clone, Debug)]
    ["download"] pub struct DownloadConfig {
        /// Most payload bytes of one message, 5KiB to 64KiB, and no less than the chunks of a release have. Lower it
        /// where memory or the broker sets a limit.
        // A signed document with its topic has to fit. The messages that are asked for have a header, too.
        pub message_bytes_max as "message-size": usize = "32KiB" =>
            read::map(read::size(5 * KIB..=64 * KIB), |payload: usize| payload + CHUNK_HEADER_BYTES_MAX);
        /// Most payload bytes that are under way at once, 8KiB to 64KiB. Lower it where other messages to this
        /// device must not wait: at 2 kB/s a window of 8KiB delays them by up to 4 s, and slows the download
        /// down where the link's round trip is long. `status` says how long it is now.
        pub window_bytes_max as "window": u64 = "64KiB" => read::size(WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX);
        /// How long the link usually holds, 1s to 30d. Shorter makes messages smaller, so that a loss costs less.
        pub mean_time_between_losses: Duration = "1h" => read::duration(SECOND..=30 * DAY);
        /// Most memory for decoding a payload. Releases that need more are refused.
        pub decoder_memory_bytes_max as "decoder-memory": u64 = "2MiB" => read::size(64 * KIB..=16 * MIB);
        /// `true`: also take ES256 signatures on releases, for releases that old tools signed.
        pub accept_es256: bool = "false" => read::switch();
    }

    /// How images are started, and who may install them.
    #[derive(Clone, Debug)]
    ["install"] pub struct InstallConfig {
        /// How to start what the boot control chooses. `restart`: the agent takes the boot loader's step itself and
        /// starts anew. `exit`: it ends with exit code 4, and a supervisor reboots. A path with arguments:
        /// that command, such as `/sbin/reboot`; the boot script then runs `whimbrel-agent boot`.
        pub reboot: Reboot = "restart" => read::by(parse::reboot);
        /// `root`: whoever may write storage.data may install a signed release from a folder. `off`: nobody.
        pub standalone: bool = "root" => read::choice([("root", true), ("off", false)]);
        /// What is kept of a patch for after a power cut; nothing is fetched again in any case. `replay`: the patch, which
        /// is then decoded again from its start and compared. `state`: the patch and the decoder's state, which goes on at
        /// once. `stream`: the patch is applied as it arrives and not stored, only the state and install.patch-buffer are.
        pub patch: PatchMode = "replay" => read::choice(PatchMode::ALL.map(|mode| (mode.name(), mode)));
        /// How much of a patch `stream` keeps, 4KiB to 16MiB, at least four chunks. A smaller one takes less room and more
        /// writing: the state is saved each time that half of it has come.
        pub patch_buffer_bytes as "patch-buffer": u64 = "256KiB" => read::size(4 * KIB..=16 * MIB);
    }

    /// When a new image counts as good.
    #[derive(Clone, Debug)]
    ["health"] pub struct HealthConfig {
        /// How long the health checks of a new image may ask for more time, up to 24h.
        pub limit: Duration = "10m" => read::duration(Duration::ZERO..=DAY);
        /// How long a new image may be connected without an answer of the service before it is given up, up to 30d;
        /// time without connection does not count. `0s`: an answer is not required.
        pub reach_limit: Duration = "24h" => read::duration(Duration::ZERO..=30 * DAY);
    }

    /// The hooks.
    #[derive(Clone, Debug)]
    ["hooks"] pub struct HookConfig {
        /// Folder of hooks, executables named <State>_<Enter|Leave|Error>_NN_name; HOOKS.md describes them. Nothing is
        /// installed while one of them cannot run or can be changed by others.
        pub folder: Option<PathBuf>, such as "hooks" => read::optional(read::absolute_path());
        /// How long one hook may run, 100ms to 1h.
        pub limit: Duration = "1m" => read::duration(100 * MS..=HOUR);
        /// How much of a hook's output goes to the log, up to 64KiB: the end. The rest is dropped.
        pub output_bytes_max as "output": usize = "4KiB" => read::size(0..=64 * KIB);
    }
}

/// The agent's settings.
pub(super) const PROGRAM: Program = Program {
    name: "whimbrel-agent",
    variables: "WHIMBREL_AGENT__",
    set: "broker.keepalive=30s",
    tables: &[
        Device::TABLE,
        StorageConfig::TABLE,
        BrokerConfig::TABLE,
        DownloadConfig::TABLE,
        InstallConfig::TABLE,
        HealthConfig::TABLE,
        HookConfig::TABLE,
    ],
    others: &[],
};

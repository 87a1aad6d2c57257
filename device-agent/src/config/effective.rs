//! The configuration as used: checked and typed. Nothing else of the agent sees text.

use alloc::collections::BTreeMap;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::path::{Path, PathBuf};

use whimbrel_protocol::ids::{ClassId, DeviceId, Prefix, VendorId};
use whimbrel_protocol::limits::{CHUNK_HEADER_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};

use super::ConfigError;
use super::keys;
use super::layers::{Origin, Setting, Sources, merge};
use super::parse::{self, Url};
use super::units;
use crate::storage::{PatchMode, PatchOptions};

/// Everything that the agent is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this device is.
    pub device: DeviceConfig,
    /// Folder of slots, download and record.
    pub data: PathBuf,
    /// How the broker is reached.
    pub broker: BrokerConfig,
    /// How payloads are fetched.
    pub download: DownloadConfig,
    /// How images are started, and who may install them.
    pub install: InstallConfig,
    /// When a new image counts as good.
    pub health: HealthConfig,
    /// The hooks.
    pub hooks: HookConfig,
}

/// Who this device is.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Its identity, as the broker proves it.
    pub id: DeviceId,
    /// The maker.
    pub vendor: VendorId,
    /// The hardware.
    pub class: ClassId,
    /// File of the trust anchor.
    pub root: PathBuf,
    /// File of the device's key.
    pub key: PathBuf,
}

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Name or address; IPv6 addresses in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name, if any.
    pub user: Option<String>,
    /// File with the password, if any.
    pub password_file: Option<PathBuf>,
    /// First level of all topics.
    pub prefix: Prefix,
    /// The MQTT client id.
    pub client_id: String,
    /// Longest silence towards the broker.
    pub keepalive: Duration,
    /// How long connecting may take.
    pub connect_limit: Duration,
    /// Range of the first wait before connecting.
    pub reconnect_base: Duration,
    /// Largest range of such a wait.
    pub reconnect_cap: Duration,
}

/// How payloads are fetched.
#[derive(Clone, Debug)]
pub struct DownloadConfig {
    /// Largest message to ask for, in bytes, header included.
    pub message_bytes_max: usize,
    /// Largest window, in bytes.
    pub window_bytes_max: u64,
    /// How long the link usually holds.
    pub mean_time_between_losses: Duration,
    /// Most memory for decoding, in bytes.
    pub decoder_memory_bytes_max: u64,
    /// Whether ES256 signatures on releases count.
    pub accept_es256: bool,
}

/// How images are started, and who may install them.
#[derive(Clone, Debug)]
pub struct InstallConfig {
    /// How to start what the boot control chooses.
    pub reboot: Reboot,
    /// Whether releases may be installed from a folder.
    pub standalone: bool,
    /// How patches are applied.
    pub patch: PatchOptions,
}

/// How to start what the boot control chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// The agent takes the boot loader's step and starts anew.
    Restart,
    /// The agent ends with exit code 4.
    Exit,
    /// This command reboots the device.
    Command {
        /// The program, a path from the root.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// When a new image counts as good.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// How long health checks may ask for more time.
    pub limit: Duration,
    /// How long the service may stay unreached while connected.
    pub reach_limit: Duration,
}

/// The hooks.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Their folder, if any.
    pub folder: Option<PathBuf>,
    /// How long one may run.
    pub limit: Duration,
    /// How much of its output is kept, in bytes.
    pub output_bytes_max: usize,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Payload bytes of one message: a signed document with its topic has to fit.
const MESSAGE_BYTES: RangeInclusive<u64> = 5 * 1024..=64 * 1024;
/// What streaming may keep of a patch.
const PATCH_BUFFER_BYTES: RangeInclusive<u64> = 4 * 1024..=16 * 1024 * 1024;

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let values = Values::of(sources)?;
        let data = values.path("storage.data")?.unwrap_or_default();
        let vendor = values.parsed("device.vendor", parse::vendor)?;
        let device = DeviceConfig {
            id: values.parsed("device.id", |text| DeviceId::new(text).map_err(|error| error.to_string()))?,
            vendor,
            class: values.parsed("device.class", |text| parse::class(vendor, text))?,
            root: values.path("device.root")?.unwrap_or_default(),
            key: values.path("device.key")?.unwrap_or_else(|| data.join("device.cose")),
        };
        Ok(Self {
            broker: values.broker(&device.id)?,
            download: values.download()?,
            install: InstallConfig {
                reboot: values.parsed("install.reboot", parse::reboot)?,
                standalone: values.choice("install.standalone", [("root", true), ("off", false)])?,
                patch: PatchOptions {
                    mode: values.choice("install.patch", PatchMode::ALL.map(|mode| (mode.name(), mode)))?,
                    buffer_bytes: values.size("install.patch-buffer", PATCH_BUFFER_BYTES)? as u64,
                    ..PatchOptions::default()
                },
            },
            health: HealthConfig {
                limit: values.duration("health.limit", Duration::ZERO..=DAY)?,
                reach_limit: values.duration("health.reach-limit", Duration::ZERO..=30 * DAY)?,
            },
            hooks: HookConfig {
                folder: values.path("hooks.folder")?,
                limit: values
                    .duration("hooks.limit", Duration::from_millis(100)..=Duration::from_secs(3600))?,
                output_bytes_max: values.size("hooks.output", 0..=64 * 1024)?,
            },
            device,
            data,
        })
    }
}

/// The data folder alone, for the boot script: other settings may be wrong.
///
/// # Errors
/// [`ConfigError`] where a source cannot be read.
pub fn data_folder(sources: &Sources) -> Result<PathBuf, ConfigError> {
    let values = Values::of(sources)?;
    Ok(values.path("storage.data")?.unwrap_or_default())
}

/// The merged text values, and what relative paths of the file are relative to.
struct Values {
    settings: BTreeMap<&'static str, Setting>,
    base: PathBuf,
}

impl Values {
    fn of(sources: &Sources) -> Result<Self, ConfigError> {
        let base = sources.file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        Ok(Self { settings: merge(sources)?, base })
    }

    fn broker(&self, device: &DeviceId) -> Result<BrokerConfig, ConfigError> {
        let url = self.parsed("broker.url", Url::parse)?;
        let user = match (url.user, self.settings.get("broker.user")) {
            (Some(in_url), Some(setting)) if in_url != setting.value => {
                let what = format!("broker.url already says user {in_url}");
                return Err(refused("broker.user", setting, what));
            }
            (Some(user), _) => Some(user),
            (None, setting) => setting.map(|setting| setting.value.clone()),
        };
        let password_file = self.path("broker.password-file")?;
        if let (Some(setting), None) = (self.settings.get("broker.password-file"), &user) {
            let what = "a password needs a user name: set broker.user too".to_owned();
            return Err(refused("broker.password-file", setting, what));
        }
        let suffix = self.choice(
            "broker.client-id-suffix",
            [("auto", if user.is_some() { "-ota" } else { "" }), ("none", ""), ("-ota", "-ota")],
        )?;
        let reconnect_base =
            self.duration("broker.reconnect-base", Duration::from_millis(10)..=Duration::from_secs(60))?;
        let reconnect_cap =
            self.duration("broker.reconnect-cap", Duration::from_millis(10)..=Duration::from_secs(3600))?;
        if let (Some(setting), true) =
            (self.settings.get("broker.reconnect-cap"), reconnect_cap < reconnect_base)
        {
            let what = "must not be below broker.reconnect-base".to_owned();
            return Err(refused("broker.reconnect-cap", setting, what));
        }
        Ok(BrokerConfig {
            host: url.host,
            port: url.port,
            user,
            password_file,
            prefix: self
                .parsed("broker.prefix", |text| Prefix::new(text).map_err(|error| error.to_string()))?,
            client_id: format!("{device}{suffix}"),
            keepalive: self
                .duration("broker.keepalive", Duration::from_secs(5)..=Duration::from_secs(18 * 3600))?,
            connect_limit: self
                .duration("broker.connect-limit", Duration::from_secs(1)..=Duration::from_secs(600))?,
            reconnect_base,
            reconnect_cap,
        })
    }

    fn download(&self) -> Result<DownloadConfig, ConfigError> {
        let payload = self.size("download.message-size", MESSAGE_BYTES)?;
        let window = self.size("download.window", WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX)?;
        Ok(DownloadConfig {
            message_bytes_max: payload + CHUNK_HEADER_BYTES_MAX,
            window_bytes_max: window as u64,
            mean_time_between_losses: self
                .duration("download.mean-time-between-losses", Duration::from_secs(1)..=30 * DAY)?,
            decoder_memory_bytes_max: self.size("download.decoder-memory", 64 * 1024..=16 * 1024 * 1024)?
                as u64,
            accept_es256: self.choice("download.accept-es256", [("on", true), ("off", false)])?,
        })
    }

    /// A value that must be there and that `parse` takes.
    fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let setting = self.settings.get(key).ok_or_else(|| {
            let example = keys::find(key).map_or("", |key| key.example);
            ConfigError::Missing { key, example }
        })?;
        parse(&setting.value).map_err(|what| refused(key, setting, what))
    }

    /// A path from the root, also for hooks, which run in another folder; relative to the file where it stands there.
    /// `None` where nothing is said.
    fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(setting) = self.settings.get(key) else {
            return Ok(None);
        };
        if setting.value.is_empty() {
            return Err(refused(key, setting, "must be a path".to_owned()));
        }
        let path = Path::new(&setting.value);
        let path = match setting.origin {
            Origin::Default | Origin::File { .. } => self.base.join(path),
            Origin::Environment(_) | Origin::Flag => path.to_owned(),
        };
        // Only a process without a working folder has no absolute paths.
        Ok(Some(std::path::absolute(&path).unwrap_or(path)))
    }

    fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        let within = |value: Duration| {
            let say = || format!("must be between {:?} and {:?}", range.start(), range.end());
            if range.contains(&value) { Ok(value) } else { Err(say()) }
        };
        self.parsed(key, |text| units::duration(text).and_then(within))
    }

    fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<usize, ConfigError> {
        let within = |value: u64| {
            let say = || format!("must be between {} and {} bytes", range.start(), range.end());
            usize::try_from(value).ok().filter(|_| range.contains(&value)).ok_or_else(say)
        };
        self.parsed(key, |text| units::size(text).and_then(within))
    }

    fn choice<T: Copy, const N: usize>(
        &self,
        key: &'static str,
        choices: [(&str, T); N],
    ) -> Result<T, ConfigError> {
        let pick = |text: &str| {
            let say = || format!("must be one of {}", choices.map(|(name, _)| name).join(", "));
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(say)
        };
        self.parsed(key, pick)
    }
}

fn refused(key: &'static str, setting: &Setting, what: String) -> ConfigError {
    ConfigError::Value { origin: setting.origin.clone(), key, value: setting.value.clone(), what }
}

//! What the agent is told: flags, environment, one file, defaults.
//!
//! `tables` declares every setting; this file relates them to each other. The rest of the agent sees [`Config`] only.

mod parse;
mod tables;

use std::path::PathBuf;

use whimbrel_protocol::ids::{ClassId, DeviceId, VendorId};
use whimbrel_settings::Secret;
pub use whimbrel_settings::{ConfigError, Sources, Values};

pub use parse::{Reboot, Url};
pub use tables::{BrokerConfig, DownloadConfig, HealthConfig, HookConfig, InstallConfig, StorageConfig};

use tables::{Device, PROGRAM};

/// Everything that the agent is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this device is.
    pub device: DeviceConfig,
    /// Where slots, download and record are.
    pub storage: StorageConfig,
    /// How the broker is reached.
    pub broker: BrokerConfig,
    /// The MQTT client id.
    pub client_id: String,
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

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::of(&values(sources)?)
    }

    fn of(values: &Values) -> Result<Self, ConfigError> {
        let storage = StorageConfig::read(values)?;
        let device = device(values, &storage.data)?;
        let broker = broker(values)?;
        let suffix = broker.client_id_suffix.unwrap_or(if broker.user.is_some() { "-ota" } else { "" });
        Ok(Self {
            client_id: format!("{}{suffix}", device.id),
            device,
            storage,
            broker,
            download: DownloadConfig::read(values)?,
            install: InstallConfig::read(values)?,
            health: HealthConfig::read(values)?,
            hooks: HookConfig::read(values)?,
        })
    }

    /// The same, after the password's file was read as it is for each connection.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, with its place.
    pub fn check(sources: &Sources) -> Result<Self, ConfigError> {
        let values = values(sources)?;
        let config = Self::of(&values)?;
        values.secret("broker.password-file", config.broker.password_file.as_deref(), Secret::first_line)?;
        Ok(config)
    }
}

/// The value that counts of every setting, and where it comes from.
///
/// # Errors
/// [`ConfigError`] if a source cannot be read, or names a key that there is not.
pub fn values(sources: &Sources) -> Result<Values, ConfigError> {
    PROGRAM.values(sources)
}

/// The documented configuration file with every key at its default.
#[must_use]
pub fn default_file() -> String {
    PROGRAM.default_file()
}

/// What the boot script needs: other settings may be wrong.
///
/// # Errors
/// [`ConfigError`] if a source cannot be read.
pub fn storage(sources: &Sources) -> Result<StorageConfig, ConfigError> {
    StorageConfig::read(&values(sources)?)
}

fn device(values: &Values, data: &std::path::Path) -> Result<DeviceConfig, ConfigError> {
    let Device { id, vendor, class, root, key } = Device::read(values)?;
    let class = parse::class(vendor, &class).map_err(|what| values.refuse("device.class", what))?;
    Ok(DeviceConfig { id, vendor, class, root, key: key.unwrap_or_else(|| data.join("device.cose")) })
}

/// The broker, with the user name wherever it was said.
fn broker(values: &Values) -> Result<BrokerConfig, ConfigError> {
    let mut broker = BrokerConfig::read(values)?;
    match (&broker.url.user, &broker.user) {
        (Some(in_url), Some(user)) if in_url != user => {
            return Err(values.refuse("broker.user", format!("broker.url already says user {in_url}")));
        }
        (Some(in_url), _) => broker.user = Some(in_url.clone()),
        (None, _) => {}
    }
    if broker.password_file.is_some() && broker.user.is_none() {
        return Err(
            values.refuse("broker.password-file", "a password needs a user name: set broker.user too")
        );
    }
    if broker.reconnect_cap < broker.reconnect_base {
        return Err(values.refuse("broker.reconnect-cap", "must not be below broker.reconnect-base"));
    }
    Ok(broker)
}

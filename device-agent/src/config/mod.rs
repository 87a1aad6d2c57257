//! What the agent is told: flags, environment, one file, defaults.
//!
//! `keys` lists every key, `layers` and `file` find the text that counts for each, `effective` turns it into
//! types and checks it. The rest of the agent sees [`Config`] only.

mod effective;
mod error;
mod file;
mod keys;
mod layers;
mod parse;
mod show;
mod units;

pub use effective::{
    BrokerConfig, Config, DeviceConfig, DownloadConfig, HealthConfig, HookConfig, InstallConfig, Reboot,
    data_folder,
};
pub use error::ConfigError;
pub use layers::{Origin, Sources};
pub use show::{default_file, show};

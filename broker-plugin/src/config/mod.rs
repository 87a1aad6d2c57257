//! What the service is told: flags, environment, one file, defaults.
//!
//! `keys` lists every key, `layers` finds the text that counts for each, `effective` turns it into types and checks
//! it. The rest of the service sees [`Config`] only.

mod effective;
mod error;
mod keys;
mod layers;
mod show;
mod units;

pub use effective::{BrokerConfig, Config, Limits};
pub use error::ConfigError;
pub use layers::{Origin, Sources};
pub use show::{default_file, show};

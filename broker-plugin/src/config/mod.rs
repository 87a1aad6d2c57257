//! What the service is told: flags, environment, one file, defaults.
//!
//! `tables` declares every setting; this file relates them to each other and reads the files that they name. The rest
//! of the service sees [`Config`] only.

mod tables;

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;
use std::path::{Path, PathBuf};

use whimbrel_protocol::ids::Prefix;
use whimbrel_settings::Secret;
pub use whimbrel_settings::{ConfigError, Sources, Values};

pub use tables::Limits;

use crate::admin::is_private;
use crate::attach::{BrokerUrl, Retain};
use crate::front::FrontConfig;
use crate::passwords::PasswordFile;
use crate::serving::admission::{Rate, Rates};
use crate::signing::AuthorityFiles;
use tables::{Broker, PROGRAM, Service};

/// Everything that the service is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of database and payloads.
    pub data: PathBuf,
    /// The address that the admin API listens on.
    pub admin: SocketAddr,
    /// File with the admin token.
    pub token_file: PathBuf,
    /// Root and keys.
    pub authority: AuthorityFiles,
    /// First level of all topics.
    pub prefix: Prefix,
    /// A beacon is published after this long if nothing changes.
    pub beacon_every: Duration,
    /// A beacon counts for this long.
    pub beacon_life: Duration,
    /// The broker that the service is, or the one that it is a client of.
    pub broker: BrokerConfig,
    /// Limits that the service refuses to exceed.
    pub limits: Limits,
}

/// The broker that the service is, or the one that it is a client of.
#[derive(Clone, Debug)]
pub enum BrokerConfig {
    /// It is its own broker.
    Embedded {
        /// The front door.
        front: Box<FrontConfig>,
        /// The devices' passwords.
        passwords: Option<Arc<PasswordFile>>,
        /// Whether devices without a password may connect.
        open: bool,
    },
    /// It is a client.
    Client {
        /// Where the broker is.
        url: BrokerUrl,
        /// Our client id.
        client_id: String,
        /// User name and password.
        login: Option<(String, String)>,
        /// Whether the broker is asked to keep documents.
        retain: Retain,
    },
}

impl Config {
    /// Reads and checks the configuration, and the passwords that it names.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let values = values(sources)?;
        let service = Service::read(&values)?;
        if !is_private(service.admin) && !service.danger_admin_on_any_address {
            let what = "must be a loopback address such as 127.0.0.1:7878, unless \
                        service.danger-admin-on-any-address is true";
            return Err(values.refuse("service.admin", what));
        }
        if service.beacon_life <= service.beacon_every {
            return Err(values.refuse("service.beacon-life", "must be longer than service.beacon-every"));
        }
        let broker = Broker::read(&values)?;
        let limits = Limits::read(&values)?;
        let broker = match broker.connect {
            Some(_) if values.is_said("broker.listen") => {
                let what = "broker.listen is set too: with broker.connect there is no embedded broker, leave one out";
                return Err(values.refuse("broker.connect", what));
            }
            Some(ref url) => client(&values, url.clone(), &broker)?,
            None => BrokerConfig::Embedded {
                passwords: broker.passwords.as_deref().map(|path| passwords(&values, path)).transpose()?,
                open: broker.open,
                front: Box::new(front(broker, &service.prefix, &limits)),
            },
        };
        Ok(Self {
            data: service.data,
            admin: service.admin,
            token_file: service.token_file,
            authority: AuthorityFiles {
                root: service.root,
                campaign_key: service.campaign_key,
                beacon_key: service.beacon_key,
            },
            prefix: service.prefix,
            beacon_every: service.beacon_every,
            beacon_life: service.beacon_life,
            broker,
            limits,
        })
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

impl Limits {
    /// How fast payloads are served.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let rate = |bytes_per_s, burst_bytes| Rate { bytes_per_s, burst_bytes };
        let device = rate(self.device_rate, self.device_burst);
        Rates {
            device,
            campaign: rate(self.campaign_rate, self.campaign_burst),
            // Devices do not say their cell yet: the bucket is never asked.
            cell: device,
            total: rate(self.total_rate, self.total_burst),
        }
    }
}

fn front(broker: Broker, prefix: &Prefix, limits: &Limits) -> FrontConfig {
    FrontConfig {
        listen: broker.listen,
        prefix: prefix.clone(),
        connections_max: limits.connections,
        devices_max: limits.devices,
        strangers_max: limits.strangers,
        groups_max: limits.groups,
        packet_bytes_max: limits.packet_bytes,
        memory_budget: limits.broker_memory_bytes,
        worker_threads: broker.threads,
        application_publish: broker.application_publish,
        application_subscribe: broker.application_subscribe,
        ..FrontConfig::default()
    }
}

fn client(values: &Values, url: BrokerUrl, broker: &Broker) -> Result<BrokerConfig, ConfigError> {
    const KEY: &str = "broker.password-file";
    let password = values.secret(KEY, broker.password_file.as_deref(), Secret::read)?;
    if let (Some(path), Some(password)) = (&broker.password_file, &password)
        && password.open_mode().is_some()
    {
        crate::signing::warn_that_open(path);
    }
    let login = match (&broker.user, password) {
        (Some(user), password) => {
            Some((user.clone(), password.map_or_else(String::new, |password| password.expose().to_owned())))
        }
        (None, None) => None,
        (None, Some(_)) => {
            return Err(values.refuse(KEY, "a password needs a user name: set broker.user too"));
        }
    };
    Ok(BrokerConfig::Client { url, client_id: broker.client_id.clone(), login, retain: broker.retain })
}

fn passwords(values: &Values, path: &Path) -> Result<Arc<PasswordFile>, ConfigError> {
    let file = PasswordFile::open(path);
    file.map(Arc::new).map_err(|what| values.refuse_file("broker.passwords", path, what.to_string()))
}

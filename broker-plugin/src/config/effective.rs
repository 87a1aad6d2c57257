//! The configuration as used: typed and checked.

use alloc::collections::BTreeMap;
use core::fmt::Display;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::str::FromStr;
use core::time::Duration;
use std::path::{Path, PathBuf};

use whimbrel_protocol::ids::Prefix;

use super::ConfigError;
use super::layers::{Origin, Setting, Sources, merge};
use super::units;
use crate::admin::is_private;
use crate::attach::BrokerUrl;
use crate::front::FrontConfig;
use crate::registry::Passwords;
use crate::serving::admission::{REQUEST_BYTES_SERVED_MAX, Rate, Rates};
use crate::signing::AuthorityFiles;

/// Everything that the service is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of database and payloads.
    pub data: PathBuf,
    /// Where the admin API listens.
    pub admin: SocketAddr,
    /// File with the admin token.
    pub token_file: PathBuf,
    /// Root and keys.
    pub authority: AuthorityFiles,
    /// First level of all topics.
    pub prefix: Prefix,
    /// How often a beacon is published.
    pub beacon_every: Duration,
    /// How long a beacon counts.
    pub beacon_life: Duration,
    /// How the service hangs on its broker.
    pub broker: BrokerConfig,
    /// What bounds it.
    pub limits: Limits,
}

/// How the service hangs on its broker.
#[derive(Clone, Debug)]
pub enum BrokerConfig {
    /// It is its own broker.
    Embedded {
        /// The front door.
        front: Box<FrontConfig>,
        /// The devices' passwords.
        passwords: Option<Passwords>,
    },
    /// It is a client.
    Client {
        /// Where the broker is.
        url: BrokerUrl,
        /// Our client id.
        client_id: String,
        /// User name and password.
        login: Option<(String, String)>,
    },
}

/// What bounds the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Devices whose state is in memory.
    pub sessions: usize,
    /// How long the state of a silent device is kept.
    pub session_idle: Duration,
    /// Releases stored.
    pub releases: usize,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// Bytes of the largest payload.
    pub payload_bytes: u64,
    /// Bytes of payloads kept in memory.
    pub payload_cache_bytes: usize,
    /// Bytes of messages kept in memory.
    pub frame_cache_bytes: usize,
    /// How fast payloads are served.
    pub rates: Rates,
    /// Admin requests answered at once.
    pub admin_requests: usize,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);
const TIB: u64 = 1 << 40;
const MIB: u64 = 1 << 20;

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let base = sources.file.parent().map(Path::to_owned).unwrap_or_default();
        let values = Values { settings: merge(sources)?, base };
        let prefix: Prefix = values.parsed("service.prefix")?;
        let admin: SocketAddr = values.address("service.admin")?;
        if !is_private(admin) && !values.switch("service.danger-admin-on-any-address")? {
            let what = "must be a loopback address such as 127.0.0.1:7878, unless \
                        service.danger-admin-on-any-address is true";
            return Err(values.refuse("service.admin", what.to_owned()));
        }
        let beacon_every = values.duration("service.beacon-every", SECOND..=30 * DAY)?;
        let beacon_life = values.duration("service.beacon-life", 60 * SECOND..=90 * DAY)?;
        if beacon_life <= beacon_every {
            let what = "must be longer than service.beacon-every".to_owned();
            return Err(values.refuse("service.beacon-life", what));
        }
        Ok(Self {
            data: values.path("service.data")?,
            admin,
            token_file: values.path("service.token-file")?,
            authority: AuthorityFiles {
                root: values.path("service.root")?,
                campaign_key: values.path("service.campaign-key")?,
                beacon_key: values.path("service.beacon-key")?,
            },
            beacon_every,
            beacon_life,
            broker: values.broker(&prefix)?,
            limits: values.limits()?,
            prefix,
        })
    }
}

/// The merged text values, and what relative paths of the file are relative to.
struct Values {
    settings: BTreeMap<&'static str, Setting>,
    base: PathBuf,
}

impl Values {
    fn broker(&self, prefix: &Prefix) -> Result<BrokerConfig, ConfigError> {
        let listen = self.setting("broker.listen").filter(|setting| setting.origin != Origin::Default);
        let Some(connect) = self.setting("broker.connect") else {
            return Ok(BrokerConfig::Embedded {
                front: Box::new(self.front(prefix)?),
                passwords: self.passwords()?,
            });
        };
        if listen.is_some() {
            let what =
                "broker.listen is set too: with broker.connect there is no embedded broker, leave one out";
            return Err(self.refuse("broker.connect", what.to_owned()));
        }
        let url = connect
            .value
            .parse()
            .map_err(|error: crate::attach::LinkError| self.refuse("broker.connect", error.to_string()))?;
        let user = self.setting("broker.user").map(|setting| setting.value.clone());
        let password = self.password()?;
        let login = match (user, password) {
            (Some(user), password) => Some((user, password.unwrap_or_default())),
            (None, None) => None,
            (None, Some(_)) => {
                let what = "a password needs a user name: set broker.user too".to_owned();
                return Err(self.refuse("broker.password-file", what));
            }
        };
        Ok(BrokerConfig::Client { url, client_id: self.parsed("broker.client-id")?, login })
    }

    fn front(&self, prefix: &Prefix) -> Result<FrontConfig, ConfigError> {
        let list = |key| -> Vec<String> {
            let setting = self.setting(key);
            let items = setting.map_or("", |setting| &setting.value).split_ascii_whitespace();
            items.map(str::to_owned).collect()
        };
        Ok(FrontConfig {
            listen: self.address("broker.listen")?,
            prefix: prefix.clone(),
            connections_max: self.number("limits.connections", 1..=1_000_000)?,
            devices_max: self.number("limits.devices", 1..=1_000_000)?,
            groups_max: self.number("limits.groups", 1..=10_000)?,
            packet_bytes_max: self.size("limits.packet", 2048..=MIB)?,
            memory_budget: self.bytes("limits.broker-memory", MIB..=TIB)?,
            worker_threads: self.number("broker.threads", 1..=64)?,
            extra_publish: list("broker.extra-publish"),
            extra_subscribe: list("broker.extra-subscribe"),
            ..FrontConfig::default()
        })
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let rate = |rate, burst| -> Result<Rate, ConfigError> {
            Ok(Rate {
                bytes_per_s: self.bytes(rate, 1024..=TIB)?,
                burst_bytes: self.bytes(burst, REQUEST_BYTES_SERVED_MAX..=TIB)?,
            })
        };
        let device = rate("limits.device-rate", "limits.device-burst")?;
        Ok(Limits {
            sessions: self.number("limits.sessions", 16..=10_000_000)?,
            session_idle: self.duration("limits.session-idle", SECOND..=30 * DAY)?,
            releases: self.number("limits.releases", 1..=100_000)?,
            database_bytes: self.bytes("limits.database", MIB..=16 * TIB)?,
            payload_bytes: self.bytes("limits.payload", 1024..=4096 * MIB)?,
            payload_cache_bytes: self.size("limits.payload-cache", 8 * MIB..=TIB)?,
            frame_cache_bytes: self.size("limits.frame-cache", 0..=TIB)?,
            rates: Rates {
                device,
                campaign: rate("limits.campaign-rate", "limits.campaign-burst")?,
                // Devices do not say their cell yet: the bucket is never asked.
                cell: device,
                total: rate("limits.total-rate", "limits.total-burst")?,
            },
            admin_requests: self.number("limits.admin-requests", 1..=1000)?,
        })
    }

    fn passwords(&self) -> Result<Option<Passwords>, ConfigError> {
        const KEY: &str = "broker.passwords";
        if self.setting(KEY).is_none() {
            return Ok(None);
        }
        let path = self.path(KEY)?;
        let text = read(KEY, &path)?;
        let passwords = Passwords::read(&text).map_err(|(line, what)| ConfigError::File {
            key: KEY,
            path,
            what: format!("line {line}: {what}"),
        })?;
        Ok(Some(passwords))
    }

    fn password(&self) -> Result<Option<String>, ConfigError> {
        const KEY: &str = "broker.password-file";
        if self.setting(KEY).is_none() {
            return Ok(None);
        }
        let path = self.path(KEY)?;
        let text = read(KEY, &path)?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.len() > 1024 || password.contains('\n') {
            let what = "expected the password alone on one line, at most 1024 bytes".to_owned();
            return Err(ConfigError::File { key: KEY, path, what });
        }
        crate::signing::warn_if_open(&path);
        Ok(Some(password.to_owned()))
    }

    fn setting(&self, key: &'static str) -> Option<&Setting> {
        self.settings.get(key)
    }

    fn text(&self, key: &'static str) -> &str {
        self.setting(key).map_or("", |setting| &setting.value)
    }

    fn refuse(&self, key: &'static str, what: String) -> ConfigError {
        let origin = self.setting(key).map_or(Origin::Default, |setting| setting.origin.clone());
        ConfigError::Value { origin, key, value: self.text(key).to_owned(), what }
    }

    fn parsed<T: FromStr<Err: Display>>(&self, key: &'static str) -> Result<T, ConfigError> {
        self.text(key).parse().map_err(|error: T::Err| self.refuse(key, error.to_string()))
    }

    fn address(&self, key: &'static str) -> Result<SocketAddr, ConfigError> {
        let what = || "must be an address and a port, such as 127.0.0.1:1883 or [::1]:1883".to_owned();
        self.text(key).parse().map_err(|_| self.refuse(key, what()))
    }

    fn switch(&self, key: &'static str) -> Result<bool, ConfigError> {
        self.text(key).parse().map_err(|_| self.refuse(key, "must be true or false".to_owned()))
    }

    /// A path, relative to the file where it stands there or nowhere, else to where the service was started.
    fn path(&self, key: &'static str) -> Result<PathBuf, ConfigError> {
        let path = Path::new(self.text(key));
        if path.as_os_str().is_empty() {
            return Err(self.refuse(key, "must be a path".to_owned()));
        }
        Ok(match self.setting(key).map(|setting| &setting.origin) {
            Some(Origin::Environment(_) | Origin::Flag) => path.to_owned(),
            _ => self.base.join(path),
        })
    }

    fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        let value = units::duration(self.text(key)).map_err(|what| self.refuse(key, what))?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.refuse(key, format!("must be between {:?} and {:?}", range.start(), range.end())))
    }

    fn bytes(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let value = units::size(self.text(key)).map_err(|what| self.refuse(key, what))?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.refuse(key, format!("must be between {} and {} bytes", range.start(), range.end())))
    }

    fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<usize, ConfigError> {
        let value = self.bytes(key, range)?;
        usize::try_from(value)
            .map_err(|_| self.refuse(key, "is more than this machine can address".to_owned()))
    }

    fn number(&self, key: &'static str, range: RangeInclusive<usize>) -> Result<usize, ConfigError> {
        match self.text(key).parse() {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => {
                let what = format!("must be a whole number between {} and {}", range.start(), range.end());
                Err(self.refuse(key, what))
            }
        }
    }
}

/// Reads a file that a key names.
fn read(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        key,
        path: path.to_owned(),
        what: format!("cannot be read: {error}"),
    })
}

//! `whimbrel.toml`, as far as the command line needs it.
//!
//! The service reads the same file and takes its own tables. Of the table `[service]` this program uses only
//! the service's address, the token's file and the root; the service uses the rest.

use std::path::PathBuf;

pub use whimbrel_settings::{ConfigError, Sources, Values};
use whimbrel_settings::{Program, read, settings};

/// The name of the file.
pub const FILE_NAME: &str = "whimbrel.toml";
/// The environment variable that names the file if `--config` does not.
pub const FILE_VARIABLE: &str = "WHIMBREL_CONFIG";
/// The commented file that `whimbrel init` writes.
pub const DEFAULT_FILE: &str = include_str!("whimbrel.toml");

settings! {
    /// Where the service is.
    ["service"] struct Service {
        /// Address and port of the admin API.
        admin: Option<String>, such as "127.0.0.1:7878" => read::optional(read::text());
        /// File with the token of the admin API, alone on one line.
        token_file: Option<PathBuf>, such as "admin.token" => read::optional(read::path());
        /// The root of trust, as `whimbrel init` makes it.
        root: Option<PathBuf>, such as "root.cbor" => read::optional(read::path());
    }

    /// The broker.
    ["broker"] struct Broker {
        /// File of the devices' passwords at the embedded broker.
        passwords: Option<PathBuf>, such as "devices.passwd" => read::optional(read::path());
    }

    /// What the command line uses where a flag does not say otherwise.
    ["publisher"] struct Publisher {
        /// Keys for `whimbrel release sign`.
        release_keys: Vec<PathBuf>, such as "offline-keys/release.cose" => read::paths();
        /// Who makes the devices: a domain.
        vendor: Option<String>, such as "example.com" => read::optional(read::text());
        /// Which of the maker's devices a release is for.
        class: Option<String>, such as "gateway" => read::optional(read::text());
    }
}

const PROGRAM: Program = Program {
    name: "whimbrel",
    variables: "WHIMBREL_PUBLISHER__",
    set: "publisher.vendor=example.com",
    tables: &[Service::TABLE.shared(), Broker::TABLE.shared(), Publisher::TABLE],
    others: &["limits", "agent"],
};

/// The settings that the command line uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[service] admin`: address and port.
    pub admin: Option<String>,
    /// `[service] token-file`.
    pub token_file: Option<PathBuf>,
    /// `[service] root`.
    pub root: Option<PathBuf>,
    /// `[broker] passwords`.
    pub passwords: Option<PathBuf>,
    /// `[publisher] release-keys`.
    pub release_keys: Vec<PathBuf>,
    /// `[publisher] vendor`.
    pub vendor: Option<String>,
    /// `[publisher] class`.
    pub class: Option<String>,
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let values = values(sources)?;
        let Service { admin, token_file, root } = Service::read(&values)?;
        let Broker { passwords } = Broker::read(&values)?;
        let Publisher { release_keys, vendor, class } = Publisher::read(&values)?;
        Ok(Self { admin, token_file, root, passwords, release_keys, vendor, class })
    }
}

/// Finds for every setting the value that counts, and where it comes from.
///
/// # Errors
/// [`ConfigError`] if a source cannot be read, or names a key that there is not.
pub fn values(sources: &Sources) -> Result<Values, ConfigError> {
    PROGRAM.values(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, text).unwrap();
        let mut config = Config::load(&Sources { file: Some(path), ..Sources::default() })?;
        // The folder's name differs from run to run.
        let strip = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().to_path_buf();
        config.token_file = config.token_file.map(strip);
        config.root = config.root.map(strip);
        config.passwords = config.passwords.map(strip);
        config.release_keys = config.release_keys.into_iter().map(strip).collect();
        Ok(config)
    }

    #[test]
    fn the_default_file_names_what_init_makes() {
        let want = Config {
            admin: Some("127.0.0.1:7878".into()),
            token_file: Some("admin.token".into()),
            root: Some("root.cbor".into()),
            passwords: Some("devices.passwd".into()),
            release_keys: vec!["offline-keys/release.cose".into()],
            vendor: Some("example.com".into()),
            class: Some("gateway".into()),
        };
        assert_eq!(read(DEFAULT_FILE).unwrap(), want);
    }

    #[test]
    fn tables_of_the_service_are_its_own_business() {
        let config = read("[service]\nnew-key = 1\n[limits]\nx = 2\n").unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let message = |text| read(text).unwrap_err().to_string();
        assert!(
            message("[publisher]\n\nvendr = 1\n")
                .contains("line 3: there is no key publisher.vendr; [publisher] has release-keys, vendor")
        );
        assert!(
            message("[publisher]\nvendor = 1\n").contains("line 2: publisher.vendor must be text in quotes")
        );
        assert!(message("[service\n").contains("line 1: "));
    }
}

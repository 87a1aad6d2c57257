//! `whimbrel.toml`, as far as the command line needs it.
//!
//! The service reads the same file and takes its own tables; what it knows and we do not is none of our
//! business. In `[publisher]` an unknown key is an error.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::files::{self, FileError};

/// The name of the file.
pub const FILE_NAME: &str = "whimbrel.toml";
/// Names the file, where `--config` does not.
pub const FILE_VARIABLE: &str = "WHIMBREL_CONFIG";
/// The commented file that `whimbrel init` writes.
pub const DEFAULT_FILE: &str = include_str!("whimbrel.toml");

/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what it should be.
    #[error("{}, line {line}: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// What the command line takes from the file, with paths made absolute by the file's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// `[service] admin`: address and port.
    pub admin: Option<String>,
    /// `[service] token-file`.
    pub token_file: Option<PathBuf>,
    /// `[service] root`.
    pub root: Option<PathBuf>,
    /// `[publisher] release-keys`.
    pub release_keys: Vec<PathBuf>,
    /// `[publisher] vendor`.
    pub vendor: Option<String>,
    /// `[publisher] class`.
    pub class: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    service: Service,
    publisher: Publisher,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Service {
    admin: Option<String>,
    token_file: Option<PathBuf>,
    root: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Publisher {
    release_keys: Vec<PathBuf>,
    vendor: Option<String>,
    class: Option<String>,
}

impl Config {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = files::read(path, "a configuration", FILE_BYTES_MAX)?;
        let malformed = |line, reason| ConfigError::Malformed { path: path.into(), line, reason };
        let text = core::str::from_utf8(&bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            malformed(line_of(before), "not UTF-8".into())
        })?;
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = bytes.get(..at).unwrap_or_default();
            malformed(line_of(before), error.message().into())
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let beside = |path: PathBuf| folder.join(path);
        Ok(Self {
            path: path.into(),
            admin: file.service.admin,
            token_file: file.service.token_file.map(beside),
            root: file.service.root.map(beside),
            release_keys: file.publisher.release_keys.into_iter().map(beside).collect(),
            vendor: file.publisher.vendor,
            class: file.publisher.class,
        })
    }
}

fn line_of(before: &[u8]) -> usize {
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, text).unwrap();
        let mut config = Config::read(&path)?;
        // The folder has another name every time.
        let strip = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().to_path_buf();
        config.path = FILE_NAME.into();
        config.token_file = config.token_file.map(strip);
        config.root = config.root.map(strip);
        config.release_keys = config.release_keys.into_iter().map(strip).collect();
        Ok(config)
    }

    #[test]
    fn the_default_file_names_what_init_makes() {
        let want = Config {
            path: FILE_NAME.into(),
            admin: Some("127.0.0.1:7878".into()),
            token_file: Some("admin.token".into()),
            root: Some("root.cbor".into()),
            release_keys: vec!["keys/release.cose".into()],
            vendor: Some("example.com".into()),
            class: Some("gateway".into()),
        };
        assert_eq!(read(DEFAULT_FILE).unwrap(), want);
    }

    #[test]
    fn tables_of_the_service_are_its_own_business() {
        let config = read("[service]\nnew-key = 1\n[limits]\nx = 2\n").unwrap();
        assert_eq!(config, Config { path: FILE_NAME.into(), ..Config::default() });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let message = |text| read(text).unwrap_err().to_string();
        assert!(message("[publisher]\n\nvendr = 1\n").contains("line 3: unknown field `vendr`"));
        assert!(message("[publisher]\nvendor = 1\n").contains("line 2: invalid type"));
        assert!(message("[service\n").contains("line 1: "));
    }
}

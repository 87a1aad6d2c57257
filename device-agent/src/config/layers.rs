//! Where values come from: flag before environment before file before default.

use alloc::collections::BTreeMap;
use core::fmt;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::keys::{self, KEYS, Key};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The key's default.
    Default,
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A `--set` on the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; `None`: there is none, all comes from elsewhere.
    pub file: Option<PathBuf>,
    /// Environment variables, all of them.
    pub environment: Vec<(String, String)>,
    /// `table.key=value` from the command line, later ones winning.
    pub sets: Vec<String>,
}

/// Variables that start so set keys: `WHIMBREL_AGENT__BROKER__KEEPALIVE`.
const VARIABLE_PREFIX: &str = "WHIMBREL_AGENT__";
/// Most bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Every key that has a value, with the value that counts.
pub(super) fn merge(sources: &Sources) -> Result<BTreeMap<&'static str, Setting>, ConfigError> {
    let mut settings: BTreeMap<&'static str, Setting> = KEYS
        .iter()
        .filter_map(|key| {
            let value = key.default?.to_owned();
            Some((key.name, Setting { value, origin: Origin::Default }))
        })
        .collect();
    if let Some(path) = &sources.file {
        super::file::read(path, &mut settings)?;
    }
    let mut variables: Vec<_> =
        sources.environment.iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        let origin = Origin::Environment(name.clone());
        let dotted = name.trim_start_matches(VARIABLE_PREFIX).replace("__", ".");
        let key = find(&dotted, &origin)?;
        settings.insert(key.name, Setting { value: value.clone(), origin });
    }
    for text in &sources.sets {
        let (name, value) = text.split_once('=').ok_or_else(|| ConfigError::Set { text: text.clone() })?;
        let key = find(name.trim(), &Origin::Flag)?;
        settings.insert(key.name, Setting { value: value.trim().to_owned(), origin: Origin::Flag });
    }
    Ok(settings)
}

fn find(name: &str, origin: &Origin) -> Result<&'static Key, ConfigError> {
    keys::find(name).ok_or_else(|| {
        let key = name.to_ascii_lowercase();
        ConfigError::Unknown { origin: origin.clone(), hint: keys::hint(&key), key }
    })
}

/// Reads a configuration file whole.
pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let fail = |error| ConfigError::Read { path: path.to_owned(), error };
    let length = std::fs::metadata(path).map_err(fail)?.len();
    if length > FILE_BYTES_MAX {
        let what = format!("it has {length} bytes, at most {FILE_BYTES_MAX} are read");
        return Err(fail(std::io::Error::other(what)));
    }
    std::fs::read_to_string(path).map_err(fail)
}

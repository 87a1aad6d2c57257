//! Where values come from: flag before environment before file before default.

use alloc::collections::BTreeMap;
use core::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{self, KEYS, Key, Kind, OTHER_TABLES};

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

/// A value as text, and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file.
    pub file: PathBuf,
    /// Environment variables, all of them.
    pub environment: Vec<(String, String)>,
    /// `table.key=value` from the command line, later ones winning.
    pub sets: Vec<String>,
}

/// Variables that start so set keys: `WHIMBREL_SERVICE__BROKER__LISTEN`.
const VARIABLE_PREFIX: &str = "WHIMBREL_SERVICE__";
/// Most bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Every key that has a value, with the value that counts.
pub(super) fn merge(sources: &Sources) -> Result<BTreeMap<&'static str, Setting>, ConfigError> {
    let defaults = KEYS.iter().filter_map(|key| {
        let value = key.default?.to_owned();
        Some((key.name, Setting { value, origin: Origin::Default }))
    });
    let mut settings: BTreeMap<&'static str, Setting> = defaults.collect();
    read_file(&sources.file, &mut settings)?;
    let of_ours = |(name, _): &&(String, String)| name.starts_with(VARIABLE_PREFIX);
    let mut variables: Vec<_> = sources.environment.iter().filter(of_ours).collect();
    variables.sort();
    for (name, value) in variables {
        let origin = Origin::Environment(name.clone());
        let dotted = name.trim_start_matches(VARIABLE_PREFIX).replace("__", ".");
        settings.insert(find(&dotted, &origin)?.name, Setting { value: value.clone(), origin });
    }
    for text in &sources.sets {
        let (name, value) = text.split_once('=').ok_or_else(|| ConfigError::Set { text: text.clone() })?;
        let key = find(name.trim(), &Origin::Flag)?;
        settings.insert(key.name, Setting { value: value.trim().to_owned(), origin: Origin::Flag });
    }
    Ok(settings)
}

fn find(name: &str, origin: &Origin) -> Result<&'static Key, ConfigError> {
    keys::find(name).ok_or_else(|| unknown(origin.clone(), name.to_ascii_lowercase()))
}

fn unknown(origin: Origin, key: String) -> ConfigError {
    ConfigError::Unknown { origin, hint: keys::hint(&key), key }
}

/// Enters what the file says. What is unknown is refused with its line, so that a mistyped key is never silently
/// without effect; tables of other programs are left to them.
fn read_file(path: &Path, settings: &mut BTreeMap<&'static str, Setting>) -> Result<(), ConfigError> {
    let text = read_text(path)?;
    let origin_at = |offset: usize| Origin::File { path: path.to_owned(), line: line_of(&text, offset) };
    let document = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(&text, error.span().map_or(0, |span| span.start)),
        what: error.message().replace('\n', " "),
    })?;
    for (table, content) in document.get_ref() {
        let table_name = table.get_ref().as_ref();
        if OTHER_TABLES.contains(&table_name) {
            continue;
        }
        let DeValue::Table(content) = content.get_ref() else {
            return Err(unknown(origin_at(table.span().start), table_name.to_owned()));
        };
        if !KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(known, _)| known == table_name)) {
            return Err(unknown(origin_at(table.span().start), table_name.to_owned()));
        }
        for (key, value) in content {
            let origin = origin_at(key.span().start);
            let name = format!("{table_name}.{}", key.get_ref());
            let Some(key) = KEYS.iter().find(|known| known.name == name) else {
                return Err(unknown(origin, name));
            };
            match as_text(value.get_ref(), key.kind) {
                Ok(value) => settings.insert(key.name, Setting { value, origin }),
                Err(what) => return Err(ConfigError::Type { origin, key: key.name, what }),
            };
        }
    }
    Ok(())
}

/// A TOML value as the text that environment and flags would say.
fn as_text(value: &DeValue<'_>, kind: Kind) -> Result<String, &'static str> {
    let (text, what) = match kind {
        Kind::Text => (value.as_str().map(str::to_owned), "text in quotes"),
        Kind::Number => (value.as_integer().map(|number| number.as_str().to_owned()), "a whole number"),
        Kind::Switch => (value.as_bool().map(|on| on.to_string()), "true or false"),
        Kind::List => {
            let items = value.as_array();
            let texts = items.and_then(|items| {
                items.iter().map(|item| item.get_ref().as_str()).collect::<Option<Vec<&str>>>()
            });
            (texts.map(|texts| texts.join(" ")), "a list of texts, [\"...\", \"...\"]")
        }
    };
    text.ok_or(what)
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let fail = |source| ConfigError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(fail)?.len();
    if length > FILE_BYTES_MAX {
        let what = format!("it has {length} bytes, at most {FILE_BYTES_MAX} are read");
        return Err(fail(std::io::Error::other(what)));
    }
    std::fs::read_to_string(path).map_err(fail)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

//! Finds the value of each setting: a flag counts before the environment, that before the file, and that
//! before the default.

use alloc::collections::BTreeMap;
use core::fmt;
use std::path::{Path, PathBuf};

use crate::error::ConfigError;
use crate::file;
use crate::program::{Key, Program};
use crate::read::Reader;
use crate::secret::{Secret, SecretError};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The setting's default.
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
pub struct Setting {
    /// The value, as a variable or a flag would say it.
    pub value: String,
    /// Where it was said.
    pub origin: Origin,
}

/// Stands between the items of a list from the file, because these items may have spaces in them.
pub(crate) const LIST_SEPARATOR: char = '\u{1f}';

impl Setting {
    /// The items of a list. Outside of the file they are separated by spaces.
    #[must_use]
    pub fn items(&self) -> Vec<&str> {
        let from_file = matches!(self.origin, Origin::File { .. });
        let separates = |c: char| if from_file { c == LIST_SEPARATOR } else { c.is_ascii_whitespace() };
        self.value.split(separates).filter(|item| !item.is_empty()).collect()
    }
}

/// The sources of values: file, environment and command line.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; `None` if there is none and all comes from elsewhere.
    pub file: Option<PathBuf>,
    /// Environment variables, all of them.
    pub environment: Vec<(String, String)>,
    /// `table.key=value` from the command line, later ones winning.
    pub sets: Vec<String>,
}

impl Sources {
    /// The environment of this process. Variables that are not UTF-8 are left out: none of ours are.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { file, environment: std::env::vars_os().filter_map(text).collect(), sets }
    }
}

/// The value that counts of every setting that has one.
#[derive(Clone, Debug)]
pub struct Values {
    pub(crate) program: Program,
    settings: BTreeMap<String, Setting>,
    file: Option<PathBuf>,
    /// What relative paths of file and defaults are relative to.
    base: PathBuf,
}

impl Program {
    /// Finds the value that counts for every setting.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or if a source names a key that there is not.
    pub fn values(&self, sources: &Sources) -> Result<Values, ConfigError> {
        let base = sources.file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        let mut values =
            Values { program: *self, settings: BTreeMap::new(), file: sources.file.clone(), base };
        for key in self.keys() {
            if let Some(default) = key.default {
                values.enter(&key, default.to_owned(), Origin::Default);
            }
        }
        if let Some(path) = &sources.file {
            file::read(self, path, |key, value, origin| values.enter(key, value, origin))?;
        }
        let mut variables: Vec<_> = sources
            .environment
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(self.variables)?, name, value)))
            .collect();
        variables.sort();
        for (dotted, name, value) in variables {
            let origin = Origin::Environment(name.clone());
            let key = self.known(&dotted.replace("__", "."), &origin)?;
            values.enter(&key, value.clone(), origin);
        }
        for text in &sources.sets {
            let unset = || ConfigError::Set { text: text.clone(), example: self.set };
            let (name, value) = text.split_once('=').ok_or_else(unset)?;
            let key = self.known(name.trim(), &Origin::Flag)?;
            values.enter(&key, value.trim().to_owned(), Origin::Flag);
        }
        Ok(values)
    }

    fn known(&self, name: &str, origin: &Origin) -> Result<Key, ConfigError> {
        self.find(name).ok_or_else(|| self.unknown(name.to_ascii_lowercase(), origin.clone()))
    }

    pub(crate) fn unknown(&self, key: String, origin: Origin) -> ConfigError {
        ConfigError::Unknown { hint: self.hint(&key), key, origin }
    }
}

impl Values {
    fn enter(&mut self, key: &Key, value: String, origin: Origin) {
        self.settings.insert(key.name(), Setting { value, origin });
    }

    /// The value of `key`, a whole name such as `broker.user`; `None` if nothing is said.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.get(&key.replace('_', "-"))
    }

    /// Whether a value of `key` was given. A default does not count.
    #[must_use]
    pub fn is_said(&self, key: &str) -> bool {
        self.setting(key).is_some_and(|setting| setting.origin != Origin::Default)
    }

    /// Refuses the value of `key`, `what` being what would be right.
    #[must_use]
    pub fn refuse(&self, key: &str, what: impl Into<String>) -> ConfigError {
        let (value, origin) = match self.setting(key) {
            Some(setting) => (setting.value.clone(), setting.origin.clone()),
            None => (String::new(), Origin::Default),
        };
        ConfigError::Value { origin, key: key.replace('_', "-"), value, what: what.into() }
    }

    /// Refuses the file that `key` names, `what` being what is wrong and what would be right.
    #[must_use]
    pub fn refuse_file(&self, key: &str, path: &Path, what: impl Into<String>) -> ConfigError {
        ConfigError::File {
            origin: self.origin(key),
            key: key.replace('_', "-"),
            path: path.to_owned(),
            what: what.into(),
        }
    }

    /// Reads the secret in the file that `key` names, with [`Secret::read`] or [`Secret::first_line`]; `None` if nothing
    /// is said.
    ///
    /// # Errors
    /// [`ConfigError::Secret`].
    pub fn secret(
        &self,
        key: &str,
        path: Option<&Path>,
        read: fn(&Path) -> Result<Secret, SecretError>,
    ) -> Result<Option<Secret>, ConfigError> {
        let wrong =
            |error| ConfigError::Secret { origin: self.origin(key), key: key.replace('_', "-"), error };
        path.map(|path| read(path).map_err(wrong)).transpose()
    }

    fn origin(&self, key: &str) -> Origin {
        self.setting(key).map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// Reads the value of `key` with `reader`.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] if nothing is said and the reader needs something, [`ConfigError::Value`] if it does
    /// not take what is said.
    pub fn read<R: Reader>(&self, key: &str, reader: &R) -> Result<R::Value, ConfigError> {
        let Some(setting) = self.setting(key) else {
            return reader.absent().ok_or_else(|| {
                let example = self.program.find(key).map_or("", |key| key.example);
                ConfigError::Missing { file: self.file.clone(), key: key.replace('_', "-"), example }
            });
        };
        reader.read(setting, &self.base).map_err(|what| self.refuse(key, what))
    }
}

//! Errors of a configuration. Each is one line that says what is wrong, where, and what would be right.

use std::path::PathBuf;

use thiserror::Error;

use crate::layers::Origin;
use crate::secret::SecretError;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file that was named is not there.
    #[error("there is no configuration file {}", .path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} line {line}: {what}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        what: String,
    },
    /// A table or key that does not exist.
    #[error("{origin}: there is no key {key}; {hint}")]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// What was written.
        key: String,
        /// What there is.
        hint: String,
    },
    /// A value of a TOML type that the key does not take.
    #[error("{origin}: {key} must be {what}")]
    Type {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// What would be right.
        what: String,
    },
    /// A `--set` without an equals sign.
    #[error("--set {text}: must be table.key=value, such as {example}")]
    Set {
        /// What was written.
        text: String,
        /// What would be right.
        example: &'static str,
    },
    /// A value that the key does not take.
    #[error("{origin}: {key} = {value:?}: {what}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What would be right.
        what: String,
    },
    /// A key without which nothing works.
    #[error(
        "{key} is missing: write it into the configuration file{}, such as {example:?}",
        .file.as_ref().map_or_else(
            || " (there is none here, and --config names none)".into(),
            |file| format!(" {}", file.display()),
        )
    )]
    Missing {
        /// The configuration file, if there is one.
        file: Option<PathBuf>,
        /// The key.
        key: String,
        /// What it could be.
        example: &'static str,
    },
    /// A file that a key names is not as it should be.
    #[error("{origin}: {key}: {}: {what}", .path.display())]
    File {
        /// Where the key stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A file with a secret that cannot be used.
    #[error("{origin}: {key}: {error}")]
    Secret {
        /// Where the key stands.
        origin: Origin,
        /// The key.
        key: String,
        /// What is wrong, and what would be right.
        error: SecretError,
    },
}

//! What is wrong with a configuration: where, and what would be right. One line each.

use std::path::PathBuf;

use thiserror::Error;

use super::Origin;

/// Why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} line {line}: {what}", path = .path.display())]
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
    /// A value of another type than text.
    #[error("{origin}: {key} must be text in quotes, such as {key} = \"30s\"")]
    NotText {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
    },
    /// A `--set` that is not one.
    #[error("--set {text}: must be table.key=value, such as broker.keepalive=30s")]
    Set {
        /// What was written.
        text: String,
    },
    /// A value that the key does not take.
    #[error("{origin}: {key} = \"{value}\": {what}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        what: String,
    },
    /// A key without which nothing works.
    #[error("{key} is missing: write it into the configuration file, such as \"{example}\"")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it could be.
        example: &'static str,
    },
}

//! What is wrong with a configuration: where, and what would be right. One line each.

use std::path::PathBuf;

use thiserror::Error;

use super::Origin;

/// Why the configuration can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No file was named, and there is none here.
    #[error(
        "there is no whimbrel.toml here: make a folder with `whimbrel init DIR`, or name the file with --config"
    )]
    NoFile,
    /// The file can't be read.
    #[error("cannot read the configuration {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
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
    /// A value of another type.
    #[error("{origin}: {key} must be {what}")]
    Type {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What would be right.
        what: &'static str,
    },
    /// A `--set` that is not one.
    #[error("--set {text}: must be table.key=value, such as broker.listen=127.0.0.1:1883")]
    Set {
        /// What was written.
        text: String,
    },
    /// A value that the key does not take.
    #[error("{origin}: {key} = {value:?}: {what}")]
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
    /// A file that a key names is not as it should be.
    #[error("{key}: {path}: {what}", path = .path.display())]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        what: String,
    },
}

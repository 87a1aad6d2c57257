//! What a hook can do wrong.

use core::time::Duration;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a hook did not say to go on.
#[derive(Debug, Error)]
pub enum HookError {
    /// The folder cannot be read, or holds what must not be run.
    #[error("cannot use the hooks in {path}: {error}", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It cannot be started.
    #[error("cannot start it: {0}")]
    Start(io::Error),
    /// It took too long and was killed, with everything it had started.
    #[error("it ran for more than {limit:?} and was killed")]
    Time {
        /// How long it may run.
        limit: Duration,
    },
    /// It asks to be asked again later.
    #[error("it asks to be asked again later")]
    Later,
    /// It failed.
    #[error("it ended with {status}{}", said(.output))]
    Failed {
        /// Exit code or signal, in words.
        status: String,
        /// What it printed, cut to the limit.
        output: String,
    },
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(" and said: {output}") }
}

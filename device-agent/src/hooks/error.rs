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
    /// A hook of the folder cannot run.
    #[error("nothing is installed while a hook cannot run: {problem}")]
    Unrunnable {
        /// Which one, and why.
        problem: String,
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
    Later {
        /// The end of what it printed.
        output: String,
    },
    /// It failed.
    #[error("it ended with {status}{}", said(.output))]
    Failed {
        /// Exit code or signal, in words.
        status: String,
        /// The end of what it printed.
        output: String,
    },
}

impl HookError {
    /// What it printed last if it printed anything, else what is wrong.
    pub(super) fn said(self) -> String {
        match self {
            Self::Failed { output, .. } | Self::Later { output } if !output.is_empty() => output,
            other => other.to_string(),
        }
    }
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(" and said: {output}") }
}

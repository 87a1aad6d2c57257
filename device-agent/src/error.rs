//! Why the agent, or a command of its, ends with an error: one line for people.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use whimbrel_engine::storage::StorageError;

use crate::config::ConfigError;
use crate::disk::FolderError;
use crate::hooks::HookError;
use crate::identity::IdentityError;
use crate::local_trust::Untrusted;
use crate::provision::ProvisionError;
use crate::standalone::InstallError;

/// Why nothing goes on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device's key or its trust anchor cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Somebody else could change what the agent is to use.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What is in the data folder cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The hooks cannot be used.
    #[error(transparent)]
    Hooks(#[from] HookError),
    /// A release in a folder cannot be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The factory's word on the running slot is not taken.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// The medium does not save the record.
    #[error("the record in {path} cannot be saved", path = .path.display())]
    Record {
        /// The data folder.
        path: PathBuf,
    },
    /// The boot control does not do what it should.
    #[error("the boot environment in {path} cannot be written", path = .path.display())]
    Boot {
        /// The data folder.
        path: PathBuf,
    },
    /// The control socket cannot be used.
    #[error("cannot {action} {path}: {error}", path = .path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// What was to be done: a verb.
        action: &'static str,
        /// Why it was not.
        error: io::Error,
    },
    /// The system does not give what the agent needs.
    #[error("the system gives no {what}: {error}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why there is none.
        error: io::Error,
    },
    /// A task or thread of the agent ended by itself. That is a defect of the agent.
    #[error("the {what} ended by itself")]
    Ended {
        /// Which.
        what: &'static str,
    },
}

impl AgentError {
    /// Whether another process has the data folder.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        matches!(self, Self::Folder(FolderError::Locked { .. }))
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = core::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line.replace('\n', " ")
    }
}

//! What goes wrong on a medium, for people.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use whimbrel_protocol::disk::DiskError;

/// An operation on a file of the data folder failed.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What was to be done: a verb.
    pub action: &'static str,
    /// Why it was not.
    #[source]
    pub source: io::Error,
}

/// Why a medium cannot be used.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The medium did not do it.
    #[error("the medium does not do what it should")]
    Disk(#[from] DiskError),
    /// A file did not do it.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither the boot environment nor its default names a slot.
    #[error(
        "nothing on the medium names a slot to start: start the agent once, it makes the boot environment"
    )]
    NoSlot,
    /// Another process uses the folder.
    #[error("{} is used by another agent: stop it first", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
}

//! Why a release in a folder is not installed: one line for the person at the device.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use whimbrel_protocol::envelope::VerifyError;
use whimbrel_protocol::manifest::{ManifestError, RunError};

/// Why a release in a folder is not installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The configuration does not allow it.
    #[error("installing from a folder is switched off: install.standalone = \"off\"")]
    Off,
    /// A trial is not decided.
    #[error("another image is on trial: commit it or roll it back first")]
    OnTrial,
    /// A file cannot be read.
    #[error("cannot read {path}: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The release is not one that this device takes.
    #[error("{path} is refused: {error}", path = .path.display())]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Why.
        error: VerifyError,
    },
    /// A newer release was confirmed here.
    #[error("sequence {got} is refused: this device has confirmed {floor}, and goes back to none below it")]
    Rollback {
        /// The release's.
        got: u64,
        /// The least that is taken.
        floor: u64,
    },
    /// Another image was confirmed with the same number.
    #[error("sequence {sequence} is refused: another image was confirmed with the same number")]
    Equivocation {
        /// The number.
        sequence: u64,
    },
    /// The manifest cannot be run.
    #[error("the manifest cannot be run here: {0}")]
    Manifest(#[from] ManifestError),
    /// The manifest says no.
    #[error("the manifest does not fit this device: {0}")]
    Run(#[from] RunError),
    /// The manifest installs nothing that could be started.
    #[error("the manifest starts no image")]
    NotStarted,
    /// The decoder needs more than the device has.
    #[error("decoding needs {need} bytes of memory, download.decoder-memory allows {limit}")]
    Memory {
        /// What it needs.
        need: u64,
        /// What there is.
        limit: u64,
    },
    /// The payload is not the one that was signed.
    #[error("{path} is not the payload that the release names: it is damaged or of another release", path = .path.display())]
    Payload {
        /// The file.
        path: PathBuf,
    },
    /// A hook says no.
    #[error("a hook of Installing_Enter {0}")]
    Hook(&'static str),
    /// There is no room.
    #[error("there is no room for it in {path}", path = .path.display())]
    NoRoom {
        /// The data folder.
        path: PathBuf,
    },
    /// The medium or the boot control failed.
    #[error("{what} failed in {path}", path = .path.display())]
    Failed {
        /// What was done.
        what: &'static str,
        /// The data folder.
        path: PathBuf,
    },
}

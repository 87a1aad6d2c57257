//! Why a key cannot be used. No error shows anything of a secret.

use std::path::PathBuf;

use thiserror::Error;
use whimbrel_protocol::codec::DecodeError;

use crate::files::FileError;

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds no private key of ours.
    #[error("{} is not a private key: {source} (`whimbrel key new` makes one)", .path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// The file holds no key at all.
    #[error(
        "{} is not a key: a COSE_Key, or a P-256 or Ed25519 public key in PEM or DER, would be right",
        .path.display()
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes, without which no key can be made")]
    Random,
}

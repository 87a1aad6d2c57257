//! Why a key cannot be used. No error shows anything of a secret.

use std::path::{Path, PathBuf};

use thiserror::Error;
use whimbrel_protocol::codec::DecodeError;

use super::foreign;
use crate::files::FileError;

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds no private key of ours.
    #[error(
        "{} is not a private key: {source} (`whimbrel key new` makes one; PKCS#8 of Ed25519 or P-256 would be right too)",
        .path.display()
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// The file holds a private key that only a password opens.
    #[error(
        "{0} is encrypted with a password: `openssl pkcs8 -in {0} -out NEW` writes it without one",
        .path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no key at all.
    #[error(
        "{} is not a key: a COSE_Key, or a key of P-256 or Ed25519 in PEM or DER, would be right",
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

impl KeyError {
    /// What to say of a file that no key was found in.
    pub(crate) fn of(path: &Path, bytes: &[u8]) -> Self {
        let path = path.into();
        if foreign::is_encrypted(bytes) { Self::Encrypted { path } } else { Self::NotAKey { path } }
    }
}

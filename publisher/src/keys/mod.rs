//! Key files: COSE_Key (RFC 9052 section 7), as every COSE library reads it.
//!
//! A private key is in a file of mode 0600 and nowhere else: no error, no `Debug` and no output of this crate
//! shows it. Keys are also read in PEM or DER, as HSMs and OpenSSL give them out.

mod error;
mod foreign;

pub use error::KeyError;
use foreign::ForeignKey;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use whimbrel_protocol::codec::{Reader, Writer};
use whimbrel_protocol::cose::{Algorithm, PublicKey, SigningKey};
use zeroize::Zeroizing;

use crate::files::{self, Existing, Secrecy, Staging};
use crate::output::Fields;

/// Most bytes of a key file of any form.
pub const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Makes a new key from the system's randomness.
///
/// # Errors
/// [`KeyError::Random`] if the system gives no random bytes.
pub fn generate(algorithm: Algorithm) -> Result<SigningKey, KeyError> {
    let mut secret = Zeroizing::new([0; 32]);
    loop {
        getrandom::fill(secret.as_mut_slice()).map_err(|_| KeyError::Random)?;
        match algorithm {
            Algorithm::Ed25519 => return Ok(SigningKey::ed25519(&secret)),
            Algorithm::Esp256 | Algorithm::Es256 => {
                // About one number in 2^32 is not a valid secret of P-256. Then this draws another one.
                if let Ok(key) = SigningKey::p256(&secret) {
                    return Ok(key);
                }
            }
        }
    }
}

/// Stages a private key file of mode 0600. A file that is there is never overwritten.
///
/// # Errors
/// [`KeyError::File`].
pub fn stage(staging: &mut Staging, path: &Path, key: &SigningKey) -> Result<(), KeyError> {
    let bytes = Zeroizing::new(key.encode_file());
    Ok(staging.add(path, &bytes, Secrecy::Secret, Existing::Refuse)?)
}

/// Reads a private key file: a COSE_Key, or PKCS#8 or an EC private key in PEM or DER.
///
/// # Errors
/// [`KeyError::File`], [`KeyError::Encrypted`], [`KeyError::NotPrivate`].
pub fn read_private(path: &Path) -> Result<SigningKey, KeyError> {
    let bytes = Zeroizing::new(files::read(path, "a key file", KEY_FILE_BYTES_MAX)?);
    if let Some(ForeignKey::Private(key)) = foreign::parse(&bytes) {
        return Ok(key);
    }
    SigningKey::decode_file(&bytes).map_err(|source| match foreign::is_encrypted(&bytes) {
        true => KeyError::Encrypted { path: path.into() },
        false => KeyError::NotPrivate { path: path.into(), source },
    })
}

/// Reads the public half of a key from a private key file or from a public one: a COSE_Key, or PEM or DER.
///
/// # Errors
/// [`KeyError::File`], [`KeyError::Encrypted`], [`KeyError::NotAKey`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyError> {
    let bytes = Zeroizing::new(files::read(path, "a key file", KEY_FILE_BYTES_MAX)?);
    match KeyFile::parse(&bytes) {
        Some(file) => Ok(file.public()),
        None => Err(KeyError::of(path, &bytes)),
    }
}

/// A key file, by what it holds.
#[derive(Debug)]
pub enum KeyFile {
    /// A private key.
    Private(SigningKey),
    /// A public COSE_Key.
    Public(PublicKey),
    /// A private key in PEM or DER.
    ForeignPrivate(SigningKey),
    /// A public key in PEM or DER.
    ForeignPublic(PublicKey),
}

impl KeyFile {
    /// Reads a key in any of the forms; `None` if `bytes` have none of them.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        SigningKey::decode_file(bytes)
            .map(Self::Private)
            .ok()
            .or_else(|| decode_public(bytes).map(Self::Public))
            .or_else(|| foreign::parse(bytes).map(Self::from))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Private(key) | Self::ForeignPrivate(key) => key.public(),
            Self::Public(key) | Self::ForeignPublic(key) => key.clone(),
        }
    }

    /// Whether it has a secret.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        matches!(self, Self::Private(_) | Self::ForeignPrivate(_))
    }

    /// Says in words which form it is.
    #[must_use]
    pub const fn form(&self) -> &'static str {
        match self {
            Self::Private(_) => "private key (COSE_Key)",
            Self::Public(_) => "public key (COSE_Key)",
            Self::ForeignPrivate(_) => "private key (PEM or DER)",
            Self::ForeignPublic(_) => "public key (PEM or DER)",
        }
    }
}

impl From<ForeignKey> for KeyFile {
    fn from(key: ForeignKey) -> Self {
        match key {
            ForeignKey::Private(key) => Self::ForeignPrivate(key),
            ForeignKey::Public(key) => Self::ForeignPublic(key),
        }
    }
}

fn decode_public(bytes: &[u8]) -> Option<PublicKey> {
    let limit = usize::try_from(KEY_FILE_BYTES_MAX).ok()?;
    let mut reader = Reader::new("COSE_Key", bytes, limit).ok()?;
    let key = PublicKey::decode(&mut reader).ok()?;
    reader.finish().ok()?;
    Some(key)
}

/// The public key as a COSE_Key.
#[must_use]
pub fn public_bytes(key: &PublicKey) -> Vec<u8> {
    let mut writer = Writer::new();
    key.encode(&mut writer);
    writer.into_bytes()
}

/// The algorithm's name, as `--alg` takes it.
#[must_use]
pub const fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Ed25519 => "ed25519",
        Algorithm::Esp256 => "esp256",
        Algorithm::Es256 => "es256",
    }
}

/// What may be shown of a key: everything but its secret.
#[must_use]
pub fn describe(key: &PublicKey) -> Fields {
    Fields::new()
        .with("algorithm", algorithm_name(key.algorithm()))
        .with("id", key.id().to_hex())
        .with("fingerprint", key.fingerprint().to_string())
        .with("thumbprint", key.thumbprint().to_hex())
        .with("public", hex::encode(public_bytes(key)))
}

/// The file's mode if somebody besides its owner may read or write it, else `None`.
#[must_use]
pub fn open_mode(path: &Path) -> Option<u32> {
    let mode = path.metadata().ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_differ_and_sign() {
        for algorithm in [Algorithm::Ed25519, Algorithm::Esp256] {
            let (one, two) = (generate(algorithm).unwrap(), generate(algorithm).unwrap());
            assert_ne!(one.public(), two.public());
            let signature = one.sign(b"message");
            assert_eq!(one.public().verify(algorithm, b"message", &signature), Ok(()));
            assert!(two.public().verify(algorithm, b"message", &signature).is_err());
        }
    }

    #[test]
    fn each_form_of_key_file_is_told_apart() {
        let key = SigningKey::ed25519(&[7; 32]);
        assert!(matches!(KeyFile::parse(&key.encode_file()), Some(KeyFile::Private(_))));
        assert!(matches!(KeyFile::parse(&public_bytes(&key.public())), Some(KeyFile::Public(_))));
        let mut trailing = public_bytes(&key.public());
        trailing.push(0);
        assert!(KeyFile::parse(&trailing).is_none());
        assert!(KeyFile::parse(b"").is_none());
    }
}

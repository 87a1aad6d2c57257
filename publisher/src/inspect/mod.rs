//! `whimbrel inspect`: explains any file or message of ours, in words.
//!
//! The first bytes tell what a file or message is, so that nobody has to say it. What the protocol's strict
//! reader accepts is explained. What it refuses is shown as CBOR, with the reason and everything that is not
//! canonical. An explanation does not mean that the thing can be trusted: signatures are judged only if a
//! root is given.

mod canonical;
mod commands;
mod copies;
mod document;
mod envelope;
mod lenient;
mod message;
mod payload;
mod stored;

use std::path::Path;

use thiserror::Error;
use whimbrel_protocol::trust::Root;

use crate::files::{self, FileError};
use crate::keys::{self, KeyFile};
use crate::output::Fields;
use crate::release::ReleaseError;

/// Most bytes of anything that is explained whole. Only payloads are larger.
const INPUT_BYTES_MAX: u64 = 1024 * 1024;

/// Why something cannot be explained.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A payload does not fit the release that it lies beside.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// It is no file or message of Whimbrel.
    #[error(
        "{name} is nothing that Whimbrel writes or sends: a release, root, key, payload, patch, journal, record, signed \
         document or message, in bytes or in hexadecimal, would be right"
    )]
    Unknown {
        /// The file's name.
        name: String,
    },
    /// It may be a secret.
    #[error("{name} holds nothing but 32 bytes in hexadecimal: a digest, or a token that is not to be shown")]
    Secret {
        /// The file's name.
        name: String,
    },
    /// The file is empty.
    #[error("{name} is empty")]
    Empty {
        /// The file's name.
        name: String,
    },
}

/// Explains the file `path`, or the release in the folder `path`. `root` says whose signatures count.
///
/// # Errors
/// [`InspectError`].
pub fn explain_file(path: &Path, root: Option<&Root>) -> Result<Fields, InspectError> {
    let name = path.display().to_string();
    if path.is_dir() {
        return explain_file(&path.join(crate::release::ENVELOPE_FILE), root);
    }
    if path.extension().is_some_and(|extension| extension == "payload") {
        return payload::explain(path);
    }
    // A patch may be larger than anything that is explained whole.
    if let Some(fields) = payload::explain_patch(path)? {
        return Ok(fields);
    }
    let bytes = match files::read(path, "anything but a payload", INPUT_BYTES_MAX) {
        Err(FileError::TooLarge { .. }) if payload::begins(path) => return payload::explain(path),
        other => other?,
    };
    explain(&name, &bytes, root)
}

/// Explains `bytes`, which may be written in hexadecimal. `name` is for errors.
///
/// # Errors
/// [`InspectError::Unknown`], [`InspectError::Secret`], [`InspectError::Empty`].
pub fn explain(name: &str, bytes: &[u8], root: Option<&Root>) -> Result<Fields, InspectError> {
    if bytes.is_empty() {
        return Err(InspectError::Empty { name: name.into() });
    }
    let decoded = from_hex(bytes);
    if decoded.as_ref().is_some_and(|decoded| decoded.len() == 32) {
        return Err(InspectError::Secret { name: name.into() });
    }
    let bytes = decoded.as_deref().unwrap_or(bytes);
    recognise(bytes, root).ok_or_else(|| InspectError::Unknown { name: name.into() })
}

/// The bytes of a text that consists of hexadecimal digits and white space.
fn from_hex(bytes: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    hex::decode(digits.strip_prefix(b"0x").unwrap_or(&digits)).ok().filter(|decoded| !decoded.is_empty())
}

/// CBOR heads of the tags that our signed objects begin with.
const ENVELOPE_HEAD: &[u8] = &[0xd8, 107];
const SIGN_HEAD: &[u8] = &[0xd8, 98];
const SIGN1_HEAD: u8 = 0xd2;

fn recognise(bytes: &[u8], root: Option<&Root>) -> Option<Fields> {
    if let Some(key) = KeyFile::parse(bytes) {
        let mut fields = Fields::new().with("kind", key.form());
        fields.extend(keys::describe(&key.public()));
        return Some(fields);
    }
    if let Some(fields) = payload::explain_patch_bytes(bytes) {
        return Some(fields);
    }
    let strict = match bytes {
        _ if bytes.starts_with(ENVELOPE_HEAD) => envelope::explain(bytes, root),
        _ if bytes.starts_with(SIGN_HEAD) => document::explain_root(bytes),
        [SIGN1_HEAD, ..] => document::explain(bytes, root),
        _ if stored::is_journal(bytes) => return stored::explain_journal(bytes),
        [b'W' | 0, ..] => return copies::explain(bytes, root),
        _ => stored::explain_record(bytes).or_else(|| message::explain(bytes)).unwrap_or(Explained::Unknown),
    };
    match strict {
        Explained::Accepted(fields) => Some(fields),
        Explained::Refused { kind, reason } => {
            let mut fields = Fields::new().with("kind", kind).with("refused", reason);
            if let Some(lenient) = lenient::explain(bytes) {
                fields.extend(lenient);
            }
            Some(fields)
        }
        Explained::Unknown => {
            // A number or a short string may be CBOR by chance.
            let lenient = lenient::explain(bytes).filter(|_| matches!(bytes, [0x80..=0xdf, _, ..]))?;
            let mut fields = Fields::new().with("kind", "CBOR that is nothing of ours");
            fields.extend(lenient);
            Some(fields)
        }
    }
}

/// What the strict reader says of some bytes.
enum Explained {
    /// A device would read it.
    Accepted(Fields),
    /// A device would refuse it.
    Refused {
        /// What it seems to be.
        kind: &'static str,
        /// Why it is refused.
        reason: String,
    },
    /// Its first bytes are none of ours.
    Unknown,
}

impl Explained {
    fn of<E: core::fmt::Display>(kind: &'static str, result: Result<Fields, E>) -> Self {
        match result {
            Ok(fields) => {
                let mut whole = Fields::new().with("kind", kind);
                whole.extend(fields);
                Self::Accepted(whole)
            }
            Err(error) => Self::Refused { kind, reason: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_with_white_space_and_without() {
        assert_eq!(from_hex(b"0x01 02\n0a"), Some(vec![1, 2, 10]));
        assert_eq!(from_hex(b"0102"), Some(vec![1, 2]));
        for other in [&b"010"[..], b"xx", b"", b" ", b"\x01\x02", b"0x"] {
            assert_eq!(from_hex(other), None);
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = "18".repeat(32) + "\n";
        assert!(matches!(explain("t", token.as_bytes(), None), Err(InspectError::Secret { .. })));
        assert!(matches!(explain("t", b"", None), Err(InspectError::Empty { .. })));
        assert!(matches!(explain("t", b"hello", None), Err(InspectError::Unknown { .. })));
    }
}

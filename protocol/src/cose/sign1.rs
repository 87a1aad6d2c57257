//! COSE_Sign1 with one signature, attached or detached.

use alloc::vec::Vec;

use super::{Accept, Algorithm, Kind, PublicKey, Signature, SignatureError, SigningKey, TAG_SIGN1};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::KeyId;
use crate::limits::{KEY_ID_BYTES_MAX, PROTECTED_BYTES_MAX, SIGNED_BYTES_MAX};

pub(super) const HEADER_ALG: i64 = 1;
/// The header that says which kind of object of ours this is ([`Kind::number`]). Labels below -65536 are for
/// private use (RFC 9052 section 11.1). A content type cannot be used, because IANA gives out its numbers,
/// and strict COSE libraries refuse those that they do not know.
pub(super) const HEADER_KIND: i64 = -65_537;
pub(super) const HEADER_KEY_ID: i64 = 4;

/// A COSE_Sign1 as read, not yet verified.
#[derive(Clone, Debug)]
pub struct Sign1<'b> {
    pub(super) protected: Protected<'b>,
    key_id: Option<&'b [u8]>,
    payload: Option<&'b [u8]>,
    signature: Signature,
}

/// A protected header with the bytes that were signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protected<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) alg: Option<i64>,
    pub(super) kind: Option<u8>,
}

impl<'b> Protected<'b> {
    pub(super) fn read(reader: &mut Reader<'b>) -> Result<Self, DecodeError> {
        let bytes = reader.bytes("protected header", PROTECTED_BYTES_MAX)?;
        let mut protected = Self { bytes, alg: None, kind: None };
        if bytes.is_empty() {
            return Ok(protected);
        }
        let mut inner = Reader::new("protected header", bytes, PROTECTED_BYTES_MAX)?;
        let mut map = inner.map("protected header", 2)?;
        while let Some(key) = map.next_int(&mut inner)? {
            match key {
                HEADER_ALG => protected.alg = Some(inner.int("algorithm")?),
                HEADER_KIND => {
                    protected.kind = u8::try_from(inner.uint_max("kind", u64::from(u8::MAX))?).ok();
                }
                other => return Err(map.unknown(other)),
            }
        }
        inner.finish()?;
        Ok(protected)
    }

    pub(super) fn algorithm(&self) -> Result<Algorithm, SignatureError> {
        let missing = DecodeError::missing_key("protected header", HEADER_ALG);
        Algorithm::from_number(self.alg.ok_or(missing)?)
    }

    pub(super) fn check_kind(&self, kind: Kind) -> Result<(), SignatureError> {
        let want = kind.number();
        if self.kind == Some(want) { Ok(()) } else { Err(SignatureError::kind(self.kind, want)) }
    }
}

/// Reads an unprotected header: empty, or the key id alone.
pub(super) fn read_unprotected<'b>(reader: &mut Reader<'b>) -> Result<Option<&'b [u8]>, DecodeError> {
    let mut map = reader.map("unprotected header", 1)?;
    let mut key_id = None;
    while let Some(key) = map.next_int(reader)? {
        match key {
            HEADER_KEY_ID => key_id = Some(reader.bytes("key id", KEY_ID_BYTES_MAX)?),
            other => return Err(map.unknown(other)),
        }
    }
    Ok(key_id)
}

pub(super) fn write_unprotected(writer: &mut Writer, key_id: Option<KeyId>) {
    match key_id {
        Some(id) => writer.map(1).int(HEADER_KEY_ID).bytes(&id.0),
        None => writer.map(0),
    };
}

impl<'b> Sign1<'b> {
    /// Reads a tagged COSE_Sign1 that fills `bytes`.
    ///
    /// # Errors
    /// Any [`DecodeError`]. Objects outside our profile are refused.
    pub fn decode(bytes: &'b [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("COSE_Sign1", bytes, SIGNED_BYTES_MAX)?;
        reader.tag("COSE_Sign1 tag", TAG_SIGN1)?;
        reader.array_of("COSE_Sign1", 4)?;
        let protected = Protected::read(&mut reader)?;
        let key_id = read_unprotected(&mut reader)?;
        let payload = if reader.is_null()? {
            None
        } else {
            Some(reader.bytes("COSE_Sign1 payload", SIGNED_BYTES_MAX)?)
        };
        let signature = reader.byte_array("signature")?;
        reader.finish()?;
        Ok(Self { protected, key_id, payload, signature })
    }

    /// The key id, which is a hint which key to try first. It is not protected, and proves nothing.
    #[must_use]
    pub fn key_id(&self) -> Option<&'b [u8]> {
        self.key_id
    }

    /// The kind that the object says it has, if this version knows it. It is not verified.
    #[must_use]
    pub fn claimed_kind(&self) -> Option<Kind> {
        self.protected.kind.and_then(Kind::from_number)
    }

    /// The attached payload, before anything is verified. It may be shown to people, but nothing may act on
    /// it.
    #[must_use]
    pub fn unverified_payload(&self) -> Option<&'b [u8]> {
        self.payload
    }

    /// The number of the algorithm that the object names.
    #[must_use]
    pub fn algorithm_number(&self) -> Option<i64> {
        self.protected.alg
    }

    /// Verifies an attached object of ours and returns its payload.
    ///
    /// # Errors
    /// [`SignatureError::Kind`] for another kind; [`SignatureError::Unprotected`] if a device signs this kind and the
    /// unprotected header is not empty; [`SignatureError::Payload`] if it is detached; [`SignatureError::Algorithm`],
    /// [`SignatureError::Mismatch`].
    pub fn verify_attached(&self, kind: Kind, key: &PublicKey) -> Result<&'b [u8], SignatureError> {
        self.protected.check_kind(kind)?;
        if kind.is_by_device() && self.key_id.is_some() {
            return Err(SignatureError::Unprotected);
        }
        let payload = self.payload.ok_or(SignatureError::payload_attached(true))?;
        self.verify(Accept::STRICT, key, &kind.external_aad(), payload)?;
        Ok(payload)
    }

    /// Verifies a detached signature over `payload`, without external data (as SUIT has it).
    ///
    /// # Errors
    /// As [`Sign1::verify_attached`], with [`SignatureError::Payload`] if it is attached, and
    /// [`SignatureError::Kind`] if the object says that it is one of ours.
    pub fn verify_detached(
        &self,
        accept: Accept,
        key: &PublicKey,
        payload: &[u8],
    ) -> Result<(), SignatureError> {
        if let Some(got) = self.protected.kind {
            return Err(SignatureError::kind(Some(got), 0));
        }
        if self.payload.is_some() {
            return Err(SignatureError::payload_attached(false));
        }
        self.verify(accept, key, &[], payload)
    }

    fn verify(
        &self,
        accept: Accept,
        key: &PublicKey,
        external_aad: &[u8],
        payload: &[u8],
    ) -> Result<(), SignatureError> {
        let algorithm = self.protected.algorithm()?;
        if !accept.allows(algorithm) {
            return Err(SignatureError::algorithm(algorithm.number()));
        }
        let message = sig_structure("Signature1", &[self.protected.bytes, external_aad, payload]);
        key.verify(algorithm, &message, &self.signature)
    }
}

/// The Sig_structure (RFC 9052 section 4.4): the context, then byte strings.
pub(super) fn sig_structure(context: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(1 + parts.len()).text(context);
    for part in parts {
        writer.bytes(part);
    }
    writer.into_bytes()
}

pub(super) fn protected_header(algorithm: Algorithm, kind: Option<Kind>) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.map(1 + usize::from(kind.is_some())).int(HEADER_ALG).int(algorithm.number());
    if let Some(kind) = kind {
        writer.int(HEADER_KIND).uint(u64::from(kind.number()));
    }
    writer.into_bytes()
}

/// Signs `payload` as an object of `kind` and attaches it. A `key_id` helps receivers that know many keys.
#[must_use]
pub fn sign_attached(key: &SigningKey, kind: Kind, key_id: Option<KeyId>, payload: &[u8]) -> Vec<u8> {
    let protected = protected_header(key.public().algorithm(), Some(kind));
    let message = sig_structure("Signature1", &[&protected, &kind.external_aad(), payload]);
    assemble(&protected, key_id, Some(payload), &key.sign(&message))
}

/// The bytes to sign for a detached signature over `payload` without external data (as SUIT has it).
#[must_use]
pub fn to_be_signed(algorithm: Algorithm, payload: &[u8]) -> Vec<u8> {
    sig_structure("Signature1", &[&protected_header(algorithm, None), &[], payload])
}

/// Makes a detached COSE_Sign1 of a signature over [`to_be_signed`] with the same algorithm.
#[must_use]
pub fn sign_detached(algorithm: Algorithm, key_id: Option<KeyId>, signature: &Signature) -> Vec<u8> {
    assemble(&protected_header(algorithm, None), key_id, None, signature)
}

fn assemble(
    protected: &[u8],
    key_id: Option<KeyId>,
    payload: Option<&[u8]>,
    signature: &Signature,
) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.tag(TAG_SIGN1).array(4).bytes(protected);
    write_unprotected(&mut writer, key_id);
    writer.bytes_or_null(payload).bytes(signature);
    writer.into_bytes()
}

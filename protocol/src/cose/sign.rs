//! COSE_Sign: one payload with several signatures. It carries `root.cbor`.

use alloc::vec::Vec;

use super::sign1::{Protected, protected_header, read_unprotected, sig_structure, write_unprotected};
use super::{Kind, PublicKey, Signature, SignatureError, SigningKey, TAG_SIGN};
use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{ROOT_BYTES_MAX, SIGNATURES_MAX};

/// A COSE_Sign as read, not yet verified.
#[derive(Clone, Debug)]
pub struct Signatures<'b> {
    body: Protected<'b>,
    payload: &'b [u8],
    signatures: Vec<One<'b>>,
}

#[derive(Clone, Debug)]
struct One<'b> {
    protected: Protected<'b>,
    signature: Signature,
}

impl<'b> Signatures<'b> {
    /// Reads a tagged COSE_Sign with attached payload that fills `bytes`.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &'b [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("COSE_Sign", bytes, ROOT_BYTES_MAX)?;
        reader.tag("COSE_Sign tag", TAG_SIGN)?;
        reader.array_of("COSE_Sign", 4)?;
        let body = Protected::read(&mut reader)?;
        read_unprotected(&mut reader)?;
        let payload = reader.bytes("COSE_Sign payload", ROOT_BYTES_MAX)?;
        let mut signatures = Vec::new();
        for _ in 0..reader.array("signatures", SIGNATURES_MAX)? {
            reader.array_of("COSE_Signature", 3)?;
            let protected = Protected::read(&mut reader)?;
            read_unprotected(&mut reader)?;
            signatures.push(One { protected, signature: reader.byte_array("signature")? });
        }
        reader.finish()?;
        Ok(Self { body, payload, signatures })
    }

    /// The payload, before anything is verified.
    #[must_use]
    pub fn unverified_payload(&self) -> &'b [u8] {
        self.payload
    }

    /// Counts the distinct keys of `keys` that signed this as an object of `kind`.
    ///
    /// # Errors
    /// [`SignatureError::Kind`] for another kind.
    pub fn count<'k>(
        &self,
        kind: Kind,
        keys: impl Iterator<Item = &'k PublicKey>,
    ) -> Result<usize, SignatureError> {
        self.body.check_kind(kind)?;
        Ok(keys.filter(|key| self.signatures.iter().any(|one| self.is_by(one, kind, key))).count())
    }

    fn is_by(&self, one: &One<'_>, kind: Kind, key: &PublicKey) -> bool {
        let Ok(algorithm) = one.protected.algorithm() else {
            return false;
        };
        let aad = kind.external_aad();
        let message = sig_structure("Signature", &[self.body.bytes, one.protected.bytes, &aad, self.payload]);
        algorithm == key.algorithm() && key.verify(algorithm, &message, &one.signature).is_ok()
    }
}

/// Builds a COSE_Sign, one signature at a time.
#[derive(Clone, Debug)]
pub struct SignaturesWriter {
    kind: Kind,
    body: Vec<u8>,
    payload: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

impl SignaturesWriter {
    /// Starts an object of `kind` with no signature yet.
    #[must_use]
    pub fn new(kind: Kind, payload: Vec<u8>) -> Self {
        let mut body = Writer::new();
        body.map(1).int(super::sign1::HEADER_KIND).uint(u64::from(kind.number()));
        Self { kind, body: body.into_bytes(), payload, signatures: Vec::new() }
    }

    /// Adds the signature of `key`.
    #[must_use]
    pub fn sign(mut self, key: &SigningKey) -> Self {
        let protected = protected_header(key.public().algorithm(), None);
        let aad = self.kind.external_aad();
        let message = sig_structure("Signature", &[&self.body, &protected, &aad, &self.payload]);
        let mut writer = Writer::new();
        writer.array(3).bytes(&protected);
        write_unprotected(&mut writer, Some(key.public().id()));
        writer.bytes(&key.sign(&message));
        self.signatures.push(writer.into_bytes());
        self
    }

    /// The finished object.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.tag(TAG_SIGN).array(4).bytes(&self.body).map(0).bytes(&self.payload);
        writer.array(self.signatures.len());
        for signature in &self.signatures {
            writer.raw(signature);
        }
        writer.into_bytes()
    }
}

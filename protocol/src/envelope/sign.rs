//! Adds signatures to an envelope: new ones, and ones that were made elsewhere.

use alloc::vec::Vec;

use super::{Envelope, Unverified, VerifyError, check_full};
use crate::cose::{Algorithm, Sign1, Signature, SignatureError, SigningKey, sign_detached, to_be_signed};
use crate::ids::KeyId;
use crate::limits::{AUTH_BLOCKS_MAX, ENVELOPE_BYTES_MAX};

/// The content of an authentication block. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationBlock {
    /// COSE algorithm number.
    pub algorithm: Option<i64>,
    /// Key id, if the block has one.
    pub key_id: Option<Vec<u8>>,
    /// The tagged COSE_Sign1.
    pub bytes: Vec<u8>,
}

impl Envelope<Unverified> {
    /// The bytes that a release key signs with `algorithm`: the Sig_structure over the bytes of the digest.
    ///
    /// # Errors
    /// [`VerifyError::Digest`] if the digest is not the manifest's, so that nobody signs what they do not
    /// see (draft-ietf-suit-manifest-37 section 8.3).
    pub fn authentication_tbs(&self, algorithm: Algorithm) -> Result<Vec<u8>, VerifyError> {
        self.check_digest()?;
        Ok(to_be_signed(algorithm, &self.signed_bytes()))
    }

    /// Adds a signature over [`Envelope::authentication_tbs`] that was made elsewhere.
    ///
    /// # Errors
    /// As [`Envelope::attach`].
    pub fn attach_signature(
        &mut self,
        algorithm: Algorithm,
        key_id: KeyId,
        signature: &Signature,
    ) -> Result<(), VerifyError> {
        self.attach(sign_detached(algorithm, Some(key_id), signature))
    }

    /// Adds an authentication block: a tagged COSE_Sign1 with detached payload. Its signature is not verified.
    ///
    /// # Errors
    /// [`VerifyError::Unauthentic`] if it is none of our profile; [`VerifyError::Full`] if the envelope
    /// would have too many blocks or bytes. The envelope is then as it was.
    pub fn attach(&mut self, block: Vec<u8>) -> Result<(), VerifyError> {
        let sign1 = Sign1::decode(&block).map_err(SignatureError::from)?;
        if sign1.unverified_payload().is_some() {
            return Err(SignatureError::payload_attached(false).into());
        }
        check_full("signatures", self.blocks.len() + 1, AUTH_BLOCKS_MAX)?;
        let mut blocks = self.blocks.clone();
        blocks.push(block);
        let bytes = Self::assemble(&self.digest, &blocks, &self.state.manifest, &self.members);
        check_full("bytes", bytes.len(), ENVELOPE_BYTES_MAX)?;
        (self.blocks, self.bytes) = (blocks, bytes);
        Ok(())
    }

    /// Signs the envelope with `key`.
    ///
    /// # Errors
    /// As [`Envelope::authentication_tbs`] and [`Envelope::attach`].
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), VerifyError> {
        let public = key.public();
        let message = self.authentication_tbs(public.algorithm())?;
        self.attach_signature(public.algorithm(), public.id(), &key.sign(&message))
    }

    /// The content of the blocks, for people who inspect.
    ///
    /// # Errors
    /// [`VerifyError::Unauthentic`] for a block that is none of our profile.
    pub fn blocks(&self) -> Result<Vec<AuthenticationBlock>, VerifyError> {
        self.blocks
            .iter()
            .map(|block| {
                let sign1 = Sign1::decode(block).map_err(SignatureError::from)?;
                let key_id = sign1.key_id().map(<[u8]>::to_vec);
                let bytes = block.clone();
                Ok(AuthenticationBlock { algorithm: sign1.algorithm_number(), key_id, bytes })
            })
            .collect()
    }
}

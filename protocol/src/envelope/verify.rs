//! Verifies an envelope (SPEC section 5.2), in these steps:
//!
//! 1. the digest in the authentication covers the manifest with its byte string head;
//! 2. every authentication block is a COSE_Sign1 of our profile;
//! 3. enough *distinct* release keys signed the bytes of the digest;
//! 4. only now the manifest is decoded;
//! 5. every severed member that is here matches its digest in the manifest, and nothing else is here.
//!
//! Step 2 is strict: the envelope is refused if it has a block that we cannot judge. This costs nothing,
//! because blocks are not signed, and a publisher can send the same release with fewer of them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Envelope, Unverified, Verified, VerifyError};
use crate::cose::{Accept, PublicKey, Sign1, SignatureError};
use crate::trust::{Role, Root};

impl Envelope<Unverified> {
    /// Verifies the envelope against the release keys of `root` and their threshold.
    ///
    /// # Errors
    /// [`VerifyError`]: the first of the steps above that fails.
    pub fn verify(self, root: &Root, accept: Accept) -> Result<Envelope<Verified>, VerifyError> {
        let role = root.role(Role::Release);
        self.verify_with_keys(&role.keys, role.threshold, accept)
    }

    /// Verifies the envelope against `keys`, of which at least `threshold` must have signed. A threshold of 0
    /// counts as 1, so that an envelope that nobody signed is never verified.
    ///
    /// # Errors
    /// As [`Envelope::verify`].
    pub fn verify_with_keys(
        self,
        keys: &[PublicKey],
        threshold: usize,
        accept: Accept,
    ) -> Result<Envelope<Verified>, VerifyError> {
        self.check_digest()?;
        self.check_signatures(keys, threshold.max(1), accept)?;
        let manifest = Box::new(self.read_manifest()?);
        let Self { bytes, digest, blocks, members, .. } = self;
        Ok(Envelope { bytes, digest, blocks, members, state: Verified { manifest } })
    }

    /// Counts distinct keys, not blocks: a key that signs twice, or that is listed twice, counts once.
    fn check_signatures(
        &self,
        keys: &[PublicKey],
        threshold: usize,
        accept: Accept,
    ) -> Result<(), VerifyError> {
        let signed = self.signed_bytes();
        let blocks = self.blocks.iter().map(|block| Sign1::decode(block)).collect::<Result<Vec<_>, _>>();
        let blocks = blocks.map_err(SignatureError::from)?;
        let mut counted: Vec<&PublicKey> = Vec::new();
        let mut failure = None;
        for block in &blocks {
            match signer(block, keys, accept, &signed) {
                Ok(key) if counted.contains(&key) => {}
                Ok(key) => counted.push(key),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if counted.len() >= threshold {
            return Ok(());
        }
        Err(match failure {
            _ if blocks.is_empty() => VerifyError::Unsigned,
            // No signature counts. The error says what is wrong with the first one.
            Some(error) if counted.is_empty() => error.into(),
            _ => SignatureError::threshold(counted.len(), threshold).into(),
        })
    }
}

/// Finds the key that made a block. A key id names the only candidate; without one every key is tried.
fn signer<'k>(
    block: &Sign1<'_>,
    keys: &'k [PublicKey],
    accept: Accept,
    signed: &[u8],
) -> Result<&'k PublicKey, SignatureError> {
    let mut result = Err(SignatureError::UnknownKey);
    for key in keys {
        if block.key_id().is_some_and(|id| id != key.id().0) {
            continue;
        }
        match block.verify_detached(accept, key, signed) {
            Ok(()) => return Ok(key),
            // A key that fits and did not sign makes a better error than a key of another type.
            Err(error) if result != Err(SignatureError::Mismatch) => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

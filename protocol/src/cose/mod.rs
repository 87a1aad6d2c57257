//! COSE signatures (RFC 9052), as far as we use them: one strict shape each.
//!
//! [`Sign1`] carries our own documents (attached) and the blocks of a SUIT envelope (detached).
//! [`Signatures`] carries `root.cbor`, which several keys sign. Only ESP256 and Ed25519 are accepted, and
//! ES256 if the caller says so. The algorithm has to stand in the protected header. Countersignatures, `crit`
//! and every other header are refused before any key is looked at.
//!
//! Our own objects say twice what they are, so that a signature of one kind never counts for another: in a
//! header of ours in the protected bucket ([`Kind::number`]), and in the external data
//! ([`Kind::external_aad`]).

mod error;
mod fingerprint;
mod key;
mod kind;
mod sign;
mod sign1;

pub use error::SignatureError;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use key::{Algorithm, PublicKey, Signature, SigningKey};
pub use kind::Kind;
pub use sign::{Signatures, SignaturesWriter};
pub use sign1::{Sign1, sign_attached, sign_detached, to_be_signed};

/// COSE_Sign1 (RFC 9052 section 2).
pub(crate) const TAG_SIGN1: u64 = 18;
/// COSE_Sign (RFC 9052 section 2).
pub(crate) const TAG_SIGN: u64 = 98;

/// Which signature algorithms a verifier takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Also take ES256 (-7), which RFC 9864 replaced by ESP256: for objects that old tools signed.
    pub es256: bool,
}

impl Accept {
    /// ESP256 and Ed25519 only.
    pub const STRICT: Self = Self { es256: false };
    /// ES256 too.
    pub const WITH_ES256: Self = Self { es256: true };

    /// Whether `algorithm` is taken.
    #[must_use]
    pub fn allows(self, algorithm: Algorithm) -> bool {
        self.es256 || algorithm != Algorithm::Es256
    }
}

//! Keys: P-256 and Ed25519, as COSE_Key (RFC 9053 section 7).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

#[cfg(feature = "p256")]
use p256::ecdsa::signature::{Signer as _, Verifier as _};
#[cfg(feature = "p256")]
use p256::elliptic_curve::point::AffineCoordinates as _;

use super::SignatureError;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{Digest, KeyId};

/// A signature algorithm (RFC 9864, IANA "COSE Algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256, fully specified.
    Esp256,
    /// EdDSA with Ed25519, fully specified.
    Ed25519,
    /// ECDSA with SHA-256 on whatever curve the key has; deprecated.
    Es256,
}

impl Algorithm {
    /// The number in COSE header 1.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Esp256 => -9,
            Self::Ed25519 => -19,
            Self::Es256 => -7,
        }
    }

    /// The algorithm with this number.
    ///
    /// # Errors
    /// [`SignatureError::Algorithm`] for numbers that no profile of ours has.
    pub const fn from_number(number: i64) -> Result<Self, SignatureError> {
        match number {
            -9 => Ok(Self::Esp256),
            -19 => Ok(Self::Ed25519),
            -7 => Ok(Self::Es256),
            alg => Err(SignatureError::algorithm(alg)),
        }
    }
}

/// A signature of either algorithm: 64 bytes.
pub type Signature = [u8; 64];

const KTY: i64 = 1;
const ALG: i64 = 3;
const CRV: i64 = -1;
const X: i64 = -2;
const Y: i64 = -3;
const D: i64 = -4;
const KID: i64 = 2;
#[cfg(feature = "ed25519")]
const KTY_OKP: u64 = 1;
#[cfg(feature = "p256")]
const KTY_EC2: u64 = 2;
#[cfg(feature = "p256")]
const CRV_P256: u64 = 1;
#[cfg(feature = "ed25519")]
const CRV_ED25519: u64 = 6;

/// Most bytes of a key file.
const KEY_FILE_BYTES_MAX: usize = 256;

/// A key that verifies.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point on P-256, for ESP256.
    #[cfg(feature = "p256")]
    P256(Box<p256::ecdsa::VerifyingKey>),
    /// A point on edwards25519, for Ed25519.
    #[cfg(feature = "ed25519")]
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?} {})", self.algorithm(), self.id())
    }
}

impl PublicKey {
    /// Reads a point on P-256 from its coordinates.
    ///
    /// # Errors
    /// [`DecodeError::Value`] where it is not on the curve.
    #[cfg(feature = "p256")]
    pub fn p256(x: &[u8; 32], y: &[u8; 32]) -> Result<Self, DecodeError> {
        // Both coordinates are at hand: SEC1 bytes would link the square root that compressed points need.
        p256::AffinePoint::from_coordinates(&(*x).into(), &(*y).into())
            .into_option()
            .and_then(|point| p256::ecdsa::VerifyingKey::from_affine(point).ok())
            .map(|key| Self::P256(Box::new(key)))
            .ok_or(DecodeError::value("P-256 point"))
    }

    /// Reads a point on edwards25519.
    ///
    /// # Errors
    /// [`DecodeError::Value`] where it is not on the curve, of small order, or not in its one canonical
    /// encoding: the same key must not come under two ids.
    #[cfg(feature = "ed25519")]
    pub fn ed25519(x: &[u8; 32]) -> Result<Self, DecodeError> {
        match ed25519_dalek::VerifyingKey::from_bytes(x) {
            Ok(key) if !key.is_weak() && key.to_edwards().compress().to_bytes() == *x => {
                Ok(Self::Ed25519(Box::new(key)))
            }
            _ => Err(DecodeError::value("Ed25519 point")),
        }
    }

    /// The algorithm that this key signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            #[cfg(feature = "p256")]
            Self::P256(_) => Algorithm::Esp256,
            #[cfg(feature = "ed25519")]
            Self::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// The COSE_Key thumbprint (RFC 9679 section 3): SHA-256 over the required parameters.
    #[must_use]
    pub fn thumbprint(&self) -> Digest {
        let mut writer = Writer::new();
        match self {
            #[cfg(feature = "p256")]
            Self::P256(_) => writer.map(4).int(KTY).uint(KTY_EC2),
            #[cfg(feature = "ed25519")]
            Self::Ed25519(_) => writer.map(3).int(KTY).uint(KTY_OKP),
        };
        self.write_point(&mut writer);
        Digest::of(writer.as_bytes())
    }

    /// The key id: the first 4 bytes of the thumbprint.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let [a, b, c, d, ..] = self.thumbprint().0;
        KeyId([a, b, c, d])
    }

    /// Writes the key as a COSE_Key map with type, algorithm, curve and point.
    pub fn encode(&self, writer: &mut Writer) {
        let (kty, fields) = match self {
            #[cfg(feature = "p256")]
            Self::P256(_) => (KTY_EC2, 5),
            #[cfg(feature = "ed25519")]
            Self::Ed25519(_) => (KTY_OKP, 4),
        };
        writer.map(fields).int(KTY).uint(kty).int(ALG).int(self.algorithm().number());
        self.write_point(writer);
    }

    fn write_point(&self, writer: &mut Writer) {
        match self {
            #[cfg(feature = "p256")]
            Self::P256(key) => {
                let point = key.to_sec1_point(false);
                let (x, y) = (point.x().expect("not the identity"), point.y().expect("not compressed"));
                writer.int(CRV).uint(CRV_P256).int(X).bytes(x).int(Y).bytes(y);
            }
            #[cfg(feature = "ed25519")]
            Self::Ed25519(key) => {
                writer.int(CRV).uint(CRV_ED25519).int(X).bytes(key.as_bytes());
            }
        }
    }

    /// Reads a COSE_Key map with exactly the fields that [`PublicKey::encode`] writes.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Value`] for other types, algorithms, curves and bad points.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = reader.map("COSE_Key", 5)?;
        let (mut kty, mut alg, mut crv, mut x, mut y) = (None, None, None, None, None);
        while let Some(key) = map.next_int(reader)? {
            match key {
                KTY => kty = Some(reader.uint("key type")?),
                ALG => alg = Some(reader.int("key algorithm")?),
                CRV => crv = Some(reader.uint("curve")?),
                X => x = Some(reader.byte_array("key x")?),
                Y => y = Some(reader.byte_array::<32>("key y")?),
                other => return Err(map.unknown(other)),
            }
        }
        let x = map.require(x, X)?;
        let alg = Algorithm::from_number(map.require(alg, ALG)?);
        match (map.require(kty, KTY)?, map.require(crv, CRV)?, alg, y) {
            #[cfg(feature = "p256")]
            (KTY_EC2, CRV_P256, Ok(Algorithm::Esp256), Some(y)) => Self::p256(&x, &y),
            #[cfg(feature = "ed25519")]
            (KTY_OKP, CRV_ED25519, Ok(Algorithm::Ed25519), None) => Self::ed25519(&x),
            _ => Err(DecodeError::value("COSE_Key")),
        }
    }

    /// Checks a signature made with `algorithm` over `message`.
    ///
    /// # Errors
    /// [`SignatureError::Algorithm`] where the key has another one, [`SignatureError::Mismatch`].
    pub fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let valid = match (self, algorithm) {
            #[cfg(feature = "p256")]
            (Self::P256(key), Algorithm::Esp256 | Algorithm::Es256) => {
                p256::ecdsa::Signature::from_slice(signature)
                    .and_then(|signature| key.verify(message, &signature))
                    .is_ok()
            }
            #[cfg(feature = "ed25519")]
            (Self::Ed25519(key), Algorithm::Ed25519) => {
                key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
            }
            _ => return Err(SignatureError::algorithm(algorithm.number())),
        };
        if valid { Ok(()) } else { Err(SignatureError::Mismatch) }
    }
}

/// A key that signs. Signing is deterministic (RFC 6979, RFC 8032), so no randomness is needed here.
///
/// Never printed: `Debug` shows the public half's id.
#[derive(Clone)]
pub enum SigningKey {
    /// For ESP256.
    #[cfg(feature = "p256")]
    P256(Box<p256::ecdsa::SigningKey>),
    /// For Ed25519.
    #[cfg(feature = "ed25519")]
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl SigningKey {
    /// The P-256 key with this secret.
    ///
    /// # Errors
    /// [`DecodeError::Value`] for zero and numbers at or above the group's order: draw another.
    #[cfg(feature = "p256")]
    pub fn p256(secret: &[u8; 32]) -> Result<Self, DecodeError> {
        p256::ecdsa::SigningKey::from_slice(secret)
            .map(|key| Self::P256(Box::new(key)))
            .map_err(|_| DecodeError::value("P-256 secret"))
    }

    /// The Ed25519 key with this secret.
    #[cfg(feature = "ed25519")]
    #[must_use]
    pub fn ed25519(secret: &[u8; 32]) -> Self {
        Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(secret)))
    }

    /// The key as a COSE_Key file: type, key id, algorithm, curve, point and secret.
    ///
    /// The bytes are secret; the caller sees to it that they are kept so.
    #[must_use]
    pub fn encode_file(&self) -> Vec<u8> {
        let public = self.public();
        let (kty, fields) = match self {
            #[cfg(feature = "p256")]
            Self::P256(_) => (KTY_EC2, 7),
            #[cfg(feature = "ed25519")]
            Self::Ed25519(_) => (KTY_OKP, 6),
        };
        let mut writer = Writer::new();
        writer.map(fields).int(KTY).uint(kty).int(KID).bytes(&public.id().0);
        writer.int(ALG).int(public.algorithm().number());
        public.write_point(&mut writer);
        match self {
            #[cfg(feature = "p256")]
            Self::P256(key) => writer.int(D).bytes(&key.to_bytes()),
            #[cfg(feature = "ed25519")]
            Self::Ed25519(key) => writer.int(D).bytes(key.as_bytes()),
        };
        writer.into_bytes()
    }

    /// Reads a COSE_Key file with a secret, as [`SigningKey::encode_file`] writes it.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Value`] for other types and algorithms, for a point that is not the
    /// secret's, and for a key id that is not the key's.
    pub fn decode_file(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new("COSE_Key", bytes, KEY_FILE_BYTES_MAX)?;
        let map = &mut reader.map("COSE_Key", 7)?;
        map.expect(reader, KTY)?;
        let kty = reader.uint("key type")?;
        let id = if map.optional(reader, KID)? { Some(reader.byte_array("key id")?) } else { None };
        map.expect(reader, ALG)?;
        let alg = Algorithm::from_number(reader.int("key algorithm")?);
        map.expect(reader, CRV)?;
        let crv = reader.uint("curve")?;
        map.expect(reader, X)?;
        let x = reader.byte_array("key x")?;
        let y = if map.optional(reader, Y)? { Some(reader.byte_array::<32>("key y")?) } else { None };
        map.expect(reader, D)?;
        let secret = reader.byte_array("key secret")?;
        map.finish(reader)?;
        reader.finish()?;
        let (key, public) = match (kty, crv, alg, y) {
            #[cfg(feature = "p256")]
            (KTY_EC2, CRV_P256, Ok(Algorithm::Esp256), Some(y)) => {
                (Self::p256(&secret)?, PublicKey::p256(&x, &y)?)
            }
            #[cfg(feature = "ed25519")]
            (KTY_OKP, CRV_ED25519, Ok(Algorithm::Ed25519), None) => {
                (Self::ed25519(&secret), PublicKey::ed25519(&x)?)
            }
            _ => return Err(DecodeError::value("COSE_Key")),
        };
        if key.public() != public || id.is_some_and(|id| KeyId(id) != public.id()) {
            return Err(DecodeError::value("COSE_Key"));
        }
        Ok(key)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match self {
            #[cfg(feature = "p256")]
            Self::P256(key) => PublicKey::P256(Box::new(*key.verifying_key())),
            #[cfg(feature = "ed25519")]
            Self::Ed25519(key) => PublicKey::Ed25519(Box::new(key.verifying_key())),
        }
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        match self {
            #[cfg(feature = "p256")]
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().into()
            }
            #[cfg(feature = "ed25519")]
            Self::Ed25519(key) => ed25519_dalek::Signer::sign(&**key, message).to_bytes(),
        }
    }
}

#[cfg(all(test, feature = "ed25519", feature = "p256"))]
mod tests {
    use super::*;

    #[test]
    fn key_files_of_both_algorithms_read_back() {
        for key in [SigningKey::ed25519(&[7; 32]), SigningKey::p256(&[7; 32]).unwrap()] {
            let read = SigningKey::decode_file(&key.encode_file()).unwrap();
            assert_eq!(read.public(), key.public());
            assert_eq!(read.sign(b"message"), key.sign(b"message"));
        }
    }
}

//! Adds signatures to a release: signatures with keys that are here, and signatures that were made elsewhere.

use std::path::Path;

use whimbrel_protocol::cose::{Accept, PublicKey, Signature, SigningKey};
use whimbrel_protocol::envelope::{Envelope, Unverified, VerifyError};
use whimbrel_protocol::ids::KeyId;
use whimbrel_protocol::trust::{Role, Root};

use super::{ReleaseError, ReleaseFolder};
use crate::keys::algorithm_name;

/// The result of signing with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The key.
    pub key: KeyId,
    /// Whether the release had this key's signature already, so that nothing was added.
    pub already: bool,
}

/// Signs `envelope` with `key`. A key that has signed it already does not sign again.
///
/// # Errors
/// [`VerifyError::Digest`], [`VerifyError::Full`], [`VerifyError::Unauthentic`] for a block that is outside
/// our profile.
pub fn sign(envelope: &mut Envelope<Unverified>, key: &SigningKey) -> Result<Signed, VerifyError> {
    let public = key.public();
    let already = has_signed(envelope, &public);
    if !already {
        envelope.sign(key)?;
    }
    Ok(Signed { key: public.id(), already })
}

/// Signs a release with all of `keys` and saves it. If one fails, the release stays as it was.
///
/// Manifests that devices would refuse are not signed.
///
/// # Errors
/// [`ReleaseError::Refused`], [`ReleaseError::Envelope`], [`ReleaseError::File`].
pub fn sign_into(release: &mut ReleaseFolder, keys: &[SigningKey]) -> Result<Vec<Signed>, ReleaseError> {
    release.manifest()?;
    let wrong = |source| ReleaseError::Envelope { path: release.path.clone(), source };
    let mut envelope = release.envelope.clone();
    let signed =
        keys.iter().map(|key| sign(&mut envelope, key)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    release.envelope = envelope;
    if signed.iter().any(|signed| !signed.already) {
        release.save()?;
    }
    Ok(signed)
}

/// Adds a signature that `key` made elsewhere, read from `path`, and saves the release. One that does not verify
/// is never added.
///
/// # Errors
/// [`ReleaseError::WrongSignature`], and those of [`sign_into`].
pub fn attach(
    release: &mut ReleaseFolder,
    key: &PublicKey,
    signature: &Signature,
    path: &Path,
) -> Result<Signed, ReleaseError> {
    release.manifest()?;
    let algorithm = key.algorithm();
    let wrong = |source| ReleaseError::Envelope { path: release.path.clone(), source };
    let message = release.envelope.authentication_tbs(algorithm).map_err(wrong)?;
    key.verify(algorithm, &message, signature).map_err(|source| ReleaseError::WrongSignature {
        path: path.into(),
        alg: algorithm_name(algorithm),
        source,
    })?;
    let already = has_signed(&release.envelope, key);
    if !already {
        let mut envelope = release.envelope.clone();
        envelope.attach_signature(algorithm, key.id(), signature).map_err(wrong)?;
        release.envelope = envelope;
        release.save()?;
    }
    Ok(Signed { key: key.id(), already })
}

/// Checks that `root` names a key as a release key, so that devices count what it signs. `path` is the key's file.
///
/// # Errors
/// [`ReleaseError::OtherRole`], [`ReleaseError::OutsideRoot`].
pub fn check_signer(path: &Path, key: &PublicKey, root_path: &Path, root: &Root) -> Result<(), ReleaseError> {
    let named = |role: &Role| root.role(*role).keys.contains(key);
    if named(&Role::Release) {
        return Ok(());
    }
    let release_keys = root.role(Role::Release).keys.iter().map(PublicKey::id).collect();
    let (path, id, root) = (path.into(), key.id(), root_path.into());
    Err(match Role::ALL.into_iter().find(named) {
        Some(role) => ReleaseError::OtherRole { path, id, role: role.name(), root, release_keys },
        None => ReleaseError::OutsideRoot { path, id, root, release_keys },
    })
}

/// Whether `key` has signed the envelope.
pub(super) fn has_signed(envelope: &Envelope<Unverified>, key: &PublicKey) -> bool {
    envelope.clone().verify_with_keys(core::slice::from_ref(key), 1, Accept::STRICT).is_ok()
}

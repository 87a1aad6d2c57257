//! What proves who this device is and whom it trusts: its key file and the pinned root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::error;
use whimbrel_engine::OfferedRoot;
use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::cose::{Fingerprint, SigningKey};
use whimbrel_protocol::limits::ROOT_BYTES_MAX;
use whimbrel_protocol::trust::{Root, TrustError};

use crate::config::DeviceConfig;
use crate::disk::sync_names;
use crate::local_trust::{Untrusted, check_path, open_file};

/// Why the device's key or its trust anchor cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {error}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done: a verb.
        action: &'static str,
        /// Why it was not.
        error: io::Error,
    },
    /// Somebody else could change a file.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Others could read the key.
    #[error("{path} has mode {mode:04o}: others must not read a private key: chmod 600 {path}", path = .path.display())]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key file holds no key.
    #[error("{path} is not a private COSE_Key file: {error}", path = .path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        error: DecodeError,
    },
    /// The root is not one.
    #[error("{path} is not a trust anchor: {error}; it should be the root.cbor that `whimbrel init` made", path = .path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: TrustError,
    },
    /// The root is another one than this device has pinned.
    #[error(
        "{path} has version {got} and does not follow from the pinned root of version {pinned}: \
         provision this device anew if that is meant",
        path = .path.display()
    )]
    OtherRoot {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u64,
        /// The version that is pinned.
        pinned: u64,
    },
    /// No randomness for a new key.
    #[error("the system gives no randomness for a key: {0}")]
    Randomness(getrandom::Error),
}

/// Most bytes of a key file.
const KEY_BYTES_MAX: u64 = 256;

/// Reads the device's key, or makes one where there is none: Ed25519, mode 0600, on the medium before it is used.
///
/// # Errors
/// [`IdentityError`]; nothing is left half-written.
pub fn load_or_make_key(path: &Path) -> Result<SigningKey, IdentityError> {
    load_key(path)?.map_or_else(|| make_key(path), Ok)
}

/// Reads the device's key; `None` where there is no file.
fn load_key(path: &Path) -> Result<Option<SigningKey>, IdentityError> {
    let (bytes, file) = match read_bounded(path, KEY_BYTES_MAX) {
        Err(IdentityError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mode = file.metadata().map_err(|error| failed(path, "read", error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Mode { path: path.to_owned(), mode });
    }
    let key = SigningKey::decode_file(&bytes);
    key.map(Some).map_err(|error| IdentityError::Key { path: path.to_owned(), error })
}

/// Looks whether the files of key and trust anchor can be used. Makes and changes nothing: a key that is not there is
/// made at the first start, and a root is not needed any more once `data` shows that there was one.
///
/// # Errors
/// [`IdentityError`]: the first thing that is wrong.
pub fn check(device: &DeviceConfig, data: &Path) -> Result<(), IdentityError> {
    load_key(&device.key)?;
    match read_root(&device.root) {
        Err(IdentityError::File { error, .. })
            if error.kind() == io::ErrorKind::NotFound && data.exists() =>
        {
            Ok(())
        }
        bytes => {
            let wrong = |error| IdentityError::Root { path: device.root.clone(), error };
            Root::verify(&bytes?).map(drop).map_err(wrong)
        }
    }
}

/// What the owner of the device compares before its key is accepted; `None` where it has no key that can be used.
#[must_use]
pub fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let (bytes, _) = read_bounded(path, KEY_BYTES_MAX).ok()?;
    Some(SigningKey::decode_file(&bytes).ok()?.public().fingerprint())
}

fn make_key(path: &Path) -> Result<SigningKey, IdentityError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(IdentityError::Randomness)?;
    let key = SigningKey::ed25519(&secret);
    // Where the key goes may be a folder that was not looked at: key files need not be in the data folder.
    check_path(path)?;
    write_new(path, &key.encode_file()).map_err(|error| failed(path, "write", error))?;
    Ok(key)
}

/// Writes a private file whole or not at all, durably. A file that came into being meanwhile stays.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // Left by a run that was cut off.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::hard_link(&new, path)
    })();
    fs::remove_file(&new)?;
    written?;
    sync_names(path)
}

/// The trust anchor: what this device has pinned, or at the first start the file.
///
/// A file with a higher version takes the place of the pinned root where the root keys of *both* signed it. What
/// else the file says is logged and changes nothing: a device must not become unreachable for a file that it
/// does not need. Gives the root and its bytes, to be pinned.
///
/// # Errors
/// [`IdentityError`] where nothing is pinned and the file is no root.
pub fn load_root(path: &Path, pinned: &[u8]) -> Result<(Root, Vec<u8>), IdentityError> {
    let Ok(held) = Root::verify(pinned) else {
        let bytes = read_root(path)?;
        let root = Root::verify(&bytes);
        return Ok((root.map_err(|error| IdentityError::Root { path: path.to_owned(), error })?, bytes));
    };
    match newer_root(path, &held) {
        Ok(Some(newer)) => Ok(newer),
        Ok(None) => Ok((held, pinned.to_vec())),
        Err(error) => {
            error!(reason = %error, "the trust anchor in the file is not taken, the pinned one stays");
            Ok((held, pinned.to_vec()))
        }
    }
}

/// The root in the file, where it follows from `held`; `None` where the file says nothing new.
fn newer_root(path: &Path, held: &Root) -> Result<Option<(Root, Vec<u8>)>, IdentityError> {
    let bytes = match read_root(path) {
        Err(IdentityError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let offered = OfferedRoot::of(held, &bytes);
    match offered.map_err(|error| IdentityError::Root { path: path.to_owned(), error })? {
        OfferedRoot::Known => Ok(None),
        OfferedRoot::Successor(root) => Ok(Some((root, bytes))),
        OfferedRoot::Refused { version: got } => {
            Err(IdentityError::OtherRoot { path: path.to_owned(), got, pinned: held.version })
        }
    }
}

fn read_root(path: &Path) -> Result<Vec<u8>, IdentityError> {
    read_bounded(path, ROOT_BYTES_MAX as u64).map(|(bytes, _)| bytes)
}

fn read_bounded(path: &Path, most: u64) -> Result<(Vec<u8>, File), IdentityError> {
    let failed = |error| failed(path, "read", error);
    let file = open_file(path)?.ok_or_else(|| failed(rustix::io::Errno::NOENT.into()))?;
    let mut bytes = Vec::new();
    (&file).take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(failed(io::Error::other(format!("it has more than {most} bytes"))));
    }
    Ok((bytes, file))
}

fn failed(path: &Path, action: &'static str, error: io::Error) -> IdentityError {
    IdentityError::File { path: path.to_owned(), action, error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use whimbrel_protocol::time::UnixTime;
    use whimbrel_protocol::trust::RoleKeys;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::ed25519(&[seed; 32])
    }

    fn root(version: u64, root_key: u8, signers: &[u8]) -> Vec<u8> {
        let role = |seed| RoleKeys { threshold: 1, epoch: 0, keys: vec![key(seed).public()] };
        let root = Root {
            version,
            issued: UnixTime::from_secs(1),
            expires: UnixTime::from_secs(2),
            roles: [role(root_key), role(2), role(3), role(4)],
        };
        let keys: Vec<SigningKey> = signers.iter().map(|seed| key(*seed)).collect();
        root.sign(&keys.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.cose");
        let made = load_or_make_key(&path).unwrap();
        assert_eq!(load_or_make_key(&path).unwrap().public(), made.public());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.cose");
        load_or_make_key(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_make_key(&path), Err(IdentityError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn a_broken_key_file_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.cose");
        for content in [&b""[..], &[0xa1, 1, 1], &[0; 300]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(load_or_make_key(&path).is_err());
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn the_first_root_is_pinned_and_another_does_not_take_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.cbor");
        assert!(matches!(load_root(&path, &[]), Err(IdentityError::File { .. })));
        let first = root(1, 1, &[1]);
        fs::write(&path, &first).unwrap();
        let (_, pinned) = load_root(&path, &[]).unwrap();
        assert_eq!(pinned, first);

        for other in [root(2, 9, &[9]), root(1, 9, &[9]), b"garbage".to_vec(), vec![0; 10_000]] {
            fs::write(&path, other).unwrap();
            assert_eq!(load_root(&path, &pinned).unwrap().1, first);
        }
        let held = Root::verify(&first).unwrap();
        fs::write(&path, root(2, 9, &[9])).unwrap();
        let stranger = newer_root(&path, &held);
        assert!(matches!(stranger, Err(IdentityError::OtherRoot { got: 2, pinned: 1, .. })));
        fs::remove_file(&path).unwrap();
        assert_eq!(load_root(&path, &pinned).unwrap().1, first);
    }

    /// Two roots of one version are one too many, whoever signed them; an older one is passed over in silence.
    #[test]
    fn of_one_version_there_is_one_root() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.cbor");
        let held = Root::verify(&root(2, 1, &[1])).unwrap();
        fs::write(&path, root(2, 9, &[1, 9])).unwrap();
        let same_version = newer_root(&path, &held);
        assert!(matches!(same_version, Err(IdentityError::OtherRoot { got: 2, pinned: 2, .. })));
        for old in [root(2, 1, &[1]), root(1, 9, &[1, 9])] {
            fs::write(&path, old).unwrap();
            assert!(matches!(newer_root(&path, &held), Ok(None)));
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_maximum_and_none_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [7; 10]).unwrap();
        for most in [10, 11] {
            assert_eq!(read_bounded(&path, most).unwrap().0, [7; 10]);
        }
        assert!(read_bounded(&path, 9).is_err());
        fs::write(&path, vec![7; ROOT_BYTES_MAX + 1]).unwrap();
        let held = Root::verify(&root(1, 1, &[1])).unwrap();
        assert!(
            matches!(newer_root(&path, &held), Err(IdentityError::File { .. })),
            "not as if there were none"
        );
    }

    #[test]
    fn a_root_that_old_and_new_root_keys_signed_takes_the_place_of_the_pinned_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.cbor");
        let (first, second) = (root(1, 1, &[1]), root(2, 9, &[1, 9]));
        fs::write(&path, &second).unwrap();
        let (taken, bytes) = load_root(&path, &first).unwrap();
        assert_eq!((taken.version, bytes), (2, second.clone()));
        fs::write(&path, &first).unwrap();
        assert_eq!(load_root(&path, &second).unwrap().1, second, "an older file changes nothing");
    }
}

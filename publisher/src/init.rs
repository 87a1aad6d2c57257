//! `whimbrel init` makes a folder with everything that a first campaign needs.
//!
//! | file | what it is |
//! |---|---|
//! | `whimbrel.toml` | the configuration, fully commented |
//! | `root.cbor` | version 1, signed by the root key: which key may sign what |
//! | `keys/root.cose`, `keys/release.cose`, `keys/campaign.cose`, `keys/beacon.cose` | private keys, mode 0600 |
//! | `devices.passwd` | what is kept of the devices' passwords: none yet, mode 0600 |
//! | `admin.token` | what the command line shows to the service, mode 0600 |
//!
//! All keys lie in one folder, which is right for a first try on one machine. In production, keep root and
//! release keys elsewhere.

use std::path::Path;

use thiserror::Error;
use whimbrel_protocol::cose::{Algorithm, SigningKey};
use whimbrel_protocol::time::UnixTime;
use whimbrel_protocol::trust::{Role, RoleKeys, Root};
use zeroize::Zeroizing;

use crate::config;
use crate::files::{Existing, FileError, NewFolder, Secrecy, Staging};
use crate::keys::{self, KeyError};
use crate::passwords;

/// Seconds until a new root should be made: ten years.
const ROOT_LIFE_S: u64 = 10 * 365 * 24 * 3600;

/// The name of the root in the folder.
pub const ROOT_FILE: &str = "root.cbor";
/// The name of the service's token in the folder.
pub const TOKEN_FILE: &str = "admin.token";
/// The name of the file of the devices' passwords in the folder.
pub const PASSWORDS_FILE: &str = "devices.passwd";
/// The name of the folder of keys in the folder.
pub const KEYS_FOLDER: &str = "keys";

/// Why the folder could not be made.
#[derive(Debug, Error)]
pub enum InitError {
    /// One of its files exists already.
    #[error(
        "{} is there already: choose another folder, or remove that file to start anew (its keys stay)",
        .path.display()
    )]
    Exists {
        /// The configuration file.
        path: std::path::PathBuf,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The root, as it was signed.
    pub root: Root,
}

impl Made {
    /// The public key of `role`.
    #[must_use]
    pub fn key(&self, role: Role) -> &whimbrel_protocol::cose::PublicKey {
        self.root.role(role).keys.first().expect("every role was given one key")
    }
}

/// Makes the folder, at `now`, with keys for `algorithm`. If it has a configuration or any of the other files
/// already, it is left as it is.
///
/// # Errors
/// [`InitError`]; nothing is left behind.
pub fn create(folder: &Path, algorithm: Algorithm, now: UnixTime) -> Result<Made, InitError> {
    let configuration = folder.join(config::FILE_NAME);
    if configuration.symlink_metadata().is_ok() {
        return Err(InitError::Exists { path: configuration });
    }
    let secrets = Role::ALL.map(|_| keys::generate(algorithm));
    let [root, release, campaign, beacon] = secrets;
    let secrets = [root?, release?, campaign?, beacon?];
    let root = root_of(&secrets, now);
    let [root_key, ..] = &secrets;

    let made_folder = NewFolder::create(folder, Secrecy::Public)?;
    let keys_folder = folder.join(KEYS_FOLDER);
    let made_keys = NewFolder::create(&keys_folder, Secrecy::Secret)?;
    let mut staging = Staging::new();
    for (role, secret) in Role::ALL.into_iter().zip(&secrets) {
        keys::stage(&mut staging, &keys_folder.join(format!("{}.cose", role.name())), secret)?;
    }
    let public = |staging: &mut Staging, name: &str, bytes: &[u8]| {
        staging.add(&folder.join(name), bytes, Secrecy::Public, Existing::Refuse)
    };
    public(&mut staging, ROOT_FILE, &root.sign(&[root_key]))?;
    staging.add(&folder.join(TOKEN_FILE), token()?.as_bytes(), Secrecy::Secret, Existing::Refuse)?;
    let head = passwords::HEAD.as_bytes();
    staging.add(&folder.join(PASSWORDS_FILE), head, Secrecy::Secret, Existing::Refuse)?;
    // The configuration comes last, because a folder that has it counts as complete.
    public(&mut staging, config::FILE_NAME, config::DEFAULT_FILE.as_bytes())?;
    staging.commit()?;
    made_keys.keep();
    made_folder.keep();
    Ok(Made { root })
}

fn root_of(secrets: &[SigningKey; 4], now: UnixTime) -> Root {
    let roles =
        secrets.each_ref().map(|key| RoleKeys { threshold: 1, epoch: 0, keys: Vec::from([key.public()]) });
    Root { version: 1, issued: now, expires: now.plus_secs(ROOT_LIFE_S), roles }
}

/// 32 random bytes in hexadecimal, on a line.
fn token() -> Result<Zeroizing<String>, KeyError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| KeyError::Random)?;
    Ok(Zeroizing::new(hex::encode(*bytes) + "\n"))
}

//! `whimbrel init` makes a folder with everything that a first campaign needs.
//!
//! | file | what it is |
//! |---|---|
//! | `whimbrel.toml` | the configuration, fully commented |
//! | `root.cbor` | version 1, signed by the root key: which key may sign what |
//! | `keys/campaign.cose`, `keys/beacon.cose` | private keys of the service, mode 0600 |
//! | `offline-keys/root.cose`, `offline-keys/release.cose` | private keys that the service must not have, mode 0600 |
//! | `offline-keys/README` | where these belong |
//! | `devices.passwd` | what is kept of the devices' passwords: none yet, mode 0600 |
//! | `admin.token` | what the command line shows to the service, mode 0600 |
//!
//! For a first try everything may stay on one machine. The service warns at each start while it can read a key of
//! `offline-keys`.

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
/// The folder of the keys that the service signs with.
pub const KEYS_FOLDER: &str = "keys";
/// The folder of the keys that no service needs.
pub const OFFLINE_FOLDER: &str = "offline-keys";
/// What the folder of the offline keys says about itself.
const OFFLINE_README: &str = "\
Whoever has these keys decides what devices run. Keep them on a machine that no device can reach, or on a medium in a
safe; the service needs neither of them.

release.cose  signs releases (`whimbrel release sign R --key release.cose`). On the machine that builds them it is safe
              from whoever breaks into the service. An HSM is better: `whimbrel release tbs` and `attach`.
root.cose     says which keys count, and is used only when one of them changes. Keep two copies of it in two places.

`release-keys` in whimbrel.toml names release.cose here; change it, or give --key, once the file is elsewhere.
";

/// The key file of a role, in the folder that `init` makes.
#[must_use]
pub fn key_file(role: Role) -> String {
    let folder = match role {
        Role::Root | Role::Release => OFFLINE_FOLDER,
        Role::Campaign | Role::Beacon => KEYS_FOLDER,
    };
    format!("{folder}/{}.cose", role.name())
}

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
    let made_keys = NewFolder::create(&folder.join(KEYS_FOLDER), Secrecy::Secret)?;
    let made_offline = NewFolder::create(&folder.join(OFFLINE_FOLDER), Secrecy::Secret)?;
    let mut staging = Staging::new();
    for (role, secret) in Role::ALL.into_iter().zip(&secrets) {
        keys::stage(&mut staging, &folder.join(key_file(role)), secret)?;
    }
    let public = |staging: &mut Staging, name: &str, bytes: &[u8]| {
        staging.add(&folder.join(name), bytes, Secrecy::Public, Existing::Refuse)
    };
    public(&mut staging, &format!("{OFFLINE_FOLDER}/README"), OFFLINE_README.as_bytes())?;
    public(&mut staging, ROOT_FILE, &root.sign(&[root_key]))?;
    staging.add(&folder.join(TOKEN_FILE), token()?.as_bytes(), Secrecy::Secret, Existing::Refuse)?;
    let head = passwords::HEAD.as_bytes();
    staging.add(&folder.join(PASSWORDS_FILE), head, Secrecy::Secret, Existing::Refuse)?;
    // The configuration comes last, because a folder that has it counts as complete.
    public(&mut staging, config::FILE_NAME, config::DEFAULT_FILE.as_bytes())?;
    staging.commit()?;
    made_keys.keep();
    made_offline.keep();
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

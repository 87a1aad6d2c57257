//! Looks for keys that this service can read although they should be nowhere near it: whoever takes the service over
//! would have them too.

use std::fs;
use std::path::{Path, PathBuf};

use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::trust::{Role, Root};
use zeroize::Zeroizing;

use crate::signing::{AuthorityFiles, KEY_FILE_BYTES_MAX, read};

/// Folder beside the root in which `whimbrel init` puts the keys that belong elsewhere.
const OFFLINE_FOLDER: &str = "offline-keys";
/// Most files of a folder that are looked at.
const FILES_MAX: usize = 256;

/// Says in the log which keys of releases and of the root this service can read.
pub(crate) fn warn(files: &AuthorityFiles, root: &Root) {
    for (path, role) in readable(files, root) {
        tracing::warn!(
            path = %path.display(),
            "{} key readable by this service: move it to a machine that no device can reach",
            role.name()
        );
    }
}

/// Private keys of the roles root and release in the folders of the service's own keys, and in the one where
/// `whimbrel init` puts them. Only files in the form of `whimbrel key new` are recognised.
fn readable(files: &AuthorityFiles, root: &Root) -> Vec<(PathBuf, Role)> {
    let beside = |file: &Path| file.parent().map(Path::to_path_buf);
    let folders = [&files.campaign_key, &files.beacon_key, &files.root].map(|file| beside(file));
    let offline = beside(&files.root).map(|folder| folder.join(OFFLINE_FOLDER));
    let mut folders = folders.into_iter().chain([offline]).flatten().collect::<Vec<_>>();
    folders.sort();
    folders.dedup();
    let mut found = Vec::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.take(FILES_MAX).flatten().map(|entry| entry.path()).filter(|path| path.is_file())
        {
            found.extend(role_of(&path, root).map(|role| (path, role)));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// Which offline role the root gives to the private key in a file; `None` for any other file.
fn role_of(path: &Path, root: &Root) -> Option<Role> {
    let bytes = Zeroizing::new(read(path, KEY_FILE_BYTES_MAX).ok()?);
    let key = SigningKey::decode_file(&bytes).ok()?.public();
    [Role::Root, Role::Release].into_iter().find(|role| root.role(*role).keys.contains(&key))
}

#[cfg(test)]
mod tests {
    use whimbrel_protocol::time::UnixTime;
    use whimbrel_protocol::trust::RoleKeys;

    use super::*;

    #[test]
    fn keys_of_root_and_releases_are_found_beside_the_services_own_and_where_init_puts_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["keys", OFFLINE_FOLDER, "elsewhere"] {
            fs::create_dir(at(name)).unwrap();
        }
        let keys = [1, 2, 3, 4].map(|seed| SigningKey::ed25519(&[seed; 32]));
        let roles =
            keys.each_ref().map(|key| RoleKeys { threshold: 1, epoch: 0, keys: Vec::from([key.public()]) });
        let root = Root { version: 1, issued: UnixTime::default(), expires: UnixTime::from_secs(9), roles };
        let files = AuthorityFiles {
            root: at("root.cbor"),
            campaign_key: at("keys/campaign.cose"),
            beacon_key: at("keys/beacon.cose"),
        };
        let [root_key, release, campaign, beacon] = &keys;
        for (name, key) in [("keys/campaign.cose", campaign), ("keys/beacon.cose", beacon)] {
            fs::write(at(name), key.encode_file()).unwrap();
        }
        fs::write(at("elsewhere/release.cose"), release.encode_file()).unwrap();
        fs::write(at("keys/other.cose"), SigningKey::ed25519(&[9; 32]).encode_file()).unwrap();
        fs::write(at("keys/notes"), vec![0; 5000]).unwrap();
        assert_eq!(readable(&files, &root), []);

        fs::write(at("keys/forgotten.cose"), root_key.encode_file()).unwrap();
        fs::write(at("offline-keys/release.cose"), release.encode_file()).unwrap();
        let want =
            [(at("keys/forgotten.cose"), Role::Root), (at("offline-keys/release.cose"), Role::Release)];
        assert_eq!(readable(&files, &root), want);
    }
}

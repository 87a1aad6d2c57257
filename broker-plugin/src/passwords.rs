//! The devices' passwords: the file that `whimbrel device password` writes, read again when it changes.
//!
//! A login is decided from memory. What was accepted of the passwords that are slow to check is remembered under a keyed
//! hash, so that such a check is made once for each password, not at each connection. If the file becomes wrong, the
//! passwords of before go on counting, and one log line says what is wrong.

use alloc::collections::BTreeMap;
use alloc::sync::Weak;
use core::time::Duration;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use thiserror::Error;
use whimbrel_api::passwords::{FILE_BYTES_MAX, Kept, PASSWORD_BYTES_MAX, read_file};
use whimbrel_protocol::ids::{DeviceId, Digest};

/// What is kept of each device's password.
pub struct PasswordFile {
    path: PathBuf,
    content: RwLock<BTreeMap<DeviceId, Kept>>,
    /// Of the file as it was when it was last looked at, right or wrong.
    stamp: Mutex<Option<Stamp>>,
    checked: Mutex<Checked>,
}

/// Why the file is not taken.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// The system does not let it be read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// It is too large.
    #[error("has more than {FILE_BYTES_MAX} bytes, which is the most that a file of passwords may have")]
    TooLarge,
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What would be right.
        what: String,
    },
    /// There is no randomness to key the memory of checked passwords with.
    #[error("cannot be used: the system has no randomness")]
    Random,
}

/// By what a change of the file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What was accepted before of the passwords that are slow to check.
struct Checked {
    /// Of the process; without it nobody can tell from a memory dump which password is remembered.
    key: [u8; 32],
    /// The newer half, and the older one that is given up when the newer one is full.
    recent: HashSet<Digest>,
    older: HashSet<Digest>,
}

/// How often it is looked whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most slow passwords that are remembered, in each half.
const CHECKED_MAX: usize = 32_768;

impl PasswordFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn open(path: &Path) -> Result<Self, PasswordError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| PasswordError::Random)?;
        let checked = Checked { key, recent: HashSet::new(), older: HashSet::new() };
        let stamp = Stamp::of(path).map_err(PasswordError::Read)?;
        let content = RwLock::new(read(path)?);
        let path = path.to_path_buf();
        Ok(Self { path, content, stamp: Mutex::new(Some(stamp)), checked: Mutex::new(checked) })
    }

    /// Looks whether the file has changed, and takes what is in it now. If that is wrong, what was taken before goes on
    /// counting. Reads the disk: not for a thread that must not wait.
    pub fn look(&self) {
        let now = Stamp::of(&self.path);
        let seen = now.as_ref().ok().copied();
        // Before it is read: what changes while it is read is read again.
        let before =
            core::mem::replace(&mut *self.stamp.lock().unwrap_or_else(PoisonError::into_inner), seen);
        if before == seen {
            return;
        }
        match now.map_err(PasswordError::Read).and_then(|_| read(&self.path)) {
            Ok(new) => {
                tracing::info!(devices = new.len(), file = %self.path.display(), "passwords of devices read again");
                *self.content.write().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) => tracing::error!(
                file = %self.path.display(), reason = %error,
                "passwords of devices not read again: those of before go on counting"
            ),
        }
    }

    /// Whether the device has a password.
    #[must_use]
    pub fn names(&self, device: &DeviceId) -> bool {
        self.content.read().unwrap_or_else(PoisonError::into_inner).contains_key(device)
    }

    /// Whether this is the device's password; `None` if the device has none.
    #[must_use]
    pub fn accepts(&self, device: &DeviceId, password: Option<&str>) -> Option<bool> {
        let kept = self.kept(device)?;
        let Some(password) = password.filter(|it| it.len() <= PASSWORD_BYTES_MAX) else { return Some(false) };
        if !kept.is_slow() {
            return Some(kept.accepts(password));
        }
        let name = self.name(device, &kept, password);
        if self.is_checked(&name) {
            return Some(true);
        }
        let accepted = kept.accepts(password);
        if accepted {
            self.checked.lock().unwrap_or_else(PoisonError::into_inner).remember(name);
        }
        Some(accepted)
    }

    /// Whether [`PasswordFile::accepts`] would take tens of milliseconds.
    #[must_use]
    pub fn is_slow(&self, device: &DeviceId, password: &str) -> bool {
        let kept = self.kept(device).filter(Kept::is_slow);
        kept.is_some_and(|kept| !self.is_checked(&self.name(device, &kept, password)))
    }

    fn kept(&self, device: &DeviceId) -> Option<Kept> {
        self.content.read().unwrap_or_else(PoisonError::into_inner).get(device).cloned()
    }

    fn is_checked(&self, name: &Digest) -> bool {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.recent.contains(name) || checked.older.contains(name)
    }

    /// Names a device with this password, as long as the same is kept of it in the file. The fields before the password
    /// have fixed lengths, or end in a character that no id has.
    fn name(&self, device: &DeviceId, kept: &Kept, password: &str) -> Digest {
        let key = self.checked.lock().unwrap_or_else(PoisonError::into_inner).key;
        let parts = [&key[..], &kept.name(), device.as_str().as_bytes(), b":", password.as_bytes()];
        // Twice, so that the key also stands outside: the construction of HMAC, which no length extension breaks.
        Digest::of(&[&key[..], &Digest::of(&parts.concat()).0].concat())
    }
}

impl Checked {
    fn remember(&mut self, name: Digest) {
        if self.recent.len() >= CHECKED_MAX {
            self.older = core::mem::take(&mut self.recent);
        }
        self.recent.insert(name);
    }
}

impl core::fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let devices = self.content.read().unwrap_or_else(PoisonError::into_inner).len();
        write!(f, "passwords of {devices} devices")
    }
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// Looks every few seconds whether the file has changed, as long as anybody has it.
pub(crate) async fn watch(file: Weak<PasswordFile>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(file) = file.upgrade() else { return };
        let _panicked = tokio::task::spawn_blocking(move || file.look()).await;
    }
}

fn read(path: &Path) -> Result<BTreeMap<DeviceId, Kept>, PasswordError> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).map_err(PasswordError::Read)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(PasswordError::Read)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(PasswordError::TooLarge);
    }
    read_file(&text).map_err(|(line, what)| PasswordError::Line { line, what })
}

#[cfg(test)]
mod tests {
    use whimbrel_api::passwords::SALT_BYTES;

    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    fn random(password: &str) -> String {
        Kept::of_random(password, [3; SALT_BYTES]).to_string()
    }

    #[test]
    fn the_file_is_read_again_when_it_changes_and_a_wrong_one_leaves_the_passwords_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.passwd");
        fs::write(&path, format!("m1:{}\n", random("one"))).unwrap();
        let file = PasswordFile::open(&path).unwrap();
        let accepts = |device, password| file.accepts(&id(device), Some(password));
        assert_eq!((accepts("m1", "one"), accepts("m2", "two")), (Some(true), None));
        // Another file in its place, as the command line does it, and the same file written over.
        let new = folder.path().join("new");
        fs::write(&new, format!("m2:{}\n", random("two"))).unwrap();
        fs::rename(&new, &path).unwrap();
        file.look();
        assert_eq!((accepts("m1", "one"), accepts("m2", "two")), (None, Some(true)));
        for wrong in ["m2:", "m1:sha256:", "\u{fffd}"] {
            fs::write(&path, wrong).unwrap();
            file.look();
            assert_eq!(accepts("m2", "two"), Some(true), "{wrong:?}");
        }
        fs::remove_file(&path).unwrap();
        file.look();
        assert_eq!(accepts("m2", "two"), Some(true), "the file is gone");
        fs::write(&path, format!("m3:{}\n", random("three"))).unwrap();
        file.look();
        assert_eq!((accepts("m2", "two"), accepts("m3", "three")), (None, Some(true)));
    }

    #[test]
    fn a_password_that_is_slow_to_check_is_checked_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.passwd");
        let chosen = |password| Kept::of_chosen(password, [3; SALT_BYTES]).to_string();
        fs::write(&path, format!("m1:{}\nm2:{}\n", chosen("correct horse"), random("one"))).unwrap();
        let file = PasswordFile::open(&path).unwrap();
        let (m1, m2) = (id("m1"), id("m2"));
        assert!(!file.is_slow(&m2, "one") && !file.is_slow(&id("m3"), "one"));
        for _ in 0..2 {
            assert!(file.is_slow(&m1, "battery staple"));
            assert_eq!(file.accepts(&m1, Some("battery staple")), Some(false));
        }
        assert!(file.is_slow(&m1, "correct horse"));
        assert_eq!(file.accepts(&m1, Some("correct horse")), Some(true));
        assert!(!file.is_slow(&m1, "correct horse"), "it is remembered");
        assert_eq!(file.accepts(&m1, Some("correct horse")), Some(true));
        // What was accepted counts only as long as the same stands in the file.
        fs::write(&path, format!("m1:{}\n", chosen("another one"))).unwrap();
        file.look();
        assert!(file.is_slow(&m1, "correct horse"));
        assert_eq!(file.accepts(&m1, Some("correct horse")), Some(false));
    }

    #[test]
    fn the_memory_of_checked_passwords_has_a_maximum() {
        let mut checked = Checked { key: [0; 32], recent: HashSet::new(), older: HashSet::new() };
        for number in 0..3 * CHECKED_MAX {
            checked.remember(Digest::of(&number.to_be_bytes()));
        }
        assert!(checked.recent.len() + checked.older.len() <= 2 * CHECKED_MAX);
        let last = Digest::of(&(3 * CHECKED_MAX - 1).to_be_bytes());
        assert!(checked.recent.contains(&last));
    }
}

//! Reads files up to a limit, and writes files so that no file is ever half-written.
//!
//! New bytes go to a file without a name and are flushed. The file gets its name only when all files that belong
//! together are complete. If the disk is full or the process is killed before that, the names are as they were, and
//! nothing is left behind. On file systems that have no files without a name, temporary ones stand beside the target
//! instead: `.whimbrel-` and six characters. After a kill these stay.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::NamedTempFile;
use thiserror::Error;

/// Why a file could not be read or written.
#[derive(Debug, Error)]
pub enum FileError {
    /// The operating system reported an error.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file with this name exists already and must not be overwritten.
    #[error("{} is there already: choose another name, or remove it first", .path.display())]
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// The file is larger than any file of its kind may be.
    #[error("{} has more than {limit} bytes, which is the most that {what} may have", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it should have been.
        what: &'static str,
        /// Most bytes.
        limit: u64,
    },
}

impl FileError {
    /// Wraps an error of the system.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// Reads the whole of `path`, which is `what` and has at most `limit` bytes.
///
/// # Errors
/// [`FileError::Io`], [`FileError::TooLarge`].
pub fn read(path: &Path, what: &'static str, limit: u64) -> Result<Vec<u8>, FileError> {
    let refused = |source| FileError::io("read", path, source);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(refused)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_path_buf(), what, limit });
    }
    Ok(bytes)
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Everybody whom the umask allows.
    Public,
    /// Its owner alone: mode 0600.
    Secret,
}

/// What to do if the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave the old file alone and refuse.
    Refuse,
    /// Put the new file in its place.
    Replace,
}

/// A file that is written piece by piece and gets its name when it is complete.
#[derive(Debug)]
pub struct NewFile {
    body: Body,
    path: PathBuf,
    existing: Existing,
}

#[derive(Debug)]
enum Body {
    /// A file without a name. It disappears when the process ends, however it ends.
    Nameless(File),
    Temporary(NamedTempFile),
}

/// What a temporary name begins with.
const TEMPORARY: &str = ".whimbrel-";
/// Where this process finds its open files by number, to give them names.
const OPEN_FILES: &str = "/proc/self/fd";

impl NewFile {
    /// Makes the file without its name, in the folder of `path`, which must exist.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Exists`] if the name is taken and must not be.
    pub fn create(path: &Path, secrecy: Secrecy, existing: Existing) -> Result<Self, FileError> {
        if existing == Existing::Refuse && path.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: path.to_path_buf() });
        }
        // The umask removes bits from this mode, as it does for every file.
        let mode = match secrecy {
            Secrecy::Public => 0o666,
            Secrecy::Secret => 0o600,
        };
        let body = match nameless(folder_of(path), mode) {
            Some(file) => Body::Nameless(file),
            None => tempfile::Builder::new()
                .prefix(TEMPORARY)
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(folder_of(path))
                .map(Body::Temporary)
                .map_err(|source| FileError::io("write", path, source))?,
        };
        Ok(Self { body, path: path.to_path_buf(), existing })
    }

    /// Makes the bytes written so far durable.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn flush(&mut self) -> Result<(), FileError> {
        self.file().sync_all().map_err(|source| FileError::io("write", &self.path, source))
    }

    /// Flushes, gives the file its name and makes that durable too.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn commit(mut self) -> Result<(), FileError> {
        self.flush()?;
        self.name(&mut Vec::new())
    }

    fn file(&mut self) -> &mut File {
        match &mut self.body {
            Body::Nameless(file) => file,
            Body::Temporary(file) => file.as_file_mut(),
        }
    }

    /// Gives the file its name. If no other file had the name before, adds it to `made`.
    fn name(self, made: &mut Vec<PathBuf>) -> Result<(), FileError> {
        let Self { body, path, existing } = self;
        let named = match (body, existing) {
            (Body::Nameless(file), Existing::Refuse) => link(&file, &path),
            (Body::Nameless(file), Existing::Replace) => tempfile::Builder::new()
                .prefix(TEMPORARY)
                .make_in(folder_of(&path), |temporary| link(&file, temporary))
                .and_then(|linked| linked.persist(&path).map_err(Into::into)),
            (Body::Temporary(file), Existing::Refuse) => {
                file.persist_noclobber(&path).map(drop).map_err(Into::into)
            }
            (Body::Temporary(file), Existing::Replace) => file.persist(&path).map(drop).map_err(Into::into),
        };
        match named {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(FileError::Exists { path });
            }
            Err(error) => return Err(FileError::io("write", &path, error)),
        }
        if existing == Existing::Refuse {
            made.push(path.clone());
        }
        flush_folder(folder_of(&path))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Makes a file without a name; `None` if the file system does not support that, or if `/proc` is missing,
/// which is needed to name it later.
fn nameless(folder: &Path, mode: u32) -> Option<File> {
    if !Path::new(OPEN_FILES).is_dir() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(mode)).ok().map(File::from)
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("{OPEN_FILES}/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Files that belong together and get their names together.
#[derive(Debug, Default)]
pub struct Staging {
    pending: Vec<NewFile>,
}

impl Staging {
    /// Starts with no file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes and flushes `bytes` as a file without its name in the folder of `path`, which must exist.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Exists`] if the name is taken and must not be.
    pub fn add(
        &mut self,
        path: &Path,
        bytes: &[u8],
        secrecy: Secrecy,
        existing: Existing,
    ) -> Result<(), FileError> {
        let mut file = NewFile::create(path, secrecy, existing)?;
        file.write_all(bytes).map_err(|source| FileError::io("write", path, source))?;
        NewFile::flush(&mut file)?;
        self.pending.push(file);
        Ok(())
    }

    /// Gives every file its name, in the order in which they were added, and makes the names durable.
    ///
    /// # Errors
    /// [`FileError`]; files that got a name of their own before the failure are removed again.
    pub fn commit(self) -> Result<(), FileError> {
        let mut made = Vec::new();
        let result = self.pending.into_iter().try_for_each(|file| file.name(&mut made));
        if result.is_err() {
            // A file that cannot be removed now is at least complete.
            made.iter().for_each(|path| drop(std::fs::remove_file(path)));
        }
        result
    }
}

/// Writes one file.
///
/// # Errors
/// As [`Staging::add`] and [`Staging::commit`].
pub fn write(path: &Path, bytes: &[u8], secrecy: Secrecy, existing: Existing) -> Result<(), FileError> {
    let mut staging = Staging::new();
    staging.add(path, bytes, secrecy, existing)?;
    staging.commit()
}

/// Makes the names in `folder` durable.
fn flush_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| FileError::io("flush the folder", folder, source))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A new folder that is removed again if it is not kept, because a later step may fail.
#[derive(Debug)]
pub struct NewFolder {
    path: PathBuf,
    made: bool,
}

impl NewFolder {
    /// Makes the folder, whose parent must exist, for its owner alone if `secrecy` says so, and makes its name
    /// durable. One that is there already is used as it is and never removed.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn create(path: &Path, secrecy: Secrecy) -> Result<Self, FileError> {
        let made = !path.is_dir();
        if made {
            // The umask removes bits from this mode. A secret folder is secret from the start, not only after
            // a chmod.
            let mode = match secrecy {
                Secrecy::Public => 0o777,
                Secrecy::Secret => 0o700,
            };
            DirBuilder::new()
                .mode(mode)
                .create(path)
                .map_err(|source| FileError::io("make the folder", path, source))?;
        }
        let folder = Self { path: path.to_path_buf(), made };
        if made {
            // If this fails, the folder is removed again.
            flush_folder(folder_of(path))?;
        }
        Ok(folder)
    }

    /// Keeps the folder.
    pub fn keep(mut self) {
        self.made = false;
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if self.made {
            // This removes the folder only if it is empty, which it is when the staged files are gone.
            drop(std::fs::remove_dir(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_get_their_names_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut staging = Staging::new();
        staging.add(&at("one"), b"1", Secrecy::Public, Existing::Refuse).unwrap();
        staging.add(&at("two"), b"2", Secrecy::Public, Existing::Refuse).unwrap();
        // Another process takes the second name before the commit.
        std::fs::write(at("two"), b"other").unwrap();
        assert!(matches!(staging.commit(), Err(FileError::Exists { path }) if path == at("two")));
        assert_eq!(names(folder.path()), ["two"]);
        assert_eq!(std::fs::read(at("two")).unwrap(), b"other");
    }

    #[test]
    fn what_is_dropped_before_it_is_committed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut staging = Staging::new();
        staging.add(&folder.path().join("one"), b"1", Secrecy::Public, Existing::Refuse).unwrap();
        drop(staging);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn a_file_has_no_name_before_it_is_whole_and_replaces_another_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        let mut file = NewFile::create(&path, Secrecy::Public, Existing::Refuse).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
        file.write_all(b" and half").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"half and half");
        assert!(matches!(
            NewFile::create(&path, Secrecy::Public, Existing::Refuse),
            Err(FileError::Exists { .. })
        ));
        let mut other = NewFile::create(&path, Secrecy::Public, Existing::Replace).unwrap();
        other.write_all(b"other").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"half and half");
        other.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert_eq!(names(folder.path()), ["one"]);
    }

    /// Writes as on a file system that has no files without a name.
    #[test]
    fn a_temporary_file_takes_its_name_in_the_same_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        for (existing, bytes) in [(Existing::Refuse, b"1"), (Existing::Replace, b"2")] {
            let mut body = NamedTempFile::new_in(folder.path()).unwrap();
            body.write_all(bytes).unwrap();
            NewFile { body: Body::Temporary(body), path: path.clone(), existing }.commit().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert_eq!(names(folder.path()), ["one"]);
        }
        let body = Body::Temporary(NamedTempFile::new_in(folder.path()).unwrap());
        let refused = NewFile { body, path: path.clone(), existing: Existing::Refuse }.commit();
        assert!(matches!(refused, Err(FileError::Exists { .. })));
        assert_eq!(names(folder.path()), ["one"]);
    }

    #[test]
    fn a_secret_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, b"s", Secrecy::Secret, Existing::Refuse).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0; 11]).unwrap();
        assert!(matches!(read(&path, "a key", 10), Err(FileError::TooLarge { limit: 10, .. })));
        assert_eq!(read(&path, "a key", 11).unwrap().len(), 11);
    }

    #[test]
    fn a_new_folder_goes_again_unless_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        drop(NewFolder::create(&path, Secrecy::Public).unwrap());
        assert!(!path.exists());
        NewFolder::create(&path, Secrecy::Secret).unwrap().keep();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(NewFolder::create(&path, Secrecy::Public).unwrap());
        assert!(path.is_dir());
    }
}

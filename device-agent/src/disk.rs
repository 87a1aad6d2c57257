//! A folder as a medium: one file an area, `pread`, `pwrite`, `fdatasync`.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, fadvise, fallocate, flock, fsync};
use thiserror::Error;
use whimbrel_protocol::disk::{Area, Disk, DiskError};

use crate::local_trust::{Folder, Untrusted, check_way};

/// An operation on a file of the data folder failed.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What was to be done: a verb.
    pub action: &'static str,
    /// Why it was not.
    #[source]
    pub source: io::Error,
}

/// Why a folder cannot be used as a medium.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Somebody else could change it, or what is in it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// A file did not do it.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process uses the folder.
    #[error("{} is used by another agent: stop it first", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
}

/// A folder with one file an area, locked for this process. Files have mode 0600.
#[derive(Debug)]
pub struct FileDisk {
    folder: PathBuf,
    /// Held open as long as the disk lives: the lock goes with it.
    _lock: File,
    /// The folder itself: names in it are opened from here, and made durable.
    opened: Folder,
    files: [Option<Open>; Area::ALL.len()],
    error: Option<FileError>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
}

/// The name of the lock file.
const LOCK: &str = "lock";
/// Bytes written at once if a file system cannot allocate.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl FileDisk {
    /// Opens `folder`, which is made (mode 0700) if it is missing, and locks it.
    ///
    /// # Errors
    /// [`FolderError::Locked`] if another process has it; [`FolderError::File`].
    pub fn open(folder: &Path) -> Result<Self, FolderError> {
        check_way(folder)?;
        make_folder(folder).map_err(file_error(folder, "make the folder"))?;
        let opened = Folder::open(folder)?;
        let path = folder.join(LOCK);
        let lock = opened.file(LOCK, OFlags::CREATE | OFlags::WRONLY)?;
        let lock = lock.ok_or_else(|| file_error(&path, "open")(io::ErrorKind::NotFound.into()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(FolderError::Locked { path: folder.to_path_buf() });
            }
            Err(error) => return Err(file_error(&path, "lock")(error.into()).into()),
        }
        let mut disk = Self {
            folder: folder.to_path_buf(),
            _lock: lock,
            opened,
            files: [const { None }; Area::ALL.len()],
            error: None,
        };
        for area in Area::ALL {
            disk.open_existing(area)?;
        }
        Ok(disk)
    }

    /// The name of an area's file.
    #[must_use]
    pub const fn name(area: Area) -> &'static str {
        match area {
            Area::SlotA => "slot-a.img",
            Area::SlotB => "slot-b.img",
            Area::Staging => "staging.bin",
            Area::Index => "index.bin",
            Area::Journal => "journal.bin",
            Area::Progress => "progress.bin",
            Area::Record => "record.bin",
            Area::Manifests => "manifests.bin",
            Area::BootEnvironment => "boot-environment.bin",
            Area::BootDefault => "boot-default.bin",
        }
    }

    /// The file of `area`.
    #[must_use]
    pub fn path(&self, area: Area) -> PathBuf {
        self.folder.join(Self::name(area))
    }

    /// The last error since this was called last, for people: a [`DiskError`] says no more than the area.
    pub fn take_error(&mut self) -> Option<FileError> {
        self.error.take()
    }

    fn open_existing(&mut self, area: Area) -> Result<(), FolderError> {
        let Some(file) = self.opened.file(Self::name(area), OFlags::RDWR)? else {
            return Ok(());
        };
        let path = self.path(area);
        let len = file.metadata().map_err(file_error(&path, "look at"))?.len();
        *self.slot(area) = Some(Open { file, len });
        Ok(())
    }

    fn slot(&mut self, area: Area) -> &mut Option<Open> {
        self.files.get_mut(area as usize).expect("one file an area")
    }

    fn len_of(&mut self, area: Area) -> u64 {
        self.slot(area).as_ref().map_or(0, |open| open.len)
    }

    /// Does something with the file of `area`, which exists, and remembers what goes wrong.
    fn with<T>(
        &mut self,
        area: Area,
        action: &'static str,
        what: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let result = match self.slot(area) {
            Some(open) => what(&open.file),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        result.map_err(|error| self.fail(area, action, error))
    }

    fn fail(&mut self, area: Area, action: &'static str, error: io::Error) -> DiskError {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        self.error = Some(file_error(&self.path(area), action)(error));
        if full { DiskError::full(area) } else { DiskError::failed(area) }
    }

    fn check_range(&mut self, area: Area, offset: u64, bytes: usize) -> Result<(), DiskError> {
        let (end, len) = (offset.saturating_add(bytes as u64), self.len_of(area));
        if end > len { Err(DiskError::range(area, len, end)) } else { Ok(()) }
    }

    fn create(&mut self, area: Area) -> Result<(), DiskError> {
        if self.slot(area).is_none() {
            let flags = OFlags::RDWR | OFlags::CREATE;
            let file = match self.opened.file(Self::name(area), flags) {
                Ok(Some(file)) => file,
                Ok(None) => return Err(self.fail(area, "make", io::ErrorKind::NotFound.into())),
                Err(Untrusted::Open { error, .. }) => return Err(self.fail(area, "make", error)),
                Err(error) => return Err(self.fail(area, "make", io::Error::other(error))),
            };
            *self.slot(area) = Some(Open { file, len: 0 });
        }
        Ok(())
    }
}

impl Disk for FileDisk {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        Ok(self.len_of(area))
    }

    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        let have = self.len_of(area);
        if have >= len && self.with(area, "look at", |file| is_allocated(file, len))? {
            return Ok(());
        }
        self.create(area)?;
        if let Err(error) = self.with(area, "make room in", |file| allocate(file, have, len)) {
            // An allocation that failed may have left a part of it behind.
            let told = self.error.take();
            let _ = self.release(area, have);
            self.error = told;
            return Err(error);
        }
        if let Some(open) = self.slot(area) {
            open.len = have.max(len);
        }
        self.with(area, "flush", File::sync_all)?;
        fsync(self.opened.descriptor()).map_err(|error| self.fail(area, "flush the folder of", error.into()))
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        if len == 0 {
            return match self.slot(area).take() {
                None => Ok(()),
                Some(_) => {
                    std::fs::remove_file(self.path(area)).map_err(|error| self.fail(area, "remove", error))
                }
            };
        }
        self.with(
            area,
            "shorten",
            |file| {
                if file.metadata()?.len() > len { file.set_len(len) } else { Ok(()) }
            },
        )?;
        if let Some(open) = self.slot(area) {
            open.len = open.len.min(len);
        }
        Ok(())
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check_range(area, offset, into.len())?;
        self.with(area, "read", |file| file.read_exact_at(into, offset))
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check_range(area, offset, bytes.len())?;
        self.with(area, "write", |file| file.write_all_at(bytes, offset))
    }

    fn flush(&mut self, area: Area) -> Result<(), DiskError> {
        self.with(area, "flush", File::sync_data)
    }

    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        self.with(area, "drop the cache of", |file| Ok(fadvise(file, 0, None, Advice::DontNeed)?))
    }
}

/// Makes `folder` if it is missing, and those above it, for the owner alone. What is made is durable: its name is
/// synced in the folder that holds it.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make_folder(folder_of(folder))?;
    match DirBuilder::new().mode(0o700).create(folder) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    sync_names(folder)
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the name of `path`, and every other one in its folder, durable.
pub(crate) fn sync_names(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Whether the first `len` bytes have their blocks, as far as the file system tells.
fn is_allocated(file: &File, len: u64) -> io::Result<bool> {
    Ok(file.metadata()?.blocks().saturating_mul(512) >= len)
}

/// Allocates `len` bytes; if the file system can't, writes zeros behind what is there.
fn allocate(file: &File, have: u64, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    write_zeros(file, have, len)
}

/// Writes zeros from `from` up to `end`.
fn write_zeros(file: &File, from: u64, end: u64) -> io::Result<()> {
    let mut at = from;
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file.write_all_at(ZEROS.get(..part).unwrap_or(&ZEROS), at)?;
        at += part as u64;
    }
    Ok(())
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError { path, action, source }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    /// For file systems that cannot allocate.
    #[test]
    fn zeros_are_written_behind_what_is_there_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for end in [3, 4, 5000, 64 * 1024 + 3, 64 * 1024 + 4, 150_000] {
            std::fs::write(&path, [7; 3]).unwrap();
            write_zeros(&OpenOptions::new().write(true).open(&path).unwrap(), 3, end).unwrap();
            let content = std::fs::read(&path).unwrap();
            assert_eq!(content.len() as u64, end);
            assert!(content.starts_with(&[7; 3]) && content.iter().skip(3).all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_path_without_a_folder_is_in_the_current_one() {
        for (path, folder) in [("data", "."), ("/data", "/"), ("var/data", "var"), ("/", ".")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder));
        }
    }
}

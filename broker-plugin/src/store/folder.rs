//! The data folder: its lock, and payloads as files.
//!
//! Each payload is two files, named after its index digest: the bytes that are transferred, and the index (the list
//! of page digests, then the pages). Both appear whole or not at all: they are written under another name, synced,
//! renamed, and the folder is synced.

use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use whimbrel_protocol::ids::Digest;

use super::StoreError;
use super::payloads::{PayloadPart, PayloadWriter, Payloads};

/// Keeps a second service out of the data folder while it lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the folder if there is none, readable by its owner only, and locks it.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Io`], [`StoreError::Full`].
    pub fn take(data: &Path) -> Result<Self, StoreError> {
        make_folder(data)?;
        let path = data.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| StoreError::io("open", &path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: data.to_owned() }),
            Err(error) => Err(StoreError::io("lock", &path, error.into())),
        }
    }
}

/// The files of the payloads.
#[derive(Clone, Debug)]
pub struct PayloadFolder {
    path: PathBuf,
}

/// How the name of an unfinished upload ends.
const UNFINISHED: &str = "part";

impl PayloadFolder {
    /// Opens the folder `payloads` in the data folder and removes uploads that were not finished.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let path = data.join("payloads");
        make_folder(&path)?;
        let fail = |error| StoreError::io("read", &path, error);
        for entry in fs::read_dir(&path).map_err(fail)? {
            let file = entry.map_err(fail)?.path();
            if file.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&file).map_err(|error| StoreError::io("remove", &file, error))?;
            }
        }
        Ok(Self { path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many payloads there are, whether or not the database knows of them.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn count(&self) -> Result<u64, StoreError> {
        let fail = |error| StoreError::io("read", &self.path, error);
        let mut payloads = 0;
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            let file = entry.map_err(fail)?.path();
            payloads += u64::from(file.extension().is_some_and(|extension| extension == "payload"));
        }
        Ok(payloads)
    }

    fn object_path(&self, index: &Digest, part: PayloadPart) -> PathBuf {
        let extension = match part {
            PayloadPart::Bytes => "payload",
            PayloadPart::Index => "index",
        };
        self.path.join(format!("{index}.{extension}"))
    }
}

impl Payloads for PayloadFolder {
    fn len(&self, index: &Digest, part: PayloadPart) -> u64 {
        fs::metadata(self.object_path(index, part)).map(|file| file.len()).unwrap_or(0)
    }

    fn read(&self, index: &Digest, part: PayloadPart, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(index, part);
        let fail = |error| StoreError::io("read", &path, error);
        let mut file = File::open(&path).map_err(fail)?;
        file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_exact(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }

    fn writer(&self, index: &Digest) -> Result<Box<dyn PayloadWriter>, StoreError> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let part = self.path.join(format!("{index}-{number}.{UNFINISHED}"));
        let file = create(&part)?;
        Ok(Box::new(FolderWriter { folder: self.clone(), index: *index, file, part }))
    }
}

/// A payload that is being written, under another name until it is complete.
#[derive(Debug)]
struct FolderWriter {
    folder: PayloadFolder,
    index: Digest,
    file: File,
    part: PathBuf,
}

/// Makes the names of concurrent uploads differ.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl PayloadWriter for FolderWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|error| StoreError::io("write", &self.part, error))
    }

    /// Both files are synced before they get their names, and the names are synced last.
    fn keep(self: Box<Self>, index: &[u8]) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| StoreError::io("sync", &self.part, error))?;
        let path = |part| self.folder.object_path(&self.index, part);
        let index_part = self.part.with_extension(format!("index.{UNFINISHED}"));
        let kept = write_whole(&index_part, index)
            .and_then(|()| rename(&index_part, &path(PayloadPart::Index)))
            .and_then(|()| rename(&self.part, &path(PayloadPart::Bytes)))
            .and_then(|()| sync_folder(self.folder.path()));
        if kept.is_err() {
            let _not_there = fs::remove_file(&index_part);
        }
        kept
    }
}

impl Drop for FolderWriter {
    fn drop(&mut self) {
        // Renamed by now if it was kept.
        let _not_there = fs::remove_file(&self.part);
    }
}

fn create(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| StoreError::io("make", path, error))
}

pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = create(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| StoreError::io("write", path, error))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| StoreError::io("rename", from, error))
}

/// Makes a folder if there is none, durably: each folder that is made is synced into the one above it.
fn make_folder(path: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StoreError::io("make the folder", path, error))?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync_folder)
}

/// Makes durable which names are in a folder.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    // The parent of a relative path of one part is written as nothing.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| StoreError::io("sync the folder", path, error))
}

#[cfg(test)]
mod tests;

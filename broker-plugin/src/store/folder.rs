//! The data folder: who uses it, and the files of complete payloads in it.
//!
//! A payload is two files named after its index digest: the bytes as transferred, and the index (the list of page
//! digests, then the pages). Both appear whole or not at all. What is read back is checked against the signed
//! index digest before it is served, so that a file that has rotted is never sent to anybody.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use whimbrel_protocol::chunk::{ChunkSalt, Layout, PageList};
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::limits::PAGE_DIGEST_BYTES;

use super::StoreError;
use super::rows::PayloadRow;

/// Keeps a second service out of the data folder while it lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the folder where there is none, readable by its owner only, and locks it.
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
pub(super) const UNFINISHED: &str = "part";

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

    pub(super) fn payload_path(&self, index: &Digest) -> PathBuf {
        self.path.join(format!("{index}.payload"))
    }

    pub(super) fn index_path(&self, index: &Digest) -> PathBuf {
        self.path.join(format!("{index}.index"))
    }

    /// Whether both files are there with the right lengths, and the list of page digests is the signed one.
    #[must_use]
    pub fn holds(&self, row: &PayloadRow) -> bool {
        let length = |path: &Path| fs::metadata(path).map(|file| file.len()).unwrap_or(0);
        let right_lengths = length(&self.payload_path(&row.index)) == row.layout.transfer_size()
            && length(&self.index_path(&row.index)) == index_len(&row.layout);
        right_lengths && self.list(row).is_ok_and(|list| list.is_some())
    }

    /// The list of page digests; `None` where the file does not hold the signed one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn list(&self, row: &PayloadRow) -> Result<Option<PageList>, StoreError> {
        let bytes = self.read(&self.index_path(&row.index), 0, list_len(&row.layout))?;
        Ok(PageList::verify(row.salt(), row.layout, &row.index, &bytes))
    }

    /// Page `number` of the index; `None` where the files do not hold the signed one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn page(&self, row: &PayloadRow, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(list) = self.list(row)? else { return Ok(None) };
        let bytes = self.page_bytes(row, number)?;
        Ok(list.verify_page(number, &bytes).map(|_| bytes))
    }

    fn page_bytes(&self, row: &PayloadRow, number: u32) -> Result<Vec<u8>, StoreError> {
        let before: u64 = (0..number).map(|page| row.layout.page_len(page) as u64).sum();
        let offset = list_len(&row.layout) + before;
        self.read(&self.index_path(&row.index), offset, row.layout.page_len(number) as u64)
    }

    /// The bytes of the chunks `first..first + count`, checked one by one; `None` where a chunk on the disk is not
    /// the signed one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn chunks(
        &self,
        row: &PayloadRow,
        first: ChunkIndex,
        count: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let range = row.layout.bytes_of(first, count);
        let bytes = self.read(&self.payload_path(&row.index), range.start, range.end - range.start)?;
        let Some(list) = self.list(row)? else { return Ok(None) };
        let chunk_bytes = usize::try_from(row.layout.chunk_size()).unwrap_or(usize::MAX);
        let mut page = None;
        for (number, chunk) in (first.0..).map(ChunkIndex).zip(bytes.chunks(chunk_bytes)) {
            let page_number = Layout::page_of(number);
            if page.as_ref().is_none_or(|(held, _)| *held != page_number) {
                let Some(verified) = list.verify_page(page_number, &self.page_bytes(row, page_number)?)
                else {
                    return Ok(None);
                };
                page = Some((page_number, verified));
            }
            let want = page.as_ref().and_then(|(_, page)| page.chunk_digest(number));
            if want != Some(&row.salt().chunk_digest(number, chunk)[..]) {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }

    fn read(&self, path: &Path, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let fail = |error| StoreError::io("read", path, error);
        let mut file = File::open(path).map_err(fail)?;
        file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_exact(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }
}

impl PayloadRow {
    /// What binds the payload's digests to its image.
    #[must_use]
    pub fn salt(&self) -> ChunkSalt {
        ChunkSalt { image: self.image, transfer_size: self.layout.transfer_size() }
    }
}

/// Bytes of the list of page digests.
fn list_len(layout: &Layout) -> u64 {
    u64::from(layout.page_count()) * PAGE_DIGEST_BYTES as u64
}

/// Bytes of an index file.
fn index_len(layout: &Layout) -> u64 {
    list_len(layout) + (0..layout.page_count()).map(|page| layout.page_len(page) as u64).sum::<u64>()
}

/// Makes a folder where there is none, durably: each folder that is made is synced into the one above it.
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

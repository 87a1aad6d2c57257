//! Why something was not stored or could not be read back.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the store did not do it. What was acknowledged before is not affected.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no room on the disk, or the account's quota is used up.
    #[error("{what} {path}: no room on the disk, free some and try again", path = .path.display())]
    Full {
        /// What was to be done.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database refused.
    #[error("cannot {what} the database {path}: {source}", path = .path.display())]
    Database {
        /// What was to be done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the database says.
        source: sqlx::Error,
    },
    /// The database was written by a later version.
    #[error("database {path} has format {found}, this version reads up to {known}: start the newer version", path = .path.display())]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The highest one that this version reads.
        known: i64,
    },
    /// A row is not what this service writes.
    #[error("table {table} of the database holds a bad {what}: restore it from a backup")]
    Row {
        /// Which table.
        table: &'static str,
        /// Which value.
        what: &'static str,
    },
    /// Another service uses the folder.
    #[error("{path} is in use by another whimbreld: stop that one, or give this one its own folder", path = .path.display())]
    InUse {
        /// The data folder.
        path: PathBuf,
    },
    /// The database's file was deleted or replaced while it was open.
    #[error("database {path} was deleted or replaced while the service used it: the service stops, because it would forget what it signs; put a copy of the database back before it starts again", path = .path.display())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether there was no room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// What the system says about a file.
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            Self::Full { what, path: path.to_owned() }
        } else {
            Self::Io { what, path: path.to_owned(), source }
        }
    }

    /// What the database says.
    pub(super) fn database(what: &'static str, path: &Path, source: sqlx::Error) -> Self {
        let full = source.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "13");
        if full || matches!(&source, sqlx::Error::Io(error) if is_full(error)) {
            Self::Full { what: "write to the database", path: path.to_owned() }
        } else {
            Self::Database { what, path: path.to_owned(), source }
        }
    }
}

/// A file that may not grow is full for us, whether the disk, a quota or a limit of the process says so.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

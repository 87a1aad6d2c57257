//! Secrets. Each stands in a file of its own, alone on one line; a setting has only the path of the file.

use core::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// Most bytes of a secret. Signed tokens that serve as passwords take a few thousand.
const SECRET_BYTES_MAX: usize = 8 * 1024;

/// A password or a token, which is never printed and is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Secret {
    text: Zeroizing<String>,
    mode: u32,
}

/// Why a file holds no secret that can be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file holds something else.
    #[error("{}: expected the secret on one line of its own, 1 to {SECRET_BYTES_MAX} bytes of UTF-8", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        Self::taken(path, |bytes| bytes)
    }

    /// Reads the first line of the file at `path`, whatever follows it.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn first_line(path: &Path) -> Result<Self, SecretError> {
        Self::taken(path, |bytes| bytes.split(|byte| *byte == b'\n').next().unwrap_or_default())
    }

    fn taken(path: &Path, part: fn(&[u8]) -> &[u8]) -> Result<Self, SecretError> {
        let fail = |error| SecretError::Read { path: path.to_owned(), error };
        let file = File::open(path).map_err(fail)?;
        let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
        // The buffer has enough room from the start. If it grew, a copy of the secret would be left behind in
        // memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 4));
        file.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut bytes).map_err(fail)?;
        let text = core::str::from_utf8(part(&bytes)).unwrap_or_default();
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if !(1..=SECRET_BYTES_MAX).contains(&text.len()) || text.contains(['\n', '\r', '\0']) {
            return Err(SecretError::Content { path: path.to_owned() });
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), mode })
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The mode of a file that others than its owner may read, which a program warns of.
    #[must_use]
    pub fn open_mode(&self) -> Option<u32> {
        (self.mode & 0o077 != 0).then_some(self.mode)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Secret, SecretError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        Secret::read(&path)
    }

    #[test]
    fn a_secret_is_the_one_line_of_its_file() {
        for bytes in [&b"key"[..], b"key\n", b"key\r\n"] {
            assert_eq!(read(bytes).unwrap().expose(), "key");
        }
        assert_eq!(read(b" a b \n").unwrap().expose(), " a b ");
        assert_eq!(read(&[b'x'; SECRET_BYTES_MAX]).unwrap().expose().len(), SECRET_BYTES_MAX);
        let long = [&[b'x'; SECRET_BYTES_MAX][..], b"x\n"].concat();
        for bytes in [&b""[..], b"\n", b"a\nb\n", b"a\0", b"\xff", &long] {
            assert!(matches!(read(bytes), Err(SecretError::Content { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn the_first_line_counts_where_more_may_follow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for text in ["key", "key\n", "key\r\nmore\n", "key\n\nmore"] {
            fs::write(&path, text).unwrap();
            assert_eq!(Secret::first_line(&path).unwrap().expose(), "key", "{text:?}");
        }
        fs::write(&path, "\nkey\n").unwrap();
        assert!(matches!(Secret::first_line(&path), Err(SecretError::Content { .. })));
    }

    #[test]
    fn a_secret_is_not_printed_and_says_who_may_read_it() {
        let secret = read(b"hush").unwrap();
        assert!(!format!("{secret:?}").contains("hush"));
        assert_eq!(secret.open_mode(), Some(0o640));
    }
}

//! The token that operators show.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use thiserror::Error;
use whimbrel_protocol::ids::Digest;

/// The token, as its digest: comparing digests takes a time that says nothing about the token.
pub struct AdminToken(Digest);

/// Why there is no token. The service does not start.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("cannot read the admin token {path}: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} holds no admin token: expected one line of 32 to 256 printable characters", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
    },
}

const TOKEN_BYTES_MIN: usize = 32;
const TOKEN_BYTES_MAX: usize = 256;

impl AdminToken {
    /// Reads the token from its file.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let mut text = String::new();
        let read = fs::File::open(path)
            .and_then(|file| file.take(TOKEN_BYTES_MAX as u64 + 2).read_to_string(&mut text));
        read.map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
        let token = text.trim_end();
        let right = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !right {
            return Err(TokenError::Content { path: path.to_owned() });
        }
        crate::signing::warn_if_open(path);
        Ok(Self(Digest::of(token.as_bytes())))
    }

    /// Whether a request shows the token: `Authorization: Bearer TOKEN`.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        shown.is_some_and(|token| Digest::of(token) == self.0)
    }
}

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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789ABCDEF-._~";

    fn load(content: &[u8]) -> Result<AdminToken, TokenError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.token");
        fs::write(&path, content).unwrap();
        AdminToken::load(&path)
    }

    fn token() -> AdminToken {
        load(format!("{TOKEN}\n").as_bytes()).unwrap()
    }

    /// Whether a request with this value of `Authorization` is let in.
    fn lets_in(token: &AdminToken, value: &str) -> bool {
        let value = HeaderValue::from_str(value).unwrap();
        token.is_in(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    #[test]
    fn the_token_of_the_file_is_let_in_and_a_request_without_one_is_not() {
        let token = token();
        assert!(lets_in(&token, &format!("Bearer {TOKEN}")));
        assert!(!token.is_in(&HeaderMap::new()));
    }

    #[test]
    fn every_shorter_prefix_of_the_token_is_refused_and_the_empty_one_too() {
        let token = token();
        for len in 0..TOKEN.len() {
            let prefix = &TOKEN[..len];
            assert!(!lets_in(&token, &format!("Bearer {prefix}")), "{prefix:?}");
        }
        assert!(!lets_in(&token, ""));
        assert!(!lets_in(&token, "Bearer"));
    }

    #[test]
    fn what_is_longer_than_the_token_or_only_ends_with_it_is_refused() {
        let token = token();
        let longer =
            [format!("{TOKEN}0"), format!("{TOKEN}{TOKEN}"), format!("{TOKEN} "), format!("{TOKEN},x")];
        let before = [format!("0{TOKEN}"), format!(" {TOKEN}"), TOKEN[1..].to_owned()];
        for shown in longer.iter().chain(&before) {
            assert!(!lets_in(&token, &format!("Bearer {shown}")), "{shown:?}");
        }
    }

    #[test]
    fn a_token_that_differs_in_any_one_byte_is_refused() {
        let token = token();
        for at in 0..TOKEN.len() {
            let mut shown = TOKEN.as_bytes().to_vec();
            shown[at] ^= 2;
            let shown = String::from_utf8(shown).unwrap();
            assert!(!lets_in(&token, &format!("Bearer {shown}")), "byte {at}");
        }
        assert!(!lets_in(&token, &format!("Bearer {}", TOKEN.to_ascii_lowercase())));
    }

    #[test]
    fn the_token_counts_as_a_bearer_token_only() {
        let token = token();
        for scheme in ["", "Basic ", "Token ", "Bearer", "bearer\t"] {
            assert!(!lets_in(&token, &format!("{scheme}{TOKEN}")), "{scheme:?}");
        }
    }

    #[test]
    fn a_token_file_holds_one_line_of_32_to_256_printable_characters() {
        for len in [32, 33, 256] {
            let token = load(&vec![b'x'; len]).unwrap();
            assert!(lets_in(&token, &format!("Bearer {}", "x".repeat(len))), "{len}");
        }
        let inner = |byte: &str| format!("{}{byte}{}", "x".repeat(32), "x".repeat(32));
        for bad in
            [String::new(), "x".repeat(31), "x".repeat(257), inner("\n"), inner(" "), inner("é"), inner("\0")]
        {
            assert!(matches!(load(bad.as_bytes()), Err(TokenError::Content { .. })), "{bad:?}");
        }
        assert!(load(&[0xff; 64]).is_err(), "it is not text");
    }
}

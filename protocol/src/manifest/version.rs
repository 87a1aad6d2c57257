//! Versions, as people write them and as a manifest carries them.
//!
//! `1.4.2-rc.3` is `[1, 4, 2, -1, 3]`: a pre-release is a negative integer, so that it sorts before the release
//! (draft-ietf-suit-update-management: -1 release candidate, -2 beta, -3 alpha).

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use thiserror::Error;

/// Why a text is no version.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{text}` is not a version: write X.Y.Z in numbers, with -rc.N, -beta.N or -alpha.N for a pre-release; a revision \
     becomes the third number (2026.11-r3 is 2026.11.3), and the name of a build (+git1) goes into --description"
)]
pub struct VersionError {
    /// What was written.
    pub text: String,
}

const PRE_RELEASES: [(&str, i64); 3] = [("rc", -1), ("beta", -2), ("alpha", -3)];

/// Reads `X.Y.Z`, perhaps followed by `-rc.N`, `-beta.N` or `-alpha.N`. Numbers have at most 9 digits and no
/// leading zero.
///
/// # Errors
/// [`VersionError`].
pub fn parse_version(text: &str) -> Result<Vec<i64>, VersionError> {
    parts(text).ok_or_else(|| VersionError { text: text.into() })
}

fn parts(text: &str) -> Option<Vec<i64>> {
    let (release, pre_release) = match text.split_once('-') {
        Some((release, pre_release)) => (release, Some(pre_release)),
        None => (text, None),
    };
    let mut version = release.split('.').map(number).collect::<Option<Vec<_>>>()?;
    if version.len() != 3 {
        return None;
    }
    if let Some(pre_release) = pre_release {
        let (name, count) = pre_release.split_once('.')?;
        let (_, mark) = PRE_RELEASES.iter().find(|(known, _)| *known == name)?;
        version.extend([*mark, number(count)?]);
    }
    Some(version)
}

fn number(text: &str) -> Option<i64> {
    let right = (1..=9).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if right { text.parse().ok() } else { None }
}

/// The version as people write it, for any integers that a manifest may carry.
#[must_use]
pub fn version_text(version: &[i64]) -> String {
    let mut text = String::new();
    for part in version {
        let pre_release = PRE_RELEASES.iter().find(|(_, mark)| mark == part);
        if !text.is_empty() {
            text.push(if pre_release.is_some() { '-' } else { '.' });
        }
        match pre_release {
            Some((name, _)) => text.push_str(name),
            None => text.push_str(&part.to_string()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn versions_read_back_as_they_are_written() {
        for (text, version) in [
            ("1.4.2", vec![1, 4, 2]),
            ("0.0.0", vec![0, 0, 0]),
            ("1.2.3-alpha.4", vec![1, 2, 3, -3, 4]),
            ("1.2.3-beta.0", vec![1, 2, 3, -2, 0]),
            ("10.20.999999999-rc.1", vec![10, 20, 999_999_999, -1, 1]),
        ] {
            assert_eq!(parse_version(text), Ok(version.clone()));
            assert_eq!(version_text(&version), text);
        }
        assert_eq!(version_text(&[7]), "7");
        assert_eq!(version_text(&[2026, 1, 2, 3, 4]), "2026.1.2.3.4");
        assert_eq!(version_text(&[1, -3]), "1-alpha");
        assert_eq!((version_text(&[]), version_text(&[-1, 2])), (String::new(), "rc.2".to_string()));
    }

    #[test]
    fn other_texts_are_no_versions() {
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "1.2.x",
            "v1.2.3",
            "1.2.3-",
            "1.2.3-rc",
            "1.2.3-rc.",
            "1.2.3-dev.1",
            "1.2.3-rc.1.2",
            "01.2.3",
            "1.2.3-rc.01",
            "1.2.1000000000",
            "-1.2.3",
            "1.2.3+build",
        ] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }
}

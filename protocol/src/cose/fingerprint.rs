//! What people compare before they trust a key.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

use super::PublicKey;

/// The first 8 bytes of a key's thumbprint (RFC 9679), written `xxxx-xxxx-xxxx-xxxx` in hexadecimal.
///
/// It is short enough to read to somebody over the phone. To find a second key with the same fingerprint, one
/// has to try 2^64 keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 8]);

/// Why a text is not a fingerprint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a fingerprint is 16 hexadecimal digits, as in 9f1c-02aa-7d3e-51b0, with the hyphens or without")]
pub struct FingerprintError;

impl PublicKey {
    /// The key's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.thumbprint().short().0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i] = self.0;
        write!(f, "{a:02x}{b:02x}-{c:02x}{d:02x}-{e:02x}{g:02x}-{h:02x}{i:02x}")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads a fingerprint with its hyphens or without, in small or capital letters.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (groups, digits) = if text.contains('-') { (4, 4) } else { (1, 16) };
        let is_group =
            |group: &str| group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.split('-').count() != groups || !text.split('-').all(is_group) {
            return Err(FingerprintError);
        }
        let value = text.split('-').try_fold(0, |value: u64, group| {
            let group = u64::from_str_radix(group, 16).map_err(|_| FingerprintError)?;
            Ok(value << 16 | group)
        })?;
        Ok(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;
    use crate::cose::SigningKey;

    #[test]
    fn a_fingerprint_reads_back_and_begins_the_thumbprint() {
        let key = SigningKey::ed25519(&[7; 32]).public();
        let text = key.fingerprint().to_string();
        assert_eq!(text.replace('-', ""), key.thumbprint().to_hex()[..16]);
        assert_eq!(text.parse(), Ok(key.fingerprint()));
        for spelled in [text.to_uppercase(), text.replace('-', ""), text.replace('-', "").to_uppercase()] {
            assert_eq!(spelled.parse(), Ok(key.fingerprint()), "{spelled}");
        }
    }

    #[test]
    fn other_texts_are_no_fingerprints() {
        for text in [
            "",
            "0123",
            "0123-4567-89ab",
            "0123-4567-89ab-cdef-0",
            "0123-4567-89ab-cde",
            "0123-4567-89ab-cdeg",
            "+123-4567-89ab-cdef",
            "0123456789abcde",
            "0123456789abcdef0",
            "+123456789abcdef",
            "01234567-89abcdef",
            "012-34567-89ab-cdef",
            "0123-4567-89ab-cdef-",
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }
}

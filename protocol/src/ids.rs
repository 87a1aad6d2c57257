//! Identifiers. Each is a type of its own, so that one can't be passed in place of another.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::limits::{DEVICE_ID_MAX, DEVICE_ID_MIN, GROUP_NAME_MAX, PREFIX_MAX};

/// Why a text is not a name of its kind.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{what} must have {min} to {max} of the characters A-Z a-z 0-9 _ -")]
pub struct NameError {
    /// Which kind of name.
    pub what: &'static str,
    /// Fewest characters.
    pub min: usize,
    /// Most characters.
    pub max: usize,
}

fn check(what: &'static str, text: &str, min: usize, max: usize) -> Result<Box<str>, NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (min..=max).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(Box::from(text))
    } else {
        Err(NameError { what, min, max })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $min:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the characters and the length.
            ///
            /// # Errors
            /// [`NameError`] says what is allowed.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($what, text, $min, $max).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name! {
    /// The identity of a device, as its broker proves it: `[A-Za-z0-9_-]{2,64}` (SPEC section 2.1).
    DeviceId, "a device id", DEVICE_ID_MIN, DEVICE_ID_MAX
}
name! {
    /// The name of a device group: `[A-Za-z0-9_-]{1,32}`.
    GroupName, "a group name", 1, GROUP_NAME_MAX
}
name! {
    /// The first level of every topic, `ota` by default: `[A-Za-z0-9_-]{1,16}`.
    Prefix, "a topic prefix", 1, PREFIX_MAX
}

impl Default for Prefix {
    fn default() -> Self {
        Self(Box::from("ota"))
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 8 bytes, for messages that point at a digest which both sides know.
    #[must_use]
    pub fn short(&self) -> ShortDigest {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        ShortDigest([a, b, c, d, e, f, g, h])
    }

    /// Lower-case hexadecimal.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex_of(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

macro_rules! fixed_id {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// Lower-case hexadecimal.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex_of(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }
    };
}

fixed_id! {
    /// The first 8 bytes of a [`Digest`]. It points at one of the things that both sides have, and proves
    /// nothing.
    ShortDigest, 8
}
fixed_id! {
    /// A campaign, chosen at random by the service.
    CampaignId, 8
}
fixed_id! {
    /// A hint which key signed: the first 4 bytes of the key's thumbprint (RFC 9679).
    KeyId, 4
}
fixed_id! {
    /// The class of hardware that a release is for: UUIDv5 of the vendor's id and the class name
    /// (draft-ietf-suit-manifest section 8.4.8.4).
    ClassId, 16
}
fixed_id! {
    /// The first 4 bytes of a [`ClassId`]: enough to notice that a device is of another class than was thought.
    ClassTag, 4
}
fixed_id! {
    /// The maker of a device: UUIDv5 of the vendor's domain in the DNS name space.
    VendorId, 16
}
fixed_id! {
    /// A payload's short name in requests: the first 4 bytes of its index digest.
    PayloadTag, 4
}
fixed_id! {
    /// A number used once, in `hello`.
    Nonce, 8
}
fixed_id! {
    /// What a hello answer repeats of the hello: see [`Nonce::echo`].
    Echo, 8
}

impl Nonce {
    /// What the answer to a hello of `device` with this nonce has to repeat: the first 8 bytes of SHA-256 of the nonce
    /// and the device's id. So an answer to another device counts for nothing, and the id need not travel.
    #[must_use]
    pub fn echo(&self, device: &DeviceId) -> Echo {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(device.as_str().as_bytes());
        Echo(Digest::of(&bytes).short().0)
    }
}

/// Most bytes of a domain (RFC 1035 section 2.3.4).
const DOMAIN_BYTES_MAX: usize = 253;
/// Most bytes of one of its labels.
const LABEL_BYTES_MAX: usize = 63;
/// Most characters of a class name.
const CLASS_NAME_MAX: usize = 64;

impl VendorId {
    /// The vendor that `text` names: by its domain, or by its id in 32 hexadecimal digits. `None` for any other text.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        hex_id(text).map(Self).or_else(|| Self::is_domain(text).then(|| Self::from_domain(text)))
    }

    /// Whether `text` is a domain of at least two labels in lower case, as it has to be for all to get the same id.
    #[must_use]
    pub fn is_domain(text: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let label = |label: &str| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(allowed)
        };
        text.len() <= DOMAIN_BYTES_MAX && text.contains('.') && text.split('.').all(label)
    }

    /// The id of the vendor that owns `domain` (RFC 9562 section 5.5, name space DNS).
    #[must_use]
    pub fn from_domain(domain: &str) -> Self {
        Self(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, domain.as_bytes()).into_bytes())
    }
}

impl ClassId {
    /// The class that `text` names: by what `vendor` calls it, or by its id in 32 hexadecimal digits. `None` for any
    /// other text.
    #[must_use]
    pub fn named(vendor: VendorId, text: &str) -> Option<Self> {
        hex_id(text).map(Self).or_else(|| Self::is_name(text).then(|| Self::from_name(vendor, text)))
    }

    /// Whether `text` can be the name of a class: 1 to 64 visible characters, with spaces between them only.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let visible = |c: char| !c.is_control() && !c.is_whitespace() || c == ' ';
        text.trim() == text
            && (1..=CLASS_NAME_MAX).contains(&text.chars().count())
            && text.chars().all(visible)
    }

    /// The first 4 bytes.
    #[must_use]
    pub const fn tag(&self) -> ClassTag {
        let [a, b, c, d, ..] = self.0;
        ClassTag([a, b, c, d])
    }

    /// The id of the class that `vendor` calls `name`.
    #[must_use]
    pub fn from_name(vendor: VendorId, name: &str) -> Self {
        Self(uuid::Uuid::new_v5(&uuid::Uuid::from_bytes(vendor.0), name.as_bytes()).into_bytes())
    }
}

/// The number of a chunk in its payload, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u32);

/// Pairs an effect that a session asks for with the input that reports its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

fn hex_id(text: &str) -> Option<[u8; 16]> {
    // A sign is no digit.
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| digits).map(u128::to_be_bytes)
}

pub(crate) fn hex_of(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_characters_and_lengths() {
        assert!(DeviceId::new("meter-17_B").is_ok());
        for bad in ["", "a", "a/b", "a+b", "a#", "a b", "é1", "x".repeat(65).as_str()] {
            assert!(DeviceId::new(bad).is_err(), "{bad}");
        }
        assert!(GroupName::new("x").is_ok());
        assert!(GroupName::new(&"x".repeat(33)).is_err());
    }

    #[test]
    fn a_vendor_is_named_by_a_domain_in_lower_case_or_by_its_id() {
        let hex = "000102030405060708090a0b0c0d0e0F";
        assert_eq!(VendorId::named(hex).unwrap().to_hex(), hex.to_lowercase());
        for domain in ["example.com", "a-b.example.co.uk", "x1.y2", &("x".repeat(63) + ".com")] {
            assert_eq!(VendorId::named(domain), Some(VendorId::from_domain(domain)), "{domain}");
        }
        let long = "x.".repeat(127) + "com";
        let label = "x".repeat(64) + ".com";
        for bad in [
            "",
            "example",
            "Example.com",
            "a..b",
            ".com",
            "com.",
            "-a.com",
            "a-.com",
            "a_b.com",
            "a b.com",
            &long,
            &label,
        ] {
            assert_eq!(VendorId::named(bad), None, "{bad}");
        }
        for bad in [&hex[1..], "+00102030405060708090a0b0c0d0e0f", "g00102030405060708090a0b0c0d0e0f"] {
            assert_eq!(VendorId::named(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_class_is_named_by_visible_characters_or_by_its_id() {
        let vendor = VendorId::from_domain("example.com");
        let hex = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(ClassId::named(vendor, hex).unwrap().to_hex(), hex);
        for name in ["gateway", "Zähler 2 (NB-IoT)", &"é".repeat(64), &hex[1..]] {
            assert_eq!(ClassId::named(vendor, name), Some(ClassId::from_name(vendor, name)), "{name}");
        }
        for bad in ["", " gateway", "gateway ", "a\tb", "a\u{a0}b", "a\u{7f}", &"é".repeat(65)] {
            assert_eq!(ClassId::named(vendor, bad), None, "{bad}");
        }
    }

    /// RFC 9562 appendix A.4 prints this one.
    #[test]
    fn vendor_ids_are_version_5_uuids_of_the_domain() {
        let id = VendorId::from_domain("www.example.com");
        assert_eq!(id.to_hex(), "2ed6657de927568b95e12665a8aea6a2");
        assert_eq!(ClassId::from_name(id, "meter").0[6] >> 4, 5);
    }
}

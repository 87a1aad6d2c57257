//! What a signed object of ours is.

use crate::version::{PROTOCOL_VERSION, head_byte};

/// The kinds of objects that we sign (SPEC section 4.2). SUIT envelopes are none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The keys and their roles; signed by root keys.
    Root = 1,
    /// A release for a group; signed by a campaign key.
    Campaign = 2,
    /// Groups, and perhaps a release, of one device; signed by a campaign key.
    Assignment = 3,
    /// What is current, for all; signed by a beacon key.
    Beacon = 4,
    /// The answer to one hello; signed by a beacon key.
    Answer = 5,
    /// What became of a deployment; signed by the device.
    Report = 6,
    /// A device's key and class; signed by that key.
    Enrolment = 7,
}

/// CoAP content formats 65000 to 65535 are reserved for experimental use (RFC 7252 section 12.3).
const CONTENT_TYPE_BASE: u16 = 0xfe00;

impl Kind {
    /// The value of COSE header 3 (content type): `0xfe00` plus version and kind.
    #[must_use]
    pub fn content_type(self) -> u16 {
        CONTENT_TYPE_BASE | u16::from(head_byte(PROTOCOL_VERSION, self as u8))
    }

    /// The external data that is signed with the object: `"whimbrel"`, then version and kind.
    #[must_use]
    pub fn external_aad(self) -> [u8; 9] {
        let [a, b, c, d, e, f, g, h] = *b"whimbrel";
        [a, b, c, d, e, f, g, h, head_byte(PROTOCOL_VERSION, self as u8)]
    }

    /// The kind that a content type names, where this version knows it.
    #[must_use]
    pub fn from_content_type(content_type: u16) -> Option<Self> {
        [
            Self::Root,
            Self::Campaign,
            Self::Assignment,
            Self::Beacon,
            Self::Answer,
            Self::Report,
            Self::Enrolment,
        ]
        .into_iter()
        .find(|kind| kind.content_type() == content_type)
    }
}

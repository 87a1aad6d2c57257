//! The kinds of objects that we sign.

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

impl Kind {
    /// The value of our header in the protected bucket: version in the high nibble, kind in the low one.
    #[must_use]
    pub const fn number(self) -> u8 {
        head_byte(PROTOCOL_VERSION, self as u8)
    }

    /// The external data that is signed with the object: `"whimbrel"`, then version and kind.
    #[must_use]
    pub fn external_aad(self) -> [u8; 9] {
        let [a, b, c, d, e, f, g, h] = *b"whimbrel";
        [a, b, c, d, e, f, g, h, self.number()]
    }

    /// Whether devices sign it. What they sign has an empty unprotected header: the service counts each such object
    /// once, and a header that no signature covers would make many objects of one.
    #[must_use]
    pub const fn is_by_device(self) -> bool {
        matches!(self, Self::Report | Self::Enrolment)
    }

    /// The kind that a header value names, if this version knows it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
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
        .find(|kind| kind.number() == number)
    }
}

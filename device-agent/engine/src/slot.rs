//! The slots, in which images live, and what is known of an image.

use whimbrel_protocol::disk::Area;
use whimbrel_protocol::envelope::{Envelope, Verified};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::{Identity, Interpreter, Procedure, Step};

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// 0 or 1, as manifests count.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// The slot with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::A),
            1 => Some(Self::B),
            _ => None,
        }
    }

    /// Where it is on the medium.
    #[must_use]
    pub const fn area(self) -> Area {
        match self {
            Self::A => Area::SlotA,
            Self::B => Area::SlotB,
        }
    }
}

/// What a verified manifest says of the image in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// The release: digest of the manifest.
    pub release: Digest,
    /// Its sequence number.
    pub sequence: u64,
    /// SHA-256 of the image.
    pub image: Digest,
    /// Bytes of the image.
    pub image_size: u64,
}

impl SlotFacts {
    /// What `envelope` says of the image for `slot` of a device of this maker and class; `None` if it is
    /// for other devices or names no image.
    #[must_use]
    pub fn of(envelope: &Envelope<Verified>, vendor: VendorId, class: ClassId, slot: Slot) -> Option<Self> {
        let identity = Identity { vendor, class, target_slot: u64::from(slot.number()) };
        let mut run = Interpreter::new(envelope, &identity, Procedure::Invoke).ok()?;
        let Ok(Step::ImageMatch { digest, size, negate: false, .. }) = run.step() else {
            return None;
        };
        Some(Self {
            release: envelope.digest(),
            sequence: envelope.manifest().sequence_number(),
            image: digest,
            image_size: size,
        })
    }
}

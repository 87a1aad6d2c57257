//! What goes into a [`Campaign`](super::Campaign) and what comes out.

use bytes::Bytes;
use whimbrel_protocol::ids::{DeviceId, ShortDigest};
use whimbrel_protocol::message::{self, Report, Status};

use crate::store::DeploymentRow;

/// Something happened outside. Feeding it never fails.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A report was verified and stored; it was not known before.
    Reported {
        /// Whose.
        device: &'a DeviceId,
        /// What it says.
        report: &'a Report,
    },
    /// A device says how far it is. Unsigned.
    Told {
        /// Which.
        device: &'a DeviceId,
        /// What it says.
        status: &'a Status,
    },
    /// A device asked for something of the release. Unsigned.
    Asked {
        /// Which.
        device: &'a DeviceId,
        /// For what.
        ask: Ask,
    },
    /// The campaign's next document is signed and stored.
    InForce {
        /// What it says.
        document: Box<message::Campaign>,
        /// As signed.
        signed: Bytes,
    },
    /// Another campaign of the group has taken this one's place.
    Replaced,
}

/// What a device asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The manifest.
    Manifest,
    /// Chunks.
    Chunks {
        /// Of which payload: the first bytes of its index digest.
        payload: ShortDigest,
        /// All chunks before this one have been asked for, or are held.
        before: u32,
        /// Chunks of the payload.
        of: u32,
    },
}

/// What an operator can do about a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Call it off.
    Abort,
    /// Let devices try again that failed.
    Retry,
}

/// An effect to carry out, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A device entered another state: worth storing.
    Save {
        /// Its row.
        row: DeploymentRow,
        /// The row says by which payload the image comes. Only the service knows that, and the device may have all of
        /// the payload a moment later and never ask again: the row must not wait to be stored.
        at_once: bool,
    },
    /// Something worth telling.
    Event(Event),
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A report was counted.
    Counted {
        /// Whose.
        device: DeviceId,
        /// What it said.
        outcome: message::Outcome,
        /// Why, in a word; none if all is well.
        failure: Option<message::FailureCode>,
        /// The deployment ended because a health check or a hook said this; empty if none said anything.
        said: String,
    },
    /// A report, or an unsigned word, was not counted.
    Ignored {
        /// Whose.
        device: DeviceId,
        /// Why.
        why: Ignored,
    },
}

/// Why something that a device said was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is about an attempt that was never ordered.
    UnknownAttempt,
    /// More is known already.
    Stale,
}

//! Inputs and outputs of a [`ServerSession`](super::ServerSession).

use alloc::vec::Vec;

use crate::chunk::Layout;
use crate::codec::DecodeError;
use crate::cose::{PublicKey, SignatureError};
use crate::ids::{ChunkIndex, ClassTag, Digest, GroupName, PayloadTag, ShortDigest};
use crate::message::{Enrolment, HelloAnswer, PageNumber, Refusal, Report, Request, Status};
use crate::topic::Channel;

/// What the service knows of a device at this moment.
#[derive(Clone, Debug)]
pub struct DeviceView<'a> {
    /// Whether it is enrolled.
    pub standing: Standing<'a>,
    /// Version of the current root.
    pub root_version: u64,
    /// Its assignment.
    pub assignment: Option<Document>,
    /// The campaigns of its groups.
    pub campaigns: &'a [GroupDocument],
    /// The release that it should run.
    pub live: Option<Live<'a>>,
}

/// Whether a device is enrolled.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// Nothing is known of it.
    Unknown,
    /// It waits to be accepted.
    Pending,
    /// It is served.
    Accepted {
        /// The key that its reports are signed with.
        key: &'a PublicKey,
    },
}

/// A signed document: its version. The host holds the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    /// The version.
    pub version: u64,
}

/// The campaign of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDocument {
    /// The group.
    pub group: GroupName,
    /// Its campaign document.
    pub document: Document,
}

/// The release that a device should run.
#[derive(Clone, Debug)]
pub struct Live<'a> {
    /// The digest of its manifest.
    pub release: Digest,
    /// The payloads that its manifest names.
    pub payloads: &'a [LivePayload],
}

/// A payload that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivePayload {
    /// Its short name.
    pub tag: PayloadTag,
    /// How it is cut.
    pub layout: Layout,
}

/// Something that happened outside. A session accepts every input.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A message arrived on the device's requests channel: what it asks for, or why it cannot be read.
    Request(Result<Request, DecodeError>),
    /// A message arrived on the device's reports channel; its signature is not verified.
    Signed(&'a [u8]),
    /// A message arrived on a channel that devices don't send on.
    WrongChannel,
    /// A report of this device is stored durably.
    ReportStored {
        /// Its digest.
        report: ShortDigest,
    },
    /// The time of [`ServerSession::poll_timeout`](super::ServerSession::poll_timeout) has come.
    Timeout,
}

impl<'a> Input<'a> {
    /// The input for a message that arrived on `channel`. A request is decoded here and nowhere else, so that a
    /// host that looks at it first, for example to bound what a device costs, sees what the session will see.
    #[must_use]
    pub fn message(channel: &Channel, payload: &'a [u8]) -> Self {
        match channel {
            Channel::Requests => Self::Request(Request::decode(payload)),
            Channel::Reports => Self::Signed(payload),
            Channel::Answers | Channel::Assignment | Channel::Group(_) | Channel::Beacon => {
                Self::WrongChannel
            }
        }
    }
}

/// An effect to carry out, in the order given. Everything goes to the device's answers channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Sign this with a beacon key and send it.
    Answer(HelloAnswer),
    /// Send the device's assignment.
    Assignment,
    /// Send the campaign of this group.
    Campaign(GroupName),
    /// Send the envelope of this release.
    Manifest(Digest),
    /// Send these chunks, one message for each run, if admission (SPEC section 9.4) allows it; otherwise
    /// refuse, and say so with [`ServerSession::not_sent`](super::ServerSession::not_sent).
    Chunks {
        /// The short name of their payload, which the messages carry.
        payload: PayloadTag,
        /// The place of their payload in [`Live::payloads`], for a host that keeps its own data beside it.
        position: usize,
        /// First chunk and count of each message.
        runs: Vec<(ChunkIndex, u32)>,
        /// Payload bytes in all.
        bytes: u64,
    },
    /// Send this index page.
    Page {
        /// The short name of its payload, which the message carries.
        payload: PayloadTag,
        /// The place of its payload in [`Live::payloads`], for a host that keeps its own data beside it.
        position: usize,
        /// Which.
        page: PageNumber,
    },
    /// Send this refusal.
    Refuse(Refusal),
    /// Something worth telling or storing.
    Event(Event),
}

/// Something worth telling or storing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The device said hello.
    Hello {
        /// Its hardware.
        class: ClassTag,
        /// Digest of its running image, shortened.
        running: ShortDigest,
        /// Sequence number of its running release.
        sequence: u64,
        /// Version of the assignment that it holds; 0 for none.
        assignment: u64,
        /// Highest version of the campaign documents that it holds; 0 for none.
        campaign: u64,
    },
    /// The device says how far it is. Unsigned.
    Progress {
        /// What it says.
        status: Status,
    },
    /// A device introduces itself; its signature is verified with the key that it brings.
    Enrolled {
        /// What it says.
        enrolment: Enrolment,
    },
    /// A verified report: store it, then feed [`Input::ReportStored`].
    Reported {
        /// What it says.
        report: Report,
        /// Its digest.
        digest: ShortDigest,
        /// The report as signed.
        signed: Vec<u8>,
    },
    /// A message was not acted on, and why.
    Rejected {
        /// Whose fault and what.
        reason: Reason,
    },
}

/// Why a message was not acted on, sorted by blame (SPEC section 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a well-formed message.
    Malformed(DecodeError),
    /// Not signed by the device's key.
    Unauthentic(SignatureError),
    /// Signed for another device.
    WrongScope,
    /// A report of a device that is not accepted.
    NotAccepted,
    /// A message that does not belong on this channel.
    WrongChannel,
    /// More questions than a device may ask.
    TooOften,
    /// Chunks or pages that the payload does not have.
    OutOfRange,
    /// A payload or release that is not the device's.
    NotLive,
    /// More of a payload than a day's quota.
    OverQuota,
}

impl Reason {
    /// The name that counters and logs use; stable.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unauthentic(_) | Self::WrongScope | Self::NotAccepted => "unauthentic",
            Self::WrongChannel | Self::OutOfRange | Self::NotLive => "misbehaved",
            Self::TooOften | Self::OverQuota => "too-often",
        }
    }
}

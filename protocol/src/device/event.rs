//! What a session tells people and counters: events, and why a message was not acted on.

use super::io::StoreFailure;
use crate::codec::DecodeError;
use crate::cose::SignatureError;
use crate::envelope::VerifyError;
use crate::ids::{CampaignId, ChunkIndex, KeyId, PayloadTag, ShortDigest};
use crate::message::{DeferReason, FailureCode, Outcome, PageNumber, RefusalCode, State};
use crate::time::UnixTime;
use crate::topic::Channel;

/// Something that people or counters may want to know. The session never logs; its host does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deployment entered another state.
    StateChanged {
        /// The state.
        state: State,
        /// While deferred: for what.
        deferred: Option<DeferReason>,
        /// After a failure: why.
        failure: Option<FailureCode>,
    },
    /// A message was not acted on, and why.
    Rejected {
        /// The channel that it came from.
        channel: Channel,
        /// Whose fault and what.
        reason: Reason,
    },
    /// The service answered hello: it is the one we trust, and it is there now.
    Answered {
        /// Its clock.
        time: UnixTime,
    },
    /// The service refused.
    Refused {
        /// Why.
        code: RefusalCode,
        /// For how long, in seconds.
        retry_after_s: Option<u32>,
    },
    /// A newer document was taken.
    DocumentTaken {
        /// The channel that it came from.
        channel: Channel,
        /// Its version.
        version: u64,
    },
    /// A deployment ended here.
    Ended {
        /// Which campaign.
        campaign: CampaignId,
        /// Which attempt.
        attempt: u64,
        /// How.
        outcome: Outcome,
        /// Why.
        failure: Option<FailureCode>,
    },
    /// The service answered, and has accepted another key for this device: nothing that this key signs counts there.
    OtherKey {
        /// The key that it has accepted.
        accepted: KeyId,
    },
    /// The service has the report.
    ReportAcknowledged {
        /// Its digest.
        report: ShortDigest,
    },
    /// Nothing came for too long; what is missing is asked for again.
    Silent {
        /// Chunks that were outstanding.
        chunks: u32,
    },
    /// Hellos in a row were neither answered nor refused.
    Unanswered {
        /// How many.
        hellos: u32,
    },
    /// Chunks did not arrive although hellos were answered: smaller messages are asked for, if there are any.
    MessagesLost {
        /// Messages of more bytes do not arrive.
        above_bytes: u32,
    },
    /// Larger messages are asked for than before: they arrived, or the last try is a day ago.
    MessageLimit {
        /// Bytes of the largest; `None` for no limit but the device's own.
        bytes: Option<u32>,
    },
    /// A patch is not used; what the manifest says next is tried.
    PatchFailed {
        /// Which payload.
        payload: PayloadTag,
        /// Why.
        why: PatchFailure,
    },
    /// The medium did not do what was asked.
    StoreFailed(StoreFailure),
    /// Too much arrived that was not asked for; the connection is closed.
    Flooded {
        /// Bytes in this connection.
        bytes: u64,
    },
    /// No signed news for longer than the beacon's life: somebody may be holding them back.
    Stale,
    /// The service has a newer root than this version can follow.
    RootOutdated {
        /// Version held.
        held: u64,
        /// Version that is current.
        current: u64,
    },
}

/// Why a patch is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchFailure {
    /// Its decoder needs more memory than there is.
    Memory {
        /// Bytes that it needs.
        need_bytes: u64,
        /// Bytes that there are.
        limit_bytes: u64,
    },
    /// There is no room for it.
    NoRoom,
    /// It does not decode, or is not the patch that the manifest describes.
    Decode,
    /// What came out is not the image.
    Mismatch,
    /// The medium failed again and again while it was applied.
    Medium,
}

impl PatchFailure {
    /// The name that counters and logs use; stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::NoRoom => "no-room",
            Self::Decode => "decode",
            Self::Mismatch => "mismatch",
            Self::Medium => "medium",
        }
    }
}

/// Why a message was not acted on, sorted by blame (SPEC section 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a well-formed message.
    Malformed(DecodeError),
    /// Not signed by a key that may sign it.
    Unauthentic(SignatureError),
    /// Signed, but for somebody else or somewhere else.
    WrongScope,
    /// Older than what is known.
    Rollback {
        /// Version found.
        got: u64,
        /// Version known.
        known: u64,
    },
    /// Another document of the same version.
    Equivocation {
        /// The version.
        version: u64,
    },
    /// A hello answer with another nonce.
    WrongNonce,
    /// An empty retained message, which changes nothing.
    Empty,
    /// Well-formed and not asked for.
    Unsolicited,
    /// A chunk that does not match the signed index.
    WrongChunk(ChunkIndex),
    /// An index page that does not match the signed manifest.
    WrongPage(PageNumber),
    /// A release that is not taken.
    WrongEnvelope(VerifyError),
    /// A release that is not the one that the campaign names.
    WrongRelease,
    /// A kind of document that does not belong on this channel.
    WrongChannel,
}

impl Reason {
    /// The name that counters and logs use; stable.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::WrongEnvelope(VerifyError::Malformed(_)) => "malformed",
            Self::WrongEnvelope(VerifyError::Manifest(_)) => "manifest",
            Self::Unauthentic(_)
            | Self::WrongEnvelope(_)
            | Self::WrongScope
            | Self::WrongNonce
            | Self::WrongRelease => "unauthentic",
            Self::Rollback { .. } => "rollback",
            Self::Equivocation { .. } => "equivocation",
            Self::Empty => "empty",
            Self::Unsolicited | Self::WrongChunk(_) | Self::WrongPage(_) | Self::WrongChannel => "misbehaved",
        }
    }
}

//! What goes into a [`Serving`](super::Serving) and what comes out.

use bytes::Bytes;
use whimbrel_protocol::ids::{DeviceId, Digest, Prefix, ShortDigest};
use whimbrel_protocol::message::HelloAnswer;
use whimbrel_protocol::server::Reason;

use super::admission::Rates;
use super::frames::Extent;
use crate::attach::{Incoming, Outgoing};
use crate::fleet;
use crate::store::{PayloadRow, StoreError};

/// What a serving is told when it is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First level of all topics.
    pub prefix: Prefix,
    /// Most devices whose sessions are kept.
    pub sessions_max: usize,
    /// A session is dropped after its device was silent for this long, in milliseconds.
    pub session_idle_ms: u64,
    /// Bytes of chunk messages that are kept.
    pub frame_cache_bytes: usize,
    /// Bytes of payloads that are kept.
    pub payload_cache_bytes: usize,
    /// How fast payloads are served.
    pub rates: Rates,
    /// The broker may have forgotten assignments whenever the link comes up, so that all are published again.
    pub broker_forgets: bool,
}

/// Something happened outside. Feeding it never fails.
#[derive(Debug)]
pub enum Input<'a> {
    /// The link is up: everything that the broker should keep and may have forgotten is published again.
    Up,
    /// The link is down. What was put out since the last [`Input::Flushed`] may be lost.
    Down,
    /// A message of a device arrived.
    Message(&'a Incoming),
    /// All that was put out was handed to the broker.
    Flushed,
    /// Answers [`Output::Read`]: the bytes, `None` if what is kept is not what was signed, or why it was not read.
    Read {
        /// Which extent.
        extent: Extent,
        /// Its bytes.
        result: Result<Option<Bytes>, StoreError>,
    },
    /// Something about this device has changed in the fleet.
    Changed(DeviceId),
    /// The fleet has another document for brokers to keep.
    Publish(fleet::Publication),
    /// The fleet has stored a report.
    ReportStored {
        /// Whose.
        device: DeviceId,
        /// Its digest.
        digest: ShortDigest,
    },
    /// The time of [`Serving::poll_timeout`](super::Serving::poll_timeout) has come. Fed after every other input as
    /// well, it does no harm.
    Timeout,
}

/// An effect to carry out, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Publish this.
    Publish(Outgoing),
    /// Sign this with a beacon key, and publish it to this topic as what goes to one device.
    Answer {
        /// Where to.
        topic: Bytes,
        /// The answer to a hello.
        answer: HelloAnswer,
    },
    /// Read this extent with [`Extent::read`], and feed [`Input::Read`].
    Read {
        /// Which extent.
        extent: Extent,
        /// Of which payload.
        payload: PayloadRow,
    },
    /// Feed this to the fleet.
    Fleet(fleet::Input),
    /// Something to log. It is counted already.
    Event(Event),
}

/// Something to log.
#[derive(Debug)]
pub enum Event {
    /// A message was not acted on.
    Rejected {
        /// Whose.
        device: DeviceId,
        /// Why.
        reason: Reason,
    },
    /// What is kept of a payload is not what was signed: it has to be uploaded again.
    PayloadDamaged {
        /// Which: the digest of its index.
        index: Option<Digest>,
    },
    /// A part of a payload could not be read. Devices ask again.
    NotRead {
        /// Why.
        error: StoreError,
    },
}

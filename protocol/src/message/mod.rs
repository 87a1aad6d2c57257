//! Every message and every signed document (SPEC sections 4 and 7).
//!
//! An unsigned message starts with one byte, which has the version in its high nibble and the kind in its low
//! one. A signed document starts with a CBOR tag, and has version and kind in its protected header.
//! [`Request`] is a message that a device sends on `q`, [`Answer`] one that it gets on `c`.

mod chunk;
mod document;
mod hello;
mod order;
mod refusal;
mod report;
mod request;
mod status;

pub use chunk::{ChunkMessage, PageMessage, PageNumber};
pub use document::{Assignment, Beacon, Campaign, Validity, group_hash};
pub use hello::{GroupVersion, Hello, HelloAnswer};
pub use order::{CampaignState, Order, Policy};
pub use refusal::{Refusal, RefusalCode};
pub use report::{Enrolment, FailureCode, Outcome, Report};
pub use request::{ChunkRequest, DocumentRequest, PageRequest};
pub use status::{DeferReason, State, Status};

use crate::codec::DecodeError;
use crate::limits::{CHUNK_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, PAGE_BYTES_MAX};
use crate::version::{PROTOCOL_VERSION, head_byte, read_head};

/// The kinds of unsigned messages: the low nibble of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Device to service: who I am and what I have.
    Hello = 1,
    /// Device to service: send me chunks.
    ChunkRequest = 2,
    /// Device to service: send me an index page.
    PageRequest = 3,
    /// Device to service: send me a signed document.
    DocumentRequest = 4,
    /// Device to service: how far I am.
    Status = 5,
    /// Service to device: chunks.
    Chunk = 8,
    /// Service to device: an index page.
    Page = 9,
    /// Service to device: not now, or not at all.
    Refusal = 10,
}

impl MessageKind {
    pub(crate) const fn head(self) -> u8 {
        head_byte(PROTOCOL_VERSION, self as u8)
    }
}

/// What a device sends on its requests channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who I am and what I have.
    Hello(Hello),
    /// Send me chunks.
    Chunks(ChunkRequest),
    /// Send me an index page.
    Page(PageRequest),
    /// Send me a signed document.
    Document(DocumentRequest),
    /// How far I am.
    Status(Status),
}

impl Request {
    /// Reads a message from the requests channel.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Kind`] for kinds that do not belong on this channel.
    pub fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let (kind, body) = open(message, MESSAGE_BYTES_MAX)?;
        const HELLO: u8 = MessageKind::Hello as u8;
        const CHUNKS: u8 = MessageKind::ChunkRequest as u8;
        const PAGE: u8 = MessageKind::PageRequest as u8;
        const DOCUMENT: u8 = MessageKind::DocumentRequest as u8;
        const STATUS: u8 = MessageKind::Status as u8;
        match kind {
            Some(HELLO) => Hello::decode(body).map(Self::Hello),
            Some(CHUNKS) => ChunkRequest::decode(body).map(Self::Chunks),
            Some(PAGE) => PageRequest::decode(body).map(Self::Page),
            Some(DOCUMENT) => DocumentRequest::decode(body).map(Self::Document),
            Some(STATUS) => Status::decode(body).map(Self::Status),
            Some(got) => Err(DecodeError::kind(got)),
            None => Err(DecodeError::kind(message.first().copied().unwrap_or_default())),
        }
    }
}

/// What a device gets on its answers channel, borrowed from the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'b> {
    /// One or more consecutive chunks.
    Chunk(ChunkMessage<'b>),
    /// An index page, or the list of page digests.
    Page(PageMessage<'b>),
    /// Not now, or not at all.
    Refusal(Refusal),
    /// A signed document or a SUIT envelope, not looked at yet.
    Signed(&'b [u8]),
}

impl<'b> Answer<'b> {
    /// Reads a message from the answers channel.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Kind`] for kinds that do not belong on this channel.
    pub fn decode(message: &'b [u8]) -> Result<Self, DecodeError> {
        let (kind, body) = open(message, CHUNK_MESSAGE_BYTES_MAX)?;
        const CHUNK: u8 = MessageKind::Chunk as u8;
        const PAGE: u8 = MessageKind::Page as u8;
        const REFUSAL: u8 = MessageKind::Refusal as u8;
        match kind {
            Some(CHUNK) => ChunkMessage::decode(body).map(Self::Chunk),
            Some(PAGE) => {
                PageMessage::decode(limit("page message", body, PAGE_BYTES_MAX + 8)?).map(Self::Page)
            }
            Some(REFUSAL) => Refusal::decode(limit("refusal", body, MESSAGE_BYTES_MAX)?).map(Self::Refusal),
            Some(got) => Err(DecodeError::kind(got)),
            None => limit("signed document", message, crate::limits::SIGNED_BYTES_MAX).map(Self::Signed),
        }
    }
}

/// Checks the size and splits the first byte off.
fn open(message: &[u8], most: usize) -> Result<(Option<u8>, &[u8]), DecodeError> {
    let message = limit("message", message, most)?;
    let kind = read_head(message)?;
    Ok((kind, message.get(1..).unwrap_or_default()))
}

fn limit<'b>(what: &'static str, bytes: &'b [u8], most: usize) -> Result<&'b [u8], DecodeError> {
    if bytes.len() > most {
        Err(DecodeError::too_long(what, bytes.len() as u64, most as u64))
    } else {
        Ok(bytes)
    }
}

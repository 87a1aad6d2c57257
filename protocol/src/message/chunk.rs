//! Chunks and index pages on their way to a device (SPEC sections 7.3 and 7.4).
//!
//! These messages do not name the device. They are the same bytes for all devices, so that the service makes
//! them only once. The signed manifest proves their content; the message itself proves nothing.

use alloc::vec::Vec;

use super::MessageKind;
use super::request::read_chunk_index;
use crate::codec::{DecodeError, Item, Reader, Writer};
use crate::ids::{ChunkIndex, PayloadTag};
use crate::limits::{CHUNK_HEADER_BYTES_MAX, CHUNK_MESSAGE_BYTES_MAX, PAGE_BYTES_MAX, PAGES_MAX};

/// The first two bytes of a payload tag: enough to tell a device's payloads apart.
type ShortTag = [u8; 2];

fn short_tag(tag: PayloadTag) -> ShortTag {
    let [a, b, ..] = tag.0;
    [a, b]
}

fn read_short_tag(reader: &mut Reader<'_>) -> Result<ShortTag, DecodeError> {
    reader.raw(2)?.try_into().map_err(|_| DecodeError::truncated(0))
}

/// One or more consecutive chunks of one payload.
///
/// ```cddl
/// chunk = head(8) .cat bstr .size 2 .cat seq<first: uint> .cat bytes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMessage<'b> {
    tag: ShortTag,
    /// First chunk carried.
    pub first: ChunkIndex,
    /// The chunks' bytes, one after the other.
    pub bytes: &'b [u8],
}

impl<'b> ChunkMessage<'b> {
    /// The message that carries `bytes`, which begin with chunk `first`.
    #[must_use]
    pub fn encode(payload: PayloadTag, first: ChunkIndex, bytes: &[u8]) -> Vec<u8> {
        let [a, b] = short_tag(payload);
        let mut writer = Writer::after(&[MessageKind::Chunk.head(), a, b]);
        writer.uint(u64::from(first.0));
        debug_assert!(writer.as_bytes().len() <= CHUNK_HEADER_BYTES_MAX);
        let mut message = writer.into_bytes();
        message.reserve_exact(bytes.len());
        message.extend_from_slice(bytes);
        message
    }

    pub(super) fn decode(body: &'b [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("chunk", body, CHUNK_MESSAGE_BYTES_MAX)?;
        let tag = read_short_tag(&mut reader)?;
        let first = read_chunk_index(&mut reader)?;
        Ok(Self { tag, first, bytes: reader.rest() })
    }

    /// Whether the message says that it belongs to `payload`.
    #[must_use]
    pub fn is_of(&self, payload: PayloadTag) -> bool {
        self.tag == short_tag(payload)
    }
}

/// Which part of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageNumber {
    /// The list of page digests.
    List,
    /// A page of chunk digests.
    Page(u32),
}

impl PageNumber {
    pub(super) fn write(self, writer: &mut Writer) {
        match self {
            Self::List => writer.null(),
            Self::Page(page) => writer.uint(u64::from(page)),
        };
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.peek()? == Item::Null {
            reader.null("page number")?;
            return Ok(Self::List);
        }
        let page = reader.uint_max("page number", u64::from(PAGES_MAX) - 1)?;
        u32::try_from(page).map(Self::Page).map_err(|_| DecodeError::value("page number"))
    }
}

/// An index page, or the list of page digests.
///
/// ```cddl
/// page = head(9) .cat bstr .size 2 .cat seq<page: uint / null> .cat bytes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageMessage<'b> {
    tag: ShortTag,
    /// Which page.
    pub page: PageNumber,
    /// Its bytes.
    pub bytes: &'b [u8],
}

impl<'b> PageMessage<'b> {
    /// The message that carries `bytes`.
    #[must_use]
    pub fn encode(payload: PayloadTag, page: PageNumber, bytes: &[u8]) -> Vec<u8> {
        let [a, b] = short_tag(payload);
        let mut writer = Writer::after(&[MessageKind::Page.head(), a, b]);
        page.write(&mut writer);
        writer.raw(bytes);
        writer.into_bytes()
    }

    pub(super) fn decode(body: &'b [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("page", body, PAGE_BYTES_MAX + 8)?;
        let tag = read_short_tag(&mut reader)?;
        let page = PageNumber::read(&mut reader)?;
        Ok(Self { tag, page, bytes: reader.rest() })
    }

    /// Whether the message says that it belongs to `payload`.
    #[must_use]
    pub fn is_of(&self, payload: PayloadTag) -> bool {
        self.tag == short_tag(payload)
    }
}

//! Payload bytes on their way to devices.
//!
//! Chunk messages do not name the device, so that each is framed once and shared by all who ask for it: what
//! leaves here is a reference to the same bytes. Behind the frames are *extents*, pieces of payload files of about a
//! MiB, read from the disk when they are first needed and checked chunk by chunk against the signed index. Both are
//! kept within a limit of bytes. Reading is slow and happens elsewhere: what is not at hand is named by a
//! [`Extent`], and asked for again when it is.

use bytes::Bytes;
use whimbrel_protocol::ids::{ChunkIndex, PayloadTag};
use whimbrel_protocol::message::{ChunkMessage, PageMessage, PageNumber};

use super::cache::Cache;
use crate::fleet::catalog::PayloadNumber;
use crate::store::{PayloadRow, Payloads, StoreError};

/// What is framed and what was read.
#[derive(Debug)]
pub(crate) struct Frames {
    frames: Cache<FrameKey>,
    extents: Cache<Extent>,
}

/// A message that many devices get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FrameKey {
    payload: PayloadNumber,
    first: u32,
    count: u32,
}

/// A piece of a payload's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    pub(crate) payload: PayloadNumber,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// The list of page digests.
    List,
    /// A page of chunk digests.
    Page(u32),
    /// Chunks: the n-th [`EXTENT_BYTES`].
    Chunks(u32),
}

/// A message, or what has to be read for it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    Ready(Bytes),
    Read(Extent),
}

/// A payload with its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered<'p> {
    pub(crate) number: PayloadNumber,
    pub(crate) row: &'p PayloadRow,
}

/// Payload bytes that are read at once: at least one chunk, however large.
const EXTENT_BYTES: u64 = 1 << 20;

impl Frames {
    pub(crate) fn new(frame_bytes_max: usize, extent_bytes_max: usize) -> Self {
        Self { frames: Cache::new(frame_bytes_max), extents: Cache::new(extent_bytes_max) }
    }

    /// The message with the chunks `first..first + count`, which the payload has.
    pub(crate) fn chunks(&mut self, payload: Numbered<'_>, first: ChunkIndex, count: u32) -> Framed {
        let key = FrameKey { payload: payload.number, first: first.0, count };
        if let Some(frame) = self.frames.find(&key) {
            return Framed::Ready(frame.clone());
        }
        let layout = payload.row.layout;
        let wanted = layout.bytes_of(first, count);
        let extent_bytes = EXTENT_BYTES.max(layout.chunk_size());
        let mut gathered = Vec::new();
        let mut at = wanted.start;
        while at < wanted.end {
            let number = at / extent_bytes;
            let part = Part::Chunks(u32::try_from(number).unwrap_or(u32::MAX));
            let extent = Extent { payload: payload.number, part };
            let Some(bytes) = self.extents.find(&extent) else {
                return Framed::Read(extent);
            };
            let end = wanted.end.min((number + 1) * extent_bytes);
            let start = number * extent_bytes;
            let range = to_usize(at - start)..to_usize(end - start);
            if at == wanted.start && end == wanted.end {
                // The usual case: nothing is gathered, the message is made of the extent itself.
                let bytes = bytes.get(range).unwrap_or_default();
                let frame = frame_chunks(payload.row, first, bytes);
                self.frames.keep(key, frame.clone());
                return Framed::Ready(frame);
            }
            gathered.extend_from_slice(bytes.get(range).unwrap_or_default());
            at = end;
        }
        let frame = frame_chunks(payload.row, first, &gathered);
        self.frames.keep(key, frame.clone());
        Framed::Ready(frame)
    }

    /// The message with an index page that the payload has.
    pub(crate) fn page(&mut self, payload: Numbered<'_>, page: PageNumber) -> Framed {
        let part = match page {
            PageNumber::List => Part::List,
            PageNumber::Page(number) => Part::Page(number),
        };
        let extent = Extent { payload: payload.number, part };
        match self.extents.find(&extent) {
            Some(bytes) => Framed::Ready(Bytes::from(PageMessage::encode(tag(payload.row), page, bytes))),
            None => Framed::Read(extent),
        }
    }

    /// Keeps what was read.
    pub(crate) fn keep(&mut self, extent: Extent, bytes: Bytes) {
        self.extents.keep(extent, bytes);
    }

    /// Bytes of frames and of extents that are kept.
    pub(crate) const fn bytes(&self) -> (usize, usize) {
        (self.frames.bytes(), self.extents.bytes())
    }
}

impl Extent {
    /// Reads the extent; `None` if what is kept is not what was signed. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(self, payloads: &dyn Payloads, row: &PayloadRow) -> Result<Option<Bytes>, StoreError> {
        let bytes = match self.part {
            Part::List => payloads.list(row)?.map(|list| list.bytes().to_vec()),
            Part::Page(page) => payloads.page(row, page)?,
            Part::Chunks(number) => {
                let chunks = to_u32((EXTENT_BYTES / row.layout.chunk_size()).max(1));
                let first = number.saturating_mul(chunks);
                let count = chunks.min(row.layout.chunk_count().saturating_sub(first));
                payloads.chunks(row, ChunkIndex(first), count)?
            }
        };
        Ok(bytes.map(Bytes::from))
    }
}

fn frame_chunks(row: &PayloadRow, first: ChunkIndex, bytes: &[u8]) -> Bytes {
    Bytes::from(ChunkMessage::encode(tag(row), first, bytes))
}

fn tag(row: &PayloadRow) -> PayloadTag {
    PayloadTag::of(&row.index)
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn to_u32(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

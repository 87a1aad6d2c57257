//! The requests of a device (SPEC sections 7.3 to 7.5).

use alloc::vec::Vec;

use super::{MessageKind, PageNumber};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkIndex, PayloadTag, ShortDigest};
use crate::limits::{CHUNKS_MAX, REQUEST_BITMAP_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_CHUNKS_MAX};

/// Asks for chunks of one payload: a range, or the holes in it. At most 32 bytes.
///
/// It acknowledges what came before. The service still sends what an earlier request asked for.
///
/// ```cddl
/// chunk-request = head(2) .cat payload-tag .cat seq<first: uint, count: 1..128, per-message: 1..64,
///     ? wanted: bstr .size (1..16)>
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRequest {
    /// Which payload.
    pub payload: PayloadTag,
    /// First chunk of the range.
    pub first: ChunkIndex,
    /// Chunks of the range, 1 to 128.
    pub count: u32,
    /// Consecutive chunks that one message should carry, 1 to 64.
    pub per_message: u32,
    /// Is there if not all of the range is wanted: bit n (bit 0 of byte 0 first) asks for chunk `first + n`.
    pub wanted: Option<Vec<u8>>,
}

/// Most chunks of one message: 64 KiB of the smallest chunks.
const PER_MESSAGE_MAX: u64 = 64;

impl ChunkRequest {
    /// The message; `wanted` is cut after its last set bit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::after(&[MessageKind::ChunkRequest.head()]);
        writer.raw(&self.payload.0).uint(u64::from(self.first.0)).uint(u64::from(self.count));
        writer.uint(u64::from(self.per_message));
        if let Some(wanted) = &self.wanted {
            writer.bytes(wanted);
        }
        debug_assert!(writer.as_bytes().len() <= REQUEST_BYTES_MAX);
        writer.into_bytes()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("chunk request", body, REQUEST_BYTES_MAX - 1)?;
        let payload = read_tag(&mut reader)?;
        let first = read_chunk_index(&mut reader)?;
        let count = reader.u32("count")?;
        let per_message = reader.u32("chunks per message")?;
        let counts = (1..=REQUEST_CHUNKS_MAX).contains(&count)
            && (1..=PER_MESSAGE_MAX).contains(&u64::from(per_message))
            && u64::from(first.0) + u64::from(count) <= u64::from(CHUNKS_MAX);
        if !counts {
            return Err(DecodeError::value("chunk request"));
        }
        let wanted = if reader.is_at_end() {
            None
        } else {
            let wanted = reader.bytes("wanted chunks", REQUEST_BITMAP_BYTES_MAX)?;
            let (got, want) = (wanted.len() as u64, u64::from(count.div_ceil(8)));
            if got != want {
                return Err(DecodeError::length("wanted chunks", got, want));
            }
            Some(wanted.to_vec())
        };
        reader.finish()?;
        Ok(Self { payload, first, count, per_message, wanted })
    }

    /// Whether the request asks for chunk `first + n`.
    fn wants(&self, n: u32) -> bool {
        self.wanted
            .as_ref()
            .is_none_or(|wanted| wanted.get((n / 8) as usize).is_some_and(|byte| byte >> (n % 8) & 1 == 1))
    }

    /// The runs of consecutive chunks that answer the request, one message each.
    ///
    /// Whatever the first chunk is, runs end at multiples of `per_message`, so that devices that ask for
    /// different ranges get the same messages.
    pub fn runs(&self) -> impl Iterator<Item = (ChunkIndex, u32)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            at = (at..self.count).find(|n| self.wants(*n))?;
            let chunk = self.first.0 + at;
            let most = self.count.min(at + self.per_message - chunk % self.per_message);
            let end = (at..most).find(|n| !self.wants(*n)).unwrap_or(most);
            let run = (ChunkIndex(chunk), end - at);
            at = end;
            Some(run)
        })
    }
}

/// Asks for an index page, or for the list of page digests.
///
/// ```cddl
/// page-request = head(3) .cat payload-tag .cat seq<page: uint / null>
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Which payload.
    pub payload: PayloadTag,
    /// Which page.
    pub page: PageNumber,
}

impl PageRequest {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::after(&[MessageKind::PageRequest.head()]);
        writer.raw(&self.payload.0);
        self.page.write(&mut writer);
        writer.into_bytes()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("page request", body, REQUEST_BYTES_MAX)?;
        let payload = read_tag(&mut reader)?;
        let page = PageNumber::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { payload, page })
    }
}

/// Asks for a signed document.
///
/// ```cddl
/// document-request = head(4) .cat seq<(1, release: bstr .size 8) // (2, root-version: uint)>
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentRequest {
    /// The SUIT envelope of the release with this digest.
    Manifest(ShortDigest),
    /// The root of this version.
    Root(u64),
}

const MANIFEST: u64 = 1;
const ROOT: u64 = 2;

impl DocumentRequest {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::after(&[MessageKind::DocumentRequest.head()]);
        match self {
            Self::Manifest(release) => writer.uint(MANIFEST).bytes(&release.0),
            Self::Root(version) => writer.uint(ROOT).uint(*version),
        };
        writer.into_bytes()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("document request", body, REQUEST_BYTES_MAX)?;
        let request = match reader.uint("document kind")? {
            MANIFEST => Self::Manifest(ShortDigest(reader.byte_array("release digest")?)),
            ROOT => Self::Root(reader.uint("root version")?),
            _ => return Err(DecodeError::value("document kind")),
        };
        reader.finish()?;
        Ok(request)
    }
}

fn read_tag(reader: &mut Reader<'_>) -> Result<PayloadTag, DecodeError> {
    let bytes = reader.raw(4)?;
    bytes.try_into().map(PayloadTag).map_err(|_| DecodeError::truncated(0))
}

pub(super) fn read_chunk_index(reader: &mut Reader<'_>) -> Result<ChunkIndex, DecodeError> {
    let index = reader.uint_max("chunk number", u64::from(CHUNKS_MAX) - 1)?;
    u32::try_from(index).map(ChunkIndex).map_err(|_| DecodeError::value("chunk number"))
}

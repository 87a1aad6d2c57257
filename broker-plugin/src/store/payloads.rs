//! Where payloads are kept, as a trait, and what is the same wherever that is: what is read back is checked against
//! the signed index digest before it is served, so that bytes that have rotted are never sent to anybody.

use core::fmt::Debug;

use whimbrel_protocol::chunk::{ChunkSalt, Layout, PageList};
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::limits::PAGE_DIGEST_BYTES;

use super::rows::PayloadRow;
use super::{PayloadSpec, StoreError, Upload};

/// The two objects of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PayloadPart {
    /// The bytes that are transferred.
    Bytes,
    /// The list of page digests, then the pages.
    Index,
}

/// Where payloads are kept. An implementation only moves bytes: it reads a range of an object, and takes a new
/// payload, which appears whole or not at all. All methods may block on a disk or a network.
pub trait Payloads: Debug + Send + Sync {
    /// Bytes of an object; 0 if it is not there.
    fn len(&self, index: &Digest, part: PayloadPart) -> u64;

    /// Reads `len` bytes of an object, from `offset` on.
    ///
    /// # Errors
    /// [`StoreError`], also if the object ends before.
    fn read(&self, index: &Digest, part: PayloadPart, offset: u64, len: u64) -> Result<Vec<u8>, StoreError>;

    /// Takes the bytes of a new payload. [`Payloads::begin`] also computes its index.
    ///
    /// # Errors
    /// [`StoreError`].
    fn writer(&self, index: &Digest) -> Result<Box<dyn PayloadWriter>, StoreError>;

    /// Starts an upload.
    ///
    /// # Errors
    /// [`StoreError`].
    fn begin(&self, spec: PayloadSpec) -> Result<Upload, StoreError> {
        Ok(Upload::new(self.writer(&spec.index)?, spec))
    }

    /// Whether both objects are there with the right lengths, and the list of page digests is the signed one.
    fn holds(&self, row: &PayloadRow) -> bool {
        let right_lengths = self.len(&row.index, PayloadPart::Bytes) == row.layout.transfer_size()
            && self.len(&row.index, PayloadPart::Index) == index_len(&row.layout);
        right_lengths && self.list(row).is_ok_and(|list| list.is_some())
    }

    /// The list of page digests; `None` if what is kept is not the signed one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn list(&self, row: &PayloadRow) -> Result<Option<PageList>, StoreError> {
        let bytes = self.read(&row.index, PayloadPart::Index, 0, list_len(&row.layout))?;
        Ok(PageList::verify(row.salt(), row.layout, &row.index, &bytes))
    }

    /// Page `number` of the index; `None` if what is kept is not the signed one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn page(&self, row: &PayloadRow, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(list) = self.list(row)? else { return Ok(None) };
        let bytes = self.page_bytes(row, number)?;
        Ok(list.verify_page(number, &bytes).map(|_| bytes))
    }

    /// Page `number` of the index, not verified.
    ///
    /// # Errors
    /// [`StoreError`].
    fn page_bytes(&self, row: &PayloadRow, number: u32) -> Result<Vec<u8>, StoreError> {
        let before: u64 = (0..number).map(|page| row.layout.page_len(page) as u64).sum();
        let offset = list_len(&row.layout) + before;
        self.read(&row.index, PayloadPart::Index, offset, row.layout.page_len(number) as u64)
    }

    /// The bytes of the chunks `first..first + count`, checked one by one; `None` if a chunk that is kept is not the
    /// signed one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn chunks(&self, row: &PayloadRow, first: ChunkIndex, count: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let range = row.layout.bytes_of(first, count);
        let bytes = self.read(&row.index, PayloadPart::Bytes, range.start, range.end - range.start)?;
        let Some(list) = self.list(row)? else { return Ok(None) };
        let chunk_bytes = usize::try_from(row.layout.chunk_size()).unwrap_or(usize::MAX);
        let mut page = None;
        for (number, chunk) in (first.0..).map(ChunkIndex).zip(bytes.chunks(chunk_bytes)) {
            let page_number = Layout::page_of(number);
            if page.as_ref().is_none_or(|(held, _)| *held != page_number) {
                let Some(verified) = list.verify_page(page_number, &self.page_bytes(row, page_number)?)
                else {
                    return Ok(None);
                };
                page = Some((page_number, verified));
            }
            let want = page.as_ref().and_then(|(_, page)| page.chunk_digest(number));
            if want != Some(&row.salt().chunk_digest(number, chunk)[..]) {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }
}

/// A payload that is being written. Dropping it removes what was written.
pub trait PayloadWriter: Debug + Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes the payload appear, durably, with this index object.
    ///
    /// # Errors
    /// [`StoreError`]: it does not appear.
    fn keep(self: Box<Self>, index: &[u8]) -> Result<(), StoreError>;
}

impl PayloadRow {
    /// What binds the payload's digests to its image.
    #[must_use]
    pub fn salt(&self) -> ChunkSalt {
        ChunkSalt { image: self.image, transfer_size: self.layout.transfer_size() }
    }
}

/// Bytes of the list of page digests.
pub(super) fn list_len(layout: &Layout) -> u64 {
    u64::from(layout.page_count()) * PAGE_DIGEST_BYTES as u64
}

/// Bytes of an index object.
fn index_len(layout: &Layout) -> u64 {
    list_len(layout) + (0..layout.page_count()).map(|page| layout.page_len(page) as u64).sum::<u64>()
}

//! Computes which bytes belong to which chunk, and which chunk digests belong to which index page.

use core::ops::Range;

use thiserror::Error;

use crate::ids::ChunkIndex;
use crate::limits::{CHUNK_DIGEST_BYTES, CHUNK_SIZE_LOG2_MAX, CHUNK_SIZE_LOG2_MIN, CHUNKS_MAX, PAGE_CHUNKS};

/// Why a payload cannot be cut as asked.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The payload is empty.
    #[error("transfer size is 0")]
    Empty,
    /// The chunk size is not one of those allowed.
    #[error("chunk size 2^{got} is not between 2^{CHUNK_SIZE_LOG2_MIN} and 2^{CHUNK_SIZE_LOG2_MAX} bytes")]
    ChunkSize {
        /// log2 of the size asked for.
        got: u64,
    },
    /// More chunks than a payload may have.
    #[error("{chunks} chunks are more than {CHUNKS_MAX}: use larger chunks")]
    TooMany {
        /// How many there would be.
        chunks: u64,
    },
}

/// How one payload is cut: into chunks of 2^k bytes, of which the last one may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    chunk_size_log2: u8,
    transfer_size: u64,
    chunk_count: u32,
}

impl Layout {
    /// Cuts `transfer_size` bytes into chunks of `2^chunk_size_log2`.
    ///
    /// # Errors
    /// [`LayoutError`] for an empty payload, other chunk sizes, and too many chunks.
    pub fn new(chunk_size_log2: u64, transfer_size: u64) -> Result<Self, LayoutError> {
        let allowed = u64::from(CHUNK_SIZE_LOG2_MIN)..=u64::from(CHUNK_SIZE_LOG2_MAX);
        let log2 = match u8::try_from(chunk_size_log2) {
            Ok(log2) if allowed.contains(&chunk_size_log2) => log2,
            _ => return Err(LayoutError::ChunkSize { got: chunk_size_log2 }),
        };
        if transfer_size == 0 {
            return Err(LayoutError::Empty);
        }
        let chunks = transfer_size.div_ceil(1 << log2);
        match u32::try_from(chunks) {
            Ok(chunk_count) if chunk_count <= CHUNKS_MAX => {
                Ok(Self { chunk_size_log2: log2, transfer_size, chunk_count })
            }
            _ => Err(LayoutError::TooMany { chunks }),
        }
    }

    /// log2 of the chunk size.
    #[must_use]
    pub const fn chunk_size_log2(&self) -> u8 {
        self.chunk_size_log2
    }

    /// Bytes of every chunk but the last.
    #[must_use]
    pub const fn chunk_size(&self) -> u64 {
        1 << self.chunk_size_log2
    }

    /// Bytes of the whole payload as transferred, at least 1.
    #[must_use]
    pub const fn transfer_size(&self) -> u64 {
        self.transfer_size
    }

    /// Chunks of the payload, at least 1.
    #[must_use]
    pub const fn chunk_count(&self) -> u32 {
        self.chunk_count
    }

    /// Whether `chunk` is one of this payload's.
    #[must_use]
    pub const fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.chunk_count
    }

    /// The bytes of `chunk`; empty beyond the last.
    #[must_use]
    pub fn byte_range(&self, chunk: ChunkIndex) -> Range<u64> {
        let start = (u64::from(chunk.0) << self.chunk_size_log2).min(self.transfer_size);
        start..start.saturating_add(self.chunk_size()).min(self.transfer_size)
    }

    /// The bytes of the chunks `first..first + count`, as far as the payload goes.
    #[must_use]
    pub fn bytes_of(&self, first: ChunkIndex, count: u32) -> Range<u64> {
        let last = ChunkIndex(first.0.saturating_add(count.saturating_sub(1)));
        self.byte_range(first).start..self.byte_range(last).end
    }

    /// Length of `chunk` in bytes; 0 beyond the last.
    #[must_use]
    pub fn chunk_len(&self, chunk: ChunkIndex) -> u64 {
        let range = self.byte_range(chunk);
        range.end - range.start
    }

    /// Pages of the index, at least 1.
    #[must_use]
    pub const fn page_count(&self) -> u32 {
        self.chunk_count.div_ceil(PAGE_CHUNKS)
    }

    /// The page that holds the digest of `chunk`.
    #[must_use]
    pub const fn page_of(chunk: ChunkIndex) -> u32 {
        chunk.0 / PAGE_CHUNKS
    }

    /// The chunks whose digests `page` holds; empty beyond the last page.
    #[must_use]
    pub fn page_chunks(&self, page: u32) -> Range<u32> {
        let start = page.saturating_mul(PAGE_CHUNKS).min(self.chunk_count);
        start..start.saturating_add(PAGE_CHUNKS).min(self.chunk_count)
    }

    /// Bytes of `page`: 8 for each of its chunks.
    #[must_use]
    pub fn page_len(&self, page: u32) -> usize {
        self.page_chunks(page).len() * CHUNK_DIGEST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_payload_once() {
        for size in [1, 1023, 1024, 1025, 4096 * 3 + 1] {
            let layout = Layout::new(10, size).unwrap();
            let mut end = 0;
            for chunk in 0..layout.chunk_count() {
                let range = layout.byte_range(ChunkIndex(chunk));
                assert_eq!(range.start, end);
                assert!(range.end > range.start && range.end - range.start <= 1024);
                assert!(layout.contains(ChunkIndex(chunk)));
                end = range.end;
            }
            assert!(!layout.contains(ChunkIndex(layout.chunk_count())));
            assert_eq!(end, size);
            assert_eq!(layout.chunk_len(ChunkIndex(layout.chunk_count())), 0);
        }
    }

    #[test]
    fn pages_cover_the_chunks_once() {
        let layout = Layout::new(10, 1024 * 1025).unwrap();
        assert_eq!(layout.page_count(), 3);
        assert_eq!(layout.page_chunks(2), 1024..1025);
        assert_eq!(layout.page_len(0), 4096);
        assert_eq!(layout.page_len(2), 8);
        assert_eq!(layout.page_len(3), 0);
        assert_eq!(Layout::page_of(ChunkIndex(511)), 0);
        assert_eq!(Layout::page_of(ChunkIndex(512)), 1);
    }

    #[test]
    fn what_cannot_be_cut_is_refused_by_name() {
        assert_eq!(Layout::new(12, 0), Err(LayoutError::Empty));
        assert_eq!(Layout::new(9, 1), Err(LayoutError::ChunkSize { got: 9 }));
        assert_eq!(Layout::new(17, 1), Err(LayoutError::ChunkSize { got: 17 }));
        assert_eq!(Layout::new(1 << 40, 1), Err(LayoutError::ChunkSize { got: 1 << 40 }));
        assert!(Layout::new(10, 65_535 << 10).is_ok());
        assert_eq!(Layout::new(10, (65_535 << 10) + 1), Err(LayoutError::TooMany { chunks: 65_536 }));
        assert!(Layout::new(16, u64::MAX).is_err());
    }
}

//! A payload on its way to where payloads are kept: it is indexed as it comes, and kept if its index is the one that
//! a release key signed.

use thiserror::Error;
use whimbrel_protocol::chunk::{ChunkSalt, Layout};
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::limits::PAGE_BYTES_MAX;
use whimbrel_protocol::time::UnixTime;

use super::StoreError;
use super::payloads::PayloadWriter;
use super::rows::PayloadRow;

/// What a release says about a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadSpec {
    /// Digest of its index: its name.
    pub index: Digest,
    /// How it is cut.
    pub layout: Layout,
    /// Digests of the release's images; the payload becomes one of them.
    pub images: Vec<Digest>,
}

/// Why an upload did not become a payload. Nothing of it is kept.
#[derive(Debug, Error)]
pub enum UploadError {
    /// It has another size than the release says.
    #[error("the payload has {got} bytes, its release says {want}")]
    Size {
        /// Bytes that came; one more than wanted if there are more.
        got: u64,
        /// Bytes that the release says.
        want: u64,
    },
    /// Its index is another one.
    #[error("the payload's index digest is {got}, its release says {want}: this is another file")]
    Content {
        /// What came.
        got: Digest,
        /// What the release says.
        want: Digest,
    },
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An upload. Dropping it removes what was written.
#[derive(Debug)]
pub struct Upload {
    writer: Box<dyn PayloadWriter>,
    spec: PayloadSpec,
    got: u64,
    /// Bytes of the chunk that is not complete yet.
    chunk: Vec<u8>,
    /// The chunk digests so far, for each image that the payload could become.
    pages: Vec<(ChunkSalt, Vec<u8>)>,
    next: u32,
}

impl Upload {
    pub(super) fn new(writer: Box<dyn PayloadWriter>, spec: PayloadSpec) -> Self {
        let transfer_size = spec.layout.transfer_size();
        let pages = spec
            .images
            .iter()
            .map(|image| (ChunkSalt { image: *image, transfer_size }, Vec::new()))
            .collect();
        Self { writer, spec, got: 0, chunk: Vec::new(), pages, next: 0 }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`UploadError::Size`] if more come than the release says, [`UploadError::Store`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let want = self.spec.layout.transfer_size();
        self.got += bytes.len() as u64;
        if self.got > want {
            return Err(UploadError::Size { got: want + 1, want });
        }
        self.writer.write(bytes)?;
        let chunk_bytes = usize::try_from(self.spec.layout.chunk_size()).unwrap_or(usize::MAX);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = chunk_bytes - self.chunk.len();
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.chunk.extend_from_slice(now);
            rest = later;
            if self.chunk.len() == chunk_bytes {
                self.index_chunk();
            }
        }
        Ok(())
    }

    fn index_chunk(&mut self) {
        for (salt, pages) in &mut self.pages {
            pages.extend_from_slice(&salt.chunk_digest(ChunkIndex(self.next), &self.chunk));
        }
        self.next += 1;
        self.chunk.clear();
    }

    /// Makes the payload of it, durably.
    ///
    /// # Errors
    /// [`UploadError::Size`], [`UploadError::Content`], [`UploadError::Store`].
    pub fn finish(mut self, added: UnixTime) -> Result<PayloadRow, UploadError> {
        let want = self.spec.layout.transfer_size();
        if self.got != want {
            return Err(UploadError::Size { got: self.got, want });
        }
        if !self.chunk.is_empty() {
            self.index_chunk();
        }
        let (image, index_object) = self.find_image()?;
        self.writer.keep(&index_object)?;
        Ok(PayloadRow { index: self.spec.index, image, layout: self.spec.layout, added })
    }

    /// Finds the image that the payload becomes, and what its index object holds.
    fn find_image(&self) -> Result<(Digest, Vec<u8>), UploadError> {
        let mut got = None;
        for (salt, pages) in &self.pages {
            let list: Vec<u8> = (0..)
                .zip(pages.chunks(PAGE_BYTES_MAX))
                .flat_map(|(number, page)| salt.page_digest(number, page))
                .collect();
            let digest = salt.index_digest(&list);
            if digest == self.spec.index {
                return Ok((salt.image, [list.as_slice(), pages].concat()));
            }
            got = Some(digest);
        }
        Err(UploadError::Content { got: got.unwrap_or(Digest([0; 32])), want: self.spec.index })
    }
}

//! The payload on a stick or card, which may be damaged, swapped or pulled at any time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use whimbrel_protocol::chunk::{ChunkSalt, Layout};
use whimbrel_protocol::ids::ChunkIndex;
use whimbrel_protocol::limits::PAGE_BYTES_MAX;
use whimbrel_protocol::manifest::FetchPlan;
use whimbrel_protocol::message::PageNumber;

use super::InstallError;

/// A payload file whose every byte was compared with the signed index.
pub(super) struct Payload {
    path: PathBuf,
    file: File,
    pub(super) layout: Layout,
    salt: ChunkSalt,
    /// Chunk digests, page after page: as they were when the whole file was checked.
    digests: Vec<u8>,
    list: Vec<u8>,
}

impl Payload {
    /// Opens the payload of `plan` in `folder` and compares it with the signed index digest.
    pub(super) fn check(folder: &Path, plan: &FetchPlan) -> Result<Self, InstallError> {
        let index = plan.transfer.index_digest;
        let path = folder.join(format!("{index}.payload"));
        let failed = |error| InstallError::Read { path: path.clone(), error };
        let file = File::open(&path).map_err(failed)?;
        let layout = plan.transfer.layout;
        let salt = ChunkSalt { image: plan.image_digest, transfer_size: layout.transfer_size() };
        if file.metadata().map_err(failed)?.len() != layout.transfer_size() {
            return Err(InstallError::Payload { path });
        }
        let mut payload = Self { path, file, layout, salt, digests: Vec::new(), list: Vec::new() };
        for chunk in (0..layout.chunk_count()).map(ChunkIndex) {
            let bytes = payload.read(chunk)?;
            payload.digests.extend(salt.chunk_digest(chunk, &bytes));
        }
        payload.list = (0..)
            .zip(payload.digests.chunks(PAGE_BYTES_MAX))
            .flat_map(|(page, bytes)| salt.page_digest(page, bytes))
            .collect();
        if salt.index_digest(&payload.list) == index {
            Ok(payload)
        } else {
            Err(InstallError::Payload { path: payload.path })
        }
    }

    fn read(&self, chunk: ChunkIndex) -> Result<Vec<u8>, InstallError> {
        let range = self.layout.byte_range(chunk);
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        let read = self.file.read_exact_at(&mut bytes, range.start);
        read.map_err(|error| InstallError::Read { path: self.path.clone(), error })?;
        Ok(bytes)
    }

    /// A chunk's bytes, compared once more: a stick can be pulled, swapped or failing.
    pub(super) fn chunk(&self, chunk: ChunkIndex) -> Result<Vec<u8>, InstallError> {
        let bytes = self.read(chunk)?;
        let digest = self.salt.chunk_digest(chunk, &bytes);
        let at = chunk.0 as usize * digest.len();
        if self.digests.get(at..at + digest.len()) == Some(&digest[..]) {
            Ok(bytes)
        } else {
            Err(InstallError::Payload { path: self.path.clone() })
        }
    }

    /// The index as it is kept: a single page needs no list.
    pub(super) fn pages_by_number(&self) -> impl Iterator<Item = (PageNumber, Vec<u8>)> {
        let list = (self.layout.page_count() > 1).then(|| (PageNumber::List, self.list.clone()));
        let pages = (0..).zip(self.digests.chunks(PAGE_BYTES_MAX));
        list.into_iter().chain(pages.map(|(page, bytes)| (PageNumber::Page(page), bytes.to_vec())))
    }
}

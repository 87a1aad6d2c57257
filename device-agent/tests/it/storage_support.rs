//! A storage and a release to put on it, without a session.

use alloc::sync::Arc;

use whimbrel_agent::storage::{Storage, StorageOptions, StoreAnswer};
use whimbrel_protocol::chunk::ChunkSet;
use whimbrel_protocol::device::{Checkpoint, Found, Opening, StoreFailure, StoreOp};
use whimbrel_protocol::disk::Disk;
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::message::PageNumber;
use whimbrel_protocol::testing::Fixture;

use crate::power_cut_service::Release;

pub(crate) fn fixture() -> Arc<Fixture> {
    Arc::new(Fixture::new())
}

/// The machine has started and runs slot A.
pub(crate) fn started<D: Disk>(disk: D) -> Storage<D> {
    let mut storage = Storage::start(disk, StorageOptions::default()).unwrap();
    storage.boot().unwrap();
    storage
}

pub(crate) fn opening(release: &Release) -> Opening {
    Opening {
        envelope: release.envelope.clone(),
        release: release.digest,
        sequence: release.sequence,
        image: Digest::of(&release.image),
        image_size: release.image.len() as u64,
        transfer: release.transfer,
        base: None,
    }
}

pub(crate) fn open<D: Disk>(storage: &mut Storage<D>, release: &Release) -> Result<Found, StoreFailure> {
    match storage.carry_out(StoreOp::Open(Box::new(opening(release)))) {
        StoreAnswer::Opened(result) => result,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn store<D: Disk>(storage: &mut Storage<D>, op: StoreOp) -> Result<(), StoreFailure> {
    match storage.carry_out(op) {
        StoreAnswer::Stored(result) => result,
        other => panic!("{other:?}"),
    }
}

/// Writes the pages of the index.
pub(crate) fn write_pages<D: Disk>(storage: &mut Storage<D>, release: &Release) {
    let layout = release.transfer.layout;
    if layout.page_count() > 1 {
        let bytes = release.index.list.clone();
        store(storage, StoreOp::WritePage { page: PageNumber::List, bytes }).unwrap();
    }
    for page in 0..layout.page_count() {
        let bytes = release.index.page(page).to_vec();
        store(storage, StoreOp::WritePage { page: PageNumber::Page(page), bytes }).unwrap();
    }
}

/// Writes the chunks with these numbers.
pub(crate) fn write_chunks<D: Disk>(
    storage: &mut Storage<D>,
    release: &Release,
    chunks: impl IntoIterator<Item = u32>,
) {
    for chunk in chunks {
        let range = release.transfer.layout.byte_range(ChunkIndex(chunk));
        let bytes = release.payload[range.start as usize..range.end as usize].to_vec();
        store(storage, StoreOp::WriteChunks { first: ChunkIndex(chunk), bytes }).unwrap();
    }
}

/// Saves a checkpoint that claims these chunks.
pub(crate) fn checkpoint<D: Disk>(
    storage: &mut Storage<D>,
    release: &Release,
    chunks: impl IntoIterator<Item = u32>,
) {
    let mut held = ChunkSet::empty(release.transfer.layout.chunk_count());
    let mut bytes_received = 0;
    for chunk in chunks {
        held.insert(ChunkIndex(chunk));
        bytes_received += release.transfer.layout.chunk_len(ChunkIndex(chunk));
    }
    let checkpoint = Checkpoint { bytes_received, ..Checkpoint::of(&held) };
    store(storage, StoreOp::SaveCheckpoint(checkpoint)).unwrap();
}

/// All of the payload, opened, written and flushed.
pub(crate) fn download<D: Disk>(storage: &mut Storage<D>, release: &Release) {
    open(storage, release).unwrap();
    write_pages(storage, release);
    let all = 0..release.transfer.layout.chunk_count();
    write_chunks(storage, release, all.clone());
    checkpoint(storage, release, all);
}

pub(crate) fn read<D: Disk>(disk: &mut D, area: whimbrel_protocol::disk::Area) -> Vec<u8> {
    let mut bytes = vec![0; disk.len(area).unwrap() as usize];
    disk.read(area, 0, &mut bytes).unwrap();
    bytes
}

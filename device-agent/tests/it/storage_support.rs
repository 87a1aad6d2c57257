//! A storage and a release to put on it, without a session.

use alloc::sync::Arc;

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{PatchOptions, Storage, StorageOptions, StoreAnswer};
use whimbrel_protocol::chunk::ChunkSet;
use whimbrel_protocol::device::{Checkpoint, Found, Opening, StoreFailure, StoreOp};
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::manifest::{DecoderMemory, ImageId};
use whimbrel_protocol::message::PageNumber;
use whimbrel_protocol::patch::Header;
use whimbrel_protocol::testing::Fixture;

use crate::power_cut_service::{Payload, Release};

pub(crate) fn fixture() -> Arc<Fixture> {
    Arc::new(Fixture::new())
}

/// The machine has started and runs slot A.
pub(crate) fn started<D: Disk>(disk: D) -> Storage<D> {
    let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
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
        base: release.base,
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

pub(crate) fn read<D: Disk>(disk: &mut D, area: Area) -> Vec<u8> {
    let mut bytes = vec![0; disk.len(area).unwrap() as usize];
    disk.read(area, 0, &mut bytes).unwrap();
    bytes
}

/// The machine has started and runs slot A, which holds `factory`; patches are applied so.
pub(crate) fn started_with<D: Disk>(mut disk: D, factory: &[u8], patch: PatchOptions) -> Storage<D> {
    disk.reserve(Area::SlotA, factory.len() as u64).unwrap();
    disk.write(Area::SlotA, 0, factory).unwrap();
    disk.flush(Area::SlotA).unwrap();
    let mut storage =
        Storage::start(disk, EnvironmentBoot::new(), StorageOptions { patch, ..StorageOptions::default() })
            .unwrap();
    storage.boot().unwrap();
    storage
}

/// Two images and the patch that leads from one to the other, as the publisher made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) old: &'static [u8],
    pub(crate) new: &'static [u8],
    pub(crate) patch: &'static [u8],
}

/// Of 33 KB: three blocks.
pub(crate) const MEDIUM: Pair = Pair {
    old: include_bytes!("../../../protocol/vectors/patch/medium.old"),
    new: include_bytes!("../../../protocol/vectors/patch/medium.new"),
    patch: include_bytes!("../../../protocol/vectors/patch/medium.patch"),
};

/// Of 45 KB, of which 28 KB are in the patch as they are: more chunks than a small buffer takes.
pub(crate) const FRESH: Pair = Pair {
    old: include_bytes!("../../../protocol/vectors/patch/fresh.old"),
    new: include_bytes!("../../../protocol/vectors/patch/fresh.new"),
    patch: include_bytes!("../../../protocol/vectors/patch/fresh.patch"),
};

/// Of 5 KB: less than a block.
pub(crate) const SMALL: Pair = Pair {
    old: include_bytes!("../../../protocol/vectors/patch/small.old"),
    new: include_bytes!("../../../protocol/vectors/patch/small.new"),
    patch: include_bytes!("../../../protocol/vectors/patch/small.patch"),
};

impl Pair {
    /// The old image as a manifest names it.
    pub(crate) fn base(&self) -> ImageId {
        ImageId { digest: Digest::of(self.old), size: self.old.len() as u64 }
    }

    pub(crate) fn decoder(&self) -> DecoderMemory {
        Header::decode(self.patch).unwrap().0.decoder()
    }

    /// A release whose payload is the patch.
    pub(crate) fn release(&self, fixture: &Fixture) -> Release {
        self.release_of(fixture, self.patch.to_vec(), self.decoder())
    }

    /// A release whose payload is something else and says that it is this patch.
    pub(crate) fn release_of(&self, fixture: &Fixture, bytes: Vec<u8>, decoder: DecoderMemory) -> Release {
        let payload = Payload { bytes, decoder: Some(decoder), chunk_size_log2: 10 };
        Release::with_patch(fixture, self.new.to_vec(), payload, self.base(), 1)
    }
}

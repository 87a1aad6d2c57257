//! A patch that is applied as it arrives: what of it is kept, what is claimed of it after a restart, and how little room
//! it takes.

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{PatchMode, PatchOptions, Storage, StorageOptions};
use whimbrel_protocol::chunk::ChunkSet;
use whimbrel_protocol::device::{Found, InstallFailure, InstallOp, StoreFailure, StoreOp};
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::ids::ChunkIndex;
use whimbrel_protocol::limits::JOURNAL_CHUNKS;
use whimbrel_protocol::testing::{SimDisk, Survival};

use crate::power_cut_service::Release;
use crate::storage_support::{
    FRESH, checkpoint, fixture, open, started_with, store, write_chunks, write_pages,
};

/// Four chunks: the fewest there can be.
const RING_BYTES: u64 = 4 * 1024;

fn options(buffer_bytes: u64) -> PatchOptions {
    PatchOptions { mode: PatchMode::Stream, buffer_bytes, flush_bytes: None }
}

fn started(buffer_bytes: u64) -> Storage<SimDisk> {
    started_with(SimDisk::new(), FRESH.old, options(buffer_bytes))
}

fn restarted(storage: Storage<SimDisk>) -> Storage<SimDisk> {
    let options = StorageOptions { patch: options(RING_BYTES), ..StorageOptions::default() };
    Storage::start(storage.into_disk(), EnvironmentBoot::new(), options).unwrap()
}

fn count(release: &Release) -> u32 {
    release.transfer.layout.chunk_count()
}

/// Chunks that are asked for as far as the medium reaches, the last of them first: as a bad link delivers them.
fn arrives_backwards(storage: &mut Storage<SimDisk>, release: &Release, mut found: Found) {
    while !found.held.is_complete() {
        let first = found.held.watermark();
        let missing: Vec<u32> = found.held.missing_in(first..first.saturating_add(found.reach)).collect();
        write_chunks(storage, release, missing.iter().rev().copied());
        for chunk in missing {
            found.held.insert(ChunkIndex(chunk));
        }
    }
    checkpoint(storage, release, 0..count(release));
}

#[test]
fn chunks_in_any_order_within_the_reach_become_the_image_through_a_ring_of_four() {
    let release = FRESH.release(&fixture());
    let mut storage = started(RING_BYTES);
    let found = open(&mut storage, &release).unwrap();
    write_pages(&mut storage, &release);
    assert!(count(&release) > 20);
    assert_eq!(found.reach, 2);
    arrives_backwards(&mut storage, &release, found);
    assert!(storage.disk_mut().len(Area::Staging).unwrap() <= RING_BYTES);
    assert_eq!(storage.install(InstallOp::Install), Ok(()));
    assert!(storage.disk_mut().durable_content(Area::SlotB) == FRESH.new);
    assert!(storage.disk_mut().durable_content(Area::SlotA) == FRESH.old);
}

/// The image grows while chunks arrive: nothing waits for the last one.
#[test]
fn most_of_the_image_is_written_before_the_last_chunk_arrives() {
    let release = FRESH.release(&fixture());
    let mut storage = started(RING_BYTES);
    open(&mut storage, &release).unwrap();
    write_pages(&mut storage, &release);
    write_chunks(&mut storage, &release, 0..count(&release) - 1);
    let content = storage.disk_mut().content(Area::SlotB);
    assert!(content[..16 * 1024] == FRESH.new[..16 * 1024]);
}

/// A ring with room for all of the patch holds all of it, and reaches as far as a journal does.
#[test]
fn a_patch_that_fits_the_buffer_is_reached_as_a_whole() {
    let release = FRESH.release(&fixture());
    let mut storage = started(1024 * 1024);
    assert_eq!(open(&mut storage, &release).unwrap().reach, JOURNAL_CHUNKS);
    assert_eq!(storage.disk_mut().len(Area::Staging), Ok(release.payload.len() as u64));
}

#[test]
fn a_chunk_beyond_the_reach_is_refused_and_what_is_kept_stays() {
    let release = FRESH.release(&fixture());
    let mut storage = started(RING_BYTES);
    open(&mut storage, &release).unwrap();
    write_pages(&mut storage, &release);
    write_chunks(&mut storage, &release, 1..2);
    checkpoint(&mut storage, &release, 1..2);
    let bytes = release.payload[9 * 1024..10 * 1024].to_vec();
    let beyond = StoreOp::WriteChunks { first: ChunkIndex(9), bytes };
    assert_eq!(store(&mut storage, beyond), Err(StoreFailure::Failed));
    let mut storage = restarted(storage);
    assert!(open(&mut storage, &release).unwrap().held.contains(ChunkIndex(1)));
}

/// After every chunk the power goes, with nothing surviving that was not flushed: what a checkpoint claimed is held,
/// whether it lies in the ring or in the saved state.
#[test]
fn what_a_checkpoint_claims_is_held_after_a_cut() {
    let release = FRESH.release(&fixture());
    let mut storage = started(RING_BYTES);
    let mut held = open(&mut storage, &release).unwrap().held;
    write_pages(&mut storage, &release);
    for chunk in 0..count(&release) {
        write_chunks(&mut storage, &release, chunk..chunk + 1);
        checkpoint(&mut storage, &release, 0..chunk + 1);
        storage.disk_mut().power_cut(Survival::None, 1);
        storage = restarted(storage);
        held = open(&mut storage, &release).unwrap().held;
        assert_eq!(held.watermark(), chunk + 1);
    }
    assert!(held.is_complete());
    assert_eq!(storage.install(InstallOp::Install), Ok(()));
    assert!(storage.disk_mut().durable_content(Area::SlotB) == FRESH.new);
}

/// Three quarters of the patch, of which the saved state has used up most.
fn half_way() -> (Storage<SimDisk>, Release, ChunkSet) {
    let release = FRESH.release(&fixture());
    let mut storage = started(RING_BYTES);
    open(&mut storage, &release).unwrap();
    write_pages(&mut storage, &release);
    let half = count(&release) * 3 / 4;
    write_chunks(&mut storage, &release, 0..half);
    checkpoint(&mut storage, &release, 0..half);
    storage.disk_mut().power_cut(Survival::None, 2);
    let mut storage = restarted(storage);
    let held = open(&mut storage, &release).unwrap().held;
    assert_eq!(held.len(), half);
    (storage, release, held)
}

/// Without its newest state a stream goes on from the one before, without any from its start; what is not in the ring
/// any more is fetched again.
#[test]
fn a_stream_that_lost_its_states_fetches_again_and_becomes_the_image() {
    let (storage, release, held) = half_way();
    let disk = storage.into_disk();
    let stride = (disk.content(Area::Progress).len() as u64 - 8192) / 2;
    for damaged in [vec![], vec![8192], vec![8192 + stride], vec![8192, 8192 + stride], vec![0, 4096]] {
        let mut disk = disk.clone();
        damaged.iter().for_each(|at| disk.flip(Area::Progress, at * 8 + 300));
        let patch = options(RING_BYTES);
        let mut storage = Storage::start(
            disk,
            EnvironmentBoot::new(),
            StorageOptions { patch, ..StorageOptions::default() },
        )
        .unwrap();
        let found = open(&mut storage, &release).unwrap();
        let lost = held.len() - found.held.len();
        assert_eq!(lost > 8, damaged.len() == 2, "{damaged:?}: {lost} chunks");
        arrives_backwards(&mut storage, &release, found);
        assert_eq!(storage.install(InstallOp::Install), Ok(()), "{damaged:?}");
        assert!(storage.disk_mut().durable_content(Area::SlotB) == FRESH.new);
    }
}

/// What the state has used up cannot be gone over again: a wrong image ends the patch, and nothing of it is kept.
#[test]
fn a_block_that_rots_below_the_saved_position_ends_a_stream() {
    let (mut storage, release, _) = half_way();
    storage.disk_mut().flip(Area::SlotB, 99);
    let found = open(&mut storage, &release).unwrap();
    arrives_backwards(&mut storage, &release, found);
    assert_eq!(storage.install(InstallOp::Install), Err(InstallFailure::Mismatch));
    assert!(open(&mut storage, &release).unwrap().held.is_empty());
}

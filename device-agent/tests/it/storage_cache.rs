//! What is only in the cache: it is flushed and read back before it is believed, and before anything claims it.

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{PatchMode, PatchOptions, Storage, StorageOptions};
use whimbrel_protocol::device::{InstallFailure, InstallOp};
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::manifest::{Codec, Filter};
use whimbrel_protocol::testing::{DiskFault, DiskStep, SimDisk, Survival};

use crate::power_cut::image;
use crate::power_cut_service::{Payload, Release, compress};
use crate::storage_lying::{Lying, lies};
use crate::storage_support::{
    FRESH, checkpoint, download, fixture, open, started, started_with, write_chunks, write_pages,
};

const IMAGE_BYTES: usize = 40 * 1024;

/// What an agent goes on from as it finds it. Payloads and pages are hashed when they are opened.
const SMALL: [Area; 6] =
    [Area::BootDefault, Area::BootEnvironment, Area::Record, Area::Manifests, Area::Journal, Area::Progress];

/// A medium that was used, with sixteen sectors of room behind what is in each small area.
fn used() -> (SimDisk, [u64; SMALL.len()]) {
    let mut disk = started(SimDisk::new()).into_disk();
    let ends = SMALL.map(|area| {
        let end = disk.len(area).unwrap().next_multiple_of(512);
        disk.reserve(area, end + 16 * 512).unwrap();
        end
    });
    (disk, ends)
}

#[test]
fn what_a_killed_process_left_in_the_cache_is_durable_before_it_is_gone_on_from() {
    let (mut disk, ends) = used();
    for (area, end) in SMALL.into_iter().zip(ends) {
        disk.write(area, end, &[7; 16 * 512]).unwrap();
    }
    disk.kill();
    let disk = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap().into_disk();
    for (area, end) in SMALL.into_iter().zip(ends) {
        assert_eq!(disk.durable_content(area)[end as usize..], [7; 16 * 512], "{area:?}");
    }
}

/// Pages of a failed flush read as written and are not on the medium, nor will they ever be.
#[test]
fn what_a_failed_flush_left_in_the_cache_is_not_gone_on_from() {
    let (mut disk, ends) = used();
    for (area, end) in SMALL.into_iter().zip(ends) {
        disk.write(area, end, &[7; 16 * 512]).unwrap();
        disk.fail_at(DiskFault::Failed, disk.calls(DiskFault::Failed) + 1, false);
        assert!(disk.flush(area).is_err());
        assert!(disk.content(area) != disk.durable_content(area), "{area:?}");
    }
    disk.kill();
    disk.heal();
    let disk = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap().into_disk();
    for area in SMALL {
        assert!(disk.content(area) == disk.durable_content(area), "{area:?}");
    }
}

/// A page that is dirty when the cache is dropped stays there, and is not read from the medium afterwards.
#[test]
fn each_small_area_is_flushed_before_its_cache_is_dropped_and_both_before_anything_is_written() {
    let (mut disk, _) = used();
    // Something to write: the environment is lost.
    disk.zero(Area::BootEnvironment);
    disk.start_trace();
    let disk = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap().into_disk();
    let steps = SMALL.into_iter().flat_map(|area| [DiskStep::Flush(area), DiskStep::DropCache(area)]);
    let steps: Vec<_> = steps.collect();
    assert_eq!(disk.trace()[..steps.len()], steps);
    assert!(disk.trace().len() > steps.len());
}

/// Half of what a failed flush should have written is not there, although reads still give it.
#[test]
fn chunks_and_pages_that_are_only_in_the_cache_of_a_failed_flush_are_missing() {
    for (codec, area) in [(Codec::Raw, Area::SlotB), (Codec::Lzma, Area::Staging)] {
        let release = Release::new(&fixture(), codec, image(1, IMAGE_BYTES), 1);
        let count = release.transfer.layout.chunk_count();
        for failing in [area, Area::Index] {
            let mut storage = started(SimDisk::new());
            open(&mut storage, &release).unwrap();
            write_pages(&mut storage, &release);
            write_chunks(&mut storage, &release, 0..count);
            let other = if failing == area { Area::Index } else { area };
            storage.disk_mut().flush(other).unwrap();
            let next = storage.disk_mut().calls(DiskFault::Failed) + 1;
            storage.disk_mut().fail_at(DiskFault::Failed, next, false);
            assert!(storage.disk_mut().flush(failing).is_err());
            storage.disk_mut().heal();
            let mut storage =
                Storage::start(storage.into_disk(), EnvironmentBoot::new(), StorageOptions::default())
                    .unwrap();
            let found = open(&mut storage, &release).unwrap().held;
            let mut disk = storage.into_disk();
            disk.power_cut(Survival::None, 1);
            let mut storage =
                Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
            let place = format!("{}, {failing:?}", codec.name());
            assert!(found.len() < count, "{place} was not flushed");
            assert_eq!(open(&mut storage, &release).unwrap().held, found, "{place}");
        }
    }
}

/// What is done for a checkpoint, in the order in which it is done.
fn steps_of_a_checkpoint(storage: &mut Storage<SimDisk>, release: &Release, chunks: u32) -> Vec<DiskStep> {
    storage.disk_mut().start_trace();
    checkpoint(storage, release, 0..chunks);
    storage.disk_mut().trace().to_vec()
}

#[test]
fn chunks_then_their_pages_are_flushed_before_the_journal_claims_them() {
    for (codec, area) in [(Codec::Raw, Area::SlotB), (Codec::Lzma, Area::Staging)] {
        let release = Release::new(&fixture(), codec, image(1, IMAGE_BYTES), 1);
        let mut storage = started(SimDisk::new());
        open(&mut storage, &release).unwrap();
        write_pages(&mut storage, &release);
        write_chunks(&mut storage, &release, 0..4);
        let claim = |offset| DiskStep::Write { area: Area::Journal, offset, len: 512 };
        let (chunks, pages, claimed) =
            (DiskStep::Flush(area), DiskStep::Flush(Area::Index), DiskStep::Flush(Area::Journal));
        let steps = steps_of_a_checkpoint(&mut storage, &release, 4);
        assert_eq!(steps, [chunks, pages, claim(0), claimed], "{}", codec.name());
        // No page was written since.
        write_chunks(&mut storage, &release, 4..8);
        let steps = steps_of_a_checkpoint(&mut storage, &release, 8);
        assert_eq!(steps, [chunks, claim(4096), claimed], "{}", codec.name());
        write_pages(&mut storage, &release);
        let steps = steps_of_a_checkpoint(&mut storage, &release, 8);
        assert_eq!(steps, [chunks, pages, claim(0), claimed], "{}", codec.name());
    }
}

/// What a killed process had written and not claimed is found in the cache, and claimed when it is durable.
#[test]
fn what_is_found_in_the_cache_is_durable_before_it_is_claimed() {
    let release = Release::new(&fixture(), Codec::Raw, image(1, IMAGE_BYTES), 1);
    let mut storage = started(SimDisk::new());
    open(&mut storage, &release).unwrap();
    write_pages(&mut storage, &release);
    write_chunks(&mut storage, &release, 0..10);
    let mut disk = storage.into_disk();
    disk.kill();
    let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
    assert_eq!(open(&mut storage, &release).unwrap().held.len(), 10);
    let mut disk = storage.into_disk();
    disk.power_cut(Survival::None, 1);
    let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
    let found = open(&mut storage, &release).unwrap();
    assert_eq!((found.held.len(), found.held.next_missing(0)), (10, Some(10)));
    assert_eq!(found.bytes_received, 10 * 1024);
    // What the journal claims already is not claimed again.
    storage.disk_mut().start_trace();
    assert_eq!(open(&mut storage, &release).unwrap().held.len(), 10);
    let writes = |step: &&DiskStep| matches!(step, DiskStep::Write { .. });
    assert_eq!(storage.disk_mut().trace().iter().find(writes), None);
}

/// The index's header is cleared durably, so that what does not become the image is not found again.
#[test]
fn a_payload_that_was_found_wrong_is_forgotten_also_after_a_power_cut() {
    let (bytes, header) = compress(&image(1, IMAGE_BYTES), Filter::None);
    let payload = Payload { bytes, decoder: Some(header.decoder()), chunk_size_log2: 10 };
    let release = Release::with_payload(&fixture(), image(2, IMAGE_BYTES), payload, 1);
    let mut storage = started(SimDisk::new());
    download(&mut storage, &release);
    assert_eq!(storage.last_payload(), Some(release.transfer.index_digest));
    assert_eq!(storage.install(InstallOp::Install), Err(InstallFailure::Mismatch));
    let mut disk = storage.into_disk();
    disk.power_cut(Survival::None, 1);
    let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
    assert_eq!(storage.last_payload(), None);
    assert!(open(&mut storage, &release).unwrap().held.is_empty());
}

/// The image counts as installed only when it was read from the medium itself.
#[test]
fn an_image_that_the_medium_took_and_does_not_have_is_not_installed() {
    for codec in [Codec::Raw, Codec::Lzma] {
        for lie in lies(&[Area::SlotB]) {
            let release = Release::new(&fixture(), codec, image(1, IMAGE_BYTES), 1);
            let mut storage = started(Lying::new());
            storage.disk_mut().lies = Some(lie);
            download(&mut storage, &release);
            assert_eq!(storage.install(InstallOp::Install), Err(InstallFailure::Failed), "{lie:?}");
        }
    }
}

#[test]
fn an_image_is_durable_when_it_is_installed() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let release = Release::new(&fixture(), codec, image(1, IMAGE_BYTES), 1);
        let mut storage = started(SimDisk::new());
        download(&mut storage, &release);
        storage.install(InstallOp::Install).unwrap();
        let mut disk = storage.into_disk();
        disk.power_cut(Survival::None, 1);
        assert!(disk.content(Area::SlotB) == release.image, "{}", codec.name());
    }
}

/// A note that counts what a power cut can take back would make the decoder go on behind a gap.
#[test]
fn what_a_patch_has_made_is_flushed_before_its_progress_is_noted() {
    for mode in PatchMode::ALL {
        let patch = PatchOptions { mode, flush_bytes: Some(16 * 1024), ..PatchOptions::default() };
        let mut storage = started_with(SimDisk::new(), FRESH.old, patch);
        storage.disk_mut().start_trace();
        download(&mut storage, &FRESH.release(&fixture()));
        storage.install(InstallOp::Install).unwrap();
        let (mut unflushed, mut notes) = (false, 0);
        for step in storage.disk_mut().trace() {
            match step {
                DiskStep::Write { area: Area::SlotB, .. } => unflushed = true,
                DiskStep::Flush(Area::SlotB) => unflushed = false,
                DiskStep::Write { area: Area::Progress, .. } => {
                    assert!(!unflushed, "{}: note {notes}", mode.name());
                    notes += 1;
                }
                _ => {}
            }
        }
        assert!(notes > 1, "{}", mode.name());
    }
}

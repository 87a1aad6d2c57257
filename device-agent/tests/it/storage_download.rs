//! What a download leaves on the medium and what is found of it again; the device's record.

use whimbrel_engine::MemoryDisk;
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{LoadedRecord, Storage, StorageOptions};
use whimbrel_protocol::device::{Record, StoreFailure, StoreOp};
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::ids::ChunkIndex;
use whimbrel_protocol::limits::RECORD_BYTES_MAX;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::{SimDisk, Survival};

use crate::power_cut::image;
use crate::power_cut_service::Release;
use crate::storage_support::{
    checkpoint, download, fixture, open, read, started, store, write_chunks, write_pages,
};

/// 700 chunks: two pages and a list.
fn release(seed: u8) -> Release {
    Release::new(&fixture(), Codec::Raw, image(seed, 700 * 1024 - 3), u64::from(seed))
}

fn restarted<D: Disk>(storage: Storage<D>) -> Storage<D> {
    Storage::start(storage.into_disk(), EnvironmentBoot::new(), StorageOptions::default()).unwrap()
}

fn missing(found: &whimbrel_protocol::device::Found) -> Vec<u32> {
    found.held.missing_in(0..u32::MAX).collect()
}

#[test]
fn what_was_downloaded_is_found_by_a_restarted_agent() {
    let release = release(1);
    let mut storage = started(MemoryDisk::new());
    assert!(open(&mut storage, &release).unwrap().held.is_empty());
    write_pages(&mut storage, &release);
    let held = (0..600).filter(|chunk| *chunk != 17);
    write_chunks(&mut storage, &release, held.clone());
    checkpoint(&mut storage, &release, held);
    let mut storage = restarted(storage);
    let found = open(&mut storage, &release).unwrap();
    assert_eq!(missing(&found), [17].into_iter().chain(600..700).collect::<Vec<_>>());
    assert_eq!(found.bytes_received, 599 * 1024);
}

/// Chunks that came after the last checkpoint are on the medium when only the process was killed: the note of
/// what was asked for says where to look.
#[test]
fn what_came_after_the_last_checkpoint_is_found_where_it_was_asked_for() {
    let release = release(1);
    let mut storage = started(MemoryDisk::new());
    open(&mut storage, &release).unwrap();
    write_pages(&mut storage, &release);
    write_chunks(&mut storage, &release, 0..20);
    checkpoint(&mut storage, &release, 0..20);
    store(&mut storage, StoreOp::NoteAsked(ChunkIndex(40))).unwrap();
    write_chunks(&mut storage, &release, (20..40).filter(|chunk| chunk % 2 == 0));
    write_chunks(&mut storage, &release, 40..50);
    let mut storage = restarted(storage);
    let found = open(&mut storage, &release).unwrap();
    assert_eq!(missing(&found)[..10], [21, 23, 25, 27, 29, 31, 33, 35, 37, 39]);
    assert_eq!(missing(&found)[10], 40);
    assert_eq!(found.asked, ChunkIndex(40));
    assert_eq!(found.bytes_received, 30 * 1024);
}

/// What was asked for once more before it arrived cost the link twice, also where the process was killed meanwhile.
#[test]
fn what_was_asked_for_again_and_found_counts_as_received_twice() {
    let release = release(1);
    for (asked, again) in [([10, 20], 0), ([20, 20], 20), ([10, 10], 10)] {
        let mut storage = started(MemoryDisk::new());
        open(&mut storage, &release).unwrap();
        write_pages(&mut storage, &release);
        write_chunks(&mut storage, &release, 0..5);
        checkpoint(&mut storage, &release, 0..5);
        for asked in asked {
            store(&mut storage, StoreOp::NoteAsked(ChunkIndex(asked))).unwrap();
        }
        write_chunks(&mut storage, &release, 5..asked[1]);
        let mut storage = restarted(storage);
        let found = open(&mut storage, &release).unwrap();
        let bytes = |below: u32| u64::from(below) * 1024;
        assert_eq!(found.bytes_received, bytes(asked[1]));
        // The first five were claimed, and counted when they were.
        assert_eq!(found.bytes_twice, bytes(again).saturating_sub(bytes(5)), "{asked:?}");
        let mut storage = restarted(storage);
        let again = open(&mut storage, &release).unwrap();
        assert_eq!((again.bytes_received, again.bytes_twice), (found.bytes_received, found.bytes_twice));
    }
}

/// The journal is a hint: a chunk that it claims and that is not there is missing.
#[test]
fn a_journal_that_claims_what_is_not_there_is_not_believed() {
    let release = release(1);
    let mut storage = started(MemoryDisk::new());
    open(&mut storage, &release).unwrap();
    write_pages(&mut storage, &release);
    write_chunks(&mut storage, &release, 0..10);
    checkpoint(&mut storage, &release, 0..700);
    assert!(storage.disk_mut().flip(Area::SlotB, 3 * 1024 * 8));
    let found = open(&mut storage, &release).unwrap();
    assert_eq!(missing(&found), [3].into_iter().chain(10..700).collect::<Vec<_>>());
}

#[test]
fn without_a_journal_everything_is_looked_at() {
    let release = release(1);
    let mut storage = started(MemoryDisk::new());
    download(&mut storage, &release);
    for copy in 0..2 {
        assert!(storage.disk_mut().flip(Area::Journal, copy * 4096 * 8 + 100));
    }
    assert!(open(&mut storage, &release).unwrap().held.is_complete());
}

/// A chunk is believed only by its page, and a page only by the manifest.
#[test]
fn chunks_whose_page_is_lost_are_missing() {
    let release = release(1);
    let mut storage = started(MemoryDisk::new());
    download(&mut storage, &release);
    assert!(storage.disk_mut().flip(Area::Index, 2 * 4096 * 8 + 7));
    assert_eq!(missing(&open(&mut storage, &release).unwrap()), (512..700).collect::<Vec<_>>());
    assert!(storage.disk_mut().flip(Area::Index, 64 * 8));
    assert!(open(&mut storage, &release).unwrap().held.is_empty());
}

/// The key is the index digest: another campaign of the same payload goes on with it, another payload does not.
#[test]
fn a_payload_is_found_by_its_index_digest() {
    let (one, other) = (release(1), release(2));
    let mut storage = started(MemoryDisk::new());
    download(&mut storage, &one);
    store(&mut storage, StoreOp::Close).unwrap();
    let again = Release::new(&fixture(), Codec::Raw, one.image.clone(), 99);
    assert_ne!(again.digest, one.digest);
    assert!(open(&mut storage, &again).unwrap().held.is_complete());
    assert!(open(&mut storage, &other).unwrap().held.is_empty());
    assert!(open(&mut storage, &one).unwrap().held.is_empty());
}

#[test]
fn operations_out_of_turn_or_out_of_range_fail_and_change_nothing() {
    let release = release(1);
    let mut storage = started(MemoryDisk::new());
    let chunk = |first, len| StoreOp::WriteChunks { first: ChunkIndex(first), bytes: vec![1; len] };
    assert_eq!(store(&mut storage, chunk(0, 1024)), Err(StoreFailure::Failed));
    open(&mut storage, &release).unwrap();
    let before = read(storage.disk_mut(), Area::SlotB);
    assert_eq!(store(&mut storage, chunk(699, 1024)), Err(StoreFailure::Failed));
    assert_eq!(store(&mut storage, chunk(u32::MAX, 1)), Err(StoreFailure::Failed));
    let page = |number, len| StoreOp::WritePage {
        page: whimbrel_protocol::message::PageNumber::Page(number),
        bytes: vec![0; len],
    };
    assert_eq!(store(&mut storage, page(2, 0)), Err(StoreFailure::Failed));
    assert_eq!(store(&mut storage, page(0, 4095)), Err(StoreFailure::Failed));
    assert_eq!(store(&mut storage, StoreOp::SaveRecord(vec![0; 32 * 1024 + 1])), Err(StoreFailure::Failed));
    assert!(read(storage.disk_mut(), Area::SlotB) == before);
}

/// The areas have room for more: an earlier payload was longer.
#[test]
fn nothing_is_written_behind_the_end_of_a_payload() {
    let mut storage = started(MemoryDisk::new());
    open(&mut storage, &release(1)).unwrap();
    let short = Release::new(&fixture(), Codec::Raw, image(2, 10 * 1024 - 3), 2);
    open(&mut storage, &short).unwrap();
    let before = read(storage.disk_mut(), Area::SlotB);
    for (first, len) in [(9, 1022), (9, 1024), (8, 2 * 1024), (10, 1), (0, 10 * 1024)] {
        let op = StoreOp::WriteChunks { first: ChunkIndex(first), bytes: vec![1; len] };
        assert_eq!(store(&mut storage, op), Err(StoreFailure::Failed), "{len} bytes from chunk {first} on");
    }
    assert!(read(storage.disk_mut(), Area::SlotB) == before);
    let op = StoreOp::WriteChunks { first: ChunkIndex(9), bytes: vec![1; 1021] };
    assert_eq!(store(&mut storage, op), Ok(()));
}

/// No room for the slot, for the staging area or for the index: everything is as it was.
#[test]
fn without_room_for_all_of_it_nothing_is_changed() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let release = Release::new(&fixture(), codec, image(1, 300 * 1024), 1);
        let mut free = started(MemoryDisk::new());
        let small: u64 = Area::ALL.iter().map(|area| free.disk_mut().len(*area).unwrap()).sum();
        open(&mut free, &release).unwrap();
        let all: u64 = Area::ALL.iter().map(|area| free.disk_mut().len(*area).unwrap()).sum();
        for room in [small, small + 5_000, all - 1] {
            let mut storage = started(MemoryDisk::with_capacity(room));
            let before = Area::ALL.map(|area| read(storage.disk_mut(), area));
            assert_eq!(open(&mut storage, &release), Err(StoreFailure::NoRoom), "{room} of {all}");
            assert!(before == Area::ALL.map(|area| read(storage.disk_mut(), area)));
        }
        assert!(open(&mut started(MemoryDisk::with_capacity(all)), &release).is_ok());
    }
}

fn record(number: u64) -> Record {
    Record { next_report: number, min_sequence: 5, ..Record::default() }
}

#[test]
fn the_newest_whole_copy_of_the_record_counts() {
    let mut storage = started(MemoryDisk::new());
    assert_eq!(storage.load_record().unwrap(), LoadedRecord::Fresh);
    for number in 1..=5 {
        store(&mut storage, StoreOp::SaveRecord(record(number).encode())).unwrap();
        storage = restarted(storage);
        assert_eq!(storage.load_record().unwrap(), LoadedRecord::Found(Box::new(record(number))));
    }
    // The fifth is in the first copy.
    assert!(storage.disk_mut().flip(Area::Record, 50 * 8));
    assert_eq!(storage.load_record().unwrap(), LoadedRecord::Found(Box::new(record(4))));
    assert!(storage.disk_mut().flip(Area::Record, (36 * 1024 + 50) * 8));
    assert_eq!(storage.load_record().unwrap(), LoadedRecord::Damaged);
    store(&mut storage, StoreOp::SaveRecord(record(6).encode())).unwrap();
    assert_eq!(storage.load_record().unwrap(), LoadedRecord::Found(Box::new(record(6))));
}

#[test]
fn a_record_may_have_as_many_bytes_as_it_may_have() {
    let mut storage = started(MemoryDisk::new());
    assert_eq!(store(&mut storage, StoreOp::SaveRecord(vec![0; RECORD_BYTES_MAX])), Ok(()));
    let more = vec![0; RECORD_BYTES_MAX + 1];
    assert_eq!(store(&mut storage, StoreOp::SaveRecord(more)), Err(StoreFailure::Failed));
}

/// Every torn state of the copy that is being written leaves the other one, or the new one whole.
#[test]
fn a_torn_record_never_counts() {
    let long = |number| Record { root: vec![number; 3000], ..record(u64::from(number)) };
    let mut storage = started(SimDisk::new());
    store(&mut storage, StoreOp::SaveRecord(long(1).encode())).unwrap();
    let mut cut = storage.into_disk();
    cut.kill();
    let mut seen = [0, 0];
    for seed in 0..2000 {
        let mut disk = cut.clone();
        let mut storage =
            Storage::start(&mut disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
        storage.disk_mut().kill();
        storage.disk_mut().crash_at(1 + seed % 2);
        assert!(store(&mut storage, StoreOp::SaveRecord(long(2).encode())).is_err());
        disk.power_cut(Survival::ALL[seed as usize / 2 % 4], seed);
        let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
        let LoadedRecord::Found(found) = storage.load_record().unwrap() else {
            panic!("seed {seed}: no record");
        };
        let number = usize::from(*found == long(2));
        assert!(number == 1 || *found == long(1), "seed {seed}");
        seen[number] += 1;
    }
    assert!(seen[0] > 0, "{seen:?}");
}

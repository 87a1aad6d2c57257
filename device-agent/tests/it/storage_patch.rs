//! A patch that is stored whole becomes its image: what is read and written for it, what does not count, and what is
//! left of it after a restart.

use whimbrel_agent::disk::FileDisk;
use whimbrel_engine::MemoryDisk;
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{PatchMode, PatchOptions, Storage, StorageOptions};
use whimbrel_protocol::device::{InstallFailure, InstallOp};
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::manifest::DecoderMemory;
use whimbrel_protocol::patch::Header;
use whimbrel_protocol::testing::{DiskStep, SimDisk};

use crate::power_cut_service::Release;
use crate::storage_support::{FRESH, MEDIUM, Pair, SMALL, download, fixture, open, read, started_with};

const BLOCK: u64 = 16 * 1024;

/// Notes progress after every block.
fn options(mode: PatchMode) -> PatchOptions {
    PatchOptions { mode, flush_bytes: Some(BLOCK), ..PatchOptions::default() }
}

fn started(mode: PatchMode, pair: &Pair) -> Storage<SimDisk> {
    started_with(SimDisk::new(), pair.old, options(mode))
}

fn restarted(storage: Storage<SimDisk>, mode: PatchMode) -> Storage<SimDisk> {
    let patch = options(mode);
    Storage::start(
        storage.into_disk(),
        EnvironmentBoot::new(),
        StorageOptions { patch, ..StorageOptions::default() },
    )
    .unwrap()
}

/// Runs an installation until power goes during the operation with this number, and starts again.
fn cut_at(mut storage: Storage<SimDisk>, operation: u64, mode: PatchMode) -> Storage<SimDisk> {
    let disk = storage.disk_mut();
    disk.crash_at(disk.operations() + operation);
    assert!(storage.install(InstallOp::Install).is_err(), "power went");
    storage.disk_mut().power_cut(whimbrel_protocol::testing::Survival::None, operation);
    restarted(storage, mode)
}

/// Bytes that an operation writes to `area`.
fn written(storage: &mut Storage<SimDisk>, area: Area, what: impl FnOnce(&mut Storage<SimDisk>)) -> usize {
    storage.disk_mut().start_trace();
    what(storage);
    let steps = storage.disk_mut().trace();
    let lens = steps.iter().map(|step| match step {
        DiskStep::Write { area: other, len, .. } if *other == area => *len,
        _ => 0,
    });
    lens.sum()
}

#[test]
fn a_patch_becomes_its_image_and_what_runs_is_only_read() {
    for pair in [SMALL, MEDIUM, FRESH] {
        for mode in PatchMode::ALL {
            let release = pair.release(&fixture());
            let mut storage = started(mode, &pair);
            let touched = written(&mut storage, Area::SlotA, |storage| {
                download(storage, &release);
                assert_eq!(storage.install(InstallOp::Install), Ok(()), "{}", mode.name());
            });
            assert_eq!(touched, 0);
            assert!(storage.disk_mut().durable_content(Area::SlotA) == pair.old);
            assert!(storage.disk_mut().durable_content(Area::SlotB) == pair.new);
        }
    }
}

/// Installs a payload that claims to be the patch, in every mode.
fn spoilt(pair: &Pair, spoil: impl Fn(&mut Vec<u8>, &mut DecoderMemory)) -> Vec<Result<(), InstallFailure>> {
    let (mut bytes, mut decoder) = (pair.patch.to_vec(), pair.decoder());
    spoil(&mut bytes, &mut decoder);
    let release = pair.release_of(&fixture(), bytes, decoder);
    let install = |mode| {
        let mut storage = started(mode, pair);
        download(&mut storage, &release);
        let result = storage.install(InstallOp::Install);
        let found = open(&mut storage, &release).unwrap().held;
        assert!(result.is_ok() || found.is_empty(), "nothing of what does not decode is kept");
        result
    };
    PatchMode::ALL.into_iter().map(install).collect()
}

#[test]
fn a_patch_that_is_not_what_was_signed_is_refused_and_not_kept() {
    let refused = vec![Err(InstallFailure::Decode); 3];
    assert_eq!(spoilt(&MEDIUM, |_, _| {}), vec![Ok(()); 3]);
    assert_eq!(spoilt(&MEDIUM, |patch, _| patch.push(0)), refused, "a byte follows");
    assert_eq!(spoilt(&MEDIUM, |patch, _| patch.extend([0; 5000])), refused, "many bytes follow");
    assert_eq!(spoilt(&MEDIUM, |patch, _| patch.truncate(patch.len() / 2)), refused, "half of it");
    assert_eq!(spoilt(&MEDIUM, |patch, _| patch.truncate(20)), refused, "half a header");
    assert_eq!(spoilt(&MEDIUM, |patch, _| patch[0] ^= 0xff), refused, "no header");
    assert_eq!(
        spoilt(&MEDIUM, |patch, _| *patch = SMALL.patch.to_vec()),
        refused,
        "a patch for another image"
    );
}

#[test]
fn a_patch_that_needs_more_memory_than_was_signed_is_refused() {
    let refused = vec![Err(InstallFailure::Decode); 3];
    assert_eq!(spoilt(&MEDIUM, |_, decoder| decoder.memory_bytes -= 1), refused);
    assert_eq!(spoilt(&MEDIUM, |_, decoder| decoder.dictionary_bytes -= 1), refused);
}

/// The manifest says that the running image is the base, and the patch says that it starts from another.
#[test]
fn a_patch_for_another_base_is_refused() {
    for mode in PatchMode::ALL {
        let mut release = MEDIUM.release(&fixture());
        release.base = Some(SMALL.base());
        let mut storage = started(mode, &MEDIUM);
        download(&mut storage, &release);
        assert_eq!(storage.install(InstallOp::Install), Err(InstallFailure::Decode));
    }
}

/// The bit flipped after the slot was compared with the manifest: only the digest of what comes out can tell.
#[test]
fn a_base_with_one_flipped_bit_gives_no_image() {
    for mode in PatchMode::ALL {
        let release = MEDIUM.release(&fixture());
        let mut wrong = 0;
        for bit in (0..MEDIUM.old.len() as u64 * 8).step_by(4001) {
            let mut storage = started(mode, &MEDIUM);
            download_after(&mut storage, &release, |disk| disk.flip(Area::SlotA, bit));
            match storage.install(InstallOp::Install) {
                // The patch does not use every byte of the base.
                Ok(()) => assert!(storage.disk_mut().durable_content(Area::SlotB) == MEDIUM.new),
                Err(InstallFailure::Mismatch | InstallFailure::Decode) => {
                    wrong += 1;
                    assert!(open(&mut storage, &release).unwrap().held.is_empty(), "nothing of it is kept");
                }
                Err(other) => panic!("bit {bit}: {other:?}"),
            }
        }
        println!("{}: {wrong} of {} bits spoil the image", mode.name(), MEDIUM.old.len() * 8 / 4001 + 1);
    }
}

/// The download, with something done to the medium when the slot has room and before the first chunk.
fn download_after(storage: &mut Storage<SimDisk>, release: &Release, what: impl FnOnce(&mut SimDisk)) {
    open(storage, release).unwrap();
    what(storage.disk_mut());
    download(storage, release);
}

#[test]
fn what_is_in_the_slot_already_is_not_written_again() {
    for mode in [PatchMode::Replay, PatchMode::State] {
        let release = MEDIUM.release(&fixture());
        let mut storage = started(mode, &MEDIUM);
        download(&mut storage, &release);
        let install = |storage: &mut Storage<SimDisk>| storage.install(InstallOp::Install).unwrap();
        assert_eq!(written(&mut storage, Area::SlotB, install), MEDIUM.new.len());
        assert_eq!(written(&mut storage, Area::SlotB, install), 0);
        storage.disk_mut().flip(Area::SlotB, 20_000 * 8);
        assert_eq!(written(&mut storage, Area::SlotB, install), BLOCK as usize, "{}", mode.name());
        assert!(storage.disk_mut().durable_content(Area::SlotB) == MEDIUM.new);
    }
}

/// At most one byte in twenty beyond what has to be written: the patch, and the image.
#[test]
fn progress_takes_few_bytes() {
    for mode in PatchMode::ALL {
        let release = MEDIUM.release(&fixture());
        let patch = PatchOptions { mode, ..PatchOptions::default() };
        let mut storage = started_with(MemoryDisk::new(), MEDIUM.old, patch);
        download(&mut storage, &release);
        let before = storage.disk_mut().bytes_written();
        storage.install(InstallOp::Install).unwrap();
        let beyond = storage.disk_mut().bytes_written() - before;
        assert!(beyond <= MEDIUM.new.len() as u64 * 105 / 100, "{}: {beyond}", mode.name());
    }
}

/// The operations of an installation: write and flush of each block and its note, of which the last block has none.
const INSTALL_WITHOUT_CUT: u64 = 10;

#[test]
fn after_a_cut_replay_writes_only_what_is_not_durable() {
    for operation in 1..INSTALL_WITHOUT_CUT {
        let release = MEDIUM.release(&fixture());
        let mut storage = started(PatchMode::Replay, &MEDIUM);
        download(&mut storage, &release);
        let mut storage = cut_at(storage, operation, PatchMode::Replay);
        let found = open(&mut storage, &release).unwrap();
        assert!(found.held.is_complete(), "nothing is fetched again");
        let kept = storage.disk_mut().durable_content(Area::SlotB);
        let same = kept.chunks(BLOCK as usize).zip(MEDIUM.new.chunks(BLOCK as usize));
        let missing: usize = same.filter(|(have, want)| have != want).map(|(_, want)| want.len()).sum();
        let again = written(&mut storage, Area::SlotB, |storage| {
            assert_eq!(storage.install(InstallOp::Install), Ok(()));
        });
        assert_eq!(again, missing, "operation {operation}");
        assert!(storage.disk_mut().durable_content(Area::SlotB) == MEDIUM.new);
    }
}

/// Runs an installation with saved state until two blocks are noted, then cuts the power.
fn with_two_states() -> (Storage<SimDisk>, Release) {
    let release = MEDIUM.release(&fixture());
    let mut storage = started(PatchMode::State, &MEDIUM);
    download(&mut storage, &release);
    // Write, flush, state, record, flush: twice; then the last block is begun.
    let mut storage = cut_at(storage, 11, PatchMode::State);
    assert!(open(&mut storage, &release).unwrap().held.is_complete());
    (storage, release)
}

/// Installs to the end; returns bytes read of the staging area's first half.
fn finishes(storage: &mut Storage<SimDisk>) {
    assert_eq!(storage.install(InstallOp::Install), Ok(()));
    assert!(storage.disk_mut().durable_content(Area::SlotB) == MEDIUM.new);
}

/// The patch's first bytes are gone: only a decoder that does not begin there can do without them.
fn lose_start(storage: &mut Storage<SimDisk>) {
    storage.disk_mut().flip(Area::Staging, 3);
}

#[test]
fn after_a_cut_a_saved_state_goes_on_where_it_was() {
    let (mut storage, _) = with_two_states();
    lose_start(&mut storage);
    let again = written(&mut storage, Area::SlotB, finishes);
    assert_eq!(again, MEDIUM.new.len() - 2 * BLOCK as usize);
}

/// Records at 0 and 4096, states from 8192 on: what each damage leaves to go on from.
#[test]
fn a_damaged_state_or_record_gives_way_to_the_one_before_and_two_to_a_replay() {
    let (storage, release) = with_two_states();
    let disk = storage.into_disk();
    let stride = ((disk.content_len(Area::Progress) - 8192) / 2) as u64;
    // The first state is noted in the first record, the second in the second.
    let (records, states) = ([0, 4096], [8192, 8192 + stride]);
    for (damaged, without_start) in [
        (vec![], true),
        (vec![records[0]], true),
        (vec![records[1]], true),
        (vec![states[0]], true),
        (vec![states[1]], true),
        (vec![records[0], states[1]], false),
        (vec![records[1], states[0]], false),
        (vec![states[0], states[1]], false),
        (vec![records[0], records[1]], false),
    ] {
        for lost in [false, true] {
            let mut disk = disk.clone();
            damaged.iter().for_each(|at| disk.flip(Area::Progress, at * 8 + 77));
            let patch = options(PatchMode::State);
            let mut storage = Storage::start(
                disk,
                EnvironmentBoot::new(),
                StorageOptions { patch, ..StorageOptions::default() },
            )
            .unwrap();
            assert!(open(&mut storage, &release).unwrap().held.is_complete());
            if !lost {
                finishes(&mut storage);
                continue;
            }
            lose_start(&mut storage);
            let result = storage.install(InstallOp::Install);
            let expected = if without_start { Ok(()) } else { Err(InstallFailure::Failed) };
            assert_eq!(result, expected, "{damaged:?}");
        }
    }
}

/// What was durable rots before the end: the digest tells, and the patch is gone over from its start.
#[test]
fn a_block_that_rots_below_the_saved_position_is_written_again() {
    let (mut storage, _) = with_two_states();
    storage.disk_mut().flip(Area::SlotB, 1000);
    let again = written(&mut storage, Area::SlotB, finishes);
    assert_eq!(again, MEDIUM.new.len() - BLOCK as usize, "the last block, and the one that rotted");
}

/// A state that was saved for another slot or another payload is nobody's.
#[test]
fn progress_is_forgotten_when_something_else_goes_into_the_slot() {
    let (mut storage, _) = with_two_states();
    assert!(storage.disk_mut().durable_content(Area::Progress).starts_with(b"WP01"));
    let other = SMALL.release(&fixture());
    open(&mut storage, &other).unwrap_or_else(|error| panic!("{error:?}"));
    let records = storage.disk_mut().durable_content(Area::Progress)[..8192].to_vec();
    assert!(records.chunks(4096).all(|copy| copy[..128] == [0; 128]));
}

#[test]
fn a_record_of_progress_has_these_bytes() {
    let (storage, release) = with_two_states();
    let disk = storage.into_disk();
    let content = disk.durable_content(Area::Progress);
    assert_eq!(FileDisk::name(Area::Progress), "progress.bin");
    for (copy, place, durable) in [(0, 1, BLOCK), (4096, 2, 2 * BLOCK)] {
        let record = &content[copy + 48..copy + 48 + 80];
        assert_eq!(content[copy..copy + 8], *b"WP01\x50\0\0\0");
        assert_eq!(record[..32], release.transfer.index_digest.0);
        assert_eq!(record[32..36], [1, place, 0, 0]);
        assert_eq!(record[40..48], durable.to_le_bytes());
        let stride = (content.len() - 8192) / 2;
        let state = 8192 + usize::from(place - 1) * stride;
        let len = u32::from_le_bytes(record[36..40].try_into().unwrap()) as usize;
        let state = &content[state..state + len];
        assert_eq!(record[48..], whimbrel_protocol::ids::Digest::of(state).0);
        // Where the next block goes, the header's length, no block that is begun.
        let header = Header::decode(MEDIUM.patch).unwrap().1;
        assert_eq!(state[..8], durable.to_le_bytes());
        assert_eq!(state[8..16], [header as u8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(state[120..120 + header], MEDIUM.patch[..header]);
    }
}

trait ContentLen {
    fn content_len(&self, area: Area) -> usize;
}

impl ContentLen for SimDisk {
    fn content_len(&self, area: Area) -> usize {
        self.content(area).len()
    }
}

#[test]
fn without_room_for_state_and_image_nothing_is_changed() {
    let release = MEDIUM.release(&fixture());
    let mut storage = started_with(SimDisk::new(), MEDIUM.old, options(PatchMode::State));
    let needed: u64 = {
        let mut free = started_with(SimDisk::new(), MEDIUM.old, options(PatchMode::State));
        open(&mut free, &release).unwrap();
        Area::ALL.iter().map(|area| free.disk_mut().len(*area).unwrap()).sum()
    };
    storage.disk_mut().set_capacity(Some(needed - 1));
    let before = Area::ALL.map(|area| read(storage.disk_mut(), area));
    assert!(open(&mut storage, &release).is_err());
    assert!(before == Area::ALL.map(|area| read(storage.disk_mut(), area)));
    storage.disk_mut().set_capacity(Some(needed));
    assert!(open(&mut storage, &release).is_ok());
}

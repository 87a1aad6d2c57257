//! From the complete payload to the armed trial: what decodes, what does not, and whose fault it is.

use whimbrel_engine::MemoryDisk;
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::slot::{Slot, SlotFacts};
use whimbrel_engine::storage::Storage;
use whimbrel_protocol::device::{InstallFailure, InstallOp, Place, Trial};
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{Codec, DecoderMemory, Filter, LzmaHeader};

use crate::power_cut::image;
use crate::power_cut_service::{Payload, Release, compress};
use crate::storage_support::{download, fixture, open, read, started};

const IMAGE_BYTES: usize = 100 * 1024 + 17;

/// Installs a payload that claims to be `image` and says what came of it, and how many chunks are found again.
fn install(image: Vec<u8>, payload: Vec<u8>, decoder: DecoderMemory) -> (Result<(), InstallFailure>, u32) {
    let payload = Payload { bytes: payload, decoder: Some(decoder), chunk_size_log2: 10 };
    let release = Release::with_payload(&fixture(), image, payload, 1);
    let mut storage = started(MemoryDisk::new());
    download(&mut storage, &release);
    let result = storage.install(InstallOp::Install);
    (result, open(&mut storage, &release).unwrap().held.len())
}

/// Installs what `spoil` made of a good payload and its announced memory.
fn spoilt(spoil: impl FnOnce(&mut Vec<u8>, &mut DecoderMemory)) -> Result<(), InstallFailure> {
    let image = image(1, IMAGE_BYTES);
    let (mut payload, header) = compress(&image, Filter::None);
    let mut decoder = header.decoder();
    spoil(&mut payload, &mut decoder);
    let (result, found) = install(image, payload, decoder);
    assert!(result.is_ok() || found == 0, "nothing of what does not decode is kept");
    result
}

#[test]
fn an_lzma_payload_becomes_its_image_with_and_without_a_filter() {
    for filter in [Filter::None, Filter::Arm64] {
        let image = image(1, IMAGE_BYTES);
        let (payload, header) = compress(&image, filter);
        assert!(payload.len() < image.len() * 3 / 4);
        let payload = Payload { bytes: payload, decoder: Some(header.decoder()), chunk_size_log2: 10 };
        let release = Release::with_payload(&fixture(), image.clone(), payload, 1);
        let mut storage = started(MemoryDisk::new());
        download(&mut storage, &release);
        assert_eq!(storage.install(InstallOp::Install), Ok(()));
        assert!(read(storage.disk_mut(), Area::SlotB) == image);
    }
}

#[test]
fn a_payload_that_does_not_decode_to_what_was_signed_is_refused_and_not_kept() {
    assert_eq!(spoilt(|_, _| {}), Ok(()));
    let failed = Err(InstallFailure::Decode);
    assert_eq!(spoilt(|payload, _| payload.push(0)), failed, "a byte follows");
    assert_eq!(spoilt(|payload, _| payload.extend([0; 5000])), failed, "many bytes follow");
    assert_eq!(spoilt(|payload, _| payload.truncate(payload.len() - 1)), failed, "a byte is missing");
    assert_eq!(spoilt(|payload, _| payload.truncate(LzmaHeader::BYTES)), failed, "nothing but a head");
    assert_eq!(spoilt(|payload, _| payload.truncate(5)), failed, "half a head");
    assert_eq!(spoilt(|payload, _| payload[0] = 99), failed, "an unknown filter");
    assert_eq!(spoilt(|payload, _| payload[6] ^= 1), failed, "another size than was signed");
}

#[test]
fn a_payload_that_needs_more_memory_than_was_signed_is_refused() {
    let failed = Err(InstallFailure::Decode);
    assert_eq!(spoilt(|_, decoder| decoder.memory_bytes -= 1), failed);
    assert_eq!(spoilt(|_, decoder| decoder.dictionary_bytes -= 1), failed);
    // A dictionary of 8 MiB where 64 KiB were announced.
    assert_eq!(spoilt(|payload, _| payload[2..6].copy_from_slice(&(8u32 << 20).to_le_bytes())), failed);
}

#[test]
fn every_byte_of_a_compressed_payload_matters_or_is_refused() {
    let image = image(1, 4000);
    let (payload, header) = compress(&image, Filter::None);
    for at in 0..payload.len() {
        let mut payload = payload.clone();
        payload[at] ^= 0x20;
        let (result, found) = install(image.clone(), payload, header.decoder());
        match result {
            // The first byte of a range coder's stream means nothing to some decoders.
            Ok(()) => assert_eq!(at, LzmaHeader::BYTES, "byte {at}"),
            Err(InstallFailure::Decode | InstallFailure::Mismatch) => assert_eq!(found, 0),
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
}

/// All chunks are right and the image is another: somebody found a collision, or signed nonsense.
#[test]
fn a_payload_that_becomes_another_image_is_a_mismatch_and_not_kept() {
    let (payload, header) = compress(&image(1, IMAGE_BYTES), Filter::None);
    let (result, found) = install(image(2, IMAGE_BYTES), payload, header.decoder());
    assert_eq!(result, Err(InstallFailure::Mismatch));
    assert_eq!(found, 0);
}

/// Where the medium lost what was verified when it came, only that is fetched again.
#[test]
fn a_chunk_that_rots_before_the_installation_is_the_mediums_fault_and_alone_is_missing() {
    for (codec, area) in [(Codec::Raw, Area::SlotB), (Codec::Lzma, Area::Staging)] {
        let release = Release::new(&fixture(), codec, image(1, IMAGE_BYTES), 1);
        let mut storage = started(MemoryDisk::new());
        download(&mut storage, &release);
        assert!(storage.disk_mut().flip(area, 30_000 * 8 + 3));
        assert_eq!(storage.install(InstallOp::Install), Err(InstallFailure::Failed));
        let found = open(&mut storage, &release).unwrap();
        assert_eq!(found.held.next_missing(0), Some(29), "{}", codec.name());
        assert_eq!(found.held.len(), release.transfer.layout.chunk_count() - 1);
    }
}

#[test]
fn what_is_decoded_already_is_not_written_again() {
    let release = Release::new(&fixture(), Codec::Lzma, image(1, IMAGE_BYTES), 1);
    let mut storage = started(MemoryDisk::new());
    download(&mut storage, &release);
    storage.install(InstallOp::Install).unwrap();
    let before = storage.disk_mut().bytes_written();
    storage.install(InstallOp::Install).unwrap();
    assert_eq!(storage.disk_mut().bytes_written(), before);
    assert!(storage.disk_mut().flip(Area::SlotB, 50_000 * 8));
    storage.install(InstallOp::Install).unwrap();
    assert_eq!(storage.disk_mut().bytes_written(), before + 16 * 1024);
}

fn facts(release: &Release) -> SlotFacts {
    SlotFacts {
        release: release.digest,
        sequence: release.sequence,
        image: Digest::of(&release.image),
        image_size: release.image.len() as u64,
    }
}

fn restarted(storage: Storage<MemoryDisk>) -> Storage<MemoryDisk> {
    Storage::start(
        storage.into_disk(),
        EnvironmentBoot::new(),
        whimbrel_engine::storage::StorageOptions::default(),
    )
    .unwrap()
}

/// A trial is armed only for an image that was hashed on the medium in this run of the agent.
#[test]
fn an_image_is_hashed_before_its_trial_is_armed() {
    let release = Release::new(&fixture(), Codec::Raw, image(1, IMAGE_BYTES), 1);
    let mut storage = started(MemoryDisk::new());
    download(&mut storage, &release);
    storage.install(InstallOp::Install).unwrap();

    let mut storage = restarted(storage);
    assert_eq!(storage.install(InstallOp::Activate), Err(InstallFailure::Mismatch), "nothing is known of it");
    storage.learn(Slot::B, facts(&release));
    assert!(storage.disk_mut().flip(Area::SlotB, 99));
    assert_eq!(storage.install(InstallOp::Activate), Err(InstallFailure::Mismatch), "a bit is wrong");
    assert_eq!(storage.boot_view().trial, Trial::None);
    assert!(storage.disk_mut().flip(Area::SlotB, 99));
    assert_eq!(storage.install(InstallOp::Activate), Ok(()));
    assert_eq!(storage.boot_view().trial, Trial::Armed);
}

#[test]
fn an_image_that_is_there_already_is_found_by_its_digest() {
    let release = Release::new(&fixture(), Codec::Raw, image(1, IMAGE_BYTES), 1);
    let mut storage = started(MemoryDisk::new());
    let (digest, size) = (Digest::of(&release.image), release.image.len() as u64);
    let matches = InstallOp::Match { place: Place::Target, image: digest, size };
    assert_eq!(storage.install(matches), Err(InstallFailure::Mismatch), "there is no slot yet");
    download(&mut storage, &release);
    assert_eq!(storage.install(matches), Ok(()));
    assert_eq!(
        storage.install(InstallOp::Match { place: Place::Target, image: digest, size: size - 1 }),
        Err(InstallFailure::Mismatch)
    );
    assert_eq!(
        storage.install(InstallOp::Match { place: Place::Target, image: digest, size: 1 << 40 }),
        Err(InstallFailure::Mismatch)
    );
}

fn armed() -> (Storage<MemoryDisk>, Release) {
    let release = Release::new(&fixture(), Codec::Raw, image(1, IMAGE_BYTES), 7);
    let mut storage = started(MemoryDisk::new());
    download(&mut storage, &release);
    storage.install(InstallOp::Install).unwrap();
    storage.install(InstallOp::Activate).unwrap();
    (storage, release)
}

#[test]
fn a_trial_is_started_three_times_and_then_given_up() {
    let (mut storage, _) = armed();
    for _ in 0..3 {
        assert_eq!(storage.boot().unwrap(), Slot::B);
        assert_eq!(storage.boot_view().trial, Trial::Running);
    }
    for _ in 0..3 {
        assert_eq!(storage.boot().unwrap(), Slot::A);
        assert_eq!(storage.boot_view().trial, Trial::Failed);
    }
}

/// The number of tries is the host's to choose.
#[test]
fn a_trial_is_started_as_often_as_it_was_armed_with() {
    let (storage, release) = armed();
    let options = whimbrel_engine::storage::StorageOptions { tries: 1, ..Default::default() };
    let mut storage = Storage::start(storage.into_disk(), EnvironmentBoot::new(), options).unwrap();
    storage.learn(Slot::B, facts(&release));
    storage.install(InstallOp::Activate).unwrap();
    assert_eq!(storage.boot().unwrap(), Slot::B);
    assert_eq!(storage.boot().unwrap(), Slot::A);
}

#[test]
fn a_confirmed_image_is_started_for_good_and_its_sequence_number_counts_from_then_on() {
    let (mut storage, release) = armed();
    storage.boot().unwrap();
    let view = storage.boot_view();
    assert_eq!((view.trial, view.running.sequence, view.target_slot), (Trial::Running, 0, 1));
    assert_eq!(view.running.release, Some(release.digest));
    storage.install(InstallOp::Confirm).unwrap();
    let view = storage.boot_view();
    assert_eq!((view.trial, view.running.sequence, view.target_slot), (Trial::None, 7, 0));
    for _ in 0..5 {
        assert_eq!(storage.boot().unwrap(), Slot::B);
    }
}

/// Without anything but the medium: a restarted agent derives what is confirmed from the envelope kept there.
#[test]
fn a_restarted_agent_finds_the_envelope_of_what_runs() {
    let (mut storage, release) = armed();
    storage.boot().unwrap();
    storage.install(InstallOp::Confirm).unwrap();
    let mut storage = restarted(storage);
    assert_eq!(storage.running(), Slot::B);
    assert_eq!(storage.load_envelope(Slot::B), Some(release.envelope.clone()));
    assert_eq!(storage.load_envelope(Slot::A), None);
    assert_eq!(storage.boot_view().running.sequence, 0);
    storage.learn(Slot::B, facts(&release));
    assert_eq!(storage.boot_view().running.sequence, 7);
}

#[test]
fn a_reverted_trial_is_not_started_whether_it_ran_or_not() {
    for starts in [0, 1] {
        let (mut storage, _) = armed();
        for _ in 0..starts {
            storage.boot().unwrap();
        }
        storage.install(InstallOp::Revert).unwrap();
        assert_eq!(storage.boot().unwrap(), Slot::A);
        assert_eq!(storage.boot_view().trial, Trial::None);
    }
}

/// What runs unconfirmed is not overwritten, and what is confirmed never.
#[test]
fn nothing_is_opened_while_a_trial_runs() {
    let (mut storage, _) = armed();
    storage.boot().unwrap();
    let other = Release::new(&fixture(), Codec::Raw, image(3, IMAGE_BYTES), 8);
    let before = [read(storage.disk_mut(), Area::SlotB), read(storage.disk_mut(), Area::BootEnvironment)];
    assert!(open(&mut storage, &other).is_err());
    let after = [read(storage.disk_mut(), Area::SlotB), read(storage.disk_mut(), Area::BootEnvironment)];
    assert!(before == after);
    assert_eq!(storage.disk_mut().len(Area::SlotA), Ok(0));
}

/// A download into the slot of an armed trial disarms it first.
#[test]
fn what_is_overwritten_is_not_started() {
    let (mut storage, _) = armed();
    let other = Release::new(&fixture(), Codec::Raw, image(3, IMAGE_BYTES), 8);
    open(&mut storage, &other).unwrap();
    assert_eq!(storage.boot().unwrap(), Slot::A);
    assert_eq!(storage.boot_view().trial, Trial::None);
}

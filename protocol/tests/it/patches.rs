//! Patches on a device: taken where their base runs, left where they are of no use, and never fetched in circles.

use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::device::{
    Deployment, Event, GivenUp, InstallFailure, PatchFailure, Place, Record, Stage, StoreFailure,
};
use whimbrel_protocol::ids::{Digest, PayloadTag};
use whimbrel_protocol::manifest::{DecoderMemory, ImageId};
use whimbrel_protocol::message::{DeferReason, FailureCode, Outcome, State};
use whimbrel_protocol::patch::Header;
use whimbrel_protocol::testing::{
    Faults, FixturePatch, OrderOptions, Pair, PairOptions, RamMedium, Release, Verdict,
};

use crate::session::{DAY, MINUTE, ended, image};

fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/patch").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn id(image: &[u8]) -> ImageId {
    ImageId { digest: Digest::of(image), size: image.len() as u64 }
}

/// An old image, a new one, and the patch between them.
pub(crate) struct Update {
    pub(crate) old: Vec<u8>,
    pub(crate) new: Vec<u8>,
    pub(crate) patch: FixturePatch,
}

impl Update {
    fn read(name: &str) -> Self {
        let [old, new, bytes] = ["old", "new", "patch"].map(|end| file(&format!("{name}.{end}")));
        let (header, _) = Header::decode(&bytes).unwrap();
        let patch = FixturePatch { base: id(&old), bytes, decoder: header.decoder() };
        Self { old, new, patch }
    }

    pub(crate) fn medium() -> Self {
        Self::read("medium")
    }

    /// The patch with one bit flipped behind its header.
    pub(crate) fn broken(&self) -> FixturePatch {
        let mut patch = self.patch.clone();
        let middle = patch.bytes.len() / 2;
        patch.bytes[middle] ^= 0x10;
        patch
    }

    pub(crate) fn pair(&self, options: PairOptions, patches: &[FixturePatch]) -> (Pair, Release) {
        self.pair_on(options, RamMedium::running(&self.old), patches)
    }

    fn pair_on(&self, options: PairOptions, medium: RamMedium, patches: &[FixturePatch]) -> (Pair, Release) {
        let mut pair = Pair::on(options, medium);
        let release = pair.fixture.release_with_patches(self.new.clone(), 1, 10, patches);
        pair.roll_out(release.clone(), OrderOptions::default());
        (pair, release)
    }

    pub(crate) fn confirmed(&self, pair: &mut Pair) {
        let verdict = pair.run_until(State::Confirmed, 10 * MINUTE);
        assert_eq!(verdict, Verdict::Done, "{pair:?} {:?}", pair.events);
        assert_eq!(pair.medium.running_image(), self.new);
    }
}

pub(crate) fn failures(pair: &Pair) -> Vec<(PayloadTag, PatchFailure)> {
    let failure = |event: &Event| match event {
        Event::PatchFailed { payload, why } => Some((*payload, *why)),
        _ => None,
    };
    pair.events.iter().filter_map(|(_, event)| failure(event)).collect()
}

fn served(pair: &Pair, payload: PayloadTag) -> u64 {
    pair.served.get(&payload).copied().unwrap_or(0)
}

/// A base that no device here runs.
fn elsewhere(update: &Update, seed: u8) -> FixturePatch {
    let base = image(4_000 + usize::from(seed), seed);
    let mut patch = FixturePatch { base: id(&base), ..update.patch.clone() };
    patch.bytes.push(seed);
    patch
}

#[test]
fn a_device_on_the_base_fetches_the_patch_and_nothing_else() {
    for name in ["small", "medium"] {
        let update = Update::read(name);
        let patches = [elsewhere(&update, 1), update.patch.clone(), elsewhere(&update, 2)];
        let (mut pair, release) = update.pair(PairOptions::default(), &patches);
        update.confirmed(&mut pair);
        let bytes = update.patch.bytes.len() as u64;
        assert_eq!(pair.served, [(release.patches[1].tag(), bytes)].into());
        assert_eq!((pair.medium.running_hashed, pair.medium.applied), (1, 1));
        let report = &pair.service.reports[0];
        assert_eq!((report.outcome, report.failure), (Outcome::Confirmed, None));
        assert_eq!((report.bytes_received, report.bytes_twice), (bytes, 0));
        assert_eq!(failures(&pair), []);
    }
}

#[test]
fn a_base_that_cannot_be_read_is_none_and_a_target_that_cannot_be_read_is_waited_for() {
    let update = Update::medium();
    let patches = [update.patch.clone()];
    let (mut pair, _) = update.pair(PairOptions::default(), &patches);
    pair.medium.unreadable = Some(Place::Running);
    update.confirmed(&mut pair);
    assert_eq!(pair.served_bytes, update.new.len() as u64);
    // After a patch that failed the target slot says whether it holds the image all the same.
    let broken = update.broken();
    let bytes = broken.bytes.len() as u64;
    let (mut pair, release) = update.pair(PairOptions::default(), &[broken]);
    pair.medium.unreadable = Some(Place::Target);
    let waits = |pair: &Pair| pair.device.status().is_some_and(|it| it.deferred == Some(DeferReason::Retry));
    assert_eq!(pair.run(MINUTE, waits), Verdict::Done);
    pair.run(10 * MINUTE, |_| false);
    assert_eq!((ended(&pair), pair.served_bytes), (Vec::new(), bytes), "nothing is fetched meanwhile");
    pair.medium.unreadable = None;
    update.confirmed(&mut pair);
    assert_eq!(served(&pair, release.patches[0].tag()), bytes);
    assert_eq!(pair.served_bytes, bytes + update.new.len() as u64);
}

#[test]
fn a_device_on_another_version_fetches_the_full_payload_and_reads_nothing_for_it() {
    let update = Update::medium();
    let medium = RamMedium::running(&image(33_000, 9));
    let (mut pair, release) =
        update.pair_on(PairOptions::default(), medium, std::slice::from_ref(&update.patch));
    update.confirmed(&mut pair);
    assert_eq!(pair.served, [(release.tag(), update.new.len() as u64)].into());
    assert_eq!((pair.medium.running_hashed, pair.medium.applied), (0, 0));
    assert_eq!(failures(&pair), []);
}

#[test]
fn a_base_with_one_flipped_bit_is_none() {
    let update = Update::medium();
    let (mut pair, release) = update.pair(PairOptions::default(), std::slice::from_ref(&update.patch));
    pair.medium.corrupt_running(20_000);
    update.confirmed(&mut pair);
    assert_eq!(pair.served, [(release.tag(), update.new.len() as u64)].into());
    assert_eq!((pair.medium.running_hashed, pair.medium.applied), (1, 0));
    assert_eq!(pair.service.reports[0].failure, None, "a patch for others is no failure");
}

#[test]
fn an_image_that_nobody_named_is_found_by_its_digest_and_read_once_for_each_base() {
    let update = Update::medium();
    let patches = [elsewhere(&update, 1), elsewhere(&update, 2), update.patch.clone()];
    let medium = RamMedium::running_unknown(&update.old);
    let (mut pair, release) = update.pair_on(PairOptions::default(), medium, &patches);
    // Nothing can be opened for a while, so that the manifest is run several times.
    pair.medium.fault = None;
    pair.run(MINUTE, |pair| pair.device.state() == State::Offered);
    pair.medium.fault = Some(StoreFailure::Failed);
    pair.run(20 * MINUTE, |_| false);
    pair.medium.fault = None;
    assert_eq!(pair.run_until(State::Confirmed, 60 * MINUTE), Verdict::Done);
    assert_eq!(pair.medium.running_hashed, 3);
    assert_eq!(pair.served.keys().copied().collect::<Vec<_>>(), [release.patches[2].tag()]);
}

/// What was read of the running slot rules out other images of the same size where it matched, and only there.
#[test]
fn a_slot_is_read_for_each_base_until_one_of_its_size_matches() {
    let update = Update::medium();
    let alike = |seed: u8| {
        let base = image(update.old.len(), seed);
        let mut patch = FixturePatch { base: id(&base), ..update.patch.clone() };
        patch.bytes.push(seed);
        patch
    };
    let run = |patches: &[FixturePatch]| {
        let medium = RamMedium::running_unknown(&update.old);
        let (mut pair, _) = update.pair_on(PairOptions::default(), medium, patches);
        update.confirmed(&mut pair);
        (pair.medium.running_hashed, pair.medium.applied)
    };
    assert_eq!(run(&[alike(1), alike(2), update.patch.clone()]), (3, 1), "another of its size did not match");
    assert_eq!(run(&[update.broken(), alike(1), alike(2)]), (1, 1), "one of its size matched");
    assert_eq!(run(&[update.broken(), elsewhere(&update, 1)]), (2, 1), "it may begin with a shorter one");
}

#[test]
fn what_a_patch_fails_for_is_told_and_the_full_payload_is_taken() {
    let update = Update::medium();
    for (fault, why) in [
        (InstallFailure::Decode, PatchFailure::Decode),
        (InstallFailure::Mismatch, PatchFailure::Mismatch),
        (InstallFailure::NoRoom, PatchFailure::NoRoom),
    ] {
        let (mut pair, release) = update.pair(PairOptions::default(), std::slice::from_ref(&update.patch));
        pair.medium.apply_fault = Some(fault);
        update.confirmed(&mut pair);
        assert_eq!(failures(&pair), [(release.patches[0].tag(), why)]);
    }
}

#[test]
fn a_patch_that_decodes_to_something_else_is_given_up_for_the_full_payload() {
    let update = Update::medium();
    let (mut pair, release) = update.pair(PairOptions::default(), &[update.broken()]);
    update.confirmed(&mut pair);
    let (patch, full) = (update.patch.bytes.len() as u64, update.new.len() as u64);
    assert_eq!(pair.served, [(release.patches[0].tag(), patch), (release.tag(), full)].into());
    let [(payload, why)] = failures(&pair)[..] else { panic!("{:?}", failures(&pair)) };
    assert_eq!(payload, release.patches[0].tag());
    assert!(matches!(why, PatchFailure::Decode | PatchFailure::Mismatch), "{why:?}");
    assert_eq!(ended(&pair), [(Outcome::Confirmed, Some(FailureCode::Patch))]);
    let report = &pair.service.reports[0];
    assert_eq!((report.outcome, report.failure), (Outcome::Confirmed, Some(FailureCode::Patch)));
    assert_eq!((report.bytes_received, report.bytes_twice), (patch + full, 0), "the ledger has both");
}

#[test]
fn a_patch_of_another_base_than_the_manifest_says_is_given_up() {
    let update = Update::medium();
    let other = Update::read("small");
    let swapped = FixturePatch { bytes: other.patch.bytes, ..update.patch.clone() };
    let (mut pair, release) = update.pair(PairOptions::default(), &[swapped]);
    update.confirmed(&mut pair);
    assert_eq!(failures(&pair), [(release.patches[0].tag(), PatchFailure::Decode)]);
}

#[test]
fn the_next_patch_is_tried_where_one_fails() {
    let update = Update::medium();
    let patches = [update.broken(), update.patch.clone()];
    let (mut pair, release) = update.pair(PairOptions::default(), &patches);
    update.confirmed(&mut pair);
    assert_eq!(served(&pair, release.tag()), 0, "the full payload is not needed");
    assert_eq!(pair.medium.running_hashed, 1, "both have the same base");
    assert_eq!(pair.service.reports[0].bytes_received, 2 * update.patch.bytes.len() as u64);
    assert_eq!(pair.service.reports[0].failure, Some(FailureCode::Patch));
}

#[test]
fn where_every_patch_fails_the_full_payload_is_left() {
    let update = Update::medium();
    let patches: Vec<_> = (0..8)
        .map(|at| {
            let mut patch = update.broken();
            let end = patch.bytes.len() - 1;
            patch.bytes[end] ^= at;
            patch
        })
        .collect();
    let (mut pair, release) = update.pair(PairOptions::default(), &patches);
    update.confirmed(&mut pair);
    assert_eq!(failures(&pair).len(), 8);
    assert!(release.patches.iter().all(|patch| served(&pair, patch.tag()) == patch.bytes.len() as u64));
    assert_eq!(pair.service.reports[0].bytes_received, pair.served_bytes);
}

#[test]
fn a_patch_that_needs_more_memory_than_there_is_is_not_fetched() {
    let update = Update::medium();
    let need = 65 * 1024;
    let decoder = DecoderMemory { memory_bytes: need, ..update.patch.decoder };
    let with_need = FixturePatch { decoder, ..update.patch.clone() };
    let options = |memory| PairOptions { memory_max_kib: Some(memory), ..PairOptions::default() };
    let (mut pair, release) = update.pair(options(64), std::slice::from_ref(&with_need));
    update.confirmed(&mut pair);
    assert_eq!(pair.served, [(release.tag(), update.new.len() as u64)].into());
    let why = PatchFailure::Memory { need_bytes: need.into(), limit_bytes: 64 * 1024 };
    assert_eq!(failures(&pair), [(release.patches[0].tag(), why)]);
    assert_eq!(pair.service.reports[0].failure, None, "the patch is good, the device is small");
    let (mut pair, release) = update.pair(options(65), &[with_need]);
    update.confirmed(&mut pair);
    assert_eq!(served(&pair, release.tag()), 0);
}

#[test]
fn a_patch_that_finds_no_room_is_not_waited_for() {
    let update = Update::medium();
    let (mut pair, release) = update.pair(PairOptions::default(), std::slice::from_ref(&update.patch));
    pair.medium.without_staging = true;
    update.confirmed(&mut pair);
    assert_eq!(pair.served, [(release.tag(), update.new.len() as u64)].into());
    assert_eq!(failures(&pair), [(release.patches[0].tag(), PatchFailure::NoRoom)]);
}

#[test]
fn a_medium_that_fails_while_a_patch_is_applied_is_tried_three_times_without_fetching_again() {
    let update = Update::medium();
    let (mut pair, release) = update.pair(PairOptions::default(), std::slice::from_ref(&update.patch));
    pair.medium.apply_fault = Some(InstallFailure::Failed);
    assert_eq!(pair.run_until(State::Confirmed, 60 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(failures(&pair), [(release.patches[0].tag(), PatchFailure::Medium)]);
    assert_eq!((pair.medium.applied, pair.medium.running_hashed), (3, 1));
    assert_eq!(served(&pair, release.patches[0].tag()), update.patch.bytes.len() as u64);
    // Twice is not enough.
    let (mut pair, release) = update.pair(PairOptions::default(), std::slice::from_ref(&update.patch));
    pair.medium.apply_fault = Some(InstallFailure::Failed);
    pair.run(60 * MINUTE, |pair| pair.medium.applied == 2);
    pair.medium.apply_fault = None;
    assert_eq!(pair.run_until(State::Confirmed, 60 * MINUTE), Verdict::Done);
    assert_eq!((failures(&pair), served(&pair, release.tag())), (vec![], 0));
    // And a hook that asks to wait is no failure at all.
    let (mut pair, _) = update.pair(PairOptions::default(), std::slice::from_ref(&update.patch));
    pair.medium.apply_fault = Some(InstallFailure::Retry);
    pair.run(60 * MINUTE, |pair| pair.medium.applied == 9);
    assert_eq!(failures(&pair), []);
}

#[test]
fn a_patch_that_failed_is_not_fetched_again_whatever_restarts_the_device() {
    for seed in 0..30 {
        let update = Update::medium();
        let options = PairOptions { seed, ..PairOptions::default() };
        let (mut pair, release) = update.pair(options, &[update.broken()]);
        let tag = release.patches[0].tag();
        pair.run(10 * MINUTE, |pair| !failures(pair).is_empty());
        // Killed or cut off right after it failed, and now and then while the rest arrives.
        for life in 0..2 {
            if (seed + life) % 2 == 0 {
                pair.kill()
            } else {
                pair.power_cut()
            }
            let given_up = pair.device.record().deployment.as_ref().map(|known| known.given_up.clone());
            let bytes = update.patch.bytes.len() as u64;
            let noted = GivenUp { payload: tag, bytes_received: bytes, bytes_twice: 0 };
            assert_eq!(given_up, Some(vec![noted]), "seed {seed}");
            pair.run(1_200 + seed * 17, |pair| !ended(pair).is_empty());
        }
        update.confirmed(&mut pair);
        assert_eq!(served(&pair, tag), update.patch.bytes.len() as u64, "seed {seed}");
        assert_eq!((failures(&pair).len(), pair.medium.applied), (1, 1), "seed {seed}");
        let report = &pair.service.reports[0];
        assert_eq!(report.failure, Some(FailureCode::Patch));
        let full = report.bytes_received - update.patch.bytes.len() as u64;
        let new = update.new.len() as u64;
        assert!((new..=served(&pair, release.tag())).contains(&full), "seed {seed}: {full}");
        assert!(full - new <= report.bytes_twice, "seed {seed}: {full} {}", report.bytes_twice);
        assert_eq!(pair.device.record().deployment, None);
    }
}

#[test]
fn patches_survive_cuts_and_power_cuts_at_any_time() {
    for seed in 0..40 {
        let update = Update::medium();
        let options = PairOptions {
            seed,
            faults: Faults { delay_ms: (20, 300), rate: 10_000, lose: 20, corrupt: 20, ..Faults::default() },
            cut_every_ms: 15_000,
            power_cut_every_ms: 8_000,
            ..PairOptions::default()
        };
        let broken = seed % 2 == 0;
        let patch = if broken { update.broken() } else { update.patch.clone() };
        let (mut pair, release) = update.pair(options, &[patch]);
        if pair.run_until(State::Confirmed, DAY) == Verdict::TimeUp {
            pair.heal(Faults { delay_ms: (20, 60), rate: 20_000, ..Faults::default() });
            assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "seed {seed}: {pair:?}");
        }
        assert_eq!(pair.medium.running_image(), update.new, "seed {seed}");
        assert_eq!(served(&pair, release.tag()) > 0, broken, "seed {seed}");
        assert_eq!(failures(&pair).len(), usize::from(broken), "seed {seed}");
    }
}

#[test]
fn the_same_images_released_again_with_more_patches_are_no_news_for_a_device_that_has_them() {
    let update = Update::medium();
    let (mut pair, _) = update.pair(PairOptions::default(), &[]);
    update.confirmed(&mut pair);
    let (served, hashed) = (pair.served_bytes, pair.medium.running_hashed);
    let again =
        pair.fixture.release_with_patches(update.new.clone(), 1, 10, std::slice::from_ref(&update.patch));
    assert_ne!(again.digest, pair.service.releases[0].digest);
    let order = OrderOptions { version: 2, campaign: 2, ..OrderOptions::default() };
    pair.service.reports.clear();
    pair.roll_out(again, order);
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Confirmed, None); 2]);
    assert_eq!((pair.served_bytes, pair.medium.running_hashed), (served, hashed), "nothing is done for it");
    assert_eq!(pair.service.reports[0].campaign.0, [2; 8]);
    let installs =
        |(_, event): &&(_, Event)| matches!(event, Event::StateChanged { state: State::Installing, .. });
    assert_eq!(pair.events.iter().filter(installs).count(), 1);
}

#[test]
fn an_envelope_with_more_patches_takes_the_place_of_the_one_before_it() {
    let update = Update::medium();
    let (mut pair, first) = update.pair(PairOptions::default(), &[]);
    pair.run(10 * MINUTE, |pair| pair.served_bytes > 8_000);
    let again =
        pair.fixture.release_with_patches(update.new.clone(), 1, 10, std::slice::from_ref(&update.patch));
    pair.roll_out(again.clone(), OrderOptions { version: 2, campaign: 2, ..OrderOptions::default() });
    pair.cut();
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(pair.medium.running_image(), update.new);
    assert_eq!(first.tag(), again.tag(), "the full payload is the same");
    assert_eq!(served(&pair, again.patches[0].tag()), update.patch.bytes.len() as u64);
}

fn record(given_up: Vec<GivenUp>) -> Record {
    let fixture = whimbrel_protocol::testing::Fixture::new();
    let release = fixture.release(vec![7; 2_000], 3, 10);
    let order = fixture.order(&release, OrderOptions::default());
    let deployment = Deployment { given_up, ..Deployment::new(order, Stage::Fetching) };
    Record { deployment: Some(deployment), ..Record::default() }
}

#[test]
fn patches_that_were_given_up_are_in_the_record_and_only_then_is_it_of_the_second_format() {
    let patch = |seed: u8| GivenUp { payload: PayloadTag([seed; 4]), bytes_received: 900, bytes_twice: 30 };
    for count in 0..=8 {
        let record = record((0..count).map(patch).collect());
        let bytes = record.encode();
        // Array of 10, then the format.
        assert_eq!(bytes[..2], [0x8a, if count == 0 { 1 } else { 2 }]);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }
    let nine = record((0..9).map(patch).collect()).encode();
    let too_long = DecodeError::TooLong { what: "patches given up", got: 9, limit: 8 };
    assert_eq!(Record::decode(&nine), Err(too_long));
    // There is one encoding of each record.
    let mut none = record(vec![]).encode();
    none[1] = 2;
    assert!(Record::decode(&none).is_err());
    let mut idle = Record::default().encode();
    idle[1] = 2;
    assert_eq!(Record::decode(&idle), Err(DecodeError::Value { what: "record format" }));
    let mut some = record(vec![patch(1)]).encode();
    some[1] = 1;
    assert!(Record::decode(&some).is_err());
    some[1] = 3;
    assert_eq!(Record::decode(&some), Err(DecodeError::Version { got: 3 }));
}

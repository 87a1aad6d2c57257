//! Two sessions on a link with faults: what must come true whatever the link does.

use whimbrel_protocol::device::{Event, InstallFailure, Reason, StoreFailure};
use whimbrel_protocol::envelope::{Envelope, Unverified};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{Image, Images, ReleaseManifest, TransferDescriptor};
use whimbrel_protocol::message::{CampaignState, FailureCode, Outcome, State};
use whimbrel_protocol::testing::{
    Direction, Faults, Fixture, OrderOptions, Pair, PairOptions, Release, Verdict,
};
use whimbrel_protocol::topic::Channel;

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const DAY: u64 = 24 * 60 * MINUTE;

pub(crate) fn image(len: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

fn rejected(pair: &Pair, name: &str) -> usize {
    pair.events
        .iter()
        .filter(|(_, event)| matches!(event, Event::Rejected { reason, .. } if reason.name() == name))
        .count()
}

pub(crate) fn ended(pair: &Pair) -> Vec<(Outcome, Option<FailureCode>)> {
    pair.events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Ended { outcome, failure, .. } => Some((*outcome, *failure)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_release_reaches_a_device_and_is_confirmed() {
    let mut pair = Pair::with_release(PairOptions::default(), image(100_000, 1), 12);
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done, "{pair:?} {:?}", pair.events);
    assert_eq!(pair.medium.running_image(), image(100_000, 1));
    assert_eq!(pair.served_bytes, 100_000, "nothing is fetched twice on a good link");
    let report = &pair.service.reports[0];
    assert_eq!((report.outcome, report.failure), (Outcome::Confirmed, None));
    assert_eq!((report.bytes_received, report.bytes_twice), (100_000, 0));
}

#[test]
fn after_each_confirmation_the_next_image_goes_to_the_other_slot() {
    let mut pair = Pair::new(PairOptions::default());
    for sequence in 1..=3 {
        let before = pair.device.boot().target_slot;
        let release = pair.fixture.release(image(9_000, u8::try_from(sequence).unwrap()), sequence, 10);
        let campaign = u8::try_from(sequence).unwrap();
        pair.roll_out(release, OrderOptions { version: sequence, campaign, ..OrderOptions::default() });
        let reported = |pair: &Pair| pair.service.reports.len() as u64 == sequence;
        assert_eq!(pair.run(10 * MINUTE, reported), Verdict::Done);
        let after = pair.device.boot();
        assert_eq!((after.target_slot, after.running.sequence), (1 - before, sequence));
        assert_eq!(after.target_slot, pair.medium.boot_view().target_slot);
    }
}

#[test]
fn a_payload_of_many_pages_arrives() {
    let options = PairOptions {
        faults: Faults { delay_ms: (5, 10), rate: 2_000_000, ..Faults::default() },
        ..PairOptions::default()
    };
    let image = image(3 * 512 * 1024 + 17, 2);
    let mut pair = Pair::with_release(options, image.clone(), 10);
    assert_eq!(pair.run_until(State::Confirmed, 30 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(pair.medium.running_image(), image);
    assert_eq!(pair.served_bytes, image.len() as u64);
}

/// One line replays a failure: the seed is in the message.
fn survives(seed: u64, options: PairOptions, len: usize) {
    let image = image(len, 3);
    let mut pair = Pair::with_release(PairOptions { seed, ..options }, image.clone(), 10);
    let rough = 3 * DAY;
    let verdict = pair.run_until(State::Confirmed, rough);
    if verdict == Verdict::TimeUp {
        pair.heal(Faults { delay_ms: (20, 60), rate: 20_000, ..Faults::default() });
        let verdict = pair.run_until(State::Confirmed, DAY);
        assert_eq!(verdict, Verdict::Done, "seed {seed} does not finish once healed: {pair:?}");
    }
    assert_eq!(pair.medium.running_image(), image, "seed {seed}");
}

#[test]
fn survives_cuts_duplicates_reordering_corruption_and_loss() {
    for seed in 0..60 {
        let options = PairOptions {
            faults: Faults {
                delay_ms: (20, 1500),
                rate: 5_000,
                duplicate: 30,
                corrupt: 30,
                lose: 30,
                reorder: true,
            },
            cut_every_ms: 20_000,
            busy_one_in: 10,
            ..PairOptions::default()
        };
        survives(seed, options, 60_000);
    }
}

#[test]
fn survives_power_cuts_at_any_time() {
    for seed in 100..160 {
        let options = PairOptions {
            faults: Faults { delay_ms: (20, 300), rate: 10_000, ..Faults::default() },
            cut_every_ms: 30_000,
            power_cut_every_ms: 15_000,
            ..PairOptions::default()
        };
        survives(seed, options, 60_000);
    }
}

/// The same test with the flush left out fails: it can see what it is for.
#[test]
fn a_checkpoint_that_claims_what_a_power_cut_took_back_costs_bytes() {
    let cost = |without_flush: bool| {
        let mut pair = Pair::with_release(PairOptions::default(), image(400_000, 4), 12);
        pair.medium.without_flush = without_flush;
        pair.run(14_000, |_| false);
        pair.power_cut();
        assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
        pair.served_bytes - 400_000
    };
    let flushed = cost(false);
    assert!(flushed <= 65_536 + 64 * 1024, "{flushed}");
    assert!(cost(true) > flushed + 65_536, "{} {flushed}", cost(true));
}

#[test]
fn after_a_link_cut_only_what_was_in_flight_is_asked_for_again() {
    for seed in 0..20 {
        let mut pair =
            Pair::with_release(PairOptions { seed, ..PairOptions::default() }, image(400_000, 5), 12);
        pair.run(5_000 + seed * 300, |_| false);
        let held = pair.device.status().map_or(0, |status| status.chunks_held);
        pair.cut();
        assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
        let twice = pair.served_bytes - 400_000;
        assert!(held > 0 && twice <= 65_536, "seed {seed}: {twice} after {held}");
        assert!(pair.service.reports[0].bytes_twice >= twice.saturating_sub(65_536));
    }
}

#[test]
fn a_killed_agent_goes_on_from_its_journal() {
    let mut pair = Pair::with_release(PairOptions::default(), image(400_000, 5), 12);
    for _ in 0..10 {
        pair.run(1_800, |_| false);
        pair.kill();
    }
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    let twice = pair.served_bytes - 400_000;
    assert!(pair.service.reports[0].bytes_twice <= twice, "{} {twice}", pair.service.reports[0].bytes_twice);
    assert!(twice <= 10 * (65_536 + 65_536), "{twice}");
}

#[test]
fn a_restarted_service_serves_on() {
    let mut pair = Pair::with_release(PairOptions::default(), image(200_000, 6), 12);
    for _ in 0..5 {
        pair.run(1_500, |_| false);
        pair.restart_service();
    }
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    assert_eq!(pair.served_bytes, 200_000);
}

#[test]
fn a_chunk_with_a_wrong_digest_is_requested_again() {
    let mut pair = Pair::with_release(PairOptions::default(), image(100_000, 7), 12);
    let mut flipped = 0;
    pair.tap = Some(Box::new(move |_, mut packet| {
        if packet.payload.len() > 3000 && flipped < 3 {
            flipped += 1;
            let middle = packet.payload.len() / 2;
            packet.payload[middle] ^= 4;
        }
        vec![packet]
    }));
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    assert_eq!(pair.medium.running_image(), image(100_000, 7));
    let wrong =
        |(_, event): &&(_, Event)| matches!(event, Event::Rejected { reason: Reason::WrongChunk(_), .. });
    assert_eq!(pair.events.iter().filter(wrong).count(), 3);
    assert_eq!(pair.service.reports[0].bytes_twice, 3 * 4096, "only the bad chunks come twice");
}

#[test]
fn a_device_that_nobody_knows_enrols_and_waits_to_be_accepted() {
    let options = PairOptions { accepted: false, ..PairOptions::default() };
    let mut pair = Pair::with_release(options, image(50_000, 8), 12);
    assert_eq!(pair.run(MINUTE, |pair| !pair.server_events.is_empty()), Verdict::Done);
    assert!(pair.server_events.iter().any(|event| {
        matches!(event, whimbrel_protocol::server::Event::Enrolled { enrolment }
            if enrolment.key == pair.fixture.device_key.public())
    }));
    pair.run(MINUTE, |_| false);
    assert_eq!(pair.device.state(), State::Idle);
    assert_eq!(pair.served_bytes, 0, "only accepted devices are served");
    pair.accept();
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
}

#[test]
fn an_abort_ends_a_download_and_an_empty_retained_message_changes_nothing() {
    let mut pair = Pair::with_release(PairOptions::default(), image(400_000, 9), 12);
    pair.run(5_000, |_| false);
    assert_eq!(pair.device.state(), State::Downloading);
    pair.inject(Channel::Group(pair.fixture.group.clone()), Vec::new());
    assert_eq!(rejected(&pair, "empty"), 1);
    assert_eq!(pair.device.state(), State::Downloading);
    let release = pair.service.releases[0].clone();
    let options = OrderOptions { version: 2, state: CampaignState::Aborted, ..OrderOptions::default() };
    let document = pair.fixture.campaign(&release, options);
    pair.put_campaign(2, document);
    pair.service.live = None;
    // The download is not subscribed to the group: the next request is refused, and hello brings the news.
    assert_eq!(pair.run_until(State::Cancelled, 5 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Cancelled, Some(FailureCode::Aborted))]);
    let served = pair.served_bytes;
    pair.kill();
    pair.run(10 * MINUTE, |_| false);
    assert_eq!(pair.served_bytes, served, "an aborted campaign is not begun again, also after a restart");
}

#[test]
fn the_same_payload_ordered_again_is_not_fetched_again() {
    let mut pair = Pair::with_release(PairOptions::default(), image(400_000, 10), 12);
    pair.run(9_000, |_| false);
    let release = pair.service.releases[0].clone();
    let document =
        pair.fixture.campaign(&release, OrderOptions { version: 2, campaign: 9, ..Default::default() });
    pair.put_campaign(2, document);
    pair.cut();
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    assert!(pair.served_bytes <= 400_000 + 65_536, "{}", pair.served_bytes);
    assert_eq!(pair.service.reports[0].campaign.0, [9; 8], "the report names the campaign that counts");
}

/// Another envelope of a release, which describes its payload by `transfer`: the same sequence number and image under
/// another name.
pub(crate) fn beside(fixture: &Fixture, release: &Release, transfer: TransferDescriptor) -> Release {
    let image = Image::new(Digest::of(&release.image), release.image.len() as u64, transfer);
    let manifest = ReleaseManifest {
        vendor: fixture.vendor,
        class: fixture.class,
        version: vec![1, 0, 1, 1],
        sequence: release.sequence,
        images: Images::Any(image),
        text: None,
    };
    let mut envelope = Envelope::<Unverified>::unsigned(&manifest.build().unwrap()).unwrap();
    envelope.sign(&fixture.release_key).unwrap();
    let digest = envelope.claimed_digest();
    assert_ne!(digest, release.digest);
    Release { digest, envelope: envelope.bytes().to_vec(), ..release.clone() }
}

#[test]
fn another_envelope_of_the_image_that_runs_is_confirmed_without_a_fetch() {
    let mut pair = Pair::with_release(PairOptions::default(), image(100_000, 13), 12);
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    let (served, boot) = (pair.served_bytes, pair.medium.boot_view());
    let release = &pair.service.releases[0];
    let transfer = TransferDescriptor::raw(release.layout, release.index.digest);
    let beside = beside(&pair.fixture, release, transfer);
    pair.roll_out(beside.clone(), OrderOptions { version: 2, campaign: 9, ..Default::default() });
    pair.run(10 * MINUTE, |pair| pair.service.reports.len() == 2);
    let report = &pair.service.reports[1];
    assert_eq!((report.campaign.0, report.release), ([9; 8], beside.digest));
    assert_eq!((report.outcome, report.bytes_received), (Outcome::Confirmed, 0));
    assert_eq!(
        (pair.served_bytes, pair.medium.boot_view()),
        (served, boot),
        "nothing is fetched or installed"
    );
}

/// The report is made by the old image, after a restart.
#[test]
fn what_a_failed_health_check_said_last_is_in_the_report() {
    let cases = [
        ("", String::new()),
        ("the pump\tdoes not answer", "the pump does not answer".to_owned()),
        (&*format!("{}\u{e4}{}", "x".repeat(90), "y".repeat(199)), "y".repeat(199)),
    ];
    for (said, reported) in cases {
        let mut pair = Pair::with_release(PairOptions::default(), image(50_000, 11), 12);
        pair.medium.health = Some(InstallFailure::Unhealthy);
        assert_eq!(pair.run(10 * MINUTE, |pair| pair.served_bytes > 0), Verdict::Done, "{pair:?}");
        pair.feed(whimbrel_protocol::device::Input::Said(said));
        pair.run(10 * MINUTE, |pair| !pair.service.reports.is_empty());
        let report = &pair.service.reports[0];
        assert_eq!((report.failure, &report.said), (Some(FailureCode::Unhealthy), &reported));
    }
}

#[test]
fn an_image_that_fails_its_health_check_is_reverted_and_not_tried_again() {
    let mut pair = Pair::with_release(PairOptions::default(), image(50_000, 11), 12);
    pair.medium.health = Some(InstallFailure::Unhealthy);
    assert_eq!(pair.run_until(State::Reverted, 10 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(pair.medium.running_image(), [0; 100]);
    assert_eq!(ended(&pair), [(Outcome::Reverted, Some(FailureCode::Unhealthy))]);
    let served = pair.served_bytes;
    for _ in 0..3 {
        pair.kill();
        pair.run(10 * MINUTE, |_| false);
    }
    assert_eq!(pair.served_bytes, served, "what reverted here is not fetched again");
    // Until a higher attempt is signed.
    pair.medium.health = None;
    let release = pair.service.releases[0].clone();
    let again = OrderOptions { version: 2, attempt: 2, ..OrderOptions::default() };
    let document = pair.fixture.campaign(&release, again);
    pair.put_campaign(2, document);
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
}

#[test]
fn an_image_that_never_starts_is_given_up_by_the_boot_loader() {
    let mut pair = Pair::with_release(PairOptions::default(), image(50_000, 12), 12);
    // Each trial boot is cut off before it can prove anything.
    pair.run(10 * MINUTE, |pair| pair.device.state() == State::Testing);
    for _ in 0..4 {
        pair.power_cut();
    }
    assert_eq!(pair.run_until(State::Reverted, 10 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Reverted, Some(FailureCode::NotBooted))]);
    assert_eq!(pair.medium.running_image(), [0; 100]);
}

#[test]
fn a_full_medium_defers_the_update_and_it_goes_on_when_there_is_room() {
    let mut pair = Pair::with_release(PairOptions::default(), image(300_000, 13), 12);
    pair.run(6_000, |_| false);
    assert_eq!(pair.device.state(), State::Downloading);
    pair.medium.fault = Some(StoreFailure::NoRoom);
    pair.run(5 * MINUTE, |_| false);
    assert_eq!(pair.device.state(), State::Deferred);
    assert!(pair.events.iter().any(|(_, event)| *event == Event::StoreFailed(StoreFailure::NoRoom)));
    pair.medium.fault = None;
    assert_eq!(pair.run_until(State::Confirmed, 60 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(pair.medium.running_image(), image(300_000, 13));
}

#[test]
fn a_flood_of_what_was_not_asked_for_ends_the_connection() {
    let mut pair = Pair::with_release(PairOptions::default(), image(300_000, 14), 12);
    pair.run(6_000, |_| false);
    let release = pair.service.releases[0].clone();
    let chunk = whimbrel_protocol::message::ChunkMessage::encode(
        release.tag(),
        whimbrel_protocol::ids::ChunkIndex(0),
        &release.payload[..4096],
    );
    for _ in 0..40 {
        pair.inject(Channel::Answers, chunk.clone());
    }
    assert!(pair.events.iter().any(|(_, event)| matches!(event, Event::Flooded { .. })));
    let cuts = pair.cuts.0;
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    assert!(pair.cuts.0 > cuts, "it hung up");
}

#[test]
fn control_bytes_of_an_update_stay_within_their_budget() {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    let (up, down) = (std::sync::Arc::new(AtomicU64::new(0)), std::sync::Arc::new(AtomicU64::new(0)));
    let mut pair = Pair::with_release(PairOptions::default(), image(400_000, 15), 12);
    let counters = (up.clone(), down.clone());
    let topic = "ota/d/dev-0001/q".len() as u64;
    pair.tap = Some(Box::new(move |_, packet| {
        let kind = packet.payload.first().copied().unwrap_or_default();
        let envelope = packet.payload.starts_with(&[0xd8, 0x6b]);
        if !matches!(kind, 0x12..=0x14 | 0x18 | 0x19) && !envelope {
            let bytes = 4 + topic + packet.payload.len() as u64;
            let counter = if packet.direction == Direction::Up { &counters.0 } else { &counters.1 };
            counter.fetch_add(bytes, Relaxed);
        }
        vec![packet]
    }));
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    let (up, down) = (up.load(Relaxed), down.load(Relaxed));
    // One update on two connections (before and after the reboot), without MQTT's own packets.
    assert!(up + down <= 1500 + 2 * 1100 - 2 * 200, "up {up}, down {down}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let faults =
            Faults { delay_ms: (20, 900), rate: 8_000, duplicate: 20, corrupt: 20, lose: 20, reorder: true };
        let options = PairOptions { seed, faults, cut_every_ms: 15_000, ..PairOptions::default() };
        let mut pair = Pair::with_release(options, image(40_000, 16), 10);
        pair.run_until(State::Confirmed, DAY);
        (pair.events, pair.now, pair.served_bytes)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

/// A recording of what a device was fed, replayed into a new session, ends in the same state.
#[test]
fn a_recording_replays_a_run() {
    use whimbrel_protocol::testing::{Recorder, Recording};
    let mut pair = Pair::with_release(PairOptions::default(), image(30_000, 17), 12);
    pair.recorder = Some(Recorder::default());
    pair.run(10 * MINUTE, |pair| pair.device.state() == State::Rebooting || !ended(pair).is_empty());
    let recording = pair.recorder.take().unwrap().finish();
    let bytes = recording.encode();
    let recording = Recording::decode(&bytes).unwrap();
    let first: Vec<_> = states(&pair.events);
    let again = Pair::new(PairOptions::default()).replay(&recording);
    assert_eq!(states(&again), first[..states(&again).len()]);
    assert!(states(&again).contains(&State::Installing), "{again:?}");
}

fn states(events: &[(whimbrel_protocol::time::Instant, Event)]) -> Vec<State> {
    events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::StateChanged { state, .. } => Some(*state),
            _ => None,
        })
        .collect()
}

//! A download on a link that loses, a service that refuses, a medium that fails: when things are asked for again.

use std::cell::RefCell;
use std::rc::Rc;

use whimbrel_protocol::device::{Event, StoreFailure};
use whimbrel_protocol::ids::ChunkIndex;
use whimbrel_protocol::message::{ChunkRequest, DeferReason, Refusal, RefusalCode, Request, State};
use whimbrel_protocol::testing::{Direction, Faults, Pair, PairOptions, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::session::{DAY, MINUTE, image};

const LEN: usize = 200_000;
/// The first byte of a chunk message.
const CHUNK: u8 = 0x18;

fn downloading(seed: u64) -> Pair {
    downloading_of(seed, LEN)
}

fn downloading_of(seed: u64, len: usize) -> Pair {
    let mut pair = Pair::with_release(PairOptions { seed, ..PairOptions::default() }, image(len, 1), 12);
    let started = |pair: &Pair| pair.device.status().is_some_and(|status| status.chunks_held >= 4);
    assert_eq!(pair.run(MINUTE, started), Verdict::Done);
    pair
}

/// Notes every request for chunks with its time.
fn requests(pair: &mut Pair) -> Rc<RefCell<Vec<(u64, ChunkRequest)>>> {
    let requests = Rc::new(RefCell::new(Vec::new()));
    let notes = requests.clone();
    pair.tap = Some(Box::new(move |now, packet| {
        if packet.direction == Direction::Up
            && packet.channel == Channel::Requests
            && let Ok(Request::Chunks(request)) = Request::decode(&packet.payload)
        {
            notes.borrow_mut().push((now.as_millis(), request));
        }
        vec![packet]
    }));
    requests
}

fn silences(pair: &Pair) -> usize {
    pair.events.iter().filter(|(_, event)| matches!(event, Event::Silent { .. })).count()
}

#[test]
fn chunks_that_got_lost_are_asked_for_again_in_the_same_connection() {
    let mut pair = downloading(1);
    let mut lost = 0;
    pair.tap = Some(Box::new(move |_, packet| {
        let loses =
            packet.payload.first() == Some(&CHUNK) && packet.direction == Direction::Down && lost < 30;
        lost += u32::from(loses);
        if loses { Vec::new() } else { vec![packet] }
    }));
    assert_eq!(pair.run(10 * MINUTE, |pair| silences(pair) == 1), Verdict::Done, "silence is noticed");
    pair.tap = None;
    let cuts = pair.cuts.0;
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    assert_eq!((pair.cuts.0, silences(&pair)), (cuts, 1));
    assert_eq!(pair.medium.running_image(), image(LEN, 1));
    let report = &pair.service.reports[0];
    assert_eq!(report.bytes_received, LEN as u64, "what was lost was not received");
    assert_eq!(report.bytes_twice, 0, "and what was asked for twice came once");
}

#[test]
fn a_connection_that_stays_silent_is_given_up_after_three_silences() {
    let mut pair = downloading(1);
    pair.tap = Some(Box::new(|_, packet| match packet.direction {
        Direction::Down => Vec::new(),
        Direction::Up => vec![packet],
    }));
    let cuts = pair.cuts.0;
    assert_eq!(pair.run(30 * MINUTE, |pair| silences(pair) == 2), Verdict::Done);
    pair.run(1_000, |_| false);
    assert_eq!(pair.cuts.0, cuts);
    assert_eq!(pair.run(30 * MINUTE, |pair| silences(pair) == 3), Verdict::Done);
    pair.run(1_000, |_| false);
    assert_eq!(pair.cuts.0, cuts + 1);
    // What arrives in between counts: only silences in a row do.
    let mut pair = downloading_of(1, 10 * LEN);
    for round in 1..=5 {
        pair.tap = Some(Box::new(|_, packet| match packet.payload.first() {
            Some(&CHUNK) if packet.direction == Direction::Down => Vec::new(),
            _ => vec![packet],
        }));
        assert_eq!(pair.run(30 * MINUTE, |pair| silences(pair) == round), Verdict::Done);
        pair.tap = None;
        let held = pair.device.status().map(|status| status.chunks_held);
        let more = |pair: &Pair| pair.device.status().map(|status| status.chunks_held) > held;
        assert_eq!(pair.run(10 * MINUTE, more), Verdict::Done, "round {round}");
    }
    assert_eq!(pair.cuts.0, 0);
}

#[test]
fn a_refused_download_pauses_for_as_long_as_it_is_told_and_up_to_a_quarter_more() {
    for code in [RefusalCode::Busy, RefusalCode::OverQuota, RefusalCode::NotYours, RefusalCode::NotFound] {
        let mut waits = Vec::new();
        for seed in 0..16 {
            let mut pair = downloading(seed);
            let requests = requests(&mut pair);
            let payload = Some(pair.service.releases[0].tag());
            let refusal = Refusal { code, retry_after_s: Some(40), payload };
            let at = pair.now.as_millis();
            pair.inject(Channel::Answers, refusal.encode());
            let status = pair.device.status().unwrap();
            let missing = matches!(code, RefusalCode::NotYours | RefusalCode::NotFound);
            let reason = if missing { DeferReason::Retry } else { DeferReason::Busy };
            assert_eq!((status.state, status.deferred), (State::Deferred, Some(reason)));
            pair.run(5 * MINUTE, |_| !requests.borrow().is_empty());
            waits.push(requests.borrow()[0].0 - at);
        }
        assert!(waits.iter().all(|wait| (40_000..=50_000).contains(wait)), "{code:?} {waits:?}");
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(most - least > 5_000, "{code:?} {waits:?}");
    }
}

#[test]
fn pauses_in_a_row_that_say_no_time_get_longer() {
    let mut pair = downloading(3);
    let requests = requests(&mut pair);
    let payload = Some(pair.service.releases[0].tag());
    for pauses in 0..10 {
        let refusal = Refusal { code: RefusalCode::Busy, retry_after_s: None, payload };
        let (at, before) = (pair.now.as_millis(), requests.borrow().len());
        pair.inject(Channel::Answers, refusal.encode());
        pair.run(2 * 60 * MINUTE, |_| requests.borrow().len() > before);
        let wait = requests.borrow().last().unwrap().0 - at;
        let range = (15_000 << pauses.min(8)).min(3_600_000);
        assert!((range..=range + range / 4).contains(&wait), "{pauses}: {wait}");
    }
    // A chunk that arrives ends the row.
    pair.run(MINUTE, |_| false);
    let (at, before) = (pair.now.as_millis(), requests.borrow().len());
    if pair.device.state() == State::Downloading {
        let refusal = Refusal { code: RefusalCode::Busy, retry_after_s: None, payload };
        pair.inject(Channel::Answers, refusal.encode());
        pair.run(10 * MINUTE, |_| requests.borrow().len() > before);
        let wait = requests.borrow().last().unwrap().0 - at;
        assert!((15_000..=18_750).contains(&wait), "{wait}");
    }
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done);
}

#[test]
fn a_medium_that_fails_is_tried_again_after_a_minute_and_a_full_one_after_ten() {
    for (fault, reason, range) in [
        (StoreFailure::Failed, DeferReason::Retry, 60_000..=75_000),
        (StoreFailure::NoRoom, DeferReason::Room, 600_000..=750_000),
    ] {
        let mut pair = downloading(4);
        let requests = requests(&mut pair);
        pair.medium.fault = Some(fault);
        assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Deferred), Verdict::Done);
        assert_eq!(pair.device.status().unwrap().deferred, Some(reason));
        pair.medium.fault = None;
        let (at, before) = (pair.now.as_millis(), requests.borrow().len());
        pair.run(20 * MINUTE, |_| requests.borrow().len() > before);
        let wait = requests.borrow().last().unwrap().0 - at;
        // The manifest may have to be fetched again, which takes a moment.
        assert!(range.contains(&wait.saturating_sub(1_000)) || range.contains(&wait), "{wait}");
        assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
        assert_eq!(pair.medium.running_image(), image(LEN, 1));
    }
}

/// On a slow link a flush group takes minutes to fill.
#[test]
fn written_chunks_stay_without_a_checkpoint_for_half_a_minute_at_most() {
    let faults = Faults { delay_ms: (20, 60), rate: 400, ..Faults::default() };
    let options = PairOptions { faults, ..PairOptions::default() };
    let mut pair = Pair::with_release(options, image(LEN, 1), 10);
    let held = |pair: &Pair| pair.device.status().map_or(0, |status| status.chunks_held);
    assert_eq!(pair.run(10 * MINUTE, |pair| held(pair) >= 1), Verdict::Done);
    pair.run(31_000, |_| false);
    let by_then = held(&pair);
    assert!((5..16).contains(&by_then), "{by_then} chunks of 1 KiB are less than a flush group");
    pair.power_cut();
    assert_eq!(pair.run(10 * MINUTE, |pair| pair.device.state() == State::Downloading), Verdict::Done);
    let kept = held(&pair);
    assert!(kept + 2 >= by_then, "{kept} of {by_then}");
}

#[test]
fn no_chunk_is_asked_for_while_one_asked_for_is_under_way_or_held() {
    let faults = Faults { delay_ms: (20, 60), rate: 20_000, ..Faults::default() };
    let options = PairOptions { faults, ..PairOptions::default() };
    let mut pair = Pair::with_release(options, image(LEN, 1), 10);
    let requests = requests(&mut pair);
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    let mut asked = std::collections::BTreeSet::new();
    for (_, request) in requests.borrow().iter() {
        for (ChunkIndex(first), count) in request.runs() {
            for chunk in first..first + count {
                assert!(asked.insert(chunk), "{chunk} was asked for twice");
            }
        }
        let bytes = request.runs().map(|(_, count)| count).sum::<u32>() * 1024;
        assert!(bytes <= 64 * 1024, "{bytes} are more than a window");
    }
    assert_eq!(asked.len(), LEN.div_ceil(1024));
}

#[test]
fn the_service_is_told_of_the_states_that_somebody_who_watches_would_wonder_about() {
    use whimbrel_protocol::server::Event as Told;
    let mut pair = Pair::with_release(PairOptions::default(), image(LEN, 1), 12);
    pair.run(5_000, |_| false);
    let payload = Some(pair.service.releases[0].tag());
    let busy = Refusal { code: RefusalCode::Busy, retry_after_s: Some(20), payload };
    pair.inject(Channel::Answers, busy.encode());
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    let status = |event: &Told| match event {
        Told::Progress { status } => Some(*status),
        _ => None,
    };
    let told: Vec<_> = pair.server_events.iter().filter_map(status).collect();
    let states: Vec<State> = told.iter().map(|status| status.state).collect();
    // What it says right before it restarts, the restart may cut off.
    assert_eq!(states[..3], [State::Downloading, State::Deferred, State::Downloading]);
    assert!(states[3..].iter().all(|state| matches!(state, State::Installing | State::Testing)));
    assert!(told.iter().all(|status| (status.campaign.0, status.attempt) == ([1; 8], 1)), "{told:?}");
    assert_eq!((told[0].chunks_held, told[0].chunks), (0, 49));
    assert!(told[2].chunks_held > 0 && told[2].bytes_received >= u64::from(told[2].chunks_held) * 4096);
}

#[test]
fn a_record_that_could_not_be_saved_is_saved_again_after_half_a_minute() {
    let mut pair = downloading(5);
    pair.medium.fault = Some(StoreFailure::Failed);
    let group = pair.fixture.group.clone();
    let assignment = pair.fixture.assignment(2, &[group], None);
    pair.inject(Channel::Assignment, assignment);
    pair.medium.fault = None;
    let saves = pair.medium.saves;
    pair.run(29_999, |_| false);
    assert_eq!(pair.medium.saves, saves);
    pair.run(1, |_| false);
    assert_eq!(pair.medium.saves, saves + 1);
}

/// A link that is cut every few seconds would otherwise never fill a flush group, and each restart would begin anew.
#[test]
fn what_was_written_before_a_cut_is_checkpointed_at_the_cut() {
    let mut pair = downloading(1);
    let held = pair.device.status().unwrap().chunks_held;
    pair.cut();
    // The medium answers what it was told to store.
    pair.run(100, |_| false);
    pair.kill();
    assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Downloading), Verdict::Done);
    let resumed = pair.device.status().unwrap().chunks_held;
    assert!(resumed >= held, "{resumed} of {held} chunks are claimed");
}

#[test]
fn the_rate_that_is_told_is_the_links() {
    let mut pair = downloading_of(1, 2_000_000);
    pair.run(MINUTE, |_| false);
    let rate = pair.device.rate().unwrap();
    assert!((18_000..=21_000).contains(&rate), "{rate} of 20,000 bytes a second");
}

#[test]
fn a_cut_with_nothing_new_on_the_medium_saves_no_checkpoint() {
    let mut pair = downloading(1);
    pair.cut();
    pair.run(100, |_| false);
    let saved = pair.medium.checkpoints;
    let waiting = |pair: &Pair| pair.device.poll_timeout().is_some();
    assert_eq!(pair.run(MINUTE, waiting), Verdict::Done, "connected again");
    pair.cut();
    pair.run(100, |_| false);
    assert_eq!(pair.medium.checkpoints, saved);
}

#[test]
fn chunks_in_a_row_are_asked_for_without_a_bitmap() {
    let mut pair = Pair::with_release(PairOptions::default(), image(LEN, 1), 12);
    let requests = requests(&mut pair);
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    let requests = requests.borrow();
    assert!(requests.len() > 2 && requests.iter().all(|(_, request)| request.wanted.is_none()));
}

/// Each costs writes of its own: there is one for each flush group, which is an eighth of this transfer.
#[test]
fn a_checkpoint_is_saved_once_a_flush_group() {
    let mut pair = Pair::with_release(PairOptions::default(), image(2 * LEN, 1), 12);
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    let checkpoints = pair.medium.checkpoints;
    assert!((4..=9).contains(&checkpoints), "{checkpoints}");
}

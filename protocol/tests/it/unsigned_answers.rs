//! What unsigned answers and silences do to a device's waits: a refusal makes it wait longer and never shorter, and
//! what is missing is asked for again in time, and smaller if it has to be.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use whimbrel_protocol::device::{Event, Input, Record};
use whimbrel_protocol::ids::{ChunkIndex, PayloadTag};
use whimbrel_protocol::message::{
    ChunkMessage, DeferReason, PageMessage, PageNumber, Refusal, RefusalCode, State,
};
use whimbrel_protocol::testing::{Direction, Packet, Pair, PairOptions, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::by_hand::{ByHand, boot, events, hellos, the_hello};
use crate::session::{DAY, MINUTE, image};

const CODES: [RefusalCode; 8] = [
    RefusalCode::Busy,
    RefusalCode::Unknown,
    RefusalCode::Pending,
    RefusalCode::NotYours,
    RefusalCode::NotFound,
    RefusalCode::OverQuota,
    RefusalCode::Version,
    RefusalCode::Malformed,
];
/// The first bytes of chunk and page messages, and of an envelope.
const CHUNK: u8 = 0x18;
const PAGE: u8 = 0x19;
const ENVELOPE: u8 = 0xd8;

/// The times at which the device sends, while `passes` says which of the service's messages arrive.
fn sent(pair: &mut Pair, passes: impl Fn(&Packet) -> bool + 'static) -> Rc<RefCell<Vec<u64>>> {
    let sent = Rc::new(RefCell::new(Vec::new()));
    let notes = sent.clone();
    pair.tap = Some(Box::new(move |now, packet| {
        if packet.direction == Direction::Up {
            notes.borrow_mut().push(now.as_millis());
        } else if !passes(&packet) {
            return Vec::new();
        }
        vec![packet]
    }));
    sent
}

fn is_chunk(packet: &Packet) -> bool {
    packet.payload.first() == Some(&CHUNK)
}

/// A device in one of the states in which it waits for something.
fn waiting(state: usize, seed: u64) -> Pair {
    let options = PairOptions { seed, accepted: state != 0, ..PairOptions::default() };
    if state < 2 {
        let mut pair = Pair::new(options);
        pair.run(5_000, |_| false);
        return pair;
    }
    let mut pair = Pair::with_release(options, image(300_000, 1), 10);
    let missing = [ENVELOPE, PAGE, CHUNK, 0].into_iter().nth(state - 2).unwrap();
    sent(&mut pair, move |packet| packet.payload.first() != Some(&missing));
    pair.run(3_000, |_| false);
    pair
}

const STATES: usize = 6;

#[derive(Clone, Debug)]
enum Forged {
    Refusal(RefusalCode, Option<u32>, bool),
    Chunk(u32, usize),
    Page(usize),
    Bytes(Vec<u8>),
}

fn forged() -> impl Strategy<Value = Forged> {
    let code = prop::sample::select(CODES.to_vec());
    let wait = prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), (0..20u32).prop_map(Some)];
    prop_oneof![
        6 => (code, wait, any::<bool>()).prop_map(|(code, wait, named)| Forged::Refusal(code, wait, named)),
        2 => (0..300u32, 1..1100usize).prop_map(|(first, len)| Forged::Chunk(first, len)),
        1 => (1..100usize).prop_map(Forged::Page),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Forged::Bytes),
    ]
}

impl Forged {
    fn message(&self, tag: PayloadTag) -> Vec<u8> {
        match self {
            Self::Refusal(code, retry_after_s, named) => {
                let payload = named.then_some(tag);
                Refusal { code: *code, retry_after_s: *retry_after_s, payload }.encode()
            }
            Self::Chunk(first, len) => ChunkMessage::encode(tag, ChunkIndex(*first), &vec![7; *len]),
            Self::Page(len) => PageMessage::encode(tag, PageNumber::Page(0), &vec![7; *len]),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// Hellos, requests, statuses and reports of a device in ten seconds, if nothing that is signed arrives.
const SENT_IN_10_S_MAX: usize = 24;

fn sends_few(mut pair: Pair, answers: &[(u64, Forged)]) {
    let tag = pair.service.releases.first().map_or(PayloadTag([1; 4]), |release| release.tag());
    let sent = sent(&mut pair, |_| false);
    for (gap_ms, forged) in answers {
        pair.run(*gap_ms, |_| false);
        pair.inject(Channel::Answers, forged.message(tag));
    }
    pair.run(10_000, |_| false);
    let sent = sent.borrow();
    for (at, from) in sent.iter().enumerate() {
        let until = sent.partition_point(|time| *time < from + 10_000);
        assert!(
            until - at <= SENT_IN_10_S_MAX,
            "{} in 10 s from {from}: {:?}",
            until - at,
            pair.device.state()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_unsigned_answers_come_a_device_sends_little_in_any_ten_seconds(
        state in 0..STATES,
        seed in 0..50u64,
        answers in prop::collection::vec((0..400u64, forged()), 1..80),
    ) {
        sends_few(waiting(state, seed), &answers);
    }
}

/// One refusal again and again, as fast as a broker can send it. The device would send as fast.
#[test]
fn a_forged_refusal_that_says_no_wait_makes_no_device_send_more() {
    for state in 0..STATES {
        for code in CODES {
            for (wait, named) in [(Some(0), false), (Some(0), true), (None, true)] {
                let answers = vec![(2, Forged::Refusal(code, wait, named)); 2_000];
                sends_few(waiting(state, 1), &answers);
            }
        }
        // Few, so that the device does not hang up because of the bytes.
        sends_few(waiting(state, 1), &vec![(20, Forged::Page(9)); 2_000]);
        sends_few(waiting(state, 1), &vec![(200, Forged::Chunk(0, 1024)); 100]);
    }
}

/// Another refusal during a wait answers nothing that was asked.
#[test]
fn a_second_refusal_never_cuts_what_is_left_of_a_wait() {
    let busy = |retry_after_s, payload| Refusal { code: RefusalCode::Busy, retry_after_s, payload }.encode();
    // A download.
    for second in [Some(0), Some(5), None] {
        let mut pair = Pair::with_release(PairOptions::default(), image(300_000, 1), 10);
        assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Downloading), Verdict::Done);
        let ours = Some(pair.service.releases[0].tag());
        pair.inject(Channel::Answers, busy(Some(100), ours));
        let at = pair.now.as_millis();
        for _ in 0..20 {
            pair.run(2_000, |_| false);
            pair.inject(Channel::Answers, busy(second, ours));
        }
        pair.run(10 * MINUTE, |pair| pair.device.state() == State::Downloading);
        let waited = pair.now.as_millis() - at;
        assert!((100_000..=125_000).contains(&waited), "{second:?}: {waited}");
    }
    // A hello: the first wait of the device's own is 10 s to 15 s.
    for (first, second, least, most) in
        [(60, 0, 60_000, 75_000), (60, 1, 60_000, 75_000), (0, 0, 10_000, 15_000), (0, 30, 30_000, 37_500)]
    {
        let mut by_hand = ByHand::new(1, Record::default(), boot());
        by_hand.feed(Input::Connected);
        for wait in [first, second] {
            let pending = Refusal { code: RefusalCode::Pending, retry_after_s: Some(wait), payload: None };
            by_hand.message(Channel::Answers, &pending.encode());
        }
        let (waited, outputs) = by_hand.wake().unwrap();
        assert_eq!(hellos(&outputs).len(), 1);
        assert!((least..=most).contains(&waited), "{first} {second}: {waited}");
    }
}

/// Connects again in the middle of a download; then nothing of it comes, or nothing at all.
fn silence_after_a_cut(seed: u64, passes: impl Fn(&Packet) -> bool + 'static) -> u64 {
    let mut pair = Pair::with_release(PairOptions { seed, ..PairOptions::default() }, image(300_000, 1), 12);
    let started = |pair: &Pair| pair.device.status().is_some_and(|status| status.chunks_held >= 20);
    assert_eq!(pair.run(5 * MINUTE, started), Verdict::Done);
    pair.cut();
    let sent = sent(&mut pair, passes);
    assert_eq!(pair.run(MINUTE, |_| !sent.borrow().is_empty()), Verdict::Done);
    let connected = sent.borrow()[0];
    let silent = |pair: &Pair| pair.events.iter().any(|(_, event)| matches!(event, Event::Silent { .. }));
    assert_eq!(pair.run(5 * MINUTE, silent), Verdict::Done);
    pair.now.as_millis() - connected
}

/// A service that restarts takes no requests for some seconds. Its devices waited for a minute and longer, and then
/// came all at once.
#[test]
fn before_the_first_byte_of_a_connection_a_silence_is_ten_seconds_at_most_and_devices_do_not_keep_step() {
    let waits: Vec<u64> = (0..12).map(|seed| silence_after_a_cut(seed, |_| false)).collect();
    assert!(waits.iter().all(|wait| (8_000..=10_000).contains(wait)), "{waits:?}");
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(most - least > 1_000, "{waits:?}");
}

#[test]
fn a_request_that_is_lost_before_the_rate_is_known_is_asked_for_again_after_a_second_and_then_more_slowly() {
    for lost in [PAGE, CHUNK] {
        let mut pair = Pair::with_release(PairOptions::default(), image(300_000, 1), 12);
        let asked = sent(&mut pair, move |packet| packet.payload.first() != Some(&lost));
        let silences = |pair: &Pair| {
            let silence = |(at, event): &(_, Event)| match event {
                Event::Silent { .. } => Some(whimbrel_protocol::time::Instant::as_millis(*at)),
                _ => None,
            };
            pair.events.iter().filter_map(silence).collect::<Vec<u64>>()
        };
        assert_eq!(pair.run(MINUTE, |pair| silences(pair).len() == 3), Verdict::Done);
        let times = silences(&pair);
        for (earlier, later) in [(0, 1), (1, 2)] {
            let (gap, base) = (times[later] - times[earlier], 2_000 << earlier);
            assert!((base..=base + base / 4).contains(&gap), "{lost}: {times:?}");
        }
        assert!(asked.borrow().contains(&times[0]), "it is asked for again at once");
        assert_eq!(pair.cuts.0, 0);
        pair.tap = None;
        assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    }
}

fn lost_above(pair: &Pair) -> Vec<u32> {
    let above = |(_, event): &(_, Event)| match event {
        Event::MessagesLost { above_bytes } => Some(*above_bytes),
        _ => None,
    };
    pair.events.iter().filter_map(above).collect()
}

/// Fast enough for messages of several chunks.
fn fast(seed: u64) -> PairOptions {
    let mut options = PairOptions { seed, ..PairOptions::default() };
    options.faults.rate = 400_000;
    options
}

#[test]
fn an_update_arrives_through_a_broker_that_drops_messages_above_8_kib() {
    let mut pair = Pair::with_release(fast(1), image(400_000, 1), 12);
    sent(&mut pair, |packet| packet.payload.len() <= 8192);
    assert_eq!(
        pair.run_until(State::Confirmed, 10 * MINUTE),
        Verdict::Done,
        "{pair:?} {:?}",
        lost_above(&pair)
    );
    assert_eq!(pair.medium.running_image(), image(400_000, 1));
    assert_eq!((lost_above(&pair).last(), pair.cuts.0), (Some(&4102), 0));
    assert_eq!(pair.device.message_limit(), None, "the new image is a new session: its host has to remember");
}

#[test]
fn messages_are_not_made_smaller_while_no_hello_is_answered() {
    let mut pair = Pair::with_release(fast(1), image(400_000, 1), 12);
    let started = |pair: &Pair| pair.device.status().is_some_and(|status| status.chunks_held >= 4);
    assert_eq!(pair.run(MINUTE, started), Verdict::Done);
    sent(&mut pair, |_| false);
    pair.run(10 * MINUTE, |_| false);
    assert_eq!(lost_above(&pair), []);
    assert!(pair.cuts.0 > 0, "the connection is given up");
}

#[test]
fn a_broker_that_carries_not_even_one_chunk_is_told_of_and_asked_more_and_more_rarely() {
    let mut pair = Pair::with_release(fast(1), image(400_000, 1), 12);
    sent(&mut pair, |packet| !is_chunk(packet));
    assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Deferred), Verdict::Done);
    assert_eq!(lost_above(&pair), [4101]);
    assert_eq!(pair.device.status().unwrap().deferred, Some(DeferReason::Retry));
    assert_eq!(pair.device.message_limit().map(|limit| limit.bytes.get()), Some(4101));
    let sent = sent(&mut pair, |packet| !is_chunk(packet));
    pair.run(DAY / 4, |_| false);
    let count = sent.borrow().len();
    assert!(count < 120, "{count} messages in six hours");
    assert_eq!(pair.cuts.0, 0);
    // The broker's limit is raised.
    pair.tap = None;
    assert_eq!(pair.run_until(State::Confirmed, 2 * 60 * MINUTE), Verdict::Done);
}

/// Who asks and who answers may be right, and one of two topics wrong: an operator has to see that within a minute.
#[test]
fn two_hellos_that_nobody_answers_are_told_within_a_minute_and_an_answer_or_a_refusal_ends_that() {
    let unanswered = |by_hand: &mut ByHand| {
        by_hand.feed(Input::Connected);
        let told = loop {
            let (_, outputs) = by_hand.wake().unwrap();
            if events(&outputs).contains(&Event::Unanswered { hellos: 2 }) {
                break the_hello(&outputs);
            }
            assert_eq!(by_hand.session.unanswered_ms(by_hand.now), None);
        };
        let ms = by_hand.now.as_millis();
        assert!(ms <= 60_000, "{ms}");
        assert_eq!(by_hand.session.unanswered_ms(by_hand.now.plus_millis(5_000)), Some(ms + 5_000));
        told
    };
    let mut by_hand = ByHand::new(1, Record::default(), boot());
    let hello = unanswered(&mut by_hand);
    by_hand.answer(hello.nonce, |answer| answer.assignment = 0);
    assert_eq!(by_hand.session.unanswered_ms(by_hand.now), None);
    let mut by_hand = ByHand::new(1, Record::default(), boot());
    unanswered(&mut by_hand);
    // What is cut off after a moment was not in vain.
    by_hand.feed(Input::Disconnected);
    by_hand.feed(Input::Connected);
    assert!(by_hand.session.unanswered_ms(by_hand.now).is_some());
    let pending = Refusal { code: RefusalCode::Pending, retry_after_s: Some(30), payload: None };
    by_hand.message(Channel::Answers, &pending.encode());
    assert_eq!(by_hand.session.unanswered_ms(by_hand.now), None);
    let (_, outputs) = by_hand.wake().unwrap();
    assert!(!events(&outputs).iter().any(|event| matches!(event, Event::Unanswered { .. })));
}

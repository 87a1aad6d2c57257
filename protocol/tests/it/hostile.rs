//! Hostile bytes: both sessions take anything without panicking, keep their bounds, and finish once healed.

use proptest::prelude::*;
use whimbrel_protocol::device::{Event, Output};
use whimbrel_protocol::ids::{GroupName, PayloadTag};
use whimbrel_protocol::message::{Refusal, RefusalCode, State};
use whimbrel_protocol::retry::Jitter;
use whimbrel_protocol::server::{DeviceView, Input as ServerInput, ServerSession, Standing};
use whimbrel_protocol::testing::{Faults, Fixture, Pair, PairOptions, Verdict};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;

use crate::session::{DAY, MINUTE, image};

fn channels() -> impl Strategy<Value = Channel> {
    prop_oneof![
        Just(Channel::Answers),
        Just(Channel::Assignment),
        Just(Channel::Beacon),
        Just(Channel::Requests),
        Just(Channel::Group(GroupName::new("all").unwrap())),
    ]
}

/// Bytes that look like something: a head that is known, then anything.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let heads = prop_oneof![
        Just(vec![0x18]),
        Just(vec![0x19]),
        Just(vec![0x1a]),
        Just(vec![0xd2, 0x84]),
        Just(vec![0xd8, 0x6b, 0xa2, 0x02]),
        Just(vec![]),
    ];
    (heads, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(mut head, tail)| {
        head.extend(tail);
        head
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_device_that_was_fed_garbage_finishes_once_it_stops(
        garbage in proptest::collection::vec((0u64..20_000, channels(), bytes()), 1..60),
        seed in any::<u64>(),
    ) {
        let mut pair = Pair::with_release(PairOptions { seed, ..PairOptions::default() }, image(60_000, 1), 10);
        for (wait, channel, bytes) in garbage {
            pair.run(wait % 700, |_| false);
            pair.inject(channel, bytes);
        }
        prop_assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done);
        prop_assert_eq!(pair.medium.running_image(), &image(60_000, 1)[..]);
    }

    #[test]
    fn a_service_that_was_fed_garbage_answers_little_and_does_not_panic(
        garbage in proptest::collection::vec((0u64..2_000, any::<bool>(), bytes()), 1..100),
    ) {
        let fixture = Fixture::new();
        let key = fixture.device_key.public();
        let mut now = Instant::ZERO;
        let mut session = ServerSession::new(fixture.device.clone(), now);
        let view = DeviceView {
            standing: Standing::Accepted { key: &key },
            root_version: 1,
            assignment: None,
            campaigns: &[],
            live: None,
        };
        let mut answers = 0;
        for (wait, requests, bytes) in &garbage {
            now = now.plus_millis(*wait);
            let channel = if *requests { Channel::Requests } else { Channel::Reports };
            session.handle_input(now, UnixTime::default(), &view, ServerInput::message(&channel, bytes));
            while let Some(output) = session.poll_output() {
                answers += u64::from(!matches!(output, whimbrel_protocol::server::Output::Event(_)));
            }
        }
        let most = 24 + now.as_millis() / 2000 + 1;
        prop_assert!(answers <= most, "{} answers, {} at most", answers, most);
    }
}

#[test]
fn a_message_of_a_version_that_is_not_spoken_is_refused_as_that() {
    let fixture = Fixture::new();
    let key = fixture.device_key.public();
    let mut session = ServerSession::new(fixture.device.clone(), Instant::ZERO);
    let view = DeviceView {
        standing: Standing::Accepted { key: &key },
        root_version: 1,
        assignment: None,
        campaigns: &[],
        live: None,
    };
    for (payload, want) in [
        (&[0x21, 0x80][..], RefusalCode::Version),
        (&[0x01, 0x80], RefusalCode::Version),
        (&[0x11, 0x80], RefusalCode::Malformed),
        (&[0x1f], RefusalCode::Malformed),
    ] {
        let input = ServerInput::message(&Channel::Requests, payload);
        session.handle_input(Instant::ZERO, UnixTime::default(), &view, input);
        let answers: Vec<_> = core::iter::from_fn(|| session.poll_output())
            .filter(|output| !matches!(output, whimbrel_protocol::server::Output::Event(_)))
            .collect();
        let refusal = Refusal { code: want, retry_after_s: None, payload: None };
        assert_eq!(answers, [whimbrel_protocol::server::Output::Refuse(refusal)], "{payload:02x?}");
    }
}

/// The broker is the adversary: it flips, drops, doubles and holds back whatever it likes, for a while.
#[test]
fn whatever_the_broker_does_nothing_wrong_is_installed() {
    for seed in 0..40 {
        let mut pair =
            Pair::with_release(PairOptions { seed, ..PairOptions::default() }, image(60_000, 2), 10);
        let mut jitter = Jitter::new(seed);
        let mut kept: Vec<whimbrel_protocol::testing::Packet> = Vec::new();
        pair.tap = Some(Box::new(move |now, mut packet| {
            if now.as_millis() > 10 * MINUTE {
                return vec![packet];
            }
            if kept.len() < 50 {
                kept.push(packet.clone());
            }
            match jitter.below(12) {
                0 => Vec::new(),
                1 => vec![packet.clone(), packet],
                2 | 3 if !packet.payload.is_empty() => {
                    let at = usize::try_from(jitter.below(packet.payload.len() as u64)).unwrap();
                    packet.payload[at] ^= 1 << jitter.below(8);
                    vec![packet]
                }
                4 => {
                    let at = usize::try_from(jitter.below(packet.payload.len() as u64 + 1)).unwrap();
                    packet.payload.truncate(at);
                    vec![packet]
                }
                5 => {
                    let old = kept[usize::try_from(jitter.below(kept.len() as u64)).unwrap()].clone();
                    vec![old, packet]
                }
                _ => vec![packet],
            }
        }));
        let verdict = pair.run_until(State::Confirmed, DAY);
        let failed = pair.device.state() == State::Failed;
        assert!(verdict == Verdict::Done || failed, "seed {seed}: {pair:?}");
        let running = pair.medium.running_image();
        assert!(running == image(60_000, 2) || running == [0; 100], "seed {seed} runs what nobody signed");
    }
}

/// A device that is sent endless data holds no more than its window, and says so.
#[test]
fn endless_data_is_neither_kept_nor_answered() {
    let mut pair = Pair::with_release(PairOptions::default(), image(200_000, 3), 12);
    pair.run(5_000, |_| false);
    let held = pair.device.status().unwrap().bytes_received;
    for _ in 0..2000 {
        pair.inject(Channel::Answers, vec![0x18; 30_000]);
    }
    assert_eq!(pair.device.status().unwrap().bytes_received, held);
    let floods = pair.events.iter().filter(|(_, event)| matches!(event, Event::Flooded { .. })).count();
    assert_eq!(floods, 1, "told once a connection");
}

/// An unsigned `unknown`, a forged refusal, delays and ends nothing.
#[test]
fn forged_refusals_delay_and_end_nothing() {
    let mut pair = Pair::with_release(PairOptions::default(), image(200_000, 4), 12);
    for code in [
        RefusalCode::Busy,
        RefusalCode::Unknown,
        RefusalCode::Pending,
        RefusalCode::NotYours,
        RefusalCode::NotFound,
        RefusalCode::OverQuota,
        RefusalCode::Version,
        RefusalCode::Malformed,
    ] {
        pair.run(1_500, |_| false);
        pair.inject(
            Channel::Answers,
            Refusal { code, retry_after_s: Some(u32::MAX), payload: None }.encode(),
        );
    }
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?}");
}

/// A request that was made for an earlier payload, and answered or replayed late, holds up nobody.
#[test]
fn a_refusal_of_something_else_than_what_is_asked_for_delays_nothing() {
    let mut pair = Pair::with_release(PairOptions::default(), image(200_000, 5), 12);
    assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Downloading), Verdict::Done);
    let ours = pair.service.releases[0].tag();
    let refusal = |code, payload| Refusal { code, retry_after_s: None, payload }.encode();
    let earlier = PayloadTag([!ours.0[0], 0, 0, 0]);
    for late in [
        refusal(RefusalCode::NotYours, Some(earlier)),
        refusal(RefusalCode::OverQuota, Some(earlier)),
        refusal(RefusalCode::NotYours, None),
    ] {
        pair.inject(Channel::Answers, late);
        assert_eq!(pair.device.state(), State::Downloading);
    }
    pair.inject(Channel::Answers, refusal(RefusalCode::NotYours, Some(ours)));
    assert_eq!(pair.device.state(), State::Deferred);
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?}");
}

/// Chunks of another device's download, or of another payload, are not taken for ours.
#[test]
fn cross_delivered_chunks_are_refused() {
    let other = Pair::with_release(PairOptions::default(), image(200_000, 6), 12);
    let foreign = other.service.releases[0].clone();
    let mut pair = Pair::with_release(PairOptions::default(), image(200_000, 5), 12);
    pair.run(3_000, |_| false);
    let ours = pair.service.releases[0].clone();
    for tag in [foreign.tag(), ours.tag()] {
        let first = whimbrel_protocol::ids::ChunkIndex(10);
        let message =
            whimbrel_protocol::message::ChunkMessage::encode(tag, first, &foreign.payload[40_960..45_056]);
        pair.inject(Channel::Answers, message);
    }
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done);
    assert_eq!(pair.medium.running_image(), image(200_000, 5));
}

/// The core asks for nothing that its host would have to bound: outputs of one input are few.
#[test]
fn one_input_causes_few_outputs() {
    let faults = Faults { delay_ms: (1, 2), rate: 500_000, ..Faults::default() };
    let mut pair =
        Pair::with_release(PairOptions { faults, ..PairOptions::default() }, image(600_000, 7), 10);
    pair.run(400, |_| false);
    let mut most = 0;
    for _ in 0..50 {
        pair.device.handle_input(pair.now, whimbrel_protocol::device::Input::Timeout);
        let mut outputs = 0;
        while let Some(output) = pair.device.poll_output() {
            outputs += usize::from(!matches!(output, Output::Event(_)));
        }
        most = most.max(outputs);
    }
    assert!(most <= 16, "{most}");
}

//! What an outage looks like to a device, and what it must not be taken for.

use whimbrel_protocol::device::Event;
use whimbrel_protocol::message::State;
use whimbrel_protocol::testing::{Pair, PairOptions, Verdict};

use crate::session::{MINUTE, image};

/// Nothing travels for so long.
fn outage(pair: &mut Pair, ms: u64) {
    let until = pair.now.plus_millis(ms);
    pair.tap = Some(Box::new(move |now, packet| if now < until { Vec::new() } else { vec![packet] }));
}

fn holds(chunks: u32) -> impl Fn(&Pair) -> bool {
    move |pair| pair.device.status().is_some_and(|status| status.chunks_held >= chunks)
}

/// The update goes on at full size until it is there.
fn ends_at_full_size(pair: &mut Pair, what: &str) {
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done, "{what}: {pair:?}");
    let blamed =
        |(_, event): &&(_, Event)| matches!(event, Event::MessagesLost { .. } | Event::MessageLimit { .. });
    let blamed: Vec<_> = pair.events.iter().filter(blamed).collect();
    assert!(blamed.is_empty(), "{what}: {blamed:?}");
}

/// Headers of chunk messages differ in length. A size that has arrived is not in doubt any more, whatever its header.
#[test]
fn two_short_outages_of_one_connection_say_nothing_about_the_size_of_messages() {
    for seed in 0..8 {
        let options = PairOptions { seed, ..PairOptions::default() };
        let mut pair = Pair::with_release(options, image(300_000, 1), 12);
        for chunks in [8, 30] {
            assert_eq!(pair.run(2 * MINUTE, holds(chunks)), Verdict::Done);
            outage(&mut pair, 12_000);
        }
        ends_at_full_size(&mut pair, &format!("seed {seed}"));
        assert_eq!(pair.cuts.0, 0, "the connection holds");
    }
}

/// A request that was lost before the service was back says nothing about what the broker carries.
#[test]
fn a_service_that_is_away_for_some_twenty_seconds_is_not_taken_for_a_broker_that_drops_large_messages() {
    for seconds in 16..=23 {
        for seed in 0..4 {
            for rate_is_known in [true, false] {
                let options = PairOptions { seed, ..PairOptions::default() };
                let mut pair = Pair::with_release(options, image(300_000, 1), 12);
                if rate_is_known {
                    assert_eq!(pair.run(2 * MINUTE, holds(20)), Verdict::Done);
                    pair.cut();
                    let answered = pair.events.len();
                    let answered = |pair: &Pair| {
                        let answer = |(_, event): &(_, Event)| matches!(event, Event::Answered { .. });
                        pair.events.iter().skip(answered).any(answer)
                    };
                    assert_eq!(pair.run(MINUTE, answered), Verdict::Done);
                } else {
                    let downloads = |pair: &Pair| pair.device.state() == State::Downloading;
                    assert_eq!(pair.run(MINUTE, downloads), Verdict::Done);
                }
                outage(&mut pair, seconds * 1000);
                ends_at_full_size(&mut pair, &format!("{seconds} s, seed {seed}, rate: {rate_is_known}"));
            }
        }
    }
}

//! Hellos and what their answers bring: nonces, waits, acknowledged reports.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use whimbrel_protocol::cose::{Kind, Sign1};
use whimbrel_protocol::device::{Event, Input, Reason, Record};
use whimbrel_protocol::ids::{DeviceId, Nonce, ShortDigest};
use whimbrel_protocol::limits::REPORTS_MAX;
use whimbrel_protocol::message::{
    DeferReason, DocumentRequest, FailureCode, Hello, HelloAnswer, Outcome, Refusal, RefusalCode, Report,
    Request, State,
};
use whimbrel_protocol::testing::{Direction, OrderOptions, Pair, PairOptions};
use whimbrel_protocol::topic::Channel;

use crate::by_hand::{ByHand, boot, subscriptions, the_hello};
use crate::documents::{group, idle, offer, release};
use crate::session::MINUTE;

/// What the device has asked, with the time of each question.
type Heard = Rc<RefCell<Vec<(u64, Request)>>>;

/// Notes every request of the device; the service's messages get through or don't.
fn overhear(pair: &mut Pair, answered: bool) -> Heard {
    let heard = Heard::default();
    let notes = heard.clone();
    pair.tap = Some(Box::new(move |now, packet| {
        if packet.direction == Direction::Down {
            return if answered { vec![packet] } else { Vec::new() };
        }
        if packet.channel == Channel::Requests {
            notes.borrow_mut().push((now.as_millis(), Request::decode(&packet.payload).unwrap()));
        }
        vec![packet]
    }));
    heard
}

fn hellos(heard: &Heard) -> Vec<(u64, Hello)> {
    let hello = |(at, request): &(u64, Request)| match request {
        Request::Hello(hello) => Some((*at, hello.clone())),
        _ => None,
    };
    heard.borrow().iter().filter_map(hello).collect()
}

fn last_nonce(heard: &Heard) -> Nonce {
    hellos(heard).last().unwrap().1.nonce
}

/// Injects an answer and returns what the device tells of it.
fn answer(pair: &mut Pair, nonce: Nonce, report: Option<ShortDigest>) -> Vec<Event> {
    let device = pair.fixture.device.clone();
    answer_to(pair, &device, nonce, report)
}

/// The same with an answer to a device of any name.
fn answer_to(pair: &mut Pair, device: &DeviceId, nonce: Nonce, report: Option<ShortDigest>) -> Vec<Event> {
    let answer = HelloAnswer {
        echo: nonce.echo(device),
        time: pair.fixture.issued.plus_secs(60),
        root: 1,
        assignment: 1,
        groups: Vec::new(),
        report,
        key: pair.fixture.device_key.public().id(),
    };
    pair.events.clear();
    pair.inject(Channel::Answers, pair.fixture.answer(&answer));
    std::mem::take(&mut pair.events).into_iter().map(|(_, event)| event).collect()
}

fn has_answered(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Answered { .. }))
}

#[test]
fn an_answer_to_another_device_counts_for_nothing_also_if_it_said_the_same_nonce() {
    let mut pair = Pair::new(PairOptions::default());
    let heard = overhear(&mut pair, false);
    pair.run(MINUTE, |_| hellos(&heard).len() == 1);
    let (nonce, other) = (last_nonce(&heard), DeviceId::new("dev-0002").unwrap());
    let events = answer_to(&mut pair, &other, nonce, None);
    let refused = Event::Rejected { channel: Channel::Answers, reason: Reason::WrongNonce };
    assert!(events.contains(&refused) && !has_answered(&events), "{events:?}");
    assert!(has_answered(&answer(&mut pair, nonce, None)));
}

#[test]
fn an_answer_to_another_hello_counts_for_nothing_while_one_waits() {
    let mut pair = Pair::new(PairOptions::default());
    let heard = overhear(&mut pair, false);
    pair.run(MINUTE, |_| hellos(&heard).len() == 2);
    let [earlier, waiting] = [0, 1].map(|at: usize| hellos(&heard)[at].1.nonce);
    let flipped = (0..8).map(|byte| {
        let mut nonce = waiting;
        nonce.0[byte] ^= 1;
        nonce
    });
    for other in [earlier, Nonce([0; 8])].into_iter().chain(flipped) {
        let events = answer(&mut pair, other, None);
        let refused = Event::Rejected { channel: Channel::Answers, reason: Reason::WrongNonce };
        assert!(events.contains(&refused) && !has_answered(&events), "{other:?}: {events:?}");
    }
    // The hello has gone on waiting, for one answer.
    assert!(has_answered(&answer(&mut pair, waiting, None)));
    assert!(!has_answered(&answer(&mut pair, waiting, None)));
    // A connection later, what was answered before is not waited for.
    pair.feed(Input::Check);
    let before = last_nonce(&heard);
    pair.cut();
    pair.run(MINUTE, |_| last_nonce(&heard) != before);
    assert!(!has_answered(&answer(&mut pair, before, None)));
    let now = last_nonce(&heard);
    assert!(has_answered(&answer(&mut pair, now, None)));
}

#[test]
fn no_two_hellos_carry_one_nonce() {
    let mut nonces = Vec::new();
    for seed in [1, 2] {
        let mut pair = Pair::new(PairOptions { seed, ..PairOptions::default() });
        let heard = overhear(&mut pair, true);
        for _ in 0..3 {
            for _ in 0..5 {
                pair.run(10_000, |_| false);
                pair.feed(Input::Check);
                pair.feed(Input::Check);
                pair.cut();
            }
            pair.kill();
        }
        nonces.extend(hellos(&heard).into_iter().map(|(_, hello)| hello.nonce.0));
    }
    assert!(nonces.len() >= 2 * 3 * 5 * 3, "{}", nonces.len());
    assert_eq!(nonces.iter().collect::<BTreeSet<_>>().len(), nonces.len());
}

/// The gaps lie within bounds, and are spread over most of them.
fn spread(gaps: &[u64], shortest: u64, longest: u64) {
    assert!(gaps.iter().all(|gap| (shortest..=longest).contains(gap)), "{gaps:?}");
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(most - least > (longest - shortest) / 2, "{gaps:?}");
    let distinct = gaps.iter().collect::<BTreeSet<_>>().len();
    assert!(distinct + 2 >= gaps.len(), "{gaps:?} coincide");
}

const SEEDS: u64 = 16;

fn of_every_seed(measure: impl Fn(Pair) -> Vec<u64>) -> Vec<Vec<u64>> {
    (0..SEEDS).map(|seed| measure(Pair::new(PairOptions { seed, ..PairOptions::default() }))).collect()
}

fn gaps(times: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let times: Vec<u64> = times.into_iter().collect();
    times.windows(2).map(|two| two[1] - two[0]).collect()
}

#[test]
fn hellos_without_an_answer_get_rarer_and_devices_do_not_keep_step() {
    let waits = of_every_seed(|mut pair| {
        let heard = overhear(&mut pair, false);
        pair.run(90 * MINUTE, |_| hellos(&heard).len() == 10);
        gaps(hellos(&heard).into_iter().map(|(at, _)| at))
    });
    for number in 0..9 {
        let range = (10_000 << number).min(600_000);
        spread(&waits.iter().map(|waits| waits[number]).collect::<Vec<_>>(), range, range + range / 2);
    }
    let again = of_every_seed(|mut pair| {
        let heard = overhear(&mut pair, false);
        pair.run(90 * MINUTE, |_| hellos(&heard).len() == 10);
        gaps(hellos(&heard).into_iter().map(|(at, _)| at))
    });
    assert_eq!(again, waits, "a seed replays its run");
}

#[test]
fn a_connection_that_breaks_does_not_shorten_the_wait_of_the_next_hello() {
    let mut by_hand = ByHand::new(1, Record::default(), boot());
    for doubled in 0..6 {
        let hello = by_hand.feed(Input::Connected);
        assert_eq!(crate::by_hand::hellos(&hello).len(), 1);
        let (waited, _) = by_hand.wake().unwrap();
        let shortest = 10_000 << (2 * doubled);
        assert!((shortest.min(600_000)..=900_000).contains(&waited), "{doubled}: {waited}");
        by_hand.feed(Input::Disconnected);
        assert_eq!(by_hand.session.poll_timeout(), None, "nobody can be asked");
    }
}

#[test]
fn a_device_that_waits_to_be_accepted_asks_after_the_wait_and_up_to_a_quarter_more() {
    let waits = of_every_seed(|mut pair| {
        let heard = overhear(&mut pair, false);
        pair.run(500, |_| false);
        let pending = Refusal { code: RefusalCode::Pending, retry_after_s: Some(30), payload: None }.encode();
        pair.inject(Channel::Answers, pending);
        pair.run(MINUTE, |_| hellos(&heard).len() == 2);
        vec![hellos(&heard)[1].0 - 500]
    });
    spread(&waits.concat(), 30_000, 37_500);
}

/// Its jitter is a part of the wait, and of nothing there is no part. How soon the device asks again is not said here.
#[test]
fn a_refusal_with_a_wait_of_no_seconds_is_no_panic() {
    for code in [RefusalCode::Pending, RefusalCode::Unknown] {
        let mut pair = idle();
        let refusal = Refusal { code, retry_after_s: Some(0), payload: None }.encode();
        pair.inject(Channel::Answers, refusal.clone());
        pair.inject(Channel::Answers, refusal);
        pair.run(3_000, |_| false);
    }
}

#[test]
fn a_device_that_nobody_knows_enrols_once_a_connection_and_says_hello_no_sooner_than_without_the_refusal() {
    let waits = of_every_seed(|mut pair| {
        let heard = overhear(&mut pair, false);
        pair.run(500, |_| false);
        let unknown = Refusal { code: RefusalCode::Unknown, retry_after_s: None, payload: None }.encode();
        pair.inject(Channel::Answers, unknown.clone());
        pair.inject(Channel::Answers, unknown);
        pair.run(MINUTE, |_| hellos(&heard).len() == 2);
        let enrolments = pair
            .server_events
            .iter()
            .filter(|event| matches!(event, whimbrel_protocol::server::Event::Enrolled { .. }));
        assert_eq!(enrolments.count(), 1);
        vec![hellos(&heard)[1].0 - hellos(&heard)[0].0]
    });
    spread(&waits.concat(), 10_000, 15_000);
}

#[test]
fn a_manifest_that_does_not_come_is_asked_for_more_and_more_rarely() {
    let waits = of_every_seed(|mut pair| {
        let heard = Heard::default();
        let notes = heard.clone();
        pair.tap = Some(Box::new(move |now, packet| {
            let request = Request::decode(&packet.payload);
            if packet.channel == Channel::Requests {
                notes.borrow_mut().push((now.as_millis(), request.unwrap()));
            }
            if packet.payload.starts_with(&[0xd8, 0x6b]) { Vec::new() } else { vec![packet] }
        }));
        let release = release(&pair, 1);
        pair.roll_out(release, OrderOptions::default());
        let asked = |heard: &Heard| {
            let manifest = |(_, request): &&(u64, Request)| {
                matches!(request, Request::Document(DocumentRequest::Manifest(_)))
            };
            heard.borrow().iter().filter(manifest).map(|(at, _)| *at).collect::<Vec<_>>()
        };
        pair.run(10 * 60 * MINUTE, |_| asked(&heard).len() == 12);
        let status = pair.device.status().unwrap();
        assert_eq!(
            (status.state, status.deferred),
            (State::Deferred, Some(DeferReason::Retry)),
            "it says so"
        );
        gaps(asked(&heard))
    });
    for number in 0..11 {
        let range = (15_000 << number.min(8)).min(3_600_000);
        spread(&waits.iter().map(|waits| waits[number]).collect::<Vec<_>>(), range, range + range / 4);
    }
}

/// Makes a deployment that ends at once, by an order that has expired, and reads what is reported of it.
pub(crate) fn report(pair: &mut Pair, number: u8) -> Report {
    let options =
        OrderOptions { version: number.into(), campaign: number, life_s: 1, ..OrderOptions::default() };
    let campaign = pair.fixture.campaign(&release(pair, 1), options);
    assert_eq!(offer(pair, group(), &campaign), None);
    let reports = &pair.device.record().reports;
    let object = Sign1::decode(reports.last().unwrap()).unwrap();
    let payload = object.verify_attached(Kind::Report, &pair.fixture.device_key.public()).unwrap();
    let report = Report::decode(payload).unwrap();
    assert_eq!(report.campaign.0, [number; 8]);
    assert_eq!((report.outcome, report.failure), (Outcome::Failed, Some(FailureCode::Expired)));
    report
}

#[test]
fn an_acknowledgement_of_another_report_removes_nothing() {
    let mut pair = idle();
    let heard = overhear(&mut pair, false);
    report(&mut pair, 1);
    report(&mut pair, 2);
    let both = pair.device.record().reports.clone();
    let [oldest, second] = [0, 1].map(|at: usize| Report::digest(&both[at]).unwrap());
    let acknowledge = |pair: &mut Pair, report| {
        pair.feed(Input::Check);
        assert!(has_answered(&answer(pair, last_nonce(&heard), None)));
        pair.feed(Input::Check);
        let events = answer(pair, last_nonce(&heard), report);
        assert!(has_answered(&events));
        let told = events.into_iter().find_map(|event| match event {
            Event::ReportAcknowledged { report } => Some(report),
            _ => None,
        });
        (told, pair.device.record().reports.clone())
    };
    pair.feed(Input::Check);
    assert_eq!(hellos(&heard).last().unwrap().1.report, Some(oldest), "hello names the oldest");
    let flipped = (0..8).map(|byte| {
        let mut digest = oldest;
        digest.0[byte] ^= 1;
        digest
    });
    for other in [second, ShortDigest([0; 8])].into_iter().chain(flipped) {
        assert_eq!(acknowledge(&mut pair, Some(other)), (None, both.clone()), "{other:?}");
    }
    assert_eq!(acknowledge(&mut pair, None), (None, both.clone()));
    assert_eq!(acknowledge(&mut pair, Some(oldest)), (Some(oldest), vec![both[1].clone()]));
    assert_eq!(acknowledge(&mut pair, Some(oldest)), (None, vec![both[1].clone()]));
    pair.kill();
    assert_eq!(pair.device.record().reports, [both[1].clone()], "what was removed stays removed");
    let before = hellos(&heard).len();
    pair.run(MINUTE, |_| hellos(&heard).len() > before);
    assert_eq!(hellos(&heard).last().unwrap().1.report, Some(second));
    assert_eq!(acknowledge(&mut pair, Some(second)), (Some(second), vec![]));
}

#[test]
fn report_numbers_rise_with_every_report_also_over_restarts_and_when_older_ones_are_forgotten() {
    let mut pair = idle();
    pair.tap = Some(Box::new(|_, packet| match packet.channel {
        Channel::Reports => Vec::new(),
        _ => vec![packet],
    }));
    let mut numbers = Vec::new();
    for number in 1..=9 {
        numbers.push(report(&mut pair, number).number);
        match number % 3 {
            0 => pair.kill(),
            1 => pair.power_cut(),
            _ => {}
        }
        pair.run(20_000, |_| false);
        assert!(pair.device.record().reports.len() <= REPORTS_MAX);
    }
    assert_eq!(numbers, (numbers[0]..numbers[0] + 9).collect::<Vec<_>>());
    assert_eq!(pair.device.record().next_report, numbers[8] + 1);
}

/// Without its topics a device would hear nothing for as long as the connection holds.
#[test]
fn if_topics_are_not_subscribed_to_a_device_in_step_asks_for_news_more_and_more_rarely() {
    let mut waits = Vec::new();
    let mut by_hand = ByHand::in_step(1);
    assert_eq!(by_hand.wake(), None, "topics bring the news");
    by_hand.feed(Input::NotSubscribed);
    for range in [600_000, 1_200_000, 2_400_000, 3_600_000, 3_600_000] {
        by_hand.feed(Input::NotSubscribed);
        let (waited, outputs) = by_hand.wake().unwrap();
        assert!((range..=range + range / 4 + 1000).contains(&waited), "{range}: {waited}");
        waits.push(waited);
        let hello = the_hello(&outputs);
        let outputs = by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
        assert_eq!(subscriptions(&outputs), [], "what was refused is not subscribed to again");
    }
    assert!(waits[3] != waits[4], "there is jitter: {waits:?}");
    // A person's question neither shortens the wait nor begins it anew.
    by_hand.now = by_hand.now.plus_millis(1_000_000);
    let hello = the_hello(&by_hand.feed(Input::Check));
    by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
    let (waited, outputs) = by_hand.wake().unwrap();
    assert!((2_600_000..=3_500_000).contains(&waited), "{waited}");
    // One that nobody answers is said again like any other.
    the_hello(&outputs);
    let (waited, outputs) = by_hand.wake().unwrap();
    assert!(waited <= 15_000, "{waited}");
    the_hello(&outputs);
    // The next connection may have every topic.
    by_hand.feed(Input::Disconnected);
    by_hand.feed(Input::NotSubscribed);
    let hello = the_hello(&by_hand.feed(Input::Connected));
    by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
    assert_eq!(by_hand.wake(), None);
}

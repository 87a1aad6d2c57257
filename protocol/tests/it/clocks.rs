//! Which clock says that an order has expired or may begin: the service's, in an answer to a hello of this
//! connection. No other clock decides anything, however wrong it is (SPEC section 4.5).

use whimbrel_protocol::cose::Sign1;
use whimbrel_protocol::device::{Event, Input, Output, Record};
use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::message::{CampaignState, FailureCode, GroupVersion, Outcome, Report, State};
use whimbrel_protocol::testing::{Fixture, OrderOptions, Release, Verdict};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;

use crate::by_hand::{ByHand, boot, events, the_hello};
use crate::documents::{group, idle, offer, release};
use crate::session::{MINUTE, ended};

const YEAR_S: u64 = 365 * 24 * 3600;
/// 2100-01-01.
const CENTURY: UnixTime = UnixTime::from_secs(4_102_444_800);

fn small(fixture: &Fixture) -> Release {
    fixture.release(vec![1; 2000], 1, 10)
}

/// A campaign of the device's group that lives for `life_s`.
fn campaign(by_hand: &ByHand, version: u64, life_s: u64) -> Vec<u8> {
    let options = OrderOptions { version, life_s, ..OrderOptions::default() };
    by_hand.fixture.campaign(&small(&by_hand.fixture), options)
}

/// Connects anew; the service's clock is `ahead_s` after what was signed, and what it has is here.
fn reconnect(by_hand: &mut ByHand, ahead_s: u64) -> Vec<Output> {
    by_hand.feed(Input::Disconnected);
    let hello = the_hello(&by_hand.feed(Input::Connected));
    answer(by_hand, &hello, ahead_s)
}

fn answer(by_hand: &mut ByHand, hello: &whimbrel_protocol::message::Hello, ahead_s: u64) -> Vec<Output> {
    let groups: Vec<GroupVersion> = hello.groups.clone();
    let time = by_hand.fixture.issued.plus_secs(ahead_s);
    by_hand.answer(hello.nonce, |answer| {
        (answer.assignment, answer.groups, answer.time) = (hello.assignment, groups, time);
    })
}

fn failures(outputs: &[Output]) -> Vec<FailureCode> {
    let failure = |event: &Event| match event {
        Event::Ended { failure, .. } => *failure,
        _ => None,
    };
    events(outputs).iter().filter_map(failure).collect()
}

#[test]
fn a_device_whose_own_clock_is_at_2100_takes_orders_as_any_other() {
    let mut pair = idle();
    pair.feed(Input::WallClock(CENTURY));
    let release = release(&pair, 1);
    pair.roll_out(release, OrderOptions { life_s: 3600, ..OrderOptions::default() });
    pair.feed(Input::WallClock(CENTURY));
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done, "{pair:?}");
    // It started with that clock, too.
    let mut by_hand = ByHand::on(1, Record::default(), boot(), CENTURY, false);
    let hello = the_hello(&by_hand.feed(Input::Connected));
    by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
    let groups = [by_hand.fixture.group.clone()];
    let assignment = by_hand.fixture.assignment(1, &groups, None);
    by_hand.message(Channel::Answers, &assignment);
    let order = campaign(&by_hand, 1, 3600);
    assert_eq!(failures(&by_hand.message(Channel::Answers, &order)), []);
    assert_eq!(by_hand.session.state(), State::Offered);
}

/// Beacon, assignment and campaign were signed while the service's clock was a year ahead. It is right again since.
#[test]
fn a_document_signed_by_a_clock_that_was_a_year_ahead_spoils_no_later_one() {
    let mut pair = idle();
    let mut ahead = pair.fixture.clone();
    ahead.issued = ahead.issued.plus_secs(YEAR_S);
    assert_eq!(offer(&mut pair, Channel::Beacon, &ahead.beacon(1, &[], 3600)), None);
    let beta = GroupName::new("beta").unwrap();
    let groups = [pair.fixture.group.clone(), beta.clone()];
    let assignment = ahead.assignment(2, &groups, None);
    assert_eq!(offer(&mut pair, Channel::Assignment, &assignment), None);
    pair.service.assignment = Some((2, assignment));
    let aborted = OrderOptions { campaign: 9, state: CampaignState::Aborted, ..OrderOptions::default() };
    let order = ahead.order(&release(&pair, 1), aborted);
    let of_beta = ahead.campaign_of(&beta, order, aborted);
    assert_eq!(offer(&mut pair, Channel::Group(beta), &of_beta), None);
    for sequence in 1..=2 {
        let release = release(&pair, sequence);
        let (version, campaign) = (sequence, u8::try_from(sequence).unwrap());
        let options = OrderOptions { version, campaign, life_s: 7200, ..OrderOptions::default() };
        pair.service.reports.clear();
        pair.roll_out(release, options);
        assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done, "{pair:?}");
        // Nor is the time stored.
        pair.power_cut();
    }
    assert!(ended(&pair).iter().all(|(outcome, _)| *outcome == Outcome::Confirmed));
}

#[test]
fn until_the_service_has_answered_in_this_connection_nothing_has_expired_and_nothing_begins() {
    let mut by_hand = ByHand::in_step(1);
    // The clock of the connection before was a year ahead.
    assert_eq!(failures(&reconnect(&mut by_hand, YEAR_S)), []);
    by_hand.feed(Input::Disconnected);
    by_hand.feed(Input::Connected);
    let order = campaign(&by_hand, 1, 3600);
    assert_eq!(failures(&by_hand.message(group(), &order)), []);
    by_hand.now = by_hand.now.plus_millis(YEAR_S * 1000);
    let outputs = by_hand.feed(Input::WallClock(CENTURY));
    assert_eq!(failures(&outputs), []);
    let hello = the_hello(&outputs);
    assert_eq!((by_hand.session.state(), by_hand.session.record().outcomes.len()), (State::Idle, 0));
    assert_eq!(failures(&answer(&mut by_hand, &hello, 60)), []);
    assert_eq!(by_hand.session.state(), State::Offered);
}

#[test]
fn an_order_that_has_expired_by_the_clock_of_an_answer_is_refused() {
    for (life_s, fails) in [(61, false), (60, true)] {
        let mut by_hand = ByHand::in_step(1);
        let order = campaign(&by_hand, 1, life_s);
        let want: &[_] = if fails { &[FailureCode::Expired] } else { &[] };
        assert_eq!(failures(&by_hand.message(group(), &order)), want, "{life_s}");
    }
}

#[test]
fn the_clock_of_an_answer_goes_on_with_time_and_the_next_answer_sets_it_anew() {
    let mut by_hand = ByHand::in_step(1);
    by_hand.now = by_hand.now.plus_millis(1_000_000);
    let order = campaign(&by_hand, 1, 1060);
    assert_eq!(failures(&by_hand.message(group(), &order)), [FailureCode::Expired]);
    // An answer may set it back: the service's clock was mended.
    let mut by_hand = ByHand::in_step(1);
    let hello = the_hello(&by_hand.feed(Input::Check));
    answer(&mut by_hand, &hello, YEAR_S);
    let hello = the_hello(&by_hand.feed(Input::Check));
    answer(&mut by_hand, &hello, 60);
    let order = campaign(&by_hand, 1, 1060);
    assert_eq!(failures(&by_hand.message(group(), &order)), []);
    assert_eq!(by_hand.session.state(), State::Offered);
}

/// A start time was waited for by a clock that was a year behind.
#[test]
fn a_start_time_is_looked_at_anew_with_every_answer() {
    for again in [false, true] {
        let mut by_hand = ByHand::in_step(1);
        let release = small(&by_hand.fixture);
        let mut order = by_hand.fixture.order(&release, OrderOptions::default());
        order.not_before = by_hand.fixture.issued.plus_secs(YEAR_S);
        let options = OrderOptions { life_s: 2 * YEAR_S, ..OrderOptions::default() };
        let campaign = by_hand.fixture.campaign_of(&by_hand.fixture.group, order, options);
        by_hand.message(group(), &campaign);
        let start = Instant::from_millis((YEAR_S - 60) * 1000);
        assert_eq!(
            (by_hand.session.state(), by_hand.session.deferred_until()),
            (State::Deferred, Some(start))
        );
        let told = if again {
            let hello = the_hello(&by_hand.feed(Input::Check));
            answer(&mut by_hand, &hello, YEAR_S - 10)
        } else {
            reconnect(&mut by_hand, YEAR_S - 10)
        };
        let changed = |event: &Event| matches!(event, Event::StateChanged { .. });
        assert!(!events(&told).iter().any(changed), "it waits for the same as before: {told:?}");
        assert_eq!(by_hand.session.deferred_until(), Some(Instant::from_millis(10_000)));
        by_hand.wake();
        assert_eq!(by_hand.session.state(), State::Offered);
    }
}

/// Seconds that a report's time is ahead of what was signed.
fn reported_s(by_hand: &ByHand) -> u64 {
    let object = Sign1::decode(by_hand.session.record().reports.last().unwrap()).unwrap();
    let report = Report::decode(object.unverified_payload().unwrap()).unwrap();
    report.time.as_secs() - by_hand.fixture.issued.as_secs()
}

/// The device's own clock is never before the pinned root was made.
#[test]
fn a_report_is_dated_by_the_service_and_until_that_answers_by_the_devices_own_clock() {
    let aborted = |by_hand: &ByHand| {
        let state = CampaignState::Aborted;
        let options = OrderOptions { version: 2, state, ..OrderOptions::default() };
        by_hand.fixture.campaign(&small(&by_hand.fixture), options)
    };
    let issued = Fixture::new().issued;
    let begun = |today| {
        let mut by_hand = ByHand::on(1, Record::default(), boot(), today, false);
        let hello = the_hello(&by_hand.feed(Input::Connected));
        by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
        let groups = [by_hand.fixture.group.clone()];
        let assignment = by_hand.fixture.assignment(1, &groups, None);
        by_hand.message(Channel::Answers, &assignment);
        let order = campaign(&by_hand, 1, 3600);
        by_hand.message(Channel::Answers, &order);
        by_hand
    };
    for (today, wall_clock_s, own_s) in [
        (UnixTime::default(), None, 0),
        (issued.plus_secs(500), None, 500),
        (issued.plus_secs(500), Some(400), 500),
        (issued.plus_secs(500), Some(600), 600),
    ] {
        let mut by_hand = begun(today);
        let order = aborted(&by_hand);
        by_hand.message(group(), &order);
        assert_eq!(reported_s(&by_hand), 60, "the answer's");
        let mut by_hand = begun(today);
        by_hand.feed(Input::Disconnected);
        if let Some(seconds) = wall_clock_s {
            by_hand.feed(Input::WallClock(issued.plus_secs(seconds)));
        }
        by_hand.feed(Input::Connected);
        let order = aborted(&by_hand);
        by_hand.message(group(), &order);
        assert_eq!(reported_s(&by_hand), own_s);
    }
}

/// Nobody may be holding news back while nobody has said what time it is.
#[test]
fn a_beacon_is_stale_by_the_clock_of_an_answer_alone() {
    let mut by_hand = ByHand::on(1, Record::default(), boot(), CENTURY, false);
    by_hand.feed(Input::Connected);
    let beacon = by_hand.fixture.beacon(1, &[], 3600);
    assert!(!by_hand.message(Channel::Beacon, &beacon).contains(&Output::Event(Event::Stale)));
    for (ahead_s, stale) in [(3599, false), (3600, true)] {
        let mut by_hand = ByHand::in_step(1);
        let beacon = by_hand.fixture.beacon(1, &[], 3600);
        by_hand.message(Channel::Beacon, &beacon);
        let outputs = reconnect(&mut by_hand, ahead_s);
        assert_eq!(outputs.contains(&Output::Event(Event::Stale)), stale, "{ahead_s}");
    }
}

//! When a device says hello again, what it subscribes to and when: what it does about news and about their lack.

use whimbrel_protocol::cose::{Kind, sign_attached};
use whimbrel_protocol::device::{Event, Input, Output, Reason, Record, Scope};
use whimbrel_protocol::ids::{Digest, GroupName, Prefix};
use whimbrel_protocol::limits::{REPLAYS_MAX, SCOPES_MAX, UNSOLICITED_BYTES_MAX};
use whimbrel_protocol::message::{
    Beacon, GroupVersion, Hello, Refusal, RefusalCode, Report, State, Validity,
};
use whimbrel_protocol::testing::OrderOptions;
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic::Channel;

use crate::by_hand::{ByHand, boot, events, hellos, subscriptions, the_hello};

/// Milliseconds until the next hello, which the session says by itself.
fn next_hello(by_hand: &mut ByHand) -> Option<u64> {
    let mut waited = 0;
    for _ in 0..20 {
        let (ms, outputs) = by_hand.wake()?;
        waited += ms;
        if !hellos(&outputs).is_empty() {
            return Some(waited);
        }
    }
    None
}

fn within(waited: Option<u64>, range: std::ops::RangeInclusive<u64>) {
    assert!(waited.is_some_and(|waited| range.contains(&waited)), "{waited:?}");
}

#[test]
fn a_device_in_step_says_nothing_more() {
    let mut by_hand = ByHand::in_step(1);
    assert_eq!(next_hello(&mut by_hand), None);
}

#[test]
fn documents_that_an_answer_announces_and_that_do_not_come_are_asked_for_after_half_a_minute() {
    let group = |by_hand: &ByHand, version| GroupVersion { group: by_hand.fixture.group.clone(), version };
    for missing in 0..3 {
        let mut by_hand = ByHand::in_step(1);
        let hello = the_hello(&by_hand.feed(Input::Check));
        let ours = [group(&by_hand, 1), group(&by_hand, 0)];
        by_hand.answer(hello.nonce, |answer| {
            answer.assignment = if missing == 0 { 2 } else { 1 };
            answer.groups = vec![ours[usize::from(missing != 1)].clone()];
        });
        if missing < 2 {
            within(next_hello(&mut by_hand), 30_000..=30_000);
        } else {
            assert_eq!(next_hello(&mut by_hand), None);
        }
    }
    // What arrives in time ends the wait.
    let mut by_hand = ByHand::in_step(1);
    let hello = the_hello(&by_hand.feed(Input::Check));
    let announced = group(&by_hand, 1);
    by_hand.answer(hello.nonce, |answer| {
        (answer.assignment, answer.groups) = (1, vec![announced]);
    });
    let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
    let expired = OrderOptions { life_s: 1, ..OrderOptions::default() };
    let campaign = by_hand.fixture.campaign(&release, expired);
    let outputs = by_hand.message(Channel::Answers, &campaign);
    assert_eq!(hellos(&outputs).len(), 1, "only the report of what had expired asks again");
}

#[test]
fn a_beacon_that_names_what_is_not_here_brings_a_hello_and_another_does_not() {
    let ours = |by_hand: &ByHand| by_hand.fixture.group.clone();
    for (version, of_ours, asks) in [(0, true, false), (1, true, true), (7, false, false), (7, true, true)] {
        let mut by_hand = ByHand::in_step(1);
        let group = if of_ours { ours(&by_hand) } else { GroupName::new("others").unwrap() };
        let beacon = by_hand.fixture.beacon(1, &[(group, version)], 1 << 40);
        let outputs = by_hand.message(Channel::Beacon, &beacon);
        assert_eq!(hellos(&outputs).len(), 0, "the news itself may be on its way");
        let waited = next_hello(&mut by_hand);
        if asks {
            within(waited, 5_000..=6_250);
        } else {
            assert_eq!(waited, None, "{version} {of_ours}");
        }
    }
}

#[test]
fn a_beacon_that_names_a_newer_root_brings_a_hello_and_an_older_one_does_not() {
    for (root, asks) in [(0, false), (1, false), (2, true)] {
        let mut by_hand = ByHand::in_step(1);
        let issued = by_hand.fixture.issued;
        let validity = Validity { version: 1, issued, expires: issued.plus_secs(1 << 40) };
        let beacon = Beacon { prefix: Prefix::default(), validity, groups: Vec::new(), root };
        let beacon = sign_attached(&by_hand.fixture.beacon_key, Kind::Beacon, None, &beacon.encode());
        by_hand.message(Channel::Beacon, &beacon);
        assert_eq!(next_hello(&mut by_hand).is_some(), asks, "{root}");
    }
}

#[test]
fn a_new_group_brings_a_hello_and_a_known_one_does_not() {
    for (new, channel, asks) in [
        (true, Channel::Assignment, true),
        (false, Channel::Assignment, true),
        (true, Channel::Answers, false),
    ] {
        let mut by_hand = ByHand::in_step(1);
        let mut groups = vec![by_hand.fixture.group.clone()];
        groups.extend(new.then(|| GroupName::new("beta").unwrap()));
        let assignment = by_hand.fixture.assignment(2, &groups, None);
        by_hand.message(channel, &assignment);
        let waited = next_hello(&mut by_hand);
        if asks {
            within(waited, 1_000..=1_250);
        } else {
            assert_eq!(waited, None);
        }
    }
}

#[test]
fn topics_are_subscribed_to_when_in_step_and_only_the_assignment_where_not_accepted() {
    let mut by_hand = ByHand::new(1, Record::default(), boot());
    let outputs = by_hand.feed(Input::Connected);
    assert_eq!(subscriptions(&outputs), [Channel::Answers]);
    let hello = the_hello(&outputs);
    let outputs = by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
    assert_eq!(subscriptions(&outputs), [], "the assignment is still to come");
    let groups = [by_hand.fixture.group.clone()];
    let assignment = by_hand.fixture.assignment(1, &groups, None);
    let outputs = by_hand.message(Channel::Answers, &assignment);
    let of_group = Channel::Group(by_hand.fixture.group.clone());
    assert_eq!(subscriptions(&outputs), [Channel::Assignment, Channel::Beacon, of_group.clone()]);
    // Once a connection, and again in the next.
    let hello = the_hello(&by_hand.feed(Input::Check));
    assert_eq!(subscriptions(&by_hand.answer(hello.nonce, |answer| answer.assignment = 1)), []);
    by_hand.feed(Input::Disconnected);
    assert_eq!(hellos(&by_hand.feed(Input::Check)).len(), 0, "nobody hears a hello without a connection");
    let hello = the_hello(&by_hand.feed(Input::Connected));
    let outputs = by_hand.answer(hello.nonce, |answer| answer.assignment = 1);
    assert_eq!(subscriptions(&outputs), [Channel::Assignment, Channel::Beacon, of_group]);
    for code in [RefusalCode::Unknown, RefusalCode::Pending] {
        let mut by_hand = ByHand::new(1, Record::default(), boot());
        by_hand.feed(Input::Connected);
        let refusal = Refusal { code, retry_after_s: Some(30), payload: None }.encode();
        let outputs = by_hand.message(Channel::Answers, &refusal);
        assert_eq!(subscriptions(&outputs), [Channel::Assignment]);
        assert_eq!(subscriptions(&by_hand.message(Channel::Answers, &refusal)), []);
    }
}

/// A report that nobody has acknowledged goes out again with the next hello, which asks for it: more and more rarely.
#[test]
fn a_report_is_sent_until_an_answer_names_it() {
    let mut by_hand = ByHand::in_step(1);
    let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
    let expired = OrderOptions { life_s: 1, ..OrderOptions::default() };
    let campaign = by_hand.fixture.campaign(&release, expired);
    let mut outputs = by_hand.message(Channel::Group(by_hand.fixture.group.clone()), &campaign);
    let reports = |outputs: &[Output]| {
        let report = |output: &&Output| {
            matches!(output, Output::Publish(publish)
                if publish.channel == Channel::Reports && publish.at_least_once)
        };
        outputs.iter().filter(report).count()
    };
    for round in 0..3 {
        assert_eq!((reports(&outputs), hellos(&outputs).len()), (1, 1), "{outputs:?}");
        // Answered, and the service has not stored it yet.
        let hello = the_hello(&outputs);
        let of_group = GroupVersion { group: by_hand.fixture.group.clone(), version: 1 };
        let answered = by_hand.answer(hello.nonce, |answer| {
            (answer.assignment, answer.groups) = (1, vec![of_group.clone()]);
        });
        assert_eq!(reports(&answered), 1);
        let (waited, woken) = by_hand.wake().unwrap();
        let range = 10_000 << round;
        assert!((range..=range + range / 4).contains(&waited), "{round}: {waited}");
        outputs = woken;
    }
    let hello = the_hello(&outputs);
    let of_group = GroupVersion { group: by_hand.fixture.group.clone(), version: 1 };
    let outputs = by_hand.answer(hello.nonce, |answer| {
        (answer.assignment, answer.groups) = (1, vec![of_group]);
        answer.report = hello.report;
    });
    assert_eq!((reports(&outputs), next_hello(&mut by_hand)), (0, None));
    let outputs = [by_hand.feed(Input::Disconnected), by_hand.feed(Input::Connected)].concat();
    assert_eq!((reports(&outputs), the_hello(&outputs).report), (0, None));
}

/// What belongs on other channels is refused, and counts as not asked for.
#[test]
fn messages_on_the_wrong_channel_are_refused() {
    let mut by_hand = ByHand::in_step(1);
    let fixture = by_hand.fixture.clone();
    let release = fixture.release(vec![1; 2000], 1, 10);
    let group = Channel::Group(fixture.group.clone());
    let campaign = fixture.campaign(&release, OrderOptions::default());
    let assignment = fixture.assignment(9, std::slice::from_ref(&fixture.group), None);
    let beacon = fixture.beacon(9, &[], 3600);
    let wrong: [(&Channel, &[u8]); 11] = [
        (&Channel::Assignment, &campaign),
        (&Channel::Beacon, &campaign),
        (&group, &assignment),
        (&Channel::Beacon, &assignment),
        (&group, &beacon),
        (&Channel::Assignment, &beacon),
        (&Channel::Requests, &campaign),
        (&Channel::Reports, &assignment),
        (&group, &release.envelope),
        (&Channel::Assignment, &release.envelope),
        (&Channel::Beacon, &release.envelope),
    ];
    for (channel, payload) in wrong {
        let refused = Event::Rejected { channel: channel.clone(), reason: Reason::WrongChannel };
        assert_eq!(events(&by_hand.message(channel.clone(), payload)), [refused]);
    }
    let hello = the_hello(&by_hand.feed(Input::Check));
    let answer = |by_hand: &ByHand| {
        let answer = whimbrel_protocol::message::HelloAnswer {
            echo: hello.nonce.echo(&by_hand.fixture.device),
            time: by_hand.fixture.issued,
            root: 1,
            assignment: 1,
            groups: Vec::new(),
            report: None,
            key: by_hand.fixture.device_key.public().id(),
        };
        by_hand.fixture.answer(&answer)
    };
    for channel in [Channel::Assignment, Channel::Beacon, group] {
        let refused = Event::Rejected { channel: channel.clone(), reason: Reason::WrongChannel };
        let bytes = answer(&by_hand);
        assert_eq!(events(&by_hand.message(channel, &bytes)), [refused]);
    }
    assert_eq!(by_hand.session.record().scopes.len(), 1, "only the assignment was taken");
}

/// A device that is moved from group to group remembers versions up to a bound, and those that it needs among them.
#[test]
fn the_versions_of_groups_that_were_left_make_room_and_those_of_its_own_never_do() {
    let mut by_hand = ByHand::in_step(1);
    let beacon = by_hand.fixture.beacon(7, &[], 1 << 40);
    by_hand.message(Channel::Beacon, &beacon);
    let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
    let first = by_hand.fixture.group.clone();
    let order = by_hand.fixture.order(&release, OrderOptions::default());
    let campaign = |by_hand: &ByHand, group: &GroupName, version| {
        let options = OrderOptions { version, life_s: 1, ..OrderOptions::default() };
        by_hand.fixture.campaign_of(group, order.clone(), options)
    };
    let of_first = campaign(&by_hand, &first, 5);
    by_hand.message(Channel::Answers, &of_first);
    for number in 0..60 {
        let other = GroupName::new(&format!("g{number}")).unwrap();
        let assignment = by_hand.fixture.assignment(number + 2, &[first.clone(), other.clone()], None);
        by_hand.message(Channel::Answers, &assignment);
        let bytes = campaign(&by_hand, &other, 1);
        by_hand.message(Channel::Answers, &bytes);
        let record = by_hand.session.record();
        assert!(record.scopes.len() <= SCOPES_MAX, "{}", record.scopes.len());
        assert_eq!(record.version_of(&Scope::Group(other)), 1);
        assert_eq!(record.version_of(&Scope::Group(first.clone())), 5);
        assert_eq!(
            (record.version_of(&Scope::Assignment), record.version_of(&Scope::Beacon)),
            (number + 2, 7)
        );
        assert_eq!(record.campaigns.len(), 2, "campaigns of groups that were left are not kept");
    }
    assert_eq!(by_hand.session.record().scopes.len(), SCOPES_MAX);
}

#[test]
fn hello_says_what_the_device_is_and_holds() {
    let mut by_hand = ByHand::in_step(1);
    let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
    let expired = OrderOptions { version: 8, life_s: 1, ..OrderOptions::default() };
    let campaign = by_hand.fixture.campaign(&release, expired);
    by_hand.message(Channel::Answers, &campaign);
    let hello = the_hello(&by_hand.feed(Input::Check));
    let want = Hello {
        version_max: 1,
        class: by_hand.fixture.class.tag(),
        running: Digest::of(&[0; 100]).short(),
        sequence: 0,
        root: 1,
        assignment: 1,
        groups: vec![GroupVersion { group: by_hand.fixture.group.clone(), version: 8 }],
        nonce: hello.nonce,
        report: by_hand.session.record().reports.first().and_then(|report| Report::digest(report)),
    };
    assert!(want.report.is_some());
    assert_eq!(hello, want);
}

#[test]
fn hello_waits_for_three_round_trips_on_a_slow_link() {
    let mut by_hand = ByHand::new(1, Record::default(), boot());
    let hello = the_hello(&by_hand.feed(Input::Connected));
    by_hand.now = by_hand.now.plus_millis(20_000);
    by_hand.answer(hello.nonce, |_| {});
    // The mean is 20 s and the deviation 10 s; two of these are beyond it.
    by_hand.feed(Input::Check);
    within(next_hello(&mut by_hand), 120_000..=125_000);
}

#[test]
fn the_earlier_of_two_reasons_to_say_hello_counts() {
    for beacon_first in [true, false] {
        let mut by_hand = ByHand::in_step(1);
        let group = by_hand.fixture.group.clone();
        let beacon = by_hand.fixture.beacon(1, &[(group.clone(), 7)], 1 << 40);
        let groups = [group, GroupName::new("beta").unwrap()];
        let assignment = by_hand.fixture.assignment(2, &groups, None);
        let mut news = [(Channel::Beacon, beacon), (Channel::Assignment, assignment)];
        if !beacon_first {
            news.reverse();
        }
        for (channel, bytes) in news {
            by_hand.message(channel, &bytes);
        }
        within(next_hello(&mut by_hand), 1_000..=1_250);
    }
}

#[test]
fn what_was_not_asked_for_is_counted_to_the_byte_in_each_connection() {
    let mut by_hand = ByHand::in_step(1);
    for _ in 0..2 {
        let junk = vec![0x1f; 64 * 1024];
        let is_flood =
            |output: &Output| matches!(output, Output::Disconnect | Output::Event(Event::Flooded { .. }));
        for _ in 0..UNSOLICITED_BYTES_MAX / junk.len() as u64 {
            assert!(!by_hand.message(Channel::Answers, &junk).iter().any(is_flood));
        }
        let outputs = by_hand.message(Channel::Answers, &[0x1f]);
        let told = Event::Flooded { bytes: UNSOLICITED_BYTES_MAX + 1 };
        assert!(
            outputs.contains(&Output::Event(told)) && outputs.contains(&Output::Disconnect),
            "{outputs:?}"
        );
        assert!(!by_hand.message(Channel::Answers, &junk).iter().any(is_flood), "told once");
        by_hand.feed(Input::Disconnected);
        by_hand.feed(Input::Connected);
    }
}

/// Bytes on topics that are none of the device's come from a broker too, and cost as much.
#[test]
fn bytes_on_foreign_topics_count_as_not_asked_for_to_the_byte() {
    let mut by_hand = ByHand::in_step(1);
    let is_flood =
        |output: &Output| matches!(output, Output::Disconnect | Output::Event(Event::Flooded { .. }));
    // One meter counts both.
    by_hand.message(Channel::Answers, &[0x1f; 1000]);
    let bytes = usize::try_from(UNSOLICITED_BYTES_MAX).unwrap() - 1000;
    assert!(!by_hand.feed(Input::Foreign { bytes }).iter().any(is_flood));
    let outputs = by_hand.feed(Input::Foreign { bytes: 1 });
    let told = Event::Flooded { bytes: UNSOLICITED_BYTES_MAX + 1 };
    assert!(outputs.contains(&Output::Event(told)) && outputs.contains(&Output::Disconnect), "{outputs:?}");
    by_hand.feed(Input::Disconnected);
    by_hand.feed(Input::Connected);
    assert!(!by_hand.feed(Input::Foreign { bytes }).iter().any(is_flood), "the next connection counts anew");
}

#[test]
fn documents_that_are_no_news_count_as_not_asked_for_after_the_first_few_of_a_connection() {
    let mut by_hand = ByHand::in_step(1);
    let groups = [by_hand.fixture.group.clone()];
    let assignment = by_hand.fixture.assignment(1, &groups, None);
    let refused = Event::Rejected { channel: Channel::Assignment, reason: Reason::Unsolicited };
    for _ in 0..2 {
        for _ in 0..REPLAYS_MAX {
            assert_eq!(events(&by_hand.message(Channel::Assignment, &assignment)), []);
        }
        let len = assignment.len() as u64;
        for number in 1..=UNSOLICITED_BYTES_MAX / len {
            let outputs = by_hand.message(Channel::Assignment, &assignment);
            assert_eq!(events(&outputs), std::slice::from_ref(&refused), "{number}");
        }
        assert!(by_hand.message(Channel::Assignment, &assignment).contains(&Output::Disconnect));
        by_hand.feed(Input::Disconnected);
        by_hand.feed(Input::Connected);
    }
}

#[test]
fn a_beacon_is_stale_when_it_expires_and_the_next_one_may_be_again() {
    let mut by_hand = ByHand::in_step(1);
    let mut version = 0;
    let mut beacon = |by_hand: &mut ByHand, life_s| {
        version += 1;
        let beacon = by_hand.fixture.beacon(version, &[], life_s);
        by_hand.message(Channel::Beacon, &beacon)
    };
    // The answer's clock was a minute later than what was signed.
    assert!(!events(&beacon(&mut by_hand, 7200)).contains(&Event::Stale));
    let (waited, outputs) = by_hand.wake().unwrap();
    assert_eq!((waited, events(&outputs)), (7_140_000, vec![Event::Stale]));
    assert_eq!(by_hand.wake(), None, "it is told once");
    assert!(!events(&beacon(&mut by_hand, 9000)).contains(&Event::Stale));
    let (waited, outputs) = by_hand.wake().unwrap();
    assert_eq!((waited, events(&outputs)), (1_800_000, vec![Event::Stale]));
    assert!(
        events(&beacon(&mut by_hand, 9000)).contains(&Event::Stale),
        "one that comes too late is stale at once"
    );
}

#[test]
fn a_root_that_is_not_newer_is_not_told() {
    for (root, told) in [(0, false), (1, false), (2, true)] {
        let mut by_hand = ByHand::in_step(1);
        let hello = the_hello(&by_hand.feed(Input::Check));
        let outputs = by_hand.answer(hello.nonce, |answer| (answer.root, answer.assignment) = (root, 1));
        let outdated = Event::RootOutdated { held: 1, current: root };
        assert_eq!(events(&outputs).contains(&outdated), told, "{root}");
    }
}

/// A device starts at its own time within the spread, to the second.
#[test]
fn an_order_begins_at_its_time_and_not_before() {
    // By SPEC 8.4, computed apart from the code, for campaign 01 x 8 and device dev-0001.
    for (not_before_s, spread_s, starts_s) in
        [(0, 0, 60), (60, 0, 60), (1000, 0, 1000), (0, 86_400, 68_336), (100, 86_400, 68_436)]
    {
        let mut by_hand = ByHand::in_step(1);
        let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
        let options = OrderOptions { spread_s, ..OrderOptions::default() };
        let mut order = by_hand.fixture.order(&release, options);
        order.not_before = by_hand.fixture.issued.plus_secs(not_before_s);
        let campaign = by_hand.fixture.campaign_of(&by_hand.fixture.group, order, options);
        by_hand.message(Channel::Answers, &campaign);
        if starts_s > 60 {
            let status = (by_hand.session.state(), by_hand.session.poll_timeout());
            let at = Instant::from_millis((starts_s - 60) * 1000);
            assert_eq!(status, (State::Deferred, Some(at)), "{not_before_s} {spread_s}");
            by_hand.wake();
        }
        assert_eq!(by_hand.session.state(), State::Offered, "{not_before_s} {spread_s}");
    }
}

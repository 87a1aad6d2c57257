//! What the service signs for devices: versions, scopes, equivocation, abort, attempts, expiry, withdrawal.
//! Each claim holds across a restart of the device.

use whimbrel_protocol::cose::{Kind, SigningKey, sign_attached};
use whimbrel_protocol::device::{Event, Reason, Scope};
use whimbrel_protocol::ids::{ClassId, DeviceId, GroupName, Prefix};
use whimbrel_protocol::limits::UNSOLICITED_BYTES_MAX;
use whimbrel_protocol::message::{Assignment, Campaign, CampaignState, FailureCode, Order, Outcome, State};
use whimbrel_protocol::testing::{OrderOptions, Pair, PairOptions, Release, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::session::{DAY, MINUTE, ended, image};

pub(crate) fn group() -> Channel {
    Channel::Group(GroupName::new("all").unwrap())
}

/// A device that is in step with its service and has nothing to do.
pub(crate) fn idle() -> Pair {
    let mut pair = Pair::new(PairOptions::default());
    pair.run(MINUTE, |pair| pair.device.record().version_of(&Scope::Assignment) == 1);
    pair.run(2_000, |_| false);
    pair
}

fn reasons(pair: &mut Pair) -> Vec<Reason> {
    std::mem::take(&mut pair.events)
        .into_iter()
        .filter_map(|(_, event)| match event {
            Event::Rejected { reason, .. } => Some(reason),
            _ => None,
        })
        .collect()
}

/// Injects a document and returns why it was refused, if it was.
pub(crate) fn offer(pair: &mut Pair, channel: Channel, document: &[u8]) -> Option<Reason> {
    pair.events.clear();
    pair.inject(channel, document.to_vec());
    reasons(pair).into_iter().next()
}

pub(crate) fn release(pair: &Pair, sequence: u64) -> Release {
    pair.fixture.release(image(20_000, u8::try_from(sequence).unwrap()), sequence, 12)
}

fn campaign(pair: &Pair, options: OrderOptions) -> Vec<u8> {
    let release = release(pair, options.version);
    pair.fixture.campaign(&release, options)
}

#[test]
fn an_older_document_is_a_rollback_also_after_a_restart() {
    let mut pair = idle();
    let old = campaign(&pair, OrderOptions { version: 4, ..Default::default() });
    let new = campaign(&pair, OrderOptions { version: 5, ..Default::default() });
    assert_eq!(offer(&mut pair, group(), &new), None);
    for _ in 0..2 {
        assert_eq!(offer(&mut pair, group(), &old), Some(Reason::Rollback { got: 4, known: 5 }));
        assert_eq!(offer(&mut pair, Channel::Answers, &old), Some(Reason::Rollback { got: 4, known: 5 }));
        pair.power_cut();
    }
    let older = pair.fixture.assignment(1, &[], None);
    let newer = pair.fixture.assignment(7, &[pair.fixture.group.clone()], None);
    assert_eq!(offer(&mut pair, Channel::Assignment, &newer), None);
    for _ in 0..2 {
        assert_eq!(
            offer(&mut pair, Channel::Assignment, &older),
            Some(Reason::Rollback { got: 1, known: 7 })
        );
        pair.power_cut();
    }
    let beacon = |version| pair.fixture.beacon(version, &[], 3600);
    let (first, second) = (beacon(1), beacon(2));
    assert_eq!(offer(&mut pair, Channel::Beacon, &second), None);
    for _ in 0..2 {
        assert_eq!(offer(&mut pair, Channel::Beacon, &first), Some(Reason::Rollback { got: 1, known: 2 }));
        pair.power_cut();
    }
}

#[test]
fn another_document_of_the_same_version_is_equivocation_also_after_a_restart() {
    let mut pair = idle();
    let one = campaign(&pair, OrderOptions { version: 5, ..Default::default() });
    let other = campaign(&pair, OrderOptions { version: 5, campaign: 2, ..Default::default() });
    assert_eq!(offer(&mut pair, group(), &one), None);
    for _ in 0..2 {
        assert_eq!(offer(&mut pair, group(), &other), Some(Reason::Equivocation { version: 5 }));
        assert_eq!(offer(&mut pair, group(), &one), None, "the same document again is no news");
        pair.power_cut();
    }
}

#[test]
fn a_document_for_another_scope_is_refused() {
    let mut pair = idle();
    let others = GroupName::new("others").unwrap();
    let options = OrderOptions { version: 9, ..Default::default() };
    let order = pair.fixture.order(&release(&pair, 1), options);
    // Another group, on the group's own topic and on ours.
    let foreign = pair.fixture.campaign_of(&others, order.clone(), options);
    assert_eq!(offer(&mut pair, group(), &foreign), Some(Reason::WrongScope));
    assert_eq!(offer(&mut pair, Channel::Group(others.clone()), &foreign), Some(Reason::WrongScope));
    assert_eq!(offer(&mut pair, Channel::Answers, &foreign), Some(Reason::WrongScope));
    // Our group's document on another group's topic.
    let ours = pair.fixture.campaign(&release(&pair, 1), options);
    assert_eq!(offer(&mut pair, Channel::Group(others), &ours), Some(Reason::WrongScope));
    // Another prefix.
    let read = |bytes: &[u8]| {
        let object = whimbrel_protocol::cose::Sign1::decode(bytes).unwrap();
        object.unverified_payload().unwrap().to_vec()
    };
    let campaign = Campaign::decode(&read(&ours)).unwrap();
    let elsewhere = Campaign { prefix: Prefix::new("otb").unwrap(), ..campaign };
    let key = pair.fixture.campaign_key.clone();
    let elsewhere = sign_attached(&key, Kind::Campaign, None, &elsewhere.encode());
    assert_eq!(offer(&mut pair, group(), &elsewhere), Some(Reason::WrongScope));
    // Another device's assignment.
    let assignment = Assignment::decode(&read(&pair.fixture.assignment(9, &[], None))).unwrap();
    let other = Assignment { device: DeviceId::new("dev-0002").unwrap(), ..assignment.clone() };
    let other = sign_attached(&key, Kind::Assignment, None, &other.encode());
    assert_eq!(offer(&mut pair, Channel::Assignment, &other), Some(Reason::WrongScope));
    let elsewhere = Assignment { prefix: Prefix::new("otb").unwrap(), ..assignment };
    let elsewhere = sign_attached(&key, Kind::Assignment, None, &elsewhere.encode());
    assert_eq!(offer(&mut pair, Channel::Assignment, &elsewhere), Some(Reason::WrongScope));
    assert_eq!(pair.device.record().version_of(&Scope::Group(pair.fixture.group.clone())), 0);
}

/// Each role's key signs its own kinds and no other.
#[test]
fn a_key_of_another_role_signs_nothing() {
    let mut pair = idle();
    let options = OrderOptions { version: 3, ..Default::default() };
    let payload = {
        let document = campaign(&pair, options);
        let object = whimbrel_protocol::cose::Sign1::decode(&document).unwrap();
        object.unverified_payload().unwrap().to_vec()
    };
    let fixture = pair.fixture.clone();
    let stranger = SigningKey::ed25519(&[99; 32]);
    for key in [&fixture.root_key, &fixture.release_key, &fixture.beacon_key, &fixture.device_key, &stranger]
    {
        let document = sign_attached(key, Kind::Campaign, None, &payload);
        assert!(matches!(offer(&mut pair, group(), &document), Some(Reason::Unauthentic(_))), "{key:?}");
    }
    for kind in [Kind::Root, Kind::Assignment, Kind::Beacon, Kind::Answer, Kind::Report, Kind::Enrolment] {
        let document = sign_attached(&fixture.campaign_key, kind, None, &payload);
        assert!(offer(&mut pair, group(), &document).is_some(), "{kind:?} passes for a campaign");
    }
    assert_eq!(pair.device.record().version_of(&Scope::Group(fixture.group.clone())), 0);
}

/// The version is durable before anything is done because of it: a medium that fails holds everything up.
#[test]
fn the_version_is_stored_before_it_is_acted_on() {
    let mut pair = idle();
    let release = release(&pair, 1);
    pair.medium.fault = Some(whimbrel_protocol::device::StoreFailure::Failed);
    pair.roll_out(release, OrderOptions::default());
    pair.run(20_000, |_| false);
    assert_eq!(pair.served_bytes, 0);
    assert!(ended(&pair).is_empty());
    assert_eq!(pair.device.state(), State::Idle);
    pair.medium.fault = None;
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
}

#[test]
fn an_abort_counts_after_a_restart_too() {
    let mut pair = idle();
    let release = pair.fixture.release(image(400_000, 1), 1, 12);
    pair.roll_out(release.clone(), OrderOptions::default());
    pair.run(2_500, |_| false);
    assert_eq!(pair.device.state(), State::Downloading);
    let aborted = OrderOptions { version: 2, state: CampaignState::Aborted, ..Default::default() };
    let document = pair.fixture.campaign(&release, aborted);
    pair.kill();
    pair.put_campaign(2, document);
    assert_eq!(pair.run_until(State::Cancelled, 10 * MINUTE), Verdict::Done, "{pair:?}");
    // The document that ran before the abort comes back: nothing begins.
    let before = pair.fixture.campaign(&release, OrderOptions::default());
    for _ in 0..2 {
        assert_eq!(offer(&mut pair, group(), &before), Some(Reason::Rollback { got: 1, known: 2 }));
        pair.power_cut();
        pair.run(10 * MINUTE, |_| false);
    }
    assert_ne!(pair.medium.running_image(), release.image);
}

#[test]
fn an_attempt_that_failed_is_not_begun_again_after_a_restart_until_a_higher_one_is_signed() {
    let mut pair = idle();
    pair.medium.health = Some(whimbrel_protocol::device::InstallFailure::Unhealthy);
    let release = release(&pair, 1);
    pair.roll_out(release.clone(), OrderOptions::default());
    assert_eq!(pair.run_until(State::Reverted, 20 * MINUTE), Verdict::Done);
    pair.medium.health = None;
    let served = pair.served_bytes;
    // A newer document of the same attempt changes nothing.
    let same = pair.fixture.campaign(&release, OrderOptions { version: 2, ..Default::default() });
    pair.put_campaign(2, same);
    for _ in 0..2 {
        pair.run(10 * MINUTE, |_| false);
        pair.power_cut();
    }
    assert_eq!(pair.served_bytes, served);
    let again =
        pair.fixture.campaign(&release, OrderOptions { version: 3, attempt: 2, ..Default::default() });
    pair.put_campaign(3, again);
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
}

#[test]
fn an_answer_to_another_nonce_does_not_count() {
    use whimbrel_protocol::ids::Nonce;
    use whimbrel_protocol::message::HelloAnswer;
    let mut pair = idle();
    let answer = HelloAnswer {
        echo: Nonce([7; 8]).echo(&pair.fixture.device),
        time: pair.fixture.issued.plus_secs(1_000_000),
        root: 1,
        assignment: 1,
        groups: Vec::new(),
        report: None,
        key: pair.fixture.device_key.public().id(),
    };
    let replayed = pair.fixture.answer(&answer);
    assert_eq!(offer(&mut pair, Channel::Answers, &replayed), Some(Reason::WrongNonce));
    // Nobody asked for them, however well they are signed.
    for _ in 0..=UNSOLICITED_BYTES_MAX / replayed.len() as u64 {
        pair.inject(Channel::Answers, replayed.clone());
    }
    assert!(pair.events.iter().any(|(_, event)| matches!(event, Event::Flooded { .. })));
}

#[test]
fn withdrawn_releases_are_refused_everywhere_also_after_a_restart() {
    let mut pair = idle();
    let old = release(&pair, 1);
    let new = release(&pair, 5);
    // A campaign that names a newer release withdraws everything below 4.
    pair.roll_out(new, OrderOptions { version: 1, min_sequence: 4, ..Default::default() });
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
    assert_eq!(pair.device.record().min_sequence, 4);
    pair.power_cut();
    assert_eq!(pair.device.record().min_sequence, 4);
    pair.service.reports.clear();
    let served = pair.served_bytes;
    pair.roll_out(old, OrderOptions { version: 2, campaign: 2, ..Default::default() });
    assert_eq!(pair.run_until(State::Failed, 20 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(pair.service.reports[0].failure, Some(FailureCode::Withdrawn));
    assert_eq!(pair.served_bytes, served, "refused before a chunk is requested");
}

/// An order for one device withdraws like one for a group; one for another class withdraws nothing.
#[test]
fn an_assignment_withdraws_releases_of_its_own_class() {
    let mut pair = idle();
    let options = OrderOptions { version: 2, min_sequence: 4, ..Default::default() };
    let order = pair.fixture.order(&release(&pair, 5), options);
    let elsewhere = Order { class: ClassId([9; 16]), min_sequence: 40, ..order.clone() };
    let groups = [pair.fixture.group.clone()];
    for (version, order, floor) in
        [(2, elsewhere, 0), (3, order.clone(), 4), (4, Order { min_sequence: 2, ..order }, 4)]
    {
        let assignment = pair.fixture.assignment(version, &groups, Some(order));
        assert_eq!(offer(&mut pair, Channel::Assignment, &assignment), None);
        assert_eq!(pair.device.record().min_sequence, floor, "version {version}");
    }
    pair.power_cut();
    assert_eq!(pair.device.record().min_sequence, 4);
}

#[test]
fn a_download_whose_release_is_withdrawn_stops() {
    let mut pair = idle();
    let release = pair.fixture.release(image(400_000, 1), 3, 12);
    pair.roll_out(release.clone(), OrderOptions::default());
    assert_eq!(pair.run(MINUTE, |pair| pair.served_bytes > 100_000), Verdict::Done);
    let options = OrderOptions { version: 2, min_sequence: 4, ..Default::default() };
    let document = pair.fixture.campaign(&release, options);
    pair.put_campaign(2, document);
    pair.cut();
    assert_eq!(pair.run_until(State::Cancelled, 10 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Cancelled, Some(FailureCode::Withdrawn))]);
}

#[test]
fn a_release_with_an_older_sequence_is_refused_before_a_chunk_is_requested() {
    let mut pair = idle();
    let new = release(&pair, 5);
    pair.roll_out(new, OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
    pair.service.reports.clear();
    pair.power_cut();
    let served = pair.served_bytes;
    let old = release(&pair, 4);
    pair.roll_out(old, OrderOptions { version: 2, campaign: 2, ..Default::default() });
    assert_eq!(pair.run_until(State::Failed, 20 * MINUTE), Verdict::Done);
    assert_eq!(pair.service.reports[0].failure, Some(FailureCode::Rollback));
    assert_eq!(pair.served_bytes, served);
}

#[test]
fn the_same_sequence_with_another_image_is_refused() {
    let mut pair = idle();
    pair.roll_out(release(&pair, 5), OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
    pair.service.reports.clear();
    let served = pair.served_bytes;
    let other = pair.fixture.release(image(20_000, 77), 5, 12);
    pair.roll_out(other, OrderOptions { version: 2, campaign: 2, ..Default::default() });
    assert_eq!(pair.run_until(State::Failed, 20 * MINUTE), Verdict::Done);
    assert_eq!(pair.service.reports[0].failure, Some(FailureCode::Rollback));
    assert_eq!(pair.served_bytes, served);
}

#[test]
fn a_release_that_runs_already_is_confirmed_without_fetching_it() {
    let mut pair = idle();
    let release = release(&pair, 5);
    pair.roll_out(release.clone(), OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
    let served = pair.served_bytes;
    pair.service.reports.clear();
    pair.roll_out(release, OrderOptions { version: 2, campaign: 2, ..Default::default() });
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
    assert_eq!(pair.served_bytes, served);
}

#[test]
fn a_release_for_another_class_is_refused_before_a_chunk_is_requested() {
    let mut pair = idle();
    let other = ClassId::from_name(pair.fixture.vendor, "meter");
    let key = pair.fixture.release_key.clone();
    let release = pair.fixture.release_for(other, &key, image(20_000, 1), 1, 12);
    // The campaign says that it is for our class: the manifest decides.
    pair.roll_out(release, OrderOptions::default());
    assert_eq!(pair.run_until(State::Failed, DAY), Verdict::Done, "{pair:?}");
    assert_eq!(pair.service.reports[0].failure, Some(FailureCode::WrongClass));
    assert_eq!(pair.served_bytes, 0);
}

/// A broker that changes any byte of the manifest ends nothing: it is fetched again until it is right.
#[test]
fn a_manifest_with_one_byte_changed_on_the_way_is_refused_and_fetched_again() {
    let size = idle().fixture.release(image(20_000, 1), 1, 12).envelope.len();
    for at in (0..size).step_by(17) {
        let mut pair = idle();
        let mut spoilt = 0;
        pair.tap = Some(Box::new(move |_, mut packet| {
            if packet.payload.starts_with(&[0xd8, 0x6b]) && spoilt < 2 {
                spoilt += 1;
                packet.payload[at.max(2)] ^= 1;
            }
            vec![packet]
        }));
        pair.roll_out(release(&pair, 1), OrderOptions::default());
        assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "byte {at}: {pair:?}");
    }
}

#[test]
fn a_device_without_news_for_longer_than_the_beacon_lives_says_that_it_is_stale() {
    let mut pair = idle();
    let beacon = pair.fixture.beacon(1, &[], 7200);
    assert_eq!(offer(&mut pair, Channel::Beacon, &beacon), None);
    // Nothing else happens: time alone brings it about.
    pair.run(3 * 60 * MINUTE, |_| false);
    assert!(pair.events.iter().any(|(_, event)| *event == Event::Stale));
    // It goes on taking news.
    pair.roll_out(release(&pair, 1), OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
}

/// Also on a broker that ignores `retain`: hello alone brings everything.
#[test]
fn nothing_depends_on_retained_messages() {
    let mut pair = Pair::new(PairOptions::default());
    pair.tap = Some(Box::new(|_, packet| match packet.channel {
        Channel::Assignment | Channel::Group(_) | Channel::Beacon => Vec::new(),
        _ => vec![packet],
    }));
    let release = release(&pair, 1);
    pair.roll_out(release, OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
}

/// This version follows no rotation: it says so, and goes on with the root that it has pinned.
#[test]
fn a_root_that_is_newer_than_ours_is_told_and_changes_nothing() {
    let mut pair = idle();
    pair.service.root_version = 2;
    pair.roll_out(release(&pair, 1), OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
    assert!(pair.events.iter().any(|(_, event)| *event == Event::RootOutdated { held: 1, current: 2 }));
}

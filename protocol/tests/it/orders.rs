//! What an order says and a release has to be: another release, class, size or need is not what was ordered.

use std::cell::Cell;
use std::rc::Rc;

use whimbrel_protocol::device::{Event, Input, Output, Reason};
use whimbrel_protocol::envelope::{Envelope, Unverified};
use whimbrel_protocol::ids::{ClassId, GroupName, PayloadTag};
use whimbrel_protocol::manifest::{Content, DecoderMemory, Manifest, Severable, TransferDescriptor};
use whimbrel_protocol::message::{
    CampaignState, DocumentRequest, FailureCode, GroupVersion, Order, Outcome, Refusal, RefusalCode, Request,
    State,
};
use whimbrel_protocol::testing::{OrderOptions, Pair, PairOptions, Release, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::by_hand::{ByHand, subscriptions, the_hello};
use crate::documents::{group, idle, offer, release};
use crate::envelope_parts::{assemble, suit_digest, wrapped_digest};
use crate::samples::sign_manifest;
use crate::session::{DAY, MINUTE, beside, ended, image};

fn rejected(pair: &Pair, want: Reason) -> usize {
    let is_it = |(_, event): &&(_, Event)| matches!(event, Event::Rejected { reason, .. } if *reason == want);
    pair.events.iter().filter(is_it).count()
}

/// Publishes `order` for the device's group, and serves `release`.
fn put(pair: &mut Pair, release: Release, order: Order) {
    let options = OrderOptions::default();
    let document = pair.fixture.campaign_of(&pair.fixture.group, order, options);
    pair.service.releases.push(release);
    pair.service.live = Some(pair.service.releases.len() - 1);
    pair.put_campaign(options.version, document);
}

/// Sequence number, size, class and signature are those of the order: only the digest tells them apart.
#[test]
fn an_envelope_of_another_validly_signed_release_is_not_taken_for_the_ordered_one() {
    let mut pair = idle();
    let ordered = release(&pair, 1);
    let alike = pair.fixture.release(image(20_000, 77), 1, 12);
    let newer = release(&pair, 2);
    let mut others = vec![alike.envelope.clone(), newer.envelope.clone(), alike.envelope.clone()];
    pair.tap = Some(Box::new(move |_, mut packet| {
        if packet.payload.starts_with(&[0xd8, 0x6b])
            && let Some(other) = others.pop()
        {
            packet.payload = other;
        }
        vec![packet]
    }));
    pair.roll_out(ordered.clone(), OrderOptions::default());
    // Its payload would be there, too.
    pair.service.releases.extend([alike, newer]);
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?}");
    assert_eq!(pair.medium.running_image(), ordered.image);
    assert_eq!(rejected(&pair, Reason::WrongRelease), 3);
    assert_eq!(pair.served.keys().copied().collect::<Vec<_>>(), [ordered.tag()]);
}

#[test]
fn an_order_for_another_class_begins_nothing() {
    let mut pair = idle();
    let release = release(&pair, 1);
    let order = pair.fixture.order(&release, OrderOptions::default());
    let other = ClassId::from_name(pair.fixture.vendor, "meter");
    put(&mut pair, release, Order { class: other, min_sequence: 9, ..order });
    pair.run(20 * MINUTE, |_| false);
    assert_eq!((pair.device.state(), pair.served_bytes), (State::Idle, 0));
    assert_eq!(pair.device.record().deployment, None);
    assert_eq!(pair.device.record().min_sequence, 0);
    assert_eq!((ended(&pair), pair.device.record().outcomes.len()), (vec![], 0));
}

#[test]
fn an_order_for_another_class_supersedes_nothing() {
    let mut pair = idle();
    let beta = GroupName::new("beta").unwrap();
    let groups = [pair.fixture.group.clone(), beta.clone()];
    let assignment = pair.fixture.assignment(2, &groups, None);
    pair.put_assignment(2, assignment);
    let ours = pair.fixture.release(image(400_000, 1), 1, 12);
    pair.roll_out(ours.clone(), OrderOptions::default());
    assert_eq!(pair.run(MINUTE, |pair| pair.served_bytes > 50_000), Verdict::Done);
    let class = ClassId::from_name(pair.fixture.vendor, "meter");
    let theirs = release(&pair, 5);
    let options = OrderOptions { campaign: 2, priority: 9, min_sequence: 5, ..OrderOptions::default() };
    // With a higher priority, by an assignment of its own, and called off under our campaign's name.
    let order = Order { class, ..pair.fixture.order(&theirs, options) };
    let of_beta = pair.fixture.campaign_of(&beta, order.clone(), options);
    assert_eq!(offer(&mut pair, Channel::Group(beta.clone()), &of_beta), None);
    let own = pair.fixture.assignment(3, &groups, Some(order.clone()));
    assert_eq!(offer(&mut pair, Channel::Assignment, &own), None);
    let aborted = Order { state: CampaignState::Aborted, ..order };
    let aborted = Order { campaign: pair.fixture.order(&ours, OrderOptions::default()).campaign, ..aborted };
    let of_beta = pair.fixture.campaign_of(&beta, aborted, OrderOptions { version: 2, ..options });
    assert_eq!(offer(&mut pair, Channel::Group(beta), &of_beta), None);
    assert_eq!(pair.device.state(), State::Downloading);
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(pair.medium.running_image(), ours.image);
    assert_eq!(ended(&pair), [(Outcome::Confirmed, None)]);
}

#[test]
fn a_full_payload_that_needs_more_memory_than_there_is_is_refused_before_a_chunk_is_asked_for() {
    for (memory_bytes, fits) in [(64 * 1024, true), (64 * 1024 + 1, false)] {
        let options = PairOptions { memory_max_kib: Some(64), ..PairOptions::default() };
        let mut pair = Pair::new(options);
        let plain = release(&pair, 1);
        let decoder = DecoderMemory { memory_bytes, dictionary_bytes: 4096 };
        let transfer = TransferDescriptor::lzma(plain.layout, plain.index.digest, decoder);
        let release = beside(&pair.fixture, &plain, transfer);
        pair.roll_out(release, OrderOptions::default());
        let outcome = if fits { State::Confirmed } else { State::Failed };
        assert_eq!(pair.run_until(outcome, 20 * MINUTE), Verdict::Done, "{memory_bytes}: {pair:?}");
        assert_eq!(pair.service.reports[0].failure, (!fits).then_some(FailureCode::Unsupported));
        let fetched =
            |(_, event): &(_, Event)| matches!(event, Event::StateChanged { state: State::Downloading, .. });
        assert_eq!((pair.events.iter().any(fetched), pair.served_bytes > 0), (fits, fits));
    }
}

#[test]
fn a_release_with_another_image_size_or_sequence_number_than_the_order_says_is_refused() {
    for (size_by, sequence_by) in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)] {
        let (name, good) = (format!("{size_by} {sequence_by}"), size_by == 0 && sequence_by == 0);
        let mut pair = idle();
        let release = release(&pair, 3);
        let mut order = pair.fixture.order(&release, OrderOptions::default());
        order.image_size = order.image_size.strict_add_signed(size_by);
        order.sequence = order.sequence.strict_add_signed(sequence_by);
        put(&mut pair, release, order);
        let outcome = if good { State::Confirmed } else { State::Failed };
        assert_eq!(pair.run_until(outcome, 20 * MINUTE), Verdict::Done, "{name}: {pair:?}");
        assert_eq!(pair.service.reports[0].failure, (!good).then_some(FailureCode::Unauthentic), "{name}");
        assert_eq!(pair.served_bytes > 0, good, "{name}");
        assert_eq!(rejected(&pair, Reason::WrongRelease), usize::from(!good), "{name}");
    }
}

#[test]
fn a_release_at_the_floor_is_not_withdrawn_neither_before_nor_while_it_is_fetched() {
    let mut pair = idle();
    let release = pair.fixture.release(image(100_000, 4), 4, 12);
    let options = OrderOptions { min_sequence: 4, ..OrderOptions::default() };
    pair.roll_out(release.clone(), options);
    assert_eq!(pair.run(MINUTE, |pair| pair.served_bytes > 20_000), Verdict::Done);
    assert_eq!(pair.device.record().min_sequence, 4);
    let again = pair.fixture.campaign(&release, OrderOptions { version: 2, ..options });
    assert_eq!(offer(&mut pair, group(), &again), None);
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Confirmed, None)]);
}

#[test]
fn an_order_that_is_replaced_is_superseded_and_aborted_only_by_its_own_campaign() {
    for (aborts, code) in [(2, FailureCode::Superseded), (1, FailureCode::Aborted)] {
        let mut pair = idle();
        let beta = GroupName::new("beta").unwrap();
        let groups = [pair.fixture.group.clone(), beta.clone()];
        let assignment = pair.fixture.assignment(2, &groups, None);
        pair.put_assignment(2, assignment);
        let first = pair.fixture.release(image(400_000, 1), 1, 12);
        pair.roll_out(first.clone(), OrderOptions::default());
        assert_eq!(pair.run(MINUTE, |pair| pair.served_bytes > 50_000), Verdict::Done);
        let aborted =
            OrderOptions { campaign: aborts, state: CampaignState::Aborted, ..OrderOptions::default() };
        let order = pair.fixture.order(&first, aborted);
        let of_beta = pair.fixture.campaign_of(&beta, order, aborted);
        assert_eq!(offer(&mut pair, Channel::Group(beta), &of_beta), None);
        // An abort in another group's document takes nothing away while its own group's says to go on.
        assert_eq!(pair.device.state(), State::Downloading);
        let second = release(&pair, 2);
        let newer = OrderOptions { version: 2, campaign: 3, ..OrderOptions::default() };
        let document = pair.fixture.campaign(&second, newer);
        pair.inject(group(), document);
        assert_eq!(ended(&pair), [(Outcome::Cancelled, Some(code))]);
    }
}

/// Two images under one number are a fault of the publisher's, but no number is none.
#[test]
fn a_release_with_the_number_zero_is_taken_by_a_device_whose_image_has_no_number() {
    let mut pair = idle();
    let release = release(&pair, 0);
    pair.roll_out(release.clone(), OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(pair.medium.running_image(), release.image);
}

/// The document that a device holds says that its campaign was aborted before it began: nothing begins.
#[test]
fn an_order_that_is_aborted_from_the_start_begins_nothing() {
    let mut pair = idle();
    let release = release(&pair, 1);
    let options = OrderOptions { state: CampaignState::Aborted, ..OrderOptions::default() };
    let document = pair.fixture.campaign(&release, options);
    assert_eq!(offer(&mut pair, group(), &document), None);
    pair.run(10 * MINUTE, |_| false);
    assert_eq!((pair.device.state(), pair.served_bytes), (State::Idle, 0));
}

/// The envelope that is kept with the slot saves a device that starts again a question.
#[test]
fn a_manifest_that_is_at_hand_is_not_asked_for_again() {
    let mut pair = Pair::new(PairOptions::default());
    let asked = Rc::new(Cell::new(0));
    let count = asked.clone();
    pair.tap = Some(Box::new(move |_, packet| {
        if packet.channel == Channel::Requests
            && matches!(Request::decode(&packet.payload), Ok(Request::Document(_)))
        {
            count.set(count.get() + 1);
        }
        vec![packet]
    }));
    let ordered = pair.fixture.release(image(200_000, 1), 1, 12);
    pair.roll_out(ordered.clone(), OrderOptions::default());
    for _ in 0..3 {
        assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Downloading), Verdict::Done);
        pair.run(1_000, |_| false);
        pair.kill();
    }
    assert_eq!(pair.run_until(State::Confirmed, 10 * MINUTE), Verdict::Done);
    assert_eq!((asked.get(), pair.medium.running_image()), (1, &ordered.image[..]));
    // One of another release is of no use.
    let next = release(&pair, 2);
    pair.roll_out(next.clone(), OrderOptions { version: 2, campaign: 2, ..OrderOptions::default() });
    assert_eq!(pair.run(10 * MINUTE, |pair| pair.medium.running_image() == next.image), Verdict::Done);
    assert_eq!(asked.get(), 2);
}

#[test]
fn an_image_that_rots_on_the_medium_before_it_is_installed_is_not_started() {
    let mut pair = idle();
    let ordered = pair.fixture.release(image(200_000, 1), 1, 12);
    pair.roll_out(ordered, OrderOptions::default());
    assert_eq!(pair.run(MINUTE, |pair| pair.served_bytes > 150_000), Verdict::Done);
    pair.medium.corrupt_target(5000);
    assert_eq!(pair.run_until(State::Failed, 20 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Failed, Some(FailureCode::Collision))]);
    assert_eq!(pair.medium.running_image(), [0; 100]);
}

/// A device that has asked for the manifest of its order once.
pub(crate) fn offered() -> ByHand {
    let mut by_hand = ByHand::in_step(1);
    let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
    let campaign = by_hand.fixture.campaign(&release, OrderOptions::default());
    assert!(asks_for_manifest(&by_hand.message(Channel::Answers, &campaign)));
    assert_eq!(by_hand.session.state(), State::Offered);
    by_hand
}

pub(crate) fn asks_for_manifest(outputs: &[Output]) -> bool {
    let is_manifest = |payload: &[u8]| {
        matches!(Request::decode(payload), Ok(Request::Document(DocumentRequest::Manifest(_))))
    };
    outputs.iter().any(|output| matches!(output, Output::Publish(publish) if is_manifest(&publish.payload)))
}

/// Milliseconds until the manifest is asked for again.
fn next_question(by_hand: &mut ByHand) -> u64 {
    let since = by_hand.now;
    while !asks_for_manifest(&by_hand.wake().unwrap().1) {}
    by_hand.now.millis_since(since)
}

#[test]
fn a_refused_manifest_is_asked_for_again_after_the_wait_and_where_none_is_said_more_and_more_rarely() {
    let refusal = |retry_after_s| Refusal { code: RefusalCode::Busy, retry_after_s, payload: None }.encode();
    let mut by_hand = offered();
    for asked in 1..12 {
        by_hand.message(Channel::Answers, &refusal(None));
        let wait = (15_000 << asked.min(8)).min(3_600_000);
        let waited = next_question(&mut by_hand);
        assert!((wait..=wait + wait / 4).contains(&waited), "{asked}: {waited}");
    }
    for (said, wait) in [(100, 100_000), (u32::MAX, 3_600_000)] {
        let mut by_hand = offered();
        by_hand.message(Channel::Answers, &refusal(Some(said)));
        let waited = next_question(&mut by_hand);
        assert!((wait..=wait + wait / 4).contains(&waited), "an hour is the most: {said} {waited}");
    }
}

/// The host would turn in a circle: woken for what cannot go on before the record is saved.
#[test]
fn work_whose_time_has_come_wakes_nobody_while_the_record_is_not_saved() {
    let mut by_hand = ByHand::in_step(1);
    let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
    let options = OrderOptions { spread_s: 100_000, ..OrderOptions::default() };
    let campaign = by_hand.fixture.campaign(&release, options);
    by_hand.message(Channel::Answers, &campaign);
    assert_eq!(by_hand.session.state(), State::Deferred);
    let start = by_hand.session.poll_timeout().unwrap();
    // Another document is taken, and its version is not stored yet.
    by_hand.held = Some(std::collections::VecDeque::new());
    let groups = [by_hand.fixture.group.clone()];
    let assignment = by_hand.fixture.assignment(2, &groups, None);
    by_hand.message(Channel::Answers, &assignment);
    assert_eq!(by_hand.session.poll_timeout(), Some(start), "what lies ahead wakes it all the same");
    by_hand.now = start;
    by_hand.feed(Input::Timeout);
    assert_eq!((by_hand.session.state(), by_hand.session.poll_timeout()), (State::Deferred, None));
    by_hand.let_go();
    assert!(asks_for_manifest(&by_hand.outputs));
}

#[test]
fn in_a_new_connection_the_manifest_is_asked_for_at_once() {
    let mut by_hand = offered();
    next_question(&mut by_hand);
    next_question(&mut by_hand);
    by_hand.feed(Input::Disconnected);
    assert!(asks_for_manifest(&by_hand.feed(Input::Connected)));
}

/// Retained topics bring what the answer has brought already: the link is for the download first.
#[test]
fn nothing_is_subscribed_to_while_the_manifest_is_being_fetched() {
    let mut by_hand = offered();
    by_hand.feed(Input::Disconnected);
    let hello = the_hello(&by_hand.feed(Input::Connected));
    let group = GroupVersion { group: by_hand.fixture.group.clone(), version: 1 };
    let outputs = by_hand.answer(hello.nonce, |answer| (answer.assignment, answer.groups) = (1, vec![group]));
    assert_eq!(subscriptions(&outputs), []);
    // The attempt ends, and the device listens again.
    let withdrawn = OrderOptions { version: 2, min_sequence: 2, ..OrderOptions::default() };
    let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
    let campaign = by_hand.fixture.campaign(&release, withdrawn);
    let outputs = by_hand.message(Channel::Answers, &campaign);
    assert_eq!(subscriptions(&outputs).len(), 3);
}

/// A manifest is named by nothing but its digest: what names a payload is about something else.
#[test]
fn while_the_manifest_is_asked_for_only_a_refusal_without_a_payload_counts() {
    for (payload, waits) in [(None, true), (Some(PayloadTag([1; 4])), false)] {
        let mut by_hand = ByHand::in_step(1);
        let release = by_hand.fixture.release(vec![1; 2000], 1, 10);
        let campaign = by_hand.fixture.campaign(&release, OrderOptions::default());
        by_hand.message(Channel::Answers, &campaign);
        assert_eq!(by_hand.session.state(), State::Offered);
        let before = by_hand.session.poll_timeout();
        let refusal = Refusal { code: RefusalCode::Busy, retry_after_s: Some(500), payload }.encode();
        by_hand.message(Channel::Answers, &refusal);
        let after = by_hand.session.poll_timeout();
        assert_eq!(after != before, waits, "{payload:?}");
        let waited = after.unwrap().as_millis();
        assert!(!waits || (500_000..=625_000).contains(&waited), "{waited}");
    }
}

/// It would be fetched and checked, and the device would go on with the old image for ever after.
#[test]
fn a_manifest_that_starts_nothing_is_refused_before_its_image_is_installed() {
    let mut pair = idle();
    let mut ordered = release(&pair, 1);
    let envelope = Envelope::<Unverified>::decode(&ordered.envelope).unwrap();
    let content = envelope.unverified_manifest().unwrap().content().clone();
    let starts_nothing = Manifest::new(Content { invoke: None, ..content }).unwrap();
    let envelope = sign_manifest(&starts_nothing, &[&pair.fixture.release_key]);
    (ordered.digest, ordered.envelope) = (envelope.claimed_digest(), envelope.bytes().to_vec());
    pair.roll_out(ordered, OrderOptions::default());
    pair.run_until(State::Failed, 20 * MINUTE);
    assert_eq!(ended(&pair), [(Outcome::Failed, Some(FailureCode::Unsupported))]);
    assert_eq!(pair.medium.running_image(), [0; 100]);
}

/// What was signed is wrong for ever: asking again brings the same.
#[test]
fn a_manifest_that_was_signed_and_cannot_be_read_ends_the_attempt_at_once() {
    let mut pair = idle();
    let mut ordered = release(&pair, 1);
    let envelope = Envelope::<Unverified>::decode(&ordered.envelope).unwrap();
    let content = envelope.unverified_manifest().unwrap().content().clone();
    let garbage = [0x81, 0x00];
    let severed = Severable::Severed { digest: wrapped_digest(&garbage), member: None };
    let manifest = Manifest::new(Content { install: Some(severed), ..content }).unwrap();
    let block = sign_manifest(&manifest, &[&pair.fixture.release_key]).blocks().unwrap().remove(0).bytes;
    let digest = suit_digest(-16, &manifest.digest().0);
    ordered.envelope = assemble(&digest, &[block], &[(3, manifest.bytes()), (20, &garbage)]);
    ordered.digest = manifest.digest();
    pair.roll_out(ordered, OrderOptions::default());
    assert_eq!(pair.run_until(State::Failed, MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Failed, Some(FailureCode::Malformed))]);
}

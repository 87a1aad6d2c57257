//! What no signature covers ends nothing: it is asked for again, more and more rarely, and people are told
//! (SPEC sections 5.2 and 7.5).

use std::cell::Cell;
use std::rc::Rc;

use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::{Input, Output, Record};
use whimbrel_protocol::envelope::{Envelope, Unverified};
use whimbrel_protocol::manifest::{Content, Manifest, Sequence, Severable};
use whimbrel_protocol::message::{DeferReason, Outcome, Refusal, RefusalCode, State};
use whimbrel_protocol::testing::{OrderOptions, Pair, Release, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::by_hand::{ByHand, subscriptions, the_hello};
use crate::documents::{idle, release};
use crate::envelope_parts::{assemble, suit_digest};
use crate::orders::{asks_for_manifest, offered};
use crate::samples::sign_manifest;
use crate::session::{DAY, ended};
use crate::waits::spoil_signature;

const HOUR_MS: u64 = 3_600_000;

/// A release whose sequence for the installation stands beside its manifest.
fn severed(pair: &Pair) -> Release {
    let mut ordered = release(pair, 1);
    let envelope = Envelope::<Unverified>::decode(&ordered.envelope).unwrap();
    let content = envelope.unverified_manifest().unwrap().content().clone();
    let Some(Severable::Inline(install)) = content.install else { panic!() };
    let manifest =
        Manifest::new(Content { install: Some(Severable::<Sequence>::sever(install)), ..content }).unwrap();
    let envelope = sign_manifest(&manifest, &[&pair.fixture.release_key]);
    (ordered.digest, ordered.envelope) = (envelope.claimed_digest(), envelope.bytes().to_vec());
    ordered
}

/// The signature covers its digest and not itself: anybody on the way can spoil it, and that ends nothing.
#[test]
fn a_part_of_the_manifest_that_is_sent_beside_it_may_be_spoiled_on_the_way_any_number_of_times() {
    let mut pair = idle();
    let ordered = severed(&pair);
    let spoiled = Rc::new(Cell::new(0));
    let count = spoiled.clone();
    pair.tap = Some(Box::new(move |_, mut packet| {
        if packet.payload.starts_with(&[0xd8, 0x6b]) && count.get() < 5 {
            count.set(count.get() + 1);
            *packet.payload.last_mut().unwrap() ^= 1;
        }
        vec![packet]
    }));
    pair.roll_out(ordered, OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?} {:?}", pair.events);
    assert_eq!((spoiled.get(), ended(&pair)), (5, vec![(Outcome::Confirmed, None)]));
}

/// Has the first `times` envelopes changed on the way, and counts those that come.
fn spoil(pair: &mut Pair, times: usize, mut change: impl FnMut(&mut Vec<u8>) + 'static) -> Rc<Cell<usize>> {
    let came = Rc::new(Cell::new(0));
    let count = came.clone();
    pair.tap = Some(Box::new(move |_, mut packet| {
        if packet.payload.starts_with(&[0xd8, 0x6b]) {
            count.set(count.get() + 1);
            if count.get() <= times {
                change(&mut packet.payload);
            }
        }
        vec![packet]
    }));
    came
}

#[test]
fn an_envelope_with_one_byte_of_its_signature_changed_ends_nothing_however_often_it_comes() {
    let mut pair = idle();
    let came = spoil(&mut pair, 8, |envelope| spoil_signature(envelope));
    let ordered = release(&pair, 1);
    pair.roll_out(ordered.clone(), OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, 10 * DAY), Verdict::Done, "{pair:?}");
    assert_eq!((came.get(), ended(&pair)), (9, vec![(Outcome::Confirmed, None)]));
    assert_eq!(pair.medium.running_image(), ordered.image);
}

#[test]
fn an_envelope_without_any_signature_ends_nothing() {
    let mut pair = idle();
    let ordered = release(&pair, 1);
    let envelope = Envelope::<Unverified>::decode(&ordered.envelope).unwrap();
    let manifest = envelope.unverified_manifest().unwrap();
    let digest = suit_digest(-16, &manifest.digest().0);
    let bare = assemble(&digest, &[], &[(3, manifest.bytes())]);
    let came = spoil(&mut pair, 5, move |envelope| *envelope = bare.clone());
    pair.roll_out(ordered, OrderOptions::default());
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?}");
    assert_eq!((came.get(), ended(&pair)), (6, vec![(Outcome::Confirmed, None)]));
}

/// That the part was sent along is what nobody signed. Its digest is in the manifest.
#[test]
fn an_envelope_without_a_part_that_is_sent_beside_its_manifest_ends_nothing() {
    let mut pair = idle();
    let ordered = severed(&pair);
    let envelope = Envelope::<Unverified>::decode(&ordered.envelope).unwrap();
    let blocks: Vec<Vec<u8>> = envelope.blocks().unwrap().into_iter().map(|block| block.bytes).collect();
    let manifest = envelope.unverified_manifest().unwrap();
    let digest = suit_digest(-16, &manifest.digest().0);
    let without = assemble(&digest, &blocks, &[(3, manifest.bytes())]);
    let came = spoil(&mut pair, 5, move |envelope| *envelope = without.clone());
    pair.roll_out(ordered, OrderOptions::default());
    pair.run(20_000, |_| false);
    assert_eq!(pair.device.status().unwrap().deferred, Some(DeferReason::BadEnvelope));
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?}");
    assert_eq!((came.get(), ended(&pair)), (6, vec![(Outcome::Confirmed, None)]));
}

/// The release waits for a key that the device trusts, or for an order that names another one.
#[test]
fn a_release_that_a_stranger_signed_is_waited_for_and_nothing_of_its_payload_is_fetched() {
    let mut pair = idle();
    let stranger = SigningKey::p256(&[77; 32]).unwrap();
    let ordered = pair.fixture.release_for(pair.fixture.class, &stranger, vec![1; 20_000], 1, 12);
    pair.roll_out(ordered.clone(), OrderOptions::default());
    pair.run(10 * DAY, |_| false);
    let status = pair.device.status().unwrap();
    assert_eq!((status.state, status.deferred), (State::Deferred, Some(DeferReason::BadEnvelope)));
    assert_eq!((ended(&pair), pair.served_bytes), (vec![], 0));
    // Its publisher has it signed by the right key.
    let envelope = Envelope::<Unverified>::decode(&ordered.envelope).unwrap();
    let manifest = envelope.unverified_manifest().unwrap();
    let right = sign_manifest(&manifest, &[&pair.fixture.release_key]).bytes().to_vec();
    pair.service.releases[0].envelope = right;
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?}");
}

/// The envelope of the order of [`offered`], with a bad signature.
fn spoiled(by_hand: &ByHand) -> Vec<u8> {
    let mut envelope = by_hand.fixture.release(vec![1; 2000], 1, 10).envelope;
    spoil_signature(&mut envelope);
    envelope
}

/// Milliseconds until the manifest is asked for again.
fn next_question(by_hand: &mut ByHand) -> u64 {
    let since = by_hand.now;
    while !asks_for_manifest(&by_hand.wake().unwrap().1) {}
    by_hand.now.millis_since(since)
}

#[test]
fn a_spoiled_envelope_is_asked_for_again_more_and_more_rarely_up_to_six_hours() {
    let mut by_hand = offered();
    let envelope = spoiled(&by_hand);
    for number in 0..14 {
        by_hand.message(Channel::Answers, &envelope);
        let until = by_hand.session.deferred_until().unwrap();
        assert_eq!(by_hand.session.status().unwrap().deferred, Some(DeferReason::BadEnvelope));
        let told = until.millis_since(by_hand.now);
        let waited = next_question(&mut by_hand);
        assert_eq!(waited, told, "status says until when");
        let wait = (15_000 << number.min(11)).min(6 * HOUR_MS);
        assert!((wait..=wait + wait / 4).contains(&waited), "{number}: {waited}");
    }
    // The right one is taken whenever it comes, and the state is left with it.
    let right = by_hand.fixture.release(vec![1; 2000], 1, 10).envelope;
    by_hand.message(Channel::Answers, &right);
    assert_eq!((by_hand.session.deferred_until(), by_hand.session.state()), (None, State::Offered));
}

#[test]
fn further_copies_of_a_spoiled_envelope_lengthen_no_wait_and_shorten_none() {
    let mut by_hand = offered();
    let envelope = spoiled(&by_hand);
    by_hand.message(Channel::Answers, &envelope);
    let until = by_hand.session.deferred_until();
    for _ in 0..20 {
        by_hand.message(Channel::Answers, &envelope);
        assert_eq!(by_hand.session.deferred_until(), until);
    }
    let refusal = Refusal { code: RefusalCode::Busy, retry_after_s: Some(0), payload: None }.encode();
    by_hand.message(Channel::Answers, &refusal);
    assert_eq!(by_hand.session.deferred_until(), until, "nor does a refusal");
}

/// Otherwise whoever spoils envelopes and cuts the link has 4 KiB sent in each connection.
#[test]
fn another_connection_does_not_shorten_the_wait_after_a_spoiled_envelope() {
    let mut by_hand = offered();
    let envelope = spoiled(&by_hand);
    for _ in 0..4 {
        by_hand.message(Channel::Answers, &envelope);
        next_question(&mut by_hand);
    }
    by_hand.message(Channel::Answers, &envelope);
    let until = by_hand.session.deferred_until();
    by_hand.feed(Input::Disconnected);
    let outputs = by_hand.feed(Input::Connected);
    assert!(!asks_for_manifest(&outputs));
    let hello = the_hello(&outputs);
    let outputs = by_hand.answer(hello.nonce, |answer| {
        (answer.assignment, answer.groups) = (1, hello.groups.clone());
    });
    assert_eq!(by_hand.session.deferred_until(), until);
    // While it waits it hears of news.
    assert_eq!(subscriptions(&outputs).len(), 3);
}

/// Unsigned words of the service and of whoever speaks for it, in every state of an order.
#[test]
fn no_refusal_ends_an_order_whatever_its_code() {
    for code in 1..=8 {
        let mut by_hand = offered();
        for payload in [&[0x1a, code][..], &[0x1a, code, 0x00], &[0x1a, code, 0x19, 0x0e, 0x10]] {
            for _ in 0..10 {
                let outputs = by_hand.message(Channel::Answers, payload);
                let is_end = |output: &Output| {
                    matches!(output, Output::Event(whimbrel_protocol::device::Event::Ended { .. }))
                };
                assert!(!outputs.iter().any(is_end), "{code}");
            }
        }
        let Record { deployment, outcomes, .. } = by_hand.session.record();
        assert_eq!((deployment.is_some(), outcomes.len()), (true, 0), "{code}");
    }
}

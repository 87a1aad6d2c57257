//! Every wait belongs to the order that rules and to the document that says so: it ends when something else rules, and
//! the same document again does not shorten it (SPEC section 4.5).

use std::cell::RefCell;
use std::rc::Rc;

use whimbrel_protocol::device::{InstallFailure, Output, StoreFailure};
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::message::{
    CampaignState, DeferReason, FailureCode, Outcome, Refusal, RefusalCode, Request, State,
};
use whimbrel_protocol::testing::{Direction, OrderOptions, Pair, Release, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::documents::{group, idle, offer, release};
use crate::session::{MINUTE, ended, image};

/// Everything that a deployment may wait for. A hook's "not now" before the download comes to the session as a medium
/// that failed, and so does want of power if a hook says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Its start time, far away.
    Window,
    /// Room on the medium.
    Room,
    /// A medium that fails, or a hook that says "not now" to the download.
    Medium,
    /// A hook that says "not now" to the installation.
    NotNow,
    /// A service that is busy.
    Busy,
    /// A service that has nothing of the payload.
    NotFound,
    /// A service that refuses the envelope.
    EnvelopeRefused,
    /// An envelope that does not come.
    EnvelopeLost,
    /// Envelopes that come spoiled.
    EnvelopeSpoiled,
}

const ALL: [Wait; 9] = [
    Wait::Window,
    Wait::Room,
    Wait::Medium,
    Wait::NotNow,
    Wait::Busy,
    Wait::NotFound,
    Wait::EnvelopeRefused,
    Wait::EnvelopeLost,
    Wait::EnvelopeSpoiled,
];

/// A start time in some years.
const FAR_S: u64 = 100_000_000;

/// What the device has asked for: envelopes and chunks.
type Asked = Rc<RefCell<usize>>;

fn options(version: u64) -> OrderOptions {
    OrderOptions { version, life_s: 2 * FAR_S, ..OrderOptions::default() }
}

/// The campaign's first document, which the device has.
fn document(pair: &Pair, wait: Wait, release: &Release, options: OrderOptions) -> Vec<u8> {
    let mut order = pair.fixture.order(release, options);
    if wait == Wait::Window {
        order.not_before = pair.fixture.issued.plus_secs(FAR_S);
    }
    pair.fixture.campaign_of(&pair.fixture.group, order, options)
}

fn listen(pair: &mut Pair, spoils: Option<Wait>) -> Asked {
    let asked = Asked::default();
    let count = asked.clone();
    pair.tap = Some(Box::new(move |_, mut packet| {
        if packet.direction == Direction::Up && packet.channel == Channel::Requests {
            let counts =
                !matches!(Request::decode(&packet.payload), Ok(Request::Hello(_) | Request::Status(_)));
            *count.borrow_mut() += usize::from(counts);
        }
        if packet.payload.starts_with(&[0xd8, 0x6b]) {
            match spoils {
                Some(Wait::EnvelopeSpoiled) => spoil_signature(&mut packet.payload),
                Some(Wait::EnvelopeRefused | Wait::EnvelopeLost) => return Vec::new(),
                _ => {}
            }
        }
        vec![packet]
    }));
    asked
}

/// Changes one byte of an envelope's signature.
pub(crate) fn spoil_signature(envelope: &mut [u8]) {
    let block = Envelope::decode(envelope).unwrap().blocks().unwrap().remove(0).bytes;
    let at = envelope.windows(block.len()).position(|bytes| bytes == block).unwrap();
    envelope[at + block.len() - 1] ^= 1;
}

/// A device that waits for that, with the release of its order and the document that says so.
fn waiting(wait: Wait) -> (Pair, Release, Vec<u8>) {
    let mut pair = idle();
    let ordered = pair.fixture.release(image(200_000, 1), 1, 12);
    let first = document(&pair, wait, &ordered, options(1));
    listen(&mut pair, Some(wait));
    pair.service.releases.push(ordered.clone());
    pair.service.live = Some(0);
    pair.put_campaign(1, first.clone());
    let payload = Some(ordered.tag());
    let refused = |code, payload| Refusal { code, retry_after_s: Some(3600), payload }.encode();
    let downloading = |pair: &Pair| pair.device.status().is_some_and(|status| status.chunks_held >= 4);
    match wait {
        Wait::Window => _ = pair.run(5_000, |_| false),
        Wait::Room | Wait::Medium => {
            assert_eq!(pair.run(MINUTE, downloading), Verdict::Done);
            let fault = if wait == Wait::Room { StoreFailure::NoRoom } else { StoreFailure::Failed };
            pair.medium.fault = Some(fault);
            assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Deferred), Verdict::Done);
            pair.medium.fault = None;
        }
        Wait::NotNow => {
            pair.medium.install_fault = Some(InstallFailure::Retry);
            assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Deferred), Verdict::Done);
            pair.medium.install_fault = None;
        }
        Wait::Busy | Wait::NotFound => {
            assert_eq!(pair.run(MINUTE, downloading), Verdict::Done);
            let code = if wait == Wait::Busy { RefusalCode::Busy } else { RefusalCode::NotFound };
            pair.inject(Channel::Answers, refused(code, payload));
        }
        Wait::EnvelopeRefused => {
            pair.run(3_000, |_| false);
            pair.inject(Channel::Answers, refused(RefusalCode::Busy, None));
        }
        Wait::EnvelopeLost | Wait::EnvelopeSpoiled => _ = pair.run(3 * 60 * MINUTE, |_| false),
    }
    (pair, ordered, first)
}

/// Gives the device a newer document, and says whether it asked for something at once or how the order ended.
fn changed(wait: Wait, change: impl FnOnce(&mut Pair, &Release) -> (Channel, Vec<u8>)) -> (Pair, usize) {
    let (mut pair, ordered, _) = waiting(wait);
    let asked = listen(&mut pair, None);
    let (channel, document) = change(&mut pair, &ordered);
    pair.inject(channel, document);
    pair.run(5_000, |_| false);
    let asked = *asked.borrow();
    (pair, asked)
}

#[test]
fn a_document_that_comes_again_ends_no_wait() {
    for wait in ALL {
        let (mut pair, _, first) = waiting(wait);
        let (asked, until) = (listen(&mut pair, None), pair.device.deferred_until());
        assert!(until.is_some(), "people see until when it waits: {wait:?}");
        for channel in [group(), Channel::Answers] {
            assert_eq!(offer(&mut pair, channel, &first), None, "{wait:?}");
        }
        pair.run(30_000, |_| false);
        assert_eq!((*asked.borrow(), pair.device.deferred_until()), (0, until), "{wait:?}");
    }
}

#[test]
fn a_newer_campaign_ends_every_wait_for_the_one_before() {
    for wait in ALL {
        let (pair, asked) = changed(wait, |pair, _| {
            let second = pair.fixture.release(image(200_000, 2), 2, 12);
            let newer = OrderOptions { campaign: 2, ..options(2) };
            let document = pair.fixture.campaign(&second, newer);
            pair.service.releases.push(second);
            pair.service.live = Some(1);
            (group(), document)
        });
        assert!(asked > 0, "{wait:?}: {pair:?}");
        let order = &pair.device.record().deployment.as_ref().unwrap().order;
        assert_eq!(order.campaign.0[0], 2, "{wait:?}");
    }
}

#[test]
fn another_attempt_of_the_same_campaign_ends_every_wait() {
    for wait in ALL {
        let (pair, asked) = changed(wait, |pair, ordered| {
            (group(), pair.fixture.campaign(ordered, OrderOptions { attempt: 2, ..options(2) }))
        });
        assert!(asked > 0 || wait == Wait::NotNow, "{wait:?}: {pair:?}");
        assert_ne!(pair.device.state(), State::Deferred, "{wait:?}");
        assert_eq!(
            ended(&pair).iter().filter(|end| **end != (Outcome::Confirmed, None)).count(),
            0,
            "{wait:?}"
        );
    }
}

#[test]
fn a_newer_document_of_the_same_order_ends_every_wait_but_that_for_the_start_time_it_names() {
    for wait in ALL {
        let (pair, asked) =
            changed(wait, |pair, ordered| (group(), document(pair, wait, ordered, options(2))));
        if wait == Wait::Window {
            let status = (pair.device.state(), pair.device.deferred_until().is_some(), asked);
            assert_eq!(status, (State::Deferred, true, 0));
        } else {
            assert!(asked > 0 || wait == Wait::NotNow, "{wait:?}: {pair:?}");
            assert_ne!(pair.device.state(), State::Deferred, "{wait:?}");
        }
    }
}

#[test]
fn an_order_of_the_devices_own_assignment_ends_every_wait_for_the_groups() {
    for wait in ALL {
        let (pair, asked) = changed(wait, |pair, _| {
            let second = pair.fixture.release(image(200_000, 2), 2, 12);
            let order = pair.fixture.order(&second, OrderOptions { campaign: 3, ..options(1) });
            pair.service.releases.push(second);
            pair.service.live = Some(1);
            let groups = [pair.fixture.group.clone()];
            (Channel::Assignment, pair.fixture.assignment(2, &groups, Some(order)))
        });
        assert!(asked > 0, "{wait:?}: {pair:?}");
        let order = &pair.device.record().deployment.as_ref().unwrap().order;
        assert_eq!(order.campaign.0[0], 3, "{wait:?}");
    }
}

#[test]
fn an_abort_ends_every_wait_at_once() {
    for wait in ALL {
        let (pair, asked) = changed(wait, |pair, ordered| {
            let aborted = OrderOptions { state: CampaignState::Aborted, ..options(2) };
            (group(), document(pair, wait, ordered, aborted))
        });
        assert_eq!(asked, 0, "{wait:?}");
        let (state, deferred) = (pair.device.state(), pair.device.deferred_until());
        if wait == Wait::Window {
            assert_eq!((state, deferred), (State::Idle, None), "nothing had begun");
        } else {
            assert_eq!((state, deferred), (State::Cancelled, None), "{wait:?}");
            assert_eq!(ended(&pair), [(Outcome::Cancelled, Some(FailureCode::Aborted))], "{wait:?}");
        }
    }
}

/// What another group's document withdraws is not waited for either.
#[test]
fn a_release_that_is_withdrawn_is_not_waited_for() {
    for wait in ALL {
        let mut pair = waiting(wait).0;
        let beta = GroupName::new("beta").unwrap();
        let groups = [pair.fixture.group.clone(), beta.clone()];
        let assignment = pair.fixture.assignment(2, &groups, None);
        assert_eq!(offer(&mut pair, Channel::Assignment, &assignment), None);
        let aborted =
            OrderOptions { state: CampaignState::Aborted, min_sequence: 2, campaign: 2, ..options(1) };
        let order = pair.fixture.order(&release(&pair, 2), aborted);
        let of_beta = pair.fixture.campaign_of(&beta, order, aborted);
        pair.inject(Channel::Group(beta), of_beta);
        let outcome = if wait == Wait::Window { Outcome::Failed } else { Outcome::Cancelled };
        assert_eq!(ended(&pair), [(outcome, Some(FailureCode::Withdrawn))], "{wait:?}");
    }
}

/// What does not rule changes nothing.
#[test]
fn a_campaign_that_does_not_rule_ends_no_wait() {
    let mut pair = waiting(Wait::Room).0;
    let beta = GroupName::new("beta").unwrap();
    let groups = [pair.fixture.group.clone(), beta.clone()];
    let assignment = pair.fixture.assignment(2, &groups, None);
    let until = pair.device.deferred_until();
    assert_eq!(offer(&mut pair, Channel::Assignment, &assignment), None);
    let aborted = OrderOptions { campaign: 2, state: CampaignState::Aborted, ..options(7) };
    let order = pair.fixture.order(&release(&pair, 2), aborted);
    let of_beta = pair.fixture.campaign_of(&beta, order, aborted);
    assert_eq!(offer(&mut pair, Channel::Group(beta), &of_beta), None);
    assert_eq!(pair.device.status().unwrap().deferred, Some(DeferReason::Room));
    assert_eq!(pair.device.deferred_until(), until);
}

/// People at the device and at the service see what it waits for, also if it has never done anything before.
/// Just before a restart, what the retained topics hold would travel in vain.
#[test]
fn a_device_that_installs_for_long_can_be_called_off_and_one_that_restarts_soon_does_not_ask_for_news() {
    let mut pair = idle();
    let ordered = pair.fixture.release(image(20_000, 1), 1, 12);
    let campaign = document(&pair, Wait::Room, &ordered, options(1));
    pair.service.releases.push(ordered.clone());
    pair.service.live = Some(0);
    pair.hangs = true;
    pair.put_campaign(1, campaign);
    // The news comes with the answer to a hello in a new connection.
    pair.cut();
    pair.wanted = Some(Vec::new());
    assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Installing), Verdict::Done);
    let began = pair.now;
    let group = Channel::Group(pair.fixture.group.clone());
    let news = |pair: &Pair| {
        let asks = |output: &Output| matches!(output, Output::Subscribe(what) if what.contains(&group));
        let mut wanted = pair.wanted.iter().flatten();
        wanted.find(|(_, output)| asks(output)).map(|(at, _)| at.millis_since(began))
    };
    pair.run(9_900, |_| false);
    assert_eq!(news(&pair), None);
    pair.run(200, |_| false);
    assert_eq!(news(&pair), Some(10_000));
    let aborted = OrderOptions { state: CampaignState::Aborted, ..options(2) };
    let aborted = pair.fixture.campaign(&ordered, aborted);
    pair.inject(group.clone(), aborted);
    assert_eq!(ended(&pair), [(Outcome::Cancelled, Some(FailureCode::Aborted))]);
}

#[test]
fn a_device_that_waits_for_its_start_names_the_order_that_it_waits_for() {
    let mut pair = idle();
    let statuses = Rc::new(RefCell::new(Vec::new()));
    let notes = statuses.clone();
    pair.tap = Some(Box::new(move |_, packet| {
        if let Ok(Request::Status(status)) = Request::decode(&packet.payload) {
            notes.borrow_mut().push(status);
        }
        vec![packet]
    }));
    let release = release(&pair, 1);
    let first =
        document(&pair, Wait::Window, &release, OrderOptions { campaign: 7, attempt: 3, ..options(1) });
    pair.put_campaign(1, first);
    pair.run(5_000, |_| false);
    let status = pair.device.status().unwrap();
    assert_eq!((status.campaign.0, status.attempt), ([7; 8], 3));
    assert_eq!((status.state, status.deferred), (State::Deferred, Some(DeferReason::Window)));
    assert_eq!(*statuses.borrow(), [status]);
}

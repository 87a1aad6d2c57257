//! Which order rules a device, and when what it orders may begin (SPEC section 4.5).

use whimbrel_protocol::cose::Kind;
use whimbrel_protocol::device::Event;
use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::message::{FailureCode, Outcome, State};
use whimbrel_protocol::testing::{OrderOptions, Pair, PairOptions, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::documents::{group, idle, offer, release};
use crate::session::{DAY, MINUTE, ended, image};

#[test]
fn an_expired_campaign_does_not_begin() {
    let mut pair = idle();
    let release = release(&pair, 1);
    pair.roll_out(release, OrderOptions { life_s: 60, ..Default::default() });
    assert_eq!(pair.run_until(State::Failed, 10 * MINUTE), Verdict::Done, "{pair:?}");
    assert_eq!(ended(&pair), [(Outcome::Failed, Some(FailureCode::Expired))]);
    assert_eq!(pair.served_bytes, 0);
}

/// Expiry is judged by the service's clock in an answer to our own nonce: without one nothing begins, and
/// what has begun goes on.
#[test]
fn a_campaign_that_expires_in_the_middle_is_finished() {
    let mut pair = idle();
    let release = pair.fixture.release(image(600_000, 1), 1, 12);
    pair.roll_out(release.clone(), OrderOptions { life_s: 90, ..Default::default() });
    assert_eq!(pair.run(MINUTE, |pair| pair.device.state() == State::Downloading), Verdict::Done);
    pair.kill();
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{pair:?}");
    assert!(pair.now.as_millis() > 30_000);
    assert_eq!(pair.medium.running_image(), release.image);
}

#[test]
fn nothing_begins_without_an_answer_to_our_nonce() {
    let mut pair = Pair::new(PairOptions::default());
    let release = release(&pair, 1);
    // Everything but answers gets through: the broker replays documents of a service that is gone.
    pair.tap = Some(Box::new(|_, packet| {
        let answer = whimbrel_protocol::cose::Sign1::decode(&packet.payload)
            .is_ok_and(|object| object.claimed_kind() == Some(Kind::Answer));
        if answer { Vec::new() } else { vec![packet] }
    }));
    pair.roll_out(release, OrderOptions::default());
    pair.run(60 * MINUTE, |_| false);
    assert_eq!(pair.served_bytes, 0);
    assert_eq!(pair.device.record().deployment, None);
}

#[test]
fn an_assignment_beats_the_group_and_the_higher_priority_wins_among_groups() {
    let mut pair = idle();
    let (a, b, c) = (release(&pair, 1), release(&pair, 2), release(&pair, 3));
    let beta = GroupName::new("beta").unwrap();
    let groups = [pair.fixture.group.clone(), beta.clone()];
    let low = OrderOptions { campaign: 1, priority: 1, ..Default::default() };
    let high = OrderOptions { campaign: 2, priority: 2, ..Default::default() };
    let own = OrderOptions { campaign: 3, ..Default::default() };
    let assignment = pair.fixture.assignment(2, &groups, None);
    assert_eq!(offer(&mut pair, Channel::Assignment, &assignment), None);
    let of_all = pair.fixture.campaign(&a, low);
    let of_beta = pair.fixture.campaign_of(&beta, pair.fixture.order(&b, high), high);
    assert_eq!(offer(&mut pair, Channel::Group(beta), &of_beta), None);
    assert_eq!(offer(&mut pair, group(), &of_all), None);
    let wanted = |pair: &Pair| pair.device.record().deployment.as_ref().map(|d| d.order.campaign.0[0]);
    assert_eq!(wanted(&pair), Some(2));
    let order = pair.fixture.order(&c, own);
    let assignment = pair.fixture.assignment(3, &groups, Some(order));
    assert_eq!(offer(&mut pair, Channel::Assignment, &assignment), None);
    assert_eq!(wanted(&pair), Some(3));
}

#[test]
fn of_two_campaigns_that_stand_level_the_one_with_the_higher_id_rules_whichever_came_first() {
    for ids in [[1, 2], [2, 1]] {
        let mut pair = idle();
        let release = release(&pair, 1);
        let beta = GroupName::new("beta").unwrap();
        let groups = [pair.fixture.group.clone(), beta.clone()];
        let assignment = pair.fixture.assignment(2, &groups, None);
        assert_eq!(offer(&mut pair, Channel::Assignment, &assignment), None);
        for (name, campaign) in groups.into_iter().zip(ids) {
            let options = OrderOptions { campaign, ..OrderOptions::default() };
            let order = pair.fixture.order(&release, options);
            let document = pair.fixture.campaign_of(&name, order, options);
            assert_eq!(offer(&mut pair, Channel::Group(name), &document), None);
        }
        let order = &pair.device.record().deployment.as_ref().unwrap().order;
        assert_eq!(order.campaign.0[0], 2, "{ids:?}");
    }
}

#[test]
fn devices_start_spread_over_the_campaigns_time() {
    let mut pair = idle();
    let spread = OrderOptions { spread_s: 24 * 3600, ..Default::default() };
    pair.roll_out(release(&pair, 1), spread);
    pair.run(10_000, |_| false);
    assert_eq!(pair.device.state(), State::Deferred);
    assert_eq!(pair.run_until(State::Confirmed, DAY + 20 * MINUTE), Verdict::Done);
    let started = pair
        .events
        .iter()
        .find(|(_, event)| matches!(event, Event::StateChanged { state: State::Offered, .. }));
    assert!(started.unwrap().0.as_millis() > 60_000);
}

//! What a session does first: what the record and the boot control say together, and the trial of a new image.

use std::cell::Cell;
use std::rc::Rc;

use whimbrel_protocol::cose::{Kind, Sign1};
use whimbrel_protocol::device::{
    BootView, Deployment, Event, HostOp, Input, InstallFailure, InstallOp, Record, Running, Stage, Trial,
};
use whimbrel_protocol::ids::{Digest, OpId};
use whimbrel_protocol::message::{FailureCode, Outcome, State};
use whimbrel_protocol::testing::{Fixture, OrderOptions, Pair, PairOptions, Verdict};
use whimbrel_protocol::time::UnixTime;
use whimbrel_protocol::topic::Channel;

use crate::by_hand::{Asked, ByHand, boot, events, installs};
use crate::session::{MINUTE, ended, image};

/// What comes first.
#[derive(Debug, PartialEq, Eq)]
enum First {
    Asks(Asked),
    Ends(Outcome, Option<FailureCode>),
    Fetches,
    Nothing,
}

const ARMS_MAX: u32 = 3;

/// Starts a session and lets everything be stored.
fn resumed(stage: Stage, trial: Trial, runs_new: bool, arms: u32) -> (First, ByHand) {
    let fixture = Fixture::new();
    let release = fixture.release(image(2_000, 3), 3, 10);
    let order = fixture.order(&release, OrderOptions::default());
    let deployment = Deployment { arms, ..Deployment::new(order, stage) };
    let running = Running {
        image: Some(Digest::of(&[0; 100])),
        release: Some(if runs_new { release.digest } else { Digest([1; 32]) }),
        sequence: 1,
    };
    let boot = BootView { running, trial, ..boot() };
    let record = Record { deployment: Some(deployment), ..Record::default() };
    let mut by_hand = ByHand::on(1, record, boot, UnixTime::default(), true);
    // What ends the deployment or starts another image does not come before the record says so.
    assert!(!installs(&by_hand.outputs).contains(&Asked::Host(HostOp::Reboot)));
    by_hand.let_go();
    let outputs = std::mem::take(&mut by_hand.outputs);
    let end = events(&outputs).into_iter().find_map(|event| match event {
        Event::Ended { outcome, failure, .. } => Some(First::Ends(outcome, failure)),
        _ => None,
    });
    let first = match (installs(&outputs)[..].first(), end, by_hand.session.state()) {
        (Some(op), None, _) => First::Asks(*op),
        (None, Some(end), _) => end,
        (None, None, State::Offered) => First::Fetches,
        (None, None, State::Idle) => First::Nothing,
        other => panic!("{other:?}"),
    };
    (first, by_hand)
}

fn first(stage: Stage, trial: Trial, runs_new: bool, arms: u32) -> First {
    resumed(stage, trial, runs_new, arms).0
}

#[test]
fn what_was_given_up_is_reverted_to_the_end() {
    let stage = Stage::Reverting(FailureCode::Unhealthy);
    for runs_new in [false, true] {
        assert_eq!(first(stage, Trial::Running, runs_new, 1), First::Asks(Asked::Install(InstallOp::Revert)));
        for trial in [Trial::None, Trial::Armed, Trial::Failed] {
            let ends = First::Ends(Outcome::Reverted, Some(FailureCode::Unhealthy));
            assert_eq!(first(stage, trial, runs_new, 1), ends, "{trial:?}");
        }
    }
}

#[test]
fn the_new_image_is_tested_where_it_runs_on_trial_whatever_the_record_says() {
    for stage in [Stage::Fetching, Stage::Installed, Stage::Armed] {
        assert_eq!(first(stage, Trial::Running, true, 1), First::Asks(Asked::Host(HostOp::CheckHealth)));
    }
    // From then on nothing is fetched any more.
    let (_, by_hand) = resumed(Stage::Fetching, Trial::Running, true, 1);
    assert_eq!(by_hand.saved.unwrap().deployment.unwrap().stage, Stage::Installed);
}

#[test]
fn an_image_that_runs_and_is_on_no_trial_was_confirmed() {
    for stage in [Stage::Installed, Stage::Armed] {
        assert_eq!(first(stage, Trial::None, true, 1), First::Ends(Outcome::Confirmed, None));
    }
}

#[test]
fn a_deployment_that_was_fetching_goes_on_unless_somebody_elses_trial_runs() {
    for trial in [Trial::None, Trial::Armed, Trial::Failed] {
        assert_eq!(first(Stage::Fetching, trial, false, 0), First::Fetches, "{trial:?}");
    }
    assert_eq!(first(Stage::Fetching, Trial::Running, false, 0), First::Nothing);
}

#[test]
fn an_armed_trial_that_does_not_start_is_given_up_after_three_times() {
    for arms in 0..ARMS_MAX {
        let (first, by_hand) = resumed(Stage::Armed, Trial::Armed, false, arms);
        assert_eq!(first, First::Asks(Asked::Host(HostOp::Reboot)), "{arms}");
        let deployment = by_hand.saved.unwrap().deployment.unwrap();
        assert_eq!((deployment.stage, deployment.arms), (Stage::Armed, arms + 1));
    }
    let (first, by_hand) = resumed(Stage::Armed, Trial::Armed, false, ARMS_MAX);
    assert_eq!(first, First::Asks(Asked::Install(InstallOp::Revert)));
    let deployment = by_hand.saved.unwrap().deployment.unwrap();
    assert_eq!(deployment.stage, Stage::Reverting(FailureCode::NotBooted));
}

#[test]
fn a_trial_that_the_boot_loader_gave_up_is_reverted() {
    let ends = || First::Ends(Outcome::Reverted, Some(FailureCode::NotBooted));
    for stage in [Stage::Installed, Stage::Armed] {
        assert_eq!(first(stage, Trial::Failed, false, 1), ends());
    }
}

#[test]
fn an_installed_image_whose_trial_was_lost_is_armed_again_three_times_at_most() {
    for (stage, trial) in
        [(Stage::Installed, Trial::None), (Stage::Armed, Trial::None), (Stage::Installed, Trial::Armed)]
    {
        for arms in 0..ARMS_MAX {
            assert_eq!(first(stage, trial, false, arms), First::Asks(Asked::Install(InstallOp::Activate)));
        }
        let ends = First::Ends(Outcome::Reverted, Some(FailureCode::NotBooted));
        assert_eq!(first(stage, trial, false, ARMS_MAX), ends);
    }
}

/// A download is forgotten where its deployment ends before it was installed, and only there.
#[test]
fn the_download_is_forgotten_where_what_was_being_fetched_fails() {
    for (stage, trial, runs_new) in [
        (Stage::Armed, Trial::Failed, false),
        (Stage::Installed, Trial::None, true),
        (Stage::Reverting(FailureCode::Unhealthy), Trial::None, false),
    ] {
        assert_eq!(resumed(stage, trial, runs_new, 1).1.closed, 0, "{stage:?}");
    }
    let mut by_hand = ByHand::in_step(1);
    let release = by_hand.fixture.release(image(2_000, 3), 3, 10);
    let expired = OrderOptions { life_s: 1, ..OrderOptions::default() };
    let campaign = by_hand.fixture.campaign(&release, expired);
    by_hand.message(Channel::Answers, &campaign);
    assert_eq!(by_hand.session.state(), State::Failed);
    assert_eq!(by_hand.closed, 1);
}

/// What the host answers to the operation that is under way.
fn answer(by_hand: &mut ByHand, op: Asked, result: Result<(), InstallFailure>) -> Vec<Asked> {
    let (number, asked) = by_hand.installing.unwrap();
    assert_eq!(asked, op);
    for other in (0..20).map(OpId).filter(|other| *other != number) {
        assert_eq!(by_hand.feed(Input::Installed { op: other, result }), [], "{op:?} was waited for");
    }
    let outputs = by_hand.feed(Input::Installed { op: number, result });
    installs(&outputs)
}

#[test]
fn a_revert_ends_in_a_restart_also_where_the_boot_control_fails() {
    for result in [Ok(()), Err(InstallFailure::Boot)] {
        let (_, mut by_hand) = resumed(Stage::Reverting(FailureCode::Unhealthy), Trial::Running, true, 1);
        assert_eq!(
            answer(&mut by_hand, Asked::Install(InstallOp::Revert), result),
            [Asked::Host(HostOp::Reboot)]
        );
    }
}

#[test]
fn a_restart_that_does_not_come_off_is_tried_again_after_a_minute() {
    let (first, mut by_hand) = resumed(Stage::Armed, Trial::Armed, false, 0);
    assert_eq!(first, First::Asks(Asked::Host(HostOp::Reboot)));
    assert_eq!(answer(&mut by_hand, Asked::Host(HostOp::Reboot), Err(InstallFailure::Boot)), []);
    assert_eq!(by_hand.session.state(), State::Deferred);
    let (waited, outputs) = by_hand.wake().unwrap();
    assert_eq!((waited, installs(&outputs)), (60_000, vec![Asked::Host(HostOp::Reboot)]));
    // Where the host says that it is on its way, nothing more is done.
    assert_eq!(answer(&mut by_hand, Asked::Host(HostOp::Reboot), Ok(())), []);
    assert_eq!((by_hand.session.state(), by_hand.session.poll_timeout()), (State::Rebooting, None));
}

#[test]
fn a_trial_that_cannot_be_armed_fails_by_name() {
    for (failure, code) in
        [(InstallFailure::Mismatch, FailureCode::Storage), (InstallFailure::Boot, FailureCode::BootControl)]
    {
        let (_, mut by_hand) = resumed(Stage::Installed, Trial::None, false, 0);
        assert_eq!(answer(&mut by_hand, Asked::Install(InstallOp::Activate), Err(failure)), []);
        let past = by_hand.session.record().outcomes.last().copied().unwrap();
        assert_eq!((past.outcome, past.failure), (Outcome::Failed, Some(code)));
    }
}

/// A device whose new image runs on trial; hello answers get through while the flag says so.
fn on_trial(answered: bool) -> (Pair, Rc<Cell<bool>>) {
    let mut pair = Pair::with_release(PairOptions::default(), image(20_000, 1), 12);
    let through = Rc::new(Cell::new(true));
    let flag = through.clone();
    pair.tap = Some(Box::new(move |_, packet| {
        let answer = Sign1::decode(&packet.payload).is_ok_and(|it| it.claimed_kind() == Some(Kind::Answer));
        if answer && !flag.get() { Vec::new() } else { vec![packet] }
    }));
    assert_eq!(pair.run(10 * MINUTE, |pair| pair.device.state() == State::Testing), Verdict::Done);
    through.set(answered);
    (pair, through)
}

#[test]
fn a_new_image_is_not_confirmed_before_the_service_has_answered_it() {
    let (mut pair, through) = on_trial(false);
    let before = pair.wakes;
    pair.run(23 * 60 * MINUTE, |_| false);
    assert_eq!((pair.device.state(), ended(&pair)), (State::Testing, vec![]));
    // It says hello every ten minutes or more, and nothing else wakes it.
    assert!(pair.wakes - before < 23 * 6 + 20, "woken {} times", pair.wakes - before);
    through.set(true);
    assert_eq!(pair.run_until(State::Confirmed, 20 * MINUTE), Verdict::Done);
}

#[test]
fn a_new_image_that_the_service_never_answers_is_reverted_after_a_day_of_connection() {
    let (mut pair, through) = on_trial(false);
    let start = pair.now;
    // Connections that break don't start the day again.
    for _ in 0..11 {
        pair.run(2 * 60 * MINUTE, |_| false);
        assert_eq!(pair.device.state(), State::Testing);
        pair.cut();
    }
    assert_eq!(pair.run(3 * 60 * MINUTE, |pair| !ended(pair).is_empty()), Verdict::Done);
    let minutes = pair.now.millis_since(start) / MINUTE;
    assert!((24 * 60..24 * 60 + 5).contains(&minutes), "{minutes}");
    assert_eq!(ended(&pair), [(Outcome::Reverted, Some(FailureCode::Unreached))]);
    assert_eq!(pair.medium.running_image(), [0; 100]);
    through.set(true);
    assert_eq!(pair.run_until(State::Reverted, 20 * MINUTE), Verdict::Done);
}

#[test]
fn a_health_check_may_ask_for_more_time_for_ten_minutes() {
    let testing = |pair: &Pair| pair.device.state() == State::Testing;
    let start = || {
        let mut pair = Pair::with_release(PairOptions::default(), image(20_000, 1), 12);
        pair.medium.health = Some(InstallFailure::Retry);
        assert_eq!(pair.run(10 * MINUTE, testing), Verdict::Done);
        pair
    };
    let mut pair = start();
    let since = pair.now;
    assert_eq!(pair.run(30 * MINUTE, |pair| !ended(pair).is_empty()), Verdict::Done);
    assert_eq!(pair.now.millis_since(since), 600_000);
    assert_eq!(ended(&pair), [(Outcome::Reverted, Some(FailureCode::Unhealthy))]);
    let mut pair = start();
    pair.run(9 * MINUTE, |_| false);
    assert!(testing(&pair));
    pair.medium.health = None;
    assert_eq!(pair.run_until(State::Confirmed, 2 * MINUTE), Verdict::Done);
}

#[test]
fn a_reach_limit_that_is_over_wakes_nobody_while_the_record_cannot_be_saved() {
    let (_, mut by_hand) = resumed(Stage::Armed, Trial::Running, true, 1);
    by_hand.feed(Input::Connected);
    let (op, _) = by_hand.installing.expect("the health check");
    by_hand.feed(Input::Installed { op, result: Ok(()) });
    let assignment = by_hand.fixture.assignment(2, &[by_hand.fixture.group.clone()], None);
    by_hand.held = Some(std::collections::VecDeque::new());
    by_hand.message(Channel::Assignment, &assignment);
    assert_eq!(by_hand.held.as_ref().map(|held| held.len()), Some(1), "the record is on its way");
    by_hand.now = by_hand.now.plus_millis(25 * 3_600_000);
    by_hand.feed(Input::Timeout);
    assert!(!installs(&by_hand.outputs).contains(&Asked::Install(InstallOp::Revert)));
    let next = by_hand.session.poll_timeout().expect("the next hello");
    assert!(next.millis_since(by_hand.now) > 1_000, "{next:?}");
    // It is judged as soon as the record is durable.
    by_hand.let_go();
    assert!(installs(&by_hand.outputs).contains(&Asked::Install(InstallOp::Revert)));
}

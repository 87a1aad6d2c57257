//! What devices say unsigned, at the edges.

use super::*;

fn ask(campaign: &mut Campaign, name: &str, ask: Ask) -> Vec<Output> {
    feed(campaign, Input::Asked { device: &device(name), ask })
}

fn chunks(before: u32, of: u32) -> Ask {
    Ask::Chunks { payload: FULL, before, of }
}

fn fetched(campaign: &Campaign, name: &str) -> u8 {
    campaign.progress(&device(name)).unwrap().fetched_percent
}

#[test]
fn a_device_that_says_it_does_nothing_has_not_begun() {
    let mut campaign = campaign();
    let outputs = tell(&mut campaign, "m1", State::Idle);
    assert!(
        matches!(outputs[..], [Output::Event(Event::Ignored { why: Ignored::Stale, .. })]),
        "{outputs:?}"
    );
    assert_eq!(state_of(&campaign, "m1"), None);
}

#[test]
fn a_status_about_another_attempt_changes_nothing() {
    let mut campaign = campaign();
    order(&mut campaign, Command::Retry, 2);
    for attempt in [0, 1, 3, u64::MAX] {
        let m1 = device("m1");
        let status = status(attempt, State::Downloading);
        let outputs = feed(&mut campaign, Input::Told { device: &m1, status: &status });
        let ignored = Event::Ignored { device: m1, why: Ignored::UnknownAttempt };
        assert_eq!(outputs, [Output::Event(ignored)]);
        assert_eq!(state_of(&campaign, "m1"), None);
    }
    tell(&mut campaign, "m1", State::Downloading);
    assert_eq!(state_of(&campaign, "m1"), Some(State::Downloading));
}

#[test]
fn a_device_that_has_confirmed_is_not_taken_back_by_what_it_says_in_a_later_attempt() {
    let mut campaign = campaign();
    hear(&mut campaign, "good", &report(0, 1, Outcome::Confirmed));
    order(&mut campaign, Command::Retry, 2);
    let outputs = tell(&mut campaign, "good", State::Downloading);
    assert!(
        matches!(outputs[..], [Output::Event(Event::Ignored { why: Ignored::Stale, .. })]),
        "{outputs:?}"
    );
    assert_eq!(state_of(&campaign, "good"), Some(State::Confirmed));
}

#[test]
fn what_was_fetched_is_known_until_more_is_or_another_attempt_begins() {
    let mut campaign = campaign();
    ask(&mut campaign, "m1", chunks(8, 16));
    assert_eq!(fetched(&campaign, "m1"), 50);
    ask(&mut campaign, "m1", Ask::Manifest);
    assert_eq!(fetched(&campaign, "m1"), 50, "the manifest says nothing about it");
    ask(&mut campaign, "m1", chunks(20, 16));
    assert_eq!(fetched(&campaign, "m1"), 100, "never more than all");
    ask(&mut campaign, "m1", chunks(1, 0));
    assert_eq!(fetched(&campaign, "m1"), 100, "a part of nothing");
    order(&mut campaign, Command::Retry, 2);
    ask(&mut campaign, "m1", Ask::Manifest);
    assert_eq!(fetched(&campaign, "m1"), 0);
    ask(&mut campaign, "new", Ask::Manifest);
    assert_eq!(fetched(&campaign, "new"), 0);
}

#[test]
fn bytes_that_a_device_has_told_of_outlive_its_next_request() {
    let mut campaign = campaign();
    tell(&mut campaign, "m1", State::Downloading);
    ask(&mut campaign, "m1", chunks(1, 16));
    let known = campaign.progress(&device("m1")).unwrap().deployment;
    assert_eq!((known.bytes_received, known.bytes_twice, known.attempt, known.report), (3000, 0, 1, 0));
    assert_eq!((known.state, known.updated), (State::Downloading, TODAY));
}

#[test]
fn why_a_device_waits_or_fails_is_told_with_its_state_and_worth_storing() {
    let mut campaign = campaign();
    let m1 = device("m1");
    let reason = |campaign: &Campaign| campaign.progress(&device("m1")).unwrap().deployment.reason;
    tell(&mut campaign, "m1", State::Deferred);
    assert_eq!(reason(&campaign), Why::Waits(DeferReason::Busy));
    let waits = Status { deferred: Some(DeferReason::Battery), ..status(1, State::Deferred) };
    let saved = feed(&mut campaign, Input::Told { device: &m1, status: &waits });
    let [Output::Save { row, .. }] = &saved[..] else { panic!("{saved:?}") };
    assert_eq!((row.campaign, &row.device), (CampaignId([1; 8]), &m1));
    assert_eq!(row.deployment.reason, Why::Waits(DeferReason::Battery));
    let fails = Status { failure: Some(FailureCode::NoRoom), ..status(1, State::Downloading) };
    feed(&mut campaign, Input::Told { device: &m1, status: &fails });
    assert_eq!(reason(&campaign), Why::Failed(FailureCode::NoRoom));
}

#[test]
fn a_campaign_that_was_replaced_listens_to_nobody() {
    let mut campaign = campaign();
    hear(&mut campaign, "m1", &report(0, 1, Outcome::Confirmed));
    tell(&mut campaign, "m2", State::Downloading);
    assert_eq!(feed(&mut campaign, Input::Replaced), []);
    assert_eq!(campaign.phase(), Phase::Replaced);
    assert_eq!(tell(&mut campaign, "m2", State::Testing), []);
    assert_eq!(ask(&mut campaign, "m3", Ask::Manifest), []);
    assert_eq!(hear(&mut campaign, "m4", &report(0, 1, Outcome::Failed)), []);
    assert_eq!(campaign.deployments().count(), 0);
    for command in [Command::Abort, Command::Retry] {
        assert_eq!(campaign.next_document(command, 2, TODAY), Err(CommandError::Replaced));
    }
}

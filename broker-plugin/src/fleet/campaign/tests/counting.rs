//! Sums over the devices of a campaign.

use super::*;

fn row(state: State, reason: Why, devices: u64) -> crate::store::TallyRow {
    crate::store::TallyRow {
        campaign: CampaignId([1; 8]),
        state,
        reason,
        devices,
        bytes_received: 1000 * devices,
        bytes_twice: 10 * devices,
        payload: Some(FULL),
    }
}

#[test]
fn a_replaced_campaign_is_counted_from_its_rows() {
    let unhealthy = Why::Failed(FailureCode::Unhealthy);
    let rows = [
        row(State::Confirmed, Why::Unsaid, 5),
        row(State::Failed, unhealthy, 2),
        row(State::Reverted, unhealthy, 1),
        row(State::Cancelled, Why::Unsaid, 1),
        row(State::Testing, Why::Unsaid, 1),
        row(State::Downloading, Why::Unsaid, 2),
    ];
    let tally = Tally::of_rows(rows.iter());
    assert_eq!((tally.total, tally.waiting), (12, 0));
    let count = |state| tally.in_state(state);
    assert_eq!((count(State::Confirmed), count(State::Failed), count(State::Reverted)), (5, 2, 1));
    assert_eq!((count(State::Testing), count(State::Downloading), count(State::Offered)), (1, 2, 0));
    assert_eq!((tally.bytes_received, tally.bytes_twice), (12_000, 120));
    assert_eq!(tally.failures, BTreeMap::from([("unhealthy", 3), ("unsaid", 1)]));
    let share = Share { devices: 12, bytes_received: 12_000 };
    assert_eq!(tally.by_payload, BTreeMap::from([(Some(FULL), share)]));
    assert_eq!(u64::from(tally.percent()), (5 * 100 + 99) / 12);
    assert_eq!(Tally::of_rows(core::iter::empty()).percent(), 0, "of nobody");
}

#[test]
fn nobody_has_done_all_before_the_end() {
    let mut campaign = campaign();
    let done = |campaign: &Campaign| {
        let progress = campaign.progress(&device("m1")).unwrap();
        percent_of(&progress.deployment, progress.fetched_percent)
    };
    let ask = Ask::Chunks { payload: FULL, before: 16, of: 16 };
    feed(&mut campaign, Input::Asked { device: &device("m1"), ask });
    assert_eq!(done(&campaign), 98);
    for state in [State::Downloaded, State::Installing, State::Rebooting, State::Testing] {
        tell(&mut campaign, "m1", state);
        assert_eq!(done(&campaign), 99, "{state:?}");
    }
    hear(&mut campaign, "m1", &report(0, 1, Outcome::Confirmed));
    assert_eq!(done(&campaign), 100);
}

/// Neither of a device nor of the campaign: whoever looks at the number alone must not take a failure for the end.
#[test]
fn progress_never_says_100_percent_of_what_was_aborted_or_failed() {
    for outcome in [Outcome::Reverted, Outcome::Failed, Outcome::Cancelled] {
        let mut campaign = campaign();
        let ask = Ask::Chunks { payload: FULL, before: 16, of: 16 };
        feed(&mut campaign, Input::Asked { device: &device("m1"), ask });
        if outcome == Outcome::Cancelled {
            order(&mut campaign, Command::Abort, 2);
        }
        hear(&mut campaign, "m1", &report(0, 1, outcome));
        let progress = *campaign.progress(&device("m1")).unwrap();
        assert_eq!(percent_of(&progress.deployment, progress.fetched_percent), 0, "{outcome:?}");
        let members = [device("m1")];
        assert_eq!(Tally::of(&campaign, members.iter()).percent(), 0, "{outcome:?}");
        // Among a thousand that have confirmed it is one too many for 100.
        let rows = [
            row(State::Confirmed, Why::Unsaid, 999),
            row(progress.deployment.state, progress.deployment.reason, 1),
        ];
        assert_eq!(Tally::of_rows(rows.iter()).percent(), 99, "{outcome:?}");
    }
    assert_eq!(Tally::of_rows([row(State::Confirmed, Why::Unsaid, 1000)].iter()).percent(), 100);
}

#[test]
fn devices_of_an_earlier_attempt_wait_again_and_the_confirmed_do_not() {
    let mut campaign = campaign();
    hear(&mut campaign, "m1", &report(0, 1, Outcome::Confirmed));
    hear(&mut campaign, "m2", &report(0, 1, Outcome::Failed));
    hear(&mut campaign, "left", &report(0, 1, Outcome::Failed));
    order(&mut campaign, Command::Retry, 2);
    let members = [device("m1"), device("m2"), device("m3")];
    let tally = Tally::of(&campaign, members.iter());
    assert_eq!((tally.total, tally.waiting), (3, 2));
    assert_eq!((tally.in_state(State::Confirmed), tally.in_state(State::Failed)), (1, 0));
    assert_eq!((tally.failures.len(), tally.percent()), (0, 33));
}

#[test]
fn a_report_says_what_it_says_of_its_own_attempt() {
    let mut campaign = campaign();
    order(&mut campaign, Command::Retry, 2);
    for (outcome, state) in [
        (Outcome::Confirmed, State::Confirmed),
        (Outcome::Reverted, State::Reverted),
        (Outcome::Failed, State::Failed),
        (Outcome::Cancelled, State::Cancelled),
    ] {
        let says = campaign.read(&report(6, 2, outcome), TODAY).unwrap();
        assert_eq!((says.state, says.attempt, says.report), (state, 2, 7));
        assert_eq!((says.bytes_received, says.bytes_twice, says.updated), (5000, 900, TODAY));
        let reason =
            if outcome == Outcome::Confirmed { Why::Unsaid } else { Why::Failed(FailureCode::Unhealthy) };
        assert_eq!(says.reason, reason);
    }
    assert_eq!(campaign.read(&report(6, 1, Outcome::Failed), TODAY).unwrap().attempt, 1, "a late one");
    assert!(campaign.read(&report(6, 3, Outcome::Failed), TODAY).is_none());
    // Attempts of other devices are nobody's business.
    let feed_chunks = Ask::Chunks { payload: PATCH, before: 1, of: 2 };
    feed(&mut campaign, Input::Asked { device: &device("m1"), ask: feed_chunks });
    let came_by = |attempt| campaign.read(&report(6, attempt, Outcome::Failed), TODAY).unwrap().came_by;
    assert_eq!(came_by(2), CameBy { payload: Some(PATCH), given_up: None });
    assert_eq!(came_by(1), CameBy::default());
}

#[test]
fn what_is_stored_of_a_campaign_says_when_it_was_made_and_for_how_long() {
    let document = plan(&new_campaign(), 1, 1).unwrap();
    let (created, terms) = (UnixTime::from_secs(5), Terms::lasting(77));
    let row = CampaignRow { created, terms, ..enter(document.clone()).row(Phase::Active, Bytes::new()) };
    let mut campaign = Campaign::new(document, &row);
    assert_eq!((campaign.created(), campaign.id()), (created, CampaignId([1; 8])));
    let aborted = campaign.row(Phase::Aborted, Bytes::from_static(b"newer"));
    assert_eq!(aborted, CampaignRow { phase: Phase::Aborted, document: Bytes::from_static(b"newer"), ..row });
    let document = order(&mut campaign, Command::Abort, 2);
    assert_eq!(document.validity.expires, TODAY.plus_secs(77));
    assert_eq!(campaign.signed(), &Bytes::from_static(b"newer"));
}

#[test]
fn a_tally_counts_every_device_once() {
    let mut campaign = campaign();
    hear(&mut campaign, "m1", &report(0, 1, Outcome::Confirmed));
    hear(&mut campaign, "m2", &report(0, 1, Outcome::Failed));
    tell(&mut campaign, "m3", State::Downloading);
    tell(&mut campaign, "m4", State::Testing);
    hear(&mut campaign, "left", &report(0, 1, Outcome::Confirmed));
    let members: Vec<DeviceId> = (1..=6).map(|number| device(&format!("m{number}"))).collect();
    let tally = Tally::of(&campaign, members.iter());
    assert_eq!((tally.total, tally.waiting), (7, 2));
    let count = |state| tally.in_state(state);
    assert_eq!((count(State::Confirmed), count(State::Failed)), (2, 1));
    assert_eq!((count(State::Downloading), count(State::Testing)), (1, 1));
    assert_eq!((tally.bytes_received, tally.bytes_twice), (3 * 5000 + 2 * 3000, 3 * 900));
    assert_eq!(tally.failures.get("unhealthy"), Some(&1));
    assert_eq!(u64::from(tally.percent()), (2 * 100 + 75 + 99) / 7);
}

#[test]
fn bytes_that_no_device_can_have_received_do_not_overflow_the_sums() {
    let mut campaign = campaign();
    let huge = Report { bytes_received: u64::MAX, bytes_twice: u64::MAX, ..report(0, 1, Outcome::Confirmed) };
    hear(&mut campaign, "m1", &huge);
    hear(&mut campaign, "m2", &huge);
    assert_eq!(Tally::of(&campaign, core::iter::empty()).bytes_received, 2 << 40);
}

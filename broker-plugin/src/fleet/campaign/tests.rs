use alloc::collections::BTreeMap;

use whimbrel_protocol::ids::{ClassId, Digest, GroupName, Prefix, ShortDigest};
use whimbrel_protocol::message::{DeferReason, FailureCode, Policy};

use super::*;
use crate::fleet::catalog::Release;

pub(crate) const TODAY: UnixTime = UnixTime::from_secs(1_800_000_000);
/// A patch and a full payload.
const PATCH: ShortDigest = ShortDigest([8; 8]);
const FULL: ShortDigest = ShortDigest([9; 8]);

fn release() -> Release {
    Release {
        digest: Digest([1; 32]),
        envelope: Bytes::from_static(b"envelope"),
        sequence: 9,
        version: "1.0.9".to_owned(),
        vendor: whimbrel_protocol::ids::VendorId([2; 16]),
        class: ClassId([3; 16]),
        image_size: 4096,
        images: Vec::new(),
        payloads: Vec::new(),
        added: TODAY,
    }
}

pub(crate) fn new_campaign() -> NewCampaign {
    NewCampaign {
        group: GroupName::new("all").unwrap(),
        not_before: None,
        spread_s: 0,
        terms: Terms::lasting(LIFE_DEFAULT_S),
        policy: Policy::Soft,
        priority: 0,
        min_sequence: 0,
    }
}

fn plan(new: &NewCampaign, version: u64, id: u8) -> Result<message::Campaign, PlanError> {
    let identity = Identity { prefix: Prefix::default(), id: CampaignId([id; 8]), version };
    new.document(&release(), identity, TODAY)
}

pub(crate) fn enter(document: message::Campaign) -> Campaign {
    let row = CampaignRow {
        id: document.order.campaign,
        phase: Phase::Active,
        created: TODAY,
        terms: Terms::lasting(LIFE_DEFAULT_S),
        document: Bytes::from_static(b"signed"),
    };
    Campaign::new(document, &row)
}

fn campaign() -> Campaign {
    enter(plan(&new_campaign(), 1, 1).unwrap())
}

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn report(number: u64, attempt: u64, outcome: Outcome) -> Report {
    Report {
        device: device("m1"),
        number,
        campaign: CampaignId([1; 8]),
        attempt,
        release: Digest([1; 32]),
        outcome,
        failure: (outcome != Outcome::Confirmed).then_some(FailureCode::Unhealthy),
        running: ShortDigest([0; 8]),
        sequence: 9,
        time: TODAY,
        bytes_received: 5000,
        bytes_twice: 900,
        said: String::new(),
    }
}

fn status(attempt: u64, state: State) -> Status {
    Status {
        campaign: CampaignId([1; 8]),
        attempt,
        state,
        deferred: (state == State::Deferred).then_some(DeferReason::Busy),
        failure: None,
        chunks_held: 3,
        chunks: 4,
        bytes_received: 3000,
        bytes_twice: 0,
    }
}

fn feed(campaign: &mut Campaign, input: Input<'_>) -> Vec<Output> {
    campaign.handle_input(TODAY, input);
    core::iter::from_fn(|| campaign.poll_output()).collect()
}

fn hear(campaign: &mut Campaign, name: &str, report: &Report) -> Vec<Output> {
    feed(campaign, Input::Reported { device: &device(name), report })
}

fn tell(campaign: &mut Campaign, name: &str, state: State) -> Vec<Output> {
    let attempt = campaign.document().order.attempt;
    feed(campaign, Input::Told { device: &device(name), status: &status(attempt, state) })
}

fn state_of(campaign: &Campaign, name: &str) -> Option<State> {
    campaign.progress(&device(name)).map(|progress| progress.deployment.state)
}

/// Carries an operator's command through: the document that it leads to comes into force.
fn order(campaign: &mut Campaign, command: Command, version: u64) -> message::Campaign {
    let document = campaign.next_document(command, version, TODAY).unwrap();
    let signed = Bytes::from_static(b"newer");
    let outputs =
        feed(campaign, Input::InForce { document: Box::new(document.clone()), signed: signed.clone() });
    assert_eq!((outputs, campaign.signed()), (Vec::new(), &signed));
    document
}

#[test]
fn a_new_campaign_becomes_a_document_with_all_that_a_device_must_know() {
    let not_before = TODAY.plus_secs(60);
    let new = NewCampaign {
        not_before: Some(not_before),
        spread_s: 600,
        min_sequence: 5,
        priority: 3,
        ..new_campaign()
    };
    let document = plan(&new, 7, 1).unwrap();
    assert_eq!((document.validity.version, document.validity.issued), (7, TODAY));
    assert_eq!(document.validity.expires, TODAY.plus_secs(LIFE_DEFAULT_S));
    let order = &document.order;
    assert_eq!((order.attempt, order.state, order.release), (1, CampaignState::Active, Digest([1; 32])));
    assert_eq!((order.sequence, order.min_sequence, order.image_size), (9, 5, 4096));
    assert_eq!((order.not_before, order.spread_s, order.priority), (not_before, 600, 3));
    assert_eq!((order.envelope_size, order.class), (8, ClassId([3; 16])));
}

#[test]
fn campaigns_that_no_device_could_follow_are_refused_with_the_range() {
    for (bad, what) in [
        (NewCampaign { spread_s: SPREAD_MAX_S + 1, ..new_campaign() }, "spread_s"),
        (NewCampaign { terms: Terms::lasting(LIFE_MIN_S - 1), ..new_campaign() }, "expires_in_s"),
        (NewCampaign { terms: Terms::lasting(LIFE_MAX_S + 1), ..new_campaign() }, "expires_in_s"),
        (NewCampaign { priority: PRIORITY_MAX + 1, ..new_campaign() }, "priority"),
        // It would withdraw itself.
        (NewCampaign { min_sequence: 10, ..new_campaign() }, "min_sequence"),
    ] {
        assert!(matches!(plan(&bad, 1, 1), Err(PlanError::Range { what: got, .. }) if got == what), "{what}");
    }
    let over = NewCampaign { terms: Terms::lasting(3600), spread_s: 3600, ..new_campaign() };
    assert_eq!(plan(&over, 1, 1), Err(PlanError::Short { life_s: 3600, start_s: 3600 }));
    let late = NewCampaign {
        not_before: Some(TODAY.plus_secs(4000)),
        terms: Terms::lasting(3600),
        ..new_campaign()
    };
    assert_eq!(plan(&late, 1, 1), Err(PlanError::Short { life_s: 3600, start_s: 4000 }));
}

#[test]
fn campaigns_at_the_edge_of_a_range_are_made() {
    const DAY_S: u64 = 86_400;
    assert_eq!((SPREAD_MAX_S, LIFE_MAX_S, LIFE_DEFAULT_S), (30 * DAY_S, 3650 * DAY_S, 30 * DAY_S));
    for good in [
        NewCampaign { spread_s: SPREAD_MAX_S, terms: Terms::lasting(SPREAD_MAX_S + 1), ..new_campaign() },
        NewCampaign { terms: Terms::lasting(LIFE_MIN_S), ..new_campaign() },
        NewCampaign { terms: Terms::lasting(LIFE_MAX_S), ..new_campaign() },
        NewCampaign { priority: PRIORITY_MAX, ..new_campaign() },
        NewCampaign { min_sequence: 9, ..new_campaign() },
        NewCampaign { not_before: Some(UnixTime::default()), ..new_campaign() },
    ] {
        assert!(plan(&good, 1, 1).is_ok(), "{good:?}");
    }
    let centuries = NewCampaign { not_before: Some(TODAY.plus_secs(LIFE_MAX_S + 1)), ..new_campaign() };
    assert!(matches!(plan(&centuries, 1, 1), Err(PlanError::Range { what: "not_before", .. })));
}

#[test]
fn a_report_is_counted_once_and_an_older_one_not_any_more() {
    let mut campaign = campaign();
    let said = "the pump does not answer".to_owned();
    let reverted = Report { said: said.clone(), ..report(4, 1, Outcome::Reverted) };
    let outputs = hear(&mut campaign, "m1", &reverted);
    let told = Event::Counted {
        device: device("m1"),
        outcome: Outcome::Reverted,
        failure: Some(FailureCode::Unhealthy),
        said,
    };
    assert_eq!(outputs, [Output::Event(told)], "with what the health check said");
    let again = hear(&mut campaign, "m1", &reverted);
    assert!(matches!(again[..], [Output::Event(Event::Ignored { why: Ignored::Stale, .. })]), "{again:?}");
    hear(&mut campaign, "m1", &report(3, 1, Outcome::Failed));
    assert_eq!(state_of(&campaign, "m1"), Some(State::Reverted), "an older report of the same attempt");
    hear(&mut campaign, "m1", &report(5, 1, Outcome::Confirmed));
    assert_eq!(state_of(&campaign, "m1"), Some(State::Confirmed));
}

#[test]
fn a_report_about_an_attempt_that_was_never_ordered_is_not_counted() {
    let mut campaign = campaign();
    for attempt in [0, 2, u64::MAX] {
        let outputs = hear(&mut campaign, "m1", &report(1, attempt, Outcome::Confirmed));
        assert!(matches!(outputs[..], [Output::Event(Event::Ignored { why: Ignored::UnknownAttempt, .. })]));
    }
    assert_eq!(state_of(&campaign, "m1"), None);
}

#[test]
fn what_a_device_says_unsigned_moves_it_forward_and_never_out_of_an_outcome() {
    let mut campaign = campaign();
    let m1 = device("m1");
    feed(&mut campaign, Input::Asked { device: &m1, ask: Ask::Manifest });
    assert_eq!(state_of(&campaign, "m1"), Some(State::Offered));
    feed(&mut campaign, Input::Asked { device: &m1, ask: Ask::Chunks { payload: FULL, before: 8, of: 16 } });
    assert_eq!(state_of(&campaign, "m1"), Some(State::Downloading));
    assert_eq!(campaign.progress(&m1).unwrap().fetched_percent, 50);
    tell(&mut campaign, "m1", State::Testing);
    assert_eq!(state_of(&campaign, "m1"), Some(State::Testing));
    feed(&mut campaign, Input::Asked { device: &m1, ask: Ask::Chunks { payload: FULL, before: 1, of: 16 } });
    assert_eq!(state_of(&campaign, "m1"), Some(State::Testing), "a late request");
    hear(&mut campaign, "m1", &report(0, 1, Outcome::Failed));
    for state in [State::Downloading, State::Testing, State::Confirmed, State::Idle] {
        tell(&mut campaign, "m1", state);
        assert_eq!(state_of(&campaign, "m1"), Some(State::Failed), "{state:?}");
    }
}

#[test]
fn an_outcome_is_never_taken_from_an_unsigned_word() {
    let mut campaign = campaign();
    for state in [State::Confirmed, State::Failed, State::Reverted, State::Cancelled] {
        tell(&mut campaign, "m1", state);
        assert_eq!(state_of(&campaign, "m1"), None, "{state:?}");
    }
}

#[test]
fn a_device_that_turns_to_another_payload_has_given_the_first_one_up() {
    let mut campaign = campaign();
    let m1 = device("m1");
    let ask = |campaign: &mut Campaign, payload| {
        feed(campaign, Input::Asked { device: &m1, ask: Ask::Chunks { payload, before: 1, of: 2 } })
    };
    let came_by = |campaign: &Campaign| campaign.progress(&device("m1")).unwrap().deployment.came_by;
    ask(&mut campaign, PATCH);
    assert_eq!(came_by(&campaign), CameBy { payload: Some(PATCH), given_up: None });
    // It applies the patch; that fails, and the full payload is asked for.
    tell(&mut campaign, "m1", State::Installing);
    ask(&mut campaign, PATCH);
    assert_eq!(state_of(&campaign, "m1"), Some(State::Installing), "a late request");
    let saved = ask(&mut campaign, FULL);
    assert!(matches!(saved[..], [Output::Save { at_once: true, .. }]), "{saved:?}");
    assert_eq!(state_of(&campaign, "m1"), Some(State::Downloading));
    let both = CameBy { payload: Some(FULL), given_up: Some(PATCH) };
    assert_eq!(came_by(&campaign), both);
    tell(&mut campaign, "m1", State::Testing);
    hear(&mut campaign, "m1", &report(0, 1, Outcome::Failed));
    assert_eq!(came_by(&campaign), both, "a report does not say by which payload the image came");
    ask(&mut campaign, PATCH);
    assert_eq!(came_by(&campaign), both, "nothing counts after a report");
    let tally = Tally::of(&campaign, [&m1].into_iter());
    assert_eq!(tally.by_payload, BTreeMap::from([(Some(FULL), Share { devices: 1, bytes_received: 5000 })]));
    order(&mut campaign, Command::Retry, 2);
    ask(&mut campaign, FULL);
    assert_eq!(came_by(&campaign), CameBy { payload: Some(FULL), given_up: None }, "another attempt");
}

#[test]
fn only_changes_of_state_are_worth_storing() {
    let mut campaign = campaign();
    let saves =
        |outputs: Vec<Output>| outputs.iter().filter(|output| matches!(output, Output::Save { .. })).count();
    let m1 = device("m1");
    let mut ask = |before| {
        feed(&mut campaign, Input::Asked { device: &m1, ask: Ask::Chunks { payload: FULL, before, of: 9 } })
    };
    assert_eq!(saves(ask(1)), 1);
    assert_eq!(saves(ask(2)), 0);
    assert_eq!(saves(ask(9)), 0);
    assert_eq!(saves(tell(&mut campaign, "m1", State::Installing)), 1);
    assert_eq!(saves(tell(&mut campaign, "m1", State::Installing)), 0);
}

#[test]
fn an_abort_is_a_newer_document_and_cannot_be_ordered_twice() {
    let mut campaign = campaign();
    let document = order(&mut campaign, Command::Abort, 2);
    assert_eq!((document.validity.version, document.order.state), (2, CampaignState::Aborted));
    assert_eq!(document.order.attempt, 1);
    assert_eq!(campaign.phase(), Phase::Aborted);
    assert_eq!(campaign.next_document(Command::Abort, 3, TODAY), Err(CommandError::Aborted));
    let document = order(&mut campaign, Command::Retry, 3);
    assert_eq!((document.order.state, document.order.attempt), (CampaignState::Active, 2));
}

#[test]
fn nothing_changes_before_a_document_is_in_force() {
    let campaign = campaign();
    campaign.next_document(Command::Abort, 2, TODAY).unwrap();
    assert_eq!((campaign.phase(), campaign.document().validity.version), (Phase::Active, 1));
}

#[test]
fn a_retry_lets_those_try_again_that_failed_and_leaves_the_confirmed_alone() {
    let mut campaign = campaign();
    hear(&mut campaign, "good", &report(0, 1, Outcome::Confirmed));
    hear(&mut campaign, "bad", &report(0, 1, Outcome::Reverted));
    order(&mut campaign, Command::Retry, 2);
    assert_eq!(state_of(&campaign, "good"), Some(State::Confirmed));
    assert_eq!(state_of(&campaign, "bad"), None);
    feed(&mut campaign, Input::Asked { device: &device("good"), ask: Ask::Manifest });
    assert_eq!(state_of(&campaign, "good"), Some(State::Confirmed));
    feed(&mut campaign, Input::Asked { device: &device("bad"), ask: Ask::Manifest });
    assert_eq!(state_of(&campaign, "bad"), Some(State::Offered));
    hear(&mut campaign, "bad", &report(1, 1, Outcome::Failed));
    assert_eq!(state_of(&campaign, "bad"), Some(State::Offered), "a late report of the first attempt");
    hear(&mut campaign, "bad", &report(2, 2, Outcome::Confirmed));
    assert_eq!(state_of(&campaign, "bad"), Some(State::Confirmed));
}

#[test]
fn documents_of_a_campaign_never_look_older_than_the_ones_before() {
    let yesterday = UnixTime::from_secs(TODAY.as_secs() - 86_400);
    let document = campaign().next_document(Command::Abort, 2, yesterday).unwrap();
    assert_eq!(document.validity.issued, TODAY);
}

mod counting;
mod unsigned;

mod ruling {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    fn add(campaigns: &mut Campaigns, id: u8, name: &str, priority: u64) {
        let new = NewCampaign { group: group(name), priority, ..new_campaign() };
        let version = campaigns.version() + 1;
        campaigns.enter(enter(plan(&new, version, id).unwrap()));
    }

    fn ruling(campaigns: &Campaigns, groups: &[&str]) -> Option<u8> {
        let groups: Vec<GroupName> = groups.iter().map(|name| group(name)).collect();
        campaigns.ruling(&groups, ClassId([3; 16])).map(|campaign| campaign.id().0[0])
    }

    #[test]
    fn among_a_devices_groups_the_higher_priority_rules_then_the_newest() {
        let mut campaigns = Campaigns::default();
        add(&mut campaigns, 1, "all", 0);
        add(&mut campaigns, 2, "north", 0);
        assert_eq!(ruling(&campaigns, &["all", "north"]), Some(2));
        assert_eq!(ruling(&campaigns, &["all"]), Some(1));
        assert_eq!(ruling(&campaigns, &["south"]), None);
        add(&mut campaigns, 3, "south", 5);
        add(&mut campaigns, 4, "east", 0);
        assert_eq!(ruling(&campaigns, &["all", "north", "south", "east"]), Some(3));
        assert_eq!(
            campaigns.ruling(&[group("all")], ClassId([9; 16])).map(Campaign::id),
            None,
            "other class"
        );
    }

    #[test]
    fn a_new_campaign_of_a_group_replaces_the_one_before_and_an_aborted_one_rules_nobody() {
        let mut campaigns = Campaigns::default();
        add(&mut campaigns, 1, "all", 0);
        add(&mut campaigns, 2, "all", 0);
        assert_eq!(ruling(&campaigns, &["all"]), Some(2));
        let newest = campaigns.campaign_mut(&CampaignId([2; 8])).unwrap();
        order(newest, Command::Abort, 3);
        assert_eq!(ruling(&campaigns, &["all"]), None, "the one before does not come back");
    }

    #[test]
    fn a_campaign_that_was_replaced_rules_nobody_in_whatever_order_campaigns_are_read() {
        let mut campaigns = Campaigns::default();
        add(&mut campaigns, 2, "all", 0);
        let mut old = enter(plan(&new_campaign(), 1, 1).unwrap());
        feed(&mut old, Input::Replaced);
        campaigns.enter(old);
        assert_eq!(ruling(&campaigns, &["all"]), Some(2));
        assert_eq!((campaigns.len(), campaigns.groups().len()), (2, 1));
    }

    #[test]
    fn versions_of_documents_rise_for_all_groups_together() {
        let mut campaigns = Campaigns::default();
        assert!(campaigns.is_empty());
        assert_eq!(campaigns.version(), 0);
        add(&mut campaigns, 1, "all", 0);
        add(&mut campaigns, 2, "north", 0);
        assert_eq!((campaigns.version(), campaigns.is_empty()), (2, false));
        campaigns.raise(7);
        assert_eq!(campaigns.version(), 7);
        campaigns.raise(5);
        assert_eq!(campaigns.version(), 7, "it never falls");
        campaigns.enter(enter(plan(&new_campaign(), 4, 3).unwrap()));
        assert_eq!(campaigns.version(), 7);
    }

    #[test]
    fn campaigns_are_listed_in_the_order_in_which_they_were_made() {
        let mut campaigns = Campaigns::default();
        let made = |id, version, created| {
            let document = plan(&new_campaign(), version, id).unwrap();
            let row = enter(document.clone()).row(Phase::Replaced, Bytes::new());
            Campaign::new(document, &CampaignRow { created: UnixTime::from_secs(created), ..row })
        };
        for (id, version, created) in [(1, 9, 30), (2, 2, 10), (3, 8, 20), (4, 1, 20)] {
            campaigns.enter(made(id, version, created));
        }
        let order: Vec<u8> = campaigns.oldest_first().iter().map(|campaign| campaign.id().0[0]).collect();
        assert_eq!(order, [2, 4, 3, 1]);
        assert_eq!(campaigns.find("0303").map(Campaign::id), Ok(CampaignId([3; 8])));
        assert!(campaigns.find("0505").is_err());
    }
}

//! The rules of a store, which hold for every implementation: one suite, run for each of them.

use bytes::Bytes;
use whimbrel_protocol::ids::{CampaignId, ClassId, DeviceId, Digest, GroupName, ShortDigest};
use whimbrel_protocol::message::{DeferReason, FailureCode, State};
use whimbrel_protocol::testing::{Fixture, OrderOptions};
use whimbrel_protocol::time::UnixTime;
use whimbrel_service::store::{
    CameBy, CampaignRow, Change, Deployment, DeploymentRow, Device, Facts, MemoryStore, Phase, ReleaseRow,
    ReportRow, Reported, Series, Snapshot, SqliteStore, Standing, Store, Terms, Versions, Why,
};

use crate::service_support::device_key;

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// Where a database is, to be opened again and again.
trait Place {
    type Store: Store;

    async fn open(&self) -> Self::Store;
}

struct SqlitePlace(tempfile::TempDir);

impl Place for SqlitePlace {
    type Store = SqliteStore;

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.0.path().join("whimbrel.sqlite")).await.unwrap()
    }
}

impl Place for MemoryStore {
    type Store = Self;

    async fn open(&self) -> Self {
        self.clone()
    }
}

/// Makes a test of each rule for each implementation.
macro_rules! rules {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::SqlitePlace(tempfile::tempdir().unwrap())).await;
            })*
        }

        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::MemoryStore::default()).await;
            })*
        }
    };
}

rules! {
    everything_that_was_applied_is_there_when_it_is_opened_again,
    many_devices_are_read_back_completely,
    a_report_counts_once_and_replays_change_nothing,
    memory_and_database_agree_which_of_two_words_about_a_deployment_counts,
    by_which_payload_an_image_came_outlives_the_report_and_not_the_attempt,
    a_report_of_a_campaign_that_is_not_ours_makes_no_row,
    of_each_device_only_the_newest_reports_are_kept,
    what_the_highest_report_said_is_kept_until_the_device_has_another_key,
    an_enrolment_never_undoes_an_acceptance,
    a_pending_device_that_makes_room_leaves_the_version_of_its_assignment,
    facts_about_a_device_that_has_gone_do_not_bring_it_back,
    devices_of_a_replaced_campaign_are_counted_and_listed_in_the_store,
    versions_that_are_stored_never_fall,
    versions_are_handed_out_once_and_above_all_that_are_stored,
    versions_go_on_above_what_an_operator_accepted,
}

/// What a store that is opened anew has.
async fn reopen<P: Place>(store: P::Store, place: &P) -> (P::Store, Snapshot) {
    store.close().await;
    let mut store = place.open().await;
    let snapshot = store.load().await.unwrap();
    (store, snapshot)
}

pub(crate) fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

pub(crate) fn pending(name: &str, order: u64) -> Device {
    Device {
        id: id(name),
        class: ClassId([7; 16]),
        standing: Standing::Pending { key: device_key(1).public(), order, groups: Vec::new() },
        assignment_version: 0,
        facts: Facts::default(),
        reported: Reported::default(),
        rekeyed: None,
    }
}

fn accepted(name: &str, version: u64) -> Device {
    let groups = vec![GroupName::new("all").unwrap(), GroupName::new("north").unwrap()];
    let assignment = Bytes::from_static(b"signed");
    let standing = Standing::Accepted { key: device_key(1).public(), groups, assignment };
    Device { standing, assignment_version: version, ..pending(name, 0) }
}

pub(crate) fn campaign(first: u8, phase: Phase) -> CampaignRow {
    let fixture = Fixture::new();
    let options = OrderOptions { campaign: first, version: u64::from(first), ..OrderOptions::default() };
    let document = fixture.campaign(&fixture.release(vec![1; 2000], 1, 10), options);
    CampaignRow {
        id: CampaignId([first; 8]),
        phase,
        created: NOW,
        terms: Terms::lasting(3600),
        document: Bytes::from(document),
    }
}

pub(crate) fn deployment(report: u64, attempt: u64, state: State) -> DeploymentRow {
    let reason = match state {
        State::Deferred => Why::Waits(DeferReason::Battery),
        State::Failed => Why::Failed(FailureCode::NoRoom),
        _ => Why::Unsaid,
    };
    let deployment = Deployment {
        attempt,
        report,
        state,
        reason,
        bytes_received: 10,
        bytes_twice: 3,
        came_by: CameBy::default(),
        updated: NOW,
    };
    DeploymentRow { campaign: CampaignId([1; 8]), device: id("m1"), deployment }
}

fn report(digest: u8, says: Option<DeploymentRow>) -> Change {
    let signed = Bytes::from(vec![digest; 20]);
    Change::Report(ReportRow {
        device: id("m1"),
        digest: ShortDigest([digest; 8]),
        received: NOW,
        signed,
        reported: Reported::default(),
        says,
    })
}

async fn everything_that_was_applied_is_there_when_it_is_opened_again(place: impl Place) {
    let mut store = place.open().await;
    assert_eq!(store.load().await.unwrap(), Snapshot::default());
    let release =
        ReleaseRow { digest: Digest([1; 32]), envelope: Bytes::from_static(b"envelope"), added: NOW };
    let fixture = Fixture::new();
    let known = fixture.release(vec![5; 5000], 1, 10);
    let payload = whimbrel_service::store::PayloadRow {
        index: known.index.digest,
        image: Digest([2; 32]),
        layout: known.layout,
        added: NOW,
    };
    let facts = Facts { running: ShortDigest([9; 8]), sequence: u64::MAX, seen: NOW };
    let devices =
        [accepted("m1", 7), pending("m2", 4), Device { standing: Standing::Forgotten, ..pending("m3", 0) }];
    let mut changes = vec![
        Change::Release(release.clone()),
        Change::Payload(payload),
        Change::Campaign(campaign(1, Phase::Aborted)),
        Change::Beacon { version: 12, issued: NOW },
        Change::Deployment(deployment(0, 1, State::Deferred)),
    ];
    changes.extend(devices.iter().cloned().map(Change::Device));
    changes.push(Change::Facts(id("m1"), facts));
    let applied = store.apply(&changes).await.unwrap();
    assert_eq!(applied, vec![true; changes.len()]);

    let (_, snapshot) = reopen(store, &place).await;
    // No column holds more than 2^63 - 1: what a device says beyond that is as good as that.
    let kept = Facts { sequence: i64::MAX.cast_unsigned(), ..facts };
    let [mut first, second, third] = devices;
    first.facts = kept;
    assert_eq!(
        snapshot,
        Snapshot {
            releases: vec![release],
            payloads: vec![payload],
            devices: vec![first, second, third],
            campaigns: vec![campaign(1, Phase::Aborted)],
            deployments: vec![deployment(0, 1, State::Deferred)],
            beacon_version: 12,
            beacon_issued: NOW,
            handed_out: Versions { beacon: 12, campaign: 0, assignments: 0 },
            versions_above: 0,
        }
    );
}

async fn many_devices_are_read_back_completely(place: impl Place) {
    let mut store = place.open().await;
    let changes: Vec<Change> =
        (0..9000).map(|number| Change::Device(pending(&format!("m{number}"), number))).collect();
    store.apply(&changes).await.unwrap();
    let (_, snapshot) = reopen(store, &place).await;
    assert_eq!(snapshot.devices.len(), 9000);
}

async fn a_report_counts_once_and_replays_change_nothing(place: impl Place) {
    let mut store = place.open().await;
    store.apply(&[Change::Campaign(campaign(1, Phase::Active))]).await.unwrap();
    let mut apply = async |change: Change| store.apply(&[change]).await.unwrap()[0];
    assert!(apply(report(1, Some(deployment(5, 2, State::Failed)))).await);
    assert!(!apply(report(1, Some(deployment(5, 2, State::Failed)))).await, "the same again");
    // New to the store, and older than what is known.
    assert!(apply(report(2, Some(deployment(4, 2, State::Confirmed)))).await);
    assert!(apply(report(3, Some(deployment(9, 1, State::Confirmed)))).await);
    assert!(!apply(Change::Deployment(deployment(0, 2, State::Downloading))).await, "a hint after a report");
    let (mut store, snapshot) = reopen(store, &place).await;
    assert_eq!(snapshot.deployments, [deployment(5, 2, State::Failed)]);
    let hint = Change::Deployment(deployment(0, 3, State::Downloading));
    assert_eq!(store.apply(&[hint]).await.unwrap(), [true], "a later attempt");
    let newer = report(4, Some(deployment(6, 3, State::Confirmed)));
    assert_eq!(store.apply(&[newer]).await.unwrap(), [true]);
    assert_eq!(store.load().await.unwrap().deployments, [deployment(6, 3, State::Confirmed)]);
}

/// The rule stands in Rust for memory and in SQL for the database: both must say the same.
async fn memory_and_database_agree_which_of_two_words_about_a_deployment_counts(place: impl Place) {
    let mut store = place.open().await;
    store.apply(&[Change::Campaign(campaign(1, Phase::Active))]).await.unwrap();
    let words: Vec<DeploymentRow> = [1, 2]
        .into_iter()
        .flat_map(|attempt| [0, 1, 2].map(|report| (attempt, report)))
        .flat_map(|(attempt, report)| {
            [State::Downloading, State::Confirmed].map(|state| deployment(report, attempt, state))
        })
        .collect();
    let pairs = words.iter().flat_map(|first| words.iter().map(move |second| (first, second)));
    for (number, (first, second)) in pairs.enumerate() {
        let device = id(&format!("m{number}"));
        let say =
            |row: &DeploymentRow| Change::Deployment(DeploymentRow { device: device.clone(), ..row.clone() });
        let changed = store.apply(&[say(first), say(second)]).await.unwrap();
        assert_eq!(changed, [true, second.deployment.is_news_to(&first.deployment)], "{first:?} {second:?}");
    }
}

/// The campaign keeps in memory what it knows of the attempt; a report that is stored meanwhile must not erase it.
async fn by_which_payload_an_image_came_outlives_the_report_and_not_the_attempt(place: impl Place) {
    let mut store = place.open().await;
    let by = |came_by: CameBy, row: DeploymentRow| DeploymentRow {
        deployment: Deployment { came_by, ..row.deployment },
        ..row
    };
    let (patch, full) = (ShortDigest([1; 8]), ShortDigest([2; 8]));
    let both = CameBy::default().then(patch).then(full);
    assert_eq!(both, CameBy { payload: Some(full), given_up: Some(patch) });
    let hint = Change::Deployment(by(both, deployment(0, 1, State::Downloading)));
    let reported = report(1, Some(deployment(1, 1, State::Confirmed)));
    store.apply(&[Change::Campaign(campaign(1, Phase::Active)), hint, reported]).await.unwrap();
    let (mut store, snapshot) = reopen(store, &place).await;
    assert_eq!(snapshot.deployments, [by(both, deployment(1, 1, State::Confirmed))]);
    store.apply(&[Change::Campaign(campaign(1, Phase::Replaced))]).await.unwrap();
    assert_eq!(store.tally_replaced().await.unwrap()[0].payload, Some(full));
    let again = Change::Deployment(deployment(0, 2, State::Offered));
    store.apply(&[Change::Campaign(campaign(1, Phase::Active)), again]).await.unwrap();
    assert_eq!(store.load().await.unwrap().deployments, [deployment(0, 2, State::Offered)]);
}

async fn a_report_of_a_campaign_that_is_not_ours_makes_no_row(place: impl Place) {
    let mut store = place.open().await;
    store.apply(&[report(1, Some(deployment(1, 1, State::Failed))), report(2, None)]).await.unwrap();
    let (mut store, snapshot) = reopen(store, &place).await;
    assert!(snapshot.deployments.is_empty());
    // Only those of known campaigns are loaded: the table itself must be empty too, or anybody could fill it.
    assert_eq!(store.deployments(CampaignId([1; 8]), None, 10).await.unwrap(), []);
    assert_eq!(store.apply(&[report(1, None)]).await.unwrap(), [false], "the report itself is kept");
}

async fn of_each_device_only_the_newest_reports_are_kept(place: impl Place) {
    let mut store = place.open().await;
    for digest in 0..=64 {
        assert_eq!(store.apply(&[report(digest, None)]).await.unwrap(), [true]);
    }
    assert_eq!(store.apply(&[report(1, None)]).await.unwrap(), [false]);
    assert_eq!(store.apply(&[report(0, None)]).await.unwrap(), [true], "the oldest has gone");
}

async fn what_the_highest_report_said_is_kept_until_the_device_has_another_key(place: impl Place) {
    let mut store = place.open().await;
    store.apply(&[Change::Device(accepted("m1", 1))]).await.unwrap();
    let says = |next, sequence| Reported { next, running: ShortDigest([next as u8; 8]), sequence };
    let told = |digest, reported| {
        let Change::Report(row) = report(digest, None) else { unreachable!() };
        Change::Report(ReportRow { reported, ..row })
    };
    store.apply(&[told(1, says(7, 9))]).await.unwrap();
    store.apply(&[told(2, says(3, 3)), told(3, says(7, 4))]).await.unwrap();
    // Other groups, the same key.
    store.apply(&[Change::Device(accepted("m1", 2))]).await.unwrap();
    let (mut store, snapshot) = reopen(store, &place).await;
    assert_eq!(snapshot.devices[0].reported, says(7, 9));
    let forgotten = Device { standing: Standing::Forgotten, ..accepted("m1", 2) };
    store.apply(&[Change::Device(forgotten)]).await.unwrap();
    assert_eq!(store.load().await.unwrap().devices[0].reported, Reported::default());
    store.apply(&[Change::Device(accepted("m1", 3)), told(4, says(1, 2))]).await.unwrap();
    assert_eq!(reopen(store, &place).await.1.devices[0].reported, says(1, 2));
}

/// An enrolment may come while an acceptance is on its way into the store, and is then written after it.
async fn an_enrolment_never_undoes_an_acceptance(place: impl Place) {
    let mut store = place.open().await;
    let enrolled = |name| Change::Enrolled(pending(name, 7));
    assert_eq!(store.apply(&[enrolled("m1")]).await.unwrap(), [true]);
    let changes = [Change::Device(accepted("m1", 1)), enrolled("m1")];
    assert_eq!(store.apply(&changes).await.unwrap(), [true, false]);
    let (_, snapshot) = reopen(store, &place).await;
    assert_eq!(snapshot.devices, [accepted("m1", 1)]);
}

async fn a_pending_device_that_makes_room_leaves_the_version_of_its_assignment(place: impl Place) {
    let mut store = place.open().await;
    let known = Device { assignment_version: 3, ..pending("m1", 1) };
    let devices = [known, pending("m2", 2), accepted("m3", 1)].map(Change::Device);
    store.apply(&devices).await.unwrap();
    let dropped = ["m1", "m2", "m3", "m4"].map(|name| Change::DropPending(id(name)));
    assert_eq!(store.apply(&dropped).await.unwrap(), [true, true, false, false]);
    let (mut store, snapshot) = reopen(store, &place).await;
    let forgotten = Device { assignment_version: 3, standing: Standing::Forgotten, ..pending("m1", 0) };
    assert_eq!(snapshot.devices, [forgotten, accepted("m3", 1)]);
    // And it never falls, whatever comes late.
    store.apply(&[Change::Device(pending("m1", 9))]).await.unwrap();
    assert_eq!(store.load().await.unwrap().devices[0].assignment_version, 3);
}

async fn facts_about_a_device_that_has_gone_do_not_bring_it_back(place: impl Place) {
    let mut store = place.open().await;
    assert_eq!(store.apply(&[Change::Facts(id("m1"), Facts::default())]).await.unwrap(), [false]);
    assert!(store.load().await.unwrap().devices.is_empty());
}

async fn devices_of_a_replaced_campaign_are_counted_and_listed_in_the_store(place: impl Place) {
    let mut store = place.open().await;
    let row =
        |name: &str, state| Change::Deployment(DeploymentRow { device: id(name), ..deployment(1, 1, state) });
    let changes = [
        Change::Campaign(campaign(1, Phase::Replaced)),
        row("m1", State::Confirmed),
        row("m2", State::Confirmed),
        row("m3", State::Failed),
    ];
    store.apply(&changes).await.unwrap();
    assert!(store.load().await.unwrap().deployments.is_empty(), "not in memory");
    let mut tally = store.tally_replaced().await.unwrap();
    tally.sort_by_key(|row| row.devices);
    let counts: Vec<_> =
        tally.iter().map(|row| (row.state, row.reason, row.devices, row.bytes_twice)).collect();
    assert_eq!(
        counts,
        [(State::Failed, Why::Failed(FailureCode::NoRoom), 1, 3), (State::Confirmed, Why::Unsaid, 2, 6)]
    );
    let campaign = CampaignId([1; 8]);
    let page = store.deployments(campaign, Some(id("m1")), 1).await.unwrap();
    assert_eq!(page.iter().map(|row| row.device.as_str()).collect::<Vec<_>>(), ["m2"]);
}

/// Devices hold the highest version that they have seen: what is stored later with an older one must not take the
/// newer one's place.
async fn versions_that_are_stored_never_fall(place: impl Place) {
    let mut store = place.open().await;
    let earlier = UnixTime::from_secs(NOW.as_secs() - 5);
    store
        .apply(&[Change::Beacon { version: 9, issued: NOW }, Change::Device(accepted("m1", 4))])
        .await
        .unwrap();
    store
        .apply(&[Change::Beacon { version: 8, issued: earlier }, Change::Device(accepted("m1", 3))])
        .await
        .unwrap();
    let (mut store, snapshot) = reopen(store, &place).await;
    assert_eq!((snapshot.beacon_version, snapshot.beacon_issued), (9, NOW));
    assert_eq!(snapshot.devices[0].assignment_version, 4);
    store
        .apply(&[Change::Beacon { version: 10, issued: NOW }, Change::Device(accepted("m1", 5))])
        .await
        .unwrap();
    let (_, snapshot) = reopen(store, &place).await;
    assert_eq!((snapshot.beacon_version, snapshot.devices[0].assignment_version), (10, 5));
}

async fn versions_are_handed_out_once_and_above_all_that_are_stored(place: impl Place) {
    let mut store = place.open().await;
    let next = [Series::Campaign, Series::Beacon];
    assert_eq!(store.next_versions(&next).await.unwrap(), [1, 1]);
    assert_eq!(store.next_versions(&[Series::Beacon, Series::Beacon]).await.unwrap(), [2, 3]);
    assert!(store.next_versions(&[]).await.unwrap().is_empty());
    let (mut store, _) = reopen(store, &place).await;
    assert_eq!(store.next_versions(&next).await.unwrap(), [2, 4], "also when it is opened again");
    // What was stored by an earlier version of the service, which decided about versions itself.
    store
        .apply(&[Change::Campaign(campaign(9, Phase::Replaced)), Change::Beacon { version: 20, issued: NOW }])
        .await
        .unwrap();
    assert_eq!(store.next_versions(&next).await.unwrap(), [10, 21]);
    store.apply(&[Change::Campaign(campaign(3, Phase::Active))]).await.unwrap();
    assert_eq!(store.next_versions(&next).await.unwrap(), [11, 22]);
}

async fn versions_go_on_above_what_an_operator_accepted(place: impl Place) {
    let mut store = place.open().await;
    store.next_versions(&[Series::Beacon]).await.unwrap();
    store.apply(&[Change::VersionsAbove(1000)]).await.unwrap();
    store.apply(&[Change::VersionsAbove(900)]).await.unwrap();
    let (mut store, snapshot) = reopen(store, &place).await;
    assert_eq!((snapshot.beacon_version, snapshot.versions_above), (1000, 1000));
    let next = [Series::Campaign, Series::Beacon, Series::Assignments];
    assert_eq!(store.next_versions(&next).await.unwrap(), [1001; 3]);
    let (_, snapshot) = reopen(store, &place).await;
    assert_eq!(snapshot.handed_out, Versions { beacon: 1001, campaign: 1001, assignments: 1001 });
}

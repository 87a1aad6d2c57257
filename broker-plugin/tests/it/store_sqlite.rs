//! The store: what was applied is there after it is opened again, and each rule of its rows.

use std::path::Path;

use bytes::Bytes;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use whimbrel_protocol::ids::{CampaignId, ClassId, DeviceId, Digest, GroupName, ShortDigest};
use whimbrel_protocol::message::{DeferReason, FailureCode, State};
use whimbrel_protocol::testing::{Fixture, OrderOptions};
use whimbrel_protocol::time::UnixTime;
use whimbrel_service::store::{
    CameBy, CampaignRow, Change, DataLock, Deployment, DeploymentRow, Device, Facts, Phase, ReleaseRow,
    ReportRow, Snapshot, SqliteStore, Standing, Store, StoreError, StoreHandle, Why,
};

use crate::service_support::device_key;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("whimbrel.sqlite")).await.unwrap()
}

/// What a store that is opened anew has.
async fn reopen(store: SqliteStore, folder: &Path) -> (SqliteStore, Snapshot) {
    store.close().await;
    let mut store = open(folder).await;
    let snapshot = store.load().await.unwrap();
    (store, snapshot)
}

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn pending(name: &str, order: u64) -> Device {
    Device {
        id: id(name),
        class: ClassId([7; 16]),
        standing: Standing::Pending { key: device_key(1).public(), order },
        assignment_version: 0,
        facts: Facts::default(),
    }
}

fn accepted(name: &str, version: u64) -> Device {
    let groups = vec![GroupName::new("all").unwrap(), GroupName::new("north").unwrap()];
    let assignment = Bytes::from_static(b"signed");
    let standing = Standing::Accepted { key: device_key(1).public(), groups, assignment };
    Device { standing, assignment_version: version, ..pending(name, 0) }
}

fn campaign(first: u8, phase: Phase) -> CampaignRow {
    let fixture = Fixture::new();
    let options = OrderOptions { campaign: first, version: u64::from(first), ..OrderOptions::default() };
    let document = fixture.campaign(&fixture.release(vec![1; 2000], 1, 10), options);
    CampaignRow {
        id: CampaignId([first; 8]),
        phase,
        created: NOW,
        life_s: 3600,
        document: Bytes::from(document),
    }
}

fn deployment(report: u64, attempt: u64, state: State) -> DeploymentRow {
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
        says,
    })
}

#[tokio::test]
async fn everything_that_was_applied_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
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

    let (_, snapshot) = reopen(store, folder.path()).await;
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
        }
    );
}

#[tokio::test]
async fn many_devices_are_read_back_completely() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let changes: Vec<Change> =
        (0..9000).map(|number| Change::Device(pending(&format!("m{number}"), number))).collect();
    store.apply(&changes).await.unwrap();
    let (_, snapshot) = reopen(store, folder.path()).await;
    assert_eq!(snapshot.devices.len(), 9000);
}

#[tokio::test]
async fn a_report_counts_once_and_replays_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    store.apply(&[Change::Campaign(campaign(1, Phase::Active))]).await.unwrap();
    let mut apply = async |change: Change| store.apply(&[change]).await.unwrap()[0];
    assert!(apply(report(1, Some(deployment(5, 2, State::Failed)))).await);
    assert!(!apply(report(1, Some(deployment(5, 2, State::Failed)))).await, "the same again");
    // New to the store, and older than what is known.
    assert!(apply(report(2, Some(deployment(4, 2, State::Confirmed)))).await);
    assert!(apply(report(3, Some(deployment(9, 1, State::Confirmed)))).await);
    assert!(!apply(Change::Deployment(deployment(0, 2, State::Downloading))).await, "a hint after a report");
    let (mut store, snapshot) = reopen(store, folder.path()).await;
    assert_eq!(snapshot.deployments, [deployment(5, 2, State::Failed)]);
    let hint = Change::Deployment(deployment(0, 3, State::Downloading));
    assert_eq!(store.apply(&[hint]).await.unwrap(), [true], "a later attempt");
    let newer = report(4, Some(deployment(6, 3, State::Confirmed)));
    assert_eq!(store.apply(&[newer]).await.unwrap(), [true]);
    assert_eq!(store.load().await.unwrap().deployments, [deployment(6, 3, State::Confirmed)]);
}

/// The rule stands in Rust for memory and in SQL for the database: both must say the same.
#[tokio::test]
async fn memory_and_database_agree_which_of_two_words_about_a_deployment_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
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
#[tokio::test]
async fn by_which_payload_an_image_came_outlives_the_report_and_not_the_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
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
    let (mut store, snapshot) = reopen(store, folder.path()).await;
    assert_eq!(snapshot.deployments, [by(both, deployment(1, 1, State::Confirmed))]);
    store.apply(&[Change::Campaign(campaign(1, Phase::Replaced))]).await.unwrap();
    assert_eq!(store.tally_replaced().await.unwrap()[0].payload, Some(full));
    let again = Change::Deployment(deployment(0, 2, State::Offered));
    store.apply(&[Change::Campaign(campaign(1, Phase::Active)), again]).await.unwrap();
    assert_eq!(store.load().await.unwrap().deployments, [deployment(0, 2, State::Offered)]);
}

#[tokio::test]
async fn a_database_of_version_1_is_brought_up_to_date_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        SqliteConnectOptions::new().filename(folder.path().join("whimbrel.sqlite")).create_if_missing(true);
    let mut old = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(include_str!("../../migrations/sqlite/0001_init.sql")).execute(&mut old).await.unwrap();
    let row = "INSERT INTO deployments VALUES (x'0101010101010101', 'm1', 1, 1, 8, 0, 10, 3, 1800000000);
        PRAGMA user_version = 1";
    sqlx::raw_sql(row).execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    let mut store = open(folder.path()).await;
    store.apply(&[Change::Campaign(campaign(1, Phase::Active))]).await.unwrap();
    assert_eq!(store.load().await.unwrap().deployments, [deployment(1, 1, State::Confirmed)]);
}

#[tokio::test]
async fn a_report_of_a_campaign_that_is_not_ours_makes_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    store.apply(&[report(1, Some(deployment(1, 1, State::Failed))), report(2, None)]).await.unwrap();
    let (mut store, snapshot) = reopen(store, folder.path()).await;
    assert!(snapshot.deployments.is_empty());
    // Only those of known campaigns are loaded: the table itself must be empty too, or anybody could fill it.
    assert_eq!(store.deployments(CampaignId([1; 8]), None, 10).await.unwrap(), []);
    assert_eq!(store.apply(&[report(1, None)]).await.unwrap(), [false], "the report itself is kept");
}

#[tokio::test]
async fn of_each_device_only_the_newest_reports_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    for digest in 0..=64 {
        assert_eq!(store.apply(&[report(digest, None)]).await.unwrap(), [true]);
    }
    assert_eq!(store.apply(&[report(1, None)]).await.unwrap(), [false]);
    assert_eq!(store.apply(&[report(0, None)]).await.unwrap(), [true], "the oldest has gone");
}

#[tokio::test]
async fn a_pending_device_that_makes_room_leaves_the_version_of_its_assignment() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let known = Device { assignment_version: 3, ..pending("m1", 1) };
    let devices = [known, pending("m2", 2), accepted("m3", 1)].map(Change::Device);
    store.apply(&devices).await.unwrap();
    let dropped = ["m1", "m2", "m3", "m4"].map(|name| Change::DropPending(id(name)));
    assert_eq!(store.apply(&dropped).await.unwrap(), [true, true, false, false]);
    let (mut store, snapshot) = reopen(store, folder.path()).await;
    let forgotten = Device { assignment_version: 3, standing: Standing::Forgotten, ..pending("m1", 0) };
    assert_eq!(snapshot.devices, [forgotten, accepted("m3", 1)]);
    // And it never falls, whatever comes late.
    store.apply(&[Change::Device(pending("m1", 9))]).await.unwrap();
    assert_eq!(store.load().await.unwrap().devices[0].assignment_version, 3);
}

#[tokio::test]
async fn facts_about_a_device_that_has_gone_do_not_bring_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    assert_eq!(store.apply(&[Change::Facts(id("m1"), Facts::default())]).await.unwrap(), [false]);
    assert!(store.load().await.unwrap().devices.is_empty());
}

#[tokio::test]
async fn devices_of_a_replaced_campaign_are_counted_and_listed_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
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

#[tokio::test]
async fn changes_are_applied_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    // SQLite says the same as on a full disk.
    store.limit_bytes(256 << 10).await.unwrap();
    let before = store.load().await.unwrap();
    let huge = Bytes::from(vec![0; 4 << 20]);
    let changes = [
        Change::Device(pending("m1", 1)),
        Change::Release(ReleaseRow { digest: Digest([1; 32]), envelope: huge, added: NOW }),
    ];
    let error = store.apply(&changes).await.unwrap_err();
    assert!(error.is_full() && error.to_string().contains("no room"), "{error}");
    assert_eq!(store.load().await.unwrap(), before);
    store.apply(&[Change::Device(pending("m1", 1))]).await.expect("it goes on when there is room");
}

#[tokio::test]
async fn of_jobs_that_are_committed_together_only_the_bad_one_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    // SQLite says the same as on a full disk.
    store.limit_bytes(256 << 10).await.unwrap();
    let (handle, task) = StoreHandle::start(store);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    // All are handed over before the store's task runs for the first time.
    for number in 0..10u8 {
        let change = if number == 4 {
            let envelope = Bytes::from(vec![0; 4 << 20]);
            Change::Release(ReleaseRow { digest: Digest([1; 32]), envelope, added: NOW })
        } else {
            Change::Device(pending(&format!("m{number}"), u64::from(number)))
        };
        let tell = tell.clone();
        let taken = handle.submit(vec![change], move |applied| tell.send((number, applied.is_ok())).unwrap());
        assert!(taken);
    }
    drop(tell);
    let mut done = Vec::new();
    while let Some(result) = told.recv().await {
        done.push(result);
    }
    assert_eq!(done, (0..10).map(|number| (number, number != 4)).collect::<Vec<_>>(), "and in order");
    drop(handle);
    task.await.unwrap();
    let mut store = open(folder.path()).await;
    assert_eq!(store.load().await.unwrap().devices.len(), 9);
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whimbrel.sqlite");
    open(folder.path()).await.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    // The user version of a SQLite file: 4 bytes at 60.
    bytes[60..64].copy_from_slice(&3u32.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 3, known: 2, .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_database_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whimbrel.sqlite");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn a_data_folder_is_used_by_one_service_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let lock = DataLock::take(&data).unwrap();
    assert!(matches!(DataLock::take(&data), Err(StoreError::InUse { .. })));
    drop(lock);
    DataLock::take(&data).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&data).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700, "nobody else reads it");
}

/// Devices hold the highest version that they have seen: what is stored later with an older one must not take the
/// newer one's place.
#[tokio::test]
async fn versions_that_are_stored_never_fall() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let earlier = UnixTime::from_secs(NOW.as_secs() - 5);
    store
        .apply(&[Change::Beacon { version: 9, issued: NOW }, Change::Device(accepted("m1", 4))])
        .await
        .unwrap();
    store
        .apply(&[Change::Beacon { version: 8, issued: earlier }, Change::Device(accepted("m1", 3))])
        .await
        .unwrap();
    let (mut store, snapshot) = reopen(store, folder.path()).await;
    assert_eq!((snapshot.beacon_version, snapshot.beacon_issued), (9, NOW));
    assert_eq!(snapshot.devices[0].assignment_version, 4);
    store
        .apply(&[Change::Beacon { version: 10, issued: NOW }, Change::Device(accepted("m1", 5))])
        .await
        .unwrap();
    let (_, snapshot) = reopen(store, folder.path()).await;
    assert_eq!((snapshot.beacon_version, snapshot.devices[0].assignment_version), (10, 5));
}

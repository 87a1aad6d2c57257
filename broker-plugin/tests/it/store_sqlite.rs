//! What is particular to the database as a file. The rules of every store stand in `store_rules`.

use std::path::Path;

use bytes::Bytes;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::message::State;
use whimbrel_service::store::{
    Change, DataLock, Phase, ReleaseRow, Reported, SqliteStore, Store, StoreError, StoreHandle, Terms,
};

use crate::store_rules::{NOW, campaign, deployment, pending};

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("whimbrel.sqlite")).await.unwrap()
}

#[tokio::test]
async fn a_database_of_version_1_is_brought_up_to_date_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        SqliteConnectOptions::new().filename(folder.path().join("whimbrel.sqlite")).create_if_missing(true);
    let mut old = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(include_str!("../../migrations/sqlite/0001_init.sql")).execute(&mut old).await.unwrap();
    let row = "INSERT INTO deployments VALUES (x'0101010101010101', 'm1', 1, 1, 8, 0, 10, 3, 1800000000);
        INSERT INTO devices VALUES ('m1', 0, NULL, x'07070707070707070707070707070707', 0, '', NULL, 3,
            NULL, 8, 1700000000);
        INSERT INTO campaigns VALUES (x'0202020202020202', 'all', 1, 1, 0, 1700000000, 77, x'00');
        PRAGMA user_version = 1";
    sqlx::raw_sql(row).execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    let mut store = open(folder.path()).await;
    assert_eq!(store.load().await.unwrap().campaigns[0].terms, Terms::lasting(77));
    let device = store.load().await.unwrap().devices.remove(0);
    assert_eq!(
        (device.facts.sequence, device.reported),
        (8, Reported::default()),
        "none of its reports is known"
    );
    store.apply(&[Change::Campaign(campaign(1, Phase::Active))]).await.unwrap();
    assert_eq!(store.load().await.unwrap().deployments, [deployment(1, 1, State::Confirmed)]);
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
async fn jobs_that_are_committed_together_count_as_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, task) = StoreHandle::start(open(folder.path()).await);
    // All are handed over before the store's task runs for the first time.
    for number in 0..10u8 {
        let change = Change::Device(pending(&format!("m{number}"), u64::from(number)));
        assert!(handle.submit(vec![change], |applied| assert!(applied.is_ok())));
    }
    handle.apply(vec![Change::Device(pending("m10", 10))]).await.unwrap();
    assert_eq!(handle.commits(), 1);
    handle.apply(vec![Change::Device(pending("m11", 11))]).await.unwrap();
    assert_eq!(handle.commits(), 2);
    drop(handle);
    task.await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whimbrel.sqlite");
    open(folder.path()).await.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    // The user version of a SQLite file: 4 bytes at 60.
    bytes[60..64].copy_from_slice(&5u32.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 5, known: 4, .. }), "{error}");
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

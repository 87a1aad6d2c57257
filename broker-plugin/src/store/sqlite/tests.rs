use super::*;

/// The one value that a PRAGMA has on the store's connection, as text.
async fn pragma(store: &mut SqliteStore, name: &str) -> String {
    let ask = sqlx::AssertSqlSafe(format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"));
    let row = sqlx::query(ask).fetch_one(&mut store.connection).await.unwrap();
    row.try_get(0).unwrap()
}

/// FULL is 2. Less than that syncs the log at a checkpoint only: a power cut takes what was acknowledged.
async fn assert_durable(store: &mut SqliteStore) {
    assert_eq!(pragma(store, "synchronous").await, "2");
    assert_eq!(pragma(store, "journal_mode").await, "wal");
}

#[tokio::test]
async fn the_connection_in_use_syncs_the_write_ahead_log_at_every_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whimbrel.sqlite");
    let mut store = SqliteStore::open(&path).await.unwrap();
    assert_durable(&mut store).await;
    store.apply(&[Change::Beacon { version: 1, issued: UnixTime::from_secs(1) }]).await.unwrap();
    store.limit_bytes(1 << 20).await.unwrap();
    assert_durable(&mut store).await;
    store.close().await;
    // And on a database that was there already.
    let mut store = SqliteStore::open(&path).await.unwrap();
    assert_durable(&mut store).await;
}

#[tokio::test]
async fn a_connection_that_took_the_place_of_a_broken_one_syncs_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&folder.path().join("whimbrel.sqlite")).await.unwrap();
    // A connection on which no transaction can begin is given up for a new one.
    store.execute("CREATE TEMP TABLE of_the_old_connection (x)").await.unwrap();
    store.execute("BEGIN").await.unwrap();
    store.begin().await.unwrap();
    assert!(store.execute("SELECT x FROM of_the_old_connection").await.is_err(), "it is another one");
    assert_durable(&mut store).await;
}

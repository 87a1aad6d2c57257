//! The database in one SQLite file: write-ahead log, every commit synced.
//!
//! One connection does everything, in order. Its thread is sqlx's own; nothing here blocks the caller's.

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{Connection as _, Row as _};
use whimbrel_protocol::ids::{CampaignId, DeviceId};
use whimbrel_protocol::time::UnixTime;

use super::rows::{DeploymentRow, Device};
use super::sqlite_rows::Columns;
use super::sqlite_writes::{
    ASSIGNMENTS, BEACON_ISSUED, BEACON_VERSION, CAMPAIGN_VERSION, VERSIONS_ABOVE, raise, write,
};
use super::{Change, Series, Snapshot, Store, StoreError, TallyRow, Versions};

/// The SQLite database of a data folder.
#[derive(Debug)]
pub struct SqliteStore {
    connection: SqliteConnection,
    path: PathBuf,
}

/// What brings a database of format n to format n + 1, for each n from 0.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../migrations/sqlite/0001_init.sql"),
    include_str!("../../migrations/sqlite/0002_payload_of_a_deployment.sql"),
    include_str!("../../migrations/sqlite/0003_terms_of_a_campaign.sql"),
    include_str!("../../migrations/sqlite/0004_what_the_service_holds.sql"),
];

/// Most pages that SQLite can count.
const PAGES_MAX: u64 = 4_294_967_294;
/// Rows read at once.
const PAGE_ROWS: i64 = 4096;

impl SqliteStore {
    /// Opens the database at `path`, makes it if there is none, and brings it to the current format.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Database`], [`StoreError::Full`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self { connection: connect(path).await?, path: path.to_owned() };
        store.migrate().await?;
        Ok(store)
    }

    /// Begins a transaction, on a new connection if the old one is past help.
    async fn begin(&mut self) -> Result<(), StoreError> {
        if self.execute(BEGIN).await.is_ok() {
            return Ok(());
        }
        self.connection = connect(&self.path).await?;
        let fail = self.fail("write to");
        self.execute(BEGIN).await.map_err(fail)
    }

    /// Ends a transaction that has failed. SQLite has done that itself if the disk was full, and then refuses.
    async fn roll_back(&mut self) {
        let _rolled_back_already = self.execute("ROLLBACK").await;
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut self.connection).await.map(drop)
    }

    async fn write_all(&mut self, changes: &[Change]) -> Result<Vec<bool>, sqlx::Error> {
        let mut changed = Vec::with_capacity(changes.len());
        for change in changes {
            changed.push(write(&mut self.connection, change).await?);
        }
        self.execute("COMMIT").await?;
        Ok(changed)
    }

    async fn raise_all(&mut self, of: &[Series]) -> Result<Vec<u64>, sqlx::Error> {
        let mut versions = Vec::with_capacity(of.len());
        for series in of {
            versions.push(raise(&mut self.connection, *series).await?);
        }
        self.execute("COMMIT").await?;
        Ok(versions)
    }

    /// Lets the database grow to `bytes` at most. What would exceed it fails as on a full disk.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn limit_bytes(&mut self, bytes: u64) -> Result<(), StoreError> {
        let fail = self.fail("limit");
        let row = sqlx::query("PRAGMA page_size").fetch_one(&mut self.connection).await.map_err(&fail)?;
        let page_bytes: i64 = row.try_get(0).map_err(&fail)?;
        let pages = bytes / page_bytes.unsigned_abs().max(1);
        let set = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages.min(PAGES_MAX)));
        sqlx::raw_sql(set).execute(&mut self.connection).await.map_err(fail).map(drop)
    }

    async fn migrate(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let fail = |error| StoreError::database("bring up to date", &path, error);
        let row = sqlx::query("PRAGMA user_version").fetch_one(&mut self.connection).await.map_err(fail)?;
        let found: i64 = row.try_get(0).map_err(fail)?;
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        if found > known {
            return Err(StoreError::Newer { path, found, known });
        }
        for (from, script) in (0..).zip(MIGRATIONS) {
            if from >= found {
                let mut transaction = self.connection.begin().await.map_err(fail)?;
                sqlx::raw_sql(script).execute(&mut *transaction).await.map_err(fail)?;
                let set = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", from + 1));
                sqlx::raw_sql(set).execute(&mut *transaction).await.map_err(fail)?;
                transaction.commit().await.map_err(fail)?;
            }
        }
        Ok(())
    }

    fn fail(&self, what: &'static str) -> impl Fn(sqlx::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |error| StoreError::database(what, &path, error)
    }

    /// Reads the rows of a small table.
    async fn read<T>(
        &mut self,
        table: &'static str,
        sql: &'static str,
        decode: impl Fn(&Columns<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let fail = self.fail("read");
        let rows: Vec<SqliteRow> = sqlx::query(sql).fetch_all(&mut self.connection).await.map_err(fail)?;
        rows.iter().map(|row| decode(&Columns { table, row })).collect()
    }

    /// Reads a table with a row for each device, some rows at a time.
    async fn read_devices(&mut self) -> Result<Vec<Device>, StoreError> {
        let fail = self.fail("read");
        let mut devices: Vec<Device> = Vec::new();
        loop {
            let after = devices.last().map_or("", |device| device.id.as_str()).to_owned();
            let rows: Vec<SqliteRow> =
                sqlx::query("SELECT * FROM devices WHERE id > ?1 ORDER BY id LIMIT ?2")
                    .bind(after)
                    .bind(PAGE_ROWS)
                    .fetch_all(&mut self.connection)
                    .await
                    .map_err(&fail)?;
            for row in &rows {
                devices.push(Columns { table: "devices", row }.device()?);
            }
            if rows.is_empty() {
                return Ok(devices);
            }
        }
    }

    async fn mark(&mut self, name: &'static str) -> Result<u64, StoreError> {
        let fail = self.fail("read");
        let row = sqlx::query("SELECT value FROM marks WHERE name = ?1")
            .bind(name)
            .fetch_optional(&mut self.connection)
            .await
            .map_err(&fail)?;
        row.map_or(Ok(0), |row| row.try_get::<i64, _>(0).map(i64::cast_unsigned).map_err(&fail))
    }
}

impl Store for SqliteStore {
    async fn load(&mut self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot {
            releases: self.read("releases", "SELECT * FROM releases", |row| row.release()).await?,
            payloads: self.read("payloads", "SELECT * FROM payloads", |row| row.payload()).await?,
            devices: self.read_devices().await?,
            campaigns: self
                .read("campaigns", "SELECT * FROM campaigns ORDER BY created, version", |row| row.campaign())
                .await?,
            deployments: self
                .read(
                    "deployments",
                    "SELECT * FROM deployments WHERE campaign IN (SELECT id FROM campaigns WHERE phase <> 2)",
                    |row| row.deployment(),
                )
                .await?,
            beacon_version: self.mark(BEACON_VERSION).await?,
            beacon_issued: UnixTime::from_secs(self.mark(BEACON_ISSUED).await?),
            handed_out: Versions {
                beacon: self.mark(BEACON_VERSION).await?,
                campaign: self.mark(CAMPAIGN_VERSION).await?,
                assignments: self.mark(ASSIGNMENTS).await?,
            },
            versions_above: self.mark(VERSIONS_ABOVE).await?,
        })
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        // Not sqlx's own transactions: after one that SQLite has rolled back itself they refuse ever to begin again.
        self.begin().await?;
        match self.write_all(changes).await {
            Ok(changed) => Ok(changed),
            Err(error) => {
                self.roll_back().await;
                Err(self.fail("write to")(error))
            }
        }
    }

    async fn next_versions(&mut self, of: &[Series]) -> Result<Vec<u64>, StoreError> {
        self.begin().await?;
        match self.raise_all(of).await {
            Ok(versions) => Ok(versions),
            Err(error) => {
                self.roll_back().await;
                Err(self.fail("write to")(error))
            }
        }
    }

    async fn tally_replaced(&mut self) -> Result<Vec<TallyRow>, StoreError> {
        self.read(
            "deployments",
            "SELECT campaign, state, reason, payload, count(*) AS devices,
                sum(bytes_received) AS bytes_received, sum(bytes_twice) AS bytes_twice
             FROM deployments WHERE campaign IN (SELECT id FROM campaigns WHERE phase = 2)
             GROUP BY campaign, state, reason, payload",
            |row| row.tally(),
        )
        .await
    }

    async fn deployments(
        &mut self,
        campaign: CampaignId,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeploymentRow>, StoreError> {
        let fail = self.fail("read");
        let after = after.map_or(String::new(), |device| device.as_str().to_owned());
        let rows: Vec<SqliteRow> = sqlx::query(
            "SELECT * FROM deployments WHERE campaign = ?1 AND device > ?2 ORDER BY device LIMIT ?3",
        )
        .bind(campaign.0.to_vec())
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&mut self.connection)
        .await
        .map_err(fail)?;
        rows.iter().map(|row| Columns { table: "deployments", row }.deployment()).collect()
    }

    async fn close(self) {
        // What was applied is durable. Closing only folds the log into the database.
        let _untidy = self.connection.close().await;
    }
}

const BEGIN: &str = "BEGIN IMMEDIATE";

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let fail = |error| StoreError::database("open", path, error);
    SqliteConnection::connect_with(&options).await.map_err(fail)
}

#[cfg(test)]
mod tests;

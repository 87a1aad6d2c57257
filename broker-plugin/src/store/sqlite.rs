//! The database in one SQLite file: write-ahead log, every commit synced.
//!
//! One connection does everything, in order. Its thread is sqlx's own; nothing here blocks the caller's.

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{Connection as _, Row as _};
use whimbrel_protocol::cose::Sign1;
use whimbrel_protocol::ids::{CampaignId, DeviceId};
use whimbrel_protocol::message::Campaign;
use whimbrel_protocol::time::UnixTime;

use super::rows::{CampaignRow, DeploymentRow, Device, Facts, PayloadRow, ReleaseRow, ReportRow};
use super::sqlite_rows::{Columns, DeviceColumns, clamp, phase_number};
use super::{Change, Snapshot, Store, StoreError, TallyRow};

/// The SQLite database of a data folder.
#[derive(Debug)]
pub struct SqliteStore {
    connection: SqliteConnection,
    path: PathBuf,
}

/// What brings a database of format n to format n + 1, for each n from 0.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/sqlite/0001_init.sql"),
    include_str!("../../migrations/sqlite/0002_payload_of_a_deployment.sql"),
];

/// Reports kept of each device; older ones go. What they said stays counted.
const REPORTS_KEPT: i64 = 64;
/// Most pages that SQLite can count.
const PAGES_MAX: u64 = 4_294_967_294;
/// Rows read at once.
const PAGE_ROWS: i64 = 4096;

impl SqliteStore {
    /// Opens the database at `path`, makes it where there is none, and brings it to the current format.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Database`], [`StoreError::Full`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self { connection: connect(path).await?, path: path.to_owned() };
        store.migrate().await?;
        Ok(store)
    }

    /// Begins a transaction, on a new connection where the old one is past help.
    async fn begin(&mut self) -> Result<(), StoreError> {
        if self.execute(BEGIN).await.is_ok() {
            return Ok(());
        }
        self.connection = connect(&self.path).await?;
        let fail = self.fail("write to");
        self.execute(BEGIN).await.map_err(fail)
    }

    /// Ends a transaction that has failed. SQLite has done that itself where the disk was full, and then refuses.
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
const BEACON_VERSION: &str = "beacon-version";
const BEACON_ISSUED: &str = "beacon-issued";

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let fail = |error| StoreError::database("open", path, error);
    SqliteConnection::connect_with(&options).await.map_err(fail)
}

/// Writes one change; says whether it changed anything.
async fn write(db: &mut SqliteConnection, change: &Change) -> Result<bool, sqlx::Error> {
    match change {
        Change::Release(row) => write_release(db, row).await,
        Change::Payload(row) => write_payload(db, row).await,
        Change::Device(device) => write_device(db, device).await,
        Change::DropPending(id) => drop_pending(db, id).await,
        Change::Facts(id, facts) => write_facts(db, id, *facts).await,
        Change::Campaign(row) => write_campaign(db, row).await,
        Change::Beacon { version, issued } => {
            write_mark(db, BEACON_VERSION, *version).await?;
            write_mark(db, BEACON_ISSUED, issued.as_secs()).await
        }
        Change::Deployment(row) => write_deployment(db, row).await,
        Change::Report(row) => write_report(db, row).await,
    }
}

async fn write_release(db: &mut SqliteConnection, row: &ReleaseRow) -> Result<bool, sqlx::Error> {
    let query = sqlx::query("INSERT OR IGNORE INTO releases (digest, envelope, added) VALUES (?1, ?2, ?3)")
        .bind(row.digest.0.to_vec())
        .bind(row.envelope.to_vec())
        .bind(clamp(row.added.as_secs()));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn write_payload(db: &mut SqliteConnection, row: &PayloadRow) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(
        "INSERT OR REPLACE INTO payloads (index_digest, image, transfer_size, chunk_size_log2, added)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .bind(row.index.0.to_vec())
    .bind(row.image.0.to_vec())
    .bind(clamp(row.layout.transfer_size()))
    .bind(i64::from(row.layout.chunk_size_log2()))
    .bind(clamp(row.added.as_secs()));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn write_device(db: &mut SqliteConnection, device: &Device) -> Result<bool, sqlx::Error> {
    let columns = DeviceColumns::of(&device.standing);
    let query = sqlx::query(
        "INSERT INTO devices (id, standing, key, class, enrolled, groups, assignment, assignment_version,
            running, sequence, seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET standing = ?2, key = ?3, class = ?4, enrolled = ?5, groups = ?6,
            assignment = ?7, assignment_version = max(assignment_version, ?8)",
    )
    .bind(device.id.as_str().to_owned())
    .bind(columns.standing)
    .bind(columns.key)
    .bind(device.class.0.to_vec())
    .bind(columns.enrolled)
    .bind(columns.groups)
    .bind(columns.assignment)
    .bind(clamp(device.assignment_version))
    .bind(device.facts.running.0.to_vec())
    .bind(clamp(device.facts.sequence))
    .bind(clamp(device.facts.seen.as_secs()));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn drop_pending(db: &mut SqliteConnection, id: &DeviceId) -> Result<bool, sqlx::Error> {
    let forget = sqlx::query(
        "UPDATE devices SET standing = 0, key = NULL WHERE id = ?1 AND standing = 1 AND assignment_version > 0",
    );
    let forgotten = forget.bind(id.as_str().to_owned()).execute(&mut *db).await?.rows_affected() > 0;
    let delete = sqlx::query("DELETE FROM devices WHERE id = ?1 AND standing = 1");
    let deleted = delete.bind(id.as_str().to_owned()).execute(db).await?.rows_affected() > 0;
    Ok(forgotten || deleted)
}

async fn write_facts(db: &mut SqliteConnection, id: &DeviceId, facts: Facts) -> Result<bool, sqlx::Error> {
    let query = sqlx::query("UPDATE devices SET running = ?2, sequence = ?3, seen = ?4 WHERE id = ?1")
        .bind(id.as_str().to_owned())
        .bind(facts.running.0.to_vec())
        .bind(clamp(facts.sequence))
        .bind(clamp(facts.seen.as_secs()));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn write_campaign(db: &mut SqliteConnection, row: &CampaignRow) -> Result<bool, sqlx::Error> {
    // Group, version and attempt stand in the document; they are columns for people who look into the database.
    let said = Sign1::decode(&row.document).ok();
    let said = said.and_then(|object| Campaign::decode(object.unverified_payload()?).ok());
    let query = sqlx::query(
        "INSERT OR REPLACE INTO campaigns (id, group_name, version, attempt, phase, created, life_s, document)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(row.id.0.to_vec())
    .bind(said.as_ref().map_or(String::new(), |said| said.group.as_str().to_owned()))
    .bind(said.as_ref().map_or(0, |said| clamp(said.validity.version)))
    .bind(said.as_ref().map_or(0, |said| clamp(said.order.attempt)))
    .bind(phase_number(row.phase))
    .bind(clamp(row.created.as_secs()))
    .bind(clamp(row.life_s))
    .bind(row.document.to_vec());
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn write_mark(db: &mut SqliteConnection, name: &'static str, value: u64) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(
        "INSERT INTO marks (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = max(value, ?2)",
    )
    .bind(name)
    .bind(clamp(value));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

/// The last condition is [`Deployment::is_news_to`](super::Deployment::is_news_to). A report does not know by which
/// payload the image came: what is known of the attempt stays. A device can name any campaign
/// in a report; rows are made for ours only.
async fn write_deployment(db: &mut SqliteConnection, row: &DeploymentRow) -> Result<bool, sqlx::Error> {
    let says = &row.deployment;
    let query = sqlx::query(
        "INSERT INTO deployments (campaign, device, attempt, report, state, reason, bytes_received, bytes_twice,
            updated, payload, given_up)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
            WHERE EXISTS (SELECT 1 FROM campaigns WHERE id = ?1)
         ON CONFLICT (campaign, device) DO UPDATE SET attempt = ?3, report = ?4, state = ?5, reason = ?6,
            bytes_received = ?7, bytes_twice = ?8, updated = ?9,
            payload = CASE WHEN ?3 = attempt THEN coalesce(?10, payload) ELSE ?10 END,
            given_up = CASE WHEN ?3 = attempt THEN coalesce(?11, given_up) ELSE ?11 END
         WHERE ?3 > attempt OR (?3 = attempt AND (?4 > report OR report = 0))",
    )
    .bind(row.campaign.0.to_vec())
    .bind(row.device.as_str().to_owned())
    .bind(clamp(says.attempt))
    .bind(clamp(says.report))
    .bind((says.state as u64).cast_signed())
    .bind(says.reason.number().cast_signed())
    .bind(clamp(says.bytes_received))
    .bind(clamp(says.bytes_twice))
    .bind(clamp(says.updated.as_secs()))
    .bind(says.came_by.payload.map(|payload| payload.0.to_vec()))
    .bind(says.came_by.given_up.map(|payload| payload.0.to_vec()));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn write_report(db: &mut SqliteConnection, row: &ReportRow) -> Result<bool, sqlx::Error> {
    let device = row.device.as_str().to_owned();
    let query = sqlx::query(
        "INSERT OR IGNORE INTO reports (device, digest, received, signed) VALUES (?1, ?2, ?3, ?4)",
    )
    .bind(device.clone())
    .bind(row.digest.0.to_vec())
    .bind(clamp(row.received.as_secs()))
    .bind(row.signed.to_vec());
    if query.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let query = sqlx::query(
        "DELETE FROM reports WHERE device = ?1 AND number <=
            (SELECT number FROM reports WHERE device = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
    );
    query.bind(device).bind(REPORTS_KEPT).execute(&mut *db).await?;
    if let Some(says) = &row.says {
        write_deployment(db, says).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;

//! Changes as statements of SQL: what each writes, and the rules by which some change nothing.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use whimbrel_protocol::cose::Sign1;
use whimbrel_protocol::ids::DeviceId;
use whimbrel_protocol::message::Campaign;

use super::rows::{CampaignRow, DeploymentRow, Device, Facts, PayloadRow, Rekeyed, ReleaseRow, ReportRow};
use super::sqlite_rows::{DeviceColumns, clamp, encode_key, phase_number};
use super::{Change, Series};

/// Names of marks: numbers that only rise.
pub(super) const BEACON_VERSION: &str = "beacon-version";
pub(super) const BEACON_ISSUED: &str = "beacon-issued";
pub(super) const VERSIONS_ABOVE: &str = "versions-above";
pub(super) const CAMPAIGN_VERSION: &str = "campaign-version";
pub(super) const ASSIGNMENTS: &str = "assignments";
/// Reports kept of each device; older ones go. What they said stays counted.
const REPORTS_KEPT: i64 = 64;

/// Writes one change; says whether it changed anything.
pub(super) async fn write(db: &mut SqliteConnection, change: &Change) -> Result<bool, sqlx::Error> {
    match change {
        Change::Release(row) => write_release(db, row).await,
        Change::Payload(row) => write_payload(db, row).await,
        Change::Device(device) => write_device(db, device, Over::Anything).await,
        Change::Enrolled(device) => write_device(db, device, Over::NoAcceptance).await,
        Change::DropPending(id) => drop_pending(db, id).await,
        Change::Facts(id, facts) => write_facts(db, id, *facts).await,
        Change::Rekeyed(id, rekeyed) => write_rekeyed(db, id, rekeyed.as_deref()).await,
        Change::ReportsAnew(id) => reports_anew(db, id).await,
        Change::Campaign(row) => write_campaign(db, row).await,
        Change::Beacon { version, issued } => {
            write_mark(db, BEACON_VERSION, *version).await?;
            write_mark(db, BEACON_ISSUED, issued.as_secs()).await
        }
        Change::VersionsAbove(version) => {
            write_mark(db, BEACON_VERSION, *version).await?;
            write_mark(db, CAMPAIGN_VERSION, *version).await?;
            write_mark(db, ASSIGNMENTS, *version).await?;
            write_mark(db, VERSIONS_ABOVE, *version).await
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

/// What a device may be written over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Anything,
    NoAcceptance,
}

async fn write_device(db: &mut SqliteConnection, device: &Device, over: Over) -> Result<bool, sqlx::Error> {
    let columns = DeviceColumns::of(&device.standing);
    let query = sqlx::query(
        "INSERT INTO devices (id, standing, key, class, enrolled, groups, assignment, assignment_version,
            running, sequence, seen, report, reported_running, reported_sequence)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (id) DO UPDATE SET standing = ?2, key = ?3, class = ?4, enrolled = ?5, groups = ?6,
            assignment = ?7, assignment_version = max(assignment_version, ?8),
            report = CASE WHEN key IS ?3 THEN report ELSE ?12 END,
            reported_running = CASE WHEN key IS ?3 THEN reported_running ELSE ?13 END,
            reported_sequence = CASE WHEN key IS ?3 THEN reported_sequence ELSE ?14 END,
            other_key = CASE WHEN key IS ?3 THEN other_key END,
            other_class = CASE WHEN key IS ?3 THEN other_class END
         WHERE ?15 OR devices.standing <> 2",
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
    .bind(clamp(device.facts.seen.as_secs()))
    .bind(clamp(device.reported.next))
    .bind(device.reported.running.0.to_vec())
    .bind(clamp(device.reported.sequence))
    .bind(over == Over::Anything);
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

async fn write_rekeyed(
    db: &mut SqliteConnection,
    id: &DeviceId,
    rekeyed: Option<&Rekeyed>,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(
        "UPDATE devices SET other_key = ?2, other_class = ?3, other_seen = ?4 WHERE id = ?1 AND standing = 2",
    )
    .bind(id.as_str().to_owned())
    .bind(rekeyed.map(|rekeyed| encode_key(&rekeyed.key)))
    .bind(rekeyed.map(|rekeyed| rekeyed.class.0.to_vec()))
    .bind(rekeyed.map_or(0, |rekeyed| clamp(rekeyed.seen.as_secs())));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn reports_anew(db: &mut SqliteConnection, id: &DeviceId) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(
        "UPDATE deployments SET report = 0
         WHERE device = ?1 AND campaign IN (SELECT id FROM campaigns WHERE phase <> 2)",
    );
    Ok(query.bind(id.as_str().to_owned()).execute(db).await?.rows_affected() > 0)
}

async fn write_campaign(db: &mut SqliteConnection, row: &CampaignRow) -> Result<bool, sqlx::Error> {
    // Group, version and attempt stand in the document; they are columns for people who look into the database.
    let said = Sign1::decode(&row.document).ok();
    let said = said.and_then(|object| Campaign::decode(object.unverified_payload()?).ok());
    let query = sqlx::query(
        "INSERT OR REPLACE INTO campaigns (id, group_name, version, attempt, phase, created, terms, document)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(row.id.0.to_vec())
    .bind(said.as_ref().map_or(String::new(), |said| said.group.as_str().to_owned()))
    .bind(said.as_ref().map_or(0, |said| clamp(said.validity.version)))
    .bind(said.as_ref().map_or(0, |said| clamp(said.order.attempt)))
    .bind(phase_number(row.phase))
    .bind(clamp(row.created.as_secs()))
    .bind(serde_json::to_string(&row.terms).map_err(|error| sqlx::Error::Encode(error.into()))?)
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

/// Raises the mark of a series by one. That of campaigns may be missing, and may be behind the documents: earlier
/// versions of the service did not write it.
pub(super) async fn raise(db: &mut SqliteConnection, series: Series) -> Result<u64, sqlx::Error> {
    let name = match series {
        Series::Beacon => BEACON_VERSION,
        Series::Assignments => ASSIGNMENTS,
        Series::Campaign => {
            let stored = sqlx::query("SELECT coalesce(max(version), 0) FROM campaigns");
            let stored: i64 = stored.fetch_one(&mut *db).await?.try_get(0)?;
            write_mark(db, CAMPAIGN_VERSION, stored.cast_unsigned()).await?;
            CAMPAIGN_VERSION
        }
    };
    let query = sqlx::query(
        "INSERT INTO marks (name, value) VALUES (?1, 1)
         ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
    );
    query.bind(name).fetch_one(db).await?.try_get(0).map(i64::cast_unsigned)
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
    query.bind(device.clone()).bind(REPORTS_KEPT).execute(&mut *db).await?;
    let query = sqlx::query(
        "UPDATE devices SET report = ?2, reported_running = ?3, reported_sequence = ?4, running = ?3, sequence = ?4
         WHERE id = ?1 AND report < ?2",
    )
    .bind(device)
    .bind(clamp(row.reported.next))
    .bind(row.reported.running.0.to_vec())
    .bind(clamp(row.reported.sequence));
    query.execute(&mut *db).await?;
    if let Some(says) = &row.says {
        write_deployment(db, says).await?;
    }
    Ok(true)
}

//! Explains files that a device keeps: its record, and the sectors of a download's journal.

use whimbrel_protocol::device::{
    BITMAP_BYTES, Deployment, JournalSector, Past, Record, SECTOR_BYTES, Scope, Stage,
};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::message::{FailureCode, Report};

use super::Explained;
use super::document::order;
use crate::output::{Fields, Value};

/// The first bytes of a journal sector.
const JOURNAL_MAGIC: &[u8] = b"WJ01";
/// The first bytes of a record: the head of an array of 11 items, then the format.
const RECORD_HEADS: [&[u8]; 2] = [&[0x8a, 0x01], &[0x8a, 0x02]];

/// Whether some sector of a journal begins in `bytes`.
pub(super) fn is_journal(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR_BYTES).any(|sector| sector.starts_with(JOURNAL_MAGIC))
}

/// Explains the sectors of a journal. The valid sector with the highest sequence number counts.
pub(super) fn explain_journal(bytes: &[u8]) -> Option<Fields> {
    let sectors = bytes
        .chunks(SECTOR_BYTES)
        .enumerate()
        .filter(|(_, sector)| sector.starts_with(JOURNAL_MAGIC))
        .map(|(number, sector)| (number * SECTOR_BYTES, read(sector)))
        .collect::<Vec<_>>();
    let newest = sectors.iter().filter_map(|(_, sector)| sector.as_ref()).map(|sector| sector.sequence).max();
    let described = sectors.iter().map(|(at, sector)| {
        let fields = Fields::new().with("at_byte", *at);
        Value::Fields(match sector {
            Some(sector) => describe_sector(fields, sector, newest),
            None => fields.with("refused", "torn: its checksum is wrong"),
        })
    });
    Some(Fields::new().with("kind", "download journal").with("sectors", described.collect::<Vec<_>>()))
}

fn read(sector: &[u8]) -> Option<JournalSector> {
    JournalSector::decode(sector.try_into().ok()?).ok()
}

fn describe_sector(fields: Fields, sector: &JournalSector, newest: Option<u64>) -> Fields {
    let checkpoint = &sector.checkpoint;
    let beyond: u32 = checkpoint.bitmap.iter().map(|byte| byte.count_ones()).sum();
    fields
        .with("sequence", Value::Count(sector.sequence))
        .with("newest", newest == Some(sector.sequence))
        .with("payload_index_digest", sector.index.to_hex())
        .with("watermark", checkpoint.watermark)
        .with("chunks_beyond", beyond)
        .with("bitmap_chunks", BITMAP_BYTES * 8)
        .with("asked_below", checkpoint.asked.0)
        .with("bytes_received", Value::Bytes(checkpoint.bytes_received))
        .with("bytes_twice", Value::Bytes(checkpoint.bytes_twice))
}

/// Explains a device's record; `None` if the bytes do not begin as one.
pub(super) fn explain_record(bytes: &[u8]) -> Option<Explained> {
    let record = || Record::decode(bytes).map(|record| describe_record(&record));
    let begins = RECORD_HEADS.iter().any(|head| bytes.starts_with(head));
    begins.then(|| Explained::of("device record", record()))
}

fn describe_record(record: &Record) -> Fields {
    let scopes = record.scopes.iter().map(|scope| {
        let name = match &scope.scope {
            Scope::Assignment => "assignment".into(),
            Scope::Beacon => "beacon".into(),
            Scope::Group(group) => format!("group {group}"),
        };
        format!("{name} version {} ({})", scope.version, scope.payload).into()
    });
    let campaigns = record.campaigns.iter().map(|(group, _)| group.as_str().into());
    let reports = record.reports.iter().map(|report| {
        let digest = Report::digest(report).map(|digest| digest.to_hex());
        digest.unwrap_or_else(|| "not a signed report".to_owned()).into()
    });
    Fields::new()
        .with("root_digest", Digest::of(&record.root).to_hex())
        .with("versions_seen", scopes.collect::<Vec<Value>>())
        .with("assignment", record.assignment.is_some())
        .with("campaigns_of_groups", campaigns.collect::<Vec<Value>>())
        .with("min_sequence", Value::Count(record.min_sequence))
        .with("deployment", record.deployment.as_ref().map(describe_deployment))
        .with("outcomes", record.outcomes.iter().map(describe_past).collect::<Vec<Value>>())
        .with("reports_to_send", reports.collect::<Vec<Value>>())
        .with("next_report", Value::Count(record.next_report))
}

fn describe_deployment(deployment: &Deployment) -> Fields {
    let stage = match deployment.stage {
        Stage::Fetching => "fetching".into(),
        Stage::Installed => "installed, trial not armed".into(),
        Stage::Armed => "trial armed".into(),
        Stage::Reverting(failure) => format!("reverting: {}", failure.name()),
    };
    let given_up = deployment.given_up.iter().map(|patch| patch.payload.to_hex().into());
    Fields::new()
        .with("stage", stage)
        .with("said", (!deployment.said.is_empty()).then_some(&*deployment.said))
        .with("trials_armed", Value::Count(deployment.arms.into()))
        .with("bytes_received", Value::Bytes(deployment.bytes_received))
        .with("bytes_twice", Value::Bytes(deployment.bytes_twice))
        .with("patches_given_up", given_up.collect::<Vec<Value>>())
        .with("order", order(&deployment.order))
}

fn describe_past(past: &Past) -> Value {
    let failure = past.failure.map(FailureCode::name).map_or_else(String::new, |name| format!(" ({name})"));
    format!("{} attempt {}: {}{failure}", past.campaign, past.attempt, past.outcome.name()).into()
}

//! Rows of the database as types, and back. What does not read back is an error with the table's name: nobody
//! but this service writes here.

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::codec::{Reader, Writer};
use whimbrel_protocol::cose::PublicKey;
use whimbrel_protocol::ids::{CampaignId, ClassId, DeviceId, Digest, GroupName, ShortDigest};
use whimbrel_protocol::message::State;
use whimbrel_protocol::time::UnixTime;

use super::rows::{
    CameBy, CampaignRow, Deployment, DeploymentRow, Device, Facts, PayloadRow, Phase, Rekeyed, ReleaseRow,
    Reported, Standing, Why,
};
use super::{StoreError, TallyRow};

/// Most bytes of an encoded public key.
const KEY_BYTES_MAX: usize = 128;

/// A row of a table whose name goes into the error.
pub(super) struct Columns<'r> {
    pub(super) table: &'static str,
    pub(super) row: &'r SqliteRow,
}

impl Columns<'_> {
    fn bad(&self, what: &'static str) -> StoreError {
        StoreError::Row { table: self.table, what }
    }

    fn uint(&self, what: &'static str) -> Result<u64, StoreError> {
        self.row.try_get::<i64, _>(what).map(i64::cast_unsigned).map_err(|_| self.bad(what))
    }

    fn time(&self, what: &'static str) -> Result<UnixTime, StoreError> {
        self.uint(what).map(UnixTime::from_secs)
    }

    fn text(&self, what: &'static str) -> Result<&str, StoreError> {
        self.row.try_get(what).map_err(|_| self.bad(what))
    }

    fn bytes(&self, what: &'static str) -> Result<&[u8], StoreError> {
        self.row.try_get(what).map_err(|_| self.bad(what))
    }

    fn array<const N: usize>(&self, what: &'static str) -> Result<[u8; N], StoreError> {
        self.bytes(what)?.try_into().map_err(|_| self.bad(what))
    }

    fn optional(&self, what: &'static str) -> Result<Option<&[u8]>, StoreError> {
        self.row.try_get(what).map_err(|_| self.bad(what))
    }

    fn short_digest(&self, what: &'static str) -> Result<Option<ShortDigest>, StoreError> {
        let bytes = self.optional(what)?;
        bytes.map(|bytes| bytes.try_into().map(ShortDigest).map_err(|_| self.bad(what))).transpose()
    }

    fn device_id(&self, what: &'static str) -> Result<DeviceId, StoreError> {
        DeviceId::new(self.text(what)?).map_err(|_| self.bad(what))
    }

    fn key(&self) -> Result<PublicKey, StoreError> {
        let bytes = self.optional("key")?.ok_or_else(|| self.bad("key"))?;
        decode_key(bytes).ok_or_else(|| self.bad("key"))
    }

    fn rekeyed(&self) -> Result<Option<Rekeyed>, StoreError> {
        let Some(key) = self.optional("other_key")? else { return Ok(None) };
        let key = decode_key(key).ok_or_else(|| self.bad("other_key"))?;
        let class = ClassId(self.array("other_class")?);
        Ok(Some(Rekeyed { key, class, seen: self.time("other_seen")? }))
    }

    fn groups(&self) -> Result<Vec<GroupName>, StoreError> {
        let names = self.text("groups")?.split_ascii_whitespace();
        names.map(|name| GroupName::new(name).map_err(|_| self.bad("groups"))).collect()
    }

    pub(super) fn release(&self) -> Result<ReleaseRow, StoreError> {
        Ok(ReleaseRow {
            digest: Digest(self.array("digest")?),
            envelope: Bytes::copy_from_slice(self.bytes("envelope")?),
            added: self.time("added")?,
        })
    }

    pub(super) fn payload(&self) -> Result<PayloadRow, StoreError> {
        Ok(PayloadRow {
            index: Digest(self.array("index_digest")?),
            image: Digest(self.array("image")?),
            layout: Layout::new(self.uint("chunk_size_log2")?, self.uint("transfer_size")?)
                .map_err(|_| self.bad("transfer_size"))?,
            added: self.time("added")?,
        })
    }

    pub(super) fn device(&self) -> Result<Device, StoreError> {
        let standing = match self.uint("standing")? {
            FORGOTTEN => Standing::Forgotten,
            PENDING => {
                Standing::Pending { key: self.key()?, order: self.uint("enrolled")?, groups: self.groups()? }
            }
            ACCEPTED => Standing::Accepted {
                key: self.key()?,
                groups: self.groups()?,
                assignment: Bytes::copy_from_slice(
                    self.optional("assignment")?.ok_or_else(|| self.bad("assignment"))?,
                ),
            },
            _ => return Err(self.bad("standing")),
        };
        Ok(Device {
            id: self.device_id("id")?,
            class: ClassId(self.array("class")?),
            standing,
            assignment_version: self.uint("assignment_version")?,
            facts: Facts {
                running: self.short_digest("running")?.unwrap_or_default(),
                sequence: self.uint("sequence")?,
                seen: self.time("seen")?,
            },
            reported: Reported {
                next: self.uint("report")?,
                running: self.short_digest("reported_running")?.unwrap_or_default(),
                sequence: self.uint("reported_sequence")?,
            },
            rekeyed: self.rekeyed()?.map(Box::new),
        })
    }

    pub(super) fn campaign(&self) -> Result<CampaignRow, StoreError> {
        Ok(CampaignRow {
            id: CampaignId(self.array("id")?),
            phase: match self.uint("phase")? {
                0 => Phase::Active,
                1 => Phase::Aborted,
                2 => Phase::Replaced,
                _ => return Err(self.bad("phase")),
            },
            created: self.time("created")?,
            terms: serde_json::from_str(self.text("terms")?).map_err(|_| self.bad("terms"))?,
            document: Bytes::copy_from_slice(self.bytes("document")?),
        })
    }

    fn state(&self) -> Result<(State, Why), StoreError> {
        let state = State::from_number(self.uint("state")?).ok_or_else(|| self.bad("state"))?;
        Ok((state, Why::from_number(state, self.uint("reason")?)))
    }

    pub(super) fn deployment(&self) -> Result<DeploymentRow, StoreError> {
        let (state, reason) = self.state()?;
        Ok(DeploymentRow {
            campaign: CampaignId(self.array("campaign")?),
            device: self.device_id("device")?,
            deployment: Deployment {
                attempt: self.uint("attempt")?,
                report: self.uint("report")?,
                state,
                reason,
                bytes_received: self.uint("bytes_received")?,
                bytes_twice: self.uint("bytes_twice")?,
                came_by: CameBy {
                    payload: self.short_digest("payload")?,
                    given_up: self.short_digest("given_up")?,
                },
                updated: self.time("updated")?,
            },
        })
    }

    pub(super) fn tally(&self) -> Result<TallyRow, StoreError> {
        let (state, reason) = self.state()?;
        Ok(TallyRow {
            campaign: CampaignId(self.array("campaign")?),
            state,
            reason,
            devices: self.uint("devices")?,
            bytes_received: self.uint("bytes_received")?,
            bytes_twice: self.uint("bytes_twice")?,
            payload: self.short_digest("payload")?,
        })
    }
}

const FORGOTTEN: u64 = 0;
const PENDING: u64 = 1;
const ACCEPTED: u64 = 2;

/// The columns of a device that depend on its standing.
pub(super) struct DeviceColumns {
    pub(super) standing: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) enrolled: i64,
    pub(super) groups: String,
    pub(super) assignment: Option<Vec<u8>>,
}

impl DeviceColumns {
    pub(super) fn of(standing: &Standing) -> Self {
        let none = Self {
            standing: FORGOTTEN.cast_signed(),
            key: None,
            enrolled: 0,
            groups: String::new(),
            assignment: None,
        };
        match standing {
            Standing::Forgotten => none,
            Standing::Pending { key, order, groups } => Self {
                standing: PENDING.cast_signed(),
                key: Some(encode_key(key)),
                enrolled: order.cast_signed(),
                groups: joined(groups),
                ..none
            },
            Standing::Accepted { key, groups, assignment } => Self {
                standing: ACCEPTED.cast_signed(),
                key: Some(encode_key(key)),
                groups: joined(groups),
                assignment: Some(assignment.to_vec()),
                ..none
            },
        }
    }
}

pub(super) const fn phase_number(phase: Phase) -> i64 {
    match phase {
        Phase::Active => 0,
        Phase::Aborted => 1,
        Phase::Replaced => 2,
    }
}

/// A device's own word may be any number: what does not fit a signed column is as good as the largest that does.
pub(super) fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn joined(groups: &[GroupName]) -> String {
    groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(" ")
}

pub(super) fn encode_key(key: &PublicKey) -> Vec<u8> {
    let mut writer = Writer::new();
    key.encode(&mut writer);
    writer.into_bytes()
}

fn decode_key(bytes: &[u8]) -> Option<PublicKey> {
    let mut reader = Reader::new("COSE_Key", bytes, KEY_BYTES_MAX).ok()?;
    let key = PublicKey::decode(&mut reader).ok()?;
    reader.finish().ok().map(|()| key)
}

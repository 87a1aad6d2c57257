//! Database and payloads in memory, by the same rules as those on a disk: for tests of what uses them.
//!
//! Clones share what they hold, so that a test opens a store again by cloning it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use whimbrel_protocol::cose::Sign1;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest, ShortDigest};
use whimbrel_protocol::message::Campaign;
use whimbrel_protocol::time::UnixTime;

use super::payloads::{PayloadPart, PayloadWriter, Payloads};
use super::rows::{
    CameBy, CampaignRow, Deployment, DeploymentRow, Device, Phase, ReportRow, Reported, Standing,
};
use super::{Change, PayloadRow, ReleaseRow, Series, Snapshot, Store, StoreError, TallyRow, Versions};

/// A database in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Tables>>);

#[derive(Clone, Debug, Default)]
struct Tables {
    releases: BTreeMap<Digest, ReleaseRow>,
    payloads: BTreeMap<Digest, PayloadRow>,
    devices: BTreeMap<DeviceId, Device>,
    campaigns: BTreeMap<CampaignId, CampaignRow>,
    deployments: BTreeMap<(CampaignId, DeviceId), Deployment>,
    /// The reports that are kept of each device, the oldest first.
    reports: BTreeMap<DeviceId, Vec<ShortDigest>>,
    beacon: (u64, UnixTime),
    campaign_version: u64,
    assignments: u64,
    versions_above: u64,
}

/// Reports kept of each device.
const REPORTS_KEPT: usize = 64;

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does at once what [`Store::load`] does.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let tables = self.tables();
        let mut campaigns: Vec<CampaignRow> = tables.campaigns.values().cloned().collect();
        campaigns.sort_by_key(|row| (row.created, version_of(row)));
        let current = |id: &CampaignId| tables.phase(id).is_some_and(|phase| phase != Phase::Replaced);
        let deployments = tables.deployments.iter().filter(|((campaign, _), _)| current(campaign));
        Snapshot {
            releases: tables.releases.values().cloned().collect(),
            payloads: tables.payloads.values().copied().collect(),
            devices: tables.devices.values().cloned().collect(),
            deployments: deployments.map(row_of).collect(),
            campaigns,
            beacon_version: tables.beacon.0,
            beacon_issued: tables.beacon.1,
            handed_out: Versions {
                beacon: tables.beacon.0,
                campaign: tables.campaign_version,
                assignments: tables.assignments,
            },
            versions_above: tables.versions_above,
        }
    }

    /// Does at once what [`Store::apply`] does.
    pub fn apply_now(&self, changes: &[Change]) -> Vec<bool> {
        let mut tables = self.tables();
        changes.iter().map(|change| tables.write(change)).collect()
    }

    /// How many reports of a device are kept.
    #[must_use]
    pub fn reports_of(&self, device: &DeviceId) -> usize {
        self.tables().reports.get(device).map_or(0, Vec::len)
    }

    /// Does at once what [`Store::next_versions`] does.
    pub fn versions_now(&self, of: &[Series]) -> Vec<u64> {
        let mut tables = self.tables();
        of.iter().map(|series| tables.raise(*series)).collect()
    }
}

impl Store for MemoryStore {
    async fn load(&mut self) -> Result<Snapshot, StoreError> {
        Ok(self.snapshot())
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        Ok(self.apply_now(changes))
    }

    async fn next_versions(&mut self, of: &[Series]) -> Result<Vec<u64>, StoreError> {
        Ok(self.versions_now(of))
    }

    async fn tally_replaced(&mut self) -> Result<Vec<TallyRow>, StoreError> {
        let tables = self.tables();
        let mut tally: Vec<TallyRow> = Vec::new();
        for ((campaign, _), said) in &tables.deployments {
            if tables.phase(campaign) != Some(Phase::Replaced) {
                continue;
            }
            let (payload, key) = (said.came_by.payload, (said.state, said.reason));
            let same = |row: &&mut TallyRow| {
                (row.campaign, row.payload) == (*campaign, payload) && (row.state, row.reason) == key
            };
            if let Some(row) = tally.iter_mut().find(same) {
                row.devices += 1;
                row.bytes_received += said.bytes_received;
                row.bytes_twice += said.bytes_twice;
            } else {
                tally.push(TallyRow {
                    campaign: *campaign,
                    state: said.state,
                    reason: said.reason,
                    devices: 1,
                    bytes_received: said.bytes_received,
                    bytes_twice: said.bytes_twice,
                    payload,
                });
            }
        }
        Ok(tally)
    }

    async fn deployments(
        &mut self,
        campaign: CampaignId,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeploymentRow>, StoreError> {
        let tables = self.tables();
        let rows = tables
            .deployments
            .iter()
            .filter(|((of, device), _)| *of == campaign && after.as_ref().is_none_or(|after| device > after));
        Ok(rows.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(row_of).collect())
    }

    async fn close(self) {}
}

impl Tables {
    fn phase(&self, campaign: &CampaignId) -> Option<Phase> {
        self.campaigns.get(campaign).map(|row| row.phase)
    }

    fn raise(&mut self, series: Series) -> u64 {
        let mark = match series {
            Series::Beacon => &mut self.beacon.0,
            Series::Assignments => &mut self.assignments,
            Series::Campaign => {
                let stored = self.campaigns.values().map(version_of).max().unwrap_or(0);
                self.campaign_version = self.campaign_version.max(stored);
                &mut self.campaign_version
            }
        };
        *mark += 1;
        *mark
    }

    /// Writes one change; says whether it changed anything.
    fn write(&mut self, change: &Change) -> bool {
        match change {
            Change::Release(row) => {
                let new = !self.releases.contains_key(&row.digest);
                self.releases.entry(row.digest).or_insert_with(|| row.clone());
                new
            }
            Change::Payload(row) => {
                self.payloads.insert(row.index, *row);
                true
            }
            Change::Enrolled(device) if self.devices.get(&device.id).is_some_and(Device::is_accepted) => {
                false
            }
            Change::Device(device) | Change::Enrolled(device) => {
                let mut device = device.clone();
                device.facts.sequence = device.facts.sequence.min(COLUMN_MAX);
                if let Some(known) = self.devices.get(&device.id) {
                    device.assignment_version = device.assignment_version.max(known.assignment_version);
                    device.facts = known.facts;
                    device.rekeyed = None;
                    if device.key() == known.key() {
                        (device.reported, device.rekeyed) = (known.reported, known.rekeyed.clone());
                    }
                }
                self.devices.insert(device.id.clone(), device);
                true
            }
            Change::DropPending(id) => self.drop_pending(id),
            Change::Facts(id, facts) => {
                let Some(device) = self.devices.get_mut(id) else { return false };
                device.facts = *facts;
                device.facts.sequence = facts.sequence.min(COLUMN_MAX);
                true
            }
            Change::Rekeyed(id, rekeyed) => {
                let known = self.devices.get_mut(id).filter(|device| device.is_accepted());
                known.map(|device| device.rekeyed.clone_from(rekeyed)).is_some()
            }
            Change::ReportsAnew(id) => self.reports_anew(id),
            Change::Campaign(row) => {
                self.campaigns.insert(row.id, row.clone());
                true
            }
            Change::VersionsAbove(version) => {
                for mark in [
                    &mut self.beacon.0,
                    &mut self.campaign_version,
                    &mut self.assignments,
                    &mut self.versions_above,
                ] {
                    *mark = (*mark).max(*version);
                }
                true
            }
            Change::Beacon { version, issued } => {
                self.beacon = (self.beacon.0.max(*version), self.beacon.1.max(*issued));
                true
            }
            Change::Deployment(row) => self.write_deployment(row),
            Change::Report(row) => self.write_report(row),
        }
    }

    fn drop_pending(&mut self, id: &DeviceId) -> bool {
        let Some(device) = self.devices.get_mut(id).filter(|device| device.is_pending()) else {
            return false;
        };
        if device.assignment_version > 0 {
            device.standing = Standing::Forgotten;
        } else {
            self.devices.remove(id);
        }
        true
    }

    fn reports_anew(&mut self, id: &DeviceId) -> bool {
        let campaigns = &self.campaigns;
        let current = |id: &CampaignId| campaigns.get(id).is_some_and(|row| row.phase != Phase::Replaced);
        let known = self.deployments.iter_mut().filter(|((of, device), _)| device == id && current(of));
        let mut changed = false;
        for (_, deployment) in known {
            (deployment.report, changed) = (0, true);
        }
        changed
    }

    fn write_deployment(&mut self, row: &DeploymentRow) -> bool {
        if !self.campaigns.contains_key(&row.campaign) {
            return false;
        }
        let mut says = row.deployment;
        let key = (row.campaign, row.device.clone());
        if let Some(known) = self.deployments.get(&key) {
            if !says.is_news_to(known) {
                return false;
            }
            if says.attempt == known.attempt {
                says.came_by = CameBy {
                    payload: says.came_by.payload.or(known.came_by.payload),
                    given_up: says.came_by.given_up.or(known.came_by.given_up),
                };
            }
        }
        self.deployments.insert(key, says);
        true
    }

    fn write_report(&mut self, row: &ReportRow) -> bool {
        let kept = self.reports.entry(row.device.clone()).or_default();
        if kept.contains(&row.digest) {
            return false;
        }
        kept.push(row.digest);
        if kept.len() > REPORTS_KEPT {
            kept.remove(0);
        }
        let says = Reported { sequence: row.reported.sequence.min(COLUMN_MAX), ..row.reported };
        if let Some(device) = self.devices.get_mut(&row.device).filter(|it| it.reported.next < says.next) {
            device.reported = says;
            (device.facts.running, device.facts.sequence) = (says.running, says.sequence);
        }
        if let Some(says) = &row.says {
            self.write_deployment(says);
        }
        true
    }
}

/// The highest number that a column of a database holds: what a device says beyond that is as good as that.
const COLUMN_MAX: u64 = u64::MAX >> 1;

fn row_of(((campaign, device), deployment): (&(CampaignId, DeviceId), &Deployment)) -> DeploymentRow {
    DeploymentRow { campaign: *campaign, device: device.clone(), deployment: *deployment }
}

fn version_of(row: &CampaignRow) -> u64 {
    let document = Sign1::decode(&row.document).ok();
    let document = document.and_then(|object| Campaign::decode(object.unverified_payload()?).ok());
    document.map_or(0, |document| document.validity.version)
}

/// Payloads in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryPayloads(Arc<Mutex<Objects>>);

type Objects = BTreeMap<(Digest, PayloadPart), Vec<u8>>;

impl MemoryPayloads {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the bytes of an object, as a disk would that rots.
    pub fn damage(&self, index: &Digest, part: PayloadPart, damage: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.objects().get_mut(&(*index, part)) {
            damage(bytes);
        }
    }
}

impl Payloads for MemoryPayloads {
    fn len(&self, index: &Digest, part: PayloadPart) -> u64 {
        self.objects().get(&(*index, part)).map_or(0, |bytes| bytes.len() as u64)
    }

    fn read(&self, index: &Digest, part: PayloadPart, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let objects = self.objects();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        let bytes = objects.get(&(*index, part)).and_then(|bytes| bytes.get(from..to));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| StoreError::Io {
            what: "read",
            path: PathBuf::from(index.to_hex()),
            source: std::io::ErrorKind::UnexpectedEof.into(),
        })
    }

    fn writer(&self, index: &Digest) -> Result<Box<dyn PayloadWriter>, StoreError> {
        Ok(Box::new(MemoryWriter { payloads: self.clone(), index: *index, bytes: Vec::new() }))
    }
}

#[derive(Debug)]
struct MemoryWriter {
    payloads: MemoryPayloads,
    index: Digest,
    bytes: Vec<u8>,
}

impl PayloadWriter for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn keep(self: Box<Self>, index: &[u8]) -> Result<(), StoreError> {
        let mut objects = self.payloads.objects();
        objects.insert((self.index, PayloadPart::Index), index.to_vec());
        objects.insert((self.index, PayloadPart::Bytes), self.bytes);
        Ok(())
    }
}

//! The half of the service that decides: which devices there are, which releases, and who gets what.
//!
//! [`Fleet`] is a machine without I/O. It has no clock, no randomness and no log: [`Fleet::handle_input`] tells it what
//! happened and what time it is, [`Fleet::poll_output`] says what is to be done, [`Fleet::poll_timeout`] says when it
//! wants to be woken. It moves no payload bytes: any number of [servings](crate::serving), one for each link to a
//! broker, read from it what they send to devices.
//!
//! ```
//! use whimbrel_protocol::ids::Prefix;
//! use whimbrel_protocol::time::{Instant, UnixTime};
//! use whimbrel_service::fleet::{Fleet, Input, Output, Settings};
//! # use whimbrel_protocol::trust::Root;
//! # fn begin(root: Root) {
//! let settings = Settings {
//!     prefix: Prefix::new("ota").unwrap(),
//!     beacon_every_ms: 600_000,
//!     beacon_life_s: 3600,
//!     releases_max: 100,
//! };
//! let mut fleet = Fleet::restore(settings, root, Default::default(), Instant::ZERO);
//! // A beacon is due at once: the store is asked for its version, which comes back as an input.
//! fleet.handle_input(Instant::ZERO, UnixTime::from_secs(1_800_000_000), Input::Timeout);
//! assert!(matches!(fleet.poll_output(), Some(Output::NextVersions(_))));
//! # }
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `io` | inputs, outputs, events |
//! | `command` | what operators want changed, what they ask, how they are answered |
//! | `changes`, `decide`, `in_force` | what operators change: decided, signed, stored, in force; one after the other |
//! | `doubt` | nothing is signed while the clock or the database cannot be believed |
//! | `devices` | what devices say: enrolments, reports, unsigned words |
//! | `rekeyed` | devices that bring another key than the accepted one |
//! | `questions`, `views`, `base_views`, `payload_names` | what operators are told |
//! | `ahead` | devices that say that they hold newer documents than there are here |
//! | `misfits` | devices whose hellos do not fit what is known of them |
//! | `warnings` | what operators ask for and probably do not mean |
//! | `registry`, `catalog`, `campaign`, `bases` | devices; releases and payloads; campaigns; patches worth making |

pub mod bases;
pub mod campaign;
pub mod catalog;
pub mod registry;

mod ahead;
mod base_views;
mod changes;
mod command;
mod decide;
mod devices;
mod doubt;
mod in_force;
mod io;
mod misfits;
mod payload_names;
mod questions;
mod rekeyed;
mod views;
mod warnings;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use whimbrel_protocol::cose::Sign1;
use whimbrel_protocol::ids::{CampaignId, DeviceId, ShortDigest};
use whimbrel_protocol::message::{self, Report};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::trust::Root;

pub use crate::clock_guard::ClockDoubt;
pub use crate::store_guard::StoreDoubt;
pub use command::{Answer, Command, Denied, DevicesPage, Listed, Question, Reply};
pub use io::{Document, Event, Input, Job, Output, Publication, Settings};
pub use questions::{Counts, Heard};
pub use views::CampaignView;

use crate::store::{Change, DeploymentRow, Snapshot};
use ahead::Ahead;
use campaign::{Campaign, Campaigns};
use catalog::{Catalog, Release};
use changes::Changes;
use misfits::Misfit;
use registry::Registry;

/// Devices, releases, campaigns, and what of them is changing.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    root: Root,
    now: Instant,
    today: UnixTime,
    registry: Registry,
    catalog: Catalog,
    campaigns: Campaigns,
    /// Rises when releases or campaigns change: what was derived from them is made anew.
    epoch: u64,
    changes: Changes,
    /// The beacon in force, as signed.
    beacon: Option<Bytes>,
    beacon_due: Instant,
    /// Why nothing is signed; `None` if all is well.
    clock_doubt: Option<ClockDoubt>,
    store_doubt: Option<StoreDoubt>,
    /// Reports that are on their way into the store.
    reports: BTreeMap<(DeviceId, ShortDigest), Box<Report>>,
    /// What is worth storing and not urgent.
    unsaved_facts: BTreeSet<DeviceId>,
    unsaved_deployments: BTreeMap<(CampaignId, DeviceId), DeploymentRow>,
    /// Accepted devices whose hellos do not fit what is known of them.
    misfits: BTreeMap<DeviceId, Misfit>,
    ahead: Ahead,
    unsaved_keys: BTreeSet<DeviceId>,
    /// The device that brought another key last, until that is told.
    rekeyed: Option<DeviceId>,
    /// When devices that bring another key may be told of again.
    tell_rekeyed_at: Instant,
    save_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

/// How long what is not urgent may wait to be stored.
const SAVE_AFTER_MS: u64 = 2_000;
/// Outputs for which room is kept while there are none.
const OUTPUTS_KEPT: usize = 1024;

impl Fleet {
    /// The fleet as it was stored. `snapshot` names the payloads that are there and no others; what cannot be read is
    /// left out, and an event says so.
    #[must_use]
    pub fn restore(settings: Settings, root: Root, snapshot: Snapshot, now: Instant) -> Self {
        let mut outputs = VecDeque::new();
        let mut catalog = Catalog::new(settings.releases_max);
        for row in &snapshot.releases {
            match Release::read(&row.envelope, &root, row.added) {
                Ok(release) => catalog.enter(release),
                Err(error) => {
                    let event = Event::ReleaseLeftOut { release: row.digest, error };
                    outputs.push_back(Output::Event(event));
                }
            }
        }
        for row in snapshot.payloads {
            catalog.enter_payload(row);
        }
        let mut by_campaign: BTreeMap<CampaignId, Vec<DeploymentRow>> = BTreeMap::new();
        for row in snapshot.deployments {
            by_campaign.entry(row.campaign).or_default().push(row);
        }
        let mut registry = Registry::load(snapshot.devices);
        registry.number_above(snapshot.versions_above);
        let mut campaigns = Campaigns::default();
        for row in snapshot.campaigns {
            let document = Sign1::decode(&row.document).and_then(|object| {
                message::Campaign::decode(object.unverified_payload().unwrap_or_default())
            });
            match document {
                Ok(document) => {
                    let deployments = by_campaign.remove(&row.id).unwrap_or_default();
                    let devices: Vec<DeviceId> = deployments.iter().map(|row| row.device.clone()).collect();
                    let mut campaign = Campaign::restore(document, &row, deployments);
                    for device in &devices {
                        let known = registry.device(device);
                        let member = known.is_some_and(|known| devices::is_member(known, &campaign));
                        campaign.set_member(device, member);
                    }
                    campaigns.enter(campaign);
                }
                Err(error) => {
                    let event = Event::CampaignLeftOut { campaign: row.id, error };
                    outputs.push_back(Output::Event(event));
                }
            }
        }
        Self {
            settings,
            root,
            now,
            today: UnixTime::default(),
            registry,
            catalog,
            campaigns,
            epoch: 1,
            changes: Changes::default(),
            beacon: None,
            beacon_due: now,
            clock_doubt: None,
            store_doubt: None,
            reports: BTreeMap::new(),
            unsaved_facts: BTreeSet::new(),
            unsaved_deployments: BTreeMap::new(),
            misfits: BTreeMap::new(),
            ahead: Ahead::default(),
            unsaved_keys: BTreeSet::new(),
            rekeyed: None,
            tell_rekeyed_at: now,
            save_at: None,
            outputs,
        }
    }

    /// Tells the fleet what happened. Drain [`Fleet::poll_output`] before the next call.
    pub fn handle_input(&mut self, now: Instant, today: UnixTime, input: Input) {
        debug_assert!(self.outputs.is_empty(), "outputs must be drained before the next input");
        (self.now, self.today) = (now, today);
        match input {
            Input::Hello { device, class, facts, assignment, campaign } => {
                self.compare_versions(&device, assignment, campaign);
                self.hello(device, class, facts, assignment);
            }
            Input::Progress { device, campaign, status } => self.progress(&device, campaign, &status),
            Input::Asked { device, campaign, ask } => self.asked(&device, campaign, ask),
            Input::Enrolled(enrolment) => self.enrolled(enrolment),
            Input::Reported { device, report, digest, signed } => {
                self.reported(device, report, digest, signed);
            }
            Input::PayloadDamaged(number) => {
                self.catalog.forget_payload(number);
                self.epoch += 1;
            }
            Input::Command(command) => self.command(command),
            Input::Versions(versions) => self.numbered(versions),
            Input::Signed(signed) => self.signed(signed),
            Input::Stored { job, applied } => self.stored(job, applied),
            Input::NotTaken(job) => self.not_taken(job),
            Input::Clock(doubt) => self.doubt_clock(doubt),
            Input::Store(doubt) => self.store_doubt = Some(doubt),
            Input::StoreAccepted { versions_above } => self.store_accepted(versions_above),
            Input::Stop => self.save(),
            Input::Timeout => {
                self.tell_rekeyed();
                self.tell_ahead();
                if self.save_at.is_some_and(|at| at <= now) {
                    self.save();
                }
                if self.beacon_due <= now {
                    self.order_beacon();
                }
            }
        }
    }

    /// The next effect to carry out, or `None` when all are.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            // An import of many devices fills the queue once.
            self.outputs.shrink_to(OUTPUTS_KEPT);
        }
        output
    }

    /// When to feed [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let rekeyed = self.rekeyed.is_some().then_some(self.tell_rekeyed_at);
        [self.save_at, rekeyed, self.ahead.due()].into_iter().flatten().fold(self.beacon_due, Instant::min)
    }

    /// The root of trust.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// All devices.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All releases and payloads.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// All campaigns.
    #[must_use]
    pub fn campaigns(&self) -> &Campaigns {
        &self.campaigns
    }

    /// The beacon in force, as signed; `None` before the first one.
    #[must_use]
    pub fn beacon(&self) -> Option<&Bytes> {
        self.beacon.as_ref()
    }

    /// Rises when releases or campaigns change. Never 0.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many changes and reports were begun and have not ended.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.changes.under_way() + self.reports.len()
    }

    /// Hands to the store what was worth storing and not urgent.
    fn save(&mut self) {
        self.save_at = None;
        let deployments = core::mem::take(&mut self.unsaved_deployments);
        let mut changes: Vec<Change> = deployments.into_values().map(Change::Deployment).collect();
        for device in core::mem::take(&mut self.unsaved_facts) {
            if let Some(known) = self.registry.device(&device) {
                changes.push(Change::Facts(device, known.facts));
            }
        }
        for device in core::mem::take(&mut self.unsaved_keys) {
            if let Some(known) = self.registry.device(&device) {
                changes.push(Change::Rekeyed(device, known.rekeyed.clone()));
            }
        }
        if !changes.is_empty() {
            self.outputs.push_back(Output::Store { job: Job::Note, changes });
        }
    }

    fn save_soon(&mut self) {
        self.save_at.get_or_insert(self.now.plus_millis(SAVE_AFTER_MS));
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

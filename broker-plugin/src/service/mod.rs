//! The service: one task that holds everything in memory and decides; all that waits happens elsewhere.
//!
//! Four things make it move: events of the broker link, commands of operators, results of what it had done
//! elsewhere (database, disk, signing), and time. Whatever one wake-up produces is queued, then handed to the broker
//! at once.
//!
//! | file | what |
//! |---|---|
//! | `devices` | a message of a device, through its session, to its effects |
//! | `serve` | chunks and pages, at hand or read first |
//! | `desk`, `decision` | what operators change: decided, signed, stored, in force |
//! | `documents` | the beacon; what stays with the broker for devices that come later |
//! | `outbox` | what goes to the broker with the next flush |
//! | `queries`, `views`, `payloads`, `bases` | what operators ask |
//! | `command` | how they ask it |

mod bases;
mod command;
mod decision;
mod desk;
mod devices;
mod documents;
mod outbox;
mod payloads;
mod queries;
mod serve;
mod views;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Prefix, ShortDigest};
use whimbrel_protocol::message::{self, Report};
use whimbrel_protocol::time::{Instant, UnixTime};

pub(crate) use command::{Command, Denied, DevicesPage, Listed};
pub(crate) use views::CampaignView;

use crate::attach::{BrokerLink, LinkError, LinkEvent};
use crate::campaign::{Campaign, Campaigns};
use crate::catalog::{Catalog, Release};
use crate::clock::Clock;
use crate::metrics::Counters;
use crate::registry::{Membership, Registry};
use crate::serving::admission::{Admission, Rates};
use crate::serving::{SegmentKey, Shelf};
use crate::sessions::Sessions;
use crate::signing::Authority;
use crate::store::{Applied, Change, DeploymentRow, PayloadFolder, Phase, Snapshot, StoreError, StoreHandle};
use desk::Desk;
use documents::Announcements;
use outbox::{Outbox, already};

/// What the service is made of, but for its link.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) authority: Arc<Authority>,
    pub(crate) snapshot: Snapshot,
    pub(crate) store: StoreHandle,
    pub(crate) folder: PayloadFolder,
    pub(crate) membership: Membership,
    pub(crate) counters: Arc<Counters>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) stop: oneshot::Receiver<()>,
    /// Where signing, storing and reading happen.
    pub(crate) elsewhere: Handle,
    /// Seed of jitter.
    pub(crate) seed: u64,
}

/// How the service hangs on its broker, with the counters of that side.
pub(crate) enum Attached {
    Embedded(Arc<crate::front::Counters>),
    Client(Arc<crate::attach::ClientCounters>),
}

/// Settings of the service.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) prefix: Prefix,
    pub(crate) beacon_every_ms: u64,
    pub(crate) beacon_life_s: u64,
    pub(crate) sessions_max: usize,
    pub(crate) session_idle_ms: u64,
    pub(crate) releases_max: usize,
    pub(crate) frame_cache_bytes: usize,
    pub(crate) payload_cache_bytes: usize,
    pub(crate) rates: Rates,
}

/// The service.
pub(crate) struct Core<L> {
    outbox: Outbox<L>,
    attached: Attached,
    settings: Settings,
    authority: Arc<Authority>,
    clock: Clock,
    now: Instant,
    today: UnixTime,
    registry: Registry,
    membership: Membership,
    catalog: Catalog,
    campaigns: Campaigns,
    /// Rises when releases or campaigns change: what was derived from them is made anew.
    epoch: u64,
    sessions: Sessions,
    admission: Admission,
    shelf: Shelf,
    /// Segments that are being read or will be, and who waits for each.
    reads: HashMap<SegmentKey, Vec<DeviceId>>,
    reads_to_start: VecDeque<SegmentKey>,
    reads_running: usize,
    /// Devices whose segment has been read.
    ready: VecDeque<(DeviceId, SegmentKey)>,
    store: StoreHandle,
    folder: PayloadFolder,
    reports_on_the_way: HashSet<(DeviceId, ShortDigest)>,
    /// What is worth storing and not urgent.
    unsaved_facts: HashSet<DeviceId>,
    unsaved_deployments: HashMap<(CampaignId, DeviceId), DeploymentRow>,
    save_at: Option<Instant>,
    sweep_at: Instant,
    desk: Desk,
    announcements: Announcements,
    beacon: BeaconState,
    counters: Arc<Counters>,
    commands: mpsc::Receiver<Command>,
    stop: oneshot::Receiver<()>,
    results: mpsc::UnboundedReceiver<Happened>,
    tell: mpsc::UnboundedSender<Happened>,
    elsewhere: Handle,
}

/// The beacon that is published, and when the next is due.
#[derive(Debug)]
struct BeaconState {
    version: u64,
    current: Option<Bytes>,
    due: Instant,
}

/// Something that was done elsewhere. As many are on the way as jobs are, and those have limits.
enum Happened {
    /// A report was handed to the store.
    ReportStored { device: DeviceId, digest: ShortDigest, report: Box<Report>, applied: Applied },
    /// Something not urgent was handed to the store.
    Saved { applied: Applied },
    /// A segment was read.
    Read { segment: SegmentKey, result: Result<Option<Bytes>, StoreError> },
    /// An operator's change is in the store, or is not.
    Decided(Box<decision::Outcome>),
}

enum Wake {
    Link(LinkEvent),
    Command(Command),
    Happened(Happened),
    Flushed,
    Timer,
    Stop,
}

/// Messages of devices that are taken in before the answers go out.
const BATCH_MESSAGES: usize = 64;
/// How long what is not urgent may wait to be stored.
const SAVE_AFTER_MS: u64 = 2_000;
/// How often silent sessions are looked for.
const SWEEP_EVERY_MS: u64 = 60_000;

impl<L: BrokerLink> Core<L> {
    /// The service as it was when it stopped, or a new one.
    pub(crate) fn new(link: L, attached: Attached, parts: Parts) -> Self {
        let Parts { snapshot, settings, .. } = parts;
        let clock = Clock::start(snapshot.beacon_issued);
        let (now, today) = (clock.now(), clock.today());
        let mut catalog = Catalog::new(settings.releases_max);
        for row in &snapshot.releases {
            match Release::read(&row.envelope, parts.authority.root(), row.added) {
                Ok(release) => catalog.enter(release),
                Err(error) => {
                    tracing::error!(release = %row.digest, reason = %error, "stored release left out")
                }
            }
        }
        for row in snapshot.payloads {
            if parts.folder.holds(&row) {
                catalog.enter_payload(row);
            } else {
                tracing::error!(payload = %row.index, "stored payload damaged, upload it again");
            }
        }
        for device in &snapshot.devices {
            parts.membership.enter(device);
        }
        let campaigns = load_campaigns(snapshot.campaigns, snapshot.deployments);
        let (tell, results) = mpsc::unbounded_channel();
        Self {
            outbox: Outbox::new(link, Arc::clone(&parts.counters)),
            attached,
            authority: parts.authority,
            clock,
            now,
            today,
            registry: Registry::load(snapshot.devices),
            membership: parts.membership,
            catalog,
            campaigns,
            epoch: 1,
            sessions: Sessions::new(settings.prefix.clone(), settings.sessions_max, settings.session_idle_ms),
            admission: Admission::new(settings.rates, parts.seed, now),
            shelf: Shelf::new(settings.frame_cache_bytes, settings.payload_cache_bytes),
            reads: HashMap::new(),
            reads_to_start: VecDeque::new(),
            reads_running: 0,
            ready: VecDeque::new(),
            store: parts.store,
            folder: parts.folder,
            reports_on_the_way: HashSet::new(),
            unsaved_facts: HashSet::new(),
            unsaved_deployments: HashMap::new(),
            save_at: None,
            sweep_at: now.plus_millis(SWEEP_EVERY_MS),
            desk: Desk::default(),
            announcements: Announcements::default(),
            beacon: BeaconState { version: snapshot.beacon_version, current: None, due: now },
            counters: parts.counters,
            commands: parts.commands,
            stop: parts.stop,
            results,
            tell,
            elsewhere: parts.elsewhere,
            settings,
        }
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// [`LinkError`] where the broker is gone for good.
    pub(crate) async fn run(mut self) -> Result<(), LinkError> {
        loop {
            let wake = self.wake().await?;
            self.now = self.clock.now();
            self.today = self.clock.today();
            match wake {
                Wake::Stop => return self.finish().await,
                Wake::Link(event) => self.link_event(event),
                Wake::Command(command) => self.command(command),
                Wake::Happened(happened) => self.happened(happened),
                Wake::Flushed | Wake::Timer => {}
            }
            self.take_in_what_came().await?;
            self.timers();
            self.serve_ready();
            self.announce();
            if let Some(flushed) = already(self.outbox.link.flush()).await {
                flushed?;
                self.outbox.queued = 0;
            }
        }
    }

    /// Waits for something to happen. While the broker is behind, no messages are taken in.
    async fn wake(&mut self) -> Result<Wake, LinkError> {
        let timer = sleep_until(self.clock.timer(self.next_timer()));
        let wake = tokio::select! {
            biased;
            _ = &mut self.stop => Wake::Stop,
            Some(happened) = self.results.recv() => Wake::Happened(happened),
            command = self.commands.recv() => command.map_or(Wake::Stop, Wake::Command),
            event = self.outbox.move_on() => event?.map_or(Wake::Flushed, Wake::Link),
            () = timer => Wake::Timer,
        };
        Ok(wake)
    }

    /// Takes in what has come already, up to a limit, so that one flush does for all of it.
    async fn take_in_what_came(&mut self) -> Result<(), LinkError> {
        while self.outbox.has_room()
            && let Ok(happened) = self.results.try_recv()
        {
            self.happened(happened);
        }
        for _ in 0..BATCH_MESSAGES {
            if !self.outbox.has_room() {
                break;
            }
            match already(self.outbox.link.next()).await {
                Some(event) => self.link_event(event?),
                None => break,
            }
        }
        Ok(())
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Message(message) => self.message(&message),
            LinkEvent::Up => {
                self.outbox.up = true;
                self.announcements.all();
                tracing::info!("broker link up");
            }
            LinkEvent::Down { reason } => {
                self.outbox.up = false;
                tracing::warn!(reason, "broker link down");
            }
        }
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::ReportStored { device, digest, report, applied } => {
                self.report_stored(device, digest, &report, &applied);
            }
            Happened::Saved { applied } => self.note_store(&applied),
            Happened::Read { segment, result } => self.segment_read(segment, result),
            Happened::Decided(outcome) => self.decided(*outcome),
        }
    }

    fn note_store(&self, applied: &Applied) {
        if applied.is_err() {
            Counters::count(&self.counters.store_failures);
        }
    }

    fn next_timer(&self) -> Instant {
        let more = self.announcements.is_due(self.outbox.up) || !self.ready.is_empty();
        if more && self.outbox.has_room() {
            return self.now;
        }
        [self.sessions.next_timer(), self.save_at, Some(self.beacon.due)]
            .into_iter()
            .flatten()
            .fold(self.sweep_at, Instant::min)
    }

    fn timers(&mut self) {
        while let Some(device) = self.sessions.due(self.now) {
            self.session_timeout(&device);
        }
        if self.save_at.is_some_and(|at| at <= self.now) {
            self.save();
        }
        if self.beacon.due <= self.now {
            self.order_beacon();
        }
        if self.sweep_at <= self.now {
            self.sweep_at = self.now.plus_millis(SWEEP_EVERY_MS);
            self.sessions.drop_idle(self.now);
        }
    }

    /// Hands to the store what was worth storing and not urgent.
    fn save(&mut self) {
        self.save_at = None;
        let mut changes: Vec<Change> =
            self.unsaved_deployments.drain().map(|(_, row)| Change::Deployment(row)).collect();
        for device in self.unsaved_facts.drain() {
            if let Some(known) = self.registry.device(&device) {
                changes.push(Change::Facts(device, known.facts));
            }
        }
        if changes.is_empty() {
            return;
        }
        let tell = self.tell.clone();
        let taken = self.store.submit(changes, move |applied| {
            let _stopping = tell.send(Happened::Saved { applied });
        });
        if !taken {
            Counters::count(&self.counters.store_overruns);
        }
    }

    fn save_soon(&mut self) {
        self.save_at.get_or_insert(self.now.plus_millis(SAVE_AFTER_MS));
    }

    /// Stops: what is not stored yet is handed over, what is queued goes out. The store finishes by itself.
    async fn finish(mut self) -> Result<(), LinkError> {
        self.save();
        self.outbox.link.flush().await
    }
}

/// Reads the campaigns of the store. Documents that were replaced are not in force any more, whatever they say.
fn load_campaigns(rows: Vec<crate::store::CampaignRow>, deployments: Vec<DeploymentRow>) -> Campaigns {
    let mut by_campaign: HashMap<CampaignId, Vec<DeploymentRow>> = HashMap::new();
    for row in deployments {
        by_campaign.entry(row.campaign).or_default().push(row);
    }
    let mut campaigns = Campaigns::default();
    for row in rows {
        let document = whimbrel_protocol::cose::Sign1::decode(&row.document)
            .and_then(|object| message::Campaign::decode(object.unverified_payload().unwrap_or_default()));
        match document {
            Ok(document) => {
                let deployments = by_campaign.remove(&row.id).unwrap_or_default();
                debug_assert!(
                    row.phase != Phase::Replaced || deployments.is_empty(),
                    "they stay in the store"
                );
                campaigns.enter(Campaign::restore(document, &row, deployments));
            }
            Err(error) => tracing::error!(campaign = %row.id, reason = %error, "stored campaign left out"),
        }
    }
    campaigns
}

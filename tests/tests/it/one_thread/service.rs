//! The service without its shell: a fleet, a serving for each link, and what they ask of a host, done at once.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use whimbrel_protocol::cose::{Kind, sign_attached};
use whimbrel_protocol::ids::{CampaignId, DeviceId, GroupName, Prefix};
use whimbrel_protocol::message::Policy;
use whimbrel_protocol::testing::{Fixture, Release};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_service::attach::{Incoming, Outgoing};
use whimbrel_service::fleet::campaign::NewCampaign;
use whimbrel_service::fleet::registry::ImportLine;
use whimbrel_service::fleet::{self, Command, Denied, Document, Fleet, Question, Reply};
use whimbrel_service::metrics::Counters;
use whimbrel_service::serving::admission::{Rate, Rates};
use whimbrel_service::serving::{self, Serving};
use whimbrel_service::store::{MemoryPayloads, MemoryStore, Payloads, Standing, Terms};

/// A fleet with its store, and the servings over it.
pub(super) struct Service {
    pub(super) fixture: Fixture,
    pub(super) fleet: Fleet,
    pub(super) servings: Vec<Serving>,
    store: MemoryStore,
    payloads: MemoryPayloads,
    for_fleet: VecDeque<fleet::Input>,
    for_servings: VecDeque<(usize, serving::Input<'static>)>,
    /// What was published, and on which link, since the host last took it away.
    pub(super) sent: VecDeque<(usize, Outgoing)>,
    /// What the store was told since the host last took it away.
    pub(super) stored: VecDeque<String>,
}

/// A reply, and where its answer comes.
fn reply<T: Send + 'static>() -> (Reply<T>, mpsc::Receiver<Result<T, Denied>>) {
    let (tell, told) = mpsc::channel();
    (Reply::new(move |answer| tell.send(answer).unwrap()), told)
}

impl Service {
    pub(super) fn new(links: usize, seed: u64) -> Self {
        let fixture = Fixture::new();
        let store = MemoryStore::default();
        let settings = fleet::Settings {
            prefix: Prefix::default(),
            beacon_every_ms: 600_000,
            beacon_life_s: 3600,
            releases_max: 10,
        };
        let fleet = Fleet::restore(settings, fixture.root(), store.snapshot(), Instant::ZERO);
        let servings = (0..).take(links).map(|link| serving(seed ^ link)).collect();
        Self {
            fixture,
            fleet,
            servings,
            store,
            payloads: MemoryPayloads::default(),
            for_fleet: VecDeque::new(),
            for_servings: VecDeque::new(),
            sent: VecDeque::new(),
            stored: VecDeque::new(),
        }
    }

    fn today(&self, now: Instant) -> UnixTime {
        self.fixture.issued.plus_secs(now.as_millis() / 1000)
    }

    pub(super) fn decide(&mut self, now: Instant, input: fleet::Input) {
        self.for_fleet.push_back(input);
        self.settle(now);
    }

    pub(super) fn serve(&mut self, now: Instant, link: usize, input: serving::Input<'static>) {
        self.for_servings.push_back((link, input));
        self.settle(now);
    }

    /// A message of a device arrives on a link.
    pub(super) fn hear(&mut self, now: Instant, link: usize, message: &Incoming) {
        let today = self.today(now);
        self.servings[link].handle_input(now, today, &self.fleet, serving::Input::Message(message));
        self.settle(now);
    }

    /// Carries out everything that the machines put out, and what comes of it. Times that have come are not its
    /// business.
    fn settle(&mut self, now: Instant) {
        let today = self.today(now);
        loop {
            for link in 0..self.servings.len() {
                while let Some(output) = self.servings[link].poll_output() {
                    self.carry_out_serving(link, output);
                }
            }
            while let Some(output) = self.fleet.poll_output() {
                self.carry_out_fleet(now, output);
            }
            if let Some(input) = self.for_fleet.pop_front() {
                self.fleet.handle_input(now, today, input);
            } else if let Some((link, input)) = self.for_servings.pop_front() {
                self.servings[link].handle_input(now, today, &self.fleet, input);
            } else if let Some(serving) = self.servings.iter_mut().find(|serving| serving.queued() > 0) {
                serving.handle_input(now, today, &self.fleet, serving::Input::Flushed);
            } else {
                return;
            }
        }
    }

    fn carry_out_serving(&mut self, link: usize, output: serving::Output) {
        match output {
            serving::Output::Publish(message) => self.sent.push_back((link, message)),
            serving::Output::Answer { topic, answer } => {
                let signed = sign_attached(&self.fixture.beacon_key, Kind::Answer, None, &answer.encode());
                self.sent.push_back((link, Outgoing::to_device(topic, Bytes::from(signed))));
            }
            serving::Output::Read { extent, payload } => {
                let result = extent.read(&self.payloads, &payload);
                self.for_servings.push_back((link, serving::Input::Read { extent, result }));
            }
            serving::Output::Fleet(input) => self.for_fleet.push_back(input),
            serving::Output::Event(_) => {}
        }
    }

    fn carry_out_fleet(&mut self, now: Instant, output: fleet::Output) {
        let links = self.servings.len();
        let mut tell_servings = |input: &dyn Fn() -> serving::Input<'static>| {
            self.for_servings.extend((0..links).map(|link| (link, input())));
        };
        match output {
            fleet::Output::NextVersions(of) => {
                self.for_fleet.push_back(fleet::Input::Versions(Ok(self.store.versions_now(&of))));
            }
            fleet::Output::Sign(documents) => {
                let signed = documents.iter().map(|document| sign(&self.fixture, document)).collect();
                self.for_fleet.push_back(fleet::Input::Signed(signed));
            }
            fleet::Output::Store { job, changes } => {
                self.stored.push_back(format!("{job:?} {changes:?}"));
                let applied = Ok(self.store.apply_now(&changes));
                self.for_fleet.push_back(fleet::Input::Stored { job, applied });
            }
            fleet::Output::Changed(device) => tell_servings(&|| serving::Input::Changed(device.clone())),
            fleet::Output::Publish(what) => tell_servings(&|| serving::Input::Publish(what.clone())),
            fleet::Output::ReportStored { device, digest } => {
                tell_servings(&|| serving::Input::ReportStored { device: device.clone(), digest });
            }
            fleet::Output::Answer(answer) => answer.deliver(),
            fleet::Output::ShowDevice { device, reply } => {
                let heard = |device: &_| self.servings.iter().filter_map(|one| one.heard(device)).max();
                self.fleet.show_device(now, self.today(now), &device, reply, &heard).deliver();
            }
            fleet::Output::Event(_) => {}
        }
    }

    /// Has an operator change something.
    fn change<T: Send + 'static>(
        &mut self,
        now: Instant,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Denied> {
        let (reply, answer) = reply();
        self.decide(now, fleet::Input::Command(command(reply)));
        answer.try_recv().expect("everything is carried out at once")
    }

    pub(super) fn import(&mut self, now: Instant, lines: Vec<ImportLine>) {
        self.change(now, |reply| Command::Import { lines, reply }).unwrap();
    }

    /// Accepts every device that waits for it, into one group.
    pub(super) fn accept_pending(&mut self, now: Instant, group: &GroupName) {
        let known = self.fleet.registry().devices_after(None);
        let pending: Vec<_> = known
            .filter_map(|device| match &device.standing {
                Standing::Pending { key, .. } => Some((device.id.clone(), key.fingerprint())),
                _ => None,
            })
            .collect();
        for (id, fingerprint) in pending {
            let groups = Some(vec![group.clone()]);
            self.change(now, |reply| Command::Accept { id, fingerprint, groups, reply }).unwrap();
        }
    }

    /// Publishes a release with its payload.
    pub(super) fn publish(&mut self, now: Instant, release: &Release) {
        let (root, today) = (self.fixture.root(), self.today(now));
        let known = Box::new(fleet::catalog::Release::read(&release.envelope, &root, today).unwrap());
        let mut upload = self.payloads.begin(known.payloads[0].spec.clone()).unwrap();
        upload.write(&release.payload).unwrap();
        let row = upload.finish(today).unwrap();
        self.change(now, |reply| Command::AddRelease { release: known, reply }).unwrap();
        self.change(now, |reply| Command::AddPayload { row, reply }).unwrap();
    }

    /// Creates a campaign whose devices begin within `spread_s` seconds.
    pub(super) fn campaign(&mut self, now: Instant, release: &Release, group: &GroupName, spread_s: u64) {
        let new = Box::new(NewCampaign {
            group: group.clone(),
            not_before: None,
            spread_s,
            terms: Terms::lasting(24 * 3600),
            policy: Policy::Soft,
            priority: 0,
            min_sequence: 0,
        });
        let (release, id) = (release.digest.to_hex(), CAMPAIGN);
        self.change(now, |reply| Command::NewCampaign { release, new, id, reply }).unwrap();
    }

    /// The campaign as its operators see it.
    pub(super) fn shown(&self, now: Instant) -> serde_json::Value {
        let (reply, answer) = reply();
        let question = Question::Campaign { prefix: CAMPAIGN.to_hex(), devices: None, reply };
        let heard = |device: &DeviceId| self.servings.iter().filter_map(|one| one.heard(device)).max();
        self.fleet.answer(now, self.today(now), question, &heard).deliver();
        serde_json::to_value(answer.try_recv().unwrap().unwrap().shown).unwrap()
    }
}

/// The id of the only campaign.
pub(super) const CAMPAIGN: CampaignId = CampaignId([9; 8]);

fn serving(seed: u64) -> Serving {
    let plenty = Rate { bytes_per_s: 1 << 40, burst_bytes: 1 << 40 };
    // So little that some devices are told to come back later.
    let total = Rate { bytes_per_s: 64 << 10, burst_bytes: 128 << 10 };
    let settings = serving::Settings {
        prefix: Prefix::default(),
        sessions_max: 100,
        session_idle_ms: 3_600_000,
        frame_cache_bytes: 1 << 20,
        payload_cache_bytes: 8 << 20,
        rates: Rates { device: plenty, campaign: plenty, cell: plenty, total },
        broker_forgets: true,
    };
    Serving::new(settings, Arc::new(Counters::default()), seed, Instant::ZERO)
}

/// Signs as the service would with the keys of the fixture.
fn sign(fixture: &Fixture, document: &Document) -> Bytes {
    let (key, kind, payload) = match document {
        Document::Campaign(campaign) => (&fixture.campaign_key, Kind::Campaign, campaign.encode()),
        Document::Assignment(assignment) => (&fixture.campaign_key, Kind::Assignment, assignment.encode()),
        Document::Beacon(beacon) => (&fixture.beacon_key, Kind::Beacon, beacon.encode()),
    };
    Bytes::from(sign_attached(key, kind, None, &payload))
}

//! A host of the two machines without a runtime, a network or a disk: what they put out is carried out at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use whimbrel_protocol::cose::{Kind, SigningKey, sign_attached};
use whimbrel_protocol::ids::{CampaignId, DeviceId, GroupName, Prefix};
use whimbrel_protocol::message::Policy;
use whimbrel_protocol::testing::{Fixture, Release};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_service::attach::{Incoming, Outgoing};
use whimbrel_service::fleet::campaign::NewCampaign;
use whimbrel_service::fleet::registry::ImportLine;
use whimbrel_service::fleet::{self, Command, Denied, Document, Fleet, Reply};
use whimbrel_service::metrics::Counters;
use whimbrel_service::serving::admission::{Rate, Rates};
use whimbrel_service::serving::{self, Serving};
use whimbrel_service::store::{MemoryPayloads, MemoryStore, Payloads, Terms};

pub(crate) const TODAY: UnixTime = UnixTime::from_secs(1_800_000_000);

/// A fleet with its store, and the links over it.
pub(crate) struct Host {
    pub(crate) fixture: Fixture,
    pub(crate) fleet: Fleet,
    pub(crate) store: MemoryStore,
    pub(crate) payloads: MemoryPayloads,
    pub(crate) links: Vec<Link>,
    pub(crate) now: Instant,
    for_fleet: VecDeque<fleet::Input>,
}

/// One link, with what was sent on it.
pub(crate) struct Link {
    pub(crate) serving: Serving,
    pub(crate) sent: Vec<Outgoing>,
    /// Extents that were read for it.
    pub(crate) reads: usize,
    inputs: VecDeque<serving::Input<'static>>,
}

pub(crate) fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

pub(crate) fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub(crate) fn key(secret: u8) -> SigningKey {
    SigningKey::ed25519(&[secret; 32])
}

pub(crate) fn prefix() -> Prefix {
    Prefix::new("ota").unwrap()
}

pub(crate) fn fleet_settings() -> fleet::Settings {
    fleet::Settings { prefix: prefix(), beacon_every_ms: 600_000, beacon_life_s: 3600, releases_max: 10 }
}

/// Signs as the service would with the keys of the fixture.
pub(crate) fn sign(fixture: &Fixture, document: &Document) -> Bytes {
    let (key, kind, payload) = match document {
        Document::Campaign(campaign) => (&fixture.campaign_key, Kind::Campaign, campaign.encode()),
        Document::Assignment(assignment) => (&fixture.campaign_key, Kind::Assignment, assignment.encode()),
        Document::Beacon(beacon) => (&fixture.beacon_key, Kind::Beacon, beacon.encode()),
    };
    Bytes::from(sign_attached(key, kind, None, &payload))
}

/// A reply, and where its answer comes.
pub(crate) fn reply<T: Send + 'static>() -> (Reply<T>, mpsc::Receiver<Result<T, Denied>>) {
    let (tell, told) = mpsc::channel();
    (Reply::new(move |answer| tell.send(answer).unwrap()), told)
}

pub(crate) fn new_campaign(name: &str) -> Box<NewCampaign> {
    Box::new(NewCampaign {
        group: group(name),
        not_before: None,
        spread_s: 0,
        terms: Terms::lasting(3600),
        policy: Policy::Soft,
        priority: 0,
        min_sequence: 0,
    })
}

impl Host {
    pub(crate) fn with_links(links: usize) -> Self {
        Self::over(MemoryStore::default(), links)
    }

    /// A fleet as it was stored.
    pub(crate) fn over(store: MemoryStore, links: usize) -> Self {
        let fixture = Fixture::new();
        let fleet = Fleet::restore(fleet_settings(), fixture.root(), store.snapshot(), Instant::ZERO);
        let links = (0..links).map(|_| Link::new()).collect();
        let payloads = MemoryPayloads::default();
        Self { fixture, fleet, store, payloads, links, now: Instant::ZERO, for_fleet: VecDeque::new() }
    }

    pub(crate) fn decide(&mut self, input: fleet::Input) {
        self.fleet.handle_input(self.now, TODAY, input);
        self.settle();
    }

    pub(crate) fn serve(&mut self, link: usize, input: serving::Input<'_>) {
        self.links[link].serving.handle_input(self.now, TODAY, &self.fleet, input);
        self.settle();
    }

    /// Lets every link do what is due, and flushes what came of it.
    pub(crate) fn turn(&mut self) {
        for link in 0..self.links.len() {
            self.serve(link, serving::Input::Timeout);
            self.serve(link, serving::Input::Flushed);
        }
    }

    /// Lets a device say something on a link; gives what is sent to it.
    pub(crate) fn say(&mut self, link: usize, name: &str, channel: char, message: &[u8]) -> Vec<Bytes> {
        let before = self.links[link].sent.len();
        let topic = Bytes::from(format!("ota/d/{name}/{channel}"));
        let incoming = Incoming { topic, payload: Bytes::copy_from_slice(message), retained: false };
        self.serve(link, serving::Input::Message(&incoming));
        self.turn();
        let answers = format!("ota/d/{name}/c");
        let sent = self.links[link].sent[before..].iter().filter(|sent| sent.topic == answers);
        sent.map(|sent| sent.payload.clone()).collect()
    }

    /// Has an operator change something.
    pub(crate) fn change<T: Send + 'static>(
        &mut self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Denied> {
        let (reply, answer) = reply();
        self.decide(fleet::Input::Command(command(reply)));
        answer.try_recv().expect("everything is carried out at once")
    }

    /// Accepts devices with the keys 1, 2, ...
    pub(crate) fn import(&mut self, names: &[&str]) {
        let line = |(number, name): (usize, &&str)| ImportLine {
            number,
            device: id(name),
            key: key(number as u8).public(),
            class: self.fixture.class,
            groups: vec![group("all")],
        };
        let lines = (1..).zip(names).map(line).collect();
        self.change(|reply| Command::Import { lines, reply }).unwrap();
    }

    /// Publishes a release with its payload.
    pub(crate) fn release(&mut self, bytes: usize) -> Release {
        let image = (0..bytes).map(|at| (at * 7 % 251) as u8).collect();
        let release = self.fixture.release(image, 5, 10);
        let read = fleet::catalog::Release::read(&release.envelope, &self.fixture.root(), TODAY);
        let known = Box::new(read.unwrap());
        let mut upload = self.payloads.begin(known.payloads[0].spec.clone()).unwrap();
        upload.write(&release.payload).unwrap();
        let row = upload.finish(TODAY).unwrap();
        self.change(|reply| Command::AddRelease { release: known, reply }).unwrap();
        self.change(|reply| Command::AddPayload { row, reply }).unwrap();
        release
    }

    pub(crate) fn campaign(&mut self, release: &Release, name: &str) -> CampaignId {
        let (release, new, id) = (release.digest.to_hex(), new_campaign(name), CampaignId([9; 8]));
        let view = self.change(|reply| Command::NewCampaign { release, new, id, reply }).unwrap();
        let mut id = [0; 8];
        hex::decode_to_slice(view.shown.id, &mut id).unwrap();
        CampaignId(id)
    }

    fn settle(&mut self) {
        loop {
            for link in 0..self.links.len() {
                while let Some(output) = self.links[link].serving.poll_output() {
                    self.carry_out_serving(link, output);
                }
            }
            while let Some(output) = self.fleet.poll_output() {
                self.carry_out_fleet(output);
            }
            if let Some(input) = self.for_fleet.pop_front() {
                self.fleet.handle_input(self.now, TODAY, input);
                continue;
            }
            let Some(link) = self.links.iter_mut().find(|link| !link.inputs.is_empty()) else { return };
            let input = link.inputs.pop_front().unwrap();
            link.serving.handle_input(self.now, TODAY, &self.fleet, input);
        }
    }

    fn carry_out_serving(&mut self, link: usize, output: serving::Output) {
        let Link { sent, reads, inputs, .. } = &mut self.links[link];
        match output {
            serving::Output::Publish(message) => sent.push(message),
            serving::Output::Answer { topic, answer } => {
                let signed = sign_attached(&self.fixture.beacon_key, Kind::Answer, None, &answer.encode());
                sent.push(Outgoing::to_device(topic, Bytes::from(signed)));
            }
            serving::Output::Read { extent, payload } => {
                *reads += 1;
                let result = extent.read(&self.payloads, &payload);
                inputs.push_back(serving::Input::Read { extent, result });
            }
            serving::Output::Fleet(input) => self.for_fleet.push_back(input),
            serving::Output::Event(_) => {}
        }
    }

    fn carry_out_fleet(&mut self, output: fleet::Output) {
        let mut tell_links = |input: &dyn Fn() -> serving::Input<'static>| {
            self.links.iter_mut().for_each(|link| link.inputs.push_back(input()));
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
                let applied = Ok(self.store.apply_now(&changes));
                self.for_fleet.push_back(fleet::Input::Stored { job, applied });
            }
            fleet::Output::Changed(device) => tell_links(&|| serving::Input::Changed(device.clone())),
            fleet::Output::Publish(what) => tell_links(&|| serving::Input::Publish(what.clone())),
            fleet::Output::ReportStored { device, digest } => {
                tell_links(&|| serving::Input::ReportStored { device: device.clone(), digest });
            }
            fleet::Output::Answer(answer) => answer.deliver(),
            fleet::Output::ShowDevice { device, reply } => {
                let heard =
                    |device: &_| self.links.iter().filter_map(|link| link.serving.heard(device)).max();
                self.fleet.show_device(self.now, TODAY, &device, reply, &heard).deliver();
            }
            fleet::Output::Event(_) => {}
        }
    }
}

impl Link {
    fn new() -> Self {
        let plenty = Rate { bytes_per_s: 1 << 40, burst_bytes: 1 << 40 };
        let settings = serving::Settings {
            prefix: prefix(),
            sessions_max: 100,
            session_idle_ms: 3_600_000,
            frame_cache_bytes: 1 << 20,
            payload_cache_bytes: 8 << 20,
            rates: Rates { device: plenty, campaign: plenty, cell: plenty, total: plenty },
            broker_forgets: true,
        };
        let serving = Serving::new(settings, Arc::new(Counters::default()), 7, Instant::ZERO);
        Self { serving, sent: Vec::new(), reads: 0, inputs: VecDeque::new() }
    }
}

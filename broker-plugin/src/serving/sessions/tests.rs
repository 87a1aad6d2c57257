use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::ids::{CampaignId, ClassId, Digest, GroupName};
use whimbrel_protocol::server::Standing;
use whimbrel_protocol::testing::Fixture;

use super::*;
use crate::fleet::campaign::tests::{TODAY, enter, new_campaign};
use crate::fleet::campaign::{Campaigns, Command, Identity, Input, NewCampaign};
use crate::fleet::catalog::{Catalog, Release};
use crate::serving::admission::{Rate, Rates};
use crate::store::{self, Device, Facts, PayloadRow};

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn prefix() -> Prefix {
    Prefix::new("ota").unwrap()
}

/// Releases and campaigns, and devices that look at them.
struct World {
    fixture: Fixture,
    catalog: Catalog,
    campaigns: Campaigns,
}

impl World {
    fn new() -> Self {
        Self { fixture: Fixture::new(), catalog: Catalog::new(10), campaigns: Campaigns::default() }
    }

    /// A campaign of its own release for a group; the payload of the release is there.
    fn campaign(&mut self, number: u8, name: &str, priority: u64) -> Digest {
        let made = self.fixture.release(vec![number; 5000], u64::from(number), 10);
        let release = Release::read(&made.envelope, &self.fixture.root(), TODAY).unwrap();
        let (index, image) = (made.index.digest, release.images[0].digest);
        self.catalog.enter_payload(PayloadRow { index, image, layout: made.layout, added: TODAY });
        let new = NewCampaign { group: group(name), priority, ..new_campaign() };
        let version = self.campaigns.version() + 1;
        let identity = Identity { prefix: prefix(), id: CampaignId([number; 8]), version };
        self.campaigns.enter(enter(new.document(&release, identity, TODAY).unwrap()));
        let digest = release.digest;
        self.catalog.enter(release);
        digest
    }

    fn accepted(&self, groups: &[&str]) -> Device {
        let key = SigningKey::ed25519(&[1; 32]).public();
        let groups = groups.iter().map(|name| group(name)).collect();
        Device {
            id: id("m1"),
            class: self.fixture.class,
            standing: store::Standing::Accepted { key, groups, assignment: Bytes::new() },
            reported: store::Reported::default(),
            rekeyed: None,
            assignment_version: 7,
            facts: Facts::default(),
        }
    }

    fn view(&self, device: &Device) -> View {
        View::of(Some(device), &self.campaigns, &self.catalog, 3)
    }

    /// Groups and versions of the documents that a device of these groups is told of.
    fn told(&self, groups: &[&str]) -> Vec<(String, u64)> {
        let view = self.view(&self.accepted(groups));
        let documents = view.borrow().campaigns.iter();
        documents.map(|known| (known.group.to_string(), known.document.version)).collect()
    }

    /// The release that a device of these groups is served, and how many payloads of it; `None` if there is none.
    fn served(&self, groups: &[&str]) -> Option<(Digest, usize)> {
        let view = self.view(&self.accepted(groups));
        let live = view.borrow().live;
        live.map(|live| (live.release, live.payloads.len()))
    }
}

#[test]
fn a_device_is_told_of_the_documents_of_its_own_groups_and_of_no_others() {
    let mut world = World::new();
    world.campaign(1, "all", 0);
    world.campaign(2, "north", 0);
    world.campaign(3, "south", 0);
    let told = |name: &str, version| (name.to_owned(), version);
    assert_eq!(world.told(&["all", "north"]), [told("all", 1), told("north", 2)]);
    assert_eq!(world.told(&["south"]), [told("south", 3)]);
    assert_eq!(world.told(&["east"]), [], "a group without a campaign");
    assert_eq!(world.told(&[]), [], "a device that is in no group");
}

#[test]
fn a_device_is_served_the_release_of_its_own_groups_and_nothing_of_another_group() {
    let mut world = World::new();
    let all = world.campaign(1, "all", 0);
    let north = world.campaign(2, "north", 9);
    assert_eq!(world.served(&["all"]), Some((all, 1)));
    assert_eq!(world.served(&["all", "north"]), Some((north, 1)));
    assert_eq!(world.served(&["east"]), None);
    assert_eq!(world.served(&[]), None);
}

#[test]
fn a_device_of_another_class_is_told_of_its_groups_document_and_served_nothing_of_it() {
    let mut world = World::new();
    world.campaign(1, "all", 0);
    let device = Device { class: ClassId([9; 16]), ..world.accepted(&["all"]) };
    let view = world.view(&device);
    assert_eq!(view.borrow().campaigns.len(), 1);
    assert!(view.campaign().is_none() && view.pools().is_none());
}

#[test]
fn an_aborted_campaign_is_told_of_and_nothing_of_it_is_served() {
    let mut world = World::new();
    world.campaign(1, "all", 0);
    let campaign = world.campaigns.campaign_mut(&CampaignId([1; 8])).unwrap();
    let document = Box::new(campaign.next_document(Command::Abort, 2, TODAY).unwrap());
    campaign.handle_input(TODAY, Input::InForce { document, signed: Bytes::new() });
    assert_eq!(world.told(&["all"]), [("all".to_owned(), 2)]);
    assert_eq!(world.served(&["all"]), None);
}

#[test]
fn a_device_that_is_not_accepted_is_told_of_nothing_and_served_nothing() {
    let mut world = World::new();
    world.campaign(1, "all", 0);
    let key = SigningKey::ed25519(&[1; 32]).public();
    let waits = store::Standing::Pending { key, order: 0, groups: Vec::new() };
    for (standing, pending) in [(Some(waits), true), (Some(store::Standing::Forgotten), false), (None, false)]
    {
        let device = standing.map(|standing| Device { standing, ..world.accepted(&["all"]) });
        let view = View::of(device.as_ref(), &world.campaigns, &world.catalog, 3);
        let seen = view.borrow();
        match seen.standing {
            Standing::Pending => assert!(pending),
            Standing::Unknown => assert!(!pending),
            Standing::Accepted { .. } => panic!("it is not accepted"),
        }
        assert_eq!((seen.root_version, seen.campaigns.len()), (3, 0));
        assert!(seen.assignment.is_none() && view.campaign().is_none());
    }
}

#[test]
fn an_accepted_device_is_known_by_its_key_and_told_the_version_of_its_assignment() {
    let world = World::new();
    let view = world.view(&world.accepted(&["all"]));
    let seen = view.borrow();
    let Standing::Accepted { key } = seen.standing else { panic!() };
    assert_eq!(*key, SigningKey::ed25519(&[1; 32]).public());
    assert_eq!(seen.assignment.map(|document| document.version), Some(7));
}

/// Sessions with room for `sessions_max` that are dropped after 1000 ms of silence.
struct House {
    sessions: Sessions,
    admission: Admission,
}

impl House {
    fn with_room_for(sessions_max: usize) -> Self {
        let plenty = Rate { bytes_per_s: 1 << 40, burst_bytes: 1 << 40 };
        let rates = Rates { device: plenty, campaign: plenty, cell: plenty, total: plenty };
        let admission = Admission::new(rates, 7, Instant::ZERO);
        Self { sessions: Sessions::new(prefix(), sessions_max, 1000), admission }
    }

    fn speak(&mut self, name: &str, at_ms: u64) -> &mut Session {
        self.sessions.speak(&id(name), Instant::from_millis(at_ms), &self.admission)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.sessions.sessions.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }
}

#[test]
fn what_is_sent_to_a_device_goes_to_its_own_topic() {
    let mut house = House::with_room_for(10);
    assert_eq!(&house.speak("m1", 0).answers[..], b"ota/d/m1/c");
    assert_eq!(&house.speak("m2", 0).answers[..], b"ota/d/m2/c");
}

#[test]
fn a_session_is_dropped_when_its_device_was_silent_for_the_whole_time_and_not_before() {
    let mut house = House::with_room_for(10);
    house.speak("m1", 0);
    house.speak("m2", 1);
    house.sessions.drop_idle(Instant::from_millis(999));
    assert_eq!(house.names(), ["m1", "m2"]);
    house.sessions.drop_idle(Instant::from_millis(1000));
    assert_eq!((house.names(), house.sessions.dropped()), (vec!["m2".to_owned()], 1));
    house.speak("m2", 1001);
    house.sessions.drop_idle(Instant::from_millis(2000));
    assert_eq!((house.names(), house.sessions.len()), (vec!["m2".to_owned()], 1), "it spoke again");
}

#[test]
fn where_there_are_too_many_sessions_the_longest_silent_make_room() {
    let mut house = House::with_room_for(32);
    for number in 0..32 {
        house.speak(&format!("m{number:02}"), number);
    }
    house.speak("m00", 40);
    assert_eq!((house.sessions.len(), house.sessions.dropped()), (32, 0), "there was room, or it was there");
    house.speak("new", 50);
    assert_eq!((house.sessions.len(), house.sessions.dropped()), (30, 3), "a 16th and one, then the new one");
    for gone in ["m01", "m02", "m03"] {
        assert!(house.sessions.find(&id(gone)).is_none(), "{gone}");
    }
    for stays in ["m00", "m04", "m31", "new"] {
        assert!(house.sessions.find(&id(stays)).is_some(), "{stays}");
    }
    assert_eq!(house.sessions.heard(&id("m00")), Some(Instant::from_millis(40)));
    assert_eq!(house.sessions.heard(&id("m01")), None);
}

#[test]
fn with_room_for_one_session_the_last_who_speaks_has_it() {
    let mut house = House::with_room_for(1);
    house.speak("m1", 0);
    house.speak("m2", 0);
    assert_eq!(house.names(), ["m2"]);
}

#[test]
fn a_view_is_made_anew_when_the_world_or_the_device_has_changed_and_only_then() {
    let mut house = House::with_room_for(10);
    let made = core::cell::Cell::new(0);
    let world = || {
        made.set(made.get() + 1);
        View::default()
    };
    house.speak("m1", 0).refresh(1, world);
    house.speak("m1", 1).refresh(1, world);
    assert_eq!(made.get(), 1);
    house.speak("m1", 2).refresh(2, world);
    assert_eq!(made.get(), 2, "the world has changed");
    house.sessions.forget_view(&id("m2"));
    house.speak("m1", 3).refresh(2, world);
    assert_eq!(made.get(), 2, "another device has changed");
    house.sessions.forget_view(&id("m1"));
    house.speak("m1", 4).refresh(2, world);
    assert_eq!(made.get(), 3, "the device has changed");
}

/// A number of a payload that is there, and another.
fn payloads() -> [PayloadNumber; 2] {
    let mut world = World::new();
    world.campaign(1, "all", 0);
    world.campaign(2, "north", 0);
    let mut numbers = world.catalog.releases().flat_map(|release| world.catalog.live(release));
    [numbers.next().unwrap().1, numbers.next().unwrap().1]
}

/// The extent that a request for the first chunks of a payload waits for, on an empty frames.
fn extent(payload: PayloadNumber) -> Extent {
    let mut world = World::new();
    world.campaign(1, "all", 0);
    world.campaign(2, "north", 0);
    let row = world.catalog.payload(payload).unwrap();
    let numbered = crate::serving::frames::Numbered { number: payload, row };
    match crate::serving::frames::Frames::new(1 << 20, 1 << 20).chunks(numbered, ChunkIndex(0), 1) {
        crate::serving::frames::Framed::Read(extent) => extent,
        crate::serving::frames::Framed::Ready(_) => panic!("nothing was read yet"),
    }
}

fn waits(payload: PayloadNumber, first: u32, count: u32) -> Waits {
    let unsent = Unsent::Chunks { payload, runs: vec![(ChunkIndex(first), count)] };
    Waits { extent: extent(payload), unsent }
}

/// The first chunks of what waits.
fn waiting(session: &Session) -> Vec<u32> {
    let first = |waiting: &Waits| match &waiting.unsent {
        Unsent::Chunks { runs, .. } => runs[0].0.0,
        Unsent::Page { .. } => u32::MAX,
    };
    session.waiting.iter().map(first).collect()
}

#[test]
fn of_requests_that_wait_for_the_disk_the_oldest_is_forgotten_when_there_are_too_many() {
    let [payload, _] = payloads();
    let mut house = House::with_room_for(1);
    let session = house.speak("m1", 0);
    for first in 0..8 {
        session.wait(waits(payload, first, 1));
    }
    assert_eq!(waiting(session), [0, 1, 2, 3, 4, 5, 6, 7]);
    session.wait(waits(payload, 8, 1));
    assert_eq!(waiting(session), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_device_that_asks_again_for_what_waits_is_served_it_once() {
    let [payload, other] = payloads();
    let mut house = House::with_room_for(1);
    let ask_again = |house: &mut House, again: (u32, u32)| {
        let session = house.speak("m1", 0);
        session.waiting.clear();
        session.wait(waits(payload, 4, 4));
        session.wait(waits(payload, 10, 2));
        session.wait(waits(other, 20, 8));
        session.wait(Waits {
            extent: extent(payload),
            unsent: Unsent::Page { payload, page: PageNumber::List },
        });
        session.forget_waiting(payload, &[(ChunkIndex(again.0), again.1)]);
        waiting(session)
    };
    let page = u32::MAX;
    assert_eq!(ask_again(&mut house, (0, 4)), [4, 10, 20, page], "up to the first");
    assert_eq!(ask_again(&mut house, (0, 5)), [10, 20, page], "the first is asked for again");
    assert_eq!(ask_again(&mut house, (7, 1)), [10, 20, page]);
    assert_eq!(ask_again(&mut house, (8, 2)), [4, 10, 20, page], "what is between them");
    assert_eq!(ask_again(&mut house, (7, 4)), [20, page], "a part of both");
    assert_eq!(ask_again(&mut house, (20, 8)), [4, 10, 20, page], "another payload has these chunks");
}

#[test]
fn what_waited_for_a_segment_is_taken_out_and_the_rest_waits_on() {
    let [payload, other] = payloads();
    let mut house = House::with_room_for(1);
    let session = house.speak("m1", 0);
    session.wait(waits(payload, 1, 1));
    session.wait(waits(other, 2, 1));
    session.wait(waits(payload, 3, 1));
    assert_eq!(session.waited_for(extent(payload)).len(), 2);
    assert_eq!(waiting(session), [2]);
    assert!(session.waited_for(extent(payload)).is_empty());
}

/// Lets a device say hello, naming a report that is not stored: its machine waits for it for 3 s.
fn waits_for_a_report(house: &mut House, name: &str, at_ms: u64) {
    let hello = whimbrel_protocol::message::Hello {
        version_max: 1,
        class: ClassId([3; 16]).tag(),
        running: whimbrel_protocol::ids::ShortDigest([1; 8]),
        sequence: 4,
        root: 1,
        assignment: 0,
        groups: Vec::new(),
        nonce: whimbrel_protocol::ids::Nonce([1; 8]),
        report: Some(whimbrel_protocol::ids::ShortDigest([2; 8])),
    };
    let view = World::new();
    let view = view.view(&view.accepted(&["all"]));
    let session = house.speak(name, at_ms);
    let input =
        whimbrel_protocol::server::Input::Request(Ok(whimbrel_protocol::message::Request::Hello(hello)));
    session.machine.handle_input(Instant::from_millis(at_ms), TODAY, &view.borrow(), input);
    while session.machine.poll_output().is_some() {}
    house.sessions.set_timer(&id(name));
}

#[test]
fn a_machine_is_woken_when_it_wants_to_be_and_once() {
    let mut house = House::with_room_for(10);
    house.speak("idle", 0);
    house.sessions.set_timer(&id("idle"));
    assert_eq!(house.sessions.next_timer(), None, "it wants nothing");
    waits_for_a_report(&mut house, "m1", 100);
    waits_for_a_report(&mut house, "m2", 50);
    let at = Instant::from_millis;
    assert_eq!(house.sessions.next_timer(), Some(at(3050)));
    // It wants nothing earlier: one timer is enough, however often it is asked.
    house.sessions.set_timer(&id("m1"));
    assert_eq!(house.sessions.timers.len(), 2);
    assert_eq!(house.sessions.due(at(3049)), None);
    assert_eq!(house.sessions.due(at(3050)), Some(id("m2")));
    assert_eq!(house.sessions.due(at(3050)), None);
    assert_eq!(house.sessions.next_timer(), Some(at(3100)));
    assert_eq!(house.sessions.due(at(5000)), Some(id("m1")));
    assert_eq!((house.sessions.due(at(5000)), house.sessions.next_timer()), (None, None));
    // When it has gone off, the next new is heard again.
    waits_for_a_report(&mut house, "m1", 6000);
    assert_eq!(house.sessions.next_timer(), Some(at(9000)));
}

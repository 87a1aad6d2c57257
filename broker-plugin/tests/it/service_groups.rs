//! Who is told of what and served what, and what counts for which campaign: groups, seen from the wire.

use serde_json::{Value, json};
use whimbrel_protocol::cose::{Kind, Sign1};
use whimbrel_protocol::ids::{CampaignId, ClassId};
use whimbrel_protocol::message::{
    Answer, Campaign, DocumentRequest, HelloAnswer, PageNumber, PageRequest, RefusalCode, State, Status,
};
use whimbrel_protocol::testing::Release;

use crate::front_support::Client;
use crate::service_support::{On, Service, device_key, hex_key, image};
use crate::voice::{Voice, ask, campaign_id, confirmed, enrolment, enrolment_signed_by};

/// m1 and m3 in group north, m2 in group south; a campaign for each group.
struct World {
    service: Service,
    north: (Release, CampaignId),
    south: (Release, CampaignId),
}

impl World {
    fn new() -> Self {
        let service = Service::start(On::Itself);
        import(&service, &[("m1", 1, "north"), ("m2", 2, "south"), ("m3", 3, "north")]);
        let release = |sequence| {
            let release = service.release(50_000, sequence);
            service.publish(&release);
            release
        };
        let (north, south) = (release(5), release(6));
        let north_campaign = campaign(&service, &north, "north");
        let south_campaign = campaign(&service, &south, "south");
        Self { service, north: (north, north_campaign), south: (south, south_campaign) }
    }

    /// Every campaign as operators see it, with its devices, without the time at which each was last heard.
    fn campaigns(&self) -> Vec<Value> {
        let ids = self.service.get("/v1/campaigns");
        let ids = ids.as_array().unwrap().iter().map(|campaign| campaign["id"].as_str().unwrap().to_owned());
        let whole = ids.map(|id| {
            let mut whole = self.service.get(&format!("/v1/campaigns/{id}?devices=1"));
            for device in whole["device_list"].as_array_mut().unwrap() {
                device["seen"] = Value::Null;
            }
            whole
        });
        whole.collect()
    }

    /// What operators see of the campaign of a group.
    fn counts(&self, of: &(Release, CampaignId)) -> Value {
        self.service.get(&format!("/v1/campaigns/{}", of.1.to_hex()))["devices"].clone()
    }
}

fn import(service: &Service, devices: &[(&str, u8, &str)]) {
    let class = service.fixture.class.to_hex();
    let lines: Vec<String> = devices
        .iter()
        .map(|(id, key, group)| format!("{id},{},{class},{group}", hex_key(&device_key(*key).public())))
        .collect();
    service.ok("POST", "/v1/devices/import", lines.join("\n").as_bytes());
}

fn campaign(service: &Service, release: &Release, group: &str) -> CampaignId {
    let order = json!({ "release": release.digest.to_hex(), "group": group });
    campaign_id(&service.post("/v1/campaigns", &order))
}

/// What a device hears when it asks what is current: the groups that the answer names, and the groups whose
/// documents come with it.
fn told(voice: &mut Voice<'_>, nonce: u8) -> (Vec<String>, Vec<String>) {
    voice.hello(nonce, None);
    let answer = voice.hear().payload;
    let answer = Sign1::decode(&answer).unwrap();
    assert_eq!(answer.claimed_kind(), Some(Kind::Answer));
    let answer = HelloAnswer::decode(answer.unverified_payload().unwrap()).unwrap();
    let named: Vec<String> = answer.groups.iter().map(|known| known.group.to_string()).collect();
    let brought = named.iter().map(|_| {
        let document = voice.hear().payload;
        let document = Sign1::decode(&document).unwrap();
        assert_eq!(document.claimed_kind(), Some(Kind::Campaign));
        Campaign::decode(document.unverified_payload().unwrap()).unwrap().group.to_string()
    });
    let brought = brought.collect();
    voice.hears_no_more();
    (named, brought)
}

/// Everything that can be asked for of a release is refused.
fn is_refused_all_of(voice: &mut Voice<'_>, release: &Release) {
    for message in [
        DocumentRequest::Manifest(release.digest.short()).encode(),
        PageRequest { payload: release.tag(), page: PageNumber::List }.encode(),
        PageRequest { payload: release.tag(), page: PageNumber::Page(0) }.encode(),
        ask(release, 0, 1, 1),
        ask(release, 8, 8, 4),
    ] {
        voice.say(&message);
        assert_eq!(voice.refusal().code, RefusalCode::NotYours);
    }
    voice.hears_no_more();
}

fn is_served(voice: &mut Voice<'_>, release: &Release) {
    voice.say(&DocumentRequest::Manifest(release.digest.short()).encode());
    assert_eq!(voice.hear().payload, release.envelope);
    voice.say(&PageRequest { payload: release.tag(), page: PageNumber::Page(0) }.encode());
    let heard = voice.hear();
    let Ok(Answer::Page(page)) = Answer::decode(&heard.payload) else { panic!("{heard:?}") };
    assert_eq!(page.bytes, release.index.page(0));
    voice.say(&ask(release, 0, 4, 4));
    assert_eq!(voice.chunks(4), &release.payload[..4096]);
}

#[test]
fn a_device_is_sent_the_campaign_of_its_own_group_and_of_no_other() {
    let world = World::new();
    let mut m1 = Voice::new(&world.service, "m1");
    let north = || vec!["north".to_owned()];
    assert_eq!(told(&mut m1, 1), (north(), north()));
    // It is moved: the other group's campaign comes, and its own does not any more.
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["south"]}"#);
    let south = || vec!["south".to_owned()];
    assert_eq!(told(&mut m1, 2), (south(), south()));
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["east"]}"#);
    assert_eq!(told(&mut m1, 3), (vec![], vec![]));
}

/// Campaigns stay with the broker for devices that come later: the door lets nobody else read them.
#[test]
fn the_topic_of_a_group_is_open_to_its_members_only() {
    let world = World::new();
    let mut m1 = Client::let_in(world.service.mqtt(), 4, "m1");
    let mut stranger = Client::let_in(world.service.mqtt(), 4, "m9");
    assert_eq!(m1.subscribe(&[("ota/g/south", 0), ("ota/g/+", 0), ("ota/g/east", 0)]), [0x80; 3]);
    assert_eq!(stranger.subscribe(&[("ota/g/north", 0), ("ota/g/south", 0)]), [0x80; 2]);
    assert_eq!(m1.subscribe(&[("ota/g/north", 0)]), [0]);
    assert_eq!(m1.expect_publish().topic, "ota/g/north");
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["south"]}"#);
    let mut m1 = Client::let_in(world.service.mqtt(), 4, "m1");
    assert_eq!(m1.subscribe(&[("ota/g/north", 0), ("ota/g/south", 0)]), [0x80, 0]);
    assert_eq!(m1.expect_publish().topic, "ota/g/south");
}

#[test]
fn nothing_of_a_group_is_served_to_a_device_that_is_not_in_it() {
    let world = World::new();
    let mut m1 = Voice::new(&world.service, "m1");
    is_refused_all_of(&mut m1, &world.south.0);
    assert_eq!(world.service.counter("served_bytes"), 0);
    assert_eq!(world.service.counter("page_messages") + world.service.counter("manifests"), 0);
    is_served(&mut m1, &world.north.0);
}

#[test]
fn a_device_that_has_left_a_group_is_served_nothing_of_it_from_then_on() {
    let world = World::new();
    let mut m1 = Voice::new(&world.service, "m1");
    is_served(&mut m1, &world.north.0);
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["south"]}"#);
    is_refused_all_of(&mut m1, &world.north.0);
    is_served(&mut m1, &world.south.0);
    let served = world.service.counter("served_bytes");
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":[]}"#);
    is_refused_all_of(&mut m1, &world.south.0);
    assert_eq!(world.service.counter("served_bytes"), served);
}

#[test]
fn a_report_about_a_campaign_that_its_device_was_never_in_counts_for_nothing() {
    let mut world = World::new();
    let mut m1 = Voice::new(&world.service, "m1");
    let before = world.campaigns();
    // About the campaign of another group, and about one that nobody has made.
    let (south, unknown) = (world.south.1, CampaignId([0xab; 8]));
    for (number, campaign) in (1..).zip([south, unknown]) {
        m1.report(&confirmed("m1", &device_key(1), campaign, world.south.0.digest));
        world.service.await_that("it is stored", |service| service.counter("reports") == number);
        assert_eq!(world.service.counter("reports_of_nothing"), number);
    }
    assert_eq!(world.campaigns(), before);
    // The one about its own campaign counts.
    m1.report(&confirmed("m1", &device_key(1), world.north.1, world.north.0.digest));
    world.service.await_that("it is stored", |service| service.counter("reports") == 3);
    assert_eq!(world.service.counter("reports_of_nothing"), 2);
    let counts = world.counts(&world.north);
    assert_eq!((&counts["confirmed"], &counts["waiting"]), (&json!(1), &json!(1)));
    drop(m1);
    // And nothing of it is in the database either.
    world.service.kill();
    world.service.launch();
    assert_eq!(world.campaigns()[1], before[1]);
    assert_eq!(world.counts(&world.north), counts);
}

/// A group may hold devices of several classes; a campaign is for one of them.
#[test]
fn a_report_of_a_device_of_another_class_counts_for_nothing() {
    let world = World::new();
    let (key, class) = (hex_key(&device_key(4).public()), ClassId([9; 16]).to_hex());
    world.service.ok("POST", "/v1/devices/import", format!("m4,{key},{class},north").as_bytes());
    let before = world.campaigns();
    let mut m4 = Voice::new(&world.service, "m4");
    m4.report(&confirmed("m4", &device_key(4), world.north.1, world.north.0.digest));
    world.service.await_that("it is stored", |service| service.counter("reports") == 1);
    assert_eq!(world.service.counter("reports_of_nothing"), 1);
    assert_eq!(world.campaigns(), before);
}

#[test]
fn a_report_of_a_device_that_was_in_the_campaign_counts_also_when_it_has_left_the_group() {
    let world = World::new();
    let mut m1 = Voice::new(&world.service, "m1");
    is_served(&mut m1, &world.north.0);
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["south"]}"#);
    m1.report(&confirmed("m1", &device_key(1), world.north.1, world.north.0.digest));
    world.service.await_that("it is stored", |service| service.counter("reports") == 1);
    assert_eq!(world.service.counter("reports_of_nothing"), 0);
    assert_eq!(world.counts(&world.north)["confirmed"], json!(1));
}

#[test]
fn a_status_about_another_campaign_changes_nothing() {
    let world = World::new();
    // A campaign of its own group that was replaced, one of another group, one that nobody has made.
    let replaced = world.north.1;
    let newer = world.service.fixture.release(image(50_000, 7), 7, 10);
    world.service.publish(&newer);
    let ruling = campaign(&world.service, &newer, "north");
    let mut m1 = Voice::new(&world.service, "m1");
    m1.say(&ask(&newer, 0, 4, 4));
    m1.chunks(4);
    world.service.await_that("it is done", Service::is_done);
    let before = world.campaigns();
    let status = |campaign| Status {
        campaign,
        attempt: 1,
        state: State::Installing,
        deferred: None,
        failure: None,
        chunks_held: 40,
        chunks: 49,
        bytes_received: 40_000,
        bytes_twice: 0,
    };
    for other in [replaced, world.south.1, CampaignId([0xab; 8])] {
        m1.say(&status(other).encode());
    }
    world.service.await_that("all were heard", Service::is_done);
    assert_eq!(world.campaigns(), before);
    m1.say(&status(ruling).encode());
    world.service.await_that("all were heard", Service::is_done);
    let counts = world.service.get(&format!("/v1/campaigns/{}", ruling.to_hex()))["devices"].clone();
    assert_eq!((&counts["installing"], &counts["waiting"]), (&json!(1), &json!(1)), "its own is believed");
    assert_eq!(world.counts(&world.south), before[1]["devices"]);
}

#[test]
fn an_enrolment_that_the_key_it_brings_did_not_sign_is_refused() {
    let service = Service::start(On::Itself);
    let mut m9 = Voice::new(&service, "m9");
    let (own, other) = (device_key(9), device_key(8));
    let mut broken = enrolment(&service, "m9", &own);
    *broken.last_mut().unwrap() ^= 1;
    m9.report(&enrolment_signed_by(&service, "m9", &own, &other));
    m9.report(&enrolment_signed_by(&service, "m9", &other, &own));
    m9.report(&broken);
    service.await_that("all are counted", |service| service.counter("rejected_unauthentic") == 3);
    assert!(service.device("m9").is_none());
    assert_eq!(
        (service.counter("enrolled"), &service.get("/v1/status")["devices"]["pending"]),
        (0, &json!(0))
    );
    m9.report(&enrolment(&service, "m9", &own));
    service.await_that("it is pending", |service| service.device("m9").is_some());
    let fingerprint = own.public().fingerprint().to_string();
    assert_eq!(service.device("m9").unwrap()["fingerprint"], json!(fingerprint));
}

#[test]
fn a_device_taken_out_of_a_group_hears_its_topic_no_more_at_once_and_one_put_in_may_subscribe_at_once() {
    let world = World::new();
    let mut m1 = Client::let_in(world.service.mqtt(), 4, "m1");
    assert_eq!(m1.subscribe(&[("ota/g/north", 0), ("ota/g/south", 0)]), [0, 0x80]);
    assert_eq!(m1.expect_publish().topic, "ota/g/north");
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["south"]}"#);
    assert_eq!(m1.subscribe(&[("ota/g/south", 0), ("ota/g/north", 0)]), [0, 0x80]);
    assert_eq!(m1.expect_publish().topic, "ota/g/south", "what is kept there");
    // The north hears of its campaign first, and m1 hears nothing before the south does.
    for (_, campaign) in [&world.north, &world.south] {
        world.service.post(&format!("/v1/campaigns/{}/abort", campaign.to_hex()), &json!({}));
    }
    assert_eq!(m1.expect_publish().topic, "ota/g/south");
    // Put back, it may read the north again.
    world.service.ok("PUT", "/v1/devices/m1/groups", br#"{"groups":["north"]}"#);
    assert_eq!(m1.subscribe(&[("ota/g/north", 0)]), [0]);
    assert_eq!(m1.expect_publish().topic, "ota/g/north");
}

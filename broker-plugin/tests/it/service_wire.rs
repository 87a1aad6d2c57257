//! What devices may ask for and what they get: on the wire, with messages made by hand.

use serde_json::json;
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::ids::{ChunkIndex, DeviceId, Nonce, PayloadTag};
use whimbrel_protocol::message::{
    Answer, ChunkRequest, DocumentRequest, PageNumber, PageRequest, RefusalCode, Report,
};

use crate::front_support::Client;
use crate::service_support::{On, Service, device_key, image};
use crate::voice::{Voice, ask, campaign_id, confirmed, enrolment, serving};

#[test]
fn chunks_pages_and_the_manifest_come_as_asked_for() {
    let (service, release) = serving(&[], 600_000);
    let mut m1 = Voice::new(&service, "m1");
    m1.say(&DocumentRequest::Manifest(release.digest.short()).encode());
    assert_eq!(m1.hear().payload, release.envelope);
    m1.say(&PageRequest { payload: release.tag(), page: PageNumber::Page(1) }.encode());
    let heard = m1.hear();
    let Ok(Answer::Page(page)) = Answer::decode(&heard.payload) else { panic!() };
    assert_eq!(page.bytes, release.index.page(1));
    // A window at the start, one at the end, and holes.
    m1.say(&ask(&release, 0, 8, 4));
    assert_eq!(m1.chunks(8), &release.payload[..8192]);
    let last = release.layout.chunk_count() - 3;
    m1.say(&ask(&release, last, 3, 4));
    assert_eq!(m1.chunks(3), &release.payload[last as usize * 1024..]);
    let holes = ChunkRequest {
        payload: release.tag(),
        first: ChunkIndex(16),
        count: 16,
        per_message: 8,
        wanted: Some(vec![0b0000_0101, 0b1100_0000]),
    };
    m1.say(&holes.encode());
    let wanted: Vec<u8> = [16, 18, 30, 31]
        .into_iter()
        .flat_map(|chunk| release.payload[chunk * 1024..][..1024].to_vec())
        .collect();
    assert_eq!(m1.chunks(4), wanted);
    assert_eq!(service.counter("chunk_messages"), 2 + 2 + 3, "consecutive ones share a message");
}

#[test]
fn who_is_not_accepted_is_served_nothing() {
    let (service, release) = serving(&[], 50_000);
    let mut stranger = Voice::new(&service, "m2");
    let is_refused = |service: &Service, number| {
        service.await_that("it is refused", |service| service.counter("refusals") == number);
    };
    for (number, message) in (1..).zip([
        ask(&release, 0, 4, 1),
        DocumentRequest::Manifest(release.digest.short()).encode(),
        PageRequest { payload: release.tag(), page: PageNumber::List }.encode(),
    ]) {
        stranger.say(&message);
        is_refused(&service, number);
        assert_eq!(stranger.refusal().code, RefusalCode::Unknown);
    }
    stranger.report(&enrolment(&service, "m2", &device_key(2)));
    service.await_that("it is pending", |service| service.device("m2").is_some());
    stranger.say(&ask(&release, 0, 4, 1));
    is_refused(&service, 4);
    let refusal = stranger.refusal();
    assert_eq!(refusal.code, RefusalCode::Pending);
    assert!(refusal.retry_after_s.is_some());
    assert_eq!(service.counter("served_bytes"), 0);
}

#[test]
fn only_the_release_that_a_device_should_run_is_served_to_it() {
    let (service, live) = serving(&[], 50_000);
    let other = service.release(50_000, 6);
    service.publish(&other);
    let other_class = whimbrel_protocol::ids::ClassId([9; 16]);
    let foreign =
        service.fixture.release_for(other_class, &service.fixture.release_key, image(9_000, 1), 1, 10);
    service.publish(&foreign);
    service.campaign(&foreign);
    let mut m1 = Voice::new(&service, "m1");
    // The newest campaign of its group is for another class: the device ignores it, and so does the service.
    m1.say(&ask(&live, 0, 1, 1));
    assert_eq!(m1.refusal().code, RefusalCode::NotYours, "the first campaign was replaced");
    let back = service.campaign(&live);
    m1.say(&ask(&live, 0, 1, 1));
    m1.chunks(1);
    for release in [&other, &foreign] {
        m1.say(&ask(release, 0, 1, 1));
        assert_eq!(m1.refusal().code, RefusalCode::NotYours);
        m1.say(&DocumentRequest::Manifest(release.digest.short()).encode());
        assert_eq!(m1.refusal().code, RefusalCode::NotYours);
    }
    service.post(&format!("/v1/campaigns/{}/abort", back["id"].as_str().unwrap()), &json!({}));
    m1.say(&ask(&live, 0, 1, 1));
    assert_eq!(m1.refusal().code, RefusalCode::NotYours, "called off");
}

#[test]
fn chunks_that_the_payload_does_not_have_are_not_found() {
    let (service, release) = serving(&[], 50_000);
    let mut m1 = Voice::new(&service, "m1");
    m1.say(&ask(&release, 40, 20, 1));
    assert_eq!(m1.refusal().code, RefusalCode::NotFound);
    m1.say(&PageRequest { payload: release.tag(), page: PageNumber::Page(1) }.encode());
    assert_eq!(m1.refusal().code, RefusalCode::NotFound);
    m1.say(&DocumentRequest::Root(2).encode());
    assert_eq!(m1.refusal().code, RefusalCode::NotFound);
    let unknown = ChunkRequest {
        payload: PayloadTag([1, 2, 3, 4]),
        first: ChunkIndex(0),
        count: 1,
        per_message: 1,
        wanted: None,
    };
    m1.say(&unknown.encode());
    assert_eq!(m1.refusal().code, RefusalCode::NotYours);
}

#[test]
fn a_request_for_more_than_a_window_or_a_message_is_refused_whole() {
    let service = Service::start(On::Itself);
    service.import(&[("m1", &device_key(1).public())]);
    // Chunks of 64 KiB: 2 of them are a window too many, and no two fit in a message.
    let release = service.fixture.release(image(1_000_000, 1), 5, 16);
    service.publish(&release);
    service.campaign(&release);
    let mut m1 = Voice::new(&service, "m1");
    for (count, per_message) in [(3, 1), (2, 2), (15, 1)] {
        m1.say(&ask(&release, 0, count, per_message));
        assert_eq!(m1.refusal().code, RefusalCode::Malformed, "{count} {per_message}");
    }
    assert_eq!(service.counter("served_bytes"), 0);
    m1.say(&ask(&release, 0, 2, 1));
    for _ in 0..2 {
        assert_eq!(m1.hear().payload.len(), 65536 + 4);
    }
}

#[test]
fn a_device_gets_a_payload_three_times_a_day_and_then_no_more() {
    let (service, release) = serving(&[], 20 * 1024);
    let mut m1 = Voice::new(&service, "m1");
    for _ in 0..3 {
        m1.say(&ask(&release, 0, 20, 4));
        assert_eq!(m1.chunks(20), release.payload);
    }
    m1.say(&ask(&release, 0, 1, 1));
    let refusal = m1.refusal();
    assert_eq!((refusal.code, refusal.retry_after_s), (RefusalCode::OverQuota, Some(3600)));
    assert_eq!(service.counter("rejected_too_often"), 1);
}

#[test]
fn a_device_that_asks_too_fast_is_told_to_come_back_and_pays_nothing_for_it() {
    let (service, release) = serving(&["limits.device-rate=1KiB", "limits.device-burst=128KiB"], 300 * 1024);
    let mut m1 = Voice::new(&service, "m1");
    m1.say(&ask(&release, 0, 64, 8));
    m1.chunks(64);
    m1.say(&ask(&release, 64, 64, 8));
    m1.chunks(64);
    m1.say(&ask(&release, 128, 32, 8));
    let refusal = m1.refusal();
    assert_eq!(refusal.code, RefusalCode::Busy);
    // 32 KiB at 1 KiB/s, and up to as long again.
    let wait = refusal.retry_after_s.unwrap();
    assert!((28..=65).contains(&wait), "{wait}");
    // Refusals are few too: a device that does not listen gets silence.
    for _ in 0..50 {
        m1.say(&ask(&release, 128, 32, 8));
    }
    service.await_that("all are counted", |service| service.counter("busy") == 51);
    assert!(service.counter("refusals") <= 12, "{}", service.counter("refusals"));
    assert_eq!(service.counter("rejected_too_often"), 0, "nothing of it was counted against its quota");
}

#[test]
fn what_will_not_be_served_is_refused_as_that_also_where_the_buckets_are_empty() {
    let (service, release) = serving(&["limits.device-rate=1KiB", "limits.device-burst=128KiB"], 300 * 1024);
    let mut m1 = Voice::new(&service, "m1");
    for first in [0, 64] {
        m1.say(&ask(&release, first, 64, 8));
        m1.chunks(64);
    }
    let request = ask(&release, 128, 32, 8);
    m1.say(&request[..request.len() - 1]);
    assert_eq!(m1.refusal().code, RefusalCode::Malformed);
    let (payload, first) = (PayloadTag([9; 4]), ChunkIndex(128));
    m1.say(&ChunkRequest { payload, first, count: 32, per_message: 8, wanted: None }.encode());
    assert_eq!(m1.refusal().code, RefusalCode::NotYours);
    assert_eq!((service.counter("rejected_malformed"), service.counter("busy")), (1, 0));
    m1.say(&request);
    assert_eq!(m1.refusal().code, RefusalCode::Busy, "they are empty");
}

#[test]
fn one_busy_device_does_not_make_the_others_wait_and_a_busy_service_makes_all() {
    let (service, release) = serving(&["limits.device-rate=1KiB", "limits.device-burst=128KiB"], 200 * 1024);
    service.import(&[("m2", &device_key(2).public())]);
    let mut m1 = Voice::new(&service, "m1");
    let mut m2 = Voice::new(&service, "m2");
    for first in [0, 64] {
        m1.say(&ask(&release, first, 64, 8));
        m1.chunks(64);
    }
    m1.say(&ask(&release, 128, 32, 8));
    assert_eq!(m1.refusal().code, RefusalCode::Busy);
    m2.say(&ask(&release, 0, 64, 8));
    m2.chunks(64);

    let total = ["limits.total-rate=1KiB", "limits.total-burst=128KiB"];
    let campaign = ["limits.campaign-rate=1KiB", "limits.campaign-burst=128KiB"];
    for settings in [total, campaign] {
        let (service, release) = serving(&settings, 200 * 1024);
        service.import(&[("m2", &device_key(2).public())]);
        let mut m1 = Voice::new(&service, "m1");
        let mut m2 = Voice::new(&service, "m2");
        for first in [0, 64] {
            m1.say(&ask(&release, first, 64, 8));
            m1.chunks(64);
        }
        m2.say(&ask(&release, 0, 32, 8));
        assert_eq!(m2.refusal().code, RefusalCode::Busy, "{settings:?}");
    }
}

#[test]
fn an_id_that_is_known_with_another_key_stays_whose_it_is() {
    let (service, _) = serving(&[], 5_000);
    let mut thief = Voice::new(&service, "m1");
    thief.report(&enrolment(&service, "m1", &device_key(2)));
    service.await_that("it is counted", |service| service.counter("enrolled_with_other_key") == 1);
    let fingerprint = device_key(1).public().fingerprint().to_string();
    assert_eq!(service.device("m1").unwrap()["fingerprint"], json!(fingerprint));
    service.post("/v1/devices/m1/reset", &json!({}));
    thief.report(&enrolment(&service, "m1", &device_key(2)));
    service.await_that("it is pending", |service| {
        service.device("m1").is_some_and(|device| device["state"] == "pending")
    });
    let other = device_key(2).public().fingerprint().to_string();
    assert_eq!(service.device("m1").unwrap()["fingerprint"], json!(other));
}

#[test]
fn a_device_cannot_enrol_or_report_for_another() {
    let (service, release) = serving(&[], 5_000);
    service.import(&[("m2", &device_key(2).public())]);
    let mut m2 = Voice::new(&service, "m2");
    let campaign = campaign_id(&service.get("/v1/campaigns")[0]);
    let report = |device: &str, key: &SigningKey| confirmed(device, key, campaign, release.digest);
    m2.report(&enrolment(&service, "m3", &device_key(3)));
    m2.report(&report("m1", &device_key(2)));
    m2.report(&report("m1", &device_key(1)));
    m2.report(&report("m2", &device_key(1)));
    service.await_that("all are counted", |service| service.counter("rejected_unauthentic") == 4);
    assert!(service.device("m3").is_none());
    let good = report("m2", &device_key(2));
    m2.report(&good);
    service.await_that("the right one counts", |service| service.counter("reports") == 1);
    let confirmed = &service.get("/v1/campaigns")[0]["devices"];
    assert_eq!((&confirmed["confirmed"], &confirmed["waiting"]), (&json!(1), &json!(1)));

    // Once, however often it comes; and it is acknowledged each time.
    m2.report(&good);
    service.await_that("again", |service| service.counter("reports_again") == 1);
    let report = Report::digest(&good).unwrap();
    m2.hello(1, Some(report));
    let heard = m2.hear();
    let echo = Nonce([1; 8]).echo(&DeviceId::new("m2").unwrap());
    let names = |bytes: [u8; 8]| heard.payload.windows(8).any(|part| part == bytes);
    assert!(names(echo.0) && names(report.0), "{heard:?}");
    assert_eq!(service.get("/v1/campaigns")[0]["devices"]["confirmed"], json!(1));
}

#[test]
fn rubbish_is_counted_and_the_service_serves_on() {
    let (service, release) = serving(&[], 5_000);
    let mut m1 = Voice::new(&service, "m1");
    let rubbish: [&[u8]; 7] = [b"", b"\x00", b"\x1f", b"\x11", b"\x12\x00", &[0xd2; 300], &[0x12; 2000]];
    for message in rubbish {
        m1.say(message);
        m1.report(message);
    }
    service.await_that("all are counted", |service| service.counter("rejected_malformed") == 14);
    let mut m2 = Voice::new(&service, "m1");
    m2.say(&ask(&release, 0, 1, 1));
    // Refusals of the rubbish may come first: they were sent to this topic.
    let heard = core::iter::from_fn(|| Some(m2.hear()))
        .find(|heard| matches!(Answer::decode(&heard.payload), Ok(Answer::Chunk(_))));
    assert!(heard.is_some());
}

/// A broker may let anybody publish anything, and keep it: nothing of that is believed.
#[test]
fn topics_of_nobody_and_messages_that_a_broker_has_kept_are_ignored() {
    let service = Service::start(On::Mosquitto);
    let mut client = Client::let_in(service.mqtt(), 4, "somebody");
    for topic in ["ota/d/x/q", "ota/d/a b/q"] {
        client.publish(topic, b"\x11", 0, false);
    }
    service.await_that("they are counted", |service| service.counter("ignored_topic") == 2);
    client.publish("ota/d/m1/q", b"\x11", 0, true);
    service.await_that("live it is looked at", |service| service.counter("rejected_malformed") == 1);
    // The service connects again and gets what was kept.
    let service = {
        let mut service = service;
        service.kill();
        service.launch();
        service
    };
    let looked_at =
        |service: &Service| service.counter("ignored_topic") + service.counter("rejected_malformed");
    service.await_that("it has come", |service| looked_at(service) >= 1);
    assert_eq!(service.counter("rejected_malformed"), 0, "kept it is not looked at");
}

#[test]
fn what_cannot_be_read_now_is_asked_for_again_later() {
    let (service, release) = serving(&[], 50_000);
    let file = service.path("data/payloads").join(format!("{}.payload", release.index.digest));
    let away = file.with_extension("away");
    std::fs::rename(&file, &away).unwrap();
    let mut m1 = Voice::new(&service, "m1");
    m1.say(&ask(&release, 0, 4, 1));
    let refusal = m1.refusal();
    assert_eq!((refusal.code, refusal.retry_after_s), (RefusalCode::Busy, Some(30)));
    m1.hears_no_more();
    assert_eq!((service.counter("read_failures"), service.counter("damaged_payloads")), (1, 0));
    std::fs::rename(&away, &file).unwrap();
    m1.say(&ask(&release, 0, 4, 1));
    assert_eq!(m1.chunks(4), &release.payload[..4096]);
}

#[test]
fn signatures_of_one_device_are_checked_at_a_limited_rate_and_those_of_others_are_checked_on() {
    let (service, _) = serving(&[], 5_000);
    let mut m1 = Voice::new(&service, "m1");
    // Each is read before its signature is looked at; one a second is looked at in the long run.
    for _ in 0..200 {
        m1.report(b"nothing that is signed");
    }
    let sum =
        |service: &Service| service.counter("rejected_malformed") + service.counter("rejected_too_often");
    service.await_that("all are counted", |service| sum(service) == 200);
    let looked_at = service.counter("rejected_malformed");
    assert!((32..100).contains(&looked_at), "{looked_at}");
    let mut m2 = Voice::new(&service, "m2");
    m2.report(&enrolment(&service, "m2", &device_key(2)));
    service.await_that("another one enrols", |service| service.device("m2").is_some());
}

#[test]
fn a_chunk_is_sent_to_the_device_that_asked_for_it_and_to_no_other() {
    let (service, release) = serving(&[], 50_000);
    service.import(&[("m2", &device_key(2).public())]);
    let (mut m1, mut m2) = (Voice::new(&service, "m1"), Voice::new(&service, "m2"));
    m1.say(&ask(&release, 0, 4, 4));
    assert_eq!(m1.chunks(4), &release.payload[..4096]);
    m2.hears_no_more();
    // Both wait for the same piece of the disk, which is read once.
    m1.say(&PageRequest { payload: release.tag(), page: PageNumber::List }.encode());
    m2.say(&PageRequest { payload: release.tag(), page: PageNumber::List }.encode());
    for voice in [&mut m1, &mut m2] {
        let heard = voice.hear();
        let Ok(Answer::Page(page)) = Answer::decode(&heard.payload) else { panic!("{heard:?}") };
        assert_eq!(page.bytes, release.index.list);
        voice.hears_no_more();
    }
}

#[test]
fn a_payload_that_was_damaged_on_the_disk_is_not_served_and_can_be_uploaded_again() {
    let (service, release) = serving(&[], 50_000);
    let file = service.path("data/payloads").join(format!("{}.payload", release.index.digest));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut m1 = Voice::new(&service, "m1");
    m1.say(&ask(&release, 0, 4, 1));
    assert_eq!(m1.refusal().code, RefusalCode::NotFound);
    assert_eq!(service.counter("damaged_payloads"), 1);
    let view = service.get(&format!("/v1/releases/{}", release.digest));
    assert_eq!(view["state"], "incomplete");
    service.publish(&release);
    m1.say(&ask(&release, 0, 40, 4));
    assert_eq!(m1.chunks(40), &release.payload[..40 * 1024]);
}

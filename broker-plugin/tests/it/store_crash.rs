//! The service is killed, and its disk is full: what it has acknowledged is there, the rest is not half there.

use serde_json::{Value, json};
use whimbrel_protocol::device::Event;
use whimbrel_protocol::message::State;
use whimbrel_protocol::retry::Jitter;

use crate::device_support::Device;
use crate::service_support::{On, Service, device_key, hex_key};

/// Devices of one import: all of them are there, or none.
const LIST: usize = 40;

/// What an operator was told.
#[derive(Debug, Default)]
struct Acknowledged {
    lists: Vec<usize>,
    releases: Vec<String>,
    payloads: Vec<String>,
    campaigns: Vec<String>,
}

fn list(service: &Service, number: usize) -> String {
    let (key, class) = (hex_key(&device_key(1).public()), service.fixture.class.to_hex());
    (0..LIST).map(|device| format!("list{number}-{device},{key},{class},all\n")).collect()
}

/// Works until the service does not answer any more.
fn work(service: &Service, round: u64, done: &mut Acknowledged) {
    let mut agent = Operator::new(service);
    for step in 0.. {
        let number = usize::try_from(round * 1000 + step).unwrap();
        let release = service.release(30_000, round * 1000 + step + 1);
        let worked = agent.try_ok("POST", "/v1/devices/import", list(service, number).as_bytes(), |_| {
            done.lists.push(number);
        }) && agent.try_ok("POST", "/v1/releases", &release.envelope, |_| {
            done.releases.push(release.digest.to_hex());
        }) && agent.try_ok(
            "PUT",
            &format!("/v1/payloads/{}", release.index.digest),
            &release.payload,
            |_| {
                done.payloads.push(release.index.digest.to_hex());
            },
        ) && agent.try_ok(
            "POST",
            "/v1/campaigns",
            json!({ "release": release.digest.to_hex(), "group": "all" }).to_string().as_bytes(),
            |campaign| done.campaigns.push(campaign["id"].as_str().unwrap().to_owned()),
        );
        if !worked {
            return;
        }
    }
}

/// An operator who notices that the service has gone.
struct Operator {
    agent: ureq::Agent,
    url: String,
}

impl Operator {
    fn new(service: &Service) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self { agent: config.build().into(), url: service.url() }
    }

    /// `false` where there was no answer. An answer must be a good one.
    fn try_ok(&mut self, method: &str, path: &str, body: &[u8], done: impl FnOnce(Value)) -> bool {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", crate::service_support::TOKEN));
        let Ok(mut response) = self.agent.run(request.body(body.to_vec()).unwrap()) else { return false };
        let status = response.status().as_u16();
        let Ok(text) = response.body_mut().read_to_string() else { return false };
        assert_eq!(status, 200, "{method} {path}: {text}");
        done(serde_json::from_str(&text).unwrap());
        true
    }
}

fn check(service: &Service, done: &Acknowledged) {
    let mut devices = Vec::new();
    let mut after = String::new();
    loop {
        let page = service.get(&format!("/v1/devices?state=accepted&limit=1000{after}"));
        devices.extend(page["devices"].as_array().unwrap().iter().map(|device| device["id"].clone()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let of_list = |number: usize| {
        let prefix = format!("list{number}-");
        devices.iter().filter(|id| id.as_str().unwrap().starts_with(&prefix)).count()
    };
    for number in &done.lists {
        assert_eq!(of_list(*number), LIST, "list {number} was acknowledged");
    }
    assert_eq!(devices.len() % LIST, 0, "a list is there whole or not at all");
    let releases = service.get("/v1/releases");
    let find =
        |name: &String| releases.as_array().unwrap().iter().find(|release| release["release"] == *name);
    for name in &done.releases {
        assert!(find(name).is_some(), "release {name} was acknowledged");
    }
    let complete = releases.as_array().unwrap().iter().filter(|release| release["state"] == "complete");
    assert!(complete.count() >= done.payloads.len(), "payloads were acknowledged");
    let campaigns = service.get("/v1/campaigns");
    let states: Vec<(&str, &Value)> = campaigns
        .as_array()
        .unwrap()
        .iter()
        .map(|campaign| (campaign["id"].as_str().unwrap(), &campaign["state"]))
        .collect();
    for id in &done.campaigns {
        assert!(states.iter().any(|(known, _)| known == id), "campaign {id} was acknowledged");
    }
    let active = states.iter().filter(|(_, state)| **state == "active").count();
    assert_eq!(active, usize::from(!states.is_empty()), "one campaign rules the group: {states:?}");
}

#[test]
fn killed_at_any_time_the_service_loses_nothing_that_it_acknowledged() {
    let mut service = Service::start(On::Itself);
    let mut done = Acknowledged::default();
    let mut moments = Jitter::new(7);
    for round in 0..12 {
        // The moment is drawn, not waited for: what is under way then differs from round to round.
        let moment = core::time::Duration::from_micros(20_000 + moments.below(300_000));
        let pid = rustix::process::Pid::from_raw(i32::try_from(service.pid()).unwrap()).unwrap();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(moment);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        work(&service, round, &mut done);
        killer.join().unwrap();
        service.kill();
        service.launch();
        check(&service, &done);
    }
    assert!(done.campaigns.len() >= 12, "it was at work: {}", done.campaigns.len());
    // And it is not only listed: a device gets the last of it.
    let newest = service.release(30_000, 1_000_000);
    service.publish(&newest);
    service.campaign(&newest);
    let mut device = Device::new("list0-0", device_key(1), &service.fixture, service.mqtt());
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
    assert_eq!(device.medium.running_image(), newest.image);
}

#[test]
fn a_report_that_was_acknowledged_is_counted_after_a_kill() {
    let mut service = Service::start(On::Itself);
    let keys: Vec<_> = (0..20).map(device_key).collect();
    let publics: Vec<_> = keys.iter().map(whimbrel_protocol::cose::SigningKey::public).collect();
    let names: Vec<String> = (0..20).map(|number| format!("m{number}")).collect();
    let list: Vec<_> = names.iter().map(String::as_str).zip(&publics).collect();
    service.import(&list);
    let release = service.release(5_000, 5);
    service.publish(&release);
    service.campaign(&release);
    for (name, key) in names.iter().zip(&keys) {
        let mut device = Device::new(name, key.clone(), &service.fixture, service.mqtt());
        device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
        // At once: nothing else has had time to make it durable.
        service.kill();
        service.launch();
    }
    let campaigns = service.get("/v1/campaigns");
    assert_eq!(campaigns[0]["devices"]["confirmed"], json!(20));
}

/// The limit on the size of files does what a full disk does, for one process and without being root.
#[test]
fn a_full_disk_refuses_what_would_be_written_and_serves_on_and_recovers() {
    let mut service = Service::prepare(On::Itself);
    // Files of at most 600 KiB; the signal that would end the process is ignored.
    service.wrap(&["sh", "-c", "trap '' XFSZ; ulimit -S -f 1200; exec \"$@\"", "sh"]);
    service.launch();
    let release = service.release(200_000, 5);
    service.publish(&release);
    service.import(&[("m1", &device_key(1).public())]);
    service.campaign(&release);

    // A payload that does not fit is refused, and nothing of it stays.
    let large = service.release(900_000, 6);
    service.ok("POST", "/v1/releases", &large.envelope);
    let path = format!("/v1/payloads/{}", large.index.digest);
    let error = service.refused(507, "PUT", &path, &large.payload);
    assert!(error.contains("no room"), "{error}");
    assert_eq!(std::fs::read_dir(service.path("data/payloads")).unwrap().count(), 2);

    // The database fills up: then changes are refused, and nothing of them happens.
    let accepted = |service: &Service| service.get("/v1/status")["devices"]["accepted"].as_u64().unwrap();
    let fill = |write: &dyn Fn(usize) -> (u16, Value)| {
        for step in 0.. {
            assert!(step < 3000, "the limit does nothing");
            let (status, answer) = write(step);
            if status != 200 {
                assert!(status == 507 || status == 500, "{status}: {answer}");
                assert!(answer["error"].as_str().unwrap().contains("whimbrel.sqlite"), "{answer}");
                return step;
            }
        }
        unreachable!()
    };
    let lists = fill(&|step| service.api("POST", "/v1/devices/import", list(&service, step).as_bytes()));
    assert_eq!(accepted(&service), (lists * LIST) as u64 + 1, "a list is there whole or not at all");
    // To the last page.
    let changes = fill(&|step| {
        let groups = json!({ "groups": [format!("g{step}")] }).to_string();
        service.api("PUT", "/v1/devices/list0-0/groups", groups.as_bytes())
    });
    let groups = service.device("list0-0").unwrap()["groups"].clone();
    assert_eq!(groups, changes.checked_sub(1).map_or(json!(["all"]), |last| json!([format!("g{last}")])));

    // Devices are served all the while; what can't be stored is not acknowledged.
    let refused = service.counter("store_failures");
    let mut device = Device::new("m1", device_key(1), &service.fixture, service.mqtt());
    device.run_until_state(State::Confirmed);
    assert_eq!(device.medium.running_image(), release.image);
    service.await_that("the report is refused", |service| service.counter("store_failures") > refused);
    assert!(!device.events.iter().any(|event| matches!(event, Event::ReportAcknowledged { .. })));

    // There is room again.
    let pid = rustix::process::Pid::from_raw(i32::try_from(service.pid()).unwrap());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
    device.feed(whimbrel_protocol::device::Input::Check);
    device.run_until_event("acknowledged", |event| matches!(event, Event::ReportAcknowledged { .. }));
    service.ok("POST", "/v1/devices/import", list(&service, 99_999).as_bytes());
    service.ok("PUT", &path, &large.payload);
    let before = (accepted(&service), service.get("/v1/campaigns"));
    assert_eq!(before.1[0]["devices"]["confirmed"], json!(1));

    service.kill();
    service.wrap(&[]);
    service.launch();
    assert_eq!((accepted(&service), service.get("/v1/campaigns")), before, "and nothing was lost");
}

//! A database that is lost, or old, is noticed.

use std::fs;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};
use whimbrel_protocol::ids::{CampaignId, ShortDigest};
use whimbrel_protocol::time::Instant;
use whimbrel_service::fleet::{self, Command};
use whimbrel_service::store::Facts;

use crate::halves_support::{Host, TODAY, id, new_campaign};
use crate::service_support::{On, Service, device_key};
use crate::voice::{Voice, serving};
#[test]
fn a_database_that_is_deleted_while_the_service_runs_ends_it_and_it_says_so() {
    let mut service = Service::start(On::Itself);
    fs::remove_file(service.path("data/whimbrel.sqlite")).unwrap();
    assert_says_that_it_is_gone(&mut service);
}

#[test]
fn a_database_that_is_replaced_while_the_service_runs_ends_it_and_it_says_so() {
    let mut service = Service::start(On::Itself);
    let copy = service.path("data/older.sqlite");
    fs::copy(service.path("data/whimbrel.sqlite"), &copy).unwrap();
    fs::rename(copy, service.path("data/whimbrel.sqlite")).unwrap();
    assert_says_that_it_is_gone(&mut service);
}

fn assert_says_that_it_is_gone(service: &mut Service) {
    let (status, said) = service.ends();
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("whimbrel.sqlite was deleted or replaced"), "{said}");
    assert!(last.contains("put a copy"), "it says what to do: {said}");
}

/// Takes the database away.
fn lose_database(service: &Service) {
    for name in DATABASE {
        let _not_there = fs::remove_file(service.path("data").join(name));
    }
}

/// The version of the last beacon.
fn beacon_version(service: &Service) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = service.path("data/whimbrel.sqlite");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path);
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let read = sqlx::query("SELECT coalesce(max(value), 0) FROM marks WHERE name = 'beacon-version'");
        let version = read.fetch_one(&mut database).await.unwrap().get(0);
        database.close().await.unwrap();
        version
    })
}

fn accept(service: &Service) -> String {
    let admin = service.url().replace("http://", "service.admin=");
    let said = service.command().args(["--set", &admin, "store", "accept"]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// The service has begun to doubt its database: it says so with these words, signs nothing, and goes on when the
/// database is accepted, above all that was signed.
fn assert_signs_nothing_until_accepted(service: &mut Service, because: &str) {
    let before = beacon_version(service);
    let told = service.get("/v1/status")["store"]["text"].as_str().unwrap_or_default().to_owned();
    assert!(told.contains(because) && told.contains("`whimbreld store accept`"), "{told}");
    service.await_that("the log says it", |service| service.log().contains("signing stopped"));
    let line = format!(
        "m9,{},{},all",
        crate::service_support::hex_key(&device_key(9).public()),
        service.fixture.class.to_hex()
    );
    let refused = service.refused(503, "POST", "/v1/devices/import", line.as_bytes());
    assert!(refused.contains(because) && refused.contains("store accept"), "{refused}");
    assert_eq!(beacon_version(service), before, "no beacon either");

    assert!(accept(service).contains("signs above all that was signed before"));
    assert!(accept(service).contains("had no doubt"));
    assert!(service.get("/v1/status").get("store").is_none());
    let log = service.log();
    assert!(log.contains("database accepted by `whimbreld store accept`") && log.contains(because), "{log}");
    service.ok("POST", "/v1/devices/import", line.as_bytes());
    service
        .await_that("a beacon is signed above all before", |service| beacon_version(service) > 1_700_000_000);
    assert!(service.stop().success());
    service.launch();
    assert!(service.get("/v1/status").get("store").is_none(), "it stays accepted");
}

#[test]
fn a_service_with_an_empty_database_beside_payloads_signs_nothing_until_that_is_accepted() {
    let (mut service, _) = serving(&[], 5_000);
    assert!(service.stop().success());
    lose_database(&service);
    service.launch();
    assert_signs_nothing_until_accepted(
        &mut service,
        "the database is empty and the payload folder has 1 payload",
    );
}

const DATABASE: [&str; 3] = ["whimbrel.sqlite", "whimbrel.sqlite-wal", "whimbrel.sqlite-shm"];

/// Copies the database of a service that is stopped.
fn copy_database(service: &Service, from: &str, to: &str) {
    fs::create_dir_all(service.path(to)).unwrap();
    for name in DATABASE {
        let _not_there = fs::remove_file(service.path(to).join(name));
        let _not_there = fs::copy(service.path(from).join(name), service.path(to).join(name));
    }
}

#[test]
fn a_service_with_a_database_from_before_a_device_was_accepted_signs_nothing_until_that_is_accepted() {
    let (mut service, _) = serving(&[], 5_000);
    assert!(service.stop().success());
    copy_database(&service, "data", "backup");
    service.launch();
    service.await_that("a beacon is signed", |service| service.counter("under_way") == 0);
    service.import(&[("m2", &device_key(2).public())]);
    service.kill();
    copy_database(&service, "backup", "data");
    service.launch();
    assert_signs_nothing_until_accepted(&mut service, "the database is an old copy: it knows of");
}

#[test]
fn a_service_with_a_database_from_elsewhere_signs_nothing_until_that_is_accepted() {
    let (mut service, _) = serving(&[], 5_000);
    assert!(service.stop().success());
    for copy in ["data/signed-1.mark", "data/signed-2.mark"] {
        fs::remove_file(service.path(copy)).unwrap();
    }
    service.launch();
    assert_signs_nothing_until_accepted(&mut service, "the database comes from elsewhere");
}

#[test]
fn a_service_that_is_killed_again_and_again_while_it_signs_never_doubts_its_database() {
    let (mut service, _) = serving(&[], 5_000);
    for round in 0..8 {
        let line = |at| format!("k{round}-{at}");
        for at in 0..round {
            service.import(&[(&line(at), &device_key(2).public())]);
        }
        service.kill();
        service.launch();
        assert!(service.get("/v1/status").get("store").is_none(), "{round}");
    }
}

#[test]
fn devices_that_hold_newer_documents_are_counted_and_told_of_once_a_minute_and_stop_nothing() {
    let mut host = Host::with_links(1);
    host.import(&["m1", "m2", "m3"]);
    let release = host.release(5000);
    host.campaign(&release, "all");
    let mut hello = |minute: u64, device: &str, assignment: u64, campaign: u64| {
        let now = Instant::from_millis(1 + minute * 60_000);
        let facts = Facts { running: ShortDigest([9; 8]), sequence: 1, seen: TODAY };
        let (device, class) = (id(device), host.fixture.class.tag());
        let input = fleet::Input::Hello { device, class, facts, assignment, campaign };
        host.fleet.handle_input(now, TODAY, input);
        let outputs = core::iter::from_fn(|| host.fleet.poll_output());
        let told = outputs.filter_map(|output| match output {
            fleet::Output::Event(fleet::Event::Ahead { devices, .. }) => Some(devices),
            _ => None,
        });
        (told.collect::<Vec<_>>(), host.fleet.devices_ahead())
    };
    assert_eq!(hello(0, "m1", 1, 1), (vec![], 0), "what there is");
    assert_eq!(hello(0, "m1", 2, 1), (vec![1], 1));
    assert_eq!(hello(0, "m2", 1, 2), (vec![], 2), "not twice in a minute");
    assert_eq!(hello(0, "m2", 1, 2), (vec![], 2), "each counts once");
    assert_eq!(hello(0, "stranger", 9, 9), (vec![], 2), "whom we do not know counts for nothing");
    assert_eq!(hello(1, "m3", 2, 2), (vec![3], 3));
    assert_eq!(hello(2, "m1", 1, 1), (vec![], 2), "it took what there is");
    let release = release.digest.to_hex();
    let (new, to) = (new_campaign("all"), CampaignId([3; 8]));
    host.change(|reply| Command::NewCampaign { release, new, id: to, reply }).unwrap();
}

#[test]
fn versions_that_devices_are_ahead_of_are_left_behind_when_the_database_is_accepted() {
    let (service, _) = serving(&[], 5_000);
    let mut m1 = Voice::new(&service, "m1");
    // It names assignment 99.
    m1.hello(1, None);
    service.await_that("it is counted", |service| service.counter("devices_ahead") == 1);
    service.await_that("the log says it", |service| service.log().contains("devices_ahead=1"));
    assert!(service.get("/v1/status").get("store").is_none(), "nothing is stopped");
    assert!(accept(&service).contains("signs above"));
    service
        .await_that("a beacon is signed above all before", |service| beacon_version(service) > 1_700_000_000);
}

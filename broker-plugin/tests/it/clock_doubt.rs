//! A clock that cannot be believed: nothing is signed with it, everybody is told, and what was signed before goes on.

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use whimbrel_protocol::cose::{Kind, Sign1};
use whimbrel_protocol::time::Instant;
use whimbrel_service::fleet::{self, ClockDoubt, Command, Denied};
use whimbrel_service::serving;

use crate::halves_support::{Host, TODAY, group, id, new_campaign};
use crate::service_support::Service;
use crate::voice::{Voice, ask, serving};

const DAY_S: u64 = 86_400;

#[test]
fn while_the_clock_is_doubted_the_fleet_signs_nothing_and_says_why() {
    let mut host = Host::with_links(1);
    host.import(&["m1"]);
    let release = host.release(5000);
    let campaign = host.campaign(&release, "all");
    host.serve(0, serving::Input::Up);
    host.decide(fleet::Input::Timeout);
    let beacon = host.fleet.beacon().cloned();
    assert!(beacon.is_some());
    let doubt = ClockDoubt { shown: TODAY.plus_secs(40 * DAY_S), expected: TODAY, at_start: false };
    host.decide(fleet::Input::Clock(Some(doubt)));

    let denied = |result: Result<(), Denied>| match result {
        Err(denied @ Denied::Clock { .. }) => {
            assert!(denied.to_string().contains("`whimbreld clock accept`"))
        }
        other => panic!("{other:?}"),
    };
    let release = release.digest.to_hex();
    let (new, to) = (new_campaign("all"), whimbrel_protocol::ids::CampaignId([3; 8]));
    let named = release.clone();
    denied(host.change(|reply| Command::NewCampaign { release: named, new, id: to, reply }).map(drop));
    let command = fleet::campaign::Command::Abort;
    denied(host.change(|reply| Command::ToCampaign { prefix: campaign.to_hex(), command, reply }).map(drop));
    let groups = vec![group("north")];
    denied(host.change(|reply| Command::SetGroups { id: id("m1"), groups, reply }).map(drop));
    host.now = Instant::from_millis(86_400_000);
    host.decide(fleet::Input::Timeout);
    assert_eq!(host.fleet.beacon(), beacon.as_ref(), "no beacon either");
    assert_eq!(host.fleet.under_way(), 0);

    host.decide(fleet::Input::Clock(None));
    host.decide(fleet::Input::Timeout);
    assert_ne!(host.fleet.beacon(), beacon.as_ref(), "a beacon is due at once");
    host.change(|reply| Command::NewCampaign { release, new: new_campaign("all"), id: to, reply }).unwrap();
}

/// Sets back what the database says of the last signature.
fn set_mark_back(service: &Service, seconds: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = service.path("data/whimbrel.sqlite");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path);
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let set = "UPDATE marks SET value = value - ?1 WHERE name = 'beacon-issued'";
        let set = sqlx::query(set).bind(i64::try_from(seconds).unwrap());
        assert_eq!(set.execute(&mut database).await.unwrap().rows_affected(), 1);
        database.close().await.unwrap();
    });
}

fn kind_of(document: &[u8]) -> Option<Kind> {
    Sign1::decode(document).unwrap().claimed_kind()
}

#[test]
fn a_service_that_starts_40_days_beyond_the_last_signature_signs_nothing_until_its_clock_is_accepted() {
    let (mut service, release) = serving(&[], 5_000);
    assert!(service.stop().success());
    set_mark_back(&service, 40 * DAY_S);
    service.launch();

    let told = service.get("/v1/status")["clock"]["text"].as_str().unwrap().to_owned();
    assert!(told.contains("40 days") && told.contains("`whimbreld clock accept`"), "{told}");
    service.await_that("the log says it", |service| service.log().contains("signing stopped"));
    let order = serde_json::json!({ "release": release.digest.to_hex(), "group": "all" }).to_string();
    assert!(service.refused(503, "POST", "/v1/campaigns", order.as_bytes()).contains("clock accept"));

    // A device gets what was signed before, and is served; nobody signs an answer.
    let mut m1 = Voice::new(&service, "m1");
    m1.hello(1, None);
    assert_eq!(kind_of(&m1.hear().payload), Some(Kind::Campaign));
    m1.say(&ask(&release, 0, 4, 4));
    assert_eq!(m1.chunks(4), &release.payload[..4096]);
    m1.hears_no_more();
    assert_eq!(service.counter("answers_withheld"), 1);

    let admin = service.url().replace("http://", "service.admin=");
    let accept = || service.command().args(["--set", &admin, "clock", "accept"]).output().unwrap();
    let said = accept();
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("signs again"), "{said:?}");
    assert!(String::from_utf8_lossy(&accept().stdout).contains("had no doubt"));
    assert!(service.get("/v1/status").get("clock").is_none());
    service.await_that("the log says it", |service| {
        service.log().contains("clock accepted by `whimbreld clock accept`")
    });
    m1.hello(2, None);
    assert_eq!(kind_of(&m1.hear().payload), Some(Kind::Answer));
    drop(m1);
    service.ok("POST", "/v1/campaigns", order.as_bytes());
    assert!(service.stop().success());
    service.launch();
    assert!(service.get("/v1/status").get("clock").is_none(), "it was signed with");
}

//! Lists of devices of any length, through the real service.

use serde_json::json;

use crate::service_support::{On, Service, device_key, hex_key};

const IMPORT: &str = "/v1/devices/import";

/// A list of so many devices with one key.
fn list(service: &Service, lines: usize) -> String {
    let (key, class) = (hex_key(&device_key(1).public()), service.fixture.class.to_hex());
    (1..=lines).map(|number| format!("m{number:06},{key},{class},all\n")).collect()
}

#[test]
fn a_hundred_thousand_devices_are_imported_and_the_log_has_one_line_about_it() {
    let service = Service::start(On::Itself);
    let list = list(&service, 100_000);
    assert!(list.len() > 8 << 20, "{} bytes", list.len());
    let imported = service.ok("POST", IMPORT, list.as_bytes());
    assert_eq!(imported, json!({ "imported": 100_000, "unchanged": 0 }));
    assert_eq!(service.get("/v1/status")["devices"]["accepted"], json!(100_000));
    service.await_that("it is logged", |service| service.log().contains("devices imported"));
    let log = service.log();
    assert_eq!(log.matches("devices imported").count(), 1);
    assert!(log.contains("imported=100000"), "{log}");
    assert!(!log.contains("device accepted"));
}

#[test]
fn a_list_can_be_looked_at_without_being_taken() {
    let service = Service::start(On::Itself);
    let mut list = list(&service, 2_500);
    let looked = service.ok("POST", "/v1/devices/import?check=1", list.as_bytes());
    assert_eq!(looked, json!({ "imported": 2500, "unchanged": 0 }));
    list.push_str("m1,x,y\n");
    let error = service.refused(422, "POST", "/v1/devices/import?check=1", list.as_bytes());
    assert!(error.starts_with("line 2501: "), "{error}");
    assert_eq!(service.get("/v1/status")["devices"]["accepted"], json!(0));
    assert!(!service.log().contains("devices imported"));
    service.refused(400, "POST", "/v1/devices/import?check=yes", b"");
}

#[test]
fn an_import_that_ends_early_says_how_much_was_taken_and_can_be_done_again() {
    let service = Service::start(On::Itself);
    let right = list(&service, 2_500);
    let wrong = format!("{right}m1,x,y\n");
    let error = service.refused(422, "POST", IMPORT, wrong.as_bytes());
    assert!(error.starts_with("line 2501: "), "{error}");
    service.await_that("it is logged", |service| service.log().contains("import ended early"));
    assert_eq!(service.log().matches("import ended early").count(), 1);
    let taken = service.get("/v1/status")["devices"]["accepted"].as_u64().unwrap();
    assert!(taken.is_multiple_of(1000), "pieces are taken whole: {taken}");
    assert!(service.log().contains(&format!("imported={taken}")), "{}", service.log());
    let again = service.ok("POST", IMPORT, right.as_bytes());
    assert_eq!(again, json!({ "imported": 2500 - taken, "unchanged": taken }));
}

#[test]
fn who_sends_a_long_list_that_is_refused_at_once_hears_why() {
    let service = Service::start(On::Itself);
    let list = format!("m1,x,y\n{}", list(&service, 100_000));
    let error = service.refused(422, "POST", IMPORT, list.as_bytes());
    assert!(error.starts_with("line 1: "), "{error}");
}

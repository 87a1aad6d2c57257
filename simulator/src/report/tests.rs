//! What a report counts and says.

use super::*;
use crate::control::Control;
use crate::meter::{Class, Part};
use crate::profile::Profiles;

fn facts() -> RunFacts {
    RunFacts {
        profile: Profiles::builtin().named("ltem").unwrap().clone(),
        outages: "1 cut of 1 to 5 s each".to_owned(),
        seed: Seed(42),
        time_scale: 1,
        image_bytes: 1_048_576,
        transfer_bytes: 400_000,
        patch_bytes: None,
        elapsed: Duration::from_millis(31_500),
        simulator: Usage { peak_rss_bytes: 20 << 20, rss_bytes: 10 << 20, cpu: Duration::from_millis(2500) },
        service: Some(Usage {
            peak_rss_bytes: 40 << 20,
            rss_bytes: 10 << 20,
            cpu: Duration::from_millis(1200),
        }),
        troubles: 0,
        last_trouble: None,
    }
}

fn device(seconds: u64) -> DeviceResult {
    let chunk = Class::Data { part: Part::Chunks, header_bytes: 4 };
    let mut ledger = Ledger::default();
    ledger.connected(30);
    ledger.read(4 + 402_000);
    ledger.received(4, Class::Control(Control::Hello));
    ledger.received(401_000, chunk);
    ledger.carried(Part::Chunks, 400_000, 0);
    ledger.received_cut_short(1_000, 980, chunk);
    ledger.cut();
    let state = DeviceState::Confirmed;
    DeviceResult {
        state,
        ledger,
        image_is_right: Some(true),
        came_by: Some(PayloadKind::Full),
        patch_bytes: 0,
        full_bytes: 400_000,
        took: Duration::from_secs(seconds),
    }
}

#[test]
fn devices_are_counted_by_the_payload_that_their_image_came_by() {
    let facts = RunFacts { patch_bytes: Some(3_000), ..facts() };
    let by_patch =
        DeviceResult { came_by: Some(PayloadKind::Patch), patch_bytes: 3_000, full_bytes: 0, ..device(1) };
    let fell_back = DeviceResult { patch_bytes: 3_000, ..device(2) };
    let none = DeviceResult { came_by: None, ..device(3) };
    let report = Report::new(facts, &[by_patch, fell_back, device(2), none]);
    let share = |kind, transfer_bytes, devices, chunk_bytes| PayloadShare {
        kind,
        transfer_bytes,
        devices,
        chunk_bytes,
        mqtt_bytes: devices * 402_004,
    };
    let (patch, full) =
        (share(PayloadKind::Patch, 3_000, 1, 3_000), share(PayloadKind::Full, 400_000, 2, 803_000));
    assert_eq!(report.payloads, [patch, full]);
    assert!(report.to_json().contains(r#""payloads":[{"kind":"patch","transfer_bytes":3000,"devices":1,"#));
    let table = report.to_string();
    for line in [
        "by patch              1 device, 3,000 bytes each, 402,004 with all around them\n",
        "in full               2 devices, 401,500 bytes each, 402,004 with all around them\n",
    ] {
        assert!(table.contains(line), "{table}");
    }
}

#[test]
fn the_json_object_has_every_field_that_programs_rely_on() {
    let report = Report::new(facts(), &[device(10), device(20)]);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    for (field, value) in [
        ("devices", 2),
        ("confirmed", 2),
        ("failed", 0),
        ("image_bytes", 1_048_576),
        ("transfer_bytes", 400_000),
        ("data_bytes", 804_000),
        ("payload_bytes", 800_000),
        ("control_bytes", 8),
        ("mqtt_bytes_down", 804_008),
        ("mqtt_bytes_up", 0),
        ("refetched_bytes", 2 * 976),
        ("link_cuts", 2),
        ("peak_rss_bytes", 20 << 20),
        ("service_peak_rss_bytes", 40 << 20),
        ("seed", 42),
    ] {
        assert_eq!(json[field].as_u64(), Some(value), "{field}");
    }
    assert_eq!(json["control"], serde_json::json!({ "hello": 8 }));
    assert_eq!(json["elapsed_s"].as_f64(), Some(31.5));
    assert_eq!(json["data_overhead_percent"].as_f64(), Some(0.256), "(804,000 - 1,952) / 800,000 - 1");
    assert!(!report.to_json().contains('\n'));
}

#[test]
fn a_run_is_a_success_only_when_every_device_holds_the_image_and_confirmed_it() {
    assert_eq!(Report::new(facts(), &[device(10)]).objections(), Vec::<String>::new());
    let objections = |change: &dyn Fn(&mut DeviceResult)| {
        let mut changed = device(10);
        change(&mut changed);
        let report = Report::new(facts(), &[device(10), changed]);
        assert!(report.failed == 1 || report.failed == 0);
        (report.failed, report.objections().join("; "))
    };
    let (failed, why) = objections(&|device| device.state = DeviceState::Downloading);
    assert!(failed == 1 && why.contains("1 of 2 devices are not confirmed"), "{why}");
    let (failed, why) = objections(&|device| device.image_is_right = Some(false));
    assert!(failed == 1 && why.contains("not the one released"), "{why}");
    let (failed, why) = objections(&|device| device.image_is_right = None);
    assert!(failed == 1 && why.contains("no image to check"), "{why}");
    let (failed, why) = objections(&|device| device.ledger.read(1));
    assert!(failed == 0 && why.contains("does not close"), "{why}");
    assert!(!Report::new(facts(), &[]).objections().is_empty());
}

#[test]
fn the_table_begins_with_the_links_figures() {
    let mut wrong = device(12);
    wrong.image_is_right = Some(false);
    let report = Report::new(facts(), &[device(10), wrong, device(30)]);
    let table = report.to_string();
    let expected = "\
ltem: down 300 kbit/s (p10 80), up 300, round trip 0.12 s (p95 0.5), lost every 4 h for 30 s
1 cut of 1 to 5 s each; seed 42, time x1

devices               3 of 3 confirmed, 1 failed
wrong images          1
image                 1,048,576 bytes, sent as 400,000 (38.1 %)
payload               1,200,000 bytes
data                  1,206,000 bytes, overhead 0.26 %
fetched in vain       2,928 bytes (0.2 %), 976 a cut
control               12 bytes, 4 a device
of it a device        4 hello
MQTT                  1,206,012 bytes down, 0 up
connections           3, 3 cut, 0 failed
time of an update     12.0 s median, 30.0 s p95, 30.0 s longest
elapsed               31.5 s
simulator             20.0 MiB at most (6.7 MiB a device), 2.5 s of processor
service               40.0 MiB at most, 1.2 s of processor
";
    assert_eq!(table, expected);
}

#[test]
fn a_percentile_is_a_value_that_was_measured() {
    let times: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!([1, 50, 95, 100].map(|p| percentile(&times, p)), [1.0, 50.0, 95.0, 100.0]);
    assert_eq!((percentile(&[7.0], 50), percentile(&[], 50)), (7.0, 0.0));
}

//! The tour of the README, command by command, on each kind of broker: keys, a release, the service, a device
//! that enrols and is accepted, a campaign, and what all programs say of it. A second update goes into the
//! other slot.

use e2e::agent::Agent;
use e2e::bundle::{Recipe, Release};
use e2e::process::Finished;
use e2e::stage::Stage;
use serde_json::{Value as Json, json};

fn device_as_listed(stage: &Stage, id: &str) -> Json {
    let list = stage.service.whimbrel(["device", "list", "--json"]).json();
    let list = list["devices"].as_array().cloned().unwrap_or_default();
    list.into_iter().find(|known| known["id"] == id).unwrap_or_else(|| panic!("{id} is not listed"))
}

/// Checks what the agent's commands say after an update.
fn check_device(device: &Agent, status: &Json, release: &Release, campaign: &str, slots: (&str, &str)) {
    let sequence = release.sequence;
    let want = [
        ("/device", json!(device.id())),
        ("/daemon", json!(true)),
        ("/state", json!("confirmed")),
        ("/reason", Json::Null),
        ("/campaign", json!(campaign)),
        ("/attempt", json!(1)),
        ("/bytes_received", json!(release.transfer_size)),
        ("/bytes_twice", json!(0)),
        ("/reports_waiting", json!(0)),
        ("/rejected", json!({})),
        ("/link/up", json!(true)),
        ("/running/release", json!(release.digest)),
        ("/running/version", json!(format!("1.{sequence}.0"))),
        ("/running/sequence", json!(sequence)),
        ("/running/slot", json!(slots.0)),
        ("/running/trial", json!("none")),
    ];
    for (field, value) in want {
        assert_eq!(status.pointer(field), Some(&value), "{field} of {status}");
    }
    let words = device.command(["status"]).good();
    let line = format!("1.{sequence}.0, sequence {sequence}, slot {}", slots.0);
    assert!(words.contains("confirmed") && words.contains(&line), "{words}");
    // Boot scripts ask for the file that holds the image.
    let file = status["running"]["slot_file"].as_str().unwrap();
    assert!(std::fs::read(device.path(file)).unwrap().starts_with(&release.image), "{file}");
    assert!(!device.slot_holds(slots.1, &release.image));
}

/// Checks what the operator's commands say after an update.
fn check_service(stage: &Stage, device: &Agent, release: &Release, campaign: &str) {
    let listed = device_as_listed(stage, device.id());
    assert_eq!((&listed["state"], &listed["sequence"]), (&json!("accepted"), &json!(release.sequence)));
    assert_eq!(listed["groups"], json!(["all"]));
    let status = stage.service.campaign_status(campaign);
    assert_eq!((&status["state"], &status["percent"]), (&json!("active"), &json!(100)), "{status}");
    assert_eq!((&status["devices"]["total"], &status["devices"]["confirmed"]), (&json!(1), &json!(1)));
    assert_eq!((&status["release"], &status["failures"]), (&json!(release.digest), &json!({})));
    assert_eq!(status["bytes_received"], release.transfer_size);
    let words = stage.service.whimbrel(["campaign", "status", campaign]).good();
    assert!(words.contains(&format!("1.{}.0", release.sequence)) && words.contains("confirmed"), "{words}");
}

fn code_and_line(finished: &Finished) -> (Option<i32>, &str) {
    (finished.code, finished.out.lines().next().unwrap_or_default())
}

fn tour(stage: &Stage, kind: &str) {
    let mut device = stage.new_device("meter-17");
    device.start();
    device.wait_for("nobody has accepted it", |status| Agent::counted(status, "refusals") >= 1);
    assert_eq!(device_as_listed(stage, device.id())["state"], "pending");
    let status = stage.service.status();
    assert_eq!((&status["attached"], &status["devices"]["pending"]), (&json!(kind), &json!(1)), "{status}");
    stage.service.accept(device.id());
    device.wait_for("it is accepted", |status| Agent::counted(status, "answers") >= 1);

    let first = stage.bundle.noise_release(1, 200_000);
    let campaign = stage.service.roll_out(&first);
    let status = stage.wait_until_updated(&device, &first, &campaign);
    check_device(&device, &status, &first, &campaign, ("b", "a"));
    check_service(stage, &device, &first, &campaign);

    let second = stage.bundle.noise_release(2, 300_000);
    let campaign = stage.service.roll_out(&second);
    let status = stage.wait_until_updated(&device, &second, &campaign);
    check_device(&device, &status, &second, &campaign, ("a", "b"));
    check_service(stage, &device, &second, &campaign);
    assert!(device.slot_holds("b", &first.image), "the old image stays where it is");

    // With nothing in progress there is nothing to keep or to give up.
    assert_eq!(device.command(["check"]).code, Some(0));
    for verb in ["commit", "rollback"] {
        let done = device.command([verb]);
        let (code, line) = code_and_line(&done);
        assert_eq!(code, Some(2), "{verb}: {done:?}");
        assert!(line.starts_with("nothing to "), "{verb}: {done:?}");
    }
    let status = stage.service.status();
    assert_eq!((&status["releases"], &status["devices"]["accepted"]), (&json!(2), &json!(1)));
    assert_eq!((stage.service.counter("reports"), stage.service.counter("rejected_unauthentic")), (2, 0));
}

#[test]
fn a_device_of_the_embedded_broker_updates_twice_and_everybody_is_told() {
    tour(&Stage::embedded(), "embedded");
}

#[test]
fn a_device_of_somebody_elses_broker_updates_twice_and_everybody_is_told() {
    tour(&Stage::attached(), "client");
}

#[test]
fn a_device_of_a_broker_that_ignores_retain_updates_twice_and_everybody_is_told() {
    let stage = Stage::attached();
    stage.proxy.ignore_retain(true);
    tour(&stage, "client");
}

/// A device learns from the answer to its hello what happened while it was away, whether or not the broker
/// keeps messages.
#[test]
fn a_device_that_was_away_learns_of_campaign_and_abort_without_retained_messages() {
    let stage = Stage::attached();
    stage.proxy.ignore_retain(true);
    let mut device = stage.device("meter-17");
    device.wait_for("it is accepted", |status| Agent::counted(status, "answers") >= 1);
    device.kill();
    let first = stage.bundle.noise_release(1, 400_000);
    let campaign = stage.service.roll_out(&first);
    stage.proxy.set_rate(64 * 1024);
    device.start();
    device.wait_for_state("downloading");
    device.kill();
    stage.service.whimbrel(["campaign", "abort", &campaign]).good();
    device.start();
    stage.service.wait_for_end(&campaign, device.id(), "cancelled", Some("aborted"));
    stage.proxy.set_rate(0);
    let second = stage.bundle.noise_release(2, 50_000);
    device.kill();
    let campaign = stage.service.roll_out(&second);
    device.start();
    stage.wait_until_updated(&device, &second, &campaign);
}

#[test]
fn a_release_that_compresses_is_sent_compressed_and_installed_whole() {
    let stage = Stage::attached();
    let device = stage.device("meter-17");
    let line = |number: u32| format!("sensor {number:06} reads {} degrees\n", number % 37);
    let image: Vec<u8> = (0..8000).flat_map(|number| line(number).into_bytes()).collect();
    let release = stage.bundle.release(Recipe { image, flags: &[], ..Recipe::noise(1, 0) });
    assert!(release.transfer_size * 3 < release.image.len() as u64, "{}", release.transfer_size);
    let campaign = stage.service.roll_out(&release);
    let status = stage.wait_until_updated(&device, &release, &campaign);
    check_device(&device, &status, &release, &campaign, ("b", "a"));
    assert_eq!(stage.proxy.traffic(device.id()).chunk_bytes, release.transfer_size);
}

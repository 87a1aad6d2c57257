//! A broker that does every bad thing that it can. The update completes all the same, nothing bad is stored,
//! and the counters of both sides show what happened.

use e2e::agent::Agent;
use e2e::forge::last_assignment;
use e2e::proxy::Verb;
use e2e::stage::Stage;
use serde_json::Value as Json;
use whimbrel_protocol::message::{Beacon, Validity};

/// A device that asks for one chunk of 4 KiB a message, so that there are many.
fn device(stage: &Stage, id: &str) -> Agent {
    let mut device = stage.new_device(id);
    device.set("download.message-size=5KiB");
    stage.enrol(&mut device);
    device.wait_for("groups are known", |status| Agent::counted(status, "answers") >= 1);
    device
}

/// Messages of every kind that were not acted on.
fn all_rejected(status: &Json) -> u64 {
    status["rejected"].as_object().unwrap().values().filter_map(Json::as_u64).sum()
}

#[test]
fn a_bit_flipped_in_one_chunk_message_of_a_hundred_costs_that_message() {
    let stage = Stage::embedded();
    let device = device(&stage, "meter-1");
    let release = stage.bundle.noise_release(1, 512 * 4096);
    stage.proxy.set(Verb::Flip { one_in: 100 });
    let connections = stage.proxy.traffic(device.id()).connections;
    let campaign = stage.service.roll_out(&release);
    let status = stage.wait_until_updated(&device, &release, &campaign);
    let traffic = stage.proxy.traffic(device.id());
    assert!(traffic.tampered >= 5, "{traffic:?}");
    assert_eq!(all_rejected(&status), traffic.tampered, "each is found, and nothing else: {status}");
    let twice = status["bytes_twice"].as_u64().unwrap();
    assert!(twice > 0 && twice <= traffic.tampered * 4096, "{twice}");
    // The one new connection is that of the new image: MQTT itself was never broken.
    assert_eq!(traffic.connections, connections + 1);
    assert_eq!(stage.service.counter("broker_protocol_errors"), 0);
}

#[test]
fn what_was_said_on_earlier_days_is_not_believed_again() {
    let stage = Stage::embedded();
    let device = device(&stage, "meter-1");
    let first = stage.bundle.noise_release(1, 50_000);
    let campaign = stage.service.roll_out(&first);
    stage.wait_until_updated(&device, &first, &campaign);
    let again = stage.service.counter("reports_again");

    stage.proxy.set(Verb::ReplayOld);
    let second = stage.bundle.noise_release(2, 400_000);
    let campaign = stage.service.roll_out(&second);
    let status = stage.wait_until_updated(&device, &second, &campaign);
    assert!(stage.proxy.traffic(device.id()).tampered > 20);
    assert!(Agent::rejected(&status, "rollback") >= 2, "the old campaign and an old beacon: {status}");
    assert!(Agent::rejected(&status, "unauthentic") >= 1, "answers to other nonces: {status}");
    assert!(Agent::rejected(&status, "misbehaved") >= 1, "chunks that nobody asked for: {status}");
    assert!(
        stage.service.counter("rejected_misbehaved") >= 1,
        "requests for what is not the device's any more"
    );
    assert!(stage.service.counter("reports_again") > again, "the report of the first update");
    assert_eq!(stage.service.counter("reports"), 2, "counts once");
}

#[test]
fn what_was_said_to_another_device_is_not_believed() {
    let stage = Stage::embedded();
    let devices = [device(&stage, "meter-1"), device(&stage, "meter-2")];
    stage.proxy.set(Verb::CrossDeliver);
    let release = stage.bundle.noise_release(1, 200_000);
    let campaign = stage.service.roll_out(&release);
    for device in &devices {
        let status = stage.wait_until_updated(device, &release, &campaign);
        assert!(stage.proxy.traffic(device.id()).tampered > 20);
        assert!(Agent::rejected(&status, "unauthentic") >= 1, "{status}");
    }
    assert!(stage.service.counter("rejected_unauthentic") >= 1, "a report on the topic of another device");
    assert_eq!(stage.service.campaign_status(&campaign)["devices"]["confirmed"], 2);
}

#[test]
fn messages_that_are_held_back_are_asked_for_again() {
    let stage = Stage::embedded();
    let device = device(&stage, "meter-1");
    let release = stage.bundle.noise_release(1, 400_000);
    stage.proxy.set_rate(256 * 1024);
    let campaign = stage.service.roll_out(&release);
    // This waits until the link's rate is known. Without it a device waits much longer for a lost message.
    stage.proxy.wait_for_traffic(device.id(), |traffic| traffic.chunk_bytes > 150_000);
    stage.proxy.set(Verb::Withhold { one_in: 12 });
    let status = stage.wait_until_updated(&device, &release, &campaign);
    let traffic = stage.proxy.traffic(device.id());
    assert!(traffic.tampered >= 4, "{traffic:?}");
    assert!(Agent::counted(&status, "silences") >= 1, "{status}");
    assert!(status["bytes_twice"].as_u64().unwrap() <= traffic.tampered * 4096, "{status}");
}

/// A broker that holds everything back can keep a device from updating, but not from noticing.
#[test]
fn a_device_that_hears_nothing_signed_any_more_says_that_it_is_stale_and_goes_on() {
    let stage = Stage::attached();
    let mut device = device(&stage, "meter-1");
    device.wait_for_line(&["document taken", "version=1"]);
    let (assignment, _) = last_assignment(&stage.proxy, device.id());
    // The service's own beacons live for a day. One that lives for two seconds takes their place.
    let issued = assignment.validity.issued;
    let validity = Validity { version: 1000, issued, expires: issued.plus_secs(2) };
    let beacon = Beacon { prefix: assignment.prefix, validity, groups: Vec::new(), root: 1 };
    let forger = stage.forger();
    let signed = forger.beacon(&beacon);
    forger.tell(device.id(), &signed);
    // So far only the broker has it. Nothing is held back before the device has it too.
    device.wait_for("its beacon", |_| stage.proxy.messages("meter-1").iter().any(|m| m.payload == signed));

    stage.proxy.set(Verb::Withhold { one_in: 1 });
    let release = stage.bundle.noise_release(1, 50_000);
    let campaign = stage.service.roll_out(&release);
    let status = device.wait_for("stale", |status| Agent::counted(status, "stale") == 1);
    assert_eq!((&status["state"], &status["running"]["slot"]), (&"idle".into(), &"a".into()), "{status}");

    stage.proxy.set(Verb::Pass);
    stage.proxy.cut();
    stage.wait_until_updated(&device, &release, &campaign);
}

#[test]
fn empty_retained_messages_change_nothing() {
    let stage = Stage::embedded();
    let mut device = device(&stage, "meter-1");
    stage.proxy.set(Verb::EmptyRetain);
    let release = stage.bundle.noise_release(1, 100_000);
    let campaign = stage.service.roll_out(&release);
    let status = stage.wait_until_updated(&device, &release, &campaign);
    let traffic = stage.proxy.traffic(device.id());
    assert!(Agent::rejected(&status, "empty") >= 30, "{traffic:?}: {status}");
    // This holds across a reboot too: the device still knows its groups, and that this campaign is done.
    device.reboot();
    let status = device.wait_for("more of them", |status| Agent::rejected(status, "empty") >= 3);
    assert_eq!(status["state"], "confirmed", "{status}");
    assert_eq!(stage.service.counter("reports"), 1);
}

/// Refusals are not signed, so they delay and end nothing.
#[test]
fn forged_refusals_delay_and_end_nothing() {
    let stage = Stage::embedded();
    let device = device(&stage, "meter-1");
    stage.proxy.set(Verb::ForgeRefusal { one_in: 16 });
    let release = stage.bundle.noise_release(1, 140 * 4096);
    let before = Agent::counted(&device.status(), "refusals");
    let campaign = stage.service.roll_out(&release);
    let status = stage.wait_until_updated(&device, &release, &campaign);
    let traffic = stage.proxy.traffic(device.id());
    assert!(traffic.tampered >= 8, "every code once: {traffic:?}");
    assert!(Agent::counted(&status, "refusals") >= before + traffic.tampered, "{traffic:?}: {status}");
    assert_eq!(stage.service.counter("reports"), 1);
}

#[test]
fn a_device_that_is_flooded_hangs_up_and_gets_there() {
    let stage = Stage::embedded();
    let device = device(&stage, "meter-1");
    stage.proxy.set(Verb::Flood { count: 8 });
    let release = stage.bundle.noise_release(1, 200_000);
    let before = stage.proxy.traffic(device.id());
    let campaign = stage.service.roll_out(&release);
    let status = stage.wait_until_updated(&device, &release, &campaign);
    let traffic = stage.proxy.traffic(device.id());
    assert!(Agent::counted(&status, "floods") >= 3, "{status}");
    assert!(traffic.connections >= before.connections + 3, "{traffic:?}");
    assert!(Agent::rejected(&status, "misbehaved") >= 100, "{status}");
}

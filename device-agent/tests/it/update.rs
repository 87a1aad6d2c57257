//! Whole updates: the agent as a process, a real broker, the scripted service.

use alloc::sync::Arc;
use std::io::Write as _;
use std::process::{Command, Stdio};

use whimbrel_engine::storage::PatchMode;
use whimbrel_protocol::ids::ChunkIndex;
use whimbrel_protocol::manifest::{Codec, TransferDescriptor};
use whimbrel_protocol::message::{DeferReason, FailureCode, Outcome, Report};
use whimbrel_protocol::testing::Fixture;
use whimbrel_protocol::topic::Channel;

use crate::broker::{Mosquitto, eventually};
use crate::power_cut_service::{Release, Service};
use crate::rig::{Attached, Device, noise};
use crate::storage_support::FRESH;

/// Broker, service and device, with one release that is rolled out.
pub(crate) struct Rig {
    pub(crate) device: Device,
    pub(crate) service: Attached,
    broker: Mosquitto,
    release: Arc<Release>,
}

impl Rig {
    pub(crate) fn new(codec: Codec, image: Vec<u8>) -> Self {
        let fixture = Arc::new(Fixture::new());
        let broker = Mosquitto::start();
        let device = Device::new(&fixture, broker.port);
        let release = Arc::new(Release::new(&fixture, codec, image, 1));
        let service = Attached::start(&broker, Service::new(fixture, vec![Arc::clone(&release)]));
        Self { device, service, broker, release }
    }

    pub(crate) fn wait_for_report(&self) -> Report {
        eventually("a report arrives", || self.service.lock().service.reports.first().cloned())
    }

    pub(crate) fn served(&self) -> u64 {
        self.service.lock().service.served
    }

    /// Waits until nothing moves because the service says nothing more.
    fn wait_until_silent(&self, after: u64) {
        eventually("the service falls silent", || (self.served() >= after).then_some(()));
    }
}

fn update_of(codec: Codec, image: Vec<u8>) {
    let mut rig = Rig::new(codec, image);
    rig.device.start();
    let report = rig.wait_for_report();
    assert_eq!((report.outcome, report.failure), (Outcome::Confirmed, None));
    assert_eq!((report.sequence, report.bytes_twice), (1, 0));
    assert_eq!(report.bytes_received, rig.release.payload.len() as u64);

    let status = rig.device.wait_for("the report is acknowledged", |status| {
        status["state"] == "confirmed" && status["reports_waiting"] == 0
    });
    assert_eq!(status["percent"], 100);
    assert_eq!(status["running"]["slot"], "b");
    assert_eq!(status["running"]["version"], "1.0.1");
    assert_eq!(status["running"]["trial"], "none");
    assert_eq!(status["rejected"], serde_json::json!({}));
    assert!(rig.device.slot_holds("b", &rig.release.image));
    assert_eq!(rig.served(), rig.release.payload.len() as u64, "no chunk was sent twice");
    assert_eq!(rig.device.terminate(), Some(0));
}

#[test]
fn a_raw_release_is_fetched_started_and_confirmed() {
    update_of(Codec::Raw, noise(1, 200_000));
}

#[test]
fn a_compressed_release_is_fetched_started_and_confirmed() {
    let image: Vec<u8> = (0..300_000u64).map(|at| (at * at / 1000 % 256) as u8).collect();
    update_of(Codec::Lzma, image);
}

/// A device that runs the pair's old image and applies patches so.
fn rig_for_patch(mode: PatchMode) -> Rig {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let device = Device::new(&fixture, broker.port)
        .set(&format!("install.patch={}", mode.name()))
        .set("install.patch-buffer=4KiB");
    std::fs::write(device.path("data").join("slot-a.img"), FRESH.old).unwrap();
    let release = Arc::new(FRESH.release(&fixture));
    let service = Attached::start(&broker, Service::new(fixture, vec![Arc::clone(&release)]));
    Rig { device, service, broker, release }
}

fn slot_a(rig: &Rig) -> Vec<u8> {
    std::fs::read(rig.device.path("data").join("slot-a.img")).unwrap()
}

#[test]
fn a_patch_is_fetched_started_and_confirmed_in_every_mode() {
    for mode in PatchMode::ALL {
        let mut rig = rig_for_patch(mode);
        rig.device.start();
        let report = rig.wait_for_report();
        assert_eq!((report.outcome, report.failure), (Outcome::Confirmed, None), "{}", mode.name());
        assert_eq!(report.bytes_received, FRESH.patch.len() as u64);
        assert!(rig.device.slot_holds("b", FRESH.new));
        assert!(slot_a(&rig) == FRESH.old);
        let status = rig.device.wait_for("it is over", |status| status["state"] == "confirmed");
        assert_eq!(
            (&status["codec"], &status["payload_bytes"]),
            (&"patch".into(), &FRESH.patch.len().into())
        );
        assert_eq!(rig.service.lock().service.served_full, 0);
        assert_eq!(rig.device.terminate(), Some(0));
    }
}

/// Killed while the patch comes; what was applied or lies in the ring is not fetched again.
#[test]
fn a_killed_agent_goes_on_with_its_patch_in_every_mode() {
    for mode in PatchMode::ALL {
        let mut rig = rig_for_patch(mode);
        for after in [8_000, 20_000] {
            rig.service.lock().silent_after = Some(after);
            rig.device.start();
            rig.wait_until_silent(after);
            rig.device.kill_hard();
        }
        rig.service.lock().silent_after = None;
        rig.device.start();
        let report = rig.wait_for_report();
        assert_eq!((report.outcome, report.failure), (Outcome::Confirmed, None), "{}", mode.name());
        assert!(rig.device.slot_holds("b", FRESH.new));
        assert!(slot_a(&rig) == FRESH.old);
        let again = rig.served() - FRESH.patch.len() as u64;
        assert!(again <= report.bytes_twice, "{}: {again} bytes, {}", mode.name(), report.bytes_twice);
        assert!(
            mode != PatchMode::Stream || again <= 2 * 2 * 1024,
            "twice what a ring of four lets be in flight"
        );
        assert_eq!(rig.service.lock().service.served_full, 0);
    }
}

/// Killed at several points of one download; each time only what was asked for and not yet written comes again.
#[test]
fn a_killed_agent_goes_on_where_it_was() {
    let mut rig = Rig::new(Codec::Raw, noise(6, 400_000));
    let window = 64 * 1024;
    let mut stops = 0;
    for after in [60_000, 150_000, 290_000] {
        rig.service.lock().silent_after = Some(after);
        rig.device.start();
        rig.wait_until_silent(after);
        rig.device.kill_hard();
        stops += 1;
    }
    rig.service.lock().silent_after = None;
    rig.device.start();
    let report = rig.wait_for_report();
    assert_eq!(report.outcome, Outcome::Confirmed);
    assert!(rig.device.slot_holds("b", &rig.release.image));
    let again = rig.served() - rig.release.payload.len() as u64;
    assert!(again <= stops * window, "{again} bytes were sent again after {stops} kills");
    // The ledger has every byte that was sent again, and those that were asked for and never sent.
    let twice = report.bytes_twice;
    assert!(
        again <= twice && twice <= stops * window,
        "{again} bytes were sent again, {twice} are accounted for"
    );
}

#[test]
fn an_agent_that_is_told_to_stop_saves_what_it_has() {
    let mut rig = Rig::new(Codec::Raw, noise(7, 300_000));
    rig.service.lock().silent_after = Some(120_000);
    rig.device.start();
    rig.wait_until_silent(120_000);
    // All that was sent has arrived: nothing is in flight any more.
    let served = rig.served();
    rig.device.wait_for("everything sent has arrived", |status| status["bytes_received"] == served);
    assert_eq!(rig.device.terminate(), Some(0));
    let before = rig.served();
    assert_eq!(rig.device.checkpointed(&rig.release) * 1024, before, "the journal has it all");
    rig.service.lock().silent_after = None;
    rig.device.start();
    let report = rig.wait_for_report();
    assert_eq!(report.outcome, Outcome::Confirmed);
    let after = rig.served() - before;
    assert_eq!(before + after, rig.release.payload.len() as u64, "nothing was fetched again");
    assert!(report.bytes_twice <= 64 * 1024, "only what was asked for and not answered");
}

#[test]
fn a_download_goes_on_after_the_broker_was_killed() {
    let mut rig = Rig::new(Codec::Raw, noise(8, 300_000));
    rig.service.lock().silent_after = Some(100_000);
    rig.device.start();
    rig.wait_until_silent(100_000);
    rig.broker.kill();
    rig.device.wait_for("the link is down", |status| status["link"]["up"] == false);
    rig.service.lock().silent_after = None;
    assert!(rig.broker.resume());
    let report = rig.wait_for_report();
    assert_eq!(report.outcome, Outcome::Confirmed);
    let again = rig.served() - rig.release.payload.len() as u64;
    assert!(again <= 64 * 1024, "{again} bytes were sent again");
    let status = rig.device.status();
    assert!(status["counters"]["connections"].as_u64() >= Some(2), "{status}");
}

#[test]
fn an_agent_that_may_not_reboot_ends_with_4_and_the_boot_command_starts_the_new_image() {
    let mut rig = Rig::new(Codec::Raw, noise(9, 50_000));
    rig.device = rig.device.set("install.reboot=exit");
    rig.device.start();
    assert_eq!(rig.device.wait(), Some(4));
    let status = rig.device.status();
    assert_eq!((&status["daemon"], &status["running"]["trial"]), (&false.into(), &"armed".into()));

    let boot = rig.device.run(&["boot"]);
    assert_eq!(boot.code, Some(0));
    assert_eq!(boot.stdout.trim(), rig.device.path("data/slot-b.img").display().to_string());
    rig.device.start();
    assert_eq!(rig.wait_for_report().outcome, Outcome::Confirmed);
}

#[test]
fn the_reboot_command_is_run() {
    let mut rig = Rig::new(Codec::Raw, noise(10, 50_000));
    let flag = rig.device.path("rebooted");
    rig.device = rig.device.set(&format!("install.reboot=/bin/touch {}", flag.display()));
    rig.device.start();
    eventually("the command runs", || flag.exists().then_some(()));
    assert_eq!(rig.device.status()["state"], "rebooting");
}

#[test]
fn an_image_on_trial_can_be_committed_by_hand() {
    let mut rig = Rig::new(Codec::Raw, noise(11, 50_000));
    rig.device.hook("Testing_Enter_10_unsure", "exit 21");
    rig.device.start();
    rig.device.wait_for_state("testing");
    let commit = rig.device.run(&["commit"]);
    assert_eq!((commit.code, commit.stdout.as_str()), (Some(0), "the image in slot b is permanent\n"));
    assert_eq!(rig.wait_for_report().outcome, Outcome::Confirmed);
    let again = rig.device.run(&["commit"]);
    assert_eq!(again.code, Some(2), "{again:?}");
    let rollback = rig.device.run(&["rollback"]);
    assert_eq!(rollback.code, Some(2));
    assert!(rollback.stdout.contains("never given up"), "{rollback:?}");
}

#[test]
fn an_image_on_trial_can_be_rolled_back_by_hand() {
    let mut rig = Rig::new(Codec::Raw, noise(12, 50_000));
    rig.device.hook("Testing_Enter_10_unsure", "exit 21");
    rig.device.start();
    rig.device.wait_for_state("testing");
    assert_eq!(rig.device.run(&["rollback"]).code, Some(4));
    let report = rig.wait_for_report();
    assert_eq!((report.outcome, report.failure), (Outcome::Reverted, Some(FailureCode::Local)));
}

#[test]
fn check_says_hello_and_tells_what_is_new() {
    let mut rig = Rig::new(Codec::Raw, noise(13, 20_000));
    rig.device.start();
    rig.wait_for_report();
    rig.device.wait_for("the report is acknowledged", |status| status["reports_waiting"] == 0);
    let hellos = rig.service.lock().hellos;
    let check = rig.device.run(&["check"]);
    assert_eq!((check.code, check.stdout.as_str()), (Some(0), "nothing new\n"));
    assert!(rig.service.lock().hellos > hellos);
}

#[test]
fn check_says_so_when_there_is_no_broker() {
    let mut rig = Rig::new(Codec::Raw, noise(14, 20_000));
    rig.broker.kill();
    rig.device.start();
    rig.device.wait_for("it was tried", |status| status["link"]["last_error"].is_string());
    rig.device.run(&["check"]).assert_refused("not connected to the broker");
}

/// On a file system of its own, which is too small and then is not.
#[test]
fn a_full_medium_is_reported_and_the_update_goes_on_when_there_is_room() {
    let mut rig = Rig::new(Codec::Raw, noise(15, 600_000));
    let data = rig.device.path("data");
    let script = r#"
        mount -t tmpfs -o size=400k,mode=700 tmpfs "$0" && cp -p "$0.seed"/* "$0" || exit 99
        "$@" & read line; kill -TERM $!; wait $! || exit 98
        mount -o remount,size=8m "$0" && exec "$@""#;
    std::fs::rename(&data, rig.device.path("data.seed")).unwrap();
    std::fs::create_dir(&data).unwrap();
    let agent = rig.device.command(&["daemon"]);
    let namespaces = if rustix::process::getuid().is_root() { "-m" } else { "-rm" };
    let mut command = Command::new("unshare");
    command
        .arg(namespaces)
        .args(["sh", "-c", script])
        .arg(&data)
        .arg(agent.get_program())
        .args(agent.get_args());
    let log = std::fs::File::create(rig.device.path("log")).unwrap();
    let mut child = command.stdin(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut line = child.stdin.take().unwrap();
    rig.device.adopt(child);

    let deferred = eventually("the device says that it has no room", || {
        let served = rig.service.lock();
        served.statuses.iter().find(|status| status.deferred == Some(DeferReason::Room)).copied()
    });
    assert_eq!(deferred.bytes_received, 0, "refused before the first chunk");
    assert!(rig.device.log().contains("slot-b.img"), "the log names the file");
    line.write_all(b"go on\n").unwrap();
    assert_eq!(rig.wait_for_report().outcome, Outcome::Confirmed);
}

#[test]
fn a_release_with_chunks_above_the_message_size_is_not_asked_for() {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let image = noise(17, 50_000);
    let signed = fixture.release(image.clone(), 1, 13);
    let transfer = TransferDescriptor::raw(signed.layout, signed.index.digest);
    let (envelope, digest, index) = (signed.envelope, signed.digest, signed.index);
    let release = Release {
        envelope,
        digest,
        sequence: 1,
        image: image.clone(),
        payload: image,
        transfer,
        index,
        base: None,
        full: None,
    };
    let mut device = Device::new(&fixture, broker.port).set("download.message-size=5KiB");
    let service = Attached::start(&broker, Service::new(fixture, vec![Arc::new(release)]));
    device.start();
    let status = device.wait_for_state("deferred");
    assert_eq!((&status["reason"], service.lock().service.served), (&"retry".into(), 0));
    assert!(device.log().contains("larger than download.message-size"));
    assert_eq!(status["counters"]["oversized"], serde_json::Value::Null);
}

#[test]
fn messages_that_are_not_acted_on_are_counted_by_reason() {
    let mut rig = Rig::new(Codec::Raw, noise(16, 20_000));
    rig.device.start();
    rig.wait_for_report();
    let confirmed = rig.device.wait_for_state("confirmed");
    assert_eq!(confirmed["rejected"], serde_json::json!({}));
    let fixture = Fixture::new();
    let mut forger = Fixture::new();
    forger.campaign_key = whimbrel_protocol::cose::SigningKey::ed25519(&[66; 32]);
    let old = rig.service.lock().service.retained(&Channel::Assignment).unwrap();
    let newer = fixture.assignment(9, core::slice::from_ref(&fixture.group), None);
    let say = |payload: Vec<u8>| rig.service.lock().extra.push((Channel::Answers, payload));
    say(b"\x1fnonsense".to_vec());
    say(forger.assignment(10, &[], None));
    say(newer);
    say(old);
    say(whimbrel_protocol::message::ChunkMessage::encode(rig.release.tag(), ChunkIndex(0), &[1; 1024]));
    let status = rig.device.wait_for("four were rejected", |status| {
        status["rejected"].as_object().is_some_and(|counts| counts.len() == 4)
    });
    let expected = serde_json::json!({ "malformed": 1, "unauthentic": 1, "rollback": 1, "misbehaved": 1 });
    assert_eq!(status["rejected"], expected);
    let words = rig.device.run(&["status"]).stdout;
    assert!(words.contains("rejected  1 malformed, 1 misbehaved, 1 rollback, 1 unauthentic"), "{words}");
}

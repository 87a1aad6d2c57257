//! Whole updates with hooks that have a say, and with hooks that cannot run.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use whimbrel_protocol::limits::SAID_BYTES_MAX;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::message::{FailureCode, Outcome, Report};

use crate::broker::eventually;
use crate::rig::noise;
use crate::update::Rig;

#[test]
fn an_image_that_fails_its_health_hook_is_given_up() {
    let mut rig = Rig::new(Codec::Raw, noise(2, 50_000));
    let check = "test \"$WHIMBREL_SLOT\" != b || { seq 1000; echo the pump does not answer >&2; exit 1; }";
    rig.device.hook("Testing_Enter_50_check", check);
    rig.device.start();
    let report = rig.wait_for_report();
    assert_eq!((report.outcome, report.failure), (Outcome::Reverted, Some(FailureCode::Unhealthy)));
    // What it printed last has gone with the device through a restart.
    assert!(report.said.ends_with("999 | 1000 | the pump does not answer"), "{}", report.said);
    assert_eq!(report.said.len(), SAID_BYTES_MAX);
    // The scripted service answers a failed attempt with a higher one.
    eventually("a second attempt is reported", || reports(&rig).get(1).map(|report| report.attempt == 2));
    let status = rig.device.status();
    assert_eq!(status["running"]["slot"], "a");
    assert_eq!(rig.device.terminate(), Some(0));
}

fn reports(rig: &Rig) -> Vec<Report> {
    rig.service.lock().service.reports.clone()
}

/// The update waits, the log and `status` say for what, and it goes on when the file is mended. The health check is what
/// cannot run, and the download already waits for it.
#[test]
fn an_agent_whose_health_check_cannot_run_says_so_and_begins_nothing_until_it_is_mended() {
    let mut rig = Rig::new(Codec::Raw, noise(12, 50_000));
    rig.device.hook("Testing_Enter_00_health", "exit 0");
    let hook = rig.device.path("hooks/Testing_Enter_00_health");
    let chmod = |mode| std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o644);
    rig.device.start();
    let status = rig.device.wait_for_state("deferred");
    let said = status["hooks"][0].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("Testing_Enter_00_health has mode 0644 and cannot run"), "{status}");
    assert!(rig.device.run(&["status"]).stdout.contains(&format!("\nhooks     {said}")));
    assert!(rig.device.log().contains("a hook cannot run: no installation begins until it is mended"));
    assert_eq!(rig.served(), 0);
    chmod(0o755);
    let status = rig.device.wait_for("the hook is seen to be mended", |status| status["hooks"] == json!([]));
    assert_eq!(status["state"], "deferred", "it is asked again within a minute");
    assert!(rig.device.log().contains("all hooks can run"));
    // A restart asks at once.
    assert_eq!(rig.device.terminate(), Some(0));
    rig.device.start();
    assert_eq!(rig.wait_for_report().outcome, Outcome::Confirmed);
}

/// A new image may bring its health checks along, and with them one that cannot run.
#[test]
fn an_image_whose_health_check_cannot_run_is_given_up() {
    let mut rig = Rig::new(Codec::Raw, noise(13, 50_000));
    let hook = rig.device.path("hooks/Testing_Enter_00_health");
    let breaks = format!("echo '#!/bin/sh' > {0}; chmod 644 {0}", hook.display());
    // The last hook before the restart.
    rig.device.hook("Rebooting_Enter_99_new", &breaks);
    rig.device.start();
    let report = rig.wait_for_report();
    assert_eq!((report.outcome, report.failure), (Outcome::Reverted, Some(FailureCode::Unhealthy)));
    assert!(report.said.contains("has mode 0644 and cannot run"), "{}", report.said);
    assert_eq!(rig.device.status()["running"]["slot"], "a");
}

#[test]
fn a_hook_that_refuses_the_installation_fails_the_deployment() {
    let mut rig = Rig::new(Codec::Raw, noise(3, 50_000));
    rig.device.hook("Installing_Enter_10_pump", "echo the pump runs >&2; exit 1");
    rig.device.start();
    let report = rig.wait_for_report();
    assert_eq!((report.outcome, report.failure), (Outcome::Failed, Some(FailureCode::Hook)));
    assert_eq!(report.said, "the pump runs");
    assert!(rig.device.log().contains("the pump runs"));
    assert_eq!(rig.device.status()["running"]["slot"], "a");
}

#[test]
fn a_hook_that_refuses_the_reboot_gives_the_image_up() {
    let mut rig = Rig::new(Codec::Raw, noise(4, 50_000));
    rig.device.hook("Rebooting_Enter_10_no", "exit 1");
    rig.device.start();
    let report = rig.wait_for_report();
    assert_eq!((report.outcome, report.failure), (Outcome::Reverted, Some(FailureCode::Hook)));
    assert_eq!(rig.device.status()["running"]["slot"], "a");
}

#[test]
fn hooks_see_every_state_in_its_order() {
    let mut rig = Rig::new(Codec::Raw, noise(5, 50_000));
    for state in ["Offered", "Downloading", "Installing", "Rebooting", "Testing", "Confirmed"] {
        for edge in ["Enter", "Leave", "Error"] {
            let script = format!("echo {state}_{edge} >> {}", rig.device.path("seen").display());
            rig.device.hook(&format!("{state}_{edge}_10_note"), &script);
        }
    }
    rig.device.start();
    rig.wait_for_report();
    let seen = eventually("the last hook runs", || {
        let seen = std::fs::read_to_string(rig.device.path("seen")).ok()?;
        seen.contains("Confirmed_Enter").then_some(seen)
    });
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(
        seen,
        [
            "Offered_Enter",
            "Offered_Leave",
            "Downloading_Enter",
            "Downloading_Leave",
            "Installing_Enter",
            "Installing_Leave",
            "Rebooting_Enter",
            "Rebooting_Leave",
            "Testing_Enter",
            "Testing_Leave",
            "Confirmed_Enter",
        ]
    );
}

//! The control socket, the lock, and what commands say.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use serde_json::Value;
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::testing::Fixture;

use crate::rig::Device;

/// A device whose daemon runs without a broker.
fn running() -> Device {
    let mut device = Device::new(&Fixture::new(), 1);
    device.start();
    device.wait_for("the agent runs", |status| status["daemon"] == true);
    device
}

fn talk(device: &Device, line: &[u8]) -> Value {
    let mut stream = UnixStream::connect(device.path("data/control.sock")).unwrap();
    stream.write_all(line).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused() {
    let mut device = running();
    device.run(&["daemon", "--log", "error"]).assert_refused("is used by another agent: stop it first");
    device.run(&["boot"]).assert_refused("is used by another agent");
    assert_eq!(device.status()["daemon"], true, "the first one is not disturbed");
    assert_eq!(device.terminate(), Some(0));
    assert_eq!(device.status()["daemon"], false);
}

#[test]
fn status_shows_the_fingerprint_of_the_key_with_the_daemon_and_without() {
    let mut device = running();
    let key = fs::read(device.path("data/device.cose")).unwrap();
    let fingerprint = SigningKey::decode_file(&key).unwrap().public().fingerprint().to_string();
    assert_eq!(device.status()["fingerprint"], fingerprint.as_str());
    assert_eq!(device.terminate(), Some(0));
    assert_eq!(device.status()["fingerprint"], fingerprint.as_str());
    assert!(device.run(&["status"]).stdout.contains(&format!("key       {fingerprint}\n")));
}

#[test]
fn a_socket_that_a_killed_daemon_left_behind_is_in_nobodys_way() {
    let mut device = running();
    device.kill_hard();
    assert!(device.path("data/control.sock").exists());
    assert_eq!(device.status()["daemon"], false);
    device.start();
    device.wait_for("the agent runs again", |status| status["daemon"] == true);
    assert_eq!(device.terminate(), Some(0));
    assert!(!device.path("data/control.sock").exists());
}

#[test]
fn only_the_owner_may_open_socket_and_files() {
    let device = running();
    for entry in fs::read_dir(device.path("data")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn nonsense_on_the_socket_gets_an_answer_and_changes_nothing() {
    let device = running();
    for line in [
        &b"\n"[..],
        b"{}\n",
        b"status\n",
        b"{\"command\":\"frobnicate\"}\n",
        b"\xff\xfe\n",
        b"{\"command\":\"install\"}\n",
    ] {
        match std::panic::catch_unwind(|| talk(&device, line)) {
            Ok(answer) => assert_eq!(answer["exit"], "error", "{line:?}"),
            // Bytes that are not text: the agent hangs up.
            Err(_) => assert_eq!(line, b"\xff\xfe\n"),
        }
    }
    // The agent reads as much as a request may have and answers, without waiting for the end of the line.
    let long = [&b"{\"command\":\""[..], &[b'x'; 8 * 1024]].concat();
    assert_eq!(talk(&device, &long[..8 * 1024])["exit"], "error");
    // The rest may find the socket closed.
    let mut stream = UnixStream::connect(device.path("data/control.sock")).unwrap();
    drop(stream.write_all(&long.repeat(12)));
    assert_eq!(talk(&device, b"{\"command\":\"status\"}\n")["exit"], "done");
}

#[test]
fn many_who_say_nothing_do_not_keep_the_daemon_from_working() {
    let mut device = running();
    let silent: Vec<UnixStream> =
        (0..30).map(|_| UnixStream::connect(device.path("data/control.sock")).unwrap()).collect();
    assert_eq!(device.terminate(), Some(0));
    drop(silent);
}

#[test]
fn a_command_without_a_data_folder_says_so_and_makes_none() {
    let device = Device::new(&Fixture::new(), 1).set("storage.data=nowhere");
    for command in ["status", "commit", "rollback", "check"] {
        // With its whole path: hooks, which run elsewhere, are given paths too.
        let nowhere = std::path::absolute("nowhere").unwrap();
        let line = format!("there is no data folder {}: no agent has run here", nowhere.display());
        device.run(&[command]).assert_refused(&line);
    }
    assert!(!device.path("nowhere").exists());
}

#[test]
fn check_needs_a_daemon_and_the_others_do_not() {
    let device = Device::new(&Fixture::new(), 1);
    device.run(&["check"]).assert_refused("no agent runs with this data folder");
    assert_eq!(device.run(&["commit"]).code, Some(2));
    assert_eq!(device.run(&["rollback"]).code, Some(2));
    let status = device.run(&["status"]);
    assert_eq!(status.code, Some(0));
    assert!(status.stdout.contains("state     idle\n"), "{status:?}");
    assert!(status.stdout.contains("daemon    not running\n"), "{status:?}");
}

#[test]
fn without_a_pinned_root_a_file_that_is_none_keeps_the_daemon_from_starting() {
    let device = Device::new(&Fixture::new(), 1);
    let root = device.path("root.cbor");
    let good = fs::read(&root).unwrap();
    fs::write(&root, b"garbage").unwrap();
    device.run(&["daemon", "--log", "error"]).assert_refused("root.cbor is not a trust anchor");
    fs::remove_file(&root).unwrap();
    device.run(&["daemon", "--log", "error"]).assert_refused("cannot read");
    fs::write(&root, &good).unwrap();
    assert_eq!(device.run(&["status"]).code, Some(0), "pinned now");
}

#[test]
fn a_file_with_another_root_changes_nothing_and_is_told_of() {
    let mut device = Device::new(&Fixture::new(), 1);
    assert_eq!(device.run(&["status"]).code, Some(0), "pinned now");
    let mut other = Fixture::new();
    other.root_key = SigningKey::ed25519(&[99; 32]);
    fs::write(device.path("root.cbor"), other.root_bytes()).unwrap();
    device.start();
    device.wait_for("the agent runs", |status| status["daemon"] == true);
    assert!(device.log().contains("does not follow from the pinned root of version 1"));
}

/// In a trial it would keep an image that nobody can check; so the daemon runs, and no check counts as passed.
#[test]
fn a_hooks_folder_that_is_not_there_is_said_and_nothing_is_installed() {
    let mut device = Device::new(&Fixture::new(), 1).set("hooks.folder=/nowhere");
    device.start();
    let status = device.wait_for("it says so", |status| status["daemon"] == true);
    assert!(status["hooks"][0].as_str().unwrap().contains("/nowhere"), "{status}");
    assert!(device.run(&["status"]).stdout.contains("no installation begins"));
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = Device::new(&Fixture::new(), 1).run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in [
        "daemon",
        "install",
        "provision",
        "commit",
        "rollback",
        "status",
        "check",
        "boot",
        "config",
        "4 reboot needed",
    ] {
        assert!(help.stdout.contains(word), "{word}");
    }
}

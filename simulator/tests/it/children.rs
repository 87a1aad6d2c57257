//! Child processes: ready, measured, stopped, and gone in every case. The children are shells.

use core::time::Duration;
use std::path::Path;

use rustix::process::{Pid, test_kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use whimbrel_sim::child::{Child, ChildOptions};
use whimbrel_sim::error::ChildError;

use crate::support::PATIENCE;

#[derive(Debug, Deserialize)]
struct Ready {
    pid: i32,
}

fn options(folder: &TempDir, ready_within: Duration) -> ChildOptions {
    ChildOptions {
        name: "the service",
        log: folder.path().join("service.log"),
        ready_within,
        stop_within: Duration::from_millis(300),
    }
}

/// Starts a shell with this script after it said that it is ready.
async fn start(script: &str) -> (TempDir, Result<(Child, Ready), ChildError>) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    let child = Child::start(command, options(&folder, PATIENCE)).await;
    (folder, child)
}

const READY: &str = r#"echo "{\"pid\": $$, \"more\": [1, 2]}"; "#;

fn is_alive(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

/// Waits until the process is gone, which the kernel tells by its folder; a zombie of ours is collected in passing.
async fn gone(pid: i32) {
    let folder = format!("/proc/{pid}/stat");
    timeout(PATIENCE, async {
        while std::fs::read_to_string(Path::new(&folder)).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_child_that_says_it_is_ready_runs_and_is_measured_until_it_is_stopped() {
    let (_folder, child) = start(&format!("{READY} exec cat")).await;
    let (child, ready) = child.unwrap();
    assert!(is_alive(ready.pid));
    let usage = child.usage().unwrap();
    assert!(usage.peak_rss_bytes > 0, "{usage:?}");
    let status = child.stop().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    assert!(!is_alive(ready.pid));
}

#[tokio::test]
async fn a_child_that_does_not_want_to_end_is_killed() {
    let (_folder, child) = start(&format!("trap '' TERM; {READY} while :; do read line || :; done")).await;
    let (child, ready) = child.unwrap();
    let status = child.stop().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(!is_alive(ready.pid));
}

#[tokio::test]
async fn a_dropped_child_is_gone() {
    // One that does not look at its standard input, whose end would be a hint.
    let (_folder, child) = start(&format!("{READY} exec sleep 600")).await;
    let (child, ready) = child.unwrap();
    drop(child);
    gone(ready.pid).await;
}

#[tokio::test]
async fn a_panic_takes_the_child_along() {
    let (_folder, child) = start(&format!("{READY} exec sleep 600")).await;
    let (child, ready) = child.unwrap();
    let outcome = tokio::spawn(async move {
        let _child = child;
        panic!("on purpose");
    })
    .await;
    assert!(outcome.unwrap_err().is_panic());
    gone(ready.pid).await;
}

#[tokio::test]
async fn a_child_that_writes_a_lot_after_its_first_line_is_not_held_up() {
    let script = format!("{READY} head -c 1000000 /dev/zero; exit 7");
    let (_folder, child) = start(&script).await;
    let (mut child, _) = child.unwrap();
    let error = timeout(PATIENCE, child.ended()).await.unwrap();
    assert!(matches!(&error, ChildError::Ended { status, .. } if status == "with status 7"), "{error}");
}

#[tokio::test]
async fn a_child_that_ends_before_it_is_ready_is_quoted() {
    let (_folder, child) = start("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done >&2; echo 'no room on the disk' >&2; exit 70").await;
    let error = child.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ChildError::Ended { .. }), "{text}");
    assert!(text.contains("status 70") && text.contains("line 1999\nno room on the disk"), "{text}");
    assert!(text.len() < 300, "only the end: {text}");
}

#[tokio::test]
async fn a_child_that_never_gets_ready_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg("echo waiting for the disk >&2; exec cat");
    let outcome = Child::start::<Ready>(command, options(&folder, Duration::from_millis(200))).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, ChildError::NotReady { .. }), "{error}");
}

#[tokio::test]
async fn a_first_line_that_is_not_the_expected_object_is_quoted() {
    let (_folder, child) = start("echo listening on port 1883; exec cat").await;
    let error = child.unwrap_err();
    assert!(matches!(&error, ChildError::Line { line, .. } if line == "listening on port 1883"), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let command = Command::new("/nowhere/whimbreld");
    let error = Child::start::<Ready>(command, options(&folder, PATIENCE)).await.unwrap_err();
    assert!(
        matches!(&error, ChildError::Start { program, .. } if program == "/nowhere/whimbreld"),
        "{error}"
    );
}

/// What [`a_child_ends_with_its_parent`] starts; alone it does nothing.
#[test]
fn as_a_child() {
    if std::env::var_os(AS_A_CHILD).is_some() {
        whimbrel_sim::child::end_with_parent();
        loop {
            std::thread::park();
        }
    }
}

const AS_A_CHILD: &str = "WHIMBREL_TEST_AS_A_CHILD";

#[tokio::test]
async fn a_child_ends_with_its_parent() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "children::as_a_child"])
        .env(AS_A_CHILD, "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // What the kernel does to the other end of the pipe when the parent is killed.
    drop(child.stdin.take());
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(3));
}

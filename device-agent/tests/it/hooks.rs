//! What hooks may do, and what becomes of those that do more.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use whimbrel_agent::config::HookConfig;
use whimbrel_agent::hooks::{Edge, HookContext, Hooks, Moment, Verdict};
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest};
use whimbrel_protocol::message::State;

use crate::broker::eventually;

const INSTALLING: Moment = Moment { state: State::Installing, edge: Edge::Enter };

/// A folder of hooks, and one beside it for what they leave behind.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.hooks()).unwrap();
        folder
    }

    fn hooks(&self) -> PathBuf {
        self.0.path().join("hooks")
    }

    fn notes(&self) -> PathBuf {
        self.0.path().join("notes")
    }

    fn add(&self, name: &str, script: &str, mode: u32) {
        let path = self.hooks().join(name);
        let script = format!("#!/bin/sh\nexec 3>>{}\n{script}\n", self.notes().display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn noted(&self) -> String {
        fs::read_to_string(self.notes()).unwrap_or_default()
    }

    /// Runs the hooks of `Installing_Enter`, with a limit that a test must not come near by accident.
    fn run(&self) -> Verdict {
        self.run_for(Duration::from_secs(60))
    }

    fn run_for(&self, limit: Duration) -> Verdict {
        let config = HookConfig { folder: Some(self.hooks()), limit, output_bytes_max: 1024 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Hooks::new(&config).run(INSTALLING, &context()))
    }
}

fn context() -> HookContext {
    HookContext {
        device: DeviceId::new("m-1").unwrap(),
        campaign: Some((CampaignId([7; 8]), 3)),
        release: Some((Digest([9; 32]), 12)),
        slot: ("b", PathBuf::from("/slots/b")),
        reason: None,
    }
}

/// The processes whose command line has `mark` in it.
fn alive(mark: &str) -> bool {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    processes.into_iter().any(|line| String::from_utf8_lossy(&line).contains(mark))
}

#[test]
fn no_folder_and_no_hook_say_to_go_on() {
    assert_eq!(Folder::new().run(), Verdict::Good);
    let config = HookConfig { folder: None, limit: Duration::from_secs(1), output_bytes_max: 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(Hooks::new(&config).run(INSTALLING, &context())), Verdict::Good);
}

#[test]
fn exit_codes_say_go_on_fail_and_later() {
    for (code, verdict) in [(0, Verdict::Good), (1, Verdict::Bad), (21, Verdict::Later), (20, Verdict::Bad)] {
        let folder = Folder::new();
        folder.add("Installing_Enter_10_x", &format!("exit {code}"), 0o755);
        assert_eq!(folder.run(), verdict, "{code}");
    }
    let folder = Folder::new();
    folder.add("Installing_Enter_10_x", "kill -SEGV $$", 0o755);
    assert_eq!(folder.run(), Verdict::Bad, "a signal");
}

#[test]
fn hooks_run_in_the_order_of_their_numbers_until_one_does_not_go_on() {
    let folder = Folder::new();
    for (name, code) in [("30_c", 0), ("10_a", 0), ("20_b", 1)] {
        folder.add(&format!("Installing_Enter_{name}"), &format!("echo {name} >&3; exit {code}"), 0o755);
    }
    folder.add("Installing_Leave_00_other", "echo wrong >&3", 0o755);
    assert_eq!(folder.run(), Verdict::Bad);
    assert_eq!(folder.noted(), "10_a\n20_b\n");
}

#[test]
fn only_executables_with_the_right_name_run() {
    let folder = Folder::new();
    folder.add("Installing_Enter_10_off", "echo off >&3; exit 1", 0o644);
    folder.add("Installing_Enter_x_name", "echo name >&3; exit 1", 0o755);
    folder.add("Installing_Enter_10_on", "echo on >&3", 0o755);
    assert_eq!(folder.run(), Verdict::Good);
    assert_eq!(folder.noted(), "on\n");
    let config =
        HookConfig { folder: Some(folder.hooks()), limit: Duration::from_secs(1), output_bytes_max: 0 };
    assert_eq!(Hooks::new(&config).misnamed().unwrap(), ["Installing_Enter_x_name"]);
}

#[test]
fn a_hook_that_others_may_write_is_not_run_and_fails() {
    let folder = Folder::new();
    folder.add("Installing_Enter_10_open", "echo run >&3", 0o775);
    assert_eq!(folder.run(), Verdict::Bad);
    assert_eq!(folder.noted(), "");
}

#[test]
fn a_hook_that_is_no_program_fails() {
    let folder = Folder::new();
    let path = folder.hooks().join("Installing_Enter_10_x");
    fs::write(&path, [0; 64]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(folder.run(), Verdict::Bad);
}

#[test]
fn hooks_see_the_variables_that_are_listed_and_no_others() {
    let folder = Folder::new();
    folder.add("Installing_Enter_10_env", "env | sort >&3; pwd >&3", 0o755);
    assert_eq!(folder.run(), Verdict::Good);
    let seen = folder.noted();
    let mut lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.pop(), Some("/"), "the folder they start in");
    // The shell adds some of its own.
    lines.retain(|line| {
        !line.starts_with("PWD=")
            && !line.starts_with("OLDPWD=")
            && !line.starts_with("SHLVL=")
            && !line.starts_with("_=")
    });
    assert_eq!(
        lines,
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "WHIMBREL_ATTEMPT=3",
            "WHIMBREL_CAMPAIGN=0707070707070707",
            "WHIMBREL_DEVICE=m-1",
            "WHIMBREL_EDGE=enter",
            "WHIMBREL_RELEASE=0909090909090909090909090909090909090909090909090909090909090909",
            "WHIMBREL_SEQUENCE=12",
            "WHIMBREL_SLOT=b",
            "WHIMBREL_SLOT_FILE=/slots/b",
            "WHIMBREL_STATE=installing",
        ]
    );
}

#[test]
fn a_hook_that_hangs_is_killed_with_everything_it_started() {
    let folder = Folder::new();
    let mark = format!("600.{}", std::process::id());
    folder.add("Installing_Enter_10_hang", &format!("(sleep {mark}) & sleep {mark}"), 0o755);
    assert_eq!(folder.run_for(Duration::from_millis(500)), Verdict::Bad);
    eventually("nothing is left of it", || (!alive(&mark)).then_some(()));
}

#[test]
fn what_a_hook_leaves_in_the_background_ends_with_it() {
    let folder = Folder::new();
    let mark = format!("601.{}", std::process::id());
    folder.add("Installing_Enter_10_fork", &format!("sleep {mark} & exit 0"), 0o755);
    assert_eq!(folder.run(), Verdict::Good);
    eventually("nothing is left of it", || (!alive(&mark)).then_some(()));
}

/// It leaves the process group and keeps the pipe open: it is not waited for.
#[test]
fn a_daemon_that_a_hook_starts_on_purpose_holds_nobody_up() {
    let folder = Folder::new();
    let mark = format!("602.{}", std::process::id());
    folder.add(
        "Installing_Enter_10_daemon",
        &format!("setsid sh -c 'echo $$ >&3; exec sleep {mark}' & sleep 0.2"),
        0o755,
    );
    assert_eq!(folder.run(), Verdict::Good);
    let pid = eventually("it wrote its number", || folder.noted().trim().parse::<i32>().ok());
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[test]
fn a_flood_of_output_neither_blocks_the_hook_nor_fills_the_memory() {
    let folder = Folder::new();
    folder.add("Installing_Enter_10_flood", "head -c 50000000 /dev/zero; echo done >&3", 0o755);
    assert_eq!(folder.run(), Verdict::Good);
    assert_eq!(folder.noted(), "done\n");
    let peak = peak_memory_kib(Path::new("/proc/self/status"));
    assert!(peak < 100_000, "{peak} KiB");
}

fn peak_memory_kib(status: &Path) -> u64 {
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

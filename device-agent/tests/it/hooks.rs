//! What hooks may do, and what becomes of those that do more.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use whimbrel_agent::config::HookConfig;
use whimbrel_agent::hooks::{Answer, Edge, HookContext, Hooks, Moment, Verdict};
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest};
use whimbrel_protocol::message::State;

use crate::broker::eventually;

const INSTALLING: Moment = Moment { state: State::Installing, edge: Edge::Enter };

/// A folder of hooks, and one beside it for what they leave behind.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.hooks()).unwrap();
        fs::set_permissions(folder.hooks(), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    pub(crate) fn hooks(&self) -> PathBuf {
        self.0.path().join("hooks")
    }

    fn notes(&self) -> PathBuf {
        self.0.path().join("notes")
    }

    pub(crate) fn add(&self, name: &str, script: &str, mode: u32) {
        self.add_script(name, &format!("#!/bin/sh\nexec 3>>{}\n{script}\n", self.notes().display()), mode);
    }

    pub(crate) fn add_script(&self, name: &str, script: &str, mode: u32) {
        let path = self.hooks().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn noted(&self) -> String {
        fs::read_to_string(self.notes()).unwrap_or_default()
    }

    /// Runs the hooks of `Installing_Enter`, with a limit that a test must not come near by accident.
    fn run(&self) -> Verdict {
        self.run_for(Duration::from_secs(60))
    }

    fn run_for(&self, limit: Duration) -> Verdict {
        self.ask(INSTALLING, limit).verdict
    }

    pub(crate) fn answer(&self, moment: Moment) -> Answer {
        self.ask(moment, Duration::from_secs(60))
    }

    fn ask(&self, moment: Moment, limit: Duration) -> Answer {
        let config = HookConfig { folder: Some(self.hooks()), limit, output_bytes_max: 1024 };
        block_on(Hooks::new(&config).run(moment, &context()))
    }

    /// What keeps hooks from running.
    fn problems(&self) -> Vec<String> {
        let config = HookConfig { folder: Some(self.hooks()), limit: Duration::ZERO, output_bytes_max: 0 };
        Hooks::new(&config).problems()
    }
}

fn block_on<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

fn context() -> HookContext {
    HookContext {
        device: DeviceId::new("m-1").unwrap(),
        campaign: Some((CampaignId([7; 8]), 3)),
        release: Some((Digest([9; 32]), 12)),
        slot: ("b", PathBuf::from("/slots/b")),
        reason: None,
        goes_back: false,
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
    assert_eq!(block_on(Hooks::new(&config).run(INSTALLING, &context())).verdict, Verdict::Good);
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
fn only_files_with_a_hooks_name_run() {
    let folder = Folder::new();
    folder.add("Installing_Enter_x_name", "echo name >&3; exit 1", 0o755);
    folder.add("off.Installing_Enter_10_off", "echo off >&3; exit 1", 0o644);
    folder.add("Installing_Enter_10_on", "echo on >&3", 0o755);
    assert_eq!(folder.run(), Verdict::Good);
    assert_eq!(folder.noted(), "on\n");
    let config =
        HookConfig { folder: Some(folder.hooks()), limit: Duration::from_secs(1), output_bytes_max: 0 };
    let mut misnamed = Hooks::new(&config).misnamed().unwrap();
    misnamed.sort();
    assert_eq!(misnamed, ["Installing_Enter_x_name", "off.Installing_Enter_10_off"]);
}

/// Every gate waits, and a trial fails, for any hook of the folder; what is only told runs as far as it can.
pub(crate) fn nothing_begins_because_of(folder: &Folder, says: &str) {
    let problems = folder.problems();
    assert!(problems.len() == 1 && problems[0].contains(says), "{problems:?} should say {says}");
    folder.add("Downloading_Leave_10_told", "echo told >&3", 0o755);
    for (state, edge, verdict) in [
        (State::Downloading, Edge::Enter, Verdict::Later),
        (State::Installing, Edge::Enter, Verdict::Later),
        (State::Rebooting, Edge::Enter, Verdict::Later),
        (State::Testing, Edge::Enter, Verdict::Bad),
    ] {
        let moment = Moment { state, edge };
        let answer = folder.answer(moment);
        assert_eq!((answer.verdict, &answer.said), (verdict, &problems[0]), "{moment}");
    }
    let told = folder.answer(Moment { state: State::Downloading, edge: Edge::Leave });
    assert_eq!(told.verdict, Verdict::Good);
}

#[test]
fn a_health_check_that_cannot_run_is_a_failed_one_and_nothing_is_installed_until_it_is_mended() {
    for mode in [0o644, 0o600, 0o444] {
        let folder = Folder::new();
        folder.add("Testing_Enter_00_health", "echo run >&3", mode);
        nothing_begins_because_of(&folder, &format!("has mode {mode:04o} and cannot run: chmod 755"));
        assert_eq!(folder.noted(), "told\n");
        folder.add("Testing_Enter_00_health", "echo run >&3", 0o755);
        assert_eq!((folder.problems(), folder.run()), (Vec::new(), Verdict::Good));
        let testing = Moment { state: State::Testing, edge: Edge::Enter };
        assert_eq!((folder.answer(testing).verdict, folder.noted().as_str()), (Verdict::Good, "told\nrun\n"));
    }
}

#[test]
fn a_hook_that_others_may_write_is_not_run_and_nothing_is_installed() {
    for mode in [0o775, 0o757, 0o777] {
        let folder = Folder::new();
        folder.add("Installing_Enter_10_open", "echo run >&3", mode);
        nothing_begins_because_of(&folder, "may be written by others than its owner: chmod go-w");
        assert_eq!(folder.noted(), "told\n");
    }
}

#[test]
fn a_hook_that_is_a_link_or_a_folder_is_not_run() {
    let folder = Folder::new();
    folder.add("kept", "echo run >&3", 0o755);
    let hook = folder.hooks().join("Installing_Enter_10_link");
    std::os::unix::fs::symlink(folder.hooks().join("kept"), &hook).unwrap();
    nothing_begins_because_of(&folder, "is a link, and links are not followed");
    fs::remove_file(&hook).unwrap();
    fs::create_dir(&hook).unwrap();
    nothing_begins_because_of(&folder, "is not a file");
}

/// A hook of it could be replaced by anybody between the look at it and its start.
#[test]
fn no_hook_of_a_folder_that_others_may_write_is_run() {
    for mode in [0o777, 0o1777, 0o775] {
        let folder = Folder::new();
        folder.add("Installing_Enter_10_good", "echo run >&3", 0o755);
        fs::set_permissions(folder.hooks(), fs::Permissions::from_mode(mode)).unwrap();
        nothing_begins_because_of(&folder, "may be written by others than its owner: chmod go-w");
        assert_eq!(folder.noted(), "");
    }
}

#[test]
fn the_end_of_what_a_hook_prints_is_what_is_kept() {
    let folder = Folder::new();
    folder.add("Installing_Enter_10_x", "echo first; seq 1000; echo 'the cause' >&2; exit 1", 0o755);
    let answer = folder.answer(INSTALLING);
    assert_eq!(answer.verdict, Verdict::Bad);
    assert!(answer.said.ends_with("1000 | the cause") && !answer.said.contains("first"), "{}", answer.said);
    assert_eq!(answer.said.len(), 1024);
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

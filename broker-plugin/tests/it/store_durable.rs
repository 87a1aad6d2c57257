//! What is durable when: the system calls of the store, in their order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use whimbrel_protocol::testing::Fixture;
use whimbrel_protocol::time::UnixTime;
use whimbrel_service::store::{Change, DataLock, PayloadFolder, PayloadSpec, Payloads, SqliteStore, Store};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// What the tests below run under strace. After each step it writes a file that bears the step's name.
#[tokio::test]
#[ignore = "a part of the tests of this file"]
async fn a_store_to_be_traced() {
    let folder = PathBuf::from(std::env::var("TRACED_FOLDER").expect("set by the test that runs this"));
    let done = |step: &str| fs::write(folder.join(step), step).unwrap();
    let data = folder.join("var/data");
    let _lock = DataLock::take(&data).unwrap();
    let payloads = PayloadFolder::open(&data).unwrap();
    done("folders-made");

    let fixture = Fixture::new();
    let release = fixture.release((0..50_000u32).map(|at| (at * 7 % 251) as u8).collect(), 1, 10);
    let known = whimbrel_service::fleet::catalog::Release::read(&release.envelope, &fixture.root(), NOW)
        .unwrap()
        .payloads;
    let spec: PayloadSpec = known[0].spec.clone();
    let mut upload = payloads.begin(spec).unwrap();
    release.payload.chunks(10_000).for_each(|piece| upload.write(piece).unwrap());
    upload.finish(NOW).unwrap();
    done("uploaded");

    let mut store = SqliteStore::open(&data.join("whimbrel.sqlite")).await.unwrap();
    done("opened");
    for version in 1..=3 {
        store.apply(&[Change::Beacon { version, issued: NOW }]).await.unwrap();
        done(&format!("applied-{version}"));
    }
}

/// A system call, with paths relative to the traced folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    /// A folder or a file is made, or opened so that it may be.
    Make(String),
    Write(String),
    Sync(String),
    Rename(String, String),
}

/// The calls that touch the traced folder, in the order in which they began.
struct Trace(Vec<Call>);

impl Trace {
    fn take() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let calls = "trace=openat,mkdir,mkdirat,write,pwrite64,writev,pwritev,ftruncate,fsync,fdatasync,rename,\
                     renameat,renameat2";
        let run = Command::new("strace")
            .args(["-f", "-y", "-s", "0", "-e", calls, "-o"])
            .arg(log.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "store_durable::a_store_to_be_traced", "--ignored"])
            .env("TRACED_FOLDER", &root)
            .output();
        let run = run.expect("strace is installed (scripts/test does it)");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        let log = fs::read_to_string(log.path()).unwrap();
        Self(log.lines().filter_map(|line| read_line(line, &root)).collect())
    }

    /// What was done before a step was done, and after the one before it.
    fn step(&self, from: Option<&str>, to: &str) -> &[Call] {
        let at = |step: &str| {
            let made = Call::Make(step.to_owned());
            self.0.iter().position(|call| *call == made).unwrap_or_else(|| panic!("{step}: {:#?}", self.0))
        };
        &self.0[from.map_or(0, |from| at(from) + 1)..at(to)]
    }
}

/// `1234 fsync(7</folder/file>) = 0`, `1234 rename("/folder/a", "/folder/b") = 0`; what was interrupted by another
/// thread is read where it began.
fn read_line(line: &str, root: &Path) -> Option<Call> {
    let (head, arguments) = line.split_once('(')?;
    let call = head.rsplit(' ').next()?;
    let named = |text: &str| {
        let path = Path::new(text).strip_prefix(root).ok()?;
        Some(path.to_str().unwrap().to_owned())
    };
    let opened = || named(arguments.split_once('<')?.1.split_once('>')?.0);
    let mut quoted = arguments.split('"').skip(1).step_by(2).map(named);
    match call {
        "openat" if !arguments.contains("O_CREAT") => None,
        "openat" | "mkdir" | "mkdirat" if line.contains(" = -1 ") => None,
        "openat" | "mkdir" | "mkdirat" => quoted.next()?.map(Call::Make),
        "write" | "pwrite64" | "writev" | "pwritev" | "ftruncate" => opened().map(Call::Write),
        "fsync" | "fdatasync" => opened().map(Call::Sync),
        "rename" | "renameat" | "renameat2" => Some(Call::Rename(quoted.next()??, quoted.next()??)),
        _ => None,
    }
}

/// Where a call stands the last time.
fn last(calls: &[Call], is: impl Fn(&Call) -> bool) -> usize {
    calls.iter().rposition(is).unwrap_or_else(|| panic!("{calls:#?}"))
}

fn sync(path: &str) -> Call {
    Call::Sync(path.to_owned())
}

#[test]
fn an_upload_is_synced_before_it_takes_its_name_and_the_folder_after() {
    let trace = Trace::take();
    let calls = trace.step(Some("folders-made"), "uploaded");
    let folder = "var/data/payloads";
    let folder_synced = last(calls, |call| *call == sync(folder));
    let mut names = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let Call::Rename(part, name) = call else { continue };
        let written = last(calls, |call| *call == Call::Write(part.clone()));
        let synced = last(calls, |call| *call == sync(part));
        assert!(written < synced && synced < at && at < folder_synced, "{name}: {calls:#?}");
        names.push(name.rsplit_once('.').unwrap().1);
    }
    assert_eq!(names, ["index", "payload"]);
    let written_under_its_name = calls.iter().any(
        |call| matches!(call, Call::Write(path) if !path.ends_with(".part") && path.starts_with(folder)),
    );
    assert!(!written_under_its_name, "{calls:#?}");
}

#[test]
fn every_commit_is_synced_before_it_is_acknowledged() {
    let trace = Trace::take();
    for version in 1..=3 {
        let before = if version == 1 { "opened".to_owned() } else { format!("applied-{}", version - 1) };
        let calls = trace.step(Some(&before), &format!("applied-{version}"));
        let log = "var/data/whimbrel.sqlite-wal";
        let written = last(calls, |call| *call == Call::Write(log.to_owned()));
        assert!(written < last(calls, |call| *call == sync(log)), "{calls:#?}");
    }
}

#[test]
fn folders_and_files_that_are_made_are_synced_into_the_folder_above_them() {
    let trace = Trace::take();
    let calls = trace.step(None, "folders-made");
    for (made, above) in [("var", ""), ("var/data", "var"), ("var/data/payloads", "var/data")] {
        let at = last(calls, |call| *call == Call::Make(made.to_owned()));
        assert!(at < last(calls, |call| *call == sync(above)), "{made}: {calls:#?}");
    }
    let calls = trace.step(Some("uploaded"), "opened");
    for file in ["whimbrel.sqlite", "whimbrel.sqlite-wal"] {
        let at = last(calls, |call| *call == Call::Make(format!("var/data/{file}")));
        assert!(at < last(calls, |call| *call == sync("var/data")), "{file}: {calls:#?}");
    }
}

//! Child processes: some run until their value is dropped, others run to their end.

use alloc::sync::Arc;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use crate::clock::wait_for;

/// A running program. It is killed on drop, and what it prints is kept.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

/// The result of a program that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A program of this workspace, which lies next to the test's own. It gets none of this machine's settings.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> Command {
    let mut command = Command::new(path_of(name));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// The path of a program of this workspace.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn path_of(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run cargo build --workspace --bins first", path.display());
    path
}

/// Runs `command` to its end.
///
/// # Panics
/// If it cannot be started.
pub fn run(mut command: Command) -> Finished {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be started: {error}", command.get_program().display()));
    Finished {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Finished {
    /// What the program printed, if it succeeded.
    ///
    /// # Panics
    /// If it failed.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }

    /// The JSON object that it printed.
    ///
    /// # Panics
    /// If it failed or printed something else.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let out = self.good();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// The one line that it printed on standard error before it failed.
    ///
    /// # Panics
    /// If it did not fail with exit status 1, printed anything else, or more or less than one line.
    #[track_caller]
    pub fn complaint(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{self:#?}");
        let line = self.err.strip_suffix('\n').unwrap_or_default().to_owned();
        assert!(!line.is_empty() && !line.contains(['\n', '\r']), "not one line: {:?}", self.err);
        line
    }
}

impl Process {
    /// Starts `command` and collects the lines that it prints on either stream.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        collect(stdout, output.clone());
        collect(stderr, output.clone());
        Self { child, output }
    }

    /// What it printed so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().expect("no holder panics").clone()
    }

    /// Waits for a line for which `find` gives something.
    pub fn wait_for_line<T>(&mut self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let found = wait_for(what, || {
            if let Some(found) = self.lines().iter().find_map(|line| find(line)) {
                return Some(Ok(found));
            }
            self.ended().map(Err)
        });
        found.unwrap_or_else(|status| panic!("ended ({status}) before {what}: {:#?}", self.lines()))
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("a process to end", || self.ended())
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to end, as `kill` does, and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").arg(&pid).status().expect("kill is there");
        assert!(status.success(), "kill {pid}");
        self.wait()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let lines = self.lines();
            let last = lines.len().saturating_sub(60);
            eprintln!("--- process {} printed, at the end:", self.child.id());
            lines.iter().skip(last).for_each(|line| eprintln!("{line}"));
        }
    }
}

fn collect(stream: impl std::io::Read + Send + 'static, output: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            output.lock().expect("no holder panics").push(line);
        }
    });
}

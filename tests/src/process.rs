//! A child process that dies with its value.

use alloc::sync::Arc;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use crate::clock::wait_for;

/// A running program, killed on drop. What it prints is kept.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

/// The path of a program of this workspace, next to the test's own.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run cargo build --workspace --bins first", path.display());
    path
}

impl Process {
    /// Starts `command` and collects the lines that it prints on either stream.
    ///
    /// # Panics
    /// Where it cannot be started.
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

    /// Waits for a line that `find` takes something from.
    pub fn wait_for_line<T>(&mut self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let found = wait_for(what, || {
            if let Some(found) = self.lines().iter().find_map(|line| find(line)) {
                return Some(Ok(found));
            }
            self.ended().map(Err)
        });
        found.unwrap_or_else(|status| panic!("ended ({status}) before {what}: {:#?}", self.lines()))
    }

    /// How it ended, if it did.
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

    /// Its number.
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

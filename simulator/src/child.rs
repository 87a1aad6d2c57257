//! The service as a child process: started, waited for, measured, and never left behind.
//!
//! The child is this program again, under a hidden subcommand, so that one binary is all a run needs. It says that it
//! is ready by one JSON line on its standard output, with its addresses. It is in a process group of its own, so that
//! Ctrl-C in the terminal reaches the simulator alone, which then stops it in order. It ends with the simulator in
//! every case: dropping [`Child`] kills it, and where the simulator itself is killed, the child sees the end of its
//! standard input, which [`end_with_parent`] watches for.

use core::time::Duration;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{Signal as Caught, SignalKind, signal};
use tokio::time::timeout;

use crate::error::ChildError;
use crate::process::{Usage, usage_of};

/// How a child is started.
#[derive(Debug)]
pub struct ChildOptions {
    /// What people know it as.
    pub name: &'static str,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// How long it may take until it is ready, in real time.
    pub ready_within: Duration,
    /// How long it may take to end after it was asked to, in real time.
    pub stop_within: Duration,
}

/// A running child process; killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    options: ChildOptions,
    /// Held open for as long as the child shall live.
    _life_line: Option<ChildStdin>,
}

/// How much the children log, if it was said.
static LOG: OnceLock<String> = OnceLock::new();

/// From now on children that are this program log so much.
pub fn set_log(level: String) {
    // It is said once in a process.
    let _said_before = LOG.set(level);
}

/// This program again, under a subcommand of its own.
///
/// # Errors
/// Where the system does not say what this program is.
pub fn own_command(subcommand: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand).envs(LOG.get().map(|level| ("WHIMBREL_LOG", level)));
    Ok(command)
}

impl Child {
    /// Starts a child and waits for its first line, which is a JSON object of the type `R`.
    ///
    /// # Errors
    /// [`ChildError`], with the last lines of its log where it said anything; it is not running then.
    pub async fn start<R: DeserializeOwned>(
        mut command: Command,
        options: ChildOptions,
    ) -> Result<(Self, R), ChildError> {
        let log = File::create(&options.log)
            .map_err(|source| ChildError::Log { path: options.log.clone(), source })?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0).kill_on_drop(true);
        let mut process = command.spawn().map_err(|source| {
            let program = command.as_std().get_program().to_string_lossy().into_owned();
            ChildError::Start { program, source }
        })?;
        let life_line = process.stdin.take();
        let output = process.stdout.take();
        let mut child = Self { process, options, _life_line: life_line };
        let line = child.first_line(output).await?;
        let ready = serde_json::from_str(&line).map_err(|error| ChildError::Line {
            program: child.options.name.to_owned(),
            line: line.trim_end().chars().take(LINE_SHOWN_CHARS).collect(),
            why: error.to_string(),
        })?;
        Ok((child, ready))
    }

    /// The first line of its output; what follows is read and forgotten, so that the child never waits for a reader.
    async fn first_line(&mut self, output: Option<ChildStdout>) -> Result<String, ChildError> {
        let program = self.options.name.to_owned();
        let Some(output) = output else { return Err(ChildError::Lost { program, source: not_piped() }) };
        let mut reader = BufReader::new(output).take(LINE_BYTES_MAX);
        let mut line = String::new();
        match timeout(self.options.ready_within, reader.read_line(&mut line)).await {
            Err(_) => {
                let waited_s = self.options.ready_within.as_secs();
                Err(ChildError::NotReady { program, waited_s, said: self.said() })
            }
            Ok(Err(source)) => Err(ChildError::Lost { program, source }),
            Ok(Ok(0)) => Err(self.ended().await),
            Ok(Ok(_)) => {
                let mut rest = reader.into_inner();
                tokio::spawn(async move { tokio::io::copy(&mut rest, &mut tokio::io::sink()).await });
                Ok(line)
            }
        }
    }

    /// Waits until the child ends although nobody asked it to, and says how.
    pub async fn ended(&mut self) -> ChildError {
        let program = self.options.name.to_owned();
        match self.process.wait().await {
            Ok(status) => ChildError::Ended { program, status: in_words(status), said: self.said() },
            Err(source) => ChildError::Lost { program, source },
        }
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// [`ChildError::Lost`] where it is gone.
    pub fn usage(&self) -> Result<Usage, ChildError> {
        let lost = |source| ChildError::Lost { program: self.options.name.to_owned(), source };
        usage_of(self.process.id().ok_or_else(|| lost(io::ErrorKind::NotFound.into()))?).map_err(lost)
    }

    /// Asks it to end, kills it where it does not in time, and says how it ended.
    ///
    /// # Errors
    /// [`ChildError::Lost`] where it can neither be stopped nor waited for.
    pub async fn stop(mut self) -> Result<ExitStatus, ChildError> {
        if let Some(pid) = self.process.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
            // Where it has ended by itself in the meantime, waiting tells.
            kill_process(pid, Signal::TERM).ok();
        }
        let outcome = match timeout(self.options.stop_within, self.process.wait()).await {
            Ok(outcome) => outcome,
            Err(_) => match self.process.start_kill() {
                Ok(()) => self.process.wait().await,
                Err(error) => Err(error),
            },
        };
        outcome.map_err(|source| ChildError::Lost { program: self.options.name.to_owned(), source })
    }

    /// The last lines of its log, for an error message.
    fn said(&self) -> String {
        let end = end_of(&self.options.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&end);
        let lines: Vec<&str> = text.lines().collect();
        match lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..) {
            Some(last) if !last.is_empty() => last.join("\n"),
            _ => "nothing".to_owned(),
        }
    }
}

/// Ends this process when its parent is gone, however that went: call it first in the child.
///
/// The parent never writes to the child's standard input, and holds it open for as long as it lives.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        io::copy(&mut io::stdin().lock(), &mut io::sink()).ok();
        std::process::exit(PARENT_GONE);
    });
}

/// Ctrl-C and SIGTERM, which do not end this process any more once they are caught.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Caught,
    terminate: Caught,
}

impl Interrupts {
    /// From now on they are caught.
    ///
    /// # Errors
    /// Where the system does not let signals be waited for.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits until somebody wants this process to end.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The last bytes of a file.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut end)?;
    Ok(end)
}

fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with status {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}

fn not_piped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "its output is not a pipe")
}

/// Exit status of a child whose parent is gone.
const PARENT_GONE: i32 = 3;
const LINE_BYTES_MAX: u64 = 64 * 1024;
const LINE_SHOWN_CHARS: usize = 200;
const LOG_BYTES_MAX: u64 = 4096;
const LOG_LINES_SHOWN: usize = 5;

//! The device agent as a process, and the commands of its owner.

use core::fmt::Write as _;
use core::net::SocketAddr;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::bundle::{Bundle, CLASS, VENDOR};
use crate::process::{Finished, Process, program, run};

/// A device: its folder, and the agent's process if it runs.
#[derive(Debug)]
pub struct Agent {
    id: String,
    process: Option<Process>,
    /// The folder that holds slots, journal and record.
    data: PathBuf,
    sets: Vec<String>,
    folder: TempDir,
}

impl Agent {
    /// A new device that trusts the bundle's root and reaches its broker at `broker`. It is not started.
    ///
    /// # Panics
    /// If its folder cannot be made.
    #[must_use]
    pub fn new(bundle: &Bundle, id: &str, broker: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
        let root = std::fs::read(bundle.path("root.cbor")).expect("init made it");
        std::fs::write(folder.path().join("root.cbor"), root).expect("the folder takes files");
        let config = format!(
            "[device]\nid = \"{id}\"\nvendor = \"{VENDOR}\"\nclass = \"{CLASS}\"\nroot = \"root.cbor\"\n\
             [storage]\ndata = \"data\"\n\
             [broker]\nurl = \"mqtt://{broker}\"\nreconnect-base = \"20ms\"\nreconnect-cap = \"500ms\"\n\
             [hooks]\nfolder = \"hooks\"\n"
        );
        std::fs::write(folder.path().join("agent.toml"), config).expect("the folder takes files");
        let data = folder.path().join("data");
        Self { id: id.to_owned(), process: None, data, sets: Vec::new(), folder }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The path of a file in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets a key of its configuration for every start from now on.
    pub fn set(&mut self, setting: &str) {
        let key = |setting: &str| setting.split('=').next().map(str::to_owned);
        self.sets.retain(|known| key(known) != key(setting));
        self.sets.push(setting.to_owned());
    }

    /// Makes it keep its data in `folder`.
    ///
    /// # Panics
    /// If `folder` is not UTF-8.
    pub fn keep_data_in(&mut self, folder: &Path) {
        self.data = folder.to_owned();
        self.set(&format!("storage.data={}", folder.to_str().expect("UTF-8")));
    }

    /// Gives it a hook: a shell script.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn hook(&self, name: &str, script: &str) {
        let path = self.path("hooks").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder takes files");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// Runs one of its commands.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        run(self.program(args))
    }

    fn program<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = program("whimbrel-agent");
        command.current_dir(self.folder.path());
        for set in &self.sets {
            command.args(["--set", set]);
        }
        command.args(args);
        command
    }

    /// Starts the daemon.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.process = Some(Process::start(self.program(["daemon"])));
    }

    /// Kills the daemon, as `kill -9` does, or a reboot of the device.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        self.process.take().expect("the agent runs").kill();
    }

    /// Reboots the device without a warning.
    pub fn reboot(&mut self) {
        self.kill();
        self.start();
    }

    /// The daemon, if it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// What the daemon logged since it was started.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| process.lines().join("\n"))
    }

    /// Waits until the daemon that runs now has logged a line with all of these parts.
    ///
    /// # Panics
    /// If it does not log one in time, or does not run.
    pub fn wait_for_line(&mut self, parts: &[&str]) -> String {
        let process = self.process.as_mut().expect("the agent runs");
        process.wait_for_line(&format!("a line with {parts:?}"), |line| {
            parts.iter().all(|part| line.contains(part)).then(|| line.to_owned())
        })
    }

    /// `status --json`.
    #[must_use]
    pub fn status(&self) -> Json {
        self.command(["status", "--json"]).json()
    }

    /// Waits until `is` accepts its status.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_for(&self, what: &str, mut is: impl FnMut(&Json) -> bool) -> Json {
        let mut what = format!("{}: {what}", self.id);
        let asked = what.len();
        wait_for_with(&mut what, asked, || {
            let status = self.command(["status", "--json"]);
            // A daemon that is just starting answers with an error.
            if status.code != Some(0) {
                return Err(status.err);
            }
            let status = status.json();
            if is(&status) { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// Waits until the deployment is in `state`.
    pub fn wait_for_state(&self, state: &str) -> Json {
        self.wait_for(state, |status| status["state"] == state)
    }

    /// Waits until the service has every report.
    pub fn wait_until_reported(&self) -> Json {
        self.wait_for("everything is reported", |status| status["reports_waiting"] == 0)
    }

    /// The bytes of the file that holds its record, both copies.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        std::fs::read(self.data.join("record.bin")).unwrap_or_default()
    }

    /// The bytes of the file that is slot `a` or `b`.
    #[must_use]
    pub fn slot(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.data.join(format!("slot-{name}.img"))).unwrap_or_default()
    }

    /// Whether slot `name` begins with `image`: a slot keeps its size when a smaller image comes.
    #[must_use]
    pub fn slot_holds(&self, name: &str, image: &[u8]) -> bool {
        self.slot(name).get(..image.len()).is_some_and(|start| start == image)
    }

    /// A counter of rejected messages in a status.
    #[must_use]
    pub fn rejected(status: &Json, reason: &str) -> u64 {
        status["rejected"][reason].as_u64().unwrap_or(0)
    }

    /// Any other counter in a status.
    #[must_use]
    pub fn counted(status: &Json, name: &str) -> u64 {
        status["counters"][name].as_u64().unwrap_or(0)
    }
}

/// Waits. If it waits in vain, it says what came instead.
fn wait_for_with(what: &mut String, asked: usize, mut ask: impl FnMut() -> Result<Json, String>) -> Json {
    let found = crate::clock::try_for(|| match ask() {
        Ok(value) => Some(value),
        Err(instead) => {
            what.truncate(asked);
            write!(what, "; instead: {instead}").expect("a string takes it");
            None
        }
    });
    found.unwrap_or_else(|| panic!("waited in vain for {what}"))
}

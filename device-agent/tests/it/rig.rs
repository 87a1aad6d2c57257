//! A device's agent as a real process, and the scripted service on the other side of a real broker.

use alloc::sync::Arc;
use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use serde_json::Value;
use whimbrel_agent::clock::Clock;
use whimbrel_protocol::device::JournalSector;
use whimbrel_protocol::ids::{DeviceId, Prefix};
use whimbrel_protocol::message::{Request, Status};
use whimbrel_protocol::server::{Input, ServerSession};
use whimbrel_protocol::testing::Fixture;
use whimbrel_protocol::topic::{self, Channel};

use crate::broker::{Mosquitto, eventually};
use crate::power_cut_service::{Release, Service};

/// The scripted service, attached to a broker in a thread of its own.
pub(crate) struct Attached {
    pub(crate) service: Arc<Mutex<Served>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<tokio::sync::Notify>,
}

/// The service, and what a test wants of it.
pub(crate) struct Served {
    pub(crate) service: Service,
    /// Nothing is answered any more once this many payload bytes were served.
    pub(crate) silent_after: Option<u64>,
    /// Hellos that came.
    pub(crate) hellos: u64,
    /// What the device said of its progress.
    pub(crate) statuses: Vec<Status>,
    /// Sent to the device as soon as possible.
    pub(crate) extra: Vec<(Channel, Vec<u8>)>,
}

impl Attached {
    pub(crate) fn start(broker: &Mosquitto, service: Service) -> Self {
        let served =
            Served { service, silent_after: None, hellos: 0, statuses: Vec::new(), extra: Vec::new() };
        let service = Arc::new(Mutex::new(served));
        let stop = Arc::new(tokio::sync::Notify::new());
        let (port, shared, ended) = (broker.port, Arc::clone(&service), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(port, &shared) => {}
                    () = ended.notified() => {}
                }
            });
        });
        Self { service, thread: Some(thread), stop }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Served> {
        self.service.lock().unwrap()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the scripted service panicked");
        }
    }
}

async fn serve(port: u16, shared: &Mutex<Served>) {
    let clock = Clock::start();
    let fixture = Arc::clone(&shared.lock().unwrap().service.fixture);
    let device = fixture.device.clone();
    let mut session = ServerSession::new(device.clone(), clock.now());
    let mut options = MqttOptions::new("service", "127.0.0.1", port);
    options.set_max_packet_size(128 * 1024, 128 * 1024);
    let (client, mut events) = AsyncClient::new(options, 512);
    let mut retained: Vec<(Channel, Vec<u8>)> = Vec::new();
    loop {
        let deadline = session.poll_timeout();
        let mut down = tokio::select! {
            event = events.poll() => match event {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    client.try_subscribe("ota/d/+/q", QoS::AtMostOnce).unwrap();
                    client.try_subscribe("ota/d/+/r", QoS::AtLeastOnce).unwrap();
                    retained.clear();
                    Vec::new()
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    take(shared, &mut session, &clock, &publish.topic, &publish.payload)
                }
                Ok(_) => Vec::new(),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Vec::new()
                }
            },
            // Often enough to see what a test wants sent.
            () = tokio::time::sleep(Duration::from_millis(50)) => Vec::new(),
            () = clock.sleep_until(deadline) => {
                shared.lock().unwrap().service.serve(&mut session, clock.now(), Input::Timeout)
            }
        };
        down.append(&mut shared.lock().unwrap().extra);
        for (channel, payload) in down {
            publish(&client, &device, &channel, payload, false);
        }
        for channel in [Channel::Assignment, Channel::Group(fixture.group.clone())] {
            let payload = shared.lock().unwrap().service.retained(&channel).unwrap();
            if !retained.contains(&(channel.clone(), payload.clone())) {
                publish(&client, &device, &channel, payload.clone(), true);
                retained.retain(|(other, _)| *other != channel);
                retained.push((channel, payload));
            }
        }
    }
}

fn take(
    shared: &Mutex<Served>,
    session: &mut ServerSession,
    clock: &Clock,
    topic: &str,
    payload: &[u8],
) -> Vec<(Channel, Vec<u8>)> {
    let mut served = shared.lock().unwrap();
    let address = topic::parse(&Prefix::default(), topic).unwrap();
    if address.channel == Channel::Requests {
        match Request::decode(payload).unwrap() {
            Request::Hello(_) => served.hellos += 1,
            Request::Status(status) => served.statuses.push(status),
            _ => {}
        }
    }
    if served.silent_after.is_some_and(|after| served.service.served >= after) {
        return Vec::new();
    }
    served.service.serve(session, clock.now(), Input::message(&address.channel, payload))
}

fn publish(client: &AsyncClient, device: &DeviceId, channel: &Channel, payload: Vec<u8>, retain: bool) {
    let qos = if *channel == Channel::Answers { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    client.try_publish(channel.topic(&Prefix::default(), device), qos, retain, payload).unwrap();
}

/// A device: its folder, its configuration, and its agent while it runs.
pub(crate) struct Device {
    folder: tempfile::TempDir,
    agent: Option<Child>,
    settings: Vec<String>,
}

impl Device {
    /// A device of `fixture` whose broker listens on `port`.
    pub(crate) fn new(fixture: &Fixture, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.path().join("root.cbor"), fixture.root_bytes()).unwrap();
        let key = data.join("device.cose");
        fs::write(&key, fixture.device_key.encode_file()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "[device]\nid = \"{}\"\nvendor = \"example.com\"\nclass = \"gateway\"\n\
             [broker]\nurl = \"mqtt://127.0.0.1:{port}\"\nreconnect-base = \"50ms\"\nreconnect-cap = \"500ms\"\n\
             [hooks]\nfolder = \"hooks\"\n",
            fixture.device
        );
        fs::write(folder.path().join("agent.toml"), config).unwrap();
        fs::create_dir(folder.path().join("hooks")).unwrap();
        Self { folder, agent: None, settings: Vec::new() }
    }

    /// One more `--set` for every command.
    pub(crate) fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an executable hook.
    pub(crate) fn hook(&self, name: &str, script: &str) {
        let path = self.path("hooks").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel-agent"));
        command.env_clear().arg("--config").arg(self.path("agent.toml")).args(arguments);
        self.settings.iter().for_each(|setting| {
            command.args(["--set", setting]);
        });
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Starts the daemon; its log goes to a file.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.start_logging_to(log);
    }

    /// Starts the daemon with something else as its standard error.
    pub(crate) fn start_logging_to(&mut self, log: impl Into<Stdio>) {
        let mut command = self.command(&["daemon", "--log", "debug"]);
        self.agent = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Takes a process that stands for the daemon.
    pub(crate) fn adopt(&mut self, child: Child) {
        self.agent = Some(child);
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.agent.as_ref().unwrap().id()).unwrap()
    }

    pub(crate) fn kill_hard(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Waits until the daemon ends by itself; the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut agent = self.agent.take().unwrap();
        eventually("the daemon ends", || agent.try_wait().unwrap()).code()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Value {
        let ran = self.run(&["status", "--json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Waits for a status that is as wanted.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            Some(self.run(&["status", "--json"])).and_then(|ran| {
                let status: Value = serde_json::from_str(&ran.stdout).ok()?;
                wanted(&status).then_some(status)
            })
        })
    }

    pub(crate) fn wait_for_state(&self, state: &str) -> Value {
        self.wait_for(state, |status| status["state"] == state)
    }

    /// Chunks that the newest checkpoint of the journal claims.
    pub(crate) fn checkpointed(&self, release: &Release) -> u64 {
        let journal = fs::read(self.path("data/journal.bin")).unwrap();
        let sectors =
            journal.chunks(4096).filter_map(|at| JournalSector::decode(at[..512].try_into().unwrap()).ok());
        let newest = sectors.max_by_key(|sector| sector.sequence).expect("a checkpoint");
        u64::from(newest.checkpoint.claims(release.transfer.layout.chunk_count()).len())
    }

    /// The first bytes of a slot, as many as `image` has.
    pub(crate) fn slot_holds(&self, slot: &str, image: &[u8]) -> bool {
        fs::read(self.path("data").join(format!("slot-{slot}.img")))
            .is_ok_and(|bytes| bytes.starts_with(image))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            drop(agent.kill());
            drop(agent.wait());
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// An error is one line, has a place, and ends with exit code 1.
    pub(crate) fn assert_refused(&self, says: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("whimbrel-agent: ") && self.stderr.contains(says), "{self:?}");
    }
}

/// Bytes that do not compress and differ with the seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut jitter = whimbrel_protocol::retry::Jitter::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| jitter.next_u64().to_le_bytes()).take(len).collect()
}

/// Writes a release as the publisher lays it out.
pub(crate) fn write_release(folder: &Path, release: &Release) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("release.suit"), &release.envelope).unwrap();
    let name = format!("{}.payload", release.transfer.index_digest);
    fs::write(folder.join(name), &release.payload).unwrap();
}

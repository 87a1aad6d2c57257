//! The real program in a folder of its own, an operator who talks HTTP to it, and a device that runs the real
//! session on a real socket.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use whimbrel_protocol::codec::Writer;
use whimbrel_protocol::cose::{PublicKey, SigningKey};
use whimbrel_protocol::testing::{Fixture, Release};

use crate::attach_support::Mosquitto;
use crate::front_support::{deadline, is_over};

/// `whimbreld` as a child process. Killed when dropped.
pub(crate) struct Service {
    pub(crate) folder: TempDir,
    pub(crate) fixture: Fixture,
    mosquitto: Option<Mosquitto>,
    settings: Vec<String>,
    wrapper: Vec<String>,
    running: Option<Running>,
    /// Messages that devices made by hand have sent to the process that runs.
    said: AtomicU64,
}

struct Running {
    child: Child,
    mqtt: Option<SocketAddr>,
    admin: SocketAddr,
    log: Arc<Mutex<String>>,
}

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Which broker a service hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Itself,
    Mosquitto,
}

impl Service {
    pub(crate) fn start(on: On) -> Self {
        Self::start_with(on, &[])
    }

    /// Starts one with settings, `table.key=value`.
    pub(crate) fn start_with(on: On, settings: &[&str]) -> Self {
        let mut service = Self::prepare(on);
        service.settings.extend(settings.iter().map(ToString::to_string));
        service.launch();
        service
    }

    /// Makes the folder and starts nothing.
    pub(crate) fn prepare(on: On) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::new();
        fs::create_dir(folder.path().join("keys")).unwrap();
        let write = |name: &str, bytes: &[u8]| secret(&folder.path().join(name), bytes);
        write("root.cbor", &fixture.root_bytes());
        write("admin.token", format!("{TOKEN}\n").as_bytes());
        write("keys/campaign.cose", &fixture.campaign_key.encode_file());
        write("keys/beacon.cose", &fixture.beacon_key.encode_file());
        let mosquitto = (on == On::Mosquitto).then(Mosquitto::start);
        let broker = match &mosquitto {
            Some(mosquitto) => format!("connect = \"mqtt://{}\"", mosquitto.addr()),
            None => "listen = \"127.0.0.1:0\"\nopen = true".to_owned(),
        };
        let config = format!(
            "[service]\nadmin = \"127.0.0.1:0\"\n[broker]\n{broker}\n[publisher]\nvendor = \"example.com\"\n"
        );
        fs::write(folder.path().join("whimbrel.toml"), config).unwrap();
        Self {
            folder,
            fixture,
            mosquitto,
            settings: Vec::new(),
            wrapper: Vec::new(),
            running: None,
            said: AtomicU64::new(0),
        }
    }

    pub(crate) fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// A command that the program is started through.
    pub(crate) fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
    }

    /// The names of all that is in the folder, in order.
    pub(crate) fn folder_names(&self) -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_whimbreld");
        let mut command = match self.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("--config").arg(self.path("whimbrel.toml")).env_remove("WHIMBREL_CONFIG");
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
    }

    /// Starts the program and waits until it serves.
    pub(crate) fn launch(&mut self) {
        self.launch_logging_to(Stdio::piped());
    }

    /// The same with `stderr` as its standard error.
    pub(crate) fn launch_logging_to(&mut self, stderr: Stdio) {
        let mut command = self.command();
        command.arg("--ready-json").env("WHIMBREL_LOG", "whimbrel_service=debug,warn");
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        // Otherwise the test would hold the other end of it, too.
        drop(command);
        let log = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&log);
        let stderr = child.stderr.take();
        std::thread::spawn(move || {
            for line in
                stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines().map_while(Result::ok))
            {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let status = child.wait().unwrap();
            panic!("the service has ended with {status}: {}", log.lock().unwrap());
        };
        assert_eq!(ready["ready"], true);
        let address = |name: &str| ready[name].as_str().map(|text| text.parse::<SocketAddr>().unwrap());
        let (mqtt, admin) = (address("mqtt"), address("admin").unwrap());
        self.running = Some(Running { child, mqtt, admin, log });
        self.said.store(0, Ordering::Relaxed);
        while !self.get("/v1/status")["broker_up"].as_bool().unwrap() {
            std::thread::yield_now();
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it was started")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.running().admin)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// Where devices connect.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        let own = self.running().mqtt;
        assert_eq!(own.is_some(), self.mosquitto.is_none());
        own.unwrap_or_else(|| self.mosquitto.as_ref().unwrap().addr())
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.running().log.lock().unwrap().clone()
    }

    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().unwrap();
        let _killed_already = running.child.kill();
        running.child.wait().unwrap();
    }

    /// Tells it to stop and waits for its end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut running = self.running.take().unwrap();
        let pid = rustix::process::Pid::from_child(&running.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        running.child.wait().unwrap()
    }

    /// Waits until it has ended by itself; what it has said on standard error.
    pub(crate) fn ends(&mut self) -> (ExitStatus, String) {
        let mut running = self.running.take().unwrap();
        let status = running.child.wait().unwrap();
        let deadline = deadline();
        // The last line is on its way through a pipe.
        while Arc::strong_count(&running.log) > 1 && !is_over(deadline) {
            std::thread::yield_now();
        }
        let log = running.log.lock().unwrap().clone();
        (status, log)
    }

    /// Runs a program that must not start to its end; what it says on standard error.
    pub(crate) fn run_to_end(&self) -> (ExitStatus, String) {
        let mut command = self.command();
        command.arg("--ready-json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            said
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        if !ready.is_empty() {
            let _ended_already = child.kill();
        }
        let status = child.wait().unwrap();
        let said = reader.join().unwrap();
        assert!(ready.is_empty(), "it serves although it should not have started: {ready}{said}");
        (status, said)
    }

    pub(crate) fn broker(&mut self) -> &mut Mosquitto {
        self.mosquitto.as_mut().unwrap()
    }

    // What an operator does.

    /// A request as it is; the answer's status and body.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(crate::front_support::PATIENCE))
            .build()
            .into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url()));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = agent.run(request.body(body.to_vec()).unwrap()).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// A request with the token; the answer must be JSON.
    pub(crate) fn api(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let (status, body) = self.request(method, path, Some(TOKEN), body);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{method} {path}: {status} {body}")))
    }

    /// A request that has to work.
    pub(crate) fn ok(&self, method: &str, path: &str, body: &[u8]) -> Value {
        let (status, answer) = self.api(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// A request that has to be refused with this status; what the error says.
    pub(crate) fn refused(&self, status: u16, method: &str, path: &str, body: &[u8]) -> String {
        let (got, answer) = self.api(method, path, body);
        assert_eq!(got, status, "{method} {path}: {answer}");
        let error = answer["error"].as_str().unwrap().to_owned();
        assert!(!error.contains('\n') && !error.is_empty());
        error
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.ok("GET", path, &[])
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        self.ok("POST", path, body.to_string().as_bytes())
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let status = self.get("/v1/status");
        status["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {status}"))
    }

    /// Publishes a release whole.
    pub(crate) fn publish(&self, release: &Release) {
        self.ok("POST", "/v1/releases", &release.envelope);
        for part in release.parts() {
            self.ok("PUT", &format!("/v1/payloads/{}", part.index.digest), &part.bytes);
        }
    }

    /// A release of `bytes` bytes that don't repeat.
    pub(crate) fn release(&self, bytes: usize, sequence: u64) -> Release {
        self.fixture.release(image(bytes, sequence), sequence, 10)
    }

    pub(crate) fn campaign(&self, release: &Release) -> Value {
        self.post("/v1/campaigns", &json!({ "release": release.digest.to_hex(), "group": "all" }))
    }

    /// Accepts devices before they connect.
    pub(crate) fn import(&self, devices: &[(&str, &PublicKey)]) -> Value {
        let class = self.fixture.class.to_hex();
        let lines: Vec<String> =
            devices.iter().map(|(id, key)| format!("{id},{},{class},all", hex_key(key))).collect();
        self.ok("POST", "/v1/devices/import", lines.join("\n").as_bytes())
    }

    pub(crate) fn device(&self, id: &str) -> Option<Value> {
        let listed = self.get("/v1/devices?limit=1000");
        listed["devices"].as_array().unwrap().iter().find(|device| device["id"] == id).cloned()
    }

    /// A device made by hand sends a message.
    pub(crate) fn note_said(&self) {
        self.said.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all that devices made by hand have said was taken in, and everything that came of it is done.
    pub(crate) fn is_done(&self) -> bool {
        let counters = &self.get("/v1/status")["counters"];
        let number = |name: &str| counters[name].as_u64().unwrap();
        number("messages_in") >= self.said.load(Ordering::Relaxed) && number("under_way") == 0
    }

    /// Asks until something is so. Where only devices made by hand are there, it fails as soon as the service has
    /// done all that they asked and it still isn't.
    pub(crate) fn await_that(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = deadline();
        while !is_over(deadline) {
            let done = self.said.load(Ordering::Relaxed) > 0 && self.is_done();
            if holds(self) {
                return;
            }
            assert!(
                !done,
                "the service has done all that it was told, and it is not so that {what}: {}",
                self.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("it never came that {what}: {}", self.log());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ended_already = running.child.kill();
            let _status = running.child.wait();
            if std::thread::panicking() {
                let log = running.log.lock().unwrap();
                let from = log.len().saturating_sub(6000);
                eprintln!("the service's log:\n{}", log.get(from..).unwrap_or(&log));
            }
        }
    }
}

fn secret(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

/// An image whose chunks all differ.
pub(crate) fn image(bytes: usize, seed: u64) -> Vec<u8> {
    let mut jitter = whimbrel_protocol::retry::Jitter::new(seed);
    let words = core::iter::repeat_with(|| jitter.next_u64().to_le_bytes());
    words.flatten().take(bytes).collect()
}

pub(crate) fn device_key(number: u8) -> SigningKey {
    SigningKey::ed25519(&[100 + number; 32])
}

pub(crate) fn hex_key(key: &PublicKey) -> String {
    let mut writer = Writer::new();
    key.encode(&mut writer);
    hex::encode(writer.into_bytes())
}

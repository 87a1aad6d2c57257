//! A mosquitto of its own for a test.

use core::net::SocketAddr;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running mosquitto; it ends with the test.
pub(crate) struct Mosquitto {
    process: Child,
    _folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Mosquitto {
    /// Starts one on a free port and waits until it says that it is running.
    pub(crate) fn start() -> Self {
        // A port that was free may be taken by the time mosquitto binds it; then another one will do.
        (0..10).find_map(|_| Self::try_start()).expect("mosquitto starts: is it installed?")
    }

    /// Stops it where it is: connections are taken by the system, and nothing is answered.
    pub(crate) fn stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }

    fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.path().join("mosquitto.conf");
        let port = address.port();
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n\
             log_dest stderr\nlog_type all\nuser {}\n",
            if rustix::process::geteuid().is_root() { "root" } else { "mosquitto" }
        );
        std::fs::write(&config, settings).unwrap();
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .unwrap_or("mosquitto");
        let mut process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mosquitto is installed");
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let runs = log.by_ref().map_while(Result::ok).any(|line| line.contains("running"));
        // Nobody reads on, and nobody need: a full pipe would stop the broker.
        std::thread::spawn(move || log.for_each(drop));
        let mosquitto = Self { process, _folder: folder, address };
        runs.then_some(mosquitto)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

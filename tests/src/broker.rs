//! A mosquitto that the test starts: a broker that knows nothing of Whimbrel.

use core::net::SocketAddr;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use crate::clock::wait_for;
use crate::process::Process;

/// A running mosquitto.
#[derive(Debug)]
pub struct Mosquitto {
    process: Process,
    address: SocketAddr,
    folder: tempfile::TempDir,
    /// Lines of its configuration beyond the usual.
    settings: &'static str,
}

/// An address with a port that is free now.
#[must_use]
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

impl Mosquitto {
    /// Starts one without access rules, as some brokers behind a firewall are.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with `settings` of mosquitto.
    #[must_use]
    pub fn start_with(settings: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = free_address();
        let process = Self::run(&folder, address, settings);
        let mut broker = Self { process, address, folder, settings };
        broker.wait();
        broker
    }

    fn run(folder: &tempfile::TempDir, address: SocketAddr, settings: &str) -> Process {
        let path = folder.path().join("mosquitto.conf");
        let mut file = std::fs::File::create(&path).expect("a config file");
        writeln!(
            file,
            "listener {} {}\nallow_anonymous true\npersistence false\n{settings}",
            address.port(),
            address.ip()
        )
        .expect("a config file");
        let mosquitto = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "mosquitto"]
            .into_iter()
            .find(|path| !path.starts_with('/') || std::path::Path::new(path).exists())
            .expect("the last one needs no look");
        let mut command = Command::new(mosquitto);
        command.arg("-c").arg(path);
        Process::start(command)
    }

    fn wait(&mut self) {
        let address = self.address;
        let process = &mut self.process;
        wait_for("mosquitto to listen (is it installed? scripts/test installs it)", || {
            assert!(process.ended().is_none(), "mosquitto ended: {:?}", process.lines());
            TcpStream::connect(address).ok()
        });
    }

    /// The address at which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it, so that its sessions and retained messages are gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same address.
    pub fn restart(&mut self) {
        self.process = Self::run(&self.folder, self.address, self.settings);
        self.wait();
    }
}

//! A real mosquitto as a child process.

use core::time::Duration;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

/// A broker on a free port of the loopback interface, stopped when it is dropped.
#[derive(Debug)]
pub(crate) struct Mosquitto {
    folder: tempfile::TempDir,
    child: Option<Child>,
    pub(crate) port: u16,
}

/// Where the distributions put it.
const PLACES: [&str; 3] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];

impl Mosquitto {
    /// Starts a broker that lets everybody in.
    pub(crate) fn start() -> Self {
        let mut broker = Self { folder: tempfile::tempdir().unwrap(), child: None, port: 0 };
        // The port may be taken by somebody else between looking and listening: look again.
        for _ in 0..10 {
            broker.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if broker.resume() {
                return broker;
            }
        }
        panic!("mosquitto does not start");
    }

    /// Starts it (again) on its port; whether it serves.
    pub(crate) fn resume(&mut self) -> bool {
        let path = self.folder.path().join("mosquitto.conf");
        let mut config = std::fs::File::create(&path).unwrap();
        writeln!(config, "listener {} 127.0.0.1\nallow_anonymous true\npersistence false", self.port)
            .unwrap();
        let program =
            PLACES.iter().map(PathBuf::from).find(|path| path.exists()).expect("mosquitto is installed");
        let child =
            Command::new(program).arg("-c").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = self.child.insert(child.unwrap());
        for _ in 0..500 {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks until the answer is there. The limit only keeps a broken test from hanging.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(answer) = ask() {
            return answer;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("it did not happen: {what}");
}

//! The update service as a process, and the operator's commands against it.

use core::net::SocketAddr;
use std::ffi::OsStr;
use std::path::PathBuf;

use serde_json::Value as Json;

use crate::bundle::{Bundle, Release};
use crate::clock::wait_for;
use crate::process::{Finished, Process, program, run};

/// `whimbreld`, and `whimbrel` to talk to it.
#[derive(Debug)]
pub struct Service {
    folder: PathBuf,
    /// The address of the broker that it is a client of; `None` if it has a broker of its own.
    broker: Option<SocketAddr>,
    sets: Vec<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    mqtt: Option<SocketAddr>,
    admin: SocketAddr,
}

impl Service {
    /// Starts one with a broker of its own.
    #[must_use]
    pub fn embedded(bundle: &Bundle, sets: &[&str]) -> Self {
        Self::new(bundle, None, sets)
    }

    /// Starts one that is a client of the broker at `broker`.
    #[must_use]
    pub fn attached(bundle: &Bundle, broker: SocketAddr, sets: &[&str]) -> Self {
        Self::new(bundle, Some(broker), sets)
    }

    fn new(bundle: &Bundle, broker: Option<SocketAddr>, sets: &[&str]) -> Self {
        if broker.is_some() {
            // A broker of its own and another one exclude each other.
            let file = bundle.path("whimbrel.toml");
            let text = std::fs::read_to_string(&file).expect("init made it");
            bundle.write("whimbrel.toml", text.replace("listen = \"127.0.0.1:1883\"", ""));
        }
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let mut service = Self { folder: bundle.path(""), broker, sets, running: None };
        service.start();
        service
    }

    /// Starts it, if it does not run, and waits until it serves.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(&mut self) {
        let mut command = program("whimbreld");
        command.current_dir(&self.folder).arg("--ready-json");
        let listen = match self.broker {
            Some(broker) => format!("broker.connect=mqtt://{broker}"),
            None => "broker.listen=127.0.0.1:0".to_owned(),
        };
        let sets = ["service.admin=127.0.0.1:0".to_owned(), listen];
        for set in sets.iter().chain(&self.sets) {
            command.args(["--set", set]);
        }
        let mut process = Process::start(command);
        let ready: Json = process.wait_for_line("whimbreld to be ready", |line| {
            line.starts_with("{\"ready\":true").then(|| serde_json::from_str(line).expect("JSON"))
        });
        let address = |name: &str| ready[name].as_str().map(|text| text.parse().expect("an address"));
        let admin = address("admin").expect("operators are always served");
        self.running = Some(Running { process, mqtt: address("mqtt"), admin });
        wait_for("the service to have its broker", || (self.status()["broker_up"] == true).then_some(()));
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the service runs")
    }

    /// The address at which its own broker listens. The port differs at each start.
    ///
    /// # Panics
    /// If it has no broker of its own.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        self.running().mqtt.expect("it has a broker of its own")
    }

    /// Kills it, as `kill -9` does.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        self.running.take().expect("the service runs").process.kill();
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// If it ends with anything but exit status 0.
    pub fn stop(&mut self) {
        let status = self.running.take().expect("the service runs").process.terminate();
        assert_eq!(status.code(), Some(0), "whimbreld did not end in good order");
    }

    /// What it logged since it was started.
    #[must_use]
    pub fn log(&self) -> String {
        self.running().process.lines().join("\n")
    }

    /// Runs `whimbrel` against it.
    pub fn whimbrel<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        let mut command = program("whimbrel");
        command.current_dir(&self.folder).args(args);
        command.args(["--service", &self.running().admin.to_string()]);
        run(command)
    }

    /// `whimbrel status`.
    #[must_use]
    pub fn status(&self) -> Json {
        self.whimbrel(["status", "--json"]).json()
    }

    /// One of its counters.
    ///
    /// # Panics
    /// If there is no counter of this name.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        status["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {status}"))
    }

    /// Publishes a release.
    pub fn publish(&self, release: &Release) {
        let folder = release.folder.to_str().expect("UTF-8");
        self.whimbrel(["release", "publish", folder]).good();
    }

    /// Publishes a release and orders it for everybody; gives the campaign's id.
    pub fn roll_out(&self, release: &Release) -> String {
        self.publish(release);
        self.campaign(release, &[])
    }

    /// Orders a release that was published, for everybody unless a flag says otherwise; gives the campaign's id.
    ///
    /// # Panics
    /// If the service refuses.
    pub fn campaign(&self, release: &Release, flags: &[&str]) -> String {
        let mut args = Vec::from(["campaign", "create", "--release", &release.digest, "--json"]);
        args.extend(flags);
        let created = self.whimbrel(args).json();
        created["id"].as_str().unwrap_or_else(|| panic!("no id: {created}")).to_owned()
    }

    /// `whimbrel campaign status`, with its devices.
    #[must_use]
    pub fn campaign_status(&self, id: &str) -> Json {
        self.whimbrel(["campaign", "status", id, "--devices", "--json"]).json()
    }

    /// Waits until `is` accepts the campaign.
    pub fn wait_for_campaign(&self, id: &str, what: &str, mut is: impl FnMut(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        wait_for(&format!("campaign: {what}"), || {
            last = self.campaign_status(id);
            is(&last).then(|| last.clone())
        })
    }

    /// Waits until one device of the campaign has ended as `state`, for `reason`.
    pub fn wait_for_end(&self, id: &str, device: &str, state: &str, reason: Option<&str>) -> Json {
        let what = format!("{device} {state} {reason:?}");
        let campaign = self.wait_for_campaign(id, &what, |campaign| {
            let list = campaign["device_list"].as_array().into_iter().flatten();
            list.into_iter().any(|entry| {
                entry["id"] == device && entry["state"] == state && entry["reason"].as_str() == reason
            })
        });
        let list = campaign["device_list"].as_array().into_iter().flatten();
        list.into_iter().find(|entry| entry["id"] == device).cloned().unwrap_or_default()
    }

    /// Waits until a device has enrolled, and accepts it with the fingerprint that the service shows.
    pub fn accept(&self, device: &str) {
        self.accept_into(device, "all");
    }

    /// Does the same, and puts the device into a group.
    pub fn accept_into(&self, device: &str, group: &str) {
        let fingerprint = wait_for(&format!("{device} to enrol"), || {
            let list = self.whimbrel(["device", "list", "--pending", "--json"]).json();
            let list = list["devices"].as_array().cloned().unwrap_or_default();
            let known = list.into_iter().find(|known| known["id"] == device)?;
            known["fingerprint"].as_str().map(str::to_owned)
        });
        self.whimbrel(["device", "accept", device, "--fingerprint", &fingerprint, "--group", group]).good();
    }
}

//! A complete stage for a test: broker, service and proxy, and devices that use them.

use core::net::SocketAddr;

use serde_json::Value as Json;

use crate::agent::Agent;
use crate::broker::Mosquitto;
use crate::bundle::{Bundle, Release};
use crate::forge::Forger;
use crate::proxy::Proxy;
use crate::service::Service;

/// Everything but devices.
#[derive(Debug)]
pub struct Stage {
    /// The proxy between devices and broker.
    pub proxy: Proxy,
    /// The service.
    pub service: Service,
    /// The broker, if the service has none of its own.
    pub broker: Option<Mosquitto>,
    /// Keys and releases.
    pub bundle: Bundle,
}

impl Stage {
    /// Starts a service with a broker of its own.
    #[must_use]
    pub fn embedded() -> Self {
        Self::embedded_with(Bundle::new(), &[])
    }

    /// The same, with settings of the service.
    #[must_use]
    pub fn embedded_with(bundle: Bundle, sets: &[&str]) -> Self {
        let service = Service::embedded(&bundle, sets);
        Self { proxy: Proxy::start(service.mqtt()), service, broker: None, bundle }
    }

    /// Starts a service that is a client of mosquitto.
    #[must_use]
    pub fn attached() -> Self {
        Self::attached_with(Bundle::new(), &[])
    }

    /// The same, with settings of the service.
    #[must_use]
    pub fn attached_with(bundle: Bundle, sets: &[&str]) -> Self {
        Self::attached_to(Mosquitto::start(), bundle, sets)
    }

    /// Starts a service that is a client of `broker`.
    #[must_use]
    pub fn attached_to(broker: Mosquitto, bundle: Bundle, sets: &[&str]) -> Self {
        let service = Service::attached(&bundle, broker.address(), sets);
        Self { proxy: Proxy::start(broker.address()), service, broker: Some(broker), bundle }
    }

    /// A forger with the bundle's online keys, at the broker.
    ///
    /// # Panics
    /// If the service has a broker of its own.
    #[must_use]
    pub fn forger(&self) -> Forger {
        Forger::new(&self.bundle, self.broker().address())
    }

    fn broker(&self) -> &Mosquitto {
        self.broker.as_ref().expect("this stage has mosquitto")
    }

    /// The address to which devices connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// A new device that is not started.
    #[must_use]
    pub fn new_device(&self, id: &str) -> Agent {
        Agent::new(&self.bundle, id, self.address())
    }

    /// A new device that runs and was accepted.
    #[must_use]
    pub fn device(&self, id: &str) -> Agent {
        let mut agent = self.new_device(id);
        self.enrol(&mut agent);
        agent
    }

    /// Starts a device and accepts it.
    pub fn enrol(&self, agent: &mut Agent) {
        agent.start();
        self.service.accept(agent.id());
    }

    /// Waits until the device runs `release`, confirmed, and both the device and the service say so; checks that
    /// the image on its medium is the release's. Gives its status.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_until_updated(&self, agent: &Agent, release: &Release, campaign: &str) -> Json {
        let status = agent.wait_for("the update is confirmed and reported", |status| {
            let running = &status["running"];
            running["release"] == release.digest.as_str()
                && running["trial"] == "none"
                && status["state"] == "confirmed"
                && status["reports_waiting"] == 0
        });
        let slot = status["running"]["slot"].as_str().unwrap_or_default();
        assert!(agent.slot_holds(slot, &release.image), "slot {slot} is not the image");
        assert_eq!(status["running"]["sequence"], release.sequence, "{status}");
        self.service.wait_for_end(campaign, agent.id(), "confirmed", None);
        status
    }
}

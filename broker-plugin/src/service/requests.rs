//! What operators want of the service.

use tokio::sync::oneshot;
use whimbrel_api as api;

use super::Service;
use super::doubt::StoreReply;
use crate::attach::BrokerLink;
use crate::fleet::{self, Command, Question};
use crate::metrics::Counters;

/// What operators want.
#[derive(Debug)]
pub(crate) enum Request {
    /// Something is to be changed.
    Command(Command),
    /// Something is asked about the fleet.
    Question(Question),
    /// How the service itself is.
    Status(oneshot::Sender<api::Status>),
    /// The clock is right.
    AcceptClock(oneshot::Sender<api::ClockAccepted>),
    /// There is no newer database.
    AcceptStore(StoreReply),
}

impl<L: BrokerLink> Service<L> {
    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::Command(command) => self.decide(fleet::Input::Command(command)),
            Request::Question(question) => {
                let heard = |device: &_| self.serving.heard(device);
                self.fleet.answer(self.now, self.today, question, &heard).deliver();
            }
            Request::Status(reply) => {
                let _nobody_waits = reply.send(self.status());
            }
            Request::AcceptClock(reply) => {
                let _nobody_waits = reply.send(self.accept_clock());
            }
            Request::AcceptStore(reply) => self.accept_store(reply),
        }
    }

    fn status(&self) -> api::Status {
        let ((sessions, dropped), (frames, extents)) = (self.serving.sessions(), self.serving.cached_bytes());
        let counters = &self.counters;
        Counters::set(&counters.under_way, self.fleet.under_way() + self.serving.under_way());
        counters.commits.store(self.store.commits(), core::sync::atomic::Ordering::Relaxed);
        Counters::set(&counters.sessions, sessions);
        Counters::set(&counters.devices_ahead, self.fleet.devices_ahead());
        Counters::set(&counters.sessions_dropped, dropped);
        Counters::set(&counters.frame_cache_bytes, frames);
        Counters::set(&counters.payload_cache_bytes, extents);
        let mut counters = counters.snapshot();
        let broker = self.link.counted().into_iter();
        counters.extend(broker.map(|(name, value)| (format!("broker_{name}"), value)));
        let counts = self.fleet.counts();
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            prefix: self.serving.prefix().to_string(),
            attached: self.link.attachment(),
            broker_up: self.serving.is_up(),
            devices: api::DeviceCounts { accepted: counts.accepted, pending: counts.pending },
            releases: counts.releases,
            campaigns: counts.campaigns,
            clock: self.doubt.map(super::doubt::view),
            store: self.store_doubt.map(super::doubt::view_store),
            counters,
        }
    }
}

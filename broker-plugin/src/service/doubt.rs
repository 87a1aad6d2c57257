//! What is done about a clock, or a database, that cannot be believed.

use whimbrel_api as api;

use alloc::sync::Arc;

use super::{Done, Service};
use crate::attach::BrokerLink;
use crate::clock_guard::ClockDoubt;
use crate::fleet::{self, Denied};
use crate::store::{Applied, Change};
use crate::store_guard::{StoreDoubt, versions_above};
use tokio::sync::oneshot;

/// What an operator hears of a database that he accepts.
pub(crate) type StoreReply = oneshot::Sender<Result<api::StoreAccepted, Denied>>;

/// An operator's word about the database, and what became of it in the store.
pub(super) struct Accepting {
    versions_above: u64,
    applied: Applied,
    reply: StoreReply,
}

impl<L: BrokerLink> Service<L> {
    /// Tells the fleet, and whoever reads the log, when the clock is doubted and when it is believed again. Before
    /// anything else is done at this time: nothing is signed with it.
    pub(super) fn tell_of_clock(&mut self) {
        let doubt = self.clock.doubt();
        if doubt.is_some() == self.doubt.is_some() {
            return;
        }
        match doubt {
            Some(doubt) => tracing::error!(ahead_s = doubt.ahead_s(), reason = %doubt, "signing stopped"),
            None => tracing::warn!("signing goes on"),
        }
        self.doubt = doubt;
        self.decide(fleet::Input::Clock(doubt));
    }

    /// An operator says that the clock is right.
    pub(super) fn accept_clock(&mut self) -> api::ClockAccepted {
        let ended = self.clock.accept();
        self.today = self.clock.today();
        if let Some(doubt) = ended {
            let (shown, expected) = (doubt.shown.as_secs(), doubt.expected.as_secs());
            tracing::warn!(shown, expected, "clock accepted by `whimbreld clock accept`");
        }
        self.tell_of_clock();
        api::ClockAccepted { time: self.today.as_secs(), doubted: ended.is_some() }
    }

    /// Tells the fleet, and whoever reads the log, that the database is doubted. Before anything is done.
    pub(super) fn tell_of_store(&mut self) {
        if let Some(doubt) = self.store_doubt {
            tracing::error!(reason = %doubt, "signing stopped");
            self.decide(fleet::Input::Store(doubt));
        }
    }

    /// An operator says that there is no newer database. That is stored before anything is signed.
    pub(super) fn accept_store(&mut self, reply: StoreReply) {
        let refused = self.doubt.map(|doubt| Err(Denied::Clock { doubt }));
        let nothing = (self.store_doubt.is_none() && self.fleet.devices_ahead() == 0)
            .then_some(Ok(api::StoreAccepted { doubted: false }));
        // The clock says where versions go on: it has to be right first.
        if let Some(answer) = nothing.or(refused) {
            let _nobody_waits = reply.send(answer);
            return;
        }
        let versions_above = versions_above(self.today, self.mark.versions());
        let (store, done) = (self.store.clone(), self.done.clone());
        self.elsewhere.spawn(async move {
            let applied = store.apply(Vec::from([Change::VersionsAbove(versions_above)])).await;
            let _stopping = done.send(Done::StoreAccepted(Accepting { versions_above, applied, reply }));
        });
    }

    pub(super) fn store_accepted(&mut self, accepting: Accepting) {
        let Accepting { versions_above, applied, reply } = accepting;
        let answer = match applied {
            Ok(_) => {
                let doubt = self.store_doubt.take();
                let reason = doubt.map(|doubt| doubt.to_string());
                tracing::warn!(versions_above, reason, "database accepted by `whimbreld store accept`");
                self.decide(fleet::Input::StoreAccepted { versions_above });
                Ok(api::StoreAccepted { doubted: true })
            }
            Err(error) => Err(Denied::Store(Arc::clone(&error))),
        };
        let _nobody_waits = reply.send(answer);
    }
}

/// A doubt as operators are told of it.
pub(super) fn view(doubt: ClockDoubt) -> api::ClockDoubt {
    api::ClockDoubt {
        shown: doubt.shown.as_secs(),
        expected: doubt.expected.as_secs(),
        text: doubt.to_string(),
    }
}

/// The same of the database.
pub(super) fn view_store(doubt: StoreDoubt) -> api::StoreDoubt {
    api::StoreDoubt { text: doubt.to_string() }
}

//! What is done about a clock that cannot be believed.

use whimbrel_api as api;

use super::Service;
use crate::attach::BrokerLink;
use crate::clock_guard::ClockDoubt;
use crate::fleet;

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
}

/// A doubt as operators are told of it.
pub(super) fn view(doubt: ClockDoubt) -> api::ClockDoubt {
    api::ClockDoubt {
        shown: doubt.shown.as_secs(),
        expected: doubt.expected.as_secs(),
        text: doubt.to_string(),
    }
}

//! How far the devices of a campaign are, counted as each of them changes.
//!
//! A view reads these sums and walks over no device. What was confirmed is counted apart: it stays when a new attempt
//! begins, and nothing else does.

use super::Progress;
use super::tally::Tally;
use whimbrel_protocol::message::State;

/// The sums of a campaign.
#[derive(Debug, Default)]
pub(super) struct Counts {
    confirmed: Sum,
    /// Of the current attempt, but for what was confirmed.
    others: Sum,
}

#[derive(Debug, Default)]
struct Sum {
    tally: Tally,
    /// Those of them that the campaign is for now. The others have left its group.
    members: u64,
}

impl Counts {
    /// Counts a device. `attempt` is the current one.
    pub(super) fn enter(&mut self, attempt: u64, progress: &Progress) {
        let Some(sum) = self.sum(attempt, progress) else { return };
        sum.tally.enter(progress);
        sum.members += u64::from(progress.member);
    }

    /// Counts a device no more that was counted as it is here.
    pub(super) fn take_out(&mut self, attempt: u64, progress: &Progress) {
        let Some(sum) = self.sum(attempt, progress) else { return };
        sum.tally.take_out(progress);
        sum.members -= u64::from(progress.member);
    }

    /// A new attempt has begun.
    pub(super) fn next_attempt(&mut self) {
        self.others = Sum::default();
    }

    /// The sums, for a campaign that is for so many devices.
    pub(super) fn tally(&self, members: u64) -> Tally {
        let begun = self.confirmed.members + self.others.members;
        let waiting = members.saturating_sub(begun);
        let mut tally = self.confirmed.tally.clone();
        tally.add_all(&self.others.tally);
        tally.waiting = waiting;
        tally.total += waiting;
        tally
    }

    fn sum(&mut self, attempt: u64, progress: &Progress) -> Option<&mut Sum> {
        let deployment = &progress.deployment;
        if deployment.state == State::Confirmed {
            return Some(&mut self.confirmed);
        }
        (deployment.attempt == attempt).then_some(&mut self.others)
    }
}

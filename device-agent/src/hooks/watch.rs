//! Looks from time to time whether every hook can run, and says so if one cannot.

use tracing::{error, info};
use whimbrel_protocol::time::Instant;

use super::Hooks;

/// What keeps hooks from running, as it was seen last.
#[derive(Debug)]
pub(crate) struct Watch {
    hooks: Hooks,
    problems: Vec<String>,
    due: Instant,
}

/// From one look to the next.
const LOOK_MS: u64 = 60_000;

impl Watch {
    /// Looks for the first time.
    pub(crate) fn start(hooks: Hooks, now: Instant) -> Self {
        let mut watch = Self { hooks, problems: Vec::new(), due: now };
        watch.look(now);
        watch
    }

    /// When to look again, if nobody asks before.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Looks now, and logs what is new.
    pub(crate) fn look(&mut self, now: Instant) -> &[String] {
        self.due = now.plus_millis(LOOK_MS);
        let problems = self.hooks.problems();
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            error!(reason = problem, "a hook cannot run: no installation begins until it is mended");
        }
        if problems.is_empty() && !self.problems.is_empty() {
            info!("all hooks can run");
        }
        self.problems = problems;
        &self.problems
    }
}

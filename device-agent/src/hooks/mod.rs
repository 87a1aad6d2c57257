//! Hooks: executables of the device's owner that are run when a deployment changes its state.
//!
//! A hook is named `<State>_<Enter|Leave|Error>_NN_name`, such as `Installing_Enter_10_stop-pump`; those of one
//! moment run one after the other, lower numbers first. Exit code 0 goes on, 1 fails, 21 asks to be asked again
//! later. Four moments wait for the answer ([`Moment::is_gate`]); at all others hooks are only told.
//! `device-agent/HOOKS.md` says all of it to whoever writes hooks.
//!
//! `folder` finds the hooks and what keeps them from running, `watch` looks at that from time to time, `env` has the
//! variables that hooks see, `runner` limits and cleaning up.

mod env;
mod error;
mod folder;
mod progress;
mod queue;
mod runner;
mod watch;

use core::fmt;
use std::path::PathBuf;

pub use env::HookContext;
pub use error::HookError;
pub use progress::Progress;
pub use queue::{HookQueue, Question};
pub use runner::Limits;
use tracing::{debug, info, warn};
pub(crate) use watch::Watch;
pub use whimbrel_engine::Verdict;
use whimbrel_protocol::message::State;

use crate::config::HookConfig;

/// A moment at which hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    /// The state of the deployment.
    pub state: State,
    /// What happens with it.
    pub edge: Edge,
}

/// What happens with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edge {
    /// It begins, or is about to.
    Enter,
    /// It ended well.
    Leave,
    /// It ended with a failure.
    Error,
}

impl Edge {
    /// The word in a hook's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enter => "Enter",
            Self::Leave => "Leave",
            Self::Error => "Error",
        }
    }
}

impl Moment {
    /// Whether the deployment waits for the hooks of this moment and does what they say.
    ///
    /// | moment | exit 1, a signal, or too long | exit 21 |
    /// |---|---|---|
    /// | `Downloading_Enter` | asked again after a minute | asked again after a minute |
    /// | `Installing_Enter` | the deployment fails: `hook` | asked again after a minute |
    /// | `Rebooting_Enter` | the new image is given up: `hook` | asked again after a minute |
    /// | `Testing_Enter` | the new image is given up: `unhealthy` | asked again after 10 s, up to `health.limit` |
    #[must_use]
    pub const fn is_gate(self) -> bool {
        let entered = matches!(self.edge, Edge::Enter);
        entered
            && matches!(
                self.state,
                State::Downloading | State::Installing | State::Rebooting | State::Testing
            )
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = self.state.name().chars();
        let first = name.next().map(|letter| letter.to_ascii_uppercase());
        write!(f, "{}{}_{}", first.unwrap_or_default(), name.as_str(), self.edge.name())
    }
}

/// The hooks of one folder.
#[derive(Clone, Debug)]
pub struct Hooks {
    folder: Option<PathBuf>,
    limits: Limits,
}

/// What hooks said at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether to go on.
    pub verdict: Verdict,
    /// What the hook that did not say to go on printed last, in one line; what is wrong if it could not run.
    pub said: String,
}

impl Answer {
    const GOOD: Self = Self { verdict: Verdict::Good, said: String::new() };
}

impl Hooks {
    /// The hooks that `config` names.
    #[must_use]
    pub fn new(config: &HookConfig) -> Self {
        let limits = Limits { time: config.limit, output_bytes: config.output_bytes_max };
        Self { folder: config.folder.clone(), limits }
    }

    /// Runs the hooks of `moment`, one after the other, until one does not say to go on. No hook says to go on.
    ///
    /// As long as any hook of the folder cannot run, nothing begins: each moment that waits for an answer is told to ask
    /// again later, and a new image on trial counts as unhealthy. Nobody knows what that hook would have said, and an
    /// image that brings it along would begin no later update either. Only the way back to the old image is open.
    pub async fn run(&self, moment: Moment, context: &HookContext) -> Answer {
        let found = self.look();
        // An image that was given up has to go, also if it is what broke the hooks.
        let goes_back = moment.state == State::Rebooting && context.goes_back;
        if moment.is_gate()
            && !goes_back
            && let Some(problem) = found.problems.into_iter().next()
        {
            warn!(%moment, reason = problem, "hooks cannot run");
            let verdict = if moment.state == State::Testing { Verdict::Bad } else { Verdict::Later };
            return Answer { verdict, said: problem };
        }
        let prefix = format!("{moment}_");
        for hook in found.hooks.iter().filter(|hook| hook.name.starts_with(&prefix)) {
            let name = hook.name.as_str();
            match runner::run(&hook.path, &context.variables(moment), self.limits).await {
                Ok(output) => debug!(hook = name, output, "hook done"),
                Err(HookError::Later { output }) => {
                    info!(hook = name, output, "hook asks to be asked again later");
                    return Answer { verdict: Verdict::Later, said: output };
                }
                Err(error) => {
                    warn!(hook = name, reason = %error, "hook failed");
                    return Answer { verdict: Verdict::Bad, said: error.said() };
                }
            }
        }
        Answer::GOOD
    }
}

/// `NN_name`.
fn is_numbered(rest: &str) -> bool {
    match rest.as_bytes() {
        [tens, ones, b'_', name @ ..] => tens.is_ascii_digit() && ones.is_ascii_digit() && !name.is_empty(),
        _ => false,
    }
}

fn is_hook_name(name: &str) -> bool {
    (0..)
        .map_while(State::from_number)
        .flat_map(|state| [Edge::Enter, Edge::Leave, Edge::Error].map(|edge| Moment { state, edge }))
        .any(|moment| name.strip_prefix(&format!("{moment}_")).is_some_and(is_numbered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_named_by_state_edge_and_number() {
        for good in
            ["Installing_Enter_10_stop", "Testing_Enter_00_a", "Failed_Enter_99_x_y", "Idle_Leave_01_."]
        {
            assert!(is_hook_name(good), "{good}");
        }
        for bad in [
            "installing_Enter_10_x",
            "Installing_Enter_1_x",
            "Installing_Enter_10_",
            "Installing_Enter_10",
            "Foo_Enter_10_x",
            "README",
        ] {
            assert!(!is_hook_name(bad), "{bad}");
        }
    }
}

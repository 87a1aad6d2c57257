//! Hooks: executables of the device's owner that are run when a deployment changes its state.
//!
//! A hook is named `<State>_<Enter|Leave|Error>_NN_name`, such as `Installing_Enter_10_stop-pump`; those of one
//! moment run one after the other, lower numbers first. Exit code 0 goes on, 1 fails, 21 asks to be asked again
//! later. Four moments wait for the answer ([`Moment::is_gate`]); at all others hooks are only told.
//! Which variables they see is `env`'s matter, limits and cleaning up are `runner`'s.

mod env;
mod error;
mod progress;
mod queue;
mod runner;

use core::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use env::HookContext;
pub use error::HookError;
pub use progress::Progress;
pub use queue::{HookQueue, Question};
pub use runner::Limits;
use tracing::{debug, info, warn};
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

/// Hooks of one moment beyond these are not run.
const HOOKS_MAX: usize = 64;

impl Hooks {
    /// The hooks that `config` names.
    #[must_use]
    pub fn new(config: &HookConfig) -> Self {
        let limits = Limits { time: config.limit, output_bytes: config.output_bytes_max };
        Self { folder: config.folder.clone(), limits }
    }

    /// Runs the hooks of `moment`, one after the other, until one does not say to go on.
    ///
    /// No hook says to go on. A folder that cannot be read, and a hook that others than the owner may write, fail.
    pub async fn run(&self, moment: Moment, context: &HookContext) -> Verdict {
        let hooks = match self.find(moment) {
            Ok(hooks) => hooks,
            Err(error) => {
                warn!(%moment, reason = %error, "hooks cannot be read");
                return Verdict::Bad;
            }
        };
        for hook in hooks {
            let name = hook.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match runner::run(&hook, &context.variables(moment), self.limits).await {
                Ok(output) => debug!(hook = name, output, "hook done"),
                Err(HookError::Later) => {
                    info!(hook = name, "hook asks to be asked again later");
                    return Verdict::Later;
                }
                Err(error) => {
                    warn!(hook = name, reason = %error, "hook failed");
                    return Verdict::Bad;
                }
            }
        }
        Verdict::Good
    }

    /// The hooks of `moment` in their order.
    fn find(&self, moment: Moment) -> Result<Vec<PathBuf>, HookError> {
        let Some(folder) = &self.folder else {
            return Ok(Vec::new());
        };
        let unreadable = |error| HookError::Folder { path: folder.clone(), error };
        let prefix = format!("{moment}_");
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else {
                continue;
            };
            if is_numbered(rest) && found.len() < HOOKS_MAX {
                found.push(entry.path());
            }
        }
        found.sort();
        let mut runnable = Vec::new();
        for path in found {
            if may_run(&path).map_err(unreadable)? {
                runnable.push(path);
            }
        }
        Ok(runnable)
    }

    /// Names of files in the folder that are not hooks' names, for a word at the start.
    ///
    /// # Errors
    /// [`HookError::Folder`] where there should be a folder and none can be read.
    pub fn misnamed(&self) -> Result<Vec<String>, HookError> {
        let Some(folder) = &self.folder else {
            return Ok(Vec::new());
        };
        let entries =
            fs::read_dir(folder).map_err(|error| HookError::Folder { path: folder.clone(), error })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| !is_hook_name(name)).take(HOOKS_MAX).collect())
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

/// Executable files run; others are left alone, as editors leave them behind. What others may write fails.
fn may_run(path: &Path) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Ok(false);
    }
    if metadata.mode() & 0o022 != 0 {
        let text = format!("{} may be written by others than its owner", path.display());
        return Err(io::Error::other(text));
    }
    Ok(true)
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

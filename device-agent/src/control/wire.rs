//! What is said on the control socket. Both ends are the same program, so that there are no versions: an agent
//! that was replaced on disk and not restarted refuses what it does not know.

use serde::{Deserialize, Serialize};

use crate::status::StatusView;

/// A line to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How things are.
    Status,
    /// Say hello to the service now, and tell what is new.
    Check,
    /// Keep the image on trial.
    Commit,
    /// Give the image on trial up.
    Rollback,
    /// Install the release in a folder.
    Install {
        /// The folder, from the root.
        path: String,
    },
}

/// The agent's answer, one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// With which code the command ends.
    pub exit: Exit,
    /// What to print: an error line where `exit` is [`Exit::Error`].
    pub text: String,
    /// For [`Request::Status`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<StatusView>>,
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// 0: it is done.
    Done,
    /// 1: it failed; the text says why.
    Error,
    /// 2: there is nothing to do it with.
    Nothing,
    /// 4: it is done, and takes effect with a reboot.
    Reboot,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Nothing => 2,
            Self::Reboot => 4,
        }
    }
}

impl Reply {
    /// An answer of words.
    #[must_use]
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), status: None }
    }

    /// An error line.
    #[must_use]
    pub fn error(error: &impl ToString) -> Self {
        Self::new(Exit::Error, error.to_string())
    }

    /// How things are.
    #[must_use]
    pub fn status(view: StatusView) -> Self {
        Self { exit: Exit::Done, text: String::new(), status: Some(Box::new(view)) }
    }
}

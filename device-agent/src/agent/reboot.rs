//! Starting what the boot control chooses, in the way that the device's owner wants.

use core::time::Duration;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::task::JoinHandle;
use tracing::{error, info};
use whimbrel_engine::Input;
use whimbrel_protocol::ids::OpId;

use super::{Agent, Exit};
use crate::config::Reboot;

/// The command that reboots the device, at work.
#[derive(Debug)]
pub(super) struct RebootCommand {
    op: OpId,
    task: JoinHandle<()>,
}

/// A device that has not rebooted after this long is not going to.
const REBOOT_LIMIT: Duration = Duration::from_secs(600);

impl RebootCommand {
    fn start(op: OpId, program: &Path, arguments: &[String]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let program = program.display().to_string();
        let task = tokio::spawn(async move {
            match command.status().await {
                Ok(status) if status.success() => tokio::time::sleep(REBOOT_LIMIT).await,
                Ok(status) => error!(program, reason = %status, "the reboot command failed"),
                Err(error) => error!(program, reason = %error, "the reboot command cannot be started"),
            }
        });
        Self { op, task }
    }

    /// Waits until the command has failed, for ever if there is none. Cancel-safe.
    pub(super) async fn failed(this: &mut Option<Self>) {
        match this {
            Some(Self { task, .. }) => {
                drop(task.await);
            }
            None => core::future::pending().await,
        }
    }
}

impl Agent<'_> {
    pub(super) fn begin_reboot(&mut self, op: OpId) {
        info!("starting what the boot control chooses");
        match &self.around.config.install.reboot {
            Reboot::Restart => self.leave_with(Exit::Restart),
            Reboot::Exit => self.leave_with(Exit::RebootByOther),
            Reboot::Command { program, arguments } => {
                self.reboot = Some(RebootCommand::start(op, program, arguments));
            }
        }
    }

    /// A hook refuses: the new image is given up before it was ever started.
    pub(super) fn refuse_reboot(&mut self) {
        self.leave_with(Exit::Refused);
    }

    /// The session asks again later.
    pub(super) fn reboot_failed(&mut self) {
        if let Some(RebootCommand { op, .. }) = self.reboot.take() {
            self.feed(Input::RebootFailed { op });
        }
    }
}

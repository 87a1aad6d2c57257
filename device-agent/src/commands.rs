//! What a person at the device can have done to the medium: commit, rollback, install. The same whether the daemon
//! does it between two sessions or the command itself where no daemon runs.

use std::path::Path;

use whimbrel_engine::Inventory;
use whimbrel_protocol::device::Trial;
use whimbrel_protocol::message::FailureCode;

use crate::control::{Exit, Reply, Request};
use crate::error::AgentError;
use crate::home::{Home, slot_name};
use crate::hooks::Verdict;
use crate::outcome;
use crate::standalone::{Installed, install};
use crate::status::StatusView;

/// Who carries a command out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The daemon, which has had a session before and starts one afterwards.
    Daemon,
    /// The command itself.
    Person,
}

/// Carries `request` out. `ask` runs the hooks of `Installing_Enter`.
///
/// # Errors
/// [`AgentError`]; what was confirmed before stays so.
pub fn carry_out(
    home: &mut Home,
    request: &Request,
    who: Who,
    ask: impl FnOnce() -> Verdict,
) -> Result<Reply, AgentError> {
    if who == Who::Person && matches!(request, Request::Install { .. }) {
        outcome::record(home)?;
    }
    let reply = answer(home, request, who, ask)?;
    if who == Who::Person && matches!(request, Request::Commit | Request::Rollback) {
        outcome::record(home)?;
    }
    Ok(reply)
}

fn answer(
    home: &mut Home,
    request: &Request,
    who: Who,
    ask: impl FnOnce() -> Verdict,
) -> Result<Reply, AgentError> {
    let mut inventory = home.inventory()?;
    match request {
        Request::Status => Ok(Reply::status(StatusView::of_folder(home, &inventory))),
        Request::Check => {
            Ok(Reply::error(&"no agent runs with this data folder: start whimbrel-agent daemon"))
        }
        Request::Commit => commit(home, &inventory),
        Request::Rollback => rollback(home, &mut inventory, who),
        Request::Install { path } => {
            let installed = install(home, &mut inventory, Path::new(path), ask)?;
            Ok(match installed {
                Installed::Armed { version, patch_bytes } => {
                    let made = patch_bytes
                        .map_or_else(String::new, |bytes| format!(", made by a patch of {bytes} bytes,"));
                    let version = version.map_or_else(String::new, |version| format!("version {version} "));
                    let slot = slot_name(home.storage.target());
                    Reply::new(
                        Exit::Reboot,
                        format!("{version}is in slot {slot}{made} and starts with the next reboot"),
                    )
                }
                Installed::Running => Reply::new(Exit::Done, "this release is running already"),
            })
        }
    }
}

fn commit(home: &mut Home, inventory: &Inventory) -> Result<Reply, AgentError> {
    match inventory.boot.trial {
        Trial::Running => {
            home.confirm()?;
            let slot = slot_name(home.storage.running());
            Ok(Reply::new(Exit::Done, format!("the image in slot {slot} is permanent")))
        }
        Trial::Armed => Ok(Reply::new(Exit::Reboot, "the new image has not been started yet: reboot first")),
        Trial::None | Trial::Failed => {
            Ok(Reply::new(Exit::Nothing, "nothing to commit: no image is on trial"))
        }
    }
}

fn rollback(home: &mut Home, inventory: &mut Inventory, who: Who) -> Result<Reply, AgentError> {
    match inventory.boot.trial {
        Trial::Running => {
            home.give_up(inventory, FailureCode::Local)?;
            if who == Who::Person {
                home.disarm()?;
            }
            Ok(Reply::new(
                Exit::Reboot,
                "the image on trial is given up: the old one starts with the next reboot",
            ))
        }
        Trial::Armed => {
            home.give_up(inventory, FailureCode::Local)?;
            Ok(Reply::new(Exit::Done, "the new image is given up before it was started"))
        }
        Trial::None | Trial::Failed => Ok(Reply::new(
            Exit::Nothing,
            "nothing to roll back: the running image is confirmed, and a confirmed image is never given up",
        )),
    }
}

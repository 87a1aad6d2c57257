//! The process of the clients that misbehave beside a load.

use alloc::collections::BTreeMap;
use core::time::Duration;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;

use super::UpdatesArgs;
use crate::child::{Child, ChildOptions, own_command};
use crate::misbehave::{Deeds, Plan, deeds};
use crate::seed::Seed;
use crate::update::Rollout;

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Beside {
    child: Child,
    deeds: PathBuf,
}

/// The line by which the process says that it begins.
#[derive(Debug, Deserialize)]
struct Begun {}

impl Beside {
    /// Starts as many misbehaving clients as wanted; nothing where none are.
    pub(super) async fn start(
        args: &UpdatesArgs,
        rollout: &Rollout,
        seed: Seed,
    ) -> anyhow::Result<Option<Self>> {
        if args.misbehaving == 0 {
            return Ok(None);
        }
        let home = rollout.home();
        let deeds = home.join("misbehaving.json");
        let plan = Plan {
            broker: rollout.broker,
            prefix: rollout.facts.prefix.to_string(),
            login: args.broker.as_ref().and_then(|broker| broker.login.clone()),
            seed: seed.0,
            first: args.devices,
            clients: args.misbehaving,
            root: home.join("root.cbor"),
            deeds: deeds.clone(),
        };
        let mut command = own_command("misbehave").context("cannot find this program")?;
        command.arg(serde_json::to_string(&plan)?);
        let options = ChildOptions {
            name: "the misbehaving clients",
            log: home.join("misbehaving.log"),
            ready_within: Duration::from_secs(30),
            stop_within: Duration::from_secs(5),
        };
        let (child, Begun {}) = Child::start(command, options).await?;
        Ok(Some(Self { child, deeds }))
    }

    /// Ends them, and says what they did.
    pub(super) async fn stop(self) -> anyhow::Result<BTreeMap<String, Deeds>> {
        self.child.stop().await?;
        deeds(&self.deeds)
    }
}

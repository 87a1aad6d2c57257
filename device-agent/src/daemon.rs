//! The agent as it runs for years: session after session on one data folder.
//!
//! Between two sessions the medium is free: for the boot loader's step, and for commands that change images.

use tokio::sync::watch;
use tracing::{info, warn};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::SessionConfig;
use whimbrel_protocol::message::{FailureCode, State};

use crate::agent::{Agent, Exit, Surroundings};
use crate::clock::Clock;
use crate::commands::{self, Who};
use crate::config::Config;
use crate::control::{self, Asked, Listener, Reply, Request};
use crate::error::AgentError;
use crate::events::Counters;
use crate::home::{Home, LOCK_PAUSE, LOCK_TRIES, slot_name};
use crate::hooks::{HookQueue, Hooks, Progress, Watch};
use crate::identity::load_or_make_key;
use crate::mqtt::BrokerLimits;
use crate::status::StatusView;

/// Why the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Somebody has to reboot the device.
    RebootNeeded,
}

/// Runs until `stop` becomes `true` or a reboot is needed that others do.
///
/// # Errors
/// [`AgentError`] where the agent cannot go on.
pub async fn run(config: Config, stop: watch::Receiver<bool>) -> Result<Ended, AgentError> {
    let home = open(&config).await?;
    let key = load_or_make_key(&config.device.key)?;
    let hooks = Hooks::new(&config.hooks);
    // If the folder cannot be read, the watch says so, and no hook counts as run.
    for name in hooks.misnamed().unwrap_or_default() {
        warn!(name, "a file in the hooks folder is not named like a hook");
    }
    let clock = Clock::start();
    let around = Surroundings {
        hook_watch: Watch::start(hooks.clone(), clock.now()),
        clock,
        listener: Listener::start(&config.storage.data)?,
        hooks: HookQueue::start(hooks),
        progress: Progress::default(),
        counters: Counters::default(),
        limits: BrokerLimits::load(&config.storage.data),
        stop,
        fingerprint: key.public().fingerprint(),
        config,
    };
    info!(device = %around.config.device.id, key = %around.fingerprint, "agent started");
    Daemon { around, key }.run(home).await
}

/// Opens the data folder. A command that has it is done soon; a daemon that has it is not.
async fn open(config: &Config) -> Result<Home, AgentError> {
    for _ in 0..LOCK_TRIES {
        match Home::open(config.clone()) {
            Err(error) if error.is_locked() && !control::answers(&config.storage.data) => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            other => return other,
        }
    }
    Home::open(config.clone())
}

struct Daemon {
    around: Surroundings,
    key: SigningKey,
}

impl Daemon {
    async fn run(mut self, mut home: Home) -> Result<Ended, AgentError> {
        loop {
            let inventory = home.inventory()?;
            let session = session_config(&self.around.config, &self.key, random()?);
            let address = self.around.config.broker.url.address();
            let message_limit = self.around.limits.get(&address, self.around.clock.today());
            let session = SessionConfig { message_limit, ..session };
            let link_seed = u64::from_le_bytes(random()?);
            let agent = Agent::start(&mut self.around, home, inventory, session, link_seed)?;
            let (exit, storage) = agent.run().await?;
            let Some(storage) = storage else {
                return Ok(Ended::Stopped);
            };
            home = Home { config: self.around.config.clone(), storage };
            match exit {
                Exit::Stop => return Ok(Ended::Stopped),
                Exit::RebootByOther => return Ok(Ended::RebootNeeded),
                Exit::Restart => {
                    let slot = home.storage.boot()?;
                    info!(slot = slot_name(slot), "started anew");
                }
                Exit::Refused => {
                    let mut inventory = home.inventory()?;
                    home.give_up(&mut inventory, FailureCode::Hook)?;
                }
                Exit::Command(asked) => match self.command(home, asked).await? {
                    Some(back) => home = back,
                    None => return Ok(Ended::Stopped),
                },
            }
        }
    }

    /// Carries a command out on a thread that may block, and answers meanwhile. `None`: the process is to end,
    /// which an image that is being written is not waited for.
    async fn command(&mut self, mut home: Home, asked: Asked) -> Result<Option<Home>, AgentError> {
        let Asked { request, reply } = asked;
        let mut view = home.inventory().map(|inventory| StatusView::of_folder(&mut home, &inventory))?;
        view.daemon = true;
        if matches!(request, Request::Install { .. }) {
            State::Installing.name().clone_into(&mut view.state);
            view.reason = Some("local".to_owned());
        }
        let hooks = home.ask_hooks();
        let runtime = tokio::runtime::Handle::current();
        let ask = move || runtime.block_on(hooks);
        let mut work = tokio::task::spawn_blocking(move || {
            let result = commands::carry_out(&mut home, &request, Who::Daemon, ask);
            (home, result)
        });
        loop {
            tokio::select! {
                done = &mut work => {
                    let (home, result) = done.map_err(|_| AgentError::Ended { what: "command" })?;
                    let answer = result.unwrap_or_else(|error| Reply::error(&error.in_one_line()));
                    info!(exit = answer.exit.code(), "command done");
                    // Somebody who does not wait for the answer gets none.
                    drop(reply.send(answer));
                    return Ok(Some(home));
                }
                _ = self.around.stop.wait_for(|stop| *stop) => return Ok(None),
                Some(asked) = self.around.listener.next() => {
                    let answer = match asked.request {
                        Request::Status => Reply::status(view.clone()),
                        _ => Reply::error(&"another command is at work: try again when it is done"),
                    };
                    drop(asked.reply.send(answer));
                }
            }
        }
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AgentError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| AgentError::System { what: "randomness", error: error.into() })?;
    Ok(bytes)
}

/// What a session is told about this device.
pub(crate) fn session_config(config: &Config, key: &SigningKey, seed: [u8; 32]) -> SessionConfig {
    let device = &config.device;
    let base = SessionConfig::new(device.id.clone(), device.vendor, device.class, key.clone(), seed);
    SessionConfig {
        prefix: config.broker.prefix.clone(),
        message_bytes_max: config.download.message_bytes_max,
        window_bytes_max: config.download.window_bytes_max,
        mean_time_between_losses_s: config.download.mean_time_between_losses.as_secs(),
        // rumqttc gives whole messages only.
        sees_activity: false,
        memory_max_kib: config.download.decoder_memory_bytes_max / 1024,
        health_limit_s: config.health.limit.as_secs(),
        reach_limit_s: config.health.reach_limit.as_secs(),
        accept_es256: config.download.accept_es256,
        ..base
    }
}

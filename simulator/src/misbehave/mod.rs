//! Clients that misbehave, each in its own way: what the service has to bear beside the devices that it serves.
//!
//! They are registered devices with keys of their own, and run in a process of their own with the lowest priority,
//! because in the field their processors would be theirs. Each has an address of its own where the broker is on this
//! machine. `raw` is the socket that all of them but `replay` use; every other file is one kind.

mod flood;
mod oversized;
mod raw;
mod replay;
mod slow;
mod storm;
mod wrong_key;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::ids::{ClassId, DeviceId, Prefix, VendorId};
use whimbrel_protocol::topic::Channel;

use crate::seed::Seed;
use crate::update::{CLASS, VENDOR, device_id, device_key};

/// In which way a client misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Publishes messages of one byte as fast as they are taken.
    Flood,
    /// Opens a thousand connections a second, most of which say nothing or use an invented name.
    Storm,
    /// Repeats its own report and hello, and changes what no signature covers.
    Replay,
    /// Enrols itself with another key again and again, and reports with it.
    WrongKey,
    /// Publishes messages of more than a MiB.
    Oversized,
    /// Logs in byte by byte, then asks and reads nothing.
    Slow,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Flood, Self::Storm, Self::Replay, Self::WrongKey, Self::Oversized, Self::Slow];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::Storm => "connect storm",
            Self::Replay => "replay",
            Self::WrongKey => "wrong key",
            Self::Oversized => "oversized",
            Self::Slow => "slow",
        }
    }

    /// The kind of one of several clients: each kind in turn.
    #[must_use]
    pub fn of(client: u32) -> Self {
        let [first, ..] = Self::ALL;
        Self::ALL.into_iter().cycle().nth(client as usize % Self::ALL.len()).unwrap_or(first)
    }
}

/// What the process of the misbehaving clients is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The broker.
    pub broker: SocketAddr,
    /// First level of all topics.
    pub prefix: String,
    /// User name and password there.
    pub login: Option<(String, String)>,
    /// What the keys are drawn from.
    pub seed: u64,
    /// The number of the first client among the registered devices.
    pub first: u32,
    /// How many clients.
    pub clients: u32,
    /// The root that devices trust.
    pub root: PathBuf,
    /// Where the process writes now and then what it did.
    pub deeds: PathBuf,
}

impl Plan {
    fn prefix(&self) -> Prefix {
        Prefix::new(&self.prefix).unwrap_or_default()
    }
}

/// What the clients of one kind did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deeds {
    /// Connections that they opened.
    pub connections: u64,
    /// Connections that were refused, or that the broker ended.
    pub ended: u64,
    /// Messages that were taken from them.
    pub messages: u64,
}

/// The same, while they do it.
#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    ended: AtomicU64,
    messages: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, many: u64) {
        counter.fetch_add(many, Ordering::Relaxed);
    }

    fn read(&self) -> Deeds {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Deeds {
            connections: read(&self.connections),
            ended: read(&self.ended),
            messages: read(&self.messages),
        }
    }
}

/// One client.
#[derive(Debug)]
struct Client {
    /// Among the misbehaving ones, from 0.
    number: u8,
    kind: Kind,
    id: DeviceId,
    key: SigningKey,
    class: ClassId,
    plan: Arc<Plan>,
    counters: Arc<Counters>,
}

impl Client {
    fn topic(&self, channel: Channel) -> String {
        channel.topic(&self.plan.prefix(), &self.id)
    }

    /// Misbehaves for ever, with a short rest after each connection.
    async fn misbehave(self) {
        if self.kind == Kind::Replay {
            return replay::replay(self).await;
        }
        loop {
            let outcome = match self.kind {
                Kind::Flood => flood::connection(&self).await,
                Kind::Storm => storm::burst(&self).await,
                Kind::Oversized => oversized::connection(&self).await,
                Kind::WrongKey | Kind::Replay => wrong_key::connection(&self).await,
                Kind::Slow => slow::connection(&self).await,
            };
            if outcome.is_err() {
                Counters::add(&self.counters.ended, 1);
            }
            tokio::time::sleep(REST).await;
        }
    }
}

/// Between two connections of a client.
const REST: Duration = Duration::from_millis(50);
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The program: takes the plan as JSON, says by a line that it begins, misbehaves until its parent is gone.
#[must_use]
pub fn main_from_args(plan: &str) -> ExitCode {
    match run(plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("misbehaving clients: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &str) -> anyhow::Result<()> {
    let plan: Arc<Plan> = Arc::new(serde_json::from_str(plan).context("the plan")?);
    rustix::process::nice(19).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut counters: Vec<(Kind, Arc<Counters>)> = Vec::new();
        for number in 0..plan.clients {
            let kind = Kind::of(number);
            let client = Client {
                number: u8::try_from(number).unwrap_or(u8::MAX),
                kind,
                id: device_id(plan.first + number),
                key: device_key(Seed(plan.seed), plan.first + number),
                class: ClassId::from_name(VendorId::from_domain(VENDOR), CLASS),
                plan: plan.clone(),
                counters: Arc::default(),
            };
            counters.push((kind, client.counters.clone()));
            tokio::spawn(client.misbehave());
        }
        println!("{{}}");
        std::io::stdout().flush().ok();
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let mut deeds: BTreeMap<&str, Deeds> = BTreeMap::new();
            for (kind, counters) in &counters {
                let Deeds { connections, ended, messages } = counters.read();
                let of_kind = deeds.entry(kind.name()).or_default();
                of_kind.connections += connections;
                of_kind.ended += ended;
                of_kind.messages += messages;
            }
            // Whoever reads it meanwhile sees the file before or after, never half of it.
            let new = plan.deeds.with_extension("new");
            std::fs::write(&new, serde_json::to_string(&deeds)?)?;
            std::fs::rename(&new, &plan.deeds)?;
        }
    })
}

/// What the clients did, as their process wrote it last.
///
/// # Errors
/// Where it has written nothing.
pub fn deeds(path: &Path) -> anyhow::Result<BTreeMap<String, Deeds>> {
    let text = std::fs::read(path).context("the misbehaving clients did not say what they did")?;
    serde_json::from_slice(&text).context("what the misbehaving clients did")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_clients_misbehave_in_every_way_in_turn() {
        let kinds: Vec<Kind> = (0..7).map(Kind::of).collect();
        assert_eq!(kinds[..6], Kind::ALL);
        assert_eq!(kinds[6], Kind::Flood);
    }
}

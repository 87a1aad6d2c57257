//! All devices of a load, on their connections until the run ends.

use alloc::sync::Arc;
use core::num::NonZeroU32;
use core::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::UpdatesArgs;
use super::tally::{Seen, Tally};
use super::watched::Watched;
use crate::clock::{Clock, Moment};
use crate::fleet::{Fleet, FleetCounts};
use crate::outage::Outages;
use crate::profile::Profiles;
use crate::seed::Seed;
use crate::swarm::{SwarmPlan, run_device};
use crate::update::{Rollout, UpdatingDevice, classify};
use crate::words::grouped;

/// Longest silence on a connection before a ping.
const KEEP_ALIVE: Duration = Duration::from_secs(600);
/// Largest packet that a device takes: 64 KiB of chunks and their headers.
const PACKET_BYTES_MAX: usize = 80 * 1024;
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The devices, each a task.
#[derive(Debug)]
pub(super) struct Connected {
    tasks: JoinSet<()>,
    tally: Arc<Tally>,
    counters: Arc<Fleet>,
    devices: u32,
}

impl Connected {
    /// Has the devices begin, at a rate or when their turn comes.
    pub(super) fn start(args: &UpdatesArgs, rollout: &Rollout, seed: Seed) -> anyhow::Result<Self> {
        let begin_within = match args.rate {
            Some(rate) => Duration::from_secs_f64(f64::from(args.devices) / f64::from(rate.max(1))),
            None => Duration::ZERO,
        };
        let plan = Arc::new(SwarmPlan {
            devices: args.devices,
            broker: rollout.broker,
            profile: Arc::new(Profiles::builtin().named("unshaped")?.clone()),
            outages: Outages::NONE,
            seed,
            start_within: begin_within,
            give_up_at: Moment::from_micros(u64::MAX),
            keep_alive: KEEP_ALIVE,
            packet_bytes_max: PACKET_BYTES_MAX,
            classify,
            wake_every: Duration::from_millis(50),
        });
        let clock = Clock::start(NonZeroU32::MIN);
        let (tally, counters) = (Arc::new(Tally::default()), Arc::new(Fleet::new(args.devices)));
        let facts = Arc::new(rollout.facts.clone());
        let turns = args.rate.is_none().then(|| Arc::new(Semaphore::new(args.at_once as usize)));
        let mut tasks = JoinSet::new();
        for number in 0..args.devices {
            let device = UpdatingDevice::new(facts.clone(), number)?;
            let identity = rollout.identity(number);
            let (tally, turns) = (tally.clone(), turns.clone());
            let (plan, clock, counters) = (plan.clone(), clock.clone(), counters.clone());
            tasks.spawn(async move {
                let turn = match turns {
                    Some(turns) => turns.acquire_owned().await.ok(),
                    None => None,
                };
                let device = Watched::new(device, tally, turn);
                run_device(number, identity, device, plan, clock, counters).await;
            });
        }
        Ok(Self { tasks, tally, counters, devices: args.devices })
    }

    /// Waits until so many deployments have ended, and says now and then how many have.
    pub(super) async fn until_ended(&self, many: u64, quiet: bool) {
        let ended = self.tally.until_ended(many);
        let mut ended = core::pin::pin!(ended);
        let mut lines = interval(LINE_EVERY);
        lines.tick().await; // The first one comes at once.
        loop {
            tokio::select! {
                () = &mut ended => return,
                _ = lines.tick() => if !quiet { eprintln!("{}", self.line(many)) },
            }
        }
    }

    fn line(&self, many: u64) -> String {
        let counts = self.counters.counts();
        let ended = self.tally.endings();
        let release = many / u64::from(self.devices.max(1));
        let of_release = (ended + u64::from(self.devices)).saturating_sub(many);
        let (of_release, devices) = (grouped(of_release), grouped(self.devices.into()));
        let connected = grouped(counts.connected);
        let trouble = counts.last_trouble.map_or(String::new(), |why| {
            format!("; {} connections failed, last: {why}", grouped(counts.troubles))
        });
        format!("release {release}: {of_release} of {devices} updated, {connected} connected{trouble}")
    }

    /// Takes all devices off, and says what they saw.
    pub(super) async fn stop(mut self) -> (Seen, FleetCounts) {
        let counts = self.counters.counts();
        self.tasks.shutdown().await;
        (self.tally.so_far(), counts)
    }
}

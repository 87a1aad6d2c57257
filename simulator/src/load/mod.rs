//! `bench-updates`: many whole small updates, and what each costs the service.
//!
//! The devices are those of a swarm, with the device engine in them, on links without limits. They begin at a rate,
//! or each when another has ended, and stay connected. `connected` is all of them, `watched` one of them, `tally`
//! what they saw, `beside` the process of clients that misbehave meanwhile, `figures` what comes of it.

mod args;
mod beside;
mod connected;
mod figures;
mod tally;
mod watched;

use alloc::sync::Arc;
use core::num::NonZeroU32;
use core::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;

pub use args::UpdatesArgs;
pub use figures::Figures;
pub use tally::{Seen, Tally, percentile};
pub use watched::Watched;

use crate::bench::random_image;
use crate::clock::Clock;
use crate::process::own_usage;
use crate::seed::Seed;
use crate::update::{Guest, Rollout, RolloutOptions, until_interrupted};
use beside::Beside;
use connected::Connected;

/// What devices are told of a link that does not fail by itself.
const NO_LOSSES_S: u64 = 30 * 24 * 3600;
/// The counter of the service's status that has its durable transactions.
const COMMITS: &str = "commits";

/// Runs it, from making keys to the last acknowledged report.
///
/// # Errors
/// What kept it from running. What became of the devices is in the figures.
pub async fn updates(args: &UpdatesArgs) -> anyhow::Result<Figures> {
    let guest = args.broker.as_ref().map(|broker| Guest::drawn(broker, None)).transpose()?;
    let run = run(args, guest.clone());
    let (mut figures, left) = until_interrupted(run, guest.as_deref(), args.registered()).await?;
    figures.left = left.map(|left| left.to_string());
    Ok(figures)
}

async fn run(args: &UpdatesArgs, guest: Option<Arc<Guest>>) -> anyhow::Result<Figures> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => Seed::fresh().context("the system gives no random number")?,
    };
    let options = RolloutOptions {
        image: random_image(args.image_bytes, 1),
        devices: args.devices,
        registered: args.registered(),
        limits: limits(args),
        start: None,
        seed,
        guest,
        mean_time_between_losses_s: NO_LOSSES_S,
        spread_s: args.spread,
    };
    let mut rollout = Rollout::start(options, whimbrel_publisher::clock::now()).await?;
    let commits_before = rollout.status().await?.counters.get(COMMITS).copied();
    let beside = Beside::start(args, &rollout, seed).await?;
    let before = (rollout.service.usage()?.cpu, own_usage()?.cpu);
    let clock = Clock::start(NonZeroU32::MIN);
    let fleet = Connected::start(args, &rollout, seed)?;
    let mut figures = Figures::new(args, seed);
    loop {
        figures.releases += 1;
        let wanted = u64::from(args.devices) * figures.releases;
        let all = tokio::select! {
            all = timeout(patience(args, figures.releases), fleet.until_ended(wanted, args.quiet)) => all.is_ok(),
            error = rollout.service.ended() => return Err(error.into()),
        };
        figures.service_rss_bytes.push(rollout.service.usage()?.rss_bytes);
        if !all || clock.real_elapsed() >= Duration::from_secs(args.seconds.into()) {
            break;
        }
        let next = figures.releases + 1;
        rollout.next_release(random_image(args.image_bytes, next), next).await?;
    }
    let elapsed = clock.real_elapsed();
    let usage = rollout.service.usage()?;
    let simulator = own_usage()?.cpu.saturating_sub(before.1);
    // The devices go before the service is asked, so that it has time to answer.
    let seen = fleet.stop().await;
    if let Some(beside) = beside {
        figures.misbehaving = beside.stop().await?;
    }
    let commits_after = rollout.status().await?.counters.get(COMMITS).copied();
    figures.set_seen(seen, elapsed);
    figures.set_service(usage, before.0, rollout.registration_rss_bytes);
    figures.set_commits(commits_before.zip(commits_after));
    figures.simulator_cpu_s = simulator.as_secs_f64();
    rollout.stop().await?;
    Ok(figures)
}

/// How long a release may take.
fn patience(args: &UpdatesArgs, release: u64) -> Duration {
    let begin = match (release, args.rate) {
        (1, Some(rate)) => Duration::from_secs(u64::from(args.devices / rate.max(1))),
        (1, None) => Duration::ZERO,
        _ => Duration::from_secs(args.spread),
    };
    begin + Duration::from_secs(args.give_up_after.into())
}

/// Room for all devices in the service's own broker: a device takes its seat again after the restart.
fn limits(args: &UpdatesArgs) -> String {
    let devices = u64::from(args.devices + args.misbehaving);
    let (connections, devices) = (devices + devices / 5 + 100, devices + 100);
    format!("connections = {connections}\ndevices = {devices}\nbroker-memory = \"1TiB\"\n")
}

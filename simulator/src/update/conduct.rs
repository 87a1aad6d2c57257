//! Runs the fleet through one update and says what became of every device.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::classify::classify;
use super::device::UpdatingDevice;
use super::guest::{Guest, until_interrupted};
use super::rollout::{Rollout, RolloutOptions};
use super::start::StartOptions;
use crate::cli::RunArgs;
use crate::clock::{Clock, Moment};
use crate::fleet::{DeviceState, Fleet};
use crate::process::own_usage;
use crate::progress::{Display, Goal, show};
use crate::report::{DeviceResult, PayloadKind, Report, RunFacts};
use crate::seed::Seed;
use crate::swarm::{DeviceEnd, SwarmPlan, run_device};

/// What to run.
#[derive(Debug)]
pub struct Conduct<'a> {
    /// The image to release.
    pub image: bytes::Bytes,
    /// How many devices.
    pub devices: u32,
    /// What they run before; nothing where nothing is said.
    pub start: Option<StartOptions>,
    /// Cuts of each device's link during its transfer.
    pub cuts: u32,
    /// Another broker than the service's own, and what the run is called there.
    pub guest: Option<Arc<Guest>>,
    /// A device whose medium gets one wrong bit before the images are checked.
    pub corrupt: Option<u32>,
    /// Largest message and window, in bytes of chunks, where the agent's defaults do not count.
    pub message_bytes: Option<(u64, u64)>,
    /// What all runs have in common.
    pub run: &'a RunArgs,
}

/// Largest packet that a device takes: 64 KiB of chunks and their headers.
const PACKET_BYTES_MAX: usize = 80 * 1024;
/// Longest silence on a connection before a ping, in virtual time.
const KEEP_ALIVE: Duration = Duration::from_secs(600);
/// Real time between two wakes of a device whose link is the bottleneck.
const WAKE_EVERY: Duration = Duration::from_millis(50);
/// What a device is told of a link that does not fail by itself.
const NO_LOSSES_S: u64 = 30 * 24 * 3600;

/// Runs it, from making keys to reading the last image back. However it ends, the service has ended, its folder is
/// gone, and another broker keeps nothing of it.
///
/// # Errors
/// What kept it from running, or what is left at the broker. What became of the devices is in the report.
pub async fn conduct(conduct: Conduct<'_>) -> anyhow::Result<Report> {
    let (guest, devices) = (conduct.guest.clone(), conduct.devices);
    let (report, left) = until_interrupted(run(conduct), guest.as_deref(), devices).await?;
    left.map_or(Ok(report), |left| Err(left.into()))
}

async fn run(conduct: Conduct<'_>) -> anyhow::Result<Report> {
    let profile = conduct.run.profile()?;
    let seed = match conduct.run.seed {
        Some(seed) => seed,
        None => Seed::fresh().context("the system gives no random number")?,
    };
    let losses_s = profile.mean_time_between_losses().map_or(NO_LOSSES_S, |mean| mean.as_secs());
    let options = RolloutOptions {
        image: conduct.image.clone(),
        devices: conduct.devices,
        registered: conduct.devices,
        limits: String::new(),
        start: conduct.start.clone(),
        seed,
        guest: conduct.guest.clone(),
        mean_time_between_losses_s: losses_s,
        spread_s: 0,
    };
    let mut rollout = Rollout::start(options, whimbrel_publisher::clock::now()).await?;
    // Where the cuts of a device are planned, it must get that far: those that get a patch do not get further.
    let shortest = rollout.patch_bytes.unwrap_or(rollout.transfer_bytes);
    let outages = conduct.run.outages(&profile, conduct.cuts, shortest);
    let give_up = conduct.run.give_up_after(&profile, rollout.transfer_bytes, conduct.devices);
    let clock = Clock::start(conduct.run.time_scale);
    let profile = Arc::new(profile);
    let plan = Arc::new(SwarmPlan {
        devices: conduct.devices,
        broker: rollout.broker,
        profile: profile.clone(),
        outages,
        seed,
        start_within: conduct.run.start_within(conduct.devices),
        give_up_at: Moment::START + give_up,
        keep_alive: KEEP_ALIVE,
        packet_bytes_max: PACKET_BYTES_MAX,
        classify,
        wake_every: WAKE_EVERY,
    });
    let fleet = Arc::new(Fleet::new(conduct.devices));
    let mut facts = rollout.facts.clone();
    facts.message_bytes = conduct.message_bytes;
    let facts = Arc::new(facts);
    let mut tasks = JoinSet::new();
    for number in 0..conduct.devices {
        let device = UpdatingDevice::new(facts.clone(), number)?;
        let identity = rollout.identity(number);
        tasks.spawn(run_device(number, identity, device, plan.clone(), clock.clone(), fleet.clone()));
    }
    // What the service did before the devices came is not theirs.
    let before = rollout.service.usage()?;
    let goal = Goal { devices: conduct.devices, total_bytes: rollout.total_bytes(conduct.devices) };
    let display = if conduct.run.quiet { Display::Quiet } else { Display::fitting() };
    let ends = {
        let progress = tokio::spawn(show(fleet.clone(), goal, clock.clone(), display));
        let ends = tokio::select! {
            ends = collect(&mut tasks) => ends,
            error = rollout.service.ended() => Err(error.into()),
        };
        progress.abort();
        ends?
    };
    let elapsed = clock.real_elapsed();
    let service = rollout.service.usage().ok().map(|usage| {
        let cpu = usage.cpu.saturating_sub(before.cpu);
        crate::process::Usage { cpu, ..usage }
    });
    let results = check(ends, &rollout, conduct.corrupt).await?;
    let counts = fleet.counts();
    let facts = RunFacts {
        profile: (*profile).clone(),
        outages: conduct.run.outages_in_words(conduct.cuts),
        seed,
        time_scale: conduct.run.time_scale.get(),
        image_bytes: rollout.image_bytes,
        transfer_bytes: rollout.transfer_bytes,
        patch_bytes: rollout.patch_bytes,
        elapsed,
        simulator: own_usage().context("cannot read this process's figures")?,
        service,
        troubles: counts.troubles,
        last_trouble: counts.last_trouble,
    };
    let results: Vec<DeviceResult> = results.into_values().collect();
    let report = Report::new(facts, &results);
    rollout.stop().await?;
    Ok(report)
}

type End = DeviceEnd<UpdatingDevice>;

async fn collect(tasks: &mut JoinSet<End>) -> anyhow::Result<Vec<End>> {
    let mut ends = Vec::with_capacity(tasks.len());
    while let Some(end) = tasks.join_next().await {
        ends.push(end.context("a device's task failed")?);
    }
    Ok(ends)
}

/// Reads the image of every device back from its medium and hashes it.
async fn check(
    ends: Vec<End>,
    rollout: &Rollout,
    corrupt: Option<u32>,
) -> anyhow::Result<BTreeMap<u32, DeviceResult>> {
    let (size, want) = (rollout.image_bytes, rollout.image_sha256);
    let halves = ends.len().div_ceil(2).max(1);
    let mut results = BTreeMap::new();
    let mut ends = ends.into_iter();
    let mut work = JoinSet::new();
    for _ in 0..2 {
        let part: Vec<End> = ends.by_ref().take(halves).collect();
        work.spawn_blocking(move || {
            part.into_iter().map(|end| (end.number, judge(end, size, want, corrupt))).collect::<Vec<_>>()
        });
    }
    while let Some(part) = work.join_next().await {
        results.extend(part.context("reading the images back failed")?);
    }
    Ok(results)
}

fn judge(mut end: End, size: u64, want: [u8; 32], corrupt: Option<u32>) -> DeviceResult {
    if corrupt == Some(end.number) {
        // One bit in the middle of one chunk, as a worn-out flash cell would.
        let area = end.machine.running().area();
        end.machine.disk_mut().flip(area, size / 2 * 8 + 3);
    }
    let confirmed = end.state == DeviceState::Confirmed;
    let image_is_right = confirmed.then(|| end.machine.hash_running(size).is_ok_and(|hash| hash == want));
    DeviceResult {
        state: end.state,
        ledger: end.ledger,
        image_is_right,
        came_by: end.machine.came_by(),
        patch_bytes: end.machine.fetched(PayloadKind::Patch),
        full_bytes: end.machine.fetched(PayloadKind::Full),
        took: end.ended.since(end.began),
    }
}

//! How much of the router's speed the service keeps: chunks per processor second, beside the same router pushing
//! the same bytes with no logic of ours.
//!
//! Both sides are child processes of this program and serve the same number of devices of this program, on
//! unshaped links, with the same message size and window. What is compared is the children's processor time.

mod baseline;
mod puller;

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use tokio::task::JoinSet;

pub use baseline::main_from_args as baseline_main;
use puller::Puller;

use crate::child::{Child, ChildOptions, Interrupts, own_command};
use crate::cli::{Cli, Command, ServeArgs};
use crate::clock::{Clock, Moment};
use crate::fleet::Fleet;
use crate::outage::Outages;
use crate::profile::Profiles;
use crate::seed::{Draws, Seed, Stream};
use crate::swarm::{Identity, SwarmPlan, run_device};
use crate::update::{Conduct, ServiceReady, classify, conduct, device_id};

/// One measurement of one side.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Side {
    /// Payload bytes that reached the devices.
    pub bytes: u64,
    /// Messages that carried them.
    pub messages: u64,
    /// Processor seconds of the child, from when the devices began.
    pub cpu_s: f64,
    /// Seconds from the first device's start to the last one's end.
    pub elapsed_s: f64,
}

/// Bytes that a chunk has here.
const CHUNK_BYTES: u64 = 4096;

impl Side {
    /// Chunks of 4 KiB per processor second.
    #[must_use]
    pub fn chunks_per_cpu_s(&self) -> f64 {
        (self.bytes / CHUNK_BYTES) as f64 / self.cpu_s.max(0.01)
    }
}

/// Several measurements of both sides, in turn.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Devices at once.
    pub devices: u32,
    /// Payload bytes of one device.
    pub image_bytes: u64,
    /// Payload bytes of one message.
    pub message_bytes: u64,
    /// Payload bytes that may be under way to one device.
    pub window_bytes: u64,
    /// The service embedded in the router.
    pub service: Vec<Side>,
    /// The router alone.
    pub router: Vec<Side>,
    /// Service over router, in chunks per processor second: the median of the pairs.
    pub ratio: f64,
}

/// Runs both sides in turn.
///
/// # Errors
/// What kept either from running to its end.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<Comparison> {
    let image = random_image(args.image_bytes, 1);
    let mut comparison = Comparison {
        devices: args.devices,
        image_bytes: args.image_bytes,
        message_bytes: args.message_bytes,
        window_bytes: args.window_bytes,
        service: Vec::new(),
        router: Vec::new(),
        ratio: 0.0,
    };
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}: the service", args.rounds);
        comparison.service.push(with_service(args, &image).await?);
        eprintln!("round {round} of {}: the router alone", args.rounds);
        comparison.router.push(with_router(args).await?);
    }
    let pairs = comparison.service.iter().zip(&comparison.router);
    let mut ratios: Vec<f64> =
        pairs.map(|(service, router)| service.chunks_per_cpu_s() / router.chunks_per_cpu_s()).collect();
    ratios.sort_by(f64::total_cmp);
    comparison.ratio = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    Ok(comparison)
}

/// Bytes that nothing compresses, the same in every run; another image for another number.
pub(crate) fn random_image(len: u64, number: u64) -> Bytes {
    let mut draws = Draws::new(Seed(number), 0, Stream::Start);
    let words = len.div_ceil(8);
    let mut image: Vec<u8> = (0..words).flat_map(|_| draws.word().to_le_bytes()).collect();
    image.truncate(usize::try_from(len).unwrap_or(usize::MAX));
    image.into()
}

async fn with_service(args: &ServeArgs, image: &Bytes) -> anyhow::Result<Side> {
    let words = ["whimbrel-sim", "swarm", "--image", "-", "--profile", "unshaped", "--quiet", "--seed", "1"];
    let Command::Swarm(swarm) = Cli::of(words)?.command else { anyhow::bail!("these words are a swarm's") };
    let report = conduct(Conduct {
        image: image.clone(),
        devices: args.devices,
        start: None,
        cuts: 0,
        guest: None,
        corrupt: None,
        message_bytes: Some((args.message_bytes, args.window_bytes)),
        run: &swarm.run,
    })
    .await?;
    anyhow::ensure!(report.objections().is_empty(), "the run went wrong: {:?}", report.objections());
    Ok(Side {
        bytes: report.chunk_bytes,
        messages: report.data_messages,
        cpu_s: report.service_cpu_s.context("the service was ours to watch")?,
        elapsed_s: report.elapsed_s,
    })
}

async fn with_router(args: &ServeArgs) -> anyhow::Result<Side> {
    let mut interrupts = Interrupts::catch().context("cannot wait for Ctrl-C")?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut command = own_command("baseline").context("cannot find this program")?;
    command.args([args.image_bytes.to_string(), args.message_bytes.to_string()]);
    let options = ChildOptions {
        name: "router",
        log: folder.path().join("router.log"),
        ready_within: Duration::from_secs(60),
        stop_within: Duration::from_secs(5),
    };
    let (mut child, ready): (Child, ServiceReady) = Child::start(command, options).await?;
    let clock = Clock::start(core::num::NonZeroU32::MIN);
    let profile = Profiles::builtin().named("unshaped")?.clone();
    let plan = Arc::new(SwarmPlan {
        devices: args.devices,
        broker: ready.mqtt.context("the router has an address")?,
        profile: Arc::new(profile),
        outages: Outages::NONE,
        seed: Seed(1),
        start_within: Duration::from_secs(1).max(Duration::from_millis(2) * args.devices),
        give_up_at: Moment::START + Duration::from_secs(600),
        keep_alive: Duration::from_secs(600),
        packet_bytes_max: 80 * 1024,
        classify,
        wake_every: Duration::from_millis(50),
    });
    let fleet = Arc::new(Fleet::new(args.devices));
    let before = child.usage()?;
    let mut tasks = JoinSet::new();
    let messages = args.image_bytes.div_ceil(args.message_bytes);
    for number in 0..args.devices {
        let device = Puller::new(device_id(number), messages, args.window_bytes / args.message_bytes);
        let identity = Identity { client_id: device_id(number).to_string(), login: None };
        tasks.spawn(run_device(number, identity, device, plan.clone(), clock.clone(), fleet.clone()));
    }
    let mut side = Side { bytes: 0, messages: 0, cpu_s: 0.0, elapsed_s: 0.0 };
    let all = async {
        while let Some(end) = tasks.join_next().await {
            let end = end.context("a device's task failed")?;
            anyhow::ensure!(end.finished, "device {} did not get everything", end.number);
            side.messages += end.machine.received();
            side.bytes += end.machine.received() * args.message_bytes;
        }
        Ok(())
    };
    tokio::select! {
        done = all => done?,
        error = child.ended() => return Err(error.into()),
        () = interrupts.next() => anyhow::bail!("interrupted; nothing is left behind"),
    }
    side.elapsed_s = clock.real_elapsed().as_secs_f64();
    side.cpu_s = (child.usage()?.cpu - before.cpu).as_secs_f64();
    child.stop().await?;
    Ok(side)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} devices, {} bytes each, messages of {} bytes, window of {} bytes",
            self.devices, self.image_bytes, self.message_bytes, self.window_bytes
        )?;
        writeln!(
            f,
            "{:<9}{:>12}{:>12}{:>10}{:>11}{:>16}",
            "", "bytes", "messages", "CPU s", "elapsed s", "chunks/CPU s"
        )?;
        for (name, sides) in [("service", &self.service), ("router", &self.router)] {
            for side in sides {
                let Side { bytes, messages, cpu_s, elapsed_s } = side;
                let rate = side.chunks_per_cpu_s();
                writeln!(f, "{name:<9}{bytes:>12}{messages:>12}{cpu_s:>10.2}{elapsed_s:>11.2}{rate:>16.0}")?;
            }
        }
        writeln!(
            f,
            "the service keeps {:.0} % of the router's speed (median of the pairs)",
            self.ratio * 100.0
        )
    }
}

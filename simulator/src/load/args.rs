//! What `bench-updates` is told.

use clap::Args;

use crate::broker::BrokerAddress;
use crate::seed::Seed;

/// Measures what whole small updates cost the service, from hello to the acknowledged report.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  whimbrel-sim bench-updates
  whimbrel-sim bench-updates --devices 3000 --registered 100000 --rate 300 --json
  whimbrel-sim bench-updates --devices 1000 --broker mqtt://127.0.0.1:1884

The devices stay connected after their update, as a fleet does. The service's processor time counts from
the first device's start to the last one's acknowledged report. The exit status is 1 if a device did not
confirm.")]
pub struct UpdatesArgs {
    /// How many devices connect and update.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub devices: u32,
    /// How many devices the service knows, at least those that connect; by default just these.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub registered: Option<u32>,
    /// So many devices begin in a second; by default as many as --at-once allows.
    #[arg(long, value_name = "N", conflicts_with = "at_once", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: Option<u32>,
    /// So many devices update at once: another begins when one has ended.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub at_once: u32,
    /// Bytes of the image.
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    pub image_bytes: u64,
    /// Lets devices and service meet at this broker, instead of one that the service brings.
    #[arg(long, value_name = "mqtt://[USER:PASSWORD@]HOST[:PORT]")]
    pub broker: Option<BrokerAddress>,
    /// Publishes one release after the other until so many seconds have passed; by default there is one.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=864_000))]
    pub seconds: u32,
    /// Over so many seconds the devices begin each release after the first.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub spread: u64,
    /// So many registered devices beside these misbehave, each in another way: flood, connect storm, replay, wrong key,
    /// oversized, slow.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub misbehaving: u32,
    /// Gives up what is not finished so many seconds after the last device should have begun.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub give_up_after: u32,
    /// Draws jitter and starts from this number, decimal or 0x...; by default a new one, which is printed.
    #[arg(long, value_name = "N")]
    pub seed: Option<Seed>,
    /// Prints the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Shows no progress.
    #[arg(long, short)]
    pub quiet: bool,
}

impl UpdatesArgs {
    /// Devices that the service knows.
    #[must_use]
    pub fn registered(&self) -> u32 {
        self.registered.unwrap_or(0).max(self.devices + self.misbehaving)
    }
}

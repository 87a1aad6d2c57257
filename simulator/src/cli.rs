//! What people type: flags, their ranges and their help.

use core::num::NonZeroU32;
use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use whimbrel_protocol::ids::Prefix;
use whimbrel_settings::complaint;

use crate::broker::BrokerAddress;
use crate::error::ProfileError;
use crate::load::UpdatesArgs;
use crate::outage::Outages;
use crate::profile::{Profile, Profiles};
use crate::seed::Seed;

const EXAMPLES: &str = "\
Examples:
  whimbrel-sim demo
  whimbrel-sim swarm --devices 1000 --profile ltem --image firmware.bin --json
  whimbrel-sim profiles";

/// Updates a fleet of virtual devices over simulated bad links, through a real MQTT broker.
#[derive(Debug, Parser)]
#[command(name = "whimbrel-sim", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What the service that it starts writes to its log, of which the last lines are shown if it ends early: off, error,
    /// warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL", env = "WHIMBREL_LOG")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the simulator can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Updates a fleet on bad links, from making the keys to reading the last image back.
    Demo(DemoArgs),
    /// Updates many devices and reports every byte.
    Swarm(SwarmArgs),
    /// The update service, as this program starts it for itself.
    #[command(hide = true, disable_help_flag = true)]
    Service {
        /// What `whimbreld` takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Compares the service with the router alone: chunks per processor second.
    BenchServe(ServeArgs),
    /// Measures what whole small updates cost the service, from hello to the acknowledged report.
    BenchUpdates(UpdatesArgs),
    /// The router alone, as this program starts it for itself.
    #[command(hide = true)]
    Baseline {
        /// The message size.
        args: Vec<std::ffi::OsString>,
    },
    /// Clients that misbehave, as this program starts them for itself.
    #[command(hide = true)]
    Misbehave {
        /// What they are told, as JSON.
        plan: String,
    },
    /// Lists the link profiles: what the networks are like, and where the figures are from.
    Profiles(ProfilesArgs),
}

/// The whole thing in one command: keys, a release, the service, devices on bad links, and a table at the end.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  whimbrel-sim demo
  whimbrel-sim demo --image firmware.bin --profile nbiot-ce0 --time-scale 20
  whimbrel-sim demo --devices 1000 --cuts-per-device 3 --seed 7

The exit status is 0 when every device has confirmed the new image and the image read back from each
device's medium is the one released, and 1 otherwise.")]
pub struct DemoArgs {
    /// How many devices take part.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=DEVICES_MAX))]
    pub devices: u32,
    /// The image to release; by default the first MiB of this program.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// How often the link of each device is cut during its transfer, for 1 to 5 s each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=CUTS_MAX))]
    pub cuts_per_device: u32,
    /// What the run is like.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Updates many devices and reports every byte, through the service's own broker or any other.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  whimbrel-sim swarm --devices 1000 --profile ltem --image firmware.bin --cuts-per-device 3 --json
  whimbrel-sim swarm --devices 100 --profile nbiot-ce0 --image firmware.bin --time-scale 20 --outages profile
  whimbrel-sim swarm --devices 500 --profile wifi --image firmware.bin --broker mqtt://load:secret@broker.local
  whimbrel-sim swarm --devices 200 --image new.bin --base old.bin --unknown-percent 10 --flipped-percent 5

Beside another broker a run has a prefix and client ids of its own, and clears at its end, and at Ctrl-C,
what the broker keeps of it.

Cuts are placed by bytes, anywhere in the transfer, so that each device has exactly its number of them.
The same seed draws the same links and the same cuts; how a run goes also depends on the machine.")]
pub struct SwarmArgs {
    /// How many devices take part.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=DEVICES_MAX))]
    pub devices: u32,
    /// The image to release.
    #[arg(long, value_name = "FILE")]
    pub image: PathBuf,
    /// What the devices run before: the release gets a patch from it. By default they run nothing.
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// How many of a hundred devices run another image than --base, which nobody knows.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "base", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub unknown_percent: u32,
    /// How many of a hundred devices run --base with one wrong bit in their slot.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "base", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub flipped_percent: u32,
    /// How often the link of each device is cut during its transfer, for 1 to 5 s each.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=CUTS_MAX))]
    pub cuts_per_device: u32,
    /// Lets devices and service meet at this broker, instead of one that the service brings.
    #[arg(long, value_name = "mqtt://[USER:PASSWORD@]HOST[:PORT]")]
    pub broker: Option<BrokerAddress>,
    /// First level of all topics at that broker, where its rules allow only some. By default one that nobody else uses.
    #[arg(long, value_name = "NAME", requires = "broker")]
    pub prefix: Option<Prefix>,
    /// Flips a bit in one chunk on one device's medium before the images are checked; the run must then fail.
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, require_equals = true)]
    pub corrupt_chunk: Option<Option<u32>>,
    /// What the run is like.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What all runs have in common.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What the links are like: a name that `whimbrel-sim profiles` lists.
    #[arg(long, value_name = "NAME", default_value = "ltem")]
    pub profile: String,
    /// Takes the link profiles from this file; `profiles --toml` prints one to begin with.
    #[arg(long, value_name = "FILE")]
    pub profiles: Option<PathBuf>,
    /// What cuts the links: planned cuts within the transfer, or the profile's own comings and goings.
    #[arg(long, value_enum, default_value_t = OutageKind::Planned, conflicts_with = "cuts_per_device")]
    pub outages: OutageKind,
    /// Runs the links this many times faster, and lets the devices see unscaled time.
    #[arg(long, value_name = "S", default_value = "1", value_parser = time_scale)]
    pub time_scale: NonZeroU32,
    /// Draws links, cuts and jitter from this number, decimal or 0x...; by default a new one, which is printed.
    #[arg(long, value_name = "N")]
    pub seed: Option<Seed>,
    /// Devices come on within this many seconds; by default 1 s for each 500 of them.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub start_within: Option<u32>,
    /// Gives up what is not finished after this many seconds; by default four times what the slowest link needs, and
    /// ten minutes.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub give_up_after: Option<u32>,
    /// Prints the result as one JSON object on standard output, instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Shows no progress.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Measures how much of the router's speed the service keeps.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  whimbrel-sim bench-serve
  whimbrel-sim bench-serve --devices 200 --rounds 1 --json")]
pub struct ServeArgs {
    /// How many devices fetch at once.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=DEVICES_MAX))]
    pub devices: u32,
    /// Bytes that each of them fetches.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(65_536..=1 << 30))]
    pub image_bytes: u64,
    /// Bytes of chunks in a message.
    #[arg(long, value_name = "BYTES", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(4096..=32_768))]
    pub message_bytes: u64,
    /// Bytes of chunks that may be under way to a device.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(8192..=65_536))]
    pub window_bytes: u64,
    /// How often both are measured, in turn.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Prints the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `profiles`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  whimbrel-sim profiles
  whimbrel-sim profiles --toml > profiles.toml")]
pub struct ProfilesArgs {
    /// Prints the file that the figures are in, to be changed and used with `--profiles`.
    #[arg(long)]
    pub toml: bool,
}

/// What cuts the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutageKind {
    /// As often as `--cuts-per-device` says.
    Planned,
    /// As the profile says: exponential times up and away.
    Profile,
}

impl Cli {
    /// Reads a command line of our own.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        Self::try_parse_from(words).map_err(|error| anyhow::anyhow!(one_line(&error)))
    }

    /// Reads the command line; help and version are printed, and end the program.
    ///
    /// # Errors
    /// What is wrong with it and what would be right, in one line.
    pub fn read() -> Result<Self, String> {
        Self::try_parse().map_err(|error| if error.use_stderr() { one_line(&error) } else { error.exit() })
    }
}

/// What clap says on several lines, without its headings and the usage.
fn one_line(error: &clap::Error) -> String {
    complaint::of_usage(&error.to_string())
}

impl RunArgs {
    /// The profile that the run uses.
    ///
    /// # Errors
    /// [`ProfileError`] where the file cannot be used or the name is not in it.
    pub fn profile(&self) -> Result<Profile, ProfileError> {
        let profiles = match &self.profiles {
            Some(path) => Profiles::load(path)?,
            None => Profiles::builtin(),
        };
        profiles.named(&self.profile).cloned()
    }

    /// What cuts the links of a run with this profile and transfer.
    #[must_use]
    pub fn outages(&self, profile: &Profile, cuts: u32, transfer_bytes: u64) -> Outages {
        match self.outages {
            OutageKind::Planned => Outages::Planned { cuts, transfer_bytes },
            OutageKind::Profile => Outages::by_profile(profile),
        }
    }

    /// The same in words, for the report.
    #[must_use]
    pub fn outages_in_words(&self, cuts: u32) -> String {
        match (self.outages, cuts) {
            (OutageKind::Profile, _) => "outages as in the profile".to_owned(),
            (OutageKind::Planned, 0) => "no cuts".to_owned(),
            (OutageKind::Planned, 1) => "1 cut of 1 to 5 s for each device".to_owned(),
            (OutageKind::Planned, cuts) => format!("{cuts} cuts of 1 to 5 s for each device"),
        }
    }

    /// The virtual time within which devices come on.
    #[must_use]
    pub fn start_within(&self, devices: u32) -> Duration {
        match self.start_within {
            Some(seconds) => Duration::from_secs(seconds.into()),
            // What limits it is how fast this machine opens connections, in real time.
            None => Duration::from_secs(1).max(Duration::from_millis(2) * devices) * self.time_scale.get(),
        }
    }

    /// The virtual time after which a device is given up.
    #[must_use]
    pub fn give_up_after(&self, profile: &Profile, transfer_bytes: u64, devices: u32) -> Duration {
        if let Some(seconds) = self.give_up_after {
            return Duration::from_secs(seconds.into());
        }
        let slowest_s = profile.link.as_ref().map_or(0.0, |link| {
            let bytes_s = link.down_kbit_s.p10 / 2.0 * 125.0;
            let share_up = link.connected_mean_s / (link.connected_mean_s + link.outage_mean_s);
            let share_up = if self.outages == OutageKind::Profile { share_up } else { 1.0 };
            transfer_bytes as f64 / bytes_s / share_up
        });
        let slowest = Duration::try_from_secs_f64(slowest_s * 4.0).unwrap_or(Duration::MAX);
        slowest.saturating_add(Duration::from_secs(600)).saturating_add(self.start_within(devices))
    }
}

fn time_scale(text: &str) -> Result<NonZeroU32, String> {
    match text.parse::<NonZeroU32>() {
        Ok(scale) if scale.get() <= TIME_SCALE_MAX => Ok(scale),
        _ => Err(format!("a whole number from 1 to {TIME_SCALE_MAX}")),
    }
}

const DEVICES_MAX: i64 = 50_000;
const CUTS_MAX: i64 = 100;
/// Beyond it a real millisecond, the step of our timers, is a virtual second.
const TIME_SCALE_MAX: u32 = 1000;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Swarm {
        #[command(flatten)]
        args: SwarmArgs,
    }

    #[derive(Debug, Parser)]
    struct Demo {
        #[command(flatten)]
        args: DemoArgs,
    }

    fn swarm(line: &str) -> Result<SwarmArgs, clap::Error> {
        let words = ["swarm"].into_iter().chain(line.split_whitespace());
        Swarm::try_parse_from(words).map(|parsed| parsed.args)
    }

    fn demo(line: &str) -> Result<DemoArgs, clap::Error> {
        Demo::try_parse_from(["demo"].into_iter().chain(line.split_whitespace())).map(|parsed| parsed.args)
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
        Swarm::command().debug_assert();
        Demo::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_manual_are_understood() {
        let args = swarm("--devices 1000 --profile ltem --image f.bin --cuts-per-device 3 --json").unwrap();
        assert_eq!((args.devices, args.cuts_per_device, args.run.json), (1000, 3, true));
        assert_eq!((args.run.profile().unwrap().name.as_str(), args.corrupt_chunk), ("ltem", None));
        let args =
            swarm("--image f --profile nbiot-ce0 --time-scale 20 --outages profile --seed 0x2a").unwrap();
        assert_eq!((args.run.time_scale.get(), args.run.seed), (20, Some(Seed(42))));
        assert!(matches!(args.run.outages(&args.run.profile().unwrap(), 0, 1), Outages::ByProfile { .. }));
        let args = swarm("--image f --broker mqtt://load:secret@broker.local").unwrap();
        assert_eq!(args.broker.unwrap().host, "broker.local");
        let args = swarm("--image f --broker mqtt://b --prefix load-1").unwrap();
        assert_eq!(args.prefix.unwrap().as_str(), "load-1");
        assert_eq!(swarm("--image f --corrupt-chunk").unwrap().corrupt_chunk, Some(None));
        assert_eq!(swarm("--image f --corrupt-chunk=17").unwrap().corrupt_chunk, Some(Some(17)));
        let args = demo("").unwrap();
        assert_eq!((args.devices, args.cuts_per_device, args.image), (200, 1, None));
        assert_eq!(
            demo("--devices 20 -q").unwrap().run.outages_in_words(1),
            "1 cut of 1 to 5 s for each device"
        );
    }

    #[test]
    fn wrong_flags_say_what_would_be_right() {
        for (line, hint) in [
            ("", "--image"),
            ("--image f --devices 0", "1..=50000"),
            ("--image f --time-scale 0", "from 1 to 1000"),
            ("--image f --time-scale 1.5", "from 1 to 1000"),
            ("--image f --seed x", "0x"),
            ("--image f --broker broker", "mqtt://HOST"),
            ("--image f --outages profile --cuts-per-device 3", "cannot be used with"),
            ("--image f --prefix load", "--broker"),
            ("--image f --broker mqtt://b --prefix a/b", "A-Z a-z 0-9"),
            ("--image f --outages often", "planned, profile"),
            ("--image f --unknown-percent 10", "--base"),
            ("--image f --base b --flipped-percent 101", "0..=100"),
        ] {
            let error = one_line(&swarm(line).unwrap_err());
            assert!(
                error.contains(hint) && !error.contains('\n') && !error.contains("Usage"),
                "{line}: {error}"
            );
        }
        let wrong_profile = swarm("--image f --profile 5g").unwrap().run.profile().unwrap_err().to_string();
        assert!(wrong_profile.contains("ltem"), "{wrong_profile}");
    }

    #[test]
    fn the_slowest_link_has_time_enough() {
        let args = swarm("--image f").unwrap().run;
        let profile = args.profile().unwrap();
        // p10/2 is 40 kbit/s: 5,000 bytes a second.
        let limit = args.give_up_after(&profile, 1_000_000, 1000);
        assert_eq!(limit, Duration::from_secs(4 * 200 + 600 + 2));
        let args = swarm("--image f --give-up-after 60 --start-within 7 --profile unshaped").unwrap().run;
        let profile = args.profile().unwrap();
        assert_eq!(args.give_up_after(&profile, 1_000_000, 1000), Duration::from_secs(60));
        assert_eq!(args.start_within(1000), Duration::from_secs(7));
    }
}

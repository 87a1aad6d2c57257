//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The device agent of Whimbrel: fetches signed releases over MQTT, installs them, proves their health.
#[derive(Debug, Parser)]
#[command(name = "whimbrel-agent", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Examples:
  whimbrel-agent daemon --config /etc/whimbrel/agent.toml
  whimbrel-agent status --json
  whimbrel-agent install /media/usb/r17

Exit codes: 0 done, 1 error, 2 nothing in progress, 4 reboot needed, \
    75 the daemon was told to stop and did not within 10 s.";

const PROVISION_EXAMPLES: &str = "Examples:
  whimbrel-agent provision --envelope r1/release.suit                  the image is in data/slot-a.img already
  whimbrel-agent provision --envelope r1/release.suit --image app.bin  writes it there
  whimbrel-agent provision --envelope r1/release.suit --json | jq .version";

const CONFIG_EXAMPLES: &str = "Examples:
  whimbrel-agent config show --config /etc/whimbrel/agent.toml
  whimbrel-agent config default > agent.toml
  whimbrel-agent config check --config /etc/whimbrel/agent.toml";

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The configuration file; without it ./agent.toml, where there is one
    #[arg(long, short, global = true, value_name = "FILE", env = "WHIMBREL_AGENT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, such as broker.keepalive=30s; beats environment and file
    #[arg(long, global = true, value_name = "TABLE.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// What goes to the log on standard error: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL", env = "WHIMBREL_LOG")]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the agent until it is told to stop
    #[command(after_help = "Example:\n  whimbrel-agent daemon --config /etc/whimbrel/agent.toml --log debug")]
    Daemon,
    /// Installs the signed release in a folder, without broker and service
    #[command(after_help = "Example:\n  whimbrel-agent install /media/usb/r17")]
    Install {
        /// The folder, with release.suit and the payload
        path: PathBuf,
    },
    /// Keeps the image that is on trial
    #[command(after_help = "Example:\n  whimbrel-agent commit && echo kept")]
    Commit,
    /// Gives the image that is on trial up
    #[command(after_help = "Example:\n  whimbrel-agent rollback; [ $? = 4 ] && reboot")]
    Rollback,
    /// Shows how things are
    #[command(after_help = "Examples:\n  whimbrel-agent status\n  whimbrel-agent status --json | jq .state")]
    Status {
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Says hello to the service now, and shows what is new
    #[command(after_help = "Example:\n  whimbrel-agent check")]
    Check,
    /// Says which release is in the slot that runs: for the factory, before the first start
    ///
    /// Everything is taken from the release's signed envelope, and the slot is compared with it. The device then knows
    /// version and sequence number of what it runs, and its first update can be a patch.
    #[command(after_help = PROVISION_EXAMPLES)]
    Provision {
        /// The release's signed envelope, `release.suit`
        #[arg(long, value_name = "FILE")]
        envelope: PathBuf,
        /// Also writes this image into the slot, which must be empty
        #[arg(long, value_name = "FILE")]
        image: Option<PathBuf>,
        /// Does it also on a device that has had updates or has heard from a service
        #[arg(long)]
        force: bool,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Takes the boot loader's step and prints the file of the slot to start: for boot scripts
    #[command(after_help = "Example:\n  exec \"$(whimbrel-agent boot --config /etc/whimbrel/agent.toml)\"")]
    Boot,
    /// Shows the configuration
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Every key with the value that counts, and where it comes from
    #[command(after_help = CONFIG_EXAMPLES)]
    Show {
        /// Prints one JSON array
        #[arg(long)]
        json: bool,
    },
    /// The documented configuration file with every default
    #[command(after_help = CONFIG_EXAMPLES)]
    Default,
    /// Says what is wrong with the configuration, also with the files that it names; exit code 0 if nothing is
    #[command(after_help = CONFIG_EXAMPLES)]
    Check,
}

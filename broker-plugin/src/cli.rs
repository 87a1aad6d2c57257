//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The update service of Whimbrel: serves signed releases to devices over MQTT.
///
/// Makes itself a broker for one machine, or is a client of a broker that is there.
/// `whimbrel init DIR` makes a folder with everything that it needs.
#[derive(Debug, Parser)]
#[command(name = "whimbreld", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The configuration; ./whimbrel.toml where nothing is said
    #[arg(long, short, value_name = "FILE", env = "WHIMBREL_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Set a key, as table.key=value; may stand several times
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub(crate) set: Vec<String>,
    /// What goes to the log on standard error: off, error, warn, info, debug or trace, also for parts of the program as in
    /// `info,rumqttc=debug`
    #[arg(long, value_name = "LEVEL", env = "WHIMBREL_LOG", global = true)]
    pub(crate) log: Option<String>,
    /// When ready, print one line of JSON with the addresses
    #[arg(long)]
    pub(crate) ready_json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the service is told
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// The clock by which the service signs
    #[command(after_help = "Example:\n  whimbreld clock accept --config fleet/whimbrel.toml")]
    Clock {
        #[command(subcommand)]
        what: ClockCommand,
    },
    /// The database in which the service keeps what it signed
    #[command(after_help = "Example:\n  whimbreld store accept --config fleet/whimbrel.toml")]
    Store {
        #[command(subcommand)]
        what: StoreCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Tell the service that runs here that its database is the newest there is, if it signs nothing because the database
    /// does not know of all that was signed
    #[command(after_help = "\
Example:
  whimbreld store accept --config fleet/whimbrel.toml

Put the newest copy back first: what it does not know of is forgotten. All versions go on above any that was signed, so
that devices take what comes. What was accepted stands in the log.")]
    Accept,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Tell the service that runs here that its clock is right, if it signs nothing because the clock is far ahead
    #[command(after_help = "\
Example:
  date
  whimbreld clock accept --config fleet/whimbrel.toml

Compare the date first: devices refuse whatever is older than what was signed last. What was accepted stands in the log.")]
    Accept,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key with the value that counts and where it comes from
    #[command(after_help = CONFIG_EXAMPLES)]
    Show {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print a documented configuration with every key at its default
    #[command(after_help = CONFIG_EXAMPLES)]
    Default,
    /// Say what is wrong with the configuration and with the files that it names; exit status 0 if nothing is
    #[command(after_help = CONFIG_EXAMPLES)]
    Check,
}

const EXAMPLES: &str = "Examples:
  whimbreld --config fleet/whimbrel.toml
  whimbreld --config fleet/whimbrel.toml --set broker.listen=0.0.0.0:1883
  whimbreld config show --config fleet/whimbrel.toml

Log lines go to standard error.
Exit status: 0 told to stop, 1 cannot start or go on, 70 the embedded broker died, 75 told to stop by SIGTERM or SIGINT
and not ended within 10 s.";

const CONFIG_EXAMPLES: &str = "Examples:
  whimbreld config show --config fleet/whimbrel.toml
  whimbreld config default > whimbrel.toml
  whimbreld config check --config fleet/whimbrel.toml --set broker.listen=0.0.0.0:1883";

/// The file where no other is named.
pub(crate) const CONFIG_FILE: &str = "whimbrel.toml";

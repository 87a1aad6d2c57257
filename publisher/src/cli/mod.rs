//! The command line: its words, its help, and the one line that an error is.

mod bases;
mod operate;
mod patch;
mod release;
mod told;

pub use bases::BasesFlags;
pub use operate::{
    CampaignCommand, CreateFlags, DeviceCommand, HexId, PasswordFlags, PolicyFlag, StatusFlags,
};
pub use patch::{ApplyFlags, ArchitectureFlag, DiffFlags, Jobs};
pub use release::{AttachFlags, BuildFlags, CodecFlag, ReleaseCommand, TbsFlags, Version};
pub use told::Told;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use whimbrel_protocol::cose::Algorithm;
use whimbrel_settings::complaint;

use crate::cmd;
use crate::output::plain;

const EXAMPLES: &str = "\
Examples:
  whimbrel init fleet && cd fleet
  whimbrel release build --image app.bin --version 1.4.2 --sequence 17 -o r17
  whimbrel release sign r17
  whimbrel release publish r17
  whimbrel campaign create --release r17 --group all
  whimbrel campaign status --watch";

const CONFIG_EXAMPLES: &str = "\
Examples:
  whimbrel config show
  whimbrel config default > whimbrel.toml
  whimbrel config check --config fleet/whimbrel.toml";

/// Software updates over MQTT: keys, releases, signing, campaigns, devices.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalFlags {
    /// Configuration [default: whimbrel.toml in this folder]
    #[arg(long, short, global = true, value_name = "FILE", env = crate::config::FILE_VARIABLE, hide_env_values = true, help_heading = "Common options")]
    pub config: Option<PathBuf>,
    /// Set one key, as table.key=value; beats environment and file
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = "Common options")]
    pub set: Vec<String>,
    /// The service, instead of the configuration's
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Common options")]
    pub service: Option<String>,
    /// File with the service's token, instead of the configuration's
    #[arg(long, global = true, value_name = "FILE", help_heading = "Common options")]
    pub token_file: Option<PathBuf>,
    /// What goes to standard error besides errors: off, error, warn (warnings) or info (progress too) [default: info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = Told::parse, help_heading = "Common options")]
    pub log: Option<Told>,
    /// Print one JSON object for programs; an error is one on standard error, with the member `error`
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a folder with keys for every role, root.cbor and a commented whimbrel.toml
    #[command(after_help = "Example:\n  whimbrel init fleet")]
    Init {
        /// The folder; made if need be
        folder: PathBuf,
        /// Algorithm of the keys
        #[arg(long, value_enum, default_value_t = AlgorithmFlag::Ed25519)]
        alg: AlgorithmFlag,
    },
    /// Make and show keys
    #[command(
        subcommand,
        after_help = "Examples:\n  whimbrel key new release-2.cose\n  whimbrel key show offline-keys/release.cose"
    )]
    Key(KeyCommand),
    /// Build, sign, check and publish releases
    #[command(
        subcommand,
        after_help = "\
Examples:
  whimbrel release build --image app.bin --version 1.4.2 --sequence 17 -o r17
  whimbrel release sign r17
  whimbrel release publish r17
  whimbrel release list"
    )]
    Release(ReleaseCommand),
    /// Explain any file or message of Whimbrel in words
    #[command(after_help = "\
Examples:
  whimbrel inspect r17/release.suit
  whimbrel inspect fleet/root.cbor --json
  whimbrel inspect app.patch
  mosquitto_sub -t ota/g/all -C 1 -F %x | whimbrel inspect - --root fleet/root.cbor")]
    Inspect(InspectFlags),
    /// Roll a release out, watch, abort
    #[command(
        subcommand,
        after_help = "\
Examples:
  whimbrel campaign create --release r17 --group all
  whimbrel campaign status --watch"
    )]
    Campaign(CampaignCommand),
    /// List, accept and group devices
    #[command(
        subcommand,
        after_help = "\
Examples:
  whimbrel device list --pending
  whimbrel device accept meter-17 --fingerprint 9f1c-02aa-7d3e-51b0"
    )]
    Device(DeviceCommand),
    /// Show how the service is
    #[command(after_help = "Examples:\n  whimbrel status\n  whimbrel status --json | jq .counters")]
    Status,
    /// Show the configuration
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
}

/// What to show of the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every key with the value that counts, and where it comes from
    #[command(after_help = CONFIG_EXAMPLES)]
    Show,
    /// Print the commented file that `init` writes
    #[command(after_help = CONFIG_EXAMPLES)]
    Default,
    /// Say what is wrong with the configuration; exit status 0 if nothing is
    #[command(after_help = CONFIG_EXAMPLES)]
    Check,
}

/// Keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a private key file of mode 0600
    #[command(after_help = "Example:\n  whimbrel key new release-2.cose --alg esp256")]
    New {
        /// The file; never overwritten
        file: PathBuf,
        /// Its algorithm
        #[arg(long, value_enum, default_value_t = AlgorithmFlag::Ed25519)]
        alg: AlgorithmFlag,
    },
    /// Show everything of a key but its secret
    #[command(after_help = "Example:\n  whimbrel key show offline-keys/release.cose --json")]
    Show {
        /// A private or public key: COSE_Key, or PEM or DER (PKCS#8, EC, SPKI)
        file: PathBuf,
    },
}

/// What to explain.
#[derive(Debug, Args)]
pub struct InspectFlags {
    /// A file, in bytes or in hexadecimal; `-` for standard input; the folder of a release
    pub file: PathBuf,
    /// The root that says whose signatures count [default: the configuration's]
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
}

/// Algorithms that keys are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmFlag {
    /// Ed25519
    Ed25519,
    /// ECDSA with P-256 and SHA-256, which most HSMs and cloud key services have
    Esp256,
}

impl From<AlgorithmFlag> for Algorithm {
    fn from(flag: AlgorithmFlag) -> Self {
        match flag {
            AlgorithmFlag::Ed25519 => Self::Ed25519,
            AlgorithmFlag::Esp256 => Self::Esp256,
        }
    }
}

/// Reads `args`, does what they say, and tells on standard output and standard error how it went: 0 where it
/// went well, 1 where it did not.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = args.into_iter().collect::<Vec<_>>();
    let json = complaint::asks_for_json(&args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A reader that has seen enough is no error.
            drop(error.print());
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&usage_line(&error), json),
    };
    match cmd::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&complaint::of_error(&*error), json),
    }
}

fn fail(line: &str, json: bool) -> ExitCode {
    drop(writeln!(std::io::stderr(), "{}", complaint::last_line("whimbrel", &plain(line), json)));
    ExitCode::FAILURE
}

/// clap's complaint without its usage, on one line.
fn usage_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; `--help` lists them".into();
    }
    format!("{}; `--help` shows what would be right", complaint::of_usage(&error.render().to_string()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_complaint_is_one_line() {
        for args in [
            &["whimbrel"][..],
            &["whimbrel", "nonsense"],
            &["whimbrel", "--nonsense"],
            &["whimbrel", "release", "build"],
            &["whimbrel", "init", "x", "--alg", "rsa"],
            &["whimbrel", "campaign", "create", "--release", "abcd", "--group", "a/b"],
            &["whimbrel", "device", "accept", "meter-1", "--fingerprint", "x\ny"],
        ] {
            let error = Cli::try_parse_from(args).unwrap_err();
            let line = usage_line(&error);
            assert!(!line.contains('\n') && !line.contains("Usage") && line.len() > 20, "{line}");
        }
    }
}

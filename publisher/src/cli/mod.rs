//! The command line: its words, its help, and the one line that an error is.

mod bases;
mod operate;
mod patch;
mod release;

pub use bases::BasesFlags;
pub use operate::{
    CampaignCommand, CreateFlags, DeviceCommand, HexId, PasswordFlags, PolicyFlag, StatusFlags,
};
pub use patch::{ApplyFlags, ArchitectureFlag, DiffFlags, Jobs};
pub use release::{AttachFlags, BuildFlags, CodecFlag, ReleaseCommand, TbsFlags, Version};

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use whimbrel_protocol::cose::Algorithm;

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

/// Software updates over MQTT: keys, releases, signing, campaigns, devices.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 100)]
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
    #[arg(long, global = true, value_name = "FILE", env = crate::config::FILE_VARIABLE, hide_env_values = true, help_heading = "Common options")]
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
    /// Print one JSON object for programs
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
    #[command(subcommand)]
    Key(KeyCommand),
    /// Build, sign, check and publish releases
    #[command(subcommand)]
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
    #[command(subcommand)]
    Campaign(CampaignCommand),
    /// List, accept and group devices
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Show how the service is
    Status,
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// What to show of the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every key with the value that counts, and where it comes from
    Show,
    /// Print the commented file that `init` writes
    Default,
    /// Say what is wrong with the configuration; exit status 0 if nothing is
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
    #[command(after_help = "Example:\n  whimbrel key show keys/release.cose --json")]
    Show {
        /// A private or public COSE_Key, or a public key in PEM or DER
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
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A reader that has seen enough is no error.
            drop(error.print());
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&usage_line(&error)),
    };
    match cmd::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(line: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "whimbrel: {}", plain(line)));
    ExitCode::FAILURE
}

/// clap's complaint without its usage, on one line.
fn usage_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; `--help` lists them".into();
    }
    let text = error.render().to_string();
    let complaint = text.split("\n\nUsage:").next().unwrap_or_default();
    let complaint = complaint.split("\n\nFor more information").next().unwrap_or_default();
    let words = complaint.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{words}; `--help` shows what would be right")
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

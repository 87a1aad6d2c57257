//! `whimbrel campaign ...` and `whimbrel device ...`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{DeviceId, GroupName};
use whimbrel_protocol::message::Policy;
use whimbrel_protocol::time::UnixTime;

use crate::units::{parse_duration_s, parse_time};

/// Roll a release out, watch, abort.
#[derive(Debug, Subcommand)]
pub enum CampaignCommand {
    /// Order a release for a group of devices
    #[command(after_help = "\
Examples:
  whimbrel campaign create --release r17 --group all
  whimbrel campaign create --release 4f3a --group pilots --spread 2h --not-before 2026-12-01T02:00:00Z

A new campaign of a group takes the place of the one before.")]
    Create(CreateFlags),
    /// Show how far a campaign is
    #[command(after_help = "\
Examples:
  whimbrel campaign status --watch
  whimbrel campaign status 3b9c --devices --json")]
    Status(StatusFlags),
    /// Call a campaign off; devices that run the new image keep it
    #[command(after_help = "Example:\n  whimbrel campaign abort 3b9c")]
    Abort {
        /// The campaign, or the start of its id
        id: HexId,
    },
    /// Let devices try again that failed or went back
    #[command(after_help = "Example:\n  whimbrel campaign retry 3b9c")]
    Retry {
        /// The campaign, or the start of its id
        id: HexId,
    },
    /// List the campaigns
    #[command(after_help = "Examples:\n  whimbrel campaign list\n  whimbrel campaign list --json")]
    List,
}

/// A campaign to create.
#[derive(Debug, Args)]
pub struct CreateFlags {
    /// The release: its folder, or its digest or at least 4 digits of it
    #[arg(long, value_name = "DIR|HEX")]
    pub release: String,
    /// The group of devices
    #[arg(long, default_value = "all")]
    pub group: GroupName,
    /// Let the devices start spread over this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_s, default_value = "0s")]
    pub spread: u64,
    /// When the first device may start, such as 2026-12-01T02:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub not_before: Option<UnixTime>,
    /// How the devices' own windows and confirmations count
    #[arg(long, value_enum, default_value_t = PolicyFlag::Soft)]
    pub policy: PolicyFlag,
    /// After which no device begins any more
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_s, default_value = "30d")]
    pub expires_in: u64,
    /// Withdraw every release of the class with a lower sequence number
    #[arg(long, value_name = "N")]
    pub min_sequence: Option<u64>,
    /// Among a device's groups the higher one wins
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub priority: u64,
}

/// How the devices' own windows and confirmations count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyFlag {
    /// They hold
    Soft,
    /// They are overridden; byte budgets and batteries never are
    Forced,
    /// Fetch and check, do not install
    DownloadOnly,
}

impl From<PolicyFlag> for Policy {
    fn from(flag: PolicyFlag) -> Self {
        match flag {
            PolicyFlag::Soft => Self::Soft,
            PolicyFlag::Forced => Self::Forced,
            PolicyFlag::DownloadOnly => Self::DownloadOnly,
        }
    }
}

/// Which campaign to show, and how.
#[derive(Debug, Args)]
pub struct StatusFlags {
    /// The campaign, or the start of its id [default: the latest that runs]
    pub id: Option<HexId>,
    /// Show it again until every device is done
    #[arg(long)]
    pub watch: bool,
    /// How often to look with --watch
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_s, default_value = "2s", requires = "watch")]
    pub every: u64,
    /// List the devices too
    #[arg(long)]
    pub devices: bool,
}

/// The start of an id in hexadecimal, at least 4 digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HexId(String);

impl HexId {
    /// The digits, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::str::FromStr for HexId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("4 to 64 hexadecimal digits would be right")
        }
    }
}

/// List, accept and group devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List the devices
    #[command(after_help = "\
Examples:
  whimbrel device list --pending
  whimbrel device list --json | jq -r '.devices[] | select(.version != \"1.4.2\") | .id'")]
    List {
        /// Only those that wait to be accepted
        #[arg(long)]
        pending: bool,
    },
    /// Show one device, and how it got its last image
    #[command(after_help = "Example:\n  whimbrel device show meter-17")]
    Show {
        /// The device
        id: DeviceId,
    },
    /// Accept a device whose fingerprint you have compared
    #[command(after_help = "\
Example:
  whimbrel device accept meter-17 --fingerprint 9f1c-02aa-7d3e-51b0 --group all --group pilots")]
    Accept {
        /// The device
        id: DeviceId,
        /// The fingerprint that the device itself shows (`whimbrel-agent status`)
        #[arg(long)]
        fingerprint: Fingerprint,
        /// A group; may be given again [default: all]
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<GroupName>,
    },
    /// Accept many devices whose keys are known
    #[command(after_help = "\
Example:
  whimbrel device import devices.csv

One device a line: `id,public key,class id,groups`, key and class id in hexadecimal, groups with spaces
between them. `whimbrel key show` prints a key in this form. All lines are looked at first: if one of them
cannot be taken, none is. The same list again changes nothing.")]
    Import {
        /// The file
        csv: PathBuf,
    },
    /// Give a device a new password at the embedded broker, or many devices their first one
    #[command(after_help = "\
Examples:
  whimbrel device password meter-17
  whimbrel device password meter-17 --chosen secret.txt
  whimbrel device password --import devices.csv --output passwords.csv

Passwords have 128 random bits and are shown this once; the file of passwords keeps a salted digest of each. The list
to import has an id at the start of each line, as for `device import`; devices that have a password keep it. The
service takes the change within seconds. At the device, set broker.user to its id, and broker.password-file.")]
    Password(PasswordFlags),
    /// Forget a device's key, so that it can enrol anew
    #[command(after_help = "Example:\n  whimbrel device reset meter-17")]
    Reset {
        /// The device
        id: DeviceId,
    },
    /// Put a device into these groups and no others
    #[command(after_help = "Example:\n  whimbrel device groups meter-17 all pilots")]
    Groups {
        /// The device
        id: DeviceId,
        /// Its groups
        #[arg(required = true)]
        groups: Vec<GroupName>,
    },
}

/// Whose passwords to make, and where they go.
#[derive(Debug, Args)]
pub struct PasswordFlags {
    /// The device
    #[arg(required_unless_present = "import", conflicts_with = "import")]
    pub id: Option<DeviceId>,
    /// File with a password that you have chosen, alone on one line; it is kept as argon2id
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    pub chosen: Option<PathBuf>,
    /// List of devices, an id at the start of each line
    #[arg(long, value_name = "CSV", requires = "output")]
    pub import: Option<PathBuf>,
    /// New file for the passwords of the list: `id,password`
    #[arg(long, short, value_name = "CSV", requires = "import")]
    pub output: Option<PathBuf>,
    /// The file of passwords [default: broker.passwords of the configuration]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

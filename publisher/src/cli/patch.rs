//! `whimbrel release diff` and `whimbrel release apply`

use core::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use whimbrel_protocol::patch::Architecture;

use crate::units::{parse_address, parse_size};

/// What to make a patch of, and how.
#[derive(Debug, Args)]
pub struct DiffFlags {
    /// The image that devices have: a file, or the folder of its release
    pub old: PathBuf,
    /// The image that they shall get: a file, or the folder of its release
    pub new: PathBuf,
    /// File to write the patch to; without it only the sizes are told
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Memory that a device has for decoding the patch, dictionary included: 24KiB to 16MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "256KiB")]
    pub memory: u64,
    /// Whose machine code the images hold
    #[arg(long, value_enum, value_name = "ARCH", default_value_t = ArchitectureFlag::Auto)]
    pub arch: ArchitectureFlag,
    /// Address at which the first byte of the image runs; found out where it is not given
    #[arg(long, value_name = "HEX", value_parser = parse_address)]
    pub load_address: Option<u64>,
    /// Largest dictionary of the full payload that the patch is compared with: 4KiB to 8MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1MiB")]
    pub dictionary: u64,
    /// Threads
    #[command(flatten)]
    pub jobs: Jobs,
}

/// How many threads.
#[derive(Clone, Copy, Debug, Args)]
pub struct Jobs {
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Memory that making patches and payloads may take; if it may need more, nothing is begun, and it is said what
    /// would do
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_limit: Option<u64>,
}

impl Jobs {
    /// The number that was given, else that of the processors that this process may use.
    #[must_use]
    pub fn count(self) -> usize {
        self.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
    }
}

/// Whose machine code an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArchitectureFlag {
    /// Nobody's
    None,
    /// ARM, 64 bit
    Arm64,
    /// ARM Thumb-2, as Cortex-M has it
    Thumb,
    /// ARM, 32 bit
    Arm,
    /// RISC-V, 32 and 64 bit
    Riscv,
    /// x86, 64 bit
    X86,
    /// The one that gives the smallest patch
    Auto,
}

impl ArchitectureFlag {
    /// The architecture; none where it shall be found out.
    #[must_use]
    pub fn architecture(self) -> Option<Architecture> {
        match self {
            Self::None => Some(Architecture::None),
            Self::Arm64 => Some(Architecture::Arm64),
            Self::Thumb => Some(Architecture::Thumb),
            Self::Arm => Some(Architecture::Arm),
            Self::Riscv => Some(Architecture::RiscV),
            Self::X86 => Some(Architecture::X86),
            Self::Auto => None,
        }
    }
}

/// What to apply.
#[derive(Debug, Args)]
pub struct ApplyFlags {
    /// The image that the patch was made from: a file, or the folder of its release
    pub old: PathBuf,
    /// The patch
    pub patch: PathBuf,
    /// File to write the new image to; never overwritten
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

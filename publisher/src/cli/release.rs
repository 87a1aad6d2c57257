//! `whimbrel release ...`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use whimbrel_protocol::manifest::{VersionError, parse_version};

use super::{AlgorithmFlag, ApplyFlags, ArchitectureFlag, BasesFlags, DiffFlags, InspectFlags, Jobs};
use crate::units::{parse_address, parse_size};

/// Build, sign, check and publish releases.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Make an unsigned release of an image
    #[command(after_help = "\
Examples:
  whimbrel release build --image app.bin --vendor example.com --class gateway \\
      --version 1.4.2 --sequence 17 -o r17
  whimbrel release build --image app.bin --version 1.4.2 --sequence 17 --base r15 r16 -o r17
  whimbrel release build --slot-images app.a.bin app.b.bin --version 1.5.0-rc.1 --sequence 18 -o r18

A device that runs one of the bases fetches its patch, every other the full payload. Building the same image
with the same sequence number and other bases gives another envelope of the same release.
Patches take memory while they are made: up to 5 bytes for each of the base and 1 for each of the image,
for as many patches as there are threads (--jobs). Images that are compressed have no small patches.
The same input gives the same bytes. No key is needed.")]
    Build(BuildFlags),
    /// Make a patch between two images, or tell how large it would be
    #[command(after_help = "\
Examples:
  whimbrel release diff app-1.4.1.bin app-1.4.2.bin
  whimbrel release diff r16 app-1.4.2.bin -o app.patch --json
  whimbrel release diff old.bin new.bin --memory 40KiB --arch thumb --load-address 0x08004000

Patches of a release are made by `whimbrel release build --base`.")]
    Diff(DiffFlags),
    /// Apply a patch with the decoder that devices have
    #[command(after_help = "\
Example:
  whimbrel release apply app-1.4.1.bin app.patch -o app-1.4.2.bin

The new file gets its name when its digest is the one that the patch names.")]
    Apply(ApplyFlags),
    /// Sign a release with keys that are here
    #[command(after_help = "\
Examples:
  whimbrel release sign r17
  whimbrel release sign release.suit --key /media/usb/release-1.cose --key /media/usb/release-2.cose")]
    Sign {
        /// The release's folder, or its release.suit alone
        release: PathBuf,
        /// A release key; may be given again [default: the configuration's release-keys]
        #[arg(long = "key", value_name = "FILE")]
        keys: Vec<PathBuf>,
        /// The root that has to name the keys as release keys [default: the configuration's]
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
    },
    /// Write the bytes to be signed by an HSM or on another machine
    #[command(after_help = "\
Example:
  whimbrel release tbs r17 --alg esp256 -o r17.tbs
  openssl dgst -sha256 -sign hsm.pem -out r17.sig r17.tbs
  whimbrel release attach r17 --signature r17.sig --public-key hsm.pub.pem")]
    Tbs(TbsFlags),
    /// Add a signature that was made elsewhere
    #[command(after_help = "\
Example:
  whimbrel release attach r17 --signature r17.sig --public-key hsm.pub.pem

A signature that does not match release and key is never added.")]
    Attach(AttachFlags),
    /// Check signatures, payloads and images as a device will
    #[command(after_help = "\
Examples:
  whimbrel release verify r17 --root fleet/root.cbor
  whimbrel release verify r17 --base r15 r16")]
    Verify {
        /// The release's folder
        release: PathBuf,
        /// The root that names the release keys [default: the configuration's]
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        /// An image that a patch starts from, to check that patch too: a file, or the folder of its release
        #[arg(long = "base", value_name = "OLD", num_args = 1..)]
        bases: Vec<PathBuf>,
    },
    /// Explain a release in words (the same as `whimbrel inspect`)
    #[command(after_help = "Example:\n  whimbrel release inspect r17")]
    Inspect(InspectFlags),
    /// List the releases that the service has
    #[command(after_help = "\
Examples:
  whimbrel release list
  whimbrel release list --json")]
    List,
    /// List the images that devices run and the release has no patch for
    #[command(after_help = "\
Examples:
  whimbrel release bases r17
  whimbrel release bases 4f3a --group pilots --json

A patch from one of them is made by `whimbrel release build --base IMAGE`. The new envelope keeps the
sequence number, is published beside the old one, and takes its place with a new campaign.")]
    Bases(BasesFlags),
    /// Hand a signed release to the service
    #[command(after_help = "\
Example:
  whimbrel release publish r17

Running it again is safe: only payloads that the service lacks are sent.")]
    Publish {
        /// The release's folder
        release: PathBuf,
    },
}

/// What to build.
#[derive(Debug, Args)]
pub struct BuildFlags {
    /// The image
    #[arg(long, value_name = "FILE", required_unless_present = "slot_images")]
    pub image: Option<PathBuf>,
    /// Images for slot 0 and slot 1, where code runs in place
    #[arg(long, num_args = 2, value_names = ["FILE", "FILE"], conflicts_with = "image")]
    pub slot_images: Option<Vec<PathBuf>>,
    /// Domain of the devices' maker, or its id [default: the configuration's]
    #[arg(long, value_name = "DOMAIN")]
    pub vendor: Option<String>,
    /// Class of the devices, or its id [default: the configuration's]
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// Version: X.Y.Z, and -rc.N, -beta.N or -alpha.N for a pre-release
    #[arg(long, value_name = "VERSION", value_parser = version)]
    pub version: Version,
    /// Anti-rollback counter: higher than that of every release of the class before
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: u64,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Size of a chunk: 1KiB to 64KiB [default: by the payload's size, 4KiB for most]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub chunk_size: Option<u64>,
    /// How to compress
    #[arg(long, value_enum, default_value_t = CodecFlag::Auto)]
    pub codec: CodecFlag,
    /// An image that devices run, to make a patch from: a file, or the folder of its release; up to 8
    #[arg(long = "base", value_name = "OLD", num_args = 1.., conflicts_with = "slot_images")]
    pub bases: Vec<PathBuf>,
    /// Memory that a device has for decoding a patch: 24KiB to 16MiB. Devices that have less fetch the full payload
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "256KiB")]
    pub patch_memory: u64,
    /// Whose machine code the images hold, for patches
    #[arg(long, value_enum, value_name = "ARCH", default_value_t = ArchitectureFlag::Auto)]
    pub arch: ArchitectureFlag,
    /// Address at which the first byte of the image runs, for patches; found out where it is not given
    #[arg(long, value_name = "HEX", value_parser = parse_address)]
    pub load_address: Option<u64>,
    /// Patches and payloads made at once
    #[command(flatten)]
    pub jobs: Jobs,
    /// Largest dictionary of the full payload, by the memory that devices have: 64KiB where it is scarce, up to 8MiB.
    /// They need as much and about 100KiB more to decompress. A smaller image gets a smaller one
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1MiB")]
    pub dictionary: u64,
    /// What the release is, for people
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}

/// A version, as its integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub Vec<i64>);

fn version(text: &str) -> Result<Version, VersionError> {
    parse_version(text).map(Version)
}

/// How to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CodecFlag {
    /// LZMA, and raw where that saves less than a chunk
    Auto,
    /// Not at all
    Raw,
    /// LZMA, whatever comes out
    Lzma,
}

/// What is to be signed.
#[derive(Debug, Args)]
pub struct TbsFlags {
    /// The release's folder, or its release.suit alone
    pub release: PathBuf,
    /// Algorithm of the key that will sign
    #[arg(long, value_enum)]
    pub alg: AlgorithmFlag,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// A signature that was made elsewhere.
#[derive(Debug, Args)]
pub struct AttachFlags {
    /// The release's folder, or its release.suit alone
    pub release: PathBuf,
    /// The signature: 64 raw bytes, or DER for ECDSA
    #[arg(long, value_name = "FILE")]
    pub signature: PathBuf,
    /// Public half of the key that signed: COSE_Key, PEM or DER
    #[arg(long, value_name = "FILE", required_unless_present = "key_id")]
    pub public_key: Option<PathBuf>,
    /// Or the id of a release key in the root
    #[arg(long, value_name = "HEX", conflicts_with = "public_key")]
    pub key_id: Option<String>,
    /// The root that has to name the key as a release key [default: the configuration's]
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
}

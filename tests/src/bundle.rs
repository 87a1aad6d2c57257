//! A folder with keys for every role, and releases. The real `whimbrel` makes everything in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tempfile::TempDir;
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::retry::Jitter;

use crate::process::{Finished, program, run};

/// The vendor of the devices of the tests.
pub const VENDOR: &str = "example.com";
/// The class of the devices of the tests.
pub const CLASS: &str = "gateway";

/// The folder that `whimbrel init` makes.
#[derive(Debug)]
pub struct Bundle {
    folder: TempDir,
}

/// A release that shall be made: an image, and the flags for it.
#[derive(Clone, Debug)]
pub struct Recipe<'r> {
    /// Its sequence number; the version is `1.SEQUENCE.0`.
    pub sequence: u64,
    /// The image.
    pub image: Vec<u8>,
    /// The vendor of the devices that it is for.
    pub vendor: &'r str,
    /// The class of devices that it is for.
    pub class: &'r str,
    /// The key that signs it; `None` for the bundle's release key.
    pub key: Option<PathBuf>,
    /// More flags of `whimbrel release build`.
    pub flags: &'r [&'r str],
}

impl Recipe<'_> {
    /// A release of random bytes for the usual class, sent uncompressed.
    #[must_use]
    pub fn noise(sequence: u64, len: usize) -> Self {
        let image = noise(sequence, len);
        Self { sequence, image, vendor: VENDOR, class: CLASS, key: None, flags: &["--codec", "raw"] }
    }
}

/// A release that was built and signed.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its folder.
    pub folder: PathBuf,
    /// Its digest in hexadecimal.
    pub digest: String,
    /// Its sequence number.
    pub sequence: u64,
    /// The image.
    pub image: Vec<u8>,
    /// Bytes of the payload as it is sent.
    pub transfer_size: u64,
    /// Bytes of a chunk.
    pub chunk_size: u64,
}

/// `len` bytes that cannot be compressed, different ones for each `seed`.
#[must_use]
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut jitter = Jitter::new(seed);
    let mut bytes = Vec::with_capacity(len + 4);
    while bytes.len() < len {
        let word = u32::try_from(jitter.below(1 << 32)).expect("below 2^32");
        bytes.extend(word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Bundle {
    /// Makes one.
    ///
    /// # Panics
    /// If `whimbrel init` fails.
    #[must_use]
    pub fn new() -> Self {
        let bundle = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        bundle.whimbrel(["init", "."]).good();
        bundle
    }

    /// The path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("the folder takes files");
        path
    }

    /// Runs `whimbrel` in the folder, in which it finds its configuration.
    pub fn whimbrel<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        let mut command = program("whimbrel");
        command.current_dir(self.folder.path()).args(args);
        run(command)
    }

    /// The private key of a role: `root`, `release`, `campaign` or `beacon`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn key(&self, role: &str) -> SigningKey {
        let folder = if matches!(role, "root" | "release") { "offline-keys" } else { "keys" };
        read_key(&self.path(&format!("{folder}/{role}.cose")))
    }

    /// Makes a new key file in the folder.
    ///
    /// # Panics
    /// If `whimbrel key new` fails.
    #[must_use]
    pub fn new_key(&self, name: &str) -> PathBuf {
        self.whimbrel(["key", "new", name]).good();
        self.path(name)
    }

    /// What `whimbrel key show` says of a key file.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn show_key(&self, file: &Path) -> Json {
        self.whimbrel([OsStr::new("key"), "show".as_ref(), file.as_ref(), "--json".as_ref()]).json()
    }

    /// Builds and signs a release.
    ///
    /// # Panics
    /// If `whimbrel release` fails.
    #[must_use]
    pub fn release(&self, recipe: Recipe<'_>) -> Release {
        let Recipe { sequence, image, vendor, class, key, flags } = recipe;
        let count = std::fs::read_dir(self.folder.path()).expect("the folder is there").count();
        let name = format!("r{sequence}-{count}");
        let file = self.write(&format!("{name}.bin"), &image);
        let (file, sequence_text) = (file.to_str().expect("UTF-8"), sequence.to_string());
        let version = format!("1.{sequence}.0");
        let mut build = Vec::from(["release", "build", "--image", file, "--vendor", vendor]);
        build.extend(["--class", class, "--version", &version, "--sequence", &sequence_text, "-o", &name]);
        build.extend(["--json"].iter().chain(flags));
        let built = self.whimbrel(&build).json();
        let key = key.unwrap_or_else(|| self.path("offline-keys/release.cose"));
        // In the release's own folder no root is known, so that any key signs.
        let mut sign = program("whimbrel");
        sign.current_dir(self.path(&name)).args(["release", "sign", ".", "--key"]).arg(key);
        run(sign).good();
        let number = |name: &str| {
            let value = &built["images"][0][name];
            value.as_u64().unwrap_or_else(|| panic!("{name}: {built}"))
        };
        Release {
            folder: self.path(&name),
            digest: built["release"].as_str().expect("a digest").to_owned(),
            sequence,
            transfer_size: number("transfer_size"),
            chunk_size: number("chunk_size"),
            image,
        }
    }

    /// Builds and signs a release of random bytes for the usual class, sent uncompressed.
    #[must_use]
    pub fn noise_release(&self, sequence: u64, len: usize) -> Release {
        self.release(Recipe::noise(sequence, len))
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a private key file.
///
/// # Panics
/// If it is no private key file.
#[must_use]
pub fn read_key(path: &Path) -> SigningKey {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    SigningKey::decode_file(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

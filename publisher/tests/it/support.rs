//! Runs the binary, and makes the files that it works on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::time::UnixTime;
use whimbrel_protocol::trust::{RoleKeys, Root};

/// A folder in which the binary runs.
pub(crate) struct Place {
    folder: TempDir,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A folder that `whimbrel init` has made, and in which everything runs.
    pub(crate) fn with_init() -> Self {
        let place = Self::new();
        place.run(["init", "."]).good();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a key file that only its owner may read.
    pub(crate) fn write_secret(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.write(name, bytes);
        self.set_mode(name, 0o600);
    }

    pub(crate) fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        self.path(name).metadata().unwrap().permissions().mode() & 0o777
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A command that runs the binary in this folder, with none of this machine's settings.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().args(args).output().unwrap())
    }

    /// As [`Place::run`], with `input` on standard input.
    pub(crate) fn feed<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Run {
        let file = self.write(".stdin", input);
        let input = std::fs::File::open(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        Run::of(self.command().args(args).stdin(input).output().unwrap())
    }

    /// Runs a line of shell in this folder, in which `$whimbrel` is the binary.
    pub(crate) fn shell(&self, line: &str) -> Run {
        let mut command = Command::new("sh");
        command.current_dir(self.folder.path()).env("whimbrel", env!("CARGO_BIN_EXE_whimbrel"));
        Run::of(command.args(["-c", line]).stdin(Stdio::null()).output().unwrap())
    }

    /// Every file below this folder with its bytes, folders with none.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        files_below(self.folder.path())
    }
}

pub(crate) fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() {
                files.insert(format!("{name}/"), Vec::new());
                folders.push(path);
            } else {
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks that it succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks that it succeeded and printed no warning.
    #[track_caller]
    pub(crate) fn quiet(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        self
    }

    /// Standard output as the one JSON value that it is.
    #[track_caller]
    pub(crate) fn json(self) -> Json {
        let run = self.good();
        assert_eq!(run.out.lines().count(), 1, "{run:?}");
        serde_json::from_str(&run.out).unwrap()
    }

    /// Checks that it failed with one line on standard error, nothing on standard output and status 1.
    /// Returns the line.
    #[track_caller]
    pub(crate) fn line(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{self:?}");
        let line = self.err.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {self:?}"));
        assert!(!line.contains('\n'), "{self:?}");
        if let Ok(told) = serde_json::from_str::<Json>(line) {
            // With `--json` it is an object.
            return told["error"].as_str().unwrap().into();
        }
        line.strip_prefix("whimbrel: ").unwrap_or_else(|| panic!("{self:?}")).into()
    }
}

/// The folder of real images, for tests that are run only when somebody asks for them.
pub(crate) fn patch_pairs() -> PathBuf {
    let folder = std::env::var_os("WHIMBREL_PATCH_PAIRS");
    folder
        .expect("WHIMBREL_PATCH_PAIRS names a folder that `scripts/bench-patches --fetch FOLDER` filled")
        .into()
}

/// Bytes that look random and are always the same.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// Bytes that compress to about an eighth.
pub(crate) fn text(len: usize) -> Vec<u8> {
    let words = noise(len / 8 + 1, 7);
    words.iter().flat_map(|byte| format!("word {byte:02x} ").into_bytes()).take(len).collect()
}

pub(crate) fn ed25519(seed: u8) -> SigningKey {
    SigningKey::ed25519(&[seed; 32])
}

pub(crate) fn p256(seed: u8) -> SigningKey {
    SigningKey::p256(&[seed; 32]).unwrap()
}

/// A signed root whose release role has these keys; the other roles have one fixed key each.
pub(crate) fn root(release: &[&SigningKey], threshold: usize) -> (Root, Vec<u8>) {
    let role = |threshold, keys: &[&SigningKey]| RoleKeys {
        threshold,
        epoch: 0,
        keys: keys.iter().map(|key| key.public()).collect(),
    };
    let root = Root {
        version: 1,
        issued: UnixTime::from_secs(1_790_000_000),
        expires: UnixTime::from_secs(2_090_000_000),
        roles: [
            role(1, &[&ed25519(201)]),
            role(threshold, release),
            role(1, &[&ed25519(203)]),
            role(1, &[&ed25519(204)]),
        ],
    };
    let bytes = root.sign(&[&ed25519(201)]);
    (root, bytes)
}

/// The arguments of `release build` for this image and folder.
pub(crate) fn build_args<'a>(image: &'a str, output: &'a str) -> Vec<&'a str> {
    vec![
        "release",
        "build",
        "--image",
        image,
        "--vendor",
        "meters.example",
        "--class",
        "meter-3",
        "--version",
        "1.4.2",
        "--sequence",
        "17",
        "-o",
        output,
    ]
}

//! What the program says it has made survives a power cut. The tests check the order of its system calls, as
//! strace sees them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Place, build_args, ed25519, noise, text};

/// A system call that changes or syncs what is on the medium. Paths are absolute.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// A file was made, with or without a name.
    Create {
        file: PathBuf,
        mode: u32,
    },
    Write {
        file: PathBuf,
    },
    Sync {
        file: PathBuf,
    },
    /// A file that was called `file` is called `name` now.
    Name {
        file: PathBuf,
        name: PathBuf,
    },
    MakeFolder {
        folder: PathBuf,
        mode: u32,
    },
}

/// The calls of one run, in order.
#[derive(Debug)]
struct Trace(Vec<Call>);

/// The name of the file to which results are printed.
const STDOUT: &str = "STDOUT";

impl Trace {
    /// Runs the program in `place` with a trace of its calls, and checks that it succeeds.
    fn of(place: &Place, args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let calls =
            "trace=open,openat,write,pwrite64,fsync,fdatasync,linkat,rename,renameat,renameat2,mkdir,mkdirat";
        let run = Command::new("strace")
            .args(["-f", "-y", "-s", "0", "-e", calls, "-o"])
            .arg(log.path())
            .arg(env!("CARGO_BIN_EXE_whimbrel"))
            .args(args)
            .current_dir(place.path("."))
            .stdin(Stdio::null())
            .output()
            .expect("strace is installed (scripts/test does it)");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let log = std::fs::read_to_string(log.path()).unwrap();
        let folder = place.path(".").canonicalize().unwrap();
        let mut reader = TraceReader { folder, open: BTreeMap::new(), begun: BTreeMap::new() };
        Self(log.lines().filter_map(|line| reader.line(line)).collect())
    }

    fn positions(&self, wanted: impl Fn(&Call) -> bool) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(_, call)| wanted(call)).map(|(at, _)| at).collect()
    }

    /// Finds such a sync before anything is printed.
    #[track_caller]
    fn folder_is_synced_after(&self, folder: &Path, after: usize) {
        let synced = self.positions(|call| matches!(call, Call::Sync { file } if file == folder));
        let told = self.positions(|call| *call == Call::Write { file: STDOUT.into() });
        let told = told.first().copied().unwrap_or(self.0.len());
        assert!(
            synced.iter().any(|at| *at > after && *at < told),
            "{} is not synced between call {after} and what is printed: {self:#?}",
            folder.display()
        );
    }

    /// Checks that the file with this name was synced after all of it was written and before it got its name,
    /// and the folder after that. Returns the mode that the file was made with.
    #[track_caller]
    fn file_is_durable(&self, place: &Place, name: &str) -> u32 {
        let path = place.path(".").canonicalize().unwrap().join(name);
        let named = self.positions(|call| matches!(call, Call::Name { name, .. } if *name == path));
        assert_eq!(named.len(), 1, "{name} gets its name once: {self:#?}");
        // Back through all names to the one that it was made with.
        let (mut origin, mut first) = (path.clone(), named[0]);
        while let Some(at) = self.0[..=first]
            .iter()
            .rposition(|call| matches!(call, Call::Name { name, .. } if *name == origin))
        {
            let Call::Name { file, .. } = &self.0[at] else { unreachable!("it was found as one") };
            origin.clone_from(file);
            first = at;
        }
        let written = self.positions(|call| *call == Call::Write { file: origin.clone() });
        let synced = self.positions(|call| *call == Call::Sync { file: origin.clone() });
        let last = *written.last().unwrap_or_else(|| panic!("{name} is written: {self:#?}"));
        assert!(last < first, "{name} is whole when it gets a name: {self:#?}");
        assert!(synced.iter().any(|at| *at > last && *at < first), "{name} is not synced: {self:#?}");
        self.folder_is_synced_after(path.parent().unwrap(), named[0]);
        let mode = self.0.iter().rev().find_map(|call| match call {
            Call::Create { file, mode } if *file == origin => Some(*mode),
            _ => None,
        });
        mode.unwrap_or_else(|| panic!("{name} is made: {self:#?}"))
    }

    /// Checks that the folder with this name was made, and that its parent was synced after that. Returns its
    /// mode.
    #[track_caller]
    fn folder_is_durable(&self, place: &Place, name: &str) -> u32 {
        let path = place.path(".").canonicalize().unwrap().join(name);
        let made = self.positions(|call| matches!(call, Call::MakeFolder { folder, .. } if *folder == path));
        let [made] = made[..] else { panic!("{name} is made once: {self:#?}") };
        self.folder_is_synced_after(path.parent().unwrap(), made);
        let Call::MakeFolder { mode, .. } = self.0[made] else { unreachable!("it was found as one") };
        mode
    }
}

/// Reads what strace writes.
struct TraceReader {
    folder: PathBuf,
    /// The path of each open file, by its number.
    open: BTreeMap<String, PathBuf>,
    /// The first line of each thread's call that was interrupted by calls of other threads.
    begun: BTreeMap<String, String>,
}

impl TraceReader {
    /// Joins the two lines of a call that was not over when another thread made one.
    fn line(&mut self, line: &str) -> Option<Call> {
        let (thread, rest) = line.split_once(' ')?;
        if let Some(begun) = line.strip_suffix("<unfinished ...>") {
            self.begun.insert(thread.into(), begun.into());
            return None;
        }
        match rest.trim_start().strip_prefix("<... ") {
            Some(resumed) => {
                let end = resumed.split_once(" resumed>")?.1;
                let begun = self.begun.remove(thread).unwrap_or_else(|| panic!("nothing began: {line}"));
                self.call(&(begun + end))
            }
            None => self.call(line),
        }
    }

    /// `1234 write(3</folder/#17 (deleted)>, ""..., 5) = 5`. `None` if it failed or does not matter.
    fn call(&mut self, line: &str) -> Option<Call> {
        let (head, result) = line.rsplit_once(" = ")?;
        if result.starts_with('-') {
            return None;
        }
        let (name, arguments) = head.split_once('(')?;
        let name = name.rsplit(' ').next()?;
        let arguments = arguments.trim_end().strip_suffix(')')?;
        let texts: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
        let number = |text: &str| u32::from_str_radix(text.trim(), 8).ok();
        let last = arguments.rsplit(',').next()?;
        Some(match name {
            "open" | "openat" => {
                let (number_of, path) = opened(result)?;
                self.open.insert(number_of, path.clone());
                if !arguments.contains("O_CREAT") && !arguments.contains("O_TMPFILE") {
                    return None;
                }
                Call::Create { file: path, mode: number(last)? }
            }
            "write" | "pwrite64" => {
                let (number_of, path) = opened(arguments)?;
                if number_of == "1" {
                    return Some(Call::Write { file: STDOUT.into() });
                }
                Call::Write { file: path }
            }
            "fsync" | "fdatasync" => Call::Sync { file: opened(arguments)?.1 },
            "linkat" | "rename" | "renameat" | "renameat2" => {
                let [from, to] = texts[..] else { panic!("two names: {line}") };
                let file = match from.strip_prefix("/proc/self/fd/") {
                    Some(number_of) => self.open[number_of].clone(),
                    None => self.clean(from),
                };
                Call::Name { file, name: self.clean(to) }
            }
            "mkdir" | "mkdirat" => {
                Call::MakeFolder { folder: self.clean(texts.first()?), mode: number(last)? }
            }
            _ => return None,
        })
    }

    /// Makes an absolute path without `.` in it.
    fn clean(&self, name: &str) -> PathBuf {
        self.folder.join(name).components().collect()
    }
}

/// `3</path>` at the start: the number and the path.
fn opened(text: &str) -> Option<(String, PathBuf)> {
    let (number, rest) = text.split_once('<')?;
    let path = rest.split_once('>')?.0;
    Some((number.to_owned(), PathBuf::from(path)))
}

#[test]
fn init_has_every_key_and_its_folders_on_the_medium_before_it_says_so() {
    let place = Place::new();
    let trace = Trace::of(&place, &["init", "fleet"]);
    for name in [
        "offline-keys/root.cose",
        "offline-keys/release.cose",
        "keys/campaign.cose",
        "keys/beacon.cose",
        "admin.token",
    ] {
        let mode = trace.file_is_durable(&place, &format!("fleet/{name}"));
        assert_eq!(mode, 0o600, "{name} is secret from its first byte on");
        assert_eq!(place.mode(&format!("fleet/{name}")), 0o600);
    }
    for name in ["fleet/root.cbor", "fleet/whimbrel.toml"] {
        trace.file_is_durable(&place, name);
    }
    trace.folder_is_durable(&place, "fleet");
    for folder in ["fleet/keys", "fleet/offline-keys"] {
        assert_eq!(trace.folder_is_durable(&place, folder), 0o700, "nobody else ever looks into it");
        assert_eq!(place.mode(folder), 0o700);
    }
}

#[test]
fn a_new_key_is_on_the_medium_before_it_is_shown() {
    let place = Place::new();
    let trace = Trace::of(&place, &["key", "new", "key.cose"]);
    assert_eq!(trace.file_is_durable(&place, "key.cose"), 0o600);
    assert_eq!(place.mode("key.cose"), 0o600);
}

#[test]
fn a_release_is_on_the_medium_before_it_is_shown_and_its_envelope_comes_last() {
    let place = Place::new();
    place.write("image", noise(5000, 1));
    let trace = Trace::of(&place, &build_args("image", "r"));
    trace.folder_is_durable(&place, "r");
    let files: Vec<String> =
        place.files().into_keys().filter(|name| name.starts_with("r/") && name != "r/").collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for name in &files {
        trace.file_is_durable(&place, name);
    }
    let folder = place.path("r").canonicalize().unwrap();
    let last = trace.0.iter().rev().find_map(|call| match call {
        Call::Name { name, .. } if name.starts_with(&folder) => Some(name.clone()),
        _ => None,
    });
    assert_eq!(last, Some(folder.join("release.suit")), "a folder with an envelope is a whole release");
}

#[test]
fn a_signed_envelope_is_on_the_medium_before_it_replaces_the_old_one() {
    let place = Place::new();
    place.write("image", noise(5000, 1));
    place.run(build_args("image", "r")).good();
    place.write_secret("key.cose", ed25519(1).encode_file());
    let trace = Trace::of(&place, &["release", "sign", "r", "--key", "key.cose"]);
    trace.file_is_durable(&place, "r/release.suit");
}

#[test]
fn an_image_that_a_patch_gives_is_on_the_medium_before_it_has_its_name() {
    let place = Place::new();
    place.write("old", text(5000));
    place.write("new", text(6000));
    place.run(["release", "diff", "old", "new", "-o", "patch"]).good();
    let trace = Trace::of(&place, &["release", "apply", "old", "patch", "-o", "made"]);
    trace.file_is_durable(&place, "made");
    assert_eq!(place.read("made"), text(6000));
}

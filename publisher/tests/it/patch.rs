//! `whimbrel release diff` and `whimbrel release apply`

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::patch::Header;

use crate::support::{Place, build_args, noise, text};

/// A pair of images with code in them.
fn pair(name: &str) -> [Vec<u8>; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors/patch");
    ["old", "new"].map(|kind| std::fs::read(folder.join(format!("{name}.{kind}"))).unwrap())
}

/// A folder with `old` and `new`, and the patch between them in `patch`.
fn patched([old, new]: &[Vec<u8>; 2], more: &[&str]) -> (Place, Json) {
    let place = Place::new();
    place.write("old", old);
    place.write("new", new);
    let mut args = vec!["release", "diff", "old", "new", "-o", "patch", "--json"];
    args.extend(more);
    let told = place.run(args).json();
    (place, told)
}

fn edited(mut image: Vec<u8>) -> [Vec<u8>; 2] {
    let old = image.clone();
    image.splice(image.len() / 3..image.len() / 3 + 10, b"something that was not there".iter().copied());
    [old, image]
}

const APPLY: [&str; 6] = ["release", "apply", "old", "patch", "-o", "made"];

#[test]
fn apply_makes_the_new_image_of_what_diff_wrote() {
    for images in [
        pair("small"),
        pair("medium"),
        edited(text(200_000)),
        [vec![1], vec![2]],
        [noise(70_000, 1), vec![7]],
        [vec![7], noise(70_000, 1)],
        [text(3000), text(3000)],
    ] {
        let (place, told) = patched(&images, &[]);
        assert_eq!(told["patch_bytes"], place.read("patch").len());
        let made = place.run(APPLY.into_iter().chain(["--json"])).json();
        assert!(place.read("made") == images[1]);
        assert_eq!(made["image_digest"], Digest::of(&images[1]).to_hex());
        assert_eq!(made["base_digest"], Digest::of(&images[0]).to_hex());
        // And no other file than these was made.
        assert_eq!(place.files().into_keys().collect::<Vec<_>>(), ["made", "new", "old", "patch"]);
    }
}

#[test]
fn sizes_are_told_by_method() {
    let [old, new] = pair("medium");
    let (place, told) = patched(&[old.clone(), new.clone()], &[]);
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{name} in {told}"));
    assert_eq!((number("old_bytes"), number("new_bytes")), (old.len() as u64, new.len() as u64));
    assert!((1..=256 * 1024).contains(&number("decoder_memory_bytes")));
    let modes = told["modes"].as_object().unwrap();
    assert_eq!(modes.values().map(|bytes| bytes.as_u64().unwrap()).sum::<u64>(), new.len() as u64);
    // The full payload is the one that a release would have.
    let built = place.run(build_args("new", "r").into_iter().chain(["--json"])).json();
    assert_eq!(told["full_bytes"], built["images"][0]["transfer_size"]);
    assert_eq!(told["full_estimated"], false);
    let percent = number("patch_bytes") as f64 * 100.0 / number("full_bytes") as f64;
    assert!((told["percent_of_full"].as_f64().unwrap() - percent).abs() < 0.01);
    assert!(told["seconds"].as_f64().unwrap() >= 0.0);
}

#[test]
fn without_a_file_to_write_to_only_sizes_are_told() {
    let place = Place::new();
    let [old, new] = pair("small");
    place.write("old", old);
    place.write("new", new);
    let before = place.files();
    let told = place.run(["release", "diff", "old", "new", "--json"]).json();
    assert!(told["file"].is_null() && told["patch_bytes"].as_u64().unwrap() > 0);
    assert!(place.files() == before);
}

#[test]
fn a_release_folder_stands_for_its_image() {
    for image in [text(50_000), noise(50_000, 5)] {
        let place = Place::new();
        let [old, new] = edited(image);
        place.write("old.bin", &old);
        place.write("new", &new);
        place.run(build_args("old.bin", "old")).good();
        let told = place.run(["release", "diff", "old", "new", "-o", "patch", "--json"]).json();
        assert_eq!(told["base_digest"], Digest::of(&old).to_hex());
        place.run(APPLY).quiet();
        assert!(place.read("made") == new);
    }
}

#[test]
fn threads_do_not_change_a_patch() {
    let (place, _) = patched(&pair("medium"), &["--jobs", "1"]);
    place.run(["release", "diff", "old", "new", "-o", "other", "--jobs", "3"]).good();
    assert!(place.read("patch") == place.read("other"));
}

#[test]
fn the_decoder_gets_no_more_memory_than_was_said() {
    for (flag, limit) in [("24KiB", 24 * 1024), ("40KiB", 40 * 1024), ("65536", 65_536), ("1MiB", 1 << 20)] {
        let (place, told) = patched(&pair("medium"), &["--memory", flag]);
        assert!(told["decoder_memory_bytes"].as_u64().unwrap() <= limit, "{told}");
        place.run(APPLY).quiet();
    }
}

#[test]
fn another_base_is_refused_and_both_digests_are_named() {
    let images = pair("small");
    let (place, _) = patched(&images, &[]);
    let want = Digest::of(&images[0]).to_hex();
    let mut flipped = images[0].clone();
    flipped[1234] ^= 1;
    for wrong in [flipped, images[1].clone(), images[0][1..].to_vec()] {
        place.write("old", &wrong);
        let before = place.files();
        let got = Digest::of(&wrong).to_hex();
        assert_eq!(
            place.run(APPLY).line(),
            format!(
                "old is not the base of this patch: its SHA-256 is {got}, the patch was made from {want}"
            )
        );
        assert!(place.files() == before);
    }
}

#[test]
fn a_spoilt_patch_is_one_line_and_leaves_nothing_behind() {
    let (place, _) = patched(&pair("small"), &[]);
    let good = place.read("patch");
    let (_, header_bytes) = Header::decode(&good).unwrap();
    let refused = |bad: &[u8], what: &str| {
        place.write("patch", bad);
        let before = place.files();
        let line = place.run(APPLY).line();
        assert!(place.files() == before, "{what}: {line}");
        line
    };
    for len in [0, 1, header_bytes - 1, header_bytes, header_bytes + 1, good.len() / 2, good.len() - 1] {
        // Without its last bytes a patch may still make an image, which is then not the one that it says.
        let line = refused(&good[..len], "truncated");
        assert!(line.starts_with("patch"), "{len}: {line}");
    }
    for more in [&b"x"[..], &[0], &noise(100_000, 4)] {
        let line = refused(&[&good[..], more].concat(), "trailing");
        assert!(line.starts_with("patch: the patch does not end where its image does"), "{line}");
    }
    // Behind the header: a size in it that says more than is needed, changes nothing that comes out.
    for at in (header_bytes..good.len()).step_by(good.len() / 60 + 1) {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        refused(&bad, "mutated");
    }
    refused(&noise(5000, 9), "noise");
    place.write("patch", &good);
    place.run(APPLY).quiet();
}

#[test]
fn a_header_that_asks_for_more_than_any_image_is_refused() {
    let (place, _) = patched(&pair("small"), &[]);
    let good = place.read("patch");
    let (mut header, header_bytes) = Header::decode(&good).unwrap();
    header.image.size = 1 << 60;
    place.write("patch", [&header.encode()[..], &good[header_bytes..]].concat());
    let line = place.run(APPLY).line();
    assert!(line.contains("image size has a value that is not allowed"), "{line}");
}

#[test]
fn what_is_there_is_never_overwritten() {
    let (place, _) = patched(&pair("small"), &[]);
    place.write("made", "precious");
    let before = place.files();
    assert!(place.run(APPLY).line().contains("made is there already"));
    let line = place.run(["release", "diff", "old", "new", "-o", "patch"]).line();
    assert!(line.contains("patch is there already"), "{line}");
    assert!(place.files() == before);
}

#[test]
fn each_wrong_option_is_one_line() {
    let place = Place::new();
    place.write("old", "x");
    place.write("new", "y");
    place.write("empty", "");
    let before = place.files();
    for (args, want) in [
        (&["old", "none"][..], "cannot read none"),
        (&["none", "new"], "cannot read none"),
        (&["empty", "new"], "empty has 0 bytes; an image has 1 byte to"),
        (&["old", "."], ". is no release: it lacks release.suit"),
        (&["old"], "<NEW>"),
        (&["old", "new", "--memory", "24575"], "patch memory `24575` is not 24KiB to 16MiB"),
        (&["old", "new", "--memory", "1KiB"], "patch memory `1024` is not 24KiB to 16MiB"),
        (&["old", "new", "--memory", "32MiB"], "patch memory `33554432` is not 24KiB to 16MiB"),
        (&["old", "new", "--memory", "much"], "`much` is not a size"),
        (&["old", "new", "--arch", "mips"], "possible values: none, arm64, thumb, arm, riscv, x86, auto"),
        (&["old", "new", "--load-address", "main"], "`main` is not an address in hexadecimal"),
        (&["old", "new", "--jobs", "0"], "--jobs"),
        (&["old", "new", "--dictionary", "3KiB"], "dictionary `3072` is not a power of two"),
        (&["old", "new", "-o", "missing/patch"], "cannot write missing/patch"),
    ] {
        let line = place.run(["release", "diff"].iter().chain(args)).line();
        assert!(line.contains(want), "{args:?}: {line}");
        assert!(place.files() == before);
    }
    let line = place.run(["release", "apply", "old", "new", "-o", "made"]).line();
    assert!(line.starts_with("new: no patch begins like this: "), "{line}");
}

/// The patch comes through a pipe and stops in the middle; the new image has begun by then.
#[test]
fn an_apply_that_is_ended_leaves_nothing_behind() {
    let (place, _) = patched(&[text(1000), noise(400_000, 8)], &[]);
    let patch = place.read("patch");
    let pipes = Place::new();
    assert!(Command::new("mkfifo").arg(pipes.path("patch")).status().unwrap().success());
    let before = place.files();
    for (name, number) in [("INT", 2), ("KILL", 9)] {
        let mut command = place.command();
        command.args(["release", "apply", "old"]).arg(pipes.path("patch")).args(["-o", "made"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut pipe = std::fs::OpenOptions::new().write(true).open(pipes.path("patch")).unwrap();
        // More than a pipe and the decoder's buffer hold together: part of it has been decoded.
        pipe.write_all(&patch[..300_000]).unwrap();
        assert!(place.shell(&format!("kill -{name} {}", child.id())).code == Some(0));
        assert_eq!(child.wait().unwrap().signal(), Some(number));
        let after = place.files();
        // If the file system has no files without a name, a temporary one stays.
        let names =
            |files: &std::collections::BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        if nameless_files(&place.path(".")) {
            assert!(after == before, "{:?}", names(&after));
        }
        assert!(!after.contains_key("made"));
    }
}

fn nameless_files(folder: &Path) -> bool {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR).is_ok()
}

//! Full disks, closed pipes and wrong words give one line of error and leave nothing half-written.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

use crate::http::{Answer, Server};
use crate::support::{Place, Run, build_args, ed25519, noise};

/// Runs with files limited to this many KiB, as on a disk that has no more room. The signal that comes with
/// the limit is ignored, so that writing fails with an error.
fn with_room(place: &Place, kib: u32, command: &str) -> Run {
    place.shell(&format!("trap '' XFSZ; ulimit -f {}; exec \"$whimbrel\" {command}", kib * 2))
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let place = Place::new();
    place.write("image", noise(40_000, 1));
    place.write_secret("key.cose", ed25519(1).encode_file());
    place.run(build_args("image", "r")).good();
    let before = place.files();
    let build = build_args("image", "out").join(" ");
    for (room, command) in [
        (0, "init fleet"),
        (0, "init ."),
        (1, "init fleet"),
        (0, "key new new.cose"),
        (0, "release tbs r --alg ed25519 -o tbs"),
        (0, "release sign r --key key.cose"),
        (0, &build),
        (20, &build),
    ] {
        let line = with_room(&place, room, command).line();
        assert!(line.contains("cannot write") && line.contains("File too large"), "{command}: {line}");
        assert!(place.files() == before, "{command}: {:?}", place.files().keys());
    }
    // With room again everything works, even in the place in which it failed before.
    with_room(&place, 100, &build).good();
    with_room(&place, 100, "release sign r --key key.cose").good();
    with_room(&place, 100, "init fleet").good();
}

#[test]
fn standard_output_that_is_full_is_an_error_and_one_that_was_closed_is_none() {
    let place = Place::with_init();
    let run = place.shell("\"$whimbrel\" inspect root.cbor > /dev/full");
    assert_eq!(run.code, Some(1));
    assert!(
        run.err.starts_with("whimbrel: cannot write to standard output: ") && run.err.lines().count() == 1
    );
    // The reader is gone before anything is written.
    let run =
        place.shell("{ \"$whimbrel\" inspect root.cbor; echo $? >&3; } 3>status | true; cat status >&2");
    assert_eq!((run.code, run.err.as_str()), (Some(0), "0\n"));
}

#[test]
fn a_closed_standard_error_is_no_panic() {
    let place = Place::new();
    let run = place.shell("\"$whimbrel\" inspect none 2>&-");
    assert_eq!((run.code, run.out.as_str()), (Some(1), ""));
}

#[test]
fn wrong_words_are_one_line_and_status_1() {
    let place = Place::new();
    for (args, want) in [
        (&[][..], "a command is missing"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["release"], "a command is missing"),
        (&["release", "build"], "required arguments were not provided"),
        (&["key", "new"], "required arguments were not provided"),
        (&["key", "new", "x", "--alg", "rsa"], "invalid value 'rsa'"),
        (&["inspect", "a", "b"], "unexpected argument 'b'"),
        (&["campaign", "create", "--release", "abcd", "--spread", "soon"], "`soon` is not a duration"),
        (&["campaign", "create", "--release", "abcd", "--not-before", "2026-02-30"], "is not a time"),
        (&["campaign", "create", "--release", "abcd", "--group", "a/b"], "a group name must have"),
        (&["campaign", "abort", "xyz"], "4 to 64 hexadecimal digits"),
        (&["campaign", "status", "--every", "1s"], "--watch"),
        (&["device", "accept", "meter-1"], "--fingerprint"),
        (&["device", "accept", "meter-1", "--fingerprint", "12"], "16 hexadecimal digits"),
        (&["device", "accept", "a b", "--fingerprint", "0000-0000-0000-0000"], "a device id must have"),
        (&["device", "groups", "meter-1"], "required arguments were not provided"),
    ] {
        let line = place.run(args).line();
        assert!(line.contains(want), "{args:?}: {line}");
    }
    assert!(place.files().is_empty());
}

#[test]
fn help_and_version_are_no_errors() {
    let place = Place::new();
    for args in [&["--help"][..], &["release", "build", "--help"], &["--version"]] {
        assert!(!place.run(args).quiet().out.is_empty());
    }
}

#[test]
fn a_wrong_configuration_is_named_with_its_line() {
    let place = Place::new();
    place.write("whimbrel.toml", "[publisher]\nvendor = \"example.com\"\nclas = \"gateway\"\n");
    place.write("image", "x");
    let line = place.run(build_args("image", "out").into_iter().take(14)).line();
    assert!(line.starts_with("whimbrel.toml line 3: there is no key publisher.clas; [publisher] has release-keys, vendor, class"), "{line}");
    let line = place.run(["--config", "other.toml", "status"]).line();
    assert_eq!(line, "there is no configuration file other.toml");
    assert_eq!(place.files().len(), 2);
}

#[test]
fn the_configuration_is_found_by_flag_then_by_variable_then_in_the_folder() {
    let place = Place::new();
    for name in ["here", "flag", "variable"] {
        let text = format!("[publisher]\nvendor = \"{name}.example\"\nclass = \"c\"\n");
        place.write(if name == "here" { "whimbrel.toml" } else { name }, text);
    }
    place.write("image", "x");
    let vendor = |output: &str, variable: Option<&str>, flag: Option<&str>| {
        let mut command = place.command();
        command.args(flag.iter().flat_map(|flag| ["--config", flag]));
        command.envs(variable.map(|file| ("WHIMBREL_CONFIG", file)));
        command.args([
            "release",
            "build",
            "--image",
            "image",
            "--version",
            "1.0.0",
            "--sequence",
            "1",
            "--json",
            "-o",
            output,
        ]);
        Run::of(command.output().unwrap()).json()["vendor"].clone()
    };
    assert_eq!(vendor("a", None, None), "here.example");
    assert_eq!(vendor("b", Some("variable"), None), "variable.example");
    assert_eq!(vendor("c", Some("variable"), Some("flag")), "flag.example");
}

#[test]
fn whoever_waits_for_the_service_is_told_so_without_a_terminal_too_unless_told_not_to() {
    // The service answers only after somebody was told that it takes long.
    let (told, is_told) = mpsc::channel::<()>();
    let server = Server::start(move |_| {
        is_told.recv().unwrap();
        Answer::Json(200, serde_json::json!({ "devices": [], "next": null }))
    });
    let place = Place::new();
    place.write("token", "0123456789abcdef");
    let args = ["device", "list", "--service", &server.address, "--token-file", "token"];
    let mut child = place.command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.starts_with("whimbrel: listing devices: "), "{line}");
    told.send(()).unwrap();
    assert!(child.wait().unwrap().success());
    told.send(()).unwrap();
    place.run([&args[..], &["--log", "warn"]].concat()).quiet();
}

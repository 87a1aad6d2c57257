//! The program itself.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_whimbrel-sim")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap()
}

#[test]
fn profiles_lists_what_the_networks_are_like_and_where_that_is_from() {
    let output = run(&["profiles"]);
    assert!(output.status.success());
    let listed = text(&output.stdout);
    assert!(listed.contains("ltem: down 300 kbit/s") && listed.contains("assumed"), "{listed}");
}

#[test]
fn the_profiles_that_are_printed_can_be_read_again() {
    let output = run(&["profiles", "--toml"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profiles.toml");
    std::fs::write(&file, &output.stdout).unwrap();
    let profiles = whimbrel_sim::profile::Profiles::load(&file).unwrap();
    assert!(profiles.named("nbiot-ce0").is_ok());
}

#[test]
fn a_file_of_profiles_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let missing = whimbrel_sim::profile::Profiles::load(&file).unwrap_err();
    assert!(missing.to_string().contains("mine.toml"), "{missing}");
    std::fs::write(&file, "profile = 1").unwrap();
    let wrong = whimbrel_sim::profile::Profiles::load(&file).unwrap_err();
    assert!(wrong.to_string().contains("mine.toml"), "{wrong}");
}

#[test]
fn a_wrong_command_line_gets_one_line_and_status_1() {
    for arguments in [&["fly"][..], &["profiles", "--tmol"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.starts_with("whimbrel-sim: ") && said.lines().count() == 1, "{said}");
        assert!(said.contains(arguments[arguments.len() - 1]), "{said}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for argument in ["--help", "--version"] {
        let output = run(&[argument]);
        assert!(output.status.success() && text(&output.stdout).contains("whimbrel-sim"));
    }
}

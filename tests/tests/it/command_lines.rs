//! What the command lines of all four programs have in common.

use core::cell::RefCell;

use e2e::process::{Finished, program, run};

const PROGRAMS: [&str; 4] = ["whimbrel", "whimbreld", "whimbrel-agent", "whimbrel-sim"];

fn finished(name: &str, args: &[&str]) -> Finished {
    let mut command = program(name);
    command.args(args);
    run(command)
}

/// The help of a command, and that of all its subcommands, as the help lists them.
fn helps(name: &str, words: &[String], found: &RefCell<Vec<(String, String)>>) {
    let args = words.iter().map(String::as_str).chain(["--help"]).collect::<Vec<_>>();
    let output = finished(name, &args);
    assert_eq!(output.code, Some(0), "{name} {words:?}: {output:?}");
    let subcommands = output.out.split_once("\nCommands:\n").map_or("", |(_, after)| after);
    let names = subcommands.lines().take_while(|line| !line.is_empty());
    // What is indented further goes on with the line before.
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    for subcommand in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        helps(name, &[words, &[subcommand.to_owned()]].concat(), found);
    }
    found.borrow_mut().push((format!("{name} {}", words.join(" ")), output.out));
}

#[test]
fn every_help_has_an_example() {
    let found = RefCell::default();
    for name in PROGRAMS {
        helps(name, &[], &found);
    }
    let found = found.into_inner();
    assert!(found.len() > 45, "{}", found.len());
    let without = found.iter().filter(|(_, help)| !help.contains("Example")).map(|(command, _)| command);
    assert_eq!(without.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn help_is_a_command_of_every_program() {
    for name in PROGRAMS {
        let output = finished(name, &["help"]);
        assert_eq!((output.code, output.out.contains("Examples")), (Some(0), true), "{name}: {output:?}");
    }
}

#[test]
fn every_program_takes_log_and_all_that_have_a_configuration_take_c() {
    for name in PROGRAMS {
        let help = finished(name, &["--help"]).out;
        assert!(help.contains("--log <LEVEL>"), "{name}: {help}");
        assert_eq!(help.contains("-c, --config <FILE>"), name != "whimbrel-sim", "{name}: {help}");
    }
}

#[test]
fn under_json_an_error_is_an_object_on_standard_error() {
    for (name, args) in [
        ("whimbrel", &["frobnicate"][..]),
        ("whimbrel", &["inspect", "no-such-file"]),
        ("whimbreld", &["config", "show", "-c", "no-such-file.toml"]),
        ("whimbreld", &["frobnicate"]),
        ("whimbrel-agent", &["status", "-c", "no-such-file.toml"]),
        ("whimbrel-agent", &["frobnicate"]),
        ("whimbrel-sim", &["swarm", "--image", "no-such-file"]),
        ("whimbrel-sim", &["frobnicate"]),
    ] {
        let output = finished(name, &[args, &["--json"]].concat());
        assert_eq!((output.code, output.out.as_str()), (Some(1), ""), "{name} {args:?}: {output:?}");
        let error: serde_json::Value = serde_json::from_str(&output.err).unwrap();
        let said = error["error"].as_str().unwrap();
        assert!(said.contains("frobnicate") || said.contains("no-such-file"), "{name} {args:?}: {said}");
        // Without the flag people read the same.
        let output = finished(name, args);
        assert!(output.err.contains(said) && output.err.lines().count() == 1, "{name} {args:?}: {output:?}");
    }
}

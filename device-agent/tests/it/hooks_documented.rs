//! The examples of `HOOKS.md`, run as they stand there.

use core::net::{Ipv4Addr, SocketAddrV4};
use std::fs;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use whimbrel_agent::hooks::{Edge, Moment, Verdict};
use whimbrel_protocol::message::State;

use crate::hooks::Folder;

const DOCUMENT: &str = include_str!("../../HOOKS.md");

/// The example with this name.
fn example(name: &str) -> String {
    let line = format!("\n# {name}\n");
    let blocks = DOCUMENT.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let found: Vec<_> = blocks.filter(|block| block.contains(&line)).collect();
    assert_eq!(found.len(), 1, "{name}");
    found[0].to_owned()
}

/// Runs it with something else in place of a word that is in it once: what it says.
fn run(name: &str, state: State, replace: &[(&str, &str)]) -> (Verdict, String) {
    let mut script = example(name);
    for (old, new) in replace {
        assert_eq!(script.matches(old).count(), 1, "{old} in {name}");
        script = script.replace(old, new);
    }
    let folder = Folder::new();
    folder.add_script(name, &script, 0o755);
    let answer = folder.answer(Moment { state, edge: Edge::Enter });
    (answer.verdict, answer.said)
}

#[test]
fn every_example_of_the_document_is_run_here() {
    assert_eq!(DOCUMENT.matches("```sh\n").count(), 3);
}

#[test]
fn the_documented_health_check_waits_for_its_port() {
    // A port that nobody else gets, and that does not listen yet.
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&socket).unwrap()).unwrap();
    let port = format!("'%04X' {}", address.port());
    let check = || run("Testing_Enter_10_web-server", State::Testing, &[("'%04X' 8080", &port)]);
    assert_eq!(check(), (Verdict::Later, "nothing listens on port 8080".to_owned()));
    listen(&socket, 1).unwrap();
    assert_eq!(check().0, Verdict::Good);
}

#[test]
fn the_documented_window_lets_updates_through_at_night_only() {
    for hour in 0..24 {
        let clock = format!("echo {hour:02}");
        let answer = run("Installing_Enter_10_window", State::Installing, &[("date +%H", &clock)]);
        let verdict = if (2..5).contains(&hour) { Verdict::Good } else { Verdict::Later };
        assert_eq!(answer.0, verdict, "{hour}");
    }
}

#[test]
fn the_documented_veto_holds_while_its_file_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (refused, busy) = (file("no-updates"), file("busy"));
    let replace =
        [("-e /etc/no-updates", format!("-e {refused}")), ("-e /run/pump.busy", format!("-e {busy}"))];
    let replace = replace.each_ref().map(|(old, new)| (*old, new.as_str()));
    let ask = || run("Rebooting_Enter_10_pump", State::Rebooting, &replace);
    assert_eq!(ask().0, Verdict::Good);
    fs::write(&busy, "").unwrap();
    assert_eq!(ask(), (Verdict::Later, "the pump runs".to_owned()));
    fs::write(&refused, "").unwrap();
    assert_eq!(ask(), (Verdict::Bad, "refused by /etc/no-updates".to_owned()));
}

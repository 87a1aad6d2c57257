//! The load client for whole small updates.

use std::process::{Command, Output};

use serde_json::Value as Json;

use crate::broker::Mosquitto;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_whimbrel-sim"))
        .args(["bench-updates", "--seed", "5", "-q", "--json"])
        .args(arguments)
        .output()
        .unwrap()
}

fn figures(output: &Output) -> Json {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}; {said}"))
}

fn number(figures: &Json, field: &str) -> u64 {
    figures[field].as_u64().unwrap_or_else(|| panic!("{field} in {figures}"))
}

#[test]
fn a_load_is_whole_updates_and_says_what_each_costs_the_service() {
    let output = bench(&["--devices", "6", "--registered", "300", "--at-once", "2"]);
    let figures = figures(&output);
    assert!(output.status.success(), "{figures}");
    let of = |field| number(&figures, field);
    assert_eq!((of("devices"), of("registered"), of("at_once"), of("releases")), (6, 300, 2, 1));
    assert_eq!((of("confirmed"), of("failed"), of("unfinished"), of("refused")), (6, 0, 0, 0), "{figures}");
    // A device says hello when it comes, when it starts its new image, and after its report.
    assert!(of("hellos") >= 3 * 6, "{figures}");
    for field in
        ["hello_p99_ms", "update_p50_s", "service_cpu_ms_per_update", "commits_per_update", "elapsed_s"]
    {
        assert!(figures[field].as_f64().unwrap() > 0.0, "{field} in {figures}");
    }
    assert!(of("service_peak_rss_bytes") >= of("service_rss_before_bytes"), "{figures}");
    assert_eq!(figures["broker"], "embedded");
}

#[test]
fn a_load_beside_another_broker_at_a_rate_ends_with_a_table() {
    let broker = Mosquitto::start();
    let output = Command::new(env!("CARGO_BIN_EXE_whimbrel-sim"))
        .args(["bench-updates", "--devices", "4", "--rate", "10", "--seed", "5", "-q", "--broker"])
        .arg(format!("mqtt://{}", broker.address))
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("4 confirmed, 0 failed, 0 unfinished"), "{table}");
    assert!(table.contains("10 begin in a second"), "{table}");
}

#[test]
fn clients_misbehave_in_every_way_beside_a_load() {
    let output = bench(&["--devices", "2", "--misbehaving", "6", "--give-up-after", "60"]);
    // Whether the devices bear it is what the soak asks; here the clients have to be there.
    let figures = figures(&output);
    let deeds = figures["misbehaving"].as_object().unwrap();
    let kinds: Vec<&str> = deeds.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["connect storm", "flood", "oversized", "replay", "slow", "wrong key"]);
    for (kind, deeds) in deeds {
        assert!(number(deeds, "connections") > 0, "{kind}: {figures}");
    }
}

#[test]
fn updates_that_do_not_end_are_counted_and_the_run_fails() {
    // The system takes connections for this listener, which never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = format!("mqtt://{}", silent.local_addr().unwrap());
    let output = bench(&["--devices", "2", "--give-up-after", "1", "--broker", &broker]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let figures = figures(&output);
    assert_eq!((number(&figures, "confirmed"), number(&figures, "unfinished")), (0, 2), "{figures}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("2 of 2 updates did not end in time"), "{said}");
}

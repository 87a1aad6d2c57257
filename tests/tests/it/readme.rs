//! The README's tour by hand, typed as it stands there.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// The commands of the tour.
fn tour() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, section) = readme.split_once("## Ten minutes by hand").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_tour_by_hand_works_as_written() {
    // Two things are changed: the programs are built already, and the ports are free ones.
    let programs = e2e::process::path_of("whimbrel").parent().unwrap().to_owned();
    let port = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (mqtt, admin) = (port(), port());
    let [mqtt, admin] = [mqtt, admin].map(|listener| listener.local_addr().unwrap().to_string());
    let ports = format!("sed -i 's/127.0.0.1:1883/{mqtt}/; s/127.0.0.1:7878/{admin}/' fleet/whimbrel.toml");
    let mut script = String::from("set -eu\nset -m\ntrap 'kill %2 %1 2>/dev/null || true' EXIT\n");
    for line in tour().lines().filter(|line| !line.starts_with("cargo ") && !line.starts_with("export PATH"))
    {
        script.push_str(&line.replace("127.0.0.1:1883", &mqtt));
        script.push('\n');
        if line == "whimbrel init fleet" {
            script.push_str(&ports);
            script.push('\n');
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["--kill-after=5", "170", "bash", "-c", &script])
        .env("PATH", path)
        .env("TMPDIR", folder.path())
        .env_remove("WHIMBREL_LOG")
        .output()
        .unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("slot b holds app.bin"), "{said}\n{complained}");
    assert!(said.contains("1.1.0, sequence 1, slot b"), "{said}");
}

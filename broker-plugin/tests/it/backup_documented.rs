//! The commands of `docs/backup.md`, run as they stand there.

use std::path::Path;
use std::process::Command;

use crate::service_support::{On, Service, device_key, hex_key};

const DOCUMENT: &str = include_str!("../../../docs/backup.md");

/// The commands with this name.
fn example(name: &str) -> String {
    let line = format!("# {name}\n");
    let blocks = DOCUMENT.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let found: Vec<_> = blocks.filter(|block| block.starts_with(&line)).collect();
    assert_eq!(found.len(), 1, "{name}");
    found[0].to_owned()
}

/// Runs the commands with this name after those that name the folders, with `whimbreld` told where this service
/// listens; what they print.
fn run(service: &Service, name: &str, admin: Option<&str>) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_whimbreld"));
    let set = admin.map(|admin| format!("--set service.admin={admin}")).unwrap_or_default();
    let whimbreld = format!("whimbreld() {{ {} \"$@\" {set}; }}", program.display());
    let names = example("names").replace("FLEET=fleet ", "FLEET=. ");
    let script = format!("set -eu\n{whimbreld}\n{names}\n{}", example(name));
    let ran = Command::new("sh").arg("-c").arg(script).current_dir(service.folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{name}: {said}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn every_command_of_the_page_is_run_here() {
    assert_eq!(DOCUMENT.matches("```sh\n").count(), 4);
}

#[test]
fn a_backup_that_is_made_and_restored_as_documented_brings_everything_back_and_signs_when_it_is_accepted() {
    let mut service = Service::start(On::Itself);
    let import = |service: &Service, id: &str| service.import(&[(id, &device_key(1).public())]);
    import(&service, "m1");
    let release = service.release(5_000, 5);
    service.publish(&release);
    let campaign = service.campaign(&release);
    run(&service, "backup", None);
    run(&service, "backup", None);
    // What is lost.
    import(&service, "m2");
    service.kill();
    for lost in [release.index.digest.to_hex() + ".payload", release.index.digest.to_hex() + ".index"] {
        std::fs::remove_file(service.path("data/payloads").join(lost)).unwrap();
    }
    std::fs::write(service.path("data/whimbrel.sqlite"), "no database").unwrap();

    run(&service, "restore", None);
    service.launch();
    assert!(service.device("m1").is_some() && service.device("m2").is_none());
    let id = campaign["id"].as_str().unwrap();
    assert_eq!(service.get(&format!("/v1/campaigns/{id}"))["id"], campaign["id"]);
    let releases = service.get("/v1/releases");
    assert_eq!(releases[0]["missing"].as_array().map(Vec::len), Some(0), "the payload is back: {releases}");
    assert!(service.get("/v1/status")["store"]["text"].as_str().unwrap().contains("old copy"));
    let line = format!("m2,{},{},all", hex_key(&device_key(1).public()), service.fixture.class.to_hex());
    assert!(service.refused(503, "POST", "/v1/devices/import", line.as_bytes()).contains("store accept"));

    let admin = service.url().replace("http://", "");
    assert!(run(&service, "accept", Some(&admin)).contains("the database is accepted"));
    import(&service, "m2");
    assert!(service.device("m2").is_some());
}

#[test]
fn a_downgrade_says_what_the_page_says() {
    let error = whimbrel_service::store::StoreError::Newer {
        path: "fleet/data/whimbrel.sqlite".into(),
        found: 5,
        known: 4,
    };
    assert!(DOCUMENT.contains(&format!("\n{error}\n")), "{error}");
}

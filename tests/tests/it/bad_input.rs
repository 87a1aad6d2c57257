//! Mistakes of people that concern two programs. Each gives one line on standard error that says what is wrong, and
//! exit status 1.
//!
//! Flags, files and configurations that concern one program are tested beside that program.

use e2e::agent::Agent;
use e2e::broker::free_address;
use e2e::bundle::Bundle;
use e2e::process::{program, run};
use e2e::stage::Stage;

#[test]
fn an_operators_mistakes_get_one_line_that_names_them_and_change_nothing() {
    let stage = Stage::embedded();
    let device = stage.device("meter-1");
    let release = stage.bundle.noise_release(1, 20_000);
    let unpublished = stage.bundle.noise_release(2, 20_000);
    let campaign = stage.service.roll_out(&release);
    stage.wait_until_updated(&device, &release, &campaign);
    let (before, known) = (stage.service.status(), stage.service.campaign_status(&campaign));
    let stranger = ["device", "accept", "meter-9", "--fingerprint", "0123-4567-89ab-cdef"];
    for (args, what) in [
        (&["campaign", "create", "--release", &unpublished.digest][..], "no release"),
        (&["campaign", "create", "--release", "ffffffff"], "no release"),
        (&["campaign", "status", "ffffffff"], "no campaign"),
        (&["campaign", "abort", "ffffffff"], "no campaign"),
        (&["campaign", "retry", "ffffffff"], "no campaign"),
        (&stranger, "meter-9"),
        (&["device", "reset", "meter-9"], "meter-9"),
        (&["device", "groups", "meter-9", "all"], "meter-9"),
        (&["release", "publish", "no-such-folder"], "no-such-folder"),
    ] {
        let complaint = stage.service.whimbrel(args).complaint();
        assert!(complaint.contains(what), "{args:?}: {complaint}");
    }
    let after = stage.service.status();
    for field in ["devices", "releases", "campaigns"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(stage.service.campaign_status(&campaign), known);
}

#[test]
fn a_service_that_is_not_there_or_does_not_know_the_token_is_named() {
    let stage = Stage::embedded();
    let release = stage.bundle.noise_release(1, 20_000);
    let folder = release.folder.to_str().unwrap();
    let nowhere = free_address().to_string();
    for args in [&["status"][..], &["release", "publish", folder], &["device", "list"]] {
        let complaint =
            stage.bundle.whimbrel(args.iter().copied().chain(["--service", &nowhere])).complaint();
        assert!(complaint.contains(&nowhere), "{args:?}: {complaint}");
    }
    // Another bundle has another token.
    let other = Bundle::new();
    let token = std::fs::read_dir(other.path("")).unwrap().map(|entry| entry.unwrap().path());
    let token =
        token.into_iter().find(|path| path.to_string_lossy().contains("token")).expect("init makes one");
    std::fs::copy(&token, stage.bundle.path(token.file_name().unwrap().to_str().unwrap())).unwrap();
    for args in [&["status"][..], &["release", "publish", folder]] {
        let complaint = stage.service.whimbrel(args).complaint();
        assert!(complaint.contains("refused the token"), "{args:?}: {complaint}");
    }
}

/// A device that was provisioned with the root of another maker believes nothing that it gets.
#[test]
fn an_agent_with_the_root_of_another_bundle_takes_nothing_and_counts_it() {
    let stage = Stage::embedded();
    let mut device = stage.new_device("meter-1");
    std::fs::copy(Bundle::new().path("root.cbor"), device.path("root.cbor")).unwrap();
    stage.enrol(&mut device);
    let release = stage.bundle.noise_release(1, 20_000);
    stage.service.roll_out(&release);
    let status = device.wait_for("it refuses", |status| Agent::rejected(status, "unauthentic") >= 2);
    assert_eq!(
        (&status["state"], &status["campaign"]),
        (&"idle".into(), &serde_json::Value::Null),
        "{status}"
    );
    let traffic = stage.proxy.traffic(device.id());
    assert_eq!((traffic.document_requests, traffic.chunk_requests), (0, 0));
}

#[test]
fn a_service_that_cannot_start_says_why_in_one_line() {
    let mut stage = Stage::embedded();
    let start = |bundle: &Bundle, listen: &str| {
        let mut command = program("whimbreld");
        command
            .env("WHIMBREL_LOG", "error")
            .current_dir(bundle.path(""))
            .args(["--set", "service.admin=127.0.0.1:0"]);
        command.args(["--set", &format!("broker.listen={listen}")]);
        run(command).complaint()
    };
    // A port that is taken, and a data folder that is in use.
    let taken = stage.service.mqtt().to_string();
    let complaint = start(&Bundle::new(), &taken);
    assert!(complaint.contains(&taken), "{complaint}");
    let complaint = start(&stage.bundle, "127.0.0.1:0");
    assert!(complaint.contains("data"), "{complaint}");
    // A file that is no database.
    stage.service.stop();
    let database = stage.bundle.path("data/whimbrel.sqlite");
    let garbage = vec![7; 8192];
    std::fs::write(&database, &garbage).unwrap();
    let complaint = start(&stage.bundle, "127.0.0.1:0");
    assert!(complaint.contains("whimbrel.sqlite"), "{complaint}");
    assert_eq!(std::fs::read(&database).unwrap(), garbage, "it is left as it is");
}

//! Typing mistakes that would cost silence: each is said at once, with what to do.

use serde_json::{Value as Json, json};

use crate::http::Server;
use crate::support::{Place, build_args, ed25519, root, text};

/// What the service answers, with a warning.
fn with_warning(mut answer: Json, kind: &str, text: &str) -> Json {
    answer["warnings"] = json!([{ "kind": kind, "devices": 2, "text": text }]);
    answer
}

fn campaign() -> Json {
    json!({
        "id": "3b9c0011", "group": "al", "release": "4f3a".repeat(16), "version": "1.4.2", "sequence": 17,
        "state": "active", "attempt": 1, "document_version": 3, "created": 1_790_000_000, "spread_s": 0,
        "devices": { "total": 0 }, "percent": 0, "bytes_received": 0, "bytes_twice": 0, "failures": {},
        "payloads": [],
    })
}

fn device() -> Json {
    json!({
        "id": "m1", "state": "accepted", "fingerprint": "9f1c-02aa-7d3e-51b0", "class": "60f6c6d39b3758358d32c65568458f59",
        "groups": ["pilots"], "running": null, "sequence": 0, "seen": null, "online_hint": false, "deployment": null,
    })
}

fn at(server: &Server, args: &[&str]) -> (Place, crate::support::Run) {
    let place = Place::new();
    place.write("token", "0123456789abcdef\n");
    let run = place.run([&["--service", &server.address, "--token-file", "token"], args].concat());
    (place, run)
}

#[test]
fn what_the_service_warns_of_is_printed_for_people_and_is_data_for_programs() {
    let accept = ["device", "accept", "m1", "--fingerprint", "9f1c-02aa-7d3e-51b0", "--group", "pilots"];
    let cases: [(Json, &[&str]); 4] = [
        (campaign(), &["campaign", "create", "--release", "4f3a", "--group", "al"]),
        (device(), &accept),
        (device(), &["device", "groups", "m1", "pilots"]),
        (device(), &["device", "show", "m1"]),
    ];
    for (answer, args) in cases {
        let server = Server::always(200, with_warning(answer, "empty-group", "nobody is in group al"));
        let (_, run) = at(&server, args);
        assert_eq!(run.good().err, "whimbrel: warning: nobody is in group al\n", "{args:?}");
        let (_, run) = at(&server, &[args, &["--json"]].concat());
        let warnings = run.json()["warnings"].clone();
        assert_eq!(
            warnings,
            json!([{ "kind": "empty-group", "devices": 2, "text": "nobody is in group al" }])
        );
    }
}

#[test]
fn publishing_a_downgrade_is_warned_of_with_the_count() {
    let place = Place::with_init();
    place.write("image", text(3000));
    place.run(build_args("image", "r")).good();
    place.run(["release", "sign", "r"]).quiet();
    let digest = place.run(["inspect", "r", "--json"]).json()["release"].clone();
    let stored = json!({
        "release": digest, "sequence": 17, "version": "1.4.2", "vendor": "00", "class": "00", "image_size": 1,
        "state": "complete", "missing": [],
    });
    let said = "2 of 3 devices of this class reported sequence numbers up to 20 and will refuse 17";
    let server = Server::always(200, with_warning(stored, "downgrade", said));
    let publish = ["release", "publish", "r", "--service", &server.address];
    let run = place.run(publish).good();
    assert_eq!(run.err, format!("whimbrel: warning: {said}\n"));
    let told = place.run(publish.into_iter().chain(["--json"])).json();
    assert_eq!(told["warnings"], json!([{ "kind": "downgrade", "devices": 2, "text": said }]));
}

#[test]
fn a_campaign_of_a_release_that_is_not_published_says_how_to_publish_it() {
    let server = Server::always(404, json!({ "error": "there is no release 4f3a" }));
    let (_, run) = at(&server, &["campaign", "create", "--release", "4f3a"]);
    assert_eq!(
        run.line(),
        "there is no release 4f3a: `whimbrel release publish FOLDER` hands it to the service first"
    );
    let place = Place::new();
    place.write("token", "0123456789abcdef\n");
    place.write("image", "x");
    place.run(build_args("image", "r")).good();
    let server_flags = ["--service", &server.address, "--token-file", "token"];
    let run = place.run(server_flags.into_iter().chain(["campaign", "create", "--release", "r"]));
    assert!(run.line().ends_with("`whimbrel release publish r` hands it to the service first"));
}

#[test]
fn status_says_that_nothing_is_signed_and_why() {
    let status = json!({
        "version": "0.1.0", "prefix": "ota", "attached": "embedded", "broker_up": true,
        "devices": { "accepted": 0, "pending": 0 }, "releases": 0, "campaigns": 0, "counters": {},
        "clock": { "shown": 2, "expected": 1, "text": "the clock is ahead: run `whimbreld clock accept`" },
    });
    let server = Server::always(200, status.clone());
    let (_, run) = at(&server, &["status"]);
    let line = "signing           stopped: the clock is ahead: run `whimbreld clock accept`\n";
    assert!(run.quiet().out.contains(line));
    let (_, run) = at(&server, &["status", "--json"]);
    assert_eq!(run.json(), status);
}

/// A folder with an unsigned release, a root, and keys: of the root's release keys, its campaign key, and of none.
fn keys() -> Place {
    let place = Place::new();
    place.write("image", text(3000));
    place.run(build_args("image", "r")).good();
    let (known, stranger) = (ed25519(1), ed25519(77));
    place.write("root.cbor", root(&[&known], 1).1);
    place.write_secret("release.cose", known.encode_file());
    place.write_secret("stranger.cose", stranger.encode_file());
    place
}

fn sign(place: &Place, key: &str) -> crate::support::Run {
    place.run(["release", "sign", "r", "--key", key, "--root", "root.cbor"])
}

#[test]
fn a_key_outside_the_root_signs_nothing_and_is_told_which_keys_would() {
    let place = keys();
    let before = place.files();
    let line = sign(&place, "stranger.cose").line();
    assert!(line.contains("stranger.cose holds key") && line.contains("which is not in root.cbor"), "{line}");
    assert!(line.contains(&ed25519(1).public().id().to_hex()) && line.contains("--root FILE"), "{line}");
    assert!(place.files() == before, "nothing was signed");
    // Neither does a signature of it count that was made elsewhere.
    place.write("public.cose", whimbrel_publisher::keys::public_bytes(&ed25519(77).public()));
    place.write("sig", [0; 64]);
    let attach = ["release", "attach", "r", "--signature", "sig", "--public-key", "public.cose"];
    let line = place.run(attach.into_iter().chain(["--root", "root.cbor"])).line();
    assert!(line.contains("which is not in root.cbor"), "{line}");
    sign(&place, "release.cose").quiet();
}

#[test]
fn a_key_of_another_role_signs_no_release() {
    let place = Place::with_init();
    place.write("image", text(3000));
    place.run(build_args("image", "r")).good();
    let key = place.files().into_keys().find(|name| name.ends_with("campaign.cose")).unwrap();
    let before = place.files();
    let line = place.run(["release", "sign", "r", "--key", &key]).line();
    assert!(line.contains("which is a campaign key in"), "{line}");
    assert!(place.files() == before, "nothing was signed");
}

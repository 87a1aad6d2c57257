//! The output for people on the payloads by which devices got their image, and on patches that would be worth
//! making.

use serde_json::{Value as Json, json};

use crate::http::Server;
use crate::support::{Place, Run};

/// Runs `args` against a service that gives one answer. Returns the result, and the requests that the service
/// got.
fn ask(answer: Json, args: &[&str]) -> (Run, Vec<String>) {
    let server = Server::always(200, answer);
    let place = Place::new();
    place.write("token", "0123456789abcdef\n");
    let global = ["--service", &server.address, "--token-file", "token"];
    let run = place.run([&global[..], args].concat());
    (run, server.lines())
}

fn bases() -> Json {
    json!({
        "release": "4f3a".repeat(16), "version": "1.5.0", "sequence": 18, "group": null, "full_bytes": 40_000,
        "devices": 1200, "current": 300, "later": 0, "unknown": 2,
        "patches": [{ "base": "aa".repeat(32), "version": "1.4.2", "sequence": 17, "patch_bytes": 4000, "devices": 40 }],
        "bases": [
            { "image": "bb".repeat(8), "release": "cc".repeat(32), "version": "1.4.1", "sequence": 16, "devices": 800,
              "patch_bytes": 4000, "saved_bytes": 36_000, "total_saved_bytes": 28_800_000, "estimated": true,
              "from": "the patches of the release" },
            { "image": "dd".repeat(8), "release": null, "version": null, "sequence": 0, "devices": 58,
              "patch_bytes": 555, "saved_bytes": 39_445, "total_saved_bytes": 2_287_810, "estimated": false,
              "from": "another envelope of the release" },
        ],
        "more_images": 0, "more_devices": 0, "total_saved_bytes": 31_087_810, "estimated": true,
    })
}

#[test]
fn people_see_which_base_would_save_how_much_and_what_of_it_is_an_estimate() {
    let (run, requests) = ask(bases(), &["release", "bases", "4F3A"]);
    let want = "\
release       1.5.0, sequence 18, 4f3a4f3a4f3a
full payload  40,000 bytes
devices       1,200, 300 of them run it, 2 of them did not say
patches       from 1.4.2: 4,000 bytes, 40 devices

DEVICES  RUNNING       VERSION  SEQUENCE  PATCH   SAVES EACH  SAVES ALL
800      bbbbbbbbbbbb  1.4.1    16        ~4,000  ~36,000     ~28,800,000
58       dddddddddddd  -        0         555     39,445      2,287,810
~ is an estimate, from the patches of the release
";
    assert_eq!(run.quiet().out, want);
    assert_eq!(requests, ["GET /v1/releases/4f3a/bases"]);
    let (run, requests) = ask(bases(), &["release", "bases", "4f3a", "--group", "pilots", "--json"]);
    assert_eq!(run.json(), bases());
    assert_eq!(requests, ["GET /v1/releases/4f3a/bases?group=pilots"]);
}

#[test]
fn where_nothing_tells_what_a_patch_saves_nothing_is_made_up() {
    let mut answer = bases();
    for base in answer["bases"].as_array_mut().unwrap() {
        for name in ["patch_bytes", "saved_bytes", "total_saved_bytes", "from"] {
            base[name] = Json::Null;
        }
        base["estimated"] = json!(false);
    }
    answer["patches"] = json!([]);
    let (run, _) = ask(answer.clone(), &["release", "bases", "4f3a"]);
    let out = run.quiet().out;
    assert!(out.contains("\n800      bbbbbbbbbbbb  1.4.1    16        -      -           -\n"), "{out}");
    assert!(
        out.ends_with("\nno release of this class has a patch that would tell what one saves\n"),
        "{out}"
    );
    answer["bases"] = json!([]);
    let (run, _) = ask(answer, &["release", "bases", "4f3a"]);
    let out = run.quiet().out;
    assert!(out.ends_with("\nevery other device runs an image that a patch starts from\n"), "{out}");
}

fn campaign() -> Json {
    let patch = json!({
        "payload": "11".repeat(8), "kind": "patch", "base": "aa".repeat(32), "base_version": "1.4.2",
        "transfer_size": 4000,
    });
    let full = json!({
        "payload": "22".repeat(8), "kind": "full", "base": null, "base_version": null, "transfer_size": 40_000,
    });
    let share = |payload: &Json, devices: u64, bytes: u64| {
        let mut share = payload.clone();
        share["devices"] = json!(devices);
        share["bytes_received"] = json!(bytes);
        share
    };
    let device = |id: &str, bytes: u64, payload: &Json, given_up: &Json| {
        json!({ "id": id, "state": "confirmed", "reason": null, "percent": 100, "bytes_received": bytes,
            "bytes_twice": 0, "payload": payload, "given_up": given_up, "seen": 1_790_000_000 })
    };
    json!({
        "id": "3b9c", "group": "all", "release": "4f3a".repeat(16), "version": "1.5.0", "sequence": 18,
        "state": "active", "attempt": 1, "document_version": 3, "created": 1_790_000_000, "spread_s": 0,
        "devices": { "total": 4, "confirmed": 3, "waiting": 1 },
        "percent": 75, "bytes_received": 88_000, "bytes_twice": 0, "failures": {},
        "payloads": [share(&patch, 1, 4000), share(&full, 2, 84_000)],
        "without_patch": { "devices": 1, "images": 1, "total_saved_bytes": 36_000, "estimated": true },
        "device_list": [
            device("m1", 4000, &patch, &Json::Null),
            device("m2", 40_000, &full, &Json::Null),
            device("m3", 44_000, &full, &patch),
            device("m4", 0, &Json::Null, &Json::Null),
        ],
    })
}

#[test]
fn a_campaigns_status_tells_by_which_payload_each_device_got_its_image() {
    let (run, _) = ask(campaign(), &["campaign", "status", "3b9c", "--devices"]);
    let out = run.quiet().out;
    for line in [
        "payloads       1 by patch 1.4.2: 4,000 bytes; 2 by full: 84,000 bytes\n",
        "without patch  1 device runs an image that no patch starts from; patches would save ~36,000 bytes \
         (whimbrel release bases 4f3a4f3a4f3a)\n",
        "m1      confirmed  -       100      4,000   0            patch 1.4.2\n",
        "m2      confirmed  -       100      40,000  0            full\n",
        "m3      confirmed  -       100      44,000  0            full, not patch 1.4.2\n",
        "m4      confirmed  -       100      0       0            -\n",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
}

#[test]
fn a_list_of_devices_tells_by_which_payload_each_got_its_last_image() {
    let member = &campaign()["device_list"][2];
    let mut device = json!({
        "id": "m3", "state": "accepted", "fingerprint": "9f1c-02aa-7d3e-51b0", "class": "60f6".repeat(8),
        "groups": ["all"], "running": null, "sequence": 18, "seen": null, "online_hint": true, "deployment": member,
    });
    device["deployment"]["campaign"] = json!("3b9c");
    let (run, _) = ask(json!({ "devices": [device.clone()], "next": null }), &["device", "list"]);
    let out = run.quiet().out;
    assert!(
        out.ends_with("-        18        -     confirmed  -       44,000  full, not patch 1.4.2\n"),
        "{out}"
    );
    let (run, requests) = ask(device, &["device", "show", "m3"]);
    let want = "\
device       m3
state        accepted
fingerprint  9f1c-02aa-7d3e-51b0
class        60f660f660f660f660f660f660f660f6
groups       all
version      -
running      -
sequence     18
seen         -
campaign     3b9c
update       confirmed
reason       -
received     44,000 bytes, 0 of them twice
payload      full, not patch 1.4.2
";
    assert_eq!(run.quiet().out, want);
    assert_eq!(requests, ["GET /v1/devices/m3"]);
}

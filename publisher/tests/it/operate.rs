//! `whimbrel campaign`, `device` and `status`: the exact requests, and what people see of the answers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value as Json, json};

use crate::http::{Answer, Request, Server};
use crate::support::{Place, Run, build_args};

fn campaign(id: &str, state: &str, confirmed: u64) -> Json {
    json!({
        "id": id, "group": "all", "release": "4f3a".repeat(16), "version": "1.4.2", "sequence": 17,
        "state": state, "attempt": 1, "document_version": 3, "created": 1_790_000_000, "spread_s": 7200,
        "devices": {
            "total": 1200, "waiting": 1200 - confirmed - 1, "offered": 0, "deferred": 0, "downloading": 0,
            "downloaded": 0, "installing": 0, "rebooting": 0, "testing": 0, "confirmed": confirmed,
            "reverted": 0, "failed": 1, "cancelled": 0,
        },
        "percent": 62, "bytes_received": 123_456_789, "bytes_twice": 4_096, "failures": { "collision": 1 },
        "payloads": [],
    })
}

/// A folder with a token, and the arguments that name it and the server.
struct Desk {
    place: Place,
    server: Server,
}

impl Desk {
    fn new(server: Server) -> Self {
        let place = Place::new();
        place.write("token", "0123456789abcdef\n");
        Self { place, server }
    }

    fn run(&self, args: &[&str]) -> Run {
        let global = ["--service", &self.server.address, "--token-file", "token"];
        self.place.run([&global[..], args].concat())
    }

    /// The one request that `args` make; it must carry the token.
    #[track_caller]
    fn request(&self, args: &[&str]) -> Request {
        self.run(args).quiet();
        let request = self.server.requests().pop().unwrap();
        assert_eq!(request.header("authorization"), Some("Bearer 0123456789abcdef"));
        request
    }
}

#[test]
fn a_campaign_is_ordered_with_what_was_said_and_nothing_else() {
    let desk = Desk::new(Server::always(200, campaign("3b9c0011", "active", 0)));
    let request = desk.request(&["campaign", "create", "--release", "4F3A"]);
    assert_eq!(request.line, "POST /v1/campaigns");
    assert_eq!(request.header("content-type").map(|of| of.starts_with("application/json")), Some(true));
    let plain = json!({
        "release": "4f3a", "group": "all", "spread_s": 0, "expires_in_s": 2_592_000, "policy": "soft", "priority": 0,
    });
    assert_eq!(request.json(), plain);
    let request = desk.request(&[
        "campaign",
        "create",
        "--release",
        "4f3a",
        "--group",
        "pilots",
        "--spread",
        "2h",
        "--not-before",
        "2026-12-01T02:00:00Z",
        "--policy",
        "download-only",
        "--expires-in",
        "7d",
        "--min-sequence",
        "16",
        "--priority",
        "5",
    ]);
    let full = json!({
        "release": "4f3a", "group": "pilots", "spread_s": 7200, "expires_in_s": 604_800, "policy": "download-only",
        "priority": 5, "not_before": 1_796_090_400, "min_sequence": 16,
    });
    assert_eq!(request.json(), full);
}

#[test]
fn a_release_can_be_named_by_its_folder() {
    let desk = Desk::new(Server::always(200, campaign("3b9c0011", "active", 0)));
    desk.place.write("image", "x");
    desk.place.run(build_args("image", "r")).good();
    let digest = desk.place.run(["inspect", "r", "--json"]).json()["release"].clone();
    assert_eq!(desk.request(&["campaign", "create", "--release", "r"]).json()["release"], digest);
    let line = desk.run(&["campaign", "create", "--release", "none"]).line();
    assert!(line.contains("--release `none` is neither a release's folder nor"), "{line}");
}

#[test]
fn abort_and_retry_name_the_campaign() {
    let desk = Desk::new(Server::always(200, campaign("3b9c0011", "aborted", 0)));
    for verb in ["abort", "retry"] {
        let request = desk.request(&["campaign", verb, "3B9C"]);
        assert_eq!(request.line, format!("POST /v1/campaigns/3b9c/{verb}"));
        assert!(request.body.is_empty());
    }
}

#[test]
fn people_see_how_far_a_campaign_is() {
    let desk = Desk::new(Server::always(200, campaign("3b9c0011", "active", 700)));
    let want = "\
campaign  3b9c0011
release   1.4.2, sequence 17, 4f3a4f3a4f3a
group     all
state     active, attempt 1, document version 3
created   2026-09-21T14:13:20Z
spread    2h
progress  [#############.......] 62 %
devices   1,200
of these  499 waiting, 700 confirmed, 1 failed
received  123,456,789 bytes, 4,096 of them twice
failures  1 collision
";
    assert_eq!(desk.run(&["campaign", "status", "3b9c"]).quiet().out, want);
    assert_eq!(desk.server.lines(), ["GET /v1/campaigns/3b9c"]);
    // A program sees what the service said.
    assert_eq!(
        desk.run(&["campaign", "status", "3b9c", "--json"]).json(),
        campaign("3b9c0011", "active", 700)
    );
}

#[test]
fn status_without_an_id_shows_the_latest_that_runs() {
    let server = Server::start(|request| {
        let mut older = campaign("aaaa", "active", 0);
        older["created"] = json!(1);
        let mut newest = campaign("bbbb", "aborted", 0);
        newest["created"] = json!(3);
        let mut newer = campaign("cccc", "active", 0);
        newer["created"] = json!(2);
        match request.line.as_str() {
            "GET /v1/campaigns" => Answer::Json(200, json!([older, newest, newer])),
            line => Answer::Json(200, campaign(line.rsplit('/').next().unwrap(), "active", 0)),
        }
    });
    let desk = Desk::new(server);
    assert!(desk.run(&["campaign", "status"]).quiet().out.starts_with("campaign  cccc\n"));
    let desk = Desk::new(Server::always(200, json!([])));
    assert!(desk.run(&["campaign", "status"]).line().contains("the service has no campaign yet"));
}

#[test]
fn watching_ends_when_every_device_is_done() {
    let asked = AtomicU64::new(0);
    let server = Server::start(move |_| {
        let asked = asked.fetch_add(1, Ordering::SeqCst);
        Answer::Json(
            200,
            campaign("3b9c", "active", [300, 300, 700, 1199][usize::try_from(asked.min(3)).unwrap()]),
        )
    });
    let desk = Desk::new(server);
    let run = desk.run(&["campaign", "status", "3b9c", "--watch", "--every", "0s", "--json"]).quiet();
    let confirmed: Vec<Json> = run
        .out
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["devices"]["confirmed"].clone())
        .collect();
    // What has not changed is not said again.
    assert_eq!(confirmed, [300, 700, 1199]);
    assert_eq!(desk.server.lines().len(), 4);
    // An aborted campaign has nothing to watch.
    let desk = Desk::new(Server::always(200, campaign("3b9c", "aborted", 0)));
    desk.run(&["campaign", "status", "3b9c", "--watch"]).quiet();
    assert_eq!(desk.server.lines().len(), 1);
}

#[test]
fn the_devices_of_a_campaign_are_listed_page_by_page() {
    let member = |number: usize| {
        json!({ "id": format!("meter-{number:04}"), "state": "failed", "reason": "no-room", "percent": 40,
            "bytes_received": 5000, "bytes_twice": 0, "seen": 1_790_000_000 })
    };
    let server = Server::start(move |request| {
        let mut campaign = campaign("3b9c", "active", 0);
        let list: Vec<Json> = match request.line.as_str() {
            "GET /v1/campaigns/3b9c?devices=1" => (0..1000).map(member).collect(),
            "GET /v1/campaigns/3b9c?devices=1&after=meter-0999" => (1000..1200).map(member).collect(),
            other => panic!("{other}"),
        };
        campaign["device_list"] = json!(list);
        Answer::Json(200, campaign)
    });
    let desk = Desk::new(server);
    let run = desk.run(&["campaign", "status", "3b9c", "--devices"]).quiet();
    assert_eq!(run.out.lines().filter(|line| line.starts_with("meter-")).count(), 1200);
    assert!(run.out.contains("\nDEVICE      STATE   REASON   PERCENT  BYTES  BYTES TWICE  PAYLOAD\nmeter-0000  failed  no-room  40       5,000  0            -\n"), "{}", &run.out[..1000]);
    let list = desk.run(&["campaign", "status", "3b9c", "--devices", "--json"]).json()["device_list"].clone();
    assert_eq!(list.as_array().unwrap().len(), 1200);
}

#[test]
fn campaigns_are_listed() {
    let desk = Desk::new(Server::always(200, json!([campaign("3b9c0011", "active", 700)])));
    let want = "\
CAMPAIGN  GROUP  VERSION  STATE   ATTEMPT  DEVICES  CONFIRMED  FAILED  PERCENT
3b9c0011  all    1.4.2    active  1        1200     700        1       62
";
    assert_eq!(desk.run(&["campaign", "list"]).quiet().out, want);
    let desk = Desk::new(Server::always(200, json!([])));
    assert_eq!(desk.run(&["campaign", "list"]).quiet().out, "no campaigns\n");
}

fn device(id: &str) -> Json {
    json!({
        "id": id, "state": "accepted", "fingerprint": "9f1c-02aa-7d3e-51b0", "class": "60f6c6d39b3758358d32c65568458f59",
        "groups": ["all", "pilots"], "running": "564de468d290b756", "sequence": 17, "seen": 1_790_000_000,
        "online_hint": true, "deployment": null, "rekeyed": null, "version": "1.4.2",
    })
}

#[test]
fn devices_are_listed_page_by_page() {
    let server = Server::start(|request| {
        let page = match request.line.as_str() {
            "GET /v1/devices?limit=1000" => json!({ "devices": [device("a1"), device("a2")], "next": "a2" }),
            "GET /v1/devices?limit=1000&after=a2" => json!({ "devices": [device("a3")], "next": null }),
            "GET /v1/devices?limit=1000&state=pending" => json!({
                "devices": [{ "id": "p1", "state": "pending", "fingerprint": "0000-1111-2222-3333",
                    "class": "60f6c6d39b3758358d32c65568458f59", "groups": [], "running": null, "sequence": 0,
                    "seen": null, "online_hint": false, "deployment": null }],
                "next": null,
            }),
            other => panic!("{other}"),
        };
        Answer::Json(200, page)
    });
    let desk = Desk::new(server);
    let want = "\
DEVICE  STATE     FINGERPRINT          CLASS         GROUPS      VERSION  SEQUENCE  SEEN                  UPDATE  REASON  BYTES  PAYLOAD
a1      accepted  9f1c-02aa-7d3e-51b0  60f6c6d39b37  all pilots  1.4.2    17        2026-09-21T14:13:20Z  -       -       -      -
a2      accepted  9f1c-02aa-7d3e-51b0  60f6c6d39b37  all pilots  1.4.2    17        2026-09-21T14:13:20Z  -       -       -      -
a3      accepted  9f1c-02aa-7d3e-51b0  60f6c6d39b37  all pilots  1.4.2    17        2026-09-21T14:13:20Z  -       -       -      -
";
    assert_eq!(desk.run(&["device", "list"]).quiet().out, want);
    let want = "\
DEVICE  STATE    FINGERPRINT          CLASS         GROUPS  VERSION  SEQUENCE  SEEN  UPDATE  REASON  BYTES  PAYLOAD
p1      pending  0000-1111-2222-3333  60f6c6d39b37  -       -        0         -     -       -       -      -
";
    assert_eq!(desk.run(&["device", "list", "--pending"]).quiet().out, want);
    let told = desk.run(&["device", "list", "--json"]).json();
    assert_eq!(told, json!({ "devices": [device("a1"), device("a2"), device("a3")] }));
    let desk = Desk::new(Server::always(200, json!({ "devices": [], "next": "for-ever" })));
    assert_eq!(desk.run(&["device", "list"]).quiet().out, "no devices\n");
}

#[test]
fn a_device_is_accepted_with_the_fingerprint_that_was_compared() {
    let desk = Desk::new(Server::always(200, device("meter-17")));
    let request = desk.request(&["device", "accept", "meter-17", "--fingerprint", "9F1C-02AA-7D3E-51B0"]);
    assert_eq!(request.line, "POST /v1/devices/meter-17/accept");
    assert_eq!(request.json(), json!({ "fingerprint": "9f1c-02aa-7d3e-51b0" }));
    let request = desk.request(&[
        "device",
        "accept",
        "meter-17",
        "--fingerprint",
        "9f1c-02aa-7d3e-51b0",
        "--group",
        "all",
        "--group",
        "pilots",
    ]);
    assert_eq!(request.json(), json!({ "fingerprint": "9f1c-02aa-7d3e-51b0", "groups": ["all", "pilots"] }));
    let message = "fingerprint is 1111-2222-3333-4444, not 9f1c-02aa-7d3e-51b0";
    let desk = Desk::new(Server::always(409, json!({ "error": message })));
    let run = desk.run(&["device", "accept", "meter-17", "--fingerprint", "9f1c-02aa-7d3e-51b0"]);
    assert_eq!(run.line(), format!("service refused (409): {message}"));
}

#[test]
fn a_list_of_devices_is_imported_as_it_is() {
    let desk = Desk::new(Server::always(200, json!({ "imported": 2, "unchanged": 1 })));
    let csv = "id,public key,class,groups\nmeter-1,a4,60f6,all pilots\n";
    desk.place.write("devices.csv", csv);
    let request = desk.request(&["device", "import", "devices.csv"]);
    assert_eq!(request.line, "POST /v1/devices/import");
    assert_eq!(request.header("content-type"), Some("text/csv"));
    assert_eq!(request.body, csv.as_bytes());
    assert_eq!(desk.run(&["device", "import", "devices.csv"]).quiet().out, "imported   2\nunchanged  1\n");
}

#[test]
fn a_list_is_looked_at_before_any_of_it_is_imported() {
    let desk = Desk::new(Server::always(200, json!({ "imported": 1, "unchanged": 0 })));
    desk.place.write("devices.csv", "meter-1,a4,60f6,all\n");
    desk.request(&["device", "import", "devices.csv"]);
    assert_eq!(desk.server.lines(), ["POST /v1/devices/import?check=1", "POST /v1/devices/import"]);
    let desk = Desk::new(Server::always(422, json!({ "error": "line 1: no key" })));
    desk.place.write("devices.csv", "meter-1,a4,60f6,all\n");
    assert_eq!(
        desk.run(&["device", "import", "devices.csv"]).line(),
        "service refused (422): line 1: no key"
    );
    assert_eq!(desk.server.lines(), ["POST /v1/devices/import?check=1"]);
}

#[test]
fn a_device_is_reset_and_put_into_groups() {
    let desk = Desk::new(Server::always(200, device("meter-17")));
    let request = desk.request(&["device", "reset", "meter-17"]);
    assert_eq!((request.line.as_str(), request.body.len()), ("POST /v1/devices/meter-17/reset", 0));
    let request = desk.request(&["device", "groups", "meter-17", "all", "pilots"]);
    assert_eq!(request.line, "PUT /v1/devices/meter-17/groups");
    assert_eq!(request.json(), json!({ "groups": ["all", "pilots"] }));
    // A program sees what the service said.
    assert_eq!(desk.run(&["device", "reset", "meter-17", "--json"]).json(), device("meter-17"));
}

#[test]
fn the_state_of_the_service_is_shown() {
    let status = json!({
        "version": "0.1.0", "prefix": "ota", "attached": "embedded", "broker_up": true,
        "devices": { "accepted": 1200, "pending": 3 }, "releases": 2, "campaigns": 1,
        "counters": { "chunks_served": 12, "refused_busy": 0 },
    });
    let desk = Desk::new(Server::always(200, status.clone()));
    let want = "\
service           0.1.0
broker            its own
broker up         yes
prefix            ota
devices accepted  1,200
devices pending   3
releases          2
campaigns         1
counters          chunks_served 12
";
    assert_eq!(desk.run(&["status"]).quiet().out, want);
    assert_eq!(desk.run(&["status", "--json"]).json(), status);
    assert_eq!(desk.server.lines(), ["GET /v1/status", "GET /v1/status"]);
}

#[test]
fn a_service_that_is_not_running_is_said_plainly() {
    let address = Server::always(200, Json::Null).address.clone();
    let place = Place::with_init();
    let line = place.run(["status", "--service", &address]).line();
    assert!(line.starts_with(&format!("no service answers at {address} (")), "{line}");
    assert!(line.contains("start it with `whimbreld --config whimbrel.toml`"), "{line}");
    for (address, want) in [
        ("nonsense", "`nonsense` is no address of a service"),
        ("https://x:1", "`https://x:1` is no address"),
        ("host:0", "is no address"),
        ("host:99999", "is no address"),
        ("a b:1", "is no address"),
        ("user@host:1", "is no address"),
    ] {
        let line = place.run(["status", "--service", address]).line();
        assert!(line.contains(want), "{line}");
    }
    let elsewhere = Place::new();
    assert!(elsewhere.run(["status"]).line().contains("no service is named: run where whimbrel.toml is"));
    assert!(elsewhere.run(["status", "--service", "127.0.0.1:1"]).line().contains("no token is named"));
}

#[test]
fn a_token_that_is_wrong_or_none_is_said_plainly() {
    let desk = Desk::new(Server::always(401, json!({ "error": "wrong token" })));
    assert!(desk.run(&["status"]).line().contains("refused the token"));
    for token in ["", "short", "two words here", "line\nline two is here", &"x".repeat(300)] {
        desk.place.write("token", token);
        assert!(desk.run(&["status"]).line().contains("token holds no token"), "{token}");
    }
    desk.place.write("token", "x".repeat(2000));
    assert!(desk.run(&["status"]).line().contains("token has more than 1024 bytes"));
}

#[test]
fn what_is_no_update_service_is_told_apart() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ] {
        let desk = Desk::new(Server::start(move |_| Answer::Raw(bytes.to_vec())));
        let line = desk.run(&["status"]).line();
        assert!(line.contains("no update service of this version"), "{line}");
    }
    let desk = Desk::new(Server::start(|_| Answer::Raw(Vec::new())));
    assert!(desk.run(&["status"]).line().contains("broke"));
    // A redirection is not followed: the token is for this service alone.
    let other = Server::always(200, Json::Null);
    let to = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        other.address
    );
    let desk = Desk::new(Server::start(move |_| Answer::Raw(to.clone().into_bytes())));
    assert!(desk.run(&["status"]).line().contains("302"));
    assert!(other.requests().is_empty());
}

#[test]
fn a_refusal_cannot_break_the_line_or_the_terminal() {
    for error in ["two\nlines", "\u{1b}[2J\u{202e}", &"long ".repeat(1000)] {
        let desk = Desk::new(Server::always(500, json!({ "error": error })));
        let line = desk.run(&["status"]).line();
        assert!(line.len() < 600 && line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line}");
    }
    let desk = Desk::new(Server::always(503, json!("down")));
    assert_eq!(desk.run(&["status"]).line(), "service refused (503): service unavailable");
}

#[test]
fn hostile_answers_reach_the_terminal_escaped() {
    let mut campaign = campaign("3b9c", "active", 0);
    campaign["group"] = json!("a\u{1b}[31mb\nc");
    campaign["version"] = json!("\u{7}");
    let desk = Desk::new(Server::always(200, json!([campaign])));
    let run = desk.run(&["campaign", "list"]).quiet();
    assert_eq!(run.out.lines().count(), 2);
    assert!(run.out.chars().all(|c| !c.is_control() || c == '\n'), "{run:?}");
}

#[test]
fn no_proxy_gets_the_token() {
    let proxy = Server::always(200, Json::Null);
    let desk = Desk::new(Server::always(200, json!([])));
    let mut command = desk.place.command();
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, format!("http://{}", proxy.address));
    }
    command.args(["--service", &desk.server.address, "--token-file", "token", "campaign", "list"]);
    Run::of(command.output().unwrap()).quiet();
    assert!(proxy.requests().is_empty());
    assert_eq!(desk.server.lines(), ["GET /v1/campaigns"]);
}

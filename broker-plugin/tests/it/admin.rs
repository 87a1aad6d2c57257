//! The admin API over real HTTP: who is let in, how much is taken, what each route says.

use serde_json::json;
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::manifest::{Content, Manifest, Severable, Text};
use whimbrel_protocol::testing::Fixture;

use crate::service_support::{On, Service, TOKEN, device_key, hex_key, image};

const ROUTES: [(&str, &str); 18] = [
    ("GET", "/v1/status"),
    ("POST", "/v1/clock/accept"),
    ("GET", "/v1/releases"),
    ("GET", "/v1/releases/abcd"),
    ("GET", "/v1/releases/abcd/bases"),
    ("POST", "/v1/releases"),
    ("PUT", "/v1/payloads/abcd"),
    ("GET", "/v1/campaigns"),
    ("POST", "/v1/campaigns"),
    ("GET", "/v1/campaigns/abcd"),
    ("POST", "/v1/campaigns/abcd/abort"),
    ("POST", "/v1/campaigns/abcd/retry"),
    ("GET", "/v1/devices"),
    ("GET", "/v1/devices/m1"),
    ("POST", "/v1/devices/import"),
    ("POST", "/v1/devices/m1/accept"),
    ("POST", "/v1/devices/m1/reset"),
    ("PUT", "/v1/devices/m1/groups"),
];

#[test]
fn without_the_token_every_route_is_closed() {
    let service = Service::start(On::Itself);
    let wrong = TOKEN.replace('0', "1");
    let longer = format!("{TOKEN}0");
    for (method, path) in
        ROUTES.into_iter().chain([("GET", "/"), ("GET", "/v2/status"), ("DELETE", "/v1/status")])
    {
        for token in [None, Some(""), Some(&TOKEN[1..]), Some(&wrong), Some(&longer)] {
            let (status, body) = service.request(method, path, token, b"");
            assert_eq!(status, 401, "{method} {path} {token:?}");
            assert!(body.contains("Authorization: Bearer"), "{body}");
        }
        let (status, _) = service.request(method, path, Some(TOKEN), b"");
        assert_ne!(status, 401, "{method} {path}");
    }
}

#[test]
fn what_is_not_there_and_what_is_not_taken_is_said_in_one_line_of_json() {
    let service = Service::start(On::Itself);
    assert!(service.refused(404, "GET", "/v1/nothing", b"").contains("/v1/nothing"));
    assert!(service.refused(405, "DELETE", "/v1/releases", b"").contains("DELETE"));
    for (status, method, path, body, what) in [
        (400, "GET", "/v1/releases/xyz1", "", "4 hexadecimal digits"),
        (400, "GET", "/v1/releases/abc", "", "4 hexadecimal digits"),
        (404, "GET", "/v1/releases/abcd", "", "no release abcd"),
        (404, "GET", "/v1/releases/abcd/bases", "", "no release abcd"),
        (400, "GET", "/v1/releases/abcd/bases?group=a%20b", "", "group"),
        (400, "GET", "/v1/releases/abcd/bases?color=red", "", "color"),
        (404, "GET", "/v1/campaigns/abcd", "", "no campaign abcd"),
        (404, "POST", "/v1/campaigns/abcd/abort", "", "no campaign abcd"),
        (400, "PUT", "/v1/payloads/abcd", "", "64 hexadecimal digits"),
        (422, "POST", "/v1/releases", "no envelope", "the release is refused"),
        (400, "POST", "/v1/campaigns", "{", "the campaign: "),
        (400, "POST", "/v1/campaigns", "{\"release\":\"abcd\"}", "missing field `group`"),
        (400, "POST", "/v1/campaigns", "{\"release\":\"abcd\",\"group\":\"all\",\"sperad_s\":1}", "sperad_s"),
        (422, "POST", "/v1/campaigns", "{\"release\":\"abcd\",\"group\":\"a b\"}", "a group name must have"),
        (
            422,
            "POST",
            "/v1/campaigns",
            "{\"release\":\"abcd\",\"group\":\"a\",\"policy\":\"hard\"}",
            "soft, forced",
        ),
        (404, "POST", "/v1/campaigns", "{\"release\":\"abcd\",\"group\":\"all\"}", "no release abcd"),
        (400, "GET", "/v1/devices?state=gone", "", "pending, accepted or rekeyed"),
        (400, "GET", "/v1/devices?limit=0", "", "1 to 1000"),
        (400, "GET", "/v1/devices?limit=1001", "", "1 to 1000"),
        (400, "GET", "/v1/devices?after=a%20b", "", "device id"),
        (400, "GET", "/v1/devices?color=red", "", "color"),
        (400, "POST", "/v1/devices/m/reset", "", "device id"),
        (400, "GET", "/v1/devices/m", "", "device id"),
        (404, "GET", "/v1/devices/m1", "", "m1 is not known"),
        (404, "POST", "/v1/devices/m1/reset", "", "m1 is not known"),
        (400, "POST", "/v1/devices/m1/accept", "{}", "missing field `fingerprint`"),
        (422, "POST", "/v1/devices/m1/accept", "{\"fingerprint\":\"abc\"}", "16 hexadecimal digits"),
        (
            404,
            "POST",
            "/v1/devices/m1/accept",
            "{\"fingerprint\":\"0000-0000-0000-0000\"}",
            "m1 is not known",
        ),
        (404, "PUT", "/v1/devices/m1/groups", "{\"groups\":[]}", "m1 is not known"),
        (422, "POST", "/v1/devices/import", "m1,x,y", "line 1: "),
    ] {
        let error = service.refused(status, method, path, body.as_bytes());
        assert!(error.contains(what), "{method} {path} {body}: {error}");
    }
}

#[test]
fn a_body_that_is_too_large_is_not_taken() {
    let service = Service::start(On::Itself);
    let error = service.refused(413, "POST", "/v1/releases", &vec![0; 4097]);
    assert!(error.contains("4096"), "{error}");
    service.refused(413, "POST", "/v1/campaigns", &vec![b' '; 16 * 1024 + 1]);
    service.refused(413, "POST", "/v1/devices/import", &vec![b'\n'; 1_000_001]);
    let error = service.refused(422, "POST", "/v1/devices/import", &vec![b'x'; 5000]);
    assert!(error.starts_with("line 1 ") && error.contains("4096"), "{error}");
    assert_eq!(service.get("/v1/status")["devices"]["accepted"], json!(0), "and it serves on");
}

#[test]
fn a_release_is_complete_when_its_payload_is_there() {
    let service = Service::start(On::Itself);
    let release = service.release(100_000, 5);
    let digest = release.digest.to_hex();
    let payload = format!("/v1/payloads/{}", release.index.digest);
    assert!(service.refused(404, "PUT", &payload, &release.payload).contains("publish its release first"));

    let view = service.ok("POST", "/v1/releases", &release.envelope);
    assert_eq!((&view["release"], &view["sequence"]), (&json!(digest), &json!(5)));
    assert_eq!((&view["version"], &view["image_size"]), (&json!("1.0.5"), &json!(100_000)));
    assert_eq!(view["class"], json!(service.fixture.class.to_hex()));
    assert_eq!(
        (&view["state"], &view["missing"][0]["transfer_size"]),
        (&json!("incomplete"), &json!(100_000))
    );
    assert_eq!(view["missing"][0]["index_digest"], json!(release.index.digest.to_hex()));
    let order = json!({ "release": &digest[..8], "group": "all" }).to_string();
    assert!(service.refused(409, "POST", "/v1/campaigns", order.as_bytes()).contains("not complete"));

    let mut wrong = release.payload.clone();
    wrong[50_000] ^= 1;
    assert!(service.refused(422, "PUT", &payload, &wrong).contains("another file"));
    assert!(service.refused(422, "PUT", &payload, &wrong[1..]).contains("99999"));
    let long = [&release.payload[..], &[0]].concat();
    assert!(service.refused(422, "PUT", &payload, &long).contains("100001"));
    let folder = service.path("data/payloads");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing of a wrong one is kept");

    let stored = service.ok("PUT", &payload, &release.payload);
    assert_eq!(stored["transfer_size"], json!(100_000));
    let view = service.get(&format!("/v1/releases/{}", &digest[..4]));
    assert_eq!((&view["state"], &view["missing"]), (&json!("complete"), &json!([])));
    // All of it again changes nothing.
    assert_eq!(service.ok("POST", "/v1/releases", &release.envelope), view);
    service.ok("PUT", &payload, &release.payload);
    assert_eq!(service.get("/v1/releases"), json!([view]));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "the payload and its index");
}

#[test]
fn a_release_that_devices_would_refuse_is_refused_here() {
    let service = Service::start(On::Itself);
    let release = service.release(10_000, 5);
    let other_key = Fixture { release_key: device_key(1), ..Fixture::new() };
    let forged = other_key.release(image(10_000, 5), 5, 10);
    assert!(service.refused(422, "POST", "/v1/releases", &forged.envelope).contains("not authentic"));
    // Devices do not read the text, so that the service is the last one that can refuse it.
    let manifest = Envelope::decode(&release.envelope).unwrap().unverified_manifest().unwrap();
    let text = Some(Severable::Inline(Text::from_bytes(&[0xa0])));
    let manifest = Manifest::new(Content { text, ..manifest.content().clone() }).unwrap();
    let mut unreadable = Envelope::unsigned(&manifest).unwrap();
    unreadable.sign(&service.fixture.release_key).unwrap();
    assert!(service.refused(422, "POST", "/v1/releases", unreadable.bytes()).contains("malformed: text"));
    for at in [3, 40, 120, release.envelope.len() - 3] {
        let mut changed = release.envelope.clone();
        changed[at] ^= 1;
        service.refused(422, "POST", "/v1/releases", &changed);
    }
    service.ok("POST", "/v1/releases", &release.envelope);
    let same_sequence = service.fixture.release(image(10_000, 99), 5, 10);
    let error = service.refused(409, "POST", "/v1/releases", &same_sequence.envelope);
    assert!(error.contains(&release.digest.to_hex()) && error.contains("sequence 5"), "{error}");
    assert_eq!(service.get("/v1/releases").as_array().unwrap().len(), 1);
}

#[test]
fn another_envelope_of_the_same_images_stands_beside_and_campaigns_can_name_either() {
    let mut service = Service::start(On::Itself);
    let (release, beside) = (service.release(10_000, 5), service.fixture.release(image(10_000, 5), 5, 12));
    assert_ne!(release.digest, beside.digest);
    service.publish(&release);
    service.publish(&beside);
    let both = service.get("/v1/releases");
    let named = |releases: &serde_json::Value, release: &whimbrel_protocol::testing::Release| {
        let name = json!(release.digest.to_hex());
        releases
            .as_array()
            .unwrap()
            .iter()
            .any(|known| known["release"] == name && known["state"] == "complete")
    };
    assert!(named(&both, &release) && named(&both, &beside), "{both}");
    service.stop();
    service.launch();
    assert_eq!(service.get("/v1/releases"), both, "also after a restart");
    for release in [&release, &beside, &release] {
        let campaign = service.campaign(release);
        assert_eq!(campaign["release"], json!(release.digest.to_hex()));
    }
    // With another image it is another release, and the number is taken.
    let other = service.fixture.release(image(10_000, 6), 5, 10);
    let error = service.refused(409, "POST", "/v1/releases", &other.envelope);
    assert!(error.contains("sequence 5 too, with another image"), "{error}");
}

#[test]
fn a_new_campaign_of_a_group_replaces_the_one_before() {
    let service = Service::start(On::Itself);
    let (old, new) = (service.release(10_000, 5), service.release(10_000, 6));
    service.publish(&old);
    service.publish(&new);
    let first = service.campaign(&old);
    let order = json!({
        "release": new.digest.to_hex(), "group": "all", "spread_s": 60, "policy": "forced", "priority": 2,
        "min_sequence": 5, "expires_in_s": 3600,
    });
    let second = service.post("/v1/campaigns", &order);
    assert_eq!((&first["document_version"], &second["document_version"]), (&json!(1), &json!(2)));
    assert_eq!(
        (&second["spread_s"], &second["sequence"], &second["version"]),
        (&json!(60), &json!(6), &json!("1.0.6"))
    );
    let listed = service.get("/v1/campaigns");
    let states: Vec<_> =
        listed.as_array().unwrap().iter().map(|campaign| campaign["state"].clone()).collect();
    assert_eq!(states, ["replaced", "active"]);
    let path = format!("/v1/campaigns/{}", first["id"].as_str().unwrap());
    for command in ["abort", "retry"] {
        let error = service.refused(409, "POST", &format!("{path}/{command}"), b"");
        assert!(error.contains("replaced"), "{error}");
    }
    let path = format!("/v1/campaigns/{}", second["id"].as_str().unwrap());
    let aborted = service.post(&format!("{path}/abort"), &json!({}));
    assert_eq!((&aborted["state"], &aborted["document_version"]), (&json!("aborted"), &json!(3)));
    assert!(service.refused(409, "POST", &format!("{path}/abort"), b"").contains("aborted already"));
    let retried = service.post(&format!("{path}/retry"), &json!({}));
    assert_eq!((&retried["state"], &retried["attempt"]), (&json!("active"), &json!(2)));
    let order = json!({ "release": new.digest.to_hex(), "group": "all", "min_sequence": 7 }).to_string();
    assert!(service.refused(422, "POST", "/v1/campaigns", order.as_bytes()).contains("min_sequence"));
}

#[test]
fn a_campaign_that_was_replaced_stays_so_after_a_restart() {
    let mut service = Service::start(On::Itself);
    let (old, new) = (service.release(10_000, 5), service.release(10_000, 6));
    service.publish(&old);
    service.publish(&new);
    service.campaign(&new);
    service.campaign(&old);
    let before = service.get("/v1/campaigns");
    assert_eq!((&before[0]["state"], &before[1]["state"]), (&json!("replaced"), &json!("active")));
    service.kill();
    service.launch();
    assert_eq!(service.get("/v1/campaigns"), before);
}

#[test]
fn devices_are_accepted_moved_reset_and_listed_page_by_page() {
    let service = Service::start(On::Itself);
    let keys: Vec<_> = (0..5).map(|number| device_key(number).public()).collect();
    let names = ["m0", "m1", "m2", "m3", "m4"];
    let list: Vec<_> = names.into_iter().zip(&keys).collect();
    assert_eq!(service.import(&list), json!({ "imported": 5, "unchanged": 0 }));
    assert_eq!(service.import(&list), json!({ "imported": 0, "unchanged": 5 }));

    let first = service.get("/v1/devices?limit=3");
    let ids = |page: &serde_json::Value| {
        page["devices"].as_array().unwrap().iter().map(|device| device["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((ids(&first), &first["next"]), (vec![json!("m0"), json!("m1"), json!("m2")], &json!("m2")));
    let second = service.get("/v1/devices?limit=3&after=m2");
    assert_eq!((ids(&second), &second["next"]), (vec![json!("m3"), json!("m4")], &json!(null)));
    assert_eq!(ids(&service.get("/v1/devices?state=pending")), Vec::<serde_json::Value>::new());
    let never_heard = &first["devices"][0];
    assert_eq!((&never_heard["seen"], &never_heard["running"]), (&json!(null), &json!(null)));
    assert_eq!(never_heard["online_hint"], json!(false));

    let groups = |groups: &[&str]| json!({ "groups": groups }).to_string();
    let moved = service.ok("PUT", "/v1/devices/m1/groups", groups(&["north", "all"]).as_bytes());
    assert_eq!(moved["groups"], json!(["north", "all"]));
    let nine: Vec<String> = (0..9).map(|number| format!("g{number}")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    assert!(
        service.refused(422, "PUT", "/v1/devices/m1/groups", groups(&nine).as_bytes()).contains("at most 8")
    );
    assert!(
        service
            .refused(422, "PUT", "/v1/devices/m1/groups", groups(&["a", "a"]).as_bytes())
            .contains("twice")
    );

    let fingerprint = keys[2].fingerprint().to_string();
    let again = service.post("/v1/devices/m2/accept", &json!({ "fingerprint": fingerprint }));
    assert_eq!(again["groups"], json!(["all"]));
    let wrong = json!({ "fingerprint": keys[3].fingerprint().to_string() }).to_string();
    let error = service.refused(409, "POST", "/v1/devices/m2/accept", wrong.as_bytes());
    assert!(error.contains(&fingerprint) && error.contains(&keys[3].fingerprint().to_string()), "{error}");

    assert_eq!(service.post("/v1/devices/m2/reset", &json!({}))["state"], "forgotten");
    assert!(service.device("m2").is_none());
    assert!(service.refused(404, "GET", "/v1/devices/m2", b"").contains("m2 is not known"));
    assert_eq!(service.get("/v1/devices/m1"), service.device("m1").unwrap());
    let status = service.get("/v1/status");
    assert_eq!(status["devices"], json!({ "accepted": 4, "pending": 0 }));
    assert_eq!((&status["attached"], &status["prefix"]), (&json!("embedded"), &json!("ota")));
    assert!(status["counters"]["broker_accepted"].is_u64());
}

#[test]
fn a_list_is_imported_whole_or_not_at_all() {
    let service = Service::start(On::Itself);
    service.import(&[("known", &device_key(9).public())]);
    let (key, class) = (hex_key(&device_key(1).public()), service.fixture.class.to_hex());
    let list = format!("m1,{key},{class},all\nknown,{key},{class},all\n");
    let error = service.refused(409, "POST", "/v1/devices/import", list.as_bytes());
    assert!(error.starts_with("line 2: ") && error.contains("known"), "{error}");
    assert_eq!(service.get("/v1/status")["devices"]["accepted"], json!(1));
}

#[test]
fn many_operators_at_once_are_all_answered_and_changes_come_one_after_the_other() {
    let service = Service::start_with(On::Itself, &["limits.admin-requests=4"]);
    let release = service.release(10_000, 5);
    service.publish(&release);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..5 {
                    service.campaign(&release);
                    service.get("/v1/campaigns");
                }
            });
        }
    });
    let campaigns = service.get("/v1/campaigns");
    let campaigns = campaigns.as_array().unwrap();
    assert_eq!(campaigns.len(), 80);
    let mut versions: Vec<u64> =
        campaigns.iter().map(|campaign| campaign["document_version"].as_u64().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=80).collect::<Vec<_>>(), "no version is given twice");
    assert_eq!(campaigns.iter().filter(|campaign| campaign["state"] == "active").count(), 1);
}

//! `whimbrel release publish`: the exact requests, again and again, and after a broken connection.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use whimbrel_protocol::envelope::Envelope;

use crate::http::{Answer, Early, Request, Server};
use crate::support::{Place, Run, build_args, noise, text};

/// A service that can only take releases. It knows which payloads it has.
#[derive(Default)]
struct Stored {
    payloads: BTreeSet<String>,
    /// Number of uploads that break after 1,000 bytes.
    breaks: usize,
    /// The service takes no payload.
    full: bool,
}

fn service(stored: &Arc<Mutex<Stored>>) -> Server {
    let (fragile, stored) = (Arc::clone(stored), Arc::clone(stored));
    let early = move |request: &Request| {
        let mut stored = fragile.lock().unwrap();
        if !request.line.starts_with("PUT") {
            return None;
        }
        if stored.full {
            return Some(Early::Refuse(507, json!({ "error": "no room in data/payloads" })));
        }
        (stored.breaks > 0).then(|| {
            stored.breaks -= 1;
            Early::HangUpAfter(1000)
        })
    };
    Server::start_fragile(early, move |request| answer(&mut stored.lock().unwrap(), request))
}

fn answer(stored: &mut Stored, request: &Request) -> Answer {
    match request.line.split_once(' ').unwrap() {
        ("POST", "/v1/releases") => {
            let manifest = Envelope::decode(&request.body).unwrap().unverified_manifest().unwrap();
            let missing: Vec<Json> = manifest
                .payloads()
                .iter()
                .filter(|payload| !stored.payloads.contains(&payload.transfer.index_digest.to_hex()))
                .map(|payload| {
                    json!({
                        "index_digest": payload.transfer.index_digest.to_hex(),
                        "transfer_size": payload.transfer.layout.transfer_size(),
                    })
                })
                .collect();
            let state = if missing.is_empty() { "complete" } else { "incomplete" };
            Answer::Json(200, release(&manifest.digest().to_hex(), state, &json!(missing)))
        }
        ("PUT", path) => {
            let index_digest = path.strip_prefix("/v1/payloads/").unwrap();
            stored.payloads.insert(index_digest.into());
            let size = request.body.len();
            Answer::Json(200, json!({ "index_digest": index_digest, "transfer_size": size }))
        }
        other => panic!("{other:?}"),
    }
}

/// The service's answer about a release.
fn release(digest: &str, state: &str, missing: &Json) -> Json {
    json!({
        "release": digest, "sequence": 17, "version": "1.4.2", "vendor": "00", "class": "00", "image_size": 1,
        "state": state, "missing": missing,
    })
}

/// A folder with a signed release of two payloads.
fn signed() -> (Place, Vec<String>) {
    let place = Place::with_init();
    place.write("a", text(30_000));
    place.write("b", noise(20_000, 1));
    let mut args = build_args("", "r");
    args.splice(2..4, ["--slot-images", "a", "b"]);
    place.run(args).good();
    place.run(["release", "sign", "r"]).quiet();
    let names = place.files().into_keys().filter_map(|name| {
        name.strip_prefix("r/").and_then(|name| name.strip_suffix(".payload")).map(String::from)
    });
    let names = names.collect();
    (place, names)
}

fn publish(place: &Place, server: &Server) -> Run {
    place.run(["release", "publish", "r", "--service", &server.address, "--json"])
}

#[test]
fn every_patch_is_sent_beside_the_full_payload() {
    let place = Place::with_init();
    let image = noise(60_000, 1);
    place.write("image", &image);
    place.write("one", &image[100..]);
    place.write("two", &image[..59_000]);
    let args = build_args("image", "r").into_iter().chain(["--codec", "lzma", "--base", "one", "two"]);
    place.run(args).good();
    place.run(["release", "sign", "r"]).quiet();
    let stored = Arc::<Mutex<Stored>>::default();
    let server = service(&stored);
    assert_eq!(publish(&place, &server).json()["state"], "complete");
    let files = place.files().into_keys().filter_map(|name| {
        name.strip_prefix("r/").and_then(|name| name.strip_suffix(".payload")).map(String::from)
    });
    assert_eq!(files.collect::<BTreeSet<_>>(), stored.lock().unwrap().payloads);
    assert_eq!(stored.lock().unwrap().payloads.len(), 3);
}

#[test]
fn the_envelope_goes_first_then_each_payload_that_is_missing() {
    let (place, names) = signed();
    let server = service(&Arc::default());
    let told = publish(&place, &server).json();
    assert_eq!(told["state"], "complete");
    let requests = server.requests();
    let token = String::from_utf8(place.read("admin.token")).unwrap();
    for request in &requests {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {}", token.trim()).as_str()));
    }
    assert_eq!(requests.len(), 4);
    for number in [0, 3] {
        assert_eq!(requests[number].line, "POST /v1/releases");
        assert_eq!(requests[number].header("content-type"), Some("application/cbor"));
        assert!(requests[number].body == place.read("r/release.suit"));
    }
    let mut sent: Vec<&Request> = requests[1..3].iter().collect();
    sent.sort_by(|one, other| one.line.cmp(&other.line));
    for (request, name) in sent.iter().zip(&names) {
        assert_eq!(request.line, format!("PUT /v1/payloads/{name}"));
        assert!(request.body == place.read(&format!("r/{name}.payload")));
    }
    let bytes: usize = sent.iter().map(|request| request.body.len()).sum();
    assert_eq!(told["sent"], bytes);
}

#[test]
fn publishing_again_sends_no_payload() {
    let (place, _) = signed();
    let server = service(&Arc::default());
    publish(&place, &server).json();
    let before = server.lines().len();
    let told = publish(&place, &server).json();
    assert_eq!((&told["state"], &told["sent"]), (&json!("complete"), &json!(0)));
    assert_eq!(server.lines()[before..], ["POST /v1/releases"]);
}

#[test]
fn a_broken_upload_is_made_good_by_publishing_again() {
    let (place, names) = signed();
    let stored = Arc::new(Mutex::new(Stored { breaks: 1, ..Stored::default() }));
    let server = service(&stored);
    let line = publish(&place, &server).line();
    assert!(line.contains("running the command again is safe"), "{line}");
    publish(&place, &server).json();
    assert_eq!(stored.lock().unwrap().payloads.iter().cloned().collect::<Vec<_>>(), names);
    // One payload that has arrived does not go again.
    let stored = Arc::new(Mutex::new(Stored::default()));
    stored.lock().unwrap().payloads.insert(names[0].clone());
    let server = service(&stored);
    publish(&place, &server).json();
    let puts: Vec<String> = server.lines().into_iter().filter(|line| line.starts_with("PUT")).collect();
    assert_eq!(puts, [format!("PUT /v1/payloads/{}", names[1])]);
}

#[test]
fn a_payload_that_is_refused_is_not_sent() {
    let (place, _) = signed();
    let server = service(&Arc::new(Mutex::new(Stored { full: true, ..Stored::default() })));
    assert_eq!(publish(&place, &server).line(), "service refused (507): no room in data/payloads");
    assert!(
        server.requests().iter().all(|request| request.body.is_empty() || request.line.starts_with("POST"))
    );
}

#[test]
fn a_release_that_nobody_signed_or_a_wrong_payload_never_leaves() {
    let (place, names) = signed();
    let server = service(&Arc::default());
    let file = format!("r/{}.payload", names[1]);
    let good = place.read(&file);
    place.write(&file, &good[1..]);
    assert!(publish(&place, &server).line().contains("the manifest says"));
    let mut bad = good.clone();
    bad[5] ^= 1;
    place.write(&file, bad);
    assert!(publish(&place, &server).line().contains("is not the payload that the manifest names"));
    assert!(server.lines().iter().all(|line| !line.contains(&names[1])), "{:?}", server.lines());
    place.write("image", "x");
    place.run(build_args("image", "unsigned")).good();
    let before = server.lines().len();
    let line = place.run(["release", "publish", "unsigned", "--service", &server.address]).line();
    assert!(line.contains("nobody has signed this release"), "{line}");
    assert_eq!(server.lines().len(), before);
}

#[test]
fn what_the_service_refuses_is_told_in_its_own_words() {
    let (place, _) = signed();
    for (status, error) in [
        (409, "another envelope with sequence 17 is published for this class: raise --sequence"),
        (422, "signature does not count: 0 of 1 release keys"),
        (507, "no room for 20,000 bytes in data/payloads"),
    ] {
        let server = Server::always(status, json!({ "error": error }));
        assert_eq!(publish(&place, &server).line(), format!("service refused ({status}): {error}"));
    }
}

#[test]
fn a_service_that_answers_for_another_release_is_not_believed() {
    let (place, _) = signed();
    let server = Server::always(200, release("00", "complete", &json!([])));
    assert!(publish(&place, &server).line().contains("it named another release"));
    let told = place.run(["inspect", "r", "--json"]).json();
    let digest = told["release"].as_str().unwrap();
    let missing = json!([{ "index_digest": "../../etc/passwd", "transfer_size": 1 }]);
    let server = Server::always(200, release(digest, "incomplete", &missing));
    assert!(publish(&place, &server).line().contains("which the release does not name"));
    let server = Server::always(200, release(digest, "incomplete", &json!([])));
    assert!(publish(&place, &server).line().contains("still lacks"));
}

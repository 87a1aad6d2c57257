//! `protocol/schema.cddl` describes the golden messages.

use std::path::PathBuf;

use cddl::validate_cbor_from_slice;
use whimbrel_protocol::codec::Writer;
use whimbrel_protocol::patch::{Header, Tuning};

fn protocol() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protocol")
}

fn vector(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(protocol().join(format!("vectors/messages/{name}.hex"))).unwrap();
    let hex: String =
        text.lines().filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace).collect();
    hex::decode(hex).unwrap()
}

/// Checks `item` against the rule `name` of the schema.
fn check(rule: &str, item: &[u8]) -> Result<(), String> {
    let schema = std::fs::read_to_string(protocol().join("schema.cddl")).unwrap();
    // A validator checks against the first rule.
    let schema = format!("start = {rule}\n{schema}");
    validate_cbor_from_slice(&schema, item, None).map_err(|error| error.to_string())
}

/// Turns a CBOR sequence behind `raw` bytes into an array, whose first item is those bytes.
fn sequence(message: &[u8], raw: usize, items: usize, rest: bool) -> Vec<u8> {
    let body = &message[1..];
    let mut writer = Writer::new();
    let (head, tail) = body.split_at(raw);
    writer.array(items);
    if raw > 0 {
        writer.bytes(head);
    }
    if rest {
        let mut reader = whimbrel_protocol::codec::Reader::new("sequence", tail, usize::MAX).unwrap();
        let first = reader.item().unwrap();
        writer.raw(first).bytes(reader.rest());
    } else {
        writer.raw(tail);
    }
    writer.into_bytes()
}

/// The header of a golden patch.
fn patch_header(name: &str) -> Vec<u8> {
    let mut patch = std::fs::read(protocol().join(format!("vectors/patch/{name}.patch"))).unwrap();
    let (_, len) = Header::decode(&patch).unwrap();
    patch.truncate(len);
    patch
}

fn payload(name: &str) -> Vec<u8> {
    let bytes = vector(name);
    let object = whimbrel_protocol::cose::Sign1::decode(&bytes).unwrap();
    object.unverified_payload().unwrap().to_vec()
}

#[test]
fn the_schema_describes_every_golden_message() {
    let body = |name: &str| vector(name)[1..].to_vec();
    for (rule, item) in [
        ("hello-body", body("hello")),
        ("hello-body", body("hello-of-a-new-device")),
        ("chunk-request-sequence", sequence(&vector("chunk-request"), 4, 4, false)),
        ("chunk-request-sequence", sequence(&vector("chunk-request-of-holes"), 4, 5, false)),
        ("page-request-sequence", sequence(&vector("page-request"), 4, 2, false)),
        ("page-request-sequence", sequence(&vector("page-request-of-the-list"), 4, 2, false)),
        ("document-request-sequence", sequence(&vector("document-request-of-a-manifest"), 0, 2, false)),
        ("document-request-sequence", sequence(&vector("document-request-of-a-root"), 0, 2, false)),
        ("status-body", body("status")),
        ("chunk-sequence", sequence(&vector("chunk"), 2, 3, true)),
        ("page-sequence", sequence(&vector("page"), 2, 3, true)),
        ("page-sequence", sequence(&vector("page-list"), 2, 3, true)),
        ("refusal-sequence", sequence(&vector("refusal-busy"), 0, 2, false)),
        ("refusal-sequence", sequence(&vector("refusal-unknown"), 0, 1, false)),
        ("refusal-sequence", sequence(&vector("refusal-of-a-payload"), 0, 2, false)),
        ("refusal-sequence", sequence(&vector("refusal-of-a-payload-for-now"), 0, 3, false)),
        ("signed", vector("campaign")),
        ("signed", vector("report")),
        ("campaign", payload("campaign")),
        ("assignment", payload("assignment")),
        ("assignment", payload("assignment-with-an-order")),
        ("beacon", payload("beacon")),
        ("hello-answer", payload("hello-answer")),
        ("report", payload("report")),
        ("enrolment", payload("enrolment")),
        ("signed-root", vector("root")),
        ("patch-header", patch_header("small")),
        ("patch-header", patch_header("medium")),
    ] {
        check(rule, &item).unwrap_or_else(|error| panic!("{rule}: {error}\n{}", hex::encode(&item)));
    }
}

/// Shows that the check can fail: it checks messages against rules that are not their own.
#[test]
fn the_schema_tells_messages_apart() {
    assert!(check("beacon", &payload("campaign")).is_err());
    assert!(check("hello-answer", &payload("report")).is_err());
    assert!(check("status-body", &vector("hello")[1..]).is_err());
    assert!(check("refusal-sequence", &sequence(&vector("chunk-request"), 4, 4, false)).is_err());
    let (header, _) = Header::decode(&patch_header("small")).unwrap();
    let tuning = Tuning { dictionary_log2: 7, ..header.tuning };
    assert!(check("patch-header", &Header { tuning, ..header }.encode()).is_err());
}

//! Every message against its frozen vector, and every bad one against its one error.
//!
//! The vectors are commented hex. `WHIMBREL_WRITE_VECTORS=1` writes those that are missing; the ones that
//! are there are frozen for good, because devices in the field speak them.

use std::path::PathBuf;

use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::cose::{Kind, Sign1, sign_attached};
use whimbrel_protocol::ids::{CampaignId, ChunkIndex, Digest, Nonce, PayloadTag, ShortDigest};
use whimbrel_protocol::manifest::{DecoderMemory, ImageId};
use whimbrel_protocol::message::{
    Answer, Assignment, Beacon, Campaign, ChunkMessage, ChunkRequest, DeferReason, DocumentRequest,
    Enrolment, FailureCode, GroupVersion, Hello, HelloAnswer, Outcome, PageMessage, PageNumber, PageRequest,
    Refusal, RefusalCode, Report, Request, State, Status,
};
use whimbrel_protocol::testing::{Fixture, FixturePatch, OrderOptions};

use crate::annotation::{Part, annotate, parse_hex};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/messages")
}

fn hello() -> Hello {
    let fixture = Fixture::new();
    Hello {
        version_max: 1,
        class: fixture.class.tag(),
        running: ShortDigest([0x11; 8]),
        sequence: 41,
        root: 1,
        assignment: 3,
        groups: vec![GroupVersion { group: fixture.group, version: 7 }],
        nonce: Nonce([0x22; 8]),
        report: Some(ShortDigest([0x33; 8])),
    }
}

/// Two patches of which only sizes and digests matter here.
fn release_with_patches(fixture: &Fixture) -> Vec<u8> {
    let decoder = DecoderMemory { memory_bytes: 40_960, dictionary_bytes: 16_384 };
    let patch = |seed: u8| FixturePatch {
        base: ImageId { digest: Digest::of(&[seed]), size: 4_900 + u64::from(seed) },
        bytes: vec![seed; 1_000 + usize::from(seed)],
        decoder,
    };
    fixture.release_with_patches(vec![0x5a; 5_000], 42, 10, &[patch(1), patch(2)]).envelope
}

fn answer() -> HelloAnswer {
    let fixture = Fixture::new();
    HelloAnswer {
        echo: Nonce([0x22; 8]).echo(&fixture.device),
        time: fixture.issued,
        root: 1,
        assignment: 4,
        groups: vec![GroupVersion { group: fixture.group, version: 8 }],
        report: None,
        key: fixture.device_key.public().id(),
    }
}

fn report() -> Report {
    let fixture = Fixture::new();
    Report {
        device: fixture.device,
        number: 2,
        campaign: CampaignId([1; 8]),
        attempt: 1,
        release: Digest([0x44; 32]),
        outcome: Outcome::Reverted,
        failure: Some(FailureCode::Unhealthy),
        running: ShortDigest([0x11; 8]),
        sequence: 41,
        time: fixture.issued,
        bytes_received: 102_400,
        bytes_twice: 4096,
        said: "nothing listens on port 8080".to_owned(),
    }
}

fn status() -> Status {
    Status {
        campaign: CampaignId([1; 8]),
        attempt: 1,
        state: State::Deferred,
        deferred: Some(DeferReason::Busy),
        failure: None,
        chunks_held: 10,
        chunks: 256,
        bytes_received: 45_056,
        bytes_twice: 4096,
    }
}

const TAG: PayloadTag = PayloadTag([0xa1, 0xa2, 0xa3, 0xa4]);

fn range() -> ChunkRequest {
    ChunkRequest { payload: TAG, first: ChunkIndex(300), count: 12, per_message: 4, wanted: None }
}

fn holes() -> ChunkRequest {
    ChunkRequest { wanted: Some(vec![0b1000_0001, 0b0000_0010]), ..range() }
}

/// Every vector: its name, its bytes, and how to comment them.
fn vectors() -> Vec<(&'static str, Vec<u8>, Vec<Part>)> {
    let fixture = Fixture::new();
    let release = fixture.release((0..5000u32).map(|i| i.to_be_bytes()[3]).collect(), 42, 12);
    let head = |text| Part::Raw(1, text);
    let options = OrderOptions { version: 8, min_sequence: 40, spread_s: 3600, ..Default::default() };
    let order = fixture.order(&release, options);
    let tag = || Part::Raw(4, "payload tag");
    let enrolment =
        Enrolment { device: fixture.device.clone(), key: fixture.device_key.public(), class: fixture.class };
    vec![
        ("hello", hello().encode(), vec![head("version 1, kind 1: hello"), Part::Cbor]),
        (
            "hello-of-a-new-device",
            Hello { assignment: 0, groups: vec![], report: None, running: ShortDigest::default(), ..hello() }
                .encode(),
            vec![head("version 1, kind 1: hello"), Part::Cbor],
        ),
        (
            "chunk-request",
            range().encode(),
            vec![head("version 1, kind 2: chunk request"), tag(), Part::Cbor],
        ),
        (
            "chunk-request-of-holes",
            holes().encode(),
            vec![head("version 1, kind 2: chunk request"), tag(), Part::Cbor],
        ),
        (
            "page-request",
            PageRequest { payload: TAG, page: PageNumber::Page(3) }.encode(),
            vec![head("version 1, kind 3: page request"), tag(), Part::Cbor],
        ),
        (
            "page-request-of-the-list",
            PageRequest { payload: TAG, page: PageNumber::List }.encode(),
            vec![head("version 1, kind 3: page request"), tag(), Part::Cbor],
        ),
        (
            "document-request-of-a-manifest",
            DocumentRequest::Manifest(ShortDigest([0x44; 8])).encode(),
            vec![head("version 1, kind 4: document request"), Part::Cbor],
        ),
        (
            "document-request-of-a-root",
            DocumentRequest::Root(2).encode(),
            vec![head("version 1, kind 4: document request"), Part::Cbor],
        ),
        ("status", status().encode(), vec![head("version 1, kind 5: status"), Part::Cbor]),
        (
            "chunk",
            ChunkMessage::encode(TAG, ChunkIndex(300), &[0x55; 24]),
            vec![
                head("version 1, kind 8: chunk"),
                Part::Raw(2, "first 2 bytes of the payload tag"),
                Part::Cbor,
                Part::Rest("chunks"),
            ],
        ),
        (
            "page",
            PageMessage::encode(TAG, PageNumber::Page(0), release.index.page(0)),
            vec![
                head("version 1, kind 9: page"),
                Part::Raw(2, "first 2 bytes of the payload tag"),
                Part::Cbor,
                Part::Rest("chunk digests"),
            ],
        ),
        (
            "page-list",
            PageMessage::encode(TAG, PageNumber::List, &release.index.list),
            vec![
                head("version 1, kind 9: page"),
                Part::Raw(2, "first 2 bytes of the payload tag"),
                Part::Cbor,
                Part::Rest("page digests"),
            ],
        ),
        (
            "refusal-busy",
            Refusal { code: RefusalCode::Busy, retry_after_s: Some(90), payload: None }.encode(),
            vec![head("version 1, kind 10: refusal"), Part::Cbor],
        ),
        (
            "refusal-unknown",
            Refusal { code: RefusalCode::Unknown, retry_after_s: None, payload: None }.encode(),
            vec![head("version 1, kind 10: refusal"), Part::Cbor],
        ),
        (
            "refusal-of-a-payload",
            Refusal { code: RefusalCode::NotYours, retry_after_s: None, payload: Some(TAG) }.encode(),
            vec![head("version 1, kind 10: refusal"), Part::Cbor],
        ),
        (
            "refusal-of-a-payload-for-now",
            Refusal { code: RefusalCode::OverQuota, retry_after_s: Some(3600), payload: Some(TAG) }.encode(),
            vec![head("version 1, kind 10: refusal"), Part::Cbor],
        ),
        ("hello-answer", fixture.answer(&answer()), vec![Part::Cbor]),
        ("campaign", fixture.campaign_of(&fixture.group, order.clone(), options), vec![Part::Cbor]),
        ("assignment", fixture.assignment(4, core::slice::from_ref(&fixture.group), None), vec![Part::Cbor]),
        ("assignment-with-an-order", fixture.assignment(4, &[], Some(order)), vec![Part::Cbor]),
        ("beacon", fixture.beacon(5, &[(fixture.group.clone(), 8)], 86_400), vec![Part::Cbor]),
        (
            "report",
            sign_attached(&fixture.device_key, Kind::Report, None, &report().encode()),
            vec![Part::Cbor],
        ),
        (
            "enrolment",
            sign_attached(&fixture.device_key, Kind::Enrolment, None, &enrolment.encode()),
            vec![Part::Cbor],
        ),
        ("root", fixture.root_bytes(), vec![Part::Cbor]),
        ("release", release.envelope, vec![Part::Cbor]),
        ("release-with-patches", release_with_patches(&fixture), vec![Part::Cbor]),
    ]
}

#[test]
fn every_message_is_byte_for_byte_its_frozen_vector() {
    for (name, bytes, parts) in vectors() {
        let path = folder().join(format!("{name}.hex"));
        if !path.exists() && std::env::var_os("WHIMBREL_WRITE_VECTORS").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, annotate(name, &bytes, &parts)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
        assert_eq!(parse_hex(&text), bytes, "{name} has changed: vectors of version 1 are frozen");
    }
}

#[test]
fn every_vector_file_belongs_to_a_message() {
    let known: Vec<_> = vectors().into_iter().map(|(name, ..)| format!("{name}.hex")).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name) || name == "refused.tsv" || name == "README.md", "{name}");
    }
}

#[test]
fn every_message_reads_back_as_what_was_written() {
    assert_eq!(Request::decode(&hello().encode()), Ok(Request::Hello(hello())));
    assert_eq!(Request::decode(&range().encode()), Ok(Request::Chunks(range())));
    assert_eq!(Request::decode(&holes().encode()), Ok(Request::Chunks(holes())));
    for page in [PageNumber::List, PageNumber::Page(0), PageNumber::Page(127)] {
        let request = PageRequest { payload: TAG, page };
        assert_eq!(Request::decode(&request.encode()), Ok(Request::Page(request)));
    }
    for request in [DocumentRequest::Manifest(ShortDigest([1; 8])), DocumentRequest::Root(3)] {
        assert_eq!(Request::decode(&request.encode()), Ok(Request::Document(request)));
    }
    assert_eq!(Request::decode(&status().encode()), Ok(Request::Status(status())));
    for (retry_after_s, payload) in [(None, None), (Some(90), None), (None, Some(TAG)), (Some(90), Some(TAG))]
    {
        let refusal = Refusal { code: RefusalCode::Busy, retry_after_s, payload };
        assert_eq!(Answer::decode(&refusal.encode()), Ok(Answer::Refusal(refusal)));
    }
    let message = ChunkMessage::encode(TAG, ChunkIndex(70), b"chunk");
    let Ok(Answer::Chunk(chunk)) = Answer::decode(&message) else { panic!() };
    assert!(chunk.is_of(TAG) && !chunk.is_of(PayloadTag([9; 4])));
    assert_eq!((chunk.first, chunk.bytes), (ChunkIndex(70), &b"chunk"[..]));
    let message = PageMessage::encode(TAG, PageNumber::Page(2), b"page");
    let Ok(Answer::Page(page)) = Answer::decode(&message) else { panic!() };
    assert_eq!((page.page, page.bytes), (PageNumber::Page(2), &b"page"[..]));

    assert_eq!(HelloAnswer::decode(&answer().encode()), Ok(answer()));
    assert_eq!(Report::decode(&report().encode()), Ok(report()));
    for (name, bytes, _) in vectors() {
        let Ok(object) = Sign1::decode(&bytes) else { continue };
        let payload = object.unverified_payload().unwrap();
        let again = match object.claimed_kind().unwrap() {
            Kind::Campaign => Campaign::decode(payload).unwrap().encode(),
            Kind::Assignment => Assignment::decode(payload).unwrap().encode(),
            Kind::Beacon => Beacon::decode(payload).unwrap().encode(),
            Kind::Answer => HelloAnswer::decode(payload).unwrap().encode(),
            Kind::Report => Report::decode(payload).unwrap().encode(),
            Kind::Enrolment => Enrolment::decode(payload).unwrap().encode(),
            Kind::Root => unreachable!("a root is a COSE_Sign"),
        };
        assert_eq!(again, payload, "{name}");
    }
}

#[test]
fn a_chunk_request_is_at_most_32_bytes() {
    let largest = ChunkRequest {
        payload: TAG,
        first: ChunkIndex(65_406),
        count: 128,
        per_message: 64,
        wanted: Some(vec![0xff; 16]),
    };
    assert!(largest.encode().len() <= 32);
    assert_eq!(Request::decode(&largest.encode()), Ok(Request::Chunks(largest)));
}

/// Messages of one payload are cut at the same places whoever asks, so that the service can share them.
#[test]
fn messages_end_at_multiples_of_their_size_and_at_holes() {
    let runs =
        |request: ChunkRequest| request.runs().map(|(first, count)| (first.0, count)).collect::<Vec<_>>();
    assert_eq!(runs(range()), [(300, 4), (304, 4), (308, 4)]);
    assert_eq!(
        runs(ChunkRequest { first: ChunkIndex(301), ..range() }),
        [(301, 3), (304, 4), (308, 4), (312, 1)]
    );
    assert_eq!(runs(holes()), [(300, 1), (307, 1), (309, 1)]);
}

/// What must not be accepted, and the one error that each gets.
#[test]
fn every_bad_message_gets_its_one_error() {
    let mut wrong = Vec::new();
    let table = std::fs::read_to_string(folder().join("refused.tsv")).unwrap();
    for row in table.lines().filter(|row| !row.starts_with('#') && !row.is_empty()) {
        let [channel, hex, error, what] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("four columns: {row}");
        };
        let bytes = hex::decode(hex).unwrap();
        let got = match channel {
            "q" => Request::decode(&bytes).map(|_| ()),
            "c" => Answer::decode(&bytes).map(|_| ()),
            "report" => Report::decode(&bytes).map(|_| ()),
            "campaign" => Campaign::decode(&bytes).map(|_| ()),
            "assignment" => Assignment::decode(&bytes).map(|_| ()),
            "beacon" => Beacon::decode(&bytes).map(|_| ()),
            "answer" => HelloAnswer::decode(&bytes).map(|_| ()),
            other => panic!("{other}"),
        };
        let got = got.map_or_else(|error| format!("{error:?}"), |()| "accepted".to_owned());
        if got != error {
            wrong.push(format!("{channel}\t{hex}\t{got}\t{what}"));
        }
    }
    assert!(wrong.is_empty(), "the table says otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn a_wait_beyond_an_hour_is_cut_to_an_hour() {
    let long = Refusal { code: RefusalCode::Busy, retry_after_s: Some(1_000_000), payload: None };
    let Ok(Answer::Refusal(refusal)) = Answer::decode(&long.encode()) else { panic!() };
    assert_eq!(refusal.retry_after_s, Some(3600));
}

/// Every message of every kind, cut off at every byte, is an error and not a panic.
#[test]
fn a_message_that_is_cut_off_anywhere_is_refused() {
    for (name, bytes, _) in vectors() {
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            let is_chunk = matches!(bytes[0], 0x18 | 0x19);
            if is_chunk && end > 6 {
                continue; // what follows the head is proved by the index, not by its form
            }
            let request = Request::decode(cut);
            assert!(
                request.is_err() || name.starts_with("chunk-request"),
                "{name} cut at {end}: {request:?}"
            );
            if let Ok(Answer::Signed(object)) = Answer::decode(cut) {
                assert!(Sign1::decode(object).is_err(), "{name} cut at {end}");
            }
        }
    }
}

#[test]
fn messages_of_other_versions_are_refused_by_name() {
    for version in (0..12u8).filter(|version| *version != 1) {
        let mut message = hello().encode();
        message[0] = version << 4 | 1;
        assert_eq!(Request::decode(&message), Err(DecodeError::Version { got: version }));
    }
}

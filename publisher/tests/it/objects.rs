//! One object of each kind that `whimbrel inspect` explains, always with the same bytes.

use whimbrel_protocol::chunk::{ChunkSalt, ChunkSet, Index, Layout};
use whimbrel_protocol::cose::{Kind, SigningKey, sign_attached};
use whimbrel_protocol::device::{
    Checkpoint, Deployment, JournalSector, Past, Record, Scope, ScopeVersion, Stage,
};
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::{
    CampaignId, ChunkIndex, ClassId, DeviceId, Digest, GroupName, Nonce, PayloadTag, Prefix, ShortDigest,
    VendorId,
};
use whimbrel_protocol::manifest::{
    ComponentId, DecoderMemory, Image, ImageId, Images, PatchSource, RUNNING_COMPONENT, ReleaseManifest,
    Summary, Text, TransferDescriptor,
};
use whimbrel_protocol::message::{
    Assignment, Beacon, Campaign, CampaignState, ChunkMessage, ChunkRequest, DeferReason, DocumentRequest,
    Enrolment, FailureCode, GroupVersion, Hello, HelloAnswer, Order, Outcome, PageMessage, PageNumber,
    PageRequest, Policy, Refusal, RefusalCode, Report, State, Status, Validity, group_hash,
};
use whimbrel_protocol::time::UnixTime;

use crate::support::{ed25519, p256, root};

const NOW: u64 = 1_790_000_000;

fn vendor() -> VendorId {
    VendorId::from_domain("meters.example")
}

fn class() -> ClassId {
    ClassId::from_name(vendor(), "meter-3")
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn device() -> DeviceId {
    DeviceId::new("meter-17").unwrap()
}

fn validity() -> Validity {
    Validity { version: 4, issued: UnixTime::from_secs(NOW), expires: UnixTime::from_secs(NOW + 2_592_000) }
}

fn order() -> Order {
    Order {
        campaign: CampaignId([0x3b, 0x9c, 0, 1, 2, 3, 4, 5]),
        attempt: 2,
        state: CampaignState::Active,
        release: Digest([0x4f; 32]),
        sequence: 17,
        envelope_size: 441,
        image_size: 1_048_576,
        min_sequence: 12,
        class: class(),
        not_before: UnixTime::from_secs(NOW + 3600),
        spread_s: 7200,
        policy: Policy::Soft,
        priority: 5,
    }
}

fn image(seed: u8) -> Image {
    let decoder = DecoderMemory { memory_bytes: 1_136_640, dictionary_bytes: 1 << 20 };
    let layout = Layout::new(12, 250_001).unwrap();
    Image::new(
        Digest([seed; 32]),
        1_048_576,
        TransferDescriptor::lzma(layout, Digest([seed + 1; 32]), decoder),
    )
}

fn manifest(images: Images) -> ReleaseManifest {
    let summary = Summary {
        description: "Fixes the clock.".into(),
        vendor_domain: "meters.example".into(),
        class_name: "meter-3".into(),
        version: "1.4.2-rc.1".into(),
    };
    ReleaseManifest {
        vendor: vendor(),
        class: class(),
        version: vec![1, 4, 2, -1, 1],
        sequence: 17,
        images,
        text: Some(Text::english(ComponentId::app(), summary)),
    }
}

/// A release for any slot, signed by the release key of [`trust`].
pub(crate) fn release(keys: &[&SigningKey]) -> Vec<u8> {
    let mut envelope = Envelope::unsigned(&manifest(Images::Any(image(1))).build().unwrap()).unwrap();
    keys.iter().for_each(|key| envelope.sign(key).unwrap());
    envelope.bytes().to_vec()
}

fn release_per_slot() -> Vec<u8> {
    let images = Images::PerSlot([(0, image(1)), (1, image(11))]);
    Envelope::unsigned(&manifest(images).build().unwrap()).unwrap().bytes().to_vec()
}

/// A release with two patches and the full payload.
fn release_with_patches() -> Vec<u8> {
    let patches = [(61, 12_345), (71, 23_456)].map(|(seed, size)| {
        let decoder = DecoderMemory { memory_bytes: 200_000, dictionary_bytes: 65_536 };
        let layout = Layout::new(10, size).unwrap();
        let base = ImageId { digest: Digest([seed; 32]), size: 1_040_000 + size };
        let index = Digest([seed + 1; 32]);
        PatchSource::new(base, TransferDescriptor::patch(layout, index, RUNNING_COMPONENT, decoder))
    });
    let image = Image { patches: patches.into(), ..image(1) };
    Envelope::unsigned(&manifest(Images::Any(image)).build().unwrap()).unwrap().bytes().to_vec()
}

/// The root of these objects: the release role has key 1.
pub(crate) fn trust() -> Vec<u8> {
    root(&[&ed25519(1), &p256(2)], 1).1
}

fn signed(seed: u8, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let key = ed25519(seed);
    let key_id = (!kind.is_by_device()).then(|| key.public().id());
    sign_attached(&key, kind, key_id, payload)
}

fn campaign() -> Vec<u8> {
    Campaign { prefix: Prefix::default(), group: group("all"), validity: validity(), order: order() }.encode()
}

fn record() -> Record {
    Record {
        root: trust(),
        scopes: vec![
            ScopeVersion { scope: Scope::Assignment, version: 3, payload: ShortDigest([1; 8]) },
            ScopeVersion { scope: Scope::Group(group("all")), version: 4, payload: ShortDigest([2; 8]) },
        ],
        assignment: Some(vec![1]),
        campaigns: vec![(group("all"), vec![2])],
        min_sequence: 12,
        deployment: Some(Deployment {
            order: order(),
            stage: Stage::Reverting(FailureCode::Unhealthy),
            arms: 1,
            bytes_received: 250_001,
            bytes_twice: 4096,
            said: "nothing listens on port 8080".into(),
            given_up: Vec::new(),
        }),
        outcomes: vec![Past {
            campaign: CampaignId([9; 8]),
            attempt: 1,
            outcome: Outcome::Failed,
            failure: Some(FailureCode::NoRoom),
        }],
        reports: vec![vec![3]],
        next_report: 8,
    }
}

fn journal() -> Vec<u8> {
    let mut held = ChunkSet::empty(62);
    (0..20).chain([25, 30]).for_each(|chunk| {
        held.insert(ChunkIndex(chunk));
    });
    let checkpoint =
        Checkpoint { asked: ChunkIndex(40), bytes_received: 90_112, bytes_twice: 0, ..Checkpoint::of(&held) };
    let newer = JournalSector { sequence: 8, index: Digest([2; 32]), checkpoint };
    let older = JournalSector { sequence: 7, ..newer.clone() };
    let mut area = vec![0; 3 * 4096];
    area[..512].copy_from_slice(&newer.encode());
    area[4096..4608].copy_from_slice(&older.encode());
    // A write that was cut short.
    area[4600] ^= 1;
    area
}

fn hello() -> Hello {
    Hello {
        version_max: 1,
        class: class().tag(),
        running: ShortDigest([0x56; 8]),
        sequence: 16,
        root: 1,
        assignment: 3,
        groups: vec![GroupVersion { group: group("all"), version: 4 }],
        nonce: Nonce([7; 8]),
        report: None,
    }
}

fn status(state: State, deferred: Option<DeferReason>, failure: Option<FailureCode>) -> Vec<u8> {
    Status {
        campaign: order().campaign,
        attempt: 2,
        state,
        deferred,
        failure,
        chunks_held: 31,
        chunks: 62,
        bytes_received: 131_072,
        bytes_twice: 4096,
    }
    .encode()
}

/// Everything, by name.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let tag = PayloadTag([2, 2, 2, 2]);
    let payload = vec![7; 3000];
    let layout = Layout::new(10, 3000).unwrap();
    let index = Index::build(ChunkSalt { image: Digest([1; 32]), transfer_size: 3000 }, layout, &payload);
    let assignment = Assignment {
        prefix: Prefix::default(),
        device: device(),
        validity: validity(),
        groups: vec![group("all"), group("pilots")],
        root: 1,
        order: None,
    };
    let beacon = Beacon {
        prefix: Prefix::default(),
        validity: validity(),
        groups: vec![(group_hash(&group("all")), 4)],
        root: 1,
    };
    let answer = HelloAnswer {
        echo: Nonce([7; 8]).echo(&device()),
        time: UnixTime::from_secs(NOW),
        root: 1,
        assignment: 3,
        groups: vec![GroupVersion { group: group("all"), version: 4 }],
        report: Some(ShortDigest([8; 8])),
        key: ed25519(1).public().id(),
    };
    let report = Report {
        device: device(),
        number: 8,
        campaign: order().campaign,
        attempt: 2,
        release: Digest([0x4f; 32]),
        outcome: Outcome::Reverted,
        failure: Some(FailureCode::Unhealthy),
        running: ShortDigest([0x56; 8]),
        sequence: 16,
        time: UnixTime::from_secs(NOW + 9000),
        bytes_received: 254_097,
        bytes_twice: 4096,
        said: "nothing listens on port 8080".to_owned(),
    };
    let enrolment = Enrolment { device: device(), key: ed25519(17).public(), class: class() };
    let chunks = |wanted: Option<Vec<u8>>| {
        ChunkRequest { payload: tag, first: ChunkIndex(10), count: 12, per_message: 4, wanted }.encode()
    };
    vec![
        ("release", release(&[&ed25519(1)])),
        ("release-unsigned", release(&[])),
        ("release-by-a-stranger", release(&[&ed25519(99), &p256(2)])),
        ("release-per-slot", release_per_slot()),
        ("release-with-patches", release_with_patches()),
        ("root", trust()),
        ("campaign", signed(203, Kind::Campaign, &campaign())),
        ("campaign-by-a-stranger", signed(204, Kind::Campaign, &campaign())),
        ("assignment", signed(203, Kind::Assignment, &assignment.encode())),
        (
            "assignment-with-order",
            signed(203, Kind::Assignment, &Assignment { order: Some(order()), ..assignment }.encode()),
        ),
        ("beacon", signed(204, Kind::Beacon, &beacon.encode())),
        ("answer", signed(204, Kind::Answer, &answer.encode())),
        ("report", signed(17, Kind::Report, &report.encode())),
        ("enrolment", signed(17, Kind::Enrolment, &enrolment.encode())),
        ("enrolment-of-another-key", signed(18, Kind::Enrolment, &enrolment.encode())),
        ("hello", hello().encode()),
        ("chunk-request", chunks(None)),
        ("chunk-request-holes", chunks(Some(vec![0b0000_0101, 0b1100]))),
        ("page-request", PageRequest { payload: tag, page: PageNumber::Page(3) }.encode()),
        ("page-request-list", PageRequest { payload: tag, page: PageNumber::List }.encode()),
        ("manifest-request", DocumentRequest::Manifest(ShortDigest([0x4f; 8])).encode()),
        ("root-request", DocumentRequest::Root(2).encode()),
        ("status", status(State::Downloading, None, None)),
        ("status-deferred", status(State::Deferred, Some(DeferReason::Battery), None)),
        ("status-failed", status(State::Failed, None, Some(FailureCode::NoRoom))),
        ("chunk", ChunkMessage::encode(tag, ChunkIndex(300), &payload[..2048])),
        ("page", PageMessage::encode(tag, PageNumber::Page(0), index.page(0))),
        ("page-list", PageMessage::encode(tag, PageNumber::List, &index.list)),
        ("refusal", Refusal { code: RefusalCode::Busy, retry_after_s: Some(90), payload: None }.encode()),
        (
            "refusal-for-good",
            Refusal { code: RefusalCode::NotYours, retry_after_s: None, payload: None }.encode(),
        ),
        ("record", record().encode()),
        ("journal", journal()),
        ("key-ed25519", ed25519(1).encode_file()),
        ("key-esp256", p256(1).encode_file()),
    ]
}

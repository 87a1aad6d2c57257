//! Keys, releases and vectors that several tests use.

use std::path::Path;

use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::cose::{Accept, PublicKey, SigningKey};
use whimbrel_protocol::envelope::{Envelope, Unverified, Verified};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::{
    Command, ComponentId, Condition, Content, DecoderMemory, Image, ImageId, Images, Manifest, Parameter,
    PatchSource, ReleaseManifest, ReportPolicy, Sequence, Severable, Summary, Text, TransferDescriptor,
};
use whimbrel_protocol::time::UnixTime;
use whimbrel_protocol::trust::{RoleKeys, Root};

pub(crate) fn p256_key(seed: u8) -> SigningKey {
    SigningKey::p256(&[seed; 32]).unwrap()
}

pub(crate) fn ed25519_key(seed: u8) -> SigningKey {
    SigningKey::ed25519(&[seed; 32])
}

/// A root with the given release keys; root, campaign and beacon have one key each.
pub(crate) fn root(release: &[&SigningKey], threshold: usize) -> Root {
    let role = |threshold, keys: &[&SigningKey]| RoleKeys {
        threshold,
        epoch: 0,
        keys: keys.iter().map(|key| key.public()).collect(),
    };
    Root {
        version: 1,
        issued: UnixTime::from_secs(1_790_000_000),
        expires: UnixTime::from_secs(1_890_000_000),
        roles: [
            role(1, &[&ed25519_key(201)]),
            role(threshold, release),
            role(1, &[&ed25519_key(203)]),
            role(1, &[&ed25519_key(204)]),
        ],
    }
}

pub(crate) fn vendor() -> VendorId {
    VendorId::from_domain("meters.example")
}

pub(crate) fn class() -> ClassId {
    ClassId::from_name(vendor(), "meter-3")
}

pub(crate) fn lzma_transfer(seed: u8) -> TransferDescriptor {
    let decoder = DecoderMemory { memory_bytes: 300_000, dictionary_bytes: 65_536 };
    TransferDescriptor::lzma(Layout::new(12, 70_000).unwrap(), Digest([seed; 32]), decoder)
}

pub(crate) fn image(seed: u8) -> Image {
    Image::new(Digest([seed; 32]), 131_072, lzma_transfer(seed.wrapping_add(100)))
}

pub(crate) fn text() -> Text {
    let summary = Summary {
        description: "Fixes the clock.".into(),
        vendor_domain: "meters.example".into(),
        class_name: "meter-3".into(),
        version: "1.4.2".into(),
    };
    Text::english(ComponentId::app(), summary)
}

pub(crate) fn release() -> ReleaseManifest {
    ReleaseManifest {
        vendor: vendor(),
        class: class(),
        version: vec![1, 4, 2],
        sequence: 17,
        images: Images::Any(image(1)),
        text: Some(text()),
    }
}

pub(crate) fn release_per_slot() -> ReleaseManifest {
    ReleaseManifest { images: Images::PerSlot([(0, image(1)), (1, image(2))]), ..release() }
}

pub(crate) fn base(seed: u8) -> ImageId {
    ImageId { digest: Digest([seed; 32]), size: 130_000 + u64::from(seed) }
}

pub(crate) fn patch_transfer(seed: u8) -> TransferDescriptor {
    let decoder = DecoderMemory { memory_bytes: 40_960, dictionary_bytes: 16_384 };
    TransferDescriptor::patch(Layout::new(12, 2_000).unwrap(), Digest([seed; 32]), 1, decoder)
}

/// With patches on bases 11, 12, ...
pub(crate) fn release_with_patches(count: u8) -> ReleaseManifest {
    let patches = (11..11 + count).map(|seed| PatchSource::new(base(seed), patch_transfer(seed + 100)));
    let image = Image { patches: patches.collect(), ..image(1) };
    ReleaseManifest { images: Images::Any(image), ..release() }
}

/// The release, signed by `keys` in turn.
pub(crate) fn signed(release: &ReleaseManifest, keys: &[&SigningKey]) -> Envelope<Unverified> {
    sign_manifest(&release.build().unwrap(), keys)
}

pub(crate) fn sign_manifest(manifest: &Manifest, keys: &[&SigningKey]) -> Envelope<Unverified> {
    let mut envelope = Envelope::unsigned(manifest).unwrap();
    keys.iter().for_each(|key| envelope.sign(key).unwrap());
    envelope
}

/// The manifest as a device sees it once the envelope is verified.
pub(crate) fn verified(content: Content) -> Envelope<Verified> {
    let key = ed25519_key(1);
    let envelope = sign_manifest(&Manifest::new(content).unwrap(), &[&key]);
    Envelope::decode(envelope.bytes()).unwrap().verify_with_keys(&[key.public()], 1, Accept::STRICT).unwrap()
}

pub(crate) fn condition(condition: Condition) -> Command {
    Command::Condition(condition, ReportPolicy::ALL)
}

pub(crate) fn fetch() -> Command {
    Command::Fetch(ReportPolicy::ON_FAILURE)
}

pub(crate) fn image_match() -> Command {
    condition(Condition::ImageMatch)
}

pub(crate) fn set(parameters: &[Parameter]) -> Command {
    Command::OverrideParameters(parameters.to_vec())
}

pub(crate) fn sequence(commands: &[Command]) -> Sequence {
    Sequence(commands.to_vec())
}

/// The parts of a manifest that says who it is for and which image it is about, and validates that.
pub(crate) fn content() -> Content {
    let shared = sequence(&[
        set(&[
            Parameter::VendorId(vendor()),
            Parameter::ClassId(class()),
            Parameter::ImageDigest(Digest([1; 32])),
            Parameter::ImageSize(131_072),
        ]),
        condition(Condition::VendorIdentifier),
        condition(Condition::ClassIdentifier),
    ]);
    Content {
        sequence_number: 1,
        components: vec![ComponentId::app()],
        shared,
        reference_uri: None,
        set_version: None,
        validate: Some(sequence(&[condition(Condition::ImageMatch)])),
        load: None,
        invoke: None,
        payload_fetch: None,
        install: None,
        text: None,
    }
}

/// The same with an install section.
pub(crate) fn with_install(commands: &[Command]) -> Content {
    Content { install: Some(Severable::Inline(sequence(commands))), ..content() }
}

pub(crate) fn source(seed: u8) -> Command {
    let image = image(seed);
    set(&[Parameter::Uri(image.uri), Parameter::FetchArguments(image.transfer)])
}

pub(crate) fn vector_text(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/suit").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub(crate) fn vector(path: &str) -> Vec<u8> {
    hex::decode(vector_text(path).trim()).unwrap()
}

/// The public key that the drafts print: SubjectPublicKeyInfo in PEM, whose last 64 bytes are the point.
pub(crate) fn draft_key() -> PublicKey {
    let pem = vector_text("keys/es256-TEST-ONLY-public.pem");
    let der = base64(pem.lines().filter(|line| !line.starts_with('-')).flat_map(str::bytes));
    let point = &der[der.len() - 64..];
    PublicKey::p256(point[..32].try_into().unwrap(), point[32..].try_into().unwrap()).unwrap()
}

fn base64(text: impl Iterator<Item = u8>) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for byte in text.filter(|byte| *byte != b'=') {
        bits = bits << 6 | ALPHABET.iter().position(|letter| *letter == byte).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

//! `whimbrel release verify`

use whimbrel_protocol::chunk::{ChunkSalt, Index, Layout};
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::{
    Command, Content, DecoderMemory, Filter, Image, ImageId, Images, LzmaHeader, LzmaProperties, Manifest,
    PatchSource, RUNNING_COMPONENT, ReleaseManifest, Sequence, Severable, TransferDescriptor,
};
use whimbrel_protocol::patch::Header;
use whimbrel_publisher::patch::{PatchOptions, diff};
use whimbrel_publisher::release::{self, ReleaseError, ReleaseFolder};

use crate::support::{Place, Run, build_args, ed25519, noise, root, text};

/// A signed release of `image`, and the name of its payload.
fn signed(image: &[u8]) -> (Place, String) {
    let place = Place::new();
    place.write("image", image);
    place.run(build_args("image", "r")).good();
    sign(&place);
    let payload = place.files().into_keys().find(|name| name.ends_with(".payload")).unwrap();
    (place, payload)
}

fn sign(place: &Place) {
    let key = ed25519(1);
    place.write_secret("key.cose", key.encode_file());
    place.write("root.cbor", root(&[&key], 1).1);
    place.run(["release", "sign", "r", "--key", "key.cose"]).quiet();
}

fn verify(place: &Place) -> Run {
    place.run(["release", "verify", "r", "--root", "root.cbor", "--json"])
}

#[test]
fn what_was_built_and_signed_is_right() {
    for image in [text(50_000), noise(50_000, 2), vec![0], noise(1024, 3)] {
        let (place, _) = signed(&image);
        let told = verify(&place).json();
        assert_eq!(told["verified"], true);
        assert_eq!(told["images"][0]["image_digest"], Digest::of(&image).to_hex());
    }
}

#[test]
fn a_change_anywhere_in_a_payload_is_found() {
    for image in [text(50_000), noise(20_000, 2)] {
        let (place, payload) = signed(&image);
        let good = place.read(&payload);
        for at in [0, 1, 13, 14, good.len() / 2, good.len() - 1] {
            for bit in [0, 7] {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                place.write(&payload, &bad);
                let line = verify(&place).line();
                assert!(line.contains("is not the payload that the manifest names"), "{line}");
            }
        }
        for bad in [&good[..good.len() - 1], &[&good[..], b"x"].concat(), b""] {
            place.write(&payload, bad);
            let line = verify(&place).line();
            assert!(line.contains("the manifest says"), "{line}");
        }
        std::fs::remove_file(place.path(&payload)).unwrap();
        let line = verify(&place).line();
        assert!(line.contains("cannot read r/") && line.contains(".payload"), "{line}");
        place.write(&payload, &good);
        verify(&place).json();
    }
}

/// A release whose manifest promises `image`, but whose payload was made from something else. Its index is
/// right.
fn forged(
    image: &[u8],
    payload: &[u8],
    transfer: impl FnOnce(Layout, Digest) -> TransferDescriptor,
) -> Place {
    let (layout, index) = cut(Digest::of(image), payload);
    let transfer = transfer(layout, index);
    let place = release_of(Image::new(Digest::of(image), image.len() as u64, transfer), &[payload], |_| {});
    sign(&place);
    place
}

/// How `payload` is cut for the image with this digest.
fn cut(image: Digest, payload: &[u8]) -> (Layout, Digest) {
    let layout = Layout::new(10, payload.len() as u64).unwrap();
    let salt = ChunkSalt { image, transfer_size: payload.len() as u64 };
    (layout, Index::build(salt, layout, payload).digest)
}

/// An unsigned release of `image` with these payloads, its manifest changed by `change`.
fn release_of(image: Image, payloads: &[&[u8]], change: impl FnOnce(&mut Content)) -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("r")).unwrap();
    for payload in payloads {
        place.write(&format!("r/{}.payload", cut(image.digest, payload).1), payload);
    }
    let vendor = VendorId::from_domain("meters.example");
    let manifest = ReleaseManifest {
        vendor,
        class: ClassId::from_name(vendor, "meter-3"),
        version: vec![1, 0, 0],
        sequence: 1,
        images: Images::Any(image),
        text: None,
    };
    let mut content = manifest.build().unwrap().content().clone();
    change(&mut content);
    let envelope = Envelope::unsigned(&Manifest::new(content).unwrap()).unwrap();
    place.write("r/release.suit", envelope.bytes());
    place
}

#[test]
fn a_right_payload_that_becomes_another_image_is_found() {
    let place = forged(&[1; 3000], &[2; 3000], TransferDescriptor::raw);
    let line = verify(&place).line();
    assert!(line.contains("becomes an image with digest"), "{line}");
}

#[test]
fn a_payload_that_cannot_be_decompressed_is_found() {
    let image = text(3000);
    let header = LzmaHeader {
        filter: Filter::None,
        properties: LzmaProperties { lc: 3, lp: 0, pb: 2 },
        dictionary_bytes: 4096,
        image_size: 3000,
    };
    let with = |header: &LzmaHeader, stream: &[u8]| [&header.encode()[..], stream].concat();
    let lzma = |payload: &[u8]| {
        forged(&image, payload, |layout, index| TransferDescriptor::lzma(layout, index, header.decoder()))
    };
    // No stream at all, and noise in place of one.
    for stream in [Vec::new(), noise(2000, 1), [vec![0], noise(2000, 1)].concat()] {
        let line = verify(&lzma(&with(&header, &stream))).line();
        assert!(line.contains("cannot be decompressed") || line.contains("becomes an image"), "{line}");
    }
    // A head that asks for more than was signed, or that is none.
    let greedy = LzmaHeader { dictionary_bytes: 8192, ..header };
    let longer = LzmaHeader { image_size: 3001, ..header };
    for payload in [with(&greedy, &[0; 100]), with(&longer, &[0; 100]), vec![0xff; 100], vec![0; 5]] {
        let line = verify(&lzma(&payload)).line();
        assert!(line.contains("does not begin as its transfer descriptor says"), "{line}");
    }
}

#[test]
fn another_root_does_not_trust_it() {
    let (place, _) = signed(&text(3000));
    place.write("root.cbor", root(&[&ed25519(2)], 1).1);
    let line = verify(&place).line();
    assert!(line.contains("r/release.suit: ") && line.contains("may not sign"), "{line}");
    place.write("root.cbor", "nonsense");
    assert!(verify(&place).line().contains("root.cbor: root is malformed"));
}

#[test]
fn every_changed_byte_of_an_envelope_is_found() {
    let (place, _) = signed(&noise(100, 1));
    let good = place.read("r/release.suit");
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        place.write("r/release.suit", &bad);
        // A changed key id only makes the verifier look for another key, or none.
        verify(&place).line();
    }
}

/// The image of the releases below, and the one that devices run before it.
fn image() -> Vec<u8> {
    noise(20_000, 1)
}

fn base() -> Vec<u8> {
    [&image()[..9000], &noise(500, 2), &image()[9100..]].concat()
}

fn id(image: &[u8]) -> ImageId {
    ImageId { digest: Digest::of(image), size: image.len() as u64 }
}

/// A patch, split into header and stream.
fn patch(old: &[u8], new: &[u8]) -> (Header, Vec<u8>) {
    let patch = diff(old, new, &PatchOptions::default(), &mut |_| {});
    let stream = patch.bytes[patch.header.encode().len()..].to_vec();
    (patch.header, stream)
}

/// A signed release of [`image`] that offers the patch with this head and stream from [`base`], signed for a decoder
/// with this memory, beside the full payload. [`base`] is in the file `old`.
fn with_patch(header: &Header, stream: &[u8], signed: DecoderMemory) -> Place {
    let image = image();
    let payload = [&header.encode()[..], stream].concat();
    let (layout, index) = cut(Digest::of(&image), &payload);
    let transfer = TransferDescriptor::patch(layout, index, RUNNING_COMPONENT, signed);
    let (layout, index) = cut(Digest::of(&image), &image);
    let full = Image::new(Digest::of(&image), image.len() as u64, TransferDescriptor::raw(layout, index));
    let with_patch = Image { patches: vec![PatchSource::new(id(&base()), transfer)], ..full };
    let place = release_of(with_patch, &[&payload, &image], |_| {});
    sign(&place);
    place.write("old", base());
    place
}

fn verify_with_base(place: &Place) -> Run {
    place.run(["release", "verify", "r", "--root", "root.cbor", "--base", "old", "--json"])
}

#[test]
fn a_patch_that_becomes_another_image_is_found_with_its_base() {
    let (header, stream) = patch(&base(), &image());
    verify_with_base(&with_patch(&header, &stream, header.decoder())).json();
    // One that gives another image of the same size, and says the right one.
    let other = [&image()[..19_999], &[!image()[19_999]]].concat();
    let (header, stream) = patch(&base(), &other);
    let place = with_patch(&Header { image: id(&image()), ..header }, &stream, header.decoder());
    let line = verify_with_base(&place).line();
    let names_it = line.contains(&id(&other).digest.to_hex());
    assert!(line.contains("becomes an image with digest") && names_it, "{line}");
    // Without the base nobody can tell, and nobody says that it was right.
    assert_eq!(verify(&place).json()["images"][0]["image"], "not checked: --base names its base");
}

#[test]
fn a_patch_whose_stream_is_broken_is_found_with_its_base() {
    let (header, stream) = patch(&base(), &image());
    for bad in [&stream[..stream.len() - 1], &[&stream[..], &[0]].concat(), &noise(300, 3)] {
        let line = verify_with_base(&with_patch(&header, bad, header.decoder())).line();
        assert!(line.starts_with("r/") && line.contains(".payload"), "{line}");
    }
}

#[test]
fn a_patch_whose_head_asks_for_more_than_is_signed_is_refused() {
    let (header, stream) = patch(&base(), &image());
    let asked = header.decoder();
    let less_memory = DecoderMemory { memory_bytes: asked.memory_bytes - 1, ..asked };
    let less_dictionary = DecoderMemory { dictionary_bytes: asked.dictionary_bytes / 2, ..asked };
    for signed in [less_memory, less_dictionary] {
        let place = with_patch(&header, &stream, signed);
        for run in [verify(&place), verify_with_base(&place)] {
            let line = run.line();
            assert!(line.contains("does not begin as its transfer descriptor says"), "{signed:?}: {line}");
        }
    }
    // What is signed may be more.
    let more =
        DecoderMemory { memory_bytes: 2 * asked.memory_bytes, dictionary_bytes: 2 * asked.dictionary_bytes };
    verify_with_base(&with_patch(&header, &stream, more)).json();
}

#[test]
fn a_patch_whose_head_names_another_base_or_image_is_refused() {
    let (header, stream) = patch(&base(), &image());
    let other = Digest::of(b"other");
    for wrong in [
        Header { base: ImageId { digest: other, ..header.base }, ..header },
        Header { base: ImageId { size: header.base.size + 1, ..header.base }, ..header },
        Header { image: ImageId { digest: other, ..header.image }, ..header },
        Header { image: ImageId { size: header.image.size + 1, ..header.image }, ..header },
    ] {
        let place = with_patch(&wrong, &stream, header.decoder());
        for run in [verify(&place), verify_with_base(&place)] {
            let line = run.line();
            assert!(line.contains("does not begin as its transfer descriptor says"), "{wrong:?}: {line}");
        }
    }
}

/// A manifest that this program would not sign, signed by somebody who has the release key. Everything else
/// about it is right.
#[test]
fn a_manifest_that_devices_refuse_is_found_although_it_is_signed() {
    let without = |sequence: &Sequence, out: fn(&Command) -> bool| {
        Sequence(sequence.0.iter().filter(|command| !out(command)).cloned().collect())
    };
    let changes: [&dyn Fn(&mut Content); 4] = [
        // Devices of other vendors and classes would take it.
        &|content| {
            content.shared = without(&content.shared, |command| matches!(command, Command::Condition(..)));
        },
        // Nothing says where the payload is.
        &|content| {
            let Some(Severable::Inline(install)) = &content.install else { panic!("it installs") };
            let rest = without(install, |command| matches!(command, Command::OverrideParameters(_)));
            content.install = Some(Severable::Inline(rest));
        },
        // What is started is not checked.
        &|content| content.validate = None,
        // A section that devices do not run.
        &|content| content.load = content.validate.clone(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let image = image();
        let (layout, index) = cut(Digest::of(&image), &image);
        let full = Image::new(Digest::of(&image), image.len() as u64, TransferDescriptor::raw(layout, index));
        let place = release_of(full, &[&image], change);
        let mut envelope = Envelope::decode(&place.read("r/release.suit")).unwrap();
        assert!(envelope.unverified_manifest().unwrap().walk().is_err(), "change {number}");
        let key = ed25519(1);
        envelope.sign(&key).unwrap();
        place.write("r/release.suit", envelope.bytes());
        let (trusted, root_bytes) = root(&[&key], 1);
        place.write("root.cbor", root_bytes);
        // As a function, which relies on nobody having looked before, and as a command.
        let release = ReleaseFolder::open(&place.path("r")).unwrap();
        let refused = release::verify(&release, &trusted, &[], &mut |_| {});
        assert!(matches!(refused, Err(ReleaseError::Refused { .. })), "change {number}: {refused:?}");
        let line = verify(&place).line();
        assert!(
            line.contains("r/release.suit: devices would refuse this manifest"),
            "change {number}: {line}"
        );
    }
}

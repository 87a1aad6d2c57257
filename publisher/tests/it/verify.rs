//! `whimbrel release verify`

use whimbrel_protocol::chunk::{ChunkSalt, Index, Layout};
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::{
    Filter, Image, Images, LzmaHeader, LzmaProperties, ReleaseManifest, TransferDescriptor,
};

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

/// A release whose manifest says `image` of a payload that was made of something else; its index is right.
fn forged(
    image: &[u8],
    payload: &[u8],
    transfer: impl FnOnce(Layout, Digest) -> TransferDescriptor,
) -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("r")).unwrap();
    let layout = Layout::new(10, payload.len() as u64).unwrap();
    let salt = ChunkSalt { image: Digest::of(image), transfer_size: payload.len() as u64 };
    let index = Index::build(salt, layout, payload);
    let vendor = VendorId::from_domain("meters.example");
    let manifest = ReleaseManifest {
        vendor,
        class: ClassId::from_name(vendor, "meter-3"),
        version: vec![1, 0, 0],
        sequence: 1,
        images: Images::Any(Image::new(salt.image, image.len() as u64, transfer(layout, index.digest))),
        text: None,
    };
    let envelope = Envelope::unsigned(&manifest.build().unwrap()).unwrap();
    place.write("r/release.suit", envelope.bytes());
    place.write(&format!("r/{}.payload", index.digest), payload);
    sign(&place);
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

//! `whimbrel release sign`, `tbs`, `attach`: here and on another machine.

use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::manifest::{Content, Manifest, Severable, Text};
use whimbrel_publisher::keys::public_bytes;

use crate::support::{Place, build_args, ed25519, p256, root, text};

/// A folder with an unsigned release and a root that wants two of three keys: two Ed25519, one ESP256.
fn two_of_three() -> (Place, [SigningKey; 3]) {
    let place = Place::new();
    place.write("image", text(20_000));
    place.run(build_args("image", "r")).good();
    let keys = [ed25519(1), ed25519(2), p256(3)];
    place.write("root.cbor", root(&[&keys[0], &keys[1], &keys[2]], 2).1);
    for (number, key) in keys.iter().enumerate() {
        place.write_secret(&format!("{number}.cose"), key.encode_file());
    }
    (place, keys)
}

fn verify(place: &Place) -> crate::support::Run {
    place.run(["release", "verify", "r", "--root", "root.cbor", "--json"])
}

/// Only the bytes to sign and the signature travel; the private key never leaves the other machine.
fn sign_elsewhere(key: &SigningKey, tbs: &[u8]) -> Vec<u8> {
    match key {
        SigningKey::Ed25519(key) => ed25519_dalek::Signer::sign(&**key, tbs).to_bytes().to_vec(),
        SigningKey::P256(key) => {
            let signature: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&**key, tbs);
            signature.to_der().as_bytes().to_vec()
        }
    }
}

#[test]
fn two_of_three_keys_must_sign_and_one_that_signs_twice_counts_once() {
    let (place, keys) = two_of_three();
    assert!(verify(&place).line().contains("envelope carries no signature"));
    place.run(["release", "sign", "r", "--key", "0.cose"]).quiet();
    assert!(verify(&place).line().contains("1 of 2 required keys signed"));

    // Again: nothing changes.
    let before = place.files();
    let told = place.run(["release", "sign", "r", "--key", "0.cose", "--json"]).json();
    assert_eq!(told["keys"][0]["result"], "had signed before");
    assert!(place.files() == before);
    assert!(verify(&place).line().contains("1 of 2 required keys signed"));

    // With a second key beside it only that one's signature is new.
    let told = place.run(["release", "sign", "r", "--key", "0.cose", "--key", "2.cose", "--json"]).json();
    assert_eq!(told["signatures"], 2);
    let told = verify(&place).json();
    assert_eq!(
        told["signed_by"],
        serde_json::json!([keys[0].public().id().to_hex(), keys[2].public().id().to_hex()])
    );
    assert_eq!(told["threshold"], 2);
}

#[test]
fn several_keys_sign_at_once() {
    let (place, _) = two_of_three();
    let told = place.run(["release", "sign", "r", "--key", "1.cose", "--key", "2.cose", "--json"]).json();
    assert_eq!(told["signatures"], 2);
    verify(&place).json();
}

#[test]
fn a_release_is_signed_on_another_machine_that_has_only_the_bytes_and_the_key() {
    let (place, keys) = two_of_three();
    for (number, alg) in [(1, "ed25519"), (2, "esp256")] {
        let key = &keys[number];
        let told = place.run(["release", "tbs", "r", "--alg", alg, "-o", "tbs", "--json"]).json();
        let tbs = place.read("tbs");
        assert_eq!(told["size"], tbs.len());
        std::fs::remove_file(place.path("tbs")).unwrap();
        place.write("sig", sign_elsewhere(key, &tbs));
        place.write("public.cose", public_bytes(&key.public()));
        place.run(["release", "attach", "r", "--signature", "sig", "--public-key", "public.cose"]).quiet();
    }
    assert_eq!(verify(&place).json()["signed_by"].as_array().unwrap().len(), 2);
}

#[test]
fn the_envelope_alone_can_travel_too() {
    let (place, _) = two_of_three();
    let other = Place::new();
    other.write("envelope", place.read("r/release.suit"));
    other.write("key", place.read("0.cose"));
    other.set_mode("key", 0o600);
    other.run(["release", "sign", "envelope", "--key", "key"]).quiet();
    place.write("r/release.suit", other.read("envelope"));
    place.run(["release", "sign", "r", "--key", "2.cose"]).quiet();
    verify(&place).json();
}

#[test]
fn a_key_can_be_named_by_its_id_in_the_root() {
    let (place, keys) = two_of_three();
    place.run(["release", "tbs", "r", "--alg", "esp256", "-o", "tbs"]).quiet();
    place.write("sig", sign_elsewhere(&keys[2], &place.read("tbs")));
    let attach = |id: &str| {
        place.run(["release", "attach", "r", "--signature", "sig", "--key-id", id, "--root", "root.cbor"])
    };
    assert!(attach("00000000").line().contains("root.cbor has no release key 00000000"));
    assert!(attach("12").line().contains("--key-id `12` is not 8 hexadecimal digits"));
    // Another key of the root: the signature is not its.
    assert!(attach(&keys[0].public().id().to_hex()).line().contains("sig: "));
    attach(&keys[2].public().id().to_hex()).quiet();
    place.run(["release", "sign", "r", "--key", "0.cose"]).quiet();
    verify(&place).json();
}

#[test]
fn a_signature_that_does_not_match_is_never_added() {
    let (place, keys) = two_of_three();
    place.run(["release", "tbs", "r", "--alg", "ed25519", "-o", "tbs"]).quiet();
    let tbs = place.read("tbs");
    let good = sign_elsewhere(&keys[0], &tbs);
    place.write("public.cose", public_bytes(&keys[0].public()));
    let before = place.files();
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    let of_other_key = sign_elsewhere(&keys[1], &tbs);
    let of_other_bytes = sign_elsewhere(&keys[0], &tbs[1..]);
    for (signature, want) in [
        (flipped, "signature does not match release and key"),
        (of_other_key, "signature does not match release and key"),
        (of_other_bytes, "signature does not match release and key"),
        (good[..63].to_vec(), "63 bytes that are no signature"),
        (Vec::new(), "0 bytes that are no signature"),
        (vec![0; 2000], "more than 1024 bytes"),
    ] {
        place.write("sig", &signature);
        let line =
            place.run(["release", "attach", "r", "--signature", "sig", "--public-key", "public.cose"]).line();
        assert!(line.contains(want) && line.contains("sig"), "{line}");
        std::fs::remove_file(place.path("sig")).unwrap();
        assert!(place.files() == before);
    }
}

#[test]
fn the_bytes_to_sign_are_never_written_over_something() {
    let (place, _) = two_of_three();
    let line = place.run(["release", "tbs", "r", "--alg", "ed25519", "-o", "image"]).line();
    assert!(line.contains("image is there already"), "{line}");
}

#[test]
fn keys_of_the_configuration_sign_where_none_is_named() {
    let place = Place::with_init();
    place.write("image", text(3_000));
    place.run(build_args("image", "r")).good();
    place.run(["release", "sign", "r"]).quiet();
    place.run(["release", "verify", "r"]).quiet();
    let elsewhere = Place::new();
    elsewhere.write("envelope", place.read("r/release.suit"));
    assert!(
        elsewhere.run(["release", "sign", "envelope"]).line().contains("no key is named: give --key FILE")
    );
    assert!(
        elsewhere
            .run(["release", "verify", "envelope"])
            .line()
            .contains("no root is named: give --root FILE")
    );
}

#[test]
fn nothing_but_a_release_that_devices_take_is_signed() {
    let (place, _) = two_of_three();
    let vectors = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors/suit");
    // The draft's example 4 copies and decompresses in its own way, which devices of ours refuse.
    let example = std::fs::read_to_string(vectors.join("manifest-spec/example4.unsigned.hex")).unwrap();
    place.write("example4", hex::decode(example.trim()).unwrap());
    // A manifest that is not the one that the digest names.
    let mut damaged = place.read("r/release.suit");
    let at = damaged.len() - 60;
    damaged[at] ^= 1;
    place.write("damaged", damaged);
    place.write("noise", [0xd8, 107, 0xff]);
    let before = place.files();
    for file in ["example4", "damaged", "noise", "image", "none", "."] {
        for command in
            [&["sign", file, "--key", "0.cose"][..], &["tbs", file, "--alg", "ed25519", "-o", "tbs"]]
        {
            let line = place.run([&["release"], command].concat()).line();
            assert!(line.starts_with(file) || line.contains(file), "{line}");
            assert!(place.files() == before, "{file}");
        }
    }
    let line = place.run(["release", "sign", "example4", "--key", "0.cose"]).line();
    assert!(line.contains("devices would refuse this manifest"), "{line}");
}

#[test]
fn a_release_with_a_text_that_nobody_can_read_is_not_signed() {
    let (place, _) = two_of_three();
    let envelope = Envelope::decode(&place.read("r/release.suit")).unwrap();
    let manifest = envelope.unverified_manifest().unwrap();
    let text = Severable::<Text>::sever(Text::from_bytes(&[0xa0]));
    let content = Content { text: Some(text), ..manifest.content().clone() };
    let envelope = Envelope::unsigned(&Manifest::new(content).unwrap()).unwrap();
    place.write("r/release.suit", envelope.bytes());
    let before = place.files();
    let line = place.run(["release", "sign", "r", "--key", "0.cose"]).line();
    assert!(line.contains("manifest is malformed: text has a value that is not allowed"), "{line}");
    assert!(place.files() == before);
    let seen = place.run(["inspect", "r/release.suit"]).quiet().out;
    assert!(seen.contains("refused        manifest is malformed: text"), "{seen}");
}

#[test]
fn a_wrong_key_file_is_named() {
    let (place, keys) = two_of_three();
    place.write("public.cose", public_bytes(&keys[0].public()));
    for (file, want) in [
        ("public.cose", "is not a private key"),
        ("none", "No such file"),
        ("image", "more than 4096 bytes"),
        ("root.cbor", "is not a private key"),
    ] {
        let before = place.files();
        let line = place.run(["release", "sign", "r", "--key", "0.cose", "--key", file]).line();
        assert!(line.contains(want) && line.contains(file), "{line}");
        assert!(place.files() == before);
    }
}

#[test]
fn more_signatures_than_an_envelope_may_have_are_refused() {
    let (place, _) = two_of_three();
    let mut args = vec!["release".to_owned(), "sign".into(), "r".into()];
    for seed in 10..15 {
        let name = format!("{seed}.cose");
        place.write_secret(&name, ed25519(seed).encode_file());
        args.extend(["--key".into(), name]);
    }
    let before = place.files();
    let line = place.run(args).line();
    assert!(line.contains("signatures 5, at most 4"), "{line}");
    assert!(place.files() == before);
}

/// RFC 8410 section 10.3 prints this key.
const OPENSSL_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

#[test]
fn a_key_in_pem_signs_a_release_that_verifies() {
    let place = Place::new();
    place.write("image", text(20_000));
    place.run(build_args("image", "r")).good();
    place.write_secret("release.pem", OPENSSL_KEY);
    let key = whimbrel_publisher::keys::read_private(&place.path("release.pem")).unwrap();
    place.write("root.cbor", root(&[&key], 1).1);
    place.run(["release", "sign", "r", "--key", "release.pem", "--root", "root.cbor"]).quiet();
    let told = verify(&place).json();
    assert_eq!(told["signed_by"], serde_json::json!([key.public().id().to_hex()]));
}

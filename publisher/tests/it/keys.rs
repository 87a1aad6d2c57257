//! `whimbrel key`, and key files of another COSE implementation.

use ciborium::Value as Cbor;
use coset::iana::{self, EnumI64 as _};
use coset::{CborSerializable as _, CoseKey, CoseKeyBuilder, Label};
use whimbrel_protocol::cose::{PublicKey, SigningKey};
use whimbrel_publisher::keys::public_bytes;

use crate::support::{Place, ed25519, p256};

fn shown(place: &Place, file: &str) -> serde_json::Value {
    place.run(["key", "show", file, "--json"]).json()
}

#[test]
fn a_new_key_is_for_its_owner_alone_and_never_overwritten() {
    let place = Place::new();
    for alg in ["ed25519", "esp256"] {
        let file = format!("{alg}.cose");
        let told = place.run(["key", "new", &file, "--alg", alg, "--json"]).json();
        assert_eq!(place.mode(&file), 0o600);
        let key = SigningKey::decode_file(&place.read(&file)).unwrap().public();
        assert_eq!(told["algorithm"], alg);
        assert_eq!(told["thumbprint"], key.thumbprint().to_hex());
        let before = place.files();
        let line = place.run(["key", "new", &file]).line();
        assert!(line.contains("is there already"), "{line}");
        assert_eq!(place.files(), before);
    }
}

#[test]
fn show_tells_everything_but_the_secret() {
    let place = Place::new();
    for key in [ed25519(7), p256(7)] {
        place.write("key.cose", key.encode_file());
        place.set_mode("key.cose", 0o600);
        let public = key.public();
        let run = place.run(["key", "show", "key.cose", "--json"]).quiet();
        assert!(!run.out.contains(&"07".repeat(8)));
        let told = run.json();
        assert_eq!(told["id"], public.id().to_hex());
        assert_eq!(told["fingerprint"], public.fingerprint().to_string());
        assert_eq!(told["public"], hex::encode(public_bytes(&public)));
    }
}

#[test]
fn a_private_key_that_others_can_read_is_warned_of() {
    let place = Place::new();
    place.write("key.cose", ed25519(7).encode_file());
    place.set_mode("key.cose", 0o640);
    let run = place.run(["key", "show", "key.cose"]).good();
    assert!(run.err.contains("key.cose has mode 0640"), "{run:?}");
    // A public key is for everybody.
    place.write("public.cose", public_bytes(&ed25519(7).public()));
    place.set_mode("public.cose", 0o644);
    place.run(["key", "show", "public.cose"]).quiet();
}

/// coset writes the key with its own builder; the test adds the members that our profile asks for.
fn coset_private(key: &SigningKey) -> Vec<u8> {
    let built = match key.public() {
        PublicKey::P256(public) => {
            let point = public.to_sec1_point(false);
            CoseKeyBuilder::new_ec2_priv_key(
                iana::EllipticCurve::P_256,
                point.x().unwrap().to_vec(),
                point.y().unwrap().to_vec(),
                vec![7; 32],
            )
            .algorithm(iana::Algorithm::ESP256)
        }
        PublicKey::Ed25519(public) => CoseKeyBuilder::new_okp_key()
            .algorithm(iana::Algorithm::Ed25519)
            .param(iana::OkpKeyParameter::Crv.to_i64(), Cbor::from(iana::EllipticCurve::Ed25519.to_i64()))
            .param(iana::OkpKeyParameter::X.to_i64(), Cbor::Bytes(public.as_bytes().to_vec()))
            .param(iana::OkpKeyParameter::D.to_i64(), Cbor::Bytes(vec![7; 32])),
    };
    built.key_id(key.public().id().0.to_vec()).build().to_vec().unwrap()
}

#[test]
fn key_files_go_both_ways_between_coset_and_us() {
    for key in [ed25519(7), p256(7)] {
        // What coset writes we read, and it is byte for byte what we write.
        let theirs = coset_private(&key);
        assert_eq!(theirs, key.encode_file());
        let place = Place::new();
        place.write("theirs.cose", &theirs);
        assert_eq!(shown(&place, "theirs.cose")["thumbprint"], key.public().thumbprint().to_hex());

        // What we write coset reads.
        place.run(["key", "new", "ours.cose"]).good();
        for bytes in [key.encode_file(), place.read("ours.cose")] {
            let read = CoseKey::from_slice(&bytes).unwrap();
            let secret = read.params.iter().find(|(label, _)| *label == Label::Int(-4));
            assert!(matches!(secret, Some((_, Cbor::Bytes(secret))) if secret.len() == 32));
            assert_eq!(read.to_vec().unwrap(), bytes);
        }
    }
}

#[test]
fn keys_of_hsms_are_read_as_pem_and_der() {
    let place = Place::new();
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
               -----END PUBLIC KEY-----\n";
    place.write("hsm.pem", pem);
    let told = shown(&place, "hsm.pem");
    assert_eq!(told["algorithm"], "ed25519");
    assert_eq!(told["kind"], "public key (PEM or DER)");
}

/// RFC 8410 section 10.3 prints this key; its public half is that of `keys_of_hsms_are_read_as_pem_and_der`.
const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

#[test]
fn a_private_key_in_pem_is_shown_without_its_secret_and_warned_of_if_others_can_read_it() {
    let place = Place::new();
    place.write("release.pem", PRIVATE_PEM);
    place.set_mode("release.pem", 0o644);
    let run = place.run(["key", "show", "release.pem", "--json"]).good();
    assert!(run.err.contains("release.pem has mode 0644"), "{run:?}");
    assert!(!run.out.contains("MC4C") && !run.out.contains("d4ee72db"), "{run:?}");
    let told = run.json();
    assert_eq!(told["kind"], "private key (PEM or DER)");
    assert!(told["public"].as_str().unwrap().contains("19bf44096984cdfe8541bac167dc3b96"), "{told}");
}

#[test]
fn a_private_key_behind_a_password_is_refused_with_what_opens_it() {
    let place = Place::new();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHsMFcGCSqGSIb3\n-----END ENCRYPTED PRIVATE KEY-----\n";
    place.write("release.pem", encrypted);
    let line = place.run(["key", "show", "release.pem"]).line();
    assert!(line.contains("encrypted with a password") && line.contains("openssl pkcs8 -in"), "{line}");
}

#[test]
fn what_is_no_key_is_refused_in_one_line() {
    let place = Place::new();
    place.write("empty", "");
    place.write("text", PRIVATE_PEM.replace("BCIE", "BCIF"));
    place.write("large", vec![0; 5000]);
    for (file, word) in [
        ("empty", "is not a key"),
        ("text", "is not a key"),
        ("large", "more than 4096 bytes"),
        ("none", "No such file"),
        (".", "directory"),
    ] {
        let line = place.run(["key", "show", file]).line();
        assert!(line.contains(word) && line.contains(file), "{line}");
        assert!(!line.contains("MC4C"), "{line}");
    }
}

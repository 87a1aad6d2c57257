//! Keys, signatures and the root under attack. Whatever is refused is refused by name.

use whimbrel_protocol::codec::{DecodeError, Writer};
use whimbrel_protocol::cose::{
    Accept, Algorithm, Kind, Sign1, SignatureError, SignaturesWriter, SigningKey, sign_attached,
    sign_detached, to_be_signed,
};
use whimbrel_protocol::envelope::{Envelope, VerifyError};
use whimbrel_protocol::trust::{Role, Root, TrustError};

use crate::samples::{ed25519_key, p256_key, release, root, signed};

const KINDS: [Kind; 7] =
    [Kind::Root, Kind::Campaign, Kind::Assignment, Kind::Beacon, Kind::Answer, Kind::Report, Kind::Enrolment];

fn two_of_two() -> (Root, [SigningKey; 2]) {
    let mut root = root(&[&ed25519_key(1), &p256_key(2)], 2);
    let keys = [ed25519_key(201), p256_key(205)];
    root.roles[0].keys = keys.iter().map(SigningKey::public).collect();
    root.roles[0].threshold = 2;
    (root, keys)
}

#[test]
fn a_root_is_read_as_it_was_signed() {
    let (root, keys) = two_of_two();
    let bytes = root.sign(&[&keys[0], &keys[1]]);
    assert_eq!(Root::verify(&bytes), Ok(root));
}

#[test]
fn one_root_key_that_signs_twice_counts_once() {
    let (root, keys) = two_of_two();
    let threshold = TrustError::Unauthentic(SignatureError::Threshold { got: 1, want: 2 });
    assert_eq!(Root::verify(&root.sign(&[&keys[0], &keys[0]])), Err(threshold));
    assert_eq!(Root::verify(&root.sign(&[&keys[0], &ed25519_key(9)])), Err(threshold));
    let nobody = TrustError::Unauthentic(SignatureError::Threshold { got: 0, want: 2 });
    assert_eq!(Root::verify(&root.sign(&[])), Err(nobody));
}

#[test]
fn every_bit_of_a_root_counts() {
    let (root, keys) = two_of_two();
    let bytes = root.sign(&[&keys[0], &keys[1]]);
    let mut accepted = Vec::new();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if Root::verify(&flipped).is_ok() {
            accepted.push(bit);
        }
    }
    // Key ids of signatures are unprotected hints that a root's verifier does not look at.
    let hints: Vec<usize> = keys
        .iter()
        .flat_map(|key| {
            let mut writer = Writer::new();
            writer.map(1).int(4).bytes(&key.public().id().0);
            let hint = writer.into_bytes();
            let at = bytes.windows(hint.len()).position(|window| window == hint).unwrap();
            (at + 3) * 8..(at + hint.len()) * 8
        })
        .collect();
    assert_eq!(accepted, hints);
}

#[test]
fn a_root_cut_anywhere_is_refused() {
    let (root, keys) = two_of_two();
    let bytes = root.sign(&[&keys[0], &keys[1]]);
    for end in 0..bytes.len() {
        let error = Root::verify(&bytes[..end]);
        assert!(matches!(error, Err(TrustError::Malformed(DecodeError::Truncated { .. }))), "{end}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Root::verify(&longer), Err(TrustError::Malformed(DecodeError::Trailing { count: 1 })));
}

#[test]
fn a_key_has_one_role_and_stands_once() {
    let signer = ed25519_key(201);
    let verify = |root: &Root| Root::verify(&root.sign(&[&signer]));
    let good = root(&[&ed25519_key(1)], 1);
    assert_eq!(verify(&good), Ok(good.clone()));

    // In two roles.
    let mut bad = good.clone();
    bad.roles[2].keys = vec![signer.public()];
    assert_eq!(verify(&bad), Err(TrustError::KeyTwice { key: signer.public().id() }));
    // Twice in one role, which would meet a threshold of two alone.
    let mut bad = good.clone();
    bad.roles[1].keys = vec![ed25519_key(1).public(), ed25519_key(1).public()];
    bad.roles[1].threshold = 2;
    assert_eq!(verify(&bad), Err(TrustError::KeyTwice { key: ed25519_key(1).public().id() }));
    // Thresholds that are none.
    for (role, threshold) in [(1, 0), (1, 2), (2, 0), (2, 2), (0, 2)] {
        let mut bad = good.clone();
        bad.roles[role].threshold = threshold;
        let error = TrustError::Threshold { role: Role::ALL[role], threshold: threshold as u64, keys: 1 };
        assert_eq!(verify(&bad), Err(error));
    }
    // Two keys of an online role do not make two signatures.
    let mut bad = good.clone();
    bad.roles[3].keys.push(ed25519_key(9).public());
    assert!(verify(&bad).is_ok());
    bad.roles[3].threshold = 2;
    assert_eq!(verify(&bad), Err(TrustError::Threshold { role: Role::Beacon, threshold: 2, keys: 2 }));
    let mut bad = good;
    bad.version = 0;
    assert_eq!(verify(&bad), Err(TrustError::Malformed(DecodeError::Value { what: "root version" })));
}

/// Roots that name keys they don't list, or list keys without a role: not something that our writer makes.
#[test]
fn names_of_keys_and_keys_must_match() {
    let signer = ed25519_key(201);
    let good = root(&[&ed25519_key(1)], 1);
    let sign = |payload: Vec<u8>| SignaturesWriter::new(Kind::Root, payload).sign(&signer).into_bytes();
    let payload = good.encode();
    assert_eq!(Root::verify(&sign(payload.clone())), Ok(good));

    let id = ed25519_key(1).public().id();
    let at = payload.windows(4).rposition(|window| window == id.0).unwrap();
    let mut renamed = payload.clone();
    renamed[at] ^= 1;
    let mut missing = id;
    missing.0[0] ^= 1;
    assert_eq!(
        Root::verify(&sign(renamed)),
        Err(TrustError::KeyMissing { role: Role::Release, key: missing })
    );
    // The release role without one of its two keys: an array of two becomes an array of one.
    let payload = root(&[&ed25519_key(1), &ed25519_key(2)], 1).encode();
    let id = ed25519_key(2).public().id();
    let at = payload.windows(4).rposition(|window| window == id.0).unwrap();
    let mut idle = payload;
    idle.drain(at - 1..at + 4);
    idle[at - 7] = 0x81;
    assert_eq!(Root::verify(&sign(idle)), Err(TrustError::KeyIdle { key: id }));
    // The same key listed twice and named once.
    let payload = root(&[&ed25519_key(1), &ed25519_key(1)], 1).encode();
    let id = ed25519_key(1).public().id();
    let at = payload.windows(4).rposition(|window| window == id.0).unwrap();
    let mut twice = payload;
    twice.drain(at - 1..at + 4);
    twice[at - 7] = 0x81;
    assert_eq!(Root::verify(&sign(twice)), Err(TrustError::KeyTwice { key: id }));
}

#[test]
fn every_kind_of_object_is_refused_as_every_other() {
    for key in [ed25519_key(1), p256_key(1)] {
        for made in KINDS {
            for asked in KINDS {
                let key_id = (!made.is_by_device()).then(|| key.public().id());
                let object = sign_attached(&key, made, key_id, b"payload");
                let result = Sign1::decode(&object).unwrap().verify_attached(asked, &key.public());
                if made == asked {
                    assert_eq!(result, Ok(b"payload".as_slice()));
                    continue;
                }
                let error = SignatureError::Kind { got: Some(made.number()), want: asked.number() };
                assert_eq!(result, Err(error));
                // Saying that it is the other does not help: the external data differs, and it is signed.
                let mut renamed = object;
                let label = [0x3a, 0x00, 0x01, 0x00, 0x00];
                let at = renamed.windows(5).position(|window| window == label).unwrap() + 5;
                renamed[at] = asked.number();
                let result = Sign1::decode(&renamed).unwrap().verify_attached(asked, &key.public());
                let beside = asked.is_by_device() && key_id.is_some();
                let error = if beside { SignatureError::Unprotected } else { SignatureError::Mismatch };
                assert_eq!(result, Err(error));
            }
        }
    }
}

#[test]
fn a_signature_of_an_envelope_is_none_of_an_object_and_the_other_way_round() {
    let key = ed25519_key(1);
    let detached =
        sign_detached(Algorithm::Ed25519, None, &key.sign(&to_be_signed(Algorithm::Ed25519, b"payload")));
    let block = Sign1::decode(&detached).unwrap();
    assert_eq!(block.verify_detached(Accept::STRICT, &key.public(), b"payload"), Ok(()));
    for kind in KINDS {
        let error = SignatureError::Kind { got: None, want: kind.number() };
        assert_eq!(block.verify_attached(kind, &key.public()), Err(error));
        let object = sign_attached(&key, kind, None, b"payload");
        let error = SignatureError::Kind { got: Some(kind.number()), want: 0 };
        let object = Sign1::decode(&object).unwrap();
        assert_eq!(object.verify_detached(Accept::STRICT, &key.public(), b"payload"), Err(error));
    }
}

#[test]
fn an_object_counts_only_for_the_role_whose_key_signed_it() {
    let release_key = ed25519_key(1);
    let root = root(&[&release_key], 1);
    let signers = [(Role::Root, 201), (Role::Release, 1), (Role::Campaign, 203), (Role::Beacon, 204)];
    for (signer, seed) in signers {
        let key = ed25519_key(seed);
        for key_id in [None, Some(key.public().id())] {
            let object = sign_attached(&key, Kind::Campaign, key_id, b"payload");
            let object = Sign1::decode(&object).unwrap();
            for role in Role::ALL {
                let result = root.verify_object(role, Kind::Campaign, &object);
                assert_eq!(result.is_ok(), role == signer, "{signer:?} for {role:?}");
                if role != signer && key_id.is_some() {
                    assert_eq!(result, Err(SignatureError::UnknownKey));
                }
            }
        }
    }
}

#[test]
fn every_kind_of_file_is_refused_as_every_other() {
    let (root, keys) = two_of_two();
    let root_bytes = root.sign(&[&keys[0], &keys[1]]);
    let envelope = signed(&release(), &[&ed25519_key(1)]);
    let object = sign_attached(&ed25519_key(203), Kind::Campaign, None, b"payload");
    let manifest = envelope.unverified_manifest().unwrap().bytes().to_vec();
    let block = envelope.blocks().unwrap().remove(0).bytes;

    let tag = |what| DecodeError::Value { what };
    for other in [envelope.bytes(), &object, &block] {
        assert_eq!(Root::verify(other), Err(TrustError::Malformed(tag("COSE_Sign tag"))));
    }
    for other in [&root_bytes, &object, &block] {
        assert_eq!(Envelope::decode(other), Err(VerifyError::Malformed(tag("envelope tag"))));
    }
    for other in [&root_bytes, envelope.bytes()] {
        assert_eq!(Sign1::decode(other).map(drop), Err(tag("COSE_Sign1 tag")));
    }
    // Untagged things.
    assert!(Root::verify(&manifest).is_err());
    assert!(Envelope::decode(&manifest).is_err());
    assert!(Sign1::decode(&manifest).is_err());
}

#[test]
fn each_role_has_a_word_of_its_own() {
    assert_eq!(Role::ALL.map(Role::name), ["root", "release", "campaign", "beacon"]);
}

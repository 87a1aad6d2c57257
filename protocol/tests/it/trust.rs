//! Keys, signatures and the root under attack. Whatever is refused is refused by name.

use whimbrel_protocol::codec::{DecodeError, Reader, Writer};
use whimbrel_protocol::cose::{
    Accept, Algorithm, Kind, PublicKey, Sign1, Signature, SignatureError, SignaturesWriter, SigningKey,
    sign_attached, sign_detached, to_be_signed,
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
                let object = sign_attached(&key, made, Some(key.public().id()), b"payload");
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
                assert_eq!(result, Err(SignatureError::Mismatch));
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

fn sign1_with_signature(algorithm: i64, signature: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.tag(18).array(4).wrapped(|inner| {
        inner.map(1).int(1).int(algorithm);
    });
    writer.map(0).null().bytes(signature);
    writer.into_bytes()
}

#[test]
fn signatures_of_another_size_are_refused() {
    for size in [0, 32, 63, 65, 72, 96, 128] {
        let object = sign1_with_signature(-9, &vec![1; size]);
        let error = DecodeError::Length { what: "signature", got: size as u64, want: 64 };
        assert_eq!(Sign1::decode(&object).map(drop), Err(error));
    }
}

#[test]
fn a_key_verifies_its_own_algorithm_only() {
    let message = b"payload";
    let cases = [
        (p256_key(1), -19, Err(SignatureError::Algorithm { alg: -19 })),
        (ed25519_key(1), -9, Err(SignatureError::Algorithm { alg: -9 })),
        // The deprecated number for the same signature, without the flag; other curves; MACs; nothing.
        (p256_key(1), -7, Err(SignatureError::Algorithm { alg: -7 })),
        (ed25519_key(1), -8, Err(SignatureError::Algorithm { alg: -8 })),
        (p256_key(1), -35, Err(SignatureError::Algorithm { alg: -35 })),
        (p256_key(1), 5, Err(SignatureError::Algorithm { alg: 5 })),
        (p256_key(1), 0, Err(SignatureError::Algorithm { alg: 0 })),
        (p256_key(1), -9, Ok(())),
        (ed25519_key(1), -19, Ok(())),
    ];
    for (key, algorithm, want) in cases {
        // The signature is right for the header that it stands under.
        let mut protected = Writer::new();
        protected.map(1).int(1).int(algorithm);
        let mut to_sign = Writer::new();
        to_sign.array(4).text("Signature1").bytes(protected.as_bytes()).bytes(b"").bytes(message);
        let object = sign1_with_signature(algorithm, &key.sign(to_sign.as_bytes()));
        let object = Sign1::decode(&object).unwrap();
        assert_eq!(object.verify_detached(Accept::STRICT, &key.public(), message), want, "{algorithm}");
        if algorithm == -7 {
            assert_eq!(object.verify_detached(Accept::WITH_ES256, &key.public(), message), Ok(()));
        }
    }
}

/// The order of the Ed25519 group (RFC 8032 section 5.1), little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn an_ed25519_signature_has_one_form() {
    let key = ed25519_key(1);
    let mut signature = key.sign(b"message");
    assert_eq!(key.public().verify(Algorithm::Ed25519, b"message", &signature), Ok(()));
    // S + L is the same number modulo L.
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let result = key.public().verify(Algorithm::Ed25519, b"message", &signature);
    assert_eq!(result, Err(SignatureError::Mismatch));
}

/// Points of order 1, 2, 4 and 8, canonical and not: with such a key every message has a signature.
const SMALL_ORDER: [&str; 11] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000080",
];

#[test]
fn small_order_keys_and_points_are_refused() {
    for text in SMALL_ORDER {
        let point: [u8; 32] = hex::decode(text).unwrap().try_into().unwrap();
        let refused = PublicKey::ed25519(&point);
        assert_eq!(refused, Err(DecodeError::Value { what: "Ed25519 point" }), "{text}");
        // As the first half of a signature, with S = 0.
        let mut signature: Signature = [0; 64];
        signature[..32].copy_from_slice(&point);
        let result = ed25519_key(1).public().verify(Algorithm::Ed25519, b"message", &signature);
        assert_eq!(result, Err(SignatureError::Mismatch), "{text}");
    }
}

/// With R the neutral point and S = k * a, whoever has the key can make signatures that lax verifiers take
/// and strict ones refuse, so that two devices disagree.
#[test]
fn a_signature_that_only_lax_verifiers_take_is_refused() {
    use ed25519_dalek::Verifier as _;
    use sha2::{Digest as _, Sha512};

    let PublicKey::Ed25519(public) = ed25519_key(1).public() else {
        panic!("an Ed25519 key");
    };
    let mut secret: [u8; 32] = Sha512::digest([1; 32])[..32].try_into().unwrap();
    secret[0] &= 248;
    secret[31] = secret[31] & 127 | 64;
    let mut signature = [0; 64];
    signature[0] = 1;
    let k =
        Sha512::new().chain_update(&signature[..32]).chain_update(public.as_bytes()).chain_update(b"message");
    let s = multiply_mod_order(&k.finalize(), multiply_mod_order(&secret, [1, 0, 0, 0]));
    for (to, from) in signature[32..].chunks_mut(8).zip(s) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    assert!(public.verify(b"message", &ed25519_dalek::Signature::from_bytes(&signature)).is_ok());
    let result = ed25519_key(1).public().verify(Algorithm::Ed25519, b"message", &signature);
    assert_eq!(result, Err(SignatureError::Mismatch));
}

/// `factor * number` modulo the order, by doubling; `factor` is little-endian, `number` below the order.
fn multiply_mod_order(factor: &[u8], number: [u64; 4]) -> [u64; 4] {
    let order: Vec<u64> = ORDER.chunks(8).map(|part| u64::from_le_bytes(part.try_into().unwrap())).collect();
    let add = |one: [u64; 4], other: [u64; 4]| {
        let (mut sum, mut carry) = ([0; 4], 0);
        for (at, limb) in sum.iter_mut().enumerate() {
            let wide = u128::from(one[at]) + u128::from(other[at]) + carry;
            (*limb, carry) = (wide as u64, wide >> 64);
        }
        // Below twice the order, so that one subtraction is enough.
        if sum.iter().rev().ge(order.iter().rev()) {
            let mut borrow = false;
            for (limb, order) in sum.iter_mut().zip(&order) {
                let (once, one) = limb.overflowing_sub(*order);
                let (twice, two) = once.overflowing_sub(u64::from(borrow));
                (*limb, borrow) = (twice, one || two);
            }
        }
        sum
    };
    (0..factor.len() * 8).rev().fold([0; 4], |product, bit| {
        let doubled = add(product, product);
        if factor[bit / 8] >> (bit % 8) & 1 == 1 { add(doubled, number) } else { doubled }
    })
}

/// y = p + 3 is another spelling of y = 3, a point of full order.
#[test]
fn a_key_has_one_encoding() {
    let mut canonical = [0; 32];
    let spelled_otherwise = (0..19u8).find_map(|small| {
        canonical[0] = small;
        let key = PublicKey::ed25519(&canonical).ok()?;
        let mut other = [0xff; 32];
        other[0] = 0xed + small;
        other[31] = 0x7f;
        Some((key, other))
    });
    let (_, other) = spelled_otherwise.expect("some small y is on the curve");
    assert!(ed25519_dalek::VerifyingKey::from_bytes(&other).is_ok(), "the library takes it");
    assert_eq!(PublicKey::ed25519(&other), Err(DecodeError::Value { what: "Ed25519 point" }));
}

#[test]
fn degenerate_signatures_are_refused() {
    for key in [p256_key(1), ed25519_key(1)] {
        let public = key.public();
        for signature in [[0; 64], [0xff; 64]] {
            let result = public.verify(public.algorithm(), b"message", &signature);
            assert_eq!(result, Err(SignatureError::Mismatch));
        }
        // Half of it zero.
        for half in [0..32, 32..64] {
            let mut signature = key.sign(b"message");
            signature[half].fill(0);
            let result = public.verify(public.algorithm(), b"message", &signature);
            assert_eq!(result, Err(SignatureError::Mismatch));
        }
    }
}

#[test]
fn points_that_are_not_on_the_curve_are_refused() {
    let error = Err(DecodeError::Value { what: "P-256 point" });
    assert_eq!(PublicKey::p256(&[0; 32], &[0; 32]), error);
    assert_eq!(PublicKey::p256(&[0xff; 32], &[0xff; 32]), error);
    assert_eq!(PublicKey::p256(&[1; 32], &[2; 32]), error);
}

#[test]
fn a_key_is_read_only_as_it_is_written() {
    let encode = |fields: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        fields(&mut writer);
        PublicKey::decode(&mut Reader::new("key", writer.as_bytes(), 256).unwrap())
    };
    let PublicKey::Ed25519(point) = ed25519_key(1).public() else {
        panic!("an Ed25519 key");
    };
    let x = point.to_bytes();
    let write = |writer: &mut Writer, kty: u64, alg: i64, crv: u64| {
        writer.map(4).int(1).uint(kty).int(3).int(alg).int(-1).uint(crv).int(-2).bytes(&x);
    };
    assert_eq!(encode(&|writer| write(writer, 1, -19, 6)), Ok(ed25519_key(1).public()));
    // Another type, algorithm or curve than the point's.
    for (kty, alg, crv) in [(2, -19, 6), (1, -9, 6), (1, -8, 6), (1, -19, 1), (1, -19, 4), (4, -19, 6)] {
        let error = Err(DecodeError::Value { what: "COSE_Key" });
        assert_eq!(encode(&|writer| write(writer, kty, alg, crv)), error, "{kty} {alg} {crv}");
    }
    // A private key where a public one belongs.
    let private = encode(&|writer| {
        writer.map(5).int(1).uint(1).int(3).int(-19).int(-1).uint(6).int(-2).bytes(&x).int(-4).bytes(&x);
    });
    assert_eq!(private, Err(DecodeError::UnknownKey { what: "COSE_Key", key: -4 }));
    let short = encode(&|writer| {
        writer.map(4).int(1).uint(1).int(3).int(-19).int(-1).uint(6).int(-2).bytes(&x[1..]);
    });
    assert_eq!(short, Err(DecodeError::Length { what: "key x", got: 31, want: 32 }));
}

#[test]
fn each_role_has_a_word_of_its_own() {
    assert_eq!(Role::ALL.map(Role::name), ["root", "release", "campaign", "beacon"]);
}

//! Keys and signatures: each has one form, and what lax verifiers take is refused.

use whimbrel_protocol::codec::{DecodeError, Reader, Writer};
use whimbrel_protocol::cose::{Accept, Algorithm, PublicKey, Sign1, Signature, SignatureError};

use crate::samples::{ed25519_key, p256_key};

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

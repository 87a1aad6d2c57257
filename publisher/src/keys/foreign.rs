//! Reads keys as HSMs, cloud key services and OpenSSL give them out, in PEM (RFC 7468) or DER: public keys as
//! SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), private keys as PKCS#8 (RFC 5958) or in the older form for
//! elliptic curves (RFC 5915).

use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode as _, SecretDocument};
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use sec1::{EcParameters, EcPrivateKey};
use whimbrel_protocol::cose::{PublicKey, SigningKey};

/// A key of one of the two algorithms.
#[derive(Debug)]
pub(super) enum ForeignKey {
    Private(SigningKey),
    Public(PublicKey),
}

/// RFC 8410 section 3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// `id-ecPublicKey`, RFC 5480 section 2.1.1.
const ELLIPTIC_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `prime256v1`, RFC 5480 section 2.1.1.1.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Reads a key; `None` if it is in none of these forms, or of another algorithm.
pub(super) fn parse(bytes: &[u8]) -> Option<ForeignKey> {
    match core::str::from_utf8(bytes).ok().and_then(|text| SecretDocument::from_pem(from_begin(text)).ok()) {
        Some((_, document)) => parse_der(document.as_bytes()),
        None => parse_der(bytes),
    }
}

/// Whether the file holds a private key that only a password opens.
pub(super) fn is_encrypted(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok_and(|text| {
        text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
    })
}

/// The first block of the file that has a key. OpenSSL writes the parameters of the curve before an EC key.
fn from_begin(text: &str) -> &str {
    let mut blocks = text.match_indices("-----BEGIN ");
    let key =
        blocks.find(|(at, _)| !text.get(*at..).is_some_and(|block| block.starts_with("-----BEGIN EC PARAM")));
    key.and_then(|(at, _)| text.get(at..)).unwrap_or(text)
}

fn parse_der(der: &[u8]) -> Option<ForeignKey> {
    if let Ok(info) = PrivateKeyInfoRef::try_from(der) {
        return private(&info).map(ForeignKey::Private);
    }
    if let Ok(key) = EcPrivateKey::from_der(der) {
        // Outside of PKCS#8 only the key itself names its curve.
        let is_p256 = matches!(key.parameters, Some(EcParameters::NamedCurve(P256)));
        return is_p256.then(|| p256(&key)).flatten().map(ForeignKey::Private);
    }
    public(&SubjectPublicKeyInfoRef::try_from(der).ok()?).map(ForeignKey::Public)
}

fn private(info: &PrivateKeyInfoRef<'_>) -> Option<SigningKey> {
    let inside = info.private_key.as_bytes();
    if info.algorithm.oid == ED25519 {
        let secret = <&OctetStringRef>::from_der(inside).ok()?;
        return Some(SigningKey::ed25519(secret.as_bytes().try_into().ok()?));
    }
    if is_p256(&info.algorithm) { p256(&EcPrivateKey::from_der(inside).ok()?) } else { None }
}

fn p256(key: &EcPrivateKey<'_>) -> Option<SigningKey> {
    SigningKey::p256(key.private_key.try_into().ok()?).ok()
}

fn public(info: &SubjectPublicKeyInfoRef<'_>) -> Option<PublicKey> {
    let point = info.subject_public_key.as_bytes()?;
    if info.algorithm.oid == ED25519 {
        return PublicKey::ed25519(point.try_into().ok()?).ok();
    }
    if !is_p256(&info.algorithm) {
        return None;
    }
    // An uncompressed point (SEC 1 section 2.3.3).
    let (x, y) = point.strip_prefix(&[4])?.split_first_chunk::<32>()?;
    PublicKey::p256(x, y.try_into().ok()?).ok()
}

fn is_p256(algorithm: &AlgorithmIdentifierRef<'_>) -> bool {
    algorithm.oid == ELLIPTIC_CURVE && algorithm.parameters_oid() == Ok(P256)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 section 10.1 prints this key.
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
    /// RFC 8410 section 10.3 prints the private key of the same, without and with the public half.
    const ED25519_PRIVATE: [&str; 2] = [
        "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
",
        "-----BEGIN PRIVATE KEY-----
MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB
Z9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PRIVATE KEY-----
",
    ];
    /// The key of draft-ietf-suit-manifest's examples.
    const P256_PUBLIC: &str = include_str!("../../../protocol/vectors/suit/keys/es256-TEST-ONLY-public.pem");

    /// Made by `openssl ecparam -name prime256v1 -genkey`.
    const P256_PRIVATE: &str = "-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIDgApWQAf0vry4QYQQ/2qyGQSTs7guZHSA8hB9EZdl5uoAoGCCqGSM49
AwEHoUQDQgAE9lw45fEIfqnT/2KcBA+l7mqnZ2OhYcnABHU5yL64F0wjpORAKZWa
mgKNpxDCqj6Xl/5jg7iLz4fkGekkeIrgCA==
-----END EC PRIVATE KEY-----
";
    /// The same after `openssl pkcs8 -topk8 -nocrypt`.
    const P256_PKCS8: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOAClZAB/S+vLhBhB
D/arIZBJOzuC5kdIDyEH0Rl2Xm6hRANCAAT2XDjl8Qh+qdP/YpwED6XuaqdnY6Fh
ycAEdTnIvrgXTCOk5EAplZqaAo2nEMKqPpeX/mODuIvPh+QZ6SR4iuAI
-----END PRIVATE KEY-----
";
    /// Its public half, by `openssl ec -pubout`.
    const P256_PUBLIC_OF_IT: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9lw45fEIfqnT/2KcBA+l7mqnZ2Oh
YcnABHU5yL64F0wjpORAKZWamgKNpxDCqj6Xl/5jg7iLz4fkGekkeIrgCA==
-----END PUBLIC KEY-----
";

    fn public_of(text: &[u8]) -> PublicKey {
        match parse(text) {
            Some(ForeignKey::Public(key)) => key,
            other => panic!("{other:?}"),
        }
    }

    fn private_of(text: &[u8]) -> SigningKey {
        match parse(text) {
            Some(ForeignKey::Private(key)) => key,
            other => panic!("{other:?}"),
        }
    }

    fn der(pem: &str) -> Vec<u8> {
        SecretDocument::from_pem(pem).unwrap().1.as_bytes().to_vec()
    }

    #[test]
    fn public_keys_of_other_tools_are_read() {
        let PublicKey::Ed25519(point) = public_of(ED25519_PUBLIC.as_bytes()) else { panic!("P-256") };
        assert_eq!(
            hex::encode(point.as_bytes()),
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
        let key = public_of(P256_PUBLIC.as_bytes());
        assert!(matches!(key, PublicKey::P256(_)));
        assert_eq!(public_of(&der(P256_PUBLIC)), key);
    }

    #[test]
    fn private_keys_of_other_tools_are_read_in_pem_and_der() {
        for pem in ED25519_PRIVATE {
            for bytes in [pem.as_bytes(), &der(pem)] {
                assert_eq!(private_of(bytes).public(), public_of(ED25519_PUBLIC.as_bytes()));
            }
        }
        let der = [der(P256_PKCS8), der(from_begin(P256_PRIVATE))];
        for bytes in [P256_PKCS8.as_bytes(), P256_PRIVATE.as_bytes(), &der[0], &der[1]] {
            assert_eq!(private_of(bytes).public(), public_of(P256_PUBLIC_OF_IT.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused() {
        for pem in [ED25519_PUBLIC, ED25519_PRIVATE[0], P256_PUBLIC, P256_PKCS8, from_begin(P256_PRIVATE)] {
            let der = der(pem);
            for len in 0..der.len() {
                assert!(parse(&der[..len]).is_none());
            }
            let mut longer = der.clone();
            longer.push(0);
            assert!(parse(&longer).is_none());
        }
        assert!(parse(ED25519_PUBLIC.replace('=', "").as_bytes()).is_none());
        assert!(parse(ED25519_PUBLIC.replace('G', "!").as_bytes()).is_none());
        // A key for agreement (X25519, RFC 8410 section 3) signs nothing.
        let agreement = der(ED25519_PUBLIC)
            .iter()
            .map(|byte| if *byte == 0x70 { 0x6e } else { *byte })
            .collect::<Vec<_>>();
        assert!(parse(&agreement).is_none());
    }

    #[test]
    fn a_key_behind_a_password_is_told_from_a_file_that_is_no_key() {
        assert!(is_encrypted(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb"));
        assert!(is_encrypted(b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(!is_encrypted(ED25519_PRIVATE[0].as_bytes()));
    }
}

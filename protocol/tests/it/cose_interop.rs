//! Our COSE and SUIT beside two other implementations: coset and suit_validator.

use coset::iana::{self, EnumI64 as _};
use coset::{
    CborSerializable as _, CoseKey, CoseKeyBuilder, CoseSign, CoseSign1, CoseSign1Builder, CoseSignBuilder,
    CoseSignatureBuilder, Header, HeaderBuilder, Label, TaggedCborSerializable as _,
};
use suit_validator::SuitError;
use suit_validator::crypto::{CoseCrypto, SuitCrypto};
use suit_validator::handler::SuitStartHandler;
use suit_validator::suit_manifest::{SuitEnvelope, SuitManifest};
use whimbrel_protocol::codec::{Reader, Writer};
use whimbrel_protocol::cose::{
    Accept, Algorithm, Kind, PublicKey, Sign1, SignatureError, SigningKey, sign_attached,
};
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::ReleaseManifest;
use whimbrel_protocol::trust::Root;

use crate::samples::{ed25519_key, p256_key, release, release_per_slot, release_with_patches, root, signed};

const KINDS: [Kind; 7] =
    [Kind::Root, Kind::Campaign, Kind::Assignment, Kind::Beacon, Kind::Answer, Kind::Report, Kind::Enrolment];

/// The private-use label that says which kind of object of ours it is.
const KIND_LABEL: i64 = -65_537;

fn keys() -> [SigningKey; 2] {
    [p256_key(1), ed25519_key(1)]
}

fn coset_algorithm(key: &SigningKey) -> iana::Algorithm {
    match key.public().algorithm() {
        Algorithm::Ed25519 => iana::Algorithm::Ed25519,
        _ => iana::Algorithm::ESP256,
    }
}

fn coset_header(key: &SigningKey, kind: Option<Kind>) -> Header {
    let header = HeaderBuilder::new().algorithm(coset_algorithm(key));
    match kind {
        Some(kind) => header.value(KIND_LABEL, ciborium::Value::from(kind.number())).build(),
        None => header.build(),
    }
}

fn key_id(key: &SigningKey) -> Header {
    HeaderBuilder::new().key_id(key.public().id().0.to_vec()).build()
}

/// Verifies with the cryptographic crates alone, without our COSE.
fn raw_verify(key: &PublicKey, signature: &[u8], message: &[u8]) -> Result<(), String> {
    match key {
        PublicKey::P256(key) => {
            use p256::ecdsa::signature::Verifier as _;
            let signature = p256::ecdsa::Signature::from_slice(signature).map_err(|e| e.to_string())?;
            key.verify(message, &signature).map_err(|e| e.to_string())
        }
        PublicKey::Ed25519(key) => {
            let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|e| e.to_string())?;
            key.verify_strict(message, &signature).map_err(|e| e.to_string())
        }
    }
}

#[test]
fn objects_that_coset_signs_are_verified_here() {
    for key in keys() {
        for kind in KINDS {
            let object = CoseSign1Builder::new()
                .protected(coset_header(&key, Some(kind)))
                .unprotected(if kind.is_by_device() { Header::default() } else { key_id(&key) })
                .payload(b"payload".to_vec())
                .create_signature(&kind.external_aad(), |message| key.sign(message).to_vec())
                .build()
                .to_tagged_vec()
                .unwrap();
            let read = Sign1::decode(&object).unwrap();
            assert_eq!(read.claimed_kind(), Some(kind));
            assert_eq!(read.verify_attached(kind, &key.public()), Ok(b"payload".as_slice()));
            // And byte for byte what we would have made.
            let id = (!kind.is_by_device()).then(|| key.public().id());
            assert_eq!(object, sign_attached(&key, kind, id, b"payload"));
        }
    }
}

#[test]
fn objects_that_we_sign_are_verified_by_coset() {
    for key in keys() {
        for kind in KINDS {
            let object = sign_attached(&key, kind, Some(key.public().id()), b"payload");
            let read = CoseSign1::from_tagged_slice(&object).unwrap();
            let rest = &read.protected.header.rest;
            assert_eq!(rest, &[(Label::Int(KIND_LABEL), ciborium::Value::from(kind.number()))]);
            assert_eq!(read.unprotected.key_id, key.public().id().0);
            let verify = |aad: &[u8]| {
                read.verify_signature(aad, |signature, message| raw_verify(&key.public(), signature, message))
            };
            assert_eq!(verify(&kind.external_aad()), Ok(()));
            assert!(verify(b"").is_err());
        }
    }
}

#[test]
fn detached_signatures_go_both_ways() {
    for key in keys() {
        let mut ours = signed(&release(), &[]);
        let digest_bytes = {
            let mut writer = Writer::new();
            writer.array(2).int(-16).bytes(&ours.claimed_digest().0);
            writer.into_bytes()
        };
        // coset signs, we verify.
        let block = CoseSign1Builder::new()
            .protected(coset_header(&key, None))
            .create_detached_signature(&digest_bytes, b"", |message| key.sign(message).to_vec())
            .build()
            .to_tagged_vec()
            .unwrap();
        ours.attach(block).unwrap();
        let verified = ours.verify_with_keys(&[key.public()], 1, Accept::STRICT).unwrap();
        assert_eq!(verified.manifest().sequence_number(), 17);

        // We sign, coset verifies.
        let block = signed(&release(), &[&key]).blocks().unwrap().remove(0).bytes;
        let read = CoseSign1::from_tagged_slice(&block).unwrap();
        assert_eq!(read.payload, None);
        assert_eq!(
            read.verify_detached_signature(&digest_bytes, b"", |signature, message| {
                raw_verify(&key.public(), signature, message)
            }),
            Ok(())
        );
    }
}

#[test]
fn roots_go_both_ways() {
    let (one, two) = (ed25519_key(201), p256_key(202));
    let mut root = root(&[&ed25519_key(1), &p256_key(2)], 2);
    root.roles[0].keys.push(two.public());
    root.roles[0].threshold = 2;

    // coset signs, we verify.
    let aad = Kind::Root.external_aad();
    let body = HeaderBuilder::new().value(KIND_LABEL, ciborium::Value::from(Kind::Root.number())).build();
    let signature =
        |key| CoseSignatureBuilder::new().protected(coset_header(key, None)).unprotected(key_id(key)).build();
    let theirs = CoseSignBuilder::new()
        .protected(body)
        .payload(root.encode())
        .add_created_signature(signature(&one), &aad, |message| one.sign(message).to_vec())
        .add_created_signature(signature(&two), &aad, |message| two.sign(message).to_vec())
        .build()
        .to_tagged_vec()
        .unwrap();
    assert_eq!(Root::verify(&theirs), Ok(root.clone()));

    // We sign, coset verifies.
    let ours = root.sign(&[&one, &two]);
    assert_eq!(ours, theirs);
    let read = CoseSign::from_tagged_slice(&ours).unwrap();
    for (which, key) in [one, two].iter().enumerate() {
        let verifier = |signature: &[u8], message: &[u8]| raw_verify(&key.public(), signature, message);
        assert_eq!(read.verify_signature(which, &aad, verifier), Ok(()));
    }
}

#[test]
fn keys_go_both_ways() {
    for key in keys() {
        let public = key.public();
        let mut writer = Writer::new();
        public.encode(&mut writer);
        let read = CoseKey::from_slice(writer.as_bytes()).unwrap();
        assert_eq!(read.alg, Some(coset::Algorithm::Assigned(coset_algorithm(&key))));
        assert_eq!(read.clone().to_vec().unwrap(), writer.as_bytes());

        let theirs = match &public {
            PublicKey::P256(key) => {
                let point = key.to_sec1_point(false);
                let (x, y) = (point.x().unwrap().to_vec(), point.y().unwrap().to_vec());
                CoseKeyBuilder::new_ec2_pub_key(iana::EllipticCurve::P_256, x, y)
                    .algorithm(iana::Algorithm::ESP256)
                    .build()
            }
            PublicKey::Ed25519(key) => CoseKeyBuilder::new_okp_key()
                .algorithm(iana::Algorithm::Ed25519)
                .param(
                    iana::OkpKeyParameter::Crv.to_i64(),
                    ciborium::Value::from(iana::EllipticCurve::Ed25519.to_i64()),
                )
                .param(iana::OkpKeyParameter::X.to_i64(), ciborium::Value::Bytes(key.as_bytes().to_vec()))
                .build(),
        };
        let theirs = theirs.to_vec().unwrap();
        let read = PublicKey::decode(&mut Reader::new("key", &theirs, 256).unwrap()).unwrap();
        assert_eq!(read, public);
    }
}

/// RFC 9679 section 6 prints a P-256 key and its SHA-256 thumbprint.
#[test]
fn thumbprints_are_those_of_rfc_9679() {
    let x = "65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d";
    let y = "1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c";
    let point = |text: &str| -> [u8; 32] { hex::decode(text).unwrap().try_into().unwrap() };
    let key = PublicKey::p256(&point(x), &point(y)).unwrap();
    let want = "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec";
    assert_eq!(key.thumbprint().to_hex(), want);
    assert_eq!(key.id().to_hex(), want[..8]);
}

/// Records that the other implementation got as far as handing out the envelope.
struct Accepted(Option<u64>);

impl SuitStartHandler for Accepted {
    fn on_envelope<'a>(&mut self, envelope: SuitEnvelope<'a>) -> Result<(), SuitError> {
        self.0 = Some(envelope.manifest.get()?.sequence_number);
        Ok(())
    }

    fn on_manifest<'a>(&mut self, _manifest: SuitManifest<'a>) -> Result<(), SuitError> {
        panic!("a bare manifest")
    }
}

/// Its key set: COSE_Keys with ES256 as algorithm, which it also looks up for ESP256.
fn suit_validator_keys(key: &SigningKey) -> Vec<u8> {
    let PublicKey::P256(public) = key.public() else {
        panic!("a P-256 key");
    };
    let point = public.to_sec1_point(false);
    let mut writer = Writer::new();
    writer.array(1).map(6).int(1).uint(2).int(2).bytes(&key.public().id().0).int(3).int(-7);
    writer.int(-1).uint(1).int(-2).bytes(point.x().unwrap()).int(-3).bytes(point.y().unwrap());
    writer.into_bytes()
}

fn envelopes(key: &SigningKey) -> Vec<(ReleaseManifest, Vec<u8>)> {
    let without_text = ReleaseManifest { text: None, ..release() };
    [release(), without_text, release_per_slot(), release_with_patches(2), release_with_patches(8)]
        .into_iter()
        .map(|release| {
            let bytes = signed(&release, &[key]).bytes().to_vec();
            (release, bytes)
        })
        .collect()
}

#[test]
fn suit_validator_accepts_our_envelopes() {
    let key = p256_key(1);
    let keys = suit_validator_keys(&key);
    for (release, bytes) in envelopes(&key) {
        let mut accepted = Accepted(None);
        suit_validator::suit_decode(&bytes, &mut accepted, &mut CoseCrypto::new(&keys)).unwrap();
        assert_eq!(accepted.0, Some(release.sequence));
        // It is awake: one flipped bit of the manifest and it refuses.
        let mut broken = bytes.clone();
        let middle = broken.len() / 2;
        broken[middle] ^= 1;
        let mut accepted = Accepted(None);
        assert!(
            suit_validator::suit_decode(&broken, &mut accepted, &mut CoseCrypto::new(&keys)).is_err(),
            "{release:?}"
        );
    }
}

/// Lends suit_validator an Ed25519 verifier made of coset and the cryptographic crate.
struct CosetCrypto(PublicKey);

impl SuitCrypto for CosetCrypto {
    fn verify_cose(&self, block: &[u8], digest: &[u8]) -> Result<(), SuitError> {
        let read = CoseSign1::from_tagged_slice(block).expect("a COSE_Sign1");
        read.verify_detached_signature(digest, b"", |signature, message| {
            raw_verify(&self.0, signature, message)
        })
        .map_err(|_| SuitError::default())
    }
}

#[test]
fn suit_validator_accepts_our_ed25519_envelopes() {
    let key = ed25519_key(1);
    for (release, bytes) in envelopes(&key) {
        let mut accepted = Accepted(None);
        suit_validator::suit_decode(&bytes, &mut accepted, &mut CosetCrypto(key.public())).unwrap();
        assert_eq!(accepted.0, Some(release.sequence));
        let mut other = CosetCrypto(ed25519_key(2).public());
        assert!(suit_validator::suit_decode(&bytes, &mut Accepted(None), &mut other).is_err());
    }
}

/// The other way round: what other COSE stacks allow and our profile does not, each with its name.
#[test]
fn what_coset_allows_beyond_our_profile_is_refused() {
    let key = ed25519_key(1);
    let sign = |protected: Header, unprotected: Header| {
        CoseSign1Builder::new()
            .protected(protected)
            .unprotected(unprotected)
            .payload(b"payload".to_vec())
            .create_signature(&Kind::Beacon.external_aad(), |message| key.sign(message).to_vec())
            .build()
            .to_tagged_vec()
            .unwrap()
    };
    let good = || coset_header(&key, Some(Kind::Beacon));
    let verify = |object: &[u8]| -> Result<(), SignatureError> {
        Sign1::decode(object)?.verify_attached(Kind::Beacon, &key.public()).map(drop)
    };
    assert_eq!(verify(&sign(good(), Header::default())), Ok(()));
    let algorithm_outside = HeaderBuilder::new().algorithm(iana::Algorithm::Ed25519).build();
    assert!(verify(&sign(good(), algorithm_outside.clone())).is_err());
    let without =
        HeaderBuilder::new().value(KIND_LABEL, ciborium::Value::from(Kind::Beacon.number())).build();
    assert!(verify(&sign(without.clone(), algorithm_outside)).is_err());
    assert!(verify(&sign(without, Header::default())).is_err());
    let crit = HeaderBuilder::new()
        .algorithm(iana::Algorithm::Ed25519)
        .value(KIND_LABEL, ciborium::Value::from(Kind::Beacon.number()))
        .add_critical(iana::HeaderParameter::Alg)
        .build();
    assert!(verify(&sign(crit, Header::default())).is_err());
    let content_type = HeaderBuilder::new().content_format(iana::CoapContentFormat::Cbor).build();
    assert!(verify(&sign(good(), content_type)).is_err());
    let eddsa = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .value(KIND_LABEL, ciborium::Value::from(Kind::Beacon.number()))
        .build();
    assert_eq!(verify(&sign(eddsa, Header::default())), Err(SignatureError::Algorithm { alg: -8 }));
}

/// A chain of countersignatures in countersignatures, which no key is needed for.
#[test]
fn nested_countersignatures_are_refused_at_the_first() {
    let mut object = Vec::new();
    for _ in 0..300 {
        // [h'', {7: ...
        object.extend([0x83, 0x40, 0xa1, 0x07]);
    }
    let mut bytes = vec![0xd2, 0x84, 0x40, 0xa1, 0x07];
    bytes.extend(object);
    let refused = Sign1::decode(&bytes).map(drop);
    assert_eq!(
        refused,
        Err(whimbrel_protocol::codec::DecodeError::UnknownKey { what: "unprotected header", key: 7 })
    );
}

#[test]
fn the_release_digest_is_the_one_that_others_compute() {
    let envelope = signed(&release(), &[]);
    let manifest = envelope.unverified_manifest().unwrap();
    // ciborium puts the byte string head in front.
    let mut wrapped = Vec::new();
    ciborium::into_writer(&ciborium::Value::Bytes(manifest.bytes().to_vec()), &mut wrapped).unwrap();
    assert_eq!(manifest.digest(), Digest::of(&wrapped));
    assert_eq!(Envelope::decode(envelope.bytes()).unwrap().claimed_digest(), Digest::of(&wrapped));
}

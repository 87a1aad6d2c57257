//! The parts of an envelope: digest, blocks, severed members, integrated payloads, sizes.

use whimbrel_protocol::codec::{DecodeError, Writer};
use whimbrel_protocol::cose::{Accept, Algorithm, Kind, SignatureError, SigningKey, sign_attached};
use whimbrel_protocol::envelope::{Envelope, VerifyError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{
    Content, LanguageText, Manifest, ManifestError, ReleaseManifest, ReportReason, Section, Severable, Text,
};

use crate::samples::{
    content, ed25519_key, p256_key, release, root, sequence, sign_manifest, signed, source, verified,
};

/// An envelope made of these parts, whatever they are.
pub(crate) fn assemble(digest: &[u8], blocks: &[Vec<u8>], members: &[(i64, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.tag(107).map(1 + members.len()).int(2).wrapped(|inner| {
        inner.array(1 + blocks.len()).bytes(digest);
        blocks.iter().for_each(|block| {
            inner.bytes(block);
        });
    });
    members.iter().for_each(|(key, content)| {
        writer.int(*key).bytes(content);
    });
    writer.into_bytes()
}

pub(crate) fn suit_digest(algorithm: i64, digest: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(2).int(algorithm).bytes(digest);
    writer.into_bytes()
}

/// Signs whatever is called the manifest, as a release key that was tricked would.
fn sign_anything(manifest: &[u8], digest: &Digest, key: &SigningKey) -> Vec<u8> {
    let digest = suit_digest(-16, &digest.0);
    let message = whimbrel_protocol::cose::to_be_signed(key.public().algorithm(), &digest);
    let block = whimbrel_protocol::cose::sign_detached(
        key.public().algorithm(),
        Some(key.public().id()),
        &key.sign(&message),
    );
    assemble(&digest, &[block], &[(3, manifest)])
}

pub(crate) fn wrapped_digest(content: &[u8]) -> Digest {
    let mut writer = Writer::new();
    writer.bytes(content);
    Digest::of(writer.as_bytes())
}

#[test]
fn nothing_of_the_manifest_is_read_before_it_is_authentic() {
    let key = ed25519_key(1);
    for garbage in [&[0xff, 0x00, 0xff][..], &[], &[0x9b; 64]] {
        let digest = wrapped_digest(garbage);
        let bytes = sign_anything(garbage, &digest, &key);
        let other = Envelope::decode(&bytes).unwrap().verify(&root(&[&ed25519_key(2)], 1), Accept::STRICT);
        assert_eq!(other.map(drop), Err(SignatureError::UnknownKey.into()));
        let result = Envelope::decode(&bytes).unwrap().verify(&root(&[&key], 1), Accept::STRICT);
        assert!(matches!(result, Err(VerifyError::Manifest(ManifestError::Malformed(_)))), "{result:?}");
    }
}

#[test]
fn the_digest_covers_the_byte_string_head() {
    let key = ed25519_key(1);
    let manifest = release().build().unwrap();
    let right = sign_anything(manifest.bytes(), &wrapped_digest(manifest.bytes()), &key);
    assert!(Envelope::decode(&right).unwrap().verify(&root(&[&key], 1), Accept::STRICT).is_ok());
    // Over the content alone, which several tools have got wrong.
    let wrong = sign_anything(manifest.bytes(), &Digest::of(manifest.bytes()), &key);
    let result = Envelope::decode(&wrong).unwrap().verify(&root(&[&key], 1), Accept::STRICT);
    assert_eq!(result.map(drop), Err(VerifyError::Digest));
    // Nor does anybody sign such an envelope with our tools.
    assert_eq!(
        Envelope::decode(&wrong).unwrap().authentication_tbs(Algorithm::Ed25519),
        Err(VerifyError::Digest)
    );
    assert_eq!(Envelope::decode(&wrong).unwrap().sign(&key), Err(VerifyError::Digest));
}

#[test]
fn digests_of_other_algorithms_are_refused_by_name() {
    let manifest = release().build().unwrap();
    let sizes = [(-18, 32, "SHAKE128"), (-43, 48, "SHA-384"), (-44, 64, "SHA-512"), (-45, 64, "SHAKE256")];
    for (alg, size, name) in sizes {
        let bytes = assemble(&suit_digest(alg, &vec![0; size]), &[], &[(3, manifest.bytes())]);
        let error = Envelope::decode(&bytes).unwrap_err();
        assert_eq!(error, VerifyError::Manifest(ManifestError::DigestAlgorithm { alg }));
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(ReportReason::from(error), ReportReason::AlgorithmUnsupported);
    }
    for size in [0, 31, 33, 64] {
        let bytes = assemble(&suit_digest(-16, &vec![0; size]), &[], &[(3, manifest.bytes())]);
        let length = DecodeError::Length { what: "digest", got: size as u64, want: 32 };
        assert_eq!(Envelope::decode(&bytes), Err(VerifyError::Manifest(ManifestError::Malformed(length))));
    }
}

#[test]
fn only_the_members_of_the_profile_are_taken() {
    let manifest = release().build().unwrap();
    let digest = suit_digest(-16, &manifest.digest().0);
    let decode = |members: &[(i64, &[u8])]| Envelope::decode(&assemble(&digest, &[], members)).map(drop);
    assert_eq!(decode(&[(3, manifest.bytes())]), Ok(()));
    for key in [4, 5, 13, 14, 15, 17, 18, 19, 21, 24, 100, -1, -257] {
        let error = DecodeError::UnknownKey { what: "envelope", key };
        assert_eq!(decode(&[(3, manifest.bytes()), (key, b"")]), Err(error.into()));
    }
    let missing = DecodeError::MissingKey { what: "envelope", key: 3 };
    assert_eq!(decode(&[]), Err(missing.into()));
    assert_eq!(decode(&[(16, b"")]), Err(missing.into()));
    // Delegation was dropped from the draft; its key stays reserved.
    let mut writer = Writer::new();
    writer.tag(107).map(2).int(1).bytes(b"").int(2).bytes(b"");
    let error = DecodeError::UnknownKey { what: "envelope", key: 1 };
    assert_eq!(Envelope::decode(writer.as_bytes()), Err(error.into()));
}

#[test]
fn an_envelope_of_more_members_than_there_may_be_is_refused_before_any_is_read() {
    for (members, refused) in [(9, false), (10, true), (1 << 30, true)] {
        let mut writer = Writer::new();
        writer.tag(107).map(members);
        let result = Envelope::decode(writer.as_bytes());
        let too_long = matches!(result, Err(VerifyError::Malformed(DecodeError::TooLong { limit: 9, .. })));
        assert_eq!(too_long, refused, "{members}: {result:?}");
    }
}

fn with_text_key(key: &str, content: &[u8]) -> Vec<u8> {
    let signer = ed25519_key(1);
    let plain = ReleaseManifest { text: None, ..release() };
    let envelope = signed(&plain, &[&signer]);
    // One pair more in the map, at the end, where text keys belong.
    let mut bytes = envelope.bytes().to_vec();
    assert_eq!(bytes[..3], [0xd8, 0x6b, 0xa2]);
    bytes[2] = 0xa3;
    let mut writer = Writer::after(&bytes);
    writer.text(key).bytes(content);
    writer.into_bytes()
}

#[test]
fn a_payload_that_the_manifest_does_not_name_is_refused() {
    let envelope = Envelope::decode(&with_text_key("#payload", b"bytes")).unwrap();
    let result = envelope.verify(&root(&[&ed25519_key(1)], 1), Accept::STRICT);
    assert_eq!(result.map(drop), Err(VerifyError::PayloadUnlisted));
    for key in ["payload", "", "mq:0011223344556677", "#\n", "# ", "#\u{7f}"] {
        let error = DecodeError::Value { what: "envelope key" };
        assert_eq!(Envelope::decode(&with_text_key(key, b"bytes")), Err(error.into()), "{key:?}");
    }
}

fn severed() -> (Manifest, Vec<u8>) {
    let install = sequence(&[source(1)]);
    let encoded = install.encode();
    let content = Content {
        install: Some(Severable::<_>::Severed { digest: wrapped_digest(&encoded), member: Some(install) }),
        ..content()
    };
    (Manifest::new(content).unwrap(), encoded)
}

#[test]
fn severed_members_are_checked_against_the_manifest() {
    let (manifest, install) = severed();
    let key = ed25519_key(1);
    let root = root(&[&key], 1);
    let block = sign_manifest(&manifest, &[&key]).blocks().unwrap().remove(0).bytes;
    let digest = suit_digest(-16, &manifest.digest().0);
    let verify = |members: &[(i64, &[u8])]| {
        let blocks = std::slice::from_ref(&block);
        let mut all = vec![(3, manifest.bytes())];
        all.extend(members);
        Envelope::decode(&assemble(&digest, blocks, &all)).unwrap().verify(&root, Accept::STRICT)
    };
    // Whole, and without the member.
    let whole = verify(&[(20, &install)]).unwrap();
    assert!(whole.manifest().content().section(Section::Install).unwrap().is_some());
    let dropped = verify(&[]).unwrap();
    let missing = ManifestError::SectionMissing { section: Section::Install };
    assert_eq!(dropped.manifest().content().section(Section::Install), Err(missing));
    assert_eq!(dropped.digest(), whole.digest());
    // Another one under its key; the right one under another key; one that nobody severed.
    let other = sequence(&[source(2)]).encode();
    let mismatch = ManifestError::MemberMismatch { key: 20 };
    assert_eq!(verify(&[(20, &other)]).map(drop), Err(mismatch.into()));
    let unlisted = |key| VerifyError::Manifest(ManifestError::MemberUnlisted { key });
    assert_eq!(verify(&[(16, &install)]).map(drop), Err(unlisted(16)));
    assert_eq!(verify(&[(16, &install), (20, &install)]).map(drop), Err(unlisted(16)));
    assert_eq!(verify(&[(20, &install), (23, b"\xa0")]).map(drop), Err(unlisted(23)));
    assert_eq!(ReportReason::from(unlisted(23)), ReportReason::SeveringUnsupported);
}

#[test]
fn a_member_that_stands_in_the_manifest_is_refused_beside_it() {
    let key = ed25519_key(1);
    let plain = ReleaseManifest { text: None, ..release() };
    let manifest = plain.build().unwrap();
    let install = manifest.content().section(Section::Install).unwrap().unwrap().encode();
    let block = signed(&plain, &[&key]).blocks().unwrap().remove(0).bytes;
    let digest = suit_digest(-16, &manifest.digest().0);
    let bytes = assemble(&digest, &[block], &[(3, manifest.bytes()), (20, &install)]);
    let result = Envelope::decode(&bytes).unwrap().verify(&root(&[&key], 1), Accept::STRICT);
    assert_eq!(result.map(drop), Err(ManifestError::MemberUnlisted { key: 20 }.into()));
}

#[test]
fn a_severed_member_of_the_wrong_shape_is_refused_though_its_digest_is_right() {
    let key = ed25519_key(1);
    for garbage in [&[0xff_u8][..], &[0x80], &[0x81, 0x00], &[0x82, 0x15, 0x02, 0x00]] {
        let severed = Severable::Severed { digest: wrapped_digest(garbage), member: None };
        let manifest = Manifest::new(Content { install: Some(severed), ..content() }).unwrap();
        let block = sign_manifest(&manifest, &[&key]).blocks().unwrap().remove(0).bytes;
        let digest = suit_digest(-16, &manifest.digest().0);
        let bytes = assemble(&digest, &[block], &[(3, manifest.bytes()), (20, garbage)]);
        let result = Envelope::decode(&bytes).unwrap().verify(&root(&[&key], 1), Accept::STRICT);
        assert!(matches!(result, Err(VerifyError::Manifest(ManifestError::Malformed(_)))), "{garbage:?}");
    }
}

#[test]
fn the_text_can_go_and_the_signature_stays() {
    let key = p256_key(1);
    let whole = signed(&release(), &[&key]);
    let root = root(&[&key], 1);
    let mut stripped = whole.clone();
    stripped.strip_text();
    assert!(stripped.bytes().len() < whole.bytes().len());
    let after = Envelope::decode(stripped.bytes()).unwrap();
    assert_eq!(after, stripped);
    let after = after.verify(&root, Accept::STRICT).unwrap();
    let mut before = Envelope::decode(whole.bytes()).unwrap().verify(&root, Accept::STRICT).unwrap();
    assert_eq!(before.digest(), after.digest());
    assert_ne!(before, after);
    before.strip_text();
    assert_eq!(before, after);
}

#[test]
fn a_text_that_nobody_can_read_is_refused_by_who_reads_it_and_not_by_a_device() {
    let text = Text::from_bytes(&[0xff]);
    for text in [Severable::Inline(text.clone()), Severable::<Text>::sever(text)] {
        let envelope = verified(Content { text: Some(text), ..content() });
        assert_eq!(envelope.manifest().walk(), Ok(()));
        let refused = ManifestError::Malformed(DecodeError::Indefinite { at: 0 });
        assert_eq!(envelope.manifest().languages(), Err(refused));
    }
}

#[test]
fn other_blocks_than_cose_sign1_are_refused() {
    let key = ed25519_key(1);
    let envelope = signed(&release(), &[]);
    let manifest = envelope.unverified_manifest().unwrap();
    let digest = suit_digest(-16, &manifest.digest().0);
    let attached = sign_attached(&key, Kind::Campaign, None, &digest);
    let table = [
        // COSE_Mac0 and COSE_Sign, by their tags.
        (vec![0xd1, 0x84], DecodeError::Value { what: "COSE_Sign1 tag" }),
        (vec![0xd8, 0x62, 0x84], DecodeError::Value { what: "COSE_Sign1 tag" }),
        (vec![0x84, 0x40], DecodeError::Type { what: "COSE_Sign1 tag", at: 0 }),
        (vec![], DecodeError::Truncated { at: 0 }),
    ];
    for (block, error) in table {
        let bytes = assemble(&digest, std::slice::from_ref(&block), &[(3, manifest.bytes())]);
        // It decodes, because blocks are bytes until they are needed, and is refused then.
        let decoded = Envelope::decode(&bytes).unwrap();
        assert!(decoded.blocks().is_err());
        let result = decoded.verify(&root(&[&key], 1), Accept::STRICT);
        assert_eq!(result.map(drop), Err(VerifyError::Unauthentic(SignatureError::Malformed(error))));
        assert!(envelope.clone().attach(block).is_err());
    }
    // A signed object of ours, over the very digest.
    let bytes = assemble(&digest, std::slice::from_ref(&attached), &[(3, manifest.bytes())]);
    let result = Envelope::decode(&bytes).unwrap().verify_with_keys(&[key.public()], 1, Accept::STRICT);
    let kind = SignatureError::Kind { got: Some(Kind::Campaign.number()), want: 0 };
    assert_eq!(result.map(drop), Err(kind.into()));
    let payload = SignatureError::Payload { attached: false };
    assert_eq!(envelope.clone().attach(attached), Err(payload.into()));
}

#[test]
fn signatures_and_bytes_have_a_maximum() {
    let mut envelope = signed(&release(), &[]);
    for seed in 1..=4 {
        envelope.sign(&ed25519_key(seed)).unwrap();
    }
    let before = envelope.clone();
    let full = VerifyError::Full { what: "signatures", got: 5, limit: 4 };
    assert_eq!(envelope.sign(&ed25519_key(5)), Err(full));
    assert_eq!(envelope, before);
    assert_eq!(Envelope::decode(envelope.bytes()), Ok(before));

    // A text that leaves no room for a signature, and one that leaves no room for itself.
    let with_text = |bytes: usize| {
        let text = Text::new(&[LanguageText {
            language: "en".into(),
            manifest: vec![(1, "x".repeat(bytes))],
            components: vec![],
        }]);
        Envelope::unsigned(&ReleaseManifest { text: Some(text), ..release() }.build().unwrap())
    };
    let fits = with_text(1_000).unwrap().bytes().len() - 1_000;
    let mut tight = with_text(4_096 - fits - 40).unwrap();
    let before = tight.clone();
    assert!(matches!(tight.sign(&ed25519_key(1)), Err(VerifyError::Full { what: "bytes", limit: 4096, .. })));
    assert_eq!(tight, before);
    assert!(matches!(with_text(4_000), Err(VerifyError::Full { what: "bytes", limit: 4096, .. })));
    let too_long = DecodeError::TooLong { what: "envelope", got: 4097, limit: 4096 };
    assert_eq!(Envelope::decode(&[0; 4097]), Err(too_long.into()));
}

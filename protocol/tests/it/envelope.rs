//! Envelopes: signing, thresholds, severing, and every way to tamper with one.

use proptest::prelude::*;
use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::cose::{Accept, Algorithm, SignatureError, SigningKey};
use whimbrel_protocol::envelope::{Envelope, Unverified, VerifyError};
use whimbrel_protocol::manifest::{ManifestError, ReleaseManifest, ReportReason};

use crate::samples::{ed25519_key, p256_key, release, release_per_slot, root, signed};

fn verify(
    envelope: &Envelope<Unverified>,
    keys: &[&SigningKey],
    threshold: usize,
) -> Result<(), VerifyError> {
    let root = root(keys, threshold);
    Envelope::decode(envelope.bytes())?.verify(&root, Accept::STRICT).map(drop)
}

#[test]
fn a_signed_release_verifies_against_the_root() {
    let (one, two) = (p256_key(1), ed25519_key(2));
    for keys in [vec![&one], vec![&two], vec![&one, &two]] {
        let envelope = signed(&release(), &keys);
        let root = root(&[&one, &two], keys.len());
        let verified = Envelope::decode(envelope.bytes()).unwrap().verify(&root, Accept::STRICT).unwrap();
        assert_eq!(verified.bytes(), envelope.bytes());
        assert_eq!(verified.digest(), envelope.claimed_digest());
        assert_eq!(verified.manifest().digest(), verified.digest());
        assert_eq!(verified.manifest().sequence_number(), 17);
        assert_eq!(verified.manifest().version(), Some([1, 4, 2].as_slice()));
    }
}

#[test]
fn every_bit_of_a_signed_envelope_counts() {
    let (one, two) = (p256_key(1), ed25519_key(2));
    for keys in [vec![&one], vec![&two], vec![&one, &two]] {
        let root = root(&[&one, &two], keys.len());
        let envelope = signed(&release(), &keys);
        let bytes = envelope.bytes();
        assert!(Envelope::decode(bytes).unwrap().verify(&root, Accept::STRICT).is_ok());
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result =
                Envelope::decode(&flipped).and_then(|envelope| envelope.verify(&root, Accept::STRICT));
            assert!(result.is_err(), "bit {bit}");
            refused += 1;
        }
        assert_eq!(refused, bytes.len() * 8);
    }
}

#[test]
fn an_envelope_cut_anywhere_is_refused() {
    let envelope = signed(&release(), &[&p256_key(1)]);
    let bytes = envelope.bytes();
    for end in 0..bytes.len() {
        let error = Envelope::decode(&bytes[..end]);
        assert!(matches!(error, Err(VerifyError::Malformed(DecodeError::Truncated { .. }))), "{end}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(Envelope::decode(&longer), Err(VerifyError::Malformed(DecodeError::Trailing { count: 1 })));
}

#[test]
fn a_signature_by_an_unknown_key_does_not_count() {
    let (known, unknown) = (ed25519_key(1), ed25519_key(9));
    let envelope = signed(&release(), &[&unknown]);
    assert_eq!(verify(&envelope, &[&known], 1), Err(SignatureError::UnknownKey.into()));
    // A key of another role is as unknown.
    let envelope = signed(&release(), &[&ed25519_key(203)]);
    assert_eq!(verify(&envelope, &[&known], 1), Err(SignatureError::UnknownKey.into()));
    // Beside one that counts it does no harm, and where more are needed it is they that are missing.
    let envelope = signed(&release(), &[&unknown, &known]);
    assert_eq!(verify(&envelope, &[&known], 1), Ok(()));
    let missing = SignatureError::Threshold { got: 1, want: 2 };
    assert_eq!(verify(&envelope, &[&known, &p256_key(2)], 2), Err(missing.into()));
}

#[test]
fn the_key_id_of_another_key_helps_nobody() {
    let (known, unknown) = (ed25519_key(1), ed25519_key(9));
    let mut envelope = signed(&release(), &[]);
    let message = envelope.authentication_tbs(Algorithm::Ed25519).unwrap();
    envelope.attach_signature(Algorithm::Ed25519, known.public().id(), &unknown.sign(&message)).unwrap();
    assert_eq!(verify(&envelope, &[&known], 1), Err(SignatureError::Mismatch.into()));
    let mut envelope = signed(&release(), &[]);
    envelope.attach_signature(Algorithm::Ed25519, unknown.public().id(), &known.sign(&message)).unwrap();
    assert_eq!(verify(&envelope, &[&known], 1), Err(SignatureError::UnknownKey.into()));
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    let (one, two) = (ed25519_key(1), p256_key(2));
    let envelope = signed(&release(), &[&one, &one]);
    let threshold = SignatureError::Threshold { got: 1, want: 2 };
    assert_eq!(verify(&envelope, &[&one, &two], 2), Err(threshold.into()));
    // The same with different bytes: ECDSA has two signatures for every one.
    let mut envelope = signed(&release(), &[&two]);
    let block = envelope.blocks().unwrap().remove(0).bytes;
    envelope.attach(negated(&block)).unwrap();
    assert_eq!(verify(&envelope, &[&one, &two], 1), Ok(()));
    assert_eq!(verify(&envelope, &[&one, &two], 2), Err(threshold.into()));
    assert_eq!(verify(&signed(&release(), &[&one, &two]), &[&one, &two], 2), Ok(()));
}

/// The same ECDSA signature with s replaced by n - s, which verifies too.
fn negated(block: &[u8]) -> Vec<u8> {
    let (head, signature) = block.split_at(block.len() - 64);
    let signature = p256::ecdsa::Signature::from_slice(signature).unwrap();
    let (r, s) = (signature.r(), signature.s());
    let signature = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
    [head, signature.to_bytes().as_slice()].concat()
}

#[test]
fn a_key_that_is_listed_twice_counts_once() {
    let key = ed25519_key(1);
    let envelope = signed(&release(), &[&key, &key]);
    let keys = [key.public(), key.public()];
    let result = Envelope::decode(envelope.bytes()).unwrap().verify_with_keys(&keys, 2, Accept::STRICT);
    assert_eq!(result.map(drop), Err(SignatureError::Threshold { got: 1, want: 2 }.into()));
}

#[test]
fn what_nobody_signed_decodes_and_never_verifies() {
    let envelope = signed(&release(), &[]);
    for threshold in [0, 1, 2] {
        let envelope = Envelope::decode(envelope.bytes()).unwrap();
        let result = envelope.verify_with_keys(&[ed25519_key(1).public()], threshold, Accept::STRICT);
        assert_eq!(result.map(drop), Err(VerifyError::Unsigned));
    }
    let nobody = signed(&release(), &[&ed25519_key(1)]).verify_with_keys(&[], 0, Accept::STRICT);
    assert_eq!(nobody.map(drop), Err(SignatureError::UnknownKey.into()));
}

#[test]
fn a_signature_made_elsewhere_is_attached() {
    let key = p256_key(1);
    let bytes = signed(&release(), &[]).bytes().to_vec();
    let to_sign = Envelope::decode(&bytes).unwrap().authentication_tbs(Algorithm::Esp256).unwrap();
    // Elsewhere: nothing but these bytes.
    let signature = key.sign(&to_sign);
    let mut envelope = Envelope::decode(&bytes).unwrap();
    envelope.attach_signature(Algorithm::Esp256, key.public().id(), &signature).unwrap();
    assert_eq!(envelope, signed(&release(), &[&key]));
    assert_eq!(verify(&envelope, &[&key], 1), Ok(()));
    let blocks = envelope.blocks().unwrap();
    assert_eq!(
        (blocks[0].algorithm, blocks[0].key_id.as_deref()),
        (Some(-9), Some(&key.public().id().0[..]))
    );
}

#[test]
fn every_refusal_has_a_report_reason() {
    let reasons = [
        (VerifyError::Malformed(DecodeError::Truncated { at: 0 }), ReportReason::CborParse),
        (VerifyError::Digest, ReportReason::Unauthorised),
        (VerifyError::Unsigned, ReportReason::Unauthorised),
        (SignatureError::UnknownKey.into(), ReportReason::Unauthorised),
        (SignatureError::Mismatch.into(), ReportReason::Unauthorised),
        (SignatureError::Threshold { got: 1, want: 2 }.into(), ReportReason::Unauthorised),
        (SignatureError::Algorithm { alg: -7 }.into(), ReportReason::AlgorithmUnsupported),
        (SignatureError::Payload { attached: false }.into(), ReportReason::CoseUnsupported),
        (ManifestError::MemberMismatch { key: 20 }.into(), ReportReason::SeveringUnsupported),
        (VerifyError::PayloadUnlisted, ReportReason::SeveringUnsupported),
    ];
    for (error, reason) in reasons {
        assert_eq!(ReportReason::from(error), reason, "{error}");
    }
}

proptest! {
    /// Stripping a text that is not there assembles the envelope again from its decoded parts.
    #[test]
    fn a_damaged_envelope_is_refused_or_encoded_again_as_it_was(
        per_slot in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let release = ReleaseManifest { text: None, ..if per_slot { release_per_slot() } else { release() } };
        let key = ed25519_key(1);
        let original = signed(&release, &[&key, &p256_key(2)]);
        let mut bytes = original.bytes().to_vec();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(mut envelope) = Envelope::decode(&bytes) {
            envelope.strip_text();
            let has_text = envelope.bytes().len() < bytes.len();
            prop_assert!(has_text || envelope.bytes() == bytes);
            let verified = envelope.verify(&root(&[&key], 1), Accept::STRICT);
            // What verifies is the same manifest, whatever else was damaged.
            if let Ok(verified) = verified {
                prop_assert_eq!(verified.digest(), original.claimed_digest());
            }
        }
    }

    #[test]
    fn random_bytes_are_no_envelope_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut tagged = vec![0xd8, 0x6b];
        tagged.extend(&bytes);
        for bytes in [bytes, tagged] {
            if let Ok(envelope) = Envelope::decode(&bytes) {
                prop_assert!(envelope.verify(&root(&[&ed25519_key(1)], 1), Accept::STRICT).is_err());
            }
        }
    }
}

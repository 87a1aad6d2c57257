//! The working group's examples: what we read, what we verify, what we would run.

use sha2::{Digest as _, Sha256};
use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::cose::{Accept, SignatureError};
use whimbrel_protocol::envelope::{Envelope, VerifyError};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::{
    Feature, Identity, Interpreter, Manifest, ManifestError, Procedure, Section, Step, consts,
};

use crate::samples::{draft_key, vector, vector_text};

const DRAFT: [&str; 13] = [
    "manifest-spec/example0.signed.hex",
    "manifest-spec/example0.unsigned.hex",
    "manifest-spec/example1.signed.hex",
    "manifest-spec/example1.unsigned.hex",
    "manifest-spec/example2.signed-severed.hex",
    "manifest-spec/example2.signed.hex",
    "manifest-spec/example2.unsigned.hex",
    "manifest-spec/example3.signed.hex",
    "manifest-spec/example3.unsigned.hex",
    "manifest-spec/example4.signed.hex",
    "manifest-spec/example4.unsigned.hex",
    "manifest-spec/example5.signed.hex",
    "manifest-spec/example5.unsigned.hex",
];

#[test]
fn the_vectors_are_the_ones_in_their_index() {
    let index = vector_text("index.tsv");
    let rows: Vec<Vec<&str>> = index.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), DRAFT.len() + 3);
    for row in rows {
        let bytes = vector(row[0]);
        assert_eq!(bytes.len().to_string(), row[1], "{}", row[0]);
        assert_eq!(hex::encode(Sha256::digest(&bytes)), row[6], "{}", row[0]);
    }
}

#[test]
fn every_draft_example_is_encoded_again_byte_for_byte() {
    for name in DRAFT {
        let bytes = vector(name);
        let envelope = Envelope::decode(&bytes).unwrap();
        let manifest = envelope.unverified_manifest().unwrap();
        assert_eq!(manifest.digest(), envelope.claimed_digest(), "{name}");
        assert_eq!(manifest.content().encode(), manifest.bytes(), "{name}");
        // From nothing but the decoded content and the signatures, the same envelope.
        let content = Manifest::new(manifest.content().clone()).unwrap();
        let mut again = Envelope::unsigned(&content).unwrap();
        for block in envelope.blocks().unwrap() {
            again.attach(block.bytes).unwrap();
        }
        assert_eq!(hex::encode(again.bytes()), hex::encode(&bytes), "{name}");
    }
}

#[test]
fn signed_draft_examples_verify_with_the_published_key_and_the_es256_flag() {
    for name in DRAFT.iter().filter(|name| name.contains(".signed")) {
        let verify =
            |accept| Envelope::decode(&vector(name)).unwrap().verify_with_keys(&[draft_key()], 1, accept);
        let verified = verify(Accept::WITH_ES256).unwrap();
        assert_eq!(verified.bytes(), vector(name), "{name}");
        assert_eq!(verify(Accept::STRICT), Err(SignatureError::Algorithm { alg: -7 }.into()), "{name}");
    }
}

#[test]
fn unsigned_draft_examples_decode_and_never_verify() {
    for name in DRAFT.iter().filter(|name| name.contains(".unsigned")) {
        for threshold in [0, 1] {
            let envelope = Envelope::decode(&vector(name)).unwrap();
            let verdict = envelope.verify_with_keys(&[draft_key()], threshold, Accept::WITH_ES256);
            assert_eq!(verdict, Err(VerifyError::Unsigned), "{name}");
        }
    }
}

/// What a device says to each example: the static walk, then whether it would start an update.
#[test]
fn the_walk_has_a_verdict_on_every_draft_example() {
    let fetch_lacks_arguments = ManifestError::ParameterUnset {
        section: Section::Install,
        command: consts::command::FETCH,
        parameter: consts::parameter::FETCH_ARGUMENTS,
    };
    let install_dropped = ManifestError::SectionMissing { section: Section::Install };
    let source_component =
        ManifestError::NotExecuted { feature: Feature::Parameter(consts::parameter::SOURCE_COMPONENT) };
    let components = ManifestError::NotExecuted { feature: Feature::Components(2) };
    let table = [
        // Validates and invokes; there is nothing to fetch.
        ("example0.signed.hex", Ok(()), Ok(())),
        // Fetches from a server without saying how the payload is cut.
        ("example1.signed.hex", Err(fetch_lacks_arguments), Err(fetch_lacks_arguments)),
        // The same, severed; with the section dropped only the rest is judged, and no update starts.
        ("example2.signed.hex", Err(fetch_lacks_arguments), Err(fetch_lacks_arguments)),
        ("example2.signed-severed.hex", Ok(()), Err(install_dropped)),
        // A/B.
        ("example3.signed.hex", Err(fetch_lacks_arguments), Err(fetch_lacks_arguments)),
        // Copies between three components.
        ("example4.signed.hex", Err(source_component), Err(source_component)),
        // Two components.
        ("example5.signed.hex", Err(components), Err(components)),
    ];
    for (name, walk, update) in table {
        let envelope = Envelope::decode(&vector(&format!("manifest-spec/{name}"))).unwrap();
        let envelope = envelope.verify_with_keys(&[draft_key()], 1, Accept::WITH_ES256).unwrap();
        assert_eq!(envelope.manifest().walk(), walk, "{name}");
        let started = Interpreter::new(&envelope, &draft_identity(), Procedure::Update).map(drop);
        assert_eq!(started, update, "{name}");
    }
}

/// Signed and right, and all outside our profile.
#[test]
fn trust_domain_examples_verify_and_are_refused_by_name() {
    let dependencies = ManifestError::NotInProfile { feature: Feature::Dependencies };
    let table = [
        // A dependency has no shared sequence, in which we want vendor and class.
        (
            "example0_dependent.hex",
            ManifestError::Malformed(DecodeError::MissingKey { what: "common", key: 4 }),
        ),
        ("example1_process.hex", dependencies),
        ("example2_integrated.hex", dependencies),
    ];
    for (name, refusal) in table {
        let bytes = vector(&format!("trust-domains/{name}"));
        let verify = || Envelope::decode(&bytes).unwrap().verify_with_keys(&[draft_key()], 1, Accept::STRICT);
        assert_eq!(verify().unwrap_err(), VerifyError::Manifest(refusal), "{name}");
        // The manifest is what is refused, not the signature: another key is refused before it is read.
        let other = crate::samples::p256_key(1).public();
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!(
            envelope.verify_with_keys(&[other], 1, Accept::STRICT).unwrap_err(),
            SignatureError::Mismatch.into(),
            "{name}"
        );
    }
}

fn draft_identity() -> Identity {
    let vendor = VendorId(hex::decode("fa6b4a53d5ad5fdfbe9de663e4d41ffe").unwrap().try_into().unwrap());
    let class = ClassId(hex::decode("1492af1425695e48bf429b2d51f2ab45").unwrap().try_into().unwrap());
    Identity { vendor, class, target_slot: 0 }
}

#[test]
fn example_0_runs_as_the_draft_says() {
    let envelope = Envelope::decode(&vector("manifest-spec/example0.signed.hex")).unwrap();
    let envelope = envelope.verify_with_keys(&[draft_key()], 1, Accept::WITH_ES256).unwrap();
    let mut invocation = Interpreter::new(&envelope, &draft_identity(), Procedure::Invoke).unwrap();
    let digest = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
    let question = Step::ImageMatch {
        component: 0,
        digest: Digest(hex::decode(digest).unwrap().try_into().unwrap()),
        size: 34_768,
        negate: false,
    };
    assert_eq!(invocation.step(), Ok(question));
    invocation.answer(true);
    assert_eq!(invocation.step(), Ok(Step::Done { invoke: true }));
}

#[test]
fn severed_members_of_example_2_are_read_and_the_text_can_go() {
    let whole = vector("manifest-spec/example2.signed.hex");
    let mut envelope =
        Envelope::decode(&whole).unwrap().verify_with_keys(&[draft_key()], 1, Accept::WITH_ES256).unwrap();
    assert!(envelope.manifest().content().section(Section::Install).unwrap().is_some());
    let text = envelope.manifest().languages().unwrap();
    assert!(text[0].manifest[0].1.starts_with("## Example 2:"));
    assert_eq!(text[0].components[0].1[0], (3, "arm.com".into()));
    let digest = envelope.digest();
    envelope.strip_text();
    assert!(envelope.bytes().len() < whole.len());
    let again = Envelope::decode(envelope.bytes()).unwrap();
    let again = again.verify_with_keys(&[draft_key()], 1, Accept::WITH_ES256).unwrap();
    assert_eq!(again, envelope);
    assert_eq!(again.digest(), digest);
    assert!(again.manifest().content().text.as_ref().is_some_and(|text| text.get().is_none()));
}

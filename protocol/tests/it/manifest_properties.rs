//! Manifests and descriptors of every shape: reading undoes writing, and writing undoes reading.

use proptest::prelude::*;
use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::codec::{DecodeError, Reader, Writer};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::limits::{CHUNK_SIZE_LOG2_MIN, CHUNKS_MAX};
use whimbrel_protocol::manifest::{
    Codec, Command, ComponentId, ComponentIndex, Condition, Content, DecoderMemory, LanguageText, Manifest,
    ManifestError, Parameter, ReportPolicy, Sequence, Severable, Text, TransferDescriptor,
};

fn digests() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn descriptors() -> impl Strategy<Value = TransferDescriptor> {
    // At the smallest chunks, the largest payload has as many as there may be.
    let largest = u64::from(CHUNKS_MAX) << CHUNK_SIZE_LOG2_MIN;
    let layout = (10u64..=16, 1..=largest).prop_map(|(k, size)| Layout::new(k, size).unwrap());
    let memory = (0u32..=8 << 20, 0u32..=8 << 20).prop_map(|(dictionary_bytes, more)| DecoderMemory {
        memory_bytes: dictionary_bytes + more,
        dictionary_bytes,
    });
    (0..3, layout, digests(), proptest::option::of(memory), 0u8..8).prop_map(
        |(codec, layout, index_digest, decoder, base)| match codec {
            0 => TransferDescriptor::raw(layout, index_digest),
            1 => TransferDescriptor { codec: Codec::Lzma, base: None, layout, index_digest, decoder },
            _ => TransferDescriptor { codec: Codec::Patch, base: Some(base), layout, index_digest, decoder },
        },
    )
}

fn parameters() -> impl Strategy<Value = Vec<Parameter>> {
    let one = prop_oneof![
        any::<[u8; 16]>().prop_map(|id| Parameter::VendorId(VendorId(id))),
        any::<[u8; 16]>().prop_map(|id| Parameter::ClassId(ClassId(id))),
        digests().prop_map(Parameter::ImageDigest),
        any::<u64>().prop_map(Parameter::ComponentSlot),
        any::<bool>().prop_map(Parameter::SoftFailure),
        (1..=u64::MAX).prop_map(Parameter::ImageSize),
        "[!-~]{1,40}".prop_map(Parameter::Uri),
        descriptors().prop_map(Parameter::FetchArguments),
        (prop_oneof![-300i64..0, 26i64..300], any::<u16>()).prop_map(|(label, value)| {
            let mut writer = Writer::new();
            writer.uint(u64::from(value));
            Parameter::Other(label, writer.into_bytes())
        }),
    ];
    prop::collection::vec(one, 1..6).prop_map(|mut list| {
        // As the reader gives them: in the order of their encodings, each once.
        list.sort_by_key(|parameter| (parameter.label() < 0, parameter.label().unsigned_abs()));
        list.dedup_by_key(|parameter| parameter.label());
        list
    })
}

fn policies() -> impl Strategy<Value = ReportPolicy> {
    (0u8..16).prop_map(|bits| ReportPolicy::from_bits(bits).unwrap())
}

fn conditions() -> impl Strategy<Value = Condition> {
    prop::sample::select(vec![
        Condition::VendorIdentifier,
        Condition::ClassIdentifier,
        Condition::ImageMatch,
        Condition::ComponentSlot,
        Condition::Abort,
        Condition::ImageNotMatch,
    ])
}

/// Sequences of every shape, right or not. Small enough to stay within a section's commands.
pub(crate) fn sequences() -> impl Strategy<Value = Sequence> {
    let leaf = prop_oneof![
        4 => (conditions(), policies()).prop_map(|(condition, policy)| Command::Condition(condition, policy)),
        1 => any::<u64>().prop_map(|index| Command::SetComponentIndex(ComponentIndex::One(index))),
        1 => Just(Command::SetComponentIndex(ComponentIndex::All)),
        1 => prop::collection::vec(0u64..9, 1..4).prop_map(|list| Command::SetComponentIndex(ComponentIndex::List(list))),
        4 => parameters().prop_map(Command::OverrideParameters),
        2 => policies().prop_map(Command::Fetch),
        2 => policies().prop_map(Command::Invoke),
        1 => (36i64..400, any::<bool>()).prop_map(|(label, value)| {
            let mut writer = Writer::new();
            writer.bool(value);
            Command::Other(label, writer.into_bytes())
        }),
    ];
    let sequence = prop::collection::vec(leaf, 1..4).prop_map(Sequence);
    sequence.prop_recursive(3, 12, 3, |inner| {
        let nested = prop_oneof![
            (prop::collection::vec(inner.clone(), 2..4), any::<bool>())
                .prop_map(|(branches, or_nothing)| Command::TryEach { branches, or_nothing }),
            inner.clone().prop_map(Command::RunSequence),
        ];
        (inner, nested).prop_map(|(mut sequence, nested)| {
            sequence.0.truncate(2);
            sequence.0.push(nested);
            sequence
        })
    })
}

fn severable<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Severable<T>>> {
    (value, digests(), 0..3).prop_map(|(value, digest, choice)| match choice {
        0 => None,
        1 => Some(Severable::Inline(value)),
        _ => Some(Severable::Severed { digest, member: None }),
    })
}

fn texts() -> impl Strategy<Value = Text> {
    ("\\PC{0,20}", "\\PC{0,20}").prop_map(|(one, two)| {
        Text::new(&[LanguageText {
            language: "en".into(),
            manifest: vec![(1, one)],
            components: vec![(ComponentId::app(), vec![(3, two.clone()), (8, two)])],
        }])
    })
}

fn contents() -> impl Strategy<Value = Content> {
    let option = || proptest::option::of(sequences());
    let uri = proptest::option::of("[!-~]{1,40}");
    let version = proptest::option::of(prop::collection::vec(-3i64..1_000, 1..6));
    let plain = (sequences(), option(), option(), option());
    let severed = (severable(sequences()), severable(sequences()), severable(texts()));
    let components = prop::collection::btree_set("[a-z]{1,5}", 1..4);
    (any::<u64>(), components, uri, version, plain, severed).prop_map(
        |(sequence_number, components, reference_uri, set_version, plain, severed)| {
            let components =
                components.iter().map(|part| ComponentId::new(&[part.as_bytes()]).unwrap()).collect();
            let (shared, validate, load, invoke) = plain;
            let (payload_fetch, install, text) = severed;
            Content {
                sequence_number,
                components,
                shared,
                reference_uri,
                set_version,
                validate,
                load,
                invoke,
                payload_fetch,
                install,
                text,
            }
        },
    )
}

proptest! {
    #[test]
    fn descriptors_are_read_as_written(transfer in descriptors()) {
        let mut writer = Writer::new();
        transfer.encode(&mut writer);
        prop_assert_eq!(TransferDescriptor::decode(writer.as_bytes()), Ok(transfer));
    }

    #[test]
    fn a_damaged_descriptor_is_refused_or_written_again_as_it_was(
        transfer in descriptors(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut writer = Writer::new();
        transfer.encode(&mut writer);
        let mut bytes = writer.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(transfer) = TransferDescriptor::decode(&bytes) {
            let mut writer = Writer::new();
            transfer.encode(&mut writer);
            prop_assert_eq!(writer.as_bytes(), bytes);
        }
    }

    #[test]
    fn manifests_are_read_as_written(content in contents()) {
        let bytes = content.encode();
        prop_assume!(bytes.len() <= 4096);
        let manifest = Manifest::decode(&bytes).unwrap();
        prop_assert_eq!(manifest.content(), &content);
        prop_assert_eq!(manifest.bytes(), bytes);
        // The whole of it is canonical for the reader that knows no schema.
        let mut reader = Reader::new("manifest", manifest.bytes(), 4096).unwrap();
        prop_assert!(reader.item().is_ok() && reader.is_at_end());
        // No panic, whatever the verdict.
        let _ = manifest.walk();
    }

    #[test]
    fn a_damaged_manifest_is_refused_or_written_again_as_it_was(
        content in contents(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut bytes = content.encode();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.content().encode(), bytes);
            let _ = manifest.walk();
        }
    }

    #[test]
    fn a_cut_manifest_is_refused(content in contents(), end in any::<prop::sample::Index>()) {
        let bytes = content.encode();
        prop_assume!(bytes.len() <= 4096);
        let cut = Manifest::decode(&bytes[..end.index(bytes.len())]);
        let truncated = matches!(cut, Err(ManifestError::Malformed(DecodeError::Truncated { .. })));
        prop_assert!(truncated, "{:?}", cut);
    }
}

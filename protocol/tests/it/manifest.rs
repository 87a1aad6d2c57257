//! Manifests: what the builder writes, what the walk refuses, and that reading undoes writing.

use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::codec::{DecodeError, Writer};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{
    Codec, ComponentId, Feature, ImageId, Images, ManifestError, PatchSource, ReleaseError, ReleaseManifest,
    ReportReason, Section, Text, TransferDescriptor,
};

use crate::samples::{
    base, class, image, patch_transfer, release, release_per_slot, release_with_patches, signed, vendor,
};

/// Every byte of the manifest of one image, so that the format can't change unnoticed.
#[test]
fn the_manifest_of_one_image_is_frozen() {
    let manifest = ReleaseManifest { text: None, ..release() }.build().unwrap();
    let image = "0101010101010101010101010101010101010101010101010101010101010101";
    let index = "6565656565656565656565656565656565656565656565656565656565656565";
    let expected = [
        "a7",                                           // 7 members
        "0101",                                         // 1: version 1
        "0211",                                         // 2: sequence number 17
        "035863 a2",                                    // 3: common
        "02 81 81 43617070",                            // 2: components [['app']]
        "04 5858 86",                                   // 4: shared sequence, 3 commands
        "14 a4",                                        // 20: override parameters
        &format!("01 50{}", vendor().to_hex()),         // 1: vendor id
        &format!("02 50{}", class().to_hex()),          // 2: class id
        &format!("03 5824 822f5820{image}"),            // 3: image digest, SHA-256
        "0e 1a00020000",                                // 14: image size 131,072
        "01 0f 02 0f",                                  // 1, 2: conditions vendor and class
        "06 44 83010402",                               // 6: set version [1, 4, 2]
        "07 43 82030f",                                 // 7: validate: image match
        "09 43 821702",                                 // 9: invoke
        "14 585a 86 14 a2",                             // 20: install: override parameters
        "15 73 6d713a36353635363536353635363536353635", // 21: URI "mq:6565656565656565"
        "1819 583a a5 0101",                            // 25: fetch arguments: codec lzma
        "030c 041a00011170",                            // chunks of 2^12, 70,000 bytes
        &format!("05 5820{index}"),                     // index digest
        "06 82 1a000493e0 1a00010000",                  // decoder memory and dictionary
        "15 02 03 0f",                                  // fetch, image match
    ];
    assert_eq!(hex::encode(manifest.bytes()), expected.concat().replace(' ', ""));
}

#[test]
fn the_builder_writes_what_the_walk_accepts_and_the_accessors_find() {
    let manifest = release().build().unwrap();
    assert_eq!(manifest.walk(), Ok(()));
    assert_eq!((manifest.vendor(), manifest.class()), (Some(vendor()), Some(class())));
    assert_eq!(manifest.sequence_number(), 17);
    assert_eq!(manifest.images(), [ImageId { digest: Digest([1; 32]), size: 131_072 }]);
    let payloads = manifest.payloads();
    assert_eq!(payloads.len(), 1);
    assert_eq!(payloads[0].uri, "mq:6565656565656565");
    assert_eq!(payloads[0].transfer, image(1).transfer);

    let manifest = release_per_slot().build().unwrap();
    assert_eq!(manifest.walk(), Ok(()));
    let digests: Vec<Digest> = manifest.images().iter().map(|image| image.digest).collect();
    assert_eq!(digests, [Digest([1; 32]), Digest([2; 32])]);
    let transfers: Vec<_> = manifest.payloads().iter().map(|payload| payload.transfer).collect();
    assert_eq!(transfers, [image(1).transfer, image(2).transfer]);
}

/// The sizes that a device pays for, without text: one signature with key id.
#[test]
fn envelopes_stay_small() {
    let key = crate::samples::ed25519_key(1);
    let size = |release: ReleaseManifest| {
        let mut envelope = signed(&release, &[&key]);
        envelope.strip_text();
        envelope.bytes().len()
    };
    let sizes = [
        size(ReleaseManifest { text: None, ..release() }),
        size(release()),
        size(ReleaseManifest { text: None, ..release_per_slot() }),
        size(ReleaseManifest { text: None, ..release_with_patches(1) }),
    ];
    assert_eq!(sizes, [346, 383, 521, 512]);
}

/// As many patches as there may be fit, with text and with as many signatures as there may be.
#[test]
fn the_most_patches_fit_an_envelope() {
    let keys: Vec<_> = (1..=4).map(crate::samples::ed25519_key).collect();
    let envelope = signed(&release_with_patches(8), &keys.iter().collect::<Vec<_>>());
    let len = envelope.bytes().len();
    assert!(len < 4096 / 2 + 256, "{len}");
    let too_many = release_with_patches(9).build().map(drop);
    assert_eq!(too_many, Err(ReleaseError::Patches { got: 9, limit: 8 }));
}

/// Every byte of what patches add, so that the format can't change unnoticed.
#[test]
fn the_manifest_of_one_image_with_patches_is_frozen() {
    let manifest = ReleaseManifest { text: None, ..release_with_patches(1) }.build().unwrap();
    let bytes = |seed: u8| hex::encode([seed; 32]);
    let expected = [
        "a7 0101 0211",
        "03586e a2",                                    // 3: common
        "02 82 81 43617070 82 43617070 4372756e",       // 2: components [['app'], ['app', 'run']]
        "04 585a 88",                                   // 4: shared sequence, 4 commands
        "0c 00",                                        // 12: component 0
        "14 a4",                                        // 20: override parameters
        &format!("01 50{}", vendor().to_hex()),         // 1: vendor id
        &format!("02 50{}", class().to_hex()),          // 2: class id
        &format!("03 5824 822f5820{}", bytes(1)),       // 3: image digest, SHA-256
        "0e 1a00020000",                                // 14: image size 131,072
        "01 0f 02 0f",                                  // 1, 2: conditions vendor and class
        "06 44 83010402",                               // 6: set version [1, 4, 2]
        "07 45 84 0c00 030f",                           // 7: validate: component 0, image match
        "09 45 84 0c00 1702",                           // 9: invoke
        "14 58f0 84 0c00",                              // 20: install: component 0
        "0f 82",                                        // 15: try each of two
        "588b 8e 0c01",                                 // component 1
        "14 a2",                                        // 20: override parameters
        &format!("03 5824 822f5820{}", bytes(11)),      // 3: digest of the base
        "0e 1a0001fbdb",                                // 14: size of the base
        "03 05",                                        // 3: image match
        "0c 00",                                        // component 0
        "14 a2",                                        // 20: override parameters
        "15 73 6d713a36663666366636663666366636663666", // 21: URI "mq:6f6f6f6f6f6f6f6f"
        "1819 5836 a6 0102 0201",                       // 25: fetch arguments: patch on component 1
        "030c 04 1907d0",                               // chunks of 2^12, 2,000 bytes
        &format!("05 5820{}", bytes(111)),              // index digest
        "06 82 19a000 194000",                          // decoder memory and dictionary
        "15 02 03 0f",                                  // fetch, image match
        "585c 88 0c00",                                 // the full payload, component 0
        "14 a2 15 73 6d713a36353635363536353635363536353635",
        "1819 583a a5 0101 030c 041a00011170",
        &format!("05 5820{}", bytes(101)),
        "06 82 1a000493e0 1a00010000",
        "15 02 03 0f",
    ];
    assert_eq!(hex::encode(manifest.bytes()), expected.concat().replace(' ', ""));
    let payloads = manifest.payloads();
    let bases: Vec<_> = payloads.iter().map(|payload| payload.base).collect();
    assert_eq!(bases, [Some(base(11)), None]);
    assert_eq!(manifest.images(), [ImageId { digest: Digest([1; 32]), size: 131_072 }]);
}

#[test]
fn what_is_no_patch_is_refused_in_its_place() {
    let with = |images: Images| ReleaseManifest { images, ..release() }.build().map(drop);
    let mut full = image(1);
    full.patches = vec![PatchSource::new(base(9), image(2).transfer)];
    let error = ReleaseError::Codec { got: Codec::Lzma, patch: true };
    assert_eq!(with(Images::Any(full.clone())), Err(error));
    full.patches[0].transfer = patch_transfer(9);
    assert_eq!(with(Images::Any(full.clone())), Ok(()));
    let per_slot = Images::PerSlot([(0, full.clone()), (1, image(2))]);
    assert_eq!(with(per_slot), Err(ReleaseError::PatchPerSlot));
    full.patches[0].transfer.base = Some(2);
    let error = ManifestError::PatchBase { component: 2 };
    assert_eq!(with(Images::Any(full)), Err(error.into()));
}

#[test]
fn the_builder_refuses_what_a_device_would_refuse() {
    let with = |change: &dyn Fn(&mut ReleaseManifest)| {
        let mut release = release();
        change(&mut release);
        release.build().map(drop)
    };
    let raw = TransferDescriptor::raw(Layout::new(12, 1_000).unwrap(), Digest([9; 32]));
    let mut short = image(1);
    short.transfer = raw;
    let error = ReleaseError::TransferSize { transfer_size: 1_000, image_size: 131_072 };
    assert_eq!(with(&|release| release.images = Images::Any(short.clone())), Err(error));
    let per_slot = Images::PerSlot([(0, image(1)), (1, short.clone())]);
    assert_eq!(with(&|release| release.images = per_slot.clone()), Err(error));
    let same = Images::PerSlot([(4, image(1)), (4, image(2))]);
    let error = ReleaseError::SameSlot { slot: 4 };
    assert_eq!(with(&|release| release.images = same.clone()), Err(error));

    let value = |what| ReleaseError::Manifest(ManifestError::Malformed(DecodeError::Value { what }));
    assert_eq!(with(&|release| release.version = vec![]), Err(value("version")));
    assert_eq!(with(&|release| release.version = vec![1, -4]), Err(value("version")));
    assert_eq!(with(&|release| release.version = vec![1, 2, 3, -3, 4]), Ok(()));
    let too_long = DecodeError::TooLong { what: "version", got: 7, limit: 6 };
    let error = ReleaseError::Manifest(ManifestError::Malformed(too_long));
    assert_eq!(with(&|release| release.version = vec![1; 7]), Err(error));
    let change_image = |change: &dyn Fn(&mut whimbrel_protocol::manifest::Image)| {
        let mut image = image(1);
        change(&mut image);
        with(&|release| release.images = Images::Any(image.clone()))
    };
    assert_eq!(change_image(&|image| image.size = 0), Err(value("image size")));
    assert_eq!(change_image(&|image| image.uri = String::new()), Err(value("URI")));
    assert_eq!(change_image(&|image| image.uri = "mq:a\nb".into()), Err(value("URI")));
    assert_eq!(change_image(&|image| image.uri = "mq:é".into()), Err(value("URI")));
    let integrated = ManifestError::NotExecuted { feature: Feature::IntegratedPayload };
    assert_eq!(change_image(&|image| image.uri = "#payload".into()), Err(integrated.into()));
    let as_patch = change_image(&|image| {
        image.transfer.codec = Codec::Patch;
        image.transfer.base = Some(1);
    });
    assert_eq!(as_patch, Err(ReleaseError::Codec { got: Codec::Patch, patch: false }));
}

fn descriptor(fields: &dyn Fn(&mut Writer)) -> Result<TransferDescriptor, DecodeError> {
    let mut writer = Writer::new();
    fields(&mut writer);
    TransferDescriptor::decode(writer.as_bytes())
}

#[test]
fn descriptors_outside_their_ranges_are_refused() {
    let with = |codec: u64, k: u64, size: u64| {
        descriptor(&|writer| {
            writer.map(4).int(1).uint(codec).int(3).uint(k).int(4).uint(size).int(5).bytes(&[7; 32]);
        })
    };
    let value = |what| Err(DecodeError::Value { what });
    assert!(with(0, 12, 4096).is_ok());
    assert!(with(1, 10, 1).is_ok());
    let cut = "chunk size or transfer size";
    for (k, size) in [(9, 1), (17, 1), (0, 1), (u64::MAX, 1), (12, 0)] {
        assert_eq!(with(0, k, size), value(cut), "{k} {size}");
    }
    // At most 65,535 chunks.
    for k in [10, 16] {
        assert_eq!(with(0, k, 65_535 << k).map(|transfer| transfer.layout.chunk_count()), Ok(65_535));
        assert_eq!(with(0, k, (65_535 << k) + 1), value(cut));
    }
    for size in [1 << 32, 1 << 63, u64::MAX] {
        assert_eq!(with(0, 16, size), value(cut));
    }
    for codec in [3, 255, u64::MAX] {
        assert_eq!(with(codec, 12, 1), value("codec"));
    }
    // A patch has a base, and nothing else has one.
    assert_eq!(with(2, 12, 1), value("base component"));
    let based = |codec: u64, base: u64| {
        descriptor(&|writer| {
            writer.map(5).int(1).uint(codec).int(2).uint(base);
            writer.int(3).uint(12).int(4).uint(1).int(5).bytes(&[7; 32]);
        })
    };
    assert_eq!(based(2, 1).map(|patch| (patch.codec, patch.base)), Ok((Codec::Patch, Some(1))));
    assert_eq!(based(2, 8), value("base component"));
    assert_eq!(based(0, 1), value("base component"));
    assert_eq!(based(1, 1), value("base component"));
    // Decoder memory.
    let memory = |codec: u64, memory: u64, dictionary: u64| {
        descriptor(&|writer| {
            writer.map(5).int(1).uint(codec).int(3).uint(12).int(4).uint(1).int(5).bytes(&[7; 32]);
            writer.int(6).array(2).uint(memory).uint(dictionary);
        })
    };
    assert!(memory(1, 16 << 20, 8 << 20).is_ok());
    assert_eq!(memory(1, (16 << 20) + 1, 0), value("decoder memory"));
    assert_eq!(memory(1, 1 << 40, 0), value("decoder memory"));
    assert_eq!(memory(1, 16 << 20, (8 << 20) + 1), value("dictionary"));
    assert_eq!(memory(1, 100, 101), value("dictionary"));
    assert_eq!(memory(0, 100, 100), value("decoder memory"));
    // Keys.
    let missing = DecodeError::MissingKey { what: "transfer descriptor", key: 1 };
    assert_eq!(TransferDescriptor::decode(&[0xa0]), Err(missing));
    let unknown = descriptor(&|writer| {
        writer.map(5).int(1).uint(0).int(3).uint(12).int(4).uint(1).int(5).bytes(&[7; 32]).int(7).uint(0);
    });
    assert_eq!(unknown, Err(DecodeError::UnknownKey { what: "transfer descriptor", key: 7 }));
}

#[test]
fn a_raw_payload_is_as_long_as_its_image() {
    let raw = TransferDescriptor::raw(Layout::new(12, 5_000).unwrap(), Digest([7; 32]));
    assert!(raw.fits(5_000));
    assert!(!raw.fits(4_999));
    assert!(image(1).transfer.fits(1));
    assert_eq!(raw.uri(), "mq:0707070707070707");
    assert_eq!(raw.tag().to_hex(), "07070707");
}

#[test]
fn text_is_read_only_in_its_shape() {
    let text = crate::samples::text();
    let read = |bytes: &[u8]| Text::from_bytes(bytes).languages();
    assert_eq!(read(text.bytes()).map(|languages| Text::new(&languages)), Ok(text));
    let table = [
        ("a0", DecodeError::Value { what: "text" }),
        ("a1 01 a0", DecodeError::Type { what: "language tag", at: 0 }),
        ("a1 60 a0", DecodeError::Value { what: "language tag" }),
        ("a1 62 656e a1 05 61 61", DecodeError::UnknownKey { what: "language text", key: 5 }),
        ("a1 62 656e a1 00 61 61", DecodeError::UnknownKey { what: "language text", key: 0 }),
        ("a1 62 656e a1 81 41 61 a0", DecodeError::Value { what: "component text" }),
        ("a1 62 656e a1 81 41 61 a1 09 60", DecodeError::UnknownKey { what: "component text", key: 9 }),
        ("a1 62 656e a1 80 a1 01 60", DecodeError::Value { what: "component id" }),
        ("a2 62 656e a0 62 656e a0", DecodeError::Duplicate { at: 5 }),
    ];
    for (bytes, error) in table {
        let bytes_of = hex::decode(bytes.replace(' ', "")).unwrap();
        assert_eq!(read(&bytes_of), Err(error), "{bytes}");
    }
    for (tag, good) in [
        ("en", true),
        ("de-CH-1996", true),
        ("e1", false),
        ("en-", false),
        ("-en", false),
        ("abcdefghi", false),
        ("en US", false),
    ] {
        let mut writer = Writer::new();
        writer.map(1).text(tag).map(0);
        assert_eq!(read(writer.as_bytes()).is_ok(), good, "{tag}");
    }
}

#[test]
fn component_ids_print_what_can_be_printed() {
    assert_eq!(ComponentId::new(&[b"app", b"run"]).unwrap().to_string(), "app/run");
    assert_eq!(ComponentId::new(&[&[0]]).unwrap().to_string(), "h'00'");
    assert_eq!(ComponentId::new(&[b"a\x1b[2J"]).unwrap().to_string(), "h'611b5b324a'");
    assert_eq!(ComponentId::new(&[]), Err(DecodeError::Value { what: "component id" }));
    assert!(ComponentId::new(&[&[0; 33]]).is_err());
    assert!(ComponentId::new(&[b"a".as_slice(); 5]).is_err());
}

#[test]
fn every_refusal_has_a_report_reason_and_says_what_it_is() {
    let unset = ManifestError::ParameterUnset { section: Section::Install, command: 21, parameter: 14 };
    let table = [
        (ManifestError::Malformed(DecodeError::Truncated { at: 3 }), ReportReason::CborParse, "byte 3"),
        (ManifestError::Version { got: 2 }, ReportReason::CborParse, "2"),
        (ManifestError::DigestAlgorithm { alg: -43 }, ReportReason::AlgorithmUnsupported, "SHA-384"),
        (
            ManifestError::NotExecuted { feature: Feature::Command(22) },
            ReportReason::CommandUnsupported,
            "command 22 (copy) is not executed by this version",
        ),
        (
            ManifestError::NotInProfile { feature: Feature::Command(31) },
            ReportReason::CommandUnsupported,
            "command 31 (swap) is not in the profile",
        ),
        (
            ManifestError::Unknown { feature: Feature::Parameter(99) },
            ReportReason::ParameterUnsupported,
            "parameter 99 (unknown) is unknown",
        ),
        (
            ManifestError::NotExecuted { feature: Feature::Components(3) },
            ReportReason::ComponentUnsupported,
            "3 components",
        ),
        (
            unset,
            ReportReason::ParameterUnsupported,
            "command 21 (fetch) in install lacks parameter 14 (image size)",
        ),
        (ManifestError::SharedLacks { command: 2 }, ReportReason::CommandUnsupported, "class identifier"),
        (ManifestError::NotValidated, ReportReason::CommandUnsupported, "validation"),
        (
            ManifestError::SectionMissing { section: Section::Install },
            ReportReason::SeveringUnsupported,
            "install is severed",
        ),
    ];
    for (error, reason, words) in table {
        assert_eq!(ReportReason::from(error), reason, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(ReportReason::ConditionFailed as u8, 10);
}

//! `whimbrel release build`

use lzma_rust2::{LzmaReader, Read as _};
use serde_json::Value as Json;
use whimbrel_protocol::chunk::{ChunkSalt, Layout, PageList};
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::{ChunkIndex, ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::{Codec, ImageId, LzmaHeader, Payload};

use crate::support::{Place, build_args, files_below, noise, text};

fn build(place: &Place, image: &[u8], more: &[&str]) -> Json {
    place.write("image", image);
    drop(std::fs::remove_dir_all(place.path("out")));
    let mut args = build_args("image", "out");
    args.extend(more);
    args.push("--json");
    place.run(args).json()
}

/// The images that the envelope names, as a device reads it.
fn images(place: &Place) -> Vec<(ImageId, Payload)> {
    let envelope = Envelope::decode(&place.read("out/release.suit")).unwrap();
    let manifest = envelope.unverified_manifest().unwrap();
    manifest.walk().unwrap();
    assert_eq!(manifest.digest(), envelope.claimed_digest());
    manifest.images().into_iter().zip(manifest.payloads()).collect()
}

fn payload(place: &Place, payload: &Payload) -> Vec<u8> {
    place.read(&format!("out/{}.payload", payload.transfer.index_digest))
}

#[test]
fn a_device_finds_every_chunk_and_the_image_in_what_was_built() {
    let place = Place::new();
    let image = text(700_000);
    let told = build(&place, &image, &[]);
    let [(id, described)] = &images(&place)[..] else { panic!("one image") };
    assert_eq!((id.digest, id.size), (Digest::of(&image), image.len() as u64));
    assert_eq!(described.transfer.codec, Codec::Lzma);
    assert_eq!(described.uri, format!("mq:{}", described.transfer.index_digest.short()));

    let bytes = payload(&place, described);
    let layout = Layout::new(12, bytes.len() as u64).unwrap();
    assert_eq!(described.transfer.layout, layout);
    assert!(bytes.len() < image.len() / 3);
    let salt = ChunkSalt { image: id.digest, transfer_size: bytes.len() as u64 };
    let page: Vec<u8> = (0..)
        .zip(bytes.chunks(4096))
        .flat_map(|(number, chunk)| salt.chunk_digest(ChunkIndex(number), chunk))
        .collect();
    assert!(PageList::of_single_page(salt, layout, &described.transfer.index_digest, &page).is_some());

    let header = LzmaHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    assert!(header.fits(&described.transfer.decoder.unwrap(), id.size));
    assert_eq!(told["images"][0]["image_digest"], id.digest.to_hex());
    assert_eq!(told["images"][0]["transfer_size"], bytes.len());
}

/// From byte 1 on, `unlzma` and `xz --format=lzma` can read a payload without a filter.
#[test]
fn a_payload_without_a_filter_is_an_ordinary_lzma_file() {
    let place = Place::new();
    let image = text(100_000);
    build(&place, &image, &[]);
    let [(_, described)] = &images(&place)[..] else { panic!("one image") };
    let bytes = payload(&place, described);
    assert_eq!(bytes[0], 0);
    let mut out = vec![0; image.len()];
    let mut reader = LzmaReader::new_mem_limit(&bytes[1..], u32::MAX, None).unwrap();
    reader.read_exact(&mut out).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(out == image);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let place = Place::new();
    place.write("image", text(300_000));
    place.run(build_args("image", "one")).good();
    place.run(build_args("image", "two")).good();
    let one = files_below(&place.path("one"));
    assert_eq!(one.len(), 3, "{:?}", one.keys());
    assert!(one == files_below(&place.path("two")));
}

#[test]
fn an_image_that_does_not_shrink_goes_as_it_is_and_that_is_said() {
    let place = Place::new();
    let image = noise(200_000, 1);
    place.write("image", &image);
    let run = place.run(build_args("image", "out")).good();
    assert!(run.err.contains("the image does not shrink"), "{run:?}");
    let [(id, described)] = &images(&place)[..] else { panic!("one image") };
    assert_eq!((described.transfer.codec, described.transfer.decoder), (Codec::Raw, None));
    assert!(payload(&place, described) == image);
    assert_eq!(id.size, 200_000);

    // Who insists gets it compressed.
    build(&place, &image, &["--codec", "lzma"]);
    let [(_, described)] = &images(&place)[..] else { panic!("one image") };
    assert_eq!(described.transfer.codec, Codec::Lzma);
    assert!(described.transfer.layout.transfer_size() > 200_000);
    // And who wants it raw gets it raw.
    build(&place, &text(50_000), &["--codec", "raw"]);
    let [(_, described)] = &images(&place)[..] else { panic!("one image") };
    assert_eq!((described.transfer.codec, described.transfer.layout.transfer_size()), (Codec::Raw, 50_000));
}

#[test]
fn the_chunk_size_follows_the_payload_unless_it_is_given() {
    let place = Place::new();
    let chunk_size =
        |image: &[u8], more: &[&str]| build(&place, image, more)["images"][0]["chunk_size"].clone();
    assert_eq!(chunk_size(&noise(1, 1), &[]), 1024);
    assert_eq!(chunk_size(&noise(65_536, 1), &["--codec", "raw"]), 1024);
    assert_eq!(chunk_size(&noise(65_537, 1), &["--codec", "raw"]), 4096);
    assert_eq!(chunk_size(&noise(65_537, 1), &["--codec", "raw", "--chunk-size", "16KiB"]), 16_384);
}

/// A device asks for less where a broker drops large messages, but for no less than a chunk.
#[test]
fn chunks_above_4_kib_are_warned_of_on_standard_error_because_a_broker_may_carry_no_such_message() {
    let place = Place::new();
    place.write("image", noise(200_000, 1));
    for (chunk_size, warned) in [("4KiB", false), ("8KiB", true), ("64KiB", true)] {
        let mut args = build_args("image", chunk_size);
        args.extend(["--codec", "raw", "--chunk-size", chunk_size]);
        let run = place.run(args);
        let lines: Vec<_> = run.err.lines().filter(|line| line.contains("chunks have")).collect();
        assert_eq!(lines.len(), usize::from(warned), "{chunk_size}: {lines:?}");
        assert!(
            lines.iter().all(|line| line.contains("a broker that takes only shorter messages")),
            "{lines:?}"
        );
    }
}

#[test]
fn a_payload_with_too_many_chunks_is_refused_and_larger_chunks_are_advised() {
    let place = Place::new();
    let file = std::fs::File::create(place.path("image")).unwrap();
    file.set_len(65_536 << 10).unwrap();
    let mut args = build_args("image", "out");
    args.extend(["--codec", "raw", "--chunk-size", "1KiB"]);
    let line = place.run(args).line();
    assert!(line.contains("65536 chunks are more than 65535: use larger chunks"), "{line}");
    assert!(!place.path("out").exists());
}

#[test]
fn the_dictionary_is_no_larger_than_asked_and_no_larger_than_the_image() {
    let place = Place::new();
    let dictionary =
        |len, more: &[&str]| build(&place, &text(len), more)["images"][0]["dictionary_bytes"].clone();
    assert_eq!(dictionary(300_000, &[]), 512 * 1024);
    assert_eq!(dictionary(300_000, &["--dictionary", "64KiB"]), 64 * 1024);
}

#[test]
fn slot_images_become_one_release_with_a_payload_for_each() {
    let place = Place::new();
    let (a, b) = (text(90_000), [text(80_000), noise(5_000, 3)].concat());
    place.write("a", &a);
    place.write("b", &b);
    let mut args = build_args("", "out");
    args.splice(2..4, ["--slot-images", "a", "b"]);
    let told = place.run(args).good();
    assert!(told.out.contains("slot                0\n") || told.out.contains("slot "), "{}", told.out);
    let images = images(&place);
    assert_eq!(images.len(), 2);
    assert_eq!([images[0].0.digest, images[1].0.digest], [Digest::of(&a), Digest::of(&b)]);
    for (_, described) in &images {
        assert_eq!(payload(&place, described).len() as u64, described.transfer.layout.transfer_size());
    }
}

#[test]
fn the_manifest_says_for_whom_and_which_version() {
    let place = Place::new();
    place.write("image", "x");
    let mut args = build_args("image", "out");
    args[9] = "2.0.0-rc.3";
    let told = {
        args.push("--json");
        place.run(args).json()
    };
    let envelope = Envelope::decode(&place.read("out/release.suit")).unwrap();
    let manifest = envelope.unverified_manifest().unwrap();
    let vendor = VendorId::from_domain("meters.example");
    assert_eq!(manifest.vendor(), Some(vendor));
    assert_eq!(manifest.class(), Some(ClassId::from_name(vendor, "meter-3")));
    assert_eq!(manifest.version(), Some(&[2, 0, 0, -1, 3][..]));
    assert_eq!(manifest.sequence_number(), 17);
    assert_eq!(told["release"], manifest.digest().to_hex());
    // The summary in the folder says the same.
    let summary: Json = serde_json::from_slice(&place.read("out/release.json")).unwrap();
    assert_eq!(summary["release"], told["release"]);
    assert_eq!(summary["version"], "2.0.0-rc.3");
    // Nobody has signed yet.
    assert!(envelope.blocks().unwrap().is_empty());
}

#[test]
fn vendor_and_class_come_from_the_configuration_where_no_flag_names_them() {
    let place = Place::with_init();
    place.write("image", "x");
    let args = [
        "release",
        "build",
        "--image",
        "image",
        "--version",
        "1.0.0",
        "--sequence",
        "1",
        "-o",
        "out",
        "--json",
    ];
    let told = place.run(args).json();
    assert_eq!((&told["vendor"], &told["class"]), (&Json::from("example.com"), &Json::from("gateway")));
    let elsewhere = Place::new();
    elsewhere.write("image", "x");
    let people = args.into_iter().filter(|arg| *arg != "--json");
    assert!(elsewhere.run(people).line().contains("no vendor is named: give --vendor"));
}

/// A device reads its configuration by the same rule: a release that one side names otherwise matches no device.
#[test]
fn vendor_and_class_are_read_by_the_rule_by_which_devices_read_them() {
    let place = Place::new();
    place.write("image", "x");
    let ids = |at: usize, name: &str| {
        drop(std::fs::remove_dir_all(place.path("out")));
        let mut args = build_args("image", "out");
        args[at] = name;
        let ran = place.run(args);
        if !place.path("out").exists() {
            assert!(ran.line().contains(" is not a "), "{name}");
            return None;
        }
        let envelope = Envelope::decode(&place.read("out/release.suit")).unwrap();
        let manifest = envelope.unverified_manifest().unwrap();
        Some((manifest.vendor().unwrap(), manifest.class().unwrap()))
    };
    let id = "000102030405060708090a0b0c0d0e0f";
    let capitals = id.to_uppercase();
    for name in ["example.com", id, &capitals, "Example.com", "localhost", "a_b.com", &id[1..]] {
        assert_eq!(ids(5, name).map(|(vendor, _)| vendor), VendorId::named(name), "{name}");
    }
    let vendor = VendorId::from_domain("meters.example");
    for name in ["gateway", "Zähler 2 (NB-IoT)", id, &capitals, &id[1..], "gateway ", " gateway"] {
        assert_eq!(ids(7, name).map(|(_, class)| class), ClassId::named(vendor, name), "{name}");
    }
}

#[test]
fn each_wrong_option_is_one_line_and_leaves_nothing_behind() {
    let place = Place::new();
    place.write("image", "x");
    place.write("empty", "");
    let before = place.files();
    let with = |change: &dyn Fn(&mut Vec<&'static str>)| {
        let mut args = build_args("image", "out");
        change(&mut args);
        place.run(args).line()
    };
    for (at, value, want) in [
        (3, "none", "cannot read none"),
        (3, "empty", "the image has 0 bytes"),
        (3, ".", "directory"),
        (5, "Example.COM", "vendor `Example.COM` is not a domain that you own, in lower case"),
        (5, "localhost", "vendor `localhost` is not"),
        (7, "", "class `` is not a name of 1 to 64 visible characters"),
        (7, "a\tb", "class `a\\u{9}b` is not"),
        (9, "1.4", "`1.4` is not a version"),
        (9, "1.4.2-dev.1", "`1.4.2-dev.1` is not a version"),
        (11, "0", "0 is not in 1.."),
        (11, "-3", "unexpected argument"),
        (11, "x", "invalid"),
        (13, "missing/out", "cannot make the folder missing/out"),
        (13, "image", "image"),
    ] {
        let line = with(&|args| args[at] = value);
        assert!(line.contains(want), "{value}: {line}");
        assert!(place.files() == before, "{value}: {:?}", place.files().keys());
    }
    for (more, want) in [
        (["--chunk-size", "3KiB"], "chunk size `3072` is not a power of two from 1KiB to 64KiB"),
        (["--chunk-size", "128KiB"], "chunk size `131072` is not"),
        (["--chunk-size", "4kb"], "`4kb` is not a size"),
        (["--dictionary", "16MiB"], "dictionary `16777216` is not a power of two from 4KiB to 8MiB"),
        (["--dictionary", "0"], "dictionary `0` is not"),
        (["--codec", "zstd"], "invalid value 'zstd'"),
        (["--slot-images", "image"], "2 values required"),
    ] {
        let line = with(&|args| args.extend(more));
        assert!(line.contains(want), "{more:?}: {line}");
        assert!(place.files() == before, "{more:?}");
    }
    let long = "x".repeat(513);
    let mut args = build_args("image", "out");
    args.extend(["--description", &long]);
    assert!(place.run(args).line().contains("at most 512 bytes"));
    let mut args = build_args("image", "out");
    args.splice(2..4, ["--slot-images", "image", "image"]);
    assert!(place.run(args).line().contains("both slot images are the same"));
    assert!(place.files() == before);
}

#[test]
fn a_release_that_is_there_is_never_overwritten() {
    let place = Place::new();
    place.write("image", "x");
    place.run(build_args("image", "out")).good();
    let before = place.files();
    place.write("image", "y");
    let line = place.run(build_args("image", "out")).line();
    assert!(line.contains("out/release.suit is there already"), "{line}");
    place.write("image", "x");
    assert!(place.files() == before);
}

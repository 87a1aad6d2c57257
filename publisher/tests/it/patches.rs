//! `whimbrel release build --base`: patches beside the full payload

use std::collections::BTreeMap;

use serde_json::Value as Json;
use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::limits::ENVELOPE_BYTES_MAX;
use whimbrel_protocol::manifest::{Codec, Manifest};

use crate::support::{Place, build_args, ed25519, files_below, noise, p256, root, text};

/// An image, and the one before it, which differs in a few places. They cannot be compressed, so that a patch
/// is always smaller than the full payload. The number makes bases different.
fn image() -> Vec<u8> {
    noise(150_000, 1)
}

fn base(number: u8) -> Vec<u8> {
    let mut base = image();
    base.drain(50_000..50_000 + 3 * usize::from(number));
    base[70_000..70_010].fill(number);
    base
}

/// A folder with `image` and bases `one`, `two`, `three`.
fn place() -> Place {
    let place = Place::new();
    place.write("image", image());
    for (name, number) in [("one", 1), ("two", 2), ("three", 3)] {
        place.write(name, base(number));
    }
    place
}

fn build(place: &Place, output: &str, more: &[&str]) -> Json {
    let mut args = build_args("image", output);
    args.extend(["--codec", "lzma", "--json"]);
    args.extend(more);
    place.run(args).json()
}

fn manifest(place: &Place, folder: &str) -> Manifest {
    let envelope = Envelope::decode(&place.read(&format!("{folder}/release.suit"))).unwrap();
    let manifest = envelope.unverified_manifest().unwrap();
    manifest.walk().unwrap();
    manifest
}

/// The files of a release, without the summary, which has the names of the bases.
fn of_devices(place: &Place, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = files_below(&place.path(folder));
    assert!(files.remove("release.json").is_some());
    files
}

fn sign(place: &Place, folder: &str) {
    let key = ed25519(1);
    place.write_secret("key.cose", key.encode_file());
    place.write("root.cbor", root(&[&key], 1).1);
    place.run(["release", "sign", folder, "--key", "key.cose"]).quiet();
}

#[test]
fn a_release_offers_a_patch_from_each_base_and_the_full_payload_last() {
    let place = place();
    let told = build(&place, "r", &["--base", "one", "two", "--base", "three"]);
    let manifest = manifest(&place, "r");
    assert_eq!(manifest.images().len(), 1);
    assert_eq!(manifest.images()[0].digest, Digest::of(&image()));
    let payloads = manifest.payloads();
    let codecs: Vec<Codec> = payloads.iter().map(|payload| payload.transfer.codec).collect();
    assert_eq!(codecs, [Codec::Patch, Codec::Patch, Codec::Patch, Codec::Lzma]);
    let sizes: Vec<u64> = payloads.iter().map(|payload| payload.transfer.layout.transfer_size()).collect();
    assert!(sizes.is_sorted(), "{sizes:?}");
    // Each is there under its name, and makes the image of its base by the device's decoder.
    let mut bases = Vec::new();
    for (number, payload) in payloads[..3].iter().enumerate() {
        let file = format!("r/{}.payload", payload.transfer.index_digest);
        assert_eq!(place.read(&file).len() as u64, payload.transfer.layout.transfer_size());
        let id = payload.base.unwrap();
        let of_base = |name: &&str| Digest::of(&place.read(name)) == id.digest;
        let name = ["one", "two", "three"].into_iter().find(of_base).unwrap();
        let made = format!("made-{name}");
        place.run(["release", "apply", name, &file, "-o", &made]).quiet();
        assert!(place.read(&made) == image());
        let described = &told["images"][0]["patches"][number];
        assert_eq!(
            (&described["base"], &described["base_digest"]),
            (&name.into(), &id.digest.to_hex().into())
        );
        assert_eq!(described["transfer_size"], payload.transfer.layout.transfer_size());
        bases.push(name);
    }
    bases.sort_unstable();
    assert_eq!(bases, ["one", "three", "two"]);
    assert_eq!(told["images"][0]["transfer_size"], sizes[3]);
    assert_eq!(of_devices(&place, "r").len(), 5);
    assert!(told["encoder_memory_bytes"].as_u64().unwrap() > 8 * 150_000);
    assert_eq!(
        serde_json::from_slice::<Json>(&place.read("r/release.json")).unwrap()["images"],
        told["images"]
    );
}

#[test]
fn neither_the_order_of_bases_nor_threads_change_a_release() {
    let place = place();
    build(&place, "r", &["--base", "one", "two", "three", "--jobs", "1"]);
    build(&place, "s", &["--base", "three", "--base", "one", "two", "--jobs", "3"]);
    assert!(of_devices(&place, "r") == of_devices(&place, "s"));
}

/// By this a service recognises that the second release is another envelope of the first one.
#[test]
fn other_bases_give_another_envelope_of_the_same_image() {
    let place = place();
    let first = build(&place, "r", &["--base", "one"]);
    let second = build(&place, "s", &["--base", "one", "two"]);
    assert_ne!(first["release"], second["release"]);
    assert_eq!(first["images"][0]["image_digest"], second["images"][0]["image_digest"]);
    assert_eq!(first["sequence"], second["sequence"]);
    // What both have is the same file.
    let (one, other) = (of_devices(&place, "r"), of_devices(&place, "s"));
    let payloads = |files: &BTreeMap<String, Vec<u8>>| {
        files.keys().filter(|name| name.ends_with(".payload")).cloned().collect::<Vec<_>>()
    };
    assert_eq!((payloads(&one).len(), payloads(&other).len()), (2, 3));
    assert!(payloads(&one).iter().all(|name| one[name] == other[name]));
}

#[test]
fn a_patch_that_is_no_shorter_is_left_out_and_that_is_said() {
    let place = Place::new();
    place.write("image", vec![0; 4000]);
    place.write("old", noise(4000, 3));
    place.run(build_args("image", "plain")).quiet();
    let mut args = build_args("image", "r");
    args.extend(["--base", "old"]);
    let run = place.run(args.iter().chain(&["--json"])).good();
    assert!(run.err.contains("the patch from old has ") && run.err.contains("is left out"), "{run:?}");
    let told = run.json();
    assert_eq!(told["images"][0]["patches"], Json::Array(Vec::new()));
    let dropped = &told["images"][0]["dropped_patches"][0];
    assert_eq!((&dropped["base"], &dropped["base_size"]), (&"old".into(), &4000.into()));
    let patch_bytes = dropped["patch_bytes"].as_u64().unwrap();
    assert!(patch_bytes >= told["images"][0]["transfer_size"].as_u64().unwrap());
    let warnings = told["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|warning| warning.as_str().unwrap().contains("is left out")), "{told}");
    // What is left is the release without a base.
    assert!(of_devices(&place, "r") == of_devices(&place, "plain"));
}

#[test]
fn a_release_folder_is_a_base_also_when_it_has_patches_itself() {
    let place = place();
    let image = place.read("image");
    // r1 installs `one`, r2 `two` by a patch from `one`.
    place.write("image", base(1));
    build(&place, "r1", &[]);
    place.write("image", base(2));
    build(&place, "r2", &["--base", "r1"]);
    place.write("image", image);
    build(&place, "by-folder", &["--base", "r1", "r2"]);
    build(&place, "by-file", &["--base", "one", "two"]);
    assert!(of_devices(&place, "by-folder") == of_devices(&place, "by-file"));

    // A folder whose payload is spoilt is no base.
    let full = manifest(&place, "r1").payloads()[0].transfer.index_digest;
    let name = format!("r1/{full}.payload");
    let mut payload = place.read(&name);
    payload[1000] ^= 1;
    place.write(&name, payload);
    let mut args = build_args("image", "out");
    args.extend(["--base", "r1"]);
    let line = place.run(args).line();
    assert!(line.contains("is not the payload that the manifest names"), "{line}");
    assert!(!place.path("out").exists());
}

#[test]
fn bases_that_make_no_sense_are_one_line_and_leave_nothing_behind() {
    let place = place();
    place.write("copy", base(1));
    place.write("same", image());
    place.write("empty", "");
    let many: Vec<String> = (0..9).map(|number| format!("base-{number}")).collect();
    for (number, name) in (10..).zip(&many) {
        place.write(name, base(number));
    }
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    std::fs::create_dir(place.path("r")).unwrap();
    place.write("r/per-slot", "");
    let mut per_slot = build_args("", "slots");
    per_slot.splice(2..4, ["--slot-images", "one", "two"]);
    place.run(per_slot.clone()).good();
    let before = place.files();
    for (bases, want) in [
        (&["one", "copy"][..], "one and copy are the same image: give it once as --base"),
        (&["one", "one"], "one and one are the same image"),
        (&["same"], "base same is the image itself"),
        (&["none"], "cannot read none"),
        (&["empty"], "empty has 0 bytes"),
        (&["r"], "r is no release"),
        (&["slots"], "slots holds an image for each slot: give the image itself"),
        (&many, "9 bases are more than 8, the most that a release can have patches from"),
    ] {
        let mut args = build_args("image", "out");
        args.extend(["--codec", "raw", "--base"]);
        args.extend(bases);
        let line = place.run(args).line();
        assert!(line.contains(want), "{bases:?}: {line}");
        assert!(place.files() == before, "{bases:?}");
    }
    per_slot.extend(["--base", "three"]);
    let line = place.run(per_slot).line();
    assert!(line.contains("--base") && line.contains("--slot-images"), "{line}");
    let mut args = build_args("image", "out");
    args.extend(["--base", "one", "--patch-memory", "1KiB"]);
    assert!(place.run(args).line().contains("patch memory `1024` is not"));
    assert!(place.files() == before);
}

#[test]
fn eight_patches_and_four_signatures_fit_an_envelope() {
    let place = Place::new();
    place.write("image", image());
    let names: Vec<String> = (1..=8).map(|number| format!("base-{number}")).collect();
    for (number, name) in (1..).zip(&names) {
        place.write(name, base(number));
    }
    let bases: Vec<&str> = ["--base"].into_iter().chain(names.iter().map(String::as_str)).collect();
    build(&place, "r", &bases);
    for seed in 1..=4_u8 {
        let key = if seed % 2 == 0 { p256(seed) } else { ed25519(seed) };
        place.write_secret("key.cose", key.encode_file());
        place.run(["release", "sign", "r", "--key", "key.cose"]).quiet();
    }
    assert_eq!(manifest(&place, "r").payloads().len(), 9);
    assert!(place.read("r/release.suit").len() <= ENVELOPE_BYTES_MAX);
}

#[test]
fn verify_checks_each_payload_and_the_image_of_patches_whose_base_it_has() {
    let place = place();
    build(&place, "r", &["--base", "one", "two"]);
    sign(&place, "r");
    let verify = |more: &[&str]| {
        place.run(["release", "verify", "r", "--root", "root.cbor", "--json"].iter().chain(more))
    };
    let images = |told: &Json| -> Vec<String> {
        let images = told["images"].as_array().unwrap();
        images.iter().map(|image| image["image"].as_str().unwrap().to_owned()).collect()
    };
    let unchecked = "not checked: --base names its base";
    assert_eq!(images(&verify(&[]).json()), [unchecked, unchecked, "right"]);
    assert_eq!(images(&verify(&["--base", "one", "two"]).json()), ["right"; 3]);
    let mut one = images(&verify(&["--base", "one"]).json());
    one.sort_unstable();
    assert_eq!(one, [unchecked, "right", "right"]);
    let line = verify(&["--base", "three"]).line();
    assert_eq!(line, "r/release.suit: no patch starts from three");

    // A change anywhere in any of the payloads is found without a base.
    for payload in manifest(&place, "r").payloads() {
        let name = format!("r/{}.payload", payload.transfer.index_digest);
        let good = place.read(&name);
        for at in [0, 40, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 4;
            place.write(&name, &bad);
            assert!(verify(&[]).line().contains("is not the payload that the manifest names"));
        }
        std::fs::remove_file(place.path(&name)).unwrap();
        assert!(verify(&[]).line().contains(&format!("cannot read {name}")));
        place.write(&name, &good);
    }
    verify(&[]).json();
}

#[test]
fn a_patch_is_explained_alone_in_a_release_and_by_the_release() {
    let place = place();
    build(&place, "r", &["--base", "one"]);
    let inspect = |file: &str| place.run(["inspect", file, "--json"]).json();
    let (base, image) = (Digest::of(&place.read("one")).to_hex(), Digest::of(&image()).to_hex());
    let patch = manifest(&place, "r").payloads()[0].clone();
    let file = format!("r/{}.payload", patch.transfer.index_digest);
    place.write("app.patch", place.read(&file));
    // The same under any name, from a pipe too.
    place.write("nameless", place.read(&file));
    let piped = place.feed(["inspect", "-", "--json"], &place.read(&file)).json();
    for told in [inspect("app.patch"), inspect("nameless"), piped] {
        assert_eq!((&told["kind"], &told["size"]), (&"patch".into(), &place.read(&file).len().into()));
        assert_eq!(
            (&told["base_digest"], &told["image_digest"]),
            (&base.clone().into(), &image.clone().into())
        );
        assert!(told["decoder_memory_bytes"].as_u64().unwrap() <= 256 * 1024);
    }
    let told = inspect(&file);
    assert_eq!((&told["kind"], &told["codec"]), (&"payload".into(), &"patch".into()));
    assert_eq!(told["patch"]["base_digest"], base.as_str());
    assert_eq!(told["says_that_it_becomes_image"], image.as_str());
    let told = inspect("r/release.suit");
    assert_eq!(told["devices_take_it"], "yes");
    assert_eq!(told["images"][0]["base_digest"], base.as_str());
    assert!(told["images"][1]["base_digest"].is_null());
}

#[test]
fn an_image_that_is_compressed_is_told_with_what_to_do() {
    let place = Place::new();
    let gzip = |image: &[u8]| [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], image].concat();
    let (packed, plain) = (gzip(&noise(20_000, 1)), text(20_000));
    place.write("old", &plain);
    place.write("image", &packed);
    let warnings = |run: crate::support::Run| {
        let told = run.err.clone();
        let json = run.json()["warnings"].as_array().unwrap().clone();
        for warning in &json {
            assert!(told.contains(&format!("warning: {}", warning.as_str().unwrap())), "{told}");
        }
        json.iter().map(|warning| warning.as_str().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
    };
    let build = |more: &[&str]| {
        drop(std::fs::remove_dir_all(place.path("r")));
        let mut args = build_args("image", "r");
        args.push("--json");
        args.extend(more);
        warnings(place.run(args).good())
    };
    assert!(
        build(&[]).contains("image is compressed with gzip: a patch will be nearly as large as the image")
    );
    // As a base too.
    place.write("image", &plain);
    place.write("old", &packed);
    assert!(build(&["--base", "old"]).contains("base old: image is compressed with gzip"));
    // Compressed data that no header explains is reported if a patch is wanted.
    place.write("image", noise(50_000, 5));
    assert!(!build(&[]).contains("encrypted"));
    place.write("old", noise(50_000, 6));
    assert!(build(&["--base", "old"]).contains("image is compressed or encrypted in 100 % of its bytes"));
    let told = warnings(place.run(["release", "diff", "old", "image", "--json"]).good());
    assert!(told.contains("image: image is compressed or encrypted"), "{told}");
    // Nothing is reported if nothing is compressed.
    place.write("image", &plain);
    assert_eq!(build(&[]), "");
}

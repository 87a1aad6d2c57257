//! `whimbrel inspect`: its sources, bytes that are refused and shown all the same, and hostile bytes.

use proptest::prelude::*;
use whimbrel_publisher::inspect::explain;

use crate::objects;
use crate::support::{Place, build_args, ed25519, text};

fn object(name: &str) -> Vec<u8> {
    objects::all().into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn bytes_and_hexadecimal_and_standard_input_are_the_same() {
    let place = Place::new();
    for (name, bytes) in objects::all() {
        place.write("bytes", &bytes);
        let from_file = place.run(["inspect", "bytes"]).quiet().out;
        let spaced: String = bytes.iter().map(|byte| format!("{byte:02X} ")).collect();
        for input in [bytes.clone(), hex::encode(&bytes).into_bytes(), spaced.into_bytes()] {
            assert_eq!(place.feed(["inspect", "-"], &input).quiet().out, from_file, "{name}");
        }
        assert_eq!(place.run(["release", "inspect", "bytes"]).quiet().out, from_file, "{name}");
    }
}

#[test]
fn who_signed_is_told_only_where_a_root_is_given() {
    let place = Place::new();
    place.write("root.cbor", objects::trust());
    for (name, role) in
        [("campaign", "campaign"), ("assignment", "campaign"), ("beacon", "beacon"), ("answer", "beacon")]
    {
        place.write("object", object(name));
        let verified = |args: &[&str]| {
            let told = place.run([&["inspect", "object", "--json"], args].concat()).json();
            told["signature"]["verified"].as_str().unwrap().to_owned()
        };
        assert_eq!(verified(&[]), "not checked: no root given");
        assert_eq!(verified(&["--root", "root.cbor"]), format!("yes, by a {role} key of the root"));
    }
    place.write("object", object("release"));
    let told = place.run(["inspect", "object", "--json", "--root", "root.cbor"]).json();
    assert_eq!(told["verified"], "yes, by release keys of the root (1 required)");
    // The configuration names a root too; these were signed by keys of another.
    let place = Place::with_init();
    place.write("object", object("release"));
    let told = place.run(["inspect", "object", "--json"]).json();
    assert!(told["verified"].as_str().unwrap().starts_with("no: "), "{told}");
}

#[test]
fn what_the_strict_reader_refuses_is_shown_with_what_is_not_canonical() {
    let place = Place::new();
    // The length of the array grows a byte; then a trailing byte.
    let good = object("refusal");
    let campaign = object("campaign");
    assert_eq!(campaign[..2], [0xd2, 0x84]);
    let longer = [&[0xd2, 0x98, 0x04][..], &campaign[2..], &[0]].concat();
    place.write("object", &longer);
    let told = place.run(["inspect", "object", "--json"]).json();
    assert_eq!(told["kind"], "signed object");
    assert_eq!(told["refused"], "integer or length at byte 1 is not in its shortest form");
    let findings: Vec<&str> =
        told["not_canonical"].as_array().unwrap().iter().map(|of| of.as_str().unwrap()).collect();
    let end = longer.len() - 1;
    assert_eq!(
        findings,
        [
            "byte 1: integer or length is not in its shortest form".to_owned(),
            format!("byte {end}: bytes follow the last item")
        ]
    );
    assert!(
        told["diagnostic"].as_str().unwrap().starts_with("18([<<{1: -19, -65537: 18}>>, {4: h'"),
        "{told}"
    );
    // A message that is cut: the reason alone.
    place.write("object", &good[..1]);
    let told = place.run(["inspect", "object", "--json"]).json();
    assert_eq!((&told["kind"], told.get("diagnostic")), (&"refusal".into(), None));
    assert!(told["refused"].as_str().unwrap().contains("input ends"), "{told}");
}

#[test]
fn envelopes_of_other_tools_are_explained_with_the_reason_why_devices_refuse_them() {
    let place = Place::new();
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors/suit/manifest-spec");
    let fetch = "no: command 21 (fetch) in install lacks parameter 25 (fetch arguments)";
    for (number, verdict) in [
        // Secure boot alone, without an update: nothing that our devices do not do.
        (0, "yes"),
        (1, fetch),
        (2, fetch),
        (3, fetch),
        (4, "no: parameter 22 (source component) is not executed by this version"),
        (5, "no: 2 components is not executed by this version"),
    ] {
        let text = std::fs::read_to_string(folder.join(format!("example{number}.signed.hex"))).unwrap();
        let told = place.feed(["inspect", "-", "--json"], text.as_bytes()).json();
        assert_eq!(told["kind"], "release", "example {number}: {told}");
        assert_eq!(told["signatures"][0]["algorithm"], "es256 (deprecated)");
        assert_eq!(told["devices_take_it"], verdict, "example {number}");
    }
}

#[test]
fn a_payload_is_checked_against_the_release_beside_it() {
    let place = Place::new();
    place.write("image", text(20_000));
    place.run(build_args("image", "r")).good();
    let name = place.files().into_keys().find(|name| name.ends_with(".payload")).unwrap();
    let told = place.run(["inspect", &name, "--json"]).json();
    assert_eq!(told["named_by_the_release"], true);
    assert_eq!(told["lzma"]["image_size"], 20_000);
    let good = place.read(&name);
    let mut bad = good.clone();
    bad[100] ^= 1;
    place.write(&name, &bad);
    assert!(place.run(["inspect", &name]).line().contains("is not the payload that the manifest names"));
    // Alone its head is explained, under this name and under another.
    place.write("alone.payload", &good);
    let told = place.run(["inspect", "alone.payload", "--json"]).json();
    assert_eq!(told["lzma"]["filter"], "none");
    assert!(told["release"].as_str().unwrap().starts_with("none beside it"));
    // The folder of a release is its envelope.
    assert_eq!(place.run(["inspect", "r"]).quiet().out, place.run(["inspect", "r/release.suit"]).quiet().out);
}

#[test]
fn what_is_nothing_of_ours_is_one_line() {
    let place = Place::with_init();
    place.write("empty", "");
    place.write("text", "Some words.\n");
    place.write("large", vec![0xff; 2 << 20]);
    for (file, want) in [
        ("empty", "empty is empty"),
        ("text", "text is nothing that Whimbrel writes or sends"),
        ("whimbrel.toml", "whimbrel.toml is nothing that Whimbrel writes or sends"),
        ("admin.token", "a token that is not to be shown"),
        ("large", "large has more than 1048576 bytes"),
        ("none", "cannot read none"),
        ("keys", "cannot read keys/release.suit"),
    ] {
        let line = place.run(["inspect", file]).line();
        assert!(line.contains(want), "{line}");
    }
    let line = place.feed(["inspect", "-"], &vec![0; 2 << 20]).line();
    assert!(line.contains("standard input has more than"), "{line}");
    assert!(place.feed(["inspect", "-"], b"").line().contains("standard input is empty"));
    assert!(place.run(["inspect", "text", "--root", "text"]).line().contains("text: root is malformed"));
}

/// A publisher chooses the text of a manifest, and could put control sequences for other people's terminals
/// in it.
#[test]
fn text_in_a_manifest_reaches_no_terminal_unescaped() {
    let place = Place::new();
    place.write("image", "x");
    let mut args = build_args("image", "r");
    args.extend(["--description", "nice\u{1b}]0;owned\u{7}\n\u{202e}txt"]);
    place.run(args).good();
    let out = place.run(["inspect", "r"]).quiet().out;
    assert!(out.chars().all(|c| (!c.is_control() && c != '\u{202e}') || c == '\n'), "{out}");
    assert!(out.contains(r"nice\u{1b}]0;owned\u{7}\u{a}\u{202e}txt"), "{out}");
}

fn survive(bytes: &[u8]) {
    if let Ok(fields) = explain("object", bytes, None) {
        let human = fields.human();
        assert!(human.chars().all(|c| !c.is_control() || c == '\n'), "{human:?}");
        serde_json::from_str::<serde_json::Value>(&fields.json()).unwrap();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_explained_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survive(&bytes);
    }

    #[test]
    fn damaged_objects_are_explained_or_refused(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let (_, mut bytes) = which.get(&objects::all()).clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        survive(&bytes);
    }
}

/// 7 KB of countersignatures within countersignatures, which overflow the stack of some COSE libraries.
#[test]
fn nesting_is_no_danger() {
    for levels in [20, 100, 1700, 100_000] {
        survive(&vec![0x81; levels]);
        let mut bytes = vec![0xd2, 0x84, 0x40, 0xa1, 0x07];
        bytes.extend([0x83, 0x40, 0xa1, 0x07].repeat(levels));
        survive(&bytes);
        // Closed properly, so that it is whole.
        bytes.extend([0x83, 0x40, 0xa0, 0x40]);
        bytes.extend(vec![0x40; levels]);
        bytes.extend([0xf6, 0x40]);
        survive(&bytes);
        let wrapped = (0..levels.min(2000)).fold(vec![0x80], |inner, _| {
            let len = u16::try_from(inner.len()).unwrap_or(u16::MAX);
            [&[0x81, 0x59][..], &len.to_be_bytes(), &inner].concat()
        });
        survive(&wrapped);
    }
}

/// A private key in a form that is not ours is named as one, and no more.
#[test]
fn a_private_key_of_another_form_is_named_and_not_shown() {
    let place = Place::new();
    let key = ed25519(0x5e).encode_file();
    let mut reordered = vec![key[0]];
    reordered.extend(&key[key.len() - 35..]);
    reordered.extend(&key[1..key.len() - 35]);
    place.write("key", reordered);
    let run = place.run(["inspect", "key"]).quiet();
    assert!(run.out.contains("private    yes") && !run.out.contains("5e5e"), "{}", run.out);
    assert!(run.out.contains("map key is below the one before it"), "{}", run.out);
}

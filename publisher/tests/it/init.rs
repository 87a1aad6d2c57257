//! `whimbrel init`

use whimbrel_protocol::cose::{Algorithm, SigningKey};
use whimbrel_protocol::trust::{Role, Root};

use whimbrel_publisher::init::key_file;

use crate::support::Place;

#[test]
fn init_makes_a_folder_whose_root_binds_each_key_to_its_role() {
    for (alg, algorithm) in [("ed25519", Algorithm::Ed25519), ("esp256", Algorithm::Esp256)] {
        let place = Place::new();
        let told = place.run(["init", "fleet", "--alg", alg, "--json"]).json();
        let root = Root::verify(&place.read("fleet/root.cbor")).unwrap();
        assert_eq!(root.version, 1);
        assert!(root.expires > root.issued);
        for (number, role) in Role::ALL.into_iter().enumerate() {
            let file = place.read(&format!("fleet/{}", key_file(role)));
            let key = SigningKey::decode_file(&file).unwrap().public();
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(root.role(role).keys, std::slice::from_ref(&key));
            assert_eq!(root.role(role).threshold, 1);
            assert_eq!(told["keys"][number]["id"], key.id().to_hex());
            assert_eq!(told["keys"][number]["role"], role.name());
        }
    }
}

#[test]
fn init_keeps_secrets_to_their_owner() {
    let place = Place::with_init();
    for folder in ["keys", "offline-keys"] {
        assert_eq!(place.mode(folder), 0o700);
    }
    for name in ["offline-keys/root", "offline-keys/release", "keys/campaign", "keys/beacon"] {
        assert_eq!(place.mode(&format!("{name}.cose")), 0o600);
    }
    assert_eq!(place.mode("admin.token"), 0o600);
    let token = String::from_utf8(place.read("admin.token")).unwrap();
    assert_eq!(token.trim_end().len(), 64);
    assert!(token.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    // What is not secret can be read by a service that runs as somebody else, as far as the umask lets it.
    assert_ne!(place.mode("root.cbor") & 0o400, 0);
    assert_ne!(place.mode("root.cbor"), 0o600);
}

#[test]
fn two_folders_share_no_secret() {
    let (one, two) = (Place::with_init().files(), Place::with_init().files());
    for name in [
        "offline-keys/root.cose",
        "offline-keys/release.cose",
        "keys/campaign.cose",
        "keys/beacon.cose",
        "admin.token",
    ] {
        assert_ne!(one[name], two[name], "{name}");
    }
}

#[test]
fn the_configuration_is_commented_and_names_what_is_there() {
    let place = Place::with_init();
    let text = String::from_utf8(place.read("whimbrel.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    for (section, key) in [
        ("service", "token-file"),
        ("service", "root"),
        ("service", "campaign-key"),
        ("service", "beacon-key"),
    ] {
        let name = table[section][key].as_str().unwrap();
        assert!(place.path(name).is_file(), "{section}.{key} names {name}");
    }
    let keys = table["publisher"]["release-keys"].as_array().unwrap();
    assert!(keys.iter().all(|name| place.path(name.as_str().unwrap()).is_file()));
    // Every key is explained in the line before it, or in one that leads a group.
    let mut explained = false;
    for line in text.lines() {
        match line.trim() {
            "" => explained = false,
            comment if comment.starts_with('#') => explained = true,
            table if table.starts_with('[') => {}
            key => assert!(explained, "nothing explains `{key}`"),
        }
    }
}

#[test]
fn init_leaves_a_folder_that_was_made_before_as_it_was() {
    let place = Place::with_init();
    let before = place.files();
    let line = place.run(["init", "."]).line();
    assert!(line.contains("whimbrel.toml is there already"), "{line}");
    assert_eq!(place.files(), before);

    // Without the configuration its keys are still there, and keys are never overwritten.
    std::fs::remove_file(place.path("whimbrel.toml")).unwrap();
    let before = place.files();
    let line = place.run(["init", "."]).line();
    assert!(line.contains("offline-keys/root.cose is there already"), "{line}");
    assert_eq!(place.files(), before);
}

#[test]
fn init_uses_a_folder_that_has_other_things_in_it() {
    let place = Place::new();
    place.write("README", "mine");
    place.run(["init", "."]).quiet();
    assert_eq!(place.read("README"), b"mine");
    assert!(place.path("whimbrel.toml").is_file());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let place = Place::new();
    let line = place.run(["init", "missing/fleet"]).line();
    assert!(line.contains("cannot make the folder missing/fleet"), "{line}");
    place.write("file", "");
    assert!(place.run(["init", "file"]).line().contains("file"));
    assert_eq!(place.files().len(), 1);
}

#[test]
fn keys_that_the_service_must_not_have_are_in_a_folder_of_their_own_that_says_where_they_belong() {
    let place = Place::with_init();
    let files = place.files();
    let below =
        |folder: &str| files.keys().filter(|name| name.starts_with(folder)).cloned().collect::<Vec<_>>();
    assert_eq!(below("keys/"), ["keys/", "keys/beacon.cose", "keys/campaign.cose"]);
    let offline =
        ["offline-keys/", "offline-keys/README", "offline-keys/release.cose", "offline-keys/root.cose"];
    assert_eq!(below("offline-keys/"), offline);
    let said = String::from_utf8(place.read("offline-keys/README")).unwrap();
    assert!(said.contains("machine that no device can reach"), "{said}");
}

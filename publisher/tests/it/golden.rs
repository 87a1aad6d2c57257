//! The output of `whimbrel inspect` and `--help`, word for word, so that nobody changes it without noticing.
//!
//! `WHIMBREL_BLESS=1 cargo nextest run -p whimbrel-publisher golden` writes the files anew; read the difference.

use std::path::PathBuf;

use crate::objects;
use crate::support::Place;

fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares `text` with the file, or writes it.
fn check(name: &str, text: &str, wrong: &mut Vec<String>) {
    let path = golden_folder().join(name);
    if std::env::var_os("WHIMBREL_BLESS").is_some() {
        std::fs::create_dir_all(golden_folder()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    if want != text {
        wrong.push(format!("{} is not what is printed now:\n{text}", path.display()));
    }
}

#[test]
fn every_object_is_explained_in_these_words() {
    let place = Place::new();
    place.write("root.cbor", objects::trust());
    let mut wrong = Vec::new();
    let mut names = Vec::new();
    for (name, bytes) in objects::all() {
        place.write("object", &bytes);
        let human = place.run(["inspect", "object", "--root", "root.cbor"]).quiet().out;
        let json = place.run(["inspect", "object", "--root", "root.cbor", "--json"]).json();
        let text = format!("{human}\n{}\n", serde_json::to_string_pretty(&json).unwrap());
        check(&format!("{name}.txt"), &text, &mut wrong);
        names.push(format!("{name}.txt"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No file is left over from an object that is gone.
    for entry in std::fs::read_dir(golden_folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("help") || names.contains(&name), "{name} belongs to nothing");
    }
}

#[test]
fn help_is_given_in_these_words() {
    let place = Place::new();
    let mut wrong = Vec::new();
    for command in [
        "",
        "init",
        "key",
        "key new",
        "key show",
        "release",
        "release build",
        "release diff",
        "release apply",
        "release sign",
        "release tbs",
        "release attach",
        "release verify",
        "release inspect",
        "release bases",
        "release publish",
        "inspect",
        "campaign",
        "campaign create",
        "campaign status",
        "campaign abort",
        "campaign retry",
        "campaign list",
        "device",
        "device list",
        "device show",
        "device accept",
        "device import",
        "device reset",
        "device groups",
        "status",
    ] {
        let args = command.split_whitespace().chain(["--help"]);
        let name = format!("help {command}").trim().replace(' ', "-");
        check(&format!("{name}.txt"), &place.run(args).quiet().out, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

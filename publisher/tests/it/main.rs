//! The command line from outside: real files, real processes, a real socket.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
// Tests always have std.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc)]

mod build;
mod durable;
mod full_payloads;
mod golden;
mod http;
mod init;
mod inspect;
mod keys;
mod objects;
mod operate;
mod patch;
mod patch_bounds;
mod patch_hostile;
mod patch_limits;
mod patch_properties;
mod patch_vectors;
mod patches;
mod payloads;
mod publish;
mod secrets;
mod sign;
mod support;
mod told;
mod trouble;
mod verify;

/// Nobody would run the tests of a file without its `mod` line.
#[test]
fn no_test_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs") {
            assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} has no mod line");
        }
    }
}

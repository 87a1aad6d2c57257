//! The protocol's formats from outside: vectors, other implementations, hostile bytes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
// Tests run where std is.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc)]

mod annotation;
mod answering;
mod by_hand;
mod chunk_digests;
mod clocks;
mod codec;
mod codecs;
mod conversations;
mod cose_interop;
mod documents;
mod downloads;
mod envelope;
mod envelope_parts;
mod hellos;
mod hostile;
mod interpreter;
mod interpreter_model;
mod manifest;
mod manifest_properties;
mod messages;
mod news;
mod orders;
mod other_key;
mod outages;
mod patch_damage;
mod patch_refusals;
mod patches;
mod resuming;
mod ruling;
mod samples;
mod serving;
mod session;
mod signatures;
mod sim_disk;
mod suit_vectors;
mod trust;
mod unsigned;
mod unsigned_answers;
mod waits;
mod walk;
mod walk_patches;

/// A file without its `mod` line would be tests that nobody runs.
#[test]
fn no_test_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap();
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} has no mod line");
    }
}

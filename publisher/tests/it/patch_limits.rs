//! What making a patch takes, and what is told of it: memory before it starts, progress while it goes on.

use std::path::Path;

use whimbrel_publisher::patch::{PatchOptions, diff};
use whimbrel_publisher::release::{PATCH_PASSES, StoredImage, make_patch};

use crate::support::{Place, build_args, noise};

fn place() -> Place {
    let place = Place::new();
    place.write("old", noise(50_000, 1));
    place.write("image", [noise(30_000, 1), noise(20_000, 2)].concat());
    place
}

/// The number behind `--memory-limit` in what is said.
fn would_do(line: &str) -> String {
    let behind = line.split("--memory-limit ").nth(1).unwrap_or_else(|| panic!("{line}"));
    behind.chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_memory_limit_that_is_too_low_is_refused_before_anything_is_made_with_what_would_do() {
    let place = place();
    let before = place.files();
    let diff = ["release", "diff", "old", "image", "-o", "patch", "--memory-limit"];
    let mut build = build_args("image", "r");
    build.extend(["--base", "old", "--memory-limit"]);
    for args in [&diff[..], &build[..]] {
        let run = |limit: &str| place.run(args.iter().copied().chain([limit]));
        let line = run("1MiB").line();
        assert!(line.starts_with("this takes up to ") && line.contains("what would do is"), "{line}");
        assert!(place.files() == before);
        let enough = would_do(&line);
        let less = (enough.parse::<u64>().unwrap() - 1).to_string();
        assert!(run(&less).line().starts_with("this takes up to "));
        assert!(place.files() == before);
        run(&enough).good();
        assert!(place.files() != before);
        std::fs::remove_file(place.path("patch")).unwrap_or_default();
    }
}

#[test]
fn every_byte_is_told_when_it_is_looked_for_and_coded_and_checked() {
    let place = place();
    let (old, new) = (place.read("old"), place.read("image"));
    let mut told = Vec::new();
    drop(diff(&old, &new, &PatchOptions::default(), &mut |bytes| told.push(bytes)));
    assert_eq!(told.iter().sum::<u64>(), 2 * new.len() as u64);
    let base = StoredImage::open(Path::new(&place.path("old"))).unwrap();
    let mut sum = 0;
    make_patch(&base, &new, &PatchOptions::default(), &mut |bytes| sum += bytes).unwrap();
    assert_eq!(sum, PATCH_PASSES * new.len() as u64);
}

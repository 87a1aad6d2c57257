//! House rules that no compiler checks: who imports whom, that no test file is forgotten, what no file may say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Each crate of ours and those of ours that it may depend on, for building and for tests.
const EDGES: [(&str, &[&str]); 9] = [
    ("whimbrel-settings", &[]),
    ("whimbrel-api", &["whimbrel-protocol"]),
    ("whimbrel-protocol", &["whimbrel-protocol"]),
    ("whimbrel-engine", &["whimbrel-protocol"]),
    ("whimbrel-agent", &["whimbrel-protocol", "whimbrel-settings", "whimbrel-engine"]),
    ("whimbrel-service", &["whimbrel-protocol", "whimbrel-settings", "whimbrel-api"]),
    ("whimbrel-publisher", &["whimbrel-protocol", "whimbrel-settings", "whimbrel-api"]),
    (
        "whimbrel-sim",
        &[
            "whimbrel-protocol",
            "whimbrel-settings",
            "whimbrel-api",
            "whimbrel-engine",
            "whimbrel-agent",
            "whimbrel-service",
            "whimbrel-publisher",
        ],
    ),
    (
        "e2e",
        &["whimbrel-protocol", "whimbrel-agent", "whimbrel-service", "whimbrel-publisher", "whimbrel-sim"],
    ),
];

/// The folders of these crates.
const MEMBERS: [&str; 9] = [
    "common/settings",
    "common/api",
    "protocol",
    "device-agent/engine",
    "device-agent",
    "broker-plugin",
    "publisher",
    "simulator",
    "tests",
];

#[test]
fn no_crate_imports_another_that_it_may_not() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "a crate that this table does not know");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            assert!(!ours.contains(on) || allowed[name].contains(&on), "{name} must not depend on {on}");
        }
    }
}

/// The core decides: no I/O, no clock, no randomness, no log in the protocol crate and the device engine.
#[test]
fn the_protocol_crate_and_the_engine_use_no_std_outside_their_tests() {
    let folders = ["protocol/src", "device-agent/engine/src"].map(|folder| workspace().join(folder));
    for file in folders.iter().flat_map(|folder| rust_files(folder)) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let found = line.contains("std::") || line.contains("println!") || line.contains("tracing::");
            assert!(!found, "{}: {line}", file.display());
        }
    }
}

#[test]
fn no_test_file_is_forgotten() {
    for member in MEMBERS {
        let folder = workspace().join(member).join("tests/it");
        let main =
            std::fs::read_to_string(folder.join("main.rs")).unwrap_or_else(|_| panic!("{member} has tests"));
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let module = name.trim_end_matches(".rs");
            let has_line = main.contains(&format!("mod {module};"));
            assert!(
                module == "main" || has_line || !is_rust(&folder.join(&name)),
                "{member}: {name} has no mod line"
            );
        }
    }
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs") || path.join("mod.rs").exists()
}

/// `unsafe` is forbidden by lint in every member, so that nobody can allow it in passing.
#[test]
fn every_member_takes_the_workspace_lints() {
    for member in MEMBERS {
        let manifest = std::fs::read_to_string(workspace().join(member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member}");
    }
    let root = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    assert!(root.contains("unsafe_code = \"forbid\""));
}

/// Clocks are read in the files named for it, also those that clippy can't see.
#[test]
fn clocks_are_read_in_clock_files_only() {
    for member in MEMBERS.into_iter().filter(|member| *member != "protocol") {
        for file in rust_files(&workspace().join(member).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let is_clock = file.file_stem().is_some_and(|stem| stem == "clock");
            for (number, line) in text.lines().enumerate() {
                let reads = line.contains("Instant::now()") || line.contains("SystemTime::now()");
                let comment = line.trim_start().starts_with("//");
                assert!(!reads || is_clock || comment, "{}:{}", file.display(), number + 1);
            }
        }
    }
}

/// The architecture says that each line of its table of modules may use those above it.
#[test]
fn modules_of_the_protocol_use_those_above_them() {
    let text = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let table = text.split("| module | holds |").nth(1).unwrap().split("\n\n").next().unwrap();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"))
        .map(|(names, _)| names.split('`').filter(|name| !name.trim().is_empty()).collect())
        .collect();
    let source = workspace().join("protocol/src");
    let mut known = 0;
    for (at, line) in lines.iter().enumerate() {
        for module in line {
            let folder = source.join(module);
            let files = if folder.is_dir() { rust_files(&folder) } else { vec![folder.with_extension("rs")] };
            known += 1;
            for file in files {
                let text = std::fs::read_to_string(&file).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                for below in lines[at + 1..].iter().flatten() {
                    let uses = code.contains(&format!("use crate::{below}::"));
                    assert!(!uses, "{} uses {below}, which stands below it", file.display());
                }
            }
        }
    }
    let modules = std::fs::read_to_string(source.join("lib.rs")).unwrap();
    let modules = modules.lines().filter(|line| line.starts_with("pub mod ")).count();
    assert_eq!(known, modules, "the table has every module");
}

/// A path of the admin API is written in one place, so that the service and who asks it cannot differ. Tests may spell
/// them: they are the check.
#[test]
fn paths_of_the_admin_api_stand_in_its_crate_only() {
    let file = workspace().join("common/api/src/routes.rs");
    assert!(std::fs::read_to_string(file).unwrap().contains("\"/v1/"), "this is how they are written");
    for member in MEMBERS.into_iter().filter(|member| *member != "common/api") {
        for file in rust_files(&workspace().join(member).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let found = text.lines().position(|line| line.contains("\"/v1/"));
            assert!(found.is_none(), "{}:{}", file.display(), found.unwrap_or(0) + 1);
        }
    }
}

/// Every section that the code cites exists in the specification.
#[test]
fn every_section_that_is_cited_exists() {
    let spec = std::fs::read_to_string(workspace().join("protocol/SPEC.md")).unwrap();
    let sections: BTreeSet<&str> = spec
        .lines()
        .filter(|line| line.starts_with("##"))
        .filter_map(|line| line.trim_start_matches('#').split_whitespace().next())
        .map(|number| number.trim_end_matches('.'))
        .collect();
    for member in MEMBERS.into_iter().filter(|member| *member != "tests") {
        for file in rust_files(&workspace().join(member).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (at, _) in text.match_indices("SPEC ") {
                let rest = text[at + 5..].trim_start_matches("sections ").trim_start_matches("section ");
                let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                let number = number.trim_end_matches('.');
                assert!(number.is_empty() || sections.contains(number), "{}: SPEC {number}", file.display());
            }
        }
    }
}

/// The CDDL in the specification is that of the schema, which is tested against messages: line for line, and all of
/// it.
#[test]
fn the_specification_has_the_schema_word_for_word() {
    let spec = std::fs::read_to_string(workspace().join("protocol/SPEC.md")).unwrap();
    let schema = std::fs::read_to_string(workspace().join("protocol/schema.cddl")).unwrap();
    let quoted: Vec<&str> = spec
        .split("```cddl\n")
        .skip(1)
        .flat_map(|block| block.split("```").next().unwrap().split("\n\n"))
        .map(str::trim_end)
        .collect();
    for rule in &quoted {
        assert!(schema.contains(&format!("\n{rule}\n")), "not in schema.cddl:\n{rule}");
    }
    let defined = schema.lines().filter_map(|line| line.split_once(" = ").map(|(name, _)| name.trim_end()));
    for name in defined.filter(|name| !name.contains([' ', ';'])) {
        let is_quoted = quoted
            .iter()
            .flat_map(|rule| rule.lines())
            .any(|line| line.split_once(" = ").is_some_and(|(other, _)| other.trim_end() == name));
        assert!(is_quoted, "{name} is not in SPEC.md");
    }
}

/// Machines that build this have registries and mirrors of their own, and say so outside of it. Lock files name where
/// packages are from, not where they are fetched.
#[test]
fn no_file_names_the_address_of_a_registry_or_mirror() {
    let files = files_of_the_project(&workspace());
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    for known in ["scripts/bench-patches", ".ci/run", "Cargo.toml", "protocol/SPEC.md"] {
        assert!(names.iter().any(|name| name.ends_with(known)), "{known} is looked at");
    }
    let hosts = REGISTRIES.map(|parts| parts.join("."));
    for file in files {
        // What is no text has no address that anything would go to.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for host in &hosts {
            let found = text.find(host.as_str()).map(|at| text[..at].lines().count());
            assert!(found.is_none(), "{}: line {} names {host}", file.display(), found.unwrap_or(0));
        }
    }
}

/// Hosts of registries and their mirrors, in parts, so that this file does not name them.
const REGISTRIES: [&[&str]; 15] = [
    &["crates", "io"],
    &["static", "rust-lang", "org"],
    &["npmjs", "org"],
    &["npmjs", "com"],
    &["npmmirror", "com"],
    &["yarnpkg", "com"],
    &["pypi", "org"],
    &["pythonhosted", "org"],
    &["proxy", "golang", "org"],
    &["maven", "org"],
    &["rubygems", "org"],
    &["docker", "io"],
    &["debian", "org"],
    &["ubuntu", "com"],
    &["rsproxy", "cn"],
];

/// Every file that is not made by building or by git, and no lock file.
fn files_of_the_project(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_symlink() || [".git", "target", "__pycache__"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            found.extend(files_of_the_project(&path));
        } else if path.extension().is_none_or(|extension| extension != "lock") {
            found.push(path);
        }
    }
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

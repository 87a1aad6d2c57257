//! `whimbrel release bases`

use anyhow::Result;
use serde::Deserialize;

use super::campaign::release_digest;
use super::payloads::approximate;
use super::table::{short, table};
use super::{Context, Screen};
use crate::cli::BasesFlags;
use crate::output::{Fields, Value};
use crate::units::grouped;

/// What the devices of a class run beside a release, as the service shows it.
#[derive(Debug, Deserialize)]
struct Bases {
    release: String,
    #[serde(default)]
    version: Option<String>,
    sequence: u64,
    full_bytes: u64,
    devices: u64,
    current: u64,
    later: u64,
    unknown: u64,
    patches: Vec<Patch>,
    bases: Vec<Base>,
    #[serde(default)]
    more_images: u64,
    #[serde(default)]
    more_devices: u64,
}

/// A patch that the release has.
#[derive(Debug, Deserialize)]
struct Patch {
    base: String,
    #[serde(default)]
    version: Option<String>,
    patch_bytes: u64,
    devices: u64,
}

/// An image that it has none for.
#[derive(Debug, Deserialize)]
struct Base {
    image: String,
    #[serde(default)]
    version: Option<String>,
    sequence: u64,
    devices: u64,
    #[serde(default)]
    patch_bytes: Option<u64>,
    #[serde(default)]
    saved_bytes: Option<u64>,
    #[serde(default)]
    total_saved_bytes: Option<u64>,
    #[serde(default)]
    estimated: bool,
    #[serde(default)]
    from: Option<String>,
}

pub(super) fn run(context: &Context, flags: &BasesFlags) -> Result<Screen> {
    let client = context.client()?;
    let digest = release_digest("RELEASE", &flags.release)?;
    let group = flags.group.as_ref().map_or(String::new(), |group| format!("?group={group}"));
    let json = client.get(&format!("/v1/releases/{digest}/bases{group}"))?;
    let bases: Bases = client.read(&json)?;
    Ok(Screen::of(words(&bases), &json))
}

fn words(bases: &Bases) -> String {
    let version = bases.version.as_ref().map_or_else(String::new, |version| format!("{version}, "));
    let parts = [(bases.current, "run it"), (bases.later, "run a later one"), (bases.unknown, "did not say")];
    let parts = parts.into_iter().filter(|(devices, _)| *devices > 0);
    let parts: Vec<String> =
        parts.map(|(devices, what)| format!(", {} of them {what}", grouped(devices))).collect();
    let patches = bases.patches.iter().map(|patch| {
        let base = patch.version.clone().unwrap_or_else(|| short(&patch.base));
        let (bytes, devices) = (grouped(patch.patch_bytes), grouped(patch.devices));
        format!("from {base}: {bytes} bytes, {devices} devices").into()
    });
    let mut human = Fields::new()
        .with("release", format!("{version}sequence {}, {}", bases.sequence, short(&bases.release)))
        .with("full_payload", Value::Bytes(bases.full_bytes))
        .with("devices", format!("{}{}", grouped(bases.devices), parts.concat()))
        .with("patches", patches.collect::<Vec<Value>>())
        .human();
    human.push('\n');
    let rows: Vec<[String; 7]> = bases.bases.iter().map(Base::row).collect();
    let headings = ["DEVICES", "RUNNING", "VERSION", "SEQUENCE", "PATCH", "SAVES EACH", "SAVES ALL"];
    let none = "every other device runs an image that a patch starts from";
    human.push_str(&table(headings, &rows, none));
    if bases.more_images > 0 {
        let (devices, images) = (grouped(bases.more_devices), grouped(bases.more_images));
        human.push_str(&format!("and {devices} devices that run {images} other images\n"));
    }
    let estimate = bases.bases.iter().find(|base| base.estimated).and_then(|base| base.from.as_deref());
    if let Some(from) = estimate {
        human.push_str(&format!("~ is an estimate, from {from}\n"));
    }
    if bases.bases.iter().any(|base| base.patch_bytes.is_none()) {
        human.push_str("no release of this class has a patch that would tell what one saves\n");
    }
    human
}

impl Base {
    fn row(&self) -> [String; 7] {
        let bytes = |bytes: Option<u64>| {
            bytes.map_or_else(|| "-".to_owned(), |bytes| approximate(bytes, self.estimated))
        };
        [
            grouped(self.devices),
            short(&self.image),
            self.version.clone().unwrap_or_else(|| "-".into()),
            self.sequence.to_string(),
            bytes(self.patch_bytes),
            bytes(self.saved_bytes),
            bytes(self.total_saved_bytes),
        ]
    }
}

//! `whimbrel release bases`

use anyhow::Result;
use whimbrel_api::{Base, Bases, BasesQuery, routes};

use super::campaign::release_digest;
use super::payloads::approximate;
use super::table::{short, table};
use super::{Context, Progress, Screen};
use crate::cli::BasesFlags;
use crate::output::{Fields, Value};
use crate::units::grouped;

pub(super) fn run(context: &Context, flags: &BasesFlags) -> Result<Screen> {
    let client = context.client()?;
    let digest = release_digest("RELEASE", &flags.release)?;
    let query = BasesQuery { group: flags.group.as_ref().map(ToString::to_string) };
    let _waiting = Progress::open_ended("waiting for the service");
    let bases: Bases = client.get(&routes::bases(&digest, &query))?;
    Ok(Screen::of(words(&bases), &bases))
}

fn words(bases: &Bases) -> String {
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
        .with("release", format!("{}, sequence {}, {}", bases.version, bases.sequence, short(&bases.release)))
        .with("full_payload", Value::Bytes(bases.full_bytes))
        .with("devices", format!("{}{}", grouped(bases.devices), parts.concat()))
        .with("patches", patches.collect::<Vec<Value>>())
        .human();
    human.push('\n');
    let rows: Vec<[String; 7]> = bases.bases.iter().map(row).collect();
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

fn row(base: &Base) -> [String; 7] {
    let bytes =
        |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| approximate(bytes, base.estimated));
    [
        grouped(base.devices),
        short(&base.image),
        base.version.clone().unwrap_or_else(|| "-".into()),
        base.sequence.to_string(),
        bytes(base.patch_bytes),
        bytes(base.saved_bytes),
        bytes(base.total_saved_bytes),
    ]
}

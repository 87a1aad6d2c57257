//! `whimbrel device import`: a list of devices of any length.

use std::path::Path;

use anyhow::Result;
use whimbrel_api::{ImportQuery, Imported};

use super::bar;
use crate::files;
use crate::service::Client;

/// Most bytes of a list of devices to import.
pub(super) const CSV_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Has the service look at every line, and then take them.
pub(super) fn run(client: &Client, csv: &Path) -> Result<Imported> {
    let list = files::read(csv, "a list of devices", CSV_BYTES_MAX)?;
    send(client, "checking", &ImportQuery { check: Some("1".into()) }, &list)?;
    send(client, "importing", &ImportQuery::default(), &list)
}

fn send(client: &Client, what: &'static str, query: &ImportQuery, list: &[u8]) -> Result<Imported> {
    let progress = bar(what, list.len() as u64);
    let imported = client.post_devices(query, list, &mut |sent| progress.inc(sent));
    drop(progress);
    Ok(imported?)
}

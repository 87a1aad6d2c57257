//! `whimbrel device import`: a list of devices of any length.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Result;
use whimbrel_api::{ImportQuery, Imported};

use super::bar;
use crate::clock::Stopwatch;
use crate::files;
use crate::service::Client;

/// Most bytes of a list of devices to import.
const CSV_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Without a terminal, a line says this often how far it is.
const LINE_EVERY_S: f64 = 5.0;

/// Has the service look at every line, and then take them.
pub(super) fn run(client: &Client, csv: &Path) -> Result<Imported> {
    let list = files::read(csv, "a list of devices", CSV_BYTES_MAX)?;
    send(client, "checking", &ImportQuery { check: Some("1".into()) }, &list)?;
    send(client, "importing", &ImportQuery::default(), &list)
}

fn send(client: &Client, what: &'static str, query: &ImportQuery, list: &[u8]) -> Result<Imported> {
    let bar = bar(what, list.len() as u64);
    let silent = !std::io::stderr().is_terminal();
    let mut said = Stopwatch::start();
    let mut progress = |sent: u64| {
        bar.inc(sent);
        if silent && said.seconds() >= LINE_EVERY_S {
            said = Stopwatch::start();
            let percent = bar.position().saturating_mul(100) / (list.len() as u64).max(1);
            // Whoever does not listen need not know.
            let _unheard = writeln!(std::io::stderr(), "whimbrel: {what}: {percent} %");
        }
    };
    let imported = client.post_devices(query, list, &mut progress);
    bar.finish_and_clear();
    Ok(imported?)
}

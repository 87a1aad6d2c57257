//! `whimbrel status`

use alloc::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::{Context, Screen};
use crate::output::{Fields, Value};

/// `GET /v1/status`, as far as people are told.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    prefix: String,
    attached: String,
    broker_up: bool,
    devices: Devices,
    releases: u64,
    campaigns: u64,
    #[serde(default)]
    counters: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Devices {
    accepted: u64,
    pending: u64,
}

pub(super) fn run(context: &Context) -> Result<Screen> {
    let client = context.client()?;
    let json = client.get("/v1/status")?;
    let status: Status = client.read(&json)?;
    let counters = status.counters.iter().filter(|(_, count)| **count > 0);
    let counters = counters.map(|(name, count)| format!("{name} {count}").into()).collect::<Vec<Value>>();
    let fields = Fields::new()
        .with("service", status.version)
        .with("broker", if status.attached == "embedded" { "its own".into() } else { status.attached })
        .with("broker_up", status.broker_up)
        .with("prefix", status.prefix)
        .with("devices_accepted", Value::Count(status.devices.accepted))
        .with("devices_pending", Value::Count(status.devices.pending))
        .with("releases", Value::Count(status.releases))
        .with("campaigns", Value::Count(status.campaigns))
        .with("counters", counters);
    Ok(Screen::of(fields.human(), &json))
}

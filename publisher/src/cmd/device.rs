//! `whimbrel device`

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::time::UnixTime;

use super::payloads::{self, Payload};
use super::table::{short, table};
use super::{Context, Screen};
use crate::cli::DeviceCommand;
use crate::files;
use crate::output::{Fields, Value};
use crate::service::Client;
use crate::units::{self, grouped};

/// Most bytes of a list of devices to import.
const CSV_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most devices that are listed.
const DEVICES_MAX: usize = 2_000_000;
/// Devices that one page of the list holds.
const PAGE_DEVICES: usize = 1000;

/// A device, as the service lists it.
#[derive(Debug, Deserialize)]
struct Device {
    id: String,
    state: String,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    running: Option<String>,
    #[serde(default)]
    sequence: Option<u64>,
    #[serde(default)]
    seen: Option<u64>,
    #[serde(default)]
    deployment: Option<Deployment>,
}

/// How far a device is with the campaign that rules it, as the service shows it.
#[derive(Debug, Deserialize)]
struct Deployment {
    campaign: String,
    state: String,
    bytes_received: u64,
    #[serde(default)]
    bytes_twice: u64,
    #[serde(default)]
    payload: Option<Payload>,
    #[serde(default)]
    given_up: Option<Payload>,
}

#[derive(Debug, Deserialize)]
struct Page {
    devices: Vec<Json>,
    #[serde(default)]
    next: Option<String>,
}

pub(super) fn run(context: &Context, command: DeviceCommand) -> Result<Screen> {
    let client = context.client()?;
    match command {
        DeviceCommand::List { pending } => list(&client, pending),
        DeviceCommand::Show { id } => {
            let json = client.get(&format!("/v1/devices/{id}"))?;
            Ok(Screen::of(fields(client.read(&json)?).human(), &json))
        }
        DeviceCommand::Accept { id, fingerprint, groups } => {
            let mut body = json!({ "fingerprint": fingerprint.to_string() });
            if let (false, Some(body)) = (groups.is_empty(), body.as_object_mut()) {
                body.insert("groups".into(), names(&groups));
            }
            let answer = client.post(&format!("/v1/devices/{id}/accept"), &body)?;
            let groups = if groups.is_empty() { "all".into() } else { joined(&groups) };
            Ok(done(
                answer,
                Fields::new().with("device", id.as_str()).with("state", "accepted").with("groups", groups),
            ))
        }
        DeviceCommand::Import { csv } => {
            let bytes = files::read(&csv, "a list of devices", CSV_BYTES_MAX)?;
            let answer = client.post_bytes("/v1/devices/import", "text/csv", &bytes)?;
            let imported: Imported = client.read(&answer)?;
            let fields = Fields::new()
                .with("imported", Value::Count(imported.imported))
                .with("unchanged", Value::Count(imported.unchanged));
            Ok(done(answer, fields))
        }
        DeviceCommand::Reset { id } => {
            let answer = client.post_empty(&format!("/v1/devices/{id}/reset"))?;
            Ok(done(
                answer,
                Fields::new()
                    .with("device", id.as_str())
                    .with("state", "reset: its next enrolment waits to be accepted"),
            ))
        }
        DeviceCommand::Groups { id, groups } => {
            let answer =
                client.put(&format!("/v1/devices/{id}/groups"), &json!({ "groups": names(&groups) }))?;
            Ok(done(answer, Fields::new().with("device", id.as_str()).with("groups", joined(&groups))))
        }
    }
}

#[derive(Debug, Deserialize)]
struct Imported {
    imported: u64,
    unchanged: u64,
}

/// What was done in words; for programs the service's answer, or the same words where it says nothing.
fn done(answer: Json, fields: Fields) -> Screen {
    if answer.is_null() { fields.into() } else { Screen::of(fields.human(), &answer) }
}

fn names(groups: &[GroupName]) -> Json {
    groups.iter().map(|group| group.as_str().to_owned()).collect()
}

fn joined(groups: &[GroupName]) -> String {
    groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(" ")
}

/// Lists every device, page by page.
fn list(client: &Client, pending: bool) -> Result<Screen> {
    let mut devices: Vec<Json> = Vec::new();
    let mut after = String::new();
    loop {
        let state = if pending { "&state=pending" } else { "" };
        let page: Page =
            client.read(&client.get(&format!("/v1/devices?limit={PAGE_DEVICES}{state}{after}"))?)?;
        let progressed = !page.devices.is_empty() && devices.len() < DEVICES_MAX;
        devices.extend(page.devices);
        match page.next {
            // A page without devices that promises more would never end.
            Some(next) if progressed => {
                after = format!("&after={}", whimbrel_protocol::ids::DeviceId::new(&next)?)
            }
            _ => break,
        }
    }
    let rows = devices.iter().map(|device| client.read(device).map(row)).collect::<Result<Vec<_>, _>>()?;
    let headings = [
        "DEVICE",
        "STATE",
        "FINGERPRINT",
        "CLASS",
        "GROUPS",
        "SEQUENCE",
        "RUNNING",
        "SEEN",
        "UPDATE",
        "RECEIVED",
        "PAYLOAD",
    ];
    let none = if pending { "no device waits to be accepted" } else { "no devices" };
    Ok(Screen::of(table(headings, &rows, none), &json!({ "devices": devices })))
}

fn fields(device: Device) -> Fields {
    let mut fields = Fields::new()
        .with("device", device.id)
        .with("state", device.state)
        .with("fingerprint", device.fingerprint)
        .with("class", device.class)
        .with("groups", device.groups.into_iter().map(Value::from).collect::<Vec<_>>())
        .with("running", device.running)
        .with("sequence", device.sequence)
        .with("seen", device.seen.map(UnixTime::from_secs));
    if let Some(update) = device.deployment {
        let received = format!(
            "{} bytes, {} of them twice",
            grouped(update.bytes_received),
            grouped(update.bytes_twice)
        );
        fields.add("campaign", update.campaign);
        fields.add("update", update.state);
        fields.add("received", received);
        fields.add("payload", payloads::cell(update.payload.as_ref(), update.given_up.as_ref()));
    }
    fields
}

fn row(device: Device) -> [String; 11] {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let [update, received, payload] = match device.deployment {
        Some(update) => {
            let payload = payloads::cell(update.payload.as_ref(), update.given_up.as_ref());
            [update.state, grouped(update.bytes_received), payload]
        }
        None => ["-"; 3].map(String::from),
    };
    [
        device.id,
        device.state,
        text(device.fingerprint),
        text(device.class.map(|class| short(&class))),
        if device.groups.is_empty() { "-".into() } else { device.groups.join(" ") },
        text(device.sequence.map(|sequence| sequence.to_string())),
        text(device.running.map(|running| short(&running))),
        text(device.seen.map(|seen| units::time(UnixTime::from_secs(seen)))),
        update,
        received,
        payload,
    ]
}

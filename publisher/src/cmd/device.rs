//! `whimbrel device`

use anyhow::{Context as _, Result};
use serde_json::json;
use whimbrel_api::{Acceptance, Device, Devices, DevicesQuery, Groups, Imported, Standing, routes};
use whimbrel_protocol::ids::{DeviceId, GroupName};
use whimbrel_protocol::time::UnixTime;

use super::payloads;
use super::table::{short, table};
use super::{Context, Screen};
use crate::cli::{DeviceCommand, PasswordFlags};
use crate::files;
use crate::output::{Fields, Value};
use crate::passwords;
use crate::service::Client;
use crate::units::{self, grouped};

/// Most bytes of a list of devices to import.
const CSV_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most devices that are listed.
const DEVICES_MAX: usize = 2_000_000;
/// Devices that one page of the list holds.
const PAGE_DEVICES: u64 = 1000;

pub(super) fn run(context: &Context, command: DeviceCommand) -> Result<Screen> {
    if let DeviceCommand::Password(flags) = command {
        return password(context, flags); // Needs no service, which reads the file again by itself.
    }
    let client = context.client()?;
    match command {
        DeviceCommand::Password(_) => unreachable!("done above"),
        DeviceCommand::List { pending } => list(&client, pending),
        DeviceCommand::Show { id } => {
            let device: Device = client.get(&routes::device(&id))?;
            Ok(Screen::of(fields(&device).human(), &device))
        }
        DeviceCommand::Accept { id, fingerprint, groups } => {
            let acceptance = Acceptance {
                fingerprint: fingerprint.to_string(),
                groups: (!groups.is_empty()).then(|| names(&groups)),
            };
            let device: Device = client.post(&routes::device_accept(&id), &acceptance)?;
            let groups = if groups.is_empty() { "all".into() } else { joined(&groups) };
            let fields =
                Fields::new().with("device", id.as_str()).with("state", "accepted").with("groups", groups);
            Ok(Screen::of(fields.human(), &device))
        }
        DeviceCommand::Import { csv } => {
            let bytes = files::read(&csv, "a list of devices", CSV_BYTES_MAX)?;
            let imported: Imported = client.post_bytes(routes::DEVICES_IMPORT, "text/csv", &bytes)?;
            let fields = Fields::new()
                .with("imported", Value::Count(imported.imported))
                .with("unchanged", Value::Count(imported.unchanged));
            Ok(Screen::of(fields.human(), &imported))
        }
        DeviceCommand::Reset { id } => {
            let device: Device = client.post_empty(&routes::device_reset(&id))?;
            let fields = Fields::new()
                .with("device", id.as_str())
                .with("state", "reset: its next enrolment waits to be accepted");
            Ok(Screen::of(fields.human(), &device))
        }
        DeviceCommand::Groups { id, groups } => {
            let body = Groups { groups: names(&groups) };
            let device: Device = client.put(&routes::device_groups(&id), &body)?;
            let fields = Fields::new().with("device", id.as_str()).with("groups", joined(&groups));
            Ok(Screen::of(fields.human(), &device))
        }
    }
}

fn password(context: &Context, flags: PasswordFlags) -> Result<Screen> {
    let file = match flags.file {
        Some(file) => file,
        None => context.config()?.passwords.context(
            "no file of passwords is named: give --file FILE, or --config FILE with `passwords` in [broker]",
        )?,
    };
    if let (Some(list), Some(output)) = (flags.import, flags.output) {
        let list = files::read(&list, "a list of devices", CSV_BYTES_MAX)?;
        let made = passwords::import(&file, &list, &output)?;
        let fields = Fields::new()
            .with("made", Value::Count(made.made))
            .with("kept", Value::Count(made.kept))
            .with("passwords", output.display().to_string())
            .with("file", file.display().to_string());
        return Ok(Screen::from(fields));
    }
    let id = flags.id.context("no device is named")?;
    let fields = Fields::new().with("device", id.as_str());
    let fields = match flags.chosen {
        Some(chosen) => {
            passwords::choose(&file, &id, &chosen)?;
            fields
        }
        None => fields.with("password", passwords::renew(&file, &id)?.as_str()),
    };
    Ok(Screen::from(fields.with("file", file.display().to_string())))
}

fn names(groups: &[GroupName]) -> Vec<String> {
    groups.iter().map(ToString::to_string).collect()
}

fn joined(groups: &[GroupName]) -> String {
    groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(" ")
}

/// Lists every device, page by page.
fn list(client: &Client, pending: bool) -> Result<Screen> {
    let mut devices: Vec<Device> = Vec::new();
    let state = pending.then(|| Standing::Pending.name().to_owned());
    let mut query = DevicesQuery { state, after: None, limit: Some(PAGE_DEVICES) };
    loop {
        let page: Devices = client.get(&routes::devices(&query))?;
        let progressed = !page.devices.is_empty() && devices.len() < DEVICES_MAX;
        devices.extend(page.devices);
        match page.next {
            // A page without devices that names a next page would make this loop endless.
            Some(next) if progressed => query.after = Some(DeviceId::new(&next)?.to_string()),
            _ => break,
        }
    }
    let rows: Vec<[String; 11]> = devices.iter().map(row).collect();
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

fn fields(device: &Device) -> Fields {
    let mut fields = Fields::new()
        .with("device", device.id.as_str())
        .with("state", device.state.name())
        .with("fingerprint", device.fingerprint.clone())
        .with("class", device.class.as_str())
        .with("groups", device.groups.iter().map(|group| group.as_str().into()).collect::<Vec<Value>>())
        .with("running", device.running.clone())
        .with("sequence", Value::Count(device.sequence))
        .with("seen", device.seen.map(UnixTime::from_secs));
    if let Some(update) = &device.deployment {
        let received = format!(
            "{} bytes, {} of them twice",
            grouped(update.bytes_received),
            grouped(update.bytes_twice)
        );
        fields.add("campaign", update.campaign.as_str());
        fields.add("update", update.state.name());
        fields.add("received", received);
        fields.add("payload", payloads::cell(update.payload.as_ref(), update.given_up.as_ref()));
    }
    fields
}

fn row(device: &Device) -> [String; 11] {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let [update, received, payload] = match &device.deployment {
        Some(update) => {
            let payload = payloads::cell(update.payload.as_ref(), update.given_up.as_ref());
            [update.state.to_string(), grouped(update.bytes_received), payload]
        }
        None => ["-"; 3].map(String::from),
    };
    [
        device.id.clone(),
        device.state.to_string(),
        text(device.fingerprint.clone()),
        short(&device.class),
        if device.groups.is_empty() { "-".into() } else { device.groups.join(" ") },
        device.sequence.to_string(),
        text(device.running.as_deref().map(short)),
        text(device.seen.map(|seen| units::time(UnixTime::from_secs(seen)))),
        update,
        received,
        payload,
    ]
}

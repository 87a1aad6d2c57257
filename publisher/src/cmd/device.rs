//! `whimbrel device`

use anyhow::{Context as _, Result};
use serde_json::json;
use whimbrel_api::{Acceptance, Device, Devices, DevicesQuery, Groups, Standing, routes};
use whimbrel_protocol::ids::{DeviceId, GroupName};
use whimbrel_protocol::time::UnixTime;

use super::payloads;
use super::rekeyed;
use super::table::{short, table};
use super::{Context, Progress, Screen, warn_of};
use crate::cli::{DeviceCommand, PasswordFlags};
use crate::files;
use crate::output::{Fields, Value};
use crate::passwords;
use crate::service::Client;
use crate::units::{self, grouped};

/// Most devices that are listed.
const DEVICES_MAX: usize = 2_000_000;
/// Devices that one page of the list holds.
const PAGE_DEVICES: u64 = 1000;

pub(super) fn run(context: &Context, command: DeviceCommand) -> Result<Screen> {
    if let DeviceCommand::Password(flags) = command {
        return password(context, flags); // Needs no service, which reads the file again by itself.
    }
    let client = context.client()?;
    let waiting = Progress::open_ended("waiting for the service");
    match command {
        DeviceCommand::Password(_) => unreachable!("done above"),
        DeviceCommand::List { pending } => {
            drop(waiting);
            list(&client, pending)
        }
        DeviceCommand::Show { id } => {
            let device: Device = client.get(&routes::device(&id))?;
            warn_of(&device.warnings);
            Ok(Screen::of(fields(&device).human(), &device))
        }
        DeviceCommand::Accept { id, fingerprint, groups } => {
            let acceptance = Acceptance {
                fingerprint: fingerprint.to_string(),
                groups: (!groups.is_empty()).then(|| names(&groups)),
            };
            let device: Device = client.post(&routes::device_accept(&id), &acceptance)?;
            warn_of(&device.warnings);
            let fields = Fields::new()
                .with("device", id.as_str())
                .with("state", "accepted")
                .with("groups", device.groups.join(" "));
            Ok(Screen::of(fields.human(), &device))
        }
        DeviceCommand::Import { csv } => {
            let imported = super::import::run(&client, &csv)?;
            let fields = Fields::new()
                .with("imported", Value::Count(imported.imported))
                .with("unchanged", Value::Count(imported.unchanged));
            Ok(Screen::of(fields.human(), &imported))
        }
        DeviceCommand::Reset { id } => {
            let device: Device = client.post_empty(&routes::device_reset(&id))?;
            let state = match &device.fingerprint {
                Some(waits) => format!("reset: its other key {waits} waits to be accepted"),
                None => "reset: its next enrolment waits to be accepted".to_owned(),
            };
            let fields = Fields::new().with("device", id.as_str()).with("state", state);
            Ok(Screen::of(fields.human(), &device))
        }
        DeviceCommand::Groups { id, groups } => {
            let body = Groups { groups: names(&groups) };
            let device: Device = client.put(&routes::device_groups(&id), &body)?;
            warn_of(&device.warnings);
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
        let list = files::read(&list, "a list of devices", super::import::CSV_BYTES_MAX)?;
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
    let progress = Progress::open_ended("listing devices");
    loop {
        let page: Devices = client.get(&routes::devices(&query))?;
        let progressed = !page.devices.is_empty() && devices.len() < DEVICES_MAX;
        progress.inc(page.devices.len() as u64);
        devices.extend(page.devices);
        match page.next {
            // A page without devices that names a next page would make this loop endless.
            Some(next) if progressed => query.after = Some(DeviceId::new(&next)?.to_string()),
            _ => break,
        }
    }
    let rows: Vec<[String; 12]> = devices.iter().map(row).collect();
    let headings = [
        "DEVICE",
        "STATE",
        "FINGERPRINT",
        "CLASS",
        "GROUPS",
        "VERSION",
        "SEQUENCE",
        "SEEN",
        "UPDATE",
        "REASON",
        "BYTES",
        "PAYLOAD",
    ];
    let none = if pending { "no device waits to be accepted" } else { "no devices" };
    let mut human = table(headings, &rows, none);
    rekeyed::explain(&devices, &mut human);
    Ok(Screen::of(human, &json!({ "devices": devices })))
}

fn fields(device: &Device) -> Fields {
    let mut fields = Fields::new()
        .with("device", device.id.as_str())
        .with("state", device.state.name())
        .with("fingerprint", device.fingerprint.clone())
        .with("class", device.class.as_str())
        .with("groups", device.groups.iter().map(|group| group.as_str().into()).collect::<Vec<Value>>())
        .with("version", version(device))
        .with("running", device.running.clone())
        .with("sequence", Value::Count(device.sequence))
        .with("seen", device.seen.map(UnixTime::from_secs));
    if let Some(other) = &device.rekeyed {
        fields.add("other_key", other.fingerprint.as_str());
        fields.add("other_key_seen", UnixTime::from_secs(other.seen));
        let lines = rekeyed::what_to_do(device).into_iter().map(Value::from);
        fields.add("what_to_do", lines.collect::<Vec<Value>>());
    }
    if let Some(update) = &device.deployment {
        let received = format!(
            "{} bytes, {} of them twice",
            grouped(update.bytes_received),
            grouped(update.bytes_twice)
        );
        fields.add("campaign", update.campaign.as_str());
        fields.add("update", update.state.name());
        fields.add("reason", update.reason.clone());
        fields.add("received", received);
        fields.add("payload", payloads::cell(update.payload.as_ref(), update.given_up.as_ref()));
    }
    fields
}

fn row(device: &Device) -> [String; 12] {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let [update, reason, received, payload] = match &device.deployment {
        Some(update) => {
            let payload = payloads::cell(update.payload.as_ref(), update.given_up.as_ref());
            [update.state.to_string(), text(update.reason.clone()), grouped(update.bytes_received), payload]
        }
        None => ["-"; 4].map(String::from),
    };
    [
        device.id.clone(),
        device.state.to_string(),
        text(device.fingerprint.clone()),
        short(&device.class),
        if device.groups.is_empty() { "-".into() } else { device.groups.join(" ") },
        version(device),
        device.sequence.to_string(),
        text(device.seen.map(|seen| units::time(UnixTime::from_secs(seen)))),
        update,
        reason,
        received,
        payload,
    ]
}

/// The version of what a device runs. If no release has its image, the device runs something that the service does not
/// know, and the start of the image's digest names it.
fn version(device: &Device) -> String {
    match (&device.version, &device.running) {
        (Some(version), _) => version.clone(),
        (None, Some(running)) => format!("unknown ({})", short(running)),
        (None, None) => "-".into(),
    }
}

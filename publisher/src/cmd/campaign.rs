//! `whimbrel campaign`

use alloc::collections::BTreeMap;
use core::time::Duration;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use whimbrel_protocol::time::UnixTime;

use super::payloads::{self, Payload, Share, WithoutPatch};
use super::table::{short, table};
use super::{Context, Screen};
use crate::cli::{CampaignCommand, CreateFlags, StatusFlags};
use crate::output::{Fields, Value};
use crate::release::ReleaseFolder;
use crate::service::Client;
use crate::units::grouped;

/// Most devices that are listed.
const DEVICES_MAX: usize = 2_000_000;
/// Most devices that one page of a campaign holds.
const PAGE_DEVICES: usize = 1000;

/// A campaign, as the service shows it.
#[derive(Debug, Deserialize)]
struct Campaign {
    id: String,
    group: String,
    release: String,
    #[serde(default)]
    version: Option<String>,
    sequence: u64,
    state: String,
    attempt: u64,
    document_version: u64,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    spread_s: u64,
    devices: Devices,
    percent: f64,
    #[serde(default)]
    bytes_received: u64,
    #[serde(default)]
    bytes_twice: u64,
    #[serde(default)]
    failures: BTreeMap<String, u64>,
    #[serde(default)]
    payloads: Vec<Share>,
    #[serde(default)]
    without_patch: Option<WithoutPatch>,
}

/// How many devices are in which state.
#[derive(Debug, Deserialize)]
struct Devices {
    total: u64,
    #[serde(flatten)]
    states: BTreeMap<String, u64>,
}

/// The states in the order in which a device goes through them.
const STATES: [&str; 12] = [
    "waiting",
    "offered",
    "deferred",
    "downloading",
    "downloaded",
    "installing",
    "rebooting",
    "testing",
    "confirmed",
    "reverted",
    "failed",
    "cancelled",
];
/// The last of them are ends.
const FINAL_STATES: [&str; 4] = ["confirmed", "reverted", "failed", "cancelled"];

/// A device of a campaign, as the service shows it.
#[derive(Debug, Deserialize)]
struct Member {
    id: String,
    state: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    percent: Option<f64>,
    #[serde(default)]
    bytes_received: u64,
    #[serde(default)]
    bytes_twice: u64,
    #[serde(default)]
    payload: Option<Payload>,
    #[serde(default)]
    given_up: Option<Payload>,
}

pub(super) fn run(context: &Context, command: CampaignCommand) -> Result<Screen> {
    let client = context.client()?;
    match command {
        CampaignCommand::Create(flags) => {
            let body = order(&flags)?;
            describe(&client, client.post("/v1/campaigns", &body)?)
        }
        CampaignCommand::Status(flags) => status(context, &client, &flags),
        CampaignCommand::Abort { id } => {
            describe(&client, client.post_empty(&format!("/v1/campaigns/{}/abort", id.as_str()))?)
        }
        CampaignCommand::Retry { id } => {
            describe(&client, client.post_empty(&format!("/v1/campaigns/{}/retry", id.as_str()))?)
        }
        CampaignCommand::List => list(&client),
    }
}

/// The body that orders a campaign; what was not asked for is left to the service.
fn order(flags: &CreateFlags) -> Result<Json> {
    let mut body = json!({
        "release": release_digest("--release", &flags.release)?,
        "group": flags.group.as_str(),
        "spread_s": flags.spread,
        "expires_in_s": flags.expires_in,
        "policy": flags.policy.name(),
        "priority": flags.priority,
    });
    if let Some(body) = body.as_object_mut() {
        if let Some(time) = flags.not_before {
            body.insert("not_before".into(), time.as_secs().into());
        }
        if let Some(sequence) = flags.min_sequence {
            body.insert("min_sequence".into(), sequence.into());
        }
    }
    Ok(body)
}

/// The digest of the release in a folder, or the digits that were given. `flag` is where they were given.
pub(super) fn release_digest(flag: &str, text: &str) -> Result<String> {
    let path = Path::new(text);
    if path.exists() {
        return Ok(ReleaseFolder::open(path)?.manifest()?.digest().to_hex());
    }
    match text.parse::<crate::cli::HexId>() {
        Ok(digits) => Ok(digits.as_str().into()),
        Err(_) => bail!(
            "{flag} `{text}` is neither a release's folder nor at least 4 hexadecimal digits of its digest"
        ),
    }
}

fn describe(client: &Client, json: Json) -> Result<Screen> {
    let campaign: Campaign = client.read(&json)?;
    Ok(Screen::of(fields(&campaign).human(), &json))
}

fn fields(campaign: &Campaign) -> Fields {
    let version = campaign.version.as_ref().map_or_else(String::new, |version| format!("{version}, "));
    let percent = campaign.percent.clamp(0.0, 100.0);
    let known = STATES.iter().filter_map(|state| Some((*state, *campaign.devices.states.get(*state)?)));
    let states = known.filter(|(_, count)| *count > 0);
    let counts = |pairs: Vec<String>| if pairs.is_empty() { "none".into() } else { pairs.join(", ") };
    let failures = campaign.failures.iter().map(|(reason, count)| format!("{} {reason}", grouped(*count)));
    let mut fields = Fields::new()
        .with("campaign", campaign.id.as_str())
        .with("release", format!("{version}sequence {}, {}", campaign.sequence, short(&campaign.release)))
        .with("group", campaign.group.as_str())
        .with(
            "state",
            format!(
                "{}, attempt {}, document version {}",
                campaign.state, campaign.attempt, campaign.document_version
            ),
        );
    if let Some(created) = campaign.created {
        fields.add("created", UnixTime::from_secs(created));
    }
    if campaign.spread_s > 0 {
        fields.add("spread_s", Value::Seconds(campaign.spread_s));
    }
    let mut fields = fields
        .with("progress", format!("{} {percent:.0} %", gauge(percent)))
        .with("devices", Value::Count(campaign.devices.total))
        .with(
            "of_these",
            counts(states.map(|(state, count)| format!("{} {state}", grouped(count))).collect()),
        )
        .with(
            "received",
            format!(
                "{} bytes, {} of them twice",
                grouped(campaign.bytes_received),
                grouped(campaign.bytes_twice)
            ),
        )
        .with("failures", counts(failures.collect()));
    if let Some(payloads) = payloads::shares(&campaign.payloads) {
        fields.add("payloads", payloads);
    }
    if let Some(without) = &campaign.without_patch {
        fields.add("without_patch", without.words(&campaign.release));
    }
    fields
}

/// `[#####...............]`
fn gauge(percent: f64) -> String {
    const CELLS: u8 = 20;
    let full: String =
        (0..CELLS).map(|cell| if f64::from(cell) * 5.0 < percent { '#' } else { '.' }).collect();
    format!("[{full}]")
}

fn list(client: &Client) -> Result<Screen> {
    let json = client.get("/v1/campaigns")?;
    let rows = read_list(client, &json)?.into_iter().map(|campaign| {
        let of = |state: &str| campaign.devices.states.get(state).copied().unwrap_or(0).to_string();
        [
            campaign.id.clone(),
            campaign.group.clone(),
            campaign.version.clone().unwrap_or_else(|| "-".into()),
            campaign.state.clone(),
            campaign.attempt.to_string(),
            campaign.devices.total.to_string(),
            of("confirmed"),
            of("failed"),
            format!("{:.0}", campaign.percent),
        ]
    });
    let headings =
        ["CAMPAIGN", "GROUP", "VERSION", "STATE", "ATTEMPT", "DEVICES", "CONFIRMED", "FAILED", "PERCENT"];
    Ok(Screen::of(table(headings, &rows.collect::<Vec<_>>(), "no campaigns"), &json))
}

/// The list comes bare, or as the one member of an object.
fn read_list(client: &Client, json: &Json) -> Result<Vec<Campaign>> {
    Ok(client.read(json.get("campaigns").unwrap_or(json))?)
}

fn status(context: &Context, client: &Client, flags: &StatusFlags) -> Result<Screen> {
    let id = match &flags.id {
        Some(id) => id.as_str().to_owned(),
        None => latest(client)?,
    };
    let mut shown = 0;
    let mut last = String::new();
    loop {
        let json = fetch(client, &id, flags.devices)?;
        let campaign: Campaign = client.read(&json)?;
        let screen = screen(client, &campaign, &json)?;
        if !flags.watch || is_done(&campaign) {
            rewind(shown);
            return Ok(screen);
        }
        if screen.json != last {
            rewind(shown);
            context.show(&screen)?;
            shown = if context.is_json() { 0 } else { screen.human.lines().count() };
            last.clone_from(&screen.json);
        }
        std::thread::sleep(Duration::from_secs(flags.every));
    }
}

/// Goes back over the lines shown before, on a terminal; elsewhere what follows just stands below.
fn rewind(lines: usize) {
    let mut out = std::io::stdout();
    if lines > 0 && out.is_terminal() {
        drop(write!(out, "\x1b[{lines}A\x1b[J"));
    }
}

/// Whether nothing is left to watch.
fn is_done(campaign: &Campaign) -> bool {
    let ended: u64 = FINAL_STATES.iter().filter_map(|state| campaign.devices.states.get(*state)).sum();
    campaign.state != "active" || campaign.devices.total > 0 && ended >= campaign.devices.total
}

/// The campaign that was created last among those that run, or among all.
fn latest(client: &Client) -> Result<String> {
    let campaigns = read_list(client, &client.get("/v1/campaigns")?)?;
    let newest = campaigns.into_iter().max_by_key(|campaign| (campaign.state == "active", campaign.created));
    match newest {
        Some(campaign) => Ok(campaign.id),
        None => bail!("the service has no campaign yet: `whimbrel campaign create` makes one"),
    }
}

/// The campaign, with all its devices where they are wanted.
fn fetch(client: &Client, id: &str, devices: bool) -> Result<Json> {
    if !devices {
        return Ok(client.get(&format!("/v1/campaigns/{id}"))?);
    }
    let mut json = client.get(&format!("/v1/campaigns/{id}?devices=1"))?;
    loop {
        let Some(list) = json.get("device_list").and_then(Json::as_array) else {
            return Ok(json);
        };
        let last = list.last().and_then(|device| device.get("id")).and_then(Json::as_str);
        let full = list.len().is_multiple_of(PAGE_DEVICES) && list.len() < DEVICES_MAX;
        let (Some(last), true) = (last, full) else {
            return Ok(json);
        };
        let after = whimbrel_protocol::ids::DeviceId::new(last)?;
        let mut page = client.get(&format!("/v1/campaigns/{id}?devices=1&after={after}"))?;
        let Some(Json::Array(more)) = page.get_mut("device_list").map(Json::take) else {
            return Ok(json);
        };
        if more.is_empty() {
            return Ok(json);
        }
        if let Some(Json::Array(list)) = json.get_mut("device_list") {
            list.extend(more);
        }
    }
}

fn screen(client: &Client, campaign: &Campaign, json: &Json) -> Result<Screen> {
    let mut human = fields(campaign).human();
    if let Some(list) = json.get("device_list") {
        let members: Vec<Member> = client.read(list)?;
        let rows = members.into_iter().map(|member| {
            [
                member.id,
                member.state,
                member.reason.unwrap_or_else(|| "-".into()),
                member.percent.map_or_else(|| "-".into(), |percent| format!("{percent:.0}")),
                grouped(member.bytes_received),
                grouped(member.bytes_twice),
                payloads::cell(member.payload.as_ref(), member.given_up.as_ref()),
            ]
        });
        human.push('\n');
        let headings = ["DEVICE", "STATE", "REASON", "PERCENT", "RECEIVED", "TWICE", "PAYLOAD"];
        human.push_str(&table(headings, &rows.collect::<Vec<_>>(), "no devices"));
    }
    Ok(Screen::of(human, json))
}

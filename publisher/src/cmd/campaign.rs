//! `whimbrel campaign`

use core::time::Duration;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use whimbrel_api::{
    Campaign, CampaignDevice, CampaignOrder, CampaignQuery, CampaignState, policy_name, routes,
};
use whimbrel_protocol::ids::DeviceId;
use whimbrel_protocol::message::State;
use whimbrel_protocol::time::UnixTime;

use super::payloads;
use super::rekeyed;
use super::table::{short, table};
use super::{Context, Progress, Screen, warn_of};
use crate::cli::{CampaignCommand, CreateFlags, StatusFlags};
use crate::output::{Fields, Value, plain};
use crate::release::ReleaseFolder;
use crate::service::{Client, ServiceError};
use crate::units::grouped;

/// Most devices that are listed.
const DEVICES_MAX: usize = 2_000_000;
/// Most devices that one page of a campaign holds.
const PAGE_DEVICES: usize = 1000;

pub(super) fn run(context: &Context, command: CampaignCommand) -> Result<Screen> {
    let client = context.client()?;
    let is_status = matches!(command, CampaignCommand::Status(_));
    let _waiting = (!is_status).then(|| Progress::open_ended("waiting for the service"));
    match command {
        CampaignCommand::Create(flags) => create(&client, &flags),
        CampaignCommand::Status(flags) => status(context, &client, &flags),
        CampaignCommand::Abort { id } => {
            Ok(describe(&client.post_empty(&routes::campaign_abort(id.as_str()))?))
        }
        CampaignCommand::Retry { id } => {
            Ok(describe(&client.post_empty(&routes::campaign_retry(id.as_str()))?))
        }
        CampaignCommand::List => list(&client),
    }
}

fn create(client: &Client, flags: &CreateFlags) -> Result<Screen> {
    let created: Result<Campaign, _> = client.post(routes::CAMPAIGNS, &order(flags)?);
    let campaign = created.map_err(|error| match error {
        ServiceError::Refused { status: 404, message } => {
            let folder = if Path::new(&flags.release).exists() { &flags.release } else { "FOLDER" };
            anyhow!("{message}: `whimbrel release publish {}` hands it to the service first", plain(folder))
        }
        error => error.into(),
    })?;
    warn_of(&campaign.warnings);
    Ok(describe(&campaign))
}

/// The body of the request that orders a campaign. For flags that were not given the service has defaults.
fn order(flags: &CreateFlags) -> Result<CampaignOrder> {
    Ok(CampaignOrder {
        release: release_digest("--release", &flags.release)?,
        group: flags.group.to_string(),
        spread_s: flags.spread,
        not_before: flags.not_before.map(UnixTime::as_secs),
        expires_in_s: Some(flags.expires_in),
        policy: Some(policy_name(flags.policy.into()).to_owned()),
        priority: flags.priority,
        min_sequence: flags.min_sequence.unwrap_or(0),
    })
}

/// The digest of the release in a folder, or the digits that were given. `flag` is the flag that had them,
/// for the error.
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

fn describe(campaign: &Campaign) -> Screen {
    Screen::of(fields(campaign).human(), campaign)
}

fn fields(campaign: &Campaign) -> Fields {
    let states = campaign.devices.iter().filter(|(_, count)| *count > 0);
    let percent = campaign.percent.min(100);
    let counts = |pairs: Vec<String>| if pairs.is_empty() { "none".into() } else { pairs.join(", ") };
    let failures = campaign.failures.iter().map(|(reason, count)| format!("{} {reason}", grouped(*count)));
    let mut fields = Fields::new()
        .with("campaign", campaign.id.as_str())
        .with(
            "release",
            format!("{}, sequence {}, {}", campaign.version, campaign.sequence, short(&campaign.release)),
        )
        .with("group", campaign.group.as_str())
        .with(
            "state",
            format!(
                "{}, attempt {}, document version {}",
                campaign.state, campaign.attempt, campaign.document_version
            ),
        )
        .with("created", UnixTime::from_secs(campaign.created));
    if campaign.spread_s > 0 {
        fields.add("spread_s", Value::Seconds(campaign.spread_s));
    }
    let mut fields = fields
        .with("progress", format!("{} {percent} %", gauge(percent)))
        .with("devices", Value::Count(campaign.devices.total()))
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
    if let Some(devices) = &campaign.rekeyed {
        fields.add("rekeyed", rekeyed::of_campaign(devices));
    }
    if let Some(without) = &campaign.without_patch {
        fields.add("without_patch", payloads::without_patch(without, &campaign.release));
    }
    fields
}

/// Draws a progress bar: `[#####...............]`.
fn gauge(percent: u8) -> String {
    const CELLS: u8 = 20;
    let full: String = (0..CELLS).map(|cell| if cell * 5 < percent { '#' } else { '.' }).collect();
    format!("[{full}]")
}

fn list(client: &Client) -> Result<Screen> {
    let campaigns: Vec<Campaign> = client.get(routes::CAMPAIGNS)?;
    let rows = campaigns.iter().map(|campaign| {
        let of = |state: State| campaign.devices.in_state(state.into()).to_string();
        [
            campaign.id.clone(),
            campaign.group.clone(),
            campaign.version.clone(),
            campaign.state.to_string(),
            campaign.attempt.to_string(),
            campaign.devices.total().to_string(),
            of(State::Confirmed),
            of(State::Failed),
            campaign.percent.to_string(),
        ]
    });
    let headings =
        ["CAMPAIGN", "GROUP", "VERSION", "STATE", "ATTEMPT", "DEVICES", "CONFIRMED", "FAILED", "PERCENT"];
    Ok(Screen::of(table(headings, &rows.collect::<Vec<_>>(), "no campaigns"), &campaigns))
}

fn status(context: &Context, client: &Client, flags: &StatusFlags) -> Result<Screen> {
    let id = match &flags.id {
        Some(id) => id.as_str().to_owned(),
        None => latest(client)?,
    };
    let mut shown = 0;
    let mut last = String::new();
    loop {
        let campaign = fetch(client, &id, flags.devices)?;
        let screen = screen(&campaign);
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

/// On a terminal, removes the lines that were shown before. Elsewhere the new lines stand below the old ones.
fn rewind(lines: usize) {
    let mut out = std::io::stdout();
    if lines > 0 && out.is_terminal() {
        drop(write!(out, "\x1b[{lines}A\x1b[J"));
    }
}

/// Whether the campaign is over, so that watching it ends.
fn is_done(campaign: &Campaign) -> bool {
    let devices = &campaign.devices;
    campaign.state != CampaignState::Active || devices.total() > 0 && devices.ended() >= devices.total()
}

/// The campaign that was created last: among those that run, or among all if none runs.
fn latest(client: &Client) -> Result<String> {
    let campaigns: Vec<Campaign> = client.get(routes::CAMPAIGNS)?;
    let rank = |campaign: &Campaign| (campaign.state == CampaignState::Active, campaign.created);
    let newest = campaigns.into_iter().max_by_key(rank);
    match newest {
        Some(campaign) => Ok(campaign.id),
        None => bail!("the service has no campaign yet: `whimbrel campaign create` makes one"),
    }
}

/// Fetches the campaign, with all its devices if `devices` says so.
fn fetch(client: &Client, id: &str, devices: bool) -> Result<Campaign> {
    let progress = Progress::open_ended("waiting for the service");
    let mut query = CampaignQuery { devices: devices.then(|| "1".to_owned()), after: None };
    let mut campaign: Campaign = client.get(&routes::campaign(id, &query))?;
    let Some(list) = campaign.device_list.as_mut() else { return Ok(campaign) };
    while let Some(last) = list.last().filter(|_| is_full(list)) {
        query.after = Some(DeviceId::new(&last.id)?.to_string());
        let page: Campaign = client.get(&routes::campaign(id, &query))?;
        match page.device_list {
            Some(more) if !more.is_empty() => {
                progress.inc(more.len() as u64);
                list.extend(more);
            }
            _ => break,
        }
    }
    Ok(campaign)
}

/// Whether the last page is full, so that there may be another.
fn is_full(list: &[CampaignDevice]) -> bool {
    list.len().is_multiple_of(PAGE_DEVICES) && list.len() < DEVICES_MAX
}

fn screen(campaign: &Campaign) -> Screen {
    let mut human = fields(campaign).human();
    if let Some(list) = &campaign.device_list {
        let rows = list.iter().map(|device| {
            [
                device.id.clone(),
                device.state.to_string(),
                device.reason.clone().unwrap_or_else(|| "-".into()),
                device.percent.to_string(),
                grouped(device.bytes_received),
                grouped(device.bytes_twice),
                payloads::cell(device.payload.as_ref(), device.given_up.as_ref()),
            ]
        });
        human.push('\n');
        let headings = ["DEVICE", "STATE", "REASON", "PERCENT", "BYTES", "BYTES TWICE", "PAYLOAD"];
        human.push_str(&table(headings, &rows.collect::<Vec<_>>(), "no devices"));
    }
    Screen::of(human, campaign)
}

//! What `status` shows.

use alloc::collections::BTreeMap;
use core::fmt::Write as _;

use serde::{Deserialize, Serialize};
use whimbrel_engine::Inventory;
use whimbrel_protocol::device::{BootView, Stage, Trial};
use whimbrel_protocol::manifest::TransferDescriptor;
use whimbrel_protocol::message::{State, Status};

use crate::home::{Home, slot_name};
use crate::hooks::Hooks;
use crate::identity;
pub use crate::link_view::LinkView;

/// Everything about this device's updates, as `status --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The device.
    pub device: String,
    /// The fingerprint of its key, to compare before it is accepted; none before the daemon's first start.
    pub fingerprint: Option<String>,
    /// Whether the daemon runs.
    pub daemon: bool,
    /// `idle`, `offered`, `deferred`, `downloading`, ..., or [`WAITS_FOR_ACCEPTANCE`]. Of a daemon that does not run: what it
    /// goes on with.
    pub state: String,
    /// While deferred: for what. After a failure: why.
    pub reason: Option<String>,
    /// While deferred: seconds until it is looked at again.
    pub deferred_s: Option<u64>,
    /// Parts of the payload that are here, in percent; none before its size is known.
    pub percent: Option<u64>,
    /// How the image on its way, or the last one, is carried: `raw`, `lzma`, `patch`; none before that is known.
    pub codec: Option<String>,
    /// Bytes of its payload.
    pub payload_bytes: Option<u64>,
    /// Payload bytes received, with everything received twice.
    pub bytes_received: u64,
    /// Of these, the bytes of what had come before.
    pub bytes_twice: u64,
    /// Measured rate of the link, in bytes per second.
    pub rate_bytes_per_s: Option<u64>,
    /// Seconds until the download is complete, at that rate.
    pub eta_s: Option<u64>,
    /// How long the window makes other messages wait at most, at that rate, in milliseconds.
    pub command_latency_ms: Option<u64>,
    /// The campaign; `local` for an installation by hand.
    pub campaign: Option<String>,
    /// Its attempt.
    pub attempt: Option<u64>,
    /// The release on its way.
    pub release: Option<String>,
    /// What runs.
    pub running: RunningView,
    /// The connection; none where the daemon does not run.
    pub link: Option<LinkView>,
    /// What keeps hooks from running, a line each. While there is anything, no installation begins.
    pub hooks: Vec<String>,
    /// Reports that the service has not acknowledged yet.
    pub reports_waiting: usize,
    /// Messages that were not acted on since the daemon started, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Other things counted since the daemon started.
    pub counters: BTreeMap<String, u64>,
}

/// The state of a device without a deployment that the service's operator has not accepted yet.
pub const WAITS_FOR_ACCEPTANCE: &str = "waiting for acceptance";

/// The image that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningView {
    /// SHA-256 of the image; none for one that no release put there.
    pub image: Option<String>,
    /// Its release.
    pub release: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The sequence number below which nothing is installed.
    pub sequence: u64,
    /// The slot: `a` or `b`.
    pub slot: String,
    /// The file that is the slot.
    pub slot_file: String,
    /// `none`, `armed` (starts next), `running` (not confirmed yet), `failed`.
    pub trial: String,
}

/// Chunks of the payload that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    /// Chunks that are here.
    pub(crate) held: u32,
    /// Chunks in all.
    pub(crate) all: u32,
    /// Bytes of each; the last one may have fewer.
    pub(crate) bytes: u64,
}

impl Chunks {
    /// Chunks that are here, in percent: 100 only where all are here. 0 where there are none at all.
    const fn percent(self) -> u64 {
        self.held as u64 * 100 / if self.all == 0 { 1 } else { self.all as u64 }
    }

    /// Whole seconds until all are here, at `rate` bytes per second; a second that is begun counts.
    fn eta_s(self, rate: u64) -> u64 {
        let left = u64::from(self.all.saturating_sub(self.held));
        (left * self.bytes).div_ceil(rate.max(1))
    }
}

impl RunningView {
    /// What is known at the start of a session.
    #[must_use]
    pub fn of(home: &mut Home, inventory: &Inventory) -> Self {
        let slot = home.storage.running();
        let running = &inventory.boot.running;
        Self {
            image: running.image.map(|digest| digest.to_hex()),
            release: running.release.map(|digest| digest.to_hex()),
            version: inventory.version.clone(),
            sequence: running.sequence,
            slot: slot_name(slot).to_owned(),
            slot_file: home.slot_file(slot).display().to_string(),
            trial: trial_name(inventory.boot.trial).to_owned(),
        }
    }

    /// Takes over what a session changed.
    pub fn refresh(&mut self, boot: &BootView) {
        self.sequence = boot.running.sequence;
        trial_name(boot.trial).clone_into(&mut self.trial);
    }
}

/// The word for what became of a trial.
#[must_use]
pub const fn trial_name(trial: Trial) -> &'static str {
    match trial {
        Trial::None => "none",
        Trial::Armed => "armed",
        Trial::Running => "running",
        Trial::Failed => "failed",
    }
}

impl StatusView {
    /// What the folder says where no daemon runs.
    #[must_use]
    pub fn of_folder(home: &mut Home, inventory: &Inventory) -> Self {
        let record = &inventory.record;
        let mut view = Self {
            device: home.config.device.id.to_string(),
            fingerprint: identity::fingerprint(&home.config.device.key).map(|it| it.to_string()),
            running: RunningView::of(home, inventory),
            hooks: Hooks::new(&home.config.hooks).problems(),
            reports_waiting: record.reports.len(),
            ..Self::default()
        };
        view.carry(inventory.payload.as_ref());
        if let Some(deployment) = &record.deployment {
            let state = match deployment.stage {
                Stage::Fetching => State::Downloading,
                Stage::Installed | Stage::Armed if inventory.boot.trial == Trial::Running => State::Testing,
                Stage::Installed | Stage::Armed => State::Rebooting,
                Stage::Reverting(_) => State::Testing,
            };
            state.name().clone_into(&mut view.state);
            view.campaign = Some(campaign_name(&deployment.order.campaign.to_hex()));
            view.attempt = Some(deployment.order.attempt);
            view.release = Some(deployment.order.release.to_hex());
            (view.bytes_received, view.bytes_twice) = (deployment.bytes_received, deployment.bytes_twice);
            let kept = inventory.payload.as_ref().and_then(|payload| kept_of(home, payload));
            if let (State::Downloading, Some((chunks, bytes))) = (state, kept) {
                // The record does not have the running download; the journal does.
                let given_up = &deployment.given_up;
                view.bytes_received =
                    bytes.0 + given_up.iter().map(|patch| patch.bytes_received).sum::<u64>();
                view.bytes_twice = bytes.1 + given_up.iter().map(|patch| patch.bytes_twice).sum::<u64>();
                view.advance(state, Some(chunks), None);
            } else {
                view.advance(state, None, None);
            }
            return view;
        }
        let last = record.outcomes.last();
        view.state = last.map_or("idle", |past| past.outcome.name()).to_owned();
        view.reason = last.and_then(|past| past.failure).map(|code| code.name().to_owned());
        view.campaign = last.map(|past| campaign_name(&past.campaign.to_hex()));
        view.attempt = last.map(|past| past.attempt);
        view
    }

    /// Takes over how the image is carried, where that is known.
    pub(crate) fn carry(&mut self, payload: Option<&TransferDescriptor>) {
        self.codec = payload.map(|transfer| transfer.codec.name().to_owned());
        self.payload_bytes = payload.map(|transfer| transfer.layout.transfer_size());
    }

    /// Takes over what a session says of its deployment.
    pub(crate) fn take(&mut self, status: &Status) {
        status.state.name().clone_into(&mut self.state);
        let deferred = status.deferred.map(|reason| reason.name().to_owned());
        self.reason = deferred.or_else(|| status.failure.map(|code| code.name().to_owned()));
        self.campaign = Some(campaign_name(&status.campaign.to_hex()));
        self.attempt = Some(status.attempt);
        (self.bytes_received, self.bytes_twice) = (status.bytes_received, status.bytes_twice);
    }

    /// Takes over for how long, in milliseconds, the deployment waits. A second that is begun counts.
    pub(crate) fn wait_for(&mut self, ms: Option<u64>) {
        self.deferred_s = ms.map(|ms| ms.div_ceil(1000));
    }

    /// Takes over how far the image is on its way: `chunks` of its payload, as they were known last, and the measured
    /// `rate` in bytes per second.
    pub(crate) fn advance(&mut self, state: State, chunks: Option<Chunks>, rate: Option<u64>) {
        self.percent = match state {
            State::Downloaded | State::Installing | State::Rebooting | State::Testing | State::Confirmed => {
                Some(100)
            }
            State::Idle | State::Offered | State::Deferred | State::Downloading => {
                chunks.map(Chunks::percent)
            }
            State::Reverted | State::Failed | State::Cancelled => None,
        };
        self.eta_s = match (state, chunks, rate) {
            (State::Downloading, Some(chunks), Some(rate)) => Some(chunks.eta_s(rate)),
            _ => None,
        };
    }

    /// The status in words, a line each.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<10}{value}").expect("writing to a string does not fail");
        };
        line("device", self.device.clone());
        if let Some(fingerprint) = &self.fingerprint {
            line("key", fingerprint.clone());
        }
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let again =
            self.deferred_s.map_or_else(String::new, |seconds| format!(", looked at again in {seconds} s"));
        let stopped = if self.link.is_none() && self.release.is_some() { ", stopped" } else { "" };
        line("state", format!("{}{reason}{again}{stopped}", self.state));
        if let Some(campaign) = &self.campaign {
            let attempt = self.attempt.map_or_else(String::new, |attempt| format!(", attempt {attempt}"));
            line("campaign", format!("{campaign}{attempt}"));
        }
        if let Some(percent) = self.percent {
            let eta = self.eta_s.map_or_else(String::new, |eta| format!(", {eta} s to go"));
            line("progress", format!("{percent} %{eta}"));
        }
        if let (Some(codec), Some(bytes)) = (&self.codec, self.payload_bytes) {
            line("payload", format!("{codec}, {bytes} bytes"));
        }
        line("bytes", format!("{} received, {} of them twice", self.bytes_received, self.bytes_twice));
        if let Some(rate) = self.rate_bytes_per_s {
            let wait = self.command_latency_ms.unwrap_or(0);
            line("link rate", format!("{rate} B/s; the window delays other messages by up to {wait} ms"));
        }
        let running = &self.running;
        let version = running.version.as_deref().unwrap_or("of unknown version");
        line("running", format!("{version}, sequence {}, slot {}", running.sequence, running.slot));
        if running.trial != "none" {
            line("trial", running.trial.clone());
        }
        match &self.link {
            Some(LinkView { up: true, for_s, .. }) => line("broker", format!("connected for {for_s} s")),
            Some(LinkView { for_s, last_error, .. }) => {
                let why = last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                line("broker", format!("not connected for {for_s} s{why}"));
            }
            None => line("daemon", "not running".to_owned()),
        }
        for trouble in self.link.iter().flat_map(LinkView::troubles) {
            line("", trouble);
        }
        for problem in &self.hooks {
            line("hooks", format!("{problem}: no installation begins"));
        }
        if self.reports_waiting > 0 {
            line("reports", format!("{} not acknowledged yet", self.reports_waiting));
        }
        if !self.rejected.is_empty() {
            let counts: Vec<String> =
                self.rejected.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            line("rejected", counts.join(", "));
        }
        text
    }
}

/// What the journal has of a payload: its chunks, and the bytes received and received twice.
fn kept_of(home: &mut Home, payload: &TransferDescriptor) -> Option<(Chunks, (u64, u64))> {
    let kept = home.storage.checkpoint_of(&payload.index_digest)?;
    let (all, bytes) = (payload.layout.chunk_count(), payload.layout.chunk_size());
    let held = kept.claims(all).len();
    Some((Chunks { held, all, bytes }, (kept.bytes_received, kept.bytes_twice)))
}

/// Installations by hand have no campaign of their own.
fn campaign_name(hex: &str) -> String {
    if hex.bytes().all(|digit| digit == b'0') { "local".to_owned() } else { hex.to_owned() }
}

#[cfg(test)]
mod tests;

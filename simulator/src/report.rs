//! The result of a run: one JSON object for programs, one table for people, one verdict for the exit status.

mod table;

use core::time::Duration;

use serde::Serialize;

use crate::control::ControlBytes;
use crate::fleet::DeviceState;
use crate::meter::{Ledger, LedgerError};
use crate::process::Usage;
use crate::profile::Profile;
use crate::seed::Seed;
use crate::words::grouped;

/// What is known of a run beside its devices.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// The kind of network.
    pub profile: Profile,
    /// What cut the links, in words: `3 cuts of 1 to 5 s each`.
    pub outages: String,
    /// What everything was drawn from.
    pub seed: Seed,
    /// Virtual seconds in a real one.
    pub time_scale: u32,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes of the full payload that carries it.
    pub transfer_bytes: u64,
    /// Bytes of the patch that carries it to devices on the base, where there is one.
    pub patch_bytes: Option<u64>,
    /// Real time from the first device's start to the last one's end.
    pub elapsed: Duration,
    /// What the simulator used.
    pub simulator: Usage,
    /// What the service used, where it was ours to watch.
    pub service: Option<Usage>,
    /// Connections that failed although nothing cut them.
    pub troubles: u64,
    /// Why the last of them did.
    pub last_trouble: Option<String>,
}

/// What is known of one device at its end.
#[derive(Clone, Copy, Debug)]
pub struct DeviceResult {
    /// The last state that it reported.
    pub state: DeviceState,
    /// Its bytes.
    pub ledger: Ledger,
    /// Whether the image read back from its medium is the one that was released; `None` where there was none to read.
    pub image_is_right: Option<bool>,
    /// The payload by which the image came; `None` where none did.
    pub came_by: Option<PayloadKind>,
    /// Bytes of chunks of the patch that reached it, each chunk counted once.
    pub patch_bytes: u64,
    /// The same of the full payload.
    pub full_bytes: u64,
    /// Virtual time from when it came on until it ended.
    pub took: Duration,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadKind {
    /// What makes the image of the one that runs.
    Patch,
    /// The image, compressed or as it is.
    Full,
}

/// Devices whose image came by one kind of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PayloadShare {
    /// Which kind.
    pub kind: PayloadKind,
    /// Bytes of the payload, for one device.
    pub transfer_bytes: u64,
    /// Devices whose image came by it.
    pub devices: u64,
    /// Bytes of chunks of any payload that reached these devices, each chunk counted once.
    pub chunk_bytes: u64,
    /// Everything that their connections carried, both ways.
    pub mqtt_bytes: u64,
}

/// The figures of a run. The first fields are fixed for programs; later ones may be added.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Devices in the run.
    pub devices: u64,
    /// Devices that reported the new image confirmed.
    pub confirmed: u64,
    /// Devices that did not, or whose medium does not hold the image.
    pub failed: u64,
    /// Bytes of the image, for one device.
    pub image_bytes: u64,
    /// Bytes of the full payload that carries it, for one device.
    pub transfer_bytes: u64,
    /// Whole packets, both ways, of chunk, page, manifest and request messages; this and what follows are sums over the fleet, as [`Ledger`] defines them.
    pub data_bytes: u64,
    /// What those carried for the first time.
    pub payload_bytes: u64,
    /// Everything else that was sent or received.
    pub control_bytes: u64,
    /// The same by what it was for.
    pub control: ControlBytes,
    /// From the broker.
    pub mqtt_bytes_down: u64,
    /// To the broker.
    pub mqtt_bytes_up: u64,
    /// (data - refetched) / payload - 1, in percent; null where there was no payload.
    pub data_overhead_percent: Option<f64>,
    /// What data messages carried in vain.
    pub refetched_bytes: u64,
    /// Connections that the plan of the run cut.
    pub link_cuts: u64,
    /// Real seconds.
    pub elapsed_s: f64,
    /// Most memory that the simulator had resident.
    pub peak_rss_bytes: u64,
    /// Most memory that the service had resident; null where it was not ours to watch.
    pub service_peak_rss_bytes: Option<u64>,
    /// What everything was drawn from.
    pub seed: u64,

    /// By which payloads the images came.
    pub payloads: Vec<PayloadShare>,
    /// Name of the link profile.
    pub profile: String,
    /// Virtual seconds in a real one.
    pub time_scale: u32,
    /// Media whose image is not the one released.
    pub wrong_images: u64,
    /// Connections that got a CONNACK.
    pub connections: u64,
    /// Connections that failed although nothing cut them.
    pub failed_connections: u64,
    /// Part of `payload_bytes`: transfer bytes.
    pub chunk_bytes: u64,
    /// Part of `payload_bytes`: index pages.
    pub page_bytes: u64,
    /// Part of `payload_bytes`: manifests.
    pub manifest_bytes: u64,
    /// Part of `refetched_bytes`: what came again whole.
    pub repeated_bytes: u64,
    /// Part of `refetched_bytes`: what came in messages that were cut.
    pub cut_short_bytes: u64,
    /// CONNECT packets, which precede CONNACK and are in no other sum.
    pub login_bytes: u64,
    /// Complete data messages to devices.
    pub data_messages: u64,
    /// Control bytes of the device that had most.
    pub control_bytes_max: u64,
    /// Virtual seconds from coming on to the end: half of the devices took less.
    pub update_s_p50: f64,
    /// Nineteen of twenty took less.
    pub update_s_p95: f64,
    /// The longest.
    pub update_s_max: f64,
    /// Processor seconds of the simulator.
    pub cpu_s: f64,
    /// Processor seconds of the service; null where it was not ours to watch.
    pub service_cpu_s: Option<f64>,

    /// The link's figures, in words.
    #[serde(skip)]
    link: String,
    /// What cut the links, in words.
    #[serde(skip)]
    outages: String,
    #[serde(skip)]
    last_trouble: Option<String>,
    /// A device whose ledger does not add up: a mistake of ours.
    #[serde(skip)]
    ledger_error: Option<LedgerError>,
}

impl Report {
    /// Sums up a run.
    #[must_use]
    pub fn new(facts: RunFacts, devices: &[DeviceResult]) -> Self {
        let mut sum = Ledger::default();
        for device in devices {
            sum += &device.ledger;
        }
        let count = |which: &dyn Fn(&DeviceResult) -> bool| {
            devices.iter().filter(|device| which(device)).count() as u64
        };
        let confirmed = |device: &DeviceResult| device.state == DeviceState::Confirmed;
        let good = |device: &DeviceResult| confirmed(device) && device.image_is_right == Some(true);
        let mut times: Vec<f64> = devices.iter().map(|device| device.took.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        Self {
            devices: devices.len() as u64,
            confirmed: count(&confirmed),
            failed: count(&|device| !good(device)),
            image_bytes: facts.image_bytes,
            transfer_bytes: facts.transfer_bytes,
            data_bytes: sum.data_bytes(),
            payload_bytes: sum.payload_bytes(),
            control_bytes: sum.control_bytes(),
            control: sum.control,
            mqtt_bytes_down: sum.mqtt_bytes_down,
            mqtt_bytes_up: sum.mqtt_bytes_up,
            data_overhead_percent: sum.data_overhead_percent().map(|percent| rounded(percent, 4)),
            refetched_bytes: sum.refetched_bytes(),
            link_cuts: sum.link_cuts,
            elapsed_s: rounded(facts.elapsed.as_secs_f64(), 3),
            peak_rss_bytes: facts.simulator.peak_rss_bytes,
            service_peak_rss_bytes: facts.service.map(|usage| usage.peak_rss_bytes),
            seed: facts.seed.0,
            payloads: shares(&facts, devices),
            time_scale: facts.time_scale,
            wrong_images: count(&|device| device.image_is_right == Some(false)),
            connections: sum.connections,
            failed_connections: facts.troubles,
            chunk_bytes: sum.chunk_bytes,
            page_bytes: sum.page_bytes,
            manifest_bytes: sum.manifest_bytes,
            repeated_bytes: sum.repeated_bytes,
            cut_short_bytes: sum.cut_short_bytes,
            login_bytes: sum.login_bytes,
            data_messages: sum.data_messages,
            control_bytes_max: devices.iter().map(|device| device.ledger.control_bytes()).max().unwrap_or(0),
            update_s_p50: percentile(&times, 50),
            update_s_p95: percentile(&times, 95),
            update_s_max: percentile(&times, 100),
            cpu_s: rounded(facts.simulator.cpu.as_secs_f64(), 2),
            service_cpu_s: facts.service.map(|usage| rounded(usage.cpu.as_secs_f64(), 2)),
            link: facts.profile.to_string(),
            profile: facts.profile.name,
            outages: facts.outages,
            last_trouble: facts.last_trouble,
            ledger_error: devices.iter().find_map(|device| device.ledger.check().err()),
        }
    }

    /// Why the run is not a success, a line each; empty where every device is confirmed and holds the right image.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        if self.devices == 0 {
            objections.push("no device took part".to_owned());
        }
        if self.confirmed < self.devices {
            let missing = self.devices - self.confirmed;
            objections.push(format!(
                "{} of {} devices are not confirmed",
                grouped(missing),
                grouped(self.devices)
            ));
        }
        if self.wrong_images > 0 {
            let (wrong, devices) = (grouped(self.wrong_images), grouped(self.devices));
            objections.push(format!("{wrong} of {devices} images on the media are not the one released"));
        }
        if self.failed > 0 && objections.is_empty() {
            objections.push(format!(
                "{} of {} devices hold no image to check",
                grouped(self.failed),
                grouped(self.devices)
            ));
        }
        if let Some(error) = &self.ledger_error {
            objections.push(error.to_string());
        }
        objections
    }

    /// The report as one JSON object on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain numbers and strings")
    }
}

/// By which payloads the images came: the patch first, where there is one.
fn shares(facts: &RunFacts, devices: &[DeviceResult]) -> Vec<PayloadShare> {
    let full = (PayloadKind::Full, facts.transfer_bytes);
    let kinds = facts.patch_bytes.map(|bytes| (PayloadKind::Patch, bytes)).into_iter().chain([full]);
    let share = |(kind, transfer_bytes)| {
        let mut share = PayloadShare { kind, transfer_bytes, devices: 0, chunk_bytes: 0, mqtt_bytes: 0 };
        for device in devices.iter().filter(|device| device.came_by == Some(kind)) {
            share.devices += 1;
            share.chunk_bytes += device.patch_bytes + device.full_bytes;
            share.mqtt_bytes += device.ledger.mqtt_bytes_down + device.ledger.mqtt_bytes_up;
        }
        share
    };
    kinds.map(share).collect()
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

/// The smallest value that `percent` of a hundred of them do not exceed (nearest rank); 0 where there is none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    rounded(sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0), 3)
}

#[cfg(test)]
mod tests;

//! The figures of a run of `bench-updates`, as a table and as JSON.

use alloc::collections::BTreeMap;
use core::fmt;
use core::time::Duration;

use serde::Serialize;

use super::UpdatesArgs;
use super::tally::{Seen, percentile};
use crate::fleet::FleetCounts;
use crate::misbehave::Deeds;
use crate::process::Usage;
use crate::seed::Seed;
use crate::words::{bytes_in_words, grouped};

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// `embedded`, or the address of the broker beside the service.
    pub broker: String,
    /// What another broker may still keep of the run; absent if that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// Devices that connected and updated.
    pub devices: u64,
    /// Devices that the service knew.
    pub registered: u64,
    /// Devices that began in a second; absent if as many began as could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Devices that updated at once at most; absent if a rate was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Releases that were rolled out one after the other.
    pub releases: u64,
    /// Updates that ended in a confirmed image and an acknowledged report.
    pub confirmed: u64,
    /// Updates that ended otherwise.
    pub failed: u64,
    /// Updates that did not end in time.
    pub unfinished: u64,
    /// Connections that failed or ended although no device hung up.
    pub connections_failed: u64,
    /// Why the last of those did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Requests that the service refused.
    pub refused: u64,
    /// The same by code.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Hellos that were answered.
    pub hellos: u64,
    /// Half of the hellos were answered within this time, in milliseconds.
    pub hello_p50_ms: f64,
    /// 99 % of the hellos were answered within this time.
    pub hello_p99_ms: f64,
    /// All of them were.
    pub hello_max_ms: f64,
    /// Half of the updates took at most this time, in seconds.
    pub update_p50_s: f64,
    /// 99 % of the updates did.
    pub update_p99_s: f64,
    /// From the first device's start to the last report's acknowledgement.
    pub elapsed_s: f64,
    /// Confirmed updates in each of these seconds.
    pub updates_per_s: f64,
    /// Processor seconds of the service in that time.
    pub service_cpu_s: f64,
    /// The same for each confirmed update, in milliseconds.
    pub service_cpu_ms_per_update: f64,
    /// Processor seconds of this program, which is the devices.
    pub simulator_cpu_s: f64,
    /// Transactions that the service made durable, for each confirmed update; absent if it does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commits_per_update: Option<f64>,
    /// Most memory that the service had resident.
    pub service_peak_rss_bytes: u64,
    /// What it had resident before any device was registered.
    pub service_rss_before_bytes: u64,
    /// What a registered device that never came added to that.
    pub bytes_per_registered_device: u64,
    /// What the service had resident after each release.
    pub service_rss_bytes: Vec<u64>,
    /// What the clients that misbehaved did, by their kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub misbehaving: BTreeMap<String, Deeds>,
    /// What everything was drawn from.
    pub seed: Option<Seed>,
}

impl Figures {
    /// Of a run that begins now.
    pub(super) fn new(args: &UpdatesArgs, seed: Seed) -> Self {
        Self {
            broker: args.broker.as_ref().map_or("embedded".to_owned(), ToString::to_string),
            devices: args.devices.into(),
            registered: args.registered().into(),
            rate: args.rate,
            at_once: args.rate.is_none().then_some(args.at_once),
            image_bytes: args.image_bytes,
            seed: Some(seed),
            ..Self::default()
        }
    }

    /// What the devices saw, in this time.
    pub(super) fn set_seen(&mut self, (mut seen, counts): (Seen, FleetCounts), elapsed: Duration) {
        let ms = |micros: u64| micros as f64 / 1000.0;
        let seconds = |micros: u64| micros as f64 / 1_000_000.0;
        (self.confirmed, self.failed) = (seen.confirmed, seen.failed);
        self.unfinished = (self.devices * self.releases).saturating_sub(seen.confirmed + seen.failed);
        (self.connections_failed, self.last_failure) = (counts.troubles, counts.last_trouble);
        self.refused = seen.refusals.values().sum();
        self.refusals = seen.refusals;
        self.hellos = seen.hello_us.len() as u64;
        self.hello_p50_ms = ms(percentile(&mut seen.hello_us, 50));
        self.hello_p99_ms = ms(percentile(&mut seen.hello_us, 99));
        self.hello_max_ms = ms(percentile(&mut seen.hello_us, 100));
        self.update_p50_s = seconds(percentile(&mut seen.update_us, 50));
        self.update_p99_s = seconds(percentile(&mut seen.update_us, 99));
        self.elapsed_s = elapsed.as_secs_f64();
        self.updates_per_s = seen.confirmed as f64 / self.elapsed_s.max(0.001);
    }

    /// What the service used since its processor time was `cpu_before`, and before and after the registration.
    pub(super) fn set_service(&mut self, usage: Usage, cpu_before: Duration, (before, after): (u64, u64)) {
        self.service_cpu_s = usage.cpu.saturating_sub(cpu_before).as_secs_f64();
        self.service_cpu_ms_per_update = self.service_cpu_s * 1000.0 / self.confirmed.max(1) as f64;
        self.service_peak_rss_bytes = usage.peak_rss_bytes;
        self.service_rss_before_bytes = before;
        let added = after.saturating_sub(before);
        self.bytes_per_registered_device = added.checked_div(self.registered).unwrap_or(0);
    }

    /// The service's durable transactions before and after, if it counts them.
    pub(super) fn set_commits(&mut self, commits: Option<(u64, u64)>) {
        let confirmed = self.confirmed.max(1) as f64;
        self.commits_per_update =
            commits.map(|(before, after)| after.saturating_sub(before) as f64 / confirmed);
    }

    /// Why the run was not good; nothing if it was.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut objections = Vec::from_iter(self.left.clone());
        for (many, what) in [(self.failed, "failed"), (self.unfinished, "did not end in time")] {
            if many > 0 {
                let of = self.devices * self.releases;
                let why = self.last_failure.as_ref().map_or(String::new(), |why| format!("; last: {why}"));
                objections.push(format!("{many} of {of} updates {what}{why}"));
            }
        }
        let idle = |(_, deeds): &(_, &Deeds)| deeds.connections == 0;
        objections.extend(
            self.misbehaving.iter().filter(idle).map(|(kind, _)| format!("{kind}: no such client connected")),
        );
        objections
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<22}{value}");
        let pace = match (self.rate, self.at_once) {
            (Some(rate), _) => format!("{rate} begin in a second"),
            (None, many) => format!("{} at once", many.unwrap_or(0)),
        };
        row("broker", self.broker.clone())?;
        row(
            "devices",
            format!("{}, {} registered, {pace}", grouped(self.devices), grouped(self.registered)),
        )?;
        let (image, releases) = (grouped(self.image_bytes), self.releases);
        let plural = if releases == 1 { "" } else { "s" };
        row("image", format!("{image} bytes, {releases} release{plural}"))?;
        let (failed, unfinished) = (grouped(self.failed), grouped(self.unfinished));
        row(
            "updates",
            format!("{} confirmed, {failed} failed, {unfinished} unfinished", grouped(self.confirmed)),
        )?;
        let by_code: Vec<String> =
            self.refusals.iter().map(|(code, many)| format!("{} {code}", grouped(*many))).collect();
        let by_code = if by_code.is_empty() { "none".to_owned() } else { by_code.join(", ") };
        row("refusals", by_code)?;
        let why = self.last_failure.as_ref().map_or(String::new(), |why| format!(", last: {why}"));
        row("connections failed", format!("{}{why}", grouped(self.connections_failed)))?;
        let (half, most, all) = (self.hello_p50_ms, self.hello_p99_ms, self.hello_max_ms);
        row(
            "answer to hello",
            format!(
                "{half:.1} ms median, {most:.1} ms p99, {all:.1} ms longest, of {}",
                grouped(self.hellos)
            ),
        )?;
        row(
            "time of an update",
            format!("{:.2} s median, {:.2} s p99", self.update_p50_s, self.update_p99_s),
        )?;
        row("elapsed", format!("{:.1} s, {:.0} updates a second", self.elapsed_s, self.updates_per_s))?;
        let (cpu, each) = (self.service_cpu_s, self.service_cpu_ms_per_update);
        row("service", format!("{cpu:.2} s of processor, {each:.2} ms an update"))?;
        row("simulator", format!("{:.2} s of processor", self.simulator_cpu_s))?;
        let commits = self.commits_per_update.map_or("not counted".to_owned(), |many| format!("{many:.2}"));
        row("commits an update", commits)?;
        row("service, resident", format!("{} at most", bytes_in_words(self.service_peak_rss_bytes)))?;
        let before = bytes_in_words(self.service_rss_before_bytes);
        let each = grouped(self.bytes_per_registered_device);
        row("of it for devices", format!("{each} bytes a registered device, on {before}"))?;
        for (kind, Deeds { connections, ended, messages }) in &self.misbehaving {
            let [connections, ended, messages] = [connections, ended, messages].map(|many| grouped(*many));
            row(kind, format!("{messages} messages, {connections} connections, {ended} of them ended"))?;
        }
        row("seed", self.seed.map_or("-".to_owned(), |seed| seed.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_should_misbehave_and_never_connected_are_an_objection() {
        let there = Deeds { connections: 1, ended: 1, messages: 0 };
        let misbehaving =
            BTreeMap::from([("flood".to_owned(), there), ("slow".to_owned(), Deeds::default())]);
        let figures = Figures { misbehaving, ..Figures::default() };
        assert_eq!(figures.objections(), ["slow: no such client connected"]);
    }

    #[test]
    fn what_did_not_confirm_is_an_objection_with_the_last_reason() {
        let good = Figures { devices: 3, releases: 2, confirmed: 6, ..Figures::default() };
        assert!(good.objections().is_empty());
        let bad = Figures {
            failed: 1,
            unfinished: 2,
            last_failure: Some("the broker closed the connection".to_owned()),
            ..good
        };
        let said = bad.objections();
        assert_eq!(said.len(), 2);
        assert_eq!(said[1], "2 of 6 updates did not end in time; last: the broker closed the connection");
    }
}

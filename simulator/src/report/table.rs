//! A run's result as a table, for people.

use core::fmt;

use super::{PayloadKind, Report};
use crate::words::{bytes_in_words, grouped, percent};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "{name:<22}{value}");
        writeln!(f, "{}", self.link)?;
        writeln!(f, "{}; seed {}, time x{}", self.outages, self.seed, self.time_scale)?;
        writeln!(f)?;
        let failed =
            if self.failed > 0 { format!(", {} failed", grouped(self.failed)) } else { String::new() };
        row(
            f,
            "devices",
            format!("{} of {} confirmed{failed}", grouped(self.confirmed), grouped(self.devices)),
        )?;
        if self.wrong_images > 0 {
            row(f, "wrong images", grouped(self.wrong_images))?;
        }
        let sent = percent(self.transfer_bytes, self.image_bytes);
        row(
            f,
            "image",
            format!("{} bytes, sent as {} ({sent})", grouped(self.image_bytes), grouped(self.transfer_bytes)),
        )?;
        if self.payloads.iter().any(|share| share.kind == PayloadKind::Patch) {
            for share in &self.payloads {
                let name = match share.kind {
                    PayloadKind::Patch => "by patch",
                    PayloadKind::Full => "in full",
                };
                let each = share.chunk_bytes.checked_div(share.devices).unwrap_or(0);
                let all = share.mqtt_bytes.checked_div(share.devices).unwrap_or(0);
                let plural = if share.devices == 1 { "" } else { "s" };
                let (devices, each, all) = (grouped(share.devices), grouped(each), grouped(all));
                row(
                    f,
                    name,
                    format!("{devices} device{plural}, {each} bytes each, {all} with all around them"),
                )?;
            }
        }
        row(f, "payload", format!("{} bytes", grouped(self.payload_bytes)))?;
        let overhead = self.data_overhead_percent.map_or("-".to_owned(), |percent| format!("{percent:.2} %"));
        row(f, "data", format!("{} bytes, overhead {overhead}", grouped(self.data_bytes)))?;
        let share = percent(self.refetched_bytes, self.payload_bytes);
        let each = self
            .refetched_bytes
            .checked_div(self.link_cuts)
            .map_or(String::new(), |bytes| format!(", {} a cut", grouped(bytes)));
        row(f, "fetched in vain", format!("{} bytes ({share}){each}", grouped(self.refetched_bytes)))?;
        let each = self.control_bytes.checked_div(self.devices).unwrap_or(0);
        row(f, "control", format!("{} bytes, {} a device", grouped(self.control_bytes), grouped(each)))?;
        let of = |(name, bytes): (&str, u64)| {
            let each = bytes.checked_div(self.devices).unwrap_or(0);
            format!("{} {}", grouped(each), name.replace('_', " "))
        };
        let parts: Vec<_> = self.control.each().map(of).collect();
        row(f, "of it a device", parts.join(", "))?;
        row(
            f,
            "MQTT",
            format!("{} bytes down, {} up", grouped(self.mqtt_bytes_down), grouped(self.mqtt_bytes_up)),
        )?;
        row(
            f,
            "connections",
            format!(
                "{}, {} cut, {} failed",
                grouped(self.connections),
                grouped(self.link_cuts),
                grouped(self.failed_connections)
            ),
        )?;
        row(
            f,
            "time of an update",
            format!(
                "{:.1} s median, {:.1} s p95, {:.1} s longest",
                self.update_s_p50, self.update_s_p95, self.update_s_max
            ),
        )?;
        row(f, "elapsed", format!("{:.1} s", self.elapsed_s))?;
        let each = self.peak_rss_bytes.checked_div(self.devices).unwrap_or(0);
        row(
            f,
            "simulator",
            format!(
                "{} at most ({} a device), {:.1} s of processor",
                bytes_in_words(self.peak_rss_bytes),
                bytes_in_words(each),
                self.cpu_s
            ),
        )?;
        if let (Some(memory), Some(cpu)) = (self.service_peak_rss_bytes, self.service_cpu_s) {
            row(f, "service", format!("{} at most, {cpu:.1} s of processor", bytes_in_words(memory)))?;
        }
        if let Some(why) = &self.last_trouble {
            row(f, "last failure", why.clone())?;
        }
        Ok(())
    }
}

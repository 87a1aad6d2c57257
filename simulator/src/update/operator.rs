//! What an operator does with the admin API: publish a release, register devices, order a campaign.

use core::fmt::Write as _;
use core::ops::Range;
use std::path::PathBuf;

use anyhow::Context as _;
use whimbrel_api::{Campaign, CampaignOrder, Imported, routes};
use whimbrel_protocol::codec::Writer;
use whimbrel_publisher::service::Client;

use super::device::{FleetFacts, device_id, device_key};
use super::rollout::Part;

/// Where the admin API is.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) address: String,
    pub(super) token: PathBuf,
    /// The group that campaigns are for.
    pub(super) group: &'static str,
}

/// Devices in one body of an import: a body has 8 MiB at most.
const IMPORT_DEVICES: u32 = 20_000;

impl Operator {
    /// Brings an envelope and its payloads to the service.
    pub(super) async fn publish(&self, signed: Vec<u8>, parts: Vec<Part>) -> anyhow::Result<()> {
        self.ask(move |client| {
            client.post_release(&signed)?;
            for part in &parts {
                client.put_payload(&part.index_digest.to_string(), &part.bytes, &mut |_| {})?;
            }
            Ok(())
        })
        .await
    }

    /// Registers so many devices in the fleet's group.
    pub(super) async fn import(&self, facts: &FleetFacts, devices: u32) -> anyhow::Result<()> {
        let mut from = 0;
        while from < devices {
            let to = devices.min(from.saturating_add(IMPORT_DEVICES));
            let list = enrolment_csv(facts, from..to, self.group);
            let imported: Imported = self
                .ask(move |client| {
                    Ok(client.post_bytes(routes::DEVICES_IMPORT, "text/csv", list.as_bytes())?)
                })
                .await?;
            let wanted = to - from;
            anyhow::ensure!(
                imported.imported == u64::from(wanted),
                "{} in place of {wanted} devices were imported",
                imported.imported
            );
            from = to;
        }
        Ok(())
    }

    /// Orders a release for the fleet.
    pub(super) async fn order(&self, release: String, spread_s: u64) -> anyhow::Result<()> {
        let group = self.group.to_owned();
        let order = CampaignOrder { release, group, spread_s, ..CampaignOrder::default() };
        let _campaign: Campaign = self.ask(move |client| Ok(client.post(routes::CAMPAIGNS, &order)?)).await?;
        Ok(())
    }

    /// Does something with a client, on a thread that may wait.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Client) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let operator = self.clone();
        let work = move || what(&Client::new(&operator.address, &operator.token)?);
        tokio::task::spawn_blocking(work).await.context("the operator's part did not end")?
    }
}

/// Devices, as `whimbrel device import` takes them.
fn enrolment_csv(facts: &FleetFacts, numbers: Range<u32>, group: &str) -> String {
    let class = facts.class.to_hex();
    let mut csv = String::new();
    for number in numbers {
        let mut key = Writer::new();
        device_key(facts.seed, number).public().encode(&mut key);
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let id = device_id(number);
        writeln!(csv, "{id},{hex},{class},{group}").expect("writing to a string does not fail");
    }
    csv
}

//! `kill -9` in the middle of a download, of the agent, of the service, of the broker: the update completes, and
//! the device's ledger has every byte that was fetched again.

use e2e::agent::Agent;
use e2e::bundle::Release;
use e2e::proxy::Traffic;
use e2e::seed::{from_printed_seed, points};
use e2e::stage::Stage;
use serde_json::Value as Json;

/// Bytes per second of the link. A message takes 62 ms, so that most kills happen while one is half sent.
const RATE: u64 = 64 * 1024;
/// Bytes that the device may have under way: the smallest possible window.
const WINDOW: u64 = 8 * 1024;
/// Bytes that one message carries with that window.
const MESSAGE: u64 = 4 * 1024;
/// Kills are at least this far apart, in bytes towards the device. The device first asks again for what was
/// under way at a kill, which is at most a window, and has it before the next kill. So no chunk is hit twice.
/// (If a chunk were delivered twice to processes that were killed before they read it, nobody could know.)
const STRIDE: u64 = 26 * 1024;
const WITHIN: u64 = 10 * 1024;

/// A device on a slow link that begins to fetch.
struct Download {
    device: Agent,
    release: Release,
    campaign: String,
    /// What had passed before.
    before: Traffic,
}

impl Download {
    fn begin(stage: &Stage, kills: u64) -> Self {
        let mut device = stage.new_device("meter-1");
        device.set("download.window=8KiB");
        stage.enrol(&mut device);
        device.wait_for("groups are known", |status| status["counters"]["answers"].as_u64() >= Some(1));
        let len = usize::try_from(kills * STRIDE + 2 * STRIDE).unwrap();
        let release = stage.bundle.noise_release(1, len);
        stage.proxy.set_rate(RATE);
        let before = stage.proxy.traffic(device.id());
        let campaign = stage.service.roll_out(&release);
        Self { device, release, campaign, before }
    }

    /// Waits until this many bytes have been written to the device since the download began.
    fn wait_for_bytes(&self, stage: &Stage, bytes: u64) {
        let until = self.before.down_bytes + bytes;
        stage.proxy.wait_for_traffic(self.device.id(), |traffic| traffic.down_bytes >= until);
    }

    /// Waits for the end, and checks the ledger against what the proxy saw and what the service served.
    ///
    /// All in payload bytes: T is the transfer, once; P what the proxy wrote to the device, messages that were cut
    /// off half sent included; S what was served; D what the device says it was sent twice, upper bound of what the
    /// kills cost.
    ///
    /// - P - T <= D. Whatever came twice was asked for twice, and has its entry. D may be larger: a chunk is
    ///   entered whole, of which the link had carried a part or nothing.
    /// - S - T <= kills x (window + message). Only what was under way is served again, and a message that had
    ///   arrived and was not taken in yet.
    /// - D <= S - T + kills x window. The ledger has no more than was served again, but for what had been asked
    ///   for when the kill came and was never served.
    fn finish(&self, stage: &Stage, kills: u64, served: impl FnOnce(&Traffic) -> u64) {
        stage.proxy.set_rate(0);
        let status = stage.wait_until_updated(&self.device, &self.release, &self.campaign);
        let traffic = stage.proxy.traffic(self.device.id());
        let transfer = self.release.transfer_size;
        let written = traffic.chunk_bytes - self.before.chunk_bytes;
        let served = served(&traffic);
        let (received, twice) = numbers(&status);
        println!("T {transfer}, P {written}, S {served}, D {twice}, received {received}");
        assert!(written >= transfer && served >= transfer);
        assert!(written - transfer <= twice, "{} came twice, {twice} in the ledger", written - transfer);
        let again = served - transfer;
        assert!(again <= kills * (WINDOW + MESSAGE), "{again} served again");
        assert!(twice <= again + kills * WINDOW, "{twice} in the ledger, {again} served again");
        assert!(twice > 0, "the kills hit something");
        assert!((transfer..=transfer + twice).contains(&received), "{received} of {transfer} and {twice}");
        let report = stage.service.campaign_status(&self.campaign);
        assert_eq!(numbers(&report), (received, twice), "the signed report says the same: {report}");
    }
}

/// Bytes received and bytes received twice, in a status of device or campaign.
fn numbers(status: &Json) -> (u64, u64) {
    (status["bytes_received"].as_u64().unwrap(), status["bytes_twice"].as_u64().unwrap())
}

#[test]
fn an_agent_that_is_killed_20_times_accounts_for_every_byte_fetched_again() {
    const KILLS: u64 = 20;
    let stage = Stage::embedded();
    let mut download = Download::begin(&stage, KILLS);
    for point in points(&mut from_printed_seed(), KILLS, STRIDE, WITHIN) {
        download.wait_for_bytes(&stage, point);
        download.device.reboot();
    }
    download.finish(&stage, KILLS, |_| stage.service.counter("served_bytes"));
}

#[test]
fn a_service_that_is_killed_5_times_costs_what_was_under_way() {
    const KILLS: u64 = 5;
    let mut stage = Stage::embedded();
    let download = Download::begin(&stage, KILLS);
    for point in points(&mut from_printed_seed(), KILLS, STRIDE, WITHIN) {
        download.wait_for_bytes(&stage, point);
        stage.service.kill();
        // Messages that its system has taken over for it are still on the way, and are lost too.
        stage.proxy.cut();
        stage.service.start();
        stage.proxy.set_upstream(stage.service.mqtt());
    }
    // Its own counters died with it. So what came from it is counted at the proxy.
    let before = download.before.served_bytes;
    download.finish(&stage, KILLS, |traffic| traffic.served_bytes - before);
}

#[test]
fn a_broker_that_is_killed_5_times_costs_what_was_under_way() {
    const KILLS: u64 = 5;
    let mut stage = Stage::attached();
    let download = Download::begin(&stage, KILLS);
    for point in points(&mut from_printed_seed(), KILLS, STRIDE, WITHIN) {
        // This waits until the link's rate is known. Without it, a device whose request is lost waits as if
        // the link had 2 kbit/s, for a minute and a half.
        download.wait_for_bytes(&stage, STRIDE + point);
        let broker = stage.broker.as_mut().unwrap();
        broker.kill();
        stage.proxy.cut();
        broker.restart();
    }
    download.finish(&stage, KILLS, |_| stage.service.counter("served_bytes"));
}

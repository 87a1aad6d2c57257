//! Releases that a device must not take, ordered by a thief of the online keys at the broker. The device
//! refuses each for its named reason before it asks for a chunk or an index page, and reports the reason. An
//! envelope without a valid signature ends nothing: the device waits for one that has it, and says so.

use e2e::agent::Agent;
use e2e::bundle::{Recipe, Release};
use e2e::forge::{Forger, envelope_of, last_campaign, last_report, with_one_byte_changed};
use e2e::proxy::{Traffic, Verb};
use e2e::stage::Stage;
use whimbrel_protocol::ids::{CampaignId, Digest};
use whimbrel_protocol::message::{Campaign, FailureCode, Order, Outcome, Validity};

/// The sequence number that the device runs when the thief comes.
const RUNS: u64 = 5;

/// A device that runs sequence 5, and somebody with the keys that are online.
struct Theft {
    stage: Stage,
    device: Agent,
    forger: Forger,
    /// The latest campaign that the device knows.
    campaign: Campaign,
}

impl Theft {
    fn begin() -> Self {
        let stage = Stage::attached();
        let device = stage.device("meter-1");
        let release = stage.bundle.noise_release(RUNS, 20_000);
        let good = stage.service.roll_out(&release);
        stage.wait_until_updated(&device, &release, &good);
        let (campaign, _) = last_campaign(&stage.proxy, device.id());
        Self { forger: stage.forger(), stage, device, campaign }
    }

    /// Orders the release of this digest and sequence number, in a campaign of its own.
    fn order(&mut self, digest: Digest, release: &Release, sequence: u64) {
        let version = self.campaign.validity.version + 1;
        self.campaign.validity = Validity { version, ..self.campaign.validity };
        self.campaign.order = Order {
            campaign: CampaignId([u8::try_from(version).unwrap(); 8]),
            release: digest,
            sequence,
            envelope_size: envelope_of(release).len() as u64,
            image_size: release.image.len() as u64,
            ..self.campaign.order.clone()
        };
        self.forger.tell(self.device.id(), &self.forger.campaign(&self.campaign));
    }

    /// Answers the device's request for the manifest again and again, until the device has taken or refused
    /// it.
    fn send(&self, before: &Traffic, envelope: &[u8], times: usize) {
        let asked = |traffic: &Traffic| traffic.document_requests > before.document_requests;
        self.stage.proxy.wait_for_traffic(self.device.id(), asked);
        (0..times).for_each(|_| self.forger.tell(self.device.id(), envelope));
    }

    /// Orders a release, sends what the device asks for, and checks that it is refused for `reason`.
    fn is_refused(&mut self, release: &Release, claimed: u64, reason: FailureCode) {
        let envelope = envelope_of(release);
        let digest: [u8; 32] = hex::decode(&release.digest).unwrap().try_into().unwrap();
        self.sent_is_refused(&envelope, Digest(digest), release, claimed, reason);
    }

    fn sent_is_refused(
        &mut self,
        envelope: &[u8],
        digest: Digest,
        release: &Release,
        claimed: u64,
        reason: FailureCode,
    ) {
        let before = self.stage.proxy.traffic(self.device.id());
        let slots = ["a", "b"].map(|slot| self.device.slot(slot));
        self.order(digest, release, claimed);
        if claimed >= RUNS {
            self.send(&before, envelope, 1);
        }
        let id = self.campaign.order.campaign;
        let ended = |status: &serde_json::Value| {
            status["state"] == "failed" && status["campaign"] == id.to_hex() && status["reports_waiting"] == 0
        };
        let status = self.device.wait_for("it is refused and reported", ended);
        assert_eq!(status["reason"], reason.name(), "{status}");
        let report = last_report(&self.stage.proxy, self.device.id()).expect("it is reported");
        assert_eq!((report.campaign, report.release), (id, digest));
        assert_eq!((report.outcome, report.failure), (Outcome::Failed, Some(reason)));

        // It is not begun again, not even after a reboot.
        self.device.reboot();
        let status = self.device.wait_for("it is answered", |status| Agent::counted(status, "answers") >= 1);
        assert_eq!((&status["state"], &status["reason"]), (&"failed".into(), &reason.name().into()));
        assert_eq!(
            (&status["running"]["sequence"], &status["running"]["trial"]),
            (&RUNS.into(), &"none".into())
        );
        assert_eq!(["a", "b"].map(|slot| self.device.slot(slot)), slots, "nothing was stored");
        self.nothing_was_fetched(&before);
    }

    fn nothing_was_fetched(&self, before: &Traffic) {
        let after = self.stage.proxy.traffic(self.device.id());
        let data = |traffic: &Traffic| (traffic.chunk_requests, traffic.page_requests, traffic.served_bytes);
        assert_eq!(data(&after), data(before), "nothing was asked for");
    }

    /// Orders the release of this digest, sends an envelope whose signatures do not count, several times, and checks
    /// that the device waits for a better one.
    fn is_waited_for(&mut self, envelope: &[u8], digest: Digest, release: &Release) {
        let before = self.stage.proxy.traffic(self.device.id());
        let slots = ["a", "b"].map(|slot| self.device.slot(slot));
        self.order(digest, release, RUNS + 1);
        self.send(&before, envelope, 5);
        let id = self.campaign.order.campaign;
        let waits = |status: &serde_json::Value| {
            status["reason"] == "bad-envelope" && status["campaign"] == id.to_hex()
        };
        let status = self.device.wait_for("it waits", waits);
        assert_eq!(status["state"], "deferred", "{status}");
        assert!(status["deferred_s"].is_u64(), "{status}");
        // Nothing has ended, and it asks again after a reboot.
        let asked = self.stage.proxy.traffic(self.device.id()).document_requests;
        self.device.reboot();
        self.stage.proxy.wait_for_traffic(self.device.id(), |traffic| traffic.document_requests > asked);
        let ended = last_report(&self.stage.proxy, self.device.id()).filter(|report| report.campaign == id);
        assert!(ended.is_none(), "{ended:?}");
        assert_eq!(["a", "b"].map(|slot| self.device.slot(slot)), slots, "nothing was stored");
        self.nothing_was_fetched(&before);
    }
}

#[test]
fn a_release_signed_with_another_key_is_waited_for_and_no_chunk_is_requested() {
    // Every key has one role. The online keys cannot sign a release.
    for is_online in [false, true] {
        let mut theft = Theft::begin();
        let bundle = &theft.stage.bundle;
        let key = if is_online { bundle.path("keys/campaign.cose") } else { bundle.new_key("stranger.cose") };
        let release = bundle.release(Recipe { key: Some(key), ..Recipe::noise(RUNS + 1, 20_000) });
        let digest = Digest(hex::decode(&release.digest).unwrap().try_into().unwrap());
        theft.is_waited_for(&envelope_of(&release), digest, &release);
    }
}

#[test]
fn a_release_for_another_class_or_vendor_is_refused_before_a_chunk_is_requested() {
    let mut theft = Theft::begin();
    let release = theft.stage.bundle.release(Recipe { class: "meter", ..Recipe::noise(6, 20_000) });
    theft.is_refused(&release, 6, FailureCode::WrongClass);
    let release = theft.stage.bundle.release(Recipe { vendor: "example.org", ..Recipe::noise(7, 20_000) });
    theft.is_refused(&release, 7, FailureCode::WrongClass);
}

#[test]
fn a_release_with_an_older_sequence_is_refused_before_a_chunk_is_requested() {
    let mut theft = Theft::begin();
    let older = theft.stage.bundle.noise_release(RUNS - 1, 20_000);
    // If the order names the release as it is, the order alone is enough to refuse it.
    theft.is_refused(&older, RUNS - 1, FailureCode::Rollback);
    // An order that says otherwise is a lie that the manifest uncovers.
    let envelope = envelope_of(&older);
    let digest = Digest(hex::decode(&older.digest).unwrap().try_into().unwrap());
    theft.sent_is_refused(&envelope, digest, &older, RUNS + 1, FailureCode::Unauthentic);
    // This one has the running sequence number, but another image.
    let other = theft.stage.bundle.noise_release(RUNS, 30_000);
    theft.is_refused(&other, RUNS, FailureCode::Rollback);
}

#[test]
fn a_manifest_with_one_byte_changed_is_waited_for_and_no_chunk_is_requested() {
    let mut theft = Theft::begin();
    let release = theft.stage.bundle.noise_release(RUNS + 1, 20_000);
    let (envelope, digest) = with_one_byte_changed(&envelope_of(&release));
    theft.is_waited_for(&envelope, digest, &release);
}

/// A broker cannot make the device take another digest. What it changes ends nothing, and is asked for again.
#[test]
fn a_manifest_that_the_broker_changes_is_refused_until_it_is_right() {
    let stage = Stage::embedded();
    let device = stage.device("meter-1");
    let release = stage.bundle.noise_release(1, 50_000);
    let bits = envelope_of(&release).len() * 8;
    stage.proxy.set(Verb::Spoil { bit: bits * 3 / 4 });
    let before = stage.proxy.traffic(device.id());
    let campaign = stage.service.roll_out(&release);
    let spoilt = |status: &serde_json::Value| {
        let waits = status["state"] == "offered" || status["reason"] == "bad-envelope";
        waits && status["rejected"].as_object().is_some_and(|map| !map.is_empty())
    };
    device.wait_for("it is refused", spoilt);
    let traffic = stage.proxy.traffic(device.id());
    assert!(traffic.tampered >= 1, "{traffic:?}");
    assert_eq!(
        (traffic.chunk_requests, traffic.page_requests),
        (before.chunk_requests, before.page_requests)
    );

    // It asks again when it has waited.
    stage.proxy.set(Verb::Pass);
    stage.proxy.cut();
    stage.wait_until_updated(&device, &release, &campaign);
}

/// A release that is wrong by mistake does not get so far, because the service does not take it.
#[test]
fn a_release_that_devices_would_refuse_is_not_published() {
    let stage = Stage::embedded();
    let stranger = stage.bundle.new_key("stranger.cose");
    let release = stage.bundle.release(Recipe { key: Some(stranger), ..Recipe::noise(1, 20_000) });
    let complaint =
        stage.service.whimbrel(["release", "publish", release.folder.to_str().unwrap()]).complaint();
    assert!(complaint.contains("sign"), "{complaint}");
    assert_eq!(stage.service.status()["releases"], 0);
}

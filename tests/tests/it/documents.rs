//! What signed documents may do to a device, tested with real processes and across a reboot, after which the device
//! knows only what is on its medium.
//!
//! The documents come from somebody at the broker who has the online keys, or old documents. They arrive on the
//! device's own topic, on which it always listens. `protocol/tests/it/documents.rs` tests the same claims, and others
//! for which real processes would add nothing: documents on the wrong topic, every role's key with every kind, spread,
//! priorities.

use e2e::agent::Agent;
use e2e::bundle::Release;
use e2e::clock::wait_for;
use e2e::forge::{Forger, device_id, envelope_of, last_assignment, last_campaign, last_report};
use e2e::stage::Stage;
use serde_json::{Value as Json, json};
use whimbrel_protocol::ids::{CampaignId, Digest, GroupName, Prefix};
use whimbrel_protocol::message::{
    Assignment, Beacon, Campaign, CampaignState, FailureCode, Order, Outcome, Validity,
};
use whimbrel_protocol::time::UnixTime;

const ID: &str = "meter-1";

/// A device that runs sequence 1 and has a document of every scope, and somebody with the online keys.
struct Scene {
    stage: Stage,
    device: Agent,
    forger: Forger,
    /// The latest documents, decoded and as they were signed.
    campaign: (Campaign, Vec<u8>),
    assignment: (Assignment, Vec<u8>),
    beacon: (Beacon, Vec<u8>),
}

impl Scene {
    fn begin() -> Self {
        let stage = Stage::attached();
        let device = stage.device(ID);
        let release = stage.bundle.noise_release(1, 20_000);
        let id = stage.service.roll_out(&release);
        stage.wait_until_updated(&device, &release, &id);
        let forger = stage.forger();
        let campaign = last_campaign(&stage.proxy, ID);
        let assignment = last_assignment(&stage.proxy, ID);
        // The service's own beacons are far behind this one, and a broker that ignores `retain` brings none.
        let issued = campaign.0.validity.issued;
        let validity = Validity { version: 1000, issued, expires: issued.plus_secs(86_400) };
        let beacon = Beacon { prefix: campaign.0.prefix.clone(), validity, groups: Vec::new(), root: 1 };
        let signed = forger.beacon(&beacon);
        forger.tell(ID, &signed);
        remembers(&device, &beacon.encode());
        Self { stage, device, forger, campaign, assignment, beacon: (beacon, signed) }
    }

    fn offer(&self, document: &[u8]) {
        self.forger.tell(ID, document);
    }

    /// Signs the latest campaign with a higher version and `change`, and offers it. It takes the place of the latest.
    fn campaign(&mut self, change: impl FnOnce(&mut Campaign)) {
        let campaign = &mut self.campaign.0;
        campaign.validity.version += 1;
        change(campaign);
        self.campaign.1 = self.forger.campaign(campaign);
        self.offer(&self.campaign.1);
    }

    /// Does the same, with an order for `release` under another campaign's id.
    fn order(&mut self, release: &Release, change: impl FnOnce(&mut Campaign)) {
        let order = Order {
            campaign: CampaignId([u8::try_from(release.sequence).unwrap(); 8]),
            release: Digest(hex::decode(&release.digest).unwrap().try_into().unwrap()),
            sequence: release.sequence,
            envelope_size: envelope_of(release).len() as u64,
            image_size: release.image.len() as u64,
            ..self.campaign.0.order.clone()
        };
        self.campaign(|campaign| {
            campaign.order = order;
            change(campaign);
        });
    }

    /// Starts the device again, and waits until the service has answered it.
    fn reboot(&mut self) -> Json {
        self.device.reboot();
        self.device.wait_for("it is answered", |status| Agent::counted(status, "answers") >= 1)
    }

    /// Waits until the device has refused a document for this reason, since it was started.
    ///
    /// Of refusals for one kind of reason its log has one line a minute.
    fn refuses(&mut self, reason: &str) {
        self.device.wait_for_line(&["message rejected channel=\"answers\"", reason]);
    }

    /// Waits until the device has asked for the envelope of its latest order, and was refused.
    fn asks_for_what_nobody_has(&self) {
        let campaign = self.campaign.0.order.campaign.to_hex();
        self.device.wait_for("it asks in vain", |status| {
            status["campaign"] == campaign.as_str() && status["state"] == "deferred"
        });
    }

    /// Counts what was asked for and served until now.
    fn data(&self) -> [u64; 4] {
        let traffic = self.stage.proxy.traffic(ID);
        [traffic.document_requests, traffic.page_requests, traffic.chunk_requests, traffic.served_bytes]
    }

    /// Waits until a deployment has ended this way, and its report has arrived.
    fn ends(&self, outcome: Outcome, failure: Option<FailureCode>) -> Json {
        let id = self.campaign.0.order.campaign;
        let status = self.device.wait_for("it ends", |status| {
            status["campaign"] == id.to_hex()
                && status["state"] == outcome.name()
                && status["reports_waiting"] == 0
        });
        assert_eq!(status["reason"], failure.map_or(Json::Null, |code| json!(code.name())), "{status}");
        let report = last_report(&self.stage.proxy, ID).expect("it was reported");
        assert_eq!((report.campaign, report.outcome, report.failure), (id, outcome, failure));
        status
    }
}

/// Waits until the device's medium has the version of this document, with its digest.
fn remembers(device: &Agent, payload: &[u8]) {
    let digest = Digest::of(payload).short();
    wait_for("the document to be durable", || {
        device.record().windows(8).any(|bytes| bytes == digest.0).then_some(())
    });
}

fn rollback(got: u64, known: u64) -> String {
    format!("Rollback {{ got: {got}, known: {known} }}")
}

/// The device remembers the highest version of each scope and refuses older ones.
#[test]
fn an_older_document_of_any_scope_is_a_rollback_also_after_a_reboot() {
    let mut scene = Scene::begin();
    let old = [scene.campaign.clone().1, scene.assignment.clone().1, scene.beacon.clone().1];
    let validities = [scene.campaign.0.validity, scene.assignment.0.validity, scene.beacon.0.validity];
    // Newer ones, far enough apart that each refusal shows which document it is about.
    let newer =
        |at: usize| Validity { version: validities[at].version + 100 * (at as u64 + 1), ..validities[at] };
    let aborted = Order { state: CampaignState::Aborted, ..scene.campaign.0.order.clone() };
    let campaign = Campaign { validity: newer(0), order: aborted, ..scene.campaign.0.clone() };
    let assignment = Assignment { validity: newer(1), ..scene.assignment.0.clone() };
    let beacon = Beacon { validity: newer(2), ..scene.beacon.0.clone() };
    let new = [
        scene.forger.campaign(&campaign),
        scene.forger.assignment(&assignment),
        scene.forger.beacon(&beacon),
    ];
    for (document, payload) in new.iter().zip([campaign.encode(), assignment.encode(), beacon.encode()]) {
        scene.offer(document);
        remembers(&scene.device, &payload);
    }
    // The log names the first one in each life of the agent.
    for (first, validity) in validities.into_iter().enumerate() {
        let before = Agent::rejected(&scene.device.status(), "rollback");
        for (at, count) in [0, 1, 2].map(|next| (first + next) % 3).into_iter().zip(1..) {
            scene.offer(&old[at]);
            scene
                .device
                .wait_for("it is refused", |status| Agent::rejected(status, "rollback") >= before + count);
        }
        scene.refuses(&rollback(validity.version, newer(first).version));
        scene.reboot();
    }
}

/// There may be only one document of a version. So a key holder who signs two is told apart from a broker
/// that replays.
#[test]
fn another_document_of_the_same_version_is_equivocation_also_after_a_reboot() {
    let mut scene = Scene::begin();
    let order = Order { priority: 7, ..scene.campaign.0.order.clone() };
    let campaign = scene.forger.campaign(&Campaign { order, ..scene.campaign.0.clone() });
    let assignment = scene.forger.assignment(&Assignment { root: 9, ..scene.assignment.0.clone() });
    let beacon = scene.forger.beacon(&Beacon { root: 9, ..scene.beacon.0.clone() });
    let versions = [
        scene.campaign.0.validity.version,
        scene.assignment.0.validity.version,
        scene.beacon.0.validity.version,
    ];
    let same = [scene.campaign.1.clone(), scene.assignment.1.clone(), scene.beacon.1.clone()];
    let others = [campaign, assignment, beacon];
    // The log names the first one in each life of the agent.
    for (first, version) in versions.into_iter().enumerate() {
        let before = scene.device.status();
        let taken = scene.device.log().matches("document taken").count();
        same.iter().for_each(|document| scene.offer(document));
        for (at, count) in [0, 1, 2].map(|next| (first + next) % 3).into_iter().zip(1..) {
            scene.offer(&others[at]);
            scene.device.wait_for("it is refused", |status| {
                Agent::rejected(status, "equivocation") == Agent::rejected(&before, "equivocation") + count
            });
        }
        scene.refuses(&format!("Equivocation {{ version: {} }}", version));
        assert_eq!(scene.device.log().matches("document taken").count(), taken, "the same again is no news");
        assert_eq!(scene.device.status()["state"], "confirmed");
        scene.reboot();
    }
}

/// Prefix, group and device stand inside the signature, and a key signs only what its role signs.
#[test]
fn a_document_of_another_scope_or_by_another_role_is_unauthentic_and_leaves_no_trace() {
    let mut scene = Scene::begin();
    let far = |validity: Validity| Validity { version: validity.version + 1000, ..validity };
    let elsewhere = Prefix::new("otb").unwrap();
    let campaign = Campaign { validity: far(scene.campaign.0.validity), ..scene.campaign.0.clone() };
    let assignment = Assignment { validity: far(scene.assignment.0.validity), ..scene.assignment.0.clone() };
    let beacon = Beacon { validity: far(scene.beacon.0.validity), ..scene.beacon.0.clone() };
    let group = GroupName::new("others").unwrap();
    let forger = &scene.forger;
    let wrong_scopes = [
        forger.campaign(&Campaign { prefix: elsewhere.clone(), ..campaign.clone() }),
        forger.campaign(&Campaign { group, ..campaign.clone() }),
        forger.assignment(&Assignment { prefix: elsewhere.clone(), ..assignment.clone() }),
        forger.assignment(&Assignment { device: device_id("meter-2"), ..assignment }),
        forger.beacon(&Beacon { prefix: elsewhere, ..beacon }),
    ];
    let wrong_role = forger.campaign_by_beacon_key(&campaign);
    let before = Agent::rejected(&scene.device.status(), "unauthentic");
    for (document, count) in wrong_scopes.iter().chain([&wrong_role]).zip(1..) {
        scene.offer(document);
        scene
            .device
            .wait_for("it is refused", |status| Agent::rejected(status, "unauthentic") == before + count);
    }
    scene.reboot();
    // The next versions count as if nothing had been.
    scene.campaign(|campaign| campaign.order.state = CampaignState::Aborted);
    remembers(&scene.device, &scene.campaign.0.encode());
    let validity = scene.assignment.0.validity;
    let next = Validity { version: validity.version + 1, ..validity };
    let assignment = Assignment { validity: next, ..scene.assignment.0.clone() };
    scene.offer(&scene.forger.assignment(&assignment));
    remembers(&scene.device, &assignment.encode());
}

/// The version is durable before anybody can see that the device acts on it. The power is cut at the first
/// sign of that.
#[test]
fn a_document_that_is_acted_on_is_remembered() {
    let mut scene = Scene::begin();
    let (old, known) = (scene.campaign.1.clone(), scene.campaign.0.validity.version);
    let release = scene.stage.bundle.noise_release(2, 20_000);
    let [asked, ..] = scene.data();
    scene.order(&release, |_| {});
    scene.stage.proxy.wait_for_traffic(ID, |traffic| traffic.document_requests > asked);
    scene.reboot();
    scene.offer(&old);
    scene.refuses(&rollback(known, known + 1));
    // The deployment that had begun goes on.
    scene.asks_for_what_nobody_has();
}

#[test]
fn an_abort_is_a_newer_document_that_nothing_older_or_empty_undoes_also_after_a_reboot() {
    let mut scene = Scene::begin();
    let release = scene.stage.bundle.noise_release(2, 400_000);
    scene.stage.proxy.set_rate(64 * 1024);
    let id = scene.stage.service.roll_out(&release);
    scene.device.wait_for_state("downloading");
    let (running, active) = last_campaign(&scene.stage.proxy, ID);
    scene.stage.service.whimbrel(["campaign", "abort", &id]).good();
    scene.stage.service.wait_for_end(&id, ID, "cancelled", Some("aborted"));
    scene.stage.proxy.set_rate(0);
    let known = running.validity.version + 1;
    let data = scene.data();
    for _ in 0..2 {
        scene.offer(&active);
        scene.refuses(&rollback(running.validity.version, known));
        scene.forger.retain("ota/g/all", &[]);
        scene.forger.tell(ID, &[]);
        scene.device.wait_for("it is empty", |status| Agent::rejected(status, "empty") >= 1);
        let status = scene.reboot();
        assert_eq!(
            (&status["state"], &status["reason"]),
            (&json!("cancelled"), &json!("aborted")),
            "{status}"
        );
    }
    assert_eq!(scene.data(), data, "nothing is asked for any more");
    assert_eq!(scene.device.status()["running"]["sequence"], 1);
}

#[test]
fn what_failed_here_is_not_fetched_again_after_a_reboot_until_a_higher_attempt_is_signed() {
    let mut scene = Scene::begin();
    let hook = "Installing_Enter_10_refuse";
    scene.device.hook(hook, "exit 1");
    not_again_before_a_higher_attempt(&mut scene, "failed", "hook", hook);
}

#[test]
fn what_reverted_here_is_not_fetched_again_after_a_reboot_until_a_higher_attempt_is_signed() {
    let mut scene = Scene::begin();
    let hook = "Testing_Enter_10_pump";
    scene.device.hook(hook, "exit 1");
    not_again_before_a_higher_attempt(&mut scene, "reverted", "unhealthy", hook);
}

fn not_again_before_a_higher_attempt(scene: &mut Scene, state: &str, reason: &str, hook: &str) {
    let release = scene.stage.bundle.noise_release(2, 50_000);
    let id = scene.stage.service.roll_out(&release);
    scene.stage.service.wait_for_end(&id, ID, state, Some(reason));
    scene.device.wait_until_reported();
    // Now nothing prevents the update any more.
    scene.device.hook(hook, "exit 0");
    let data = scene.data();
    // A newer document of the same attempt, which the device takes, changes nothing.
    let (mut campaign, _) = last_campaign(&scene.stage.proxy, ID);
    campaign.validity.version += 1;
    scene.offer(&scene.forger.campaign(&campaign));
    remembers(&scene.device, &campaign.encode());
    for _ in 0..2 {
        let status = scene.reboot();
        assert_eq!((&status["state"], &status["reason"]), (&json!(state), &json!(reason)), "{status}");
        assert_eq!(status["running"]["sequence"], 1);
    }
    assert_eq!(scene.data(), data, "nothing is asked for");

    // The operator lets it try again, twice, because this test has already used the version of the first
    // retry.
    scene.stage.service.whimbrel(["campaign", "retry", &id]).good();
    scene.stage.service.whimbrel(["campaign", "retry", &id]).good();
    let status = scene.stage.wait_until_updated(&scene.device, &release, &id);
    assert!(status["attempt"].as_u64() >= Some(2), "{status}");
}

/// The minimum sequence only rises, and the device remembers it.
#[test]
fn a_withdrawn_release_is_refused_in_every_order_also_after_a_reboot() {
    let mut scene = Scene::begin();
    let release = scene.stage.bundle.noise_release(3, 20_000);
    scene.campaign(|campaign| {
        campaign.order.state = CampaignState::Aborted;
        campaign.order.min_sequence = 4;
    });
    remembers(&scene.device, &scene.campaign.0.encode());
    scene.reboot();
    let data = scene.data();
    // The orders stand in a group's campaign that has no minimum, and in an assignment.
    scene.order(&release, |campaign| {
        campaign.order.state = CampaignState::Active;
        campaign.order.min_sequence = 0;
    });
    scene.ends(Outcome::Failed, Some(FailureCode::Withdrawn));
    scene.reboot();
    let validity = scene.assignment.0.validity;
    scene.campaign.0.order.campaign = CampaignId([44; 8]);
    let order = Some(scene.campaign.0.order.clone());
    let next = Validity { version: validity.version + 1, ..validity };
    scene.offer(&scene.forger.assignment(&Assignment {
        validity: next,
        order,
        ..scene.assignment.0.clone()
    }));
    scene.ends(Outcome::Failed, Some(FailureCode::Withdrawn));
    assert_eq!(scene.data(), data, "nothing was asked for");
}

/// The answer to the device's own nonce decides whether a document has expired. If it has, nothing begins.
#[test]
fn an_expired_campaign_begins_nothing_whatever_the_devices_own_clock_says() {
    let mut scene = Scene::begin();
    let release = scene.stage.bundle.noise_release(2, 20_000);
    let data = scene.data();
    scene.order(&release, |campaign| {
        campaign.validity.issued = UnixTime::from_secs(campaign.validity.issued.as_secs() - 10);
        campaign.validity.expires = UnixTime::from_secs(campaign.validity.issued.as_secs() + 5);
    });
    scene.ends(Outcome::Failed, Some(FailureCode::Expired));
    let status = scene.reboot();
    assert_eq!((&status["state"], &status["reason"]), (&json!("failed"), &json!("expired")), "{status}");
    assert_eq!(scene.data(), data, "nothing was asked for");
}

/// Without an answer to its own nonce a device begins nothing, even if it is signed, new and not expired.
#[test]
fn nothing_begins_before_the_service_has_answered() {
    let mut scene = Scene::begin();
    let release = scene.stage.bundle.noise_release(2, 20_000);
    let data = scene.data();
    scene.stage.service.kill();
    scene.device.reboot();
    scene.order(&release, |_| {});
    // The document is sent again and again, because nothing tells when the device has subscribed.
    let version = format!("version={}", scene.campaign.0.validity.version);
    scene.device.wait_for("the document is taken", |_| {
        scene.offer(&scene.campaign.1);
        scene.device.log().lines().any(|line| line.contains("document taken") && line.contains(&version))
    });
    let status = scene.device.status();
    assert_eq!((&status["state"], Agent::counted(&status, "answers")), (&json!("confirmed"), 0), "{status}");
    assert_eq!(scene.data(), data, "nothing was asked for");
    scene.stage.service.start();
    scene.stage.proxy.cut();
    scene.asks_for_what_nobody_has();
}

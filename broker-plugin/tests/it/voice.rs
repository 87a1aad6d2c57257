//! A device made by hand: it says what a test wants, and hears what comes.

use std::time::Duration;

use serde_json::Value;
use whimbrel_protocol::cose::{Kind, SigningKey, sign_attached};
use whimbrel_protocol::ids::{CampaignId, ChunkIndex, DeviceId, Digest, Nonce, PayloadTag, ShortDigest};
use whimbrel_protocol::message::{
    Answer, ChunkRequest, Enrolment, Hello, Outcome, PageNumber, PageRequest, Refusal, RefusalCode, Report,
};
use whimbrel_protocol::testing::Release;
use whimbrel_protocol::time::UnixTime;

use crate::front_support::{Client, Published, deadline, is_over};
use crate::service_support::{On, Service, device_key};

/// A device that says what a test wants.
///
/// It does not wait for what never comes: where it hears nothing and the service has done all that it was told, it
/// asks something whose answer it knows. All answers come in order, so that what has not come before this one
/// never will.
pub(crate) struct Voice<'s> {
    service: &'s Service,
    client: Client,
    id: String,
    /// Answers to such questions that are still to come.
    marks: u32,
}

/// After this much silence it is asked whether anything is still to come. How long it is decides nothing.
const SILENCE: Duration = Duration::from_millis(500);
/// A payload that no release has: whoever asks for it is refused, and the refusal names it.
const MARK: PayloadTag = PayloadTag([0xee; 4]);

impl<'s> Voice<'s> {
    pub(crate) fn new(service: &'s Service, id: &str) -> Self {
        let mut client = Client::let_in(service.mqtt(), 4, id);
        assert_eq!(client.subscribe(&[(&format!("ota/d/{id}/c"), 0)]), [0]);
        Self { service, client, id: id.to_owned(), marks: 0 }
    }

    pub(crate) fn say(&mut self, message: &[u8]) {
        self.service.note_said();
        self.client.publish(&format!("ota/d/{}/q", self.id), message, 0, false);
    }

    /// Publishes on the channel of reports, without waiting for the broker.
    pub(crate) fn report(&mut self, message: &[u8]) {
        self.service.note_said();
        self.client.publish(&format!("ota/d/{}/r", self.id), message, 0, false);
    }

    /// The next message. It fails where none will come.
    pub(crate) fn hear(&mut self) -> Published {
        let heard = self.next(SILENCE);
        heard.unwrap_or_else(|| {
            panic!("{}: the service has done all that it was told and sent nothing", self.id)
        })
    }

    /// Fails where anything more comes of all that was said.
    pub(crate) fn hears_no_more(&mut self) {
        if let Some(heard) = self.next(Duration::from_millis(1)) {
            panic!("{}: {:?}: {heard:?}", self.id, Answer::decode(&heard.payload));
        }
    }

    /// The next message, or `None` where it is proved that none will come. Proving begins after some silence.
    fn next(&mut self, silence: Duration) -> Option<Published> {
        let deadline = deadline();
        let mut asked = false;
        loop {
            while self.client.is_silent_for(silence) {
                assert!(!is_over(deadline), "{}: nothing comes, and no answer to that", self.id);
                // Who is not accepted gets no answer that names the payload, and waits to the end.
                if !asked && self.is_accepted() && self.service.is_done() {
                    self.say(&PageRequest { payload: MARK, page: PageNumber::List }.encode());
                    self.marks += 1;
                    asked = true;
                }
            }
            let heard = self.client.expect_publish();
            if !is_mark(&heard) {
                return Some(heard);
            }
            // The answer to an earlier question says nothing about what was said since.
            self.marks -= 1;
            if asked && self.marks == 0 {
                return None;
            }
        }
    }

    fn is_accepted(&self) -> bool {
        let is_served = |device: Value| device["state"] == "accepted" || device["state"] == "rekeyed";
        self.service.device(&self.id).is_some_and(is_served)
    }

    pub(crate) fn refusal(&mut self) -> Refusal {
        let heard = self.hear();
        match Answer::decode(&heard.payload) {
            Ok(Answer::Refusal(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn chunks(&mut self, count: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut got = 0;
        while got < count {
            let heard = self.hear();
            let Ok(Answer::Chunk(message)) = Answer::decode(&heard.payload) else { panic!("{heard:?}") };
            bytes.extend_from_slice(message.bytes);
            got += (message.bytes.len() as u32).div_ceil(1024);
        }
        bytes
    }

    pub(crate) fn hello(&mut self, nonce: u8, report: Option<ShortDigest>) {
        let hello = Hello {
            version_max: 1,
            class: self.service.fixture.class.tag(),
            running: ShortDigest([1; 8]),
            sequence: 4,
            root: 1,
            assignment: 99,
            groups: vec![],
            nonce: Nonce([nonce; 8]),
            report,
        };
        self.say(&hello.encode());
    }
}

fn is_mark(heard: &Published) -> bool {
    let mark = Refusal { code: RefusalCode::NotYours, retry_after_s: None, payload: Some(MARK) };
    matches!(Answer::decode(&heard.payload), Ok(Answer::Refusal(refusal)) if refusal == mark)
}

/// A request for chunks of a release's first payload.
pub(crate) fn ask(release: &Release, first: u32, count: u32, per_message: u32) -> Vec<u8> {
    let first = ChunkIndex(first);
    ChunkRequest { payload: release.tag(), first, count, per_message, wanted: None }.encode()
}

pub(crate) fn enrolment(service: &Service, id: &str, key: &SigningKey) -> Vec<u8> {
    enrolment_signed_by(service, id, key, key)
}

/// An enrolment that brings one key and is signed by another.
pub(crate) fn enrolment_signed_by(
    service: &Service,
    id: &str,
    key: &SigningKey,
    signer: &SigningKey,
) -> Vec<u8> {
    let device = DeviceId::new(id).unwrap();
    let enrolment = Enrolment { device, key: key.public(), class: service.fixture.class };
    sign_attached(signer, Kind::Enrolment, None, &enrolment.encode())
}

/// A report that a device has confirmed a release.
pub(crate) fn confirmed(device: &str, key: &SigningKey, campaign: CampaignId, release: Digest) -> Vec<u8> {
    let report = Report {
        device: DeviceId::new(device).unwrap(),
        number: 0,
        campaign,
        attempt: 1,
        release,
        outcome: Outcome::Confirmed,
        failure: None,
        running: ShortDigest([0; 8]),
        sequence: 5,
        time: UnixTime::from_secs(1_800_000_000),
        bytes_received: 1,
        bytes_twice: 0,
        said: String::new(),
    };
    sign_attached(key, Kind::Report, None, &report.encode())
}

/// The id of a campaign as the admin API writes it.
pub(crate) fn campaign_id(campaign: &Value) -> CampaignId {
    let mut id = [0; 8];
    hex::decode_to_slice(campaign["id"].as_str().unwrap(), &mut id).unwrap();
    CampaignId(id)
}

/// A service with a release out for m1, which is accepted.
pub(crate) fn serving(settings: &[&str], bytes: usize) -> (Service, Release) {
    let service = Service::start_with(On::Itself, settings);
    service.import(&[("m1", &device_key(1).public())]);
    let release = service.release(bytes, 5);
    service.publish(&release);
    service.campaign(&release);
    (service, release)
}

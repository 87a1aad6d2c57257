//! What the service's session answers to hellos, requests and reports, and whom it believes.

use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::cose::{Kind, PublicKey, SignatureError, SigningKey, sign_attached};
use whimbrel_protocol::ids::{
    CampaignId, ChunkIndex, DeviceId, Digest, GroupName, KeyId, Nonce, PayloadTag, ShortDigest,
};
use whimbrel_protocol::message::{
    ChunkRequest, DocumentRequest, Enrolment, GroupVersion, Hello, HelloAnswer, Outcome, PageNumber,
    PageRequest, Refusal, RefusalCode, Report,
};
use whimbrel_protocol::server::{
    DeviceView, Document, Event, GroupDocument, Input, Live, LivePayload, Output, Reason, ServerSession,
    Standing,
};
use whimbrel_protocol::testing::Fixture;
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;

const TODAY: UnixTime = UnixTime::from_secs(1_800_000_777);

/// What the service knows of the one device, and its session.
struct Desk {
    fixture: Fixture,
    session: ServerSession,
    now: Instant,
    standing: Option<PublicKey>,
    pending: bool,
    assignment: Option<Document>,
    campaigns: Vec<GroupDocument>,
    live: Option<Digest>,
    payloads: Vec<LivePayload>,
}

impl Desk {
    fn new() -> Self {
        let fixture = Fixture::new();
        let session = ServerSession::new(fixture.device.clone(), Instant::ZERO);
        let layout = Layout::new(10, 4096).unwrap();
        Self {
            standing: Some(fixture.device_key.public()),
            pending: false,
            session,
            now: Instant::ZERO,
            assignment: Some(Document { version: 3 }),
            campaigns: Vec::new(),
            live: Some(Digest([1; 32])),
            payloads: vec![LivePayload { tag: TAG, layout }],
            fixture,
        }
    }

    fn feed(&mut self, input: Input<'_>) -> Vec<Output> {
        let standing = match &self.standing {
            Some(key) => Standing::Accepted { key },
            None if self.pending => Standing::Pending,
            None => Standing::Unknown,
        };
        let view = DeviceView {
            standing,
            root_version: 5,
            assignment: self.assignment,
            campaigns: &self.campaigns,
            live: self.live.map(|release| Live { release, payloads: &self.payloads }),
        };
        self.session.handle_input(self.now, TODAY, &view, input);
        core::iter::from_fn(|| self.session.poll_output()).collect()
    }

    fn ask(&mut self, request: &[u8]) -> Vec<Output> {
        self.feed(Input::message(&Channel::Requests, request))
    }

    fn tell(&mut self, message: &[u8]) -> Vec<Output> {
        self.feed(Input::message(&Channel::Reports, message))
    }

    fn hello(&self) -> Hello {
        Hello {
            version_max: 1,
            class: self.fixture.class.tag(),
            running: ShortDigest([2; 8]),
            sequence: 4,
            root: 1,
            assignment: 3,
            groups: Vec::new(),
            nonce: Nonce([6; 8]),
            report: None,
        }
    }

    fn heard(&self) -> Output {
        self.heard_holding(3, 0)
    }

    /// The same of a hello with this assignment and campaign documents of which this version is the highest.
    fn heard_holding(&self, assignment: u64, campaign: u64) -> Output {
        let (class, running) = (self.fixture.class.tag(), ShortDigest([2; 8]));
        Output::Event(Event::Hello { class, running, sequence: 4, assignment, campaign })
    }

    /// What it says to a hello, with the versions that it has.
    fn answer(&self, report: Option<ShortDigest>) -> Output {
        let version =
            |it: &GroupDocument| GroupVersion { group: it.group.clone(), version: it.document.version };
        Output::Answer(HelloAnswer {
            echo: Nonce([6; 8]).echo(&self.fixture.device),
            time: TODAY,
            root: 5,
            assignment: self.assignment.map_or(0, |document| document.version),
            groups: self.campaigns.iter().map(version).collect(),
            report,
            key: self.fixture.device_key.public().id(),
        })
    }
}

const TAG: PayloadTag = PayloadTag([4; 4]);

fn refused(code: RefusalCode) -> Output {
    Output::Refuse(Refusal { code, retry_after_s: None, payload: None })
}

fn rejected(reason: Reason) -> Output {
    Output::Event(Event::Rejected { reason })
}

#[test]
fn a_hello_is_answered_with_what_is_current_and_then_with_what_the_device_lacks() {
    let mut desk = Desk::new();
    let groups = ["a", "b", "c", "d"].map(|name| GroupName::new(name).unwrap());
    desk.campaigns = groups
        .iter()
        .zip([5, 5, 5, 5])
        .map(|(group, version)| GroupDocument { group: group.clone(), document: Document { version } })
        .collect();
    let held = |at: usize, version| GroupVersion { group: groups[at].clone(), version };
    let mut hello = desk.hello();
    // The same version, a later one, an earlier one, and none.
    hello.groups = vec![held(0, 5), held(1, 6), held(2, 4)];
    let campaign = |at: usize| Output::Campaign(groups[at].clone());
    assert_eq!(
        desk.ask(&hello.encode()),
        [desk.heard_holding(3, 6), desk.answer(None), campaign(2), campaign(3)]
    );
    for (assignment, lacks) in [(2, true), (3, false), (4, false)] {
        let hello = Hello { assignment, groups: vec![], ..desk.hello() };
        desk.campaigns.clear();
        let mut want = vec![desk.heard_holding(assignment, 0), desk.answer(None)];
        want.extend(lacks.then_some(Output::Assignment));
        assert_eq!(desk.ask(&hello.encode()), want, "{assignment}");
    }
    desk.assignment = None;
    assert_eq!(desk.ask(&desk.hello().encode()), [desk.heard(), desk.answer(None)]);
}

#[test]
fn a_device_that_speaks_no_version_of_ours_is_told_so() {
    for (version_max, spoken) in [(0, false), (1, true), (2, true)] {
        let mut desk = Desk::new();
        let hello = Hello { version_max, ..desk.hello() };
        let want =
            if spoken { vec![desk.heard(), desk.answer(None)] } else { vec![refused(RefusalCode::Version)] };
        assert_eq!(desk.ask(&hello.encode()), want);
    }
}

fn report(desk: &Desk, number: u64) -> Report {
    Report {
        device: desk.fixture.device.clone(),
        number,
        campaign: CampaignId([1; 8]),
        attempt: 1,
        release: Digest([1; 32]),
        outcome: Outcome::Confirmed,
        failure: None,
        running: ShortDigest([2; 8]),
        sequence: 4,
        time: TODAY,
        bytes_received: 1,
        bytes_twice: 0,
        said: String::new(),
    }
}

fn signed(key: &SigningKey, report: &Report) -> Vec<u8> {
    sign_attached(key, Kind::Report, None, &report.encode())
}

#[test]
fn a_hello_that_names_a_report_waits_for_it_and_not_for_ever() {
    let mut desk = Desk::new();
    let message = signed(&desk.fixture.device_key, &report(&desk, 1));
    let digest = Digest::of(&report(&desk, 1).encode()).short();
    let hello = Hello { report: Some(digest), ..desk.hello() };
    // Stored while it waits.
    assert_eq!(desk.ask(&hello.encode()), [desk.heard()]);
    assert_eq!(desk.session.poll_timeout(), Some(Instant::from_millis(3000)));
    let reported = Event::Reported { report: report(&desk, 1), digest, signed: message.clone() };
    assert_eq!(desk.tell(&message), [Output::Event(reported.clone())]);
    assert_eq!(desk.feed(Input::Timeout), [], "it is not stored yet");
    assert_eq!(desk.feed(Input::ReportStored { report: digest }), [desk.answer(Some(digest))]);
    assert_eq!(desk.session.poll_timeout(), None);
    // Stored before: at once, also where the report comes again.
    assert_eq!(desk.ask(&hello.encode()), [desk.heard(), desk.answer(Some(digest))]);
    assert_eq!(desk.tell(&message), [Output::Event(reported)]);
    assert_eq!(desk.ask(&hello.encode()), [desk.heard(), desk.answer(Some(digest))]);
    // Another one is not that one, and is not waited for longer than three seconds.
    let other = Hello { report: Some(ShortDigest([9; 8])), ..desk.hello() };
    assert_eq!(desk.ask(&other.encode()), [desk.heard()]);
    desk.now = Instant::from_millis(2999);
    assert_eq!(desk.feed(Input::Timeout), []);
    desk.now = Instant::from_millis(3000);
    assert_eq!(desk.feed(Input::Timeout), [desk.answer(None)]);
    assert_eq!(desk.feed(Input::Timeout), [], "answered once");
    // A hello without a report is told of none.
    assert_eq!(desk.ask(&desk.hello().encode()), [desk.heard(), desk.answer(None)]);
}

#[test]
fn a_report_that_has_arrived_and_is_not_stored_is_not_acknowledged() {
    let mut desk = Desk::new();
    let message = signed(&desk.fixture.device_key, &report(&desk, 1));
    let digest = Digest::of(&report(&desk, 1).encode()).short();
    desk.tell(&message);
    let hello = Hello { report: Some(digest), ..desk.hello() };
    assert_eq!(desk.ask(&hello.encode()), [desk.heard()]);
    desk.now = Instant::from_millis(3000);
    assert_eq!(desk.feed(Input::Timeout), [desk.answer(None)]);
}

#[test]
fn a_report_is_named_by_what_was_signed_and_nothing_may_stand_beside_it() {
    let mut desk = Desk::new();
    let key = desk.fixture.device_key.clone();
    let good = report(&desk, 1);
    let events = desk.tell(&signed(&key, &good));
    let [Output::Event(Event::Reported { digest, .. })] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*digest, Digest::of(&good.encode()).short());
    // Anybody on the way can write a key id beside it, and each would be another message.
    for variant in 0..20 {
        let message = sign_attached(&key, Kind::Report, Some(KeyId([variant; 4])), &good.encode());
        assert_eq!(
            desk.tell(&message),
            [rejected(Reason::Unauthentic(SignatureError::Unprotected))],
            "{variant}"
        );
    }
    let (device, class) = (desk.fixture.device.clone(), desk.fixture.class);
    let enrolment = Enrolment { device, key: key.public(), class };
    let message = sign_attached(&key, Kind::Enrolment, Some(key.public().id()), &enrolment.encode());
    assert_eq!(desk.tell(&message), [rejected(Reason::Unauthentic(SignatureError::Unprotected))]);
}

#[test]
fn a_report_counts_only_from_an_accepted_device_with_its_own_key_about_itself() {
    let mut desk = Desk::new();
    let key = desk.fixture.device_key.clone();
    let good = report(&desk, 1);
    let stranger = SigningKey::ed25519(&[99; 32]);
    assert_eq!(
        desk.tell(&signed(&stranger, &good)),
        [rejected(Reason::Unauthentic(SignatureError::Mismatch))]
    );
    let other = Report { device: DeviceId::new("dev-0002").unwrap(), ..good.clone() };
    assert_eq!(desk.tell(&signed(&key, &other)), [rejected(Reason::WrongScope)]);
    let malformed = sign_attached(&key, Kind::Report, None, &[0x80]);
    assert!(matches!(
        desk.tell(&malformed)[..],
        [Output::Event(Event::Rejected { reason: Reason::Malformed(_) })]
    ));
    let empty = Reason::Malformed(DecodeError::Truncated { at: 0 });
    assert_eq!(desk.tell(&[]), [rejected(empty)]);
    for kind in [Kind::Root, Kind::Campaign, Kind::Assignment, Kind::Beacon, Kind::Answer] {
        let message = sign_attached(&key, kind, None, &good.encode());
        assert_eq!(desk.tell(&message), [rejected(Reason::WrongChannel)], "{kind:?}");
    }
    let accepted = desk.standing.take();
    for pending in [false, true] {
        desk.pending = pending;
        assert_eq!(desk.tell(&signed(&key, &good)), [rejected(Reason::NotAccepted)]);
    }
    desk.standing = accepted;
    assert!(matches!(desk.tell(&signed(&key, &good))[..], [Output::Event(Event::Reported { .. })]));
}

#[test]
fn a_device_enrols_with_the_key_that_signed_and_for_itself() {
    let mut desk = Desk::new();
    desk.standing = None;
    let (key, device, class) =
        (desk.fixture.device_key.clone(), desk.fixture.device.clone(), desk.fixture.class);
    let enrolment = Enrolment { device, key: key.public(), class };
    let message = sign_attached(&key, Kind::Enrolment, None, &enrolment.encode());
    assert_eq!(desk.tell(&message), [Output::Event(Event::Enrolled { enrolment: enrolment.clone() })]);
    let stranger = SigningKey::ed25519(&[99; 32]);
    let of_another_key = sign_attached(&stranger, Kind::Enrolment, None, &enrolment.encode());
    assert_eq!(desk.tell(&of_another_key), [rejected(Reason::Unauthentic(SignatureError::Mismatch))]);
    let other = Enrolment { device: DeviceId::new("dev-0002").unwrap(), ..enrolment };
    let other = sign_attached(&key, Kind::Enrolment, None, &other.encode());
    assert_eq!(desk.tell(&other), [rejected(Reason::WrongScope)]);
}

#[test]
fn who_is_not_accepted_gets_nothing_but_a_refusal() {
    let mut desk = Desk::new();
    desk.standing = None;
    let chunks =
        ChunkRequest { payload: TAG, first: ChunkIndex(0), count: 1, per_message: 1, wanted: None }.encode();
    let page = PageRequest { payload: TAG, page: PageNumber::Page(0) }.encode();
    let manifest = DocumentRequest::Manifest(Digest([1; 32]).short()).encode();
    let requests = [desk.hello().encode(), chunks, page, manifest];
    for request in &requests {
        assert_eq!(desk.ask(request), [refused(RefusalCode::Unknown)]);
    }
    desk.pending = true;
    for request in &requests {
        let wait = Refusal { code: RefusalCode::Pending, retry_after_s: Some(30), payload: None };
        assert_eq!(desk.ask(request), [Output::Refuse(wait)]);
    }
    desk.standing = Some(desk.fixture.device_key.public());
    let all = requests.iter().flat_map(|request| desk.ask(request)).collect::<Vec<_>>();
    assert!(!all.iter().any(|output| matches!(output, Output::Refuse(_))), "{all:?}");
}

#[test]
fn the_manifest_of_the_live_release_is_sent_and_no_other() {
    let mut desk = Desk::new();
    let ask = |desk: &mut Desk, digest: Digest| desk.ask(&DocumentRequest::Manifest(digest.short()).encode());
    let not_yours = || vec![rejected(Reason::NotLive), refused(RefusalCode::NotYours)];
    assert_eq!(ask(&mut desk, Digest([1; 32])), [Output::Manifest(Digest([1; 32]))]);
    assert_eq!(ask(&mut desk, Digest([2; 32])), not_yours());
    desk.live = None;
    assert_eq!(ask(&mut desk, Digest([1; 32])), not_yours());
    assert_eq!(desk.ask(&DocumentRequest::Root(2).encode()), [refused(RefusalCode::NotFound)]);
}

#[test]
fn a_device_without_a_release_is_refused_whatever_it_asks_for_of_one() {
    let mut desk = Desk::new();
    desk.live = None;
    let chunks = ChunkRequest { payload: TAG, first: ChunkIndex(0), count: 1, per_message: 1, wanted: None };
    let page = PageRequest { payload: TAG, page: PageNumber::List };
    let not_yours = Refusal { code: RefusalCode::NotYours, retry_after_s: None, payload: Some(TAG) };
    for request in [chunks.encode(), page.encode()] {
        let outputs = desk.ask(&request);
        assert_eq!(outputs, [rejected(Reason::NotLive), Output::Refuse(not_yours)]);
    }
    // No digest is the name of no release.
    let nothing = DocumentRequest::Manifest(Digest([0; 32]).short()).encode();
    assert_eq!(desk.ask(&nothing), [rejected(Reason::NotLive), refused(RefusalCode::NotYours)]);
}

/// Answers that one device may get at once, and one more every two seconds; chunks are bounded by their quota.
#[test]
fn whatever_a_device_asks_it_gets_few_answers() {
    let page = PageRequest { payload: TAG, page: PageNumber::Page(0) }.encode();
    let manifest = DocumentRequest::Manifest(Digest([1; 32]).short()).encode();
    let hello = Desk::new().hello().encode();
    for (request, refusal) in [(page, false), (manifest, false), (hello, false), (vec![0x1f], true)] {
        let mut desk = Desk::new();
        let answers = |desk: &mut Desk| {
            let outputs = desk.ask(&request);
            let too_often = outputs.contains(&rejected(Reason::TooOften));
            let answered = outputs.iter().any(|output| !matches!(output, Output::Event(_)));
            assert!(answered != too_often || refusal, "{outputs:?}");
            answered
        };
        assert_eq!((0..60).filter(|_| answers(&mut desk)).count(), 24);
        desk.now = Instant::from_millis(1999);
        assert!(!answers(&mut desk));
        desk.now = Instant::from_millis(2001);
        assert_eq!((0..9).filter(|_| answers(&mut desk)).count(), 1);
    }
}

#[test]
fn messages_on_channels_that_are_not_the_devices_are_not_read() {
    let mut desk = Desk::new();
    let hello = desk.hello().encode();
    for channel in
        [Channel::Answers, Channel::Assignment, Channel::Beacon, Channel::Group(desk.fixture.group.clone())]
    {
        let input = Input::message(&channel, &hello);
        assert_eq!(desk.feed(input), [rejected(Reason::WrongChannel)]);
    }
}

#[test]
fn the_bytes_of_a_request_are_those_of_the_chunks_that_the_payload_has() {
    let mut desk = Desk::new();
    desk.payloads[0].layout = Layout::new(10, 5000).unwrap();
    let mut asked = |first, count, wanted: Option<Vec<u8>>| {
        let request =
            ChunkRequest { payload: TAG, first: ChunkIndex(first), count, per_message: 1, wanted }.encode();
        match desk.ask(&request).as_slice() {
            [Output::Chunks { bytes, .. }] => *bytes,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(1, 2, None), 2048);
    assert_eq!(asked(3, 2, None), 1024 + 904, "the last one is shorter");
    assert_eq!(asked(0, 4, Some(vec![0b0000_1001])), 2048, "those that are wanted");
}

#[test]
fn a_days_quota_begins_anew_after_a_day_and_counts_what_is_cut_off_as_a_chunk() {
    let mut desk = Desk::new();
    let request = |count| {
        ChunkRequest { payload: TAG, first: ChunkIndex(0), count, per_message: 4, wanted: None }.encode()
    };
    let served = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Chunks { .. }));
    let over = Refusal { code: RefusalCode::OverQuota, retry_after_s: Some(3600), payload: Some(TAG) };
    for _ in 0..3 {
        // What the host did not send costs nothing.
        let Output::Chunks { payload, bytes, .. } = desk.ask(&request(4))[0] else { panic!() };
        desk.session.not_sent(payload, bytes);
        assert!(served(&desk.ask(&request(4))));
    }
    assert_eq!(desk.ask(&request(1)), [rejected(Reason::OverQuota), Output::Refuse(over)]);
    desk.now = Instant::from_millis(24 * 3600 * 1000 - 1);
    assert!(!served(&desk.ask(&request(1))));
    desk.now = Instant::from_millis(24 * 3600 * 1000);
    assert!(served(&desk.ask(&request(4))));
    // A payload of one byte may be asked for as often as bytes make three chunks.
    desk.payloads[0].layout = Layout::new(10, 1).unwrap();
    desk.now = Instant::from_millis(3 * 24 * 3600 * 1000);
    assert_eq!((0..4000).filter(|_| served(&desk.ask(&request(1)))).count(), 3 * 1024);
}

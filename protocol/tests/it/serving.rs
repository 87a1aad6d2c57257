//! The service's session, fed by hand.

use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::ids::{ChunkIndex, DeviceId, Digest, PayloadTag};
use whimbrel_protocol::message::{
    ChunkRequest, PageNumber, PageRequest, Refusal, RefusalCode, Request, State,
};
use whimbrel_protocol::server::{
    DeviceView, Event, Input, Live, LivePayload, Output, Reason, ServerSession, Standing,
};
use whimbrel_protocol::testing::{Direction, Faults, Fixture, Pair, PairOptions, Verdict};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;

use crate::session::{DAY, image};

/// What the service does about one request of a device that runs `payloads`, or nothing.
fn ask(payloads: Option<&[LivePayload]>, request: &[u8]) -> Vec<Output> {
    let key = Fixture::new().device_key.public();
    let view = DeviceView {
        standing: Standing::Accepted { key: &key },
        root_version: 1,
        assignment: None,
        campaigns: &[],
        live: payloads.map(|payloads| Live { release: Digest([1; 32]), payloads }),
    };
    let mut session = ServerSession::new(DeviceId::new("m1").unwrap(), Instant::ZERO);
    let message = Input::message(&Channel::Requests, request);
    session.handle_input(Instant::ZERO, UnixTime::default(), &view, message);
    core::iter::from_fn(|| session.poll_output()).collect()
}

fn payload(tag: u8, size: u64) -> LivePayload {
    LivePayload { tag: PayloadTag([tag; 4]), layout: Layout::new(10, size).unwrap() }
}

fn chunks(tag: u8, first: u32, count: u32) -> Vec<u8> {
    let payload = PayloadTag([tag; 4]);
    ChunkRequest { payload, first: ChunkIndex(first), count, per_message: 64, wanted: None }.encode()
}

fn refused(reason: Reason, code: RefusalCode, tag: u8) -> Vec<Output> {
    let refusal = Refusal { code, retry_after_s: None, payload: Some(PayloadTag([tag; 4])) };
    vec![Output::Event(Event::Rejected { reason }), Output::Refuse(refusal)]
}

#[test]
fn a_request_one_chunk_past_the_end_is_refused() {
    let ours = [payload(1, 64 * 1024 - 1), payload(2, 1)];
    let served = |tag: u8, first: u32, count: u32, bytes: u64| {
        let runs = vec![(ChunkIndex(first), count)];
        let position = usize::from(tag) - 1;
        vec![Output::Chunks { payload: PayloadTag([tag; 4]), position, runs, bytes }]
    };
    let beyond = |tag| refused(Reason::OutOfRange, RefusalCode::NotFound, tag);
    assert_eq!(ask(Some(&ours), &chunks(1, 0, 64)), served(1, 0, 64, 64 * 1024 - 1));
    assert_eq!(ask(Some(&ours), &chunks(1, 63, 1)), served(1, 63, 1, 1023));
    assert_eq!(ask(Some(&ours), &chunks(2, 0, 1)), served(2, 0, 1, 1));
    for (first, count) in [(0, 65), (1, 64), (63, 2), (64, 1), (65, 1), (65_000, 1)] {
        assert_eq!(ask(Some(&ours), &chunks(1, first, count)), beyond(1), "{first} {count}");
    }
    assert_eq!(ask(Some(&ours), &chunks(2, 0, 2)), beyond(2));
    assert_eq!(ask(Some(&ours), &chunks(2, 1, 1)), beyond(2));
}

#[test]
fn a_request_one_page_past_the_end_is_refused() {
    let two_pages = [payload(1, 513 * 1024)];
    let page = |page| PageRequest { payload: PayloadTag([1; 4]), page }.encode();
    for number in [PageNumber::List, PageNumber::Page(0), PageNumber::Page(1)] {
        let sent = vec![Output::Page { payload: PayloadTag([1; 4]), position: 0, page: number }];
        assert_eq!(ask(Some(&two_pages), &page(number)), sent);
    }
    let beyond = refused(Reason::OutOfRange, RefusalCode::NotFound, 1);
    assert_eq!(ask(Some(&two_pages), &page(PageNumber::Page(2))), beyond);
}

#[test]
fn what_is_not_live_is_refused_as_not_yours_also_where_nothing_is() {
    let ours = [payload(1, 64 * 1024)];
    let page = PageRequest { payload: PayloadTag([2; 4]), page: PageNumber::List }.encode();
    for live in [Some(&ours[..]), Some(&[]), None] {
        for request in [chunks(2, 0, 1), page.clone()] {
            assert_eq!(ask(live, &request), refused(Reason::NotLive, RefusalCode::NotYours, 2), "{live:?}");
        }
    }
}

#[test]
fn a_device_never_asks_beyond_the_end() {
    for (size, lossy) in
        [(1, 0), (1023, 0), (1024, 0), (1025, 0), (20_000, 150), (524_288, 20), (524_289, 20)]
    {
        let faults = Faults { delay_ms: (5, 20), rate: 500_000, lose: lossy, ..Faults::default() };
        let options = PairOptions { faults, ..PairOptions::default() };
        let mut pair = Pair::with_release(options, image(size, 3), 10);
        let layout = pair.service.releases[0].layout;
        pair.tap = Some(Box::new(move |_, packet| {
            if packet.direction == Direction::Up && packet.channel == Channel::Requests {
                match Request::decode(&packet.payload).unwrap() {
                    Request::Chunks(request) => {
                        assert!(request.first.0 + request.count <= layout.chunk_count(), "{request:?}");
                    }
                    Request::Page(PageRequest { page: PageNumber::Page(page), .. }) => {
                        assert!(page < layout.page_count(), "{page}");
                    }
                    _ => {}
                }
            }
            vec![packet]
        }));
        assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{size}: {pair:?}");
        let refused = |event: &Event| matches!(event, Event::Rejected { .. });
        assert!(!pair.server_events.iter().any(refused), "{size}: {:?}", pair.server_events);
    }
}

/// A release has several payloads, and each has a quota of its own: nobody gains by turning from one to the next.
#[test]
fn every_payload_of_a_release_has_a_quota_that_turning_to_others_does_not_reset() {
    let payload = |number: u8| LivePayload {
        tag: PayloadTag([number; 4]),
        layout: Layout::new(10, 64 * 1024).unwrap(),
    };
    // Eight patches, and a full payload for each of two slots.
    let payloads: Vec<LivePayload> = (0..10).map(payload).collect();
    let key = Fixture::new().device_key.public();
    let view = DeviceView {
        standing: Standing::Accepted { key: &key },
        root_version: 1,
        assignment: None,
        campaigns: &[],
        live: Some(Live { release: Digest([1; 32]), payloads: &payloads }),
    };
    let now = Instant::ZERO;
    let mut session = ServerSession::new(DeviceId::new("m1").unwrap(), now);
    let mut served = vec![0; payloads.len()];
    let mut refused = 0;
    for _ in 0..5 {
        for (payload, served) in payloads.iter().zip(&mut served) {
            let (tag, first) = (payload.tag, ChunkIndex(0));
            let request = ChunkRequest { payload: tag, first, count: 64, per_message: 8, wanted: None };
            let message = Input::Request(Ok(Request::Chunks(request)));
            session.handle_input(now, UnixTime::default(), &view, message);
            while let Some(output) = session.poll_output() {
                match output {
                    Output::Chunks { payload, position, bytes, .. } => {
                        assert_eq!((payload, payloads[position].tag), (tag, tag));
                        *served += bytes;
                    }
                    Output::Refuse(refusal) => {
                        assert_eq!((refusal.code, refusal.payload), (RefusalCode::OverQuota, Some(tag)));
                        refused += 1;
                    }
                    _ => {}
                }
            }
        }
    }
    assert_eq!(served, vec![3 * 64 * 1024; payloads.len()]);
    assert_eq!(refused, 2 * payloads.len());
}

//! The service's session, fed by hand.

use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::ids::{ChunkIndex, DeviceId, Digest, PayloadTag};
use whimbrel_protocol::message::{ChunkRequest, RefusalCode};
use whimbrel_protocol::server::{DeviceView, Input, Live, LivePayload, Output, ServerSession, Standing};
use whimbrel_protocol::testing::Fixture;
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;

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
            let message = Input::Message { channel: Channel::Requests, payload: &request.encode() };
            session.handle_input(now, UnixTime::default(), &view, message);
            while let Some(output) = session.poll_output() {
                match output {
                    Output::Chunks { payload, bytes, .. } => {
                        assert_eq!(payload, tag);
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

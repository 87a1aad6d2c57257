//! The client against a broker that sends what it likes.

use core::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::timeout;

use whimbrel_sim::error::ClientError;
use whimbrel_sim::meter::Ledger;
use whimbrel_sim::mqtt::{Client, Delivery, Event, UNACKNOWLEDGED_MAX};

use crate::support::{CHUNK, PATIENCE, options};

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// A client that is logged in, and the broker's end of its connection.
async fn logged_in(ledger: &mut Ledger) -> (Client<DuplexStream>, DuplexStream) {
    let (device, mut broker) = tokio::io::duplex(256 * 1024);
    broker.write_all(&CONNACK).await.unwrap();
    let (client, _) = Client::login(device, options("d0"), ledger).await.unwrap();
    let mut connect = [0; 16];
    broker.read_exact(&mut connect).await.unwrap();
    assert_eq!(connect[..2], [0x10, 14], "CONNECT of a client id of two bytes");
    (client, broker)
}

/// What the client makes of `bytes` and the end of the connection after them.
async fn events(bytes: &[u8]) -> (Vec<Event>, ClientError, Ledger) {
    let mut ledger = Ledger::default();
    let (mut client, mut broker) = logged_in(&mut ledger).await;
    broker.write_all(bytes).await.unwrap();
    broker.shutdown().await.unwrap();
    let mut events = Vec::new();
    loop {
        match timeout(PATIENCE, client.next(&mut ledger)).await.unwrap() {
            Ok(Event::Activity) => {}
            Ok(event) => events.push(event),
            Err(error) => {
                client.finish(&mut ledger);
                return (events, error, ledger);
            }
        }
    }
}

fn encoded(packets: &[Packet]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for packet in packets {
        packet.write(&mut bytes, 1 << 20).unwrap();
    }
    bytes
}

fn publish(qos: QoS, payload: &[u8]) -> Packet {
    let mut publish = Publish::new("ota/d/d0/c", qos, payload);
    publish.pkid = 9;
    Packet::Publish(publish)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_broker_sends_is_an_error_or_an_event_and_every_byte_is_booked(
        start in prop::sample::select(vec![&[][..], &[0x30], &[0x32, 20, 0, 10], &[0x90], &[0x40, 2], &[0x20, 2]]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let bytes = [start, &noise].concat();
        let (_, error, ledger) = runtime.block_on(events(&bytes));
        prop_assert_eq!(ledger.check(), Ok(()), "{}", error);
        if matches!(error, ClientError::Closed) {
            prop_assert_eq!(ledger.mqtt_bytes_down, 4 + bytes.len() as u64);
        }
    }
}

#[tokio::test]
async fn messages_that_arrive_together_are_handed_out_one_by_one() {
    let sent = encoded(&[
        publish(QoS::AtMostOnce, b"one"),
        Packet::PingResp,
        publish(QoS::AtMostOnce, &[CHUNK; 900]),
    ]);
    let (events, error, ledger) = events(&sent).await;
    assert!(matches!(error, ClientError::Closed));
    let [Event::Message { payload: one, .. }, Event::Pong, Event::Message { payload: two, .. }] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((&one[..], &two[..]), (&b"one"[..], &[CHUNK; 900][..]));
    assert_eq!(ledger.data_bytes_down, 1 + 2 + 2 + 10 + 900);
    assert_eq!(ledger.control_bytes_down, 4 + 2 + 1 + 1 + 2 + 10 + 3);
}

#[tokio::test]
async fn a_message_of_qos_1_is_acknowledged_once() {
    let mut ledger = Ledger::default();
    let (mut client, mut broker) = logged_in(&mut ledger).await;
    broker.write_all(&encoded(&[publish(QoS::AtLeastOnce, b"report"), Packet::PingResp])).await.unwrap();
    assert!(matches!(client.next(&mut ledger).await, Ok(Event::Message { .. })));
    assert!(matches!(client.next(&mut ledger).await, Ok(Event::Pong)));
    let mut answer = Vec::new();
    let broker = async {
        let broker = &mut broker;
        broker.read_to_end(&mut answer).await.unwrap();
        broker.shutdown().await.unwrap();
    };
    let (closed, ()) = tokio::join!(client.close(&mut ledger), broker);
    closed.unwrap();
    assert_eq!(answer, encoded(&[Packet::PubAck(PubAck::new(9)), Packet::Disconnect]));
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_the_connection_before_it_is_read() {
    let (_, error, _) = events(&[0x30, 0xff, 0xff, 0x7f]).await;
    assert!(matches!(error, ClientError::Packet(_)), "{error}");
}

#[tokio::test]
async fn packets_that_no_broker_sends_now_end_the_connection() {
    for wrong in [&CONNACK[..], &[0xc0, 0], &[0x34, 6, 0, 1, b'a', 0, 9, 1], &[0xf0, 0], &[0x30, 0]] {
        let (_, error, _) = events(wrong).await;
        assert!(matches!(error, ClientError::Unexpected(_) | ClientError::Packet(_)), "{wrong:?}: {error}");
    }
}

#[tokio::test]
async fn a_refused_login_says_the_code_and_counts_nothing() {
    let (device, mut broker) = tokio::io::duplex(1024);
    broker.write_all(&[0x20, 2, 0, 5]).await.unwrap();
    let mut ledger = Ledger::default();
    let outcome = Client::login(device, options("d0"), &mut ledger).await;
    assert!(matches!(outcome, Err(ClientError::Refused { code: 5 })), "{outcome:?}");
    assert_eq!(ledger, Ledger::default());
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_not_sent_means_nothing() {
    let mut ledger = Ledger::default();
    let (mut client, mut broker) = logged_in(&mut ledger).await;
    let id =
        client.publish("ota/d/d0/r", Bytes::from_static(b"report"), Delivery::AtLeastOnce).unwrap().unwrap();
    let strangers = [
        Packet::PubAck(PubAck::new(id + 1)),
        Packet::PubAck(PubAck::new(id)),
        Packet::PubAck(PubAck::new(id)),
    ];
    broker.write_all(&encoded(&strangers)).await.unwrap();
    broker.write_all(&encoded(&[Packet::PingResp])).await.unwrap();
    assert!(matches!(client.next(&mut ledger).await, Ok(Event::Acknowledged(known)) if known == id));
    assert!(matches!(client.next(&mut ledger).await, Ok(Event::Pong)), "only one of the three was meant");
    assert_eq!(client.unacknowledged(), 0);
}

#[tokio::test]
async fn a_broker_that_takes_nothing_is_met_by_limits_not_by_memory() {
    let (device, mut broker) = tokio::io::duplex(64);
    broker.write_all(&CONNACK).await.unwrap();
    let mut ledger = Ledger::default();
    let (mut client, _) = Client::login(device, options("d0"), &mut ledger).await.unwrap();
    for _ in 0..UNACKNOWLEDGED_MAX {
        client.publish("r", Bytes::from_static(b"report"), Delivery::AtLeastOnce).unwrap();
    }
    let more = client.publish("r", Bytes::from_static(b"report"), Delivery::AtLeastOnce);
    assert!(matches!(more, Err(ClientError::Full { .. })), "{more:?}");
    let mut published: u64 = 0;
    let full = loop {
        match client.publish("q", Bytes::from_static(&[7; 500]), Delivery::AtMostOnce) {
            Ok(_) => published += 1,
            Err(error) => break error,
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(client.poll_next(&mut cx, &mut ledger), Poll::Pending));
    };
    assert!(matches!(full, ClientError::Full { .. }), "{full}");
    assert!(published < 40, "{published}");
    client.finish(&mut ledger);
    assert_eq!(ledger.check(), Ok(()), "what was not taken is not counted");
}

#[tokio::test]
async fn texts_that_are_too_long_are_refused_before_anything_is_sent() {
    let mut ledger = Ledger::default();
    let (mut client, _broker) = logged_in(&mut ledger).await;
    let long = "x".repeat(300);
    assert!(matches!(
        client.publish(&long, Bytes::new(), Delivery::AtMostOnce),
        Err(ClientError::TooLong { .. })
    ));
    let subscribed = client.subscribe(&[(long, Delivery::AtMostOnce)]);
    assert!(matches!(subscribed, Err(ClientError::TooLong { .. })));
    let huge = Bytes::from(vec![0; 20_000]);
    assert!(matches!(client.publish("q", huge, Delivery::AtMostOnce), Err(ClientError::TooLong { .. })));
    assert_eq!(client.queued_bytes(), 0);
}

#[tokio::test]
async fn bytes_that_complete_no_packet_are_a_sign_of_life() {
    let mut ledger = Ledger::default();
    let (mut client, mut broker) = logged_in(&mut ledger).await;
    let packet = encoded(&[publish(QoS::AtMostOnce, &[CHUNK; 100])]);
    for part in packet.chunks(40) {
        broker.write_all(part).await.unwrap();
        let event = timeout(PATIENCE, client.next(&mut ledger)).await.unwrap().unwrap();
        let whole = ledger.mqtt_bytes_down == 4 + packet.len() as u64;
        assert!(
            matches!((&event, whole), (Event::Activity, false) | (Event::Message { .. }, true)),
            "{event:?}"
        );
    }
    assert_eq!(ledger.data_messages, 1);
}

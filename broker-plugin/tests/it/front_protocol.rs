//! The door speaks MQTT 3.1.1 and 5 as clients expect.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, QoS};

use crate::front_support::{Client, Hello, House, PATIENCE, packet, publish, subscribe, unsubscribe};

/// Runs a future with a guard against waiting for ever.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

#[test]
fn rumqttc_of_both_versions_exchanges_messages_with_the_service() {
    let house = House::open();
    let port = house.addr().port();
    run(async {
        let mut options = MqttOptions::new("m1-ota", "127.0.0.1", port);
        options.set_credentials("m1", "");
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe("ota/d/m1/c", QoS::AtLeastOnce).await.unwrap();
        client.publish("ota/d/m1/q", QoS::AtLeastOnce, false, "v4").await.unwrap();
        loop {
            if let Event::Incoming(rumqttc::Packet::Publish(message)) = events.poll().await.unwrap() {
                assert_eq!((&message.payload[..], message.qos), (&b"re:v4"[..], QoS::AtLeastOnce));
                break;
            }
        }
    });
    run(async {
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
        let mut options = MqttOptions::new("m2", "127.0.0.1", port);
        options.set_outgoing_inflight_upper_limit(16);
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe("ota/d/m2/c", QoS::AtLeastOnce).await.unwrap();
        client.publish("ota/d/m2/q", QoS::AtLeastOnce, false, "v5").await.unwrap();
        loop {
            if let Event::Incoming(Incoming::Publish(message)) = events.poll().await.unwrap() {
                assert_eq!((&message.payload[..], message.qos), (&b"re:v5"[..], QoS::AtLeastOnce));
                break;
            }
        }
    });
}

#[test]
fn a_retained_document_comes_with_the_subscription_and_its_update_without_the_flag() {
    let house = House::open();
    house.publish("ota/d/m1/s", b"first", true);
    house.publish("ota/t", b"beacon", true);
    house.all_published();
    for level in [4, 5] {
        let mut client = Client::let_in(house.addr(), level, "m1");
        assert_eq!(client.subscribe(&[("ota/d/m1/s", 1), ("ota/t", 0)]), [1, 0]);
        let mut got = [client.expect_publish(), client.expect_publish()];
        got.sort_by(|a, b| a.topic.cmp(&b.topic));
        assert!(got.iter().all(|message| message.retain));
        assert_eq!(got[0].payload, if level == 4 { &b"first"[..] } else { b"second" });
        assert_eq!((got[0].qos, got[1].qos), (1, 0));
        client.ack(got[0].pkid);
        house.publish("ota/d/m1/s", b"second", true);
        let update = client.expect_publish();
        assert_eq!((&update.payload[..], update.retain), (&b"second"[..], false));
        client.ack(update.pkid);
        client.ping();
    }
    house.publish("ota/d/m1/s", b"", true);
    house.all_published();
    let mut client = Client::let_in(house.addr(), 4, "m1");
    assert_eq!(client.subscribe(&[("ota/d/m1/s", 1)]), [1]);
    // What is published now would come behind what was kept.
    house.publish("ota/d/m1/s", b"mark", false);
    assert_eq!(client.expect_publish().payload, b"mark");
}

#[test]
fn qos_1_is_the_most_that_is_granted() {
    let house = House::open();
    for level in [4, 5] {
        let mut client = Client::let_in(house.addr(), level, "m1");
        assert_eq!(client.subscribe(&[("ota/d/m1/c", 2), ("ota/t", 0)]), [1, 0]);
        house.publish("ota/d/m1/c", b"x", false);
        assert_eq!(client.expect_publish().qos, 1);
    }
}

#[test]
fn a_publish_with_qos_2_closes_the_connection() {
    let house = House::open();
    for level in [4, 5] {
        let mut client = Client::let_in(house.addr(), level, "m1");
        client.publish("ota/d/m1/q", b"x", 2, false);
        assert_eq!(client.expect_closed(), (level == 5).then_some(0x9B));
    }
    assert_eq!(house.count(|it| &it.publish_refused_qos2), 2);
    assert!(house.heard_so_far().is_empty());
}

#[test]
fn one_subscribe_may_be_granted_in_part() {
    let house = House::open();
    for level in [4, 5] {
        let mut client = Client::let_in(house.addr(), level, "m1");
        let codes = client.subscribe(&[
            ("ota/d/m2/c", 0),
            ("ota/d/m1/c", 1),
            ("#", 0),
            ("ota/g/all", 0),
            ("ota/d/m1/c", 0),
            ("ota/g/west", 1),
        ]);
        // The fifth is the second again and keeps its QoS.
        assert_eq!(codes, [0x80, 1, 0x80, 0, 1, 0x80]);
        assert_eq!(client.subscribe(&[("ota/g/all", 1)]), [0]);
        assert_eq!(client.subscribe(&[("#", 1)]), [0x80]);
    }
}

#[test]
fn an_unsubscribe_is_always_answered_and_ends_the_messages() {
    let house = House::open();
    for level in [4, 5] {
        let mut client = Client::let_in(house.addr(), level, "m1");
        assert_eq!(client.subscribe(&[("ota/d/m1/c", 0), ("ota/t", 0)]), [0, 0]);
        client.send(&unsubscribe(level, 300, &["never/had", "ota/d/m1/c", "#"]));
        let ack = client.receive().unwrap();
        assert_eq!((ack.first, &ack.body[..2]), (0xB0, &[1, 44][..]));
        if level == 5 {
            assert_eq!(ack.body[2..], [0, 0x11, 0, 0x11]);
        }
        client.ping();
        house.publish("ota/d/m1/c", b"no", false);
        house.publish("ota/t", b"yes", false);
        assert_eq!(client.expect_publish().payload, b"yes");
        // And it can be had again.
        assert_eq!(client.subscribe(&[("ota/d/m1/c", 1)]), [1]);
        house.publish("ota/d/m1/c", b"again", false);
        let message = client.expect_publish();
        assert_eq!((&message.payload[..], message.qos), (&b"again"[..], 1));
    }
}

#[test]
fn packets_that_come_together_with_connect_are_served() {
    let house = House::open();
    for level in [4, 5] {
        let mut client = Client::silent(house.addr(), level);
        let hello = Hello { client_id: "m1", ..Hello::default() };
        let all = [
            crate::front_support::connect(level, &hello),
            subscribe(level, 7, &[("ota/d/m1/c", 0)]),
            publish(level, b"ota/d/m1/q", b"early", 0, false),
        ]
        .concat();
        client.send(&all);
        assert_eq!(client.receive().unwrap().first, 0x20);
        assert_eq!(client.receive().unwrap().first, 0x90);
        assert_eq!(client.expect_publish().payload, b"re:early");
    }
}

#[test]
fn packets_that_come_byte_by_byte_are_served() {
    let house = House::open();
    let mut client = Client::silent(house.addr(), 4);
    let hello = Hello { client_id: "m1", ..Hello::default() };
    for byte in crate::front_support::connect(4, &hello) {
        client.send(&[byte]);
    }
    assert_eq!(client.receive().unwrap().body, [0, 0]);
    for byte in publish(4, b"ota/d/m1/q", b"slow", 1, false) {
        client.send(&[byte]);
    }
    assert_eq!(client.receive().unwrap().first, 0x40);
    assert_eq!(house.hear().payload, &b"slow"[..]);
}

#[test]
fn what_was_said_before_disconnect_arrives_and_the_will_does_not() {
    let house = House::open();
    let will = Some(("ota/d/m1/r", b"will".as_slice(), 0, false));
    for level in [4, 5] {
        let hello = Hello { client_id: "m1", will, ..Hello::default() };
        let (mut client, code) = Client::knock(house.addr(), level, &hello);
        assert_eq!(code, Some(0));
        client.send(&[publish(level, b"ota/d/m1/q", b"last words", 0, false), vec![0xE0, 0]].concat());
        client.expect_closed();
        assert_eq!(house.hear().payload, &b"last words"[..]);
    }
    assert!(house.heard_so_far().is_empty());
    // Version 5 can ask for it all the same.
    let hello = Hello { client_id: "m1", will, ..Hello::default() };
    let (mut client, _) = Client::knock(house.addr(), 5, &hello);
    client.send(&[0xE0, 1, 4]);
    assert_eq!(house.hear().payload, &b"will"[..]);
    assert_eq!(house.count(|it| &it.wills_published), 1);
}

#[test]
fn version_5_clients_are_told_the_terms() {
    let house = House::open();
    let mut client = Client::silent(house.addr(), 5);
    let hello = Hello { client_id: "m1", ..Hello::default() };
    client.send(&crate::front_support::connect(5, &hello));
    let properties = client.receive().unwrap().body[3..].to_vec();
    let has = |property: &[u8]| properties.windows(property.len()).any(|window| window == property);
    assert!(has(&[17, 0, 0, 0, 0]), "session expiry 0");
    assert!(has(&[36, 1]), "maximum QoS 1");
    assert!(has(&[39, 0, 1, 4, 0]), "maximum packet size 65 KiB");
    assert!(
        has(&[40, 0]) && has(&[41, 0]) && has(&[42, 0]),
        "no wildcards, identifiers, shared subscriptions"
    );
    assert!(has(&[19, 0xff, 0xff]), "a keep alive of 0 is not unlimited");
}

#[test]
fn a_version_5_client_gets_no_packet_over_its_maximum() {
    let house = House::open();
    let hello = Hello { client_id: "m1", properties: &[39, 0, 0, 0, 100], ..Hello::default() };
    let (mut client, code) = Client::knock(house.addr(), 5, &hello);
    assert_eq!(code, Some(0));
    assert_eq!(client.subscribe(&[("ota/d/m1/c", 1)]), [1]);
    // More than the 100 in flight: those left out must not stop the others.
    for _ in 0..150 {
        house.publish("ota/d/m1/c", &[0; 200], false);
    }
    house.publish("ota/d/m1/c", b"fits", false);
    assert_eq!(client.expect_publish().payload, b"fits");
    assert_eq!(house.count(|it| &it.messages_too_large_for_client), 150);
}

#[test]
fn a_version_5_client_that_takes_few_messages_at_once_gets_qos_0() {
    let house = House::open();
    let hello = Hello { client_id: "m1", properties: &[33, 0, 10], ..Hello::default() };
    let (mut client, _) = Client::knock(house.addr(), 5, &hello);
    assert_eq!(client.subscribe(&[("ota/d/m1/c", 1)]), [0]);
}

#[test]
fn version_5_forms_that_the_door_does_not_speak_are_refused() {
    let house = House::open();
    // Extended authentication.
    let properties = [&[21, 0, 5][..], b"SCRAM"].concat();
    let hello = Hello { client_id: "m1", properties: &properties, ..Hello::default() };
    assert_eq!(Client::knock(house.addr(), 5, &hello).1, Some(0x8C));
    // A topic alias.
    let mut client = Client::let_in(house.addr(), 5, "m1");
    client.send(&packet(0x30, b"\0\x0aota/d/m1/q\x03\x23\0\x01x"));
    assert_eq!(client.expect_closed(), Some(0x94));
    assert_eq!(house.count(|it| &it.publish_refused_alias), 1);
    // A subscription identifier.
    let mut client = Client::let_in(house.addr(), 5, "m1");
    client.send(&packet(0x82, b"\0\x07\x02\x0b\x05\0\x0aota/d/m1/c\0"));
    assert_eq!(client.expect_closed(), Some(0x82));
    // AUTH, and packets that only servers send.
    for first in [0x00, 0x20, 0x90, 0xB0, 0xD0, 0xF0, 0x50, 0x62, 0x70] {
        let mut client = Client::let_in(house.addr(), 5, "m1");
        client.send(&packet(first, &[0, 1, 0, 0]));
        assert_eq!(client.expect_closed(), Some(0x82), "{first:#x}");
    }
    house.prove_serving();
}

#[test]
fn other_protocols_and_versions_are_turned_away() {
    let house = House::open();
    for level in [0, 3, 6, 0x84] {
        let (_, code) = Client::knock(house.addr(), level, &Hello { client_id: "m1", ..Hello::default() });
        assert_eq!(code, Some(1), "unacceptable protocol version");
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00",
        &[0x30, 3, 0, 1, b'x'],
        &[0x10, 0],
        &[0x10, 0xff, 0xff, 0xff, 0xff],
        &[0x10, 0xff, 0xff, 0x7f],
        b"\x10\x0c\0\x06MQIsdp\x03\x02\0\x3c",
        b"\x10\x0a\0\x04MQTT\x04\x02\0\x3c",
    ] {
        let mut client = Client::silent(house.addr(), 4);
        client.send(bytes);
        let answer = client.receive();
        assert!(answer.is_none(), "{bytes:?}: {answer:?}");
    }
    assert_eq!(house.count(|it| &it.refused_protocol), 12);
    house.prove_serving();
}

#[test]
fn the_two_clients_of_a_device_are_connected_at_once() {
    let house = House::open();
    let mut own = Client::let_in(house.addr(), 4, "m1");
    let hello = Hello { client_id: "m1-ota", user_name: Some("m1"), ..Hello::default() };
    let (mut agent, code) = Client::knock(house.addr(), 4, &hello);
    assert_eq!(code, Some(0));
    // And another device that calls itself like the agent does not disturb it.
    let mut other = Client::let_in(house.addr(), 4, "m1-ota");
    own.ping();
    agent.ping();
    other.ping();
    assert_eq!(house.count(|it| &it.takeovers), 0);
    assert_eq!(house.count(|it| &it.connected), 3);
}

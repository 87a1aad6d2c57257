//! Both links do the same: one suite, run on the embedded broker and on mosquitto.

use std::net::SocketAddr;
use std::sync::Arc;

use whimbrel_service::attach::{Delivery, EmbeddedLink, LinkError, QUEUE_MAX};
use whimbrel_service::front::{FrontConfig, FrontDoor};

use crate::attach_support::{Driven, Mosquitto, config, outgoing};
use crate::front_support::{Client, TestAccess};

/// Runs a part of the suite on both.
fn on_both(part: fn(&Driven, SocketAddr)) {
    let front = FrontConfig { listen: "127.0.0.1:0".parse().unwrap(), ..FrontConfig::default() };
    let on_death = Box::new(|death| panic!("{death}"));
    let door = Arc::new(FrontDoor::open(front, Arc::new(TestAccess), on_death).unwrap());
    let for_link = Arc::clone(&door);
    let embedded = Driven::start(move || EmbeddedLink::open(&for_link).unwrap());
    assert!(embedded.await_up().is_empty());
    part(&embedded, door.local_addr());

    let mosquitto = Mosquitto::start();
    let client = Driven::client(config(mosquitto.addr()));
    assert!(client.await_up().is_empty(), "the first attempt is made at once and succeeds");
    part(&client, mosquitto.addr());
}

#[test]
fn messages_of_devices_come_in() {
    on_both(|link, addr| {
        for device in ["m1", "m2"] {
            let mut device_client = Client::let_in(addr, 4, device);
            for (leaf, qos) in [("q", 0), ("r", 1), ("r", 0), ("q", 1)] {
                let (topic, payload) = (format!("ota/d/{device}/{leaf}"), format!("{leaf}{qos}"));
                device_client.publish(&topic, payload.as_bytes(), qos, false);
                let message = link.message();
                assert_eq!(
                    (&message.topic[..], &message.payload[..]),
                    (topic.as_bytes(), payload.as_bytes())
                );
                assert!(!message.retained);
                if qos > 0 {
                    assert_eq!(device_client.receive().unwrap().first, 0x40);
                }
            }
            device_client.disconnect();
        }
    });
}

#[test]
fn messages_to_devices_go_out_at_the_delivery_that_is_asked_for() {
    on_both(|link, addr| {
        let mut device = Client::let_in(addr, 4, "m1");
        assert_eq!(device.subscribe(&[("ota/d/m1/c", 0), ("ota/d/m1/s", 1)]), [0, 1]);
        link.publish("ota/d/m1/c", b"chunk", Delivery::AtMostOnce, false);
        let chunk = device.expect_publish();
        assert_eq!((chunk.topic.as_str(), &chunk.payload[..], chunk.qos), ("ota/d/m1/c", &b"chunk"[..], 0));
        link.publish("ota/d/m1/s", b"order", Delivery::AtLeastOnce, false);
        let order = device.expect_publish();
        assert_eq!((order.topic.as_str(), &order.payload[..], order.qos), ("ota/d/m1/s", &b"order"[..], 1));
        device.ack(order.pkid);
        device.ping();
    });
}

#[test]
fn retained_messages_are_kept_replaced_and_forgotten() {
    on_both(|link, addr| {
        let current = |filter: &str| {
            let mut device = Client::let_in(addr, 4, "m1");
            device.subscribe(&[(filter, 1)]);
            // Both brokers send what is published now behind what they have kept.
            link.publish(filter, b"mark", Delivery::AtLeastOnce, false);
            let first = device.expect_publish();
            device.disconnect();
            (first.payload != b"mark").then_some((first.payload, first.retain))
        };
        link.publish("ota/g/all", b"not kept", Delivery::AtLeastOnce, false);
        for document in [&b"first"[..], b"second"] {
            link.publish("ota/g/all", document, Delivery::AtLeastOnce, true);
            settle(link, addr);
            assert_eq!(current("ota/g/all"), Some((document.to_vec(), true)));
        }
        link.publish("ota/g/all", b"", Delivery::AtLeastOnce, true);
        settle(link, addr);
        assert_eq!(current("ota/g/all"), None);
    });
}

#[test]
fn many_messages_behind_one_flush_arrive_in_order() {
    on_both(|link, addr| {
        let mut device = Client::let_in(addr, 4, "m1");
        assert_eq!(device.subscribe(&[("ota/d/m1/c", 0)]), [0]);
        let all = (0..3_000_u32)
            .map(|number| outgoing("ota/d/m1/c", &number.to_be_bytes(), Delivery::AtMostOnce, false))
            .collect();
        link.publish_all(all).unwrap();
        for number in 0..3_000_u32 {
            assert_eq!(device.expect_publish().payload, number.to_be_bytes());
        }
    });
}

#[test]
fn a_message_that_cannot_be_sent_is_refused_and_the_others_go() {
    on_both(|link, addr| {
        let mut device = Client::let_in(addr, 4, "m1");
        assert_eq!(device.subscribe(&[("ota/d/m1/c", 0)]), [0]);
        for topic in ["", "ota/d/+/c", "#", "a\0b"] {
            let error = link.publish_all(vec![outgoing(topic, b"x", Delivery::AtMostOnce, false)]);
            assert!(matches!(error, Err(LinkError::BadTopic { .. })), "{topic:?} {error:?}");
        }
        link.publish("ota/d/m1/c", b"good", Delivery::AtMostOnce, false);
        assert_eq!(device.expect_publish().payload, b"good");
    });
}

#[test]
fn more_messages_than_the_queue_holds_are_refused_until_it_is_flushed() {
    on_both(|link, addr| {
        let all = vec![outgoing("ota/t", b"x", Delivery::AtMostOnce, false); QUEUE_MAX + 1];
        let error = link.publish_all(all).unwrap_err();
        assert!(matches!(error, LinkError::QueueFull { limit: QUEUE_MAX }), "{error}");
        settle(link, addr);
    });
}

#[test]
fn a_service_that_only_sends_while_devices_only_send_does_not_hang() {
    on_both(|link, addr| {
        let mut reader = Client::let_in(addr, 4, "m2");
        assert_eq!(reader.subscribe(&[("ota/d/m2/c", 0)]), [0]);
        // More than every buffer on the way holds, in both directions at once; nobody takes events meanwhile.
        let message = outgoing("ota/d/m2/c", &[7; 2048], Delivery::AtMostOnce, false);
        link.flood(20_000, message);
        let mut sender = Client::let_in(addr, 4, "m1");
        for _ in 0..20_000 {
            sender.publish("ota/d/m1/q", &[9; 1024], 0, false);
        }
        link.publish_after_flood(&mut reader);
        settle(link, addr);
    });
}

impl Driven {
    /// Waits for the end of a flood while the reader reads, and for a last message behind it.
    fn publish_after_flood(&self, reader: &mut Client) {
        std::thread::scope(|scope| {
            scope.spawn(|| while reader.expect_publish().payload != b"end" {});
            self.flooded();
            self.publish("ota/d/m2/c", b"end", Delivery::AtLeastOnce, false);
        });
    }
}

#[test]
fn a_device_gets_the_same_messages_in_the_same_order_on_both() {
    on_both(|link, addr| {
        let mut device = Client::let_in(addr, 4, "m1");
        let topics = [("ota/d/m1/c", 0), ("ota/d/m1/s", 1), ("ota/g/all", 1), ("ota/t", 0)];
        assert_eq!(device.subscribe(&topics), [0, 1, 1, 0]);
        let message = |number: u32| {
            let (topic, qos) = topics[(number * 7 % 11 % 4) as usize];
            let delivery = if qos == 0 { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
            outgoing(topic, &number.to_be_bytes(), delivery, false)
        };
        for first in (0..300).step_by(30) {
            link.publish_all((first..first + 30).map(message).collect()).unwrap();
        }
        for number in 0..300 {
            let (sent, got) = (message(number), device.expect_publish());
            assert_eq!((got.topic.as_bytes(), &got.payload[..]), (&sent.topic[..], &sent.payload[..]));
            assert_eq!(got.qos, u8::from(sent.delivery == Delivery::AtLeastOnce));
            if got.pkid > 0 {
                device.ack(got.pkid);
            }
        }
        device.disconnect();
    });
}

/// A question of a device comes in and an answer goes out; what was sent before has arrived by then.
fn settle(link: &Driven, addr: SocketAddr) {
    let mut device = Client::let_in(addr, 4, "settler");
    assert_eq!(device.subscribe(&[("ota/d/settler/c", 0)]), [0]);
    device.publish("ota/d/settler/q", b"?", 0, false);
    while link.message().topic != "ota/d/settler/q" {}
    link.publish("ota/d/settler/c", b"!", Delivery::AtMostOnce, false);
    assert_eq!(device.expect_publish().payload, b"!");
    device.disconnect();
}

//! What we rely on in rumqttd's router, beyond its documentation: an update that changes it fails here.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use rumqttd::local::LinkRx;
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, PingReq, PubAck, PubAckReason, Publish, QoS,
    RetainForwardRule, Subscribe, Unsubscribe,
};
use rumqttd::{Forward, Notification};
use whimbrel_service::front::{FrontConfig, FrontDoor, Link, RouterHandle, end_process};

use crate::front_support::{Client, House, PATIENCE, TestAccess, deadline, packet};

fn open(on_death: whimbrel_service::front::OnRouterDeath) -> FrontDoor {
    let config = FrontConfig { listen: "127.0.0.1:0".parse().unwrap(), ..FrontConfig::default() };
    FrontDoor::open(config, Arc::new(TestAccess), on_death).unwrap()
}

/// What the door never does: a `Ready` from a link that the router has dropped.
fn kill(router: &RouterHandle) {
    let (mut link, mut rx) = router.link(".assassin").unwrap();
    let reason_code = DisconnectReasonCode::NormalDisconnection;
    say(&mut link, Packet::Disconnect(Disconnect { reason_code }, None));
    while rx.recv().is_ok() {}
    rx.ready().unwrap();
}

#[test]
fn a_dead_router_ends_the_process_with_a_message() {
    const CHILD: &str = "WHIMBREL_TEST_DEAD_ROUTER";
    if std::env::var_os(CHILD).is_some() {
        let door = open(Box::new(end_process));
        kill(door.router());
        std::thread::sleep(PATIENCE);
        unreachable!("the process should have ended");
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "front_router::a_dead_router_ends_the_process_with_a_message", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{said}");
    assert!(
        said.contains("whimbreld: the MQTT router has stopped; nothing can be served any more"),
        "{said}"
    );
}

#[test]
fn links_to_a_dead_router_fail_at_once() {
    let (tell, died) = std::sync::mpsc::channel();
    let door = open(Box::new(move |death| tell.send(death).unwrap()));
    let (mut link, mut rx) = door.router().link(".one").unwrap();
    kill(door.router());
    died.recv_timeout(PATIENCE).unwrap();
    // The heartbeat may have noticed before the router's thread has closed its channel.
    while link.notify().is_ok() {
        std::thread::yield_now();
    }
    assert!(door.router().link(".two").is_err());
    while rx.recv().is_ok() {}
    // And the door still closes.
    drop(link);
    door.close();
}

#[test]
fn the_router_delivers_at_the_qos_of_the_subscription() {
    let house = House::open();
    let (mut link, mut rx) = house.door.router().link(".reader").unwrap();
    subscribe(&mut link, "app/t", QoS::AtLeastOnce);
    house.publish("app/t", b"x", false); // A link can publish at QoS 0 only.
    let publish = next_forward(&mut rx).publish;
    // The field is private, and so is its name in this form.
    assert!(format!("{publish:?}").contains("AtLeastOnce"), "{publish:?}");
}

#[test]
fn properties_of_a_version_5_message_do_not_reach_the_router() {
    let house = House::open_with(|config| config.application_publish = vec!["tele/%d".to_owned()]);
    let (mut link, mut rx) = house.door.router().link(".reader").unwrap();
    subscribe(&mut link, "tele/+", QoS::AtMostOnce);
    say(&mut link, Packet::PingReq(PingReq));
    packets_until_pong(&mut rx);
    let mut client = Client::let_in(house.addr(), 5, "m1");
    let user_property = b"\x26\0\x01k\0\x05value";
    let body = [&b"\0\x07tele/m1"[..], &[user_property.len() as u8], user_property, b"x"].concat();
    client.send(&packet(0x30, &body));
    // It keeps them, and does not count them to the size of its log.
    let forward = next_forward(&mut rx);
    assert_eq!((&forward.publish.payload[..], forward.properties), (&b"x"[..], None));
}

#[test]
fn the_router_never_answers_an_unsubscribe_of_a_filter_that_nobody_has() {
    let house = House::open();
    let (mut link, mut rx) = house.door.router().link(".reader").unwrap();
    say(&mut link, Packet::Unsubscribe(Unsubscribe { pkid: 5, filters: vec!["nobody".to_owned()] }, None));
    say(&mut link, Packet::PingReq(PingReq));
    let answers = packets_until_pong(&mut rx);
    assert!(!answers.iter().any(|packet| matches!(packet, Packet::UnsubAck(..))), "{answers:?}");
}

#[test]
fn the_router_parks_a_link_until_it_says_ready() {
    let house = House::open();
    let (mut link, mut rx) = house.door.router().link(".reader").unwrap();
    subscribe(&mut link, "app/t", QoS::AtMostOnce);
    say(&mut link, Packet::PingReq(PingReq));
    packets_until_pong(&mut rx);
    let (mut witness, mut turns) = house.door.router().link(".witness").unwrap();
    // The router serves its links in turn: when it has answered another one, it has passed by the reader.
    let mut passes_by = || {
        say(&mut witness, Packet::PingReq(PingReq));
        packets_until_pong(&mut turns);
    };
    let total = 1_000;
    for _ in 0..total {
        house.publish("app/t", b"x", false);
    }
    house.all_published_to_the_router();
    let (mut got, mut parked) = (0, 0);
    while got < total {
        match rx.recv_deadline(deadline()).expect("the router goes on after each `ready`") {
            Some(Notification::Forward(_)) => got += 1,
            Some(Notification::Unschedule) => {
                parked += 1;
                passes_by();
                got += forwards_at_hand(&mut rx);
                assert!(got < total);
                // What came with the notice is all: without an answer nothing more comes.
                (0..10).for_each(|_| passes_by());
                assert_eq!(forwards_at_hand(&mut rx), 0);
                rx.ready().unwrap();
            }
            _ => {}
        }
    }
    assert!(parked >= 3, "{parked}");
}

#[test]
fn the_router_cuts_retained_messages_of_a_wildcard_short_without_a_word() {
    let house = House::open();
    for number in 0..300 {
        house.publish(&format!("app/g/many{number}"), b"x", true);
    }
    house.all_published_to_the_router();
    for (qos, limit) in [(QoS::AtMostOnce, 200), (QoS::AtLeastOnce, 100)] {
        let (mut link, mut rx) = house.door.router().link(&format!(".reader-{qos:?}")).unwrap();
        subscribe(&mut link, "app/g/+", qos);
        let mut got = 0;
        loop {
            match rx.recv_deadline(deadline()).unwrap() {
                // What is published now comes behind all that was kept.
                Some(Notification::DeviceAck(_)) => house.publish("app/g/mark", b"mark", false),
                Some(Notification::Forward(forward)) if &forward.publish.payload[..] == b"mark" => break,
                Some(Notification::Forward(_)) => {
                    got += 1;
                    if qos == QoS::AtLeastOnce && got == limit {
                        // As many as it sends without an acknowledgement. Their numbers begin with 1.
                        let numbers = 1..=u16::try_from(limit).unwrap();
                        let ack = |pkid| Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None);
                        link.queue(numbers.map(ack));
                        link.notify().unwrap();
                    }
                }
                Some(Notification::Unschedule) => rx.ready().unwrap(),
                _ => {}
            }
        }
        assert_eq!(got, limit, "{qos:?}");
    }
}

#[test]
fn the_router_numbers_the_messages_of_a_log_without_gaps() {
    let house = House::open();
    let (mut link, mut rx) = house.door.router().link(".reader").unwrap();
    subscribe(&mut link, "app/t", QoS::AtMostOnce);
    say(&mut link, Packet::PingReq(PingReq));
    packets_until_pong(&mut rx);
    let total = 50;
    for _ in 0..total {
        house.publish("app/t", &[0; 2048], false); // Into the second segment of 64 KiB.
    }
    let mut numbers = Vec::new();
    while numbers.len() < total {
        match rx.recv_deadline(deadline()).unwrap() {
            Some(Notification::Forward(forward)) => numbers.push(forward.cursor.unwrap().1),
            Some(Notification::Unschedule) => rx.ready().unwrap(),
            _ => {}
        }
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn a_link_that_leaves_while_the_router_is_busy_does_not_kill_it() {
    let house = House::open();
    let topic = Bytes::from_static(b"app/t");
    for round in 0..20 {
        // Something that takes the router longer than it takes the reaper to come.
        let (mut busy, _rx) = house.door.router().link(&format!(".busy-{round}")).unwrap();
        let publish = || Packet::Publish(Publish::new(topic.clone(), topic.clone(), false), None);
        busy.queue(core::iter::repeat_with(publish).take(50_000));
        let (mut link, rx) = house.door.router().link(&format!(".leaver-{round}")).unwrap();
        busy.notify().unwrap();
        // The router reads a link's queue at any of its events: a Disconnect that is queued now would be read
        // at the first of these, and the second would come from a link that is no more.
        link.notify().unwrap();
        rx.ready().unwrap();
        drop(link);
    }
    house.prove_serving();
}

fn subscribe(link: &mut Link, filter: &str, qos: QoS) {
    let filters = vec![Filter {
        path: filter.to_owned(),
        qos,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::OnEverySubscribe,
    }];
    say(link, Packet::Subscribe(Subscribe { pkid: 1, filters }, None));
}

fn say(link: &mut Link, packet: Packet) {
    link.queue([packet]);
    link.notify().unwrap();
}

fn next_forward(rx: &mut LinkRx) -> Forward {
    loop {
        if let Some(Notification::Forward(forward)) = rx.recv_deadline(deadline()).unwrap() {
            return forward;
        }
    }
}

fn packets_until_pong(rx: &mut LinkRx) -> Vec<Packet> {
    let mut packets = Vec::new();
    loop {
        let Some(notification) = rx.recv_deadline(deadline()).unwrap() else { continue };
        match Option::<Packet>::from(notification) {
            Some(Packet::PingResp(_)) => return packets,
            Some(packet) => packets.push(packet),
            None => {}
        }
    }
}

/// Messages that have come already. Whatever else has come is passed over.
fn forwards_at_hand(rx: &mut LinkRx) -> usize {
    #[allow(clippy::disallowed_methods, reason = "the router's own interface takes an instant")]
    let now = std::time::Instant::now();
    let at_hand = core::iter::from_fn(|| rx.recv_deadline(now).ok());
    at_hand.filter(|notification| matches!(notification, Some(Notification::Forward(_)))).count()
}

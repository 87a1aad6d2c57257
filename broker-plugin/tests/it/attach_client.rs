//! The link to another broker survives what happens to that broker.

use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use whimbrel_service::attach::{
    ClientConfig, ClientCounters, ClientLink, Delivery, LinkError, LinkEvent, Retain,
};
use whimbrel_service::front::Counters;

use crate::attach_support::{Driven, Mosquitto, Scripted, config, let_in, outgoing};
use crate::front_support::{Client, PATIENCE, packet};

/// The link works: a message in, a message out.
fn works(link: &Driven, mosquitto: &Mosquitto, device: &str) {
    let mut client = Client::let_in(mosquitto.addr(), 4, device);
    let topic = |leaf: char| format!("ota/d/{device}/{leaf}");
    assert_eq!(client.subscribe(&[(&topic('c'), 0)]), [0]);
    client.publish(&topic('r'), b"in", 1, false);
    assert_eq!(link.message().payload, &b"in"[..]);
    assert_eq!(client.receive().unwrap().first, 0x40);
    link.publish(&topic('c'), b"out", Delivery::AtMostOnce, false);
    assert_eq!(client.expect_publish().payload, b"out");
}

#[test]
fn the_link_comes_back_after_the_broker_was_killed() {
    let mut mosquitto = Mosquitto::start();
    let link = Driven::client(config(mosquitto.addr()));
    link.await_up();
    works(&link, &mosquitto, "m1");
    for round in 0..2 {
        mosquitto.kill();
        let reason = link.await_down();
        assert!(!reason.is_empty());
        // While it is gone nothing blocks and nothing is kept.
        for _ in 0..3_000 {
            link.publish("ota/d/m1/c", b"into the void", Delivery::AtLeastOnce, false);
        }
        assert!(mosquitto.restart());
        link.await_up();
        works(&link, &mosquitto, &format!("m{round}"));
    }
}

#[test]
fn a_broker_that_is_not_there_yet_is_waited_for() {
    let mut mosquitto = Mosquitto::start();
    mosquitto.kill();
    let link = Driven::client(config(mosquitto.addr()));
    let reason = link.await_down();
    assert!(reason.contains("refused"), "{reason}");
    assert!(mosquitto.restart());
    link.await_up();
    works(&link, &mosquitto, "m1");
}

#[test]
fn user_name_and_password_are_used_and_a_refused_login_is_reported_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["otaserver", "s3cret"])
        .status()
        .unwrap();
    assert!(made.success());
    // mosquitto gives up its rights when it is started by root, and must still be able to read this.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&passwords, readable).unwrap();
    let file = format!("password_file {}", passwords.display());
    let mosquitto = Mosquitto::start_with(&["allow_anonymous false", &file]);

    let mut wrong = config(mosquitto.addr());
    wrong.login = Some(("otaserver".to_owned(), "guess".to_owned()));
    let link = Driven::client(wrong);
    let reason = link.await_down();
    assert!(reason.starts_with("the broker refused the login: "), "{reason}");
    // It goes on trying, and says so each time.
    assert_eq!(link.await_down(), reason);
    drop(link);

    let mut right = config(mosquitto.addr());
    right.login = Some(("otaserver".to_owned(), "s3cret".to_owned()));
    assert!(Driven::client(right).await_up().is_empty());
}

/// A link to this broker, which is up, with its counters.
fn counted(mosquitto: &Mosquitto) -> (Driven, Arc<ClientCounters>) {
    let (give, counters) = mpsc::channel();
    let settings = config(mosquitto.addr());
    let link = Driven::start(move || {
        let link = ClientLink::start(settings).unwrap();
        give.send(Arc::clone(link.counters())).unwrap();
        link
    });
    link.await_up();
    (link, counters.recv().unwrap())
}

#[test]
fn a_message_that_is_too_long_to_be_ours_is_ignored_and_the_link_stays() {
    let mosquitto = Mosquitto::start();
    let (link, counters) = counted(&mosquitto);
    let mut device = Client::let_in(mosquitto.addr(), 4, "m1");
    device.publish("ota/d/m1/q", &vec![0; 64 * 1024 + 1], 0, false);
    device.publish("ota/d/m1/q", &vec![1; 64 * 1024], 0, false);
    assert_eq!(link.message().payload.len(), 64 * 1024);
    assert_eq!(Counters::read(&counters.ignored_too_large), 1);
    assert_eq!(Counters::read(&counters.lost), 0);
}

#[test]
fn a_hundred_oversized_messages_keep_nobody_from_being_served_and_the_link_stays() {
    let mosquitto = Mosquitto::start();
    let (link, counters) = counted(&mosquitto);
    let mut honest = Client::let_in(mosquitto.addr(), 4, "honest");
    assert_eq!(honest.subscribe(&[("ota/d/honest/c", 0)]), [0]);
    let mut hostile = Client::let_in(mosquitto.addr(), 4, "hostile");
    let oversized = vec![0; (1 << 20) + 4096];
    for number in 0..50_u32 {
        hostile.publish("ota/d/hostile/q", &oversized, 0, false);
        hostile.publish("ota/d/hostile/r", &oversized, 1, false);
        assert_eq!(hostile.receive().unwrap().first, 0x40);
        honest.publish("ota/d/honest/r", &number.to_be_bytes(), 1, false);
        assert_eq!(link.message().payload, number.to_be_bytes()[..]);
        assert_eq!(honest.receive().unwrap().first, 0x40);
        link.publish("ota/d/honest/c", &number.to_be_bytes(), Delivery::AtMostOnce, false);
        assert_eq!(honest.expect_publish().payload, number.to_be_bytes());
    }
    assert_eq!(Counters::read(&counters.ignored_too_large), 100);
    assert_eq!(Counters::read(&counters.lost), 0);
}

#[test]
fn an_oversized_message_of_qos_1_is_acknowledged() {
    let (tell, told) = mpsc::channel();
    let broker = Scripted::start(move |_, mut client| {
        if let_in(&mut client) {
            client.send(&crate::front_support::publish(4, b"ota/d/m1/r", &[0; 2 << 20], 1, false));
            tell.send(client.receive().unwrap().first).unwrap();
            client.send(&crate::front_support::publish(4, b"ota/d/m1/q", b"and on", 0, false));
            client.receive();
        }
    });
    let link = Driven::client(config(broker.addr()));
    link.await_up();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), 0x40);
    assert_eq!(link.message().payload, &b"and on"[..]);
}

#[test]
fn a_message_over_the_packet_limit_is_refused_before_it_breaks_the_connection() {
    let mosquitto = Mosquitto::start();
    let mut settings = config(mosquitto.addr());
    settings.packet_bytes_max = 64 * 1024;
    let link = Driven::client(settings);
    link.await_up();
    let message = |len| outgoing("ota/d/m1/c", &vec![0; len], Delivery::AtLeastOnce, false);
    let largest = 64 * 1024 - 9 - "ota/d/m1/c".len();
    let error = link.publish_all(vec![message(largest + 1)]).unwrap_err();
    assert!(matches!(error, LinkError::TooLarge { bytes: 65_528, limit: 65_527 }), "{error}");
    link.publish_all(vec![message(largest)]).unwrap();
    works(&link, &mosquitto, "m2");
}

#[test]
fn a_broker_that_refuses_the_subscription_is_no_connection() {
    let broker = Scripted::start(|number, mut client| {
        client.receive().unwrap();
        client.send(&[0x20, 2, 0, 0]);
        let subscribe = client.receive().unwrap();
        let code = if number == 0 { 0x80 } else { 1 };
        client.send(&[0x90, 4, subscribe.body[0], subscribe.body[1], 0, code]);
        client.receive();
    });
    let link = Driven::client(config(broker.addr()));
    assert_eq!(link.await_up(), ["the broker refused the subscription to ota/d/+/r"]);
}

#[test]
fn messages_that_come_before_the_suback_are_not_lost() {
    let broker = Scripted::start(|_, mut client| {
        client.receive().unwrap();
        client.send(&[0x20, 2, 0, 0]);
        let subscribe = client.receive().unwrap();
        client.send(&crate::front_support::publish(4, b"ota/d/m1/q", b"early", 0, false));
        client.send(&[0x90, 4, subscribe.body[0], subscribe.body[1], 0, 1]);
        client.receive();
    });
    let link = Driven::client(config(broker.addr()));
    assert_eq!(link.event(), LinkEvent::Up);
    assert_eq!(link.message().payload, &b"early"[..]);
}

/// Answers pings, acknowledges with `ack`, until the client has gone; returns how many messages came.
fn serve(client: &mut Client, mut ack: impl FnMut(u16) -> bool) -> usize {
    let mut count = 0;
    while let Some(packet) = client.receive() {
        if packet.first >> 4 == 3 {
            count += 1;
            let message = client.published(&packet);
            let [high, low] = message.pkid.to_be_bytes();
            if message.qos > 0 && ack(message.pkid) && !client.try_send(&[0x40, 2, high, low]) {
                break;
            }
        } else if packet.first == 0xC0 && !client.try_send(&[0xD0, 0]) {
            break;
        }
    }
    count
}

#[test]
fn a_broker_that_keeps_no_messages_gets_them_without_the_retain_flag_after_two_cuts() {
    let mosquitto = Mosquitto::start_with(&["allow_anonymous true", "retain_available false"]);
    let link = Driven::client(config(mosquitto.addr()));
    for _ in 0..2 {
        link.await_up();
        link.publish("ota/d/m1/s", b"order", Delivery::AtLeastOnce, true);
        let reason = link.await_down();
        assert!(!reason.contains("another client"), "{reason}");
    }
    link.await_up();
    let mut device = Client::let_in(mosquitto.addr(), 4, "m1");
    assert_eq!(device.subscribe(&[("ota/d/m1/s", 1)]), [1]);
    link.publish("ota/d/m1/s", b"", Delivery::AtLeastOnce, true);
    link.publish("ota/d/m1/s", b"order", Delivery::AtLeastOnce, true);
    let order = device.expect_publish();
    assert_eq!((&order.payload[..], order.retain), (&b"order"[..], false));
    works(&link, &mosquitto, "m2");
}

#[test]
fn without_the_retain_flag_the_first_connection_stays() {
    let mosquitto = Mosquitto::start_with(&["allow_anonymous true", "retain_available false"]);
    let mut settings = config(mosquitto.addr());
    settings.retain = Retain::Off;
    let link = Driven::client(settings);
    link.await_up();
    link.publish("ota/d/m1/s", b"order", Delivery::AtLeastOnce, true);
    works(&link, &mosquitto, "m2");
}

#[test]
fn a_packet_identifier_that_is_never_acknowledged_does_not_stop_the_link() {
    let (tell, told) = mpsc::channel();
    let broker = Scripted::start(move |_, mut client| {
        if let_in(&mut client) {
            let mut acknowledged = 0;
            serve(&mut client, |pkid| {
                acknowledged += usize::from(pkid != 2);
                if acknowledged == 649 {
                    tell.send(()).unwrap();
                }
                pkid != 2
            });
        }
    });
    let link = Driven::client(config(broker.addr()));
    link.await_up();
    for _ in 0..150 {
        link.publish("ota/d/m1/s", b"x", Delivery::AtLeastOnce, true);
    }
    let all = vec![outgoing("ota/d/m1/s", b"y", Delivery::AtLeastOnce, true); 500];
    link.publish_all(all).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    assert!(link.has_said_nothing(), "the connection was lost");
}

#[test]
fn a_broker_that_acknowledges_nothing_is_given_up() {
    let broker = Scripted::start(|number, mut client| {
        if let_in(&mut client) {
            serve(&mut client, |_| number > 0);
        }
    });
    let mut settings = config(broker.addr());
    settings.keep_alive = Duration::from_secs(1);
    let link = Driven::client(settings);
    link.await_up();
    // It answers pings, so that the connection looks alive; more than it may leave unacknowledged waits.
    for _ in 0..300 {
        link.publish("ota/d/m1/s", b"x", Delivery::AtLeastOnce, true);
    }
    let reason = link.await_down();
    assert!(reason.contains("has not acknowledged"), "{reason}");
    link.await_up();
}

#[test]
fn a_broker_that_stops_reading_is_given_up() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let broker = Scripted::start(move |number, mut client| {
        if number > 0 {
            if let_in(&mut client) {
                serve(&mut client, |_| true);
            }
        } else if let_in(&mut client) {
            let _until_the_test_has_seen_it = released.lock().unwrap().recv_timeout(PATIENCE);
        }
    });
    let mut settings = config(broker.addr());
    settings.keep_alive = Duration::from_secs(1);
    let link = Driven::client(settings);
    link.await_up();
    // More than the socket's buffers take; what does not fit waits, until the connection is given up.
    let message = outgoing("ota/d/m1/c", &[0; 32 * 1024], Delivery::AtMostOnce, false);
    link.flood(2_000, message);
    link.flooded();
    link.await_down();
    release.send(()).unwrap();
    link.await_up();
}

#[test]
fn a_broker_that_sends_nonsense_is_a_lost_connection_and_no_more() {
    let broker = Scripted::start(|number, mut client| match number {
        0 => {
            client.receive();
            client.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
        1 => {
            if let_in(&mut client) {
                client.try_send(&packet(0x40, &[0xff, 0xff])); // acknowledges what was never sent
                client.receive();
            }
        }
        2 => {
            if let_in(&mut client) {
                client.try_send(&packet(0x34, &[0, 1, b'a', 0, 1])); // QoS 2, which was not subscribed to
                client.receive();
            }
        }
        _ => {
            if let_in(&mut client) {
                serve(&mut client, |_| true);
            }
        }
    });
    let link = Driven::client(config(broker.addr()));
    assert_eq!(link.await_up().len(), 1);
    link.await_down();
    link.await_up();
    link.await_down();
    link.await_up();
    link.publish("ota/t", b"x", Delivery::AtLeastOnce, true);
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let good = config("127.0.0.1:1883".parse().unwrap());
    type Change = fn(&mut ClientConfig);
    let changes: [(&str, Change); 3] = [
        ("client id", |it| it.client_id.clear()),
        ("packet_bytes_max", |it| it.packet_bytes_max = 1024),
        ("keep_alive", |it| it.keep_alive = Duration::ZERO),
    ];
    for (setting, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let error = ClientLink::start(bad).err().unwrap().to_string();
        assert!(error.contains(setting) && error.contains("expected"), "{error}");
    }
}

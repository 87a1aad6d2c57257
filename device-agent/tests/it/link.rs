//! The connection: real mosquitto where that can show it, a scripted broker where it can't.

use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use whimbrel_agent::clock::Clock;
use whimbrel_agent::mqtt::{Filter, Link, LinkError, LinkEvent, LinkSettings, Uplink};

use crate::broker::Mosquitto;
use crate::rig::Device;

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const NOT_AUTHORIZED: [u8; 4] = [0x20, 2, 0, 5];

fn settings(port: u16) -> LinkSettings {
    LinkSettings {
        host: "127.0.0.1".to_owned(),
        port,
        client_id: "m-1".to_owned(),
        user: None,
        password_file: None,
        keepalive: Duration::from_secs(60),
        connect_limit: Duration::from_secs(30),
        reconnect_base: Duration::from_millis(20),
        reconnect_cap: Duration::from_millis(200),
        packet_bytes_max: 8 * 1024,
        seed: 1,
    }
}

fn on_runtime<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        // Only keeps a broken test from hanging.
        tokio::time::timeout(Duration::from_secs(120), what).await.expect("it takes too long")
    })
}

fn filter(topic: &str, at_least_once: bool) -> Filter {
    Filter { topic: topic.to_owned(), at_least_once, needed: false }
}

async fn up(link: &mut Link) -> Uplink {
    loop {
        if let LinkEvent::Up(uplink) = link.next().await.unwrap() {
            return uplink;
        }
    }
}

async fn down(link: &mut Link) -> LinkError {
    loop {
        if let LinkEvent::Down(error) = link.next().await.unwrap() {
            return error;
        }
    }
}

async fn message(link: &mut Link) -> (String, Vec<u8>) {
    loop {
        if let LinkEvent::Message { topic, payload } = link.next().await.unwrap() {
            return (topic, payload.to_vec());
        }
    }
}

/// Another client of the broker, in a task that polls it.
async fn publisher(port: u16) -> AsyncClient {
    let (client, mut events) = AsyncClient::new(MqttOptions::new("other", "127.0.0.1", port), 64);
    while !matches!(events.poll().await, Ok(Event::Incoming(Incoming::ConnAck(_)))) {
        tokio::task::yield_now().await;
    }
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    client
}

/// A broker that plays each of `acts` on one connection, in order.
fn scripted(acts: Vec<Box<dyn FnOnce(TcpStream) + Send>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for act in acts {
            let (stream, _) = listener.accept().unwrap();
            act(stream);
        }
    });
    port
}

/// Reads one MQTT packet whole.
fn read_packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert!(head[1] < 128, "a short packet");
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).unwrap();
    [&head[..], &rest].concat()
}

/// A PUBLISH at QoS 0.
fn publish_packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x30];
    let mut length = 2 + topic.len() + payload.len();
    while length > 127 {
        packet.push((length % 128) as u8 | 128);
        length /= 128;
    }
    packet.push(length as u8);
    packet.extend([0, topic.len() as u8]);
    packet.extend(topic.as_bytes());
    packet.extend(payload);
    packet
}

#[test]
fn messages_travel_both_ways() {
    let broker = Mosquitto::start();
    on_runtime(async {
        let mut link = Link::start(settings(broker.port), Clock::start());
        let uplink = up(&mut link).await;
        uplink.subscribe(vec![filter("a", false), filter("b", true)]).unwrap();
        uplink.publish("a".to_owned(), vec![1], false).unwrap();
        uplink.publish("b".to_owned(), vec![2], true).unwrap();
        let mut got = vec![message(&mut link).await, message(&mut link).await];
        got.sort();
        assert_eq!(got, [("a".to_owned(), vec![1]), ("b".to_owned(), vec![2])]);
    });
}

#[test]
fn a_broker_that_comes_back_is_found_and_nothing_is_subscribed_there_by_itself() {
    let mut broker = Mosquitto::start();
    on_runtime(async {
        let mut link = Link::start(settings(broker.port), Clock::start());
        let first = up(&mut link).await;
        first.subscribe(vec![filter("news", true)]).unwrap();
        broker.kill();
        // It may have acknowledged the subscription before that.
        assert!(matches!(down(&mut link).await, LinkError::Lost(_) | LinkError::Subscribing { .. }));
        assert!(broker.resume());
        let second = up(&mut link).await;
        // What is sent on the old connection does not come out of the new one.
        let _ = first.publish("news".to_owned(), b"old".to_vec(), true);
        second.subscribe(vec![filter("news", true)]).unwrap();
        second.publish("news".to_owned(), b"new".to_vec(), true).unwrap();
        assert_eq!(message(&mut link).await.1, b"new");
    });
}

#[test]
fn a_refused_login_backs_off_like_a_lost_link() {
    let refuse = || -> Box<dyn FnOnce(TcpStream) + Send> {
        Box::new(|mut stream| {
            read_packet(&mut stream);
            stream.write_all(&NOT_AUTHORIZED).unwrap();
        })
    };
    // Waits are random, so that several count: with this seed and base they come to more than a second.
    let port = scripted((0..7).map(|_| refuse()).collect());
    let clock = Clock::start();
    on_runtime(async {
        let slow = LinkSettings {
            reconnect_base: Duration::from_millis(100),
            reconnect_cap: Duration::from_secs(2),
            ..settings(port)
        };
        let mut link = Link::start(slow, clock);
        for _ in 0..7 {
            let error = down(&mut link).await;
            assert!(matches!(error, LinkError::Refused(_)));
            assert_eq!(error.to_string(), "the broker refuses the login: not authorized");
        }
    });
    assert!(clock.now().as_millis() > 1000, "{:?}", clock.now());
}

#[test]
fn a_packet_above_the_limit_ends_the_connection_and_the_next_one_works() {
    let broker = Mosquitto::start();
    on_runtime(async {
        let mut link = Link::start(settings(broker.port), Clock::start());
        let uplink = up(&mut link).await;
        uplink.subscribe(vec![filter("news", false)]).unwrap();
        uplink.publish("news".to_owned(), b"subscribed".to_vec(), false).unwrap();
        message(&mut link).await;
        let other = publisher(broker.port).await;
        other.publish("news", QoS::AtMostOnce, false, vec![0; 9 * 1024]).await.unwrap();
        let error = down(&mut link).await;
        assert!(matches!(error, LinkError::Oversized { got } if got > 9 * 1024), "{error:?}");
        up(&mut link).await;
    });
}

/// A cut must cost no more than the message that it cuts.
#[test]
fn what_arrived_whole_before_the_end_is_delivered() {
    let port = scripted(vec![Box::new(|mut stream| {
        read_packet(&mut stream);
        let whole: Vec<u8> = (0..20u8).flat_map(|number| publish_packet("c", &[number; 50])).collect();
        let torn = &publish_packet("c", &[99; 50])[..30];
        stream.write_all(&[&CONNACK[..], &whole, torn].concat()).unwrap();
    })]);
    on_runtime(async {
        let mut link = Link::start(settings(port), Clock::start());
        up(&mut link).await;
        for number in 0..20u8 {
            assert_eq!(message(&mut link).await.1, [number; 50]);
        }
        assert!(matches!(link.next().await, Some(LinkEvent::Down(LinkError::Lost(_)))));
    });
}

#[test]
fn hanging_up_ends_the_connection_and_another_follows() {
    let broker = Mosquitto::start();
    on_runtime(async {
        let mut link = Link::start(settings(broker.port), Clock::start());
        let first = up(&mut link).await;
        first.hang_up();
        assert!(matches!(down(&mut link).await, LinkError::HungUp));
        let second = up(&mut link).await;
        // The old one can't hang the new one up.
        first.hang_up();
        second.subscribe(vec![filter("x", false)]).unwrap();
        second.publish("x".to_owned(), vec![1], false).unwrap();
        message(&mut link).await;
    });
}

#[test]
fn a_broker_that_answers_no_ping_is_left() {
    let silent = |mut stream: TcpStream| {
        read_packet(&mut stream);
        stream.write_all(&CONNACK).unwrap();
        // Reads and says nothing until the device hangs up.
        let mut all = Vec::new();
        drop(stream.read_to_end(&mut all));
    };
    let port = scripted(vec![Box::new(silent)]);
    on_runtime(async {
        let impatient = LinkSettings { keepalive: Duration::from_secs(1), ..settings(port) };
        let mut link = Link::start(impatient, Clock::start());
        up(&mut link).await;
        assert!(matches!(down(&mut link).await, LinkError::Timeout));
    });
}

#[test]
fn a_broker_that_accepts_and_says_nothing_is_left() {
    let port = scripted(vec![Box::new(|mut stream| {
        let mut all = Vec::new();
        drop(stream.read_to_end(&mut all));
    })]);
    on_runtime(async {
        let impatient = LinkSettings { connect_limit: Duration::from_secs(1), ..settings(port) };
        let mut link = Link::start(impatient, Clock::start());
        assert!(matches!(down(&mut link).await, LinkError::Timeout));
    });
}

/// Out of order acknowledgements must never stop the device from publishing for good.
#[test]
fn a_broker_that_acknowledges_nothing_gets_a_new_connection_and_is_published_to_again() {
    let port = scripted(vec![
        Box::new(|mut stream| {
            read_packet(&mut stream);
            stream.write_all(&CONNACK).unwrap();
            // Takes ten publishes and acknowledges none, then goes.
            (0..10).for_each(|_| drop(read_packet(&mut stream)));
        }),
        Box::new(|mut stream| {
            read_packet(&mut stream);
            stream.write_all(&CONNACK).unwrap();
            let publish = read_packet(&mut stream);
            assert!(publish.ends_with(b"again"), "the first thing on the new connection is new: {publish:?}");
            let id = [publish[5], publish[6]];
            stream.write_all(&[0x40, 2, id[0], id[1]]).unwrap();
            stream.write_all(&publish_packet("c", b"got it")).unwrap();
            let mut all = Vec::new();
            drop(stream.read_to_end(&mut all));
        }),
    ]);
    on_runtime(async {
        let mut link = Link::start(settings(port), Clock::start());
        let first = up(&mut link).await;
        // More than may wait for an acknowledgement, fewer than the queue takes.
        for _ in 0..20 {
            first.publish("r".to_owned(), b"report".to_vec(), true).unwrap();
        }
        down(&mut link).await;
        let second = up(&mut link).await;
        second.publish("r".to_owned(), b"again".to_vec(), true).unwrap();
        assert_eq!(message(&mut link).await.1, b"got it");
    });
}

#[test]
fn a_queue_that_the_broker_does_not_empty_is_full_at_some_time() {
    let port = scripted(vec![Box::new(|mut stream| {
        read_packet(&mut stream);
        stream.write_all(&CONNACK).unwrap();
        let mut all = Vec::new();
        drop(stream.read_to_end(&mut all));
    })]);
    on_runtime(async {
        let mut link = Link::start(settings(port), Clock::start());
        let uplink = up(&mut link).await;
        // Ten at QoS 1 are under way unacknowledged; the rest stays in the queue.
        let mut sent = 0;
        while uplink.publish("r".to_owned(), vec![0; 10], true).is_ok() {
            sent += 1;
            assert!(sent < 1000);
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn user_and_password_reach_the_broker_and_the_password_is_read_anew_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "first\nsecond line\n").unwrap();
    let (heard, logins) = std::sync::mpsc::channel();
    let listen = |heard: std::sync::mpsc::Sender<Vec<u8>>| -> Box<dyn FnOnce(TcpStream) + Send> {
        Box::new(move |mut stream| {
            heard.send(read_packet(&mut stream)).unwrap();
            stream.write_all(&NOT_AUTHORIZED).unwrap();
        })
    };
    let port = scripted(vec![listen(heard.clone()), listen(heard)]);
    on_runtime(async {
        let login = LinkSettings {
            user: Some("m-1".to_owned()),
            password_file: Some(password.clone()),
            ..settings(port)
        };
        let mut link = Link::start(login, Clock::start());
        down(&mut link).await;
        assert!(logins.recv().unwrap().ends_with(b"\x00\x03m-1\x00\x05first"));
        std::fs::write(&password, "changed").unwrap();
        down(&mut link).await;
        // The second attempt may have begun before the change.
        let second = logins.recv().unwrap();
        assert!(second.ends_with(b"changed") || second.ends_with(b"first"));
        std::fs::remove_file(&password).unwrap();
        loop {
            if matches!(down(&mut link).await, LinkError::Password { .. }) {
                break;
            }
        }
    });
}

/// A broker that is not believed may send what it likes; this one would go on for ever. Nothing of it is for the device.
#[test]
fn the_agent_hangs_up_on_a_broker_that_sends_too_much_on_topics_that_are_none_of_the_devices() {
    let (told, received) = std::sync::mpsc::channel();
    let port = scripted(vec![Box::new(move |mut stream| {
        read_packet(&mut stream);
        stream.write_all(&CONNACK).unwrap();
        let packet = publish_packet("ota/d/another/c", &[0; 1000]);
        let mut sent = 0;
        // The agent and the two ends of the connection hold some megabytes at most.
        while sent < 100_000_000 && stream.write_all(&packet).is_ok() {
            sent += packet.len();
        }
        told.send(sent).unwrap();
    })]);
    let mut device = Device::new(&whimbrel_protocol::testing::Fixture::new(), port);
    device.start();
    let sent = received.recv_timeout(Duration::from_secs(120)).unwrap();
    assert!((128 * 1024..100_000_000).contains(&sent), "{sent}");
    let status = device.wait_for("it hung up", |status| status["counters"]["floods"] == 1);
    assert!(status["rejected"]["foreign-topic"].as_u64().unwrap() > 128, "{status}");
}

/// Closes the connection at a SUBSCRIBE that names `bad`, as some brokers do where a device may not subscribe.
fn touchy() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            read_packet(&mut stream);
            stream.write_all(&CONNACK).unwrap();
            loop {
                let packet = read_packet(&mut stream);
                if packet.windows(3).any(|part| part == b"bad") {
                    break;
                }
                // Each filter of the test is a letter: length, name and QoS have 4 bytes.
                let filters = (packet.len() - 4) / 4;
                let mut answer = vec![0x90, 2 + filters as u8, packet[2], packet[3]];
                answer.resize(4 + filters, 1);
                stream.write_all(&answer).unwrap();
                if packet.windows(1).any(|part| part == b"z") {
                    stream.write_all(&publish_packet("z", b"subscribed")).unwrap();
                }
            }
        }
    });
    port
}

#[test]
fn a_link_that_is_closed_at_a_topic_says_so_and_goes_on_without_it() {
    let port = touchy();
    on_runtime(async {
        let mut link = Link::start(settings(port), Clock::start());
        let mut errors = Vec::new();
        let left_out = loop {
            let uplink = up(&mut link).await;
            let topics = ["a", "bad", "z"].map(|topic| filter(topic, true));
            let left_out = uplink.subscribe(topics.to_vec()).unwrap();
            if !left_out.is_empty() {
                break left_out;
            }
            errors.push(down(&mut link).await.to_string());
        };
        assert_eq!(left_out, ["bad"]);
        assert_eq!(message(&mut link).await.1, b"subscribed");
        let closed_at = ["a, bad, z", "bad", "bad"];
        assert_eq!(errors.len(), closed_at.len(), "{errors:?}");
        for (error, topics) in errors.iter().zip(closed_at) {
            assert!(error.starts_with(&format!("closed when we subscribed to {topics}: ")), "{error}");
        }
    });
}

//! No device can publish or subscribe outside its own topics: a truth table.

use std::collections::BTreeSet;

use crate::front_support::{Client, Hello, House};

/// A client and the device that the door must take it for.
struct Someone {
    client_id: &'static str,
    user_name: Option<&'static str>,
    device: &'static str,
}

const SOMEONE: [Someone; 6] = [
    Someone { client_id: "m1", user_name: None, device: "m1" },
    Someone { client_id: "m1", user_name: Some("m1"), device: "m1" },
    Someone { client_id: "m1-ota", user_name: Some("m1"), device: "m1" },
    Someone { client_id: "m2", user_name: None, device: "m2" },
    Someone { client_id: "m1-ota", user_name: None, device: "m1-ota" },
    Someone { client_id: "M1", user_name: None, device: "M1" },
];

/// Every topic of every device, their neighbours, and what else someone may try.
fn topics() -> Vec<String> {
    let mut topics: Vec<String> = Vec::new();
    for device in ["m1", "m2", "m1-ota", "M1", "m", "+", "#", ""] {
        for leaf in ["q", "c", "r", "s", "x", "Q", "+", "#", ""] {
            topics.push(format!("ota/d/{device}/{leaf}"));
        }
        topics.push(format!("ota/d/{device}"));
        topics.push(format!("ota/d/{device}/q/x"));
        topics.push(format!("/ota/d/{device}/q"));
        topics.push(format!("otb/d/{device}/q"));
        topics.push(format!("$share/g/ota/d/{device}/c"));
        topics.push(format!("tele/{device}/state"));
    }
    for topic in [
        "ota/t",
        "ota/t/",
        "ota/t/x",
        "ota/g/all",
        "ota/g/west",
        "ota/g/+",
        "ota/g/#",
        "ota/g/all/x",
        "ota/#",
        "ota/+",
        "ota",
        "ota/",
        "#",
        "+",
        "/",
        "/#",
        "+/d/+/c",
        "+/+/m1/q",
        "$SYS/#",
        "$SYS/broker",
        "$share/g/#",
        "tele",
        "é/x",
        "ota/d/m1/é",
        "cmd/all",
    ] {
        topics.push(topic.to_owned());
    }
    topics
}

fn may_publish(device: &str) -> BTreeSet<String> {
    [format!("ota/d/{device}/q"), format!("ota/d/{device}/r"), format!("tele/{device}/state")].into()
}

fn may_read(device: &str) -> BTreeSet<String> {
    let own = [format!("ota/d/{device}/c"), format!("ota/d/{device}/s")];
    let shared = ["ota/t", "ota/g/all", "cmd/all"].map(str::to_owned);
    own.into_iter().chain(shared).collect()
}

fn open() -> House {
    House::open_with(|config| {
        config.application_publish = vec!["tele/%d/state".to_owned()];
        config.application_subscribe = vec!["cmd/all".to_owned()];
    })
}

/// Everyone, in both versions.
fn everyone() -> impl Iterator<Item = (u8, &'static Someone)> {
    [4, 5].into_iter().flat_map(|level| SOMEONE.iter().map(move |someone| (level, someone)))
}

fn hello(someone: &Someone) -> Hello<'static> {
    Hello { client_id: someone.client_id, user_name: someone.user_name, keep_alive: 60, ..Hello::default() }
}

#[test]
fn a_device_publishes_to_its_own_two_topics_and_to_nothing_else() {
    let house = open();
    let mut allowed = 0;
    let mut refused = 0;
    for (level, someone) in everyone() {
        let own = may_publish(someone.device);
        for topic in topics() {
            let (mut client, code) = Client::knock(house.addr(), level, &hello(someone));
            assert_eq!(code, Some(0));
            let accepted = client.publish_acked(&topic, topic.as_bytes());
            assert_eq!(accepted, own.contains(&topic), "{} to {topic:?}, level {level}", someone.client_id);
            if accepted { allowed += 1 } else { refused += 1 }
        }
    }
    // Those accepted on the service's topics have arrived, and nothing else has.
    let heard = house.heard_so_far();
    assert_eq!(heard.len(), 2 * allowed / 3, "of three own topics the service reads two");
    for message in heard {
        assert_eq!(message.topic, message.payload);
        assert!(message.topic.ends_with(b"/q") || message.topic.ends_with(b"/r"));
    }
    assert_eq!(house.count(|it| &it.publish_refused_topic), refused);
    assert!(refused > 1000, "{refused}");
    house.prove_serving();
}

#[test]
fn a_device_subscribes_to_its_own_topics_its_groups_and_the_beacon_and_to_nothing_else() {
    let house = open();
    let mut refused = 0;
    for (level, someone) in everyone() {
        let own = may_read(someone.device);
        let (mut client, code) = Client::knock(house.addr(), level, &hello(someone));
        assert_eq!(code, Some(0));
        for topic in topics() {
            let codes = client.subscribe(&[(&topic, 1)]);
            let expected = if own.contains(&topic) { 1 } else { 0x80 };
            assert_eq!(codes, [expected], "{} to {topic:?}, level {level}", someone.client_id);
            refused += u64::from(expected == 0x80);
        }
        // What was refused brings nothing: of all topics, only its own reach it.
        for topic in topics().into_iter().filter(|it| !it.contains(['+', '#', 'é']) && !it.is_empty()) {
            house.publish(&topic, topic.as_bytes(), false);
        }
        let mut got = BTreeSet::new();
        while got.len() < own.len() {
            let message = client.expect_publish();
            assert!(own.contains(&message.topic), "{} got {}", someone.client_id, message.topic);
            client.ack(message.pkid);
            // The service has heard its own question on the device's topic and answers it.
            if !message.payload.starts_with(b"re:") {
                assert_eq!(message.payload, message.topic.as_bytes());
                got.insert(message.topic);
            }
        }
        client.disconnect();
    }
    assert_eq!(house.count(|it| &it.subscribe_refused), refused);
    house.prove_serving();
}

#[test]
fn a_device_leaves_its_will_on_its_own_two_topics_and_nowhere_else() {
    let house = open();
    let mut left = BTreeSet::new();
    for (whose, (level, someone)) in everyone().enumerate() {
        let own = may_publish(someone.device);
        for (number, topic) in topics().into_iter().enumerate() {
            let message = format!("will {number} of {whose}");
            let will = Some((topic.as_str(), message.as_bytes(), 1, false));
            let (client, code) = Client::knock(house.addr(), level, &Hello { will, ..hello(someone) });
            if own.contains(&topic) {
                assert_eq!(code, Some(0), "{} to {topic:?}, level {level}", someone.client_id);
                if !topic.starts_with("tele") {
                    left.insert((topic, message));
                }
                client.vanish();
            } else {
                let not_authorized = if level == 4 { 5 } else { 0x87 };
                assert_eq!(code, Some(not_authorized), "{} to {topic:?}", someone.client_id);
            }
        }
    }
    while !left.is_empty() {
        let message = house.hear();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(left.remove(&(text(&message.topic), text(&message.payload))), "{message:?}");
    }
    assert!(house.count(|it| &it.refused_will) > 1000);
    house.prove_serving();
}

#[test]
fn a_device_retains_nothing() {
    let house = House::open();
    for level in [4, 5] {
        for (number, leaf) in ["q", "r"].into_iter().enumerate() {
            for qos in [0, 1] {
                let before = house.count(|it| &it.publish_refused_retain);
                let mut client = Client::let_in(house.addr(), level, "m1");
                client.publish(&format!("ota/d/m1/{leaf}"), b"kept?", qos, true);
                let farewell = client.expect_closed();
                assert_eq!(farewell, (level == 5).then_some(0x9A), "{number}");
                assert_eq!(house.count(|it| &it.publish_refused_retain), before + 1);
            }
            let topic = format!("ota/d/m1/{leaf}");
            let will = Some((topic.as_str(), b"kept?".as_slice(), 0, true));
            let hello = Hello { client_id: "m1", will, ..Hello::default() };
            let (_, code) = Client::knock(house.addr(), level, &hello);
            assert_eq!(code, Some(if level == 4 { 5 } else { 0x87 }));
        }
    }
    assert!(house.heard_so_far().is_empty());
    house.prove_serving();
}

#[test]
fn a_client_that_is_not_one_device_is_refused_with_the_code_of_its_version() {
    let house = House::open();
    let reserved = [".reaper", ".heartbeat", ".service-0000000000000000"];
    for client_id in ["", "m", "m/1", "m+", "m#", "$m", "é", "m1.agent"].into_iter().chain(reserved) {
        for (level, invalid) in [(4, 2), (5, 0x85)] {
            let (mut client, code) =
                Client::knock(house.addr(), level, &Hello { client_id, ..Hello::default() });
            assert_eq!(code, Some(invalid), "{client_id:?}");
            client.expect_closed();
        }
    }
    let hello = Hello { client_id: "m2", user_name: Some("m1"), ..Hello::default() };
    assert_eq!(Client::knock(house.addr(), 4, &hello).1, Some(2));
    assert!(house.count(|it| &it.refused_identity) >= 23);
    house.prove_serving();
}

#[test]
fn what_the_access_rules_refuse_has_the_code_of_its_version() {
    let house = House::open();
    let knock = |level, client_id, password| {
        let user_name = Some(client_id);
        let hello = Hello { client_id, user_name, password, ..Hello::default() };
        Client::knock(house.addr(), level, &hello).1
    };
    for level in [4, 5] {
        let (not_authorized, bad_password, busy) = if level == 4 { (5, 4, 3) } else { (0x87, 0x86, 0x89) };
        assert_eq!(knock(level, "banned", None), Some(not_authorized));
        assert_eq!(knock(level, "locked", None), Some(bad_password));
        assert_eq!(knock(level, "locked", Some("wrong")), Some(bad_password));
        assert_eq!(knock(level, "later", None), Some(busy));
        assert_eq!(knock(level, "locked", Some("key")), Some(0));
    }
}

#[test]
fn a_client_that_uses_no_topic_of_the_application_costs_the_router_nothing() {
    let house = open();
    for level in [4, 5] {
        let mut client = Client::let_in(house.addr(), level, "m1");
        assert_eq!(client.subscribe(&[("ota/d/m1/c", 0), ("ota/g/all", 1), ("ota/t", 1)]), [0, 1, 1]);
        assert!(client.publish_acked("ota/d/m1/r", b"report"));
        client.disconnect();
    }
    house.prove_serving();
    assert_eq!(house.count(|it| &it.router_links), 0);
    let mut client = Client::let_in(house.addr(), 4, "m1");
    assert!(client.publish_acked("tele/m1/state", b"warm"));
    assert_eq!(client.subscribe(&[("cmd/all", 0)]), [0]);
    assert_eq!(house.count(|it| &it.router_links), 1, "one for all topics of the application");
}

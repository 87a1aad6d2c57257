use super::super::access::{Login, Refusal};
use super::super::outbox::Bounds;
use super::*;

/// Everybody is in the groups that are named here.
#[derive(Default)]
struct Members(Mutex<Vec<String>>);

impl Access for Members {
    fn login(&self, _login: &Login<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn is_known(&self, _device: &DeviceId) -> bool {
        true
    }

    fn in_group(&self, _device: &DeviceId, group: &GroupName) -> bool {
        self.0.lock().unwrap().iter().any(|known| known == group.as_str())
    }
}

fn exchange(groups: &[&str]) -> (Arc<Exchange>, Arc<Members>) {
    let members = Arc::new(Members(Mutex::new(groups.iter().map(|group| (*group).to_owned()).collect())));
    let pool = Pool::new(Bounds { answers: 1 << 20, documents: 1 << 20, all: 1 << 30 });
    let access = Arc::clone(&members) as Arc<dyn Access>;
    (Exchange::new(Prefix::default(), access, Arc::default(), pool, 2, 2), members)
}

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

fn group(name: &str) -> Channel {
    Channel::Group(GroupName::new(name).unwrap())
}

fn message(channel: Channel, to: &str, payload: &str) -> ToDevices {
    let (topic, payload) = (Bytes::from_static(b"t"), Bytes::copy_from_slice(payload.as_bytes()));
    ToDevices { channel, device: DeviceId::new(to).ok(), topic, payload, retain: true }
}

fn got(client: &Client) -> Vec<(String, bool)> {
    core::iter::from_fn(|| client.outbox().pop(true))
        .map(|message| (String::from_utf8(message.payload.to_vec()).unwrap(), message.retain))
        .collect()
}

fn one(text: &str, retained: bool) -> Vec<(String, bool)> {
    vec![(text.to_owned(), retained)]
}

#[test]
fn answers_reach_their_device_and_no_other() {
    let (exchange, _) = exchange(&[]);
    let clients = ["m1", "m2"].map(|id| exchange.enter(&device(id), Role::Agent));
    for client in &clients {
        assert_eq!(client.subscribe(&Channel::Answers, "c", QoS::AtMostOnce), Some(QoS::AtMostOnce));
    }
    exchange.publish([message(Channel::Answers, "m1", "answer")]);
    assert_eq!(got(&clients[0]), one("answer", false));
    assert!(got(&clients[1]).is_empty());
}

#[test]
fn a_document_that_was_entered_comes_with_the_subscription_though_nothing_was_published() {
    let (exchange, _) = exchange(&[]);
    exchange.device_is(&device("m1"), Some(&Bytes::from_static(b"assignment")));
    let client = exchange.enter(&device("m1"), Role::Device);
    client.subscribe(&Channel::Assignment, "s", QoS::AtLeastOnce);
    assert_eq!(got(&client), one("assignment", true));
    exchange.device_is(&device("m1"), None);
    let again = exchange.enter(&device("m1"), Role::Agent);
    again.subscribe(&Channel::Assignment, "s", QoS::AtLeastOnce);
    assert!(got(&again).is_empty(), "it was forgotten");
}

#[test]
fn a_device_taken_out_of_a_group_hears_nothing_more_and_one_put_in_may_subscribe_at_once() {
    let (exchange, members) = exchange(&["north"]);
    let client = exchange.enter(&device("m1"), Role::Device);
    assert!(client.subscribe(&group("north"), "n", QoS::AtMostOnce).is_some());
    assert!(client.subscribe(&group("south"), "s", QoS::AtMostOnce).is_none());
    *members.0.lock().unwrap() = vec!["south".to_owned()];
    exchange.device_is(&device("m1"), None);
    exchange.publish([message(group("north"), "", "for the north")]);
    assert!(got(&client).is_empty());
    assert!(client.subscribe(&group("south"), "s", QoS::AtMostOnce).is_some());
    assert!(client.subscribe(&group("north"), "n", QoS::AtMostOnce).is_none());
    exchange.publish([message(group("south"), "", "for the south")]);
    assert_eq!(got(&client), one("for the south", false));
    // Put back, it may subscribe again, and gets what is kept there.
    *members.0.lock().unwrap() = vec!["north".to_owned()];
    exchange.device_is(&device("m1"), None);
    assert!(client.subscribe(&group("north"), "n", QoS::AtMostOnce).is_some());
    assert_eq!(got(&client), one("for the north", true));
}

#[test]
fn the_maps_hold_no_more_than_their_bounds_and_give_back_what_is_left() {
    let (exchange, _) = exchange(&["a", "b", "c"]);
    for id in ["m1", "m2", "m3"] {
        exchange.device_is(&device(id), Some(&Bytes::from_static(b"x")));
    }
    assert_eq!(exchange.inside().devices.len(), 2, "of the third nothing is kept");
    let client = exchange.enter(&device("m9"), Role::Device);
    for (name, granted) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(client.subscribe(&group(name), name, QoS::AtMostOnce).is_some(), granted, "{name}");
    }
    assert!(client.unsubscribe(&group("a")));
    assert!(client.subscribe(&group("c"), "c", QoS::AtMostOnce).is_some());
    client.subscribe(&Channel::Beacon, "t", QoS::AtMostOnce);
    drop(client);
    let inside = exchange.inside();
    assert_eq!((inside.devices.len(), inside.groups.len(), inside.groups_read), (2, 0, 0));
    assert!(inside.beacon.readers.is_empty());
}

#[test]
fn a_connection_that_was_taken_over_does_not_take_the_newer_one_with_it() {
    let (exchange, _) = exchange(&[]);
    let old = exchange.enter(&device("m1"), Role::Device);
    let new = exchange.enter(&device("m1"), Role::Device);
    new.subscribe(&Channel::Answers, "c", QoS::AtMostOnce);
    drop(old);
    exchange.publish([message(Channel::Answers, "m1", "answer")]);
    assert_eq!(got(&new), one("answer", false));
}

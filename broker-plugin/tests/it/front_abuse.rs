//! What clients do wrong costs them their connection, and nobody else anything.

use std::time::Duration;

use crate::front_support::{Client, Hello, House, packet, publish, subscribe};

#[test]
fn a_stalled_reader_that_acknowledges_what_nobody_sent_leaves_the_service_serving() {
    let house = House::open_with(|config| config.write_limit = Duration::from_secs(2));
    for level in [4, 5] {
        let mut stalled = Client::let_in(house.addr(), level, "stalled");
        let filters = [("ota/d/stalled/c", 0), ("ota/d/stalled/s", 1), ("ota/t", 0)];
        stalled.send(&subscribe(level, 1, &filters));
        for _ in 0..50 {
            house.publish("ota/d/stalled/s", b"x", false);
        }
        // Acknowledgements of everything, in the wrong order, again and again; and nothing is read.
        let mut acks = Vec::new();
        for pkid in (0..=u16::MAX).rev().step_by(61) {
            let [high, low] = pkid.to_be_bytes();
            acks.extend([0x40, 2, high, low]);
        }
        // Enough to fill every buffer between here and there, in portions that the logs can hold.
        while house.count(|it| &it.write_timeouts) == u64::from(level - 4) {
            for _ in 0..10 {
                house.publish("ota/d/stalled/c", &[7; 4096], false);
                house.publish("ota/t", &[8; 4096], false);
            }
            if !stalled.try_send(&acks) {
                break;
            }
        }
        house.await_count(u64::from(level - 3), |it| &it.write_timeouts);
        house.prove_serving();
    }
    assert!(house.count(|it| &it.stranger_acks) > 1000);
    assert_eq!(house.count(|it| &it.router_gone), 0);
}

#[test]
fn acknowledgements_in_any_order_let_the_next_messages_through() {
    let house = House::open();
    for level in [4, 5] {
        let mut client = Client::let_in(house.addr(), level, "m1");
        assert_eq!(client.subscribe(&[("ota/d/m1/c", 1)]), [1]);
        let total = 700_u32;
        for number in 0..total {
            house.publish("ota/d/m1/c", &number.to_be_bytes(), false);
        }
        // The door sends 100 and waits; acknowledged backwards, and every one twice.
        for first in (0..total).step_by(100) {
            let pkids: Vec<u16> = (first..first + 100)
                .map(|number| {
                    let message = client.expect_publish();
                    assert_eq!(message.payload, number.to_be_bytes());
                    message.pkid
                })
                .collect();
            for pkid in pkids.iter().rev() {
                client.ack(*pkid);
                client.ack(*pkid);
            }
        }
        client.ping();
    }
    assert_eq!(house.count(|it| &it.messages_lost), 0);
    house.prove_serving();
}

#[test]
fn two_hundred_abrupt_disconnects_leave_the_service_serving() {
    let house = House::open();
    for round in 0..200_u16 {
        let level = if round % 2 == 0 { 4 } else { 5 };
        let id = format!("m-{}", round % 20);
        let hello = Hello { client_id: &id, ..Hello::default() };
        let mut client = Client::silent(house.addr(), level);
        let connect = crate::front_support::connect(level, &hello);
        let topic = format!("ota/d/{id}/c");
        match round % 5 {
            // In the middle of CONNECT, right behind it, after CONNACK, with messages under way, in a packet.
            0 => client.send(&connect[..connect.len() / 2]),
            1 => client.send(&connect),
            2 => {
                client.send(&connect);
                assert_eq!(client.receive().unwrap().first, 0x20);
            }
            3 => {
                client.send(&[connect, subscribe(level, 1, &[(&topic, 1)])].concat());
                for _ in 0..50 {
                    house.publish(&topic, &[1; 2048], false);
                }
                assert_eq!(client.receive().unwrap().first, 0x20);
            }
            _ => {
                client.send(&connect);
                let half = publish(level, b"ota/d/x/q", &[0; 1000], 1, false);
                client.send(&half[..500]);
            }
        }
        client.vanish();
    }
    house.prove_serving();
    house.await_count(200 + 1, |it| &it.accepted);
    assert_eq!(house.count(|it| &it.router_gone), 0);
}

#[test]
fn two_hundred_takeovers_leave_the_service_serving() {
    let house = House::open();
    let mut clients: Vec<Client> = Vec::new();
    for round in 0..200_u16 {
        let level = if round % 2 == 0 { 4 } else { 5 };
        let mut client = Client::let_in(house.addr(), level, "m1");
        client.send(&subscribe(level, 1, &[("ota/d/m1/c", 1), ("ota/t", 0)]));
        house.publish("ota/d/m1/c", &round.to_be_bytes(), false);
        house.publish("ota/t", &round.to_be_bytes(), false);
        clients.push(client);
    }
    let mut last = clients.pop().unwrap();
    for client in &mut clients {
        let farewell = client.expect_closed();
        assert_eq!(farewell, (client.level == 5).then_some(0x8E));
    }
    assert_eq!(house.count(|it| &it.takeovers), 199);
    // The last one is served: its SUBACK, then what came since, then an answer.
    last.publish("ota/d/m1/q", b"still here", 0, false);
    loop {
        let packet = last.receive().unwrap();
        if packet.first >> 4 == 3 {
            let message = last.published(&packet);
            if message.pkid > 0 {
                last.ack(message.pkid);
            }
            if message.payload == b"re:still here" {
                break;
            }
        }
    }
    house.prove_serving();
    assert_eq!(house.count(|it| &it.router_gone), 0);
}

#[test]
fn many_takeovers_at_once_leave_one_connection() {
    let house = House::open();
    let addr = house.addr();
    let threads: Vec<_> = (0..40)
        .map(|number| {
            std::thread::spawn(move || {
                let mut client = Client::silent(addr, 4);
                let hello = Hello { client_id: "m1", ..Hello::default() };
                client.send(&crate::front_support::connect(4, &hello));
                let let_in = client.receive().is_some();
                (number, let_in, client)
            })
        })
        .collect();
    let mut clients: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    house.await_count(39, |it| &it.takeovers);
    assert_eq!(house.count(|it| &it.connected), 1);
    let mut answers = |(_, let_in, client): &mut (i32, bool, Client)| {
        *let_in && client.try_send(&[0xC0, 0]) && client.receive().is_some()
    };
    assert_eq!(clients.iter_mut().map(&mut answers).filter(|alive| *alive).count(), 1);
    house.prove_serving();
}

#[test]
fn a_taken_over_client_leaves_its_will() {
    let house = House::open();
    let will = Some(("ota/d/m1/r", b"gone".as_slice(), 1, false));
    let hello = Hello { client_id: "m1", will, ..Hello::default() };
    let (mut first, _) = Client::knock(house.addr(), 4, &hello);
    let mut second = Client::let_in(house.addr(), 4, "m1");
    assert_eq!(house.hear().payload, &b"gone"[..]);
    first.expect_closed();
    second.ping();
}

#[test]
fn clients_that_connect_and_say_nothing_are_closed_and_others_served_meanwhile() {
    let house = House::open_with(|config| config.connect_limit = Duration::from_secs(2));
    let mut silent: Vec<Client> = (0..50).map(|_| Client::silent(house.addr(), 4)).collect();
    // One says half a sentence.
    silent[0].send(&[0x10, 20, 0, 4, b'M']);
    house.prove_serving();
    for client in &mut silent {
        assert!(client.receive().is_none());
    }
    assert_eq!(house.count(|it| &it.connect_timeouts), 50);
    house.prove_serving();
}

#[test]
fn a_room_full_of_silent_clients_keeps_nobody_out() {
    let house = House::open_with(|config| {
        config.waiting_max = 10;
        config.connect_limit = Duration::from_secs(3000);
    });
    let mut silent: Vec<Client> = (0..30).map(|_| Client::silent(house.addr(), 4)).collect();
    house.prove_serving();
    house.await_count(20, |it| &it.connect_evicted);
    assert!(silent[0].receive().is_none(), "the longest silent");
    house.prove_serving();
}

#[test]
fn a_packet_over_the_limit_closes_the_connection_before_it_is_read() {
    let house = House::open_with(|config| config.packet_bytes_max = 8 * 1024);
    for level in [4, 5] {
        let largest = |len: usize| {
            let frame = publish(level, b"ota/d/m1/q", &vec![0; len], 1, false);
            (frame.len() - 3, frame) // less the fixed header
        };
        let room = 8 * 1024 - (largest(8000).0 - 8000);
        let mut client = Client::let_in(house.addr(), level, "m1");
        client.send(&largest(room).1);
        assert_eq!(client.receive().unwrap().first, 0x40, "a packet of the limit");
        client.send(&largest(room + 1).1[..3]);
        assert_eq!(client.expect_closed(), (level == 5).then_some(0x95), "from its header alone");
        // A CONNECT has a limit of its own.
        let mut client = Client::silent(house.addr(), level);
        client.send(&[0x10, 0x81, 0x80, 1]);
        assert!(client.receive().is_none());
    }
    assert_eq!(house.count(|it| &it.packets_too_large), 2);
    house.prove_serving();
}

#[test]
fn a_client_that_is_silent_for_longer_than_its_keep_alive_is_closed() {
    let house = House::open();
    for level in [4, 5] {
        let hello = Hello { client_id: "m1", keep_alive: 1, ..Hello::default() };
        let (mut client, _) = Client::knock(house.addr(), level, &hello);
        assert_eq!(client.expect_closed(), (level == 5).then_some(0x8D));
    }
    assert_eq!(house.count(|it| &it.keepalive_timeouts), 2);
}

#[test]
fn no_more_clients_than_allowed_are_connected_and_a_takeover_finds_its_place() {
    let house = House::open_with(|config| config.connections_max = 3);
    let mut clients: Vec<Client> =
        (0..3).map(|number| Client::let_in(house.addr(), 4, &format!("m{number}"))).collect();
    for (level, unavailable) in [(4, 3), (5, 0x88)] {
        let hello = Hello { client_id: "late", ..Hello::default() };
        assert_eq!(Client::knock(house.addr(), level, &hello).1, Some(unavailable));
    }
    assert_eq!(house.count(|it| &it.refused_full), 2);
    let mut again = Client::let_in(house.addr(), 4, "m0");
    again.ping();
    // Who leaves makes room.
    clients.pop().unwrap().disconnect();
    let addr = house.addr();
    house.await_count(1, |it| &it.ended_by_client);
    let mut let_in = false;
    while !let_in {
        // The place is free when the router has forgotten the one who left, a moment later.
        let hello = Hello { client_id: "late", ..Hello::default() };
        let_in = Client::knock(addr, 4, &hello).1 == Some(0);
    }
}

#[test]
fn clients_that_have_gone_leave_no_link_behind() {
    let house = House::open_with(|config| config.connections_max = 3);
    let enter = |id: &str| loop {
        match Client::knock(house.addr(), 4, &Hello { client_id: id, ..Hello::default() }) {
            (client, Some(0)) => break client,
            // Full: the router has not forgotten the last ones yet.
            (_, code) => assert_eq!((code, house.count(|it| &it.router_gone)), (Some(3), 0)),
        }
    };
    // More than the router has room for.
    for number in 0..200 {
        let client = enter(&format!("m{number}"));
        if number % 2 == 0 { client.disconnect() } else { client.vanish() }
    }
    house.prove_that_it_serves(enter("last"), "last");
}

#[test]
fn devices_and_groups_have_a_limit() {
    let house = House::open_with(|config| {
        config.devices_max = 2;
        config.groups_max = 2;
    });
    let mut known = Client::let_in(house.addr(), 4, "m1");
    let codes = known.subscribe(&[("ota/g/many1", 0), ("ota/g/many2", 0), ("ota/g/many3", 0)]);
    assert_eq!(codes, [0, 0, 0x80]);
    Client::let_in(house.addr(), 4, "m2").disconnect();
    for (level, unavailable) in [(4, 3), (5, 0x97)] {
        let hello = Hello { client_id: "m3", ..Hello::default() };
        assert_eq!(Client::knock(house.addr(), level, &hello).1, Some(unavailable));
    }
    let mut again = Client::let_in(house.addr(), 5, "m2");
    assert_eq!(again.subscribe(&[("ota/g/many2", 0), ("ota/g/many4", 0)]), [0, 0x80]);
    assert_eq!(house.count(|it| &it.refused_devices_max), 2);
    assert_eq!(house.count(|it| &it.subscribe_refused_groups_max), 2);
}

#[test]
fn invented_ids_lock_out_neither_devices_that_the_operator_knows_nor_new_ones() {
    let house = House::open_with(|config| {
        config.devices_max = 16;
        config.strangers_max = 8;
    });
    let mut connected = Client::let_in(house.addr(), 5, "m1");
    let mut invented: Vec<Client> =
        (0..2048).map(|number| Client::let_in(house.addr(), 5, &format!("stranger-{number}"))).collect();
    // Those that were idle for longest are told why they have to go.
    for client in &mut invented[..2040] {
        assert_eq!(client.expect_closed(), Some(0x97));
    }
    for client in &mut invented[2040..] {
        client.ping();
    }
    connected.ping();
    house.prove_serving();
    house.prove_that_it_serves(Client::let_in(house.addr(), 4, "stranger-new"), "stranger-new");
    // A known device that has never been here.
    house.prove_that_it_serves(Client::let_in(house.addr(), 4, "m2"), "m2");
    assert_eq!(house.count(|it| &it.strangers_evicted), 2041);
    assert_eq!(house.count(|it| &it.refused_devices_max), 0);
    assert_eq!(house.count(|it| &it.router_gone), 0);
}

#[test]
fn malformed_packets_close_the_connection_and_nothing_else() {
    let house = House::open();
    let too_many: Vec<String> = (0..65).map(|number| format!("ota/g/many{number}")).collect();
    let too_many: Vec<(&str, u8)> = too_many.iter().map(|filter| (filter.as_str(), 0)).collect();
    for level in [4, 5] {
        for bytes in [
            packet(0x82, &[0, 1]),                    // SUBSCRIBE without a filter
            packet(0x82, &[0, 0, 0, 1, b'x', 0]),     // packet identifier 0
            packet(0x82, &[0, 1, 0, 200, b'x', 0]),   // a length that points outside
            packet(0x82, &[0, 1, 0, 1, b'x', 3]),     // QoS 3
            packet(0xA2, &[0]),                       // UNSUBSCRIBE cut off
            packet(0x36, b"\0\x0aota/d/m1/q\0\x09x"), // PUBLISH with QoS 3
            packet(0x32, b"\0\x0aota/d/m1/q\0\0x"),   // packet identifier 0
            packet(0x30, b"\xff\xff"),                // a topic that is not there
            packet(0x40, &[1]),                       // PUBACK cut off
            packet(0x30, b""),                        // nothing at all
            vec![0x30, 0xff, 0xff, 0xff, 0xff, 1],    // a length of five bytes
            crate::front_support::connect(level, &Hello { client_id: "m1", ..Hello::default() }),
            subscribe(level, 1, &too_many),
        ] {
            let mut client = Client::let_in(house.addr(), level, "m1");
            client.try_send(&bytes);
            let farewell = client.expect_closed();
            assert!(level == 4 || farewell.is_some(), "{bytes:x?}");
        }
    }
    assert_eq!(house.count(|it| &it.protocol_errors), 26);
    house.prove_serving();
}

#[test]
fn random_bytes_after_connect_leave_the_service_serving() {
    let house = House::open();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let level = if round % 2 == 0 { 4 } else { 5 };
        let mut client = Client::let_in(house.addr(), level, &format!("m-{}", round % 10));
        for _ in 0..20 {
            let len = random() % 40;
            let body: Vec<u8> = (0..len).map(|_| (random() % 256) as u8).collect();
            let first = [0x30, 0x32, 0x40, 0x82, 0xA2, 0xC0, 0xE0, 0x20, 0xB0][(random() % 9) as usize];
            if !client.try_send(&packet(first, &body)) {
                break;
            }
        }
    }
    house.prove_serving();
    assert_eq!(house.count(|it| &it.router_gone), 0);
}

#[test]
fn what_a_slow_reader_loses_is_counted() {
    let house = House::open_with(|config| {
        config.answers_bytes_max = 32 * 1024;
        config.write_limit = Duration::from_secs(3000);
    });
    let mut slow = Client::let_in(house.addr(), 4, "m1");
    assert_eq!(slow.subscribe(&[("ota/d/m1/c", 0)]), [0]);
    // From the first message on it is known where the reader stands.
    house.publish("ota/d/m1/c", b"start", false);
    assert_eq!(slow.expect_publish().payload, b"start");
    // Far more than the outbox and the socket's buffers hold, while nothing is read.
    let total = 10_000_u32;
    for number in 0..total {
        house.publish("ota/d/m1/c", &[&number.to_be_bytes()[..], &[0; 4092]].concat(), false);
    }
    house.publish("ota/d/m1/c", b"end", false);
    let mut got = 0;
    while slow.expect_publish().payload != b"end" {
        got += 1;
    }
    let lost = house.count(|it| &it.messages_lost);
    assert!(lost > 0);
    assert_eq!(lost + got, u64::from(total));
}

#[test]
fn a_closed_door_has_told_its_clients_and_takes_no_more() {
    let house = House::open();
    let addr = house.addr();
    let mut v4 = Client::let_in(addr, 4, "m1");
    let mut v5 = Client::let_in(addr, 5, "m2");
    let mut silent = Client::silent(addr, 4);
    house.await_count(3, |it| &it.accepted);
    drop(house);
    assert_eq!(v4.expect_closed(), None);
    assert_eq!(v5.expect_closed(), Some(0x8B));
    assert_eq!(silent.expect_closed(), None);
    assert!(std::net::TcpStream::connect(addr).is_err());
}

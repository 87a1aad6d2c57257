//! Packets as bytes, made by hand: also those that no client library would make.

use crate::front_support::Hello;

pub(crate) fn connect(level: u8, hello: &Hello<'_>) -> Vec<u8> {
    let mut flags = 0x02;
    let mut payload = text(hello.client_id.as_bytes());
    if let Some((topic, message, qos, retain)) = hello.will {
        flags |= 0x04 | qos << 3 | u8::from(retain) << 5;
        if level == 5 {
            payload.push(0);
        }
        payload.extend(text(topic.as_bytes()));
        payload.extend(text(message));
    }
    if let Some(name) = hello.user_name {
        flags |= 0x80;
        payload.extend(text(name.as_bytes()));
    }
    if let Some(password) = hello.password {
        flags |= 0x40;
        payload.extend(text(password.as_bytes()));
    }
    let mut body = [b"\0\x04MQTT", &[level, flags][..], &hello.keep_alive.to_be_bytes()].concat();
    if level == 5 {
        body.push(hello.properties.len() as u8);
        body.extend_from_slice(hello.properties);
    }
    body.extend(payload);
    packet(0x10, &body)
}

pub(crate) fn subscribe(level: u8, pkid: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    if level == 5 {
        body.push(0);
    }
    for (filter, qos) in filters {
        body.extend(text(filter.as_bytes()));
        body.push(*qos);
    }
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(level: u8, pkid: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    if level == 5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(text(filter.as_bytes()));
    }
    packet(0xA2, &body)
}

pub(crate) fn publish(level: u8, topic: &[u8], payload: &[u8], qos: u8, retain: bool) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend([0, 9]);
    }
    if level == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let byte = (len % 128) as u8;
        len /= 128;
        out.push(if len > 0 { byte | 0x80 } else { byte });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

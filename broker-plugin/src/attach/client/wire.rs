//! What a client of MQTT 3.1.1 says and hears, as bytes.
//!
//! A client of that version cannot tell its broker how long messages may be, so that whoever may publish to the
//! service decides how much arrives here. [`Reader`] therefore keeps at most one message of a length that devices
//! need: of a longer one it reads the topic and the packet identifier, and skips the rest as it comes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ClientConfig;
use crate::front::{Fault, packet_lengths};

/// A packet of the broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The answer to CONNECT; 0 lets in.
    ConnAck(u8),
    /// The answer to SUBSCRIBE, one code for each filter.
    SubAck(Vec<u8>),
    PubAck(u16),
    Publish(Publish),
    /// A message with a payload over the limit; it is skipped. This is to be acknowledged.
    Oversized(Option<u16>),
    PingResp,
}

/// A message of a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    pub(super) retained: bool,
    /// To be acknowledged with this: the message is of QoS 1.
    pub(super) ack: Option<u16>,
}

/// What came is no packet that a broker sends to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<Fault> for Malformed {
    fn from(_: Fault) -> Self {
        Self
    }
}

/// Cuts packets out of what the broker sends.
#[derive(Debug, Default)]
pub(super) struct Reader {
    input: BytesMut,
    /// Bytes still to come of a message that is not wanted.
    skip: usize,
}

impl Reader {
    /// Where to put what comes next.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.input.reserve(READ_BYTES);
        &mut self.input
    }

    /// The next packet, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Received>, Malformed> {
        let skipped = self.skip.min(self.input.len());
        self.input.advance(skipped);
        self.skip -= skipped;
        let Some((header_len, body_len)) = packet_lengths(&self.input)? else { return Ok(None) };
        let first = self.input.first().copied().unwrap_or_default();
        if first >> 4 == PUBLISH {
            return self.next_publish(first, header_len, body_len);
        }
        if body_len > ANSWER_BYTES_MAX {
            return Err(Malformed);
        }
        if self.input.len() < header_len + body_len {
            return Ok(None);
        }
        self.input.advance(header_len);
        let body = self.input.split_to(body_len);
        match (first, &body[..]) {
            (0x20, [_, code]) => Ok(Some(Received::ConnAck(*code))),
            (0x40, [high, low]) => Ok(Some(Received::PubAck(u16::from_be_bytes([*high, *low])))),
            (0x90, [_, _, codes @ ..]) => Ok(Some(Received::SubAck(codes.to_vec()))),
            (0xD0, []) => Ok(Some(Received::PingResp)),
            _ => Err(Malformed),
        }
    }

    fn next_publish(
        &mut self,
        first: u8,
        header_len: usize,
        body_len: usize,
    ) -> Result<Option<Received>, Malformed> {
        let qos = first >> 1 & 3;
        if qos > 1 {
            return Err(Malformed); // We subscribe with QoS 1 at most.
        }
        let mut packet = self.input.get(header_len..).unwrap_or_default();
        let Ok(topic_len) = packet.try_get_u16() else { return Ok(None) };
        let topic_len = usize::from(topic_len);
        let before_payload = 2 + topic_len + if qos == 1 { 2 } else { 0 };
        let payload_len = body_len.checked_sub(before_payload).ok_or(Malformed)?;
        let Some((topic, mut packet)) = packet.split_at_checked(topic_len) else { return Ok(None) };
        let ack = match qos {
            0 => None,
            _ => match packet.try_get_u16() {
                Ok(0) => return Err(Malformed),
                Ok(pkid) => Some(pkid),
                Err(_) => return Ok(None),
            },
        };
        if payload_len > PAYLOAD_BYTES_MAX {
            self.input.advance(header_len + before_payload);
            self.skip = payload_len;
            return Ok(Some(Received::Oversized(ack)));
        }
        let Some(payload) = packet.get(..payload_len) else { return Ok(None) };
        // Copies: a slice would keep the whole buffer for as long as the message waits for the service.
        let (topic, payload) = (Bytes::copy_from_slice(topic), Bytes::copy_from_slice(payload));
        self.input.advance(header_len + body_len);
        Ok(Some(Received::Publish(Publish { topic, payload, retained: first & 1 == 1, ack })))
    }
}

/// Appends CONNECT with a clean session.
pub(super) fn write_connect(out: &mut BytesMut, config: &ClientConfig) {
    let mut flags = 0x02;
    let mut body = BytesMut::new();
    put_text(&mut body, &config.client_id);
    if let Some((user, password)) = &config.login {
        flags |= 0xC0;
        put_text(&mut body, user);
        put_text(&mut body, password);
    }
    put_header(out, 0x10, 10 + body.len());
    put_text(out, "MQTT");
    out.put_u8(4);
    out.put_u8(flags);
    out.put_u16(u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX));
    out.put_slice(&body);
}

/// Appends SUBSCRIBE; each filter has its QoS.
pub(super) fn write_subscribe(out: &mut BytesMut, filters: &[(String, u8)]) {
    put_header(out, 0x82, 2 + filters.iter().map(|(filter, _)| 3 + filter.len()).sum::<usize>());
    out.put_u16(1);
    for (filter, qos) in filters {
        put_text(out, filter);
        out.put_u8(*qos);
    }
}

/// Appends PUBLISH: of QoS 1 where it has a packet identifier. `topic` has at most 65,535 bytes.
pub(super) fn write_publish(
    out: &mut BytesMut,
    topic: &[u8],
    payload: &[u8],
    pkid: Option<u16>,
    retain: bool,
) {
    let qos = u8::from(pkid.is_some());
    let pkid_len = if pkid.is_some() { 2 } else { 0 };
    put_header(out, PUBLISH << 4 | qos << 1 | u8::from(retain), 2 + topic.len() + pkid_len + payload.len());
    put_bytes(out, topic);
    if let Some(pkid) = pkid {
        out.put_u16(pkid);
    }
    out.put_slice(payload);
}

/// Appends PUBACK.
pub(super) fn write_puback(out: &mut BytesMut, pkid: u16) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(pkid);
}

/// Appends PINGREQ.
pub(super) fn write_ping(out: &mut BytesMut) {
    out.put_slice(&[0xC0, 0]);
}

/// The first byte, and the length of what follows (MQTT 3.1.1 section 2.2.3).
fn put_header(out: &mut BytesMut, first: u8, mut len: usize) {
    out.put_u8(first);
    loop {
        let more = len > 0x7f;
        let digit = u8::try_from(len & 0x7f).expect("seven bits fit");
        out.put_u8(digit | u8::from(more) << 7);
        len >>= 7;
        if !more {
            return;
        }
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("whoever gives it has looked at its length"));
    out.put_slice(bytes);
}

/// No message of a device has a longer payload. A longer one is skipped.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// No answer of a broker is longer: the longest has a byte for each of our filters.
const ANSWER_BYTES_MAX: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
const PUBLISH: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// All packets of a stream that comes in pieces.
    fn read(stream: &[u8], piece: usize) -> Result<(Vec<Received>, usize), Malformed> {
        let mut reader = Reader::default();
        let (mut packets, mut held) = (Vec::new(), 0);
        for piece in stream.chunks(piece) {
            reader.room().extend_from_slice(piece);
            while let Some(packet) = reader.next()? {
                packets.push(packet);
            }
            held = held.max(reader.input.len());
        }
        Ok((packets, held))
    }

    fn published(topic: &[u8], payload: &[u8], pkid: Option<u16>, retain: bool) -> BytesMut {
        let mut out = BytesMut::new();
        write_publish(&mut out, topic, payload, pkid, retain);
        out
    }

    #[test]
    fn a_message_over_the_limit_is_skipped_as_it_comes_and_what_follows_is_read() {
        let mut stream = BytesMut::new();
        for pkid in [None, Some(7)] {
            stream.put(published(b"ota/d/m1/q", &vec![3; 3 << 20], pkid, false));
            stream.put(published(b"ota/d/m2/q", b"honest", None, false));
        }
        stream.put(published(b"ota/d/m1/q", &vec![1; PAYLOAD_BYTES_MAX + 1], Some(8), false));
        stream.put(published(b"ota/d/m1/r", &vec![2; PAYLOAD_BYTES_MAX], Some(9), true));
        for piece in [1000, 16 * 1024, stream.len()] {
            let (packets, held) = read(&stream, piece).unwrap();
            let said: Vec<_> = packets
                .iter()
                .map(|packet| match packet {
                    Received::Publish(publish) => (publish.payload.len(), publish.ack),
                    Received::Oversized(ack) => (usize::MAX, *ack),
                    other => panic!("{other:?}"),
                })
                .collect();
            let over = usize::MAX;
            assert_eq!(
                said,
                [(over, None), (6, None), (over, Some(7)), (6, None), (over, Some(8)), (65_536, Some(9))]
            );
            assert!(held < PAYLOAD_BYTES_MAX + 100, "{held} bytes were kept with pieces of {piece}");
        }
    }

    #[test]
    fn a_packet_is_read_when_its_last_byte_is_there() {
        let mut stream = BytesMut::from(&[0x20, 2, 0, 5, 0x90, 4, 0, 1, 0, 0x80, 0x40, 2, 1, 0, 0xD0, 0][..]);
        stream.put(published(b"t", b"x", Some(0x0102), true));
        stream.put(published(&[0xff, 0xfe], b"", None, false));
        let publish = |topic: &'static [u8], payload: &'static [u8], retained, ack| {
            let (topic, payload) = (Bytes::from_static(topic), Bytes::from_static(payload));
            Received::Publish(Publish { topic, payload, retained, ack })
        };
        let expected = [
            Received::ConnAck(5),
            Received::SubAck(vec![0, 0x80]),
            Received::PubAck(256),
            Received::PingResp,
            publish(b"t", b"x", true, Some(0x0102)),
            publish(&[0xff, 0xfe], b"", false, None),
        ];
        for piece in 1..stream.len() {
            assert_eq!(read(&stream, piece).unwrap().0, expected, "{piece}");
        }
    }

    #[test]
    fn what_no_broker_says_to_a_client_like_this_is_malformed() {
        for stream in [
            &b"HTTP/1.1 400 Bad Request"[..],
            &[0x20, 1, 0],                      // CONNACK that is too short
            &[0x40, 3, 0, 1, 0],                // PUBACK that is too long
            &[0x34, 5, 0, 1, b'a', 0, 1],       // QoS 2
            &[0x32, 5, 0, 1, b'a', 0, 0],       // packet identifier 0
            &[0x30, 2, 0, 1],                   // a topic longer than its packet
            &[0x32, 4, 0, 1, b'a', 0],          // an identifier cut off
            &[0x90, 0x80, 0x80, 1],             // an answer of 16 KiB
            &[0x30, 0x80, 0x80, 0x80, 0x80, 1], // a length of five bytes
            &[0xF0, 0],
        ] {
            assert_eq!(read(stream, 100), Err(Malformed), "{stream:?}");
        }
    }

    #[test]
    fn no_byte_sequence_makes_the_reader_panic() {
        let mut noise = whimbrel_protocol::retry::Jitter::new(1);
        for _ in 0..200_000 {
            let len = usize::try_from(noise.below(12)).unwrap();
            let mut stream: Vec<u8> = noise.next_u64().to_le_bytes().into_iter().chain([0; 4]).collect();
            stream[0] = [0x20, 0x30, 0x32, 0x40, 0x90, 0xD0][usize::from(stream[0]) % 6];
            stream[1] &= 0x0f;
            let _may_be_malformed = read(&stream[..len], 5);
        }
    }

    #[test]
    fn lengths_are_written_as_the_standard_says() {
        for (len, digits) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_384, &[0x80, 0x80, 1]),
            (2_097_152, &[0x80, 0x80, 0x80, 1]),
        ] {
            let mut out = BytesMut::new();
            put_header(&mut out, 0x30, len);
            assert_eq!(&out[1..], digits, "{len}");
        }
    }

    #[test]
    fn the_login_is_in_the_connect() {
        let mut config = ClientConfig::new("mqtt://host".parse().unwrap(), "me".to_owned(), 1);
        let mut out = BytesMut::new();
        write_connect(&mut out, &config);
        assert_eq!(&out[..], b"\x10\x0e\0\x04MQTT\x04\x02\0\x1e\0\x02me");
        config.login = Some(("u".to_owned(), "pw".to_owned()));
        out.clear();
        write_connect(&mut out, &config);
        assert_eq!(&out[..], b"\x10\x15\0\x04MQTT\x04\xc2\0\x1e\0\x02me\0\x01u\0\x02pw");
        out.clear();
        write_subscribe(&mut out, &[("a/+".to_owned(), 0), ("b".to_owned(), 1)]);
        assert_eq!(&out[..], b"\x82\x0c\0\x01\0\x03a/+\0\0\x01b\x01");
    }
}

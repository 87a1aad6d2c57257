//! MQTT packets from and to bytes, for both versions.
//!
//! The router's own codecs do the reading and writing. What they can't bear is kept from them: a packet is cut
//! out of the stream here, so that "needs more bytes" can only mean a malformed packet; packets that no client
//! may send are refused by their first byte (the version 5 reader panics on two of them); DISCONNECT is read
//! here (the reader rejects the form without properties); and everything written has no properties
//! but those of CONNACK, because the version 3.1.1 writer panics on them.

use bytes::BytesMut;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{ConnAck, ConnAckProperties, Packet, Protocol};

/// One whole packet, cut out of the stream.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: BytesMut,
    header_len: usize,
}

/// Which packet it is, of those that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Publish,
    PubAck,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
    /// One that only servers send, of QoS 2, AUTH, or none at all.
    Other,
}

/// Why no packet could be cut out or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Longer than is allowed.
    TooLarge,
    /// Not a packet of this protocol.
    Malformed,
}

impl Frame {
    /// Cuts the first packet out of `stream`; `None` where more bytes are needed. Packets of more than `limit`
    /// bytes after the fixed header are refused as soon as their length is known.
    pub(crate) fn take(stream: &mut BytesMut, limit: usize) -> Result<Option<Self>, Fault> {
        let Some((header_len, body_len)) = lengths(stream)? else { return Ok(None) };
        if body_len > limit {
            return Err(Fault::TooLarge);
        }
        let len = header_len + body_len;
        if stream.len() < len {
            return Ok(None);
        }
        Ok(Some(Self { bytes: stream.split_to(len), header_len }))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.first() >> 4 {
            1 => Kind::Connect,
            3 => Kind::Publish,
            4 => Kind::PubAck,
            8 => Kind::Subscribe,
            10 => Kind::Unsubscribe,
            12 => Kind::PingReq,
            14 => Kind::Disconnect,
            _ => Kind::Other,
        }
    }

    /// QoS of a PUBLISH, 0 to 3.
    pub(crate) fn qos(&self) -> u8 {
        self.first() >> 1 & 3
    }

    /// Retain flag of a PUBLISH.
    pub(crate) fn retain(&self) -> bool {
        self.first() & 1 == 1
    }

    /// The packet identifier of a PUBLISH that has one; `None` where the packet is cut off. The router's own reader
    /// keeps it to itself.
    pub(crate) fn publish_pkid(&self) -> Option<u16> {
        let body = self.body();
        let topic_len = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
        Some(u16::from_be_bytes([*body.get(2 + topic_len)?, *body.get(3 + topic_len)?]))
    }

    /// Protocol level of a CONNECT: 4 is MQTT 3.1.1. `None` where it is not MQTT.
    pub(crate) fn level(&self) -> Option<u8> {
        match self.body() {
            [0, 4, b'M', b'Q', b'T', b'T', level, ..] => Some(*level),
            _ => None,
        }
    }

    /// Reason code of a DISCONNECT; 0 where it has none.
    pub(crate) fn disconnect_reason(&self) -> u8 {
        self.body().first().copied().unwrap_or(0)
    }

    fn first(&self) -> u8 {
        self.bytes.first().copied().unwrap_or(0)
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(self.header_len..).unwrap_or_default()
    }
}

/// Length of the fixed header and of what follows it (MQTT 3.1.1 section 2.2.3).
pub(crate) fn lengths(stream: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut body_len = 0;
    for position in 0..4 {
        let Some(&byte) = stream.get(1 + position) else { return Ok(None) };
        body_len |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok(Some((2 + position, body_len)));
        }
    }
    Err(Fault::Malformed)
}

/// Reads and writes packets of one version.
#[derive(Debug)]
pub(crate) enum Codec {
    /// MQTT 3.1.1.
    V4(V4),
    /// MQTT 5.
    V5(V5),
}

impl Codec {
    /// The codec of a protocol level, if we speak it.
    pub(crate) fn of_level(level: u8) -> Option<Self> {
        match level {
            4 => Some(Self::V4(V4)),
            5 => Some(Self::V5(V5)),
            _ => None,
        }
    }

    pub(crate) fn is_v5(&self) -> bool {
        matches!(self, Self::V5(_))
    }

    /// Reads a whole packet of a kind that clients send.
    pub(crate) fn read(&mut self, frame: Frame) -> Result<Packet, Fault> {
        if matches!(frame.kind(), Kind::Other) {
            return Err(Fault::Malformed);
        }
        let Frame { mut bytes, .. } = frame;
        let limit = bytes.len();
        let packet = match self {
            Self::V4(codec) => codec.read_mut(&mut bytes, limit),
            Self::V5(codec) => codec.read_mut(&mut bytes, limit),
        };
        packet.map_err(|_| Fault::Malformed)
    }

    /// Appends a packet to `out`; the packet must have no properties.
    ///
    /// Fails only for what can't be said in MQTT, and then leaves `out` as it was.
    pub(crate) fn write(&self, packet: Packet, out: &mut BytesMut) -> Result<(), Fault> {
        let start = out.len();
        let written = match self {
            Self::V4(codec) => codec.write(packet, out),
            Self::V5(codec) => codec.write(packet, out),
        };
        written.map(drop).map_err(|_| {
            out.truncate(start);
            Fault::Malformed
        })
    }

    /// Appends a CONNACK; properties are left out for version 3.1.1.
    pub(crate) fn write_connack(&self, ack: ConnAck, properties: ConnAckProperties, out: &mut BytesMut) {
        let properties = self.is_v5().then_some(properties);
        self.write(Packet::ConnAck(ack, properties), out)
            .expect("a CONNACK is short and its codes fit the version");
    }

    /// Appends the DISCONNECT with which a server says why it closes (MQTT 5 section 3.14.2.1); version 3.1.1
    /// has none. One byte of reason and no properties: the writer's own form claims a wrong length.
    pub(crate) fn write_farewell(&self, reason: u8, out: &mut BytesMut) {
        if self.is_v5() {
            out.extend_from_slice(&[0xE0, 1, reason]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8], limit: usize) -> Result<Option<Frame>, Fault> {
        Frame::take(&mut BytesMut::from(bytes), limit)
    }

    #[test]
    fn a_packet_is_cut_out_when_its_last_byte_is_there() {
        let packet = [0x30, 5, 0, 1, b'a', b'x', b'y'];
        for len in 0..packet.len() {
            assert!(take(&packet[..len], 100).unwrap().is_none(), "{len}");
        }
        let mut stream = BytesMut::from(&[packet.as_slice(), &[0xC0, 0]].concat()[..]);
        assert_eq!(Frame::take(&mut stream, 100).unwrap().unwrap().kind(), Kind::Publish);
        assert_eq!(Frame::take(&mut stream, 100).unwrap().unwrap().kind(), Kind::PingReq);
        assert!(stream.is_empty());
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_before_its_body_comes() {
        assert_eq!(take(&[0x30, 0xff, 0xff, 0x7f], 64 * 1024).unwrap_err(), Fault::TooLarge);
        assert_eq!(take(&[0x30, 0xff, 0xff, 0xff, 0xff], 64 * 1024).unwrap_err(), Fault::Malformed);
        assert!(take(&[0x30, 0xff], 64 * 1024).unwrap().is_none());
    }

    #[test]
    fn no_byte_sequence_makes_the_readers_panic() {
        // All first bytes, and bodies that are short, cut off, or full of lengths that point outside.
        for level in [4, 5] {
            let mut codec = Codec::of_level(level).unwrap();
            for first in 0..=255u8 {
                for body in bodies() {
                    let mut stream = BytesMut::from(&[first, u8::try_from(body.len()).unwrap()][..]);
                    stream.extend_from_slice(&body);
                    let frame = Frame::take(&mut stream, 1000).unwrap().unwrap();
                    let other = frame.kind() == Kind::Other;
                    let read = codec.read(frame);
                    assert!(!other || read.is_err(), "{first:#x} {body:?}");
                }
            }
        }
    }

    fn bodies() -> Vec<Vec<u8>> {
        let mut bodies = vec![vec![]];
        for byte in [0, 1, 2, 0x0b, 0x26, 0x7f, 0x80, 0xff] {
            for len in [1, 2, 3, 4, 5, 9, 40] {
                bodies.push(vec![byte; len]);
            }
        }
        bodies.push(vec![0, 1, 2, 0x0b, 0xff]); // a subscription identifier cut off
        bodies.push(vec![0, 1, b'a', 0, 7, 0x26, 0, 1, b'k', 0xff, 0xff]); // a user property cut off
        bodies.push(b"\0\x04MQTT\x04\xf6\0\x10\0\x02m1\0\x05".to_vec());
        bodies.push(b"\0\x04MQTT\x05\xf6\0\x10\x05\x26\0\x02m1\0\x05".to_vec());
        bodies
    }

    #[test]
    fn a_farewell_has_one_byte_of_reason_in_version_5_and_is_not_sent_in_3_1_1() {
        let mut out = BytesMut::new();
        Codec::V5(V5).write_farewell(0x8E, &mut out);
        assert_eq!(&out[..], [0xE0, 1, 0x8E]);
        out.clear();
        Codec::V4(V4).write_farewell(0x8E, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_disconnect_tells_its_reason_with_and_without_one() {
        let reason = |bytes: &[u8]| take(bytes, 100).unwrap().unwrap().disconnect_reason();
        assert_eq!(reason(&[0xE0, 0]), 0);
        assert_eq!(reason(&[0xE0, 1, 4]), 4);
        assert_eq!(reason(&[0xE0, 2, 4, 0]), 4);
    }

    #[test]
    fn the_level_is_read_only_from_an_mqtt_connect() {
        let level = |bytes: &[u8]| take(bytes, 100).unwrap().unwrap().level();
        assert_eq!(level(b"\x10\x08\0\x04MQTT\x05\x02"), Some(5));
        assert_eq!(level(b"\x10\x0a\0\x06MQIsdp\x03\x02"), None);
        assert_eq!(level(b"\x10\x02\0\x04"), None);
    }
}

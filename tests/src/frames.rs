//! Reads and writes MQTT 3.1.1 packets, as far as a proxy and a publisher need it.

/// One whole packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The packet's bytes, head included.
    pub bytes: Vec<u8>,
    body: usize,
}

/// The content of a PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The topic.
    pub topic: &'a str,
    /// QoS 0 or 1.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
    /// The payload.
    pub payload: &'a [u8],
}

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;

/// Takes the first whole packet off `buffer`.
///
/// # Panics
/// If the bytes do not begin with a packet.
#[must_use]
pub fn take(buffer: &mut Vec<u8>) -> Option<Frame> {
    let mut length = 0usize;
    let mut head = 1;
    loop {
        let byte = *buffer.get(head)?;
        length |= usize::from(byte & 0x7f) << (7 * (head - 1));
        head += 1;
        if byte & 0x80 == 0 {
            break;
        }
        assert!(head <= 4, "a remaining length has at most 4 bytes");
    }
    if buffer.len() < head + length {
        return None;
    }
    let rest = buffer.split_off(head + length);
    let bytes = core::mem::replace(buffer, rest);
    Some(Frame { bytes, body: head })
}

impl Frame {
    /// The packet type, 1 to 14.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.bytes.first().map_or(0, |first| first >> 4)
    }

    /// The client id, if it is a CONNECT.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        if self.kind() != CONNECT {
            return None;
        }
        // Protocol name (2 + 4), level, flags, keep alive (2): then the client id.
        let rest = self.bytes.get(self.body + 10..)?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        core::str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*length)))?).ok()
    }

    /// Its content, if it is a PUBLISH.
    #[must_use]
    pub fn publish(&self) -> Option<Publish<'_>> {
        if self.kind() != PUBLISH {
            return None;
        }
        let first = *self.bytes.first()?;
        let body = self.bytes.get(self.body..)?;
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let qos = first >> 1 & 3;
        let payload = if qos > 0 { rest.get(2..)? } else { rest };
        Some(Publish { topic: core::str::from_utf8(topic).ok()?, qos, retain: first & 1 == 1, payload })
    }

    /// Flips one bit of a PUBLISH's payload, counted from the lowest bit of its first byte. The bytes of MQTT
    /// itself stay.
    pub fn flip(&mut self, bit: usize) {
        let payload = self.publish().map_or(0, |publish| publish.payload.len());
        let start = self.bytes.len() - payload;
        if let Some(byte) = self.bytes.get_mut(start..).and_then(|payload| payload.get_mut(bit / 8)) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

/// Makes a packet from its first byte and its body.
fn packet(first: u8, body: &[u8]) -> Frame {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).expect("below 128");
        length /= 128;
        bytes.push(byte | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    let start = bytes.len();
    bytes.extend(body);
    Frame { bytes, body: start }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// A PUBLISH of QoS 0.
#[must_use]
pub fn publish(topic: &str, payload: &[u8], retain: bool) -> Frame {
    packet(0x30 | u8::from(retain), &[&text(topic)[..], payload].concat())
}

/// A PUBLISH of QoS 1, with packet number 1.
#[must_use]
pub fn publish_acknowledged(topic: &str, payload: &[u8], retain: bool) -> Frame {
    packet(0x32 | u8::from(retain), &[&text(topic)[..], &[0, 1], payload].concat())
}

/// A CONNECT with a clean session.
#[must_use]
pub fn connect(client_id: &str) -> Frame {
    packet(0x10, &[&b"\x00\x04MQTT\x04\x02\x00\x3c"[..], &text(client_id)].concat())
}

/// A DISCONNECT.
#[must_use]
pub fn disconnect() -> Frame {
    packet(0xe0, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_whole_and_in_order() {
        let first = publish("ota/d/a1/c", &[7; 300], false);
        let second = publish("ota/t", b"x", true);
        let mut buffer = [first.bytes.clone(), second.bytes.clone()].concat();
        let tail = buffer.split_off(310);
        assert_eq!(take(&mut buffer), None);
        buffer.extend(tail);
        assert_eq!(take(&mut buffer), Some(first.clone()));
        assert_eq!(take(&mut buffer), Some(second.clone()));
        assert_eq!(take(&mut buffer), None);
        assert_eq!(first.publish().unwrap().payload, [7; 300]);
        assert!(second.publish().unwrap().retain);
    }

    #[test]
    fn what_is_made_reads_as_what_it_is() {
        assert_eq!(connect("meter-1").client_id(), Some("meter-1"));
        assert_eq!(publish("t", b"meter-1 meter-1", false).client_id(), None);
        let frame = publish_acknowledged("ota/t", b"abc", true);
        let want = Publish { topic: "ota/t", qos: 1, retain: true, payload: b"abc" };
        assert_eq!(frame.publish(), Some(want));
        assert_eq!(disconnect().bytes, [0xe0, 0]);
    }

    #[test]
    fn a_flip_changes_one_bit_of_the_payload_and_nothing_of_mqtt() {
        for original in [publish("ota/d/a1/c", &[0; 200], false), publish_acknowledged("a/b", &[0; 3], true)]
        {
            let payload = original.publish().unwrap().payload.len();
            for bit in 0..payload * 8 {
                let mut flipped = original.clone();
                flipped.flip(bit);
                let start = original.bytes.len() - payload;
                assert_eq!(flipped.bytes[..start], original.bytes[..start]);
                let ones: u32 = flipped.bytes[start..].iter().map(|byte| byte.count_ones()).sum();
                assert_eq!(ones, 1, "bit {bit}");
            }
            let mut same = original.clone();
            same.flip(payload * 8);
            assert_eq!(same, original, "beyond its end there is nothing to flip");
        }
    }
}

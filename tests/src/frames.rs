//! MQTT 3.1.1 packets as bytes, as far as a proxy has to understand them.

/// One whole packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The packet's bytes, head included.
    pub bytes: Vec<u8>,
    body: usize,
}

/// What a PUBLISH says.
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

/// Takes the first whole packet off `buffer`.
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

    /// What it publishes, if it is a PUBLISH.
    #[must_use]
    pub fn publish(&self) -> Option<Publish<'_>> {
        let first = *self.bytes.first()?;
        if first >> 4 != 3 {
            return None;
        }
        let body = self.bytes.get(self.body..)?;
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let qos = first >> 1 & 3;
        let payload = if qos > 0 { rest.get(2..)? } else { rest };
        Some(Publish { topic: core::str::from_utf8(topic).ok()?, qos, retain: first & 1 == 1, payload })
    }

    /// Flips one bit of the payload's byte `at`, counted from its end.
    pub fn flip_from_end(&mut self, at: usize) {
        let len = self.bytes.len();
        if let Some(byte) = len.checked_sub(1 + at).and_then(|at| self.bytes.get_mut(at)) {
            *byte ^= 1;
        }
    }
}

/// A PUBLISH of QoS 0.
#[must_use]
pub fn publish(topic: &str, payload: &[u8], retain: bool) -> Frame {
    let mut bytes = vec![0x30 | u8::from(retain)];
    let mut length = 2 + topic.len() + payload.len();
    loop {
        let byte = u8::try_from(length % 128).expect("below 128");
        length /= 128;
        bytes.push(byte | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    let body = bytes.len();
    bytes.extend(u16::try_from(topic.len()).expect("a short topic").to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend(payload);
    Frame { bytes, body }
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
}

//! What is to be written to one client: small packets in a buffer, payloads shared with whoever has them.
//!
//! A chunk message goes to the socket from the memory it was read into, for however many devices.

use alloc::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec::{Codec, Fault};
use super::outbox::Message;

/// Packets in the order in which they are written.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// What comes first, whole and never empty.
    parts: VecDeque<Bytes>,
    /// What comes last, still growing.
    tail: BytesMut,
    /// Bytes of `parts`.
    parts_len: usize,
}

impl Output {
    /// Where packets without a large payload are added.
    pub(crate) fn packets(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Bytes that are to be written.
    pub(crate) fn len(&self) -> usize {
        self.parts_len + self.tail.len()
    }

    /// Adds a PUBLISH of at most `packet_bytes_max` bytes; false where it is larger, and was left out. It has a packet
    /// identifier where its QoS is not 0.
    pub(crate) fn publish(
        &mut self,
        codec: &Codec,
        message: Message,
        pkid: Option<u16>,
        packet_bytes_max: usize,
    ) -> Result<bool, Fault> {
        let Message { topic, payload, retain, .. } = message;
        let topic_len = u16::try_from(topic.len()).map_err(|_| Fault::Malformed)?;
        let identifier_len = if pkid.is_some() { 2 } else { 0 };
        // Version 5 says how long the properties are: there are none.
        let properties_len = usize::from(codec.is_v5());
        let body_len = 2 + topic.len() + identifier_len + properties_len + payload.len();
        let (length, length_len) = remaining_length(body_len).ok_or(Fault::Malformed)?;
        let fits = 1 + length_len + body_len <= packet_bytes_max;
        if fits {
            self.tail.put_u8(0x30 | u8::from(pkid.is_some()) << 1 | u8::from(retain));
            self.tail.put_slice(length.get(..length_len).unwrap_or_default());
            self.tail.put_u16(topic_len);
            self.tail.put_slice(&topic);
            if let Some(pkid) = pkid {
                self.tail.put_u16(pkid);
            }
            self.tail.put_bytes(0, properties_len);
            self.share(payload);
        }
        Ok(fits)
    }

    fn share(&mut self, payload: Bytes) {
        if payload.len() < SHARED_BYTES_MIN {
            self.tail.extend_from_slice(&payload);
            return;
        }
        self.seal();
        self.parts_len += payload.len();
        self.parts.push_back(payload);
    }

    /// Nothing grows any more: what there is can be written.
    pub(crate) fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.parts_len += self.tail.len();
            // Taken, not split: an idle connection owns no buffer.
            self.parts.push_back(core::mem::take(&mut self.tail).freeze());
        }
    }
}

/// What has been sealed.
impl Buf for Output {
    fn remaining(&self) -> usize {
        self.parts_len
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map(Bytes::as_ref).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.parts_len, "no more is written than there is");
        self.parts_len -= count;
        let mut left = count;
        while let Some(first) = self.parts.front_mut() {
            if left < first.len() {
                first.advance(left);
                break;
            }
            left -= first.len();
            self.parts.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        out.iter_mut().zip(&self.parts).map(|(slot, part)| *slot = IoSlice::new(part)).count()
    }
}

/// The variable byte integer (MQTT 3.1.1 section 2.2.3) and how many bytes it has; `None` where it is too large.
fn remaining_length(len: usize) -> Option<([u8; 4], usize)> {
    let mut bytes = [0; 4];
    let mut left = len;
    for (position, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(left & 0x7f).ok()?;
        left >>= 7;
        if left == 0 {
            return Some((bytes, position + 1));
        }
        *byte |= 0x80;
    }
    None
}

/// Payloads from this size on are shared. Shorter ones cost less to copy than another piece of a vectored write.
const SHARED_BYTES_MIN: usize = 512;

#[cfg(test)]
mod tests {
    use rumqttd::protocol::{Packet, Publish, QoS};

    use super::*;

    fn message(topic: &'static str, len: usize, retain: bool) -> Message {
        let (topic, payload) = (Bytes::from(topic), Bytes::from(vec![7; len]));
        Message { topic, payload, qos: QoS::AtMostOnce, retain }
    }

    fn written(output: &mut Output) -> Vec<u8> {
        output.seal();
        let mut all = Vec::new();
        while output.has_remaining() {
            // In steps that end within parts as well as at their ends.
            let mut slices = [IoSlice::new(&[]); 3];
            let count = output.chunks_vectored(&mut slices);
            let seen: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            assert!(seen.starts_with(output.chunk()));
            let step = seen.len().min(700);
            all.extend_from_slice(&seen[..step]);
            output.advance(step);
        }
        assert_eq!(output.len(), 0);
        all
    }

    #[test]
    fn a_publish_is_what_the_routers_own_writer_makes_of_it_at_every_length() {
        for level in [4, 5] {
            let codec = Codec::of_level(level).unwrap();
            for len in [0, 1, 100, 127, 128, 511, 512, 16_300, 16_383, 16_384, 70_000] {
                let message = || message("ota/d/meter-1/c", len, true);
                let Message { topic, payload, retain, .. } = message();
                let mut whole = BytesMut::new();
                codec.write(Packet::Publish(Publish::new(topic, payload, retain), None), &mut whole).unwrap();
                let mut output = Output::default();
                for _ in 0..2 {
                    assert!(output.publish(&codec, message(), None, whole.len()).unwrap());
                }
                output.packets().extend_from_slice(&[0xD0, 0]);
                assert_eq!(output.len(), 2 * whole.len() + 2);
                assert_eq!(
                    written(&mut output),
                    [&whole[..], &whole[..], &[0xD0, 0]].concat(),
                    "{level} {len}"
                );
            }
        }
    }

    #[test]
    fn a_publish_that_the_client_cannot_take_is_left_out() {
        let codec = Codec::of_level(4).unwrap();
        let mut output = Output::default();
        output.packets().extend_from_slice(&[0xD0, 0]);
        let message = || message("a/b", 1000, false);
        assert!(!output.publish(&codec, message(), None, 1007).unwrap());
        assert_eq!(written(&mut output), [0xD0, 0]);
        assert!(output.publish(&codec, message(), None, 1008).unwrap());
        assert_eq!(written(&mut output).len(), 1008);
    }

    #[test]
    fn a_publish_to_acknowledge_has_its_number_behind_the_topic() {
        for (level, rest) in [(4, &b"\x01\x02\x07"[..]), (5, b"\x01\x02\0\x07")] {
            let mut output = Output::default();
            let codec = Codec::of_level(level).unwrap();
            assert!(output.publish(&codec, message("a/b", 1, false), Some(0x0102), 100).unwrap());
            let len = u8::try_from(5 + rest.len()).unwrap();
            assert_eq!(written(&mut output), [&[0x32, len][..], b"\0\x03a/b", rest].concat());
        }
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let message = message("a/b", 1000, false);
        let payload = message.payload.clone();
        let mut output = Output::default();
        output.publish(&Codec::of_level(5).unwrap(), message, None, 2000).unwrap();
        assert!(output.parts.iter().any(|part| part.as_ptr() == payload.as_ptr()));
    }

    #[test]
    fn lengths_are_written_in_as_few_bytes_as_they_need() {
        for (len, bytes) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (16_383, &[0xff, 0x7f]),
            (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
        ] {
            let (written, count) = remaining_length(len).unwrap();
            assert_eq!(&written[..count], bytes);
        }
        assert_eq!(remaining_length(268_435_456), None);
    }
}

//! What is to be written to one client: small packets in a buffer, payloads shared with the router's logs.
//!
//! A chunk message goes to the socket from the memory it was read into, for however many devices.

use alloc::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use rumqttd::protocol::{Packet, Publish};

use super::codec::{Codec, Fault};

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

/// A PUBLISH that has been added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Packet identifier; `None` for QoS 0. The router keeps the field to itself.
    pub(crate) pkid: Option<u16>,
    /// Whether it was added: not where it is larger than the client takes.
    pub(crate) fits: bool,
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

    /// Adds a PUBLISH of at most `packet_bytes_max` bytes.
    pub(crate) fn publish(
        &mut self,
        codec: &Codec,
        mut publish: Publish,
        packet_bytes_max: usize,
    ) -> Result<Added, Fault> {
        let topic_len = publish.topic.len();
        let payload = core::mem::take(&mut publish.payload);
        let start = self.tail.len();
        codec.write(Packet::Publish(publish, None), &mut self.tail)?;
        // Fixed header and topic; the length in it is too short by the payload.
        let without = self.tail.split_off(start);
        let (head, body) = split_header(&without).ok_or(Fault::Malformed)?;
        let (length, length_len) = remaining_length(body.len() + payload.len()).ok_or(Fault::Malformed)?;
        let pkid = (head >> 1 & 3 != 0).then(|| pkid_of(body, topic_len)).flatten();
        let fits = 1 + length_len + body.len() + payload.len() <= packet_bytes_max;
        if fits {
            self.tail.extend_from_slice(&[head]);
            self.tail.extend_from_slice(length.get(..length_len).unwrap_or_default());
            self.tail.extend_from_slice(body);
            self.share(payload);
        }
        Ok(Added { pkid, fits })
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

/// First byte of a packet, and what comes after its remaining length.
fn split_header(packet: &[u8]) -> Option<(u8, &[u8])> {
    let (&first, rest) = packet.split_first()?;
    let length_len = 1 + rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
    Some((first, rest.get(length_len..)?))
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

/// The packet identifier behind the topic of a PUBLISH.
fn pkid_of(body: &[u8], topic_len: usize) -> Option<u16> {
    let at = 2 + topic_len;
    Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]))
}

/// Payloads from this size on are shared. Shorter ones cost less to copy than another piece of a vectored write.
const SHARED_BYTES_MIN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

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
                let publish =
                    || Publish::new(Bytes::from("ota/d/meter-1/c"), Bytes::from(vec![7; len]), true);
                let mut whole = BytesMut::new();
                codec.write(Packet::Publish(publish(), None), &mut whole).unwrap();
                let mut output = Output::default();
                for _ in 0..2 {
                    let added = output.publish(&codec, publish(), whole.len()).unwrap();
                    assert_eq!(added, Added { pkid: None, fits: true });
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
        let publish = || Publish::new(Bytes::from("a/b"), Bytes::from(vec![7; 1000]), false);
        assert!(!output.publish(&codec, publish(), 1007).unwrap().fits);
        assert_eq!(written(&mut output), [0xD0, 0]);
        assert!(output.publish(&codec, publish(), 1008).unwrap().fits);
        assert_eq!(written(&mut output).len(), 1008);
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let payload = Bytes::from(vec![7; 1000]);
        let mut output = Output::default();
        let publish = Publish::new(Bytes::from("a/b"), payload.clone(), false);
        output.publish(&Codec::of_level(5).unwrap(), publish, 2000).unwrap();
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

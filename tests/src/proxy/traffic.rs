//! Counts what passed to and from a device.

use core::ops::Range;

use whimbrel_protocol::message::{Answer, ChunkMessage};

use super::Shared;
use crate::frames::Frame;

/// The traffic of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that it made.
    pub connections: u64,
    /// Its hellos.
    pub hellos: u64,
    /// Its requests for chunks.
    pub chunk_requests: u64,
    /// Its requests for index pages.
    pub page_requests: u64,
    /// Its requests for manifests and roots.
    pub document_requests: u64,
    /// Reports and enrolments that it sent.
    pub reports: u64,
    /// Payload bytes of chunk messages that came from the broker for it.
    pub served_bytes: u64,
    /// Payload bytes of chunk messages that were written to it, those of unfinished messages too.
    pub chunk_bytes: u64,
    /// Chunk messages that were delivered whole.
    pub chunk_messages: u64,
    /// All bytes written to it so far, those of unfinished messages too.
    pub down_bytes: u64,
    /// Messages that the verb was applied to.
    pub tampered: u64,
}

impl Shared {
    pub(super) fn of(&mut self, device: &str) -> &mut Traffic {
        self.traffic.entry(device.to_owned()).or_default()
    }

    /// Counts a packet from the device.
    pub(super) fn count_up(&mut self, device: &str, frame: &Frame) {
        let Some(publish) = frame.publish() else { return };
        let (leaf, first) = (leaf_of(publish.topic), publish.payload.first().copied());
        let traffic = self.of(device);
        match (leaf, first) {
            ("q", Some(0x11)) => traffic.hellos += 1,
            ("q", Some(0x12)) => traffic.chunk_requests += 1,
            ("q", Some(0x13)) => traffic.page_requests += 1,
            ("q", Some(0x14)) => traffic.document_requests += 1,
            ("r", _) => traffic.reports += 1,
            _ => {}
        }
    }

    /// Counts a packet from the broker to the device.
    pub(super) fn count_served(&mut self, device: &str, frame: &Frame) {
        let bytes = chunk_bytes(frame);
        self.of(device).served_bytes += bytes;
    }

    /// Counts the bytes `from..to` of a packet, which were written to the device.
    pub(super) fn count_written(&mut self, device: &str, frame: &Frame, written: Range<usize>) {
        let chunks = chunk_bytes(frame);
        // The chunks are a packet's last bytes.
        let whole = frame.bytes.len() as u64;
        let chunks_before = |written: usize| (written as u64).saturating_sub(whole - chunks);
        let traffic = self.of(device);
        traffic.down_bytes += written.len() as u64;
        traffic.chunk_bytes += chunks_before(written.end) - chunks_before(written.start);
        traffic.chunk_messages += u64::from(chunks > 0 && written.end as u64 == whole);
    }
}

/// The last level of a topic.
pub(super) fn leaf_of(topic: &str) -> &str {
    topic.rsplit('/').next().unwrap_or_default()
}

/// Whether a payload is a chunk message.
pub(super) fn is_chunk(payload: &[u8]) -> bool {
    payload.first() == Some(&0x18)
}

/// The bytes of chunks in a packet; 0 if it carries none.
fn chunk_bytes(frame: &Frame) -> u64 {
    let Some(publish) = frame.publish() else { return 0 };
    match Answer::decode(publish.payload) {
        Ok(Answer::Chunk(ChunkMessage { bytes, .. })) => bytes.len() as u64,
        _ => 0,
    }
}

//! What of the data messages is new to a device. The ledger of its bytes needs it; the session does not look here.

use whimbrel_protocol::chunk::{ChunkSet, Layout};
use whimbrel_protocol::ids::{ChunkIndex, PayloadTag};
use whimbrel_protocol::message::{Answer, ChunkMessage, PageMessage, PageNumber};

use super::classify::ENVELOPE;
use crate::meter::Part;
use crate::report::PayloadKind;
use crate::swarm::Output;

/// A payload of the release, as the ledger tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadFacts {
    /// Its name in messages.
    pub tag: PayloadTag,
    /// How it is cut.
    pub layout: Layout,
    /// What it is.
    pub kind: PayloadKind,
}

/// What has reached a device before.
#[derive(Debug)]
pub(super) struct Seen {
    /// For each payload of the release.
    payloads: Vec<SeenPayload>,
    manifest: bool,
    /// The payload of which chunks came last.
    last: Option<PayloadKind>,
}

#[derive(Debug)]
struct SeenPayload {
    facts: PayloadFacts,
    chunks: ChunkSet,
    bytes: u64,
    pages: Vec<u32>,
    list: bool,
}

impl Seen {
    pub(super) fn nothing(payloads: &[PayloadFacts]) -> Self {
        let of = |facts: &PayloadFacts| SeenPayload {
            facts: *facts,
            chunks: ChunkSet::empty(facts.layout.chunk_count()),
            bytes: 0,
            pages: Vec::new(),
            list: false,
        };
        Self { payloads: payloads.iter().map(of).collect(), manifest: false, last: None }
    }

    /// What an answer carries, and how much of it is new. Nothing where it is no data message.
    pub(super) fn answer(&mut self, payload: &[u8]) -> Option<Output> {
        let (part, total, first_bytes) = match Answer::decode(payload).ok()? {
            Answer::Chunk(message) => (Part::Chunks, message.bytes.len() as u64, self.chunks(&message)),
            Answer::Page(message) => {
                let total = message.bytes.len() as u64;
                (Part::Page, total, if self.page(&message) { total } else { 0 })
            }
            Answer::Signed(object) if object.starts_with(&ENVELOPE) => {
                let total = object.len() as u64;
                (Part::Manifest, total, if self.manifest() { total } else { 0 })
            }
            Answer::Signed(_) | Answer::Refusal(_) => return None,
        };
        Some(Output::Carried { part, first_bytes, repeated_bytes: total - first_bytes })
    }

    /// What of a message of chunks is new.
    fn chunks(&mut self, message: &ChunkMessage<'_>) -> u64 {
        let Some(payload) = self.payloads.iter_mut().find(|payload| message.is_of(payload.facts.tag)) else {
            return 0;
        };
        let layout = payload.facts.layout;
        let (mut fresh, mut left, mut chunk) = (0, message.bytes.len() as u64, message.first);
        while left > 0 && layout.contains(chunk) {
            let len = layout.chunk_len(chunk).min(left);
            if payload.chunks.insert(chunk) {
                fresh += len;
            }
            left -= len;
            chunk = ChunkIndex(chunk.0 + 1);
        }
        payload.bytes += fresh;
        self.last = Some(payload.facts.kind);
        fresh
    }

    /// Whether a page is new.
    fn page(&mut self, message: &PageMessage<'_>) -> bool {
        let Some(payload) = self.payloads.iter_mut().find(|payload| message.is_of(payload.facts.tag)) else {
            return false;
        };
        match message.page {
            PageNumber::List => !core::mem::replace(&mut payload.list, true),
            PageNumber::Page(page) => {
                let fresh = !payload.pages.contains(&page);
                if fresh {
                    payload.pages.push(page);
                }
                fresh
            }
        }
    }

    /// Whether the manifest is new.
    fn manifest(&mut self) -> bool {
        !core::mem::replace(&mut self.manifest, true)
    }

    /// The payload of which chunks came last.
    pub(super) fn last(&self) -> Option<PayloadKind> {
        self.last
    }

    /// Bytes of chunks of one kind of payload, each chunk counted once.
    pub(super) fn bytes(&self, kind: PayloadKind) -> u64 {
        let of_kind = self.payloads.iter().filter(|payload| payload.facts.kind == kind);
        of_kind.map(|payload| payload.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: PayloadTag = PayloadTag([1, 2, 3, 4]);
    const OTHER: PayloadTag = PayloadTag([5, 6, 7, 8]);
    const CHUNK_BYTES: u64 = 1024;

    /// A payload of three chunks and a short one, and another one.
    fn seen() -> Seen {
        let layout = Layout::new(10, 3 * CHUNK_BYTES + 100).unwrap();
        let patch = PayloadFacts { tag: OTHER, layout, kind: PayloadKind::Patch };
        Seen::nothing(&[PayloadFacts { tag: TAG, layout, kind: PayloadKind::Full }, patch])
    }

    /// What the ledger says of a message: new bytes, and bytes in vain.
    fn carried(seen: &mut Seen, message: &[u8], of: Part) -> (u64, u64) {
        match seen.answer(message) {
            Some(Output::Carried { part, first_bytes, repeated_bytes }) if part == of => {
                (first_bytes, repeated_bytes)
            }
            other => panic!("{other:?}"),
        }
    }

    fn chunks(tag: PayloadTag, first: u32, bytes: u64) -> Vec<u8> {
        ChunkMessage::encode(tag, ChunkIndex(first), &vec![7; usize::try_from(bytes).unwrap()])
    }

    #[test]
    fn a_chunk_that_comes_twice_is_new_once_and_then_in_vain() {
        let mut seen = seen();
        let message = chunks(TAG, 1, CHUNK_BYTES);
        assert_eq!(carried(&mut seen, &message, Part::Chunks), (CHUNK_BYTES, 0));
        assert_eq!(carried(&mut seen, &message, Part::Chunks), (0, CHUNK_BYTES));
        assert_eq!(carried(&mut seen, &message, Part::Chunks), (0, CHUNK_BYTES));
        // Beside it, in a longer message: only what is new is new.
        let all = chunks(TAG, 0, 3 * CHUNK_BYTES + 100);
        assert_eq!(carried(&mut seen, &all, Part::Chunks), (2 * CHUNK_BYTES + 100, CHUNK_BYTES));
        assert_eq!(carried(&mut seen, &all, Part::Chunks), (0, 3 * CHUNK_BYTES + 100));
        assert_eq!(seen.bytes(PayloadKind::Full), 3 * CHUNK_BYTES + 100);
        assert_eq!(seen.bytes(PayloadKind::Patch), 0);
    }

    #[test]
    fn chunks_of_each_payload_are_counted_apart_and_those_of_no_payload_are_in_vain() {
        let mut seen = seen();
        assert_eq!(seen.last(), None);
        assert_eq!(carried(&mut seen, &chunks(TAG, 0, CHUNK_BYTES), Part::Chunks), (CHUNK_BYTES, 0));
        assert_eq!(seen.last(), Some(PayloadKind::Full));
        assert_eq!(carried(&mut seen, &chunks(OTHER, 0, CHUNK_BYTES), Part::Chunks), (CHUNK_BYTES, 0));
        assert_eq!(seen.last(), Some(PayloadKind::Patch));
        let none = chunks(PayloadTag([0; 4]), 0, CHUNK_BYTES);
        assert_eq!(carried(&mut seen, &none, Part::Chunks), (0, CHUNK_BYTES));
        // What lies beyond the payload is of no use either.
        assert_eq!(carried(&mut seen, &chunks(TAG, 4, 100), Part::Chunks), (0, 100));
        assert_eq!(
            (seen.bytes(PayloadKind::Full), seen.bytes(PayloadKind::Patch)),
            (CHUNK_BYTES, CHUNK_BYTES)
        );
    }

    #[test]
    fn pages_the_list_and_the_manifest_are_new_once() {
        let mut seen = seen();
        let page = |number| PageMessage::encode(TAG, number, &[7; 64]);
        let manifest = [&ENVELOPE[..], &[0xa2; 70]].concat();
        let all = [
            (page(PageNumber::Page(0)), Part::Page, 64),
            (page(PageNumber::Page(1)), Part::Page, 64),
            (page(PageNumber::List), Part::Page, 64),
            (manifest, Part::Manifest, 72),
        ];
        for (message, part, bytes) in &all {
            assert_eq!(carried(&mut seen, message, *part), (*bytes, 0), "{part:?}");
        }
        for (message, part, bytes) in &all {
            assert_eq!(carried(&mut seen, message, *part), (0, *bytes), "{part:?}");
        }
        // A signed document is control.
        assert!(seen.answer(&[0xd8, 0x62, 0x84]).is_none());
    }
}

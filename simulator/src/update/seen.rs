//! What of the data messages is new to a device: for the books only, the session does not look here.

use whimbrel_protocol::chunk::{ChunkSet, Layout};
use whimbrel_protocol::ids::{ChunkIndex, PayloadTag};
use whimbrel_protocol::message::{ChunkMessage, PageMessage, PageNumber};

use crate::report::PayloadKind;

/// A payload of the release, for the books.
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

    /// What of a message of chunks is new.
    pub(super) fn chunks(&mut self, message: &ChunkMessage<'_>) -> u64 {
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
    pub(super) fn page(&mut self, message: &PageMessage<'_>) -> bool {
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
    pub(super) fn manifest(&mut self) -> bool {
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

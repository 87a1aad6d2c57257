//! One payload on its way: what to ask for next, and what to believe of what arrives (SPEC section 8.3).

mod asking;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

pub(super) use asking::Ask;

use super::checkpoint::Checkpoint;
use super::event::Reason;
use super::io::Found;
use crate::chunk::{ChunkSalt, ChunkSet, Layout, Page, PageList};
use crate::ids::{ChunkIndex, Digest, OpId, PayloadTag};
use crate::limits::{
    CHUNK_DIGEST_BYTES, FLUSH_BYTES_MAX, FLUSH_BYTES_MIN, JOURNAL_CHUNKS, PAGE_DIGEST_BYTES,
};
use crate::manifest::TransferDescriptor;
use crate::message::{ChunkMessage, PageMessage, PageNumber};
use crate::sorted::{SortedMap, SortedSet};

/// The state of one download.
#[derive(Debug)]
pub(super) struct Download {
    tag: PayloadTag,
    index: Digest,
    salt: ChunkSalt,
    layout: Layout,
    list: Option<PageList>,
    pages: SortedMap<u32, Page>,
    /// Chunks that were verified and handed to the medium.
    held: ChunkSet,
    /// Chunks that were asked for and have not arrived.
    outstanding: SortedSet<u32>,
    /// The index page that is being loaded from the medium.
    loading: Option<(OpId, PageNumber)>,
    /// Pages that the medium does not have.
    not_stored: SortedSet<PageNumber>,
    /// The index page that was asked for.
    page_asked: Option<PageNumber>,
    /// Chunks below this one were asked for at some time.
    asked: u32,
    /// Chunks from the first missing one on that may be asked for.
    reach: u32,
    /// Chunks below this one were asked for by an earlier run. Those that it did not leave may have come to it.
    asked_before: u32,
    /// Chunks that came in this run, or may have come in part, and are missing all the same: they were wrong, the
    /// medium did not keep them, or the connection broke while they were under way.
    came: SortedSet<u32>,
    /// Chunks that counted as lost last. What was sent of them may still come, besides what is sent again.
    lost: SortedSet<u32>,
    /// An earlier run may have left holes, which nobody has noted as asked for again.
    holes_to_note: bool,
    /// Chunk writes that the medium has not confirmed yet.
    writes: VecDeque<(OpId, Range<u32>)>,
    /// Bytes handed to the medium since the last checkpoint.
    unflushed: u64,
    /// Payload bytes received, with everything received twice.
    pub(super) bytes_received: u64,
    /// Of these, the bytes of chunks that had come before, as far as that is known.
    pub(super) bytes_twice: u64,
}

/// The longest of the messages that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Longest {
    /// Its chunks, and their bytes.
    pub(super) chunks: u32,
    pub(super) chunk_bytes: u64,
    /// Bytes of the index page that is under way, 0 if there is none.
    pub(super) page_bytes: u64,
}

/// Verified chunks to write, next to each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) first: ChunkIndex,
    pub(super) bytes: Vec<u8>,
}

impl Download {
    pub(super) fn new(image: Digest, transfer: &TransferDescriptor, found: Found) -> Self {
        let layout = transfer.layout;
        let salt = ChunkSalt { image, transfer_size: layout.transfer_size() };
        let index = transfer.index_digest;
        Self {
            tag: PayloadTag::of(&index),
            index,
            salt,
            layout,
            list: None,
            pages: SortedMap::default(),
            held: found.held,
            outstanding: SortedSet::default(),
            loading: None,
            not_stored: SortedSet::default(),
            page_asked: None,
            asked: found.asked.0,
            reach: found.reach.clamp(1, JOURNAL_CHUNKS),
            asked_before: found.asked.0,
            came: SortedSet::default(),
            lost: SortedSet::default(),
            holes_to_note: true,
            writes: VecDeque::new(),
            unflushed: 0,
            bytes_received: found.bytes_received,
            bytes_twice: found.bytes_twice,
        }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn tag(&self) -> PayloadTag {
        self.tag
    }

    pub(super) fn held(&self) -> &ChunkSet {
        &self.held
    }

    /// Whether something was asked for and is not here yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.outstanding.is_empty() || self.page_asked.is_some()
    }

    /// Bytes asked for and not arrived.
    pub(super) fn outstanding_bytes(&self) -> u64 {
        let chunks = u64::try_from(self.outstanding.len()).unwrap_or(u64::MAX);
        let pages = if self.page_asked.is_some() { 4096 } else { 0 };
        chunks.saturating_mul(self.layout.chunk_size()) + pages
    }

    /// The longest message that is under way, if messages have up to `per_message` chunks.
    pub(super) fn longest_outstanding(&self, per_message: u32) -> Longest {
        let (mut longest, mut run, mut next) = ((0, 0), (0, 0), None);
        for chunk in self.outstanding.iter() {
            // Messages end at holes and at multiples of their size.
            let (chunks, bytes) =
                if next == Some(chunk) && chunk % per_message.max(1) != 0 { run } else { (0, 0) };
            run = (chunks + 1, bytes + self.layout.chunk_len(ChunkIndex(chunk)));
            next = Some(chunk + 1);
            longest = longest.max(run);
        }
        let page_bytes = self.page_asked.map_or(0, |page| match page {
            PageNumber::List => u64::from(self.layout.page_count()) * PAGE_DIGEST_BYTES as u64,
            PageNumber::Page(number) => {
                let chunks = self.layout.page_chunks(number);
                u64::from(chunks.end - chunks.start) * CHUNK_DIGEST_BYTES as u64
            }
        });
        let (chunks, chunk_bytes) = longest;
        Longest { chunks, chunk_bytes, page_bytes }
    }

    /// The connection broke. Of what was under way, parts may have come, and the link was paid for them.
    pub(super) fn disconnected(&mut self) {
        for chunk in self.outstanding.iter() {
            self.came.insert(chunk);
        }
        self.forget_outstanding();
    }

    /// Forgets what was asked for: it was refused, or nothing came. Returns how many chunks will be asked for again.
    pub(super) fn forget_outstanding(&mut self) -> u32 {
        self.page_asked = None;
        if !self.outstanding.is_empty() {
            self.lost = core::mem::take(&mut self.outstanding);
            return u32::try_from(self.lost.len()).unwrap_or(u32::MAX);
        }
        0
    }

    /// Everything is verified and the medium has confirmed every write.
    pub(super) fn is_complete(&self) -> bool {
        self.held.is_complete() && self.writes.is_empty()
    }

    /// The medium was asked for the index page that [`Ask::Load`] named.
    pub(super) fn loading(&mut self, op: OpId, page: PageNumber) {
        self.loading = Some((op, page));
    }

    /// The medium gave an index page back, or has none.
    pub(super) fn loaded(&mut self, op: OpId, bytes: Option<&[u8]>) {
        let Some((_, page)) = self.loading.take_if(|(loading, _)| *loading == op) else {
            return;
        };
        if !bytes.is_some_and(|bytes| self.take_page(page, bytes)) {
            self.not_stored.insert(page);
        }
    }

    /// An index page arrived. `Ok`: verified, keep it on the medium.
    pub(super) fn page_arrived(&mut self, message: &PageMessage<'_>) -> Result<(), Reason> {
        if !message.is_of(self.tag) || self.page_asked != Some(message.page) {
            return Err(Reason::Unsolicited);
        }
        self.page_asked = None;
        if !self.take_page(message.page, message.bytes) {
            return Err(Reason::WrongPage(message.page));
        }
        self.not_stored.remove(message.page);
        Ok(())
    }

    fn take_page(&mut self, page: PageNumber, bytes: &[u8]) -> bool {
        match page {
            PageNumber::List => {
                self.list = PageList::verify(self.salt, self.layout, &self.index, bytes);
                self.list.is_some()
            }
            PageNumber::Page(number) => {
                if self.list.is_none() {
                    self.list = PageList::of_single_page(self.salt, self.layout, &self.index, bytes);
                }
                match self.list.as_ref().and_then(|list| list.verify_page(number, bytes)) {
                    Some(page) => self.pages.insert(number, page).is_none(),
                    None => false,
                }
            }
        }
    }

    /// Chunks arrived: checks each against the index, and returns the good ones that were missing, with the
    /// first thing that was wrong with the others.
    pub(super) fn chunks_arrived(&mut self, message: &ChunkMessage<'_>) -> (Vec<Accepted>, Option<Reason>) {
        if !message.is_of(self.tag) {
            return (Vec::new(), Some(Reason::Unsolicited));
        }
        let mut accepted: Vec<Accepted> = Vec::new();
        let mut wrong = None;
        let mut rest = message.bytes;
        let mut chunk = message.first;
        while !rest.is_empty() {
            let len = usize::try_from(self.layout.chunk_len(chunk)).unwrap_or(0);
            let Some((bytes, after)) = rest.split_at_checked(len).filter(|_| len > 0) else {
                wrong = wrong.or(Some(Reason::WrongChunk(chunk)));
                break;
            };
            match self.check(chunk, bytes) {
                Ok(()) => match accepted.last_mut() {
                    Some(run) if self.follows(run, chunk) => run.bytes.extend_from_slice(bytes),
                    _ => accepted.push(Accepted { first: chunk, bytes: bytes.to_vec() }),
                },
                Err(reason) => wrong = wrong.or(Some(reason)),
            }
            rest = after;
            chunk = ChunkIndex(chunk.0 + 1);
        }
        (accepted, wrong)
    }

    fn follows(&self, run: &Accepted, chunk: ChunkIndex) -> bool {
        self.layout.byte_range(run.first).start + run.bytes.len() as u64
            == self.layout.byte_range(chunk).start
    }

    /// Checks one chunk and enters it into the ledger.
    fn check(&mut self, chunk: ChunkIndex, bytes: &[u8]) -> Result<(), Reason> {
        if !self.outstanding.contains(chunk.0) {
            self.count_second(chunk, bytes.len() as u64);
            return Err(Reason::Unsolicited);
        }
        let page = self.pages.get(Layout::page_of(chunk)).ok_or(Reason::Unsolicited)?;
        let digest = self.salt.chunk_digest(chunk, bytes);
        let right = page.chunk_digest(chunk).is_some_and(|want| want == digest);
        self.outstanding.remove(chunk.0);
        self.bytes_received += bytes.len() as u64;
        if chunk.0 < self.asked_before || self.came.contains(chunk.0) {
            self.bytes_twice += bytes.len() as u64;
        }
        if !right {
            self.came.insert(chunk.0);
            return Err(Reason::WrongChunk(chunk));
        }
        self.came.remove(chunk.0);
        self.held.insert(chunk);
        let page = Layout::page_of(chunk);
        if self.is_page_done(page) {
            self.pages.remove(page);
        }
        Ok(())
    }

    /// A chunk came that is not waited for. If it counted as lost and has come since, this is the other answer to the
    /// two requests for it; what was asked for once and comes twice is somebody's replay, and costs the ledger nothing.
    fn count_second(&mut self, chunk: ChunkIndex, len: u64) {
        if self.lost.contains(chunk.0) && self.held.contains(chunk) {
            self.lost.remove(chunk.0);
            self.bytes_received += len;
            self.bytes_twice += len;
        }
    }

    /// Accepted chunks of `len` bytes were handed to the medium.
    pub(super) fn writing(&mut self, op: OpId, first: ChunkIndex, len: u64) {
        let count = u32::try_from(len.div_ceil(self.layout.chunk_size())).unwrap_or(0);
        self.writes.push_back((op, first.0..first.0 + count));
        self.unflushed += len;
    }

    fn writing_bytes(&self) -> u64 {
        let chunks: u64 = self.writes.iter().map(|(_, range)| u64::from(range.end - range.start)).sum();
        chunks * self.layout.chunk_size()
    }

    /// The medium finished a write. `false` if `op` is none of this download's.
    pub(super) fn written(&mut self, op: OpId, good: bool) -> bool {
        let Some(at) = self.writes.iter().position(|(write, _)| *write == op) else {
            return false;
        };
        let Some((_, range)) = self.writes.remove(at) else {
            return false;
        };
        if !good {
            range.for_each(|chunk| {
                self.held.remove(ChunkIndex(chunk));
                self.came.insert(chunk);
            });
        }
        true
    }

    /// Whether it is time for a checkpoint: a flush group is full, or everything is here.
    pub(super) fn wants_checkpoint(&self, bytes_in_10_s: u64) -> bool {
        let eighth = self.layout.transfer_size() / 8;
        let group = bytes_in_10_s.min(FLUSH_BYTES_MAX).min(eighth).max(FLUSH_BYTES_MIN);
        self.unflushed >= group || (self.unflushed > 0 && self.held.is_complete())
    }

    /// Whether anything was written since the last checkpoint.
    pub(super) fn has_unflushed(&self) -> bool {
        self.unflushed > 0
    }

    /// The checkpoint to save now.
    pub(super) fn checkpoint(&mut self) -> Checkpoint {
        self.unflushed = 0;
        Checkpoint {
            asked: ChunkIndex(self.asked),
            bytes_received: self.bytes_received,
            bytes_twice: self.bytes_twice,
            ..Checkpoint::of(&self.held)
        }
    }
}

#[cfg(test)]
mod tests;

//! What a download asks for next: an index page, or chunks, as many as the window has room for.

use alloc::vec::Vec;

use super::Download;
use crate::chunk::Layout;
use crate::device::meter::Sizing;
use crate::ids::ChunkIndex;
use crate::limits::REQUEST_CHUNKS_MAX;
use crate::message::{ChunkRequest, PageNumber};

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::device) enum Ask {
    /// Nothing: enough is under way.
    Nothing,
    /// Load an index page from the medium.
    Load(PageNumber),
    /// Ask the service for an index page.
    Page(PageNumber),
    /// Ask the service for chunks, after the notes are written.
    Chunks(ChunkRequest, Notes),
}

/// What the medium notes before chunks are asked for. After a power cut the ledger still knows which chunks were asked
/// for, even if no checkpoint was saved since.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::device) struct Notes {
    /// What is missing below this chunk is asked for again.
    pub(in crate::device) again: Option<ChunkIndex>,
    /// Chunks below this one were asked for, and were not before.
    pub(in crate::device) fresh: Option<ChunkIndex>,
}

/// How far ahead of need an index page is fetched, in windows.
const PAGE_AHEAD_WINDOWS: u32 = 2;
/// Chunk writes that may be under way before asking stops, in bytes.
const WRITES_BYTES_MAX: u64 = 256 * 1024;

impl Download {
    /// What to do next, with the window and message size of `sizing`. Marks what it asks for.
    pub(in crate::device) fn next(&mut self, sizing: Sizing, may_ask: bool) -> Ask {
        if self.held.is_complete() || self.writing_bytes() > WRITES_BYTES_MAX {
            return Ask::Nothing;
        }
        if let Some(page) = self.page_needed(sizing) {
            if self.loading.is_some() {
                return Ask::Nothing;
            }
            if !self.not_stored.contains(page) {
                return Ask::Load(page);
            }
            if may_ask && self.page_asked.is_none() {
                self.page_asked = Some(page);
                return Ask::Page(page);
            }
        }
        if may_ask { self.ask_chunks(sizing) } else { Ask::Nothing }
    }

    /// The next index page that will be needed and is not here.
    fn page_needed(&self, sizing: Sizing) -> Option<PageNumber> {
        if self.list.is_none() {
            return Some(if self.layout.page_count() == 1 { PageNumber::Page(0) } else { PageNumber::List });
        }
        let next = self.next_wanted(self.held.watermark())?;
        let ahead = next.saturating_add(sizing.window_chunks * PAGE_AHEAD_WINDOWS);
        // A page beyond the last has nothing that could be missing.
        [next, ahead]
            .map(|chunk| Layout::page_of(ChunkIndex(chunk)))
            .into_iter()
            .find(|page| !self.pages.contains(*page) && !self.is_page_done(*page))
            .map(PageNumber::Page)
    }

    pub(super) fn is_page_done(&self, page: u32) -> bool {
        self.held.missing_in(self.layout.page_chunks(page)).next().is_none()
    }

    /// The first chunk from `from` on that is neither held nor asked for, and may be asked for.
    fn next_wanted(&self, from: u32) -> Option<u32> {
        let limit = self.held.watermark().saturating_add(self.reach);
        self.held.missing_in(from..limit).find(|chunk| !self.outstanding.contains(*chunk))
    }

    fn ask_chunks(&mut self, sizing: Sizing) -> Ask {
        let outstanding = u32::try_from(self.outstanding.len()).unwrap_or(u32::MAX);
        if outstanding > sizing.window_chunks / 2 {
            return Ask::Nothing;
        }
        let room = (sizing.window_chunks - outstanding).min(REQUEST_CHUNKS_MAX);
        let Some(first) = self.next_wanted(self.held.watermark()) else {
            return Ask::Nothing;
        };
        if !self.pages.contains(Layout::page_of(ChunkIndex(first))) {
            return Ask::Nothing;
        }
        let chosen = self.choose(first, room, sizing.per_message);
        let last = chosen.iter().copied().max().unwrap_or(first);
        let count = last - first + 1;
        let wanted = (chosen.len() < count as usize).then(|| {
            let mut bits = alloc::vec![0; count.div_ceil(8) as usize];
            for chunk in &chosen {
                let bit = chunk - first;
                if let Some(byte) = bits.get_mut((bit / 8) as usize) {
                    *byte |= 1 << (bit % 8);
                }
            }
            bits
        });
        let repeats = core::mem::take(&mut self.holes_to_note) && first < self.asked;
        let again = repeats.then_some(ChunkIndex(self.asked));
        let fresh = (last >= self.asked).then_some(ChunkIndex(last + 1));
        self.asked = self.asked.max(last + 1);
        chosen.iter().for_each(|chunk| self.outstanding.insert(*chunk));
        let request = ChunkRequest {
            payload: self.tag,
            first: ChunkIndex(first),
            count,
            per_message: sizing.per_message,
            wanted,
        };
        Ask::Chunks(request, Notes { again, fresh })
    }

    /// Up to `room` wanted chunks from `first` on whose index page is here; whole messages if possible.
    fn choose(&self, first: u32, room: u32, per_message: u32) -> Vec<u32> {
        let span = first..first.saturating_add(REQUEST_CHUNKS_MAX);
        let mut chosen: Vec<u32> = self
            .held
            .missing_in(span)
            .filter(|chunk| !self.outstanding.contains(*chunk))
            .take_while(|chunk| *chunk < self.held.watermark().saturating_add(self.reach))
            .take_while(|chunk| self.pages.contains(Layout::page_of(ChunkIndex(*chunk))))
            .take(room as usize)
            .collect();
        // End with a whole message, unless that leaves nothing.
        let whole = chosen.iter().rposition(|chunk| (chunk + 1) % per_message == 0);
        if let (Some(whole), true) = (whole, chosen.len() == room as usize) {
            chosen.truncate(whole + 1);
        }
        chosen
    }
}

//! A patch on its way into the slot: what feeds it, and what of it survives a power cut (SPEC sections 8.6 to 8.8).
//!
//! The payload's bytes lie in the staging area: all of them or, in streaming mode, those around the position that the
//! decoder has reached: the area is then a ring. From time to time the output is made durable, and then noted
//! with the position, in two copies ([`Progress`]). After a cut the decoder goes over the patch again and compares, or
//! goes on from the state that was saved; either way nothing is fetched again.

use alloc::boxed::Box;
use alloc::vec;

use whimbrel_protocol::chunk::{ChunkSet, Layout};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::limits::JOURNAL_CHUNKS;
use whimbrel_protocol::patch::{Header, INPUT_MARGIN};

use super::patch_options::{PatchMode, PatchOptions};
use super::progress::{Owner, Progress};
use crate::image::{Applier, Applying, PayloadFailure};

/// A patch that is being applied.
#[derive(Debug)]
pub(super) struct Apply {
    what: Applying,
    layout: Layout,
    mode: PatchMode,
    /// Bytes of the staging area: the payload's byte n is at n modulo this.
    ring_bytes: u64,
    flush_bytes: u64,
    progress: Progress,
    applier: Option<Box<Applier>>,
    /// Bytes of the image that the record says are durable.
    durable: u64,
    /// The decoder did not begin at the start.
    is_restored: bool,
    /// Chunks below this one are used up by the state that is saved: they are not needed any more.
    floor: u32,
    /// In streaming mode the chunks that are used up or in the ring.
    held: ChunkSet,
    /// In streaming mode: the patch turned out to be of no use. What still comes of it is let go.
    is_useless: bool,
    /// In streaming mode: the medium failed, and what is in memory is not what is on it.
    is_broken: bool,
}

/// Bytes of a patch that are read at once.
const INPUT_BYTES: usize = INPUT_MARGIN + 4096;
/// Bytes of output that are made durable together.
const FLUSH_BYTES: u64 = 1024 * 1024;
/// A state is saved for so many times its size of output.
const STATE_TIMES: u64 = 24;
/// Fewest chunks of a ring: the one that arrives, the one that is half used, and the decoder's margin.
const RING_CHUNKS_MIN: u64 = 4;

const _: () = assert!(INPUT_MARGIN <= 1024, "a margin is at most a chunk");
const _: () = assert!(Header::BYTES_MAX <= 1024, "a header is at most a chunk");

impl Apply {
    /// A patch of which nothing is applied yet.
    pub(super) fn new(what: Applying, layout: Layout, owner: Owner, options: &PatchOptions) -> Option<Self> {
        let state_bytes_max =
            if options.mode.keeps_state() { Applier::state_bytes_max(&what.memory) } else { 0 };
        let ring_chunks = match options.mode {
            PatchMode::Replay | PatchMode::State => u64::from(layout.chunk_count()),
            PatchMode::Stream => (options.buffer_bytes / layout.chunk_size()).max(RING_CHUNKS_MIN),
        };
        let ring_bytes = match ring_chunks < u64::from(layout.chunk_count()) {
            true => ring_chunks * layout.chunk_size(),
            false => layout.transfer_size(),
        };
        Some(Self {
            what,
            layout,
            mode: options.mode,
            ring_bytes,
            flush_bytes: options.flush_bytes.unwrap_or(FLUSH_BYTES.max(STATE_TIMES * state_bytes_max)),
            progress: Progress::new(owner, state_bytes_max),
            applier: None,
            durable: 0,
            is_restored: false,
            floor: 0,
            held: ChunkSet::empty(layout.chunk_count()),
            is_useless: false,
            is_broken: false,
        })
    }

    /// Every area that it needs room in besides slot and index.
    pub(super) fn needs(&self) -> [(Area, u64); 2] {
        [(Area::Staging, self.ring_bytes), (Area::Progress, self.progress.area_bytes())]
    }

    /// Where the payload's byte `at` is in the staging area.
    pub(super) fn place(&self, at: u64) -> u64 {
        at % self.ring_bytes.max(1)
    }

    /// Whether chunks are applied as they arrive.
    pub(super) fn is_streaming(&self) -> bool {
        self.mode == PatchMode::Stream
    }

    /// Whether the staging area has room for all of the payload, so that one can go over it again.
    pub(super) fn is_whole(&self) -> bool {
        self.ring_bytes >= self.layout.transfer_size()
    }

    /// Chunks below this one are used up by the state that is saved: they are not needed any more.
    pub(super) fn floor(&self) -> u32 {
        self.floor
    }

    /// Whether the decoder did not begin at the start of the patch.
    pub(super) fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// Chunks from the first missing one on that there is room for.
    pub(super) fn reach(&self) -> u32 {
        match self.is_whole() {
            true => JOURNAL_CHUNKS,
            false => (self.ring_chunks() / 2).min(JOURNAL_CHUNKS),
        }
    }

    fn ring_chunks(&self) -> u32 {
        u32::try_from(self.ring_bytes.div_ceil(self.layout.chunk_size())).unwrap_or(u32::MAX)
    }

    /// Whether the staging area may hold this chunk, going by the state that is saved.
    pub(super) fn may_hold(&self, chunk: ChunkIndex) -> bool {
        (self.floor..self.floor.saturating_add(self.ring_chunks())).contains(&chunk.0)
    }

    /// Looks how far an earlier run came, and goes on from there.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(super) fn resume(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        // The cache may show what a failed flush has lost: only the medium counts.
        disk.drop_cache(Area::Progress)?;
        disk.drop_cache(self.what.slot)?;
        let mark = self.progress.load(disk)?;
        self.durable = mark.durable;
        let restored = mark.state.and_then(|state| Applier::restore(self.what, &state));
        self.is_restored = restored.is_some();
        self.floor = restored.as_ref().map_or(0, |applier| self.used_up(applier));
        self.applier = restored.map(Box::new);
        Ok(())
    }

    /// Begins again at the start of the patch, durably without what was saved.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(super) fn start_again(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        Progress::forget(disk)?;
        self.resume(disk)
    }

    /// The chunks that lie before the position of this decoder.
    fn used_up(&self, applier: &Applier) -> u32 {
        let (used, size) = (applier.consumed(), self.layout.transfer_size());
        let chunks =
            if used >= size { u64::from(self.layout.chunk_count()) } else { used / self.layout.chunk_size() };
        u32::try_from(chunks).unwrap_or(u32::MAX).min(self.layout.chunk_count())
    }

    /// Feeds the decoder the payload's bytes up to `end`, as far as it takes them.
    ///
    /// # Errors
    /// [`PayloadFailure`].
    pub(super) fn advance(&mut self, disk: &mut impl Disk, end: u64) -> Result<(), PayloadFailure> {
        let size = self.layout.transfer_size();
        let mut input = vec![0; INPUT_BYTES];
        if self.applier.is_none() {
            let len = size.min(Header::BYTES_MAX as u64);
            if end < len {
                return Ok(());
            }
            let first = self.read(disk, 0, len, &mut input)?;
            self.applier = Some(Box::new(Applier::new(self.what, first)?));
        }
        loop {
            let Some(applier) = &self.applier else {
                return Ok(());
            };
            let at = applier.consumed();
            let part = self.read(disk, at, end.saturating_sub(at), &mut input)?;
            let last = at + part.len() as u64 >= size;
            let Some(applier) = &mut self.applier else {
                return Ok(());
            };
            let moved = applier.step(disk, part, last)?;
            if applier.at() >= self.durable.saturating_add(self.flush_bytes) {
                self.save(disk)?;
            }
            if (moved.used, moved.filled) == (0, 0) {
                return Ok(());
            }
        }
    }

    /// Reads up to `len` of the payload's bytes from `at` on out of the ring, and no more than `into` takes.
    fn read<'b>(
        &self,
        disk: &mut impl Disk,
        at: u64,
        len: u64,
        into: &'b mut [u8],
    ) -> Result<&'b [u8], DiskError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(into.len());
        let mut done = 0;
        while done < len {
            let place = self.place(at + done as u64);
            let run = usize::try_from(self.ring_bytes - place).unwrap_or(usize::MAX).min(len - done);
            if let Some(part) = into.get_mut(done..done + run) {
                disk.read(Area::Staging, place, part)?;
            }
            done += run;
        }
        Ok(into.get(..len).unwrap_or_default())
    }

    /// Makes the output durable, then notes that it is.
    fn save(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        let Some(applier) = &mut self.applier else {
            return Ok(());
        };
        disk.flush(self.what.slot)?;
        let durable = self.durable.max(applier.at());
        let state = self.mode.keeps_state().then(|| applier.save());
        self.progress.save(disk, durable, state.as_deref())?;
        self.durable = durable;
        if let (Some(_), Some(applier)) = (state, &self.applier) {
            self.floor = self.used_up(applier);
        }
        Ok(())
    }

    /// The digest of the image, once all of the patch went through.
    ///
    /// # Errors
    /// [`PayloadFailure`].
    pub(super) fn finish(&mut self, disk: &mut impl Disk) -> Result<Digest, PayloadFailure> {
        if self.is_broken {
            return Err(DiskError::failed(Area::Staging).into());
        }
        if self.is_useless {
            return Err(PayloadFailure::Malformed);
        }
        let size = self.layout.transfer_size();
        self.advance(disk, size)?;
        self.applier.as_ref().ok_or(PayloadFailure::Malformed)?.finish(size)
    }

    /// Streaming goes on with these chunks.
    pub(super) fn holds(&mut self, held: &ChunkSet) {
        self.held = held.clone();
    }

    /// Takes verified chunks that follow each other, and applies what follows the position reached.
    ///
    /// # Errors
    /// [`DiskError`]. After the first one every call fails until the download is opened again.
    pub(super) fn take_chunks(
        &mut self,
        disk: &mut impl Disk,
        first: ChunkIndex,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        if self.is_broken {
            return Err(DiskError::failed(Area::Staging));
        }
        let result = self.try_take(disk, first, bytes);
        self.is_broken = result.is_err();
        result
    }

    fn try_take(&mut self, disk: &mut impl Disk, first: ChunkIndex, bytes: &[u8]) -> Result<(), DiskError> {
        let mut rest = bytes;
        let mut chunk = first;
        while !rest.is_empty() {
            let len = usize::try_from(self.layout.chunk_len(chunk)).unwrap_or(0);
            let Some((part, after)) = rest.split_at_checked(len).filter(|_| len > 0) else {
                let end = self.layout.byte_range(first).start + bytes.len() as u64;
                return Err(DiskError::range(Area::Staging, self.layout.transfer_size(), end));
            };
            if !self.held.contains(chunk) && (!self.is_useless || self.is_whole()) {
                self.keep(disk, chunk, part)?;
            }
            self.held.insert(chunk);
            (rest, chunk) = (after, ChunkIndex(chunk.0 + 1));
        }
        self.apply_held(disk)
    }

    /// Puts a chunk into the ring, over one that the saved state has used up.
    fn keep(&mut self, disk: &mut impl Disk, chunk: ChunkIndex, bytes: &[u8]) -> Result<(), DiskError> {
        if !self.may_hold(chunk) {
            self.apply_held(disk)?;
            if self.is_useless {
                return Ok(());
            }
            self.save(disk)?;
        }
        if !self.may_hold(chunk) {
            let end = self.layout.byte_range(chunk).end;
            return Err(DiskError::range(Area::Staging, self.ring_bytes, end));
        }
        let place = self.place(self.layout.byte_range(chunk).start);
        disk.write(Area::Staging, place, bytes)
    }

    /// Applies what is held without a gap.
    fn apply_held(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        if self.is_useless {
            return Ok(());
        }
        let end = match self.held.is_complete() {
            true => self.layout.transfer_size(),
            false => self.layout.byte_range(ChunkIndex(self.held.watermark())).start,
        };
        match self.advance(disk, end) {
            Ok(()) => Ok(()),
            Err(PayloadFailure::Disk(error)) => Err(error),
            // Told when all of it is here: a write can only fail for the medium's sake.
            Err(PayloadFailure::Malformed) => {
                self.is_useless = true;
                Ok(())
            }
        }
    }
}

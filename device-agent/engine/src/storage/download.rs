//! From room for a payload to its last chunk.

use alloc::vec;
use alloc::vec::Vec;

use whimbrel_protocol::chunk::{ChunkSalt, ChunkSet, Layout};
use whimbrel_protocol::device::{Checkpoint, Found, Opening};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::limits::JOURNAL_CHUNKS;
use whimbrel_protocol::manifest::{Codec, ImageId};
use whimbrel_protocol::message::PageNumber;

use super::apply::Apply;
use super::pages::Pages;
use super::progress::{Owner, Progress};
use super::{Storage, of_slot};
use crate::boot::BootControl;
use crate::image::{Applying, codecs};
use crate::slot::{Slot, SlotFacts};

/// A payload that is being downloaded.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) opening: Opening,
    /// Where its image goes.
    pub(super) slot: Slot,
    /// Where its chunks go: a raw payload is the image already.
    pub(super) area: Area,
}

impl Download {
    fn layout(&self) -> Layout {
        self.opening.transfer.layout
    }

    fn index(&self) -> Digest {
        self.opening.transfer.index_digest
    }

    fn salt(&self) -> ChunkSalt {
        ChunkSalt { image: self.opening.image, transfer_size: self.layout().transfer_size() }
    }

    /// Every area that the payload needs room in, and how much.
    fn needs(&self, apply: Option<&Apply>) -> Vec<(Area, u64)> {
        let mut needs = vec![(Area::Index, Pages::area_bytes(self.layout()))];
        match apply {
            Some(apply) => needs.extend(apply.needs()),
            None if self.area == Area::Staging => {
                needs.push((Area::Staging, self.layout().transfer_size()));
            }
            None => {}
        }
        needs.push((self.slot.area(), self.opening.image_size));
        needs
    }

    /// Whose the progress of a patch would be.
    fn owner(&self) -> Owner {
        Owner { index: self.index(), slot: self.slot }
    }
}

/// What a request gets that does not belong here now.
fn out_of_turn(area: Area) -> DiskError {
    DiskError::failed(area)
}

impl<D: Disk, B: BootControl> Storage<D, B> {
    /// Makes room for everything, makes sure that nothing starts the target slot, keeps the envelope; then
    /// looks for what earlier runs left of the same payload.
    ///
    /// Room comes first: a payload that does not fit changes nothing. The envelope comes after the slot is
    /// protected: a power cut between the two must not start the slot's old image under the new release's name.
    pub(super) fn open(&mut self, opening: Opening) -> Result<Found, DiskError> {
        let slot = self.target();
        // What runs is never written to: a trial has to be confirmed or reverted first.
        if slot == self.running {
            return Err(out_of_turn(slot.area()));
        }
        if !codecs().contains(opening.transfer.codec) {
            // Said like this, a patch is passed over for what the manifest names next.
            return Err(DiskError::full(Area::Staging));
        }
        let area = match opening.transfer.codec {
            Codec::Raw => slot.area(),
            Codec::Lzma | Codec::Patch => Area::Staging,
        };
        self.verified = None;
        self.download = None;
        self.apply = None;
        let download = Download { opening, slot, area };
        self.apply = self.prepare(&download)?;
        self.lacks = download.needs(self.apply.as_ref());
        self.make_room()?;
        self.lacks.clear();
        // What was noted of another payload's way into the slot will not hold any more.
        Progress::forget_others(&mut self.disk, self.apply.is_some().then(|| download.owner()))?;
        self.boot.protect(&mut self.disk, self.confirmed, slot)?;
        self.keep_envelope(&download)?;
        let found = self.resume(&download)?;
        self.download = Some(download);
        Ok(found)
    }

    /// What applies the payload if it is a patch. Its base is the image that runs, which was found to be the one that the
    /// manifest names.
    fn prepare(&mut self, download: &Download) -> Result<Option<Apply>, DiskError> {
        let opening = &download.opening;
        if opening.transfer.codec != Codec::Patch {
            return Ok(None);
        }
        let base = self.running.area();
        let (Some(base_image), Some(memory)) = (opening.base, opening.transfer.decoder) else {
            return Err(out_of_turn(base));
        };
        let len = self.disk.len(base)?;
        if len < base_image.size {
            return Err(DiskError::range(base, len, base_image.size));
        }
        let image = ImageId { digest: opening.image, size: opening.image_size };
        let what = Applying { base, base_image, slot: download.slot.area(), image, memory };
        Ok(Apply::new(what, download.layout(), download.owner(), &self.patch))
    }

    /// Whether there is room by now for the payload that had none. It is taken, so that nobody else takes it before the
    /// payload is opened again. `false` if nothing is known to lack room.
    pub(super) fn find_room(&mut self) -> bool {
        !self.lacks.is_empty() && self.make_room().is_ok()
    }

    /// Room in all areas that lack some, or in none.
    fn make_room(&mut self) -> Result<(), DiskError> {
        let mut before = Vec::with_capacity(self.lacks.len());
        for &(area, len) in &self.lacks {
            before.push((area, self.disk.len(area)?));
            if let Err(error) = self.disk.reserve(area, len) {
                for &(area, len) in before.iter().rev() {
                    // Best effort: room that is not given back does no harm here.
                    let _ = self.disk.release(area, len);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn keep_envelope(&mut self, download: &Download) -> Result<(), DiskError> {
        let opening = &download.opening;
        let held = of_slot(&mut self.slots, download.slot).ok_or(out_of_turn(Area::Manifests))?;
        held.envelope.write_both(&mut self.disk, &opening.envelope)?;
        let facts = SlotFacts {
            release: opening.release,
            sequence: opening.sequence,
            image: opening.image,
            image_size: opening.image_size,
        };
        self.learn(download.slot, facts);
        Ok(())
    }

    /// Hashes what the journal claims and what was asked for; without a journal, everything.
    fn resume(&mut self, download: &Download) -> Result<Found, DiskError> {
        let (layout, index) = (download.layout(), download.index());
        let count = layout.chunk_count();
        // An earlier flush may have failed: what the cache shows is then not what the medium has.
        self.disk.drop_cache(Area::Index)?;
        self.disk.drop_cache(download.area)?;
        let known = self.pages.begin(&mut self.disk, &index)?;
        if let Some(apply) = self.apply.as_mut().filter(|apply| apply.is_streaming()) {
            apply.resume(&mut self.disk)?;
        }
        let journal = self.journal.load(&mut self.disk, &index);
        let claimed_asked = journal.as_ref().map_or(ChunkIndex(0), |journal| journal.asked);
        let note = self.journal.noted(&mut self.disk, &index, claimed_asked);
        let claimed = journal.as_ref().map_or(ChunkSet::empty(count), |journal| journal.claims(count));
        let asked = ChunkIndex(note.asked.0.min(count));
        let mut held = match (known, &journal) {
            (false, _) => ChunkSet::empty(count),
            (true, None) => self.rehash(download, |_| true)?,
            (true, Some(_)) => self.rehash(download, |chunk| chunk < asked || claimed.contains(chunk))?,
        };
        let mut reach = JOURNAL_CHUNKS;
        if let Some(apply) = self.apply.as_mut().filter(|apply| apply.is_streaming()) {
            // What the saved state has used up is not there any more, and not missing.
            (0..apply.floor()).for_each(|chunk| {
                held.insert(ChunkIndex(chunk));
            });
            apply.holds(&held);
            reach = apply.reach();
        }
        let news = |below: u32| -> u64 {
            let new = (0..below.min(count)).map(ChunkIndex);
            let new = new.filter(|chunk| held.contains(*chunk) && !claimed.contains(*chunk));
            new.map(|chunk| layout.chunk_len(chunk)).sum()
        };
        let (news, news_again) = (news(count), news(note.again.0));
        let (received, twice) =
            journal.map_or((0, 0), |journal| (journal.bytes_received, journal.bytes_twice));
        let (bytes_received, bytes_twice) = (received + news, twice + news_again);
        let found = Found { held, asked, reach, bytes_received, bytes_twice };
        if news > 0 {
            // Durable before it is claimed.
            let ledger = Checkpoint {
                asked: found.asked,
                bytes_received: found.bytes_received,
                bytes_twice: found.bytes_twice,
                ..Checkpoint::of(&found.held)
            };
            self.checkpoint(download.area, &index, ledger)?;
        }
        Ok(found)
    }

    /// The chunks among those chosen whose bytes on the medium match the signed index.
    pub(super) fn rehash(
        &mut self,
        download: &Download,
        chosen: impl Fn(ChunkIndex) -> bool,
    ) -> Result<ChunkSet, DiskError> {
        let (layout, salt) = (download.layout(), download.salt());
        let mut right = ChunkSet::empty(layout.chunk_count());
        let Some(list) = Pages::list(&mut self.disk, salt, layout, &download.index()) else {
            return Ok(right);
        };
        let mut buffer = vec![0; usize::try_from(layout.chunk_size()).unwrap_or(0)];
        for number in 0..layout.page_count() {
            let Some(page) = Pages::page(&mut self.disk, layout, &list, number) else {
                continue;
            };
            let apply = self.apply.as_ref();
            let may_be_here = |chunk| apply.is_none_or(|apply| apply.may_hold(chunk));
            for chunk in layout.page_chunks(number).map(ChunkIndex).filter(|chunk| chosen(*chunk)) {
                let range = layout.byte_range(chunk);
                let len = usize::try_from(range.end - range.start).unwrap_or(0);
                let Some(bytes) = buffer.get_mut(..len).filter(|_| may_be_here(chunk)) else {
                    continue;
                };
                let at = apply.map_or(range.start, |apply| apply.place(range.start));
                self.disk.read(download.area, at, bytes)?;
                if page.chunk_digest(chunk).is_some_and(|want| want == salt.chunk_digest(chunk, bytes)) {
                    right.insert(chunk);
                }
            }
        }
        Ok(right)
    }

    pub(super) fn load_page(&mut self, page: PageNumber) -> Option<Vec<u8>> {
        let layout = self.download.as_ref()?.layout();
        Pages::read(&mut self.disk, layout, page)
    }

    pub(super) fn write_page(&mut self, page: PageNumber, bytes: &[u8]) -> Result<(), DiskError> {
        let download = self.download.as_ref().ok_or(out_of_turn(Area::Index))?;
        self.pages.write(&mut self.disk, download.layout(), page, bytes)
    }

    pub(super) fn write_chunks(&mut self, first: ChunkIndex, bytes: &[u8]) -> Result<(), DiskError> {
        let download = self.download.as_ref().ok_or(out_of_turn(Area::Staging))?;
        let layout = download.layout();
        let (start, len) = (layout.byte_range(first).start, layout.transfer_size());
        let end = start.saturating_add(bytes.len() as u64);
        if end > len {
            return Err(DiskError::range(download.area, len, end));
        }
        match self.apply.as_mut().filter(|apply| apply.is_streaming()) {
            Some(apply) => apply.take_chunks(&mut self.disk, first, bytes),
            None => self.disk.write(download.area, start, bytes),
        }
    }

    pub(super) fn note_asked(&mut self, asked: ChunkIndex) -> Result<(), DiskError> {
        let download = self.download.as_ref().ok_or(out_of_turn(Area::Journal))?;
        let index = download.index();
        self.journal.note(&mut self.disk, &index, asked)
    }

    pub(super) fn save_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), DiskError> {
        let download = self.download.as_ref().ok_or(out_of_turn(Area::Journal))?;
        let (area, index) = (download.area, download.index());
        self.checkpoint(area, &index, checkpoint)
    }

    /// Chunks, then the pages that prove them, then the claim.
    fn checkpoint(&mut self, area: Area, index: &Digest, checkpoint: Checkpoint) -> Result<(), DiskError> {
        self.disk.flush(area)?;
        self.pages.flush(&mut self.disk)?;
        self.journal.save(&mut self.disk, index, checkpoint)
    }
}

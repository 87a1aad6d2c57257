//! How far a patch is applied: a small record in two copies, and the decoder's state if that is kept
//! (SPEC section 8.7).
//!
//! The record is written after the output that it counts is durable. With a state both are made durable by one flush:
//! a record whose state does not match its digest falls back to the one before, whose state lies in the other place
//! and was not touched.
//!
//! | bytes of the area | content |
//! |---|---|
//! | 0.. | record, first copy ([`TwoCopies`], `WP`) |
//! | 4096.. | record, second copy |
//! | 8192.. | a state; behind it, at the next multiple of 4096, the other place for one |
//!
//! | bytes of the record | content |
//! |---|---|
//! | 0..32 | index digest of the payload |
//! | 32 | the slot that the image goes to, 0 or 1 |
//! | 33 | 0: no state; 1, 2: it is in the first, the second place |
//! | 34..36 | zero |
//! | 36..40 | bytes of the state, u32 |
//! | 40..48 | bytes of the image that are durable in the slot, u64 |
//! | 48..80 | SHA-256 of the state; zero for none |
//!
//! Numbers are little-endian.

use alloc::vec;
use alloc::vec::Vec;

use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;

use crate::slot::Slot;
use crate::two_copies::{Format, HEADER_BYTES, TwoCopies};

/// What a device remembers of a patch that it is applying.
#[derive(Debug)]
pub(super) struct Progress {
    copies: TwoCopies,
    owner: Owner,
    /// Most bytes of a state; 0 if none is kept.
    state_bytes_max: u64,
    /// Where the newest state is, from 0.
    newest: Option<u64>,
}

/// Whose progress it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The payload: its index digest.
    pub(super) index: Digest,
    /// Where its image goes.
    pub(super) slot: Slot,
}

/// How far an earlier run came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes of the image that are durable in the slot.
    pub(super) durable: u64,
    /// The newest state that is whole.
    pub(super) state: Option<Vec<u8>>,
}

const STRIDE: u64 = 4096;
const STATES_AT: u64 = 2 * STRIDE;
const CONTENT_BYTES: usize = 80;
const COPY_BYTES: usize = HEADER_BYTES + CONTENT_BYTES;
const FORMAT: Format = Format { magic: *b"WP", version: 1, content_max: CONTENT_BYTES };

struct Entry {
    owner: Owner,
    place: Option<u64>,
    state_len: u32,
    durable: u64,
    digest: Digest,
}

impl Progress {
    /// The progress of `owner`, with states of at most so many bytes.
    pub(super) fn new(owner: Owner, state_bytes_max: u64) -> Self {
        Self {
            copies: TwoCopies::new(FORMAT, Area::Progress, 0, STRIDE),
            owner,
            state_bytes_max,
            newest: None,
        }
    }

    /// Bytes of the area.
    pub(super) fn area_bytes(&self) -> u64 {
        STATES_AT + 2 * self.state_stride()
    }

    fn state_stride(&self) -> u64 {
        self.state_bytes_max.next_multiple_of(STRIDE)
    }

    /// How far this payload came; nothing if the area belongs to another one.
    ///
    /// # Errors
    /// [`DiskError`] if no copy can be read.
    pub(super) fn load(&mut self, disk: &mut impl Disk) -> Result<Mark, DiskError> {
        let mut mark = Mark::default();
        self.newest = None;
        for (copy, content) in self.copies.read_both(disk)? {
            let Some(entry) = Entry::decode(&content).filter(|entry| entry.owner == self.owner) else {
                continue;
            };
            mark.durable = mark.durable.max(entry.durable);
            if mark.state.is_none()
                && let Some(place) = entry.place
                && let Some(state) = self.read_state(disk, place, &entry)
            {
                // A newer record without its state counts for less, and makes room for the next one.
                self.copies.use_copy(copy);
                self.newest = Some(place);
                mark.state = Some(state);
            }
        }
        Ok(mark)
    }

    fn read_state(&self, disk: &mut impl Disk, place: u64, entry: &Entry) -> Option<Vec<u8>> {
        if u64::from(entry.state_len) > self.state_bytes_max {
            return None;
        }
        let mut state = vec![0; usize::try_from(entry.state_len).ok()?];
        disk.read(Area::Progress, self.state_at(place), &mut state).ok()?;
        (Digest::of(&state) == entry.digest).then_some(state)
    }

    fn state_at(&self, place: u64) -> u64 {
        STATES_AT + place * self.state_stride()
    }

    /// Notes durably that `durable` bytes of the image are in the slot, with the state to go on from, if any.
    ///
    /// # Errors
    /// [`DiskError`]; what was noted before still counts.
    pub(super) fn save(
        &mut self,
        disk: &mut impl Disk,
        durable: u64,
        state: Option<&[u8]>,
    ) -> Result<(), DiskError> {
        let mut entry =
            Entry { owner: self.owner, place: None, state_len: 0, durable, digest: Digest([0; 32]) };
        if let Some(state) = state {
            let place = self.newest.map_or(0, |newest| 1 - newest);
            let at = self.state_at(place);
            let range = DiskError::range(Area::Progress, self.area_bytes(), at + state.len() as u64);
            if state.len() as u64 > self.state_bytes_max {
                return Err(range);
            }
            entry.state_len = u32::try_from(state.len()).map_err(|_| range)?;
            (entry.place, entry.digest) = (Some(place), Digest::of(state));
            disk.write(Area::Progress, at, state)?;
        }
        self.copies.write(disk, &entry.encode())?;
        self.newest = entry.place;
        Ok(())
    }

    /// Makes the area nobody's, durably.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(super) fn forget(disk: &mut impl Disk) -> Result<(), DiskError> {
        let len = disk.len(Area::Progress)?;
        for at in [0, STRIDE].into_iter().filter(|at| at + COPY_BYTES as u64 <= len) {
            disk.write(Area::Progress, at, &[0; COPY_BYTES])?;
        }
        if len > 0 { disk.flush(Area::Progress) } else { Ok(()) }
    }

    /// Makes the area nobody's, durably, unless it is `owner`'s: the slot is about to be overwritten with something
    /// else, and what is said of its content would not hold any more.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(super) fn forget_others(disk: &mut impl Disk, owner: Option<Owner>) -> Result<(), DiskError> {
        if disk.len(Area::Progress)? == 0 {
            return Ok(());
        }
        let copies = TwoCopies::new(FORMAT, Area::Progress, 0, STRIDE).read_both(disk)?;
        let is_owners = |(_, content): &(_, Vec<u8>)| {
            Entry::decode(content).is_some_and(|entry| Some(entry.owner) == owner)
        };
        if copies.iter().all(is_owners) { Ok(()) } else { Self::forget(disk) }
    }
}

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let place = self.place.map_or(0, |place| if place == 0 { 1 } else { 2 });
        let mut content = Vec::with_capacity(CONTENT_BYTES);
        content.extend(self.owner.index.0);
        content.extend([self.owner.slot.number(), place, 0, 0]);
        content.extend(self.state_len.to_le_bytes());
        content.extend(self.durable.to_le_bytes());
        content.extend(self.digest.0);
        content
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let (index, rest) = content.split_first_chunk::<32>()?;
        let (&[slot, place @ 0..=2, 0, 0], rest) = rest.split_first_chunk::<4>()? else {
            return None;
        };
        let (state_len, rest) = rest.split_first_chunk::<4>()?;
        let (durable, rest) = rest.split_first_chunk::<8>()?;
        let owner = Owner { index: Digest(*index), slot: Slot::from_number(slot)? };
        Some(Self {
            owner,
            place: u64::from(place).checked_sub(1),
            state_len: u32::from_le_bytes(*state_len),
            durable: u64::from_le_bytes(*durable),
            digest: Digest(rest.try_into().ok()?),
        })
    }
}

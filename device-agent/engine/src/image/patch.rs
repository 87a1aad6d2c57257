//! Turns the bytes of a patch, in order, into blocks of the target slot (SPEC section 8.8), with bounded memory.
//!
//! The base is only read. Nothing of a patch is trusted: its header has to name the images that were signed
//! and to ask for no more memory than was signed, before anything is allocated. A block that is in the slot already
//! is not written again, so that going over the same bytes once more costs reads alone; if the medium has
//! something else than it should, the block is simply written again.
//!
//! What goes on after a power cut is a saved state: the decoder, the digest so far, and the block that is not full
//! yet. Blocks are written whole, so that a torn write never touches one that counts as durable.
//!
//! | bytes of a saved state | content |
//! |---|---|
//! | 0..8 | where the next block goes, u64 |
//! | 8..10 | bytes of the patch's header, u16 |
//! | 10..12 | zero |
//! | 12..16 | bytes of the block that is not full, u32 |
//! | 16..120 | SHA-256 of what lies before that block, unfinished: as the `sha2` crate lays it out |
//! | 120.. | the header, the block, the decoder's own state |
//!
//! Numbers are little-endian.

use alloc::vec::Vec;

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::DecoderMemory;
use whimbrel_protocol::patch::{Base, DecodeFailure, Decoder, Header};

use super::{Applying, PayloadFailure};

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes of the patch that were used.
    pub(crate) used: usize,
    /// Bytes of the image that came out.
    pub(crate) filled: usize,
}

/// A patch that is being applied.
pub(crate) struct Applier {
    what: Applying,
    head: Vec<u8>,
    decoder: Decoder,
    /// Of what lies before `at`.
    hash: Sha256,
    /// Output that is not written yet: less than a block, unless writing it failed.
    block: Vec<u8>,
    /// What the slot has where the block goes.
    present: Vec<u8>,
    /// Where the block goes.
    at: u64,
}

impl core::fmt::Debug for Applier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Applier").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Bytes decoded and compared at once.
pub(crate) const BLOCK_BYTES: usize = 16 * 1024;
/// Bytes of an unfinished SHA-256.
const HASH_BYTES: usize = 104;
const FIXED_BYTES: usize = 16 + HASH_BYTES;

impl Applier {
    /// Bytes of a saved state, at most, for a decoder with this memory.
    pub(crate) fn state_bytes_max(memory: &DecoderMemory) -> u64 {
        (FIXED_BYTES + Header::BYTES_MAX + BLOCK_BYTES) as u64 + u64::from(memory.memory_bytes)
    }

    /// Begins with the first bytes of a patch: [`Header::BYTES_MAX`], or all of it.
    ///
    /// # Errors
    /// [`PayloadFailure::Malformed`] if the header is none, or not of these images, or wants more memory.
    pub(crate) fn new(what: Applying, first: &[u8]) -> Result<Self, PayloadFailure> {
        let (header, len) = Header::decode(first).map_err(|_| PayloadFailure::Malformed)?;
        let head = first.get(..len).ok_or(PayloadFailure::Malformed)?.to_vec();
        if !is_signed(&what, &header) {
            return Err(PayloadFailure::Malformed);
        }
        let decoder = Decoder::new(header);
        Ok(Self { what, head, decoder, hash: Sha256::new(), block: Vec::new(), present: Vec::new(), at: 0 })
    }

    /// Bytes of the patch that were used, the header included.
    pub(crate) fn consumed(&self) -> u64 {
        self.head.len() as u64 + self.decoder.consumed()
    }

    /// Everything before here is in the slot, as far as writing goes.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Decodes up to the end of the block, and writes it out when it is full or the image's last.
    ///
    /// `input` goes on at [`consumed`](Self::consumed); if nothing moves, more is needed or the image is complete.
    ///
    /// # Errors
    /// [`PayloadFailure`]. After a failed write the step can be taken again; after any other it cannot.
    pub(crate) fn step(
        &mut self,
        disk: &mut impl Disk,
        input: &[u8],
        last: bool,
    ) -> Result<Moved, PayloadFailure> {
        self.write_if_full(disk)?;
        let (filled, end) = (self.block.len(), self.block_len());
        self.block.resize(end, 0);
        let mut base = OldImage { disk: &mut *disk, area: self.what.base };
        let out = self.block.get_mut(filled..).unwrap_or_default();
        let result = self.decoder.decode(input, last, &mut base, out);
        let moved = match result {
            Ok((used, filled)) => Moved { used, filled },
            // An base that cannot be read is none to start from: the whole payload needs no base.
            Err(DecodeFailure::Patch(_) | DecodeFailure::Base(_)) => return Err(PayloadFailure::Malformed),
        };
        self.block.truncate(filled + moved.filled);
        self.write_if_full(disk)?;
        Ok(moved)
    }

    /// Bytes that the block has when it is full: the image's last one may be short.
    fn block_len(&self) -> usize {
        usize::try_from(self.what.image.size.saturating_sub(self.at)).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES)
    }

    fn write_if_full(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        if self.block.is_empty() || self.block.len() < self.block_len() {
            return Ok(());
        }
        self.present.resize(self.block.len(), 0);
        disk.read(self.what.slot, self.at, &mut self.present)?;
        if self.present != self.block {
            disk.write(self.what.slot, self.at, &self.block)?;
        }
        self.hash.update(&self.block);
        self.at += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// The digest of what came out, once the image is complete and nothing of a patch of `transfer_size` bytes is left.
    ///
    /// # Errors
    /// [`PayloadFailure::Malformed`] otherwise.
    pub(crate) fn finish(&self, transfer_size: u64) -> Result<Digest, PayloadFailure> {
        let unused = transfer_size.checked_sub(self.consumed()).ok_or(PayloadFailure::Malformed)?;
        self.decoder.finish(unused).map_err(|_| PayloadFailure::Malformed)?;
        Ok(Digest(self.hash.clone().finalize().into()))
    }

    /// Everything that it takes to go on after a restart, apart from the blocks before [`at`](Self::at).
    pub(crate) fn save(&mut self) -> Vec<u8> {
        let decoder = self.decoder.save();
        let mut state = Vec::with_capacity(FIXED_BYTES + self.head.len() + self.block.len() + decoder.len());
        let head = u16::try_from(self.head.len()).expect("a header is shorter than that");
        let block = u32::try_from(self.block.len()).expect("a block is shorter than that");
        state.extend(self.at.to_le_bytes());
        state.extend(head.to_le_bytes());
        state.extend([0; 2]);
        state.extend(block.to_le_bytes());
        state.extend(self.hash.serialize());
        state.extend(&self.head);
        state.extend(&self.block);
        state.extend(decoder);
        state
    }

    /// Goes on from what [`save`](Self::save) gave; `None` if that is not a state of this patch.
    pub(crate) fn restore(what: Applying, state: &[u8]) -> Option<Self> {
        let (at, rest) = state.split_first_chunk::<8>()?;
        let (&[h0, h1, 0, 0], rest) = rest.split_first_chunk::<4>()? else {
            return None;
        };
        let (block, rest) = rest.split_first_chunk::<4>()?;
        let (hash, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
        let (head, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([h0, h1])))?;
        let (block, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*block)).ok()?)?;
        let (header, len) = Header::decode(head).ok()?;
        let at = u64::from_le_bytes(*at);
        let decoder = Decoder::restore(header, rest).ok()?;
        let fits = len == head.len()
            && is_signed(&what, &header)
            && block.len() < BLOCK_BYTES
            && at.checked_add(block.len() as u64) == Some(decoder.produced());
        let hash = SerializedState::<Sha256>::try_from(&hash[..]).ok()?;
        let hash = Sha256::deserialize(&hash).ok()?;
        fits.then(|| Self {
            what,
            head: head.to_vec(),
            decoder,
            hash,
            block: block.to_vec(),
            present: Vec::new(),
            at,
        })
    }
}

/// Whether the header names the signed images and asks for no more memory than was signed.
fn is_signed(what: &Applying, header: &Header) -> bool {
    let needs = header.decoder();
    header.base == what.base_image
        && header.image == what.image
        && needs.memory_bytes <= what.memory.memory_bytes
        && needs.dictionary_bytes <= what.memory.dictionary_bytes
}

/// The base on the medium.
struct OldImage<'d, D> {
    disk: &'d mut D,
    area: Area,
}

impl<D: Disk> Base for OldImage<'_, D> {
    type Error = DiskError;

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), DiskError> {
        // Once more if the medium failed once: giving the patch up costs a whole payload.
        self.disk.read(self.area, at, into).or_else(|_| self.disk.read(self.area, at, into))
    }
}

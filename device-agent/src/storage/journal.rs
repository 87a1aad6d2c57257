//! The download's journal: a hint where to look, never the truth (SPEC section 8.6).
//!
//! Two alternating sectors hold checkpoints, a third one a note of what was asked for. What they claim is
//! hashed again before it is believed, so that nothing here has to be right for an image to be right.
//!
//! | bytes of the area | content |
//! |---|---|
//! | 0..512 | journal sector ([`JournalSector`]) |
//! | 4096..4608 | journal sector |
//! | 8192..8216 | note: `WN01`, chunks asked for below this one (u32), the first 8 bytes of the index digest, the first 8 bytes of the SHA-256 of 0..16 |

use whimbrel_protocol::device::{Checkpoint, JournalSector, SECTOR_BYTES};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{ChunkIndex, Digest};

/// Bytes of the area.
pub(crate) const JOURNAL_BYTES: u64 = 3 * 4096;
/// From one sector to the next.
const STRIDE: u64 = 4096;
const NOTE_AT: u64 = 2 * STRIDE;
const NOTE_BYTES: usize = 24;
const NOTE_MAGIC: &[u8; 4] = b"WN01";

/// Where the next checkpoint goes.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    next: Option<Next>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    /// 0 or 1.
    sector: u64,
    sequence: u64,
}

impl Journal {
    /// The newest checkpoint of the payload with this index digest, if there is a valid one.
    pub(crate) fn load(&mut self, disk: &mut impl Disk, index: &Digest) -> Option<Checkpoint> {
        let sectors = read_sectors(disk);
        self.next = Some(after(&sectors));
        let mine = sectors.into_iter().flatten().filter(|sector| sector.index == *index);
        mine.max_by_key(|sector| sector.sequence).map(|sector| sector.checkpoint)
    }

    /// Saves a checkpoint over the older sector, durably.
    pub(crate) fn save(
        &mut self,
        disk: &mut impl Disk,
        index: &Digest,
        checkpoint: Checkpoint,
    ) -> Result<(), DiskError> {
        let Next { sector, sequence } = self.next.take().unwrap_or_else(|| after(&read_sectors(disk)));
        let bytes = JournalSector { sequence, index: *index, checkpoint }.encode();
        disk.write(Area::Journal, sector * STRIDE, &bytes)?;
        disk.flush(Area::Journal)?;
        self.next = Some(Next { sector: 1 - sector, sequence: sequence.saturating_add(1) });
        Ok(())
    }

    /// Notes that chunks below `asked` were asked for. Not flushed: it serves the ledger only.
    pub(crate) fn note(disk: &mut impl Disk, index: &Digest, asked: ChunkIndex) -> Result<(), DiskError> {
        disk.write(Area::Journal, NOTE_AT, &encode_note(index, asked))
    }

    /// The note for the payload with this index digest, if there is a valid one.
    pub(crate) fn noted(disk: &mut impl Disk, index: &Digest) -> Option<ChunkIndex> {
        let mut note = [0; NOTE_BYTES];
        disk.read(Area::Journal, NOTE_AT, &mut note).ok()?;
        let [_, _, _, _, a, b, c, d, ..] = note;
        let asked = ChunkIndex(u32::from_le_bytes([a, b, c, d]));
        (note == encode_note(index, asked)).then_some(asked)
    }
}

/// The valid sectors. A journal that cannot be read says nothing.
fn read_sectors(disk: &mut impl Disk) -> [Option<JournalSector>; 2] {
    [0, 1].map(|sector| {
        let mut bytes = [0; SECTOR_BYTES];
        disk.read(Area::Journal, sector * STRIDE, &mut bytes).ok()?;
        JournalSector::decode(&bytes).ok()
    })
}

/// The sector that does not hold the newest checkpoint, and the number after that one's.
fn after(sectors: &[Option<JournalSector>; 2]) -> Next {
    let [first, second] = sectors.each_ref().map(|sector| sector.as_ref().map(|sector| sector.sequence));
    let sector = if first > second { 1 } else { 0 };
    Next { sector, sequence: first.max(second).map_or(1, |newest| newest.saturating_add(1)) }
}

fn encode_note(index: &Digest, asked: ChunkIndex) -> [u8; NOTE_BYTES] {
    let content = [&NOTE_MAGIC[..], &asked.0.to_le_bytes(), &index.short().0].concat();
    let check = Digest::of(&content).short();
    let mut note = [0; NOTE_BYTES];
    note.iter_mut().zip(content.iter().chain(&check.0)).for_each(|(to, from)| *to = *from);
    note
}

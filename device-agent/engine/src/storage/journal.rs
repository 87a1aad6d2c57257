//! The download's journal (SPEC section 8.6). It says where to look; what it says is hashed before it counts.
//!
//! Two alternating sectors hold checkpoints, a third one a note of what was asked for. What they claim is
//! hashed again, so that a wrong journal costs time and never makes a wrong image.
//!
//! | bytes of the area | content |
//! |---|---|
//! | 0..512 | journal sector ([`JournalSector`]) |
//! | 4096..4608 | journal sector |
//! | 8192..8220 | note: `WN01`, chunks asked for below this one (u32), holes asked for again below this one (u32), the first 8 bytes of the index digest, the first 8 bytes of the SHA-256 of 0..20 |

use whimbrel_protocol::device::{Checkpoint, JournalSector, SECTOR_BYTES};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{ChunkIndex, Digest};

/// Bytes of the area.
pub(crate) const JOURNAL_BYTES: u64 = 3 * 4096;
/// From one sector to the next.
const STRIDE: u64 = 4096;
const NOTE_AT: u64 = 2 * STRIDE;
const NOTE_BYTES: usize = 28;
const NOTE_MAGIC: &[u8; 4] = b"WN01";

/// Where the next checkpoint goes.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    next: Option<Next>,
    /// The note as it was read or written last.
    note: Note,
}

/// What was asked for, as far as it was noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// Chunks below this one were asked for.
    pub(crate) asked: ChunkIndex,
    /// Of the chunks below this one, those that no checkpoint claims were asked for more than once.
    pub(crate) again: ChunkIndex,
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

    /// Notes that chunks below `asked` were asked for; said once more, that what is missing there is asked for
    /// again. Not flushed: it serves the ledger only.
    pub(crate) fn note(
        &mut self,
        disk: &mut impl Disk,
        index: &Digest,
        asked: ChunkIndex,
    ) -> Result<(), DiskError> {
        let again = if asked > self.note.asked { self.note.again } else { asked };
        self.note = Note { asked, again };
        disk.write(Area::Journal, NOTE_AT, &encode_note(index, self.note))
    }

    /// The note for the payload with this index digest, if there is a valid one; with what the checkpoint knows
    /// to have been asked for.
    pub(crate) fn noted(&mut self, disk: &mut impl Disk, index: &Digest, checkpoint: ChunkIndex) -> Note {
        let note = read_note(disk, index).unwrap_or_default();
        self.note = Note { asked: note.asked.max(checkpoint), ..note };
        self.note
    }
}

fn read_note(disk: &mut impl Disk, index: &Digest) -> Option<Note> {
    let mut bytes = [0; NOTE_BYTES];
    disk.read(Area::Journal, NOTE_AT, &mut bytes).ok()?;
    let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = bytes;
    let chunk = |bytes| ChunkIndex(u32::from_le_bytes(bytes));
    let note = Note { asked: chunk([a, b, c, d]), again: chunk([e, f, g, h]) };
    (bytes == encode_note(index, note)).then_some(note)
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

fn encode_note(index: &Digest, note: Note) -> [u8; NOTE_BYTES] {
    let numbers = [note.asked.0.to_le_bytes(), note.again.0.to_le_bytes()].concat();
    let content = [&NOTE_MAGIC[..], &numbers, &index.short().0].concat();
    let check = Digest::of(&content).short();
    let mut note = [0; NOTE_BYTES];
    note.iter_mut().zip(content.iter().chain(&check.0)).for_each(|(to, from)| *to = *from);
    note
}

#[cfg(test)]
mod tests {
    use whimbrel_protocol::chunk::ChunkSet;
    use whimbrel_protocol::testing::{DiskFault, SimDisk, Survival};

    use super::*;
    use crate::memory::MemoryDisk;

    const INDEX: Digest = Digest([7; 32]);

    fn note(asked: u32, again: u32) -> Note {
        Note { asked: ChunkIndex(asked), again: ChunkIndex(again) }
    }

    #[test]
    fn what_is_noted_again_with_the_same_number_was_asked_for_again() {
        let mut disk = MemoryDisk::new();
        disk.reserve(Area::Journal, JOURNAL_BYTES).unwrap();
        let mut journal = Journal::default();
        assert_eq!(journal.noted(&mut disk, &INDEX, ChunkIndex(0)), note(0, 0));
        for (asked, want) in [(8, note(8, 0)), (12, note(12, 0)), (12, note(12, 12)), (20, note(20, 12))] {
            journal.note(&mut disk, &INDEX, ChunkIndex(asked)).unwrap();
            assert_eq!(Journal::default().noted(&mut disk, &INDEX, ChunkIndex(0)), want);
        }
        assert_eq!(Journal::default().noted(&mut disk, &Digest([8; 32]), ChunkIndex(0)), note(0, 0));
    }

    /// A checkpoint that claims so many chunks.
    fn claim(chunks: u32) -> Checkpoint {
        Checkpoint { bytes_received: u64::from(chunks), ..Checkpoint::of(&ChunkSet::empty(100)) }
    }

    fn reserved() -> SimDisk {
        let mut disk = SimDisk::new();
        disk.reserve(Area::Journal, JOURNAL_BYTES).unwrap();
        disk
    }

    fn loaded(disk: &mut SimDisk) -> Option<u64> {
        Journal::default().load(disk, &INDEX).map(|checkpoint| checkpoint.bytes_received)
    }

    #[test]
    fn checkpoints_are_durable_and_the_newest_whole_one_counts_in_whichever_sector_it_is() {
        let mut disk = reserved();
        assert_eq!(loaded(&mut disk), None);
        let mut journal = Journal::default();
        for number in 1..=5 {
            journal.save(&mut disk, &INDEX, claim(number)).unwrap();
            disk.power_cut(Survival::None, 1);
            assert_eq!(loaded(&mut disk), Some(number.into()));
        }
        // The fifth is in the first sector.
        disk.flip(Area::Journal, 100);
        assert_eq!(loaded(&mut disk), Some(4));
        disk.flip(Area::Journal, STRIDE * 8 + 100);
        assert_eq!(loaded(&mut disk), None);
    }

    /// Whoever goes on, and whether they have looked before, writes over the older of the two.
    #[test]
    fn a_checkpoint_never_goes_over_the_newest_one() {
        for looks in [false, true] {
            let mut disk = reserved();
            for number in 1..=6 {
                let mut journal = Journal::default();
                if looks {
                    drop(journal.load(&mut disk, &INDEX));
                }
                let mut cut = disk.clone();
                cut.kill();
                // The write, then the flush.
                cut.crash_at(2);
                assert!(journal.save(&mut cut, &INDEX, claim(99)).is_err());
                cut.power_cut(Survival::Torn, u64::from(number));
                let before = (number > 1).then(|| u64::from(number - 1));
                let found = loaded(&mut cut);
                assert!(found == before || found == Some(99), "{found:?} after {before:?}");
                let mut journal = Journal::default();
                if looks {
                    drop(journal.load(&mut disk, &INDEX));
                }
                journal.save(&mut disk, &INDEX, claim(number)).unwrap();
            }
            let sectors = read_sectors(&mut disk).map(|sector| sector.unwrap().sequence);
            assert_eq!(sectors, [5, 6]);
        }
    }

    #[test]
    fn a_checkpoint_that_failed_is_written_to_the_same_sector_again() {
        let mut disk = reserved();
        let mut journal = Journal::default();
        journal.save(&mut disk, &INDEX, claim(1)).unwrap();
        disk.fail_at(DiskFault::Failed, disk.calls(DiskFault::Failed) + 1, false);
        assert!(journal.save(&mut disk, &INDEX, claim(2)).is_err());
        journal.save(&mut disk, &INDEX, claim(3)).unwrap();
        let sectors = read_sectors(&mut disk).map(|sector| sector.unwrap().checkpoint.bytes_received);
        assert_eq!(sectors, [1, 3]);
    }

    /// The other payload's checkpoint is newer, and none of this one.
    #[test]
    fn a_checkpoint_counts_for_its_payload_only() {
        let (mut disk, other) = (reserved(), Digest([8; 32]));
        let mut journal = Journal::default();
        journal.save(&mut disk, &INDEX, claim(1)).unwrap();
        journal.save(&mut disk, &other, claim(2)).unwrap();
        assert_eq!(loaded(&mut disk), Some(1));
        let mut journal = Journal::default();
        assert_eq!(journal.load(&mut disk, &Digest([9; 32])), None);
        journal.save(&mut disk, &other, claim(3)).unwrap();
        assert_eq!(loaded(&mut disk), None, "the older one made room");
    }

    #[test]
    fn a_note_with_any_bit_changed_says_nothing() {
        let mut disk = reserved();
        Journal::default().note(&mut disk, &INDEX, ChunkIndex(8)).unwrap();
        disk.flush(Area::Journal).unwrap();
        assert_eq!(Journal::default().noted(&mut disk, &INDEX, ChunkIndex(0)), note(8, 0));
        for bit in 0..NOTE_BYTES as u64 * 8 {
            let mut disk = disk.clone();
            disk.flip(Area::Journal, NOTE_AT * 8 + bit);
            assert_eq!(Journal::default().noted(&mut disk, &INDEX, ChunkIndex(3)), note(3, 0), "bit {bit}");
        }
    }

    #[test]
    fn a_checkpoint_that_knows_more_than_the_note_is_believed() {
        let mut disk = MemoryDisk::new();
        disk.reserve(Area::Journal, JOURNAL_BYTES).unwrap();
        let mut journal = Journal::default();
        assert_eq!(journal.noted(&mut disk, &INDEX, ChunkIndex(30)), note(30, 0));
        journal.note(&mut disk, &INDEX, ChunkIndex(30)).unwrap();
        assert_eq!(journal.noted(&mut disk, &INDEX, ChunkIndex(0)), note(30, 30));
    }
}

//! What the journal keeps of a download, and its sector on the medium (SPEC section 8.6).
//!
//! A journal is a hint. What it claims is hashed again on resume, and the signed index decides.

use alloc::boxed::Box;

use crate::chunk::ChunkSet;
use crate::codec::DecodeError;
use crate::ids::{ChunkIndex, Digest};
use crate::limits::JOURNAL_CHUNKS;

/// Bytes of the bitmap.
pub const BITMAP_BYTES: usize = JOURNAL_CHUNKS.div_ceil(8) as usize;
/// Bytes of one journal sector.
pub const SECTOR_BYTES: usize = 512;

/// Which chunks are held, and the ledger of the download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Chunks below this one are held.
    pub watermark: u32,
    /// From the watermark on: bit 0 of byte 0 first.
    pub bitmap: Box<[u8; BITMAP_BYTES]>,
    /// Chunks below this one were asked for.
    pub asked: ChunkIndex,
    /// Payload bytes received, with everything received twice.
    pub bytes_received: u64,
    /// Of these, the bytes of what had come before (SPEC section 4.8).
    pub bytes_twice: u64,
}

impl Checkpoint {
    /// The checkpoint of `held` with an empty ledger.
    #[must_use]
    pub fn of(held: &ChunkSet) -> Self {
        let mut bitmap = Box::new([0; BITMAP_BYTES]);
        held.write_bitmap(&mut bitmap[..]);
        let watermark = held.watermark();
        Self { watermark, bitmap, asked: ChunkIndex(0), bytes_received: 0, bytes_twice: 0 }
    }

    /// The chunks that it claims, of a payload of `count`.
    #[must_use]
    pub fn claims(&self, count: u32) -> ChunkSet {
        ChunkSet::from_parts(count, self.watermark, &self.bitmap[..])
    }
}

/// One of the two alternating sectors of a journal.
///
/// | bytes | content |
/// |---|---|
/// | 0..4 | `WJ01` |
/// | 4..8 | zero |
/// | 8..16 | sequence number of this write, u64 |
/// | 16..48 | index digest of the payload |
/// | 48..52 | watermark, u32 |
/// | 52..56 | asked, u32 |
/// | 56..64 | bytes received, u64 |
/// | 64..72 | bytes received twice, u64 |
/// | 72..497 | bitmap |
/// | 497..500 | zero |
/// | 500..512 | first 12 bytes of the SHA-256 of 0..500 |
///
/// Numbers are little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSector {
    /// Rises with every write; the higher of two valid sectors counts.
    pub sequence: u64,
    /// Which payload: its index digest.
    pub index: Digest,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
}

const MAGIC: &[u8; 4] = b"WJ01";
const CHECK_AT: usize = 500;

impl JournalSector {
    /// The sector's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            sector.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
            at += bytes.len();
        };
        put(MAGIC);
        put(&[0; 4]);
        put(&self.sequence.to_le_bytes());
        put(&self.index.0);
        put(&self.checkpoint.watermark.to_le_bytes());
        put(&self.checkpoint.asked.0.to_le_bytes());
        put(&self.checkpoint.bytes_received.to_le_bytes());
        put(&self.checkpoint.bytes_twice.to_le_bytes());
        put(&self.checkpoint.bitmap[..]);
        let (content, check) = sector.split_at_mut(CHECK_AT);
        check.iter_mut().zip(Digest::of(content).0).for_each(|(to, from)| *to = from);
        sector
    }

    /// Reads a sector.
    ///
    /// # Errors
    /// [`DecodeError::Value`] if it is torn, empty or of another format.
    pub fn decode(sector: &[u8; SECTOR_BYTES]) -> Result<Self, DecodeError> {
        let bad = DecodeError::value("journal sector");
        let (content, check) = sector.split_at(CHECK_AT);
        if !content.starts_with(MAGIC) || !Digest::of(content).0.starts_with(check) {
            return Err(bad);
        }
        let mut rest = content.get(8..).ok_or(bad)?;
        Ok(Self {
            sequence: u64::from_le_bytes(take(&mut rest).ok_or(bad)?),
            index: Digest(take(&mut rest).ok_or(bad)?),
            checkpoint: Checkpoint {
                watermark: u32::from_le_bytes(take(&mut rest).ok_or(bad)?),
                asked: ChunkIndex(u32::from_le_bytes(take(&mut rest).ok_or(bad)?)),
                bytes_received: u64::from_le_bytes(take(&mut rest).ok_or(bad)?),
                bytes_twice: u64::from_le_bytes(take(&mut rest).ok_or(bad)?),
                bitmap: Box::new(take(&mut rest).ok_or(bad)?),
            },
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

const _: () = assert!(72 + BITMAP_BYTES <= CHECK_AT);

#[cfg(test)]
mod tests {
    use super::*;

    fn sector() -> JournalSector {
        let mut held = ChunkSet::empty(5000);
        (0..700).chain([705, 4095]).for_each(|chunk| {
            held.insert(ChunkIndex(chunk));
        });
        let ledger =
            Checkpoint { asked: ChunkIndex(9), bytes_received: 1, bytes_twice: 2, ..Checkpoint::of(&held) };
        JournalSector { sequence: 3, index: Digest::of(b"index"), checkpoint: ledger }
    }

    #[test]
    fn a_sector_reads_back() {
        let read = JournalSector::decode(&sector().encode()).unwrap();
        assert_eq!(read, sector());
        assert_eq!(read.checkpoint.claims(5000).len(), 702);
    }

    #[test]
    fn a_sector_with_any_bit_changed_is_refused() {
        let good = sector().encode();
        for bit in 0..SECTOR_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(JournalSector::decode(&bad).is_err(), "bit {bit}");
        }
    }
}

//! A small piece of data that is kept in two copies, so that one of them is whole at every instant (SPEC section 8.7).
//!
//! A copy is overwritten only while the other one is the newer valid one, and is flushed before it counts.
//! The newest copy whose check is right counts; one that is torn, empty or of an unknown format never does.
//!
//! | bytes | content |
//! |---|---|
//! | 0..2 | what it is: `WR` record, `WM` envelope, `WB` boot environment, `WD` boot default, `WP` progress of a patch |
//! | 2..4 | format, two decimal digits |
//! | 4..8 | bytes of the content, u32 |
//! | 8..16 | sequence number of this write, u64 |
//! | 16..48 | SHA-256 of 0..16 and the content |
//! | 48.. | content |
//!
//! Numbers are little-endian.

use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use whimbrel_protocol::disk::{Area, Disk, DiskError};

/// Bytes before the content.
pub(crate) const HEADER_BYTES: usize = 48;
/// Bytes that the check covers besides the content.
const CHECKED_BYTES: usize = 16;

/// How the copies of one kind of data are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Two letters.
    pub(crate) magic: [u8; 2],
    /// The version that is written. The two before it are read as well, if there are any.
    pub(crate) version: u8,
    /// Most bytes of the content.
    pub(crate) content_max: usize,
}

/// Two copies of one piece of data.
#[derive(Clone, Debug)]
pub(crate) struct TwoCopies {
    format: Format,
    area: Area,
    /// Where the first copy begins.
    base: u64,
    /// From the first copy to the second.
    stride: u64,
    /// Which copy counts, as far as that is known.
    newest: Option<Place>,
}

/// Which copy, and the number of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// 0 or 1.
    copy: u64,
    sequence: u64,
}

/// A copy that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    place: Place,
    content: Vec<u8>,
}

/// Versions that are read besides the one that is written.
const VERSIONS_BACK: u8 = 2;

impl TwoCopies {
    /// The copies begin at `base`, `stride` bytes apart.
    pub(crate) const fn new(format: Format, area: Area, base: u64, stride: u64) -> Self {
        debug_assert!((HEADER_BYTES + format.content_max) as u64 <= stride, "a copy fits its place");
        Self { format, area, base, stride, newest: None }
    }

    /// Makes room for both copies.
    pub(crate) fn reserve(&self, disk: &mut dyn Disk) -> Result<(), DiskError> {
        disk.reserve(self.area, self.base + 2 * self.stride)
    }

    /// The content that counts; `None` if no copy is valid.
    ///
    /// # Errors
    /// [`DiskError::Failed`] if no copy can be read at all.
    pub(crate) fn read(&mut self, disk: &mut dyn Disk) -> Result<Option<Vec<u8>>, DiskError> {
        let newest = newest(self.copies(disk)?);
        self.newest = newest.as_ref().map(|copy| copy.place);
        Ok(newest.map(|copy| copy.content))
    }

    /// All valid copies, the one that counts first.
    ///
    /// # Errors
    /// As [`TwoCopies::read`].
    pub(crate) fn read_both(&mut self, disk: &mut dyn Disk) -> Result<Vec<(Place, Vec<u8>)>, DiskError> {
        let mut copies: Vec<_> = self.copies(disk)?.into_iter().flatten().collect();
        if let [first, second] = copies.as_mut_slice()
            && first.place.sequence < second.place.sequence
        {
            core::mem::swap(first, second);
        }
        self.newest = copies.first().map(|copy| copy.place);
        Ok(copies.into_iter().map(|copy| (copy.place, copy.content)).collect())
    }

    /// Makes this copy the one that counts, because the data that the other one refers to is missing. The next write
    /// goes over the other one.
    pub(crate) fn use_copy(&mut self, place: Place) {
        self.newest = Some(place);
    }

    /// Whether anything at all was ever written here, valid or not.
    pub(crate) fn was_written(&self, disk: &mut dyn Disk) -> Result<bool, DiskError> {
        let end = disk.len(self.area)?;
        for copy in 0..2 {
            let mut header = [0; HEADER_BYTES];
            if end >= self.offset(copy) + HEADER_BYTES as u64 {
                disk.read(self.area, self.offset(copy), &mut header)?;
            }
            if header != [0; HEADER_BYTES] {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes `content` over the copy that does not count and makes it durable: now that one counts.
    ///
    /// # Errors
    /// [`DiskError`]. The content that counted before still does, or the new one, never neither.
    pub(crate) fn write(&mut self, disk: &mut dyn Disk, content: &[u8]) -> Result<(), DiskError> {
        let newest = match self.newest {
            Some(place) => Some(place),
            None => newest(self.copies(disk)?).map(|copy| copy.place),
        };
        let place = match newest {
            Some(place) => Place { copy: 1 - place.copy, sequence: place.sequence + 1 },
            None => Place { copy: 0, sequence: 1 },
        };
        let result = self.put(disk, place, content);
        if result.is_ok() {
            self.newest = Some(place);
            return Ok(());
        }
        // What is in the cache may be something that will never be on the medium: look again, there.
        self.newest = None;
        result.and(disk.drop_cache(self.area))
    }

    /// Writes `content` to both copies, unless they hold it, and reads them back: losing either one then changes nothing.
    ///
    /// # Errors
    /// As [`TwoCopies::write`]; [`DiskError::Failed`] if the medium took it and has something else.
    pub(crate) fn write_both(&mut self, disk: &mut dyn Disk, content: &[u8]) -> Result<(), DiskError> {
        if self.both_hold(disk, content)? {
            return Ok(());
        }
        self.write(disk, content)?;
        if !self.both_hold(disk, content)? {
            self.write(disk, content)?;
        }
        disk.drop_cache(self.area)?;
        if self.both_hold(disk, content)? { Ok(()) } else { Err(DiskError::failed(self.area)) }
    }

    /// Whether both copies hold `content`.
    fn both_hold(&mut self, disk: &mut dyn Disk, content: &[u8]) -> Result<bool, DiskError> {
        let copies = self.copies(disk)?;
        let count = copies.iter().flatten().filter(|copy| copy.content == content).count();
        self.newest = newest(copies).map(|copy| copy.place);
        Ok(count == 2)
    }

    fn offset(&self, copy: u64) -> u64 {
        self.base + copy * self.stride
    }

    fn put(&self, disk: &mut dyn Disk, place: Place, content: &[u8]) -> Result<(), DiskError> {
        self.reserve(disk)?;
        disk.write(self.area, self.offset(place.copy), &self.encode(place.sequence, content))?;
        disk.flush(self.area)
    }

    fn encode(&self, sequence: u64, content: &[u8]) -> Vec<u8> {
        debug_assert!(content.len() <= self.format.content_max, "what is saved has a maximum");
        let len = u32::try_from(content.len()).expect("content_max is below 4 GiB");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
        bytes.extend(self.format.magic);
        bytes.extend(digits(self.format.version));
        bytes.extend(len.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(check(&bytes, content));
        bytes.extend(content);
        bytes
    }

    /// Both copies, as far as they are valid. One that cannot be read is not.
    fn copies(&self, disk: &mut dyn Disk) -> Result<[Option<Copy>; 2], DiskError> {
        // Once more if the medium failed once: to go without the newest copy is to go back in time.
        let copies = [0, 1].map(|copy| self.copy(disk, copy).or_else(|_| self.copy(disk, copy)));
        match copies {
            [Err(error), Err(_)] => Err(error),
            copies => Ok(copies.map(|copy| copy.unwrap_or_default())),
        }
    }

    fn copy(&self, disk: &mut dyn Disk, copy: u64) -> Result<Option<Copy>, DiskError> {
        let offset = self.offset(copy);
        let end = disk.len(self.area)?;
        let mut header = [0; HEADER_BYTES];
        if end < offset + HEADER_BYTES as u64 {
            return Ok(None);
        }
        disk.read(self.area, offset, &mut header)?;
        let [m0, m1, f0, f1, l0, l1, l2, l3, s0, s1, s2, s3, s4, s5, s6, s7, ..] = header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let known = (self.format.version.saturating_sub(VERSIONS_BACK).max(1)..=self.format.version)
            .any(|version| digits(version) == [f0, f1]);
        let content_at = offset + HEADER_BYTES as u64;
        if [m0, m1] != self.format.magic
            || !known
            || len > self.format.content_max
            || end < content_at + len as u64
        {
            return Ok(None);
        }
        let mut content = vec![0; len];
        disk.read(self.area, content_at, &mut content)?;
        let (checked, wanted) = header.split_at(CHECKED_BYTES);
        if check(checked, &content) != wanted {
            return Ok(None);
        }
        let sequence = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        // The last number is never written: a copy that has it is no copy of ours.
        Ok((sequence < u64::MAX).then_some(Copy { place: Place { copy, sequence }, content }))
    }
}

fn newest(copies: [Option<Copy>; 2]) -> Option<Copy> {
    copies.into_iter().flatten().max_by_key(|copy| copy.place.sequence)
}

fn check(head: &[u8], content: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(head).chain_update(content).finalize().into()
}

fn digits(version: u8) -> [u8; 2] {
    [b'0' + version / 10 % 10, b'0' + version % 10]
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use whimbrel_protocol::testing::{DiskFault, SimDisk, Survival};

    use super::*;

    const FORMAT: Format = Format { magic: *b"WT", version: 3, content_max: 100 };

    fn copies(version: u8) -> TwoCopies {
        TwoCopies::new(Format { version, ..FORMAT }, Area::Record, 512, 4096)
    }

    /// The format is frozen: devices in the field have it.
    #[test]
    fn a_copy_has_these_bytes() {
        let mut disk = SimDisk::new();
        copies(1).write(&mut disk, b"whimbrel").unwrap();
        let content = disk.content(Area::Record);
        let copy = &content[512..512 + 56];
        assert_eq!(copy[..16], *b"WT01\x08\0\0\0\x01\0\0\0\0\0\0\0");
        // sha256sum says so of the first 16 bytes and the content.
        let check = "0fa0d5ef";
        assert_eq!(copy[16..20].iter().map(|byte| format!("{byte:02x}")).collect::<String>(), check);
        assert_eq!(copy[48..], *b"whimbrel");
        assert_eq!(content.len(), 512 + 2 * 4096);
    }

    #[test]
    fn copies_alternate_and_the_newer_one_counts() {
        let mut disk = SimDisk::new();
        let mut copies = copies(3);
        assert_eq!(copies.read(&mut disk), Ok(None));
        assert_eq!(copies.was_written(&mut disk), Ok(false));
        for content in [b"one", b"two", b"six"] {
            copies.write(&mut disk, content).unwrap();
            assert_eq!(copies.read(&mut disk), Ok(Some(content.to_vec())));
        }
        disk.flip(Area::Record, (512 + 48) * 8);
        assert_eq!(copies.read(&mut disk), Ok(Some(b"two".to_vec())));
        disk.flip(Area::Record, (512 + 4096 + 20) * 8);
        assert_eq!(copies.read(&mut disk), Ok(None));
        assert_eq!(copies.was_written(&mut disk), Ok(true));
    }

    #[test]
    fn what_is_written_is_durable_and_what_was_there_before_stays_until_then() {
        let mut disk = SimDisk::new();
        copies(3).reserve(&mut disk).unwrap();
        for content in [b"one", b"two", b"six", b"ten"] {
            let before = copies(3).read(&mut disk).unwrap();
            let mut cut = disk.clone();
            cut.kill();
            // The write, then the flush.
            cut.crash_at(2);
            assert!(copies(3).write(&mut cut, content).is_err());
            cut.power_cut(Survival::None, 1);
            assert_eq!(copies(3).read(&mut cut), Ok(before));
            copies(3).write(&mut disk, content).unwrap();
            disk.power_cut(Survival::None, 1);
            assert_eq!(copies(3).read(&mut disk), Ok(Some(content.to_vec())));
        }
    }

    /// To go without the newest copy, because a read failed, would be to go back in time.
    #[test]
    fn a_copy_whose_read_fails_once_counts_all_the_same() {
        let mut disk = SimDisk::new();
        let mut copies = copies(3);
        copies.write(&mut disk, b"old").unwrap();
        copies.write(&mut disk, b"new").unwrap();
        for call in 1..=4 {
            let mut disk = disk.clone();
            disk.fail_at(DiskFault::Failed, disk.calls(DiskFault::Failed) + call, false);
            assert_eq!(copies.read(&mut disk), Ok(Some(b"new".to_vec())), "read {call}");
            assert_eq!(disk.faults(), 1);
        }
        disk.fail_at(DiskFault::Failed, 1, true);
        assert_eq!(copies.read(&mut disk), Err(DiskError::Failed { area: Area::Record }));
    }

    /// After a failed flush the cache may show a copy that is not on the medium. The next write does not go over the
    /// one that is there, whichever sectors the flush has lost and the power cut tears.
    #[test]
    fn after_a_write_that_failed_the_copy_that_is_on_the_medium_is_kept() {
        let mut lost = 0;
        for calls in 0..8 {
            let mut disk = SimDisk::new();
            let mut copies = copies(3);
            copies.write(&mut disk, b"one").unwrap();
            copies.write(&mut disk, b"two").unwrap();
            for _ in 0..calls {
                disk.read(Area::Record, 0, &mut [0]).unwrap();
            }
            // The flush.
            disk.fail_at(DiskFault::Failed, disk.calls(DiskFault::Failed) + 2, false);
            assert!(copies.write(&mut disk, b"six").is_err());
            assert_eq!(disk.faults(), 1);
            let on_medium = |disk: &SimDisk, seed| {
                let mut disk = disk.clone();
                disk.power_cut(Survival::Torn, seed);
                TwoCopies::new(FORMAT, Area::Record, 512, 4096).read(&mut disk).unwrap().unwrap()
            };
            let kept = on_medium(&disk, 0);
            lost += u32::from(kept == b"two");
            disk.kill();
            disk.crash_at(1);
            assert!(copies.write(&mut disk, b"ten").is_err());
            for seed in 0..16 {
                let found = on_medium(&disk, seed);
                assert!(found == kept || found == b"ten", "{found:?} after {kept:?}");
            }
        }
        assert!(lost > 0);
    }

    #[test]
    fn settled_copies_are_the_same_and_are_not_written_again() {
        let mut disk = SimDisk::new();
        let mut copies = copies(3);
        copies.write(&mut disk, b"old").unwrap();
        copies.write_both(&mut disk, b"new").unwrap();
        let operations = disk.operations();
        copies.write_both(&mut disk, b"new").unwrap();
        assert_eq!(disk.operations(), operations);
        for copy in 0..2 {
            let mut disk = disk.clone();
            disk.flip(Area::Record, (512 + copy * 4096 + 17) * 8);
            assert_eq!(copies.read(&mut disk), Ok(Some(b"new".to_vec())), "without copy {copy}");
        }
    }

    /// An agent reads the files of two versions back, and none of a version that it can't know.
    #[test]
    fn two_formats_back_are_read_and_later_ones_are_not() {
        for (written, read, known) in
            [(1, 3, true), (2, 3, true), (1, 4, false), (4, 3, false), (2, 1, false)]
        {
            let mut disk = SimDisk::new();
            copies(written).write(&mut disk, b"content").unwrap();
            let found = copies(read).read(&mut disk).unwrap();
            assert_eq!(found.is_some(), known, "format {written} read by {read}");
        }
    }

    #[test]
    fn any_bit_that_changes_makes_a_copy_invalid() {
        let mut disk = SimDisk::new();
        let mut copies = copies(3);
        copies.write(&mut disk, b"whimbrel").unwrap();
        for bit in 0..56 * 8 {
            let mut disk = disk.clone();
            disk.flip(Area::Record, 512 * 8 + bit);
            assert_eq!(copies.read(&mut disk), Ok(None), "bit {bit}");
        }
    }

    #[test]
    fn something_was_written_whichever_copy_it_is_in_and_the_last_number_is_none_of_ours() {
        for copy in 0..2 {
            let mut disk = SimDisk::new();
            let bytes = copies(3).encode(u64::MAX, b"whimbrel");
            disk.install(Area::Record, &[vec![0; 512 + copy * 4096], bytes].concat());
            assert_eq!(copies(3).read(&mut disk), Ok(None));
            assert_eq!(copies(3).was_written(&mut disk), Ok(true));
            let bytes = copies(3).encode(u64::MAX - 1, b"whimbrel");
            disk.install(Area::Record, &[vec![0; 512 + copy * 4096], bytes].concat());
            assert_eq!(copies(3).read(&mut disk), Ok(Some(b"whimbrel".to_vec())));
        }
        let mut zeros = SimDisk::new();
        zeros.install(Area::Record, &[0; 512 + 2 * 4096]);
        assert_eq!(copies(3).was_written(&mut zeros), Ok(false));
    }

    #[test]
    fn a_length_beyond_the_maximum_or_the_area_is_no_copy() {
        let mut disk = SimDisk::new();
        let mut bytes = copies(3).encode(1, &[7; 100]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        disk.install(Area::Record, &[vec![0; 512], bytes].concat());
        assert_eq!(copies(3).read(&mut disk), Ok(None));
        let short = [vec![0; 512], copies(3).encode(1, &[7; 100])].concat();
        disk.install(Area::Record, &short[..short.len() - 1]);
        assert_eq!(copies(3).read(&mut disk), Ok(None));
        disk.install(Area::Record, &short);
        assert_eq!(copies(3).read(&mut disk), Ok(Some(vec![7; 100])));
    }
}

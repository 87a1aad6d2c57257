//! A medium in memory, for simulated devices: sparse, everything durable at once, open to tests that spoil it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;

use whimbrel_protocol::disk::{Area, Disk, DiskError};

/// Bytes of what is allocated together.
const PAGE_BYTES: usize = 4096;

/// A medium in memory. Bytes that were never written, or written as zeros, take no memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    lens: [u64; Area::ALL.len()],
    pages: BTreeMap<(Area, u64), Box<[u8; PAGE_BYTES]>>,
    capacity: Option<u64>,
    written: u64,
}

impl MemoryDisk {
    /// An empty medium without limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty medium with room for `bytes` in all areas together.
    #[must_use]
    pub fn with_capacity(bytes: u64) -> Self {
        Self { capacity: Some(bytes), ..Self::default() }
    }

    /// From now on there is room for `bytes` in all areas together, or without limit; what is there stays.
    pub fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// Bytes that were written to it so far.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Bytes of memory that its content takes.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }

    /// Flips one bit, as bit rot does. `false` if the area is shorter.
    pub fn flip(&mut self, area: Area, bit: u64) -> bool {
        let offset = bit / 8;
        let mut byte = [0];
        if self.read(area, offset, &mut byte).is_err() {
            return false;
        }
        let flipped = byte.map(|byte| byte ^ 1 << (bit % 8));
        self.put(area, offset, &flipped);
        true
    }

    /// Forgets an area, as deleting its file does.
    pub fn remove(&mut self, area: Area) {
        self.pages.retain(|(other, _), _| *other != area);
        *self.len_of(area) = 0;
    }

    fn len_of(&mut self, area: Area) -> &mut u64 {
        self.lens.get_mut(area as usize).expect("one length an area")
    }

    fn check_range(&mut self, area: Area, offset: u64, bytes: usize) -> Result<(), DiskError> {
        let (end, len) = (offset.saturating_add(bytes as u64), *self.len_of(area));
        if end > len { Err(DiskError::range(area, len, end)) } else { Ok(()) }
    }

    fn put(&mut self, area: Area, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (number, inside) in pages_from(offset) {
            if rest.is_empty() {
                break;
            }
            let (part, after) = rest.split_at(rest.len().min(PAGE_BYTES - inside));
            rest = after;
            if part.iter().all(|byte| *byte == 0) && !self.pages.contains_key(&(area, number)) {
                continue;
            }
            let page = self.pages.entry((area, number)).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page.iter_mut().skip(inside).zip(part).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Page numbers from the one that holds `offset` on, and where in the page to begin.
fn pages_from(offset: u64) -> impl Iterator<Item = (u64, usize)> {
    let page_bytes = PAGE_BYTES as u64;
    let inside = usize::try_from(offset % page_bytes).unwrap_or(0);
    (offset / page_bytes..).zip(core::iter::once(inside).chain(core::iter::repeat(0)))
}

impl Disk for MemoryDisk {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        Ok(*self.len_of(area))
    }

    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        let have = *self.len_of(area);
        let all: u64 = self.lens.iter().sum();
        if self.capacity.is_some_and(|room| (all - have).saturating_add(len.max(have)) > room) {
            return Err(DiskError::full(area));
        }
        *self.len_of(area) = have.max(len);
        Ok(())
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        let have = *self.len_of(area);
        if have > len {
            let kept = len.div_ceil(PAGE_BYTES as u64);
            self.pages.retain(|(other, number), _| *other != area || *number < kept);
            let tail = usize::try_from(kept * PAGE_BYTES as u64 - len).unwrap_or(0);
            self.put(area, len, &vec![0; tail]);
            *self.len_of(area) = len;
        }
        Ok(())
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check_range(area, offset, into.len())?;
        let mut rest = into;
        for (number, inside) in pages_from(offset) {
            if rest.is_empty() {
                break;
            }
            let (part, after) = rest.split_at_mut(rest.len().min(PAGE_BYTES - inside));
            match self.pages.get(&(area, number)) {
                Some(page) => {
                    part.iter_mut().zip(page.iter().skip(inside)).for_each(|(to, from)| *to = *from)
                }
                None => part.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check_range(area, offset, bytes.len())?;
        self.put(area, offset, bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self, _area: Area) -> Result<(), DiskError> {
        Ok(())
    }

    fn drop_cache(&mut self, _area: Area) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(usize),
        Release(usize),
        /// So many bytes of this value; zeros are not kept.
        Write(usize, usize, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..20_000).prop_map(Step::Reserve),
            (0usize..20_000).prop_map(Step::Release),
            (0usize..20_000, 0usize..9000, 0u8..3).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_an_array_of_bytes(steps in proptest::collection::vec(step(), 0..40)) {
            let area = Area::Staging;
            let mut disk = MemoryDisk::new();
            let mut model: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Reserve(len) => {
                        disk.reserve(area, len as u64).unwrap();
                        model.resize(model.len().max(len), 0);
                    }
                    Step::Release(len) => {
                        disk.release(area, len as u64).unwrap();
                        model.truncate(len);
                    }
                    Step::Write(offset, len, byte) => {
                        let bytes = vec![byte; len];
                        let fits = offset + bytes.len() <= model.len();
                        prop_assert_eq!(disk.write(area, offset as u64, &bytes).is_ok(), fits);
                        if fits {
                            model[offset..offset + bytes.len()].copy_from_slice(&bytes);
                        }
                    }
                }
                prop_assert_eq!(disk.len(area), Ok(model.len() as u64));
                let mut bytes = vec![0xee; model.len()];
                disk.read(area, 0, &mut bytes).unwrap();
                prop_assert!(bytes == model);
            }
        }
    }

    #[test]
    fn what_was_never_written_takes_no_memory() {
        let mut disk = MemoryDisk::new();
        disk.reserve(Area::SlotA, 1 << 40).unwrap();
        disk.write(Area::SlotA, 1 << 39, &[0; 10_000]).unwrap();
        assert_eq!(disk.resident_bytes(), 0);
        disk.write(Area::SlotA, (1 << 39) + 4000, &[1; 200]).unwrap();
        assert_eq!(disk.resident_bytes(), 2 * PAGE_BYTES);
    }

    #[test]
    fn a_full_medium_says_so_and_stays_as_it_was() {
        let mut disk = MemoryDisk::with_capacity(1000);
        disk.reserve(Area::SlotA, 600).unwrap();
        assert_eq!(disk.reserve(Area::SlotB, 401), Err(DiskError::Full { area: Area::SlotB }));
        assert_eq!(disk.len(Area::SlotB), Ok(0));
        disk.reserve(Area::SlotA, 500).unwrap();
        assert_eq!(disk.len(Area::SlotA), Ok(600));
        disk.remove(Area::SlotA);
        disk.reserve(Area::SlotB, 1000).unwrap();
    }
}

//! A medium that says it has written what it has not.

use whimbrel_engine::MemoryDisk;
use whimbrel_protocol::disk::{Area, Disk, DiskError};

/// What a medium does instead of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    Lost,
    /// It writes one bit wrong.
    Wrong,
}

/// A medium that takes everything written to one area, shows it as long as it is cached, and has something else.
pub(crate) struct Lying {
    pub(crate) disk: MemoryDisk,
    pub(crate) lies: Option<(Area, Lie)>,
    pub(crate) cached: Vec<(Area, u64, Vec<u8>)>,
}

impl Lying {
    pub(crate) fn new() -> Self {
        Self { disk: MemoryDisk::new(), lies: None, cached: Vec::new() }
    }
}

impl Disk for Lying {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        self.disk.len(area)
    }

    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        self.disk.reserve(area, len)
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        self.disk.release(area, len)
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read(area, offset, into)?;
        for (_, at, bytes) in self.cached.iter().filter(|(cached, ..)| *cached == area) {
            for (byte, place) in bytes.iter().zip(*at..) {
                if let Some(index) = place.checked_sub(offset)
                    && let Some(shown) = into.get_mut(index as usize)
                {
                    *shown = *byte;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        match self.lies.filter(|(lies, _)| *lies == area) {
            None => return self.disk.write(area, offset, bytes),
            Some((_, Lie::Lost)) => {}
            Some((_, Lie::Wrong)) => {
                self.disk.write(area, offset, bytes)?;
                assert!(self.disk.flip(area, (offset + bytes.len() as u64) * 8 - 1));
            }
        }
        self.cached.push((area, offset, bytes.to_vec()));
        Ok(())
    }

    fn flush(&mut self, area: Area) -> Result<(), DiskError> {
        self.disk.flush(area)
    }

    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        self.cached.retain(|(cached, ..)| *cached != area);
        self.disk.drop_cache(area)
    }
}

/// Every lie about these areas.
pub(crate) fn lies(areas: &[Area]) -> impl Iterator<Item = (Area, Lie)> {
    areas.iter().flat_map(|area| [(*area, Lie::Lost), (*area, Lie::Wrong)])
}

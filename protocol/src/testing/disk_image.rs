//! The content of a [`SimDisk`](super::SimDisk), sector by sector. Copies of it share their sectors.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::disk::Area;
use crate::retry::Jitter;

/// Bytes of a sector. A power cut keeps or loses a sector as a whole, or tears it.
pub(super) const DISK_SECTOR_BYTES: usize = 512;
/// A sector is torn at a multiple of this many bytes.
const TEAR_BYTES: usize = 8;

type Sector = [u8; DISK_SECTOR_BYTES];

/// The content of all areas.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskImage {
    areas: [Extent; Area::ALL.len()],
}

/// The content of one area; a sector that was never written is missing and reads as zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    pub(super) len: u64,
    sectors: Vec<Option<Arc<Sector>>>,
}

/// A change of one area.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Len(u64),
    Sector(usize, Arc<Sector>),
}

impl DiskImage {
    pub(super) fn get(&self, area: Area) -> &Extent {
        self.areas.get(area as usize).expect("one extent an area")
    }

    pub(super) fn of(&mut self, area: Area) -> &mut Extent {
        self.areas.get_mut(area as usize).expect("one extent an area")
    }
}

impl Extent {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut extent = Self { len: bytes.len() as u64, sectors: Vec::new() };
        for (number, part) in bytes.chunks(DISK_SECTOR_BYTES).enumerate() {
            let mut sector = [0; DISK_SECTOR_BYTES];
            sector.split_at_mut(part.len()).0.copy_from_slice(part);
            extent.set(number, Arc::new(sector));
        }
        extent
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![0; usize::try_from(self.len).unwrap_or(0)];
        self.read(0, &mut bytes);
        bytes
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        let sectors = usize::try_from(len.div_ceil(DISK_SECTOR_BYTES as u64)).unwrap_or(usize::MAX);
        self.sectors.truncate(sectors);
    }

    pub(super) fn sector(&self, number: usize) -> Sector {
        self.sectors.get(number).and_then(Option::as_deref).copied().unwrap_or([0; DISK_SECTOR_BYTES])
    }

    pub(super) fn set(&mut self, number: usize, sector: Arc<Sector>) {
        if self.sectors.len() <= number {
            self.sectors.resize(number + 1, None);
        }
        if let Some(place) = self.sectors.get_mut(number) {
            *place = Some(sector);
        }
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = into;
        while !rest.is_empty() {
            let (number, inside) = (at / DISK_SECTOR_BYTES, at % DISK_SECTOR_BYTES);
            let (part, after) = rest.split_at_mut(rest.len().min(DISK_SECTOR_BYTES - inside));
            let sector = self.sectors.get(number).and_then(Option::as_deref);
            match sector {
                Some(sector) => {
                    part.copy_from_slice(sector.split_at(inside).1.split_at(part.len()).0);
                }
                None => part.fill(0),
            }
            at += part.len();
            rest = after;
        }
    }

    /// Makes a change durable, or with `tear` a part of it. A sector beyond the end is lost, because without
    /// the new length there is no place to keep it.
    pub(super) fn apply(&mut self, change: Change, tear: Option<&mut Jitter>) {
        match change {
            Change::Len(len) => self.set_len(len),
            Change::Sector(number, _) if (number * DISK_SECTOR_BYTES) as u64 >= self.len => {}
            Change::Sector(number, new) => {
                let Some(jitter) = tear else {
                    return self.set(number, new);
                };
                let old = self.sector(number);
                let steps = (DISK_SECTOR_BYTES / TEAR_BYTES) as u64;
                let at = TEAR_BYTES * usize::try_from(1 + jitter.below(steps - 1)).unwrap_or(1);
                let (head, tail) = if jitter.below(2) == 0 { (&*new, &old) } else { (&old, &*new) };
                let mut torn = *tail;
                torn.iter_mut().zip(head).take(at).for_each(|(to, from)| *to = *from);
                self.set(number, Arc::new(torn));
            }
        }
    }
}

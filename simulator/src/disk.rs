//! The disk of a virtual device: the one that its storage code sees, made of [`Medium`]s.
//!
//! It behaves as the agent's disk in memory does, and takes a few kilobytes instead of the image and its transfer:
//! what is equal to the release's bytes is shared by all devices. Everything written is durable at once; power cuts
//! are another simulator's business.

use bytes::Bytes;
use whimbrel_protocol::disk::{Area, Disk, DiskError};

use crate::medium::{BeyondMedium, Medium};

/// What the disks of a fleet are expected to hold in the end.
#[derive(Clone, Debug, Default)]
pub struct Originals {
    /// What slot A holds from the start; empty where nothing is there yet, and the image may come into either slot.
    pub factory: Bytes,
    /// The image that is released.
    pub image: Bytes,
    /// The bytes that carry it, for the staging area.
    pub transfer: Bytes,
    /// The index pages as they are kept.
    pub index: Bytes,
}

/// One device's disk.
#[derive(Clone, Debug)]
pub struct SharedDisk {
    areas: [Medium; Area::ALL.len()],
    written: u64,
}

impl SharedDisk {
    /// A disk without limit, empty but for the image that the factory put into slot A.
    #[must_use]
    pub fn new(originals: &Originals) -> Self {
        let areas = Area::ALL.map(|area| match area {
            Area::SlotA if !originals.factory.is_empty() => Medium::holding(originals.factory.clone()),
            Area::SlotA | Area::SlotB => Medium::new(originals.image.clone()),
            Area::Staging => Medium::new(originals.transfer.clone()),
            Area::Index => Medium::new(originals.index.clone()),
            _ => Medium::default(),
        });
        Self { areas, written: 0 }
    }

    /// Bytes that were written to it so far.
    #[must_use]
    pub const fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Bytes of memory that it keeps for this device alone, without what it remembers of each block.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.areas.iter().map(Medium::own_bytes).sum()
    }

    /// Flips one bit of an area, as a worn-out flash cell would. `false` where the area is shorter.
    pub fn flip(&mut self, area: Area, bit: u64) -> bool {
        let offset = usize::try_from(bit / 8);
        let bit = (bit % 8) as u8;
        offset.is_ok_and(|offset| self.area(area).damage(offset, bit).is_ok())
    }

    fn area(&mut self, area: Area) -> &mut Medium {
        self.areas.get_mut(area as usize).expect("there is a medium for each area")
    }
}

impl Disk for SharedDisk {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        Ok(self.area(area).size() as u64)
    }

    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        let len = usize::try_from(len).map_err(|_| DiskError::full(area))?;
        let medium = self.area(area);
        medium.resize(medium.size().max(len));
        Ok(())
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let medium = self.area(area);
        medium.resize(medium.size().min(len));
        Ok(())
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.area(area).read(at, into).map_err(|error| beyond(area, offset, error))
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.area(area).write(at, bytes).map_err(|error| beyond(area, offset, error))?;
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

const fn beyond(area: Area, offset: u64, error: BeyondMedium) -> DiskError {
    DiskError::range(area, error.size as u64, offset.saturating_add(error.length as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use whimbrel_engine::MemoryDisk;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(u64),
        Release(u64),
        Write(u64, Vec<u8>),
        WriteOriginal(u64, usize),
        Read(u64, usize),
        Flip(u64),
    }

    fn step() -> impl Strategy<Value = (Area, Step)> {
        let place = || prop_oneof![9 => 0u64..6000, 1 => Just(u64::MAX - 3)];
        let step = prop_oneof![
            place().prop_filter("no disk is that large", |len| *len < 10_000).prop_map(Step::Reserve),
            place().prop_map(Step::Release),
            (place(), prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0u64..5000, 0usize..4000).prop_map(|(at, length)| Step::WriteOriginal(at, length)),
            (place(), 0usize..4000).prop_map(|(at, length)| Step::Read(at, length)),
            (0u64..60_000).prop_map(Step::Flip),
        ];
        (prop::sample::select(Area::ALL.to_vec()), step)
    }

    fn originals() -> Originals {
        let bytes =
            |seed: usize| (0..5000).map(|at| u8::try_from(at * seed % 251).unwrap()).collect::<Vec<_>>();
        Originals {
            factory: Bytes::new(),
            image: bytes(7).into(),
            transfer: bytes(11).into(),
            index: bytes(13).into(),
        }
    }

    proptest! {
        #[test]
        fn it_behaves_as_the_agents_disk_in_memory(steps in prop::collection::vec(step(), 0..60)) {
            let originals = originals();
            let mut shared = SharedDisk::new(&originals);
            let mut plain = MemoryDisk::new();
            for (area, step) in steps {
                match step {
                    Step::Reserve(len) => prop_assert_eq!(shared.reserve(area, len), plain.reserve(area, len)),
                    Step::Release(len) => prop_assert_eq!(shared.release(area, len), plain.release(area, len)),
                    Step::Write(at, bytes) => {
                        prop_assert_eq!(shared.write(area, at, &bytes), plain.write(area, at, &bytes));
                    }
                    Step::WriteOriginal(at, length) => {
                        let from = usize::try_from(at).unwrap();
                        let bytes = &originals.image[from..(from + length).min(5000)];
                        prop_assert_eq!(shared.write(area, at, bytes), plain.write(area, at, bytes));
                    }
                    Step::Read(at, length) => {
                        let (mut one, mut other) = (vec![7; length], vec![7; length]);
                        let outcome = shared.read(area, at, &mut one);
                        prop_assert_eq!(outcome, plain.read(area, at, &mut other));
                        if outcome.is_ok() {
                            prop_assert_eq!(one, other);
                        }
                    }
                    Step::Flip(bit) => prop_assert_eq!(shared.flip(area, bit), plain.flip(area, bit)),
                }
                prop_assert_eq!(shared.len(area), plain.len(area));
                prop_assert_eq!(shared.bytes_written(), plain.bytes_written());
            }
        }
    }

    #[test]
    fn a_device_that_holds_the_release_keeps_only_what_is_its_own() {
        let originals = originals();
        let mut disk = SharedDisk::new(&originals);
        for (area, bytes) in [
            (Area::SlotB, &originals.image),
            (Area::Staging, &originals.transfer),
            (Area::Index, &originals.index),
        ] {
            disk.reserve(area, 8192).unwrap();
            disk.write(area, 0, bytes).unwrap();
        }
        disk.reserve(Area::Record, 65_536).unwrap();
        disk.write(Area::Record, 0, &[1; 900]).unwrap();
        assert_eq!(disk.own_bytes(), 1024);
        assert!(disk.flip(Area::SlotB, 12_345));
        assert_eq!(disk.own_bytes(), 2048);
    }
}

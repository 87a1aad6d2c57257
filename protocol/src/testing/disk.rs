//! A simulated disk. At a power cut it forgets what was not flushed. It has two contents: the durable one, and the live
//! one that reads see.
//!
//! Writes go to a cache of 512-byte sectors, in their order. A flush of an area makes its sectors durable. At a power
//! cut none, some or most of the other sectors survive, in any combination, or one is torn. Every operation that
//! changes something is counted, over all areas, so that a test can cut the power at each of them. Faults are planned
//! by the number of the call. A flush that fails leaves the same behind as on Linux: pages that read as written, are
//! not durable, and are not written by the next flush either.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::disk_image::{Change, DISK_SECTOR_BYTES, DiskImage, Extent};
use crate::disk::{Area, Disk, DiskError};
use crate::retry::Jitter;

/// Which of the writes that were not flushed survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Survival {
    /// None.
    None,
    /// About a third of the sectors.
    Some,
    /// All but about an eighth of the sectors, and never all.
    Most,
    /// About half of the sectors, and one of them only in part.
    Torn,
}

impl Survival {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Some, Self::Most, Self::Torn];

    /// The name, for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Some => "some",
            Self::Most => "most",
            Self::Torn => "torn",
        }
    }
}

/// A kind of fault at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskFault {
    /// No room. Counts the calls that need room: writes and reservations.
    Full,
    /// An input or output error. Counts every call but `len`.
    Failed,
}

/// A fault that is planned.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    fault: DiskFault,
    /// The call, from 1.
    at: u64,
    /// Whether the fault hits every call from there on, instead of that one only.
    sticky: bool,
}

/// One operation of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// Room was made: allocated, and made durable.
    Reserve(Area),
    /// Room was given back.
    Release(Area),
    /// Bytes were written.
    Write {
        /// Where.
        area: Area,
        /// From here on.
        offset: u64,
        /// This many.
        len: usize,
    },
    /// What was written became durable.
    Flush(Area),
    /// The cache was dropped. This changes nothing, so a power cut here would be no case of its own.
    DropCache(Area),
}

/// A change that is not durable yet.
#[derive(Clone, Debug)]
struct Pending {
    area: Area,
    change: Change,
}

/// A disk with a durable and a live image.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    durable: DiskImage,
    live: DiskImage,
    pending: Vec<Pending>,
    operations: u64,
    calls: u64,
    room_calls: u64,
    crash_at: Option<u64>,
    crash_after_fault: Option<u64>,
    dead: bool,
    schedule: Option<Schedule>,
    faults: u64,
    capacity: Option<u64>,
    trace: Option<Vec<DiskStep>>,
    written: u64,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk with room for `bytes` in all areas together.
    #[must_use]
    pub fn with_capacity(bytes: u64) -> Self {
        Self { capacity: Some(bytes), ..Self::default() }
    }

    /// Changes how much room there is.
    pub fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// Puts `bytes` durably into `area`, as a factory does. This is not counted as an operation.
    pub fn install(&mut self, area: Area, bytes: &[u8]) {
        let extent = Extent::of(bytes);
        *self.durable.of(area) = extent.clone();
        *self.live.of(area) = extent;
        self.pending.retain(|pending| pending.area != area);
    }

    /// Deletes `area`, as a person with a shell does.
    pub fn remove(&mut self, area: Area) {
        self.install(area, &[]);
    }

    /// Fills `area` with zeros.
    pub fn zero(&mut self, area: Area) {
        let len = usize::try_from(self.durable.of(area).len).unwrap_or(0);
        self.install(area, &alloc::vec![0; len]);
    }

    /// Flips one bit of `area` on the medium, as bit rot does. If there is no such bit, nothing happens.
    pub fn flip(&mut self, area: Area, bit: u64) {
        let mut bytes = self.durable_content(area);
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1 << (bit % 8);
            self.install(area, &bytes);
        }
    }

    /// The durable content of `area`. This is not counted as an operation.
    #[must_use]
    pub fn durable_content(&self, area: Area) -> Vec<u8> {
        self.durable.get(area).to_vec()
    }

    /// The content of `area` as reads give it, durable or not. This is not counted as an operation.
    #[must_use]
    pub fn content(&self, area: Area) -> Vec<u8> {
        self.live.get(area).to_vec()
    }

    /// Operations that changed something, since the start or the last power cut.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Calls that `fault` can hit, since the start or the last power cut.
    #[must_use]
    pub fn calls(&self, fault: DiskFault) -> u64 {
        match fault {
            DiskFault::Full => self.room_calls,
            DiskFault::Failed => self.calls,
        }
    }

    /// Bytes written since the start.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Keeps a list of what is done from now on.
    pub fn start_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// What was done since [`SimDisk::start_trace`].
    #[must_use]
    pub fn trace(&self) -> &[DiskStep] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// The power will be cut during the operation with this number, from 1: it is begun and not finished.
    pub fn crash_at(&mut self, operation: u64) {
        self.crash_at = Some(operation);
    }

    /// Whether the power is cut.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// `fault` will happen at the `at`th call that it can hit, from 1; if `sticky`, at every one from there
    /// on.
    pub fn fail_at(&mut self, fault: DiskFault, at: u64, sticky: bool) {
        self.schedule = Some(Schedule { fault, at, sticky });
    }

    /// The power will be cut during the `operation`th operation after the first fault, from 1.
    pub fn crash_after_fault(&mut self, operation: u64) {
        self.crash_after_fault = Some(operation);
    }

    /// Removes all planned faults.
    pub fn heal(&mut self) {
        self.schedule = None;
    }

    /// Number of faults that happened.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// Sectors and lengths that a power cut could take back now.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// Cuts the power, if it is not cut already, and switches it on again. `survival` says how much of what
    /// was not flushed survives; `seed` chooses which. Counters start again.
    pub fn power_cut(&mut self, survival: Survival, seed: u64) {
        let pending = core::mem::take(&mut self.pending);
        let mut jitter = Jitter::new(seed);
        let count = pending.len() as u64;
        let chosen = jitter.below(count.max(1));
        for (number, pending) in (0..).zip(pending) {
            let lot = jitter.below(24);
            let survives = match survival {
                Survival::None => false,
                Survival::Some => lot < 8,
                Survival::Most => lot < 21 && number != chosen,
                Survival::Torn => lot < 12 || number == chosen,
            };
            let torn = survival == Survival::Torn && number == chosen;
            if survives {
                self.durable.of(pending.area).apply(pending.change, torn.then_some(&mut jitter));
            }
        }
        self.live = self.durable.clone();
        self.kill();
    }

    /// The process that used the disk is killed, but the power stays on: everything written is still in the
    /// cache. Counters start again.
    pub fn kill(&mut self) {
        self.operations = 0;
        self.calls = 0;
        self.room_calls = 0;
        self.crash_at = None;
        self.crash_after_fault = None;
        self.dead = false;
    }

    /// Begins an operation that changes something. It gives `Err` if the power is cut during it.
    fn operate(&mut self, area: Area, begin: impl FnOnce(&mut Self)) -> Result<(), DiskError> {
        self.operations += 1;
        self.dead = self.crash_at.is_some_and(|at| at <= self.operations);
        begin(self);
        if self.dead { Err(DiskError::failed(area)) } else { Ok(()) }
    }

    /// Counts a call and says which fault hits it.
    fn call(&mut self, area: Area, needs_room: bool) -> Result<Option<DiskFault>, DiskError> {
        if self.dead {
            return Err(DiskError::failed(area));
        }
        self.calls += 1;
        self.room_calls += u64::from(needs_room);
        let hit = self.schedule.filter(|schedule| {
            let number = self.calls(schedule.fault);
            (number == schedule.at || (schedule.sticky && number > schedule.at))
                && (needs_room || schedule.fault == DiskFault::Failed)
        });
        self.faults += u64::from(hit.is_some());
        if let (Some(_), Some(after)) = (hit, self.crash_after_fault) {
            self.crash_at.get_or_insert(self.operations + after);
        }
        Ok(hit.map(|schedule| schedule.fault))
    }

    fn note(&mut self, step: DiskStep) {
        if let Some(trace) = &mut self.trace {
            trace.push(step);
        }
    }

    fn check_range(&self, area: Area, offset: u64, len: usize) -> Result<(), DiskError> {
        let (end, have) = (offset.saturating_add(len as u64), self.live.get(area).len);
        if end > have { Err(DiskError::range(area, have, end)) } else { Ok(()) }
    }

    fn set_len(&mut self, area: Area, len: u64) {
        self.live.of(area).set_len(len);
        self.pending.push(Pending { area, change: Change::Len(len) });
    }

    fn put(&mut self, area: Area, offset: u64, bytes: &[u8]) {
        let live = self.live.of(area);
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, inside) = (at / DISK_SECTOR_BYTES, at % DISK_SECTOR_BYTES);
            let (part, after) = rest.split_at(rest.len().min(DISK_SECTOR_BYTES - inside));
            let mut sector = live.sector(number);
            sector.split_at_mut(inside).1.split_at_mut(part.len()).0.copy_from_slice(part);
            let sector = Arc::new(sector);
            live.set(number, Arc::clone(&sector));
            self.pending.push(Pending { area, change: Change::Sector(number, sector) });
            (at, rest) = (at + part.len(), after);
        }
    }

    /// Makes everything pending of `area` durable.
    fn sync(&mut self, area: Area) {
        for pending in self.pending.extract_if(.., |pending| pending.area == area) {
            self.durable.of(area).apply(pending.change, None);
        }
    }

    /// Does a flush that fails. About half of the sectors become durable, nothing is pending any more, and
    /// reads do not show any of this.
    fn sync_badly(&mut self, area: Area) {
        let mut jitter = Jitter::new(self.calls);
        for pending in self.pending.extract_if(.., |pending| pending.area == area) {
            if jitter.below(2) == 0 {
                self.durable.of(area).apply(pending.change, None);
            }
        }
    }
}

fn error_of(fault: DiskFault, area: Area) -> DiskError {
    match fault {
        DiskFault::Full => DiskError::full(area),
        DiskFault::Failed => DiskError::failed(area),
    }
}

impl Disk for SimDisk {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        if self.dead { Err(DiskError::failed(area)) } else { Ok(self.live.get(area).len) }
    }

    /// Counts as two operations: the room is allocated, then this is made durable.
    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        let have = self.live.get(area).len;
        if !self.dead && have >= len {
            return Ok(());
        }
        if let Some(fault) = self.call(area, true)? {
            return Err(error_of(fault, area));
        }
        let others = Area::ALL.map(|other| if other == area { 0 } else { self.live.get(other).len });
        if self.capacity.is_some_and(|room| others.iter().sum::<u64>().saturating_add(len) > room) {
            return Err(DiskError::full(area));
        }
        self.note(DiskStep::Reserve(area));
        self.operate(area, |disk| disk.set_len(area, len))?;
        self.operate(area, |_| {})?;
        self.sync(area);
        Ok(())
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        if !self.dead && self.live.get(area).len <= len {
            return Ok(());
        }
        if let Some(fault) = self.call(area, false)? {
            return Err(error_of(fault, area));
        }
        self.note(DiskStep::Release(area));
        self.operate(area, |disk| disk.set_len(area, len))
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        if let Some(fault) = self.call(area, false)? {
            return Err(error_of(fault, area));
        }
        self.check_range(area, offset, into.len())?;
        self.live.get(area).read(offset, into);
        Ok(())
    }

    /// A write that a fault hits is a short one: its first half is in the cache.
    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let fault = self.call(area, true)?;
        self.check_range(area, offset, bytes.len())?;
        if let Some(fault) = fault {
            let (half, _) = bytes.split_at(bytes.len() / 2);
            self.put(area, offset, half);
            return Err(error_of(fault, area));
        }
        self.written += bytes.len() as u64;
        self.note(DiskStep::Write { area, offset, len: bytes.len() });
        self.operate(area, |disk| disk.put(area, offset, bytes))
    }

    fn flush(&mut self, area: Area) -> Result<(), DiskError> {
        if let Some(fault) = self.call(area, false)? {
            self.sync_badly(area);
            return Err(error_of(fault, area));
        }
        self.note(DiskStep::Flush(area));
        self.operate(area, |_| {})?;
        self.sync(area);
        Ok(())
    }

    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        if let Some(fault) = self.call(area, false)? {
            return Err(error_of(fault, area));
        }
        self.note(DiskStep::DropCache(area));
        *self.live.of(area) = self.durable.get(area).clone();
        for pending in self.pending.iter().filter(|pending| pending.area == area) {
            self.live.of(area).apply(pending.change.clone(), None);
        }
        Ok(())
    }
}

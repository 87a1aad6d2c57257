//! A whole device on any disk: loader, storage, session, against the service in memory, in virtual time.
//!
//! A [`World`] outlives the power of its device: disk, service and clock can be copied at a cut and continued
//! as often as one likes. Whatever happens, [`World::run`] checks at every start that what is started is a
//! complete image that was signed (or came from the factory), and in the end that the update is confirmed,
//! reported, and cost no more bytes than it may.

use alloc::sync::Arc;
use core::convert::Infallible;

use whimbrel_engine::Device;
use whimbrel_engine::boot::{BootControl, EnvironmentBoot, Told};
use whimbrel_engine::slot::Slot;
use whimbrel_engine::storage::{PatchOptions, Storage, StorageOptions};
use whimbrel_protocol::device::SessionConfig;
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::limits::{FLUSH_BYTES_MIN, WINDOW_BYTES_MIN};
use whimbrel_protocol::message::State;
use whimbrel_protocol::testing::SimDisk;
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::trust::Root;

use crate::power_cut_life::Life;
use crate::power_cut_service::Service;

/// A disk that the harness can ask what is on it.
pub(crate) trait Medium: Disk {
    /// Whether power is gone.
    fn is_dead(&self) -> bool {
        false
    }

    /// Faults that happened.
    fn faults(&self) -> u64 {
        0
    }

    /// No more faults.
    fn heal(&mut self) {}

    /// One bit of `area` is another from now on.
    fn rot(&mut self, _area: Area, _bit: u64) {}

    /// Enough room for everything.
    fn make_room(&mut self) {}

    /// What reads of `area` give: after a cut of the power that is what is durable.
    fn content(&self, area: Area) -> Vec<u8>;
}

impl Medium for SimDisk {
    fn is_dead(&self) -> bool {
        Self::is_dead(self)
    }

    fn faults(&self) -> u64 {
        Self::faults(self)
    }

    fn heal(&mut self) {
        Self::heal(self);
    }

    fn make_room(&mut self) {
        self.set_capacity(None);
    }

    fn rot(&mut self, area: Area, bit: u64) {
        self.flip(area, bit);
    }

    fn content(&self, area: Area) -> Vec<u8> {
        Self::content(self, area)
    }
}

/// A boot control that a whole device can be copied with.
pub(crate) trait Control: BootControl + Clone {}

impl<B: BootControl + Clone> Control for B {}

/// Device, service and what has happened so far.
#[derive(Clone, Debug)]
pub(crate) struct World<D, B = EnvironmentBoot> {
    pub(crate) disk: D,
    /// Makes the boot control that the agent, and the machine's loader, use.
    make_boot: fn() -> B,
    pub(crate) service: Service,
    /// How the device applies patches.
    pub(crate) patch: PatchOptions,
    pub(crate) now: Instant,
    /// Images that may be started: the factory's and the signed ones.
    images: Arc<Vec<Vec<u8>>>,
    /// The trust anchor, and its bytes.
    anchor: (Root, Vec<u8>),
    /// New images that fail their health checks: attempts up to this one.
    pub(crate) unhealthy_attempts: u64,
    /// New images that never come up: attempts up to this one.
    pub(crate) crashing_attempts: u64,
    /// The machine's own loader starts what is confirmed and knows nothing of trials.
    pub(crate) loader_ignores_trials: bool,
    /// The machine's own loader starts the trial, goes back to what is confirmed by itself, and writes that down nowhere.
    pub(crate) loader_falls_back: bool,
    /// The slot that runs, while the machine is on.
    pub(crate) running: Option<Slot>,
    /// Lives of the agent so far.
    lives: u64,
    /// Payload bytes that reached the medium and that no checkpoint has made durable.
    pub(crate) unflushed: u64,
    /// Payload bytes that reached the medium at all.
    pub(crate) delivered: u64,
    /// All of the payload was durable when the agent looked last: nothing may be fetched any more.
    pub(crate) has_payload: bool,
    /// Payload bytes that may have been fetched again: what was in flight and unflushed at each cut.
    pub(crate) forgivable: u64,
    /// The trial of the new image was to be armed at some time.
    pub(crate) activating: bool,
    /// The new image was to be confirmed at some time.
    pub(crate) confirming: bool,
    /// And that worked.
    pub(crate) confirmed: bool,
    /// Whether the bytes fetched again are counted: not where faults make more of them.
    pub(crate) check_refetched: bool,
    /// The device pins its trust anchor when it starts first: one more write.
    pub(crate) pins: bool,
    /// A reported revert ends the run.
    pub(crate) reverts_are_ends: bool,
    /// When the medium gets more room.
    pub(crate) room_at: Option<Instant>,
    /// Payload bytes that were served before.
    pub(crate) served_without_room: u64,
    /// When the medium's faults end, once they have begun.
    heal_at: Option<Instant>,
    /// Bytes per second downwards.
    pub(crate) rate: u64,
    /// Starts of the machine.
    pub(crate) boots: u64,
    /// Packets of a thousand that the link loses.
    pub(crate) lose: u64,
    /// A bit of what runs that rots when the payload is complete.
    pub(crate) rots: Option<u64>,
    /// Times that the medium did not do what the session wanted.
    pub(crate) store_failures: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Confirmed, reported, and the report acknowledged.
    Confirmed,
    /// Reverted and reported, where that is the end.
    Reverted,
    /// Power is gone.
    Dead,
}

/// What must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Something was started that is no complete image.
    WrongImage(Slot),
    /// The machine does not start at all.
    NoStart,
    /// It does not come to an end.
    Stuck(State),
    /// It ended with another image than the one that was rolled out.
    OldImage,
    /// The confirmed sequence number is not the release's.
    Sequence(u64),
    /// More was fetched than had to be.
    Refetched { bytes: u64, allowed: u64 },
    /// The image as it is was fetched, although there is a patch that applies.
    FullPayload { bytes: u64 },
    /// A flush group was larger than it may be.
    FlushGroup { bytes: u64, allowed: u64 },
}

/// Why a life of the agent ended.
pub(crate) enum Next {
    End(End),
    Reboot,
}

/// Starts of the machine before it counts as stuck.
const BOOTS_MAX: u64 = 60;
/// How long faults last that last.
const FAULT_MS: u64 = 15 * 60_000;
/// Bytes per second downwards: slow enough for the smallest flush group.
pub(crate) const SLOW: u64 = 1_500;

impl<D: Medium, B: Control> World<D, B> {
    /// A device that runs `factory` from slot A, with the boot controls that `make_boot` makes.
    pub(crate) fn new(disk: D, make_boot: fn() -> B, service: Service, factory: &[u8]) -> Self {
        let signed = service.releases.iter().map(|release| release.image.clone());
        Self {
            disk,
            make_boot,
            images: Arc::new(signed.chain([factory.to_vec()]).collect()),
            anchor: (service.fixture.root(), service.fixture.root_bytes()),
            service,
            patch: PatchOptions::default(),
            now: Instant::ZERO,
            unhealthy_attempts: 0,
            crashing_attempts: 0,
            loader_ignores_trials: false,
            loader_falls_back: false,
            running: None,
            lives: 0,
            unflushed: 0,
            delivered: 0,
            has_payload: false,
            forgivable: 0,
            activating: false,
            confirming: false,
            confirmed: false,
            check_refetched: true,
            pins: false,
            reverts_are_ends: false,
            room_at: None,
            served_without_room: 0,
            heal_at: None,
            rate: SLOW,
            boots: 0,
            lose: 0,
            rots: None,
            store_failures: 0,
        }
    }

    /// Runs until the update is confirmed and reported, or until power is gone.
    pub(crate) fn run(&mut self) -> Result<End, Violation>
    where
        D: Default,
    {
        let mut disk = core::mem::take(&mut self.disk);
        let result = self.run_on(&mut disk);
        self.disk = disk;
        match result {
            Ok(End::Confirmed) => self.check_end(),
            other => other,
        }
    }

    fn run_on(&mut self, disk: &mut D) -> Result<End, Violation> {
        loop {
            let running = match self.running {
                Some(running) => running,
                None => match self.start_machine(disk)? {
                    Some(running) => running,
                    None => return Ok(End::Dead),
                },
            };
            if self.is_new(disk, running) && self.service.attempt <= self.crashing_attempts {
                self.running = None;
                continue;
            }
            match self.live(disk, running) {
                Some(Ok(Next::End(end))) => return Ok(end),
                Some(Ok(Next::Reboot)) => self.running = None,
                Some(Err(violation)) => return Err(violation),
                // The medium did not let the agent start; its supervisor tries again.
                None if disk.is_dead() => return Ok(End::Dead),
                None => self.wait_for_start(disk)?,
            }
        }
    }

    /// The loader's step. `None` where power is gone.
    fn start_machine(&mut self, disk: &mut D) -> Result<Option<Slot>, Violation> {
        loop {
            let started = Storage::start(&mut *disk, (self.make_boot)(), StorageOptions::default()).and_then(
                |mut loader| {
                    let confirmed = loader.target().other();
                    if self.loader_ignores_trials {
                        return Ok(confirmed);
                    }
                    let slot = loader.boot()?;
                    Ok(if self.loader_falls_back { confirmed } else { slot })
                },
            );
            if disk.is_dead() {
                return Ok(None);
            }
            let Ok(slot) = started else {
                self.wait_for_start(disk)?;
                continue;
            };
            self.check_image(disk, slot)?;
            self.boots += 1;
            if self.boots > BOOTS_MAX {
                return Err(Violation::NoStart);
            }
            self.now = self.now.plus_millis(20_000);
            self.heal(disk);
            self.running = Some(slot);
            return Ok(Some(slot));
        }
    }

    fn wait_for_start(&mut self, disk: &mut D) -> Result<(), Violation> {
        self.boots += 1;
        self.now = self.now.plus_millis(60_000);
        self.heal(disk);
        if self.boots > BOOTS_MAX { Err(Violation::NoStart) } else { Ok(()) }
    }

    /// What is started is one of the images that may be.
    pub(crate) fn check_image(&self, disk: &D, slot: Slot) -> Result<(), Violation> {
        let content = disk.content(slot.area());
        let known = self.images.iter().any(|image| content.starts_with(image));
        if known { Ok(()) } else { Err(Violation::WrongImage(slot)) }
    }

    fn is_new(&self, disk: &D, slot: Slot) -> bool {
        disk.content(slot.area()).starts_with(&self.service.release().image)
    }

    /// One life of the agent. `None` where it could not start.
    fn live(&mut self, disk: &mut D, running: Slot) -> Option<Result<Next, Violation>> {
        let patch = self.patch;
        let options = StorageOptions { patch, ..StorageOptions::default() };
        let boot = Told::new((self.make_boot)(), running);
        let storage = Storage::start(disk, boot, options).ok()?;
        self.lives += 1;
        let anchor = self.anchor.clone();
        let pins = self.pins;
        let anchor = |pinned: &[u8]| {
            let (root, bytes) = anchor;
            Ok::<_, Infallible>((root, if pins { bytes } else { pinned.to_vec() }))
        };
        let device = Device::start(storage, self.config(), anchor, self.now, UnixTime::default()).ok()?;
        Some(Life::new(self, device).run())
    }

    fn config(&self) -> SessionConfig {
        let fixture = &self.service.fixture;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.lives.to_le_bytes());
        let key = fixture.device_key.clone();
        SessionConfig::new(fixture.device.clone(), fixture.vendor, fixture.class, key, seed)
    }

    /// Power is gone: what was in flight and what was not flushed may be fetched again.
    pub(crate) fn account_for_cut(&mut self) -> Result<(), Violation> {
        let allowed = FLUSH_BYTES_MIN + WINDOW_BYTES_MIN;
        if self.check_refetched && self.unflushed > allowed {
            return Err(Violation::FlushGroup { bytes: self.unflushed, allowed });
        }
        self.forgivable += core::mem::take(&mut self.unflushed);
        self.account_for_kill();
        Ok(())
    }

    /// The process is gone: only what was in flight may be fetched again, because the cache is still there.
    pub(crate) fn account_for_kill(&mut self) {
        self.forgivable += self.service.served.saturating_sub(self.delivered);
        self.delivered = self.service.served;
    }

    /// Forgets what was counted: another payload is on its way.
    pub(crate) fn count_anew(&mut self) {
        (self.delivered, self.forgivable, self.unflushed) = (0, 0, 0);
        self.has_payload = false;
    }

    fn check_end(&mut self) -> Result<End, Violation> {
        let release = Arc::clone(self.service.release());
        let running = self.running.expect("the agent has just run");
        if !self.disk.content(running.area()).starts_with(&release.image) {
            return Err(Violation::OldImage);
        }
        let refetched = self.service.served.saturating_sub(release.payload.len() as u64);
        if self.check_refetched && refetched > self.forgivable {
            return Err(Violation::Refetched { bytes: refetched, allowed: self.forgivable });
        }
        if self.check_refetched && self.service.served_full > 0 {
            return Err(Violation::FullPayload { bytes: self.service.served_full });
        }
        Ok(End::Confirmed)
    }

    /// Rolls out the next release.
    pub(crate) fn next_release(&mut self) {
        self.service.next_release();
        self.count_anew();
        (self.activating, self.confirming, self.confirmed) = (false, false, false);
        self.boots = 0;
    }

    /// Faults end some time after they began, and there is room when there is.
    pub(crate) fn heal(&mut self, disk: &mut D) {
        if self.room_at.is_some_and(|at| at <= self.now) {
            self.room_at = None;
            self.served_without_room = self.service.served;
            disk.make_room();
        }
        if disk.faults() > 0 && *self.heal_at.get_or_insert(self.now.plus_millis(FAULT_MS)) <= self.now {
            disk.heal();
        }
    }
}

//! Boot control in a plain file: the boot environment and what counts when it is lost (SPEC section 8.7).
//!
//! Two small things, two copies each. The *environment* says which slot is confirmed, which ones hold a whole
//! image, and whether a trial is armed. The *default* names the slot that is started when the environment is
//! gone. It always names a slot that holds a whole, confirmed image: before a slot is written to, both copies
//! of both are made to say that the other one is to be started.
//!
//! | bytes of the environment | content |
//! |---|---|
//! | 0 | confirmed slot, 0 or 1 |
//! | 1 | trial slot, 0 or 1; 255 for none |
//! | 2 | starts that the trial has left |
//! | 3 | starts that the trial was armed with |
//! | 4 | bit n: slot n may be started |
//! | 5 | 1: the last trial was given up |
//! | 6..8 | zero |
//! | 8..40 | SHA-256 of the trial's image; zero for none |
//!
//! The default is one byte, the slot.

use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;

use crate::installer::Slot;
use crate::storage::{Twin, TwinKind};

/// From one copy to the next.
const STRIDE: u64 = 4096;
const ENVIRONMENT_BYTES: usize = 40;
const NO_SLOT: u8 = 255;

/// What the loader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootEnvironment {
    /// The slot that is started when nothing else is said.
    pub(crate) confirmed: Slot,
    /// Whether slot A, and slot B, may be started.
    pub(crate) bootable: [bool; 2],
    /// A trial that is armed or running.
    pub(crate) trial: Option<TrialBoot>,
    /// The last trial was given up by the loader.
    pub(crate) failed: bool,
}

/// A new image that is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrialBoot {
    /// Where it is.
    pub(crate) slot: Slot,
    /// Starts left.
    pub(crate) tries_left: u8,
    /// Starts it was armed with.
    pub(crate) tries: u8,
    /// SHA-256 of the image.
    pub(crate) image: Digest,
}

impl BootEnvironment {
    /// Nothing but `confirmed` may be started.
    pub(crate) fn only(confirmed: Slot) -> Self {
        let bootable = Slot::ALL.map(|slot| slot == confirmed);
        Self { confirmed, bootable, trial: None, failed: false }
    }

    /// Whether `slot` may be started.
    pub(crate) fn is_bootable(&self, slot: Slot) -> bool {
        let [a, b] = self.bootable;
        if slot == Slot::A { a } else { b }
    }

    pub(crate) fn set_bootable(&mut self, slot: Slot, bootable: bool) {
        let [a, b] = &mut self.bootable;
        *(if slot == Slot::A { a } else { b }) = bootable;
    }

    /// The loader's rules: the slot to start, and what the environment must say *before* it is started, where
    /// that is something else than it says now.
    ///
    /// 1. A trial with starts left, in a slot that may be started: one start less, then that slot.
    /// 2. A trial without: it is given up, its slot is not started again.
    /// 3. The confirmed slot, or where that may not be started, the other one.
    pub(crate) fn choose(&self) -> (Slot, Option<Self>) {
        match self.trial {
            Some(trial) if trial.tries_left > 0 && self.is_bootable(trial.slot) => {
                let trial = TrialBoot { tries_left: trial.tries_left - 1, ..trial };
                (trial.slot, Some(Self { trial: Some(trial), ..*self }))
            }
            Some(trial) => {
                let mut after = Self { trial: None, failed: true, ..*self };
                if trial.slot != self.confirmed {
                    after.set_bootable(trial.slot, false);
                }
                (after.fallback(), Some(after))
            }
            None => (self.fallback(), None),
        }
    }

    fn fallback(&self) -> Slot {
        let other = self.confirmed.other();
        if !self.is_bootable(self.confirmed) && self.is_bootable(other) { other } else { self.confirmed }
    }

    fn encode(&self) -> [u8; ENVIRONMENT_BYTES] {
        let [a, b] = self.bootable;
        let trial =
            self.trial.map_or([NO_SLOT, 0, 0], |trial| [trial.slot.number(), trial.tries_left, trial.tries]);
        let head = [self.confirmed.number()].into_iter().chain(trial).chain([
            u8::from(a) | u8::from(b) << 1,
            u8::from(self.failed),
            0,
            0,
        ]);
        let image = self.trial.map_or([0; 32], |trial| trial.image.0);
        let mut bytes = [0; ENVIRONMENT_BYTES];
        bytes.iter_mut().zip(head.chain(image)).for_each(|(to, from)| *to = from);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, image) = bytes.split_first_chunk::<8>()?;
        let [confirmed, trial, tries_left, tries, bootable, failed, ..] = *head;
        let image = Digest(image.try_into().ok()?);
        let trial = match trial {
            NO_SLOT => None,
            slot => Some(TrialBoot { slot: Slot::from_number(slot)?, tries_left, tries, image }),
        };
        Some(Self {
            confirmed: Slot::from_number(confirmed)?,
            bootable: [bootable & 1 != 0, bootable & 2 != 0],
            trial,
            failed: failed != 0,
        })
    }
}

/// Reads and writes the environment and the default.
#[derive(Debug)]
pub(crate) struct BootControl {
    environment: Twin,
    default: Twin,
}

impl BootControl {
    pub(crate) fn new() -> Self {
        let environment = TwinKind { magic: *b"WB", format: 1, content_max: ENVIRONMENT_BYTES };
        let default = TwinKind { magic: *b"WD", format: 1, content_max: 1 };
        Self {
            environment: Twin::new(environment, Area::BootEnvironment, 0, STRIDE),
            default: Twin::new(default, Area::BootDefault, 0, STRIDE),
        }
    }

    /// Makes the medium ready: what is missing is made from what is there. `first` is the slot that runs
    /// where nothing is there.
    pub(crate) fn prepare(&mut self, disk: &mut impl Disk, first: Slot) -> Result<(), DiskError> {
        let environment = self.read(disk)?;
        let confirmed = match (environment, self.read_default(disk)?) {
            (Some(environment), Some(_)) => environment.confirmed,
            (environment, default) => {
                let confirmed = environment.map(|environment| environment.confirmed);
                let confirmed = confirmed.or(default).unwrap_or(first);
                self.write_default(disk, confirmed)?;
                confirmed
            }
        };
        if environment.is_none() {
            self.write(disk, &BootEnvironment::only(confirmed))?;
        }
        Ok(())
    }

    /// The environment; `None` where it is lost.
    pub(crate) fn read(&mut self, disk: &mut impl Disk) -> Result<Option<BootEnvironment>, DiskError> {
        Ok(self.environment.read(disk)?.as_deref().and_then(BootEnvironment::decode))
    }

    /// The slot to start where the environment is lost; `None` where that is lost as well.
    pub(crate) fn read_default(&mut self, disk: &mut impl Disk) -> Result<Option<Slot>, DiskError> {
        let slot = self.default.read(disk)?.and_then(|bytes| bytes.first().copied());
        Ok(slot.and_then(Slot::from_number))
    }

    /// Writes the environment, durably, and reads it back.
    pub(crate) fn write(
        &mut self,
        disk: &mut impl Disk,
        environment: &BootEnvironment,
    ) -> Result<(), DiskError> {
        self.environment.write(disk, &environment.encode())?;
        disk.drop_cache(Area::BootEnvironment)?;
        match self.read(disk)? {
            Some(found) if found == *environment => Ok(()),
            _ => Err(DiskError::Failed { area: Area::BootEnvironment }),
        }
    }

    /// Writes both copies of the environment, durably, and reads them back: what the older one said is over for good.
    pub(crate) fn settle(
        &mut self,
        disk: &mut impl Disk,
        environment: &BootEnvironment,
    ) -> Result<(), DiskError> {
        self.environment.settle(disk, &environment.encode())
    }

    /// Names the slot to start where the environment is lost, durably, in both copies, and reads them back.
    pub(crate) fn write_default(&mut self, disk: &mut impl Disk, slot: Slot) -> Result<(), DiskError> {
        self.default.settle(disk, &[slot.number()])
    }

    /// The loader's step: what [`BootEnvironment::choose`] says, after what it wants said is durable.
    ///
    /// A start of a trial that cannot be counted does not happen. `None` where nothing names a slot.
    pub(crate) fn select(&mut self, disk: &mut impl Disk) -> Result<Option<Slot>, DiskError> {
        let default = self.read_default(disk);
        let Ok(Some(environment)) = self.read(disk) else {
            return default;
        };
        let (slot, after) = environment.choose();
        Ok(Some(match after {
            Some(after) if self.write(disk, &after).is_err() => environment.fallback(),
            _ => slot,
        }))
    }

    /// Sees to it that nothing will start `target`, whichever copy of whichever is lost afterwards.
    pub(crate) fn protect(
        &mut self,
        disk: &mut impl Disk,
        confirmed: Slot,
        target: Slot,
    ) -> Result<(), DiskError> {
        debug_assert_ne!(confirmed, target, "what is confirmed is not written to");
        self.write_default(disk, confirmed)?;
        let mut environment = self.read(disk)?.unwrap_or(BootEnvironment::only(confirmed));
        environment.confirmed = confirmed;
        environment.set_bootable(confirmed, true);
        environment.set_bootable(target, false);
        environment.trial = None;
        environment.failed = false;
        self.settle(disk, &environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(slot: Slot, tries_left: u8) -> Option<TrialBoot> {
        Some(TrialBoot { slot, tries_left, tries: 3, image: Digest([7; 32]) })
    }

    /// The format is frozen: loaders in the field read it.
    #[test]
    fn an_environment_has_these_bytes_and_reads_back() {
        let environment = BootEnvironment {
            confirmed: Slot::A,
            bootable: [true, true],
            trial: trial(Slot::B, 2),
            failed: false,
        };
        let bytes = environment.encode();
        assert_eq!(bytes[..8], [0, 1, 2, 3, 0b11, 0, 0, 0]);
        assert_eq!(bytes[8..], [7; 32]);
        assert_eq!(BootEnvironment::decode(&bytes), Some(environment));
        let only = BootEnvironment { failed: true, ..BootEnvironment::only(Slot::B) };
        assert_eq!(only.encode()[..9], [1, 255, 0, 0, 0b10, 1, 0, 0, 0]);
        assert_eq!(BootEnvironment::decode(&only.encode()), Some(only));
    }

    #[test]
    fn slots_that_do_not_exist_are_no_environment() {
        let bytes = BootEnvironment::only(Slot::A).encode();
        for (at, byte) in [(0, 2), (0, 255), (1, 2), (1, 254)] {
            let mut bytes = bytes;
            bytes[at] = byte;
            assert_eq!(BootEnvironment::decode(&bytes), None);
        }
        assert_eq!(BootEnvironment::decode(&bytes[..39]), None);
        assert_eq!(BootEnvironment::decode(&[]), None);
    }

    /// Every environment there can be, and what the loader makes of it.
    #[test]
    fn the_loader_starts_trials_that_have_starts_left_and_else_what_is_confirmed() {
        for confirmed in Slot::ALL {
            for bits in 0..4 {
                let bootable = [bits & 1 != 0, bits & 2 != 0];
                let base = BootEnvironment { confirmed, bootable, trial: None, failed: false };
                let fallback = match (base.is_bootable(confirmed), base.is_bootable(confirmed.other())) {
                    (false, true) => confirmed.other(),
                    _ => confirmed,
                };
                assert_eq!(base.choose(), (fallback, None));
                let new = confirmed.other();
                for tries_left in 0..=3 {
                    let environment = BootEnvironment { trial: trial(new, tries_left), ..base };
                    let (slot, after) = environment.choose();
                    let after = after.expect("a trial is counted or given up");
                    if tries_left > 0 && base.is_bootable(new) {
                        assert_eq!(slot, new);
                        assert_eq!(after, BootEnvironment { trial: trial(new, tries_left - 1), ..base });
                    } else {
                        assert_eq!(slot, confirmed, "a slot that was given up is no fallback");
                        assert!(after.failed && after.trial.is_none() && !after.is_bootable(new));
                    }
                }
            }
        }
    }
}

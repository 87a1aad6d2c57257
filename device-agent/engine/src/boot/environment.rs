//! Boot control on the medium: the boot environment, and what counts if that is lost (SPEC section 8.7).
//!
//! Both are kept in two copies. The *environment* says which slot is confirmed, which slots hold a whole image, and
//! whether a trial is armed. The *default* names the slot that is started if the environment is lost; it always names
//! one that holds a whole, confirmed image. Before a slot is overwritten, both copies of the environment and both
//! copies of the default are made to name the other slot.
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

use super::{BootControl, BootState, NewTrial, TrialState};
use crate::slot::Slot;
use crate::two_copies::{Format, TwoCopies};

/// From one copy to the next.
const STRIDE: u64 = 4096;
const ENVIRONMENT_BYTES: usize = 40;
const NO_SLOT: u8 = 255;

/// What the loader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Environment {
    /// The slot that is started when nothing else is said.
    confirmed: Slot,
    /// Whether slot A, and slot B, may be started.
    bootable: [bool; 2],
    /// A trial that is armed or running.
    trial: Option<TrialBoot>,
    /// The last trial was given up by the loader.
    failed: bool,
}

/// A new image that is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TrialBoot {
    /// Where it is.
    slot: Slot,
    /// Starts left.
    tries_left: u8,
    /// Starts it was armed with.
    tries: u8,
    /// SHA-256 of the image.
    image: Digest,
}

impl Environment {
    /// Nothing but `confirmed` may be started.
    fn only(confirmed: Slot) -> Self {
        let bootable = Slot::ALL.map(|slot| slot == confirmed);
        Self { confirmed, bootable, trial: None, failed: false }
    }

    /// Whether `slot` may be started.
    fn is_bootable(&self, slot: Slot) -> bool {
        let [a, b] = self.bootable;
        if slot == Slot::A { a } else { b }
    }

    fn set_bootable(&mut self, slot: Slot, bootable: bool) {
        let [a, b] = &mut self.bootable;
        *(if slot == Slot::A { a } else { b }) = bootable;
    }

    /// The loader's rules: the slot to start, and what the environment must say *before* it is started, if
    /// that is something else than it says now.
    ///
    /// 1. A trial with starts left, in a slot that may be started: one start less, then that slot.
    /// 2. A trial without: it is given up, its slot is not started again.
    /// 3. The confirmed slot, or if that may not be started, the other one.
    fn choose(&self) -> (Slot, Option<Self>) {
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

    /// What the engine wants to know.
    fn state(&self) -> BootState {
        let trial = match self.trial {
            Some(trial) if trial.tries_left < trial.tries => TrialState::Started(trial.slot),
            Some(trial) => TrialState::Armed(trial.slot),
            None if self.failed => TrialState::Failed,
            None => TrialState::None,
        };
        BootState { confirmed: self.confirmed, trial }
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

/// Boot control by a boot environment in areas of the medium, which the device's own boot loader step reads.
#[derive(Clone, Debug)]
pub struct EnvironmentBoot {
    environment: TwoCopies,
    default: TwoCopies,
}

impl Default for EnvironmentBoot {
    fn default() -> Self {
        Self::new()
    }
}

impl EnvironmentBoot {
    /// The environment in [`Area::BootEnvironment`] and the default in [`Area::BootDefault`].
    #[must_use]
    pub const fn new() -> Self {
        let environment = Format { magic: *b"WB", version: 1, content_max: ENVIRONMENT_BYTES };
        let default = Format { magic: *b"WD", version: 1, content_max: 1 };
        Self {
            environment: TwoCopies::new(environment, Area::BootEnvironment, 0, STRIDE),
            default: TwoCopies::new(default, Area::BootDefault, 0, STRIDE),
        }
    }

    /// The environment; `None` if it is lost.
    fn load(&mut self, disk: &mut dyn Disk) -> Result<Option<Environment>, DiskError> {
        Ok(self.environment.read(disk)?.as_deref().and_then(Environment::decode))
    }

    /// The environment, or if it is lost one that knows of nothing but `confirmed`.
    fn load_or_make(&mut self, disk: &mut dyn Disk, confirmed: Slot) -> Result<Environment, DiskError> {
        Ok(self.load(disk)?.unwrap_or(Environment::only(confirmed)))
    }

    /// Writes the environment, durably, and reads it back.
    fn write(&mut self, disk: &mut dyn Disk, environment: &Environment) -> Result<(), DiskError> {
        self.environment.write(disk, &environment.encode())?;
        disk.drop_cache(Area::BootEnvironment)?;
        match self.load(disk)? {
            Some(found) if found == *environment => Ok(()),
            _ => Err(DiskError::failed(Area::BootEnvironment)),
        }
    }

    /// Writes both copies of the environment, durably, and reads them back: what the older one said is over for good.
    fn write_both(&mut self, disk: &mut dyn Disk, environment: &Environment) -> Result<(), DiskError> {
        self.environment.write_both(disk, &environment.encode())
    }

    /// Names the slot to start if the environment is lost, durably, in both copies, and reads them back.
    fn write_default(&mut self, disk: &mut dyn Disk, slot: Slot) -> Result<(), DiskError> {
        self.default.write_both(disk, &[slot.number()])
    }
}

impl BootControl for EnvironmentBoot {
    /// The environment is what the loader's step goes by, and it counts a start before it makes it.
    fn running(&self) -> Option<Slot> {
        None
    }

    fn areas(&self) -> &[Area] {
        &[Area::BootDefault, Area::BootEnvironment]
    }

    fn prepare(&mut self, disk: &mut dyn Disk, first: Slot) -> Result<(), DiskError> {
        let environment = self.load(disk)?;
        let confirmed = match (environment, self.fallback(disk)?) {
            (Some(environment), Some(_)) => environment.confirmed,
            (environment, default) => {
                let confirmed = environment.map(|environment| environment.confirmed);
                let confirmed = confirmed.or(default).unwrap_or(first);
                self.write_default(disk, confirmed)?;
                confirmed
            }
        };
        if environment.is_none() {
            self.write(disk, &Environment::only(confirmed))?;
        }
        Ok(())
    }

    fn read(&mut self, disk: &mut dyn Disk) -> Result<Option<BootState>, DiskError> {
        Ok(self.load(disk)?.map(|environment| environment.state()))
    }

    fn fallback(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        let slot = self.default.read(disk)?.and_then(|bytes| bytes.first().copied());
        Ok(slot.and_then(Slot::from_number))
    }

    /// What `Environment::choose` says, after what it wants written is durable.
    fn select(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        let default = self.fallback(disk);
        let Ok(Some(environment)) = self.load(disk) else {
            return default;
        };
        let (slot, after) = environment.choose();
        Ok(Some(match after {
            Some(after) if self.write(disk, &after).is_err() => environment.fallback(),
            _ => slot,
        }))
    }

    /// Whichever copy of whichever of the two is lost afterwards, nothing starts `target`.
    fn protect(&mut self, disk: &mut dyn Disk, confirmed: Slot, target: Slot) -> Result<(), DiskError> {
        debug_assert_ne!(confirmed, target, "what is confirmed is not written to");
        self.write_default(disk, confirmed)?;
        let mut environment = self.load_or_make(disk, confirmed)?;
        environment.confirmed = confirmed;
        environment.set_bootable(confirmed, true);
        environment.set_bootable(target, false);
        environment.trial = None;
        environment.failed = false;
        self.write_both(disk, &environment)
    }

    fn arm(&mut self, disk: &mut dyn Disk, confirmed: Slot, trial: &NewTrial) -> Result<(), DiskError> {
        self.write_default(disk, confirmed)?;
        let mut environment = self.load_or_make(disk, confirmed)?;
        let NewTrial { slot, tries, image } = *trial;
        environment.set_bootable(slot, true);
        let trial = TrialBoot { slot, tries_left: tries, tries, image };
        let armed = Environment { trial: Some(trial), failed: false, ..environment };
        let result = self.write(disk, &armed);
        if result.is_err() {
            // It may have become durable all the same, and what was not acknowledged must not start.
            let _ = self.revert(disk, confirmed);
        }
        result
    }

    /// The default goes first: once any copy of the environment says that the image is confirmed, losing the
    /// environment keeps it too.
    fn confirm(&mut self, disk: &mut dyn Disk, confirmed: Slot, running: Slot) -> Result<(), DiskError> {
        self.write_default(disk, running)?;
        let known = self.load_or_make(disk, confirmed)?;
        let mut environment = Environment { confirmed: running, trial: None, failed: false, ..known };
        environment.set_bootable(running, true);
        self.write_both(disk, &environment)
    }

    /// The default goes first, since a confirmation that failed half-way has left the new slot's name there.
    fn revert(&mut self, disk: &mut dyn Disk, confirmed: Slot) -> Result<(), DiskError> {
        self.write_default(disk, confirmed)?;
        let mut environment = self.load_or_make(disk, confirmed)?;
        environment.confirmed = confirmed;
        environment.set_bootable(confirmed, true);
        environment.set_bootable(confirmed.other(), false);
        environment.trial = None;
        environment.failed = false;
        self.write_both(disk, &environment)
    }

    fn forget_failure(&mut self, disk: &mut dyn Disk) -> Result<(), DiskError> {
        match self.load(disk)? {
            Some(environment) if environment.failed => {
                self.write(disk, &Environment { failed: false, ..environment })
            }
            _ => Ok(()),
        }
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
        let environment = Environment {
            confirmed: Slot::A,
            bootable: [true, true],
            trial: trial(Slot::B, 2),
            failed: false,
        };
        let bytes = environment.encode();
        assert_eq!(bytes[..8], [0, 1, 2, 3, 0b11, 0, 0, 0]);
        assert_eq!(bytes[8..], [7; 32]);
        assert_eq!(Environment::decode(&bytes), Some(environment));
        let only = Environment { failed: true, ..Environment::only(Slot::B) };
        assert_eq!(only.encode()[..9], [1, 255, 0, 0, 0b10, 1, 0, 0, 0]);
        assert_eq!(Environment::decode(&only.encode()), Some(only));
    }

    #[test]
    fn slots_that_do_not_exist_are_no_environment() {
        let bytes = Environment::only(Slot::A).encode();
        for (at, byte) in [(0, 2), (0, 255), (1, 2), (1, 254)] {
            let mut bytes = bytes;
            bytes[at] = byte;
            assert_eq!(Environment::decode(&bytes), None);
        }
        assert_eq!(Environment::decode(&bytes[..39]), None);
        assert_eq!(Environment::decode(&[]), None);
    }

    /// Every environment there can be, and what the loader makes of it.
    #[test]
    fn the_loader_starts_trials_that_have_starts_left_and_else_what_is_confirmed() {
        for confirmed in Slot::ALL {
            for bits in 0..4 {
                let bootable = [bits & 1 != 0, bits & 2 != 0];
                let base = Environment { confirmed, bootable, trial: None, failed: false };
                let fallback = match (base.is_bootable(confirmed), base.is_bootable(confirmed.other())) {
                    (false, true) => confirmed.other(),
                    _ => confirmed,
                };
                assert_eq!(base.choose(), (fallback, None));
                let new = confirmed.other();
                for tries_left in 0..=3 {
                    let environment = Environment { trial: trial(new, tries_left), ..base };
                    let (slot, after) = environment.choose();
                    let after = after.expect("a trial is counted or given up");
                    if tries_left > 0 && base.is_bootable(new) {
                        assert_eq!(slot, new);
                        assert_eq!(after, Environment { trial: trial(new, tries_left - 1), ..base });
                    } else {
                        assert_eq!(slot, confirmed, "a slot that was given up is no fallback");
                        assert!(after.failed && after.trial.is_none() && !after.is_bootable(new));
                    }
                }
            }
        }
    }
}

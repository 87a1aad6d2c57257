//! The scenarios of the power-cut tests with another boot control: what holds for one holds for every one.
//!
//! [`RedundantEnvironment`] is for tests only. It is laid out as U-Boot's redundant environment with a boot counter: one
//! sector of variables in two copies, each with a CRC and a counter of writes. A boot loader that is added to the engine
//! gets its line in the tests below.

use whimbrel_engine::boot::{BootControl, BootState, NewTrial, TrialState};
use whimbrel_engine::slot::Slot;
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::manifest::Codec;

use crate::power_cut::{Floor, Scenario, check, world_with};
use crate::power_cut_device::Control;
use crate::power_cut_faults::fail_at_every;
use crate::power_cut_points::FirstCut;

/// Boot control by variables in two copies. Without state: every call reads them anew.
#[derive(Clone, Debug)]
struct RedundantEnvironment;

/// What the boot script reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variables {
    /// `bootpart`: the slot to start.
    slot: Slot,
    /// `upgrade_available`: that slot is on trial, the other one is confirmed.
    upgrade_available: bool,
    /// `bootcount`: starts of the trial so far.
    bootcount: u8,
    /// `bootlimit`: starts that it gets.
    bootlimit: u8,
    /// `rolled_back`: the boot script has given the last trial up.
    rolled_back: bool,
}

/// A valid copy.
#[derive(Clone, Copy, Debug)]
struct Copy {
    number: u64,
    /// Counts writes, from 255 on to 0.
    flags: u8,
    variables: Variables,
}

const AREA: Area = Area::BootEnvironment;
const STRIDE: u64 = 4096;
const COPY_BYTES: usize = 128;

impl Variables {
    fn confirmed(slot: Slot) -> Self {
        Self { slot, upgrade_available: false, bootcount: 0, bootlimit: 0, rolled_back: false }
    }

    fn confirmed_slot(&self) -> Slot {
        if self.upgrade_available { self.slot.other() } else { self.slot }
    }

    /// A CRC of what follows, the flags, then `NAME=VALUE`, each with a zero behind it.
    fn encode(&self, flags: u8) -> [u8; COPY_BYTES] {
        let text = format!(
            "bootpart={}\0upgrade_available={}\0bootcount={}\0bootlimit={}\0rolled_back={}\0",
            self.slot.number(),
            u8::from(self.upgrade_available),
            self.bootcount,
            self.bootlimit,
            u8::from(self.rolled_back)
        );
        let mut copy = [0; COPY_BYTES];
        copy[4] = flags;
        copy[5..5 + text.len()].copy_from_slice(text.as_bytes());
        let crc = crc32(&copy[4..]);
        copy[..4].copy_from_slice(&crc.to_le_bytes());
        copy
    }

    fn decode(copy: &[u8; COPY_BYTES]) -> Option<(u8, Self)> {
        if crc32(&copy[4..]).to_le_bytes() != copy[..4] {
            return None;
        }
        let text = core::str::from_utf8(&copy[5..]).ok()?;
        let value = |name: &str| -> Option<u8> {
            let mut variables = text.split('\0').filter_map(|variable| variable.split_once('='));
            variables.find(|(known, _)| *known == name)?.1.parse().ok()
        };
        let variables = Self {
            slot: Slot::from_number(value("bootpart")?)?,
            upgrade_available: value("upgrade_available")? == 1,
            bootcount: value("bootcount")?,
            bootlimit: value("bootlimit")?,
            rolled_back: value("rolled_back")? == 1,
        };
        Some((copy[4], variables))
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

/// The copy that counts.
fn newest(disk: &mut dyn Disk) -> Result<Option<Copy>, DiskError> {
    if disk.len(AREA)? < 2 * STRIDE {
        return Ok(None);
    }
    let copy = |disk: &mut dyn Disk, number: u64| -> Result<Option<Copy>, DiskError> {
        let mut bytes = [0; COPY_BYTES];
        // Once more where the medium stumbled: to go without the newest copy is to go back in time.
        disk.read(AREA, number * STRIDE, &mut bytes)
            .or_else(|_| disk.read(AREA, number * STRIDE, &mut bytes))?;
        Ok(Variables::decode(&bytes).map(|(flags, variables)| Copy { number, flags, variables }))
    };
    Ok(match (copy(disk, 0)?, copy(disk, 1)?) {
        (Some(first), Some(second)) if second.flags == first.flags.wrapping_add(1) => Some(second),
        (Some(first), _) => Some(first),
        (None, second) => second,
    })
}

/// Writes the copy that does not count, durably, and reads it back.
fn write(disk: &mut dyn Disk, variables: Variables) -> Result<(), DiskError> {
    let (number, flags) = match newest(disk)? {
        Some(copy) => (1 - copy.number, copy.flags.wrapping_add(1)),
        None => (0, 0),
    };
    let written = disk.write(AREA, number * STRIDE, &variables.encode(flags)).and_then(|()| disk.flush(AREA));
    // What is in the cache may be something that will never be on the medium.
    disk.drop_cache(AREA)?;
    written?;
    match newest(disk)? {
        Some(copy) if copy.variables == variables => Ok(()),
        _ => Err(DiskError::Failed { area: AREA }),
    }
}

/// Writes both copies: what either said before is over for good.
fn write_both(disk: &mut dyn Disk, variables: Variables) -> Result<(), DiskError> {
    write(disk, variables)?;
    write(disk, variables)
}

impl BootControl for RedundantEnvironment {
    fn running(&self) -> Option<Slot> {
        None
    }

    fn areas(&self) -> &[Area] {
        &[AREA]
    }

    fn prepare(&mut self, disk: &mut dyn Disk, first: Slot) -> Result<(), DiskError> {
        disk.reserve(AREA, 2 * STRIDE)?;
        if newest(disk)?.is_none() { write(disk, Variables::confirmed(first)) } else { Ok(()) }
    }

    fn read(&mut self, disk: &mut dyn Disk) -> Result<Option<BootState>, DiskError> {
        Ok(newest(disk)?.map(|Copy { variables, .. }| BootState {
            confirmed: variables.confirmed_slot(),
            trial: match variables {
                Variables { upgrade_available: true, bootcount: 0, slot, .. } => TrialState::Armed(slot),
                Variables { upgrade_available: true, slot, .. } => TrialState::Started(slot),
                Variables { rolled_back: true, .. } => TrialState::Failed,
                _ => TrialState::None,
            },
        }))
    }

    fn fallback(&mut self, _disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        Ok(None)
    }

    fn select(&mut self, disk: &mut dyn Disk) -> Result<Option<Slot>, DiskError> {
        let Some(Copy { variables, .. }) = newest(disk)? else {
            return Ok(None);
        };
        let confirmed = variables.confirmed_slot();
        let after = match variables {
            Variables { upgrade_available: false, .. } => return Ok(Some(confirmed)),
            Variables { bootcount, bootlimit, .. } if bootcount < bootlimit => {
                Variables { bootcount: bootcount + 1, ..variables }
            }
            _ => Variables { rolled_back: true, ..Variables::confirmed(confirmed) },
        };
        Ok(Some(if write(disk, after).is_ok() { after.slot } else { confirmed }))
    }

    fn protect(&mut self, disk: &mut dyn Disk, confirmed: Slot, _target: Slot) -> Result<(), DiskError> {
        write_both(disk, Variables::confirmed(confirmed))
    }

    fn arm(&mut self, disk: &mut dyn Disk, confirmed: Slot, trial: &NewTrial) -> Result<(), DiskError> {
        let armed =
            Variables { upgrade_available: true, bootlimit: trial.tries, ..Variables::confirmed(trial.slot) };
        let result = write(disk, armed);
        if result.is_err() {
            let _ = self.revert(disk, confirmed);
        }
        result
    }

    fn confirm(&mut self, disk: &mut dyn Disk, _confirmed: Slot, running: Slot) -> Result<(), DiskError> {
        write_both(disk, Variables::confirmed(running))
    }

    fn revert(&mut self, disk: &mut dyn Disk, confirmed: Slot) -> Result<(), DiskError> {
        write_both(disk, Variables::confirmed(confirmed))
    }

    fn forget_failure(&mut self, disk: &mut dyn Disk) -> Result<(), DiskError> {
        match newest(disk)? {
            Some(Copy { variables, .. }) if variables.rolled_back => {
                write(disk, Variables { rolled_back: false, ..variables })
            }
            _ => Ok(()),
        }
    }
}

/// Power goes at every operation of each scenario, and again at one in so many of the recovery.
fn survives<B: Control>(make_boot: fn() -> B, name: &str, scenarios: &[Scenario]) {
    for scenario in scenarios {
        let world = scenario.world(make_boot);
        check(
            &format!("{}, {name}", scenario.name()),
            &world,
            FirstCut::Power,
            Floor { points: 500, every: 97 },
        );
    }
}

#[test]
fn updates_with_a_redundant_environment_survive_power_cuts_at_every_operation() {
    survives(
        || RedundantEnvironment,
        "redundant environment",
        &[Scenario::Raw, Scenario::Lzma, Scenario::Change],
    );
}

#[test]
fn trials_with_a_redundant_environment_survive_power_cuts_at_every_operation() {
    survives(
        || RedundantEnvironment,
        "redundant environment",
        &[Scenario::Revert, Scenario::Crash, Scenario::Next],
    );
}

#[test]
fn an_update_with_a_redundant_environment_goes_on_after_a_fault_at_any_call() {
    let world = world_with(|| RedundantEnvironment, &[Codec::Raw], 24 * 1024);
    fail_at_every("raw, redundant environment", &world, 3);
}

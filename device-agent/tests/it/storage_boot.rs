//! The boot control on a medium that fails, lies, or loses power: what a slot is called, and in which order that is
//! written down.

use alloc::sync::Arc;

use whimbrel_engine::boot::{EnvironmentBoot, Told};
use whimbrel_engine::slot::{Slot, SlotFacts};
use whimbrel_engine::storage::{Storage, StorageError, StorageOptions};
use whimbrel_protocol::device::{InstallFailure, InstallOp, Place, StoreFailure, Trial};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::{DiskFault, DiskStep, Fixture, SimDisk, Survival};

use crate::power_cut::image;
use crate::power_cut_environment::is_named;
use crate::power_cut_service::Release;
use crate::storage_lying::{Lying, lies};
use crate::storage_support::{download, fixture, open, started};

fn release(fixture: &Arc<Fixture>, seed: u8) -> Release {
    Release::new(fixture, Codec::Raw, image(seed, 5000), u64::from(seed))
}

/// Slot A runs; the release is in slot B and starts next.
fn armed<D: Disk>(disk: D, release: &Release) -> Storage<D> {
    let mut storage = started(disk);
    download(&mut storage, release);
    storage.install(InstallOp::Install).unwrap();
    storage.install(InstallOp::Activate).unwrap();
    storage
}

/// The release runs from slot B, and nobody has confirmed it.
fn on_trial<D: Disk>(disk: D, release: &Release) -> Storage<D> {
    let mut storage = armed(disk, release);
    assert_eq!(storage.boot().unwrap(), Slot::B);
    storage
}

/// An agent starts on a copy of this medium.
fn restarted(disk: &SimDisk) -> Storage<SimDisk> {
    let mut disk = disk.clone();
    disk.kill();
    Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap()
}

/// What the loader starts from a copy of this medium.
fn would_start(disk: &SimDisk) -> Slot {
    restarted(disk).boot().unwrap()
}

/// The same, once the environment is lost.
fn would_start_without_environment(disk: &SimDisk) -> Slot {
    let mut disk = disk.clone();
    disk.zero(Area::BootEnvironment);
    would_start(&disk)
}

/// Does `what` on copies of `disk`, with the power going at every operation of it, and gives what is on them then.
fn cut_everywhere(disk: &SimDisk, what: impl Fn(&mut Storage<SimDisk>)) -> Vec<(String, SimDisk)> {
    let mut whole = restarted(disk);
    whole.disk_mut().kill();
    what(&mut whole);
    let mut cuts = Vec::new();
    for operation in 1..=whole.disk_mut().operations() {
        for survival in Survival::ALL {
            let mut storage = restarted(disk);
            storage.disk_mut().kill();
            storage.disk_mut().crash_at(operation);
            what(&mut storage);
            let mut disk = storage.into_disk();
            assert!(disk.is_dead());
            disk.power_cut(survival, operation);
            cuts.push((format!("operation {operation}, {}", survival.name()), disk));
        }
    }
    cuts
}

#[test]
fn a_revert_leaves_no_name_of_the_new_slot_behind() {
    let release = release(&fixture(), 1);
    for mut storage in [armed(SimDisk::new(), &release), on_trial(SimDisk::new(), &release)] {
        assert!(is_named(storage.disk_mut(), Slot::B));
        storage.install(InstallOp::Revert).unwrap();
        assert!(!is_named(storage.disk_mut(), Slot::B));
        let environment = storage.disk_mut().durable_content(Area::BootEnvironment);
        for copy in environment.chunks(4096) {
            assert_eq!(copy[48..56], [0, 255, 0, 0, 0b01, 0, 0, 0]);
            assert_eq!(copy[56..88], [0; 32], "nor its image");
        }
        assert!(is_named(storage.disk_mut(), Slot::A));
    }
}

/// Default and environment name the new slot in one copy or in both, depending on which call failed.
#[test]
fn a_revert_leaves_no_name_of_the_new_slot_behind_after_a_confirmation_that_failed_at_any_call() {
    let disk = on_trial(SimDisk::new(), &release(&fixture(), 1)).into_disk();
    let mut half_confirmed = 0;
    for fault in [DiskFault::Full, DiskFault::Failed] {
        for sticky in [false, true] {
            for call in 1.. {
                let mut storage = restarted(&disk);
                assert_eq!(storage.running(), Slot::B);
                storage.disk_mut().kill();
                storage.disk_mut().fail_at(fault, call, sticky);
                let confirmed = storage.install(InstallOp::Confirm);
                if storage.disk_mut().faults() == 0 {
                    break;
                }
                storage.disk_mut().heal();
                if confirmed.is_ok() {
                    continue;
                }
                half_confirmed += u32::from(would_start_without_environment(storage.disk_mut()) == Slot::B);
                storage.install(InstallOp::Revert).unwrap();
                let place = format!("{fault:?} at call {call}");
                assert!(!is_named(storage.disk_mut(), Slot::B), "{place}");
                assert_eq!(would_start(storage.disk_mut()), Slot::A, "{place}");
            }
        }
    }
    assert!(half_confirmed > 0);
}

/// The default is written before the environment: the old image does not come back once the new one is confirmed.
#[test]
fn once_the_environment_says_confirmed_losing_it_keeps_the_confirmed_image() {
    let disk = on_trial(SimDisk::new(), &release(&fixture(), 1)).into_disk();
    let cuts = cut_everywhere(&disk, |storage| {
        let _ = storage.install(InstallOp::Confirm);
    });
    let mut confirmed = 0;
    for (place, disk) in cuts {
        if restarted(&disk).target() == Slot::A {
            confirmed += 1;
            assert_eq!(would_start_without_environment(&disk), Slot::B, "{place}");
        }
    }
    assert!(confirmed > 0);
}

/// The default names the new slot, because a confirmation got that far and failed; the environment names the old one.
fn half_confirmed() -> SimDisk {
    let mut storage = on_trial(SimDisk::new(), &release(&fixture(), 1));
    let mut counted = restarted(storage.disk_mut());
    counted.disk_mut().start_trace();
    counted.install(InstallOp::Confirm).unwrap();
    let writes = counted.disk_mut().trace().iter().filter_map(|step| match step {
        DiskStep::Write { area, .. } => Some(*area),
        _ => None,
    });
    let before = writes.take_while(|area| *area != Area::BootEnvironment).count();
    storage.disk_mut().kill();
    storage.disk_mut().fail_at(DiskFault::Full, before as u64 + 1, true);
    assert_eq!(storage.install(InstallOp::Confirm), Err(InstallFailure::Boot));
    let mut disk = storage.into_disk();
    disk.heal();
    assert_eq!((would_start(&disk), would_start_without_environment(&disk)), (Slot::B, Slot::B));
    disk
}

/// The environment decides what is confirmed as long as it can be read.
#[test]
fn a_trial_that_was_half_confirmed_is_still_a_trial_after_a_restart() {
    let disk = half_confirmed();
    let mut storage = restarted(&disk);
    assert_eq!(storage.boot().unwrap(), Slot::B);
    assert_eq!((storage.boot_view().trial, storage.target()), (Trial::Running, Slot::B));
    let mut storage = restarted(&disk);
    assert_eq!((storage.boot_view().trial, storage.target()), (Trial::Running, Slot::B));
}

/// The default is made again from the environment while that is there.
#[test]
fn a_default_that_was_lost_is_made_again_at_start() {
    let mut storage = on_trial(SimDisk::new(), &release(&fixture(), 1));
    storage.install(InstallOp::Confirm).unwrap();
    let mut disk = storage.into_disk();
    disk.zero(Area::BootDefault);
    let mut disk = restarted(&disk).into_disk();
    disk.power_cut(Survival::None, 1);
    assert_eq!(would_start_without_environment(&disk), Slot::B);
}

/// The default is written before the environment here as well.
#[test]
fn once_the_environment_says_reverted_losing_it_keeps_the_old_image() {
    let disk = half_confirmed();
    let cuts = cut_everywhere(&disk, |storage| {
        let _ = storage.install(InstallOp::Revert);
    });
    let mut reverted = 0;
    for (place, disk) in cuts {
        if would_start(&disk) == Slot::A {
            reverted += 1;
            assert_eq!(would_start_without_environment(&disk), Slot::A, "{place}");
        }
    }
    assert!(reverted > 0);
}

/// The slot is protected before the new envelope is kept: otherwise the image that the slot holds could start under
/// the name of the release that is about to take its place.
#[test]
fn a_slot_that_can_start_keeps_the_envelope_of_its_image() {
    let fixture = fixture();
    let (old, new) = (release(&fixture, 1), release(&fixture, 2));
    let disk = armed(SimDisk::new(), &old).into_disk();
    let cuts = cut_everywhere(&disk, |storage| {
        drop(open(storage, &new));
    });
    let (mut starts, mut renamed) = (0, 0);
    for (place, disk) in cuts {
        let mut storage = restarted(&disk);
        let envelope = storage.load_envelope(Slot::B);
        if is_named(&disk, Slot::B) {
            starts += 1;
            assert_eq!(envelope, Some(old.envelope.clone()), "{place}");
        }
        renamed += u32::from(envelope == Some(new.envelope.clone()));
    }
    assert!(starts > 0 && renamed > 0);
}

/// Power goes and comes back, on a medium that is honest from then on: the slot that is started.
fn started_after(mut storage: Storage<Lying>) -> Slot {
    storage.disk_mut().lies = None;
    storage.disk_mut().cached.clear();
    Storage::start(storage.into_disk(), EnvironmentBoot::new(), StorageOptions::default())
        .unwrap()
        .boot()
        .unwrap()
}

#[test]
fn a_trial_is_not_armed_where_the_medium_has_another_boot_environment_than_was_written() {
    for lie in lies(&[Area::BootEnvironment]) {
        let mut storage = started(Lying::new());
        download(&mut storage, &release(&fixture(), 1));
        storage.install(InstallOp::Install).unwrap();
        storage.disk_mut().lies = Some(lie);
        assert_eq!(storage.install(InstallOp::Activate), Err(InstallFailure::Boot), "{lie:?}");
        assert_eq!(started_after(storage), Slot::A, "{lie:?}");
    }
}

#[test]
fn a_confirmation_fails_where_the_medium_has_another_boot_control_than_was_written() {
    for lie in lies(&[Area::BootEnvironment, Area::BootDefault]) {
        let mut storage = on_trial(Lying::new(), &release(&fixture(), 1));
        storage.disk_mut().lies = Some(lie);
        assert_eq!(storage.install(InstallOp::Confirm), Err(InstallFailure::Boot), "{lie:?}");
        assert_eq!(storage.target(), Slot::B, "{lie:?}: what was confirmed before still is");
        storage.disk_mut().lies = None;
        assert_eq!(storage.install(InstallOp::Confirm), Ok(()), "{lie:?}: once it is honest");
        assert_eq!(started_after(storage), Slot::B);
    }
}

#[test]
fn a_revert_fails_where_the_medium_has_another_boot_environment_than_was_written() {
    for lie in lies(&[Area::BootEnvironment]) {
        let mut storage = armed(Lying::new(), &release(&fixture(), 1));
        storage.disk_mut().lies = Some(lie);
        assert_eq!(storage.install(InstallOp::Revert), Err(InstallFailure::Boot), "{lie:?}");
        storage.disk_mut().lies = None;
        assert_eq!(storage.install(InstallOp::Revert), Ok(()), "{lie:?}: once it is honest");
        assert_eq!(started_after(storage), Slot::A);
    }
}

/// The slot of an armed trial is not written to before the medium was seen to say that nobody starts it, and whose
/// image comes there.
#[test]
fn nothing_is_opened_where_the_medium_has_something_else_than_protects_the_slot() {
    let fixture = fixture();
    for lie in lies(&[Area::BootEnvironment, Area::Manifests]) {
        let mut storage = armed(Lying::new(), &release(&fixture, 1));
        storage.disk_mut().lies = Some(lie);
        assert_eq!(open(&mut storage, &release(&fixture, 2)), Err(StoreFailure::Failed), "{lie:?}");
        storage.disk_mut().lies = None;
        assert!(open(&mut storage, &release(&fixture, 2)).is_ok(), "{lie:?}: once it is honest");
    }
}

#[test]
fn an_agent_does_not_start_where_the_medium_has_another_boot_control_than_was_written() {
    for lie in lies(&[Area::BootEnvironment, Area::BootDefault]) {
        let disk = Lying { lies: Some(lie), ..Lying::new() };
        let failed = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).err();
        let area = lie.0;
        assert!(
            matches!(failed, Some(StorageError::Disk(DiskError::Failed { area: at })) if at == area),
            "{lie:?}"
        );
    }
}

/// Otherwise an image that never comes up would be started for ever.
#[test]
fn a_trial_whose_start_the_medium_does_not_count_is_not_started() {
    for lie in lies(&[Area::BootEnvironment]) {
        let mut storage = armed(Lying::new(), &release(&fixture(), 1));
        storage.disk_mut().lies = Some(lie);
        assert_eq!(storage.boot().unwrap(), Slot::A, "{lie:?}");
    }
}

/// What was not acknowledged does not start, although it may have become durable.
#[test]
fn a_trial_whose_arming_failed_at_any_call_is_not_started() {
    let release = release(&fixture(), 1);
    let mut storage = started(SimDisk::new());
    download(&mut storage, &release);
    storage.install(InstallOp::Install).unwrap();
    let facts = *storage.facts(Slot::B).unwrap();
    let disk = storage.into_disk();
    let mut failures = 0;
    for fault in [DiskFault::Full, DiskFault::Failed] {
        for call in 1.. {
            let mut storage = restarted(&disk);
            storage.learn(Slot::B, facts);
            storage.disk_mut().kill();
            storage.disk_mut().fail_at(fault, call, false);
            let armed = storage.install(InstallOp::Activate);
            if storage.disk_mut().faults() == 0 {
                break;
            }
            if armed.is_ok() {
                continue;
            }
            failures += 1;
            let mut disk = storage.into_disk();
            disk.heal();
            assert_eq!(would_start(&disk), Slot::A, "{fault:?} at call {call}");
            disk.power_cut(Survival::Most, call);
            assert_eq!(would_start(&disk), Slot::A, "{fault:?} at call {call}, then a power cut");
        }
    }
    assert!(failures > 3);
}

/// The loader says that slot B runs, the medium that slot A is confirmed: nobody has confirmed what runs.
#[test]
fn what_runs_and_is_not_confirmed_is_on_trial_also_where_the_environment_was_lost() {
    let mut disk = on_trial(SimDisk::new(), &release(&fixture(), 1)).into_disk();
    disk.zero(Area::BootEnvironment);
    let told = Told::new(EnvironmentBoot::new(), Slot::B);
    let mut storage = Storage::start(disk, told, StorageOptions::default()).unwrap();
    assert_eq!((storage.running(), storage.target()), (Slot::B, Slot::B));
    assert_eq!(storage.boot_view().trial, Trial::Running);
    storage.install(InstallOp::Confirm).unwrap();
    assert_eq!((storage.boot_view().trial, storage.target()), (Trial::None, Slot::A));
    assert_eq!(would_start(storage.disk_mut()), Slot::B);
}

/// The loader counted a start of slot B, went back to slot A by itself and wrote that down nowhere. What it says it
/// started is what runs: the old image is not taken for the new one, and is not confirmed in its place.
#[test]
fn a_loader_that_fell_back_by_itself_is_believed_and_not_what_is_written_down() {
    let release = release(&fixture(), 1);
    let disk = on_trial(SimDisk::new(), &release).into_disk();
    let mut storage =
        Storage::start(disk, Told::new(EnvironmentBoot::new(), Slot::A), StorageOptions::default()).unwrap();
    assert_eq!((storage.running(), storage.target()), (Slot::A, Slot::B));
    assert_eq!(storage.boot_view().trial, Trial::Armed, "it does not run");
    assert_eq!(restarted(storage.disk_mut()).running(), Slot::B, "what is written down says otherwise");
}

/// That a trial was given up is told until the next one is on its way.
#[test]
fn a_failed_trial_is_told_of_until_its_slot_is_looked_at_again() {
    let release = release(&fixture(), 1);
    let mut storage = armed(SimDisk::new(), &release);
    let (image, size) = (Digest::of(&release.image), release.image.len() as u64);
    for _ in 0..4 {
        storage.boot().unwrap();
    }
    for place in [Place::Running, Place::Target] {
        assert_eq!(storage.boot_view().trial, Trial::Failed);
        let _ = storage.install(InstallOp::Match { place, image, size });
    }
    assert_eq!(storage.boot_view().trial, Trial::None);
    let mut storage = restarted(storage.disk_mut());
    assert_eq!(storage.boot_view().trial, Trial::None);
}

#[test]
fn a_trial_gets_at_least_one_start() {
    let release = release(&fixture(), 1);
    let disk = armed(SimDisk::new(), &release).into_disk();
    let mut storage = Storage::start(
        disk,
        EnvironmentBoot::new(),
        StorageOptions { tries: 0, ..StorageOptions::default() },
    )
    .unwrap();
    let facts = SlotFacts {
        release: release.digest,
        sequence: 1,
        image: Digest::of(&release.image),
        image_size: release.image.len() as u64,
    };
    assert_eq!(
        (storage.running(), storage.boot_view().trial),
        (Slot::A, Trial::Armed),
        "it was not started yet"
    );
    storage.learn(Slot::B, facts);
    storage.install(InstallOp::Activate).unwrap();
    assert_eq!(storage.boot().unwrap(), Slot::B);
    assert_eq!(storage.boot().unwrap(), Slot::A);
}

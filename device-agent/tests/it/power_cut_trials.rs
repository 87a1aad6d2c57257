//! Trials that the loader and the record do not agree on.

use whimbrel_engine::slot::Slot;
use whimbrel_protocol::device::InstallOp;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::message::{FailureCode, State};
use whimbrel_protocol::testing::{SimDisk, Survival};

use crate::power_cut::world;
use crate::power_cut_device::{End, Violation};
use crate::storage_support::{download, started};

const IMAGE_BYTES: usize = 20 * 1024;

/// The agent restarts the machine, finds that the old image runs again, and does so a few times, not for ever.
#[test]
fn a_loader_that_never_starts_the_trial_is_given_up_after_three_restarts() {
    let mut world = world::<SimDisk>(&[Codec::Raw], IMAGE_BYTES);
    world.loader_ignores_trials = true;
    world.reverts_are_ends = true;
    assert_eq!(world.run(), Ok(End::Reverted));
    assert_eq!(world.service.reports[0].failure, Some(FailureCode::NotBooted));
    // The first start, three restarts for the trial, one for its end.
    assert_eq!(world.boots, 5);
    world.loader_ignores_trials = false;
    world.reverts_are_ends = false;
    world.running = None;
    assert_eq!(world.run(), Ok(End::Confirmed), "with a loader that does, the next attempt works");
}

/// The environment says that the trial was started, and the loader says that the old image runs. The old image is not
/// tested in the new one's place, and never confirmed as if it were the new one.
#[test]
fn a_loader_that_fell_back_by_itself_ends_the_trial_as_not_booted() {
    let mut world = world::<SimDisk>(&[Codec::Raw], IMAGE_BYTES);
    world.loader_falls_back = true;
    world.reverts_are_ends = true;
    assert_eq!(world.run(), Ok(End::Reverted));
    assert_eq!(world.service.reports[0].failure, Some(FailureCode::NotBooted));
    assert_eq!(world.running, Some(Slot::A));
}

/// Somebody at the device installed the release that is then rolled out, and has not said that it is good. It is
/// neither reported as confirmed nor overwritten; when the loader has given it up, the update goes its way.
#[test]
fn an_image_that_a_person_is_trying_is_left_alone() {
    let mut world = world::<SimDisk>(&[Codec::Raw], IMAGE_BYTES);
    let mut storage = started(&mut world.disk);
    let release = alloc::sync::Arc::clone(world.service.release());
    download(&mut storage, &release);
    storage.install(InstallOp::Install).unwrap();
    storage.install(InstallOp::Activate).unwrap();
    for _ in 0..3 {
        world.running = None;
        assert_eq!(world.run(), Err(Violation::Stuck(State::Idle)));
        assert_eq!(world.running, Some(Slot::B));
        assert!(world.service.reports.is_empty());
        world.disk.power_cut(Survival::None, 1);
    }
    world.running = None;
    assert_eq!(world.run(), Ok(End::Confirmed));
    assert_eq!(world.service.served, 0, "the image was there already");
}

#[test]
fn a_person_confirms_what_they_try() {
    let mut world = world::<SimDisk>(&[Codec::Raw], IMAGE_BYTES);
    let release = alloc::sync::Arc::clone(world.service.release());
    let mut storage = started(&mut world.disk);
    download(&mut storage, &release);
    storage.install(InstallOp::Install).unwrap();
    storage.install(InstallOp::Activate).unwrap();
    storage.boot().unwrap();
    storage.install(InstallOp::Confirm).unwrap();
    assert_eq!(world.run(), Ok(End::Confirmed), "the campaign finds its release running");
    assert_eq!((world.running, world.service.served), (Some(Slot::B), 0));
}

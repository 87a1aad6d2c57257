//! Full disks: both sides report them, nothing is lost, and everything goes on when there is room again.
//!
//! These tests mount small disks. This needs root, so they run only if somebody asks for them.

use e2e::agent::Agent;
use e2e::bundle::{Bundle, Recipe, Release};
use e2e::disk::SmallDisk;
use e2e::stage::Stage;

/// A device with its data on a small disk. It has a confirmed release and gets another one when the disk is
/// full.
fn a_full_device_waits_and_goes_on(release: impl FnOnce(&Stage) -> Release) {
    let disk = SmallDisk::mount(16);
    let stage = Stage::embedded();
    let mut device = stage.new_device("meter-1");
    device.keep_data_in(&disk.path("data"));
    stage.enrol(&mut device);
    let first = stage.bundle.noise_release(1, 50_000);
    let campaign = stage.service.roll_out(&first);
    stage.wait_until_updated(&device, &first, &campaign);

    disk.fill();
    let second = release(&stage);
    let before = stage.proxy.traffic(device.id());
    let campaign = stage.service.roll_out(&second);
    let status = device.wait_for("it has no room", |status| status["reason"] == "room");
    assert_eq!(status["state"], "deferred", "{status}");
    assert!(Agent::counted(&status, "no-room") >= 1, "{status}");
    stage.service.wait_for_end(&campaign, device.id(), "deferred", Some("room"));
    let traffic = stage.proxy.traffic(device.id());
    assert_eq!(traffic.chunk_requests, before.chunk_requests, "all room is taken before the first chunk");
    // The device still runs what it ran, even after a reboot.
    device.reboot();
    let status = device.wait_for_state("deferred");
    assert_eq!(status["running"]["release"], first.digest.as_str(), "{status}");
    assert!(device.slot_holds("b", &first.image));

    // The device looks for room again after a while, and after a reboot at once.
    disk.free();
    device.reboot();
    stage.wait_until_updated(&device, &second, &campaign);
}

#[test]
#[ignore = "mounts a small disk, which takes root; scripts/test runs it where it is root"]
fn a_device_without_room_for_an_image_says_so_and_goes_on_when_there_is() {
    a_full_device_waits_and_goes_on(|stage| stage.bundle.noise_release(2, 2_000_000));
}

#[test]
#[ignore = "mounts a small disk, which takes root; scripts/test runs it where it is root"]
fn a_device_without_room_for_staging_says_so_and_goes_on_when_there_is() {
    a_full_device_waits_and_goes_on(|stage| {
        let image = e2e::bundle::noise(9, 300_000).into_iter().flat_map(|byte| [byte, 0, 0, byte]).collect();
        let release = stage.bundle.release(Recipe { image, flags: &[], ..Recipe::noise(2, 0) });
        assert!(release.transfer_size < release.image.len() as u64, "it is staged");
        release
    });
}

#[test]
#[ignore = "mounts a small disk, which takes root; scripts/test runs it where it is root"]
fn a_service_without_room_refuses_a_release_plainly_and_takes_it_when_there_is() {
    let disk = SmallDisk::mount(16);
    let set = format!("service.data={}", disk.path("data").display());
    let stage = Stage::embedded_with(Bundle::new(), &[&set]);
    let device = stage.device("meter-1");
    let first = stage.bundle.noise_release(1, 50_000);
    stage.service.publish(&first);
    let second = stage.bundle.noise_release(2, 1_000_000);

    disk.fill();
    let folder = second.folder.to_str().unwrap();
    let complaint = stage.service.whimbrel(["release", "publish", folder]).complaint();
    assert!(complaint.contains("no room") || complaint.contains("full"), "{complaint}");
    // The service answers all the time, and still has what it had.
    let status = stage.service.status();
    assert_eq!((&status["broker_up"], &status["devices"]["accepted"]), (&true.into(), &1.into()), "{status}");

    disk.free();
    let campaign = stage.service.campaign(&first, &[]);
    stage.wait_until_updated(&device, &first, &campaign);
    let campaign = stage.service.roll_out(&second);
    stage.wait_until_updated(&device, &second, &campaign);
}

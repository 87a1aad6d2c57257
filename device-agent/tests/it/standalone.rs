//! Releases from a folder: no broker, no service, only the release keys.

use alloc::sync::Arc;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use whimbrel_agent::disk::FileDisk;
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{PatchMode, Storage, StorageOptions, StoreAnswer};
use whimbrel_protocol::chunk::{ChunkSalt, Index, Layout};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::{Record, StoreOp};
use whimbrel_protocol::ids::ClassId;
use whimbrel_protocol::manifest::{Codec, TransferDescriptor};
use whimbrel_protocol::message::{FailureCode, Outcome};
use whimbrel_protocol::testing::Fixture;

use crate::broker::{Mosquitto, eventually};
use crate::power_cut_service::{Release, Service};
use crate::rig::{Attached, Device, noise, write_release};
use crate::storage_support::FRESH;

/// A device without a broker, and a stick.
fn device_and_stick() -> (Fixture, Device, PathBuf) {
    let fixture = Fixture::new();
    let device = Device::new(&fixture, 1);
    let stick = device.path("stick");
    (fixture, device, stick)
}

fn image_in(device: &Device, slot: &str) -> Vec<u8> {
    fs::read(device.path("data").join(format!("slot-{slot}.img"))).unwrap_or_default()
}

#[test]
fn a_release_is_installed_started_and_committed_by_hand() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let (fixture, device, stick) = device_and_stick();
        // More chunks than one index page has.
        let release = Release::new(&fixture, codec, noise(1, 700_000), 1);
        write_release(&stick, &release);
        let stick = stick.to_str().unwrap();

        let install = device.run(&["install", stick]);
        assert_eq!(install.code, Some(4), "{install:?}");
        assert_eq!(install.stdout, "version 1.0.1 is in slot b and starts with the next reboot\n");
        assert!(device.slot_holds("b", &release.image));
        assert_eq!(device.run(&["commit"]).code, Some(4), "it has to be started first");
        device.run(&["install", stick]).assert_refused("another image is on trial");

        assert!(device.run(&["boot"]).stdout.ends_with("slot-b.img\n"));
        assert_eq!(device.status()["running"]["trial"], "running");
        assert_eq!(device.run(&["commit"]).code, Some(0));
        assert_eq!(device.run(&["commit"]).code, Some(2));
        let status = device.status();
        assert_eq!(
            (&status["running"]["version"], &status["running"]["trial"]),
            (&"1.0.1".into(), &"none".into())
        );
        assert!(device.run(&["boot"]).stdout.ends_with("slot-b.img\n"));
        let again = device.run(&["install", stick]);
        assert_eq!((again.code, again.stdout.as_str()), (Some(0), "this release is running already\n"));
    }
}

/// Of a release with a patch, which of its two files are on the stick, and what else is wrong there.
#[test]
fn the_manifest_chooses_between_the_patch_and_the_full_payload_on_the_stick() {
    let patched = format!(", made by a patch of {} bytes,", FRESH.patch.len());
    let whole = FRESH.new.len() as u64;
    let spoil = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[700] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    for (what, says, codec) in [
        ("only the patch", Some(&*patched), "patch"),
        ("only the full payload", Some(""), "raw"),
        ("both, and another image runs", Some(""), "raw"),
        ("both, and the patch is damaged", Some(""), "raw"),
        ("both, and little memory", Some(""), "raw"),
        ("neither", None, ""),
    ] {
        let (fixture, mut device, stick) = device_and_stick();
        let slot_a = device.path("data").join("slot-a.img");
        fs::write(&slot_a, FRESH.old).unwrap();
        let release = FRESH.release(&fixture);
        let [patch, full] = write_release_with_patch(&stick, &release);
        match what {
            "only the patch" => fs::remove_file(&full).unwrap(),
            "only the full payload" => fs::remove_file(&patch).unwrap(),
            "neither" => [&patch, &full].into_iter().for_each(|path| fs::remove_file(path).unwrap()),
            "both, and another image runs" => spoil(&slot_a),
            "both, and the patch is damaged" => spoil(&patch),
            _ => device = device.set("download.decoder-memory=64KiB"),
        }
        if what.contains("memory") && FRESH.decoder().memory_bytes <= 64 * 1024 {
            continue;
        }
        let install = device.run(&["install", stick.to_str().unwrap()]);
        let Some(says) = says else {
            install.assert_refused("cannot read");
            continue;
        };
        assert_eq!(install.code, Some(4), "{what}: {install:?}");
        let line = format!("version 1.0.1 is in slot b{says} and starts with the next reboot\n");
        assert_eq!(install.stdout, line, "{what}");
        assert!(device.slot_holds("b", FRESH.new), "{what}");
        let status = device.status();
        assert_eq!(status["codec"], codec, "{what}");
        let bytes = if codec == "patch" { FRESH.patch.len() as u64 } else { whole };
        assert_eq!(status["payload_bytes"], bytes, "{what}");
    }
}

#[test]
fn a_release_is_installed_from_a_stick_by_patch_in_every_mode() {
    for mode in PatchMode::ALL {
        let (fixture, device, stick) = device_and_stick();
        let device = device.set(&format!("install.patch={}", mode.name())).set("install.patch-buffer=4KiB");
        fs::write(device.path("data").join("slot-a.img"), FRESH.old).unwrap();
        write_release_with_patch(&stick, &FRESH.release(&fixture));
        assert_eq!(device.run(&["install", stick.to_str().unwrap()]).code, Some(4));
        assert!(device.slot_holds("b", FRESH.new), "{}", mode.name());
        let staged = fs::metadata(device.path("data").join("staging.bin")).unwrap().len();
        assert_eq!(staged <= 4 * 1024, mode == PatchMode::Stream, "{}: {staged}", mode.name());
    }
}

/// Writes both payloads; gives their paths.
fn write_release_with_patch(stick: &Path, release: &Release) -> [PathBuf; 2] {
    write_release(stick, release);
    let full = release.full.as_ref().unwrap();
    let path = |index: &whimbrel_protocol::ids::Digest| stick.join(format!("{index}.payload"));
    let [patch, full_path] = [path(&release.transfer.index_digest), path(&full.transfer.index_digest)];
    fs::write(&full_path, &full.payload).unwrap();
    [patch, full_path]
}

#[test]
fn a_release_is_rolled_back_by_hand_before_and_after_its_start() {
    let (fixture, device, stick) = device_and_stick();
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(2, 30_000), 1));
    let stick = stick.to_str().unwrap();
    assert_eq!(device.run(&["rollback"]).code, Some(2));

    assert_eq!(device.run(&["install", stick]).code, Some(4));
    assert_eq!(device.run(&["rollback"]).code, Some(0));
    assert!(device.run(&["boot"]).stdout.ends_with("slot-a.img\n"));
}

#[test]
fn a_started_release_is_rolled_back_with_the_next_reboot() {
    let (fixture, device, stick) = device_and_stick();
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(3, 30_000), 1));
    assert_eq!(device.run(&["install", stick.to_str().unwrap()]).code, Some(4));
    assert!(device.run(&["boot"]).stdout.ends_with("slot-b.img\n"));
    assert_eq!(device.run(&["rollback"]).code, Some(4));
    assert!(device.run(&["boot"]).stdout.ends_with("slot-a.img\n"));
}

#[test]
fn an_image_that_nobody_commits_is_given_up_by_the_boot_loader() {
    let (fixture, device, stick) = device_and_stick();
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(4, 30_000), 1));
    assert_eq!(device.run(&["install", stick.to_str().unwrap()]).code, Some(4));
    for _ in 0..3 {
        assert!(device.run(&["boot"]).stdout.ends_with("slot-b.img\n"));
    }
    assert!(device.run(&["boot"]).stdout.ends_with("slot-a.img\n"));
    assert_eq!(device.status()["running"]["trial"], "failed");
    assert_eq!(device.run(&["commit"]).code, Some(2));
}

/// What is refused is refused before a byte of the slot is written.
#[test]
fn releases_that_this_device_must_not_take_are_refused_by_name() {
    let (fixture, device, stick) = device_and_stick();
    let install = |says: &str| {
        device.run(&["install", stick.to_str().unwrap()]).assert_refused(says);
        assert!(image_in(&device, "b").is_empty(), "{says}");
    };
    install("cannot read");

    let good = Release::new(&fixture, Codec::Raw, noise(5, 30_000), 5);
    let other_key = SigningKey::ed25519(&[77; 32]);
    let forge = |class, key: &SigningKey| {
        let forged = fixture.release_for(class, key, good.image.clone(), 5, 10);
        let layout = Layout::new(10, good.image.len() as u64).unwrap();
        let salt = ChunkSalt {
            image: whimbrel_protocol::ids::Digest::of(&good.image),
            transfer_size: good.image.len() as u64,
        };
        let index = Index::build(salt, layout, &good.image);
        Release {
            envelope: forged.envelope,
            digest: forged.digest,
            sequence: 5,
            image: good.image.clone(),
            payload: good.image.clone(),
            transfer: TransferDescriptor::raw(layout, index.digest),
            index,
            base: None,
            full: None,
        }
    };
    write_release(&stick, &forge(fixture.class, &other_key));
    install("envelope is not authentic");
    write_release(&stick, &forge(ClassId::from_name(fixture.vendor, "pump"), &fixture.release_key));
    install("the manifest does not fit this device");

    write_release(&stick, &good);
    for at in [0, good.envelope.len() / 2, good.envelope.len() - 1] {
        let mut envelope = good.envelope.clone();
        envelope[at] ^= 1;
        fs::write(stick.join("release.suit"), &envelope).unwrap();
        install("is refused");
    }
    fs::write(stick.join("release.suit"), vec![0; 10_000]).unwrap();
    install("is refused");

    fs::write(stick.join("release.suit"), &good.envelope).unwrap();
    let payload = stick.join(format!("{}.payload", good.transfer.index_digest));
    let mut bytes = good.payload.clone();
    bytes[12_345] ^= 1;
    fs::write(&payload, &bytes).unwrap();
    install("is not the payload that the release names");
    fs::write(&payload, &good.payload[1..]).unwrap();
    install("is not the payload that the release names");
    fs::remove_file(&payload).unwrap();
    install("cannot read");
}

#[test]
fn an_older_release_is_refused_after_a_newer_one_was_confirmed() {
    let (fixture, device, stick) = device_and_stick();
    let stick_path = stick.to_str().unwrap();
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(6, 30_000), 7));
    assert_eq!(device.run(&["install", stick_path]).code, Some(4));
    device.run(&["boot"]);
    assert_eq!(device.run(&["commit"]).code, Some(0));

    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(7, 30_000), 6));
    device.run(&["install", stick_path]).assert_refused("sequence 6 is refused: this device has confirmed 7");
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(8, 30_000), 7));
    device.run(&["install", stick_path]).assert_refused("another image was confirmed with the same number");
}

/// What a campaign said once holds without a campaign, although nothing of that sequence was ever confirmed here.
#[test]
fn a_release_below_the_minimum_that_was_seen_is_refused() {
    let (fixture, device, stick) = device_and_stick();
    let disk = FileDisk::open(&device.path("data")).unwrap();
    let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
    let record = Record { root: fixture.root_bytes(), min_sequence: 9, ..Record::default() };
    let saved = storage.carry_out(StoreOp::SaveRecord(record.encode()));
    assert_eq!(saved, StoreAnswer::Stored(Ok(())));
    drop(storage);
    let install = |sequence| {
        write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(6, 30_000), sequence));
        device.run(&["install", stick.to_str().unwrap()])
    };
    install(8).assert_refused("sequence 8 is refused: this device has confirmed 9");
    assert!(image_in(&device, "b").is_empty());
    assert_eq!(install(9).code, Some(4));
}

#[test]
fn a_release_that_needs_more_memory_than_the_owner_allows_is_refused() {
    let (fixture, device, stick) = device_and_stick();
    let release = Release::new(&fixture, Codec::Lzma, noise(6, 30_000), 1);
    let need = release.transfer.decoder.unwrap().memory_bytes;
    write_release(&stick, &release);
    let device = device.set(&format!("download.decoder-memory={}B", need - 1));
    let says = format!("decoding needs {need} bytes of memory, download.decoder-memory allows {}", need - 1);
    device.run(&["install", stick.to_str().unwrap()]).assert_refused(&says);
    assert!(image_in(&device, "b").is_empty());
    let device = device.set(&format!("download.decoder-memory={need}B"));
    assert_eq!(device.run(&["install", stick.to_str().unwrap()]).code, Some(4));
}

#[test]
fn installing_from_a_folder_can_be_switched_off() {
    let (fixture, device, stick) = device_and_stick();
    let device = device.set("install.standalone=off");
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(9, 30_000), 1));
    device.run(&["install", stick.to_str().unwrap()]).assert_refused("install.standalone = \"off\"");
}

#[test]
fn the_installing_hook_is_asked_before_anything_is_written() {
    let (fixture, device, stick) = device_and_stick();
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(10, 30_000), 1));
    device.hook("Installing_Enter_10_pump", "exit 21");
    device.run(&["install", stick.to_str().unwrap()]).assert_refused("Installing_Enter asks to wait");
    device.hook("Installing_Enter_10_pump", "exit 1");
    device.run(&["install", stick.to_str().unwrap()]).assert_refused("Installing_Enter refuses");
    assert!(image_in(&device, "b").is_empty());
}

#[test]
fn a_running_agent_installs_starts_and_confirms_what_it_is_told_to() {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let mut device = Device::new(&fixture, broker.port);
    let stick = device.path("stick");
    let release = Release::new(&fixture, Codec::Raw, noise(11, 60_000), 3);
    write_release(&stick, &release);
    // The campaign's release is older than the one on the stick.
    let old = Arc::new(Release::new(&fixture, Codec::Raw, noise(12, 60_000), 1));
    let service = Attached::start(&broker, Service::new(Arc::clone(&fixture), vec![old]));
    service.lock().silent_after = Some(0);
    device.start();
    device.wait_for("the agent runs", |status| status["daemon"] == true);
    assert_eq!(device.run(&["install", stick.to_str().unwrap()]).code, Some(4));
    service.lock().silent_after = None;
    let report = eventually("a report arrives", || {
        let served = service.lock();
        served.service.reports.iter().find(|report| report.release == release.digest).cloned()
    });
    assert_eq!((report.outcome, report.sequence), (Outcome::Confirmed, 3));
    assert!(device.slot_holds("b", &release.image));
    // What the campaign orders is older now, and refused.
    let refused = eventually("the campaign's release is refused", || {
        let served = service.lock();
        served.service.reports.iter().find(|report| report.release != release.digest).cloned()
    });
    assert_eq!((refused.outcome, refused.failure), (Outcome::Failed, Some(FailureCode::Rollback)));
}

#[test]
fn what_was_done_by_hand_is_reported_when_there_is_a_link() {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let mut device = Device::new(&fixture, broker.port);
    let stick = device.path("stick");
    let releases =
        [1, 2].map(|sequence| Release::new(&fixture, Codec::Raw, noise(sequence, 30_000), sequence));
    for release in &releases {
        write_release(&stick, release);
        assert_eq!(device.run(&["install", stick.to_str().unwrap()]).code, Some(4));
        device.run(&["boot"]);
        assert_eq!(device.run(&["commit"]).code, Some(0));
    }
    assert_eq!(device.status()["reports_waiting"], 2);
    let [_, latest] = releases;
    let digest = latest.digest;
    let service = Attached::start(&broker, Service::new(fixture, vec![Arc::new(latest)]));
    device.start();
    let arrived = eventually("three reports arrive", || {
        let served = service.lock();
        (served.service.reports.len() == 3).then(|| served.service.reports.clone())
    });
    let told: Vec<_> = arrived
        .iter()
        .map(|report| (report.campaign.0[0], report.attempt, report.sequence, report.outcome))
        .collect();
    // By hand twice; then the campaign, which finds its release running.
    let confirmed = Outcome::Confirmed;
    assert_eq!(told, [(0, 1, 1, confirmed), (0, 2, 2, confirmed), (1, 1, 2, confirmed)]);
    assert_eq!(arrived[1].release, digest);
}

/// What came over the link is not read from the stick, and the other way round.
#[test]
fn a_stick_finishes_what_the_link_began() {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let mut device = Device::new(&fixture, broker.port);
    let release = Arc::new(Release::new(&fixture, Codec::Raw, noise(13, 200_000), 1));
    let service = Attached::start(&broker, Service::new(Arc::clone(&fixture), vec![Arc::clone(&release)]));
    service.lock().silent_after = Some(100_000);
    device.start();
    eventually("half of it is here", || (service.lock().service.served >= 100_000).then_some(()));
    let served = service.lock().service.served;
    device.wait_for("everything sent has arrived", |status| status["bytes_received"] == served);
    assert_eq!(device.terminate(), Some(0));

    let stick = device.path("stick");
    write_release(&stick, &release);
    assert_eq!(device.run(&["install", stick.to_str().unwrap()]).code, Some(4));
    assert!(device.slot_holds("b", &release.image));
    service.lock().silent_after = None;
    device.start();
    let report = eventually("a report arrives", || service.lock().service.reports.first().cloned());
    assert_eq!(
        (report.outcome, report.campaign.0),
        (Outcome::Confirmed, [1; 8]),
        "it counts for the campaign"
    );
    assert_eq!(service.lock().service.served, served, "nothing more was fetched");
}

#[test]
fn a_folder_that_nobody_may_write_is_an_error_in_one_line() {
    let (fixture, device, stick) = device_and_stick();
    write_release(&stick, &Release::new(&fixture, Codec::Raw, noise(14, 30_000), 1));
    let device = device.set("storage.data=/proc/whimbrel");
    device.run(&["install", stick.to_str().unwrap()]).assert_refused("/proc/whimbrel");
    device.run(&["status"]).assert_refused("there is no data folder /proc/whimbrel");
}

#[test]
fn a_key_that_others_can_read_keeps_the_daemon_from_starting_but_not_the_device_from_booting() {
    let (_, device, _) = device_and_stick();
    fs::set_permissions(device.path("data/device.cose"), fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = device.run(&["daemon", "--log", "error"]);
    daemon.assert_refused("has mode 0644: others must not read a private key");
    fs::write(device.path("root.cbor"), b"no root").unwrap();
    assert!(device.run(&["boot"]).stdout.ends_with("slot-a.img\n"));
}

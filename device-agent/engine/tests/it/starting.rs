//! What a device finds when it starts.

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{Storage, StorageError, StorageOptions, StoreAnswer};
use whimbrel_engine::{Accepts, Finding, Inventory, StartError, trust_anchor};
use whimbrel_protocol::cose::{Accept, SigningKey};
use whimbrel_protocol::device::{Deployment, Stage, StoreOp};
use whimbrel_protocol::disk::{Area, Disk as _, DiskError};
use whimbrel_protocol::testing::{DiskFault, Fixture, OrderOptions, SimDisk};
use whimbrel_protocol::trust::TrustError;

use crate::host::anchor;

fn take(disk: &mut SimDisk, fixture: &Fixture) -> Result<Inventory, StartError<TrustError>> {
    let mut storage = Storage::start(disk, EnvironmentBoot::new(), StorageOptions::default())?;
    let accepts = Accepts { vendor: fixture.vendor, class: fixture.class, signatures: Accept::WITH_ES256 };
    Inventory::take(&mut storage, &accepts, anchor(fixture))
}

#[test]
fn the_trust_anchor_is_pinned_at_the_first_start() {
    let fixture = Fixture::new();
    let mut disk = SimDisk::new();
    let first = take(&mut disk, &fixture).unwrap();
    assert_eq!(first.findings, [Finding::RootPinned { version: 1 }]);
    disk.power_cut(whimbrel_protocol::testing::Survival::None, 1);
    let second = take(&mut disk, &fixture).unwrap();
    assert_eq!((second.findings, second.record.root), (Vec::new(), fixture.root_bytes()));
}

/// A root with a higher version, signed by the root key that is pinned.
fn next_root(fixture: &Fixture, signer: &SigningKey) -> Vec<u8> {
    let mut root = fixture.root();
    root.version = 2;
    let key = SigningKey::ed25519(&[9; 32]);
    root.roles[0].keys = vec![key.public()];
    root.sign(&[&key, signer])
}

#[test]
fn an_offered_root_counts_if_it_follows_from_the_pinned_one() {
    let fixture = Fixture::new();
    let pinned = fixture.root_bytes();
    assert!(trust_anchor(&[], &[]).is_err());
    assert_eq!(trust_anchor(&[], &pinned), Ok((fixture.root(), pinned.clone())));
    let successor = next_root(&fixture, &fixture.root_key);
    assert_eq!(trust_anchor(&pinned, &successor).unwrap().1, successor);
    let stranger = next_root(&fixture, &SigningKey::ed25519(&[8; 32]));
    for refused in [&stranger[..], &[]] {
        assert_eq!(trust_anchor(&pinned, refused), Ok((fixture.root(), pinned.clone())));
    }
    assert_eq!(trust_anchor(&successor, &pinned).unwrap().1, successor, "there is no way back");
}

#[test]
fn a_damaged_record_is_found_and_does_not_keep_the_device_from_starting() {
    let fixture = Fixture::new();
    let mut disk = SimDisk::new();
    take(&mut disk, &fixture).unwrap();
    for copy in 0..2 {
        disk.flip(Area::Record, copy * 36 * 1024 * 8 + 100);
    }
    let found = take(&mut disk, &fixture).unwrap().findings;
    assert_eq!(found, [Finding::RecordDamaged, Finding::RootPinned { version: 1 }]);
}

/// Starts with each call of the medium failing once for good, on a device with an update at `stage`: what comes of it
/// if the envelopes are what cannot be read.
fn with_unreadable_envelopes(stage: Stage) -> Vec<Result<Inventory, StartError<TrustError>>> {
    let fixture = Fixture::new();
    let mut disk = SimDisk::new();
    let mut record = take(&mut disk, &fixture).unwrap().record;
    let release = fixture.release(vec![5; 3000], 1, 10);
    record.deployment = Some(Deployment::new(fixture.order(&release, OrderOptions::default()), stage));
    let mut storage = Storage::start(&mut disk, EnvironmentBoot::new(), StorageOptions::default()).unwrap();
    // Twice, so that both copies say it: whichever cannot be read, the other one counts.
    for _ in 0..2 {
        let saved = storage.carry_out(StoreOp::SaveRecord(record.encode()));
        assert_eq!(saved, StoreAnswer::Stored(Ok(())));
    }
    let envelope = vec![1; 100];
    disk.write(Area::Manifests, 0, &envelope).unwrap();
    let calls = disk.calls(DiskFault::Failed);
    let mut whole = disk.clone();
    take(&mut whole, &fixture).unwrap();
    let last = whole.calls(DiskFault::Failed) - calls;
    let failed = StartError::Storage(StorageError::Disk(DiskError::Failed { area: Area::Manifests }));
    let starts = (1..=last).map(|call| {
        let mut disk = disk.clone();
        disk.fail_at(DiskFault::Failed, calls + call, true);
        take(&mut disk, &fixture)
    });
    let about_envelopes = |start: &Result<Inventory, _>| match start {
        Ok(inventory) => {
            inventory.findings.iter().any(|found| matches!(found, Finding::EnvelopeUnreadable { .. }))
        }
        Err(error) => *error == failed,
    };
    starts.filter(about_envelopes).collect()
}

/// The slot whose envelope cannot be read may be the one on trial. A session that knew nothing of it would end the
/// deployment, and leave the device with an image that nobody confirms or reverts.
#[test]
fn a_device_does_not_start_an_installed_update_while_an_envelope_cannot_be_read() {
    let starts = with_unreadable_envelopes(Stage::Armed);
    // More than the two calls of `Storage::start`, which flushes the area and drops its cache.
    assert!(starts.len() > 2 && starts.iter().all(Result::is_err), "{starts:?}");
}

#[test]
fn an_envelope_that_cannot_be_read_keeps_no_device_from_starting_that_has_nothing_installed() {
    let starts = with_unreadable_envelopes(Stage::Fetching);
    assert_eq!(starts.iter().filter(|start| start.is_err()).count(), 2, "{starts:?}");
    assert!(starts.len() > 2, "{starts:?}");
}

use whimbrel_protocol::cose::Sign1;
use whimbrel_protocol::ids::{GroupName, Nonce};
use whimbrel_protocol::message::Validity;
use whimbrel_protocol::testing::{Fixture, OrderOptions};

use super::*;

/// The files of a service, in a folder of their own.
fn files(folder: &Path, root: &[u8], campaign: &SigningKey, beacon: &SigningKey) -> AuthorityFiles {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    AuthorityFiles {
        root: write("root.cbor", root),
        campaign_key: write("campaign.cose", &campaign.encode_file()),
        beacon_key: write("beacon.cose", &beacon.encode_file()),
    }
}

fn load(root: &[u8], campaign: &SigningKey, beacon: &SigningKey) -> Result<Authority, SigningError> {
    let folder = tempfile::tempdir().unwrap();
    Authority::load(&files(folder.path(), root, campaign, beacon))
}

#[test]
fn each_document_is_signed_with_the_key_of_its_role_and_as_what_it_is() {
    let fixture = Fixture::new();
    let authority = load(&fixture.root_bytes(), &fixture.campaign_key, &fixture.beacon_key).unwrap();
    let root = fixture.root();
    let validity = Validity { version: 1, issued: fixture.issued, expires: fixture.issued.plus_secs(60) };
    let release = fixture.release(vec![1; 2000], 1, 10);
    let campaign = Campaign {
        prefix: "ota".parse().unwrap(),
        group: fixture.group.clone(),
        validity,
        order: fixture.order(&release, OrderOptions::default()),
    };
    let assignment = Assignment {
        prefix: "ota".parse().unwrap(),
        device: fixture.device.clone(),
        validity,
        groups: Vec::from([GroupName::new("all").unwrap()]),
        root: 1,
        order: None,
    };
    let beacon = Beacon { prefix: "ota".parse().unwrap(), validity, groups: Vec::new(), root: 1 };
    let answer = HelloAnswer {
        echo: Nonce([7; 8]).echo(&fixture.device),
        time: fixture.issued,
        root: 1,
        assignment: 1,
        groups: Vec::new(),
        report: None,
        key: fixture.device_key.public().id(),
    };
    for (signed, role, kind, payload) in [
        (authority.campaign(&campaign), Role::Campaign, Kind::Campaign, campaign.encode()),
        (authority.assignment(&assignment), Role::Campaign, Kind::Assignment, assignment.encode()),
        (authority.beacon(&beacon), Role::Beacon, Kind::Beacon, beacon.encode()),
        (authority.answer(&answer), Role::Beacon, Kind::Answer, answer.encode()),
    ] {
        let object = Sign1::decode(&signed).unwrap();
        assert_eq!(root.verify_object(role, kind, &object), Ok(&payload[..]), "{kind:?}");
    }
}

#[test]
fn a_key_that_the_root_does_not_name_for_its_role_is_refused() {
    let fixture = Fixture::new();
    let root = fixture.root_bytes();
    let (campaign, beacon) = (&fixture.campaign_key, &fixture.beacon_key);
    load(&root, campaign, beacon).unwrap();
    for (campaign, beacon, role) in [
        (&fixture.device_key, beacon, Role::Campaign),
        (campaign, &fixture.device_key, Role::Beacon),
        // Each has another role.
        (beacon, beacon, Role::Campaign),
        (campaign, campaign, Role::Beacon),
        (&fixture.release_key, beacon, Role::Campaign),
    ] {
        let error = load(&root, campaign, beacon).unwrap_err();
        assert!(matches!(&error, SigningError::Role { role: named, .. } if *named == role.name()), "{error}");
    }
}

#[test]
fn a_root_or_a_key_that_is_none_is_refused_by_its_path() {
    let fixture = Fixture::new();
    let (campaign, beacon) = (&fixture.campaign_key, &fixture.beacon_key);
    let mut root = fixture.root_bytes();
    *root.last_mut().unwrap() ^= 1;
    assert!(matches!(load(&root, campaign, beacon), Err(SigningError::Root { .. })));
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), &fixture.root_bytes(), campaign, beacon);
    fs::write(&files.beacon_key, "no key").unwrap();
    let error = Authority::load(&files).unwrap_err();
    assert!(matches!(&error, SigningError::Key { path, .. } if *path == files.beacon_key), "{error}");
    fs::remove_file(&files.campaign_key).unwrap();
    let error = Authority::load(&files).unwrap_err();
    assert!(matches!(&error, SigningError::Read { path, .. } if *path == files.campaign_key), "{error}");
}

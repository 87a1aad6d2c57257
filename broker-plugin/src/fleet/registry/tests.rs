use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::time::UnixTime;

use bytes::Bytes;
use whimbrel_protocol::cose::PublicKey;
use whimbrel_protocol::limits::GROUPS_MAX;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn key(secret: u8) -> PublicKey {
    SigningKey::ed25519(&[secret; 32]).public()
}

fn enrolment(name: &str, secret: u8) -> Enrolment {
    Enrolment { device: id(name), key: key(secret), class: ClassId([7; 16]) }
}

/// Accepts a device the way the service does: plan, sign, enter.
fn accept(registry: &mut Registry, name: &str, secret: u8) -> u64 {
    let assignment = registry.plan_accept(&id(name), key(secret).fingerprint(), None).unwrap().unwrap();
    let version = assignment.version;
    registry.enter(assignment.into_device(Bytes::from_static(b"signed")));
    version
}

fn reset(registry: &mut Registry, name: &str) {
    let device = registry.plan_reset(&id(name)).unwrap();
    registry.enter(device);
}

#[test]
fn a_device_that_enrols_is_pending_until_it_is_accepted_by_fingerprint() {
    let mut registry = Registry::default();
    assert!(matches!(registry.enrol(enrolment("m1", 1), NOW), Enrolled::Pending { dropped: None, .. }));
    assert!(registry.device(&id("m1")).unwrap().is_pending());
    assert_eq!((registry.pending(), registry.accepted()), (1, 0));
    assert_eq!(accept(&mut registry, "m1", 1), 1);
    let device = registry.device(&id("m1")).unwrap();
    assert_eq!((device.is_accepted(), device.groups()), (true, &[group("all")][..]));
    assert_eq!((registry.pending(), registry.accepted()), (0, 1));
}

#[test]
fn assignments_go_on_above_what_an_operator_accepted() {
    let mut registry = Registry::default();
    registry.number_above(1000);
    registry.enrol(enrolment("m1", 1), NOW);
    assert_eq!(accept(&mut registry, "m1", 1), 1001);
    let moved = registry.plan_groups(&id("m1"), vec![group("north")]).unwrap().unwrap();
    assert_eq!(moved.version, 1002);
    let (class, groups) = (ClassId([7; 16]), vec![group("all")]);
    let device = ImportLine { number: 1, device: id("m2"), key: key(2), class, groups };
    assert_eq!(registry.plan_import(vec![device]).unwrap().assignments[0].version, 1001);
}

#[test]
fn another_fingerprint_is_refused_and_both_are_named() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    let error = registry.plan_accept(&id("m1"), key(2).fingerprint(), None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&key(1).fingerprint().to_string()), "{text}");
    assert!(text.contains(&key(2).fingerprint().to_string()), "{text}");
}

#[test]
fn an_id_is_never_given_another_key_unless_it_is_reset() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    assert_eq!(registry.enrol(enrolment("m1", 2), NOW), Enrolled::OtherKey, "while pending");
    accept(&mut registry, "m1", 1);
    assert_eq!(registry.enrol(enrolment("m1", 2), NOW), Enrolled::OtherKey, "while accepted");
    assert_eq!(registry.device(&id("m1")).unwrap().key(), Some(&key(1)));
    reset(&mut registry, "m1");
    assert_eq!(registry.device(&id("m1")).unwrap().key(), Some(&key(2)), "the one that it brought waits now");
    reset(&mut registry, "m1");
    assert!(matches!(registry.enrol(enrolment("m1", 3), NOW), Enrolled::Pending { .. }));
    assert_eq!(registry.device(&id("m1")).unwrap().key(), Some(&key(3)));
}

#[test]
fn the_same_key_again_changes_nothing() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    assert_eq!(registry.enrol(enrolment("m1", 1), NOW), Enrolled::Known);
    assert!(registry.device(&id("m1")).unwrap().is_pending());
    accept(&mut registry, "m1", 1);
    let before = registry.device(&id("m1")).unwrap().clone();
    assert_eq!(registry.enrol(enrolment("m1", 1), NOW), Enrolled::Known);
    assert_eq!(registry.device(&id("m1")), Some(&before));
}

#[test]
fn at_most_ten_thousand_are_pending_and_the_oldest_makes_room() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("kept", 1), NOW);
    accept(&mut registry, "kept", 1);
    for number in 0..PENDING_MAX {
        let enrolled = registry.enrol(enrolment(&format!("m{number}"), 1), NOW);
        assert!(matches!(enrolled, Enrolled::Pending { dropped: None, .. }));
    }
    let Enrolled::Pending { dropped, .. } = registry.enrol(enrolment("newest", 1), NOW) else { panic!() };
    assert_eq!(dropped, Some(id("m0")));
    assert_eq!(registry.pending(), PENDING_MAX);
    assert!(registry.device(&id("m0")).is_none() && registry.device(&id("newest")).is_some());
    assert!(registry.device(&id("kept")).unwrap().is_accepted(), "the accepted are not touched");
}

#[test]
fn the_order_of_the_pending_survives_a_restart() {
    let mut registry = Registry::default();
    for number in 0..PENDING_MAX {
        // Ids that sort against the order in which they come.
        registry.enrol(enrolment(&format!("m{:05}", PENDING_MAX - number), 1), NOW);
    }
    let stored: Vec<Device> = registry.devices_after(None).cloned().collect();
    let mut registry = Registry::load(stored);
    let Enrolled::Pending { dropped, .. } = registry.enrol(enrolment("newest", 1), NOW) else { panic!() };
    assert_eq!(dropped, Some(id(&format!("m{PENDING_MAX:05}"))));
}

/// The device holds the highest version that it has seen and refuses what is older.
#[test]
fn versions_of_assignments_never_fall_also_across_a_reset_and_an_eviction() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    assert_eq!(accept(&mut registry, "m1", 1), 1);
    let groups = registry.plan_groups(&id("m1"), vec![group("north")]).unwrap().unwrap();
    assert_eq!(groups.version, 2);
    registry.enter(groups.into_device(Bytes::new()));
    reset(&mut registry, "m1");
    registry.enrol(enrolment("m1", 2), NOW);
    for number in 0..PENDING_MAX {
        registry.enrol(enrolment(&format!("x{number}"), 1), NOW);
    }
    assert_eq!(registry.device(&id("m1")).unwrap().standing, Standing::Forgotten, "made room");
    registry.enrol(enrolment("m1", 3), NOW);
    assert_eq!(accept(&mut registry, "m1", 3), 3);
}

#[test]
fn a_device_that_is_accepted_with_the_same_groups_again_stays_as_it_is() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    accept(&mut registry, "m1", 1);
    let again = |groups| registry.plan_accept(&id("m1"), key(1).fingerprint(), groups);
    assert_eq!(again(None), Ok(None));
    assert_eq!(again(Some(vec![group("all")])), Ok(None));
    assert_eq!(again(Some(vec![group("north")])).unwrap().unwrap().version, 2);
    assert_eq!(registry.plan_groups(&id("m1"), vec![group("all")]), Ok(None));
}

#[test]
fn groups_are_few_and_each_stands_once() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    let many: Vec<GroupName> = (0..=GROUPS_MAX).map(|number| group(&format!("g{number}"))).collect();
    let plan = |groups| registry.plan_accept(&id("m1"), key(1).fingerprint(), Some(groups));
    assert_eq!(plan(many), Err(RegistryError::TooManyGroups { got: GROUPS_MAX + 1, limit: GROUPS_MAX }));
    let twice = vec![group("a"), group("b"), group("a")];
    assert_eq!(plan(twice), Err(RegistryError::GroupTwice { group: group("a") }));
    assert_eq!(
        registry.plan_groups(&id("m1"), vec![]),
        Err(RegistryError::NotAccepted { id: id("m1") }),
        "a pending device has no groups"
    );
}

#[test]
fn a_device_that_nobody_knows_can_be_neither_accepted_nor_reset() {
    let mut registry = Registry::default();
    let unknown = RegistryError::Unknown { id: id("m1") };
    assert_eq!(registry.plan_accept(&id("m1"), key(1).fingerprint(), None), Err(unknown.clone()));
    assert_eq!(registry.plan_reset(&id("m1")).unwrap_err(), unknown);
    registry.enrol(enrolment("m1", 1), NOW);
    reset(&mut registry, "m1");
    assert_eq!(registry.plan_accept(&id("m1"), key(1).fingerprint(), None), Err(unknown));
}

#[test]
fn what_a_device_says_about_itself_survives_what_operators_do() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    let facts = Facts { sequence: 7, seen: UnixTime::from_secs(10_000), ..Facts::default() };
    assert!(registry.heard(&id("m1"), facts));
    assert!(!registry.heard(&id("m1"), Facts { seen: UnixTime::from_secs(10_001), ..facts }));
    accept(&mut registry, "m1", 1);
    assert_eq!(registry.device(&id("m1")).unwrap().facts.sequence, 7);
    assert!(registry.heard(&id("m1"), Facts { seen: UnixTime::from_secs(99_999), ..facts }), "hours later");
}

#[test]
fn a_device_is_worth_storing_when_it_says_something_new_or_was_not_heard_for_an_hour() {
    let mut registry = Registry::default();
    assert!(!registry.heard(&id("m1"), Facts::default()), "nobody knows it");
    registry.enrol(enrolment("m1", 1), NOW);
    let at = |seen| Facts { sequence: 7, seen: UnixTime::from_secs(seen), ..Facts::default() };
    registry.heard(&id("m1"), at(10_000));
    assert!(!registry.heard(&id("m1"), at(13_599)));
    assert!(!registry.heard(&id("m1"), at(17_198)), "since it was last heard");
    assert!(registry.heard(&id("m1"), at(17_198 + 3600)));
    assert!(registry.heard(&id("m1"), Facts { sequence: 8, ..at(20_800) }));
    let running = whimbrel_protocol::ids::ShortDigest([3; 8]);
    assert!(registry.heard(&id("m1"), Facts { sequence: 8, running, ..at(20_800) }));
    assert_eq!(registry.device(&id("m1")).unwrap().facts, Facts { sequence: 8, running, ..at(20_800) });
}

#[test]
fn accepted_devices_are_counted_once_whatever_operators_do_about_them() {
    let mut registry = Registry::default();
    for (name, secret) in [("m1", 1), ("m2", 2)] {
        registry.enrol(enrolment(name, secret), NOW);
        accept(&mut registry, name, secret);
    }
    let moved = registry.plan_groups(&id("m1"), vec![group("north")]).unwrap().unwrap();
    registry.enter(moved.into_device(Bytes::new()));
    assert_eq!(registry.accepted(), 2);
    reset(&mut registry, "m1");
    assert_eq!(registry.accepted(), 1);
    registry.enrol(enrolment("m1", 1), NOW);
    assert_eq!((registry.accepted(), registry.pending()), (1, 1));
    let stored = registry.devices_after(None).cloned().collect();
    let loaded = Registry::load(stored);
    assert_eq!((loaded.accepted(), loaded.pending()), (1, 1));
}

#[test]
fn where_as_many_are_accepted_as_may_be_nobody_more_is_and_the_others_can_be_moved() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    accept(&mut registry, "m1", 1);
    registry.enrol(enrolment("m2", 2), NOW);
    registry.accepted = ACCEPTED_MAX - 1;
    assert!(registry.plan_accept(&id("m2"), key(2).fingerprint(), None).is_ok(), "the last place");
    registry.accepted = ACCEPTED_MAX;
    let full = RegistryError::Full { limit: ACCEPTED_MAX };
    assert_eq!(registry.plan_accept(&id("m2"), key(2).fingerprint(), None), Err(full));
    let moved = registry.plan_accept(&id("m1"), key(1).fingerprint(), Some(vec![group("north")]));
    assert_eq!(moved.unwrap().unwrap().groups, [group("north")]);

    let line = |number, name: &str, secret, groups: &str| ImportLine {
        number,
        device: id(name),
        key: key(secret),
        class: ClassId([7; 16]),
        groups: vec![group(groups)],
    };
    assert!(registry.plan_import(vec![line(1, "m1", 1, "north")]).is_ok(), "it has its place");
    for new in [line(1, "m2", 2, "all"), line(1, "m3", 3, "all")] {
        assert_eq!(registry.plan_import(vec![new]), Err(ImportError::Full { limit: ACCEPTED_MAX }));
    }
    registry.accepted = ACCEPTED_MAX - 1;
    assert!(registry.plan_import(vec![line(1, "m2", 2, "all")]).is_ok());
    let two = vec![line(1, "m2", 2, "all"), line(2, "m3", 3, "all")];
    assert_eq!(registry.plan_import(two), Err(ImportError::Full { limit: ACCEPTED_MAX }));
}

#[test]
fn a_device_is_accepted_with_the_groups_that_are_given_else_with_its_own_else_with_the_usual_one() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1), NOW);
    let plan = |registry: &Registry, groups| registry.plan_accept(&id("m1"), key(1).fingerprint(), groups);
    assert_eq!(plan(&registry, Some(vec![])).unwrap().unwrap().groups, [], "in no group");
    let most: Vec<GroupName> = (0..GROUPS_MAX).map(|number| group(&format!("g{number}"))).collect();
    assert_eq!(plan(&registry, Some(most.clone())).unwrap().unwrap().groups, most);
    assert_eq!(plan(&registry, None).unwrap().unwrap().groups, [group("all")]);
    let north = plan(&registry, Some(vec![group("north")])).unwrap().unwrap();
    assert_eq!((&north.key, north.class), (&key(1), ClassId([7; 16])));
    registry.enter(north.into_device(Bytes::new()));
    assert_eq!(plan(&registry, None), Ok(None), "it stays where it is");
}

#[test]
fn devices_are_listed_in_order_from_where_the_last_page_ended() {
    let mut registry = Registry::default();
    for name in ["m3", "m1", "m2"] {
        registry.enrol(enrolment(name, 1), NOW);
    }
    reset(&mut registry, "m2");
    let after = |from: Option<&DeviceId>| {
        let ids = registry.devices_after(from).map(|device| device.id.to_string());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(after(None), ["m1", "m3"], "the forgotten are not listed");
    assert_eq!(after(Some(&id("m1"))), ["m3"]);
    assert!(after(Some(&id("m3"))).is_empty());
}

mod import;
mod rekeyed;

mod access {
    use super::*;
    use crate::access::{FleetAccess, Membership};
    use crate::front::Access as _;

    #[test]
    fn only_accepted_members_read_the_campaign_of_a_group() {
        let mut registry = Registry::default();
        let membership = Membership::default();
        let member = |name: &str| membership.is_member(&id(name), &group("all"));
        registry.enrol(enrolment("m1", 1), NOW);
        membership.enter(registry.device(&id("m1")).unwrap());
        let door = FleetAccess { membership: membership.clone(), passwords: None, open: true };
        assert!(!member("m1") && !door.is_known(&id("m1")), "pending");
        accept(&mut registry, "m1", 1);
        membership.enter(registry.device(&id("m1")).unwrap());
        assert!(member("m1") && !member("m2"));
        assert!(door.is_known(&id("m1")) && !door.is_known(&id("m2")));
        assert!(!membership.is_member(&id("m1"), &group("north")));
        reset(&mut registry, "m1");
        membership.enter(registry.device(&id("m1")).unwrap());
        assert!(!member("m1") && !door.is_known(&id("m1")), "reset");
        // The front door asks for the same.
        registry.enrol(enrolment("m1", 1), NOW);
        accept(&mut registry, "m1", 1);
        membership.enter(registry.device(&id("m1")).unwrap());
        assert!(door.in_group(&id("m1"), &group("all")));
        assert!(!door.in_group(&id("m1"), &group("north")) && !door.in_group(&id("m2"), &group("all")));
    }
}

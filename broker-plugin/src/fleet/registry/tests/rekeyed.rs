//! Accepted devices that bring another key: a lost data folder, a replaced board, or two devices with one id.

use super::*;

fn north(registry: &mut Registry) {
    registry.enrol(enrolment("m1", 1), NOW);
    accept(registry, "m1", 1);
    let moved = registry.plan_groups(&id("m1"), vec![group("north")]).unwrap().unwrap();
    registry.enter(moved.into_device(Bytes::new()));
}

fn rekeyed(registry: &Registry) -> Vec<String> {
    registry.rekeyed().map(|device| device.id.to_string()).collect()
}

#[test]
fn a_rekeyed_device_keeps_its_accepted_key_until_it_is_reset_and_then_the_new_one_waits() {
    let mut registry = Registry::default();
    north(&mut registry);
    assert_eq!(registry.enrol(enrolment("m1", 9), NOW), Enrolled::OtherKey);
    assert_eq!(rekeyed(&registry), ["m1"]);
    let device = registry.device(&id("m1")).unwrap();
    assert_eq!(device.key(), Some(&key(1)), "nothing that is unsigned by it changes the accepted key");
    assert_eq!(device.rekeyed.as_deref().map(|other| (&other.key, other.seen)), Some((&key(9), NOW)));
    let version = device.assignment_version;
    // Other groups are no other key.
    let moved = registry.plan_groups(&id("m1"), vec![group("south"), group("east")]).unwrap().unwrap();
    registry.enter(moved.into_device(Bytes::new()));
    assert_eq!(rekeyed(&registry), ["m1"]);
    let refused = registry.plan_accept(&id("m1"), key(9).fingerprint(), None);
    assert!(matches!(refused, Err(RegistryError::Fingerprint { .. })), "only a reset lets go of a key");
    reset(&mut registry, "m1");
    assert_eq!((rekeyed(&registry).len(), registry.pending(), registry.accepted()), (0, 1, 0));
    let accepted = registry.plan_accept(&id("m1"), key(9).fingerprint(), None).unwrap().unwrap();
    assert_eq!(accepted.groups, [group("south"), group("east")], "it stays where it was");
    assert_eq!(accepted.version, version + 2);
    registry.enter(accepted.into_device(Bytes::new()));
    assert_eq!(registry.device(&id("m1")).unwrap().key(), Some(&key(9)));
    assert_eq!((registry.pending(), registry.accepted()), (0, 1));
}

#[test]
fn a_device_whose_accepted_key_speaks_again_is_rekeyed_no_more() {
    let mut registry = Registry::default();
    north(&mut registry);
    assert!(!registry.has_its_key(&id("m1")));
    registry.enrol(enrolment("m1", 9), NOW);
    assert!(registry.has_its_key(&id("m1")));
    assert!(rekeyed(&registry).is_empty() && registry.device(&id("m1")).unwrap().rekeyed.is_none());
    // Two devices with one id: it begins again.
    registry.enrol(enrolment("m1", 9), NOW);
    assert_eq!(rekeyed(&registry), ["m1"]);
    let loaded = Registry::load(registry.devices_after(None).cloned().collect());
    assert_eq!(rekeyed(&loaded), ["m1"], "also after a restart");
}

#[test]
fn a_reset_that_waits_to_be_stored_and_a_device_that_enrols_meanwhile_do_not_take_each_others_place() {
    let mut registry = Registry::default();
    north(&mut registry);
    registry.enrol(enrolment("m1", 9), NOW);
    let planned = registry.plan_reset(&id("m1")).unwrap();
    registry.enrol(enrolment("m2", 2), NOW);
    registry.enter(planned);
    assert_eq!(registry.pending(), 2);
}

//! Lists of devices that are accepted before they have ever connected.

use whimbrel_protocol::codec::Writer;

use super::*;

fn hex_key(secret: u8) -> String {
    let mut writer = Writer::new();
    key(secret).encode(&mut writer);
    hex::encode(writer.into_bytes())
}

fn class() -> String {
    ClassId([7; 16]).to_hex()
}

fn plan(registry: &Registry, list: &str) -> Result<ImportPlan, ImportError> {
    registry.plan_import(read_import(list.as_bytes())?)
}

#[test]
fn an_import_accepts_devices_before_they_have_ever_connected() {
    let mut registry = Registry::default();
    let list = format!(
        "ID,public key,class,groups\r\nm1,{},{},all north\r\n\r\nm2,{},{}\n",
        hex_key(1),
        class(),
        hex_key(2),
        class()
    );
    let planned = plan(&registry, &list).unwrap();
    assert_eq!((planned.assignments.len(), planned.unchanged), (2, 0));
    assert_eq!(planned.assignments[0].groups, [group("all"), group("north")]);
    assert_eq!(planned.assignments[1].groups, [group("all")], "a line without groups");
    for new in planned.assignments {
        registry.enter(new.into_device(Bytes::new()));
    }
    assert_eq!(registry.accepted(), 2);
    assert_eq!(registry.enrol(enrolment("m1", 1)), Enrolled::Known);
    assert_eq!(plan(&registry, &list).unwrap(), ImportPlan { assignments: vec![], unchanged: 2 });
}

#[test]
fn an_import_accepts_who_is_pending_with_the_same_key() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m1", 1));
    let planned = plan(&registry, &format!("m1,{},{},all", hex_key(1), class())).unwrap();
    assert_eq!(planned.assignments.len(), 1);
}

/// Anybody who may connect can enrol under the id of a device that is yet to come.
#[test]
fn an_import_replaces_a_pending_key_whoever_enrolled_it_first() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("m2", 9));
    let list = ["m1", "m2", "m3"].map(|name| format!("{name},{},{},all\n", hex_key(1), class())).concat();
    let planned = plan(&registry, &list).unwrap();
    assert_eq!((planned.assignments.len(), planned.unchanged), (3, 0));
    for new in planned.assignments {
        registry.enter(new.into_device(Bytes::new()));
    }
    assert_eq!((registry.accepted(), registry.pending()), (3, 0));
    assert_eq!(registry.device(&id("m2")).unwrap().key(), Some(&key(1)));
    assert_eq!(registry.enrol(enrolment("m2", 9)), Enrolled::OtherKey, "the squatter comes again");
    // The key of a device that is accepted is nobody's to replace but by a reset.
    let error = plan(&registry, &format!("m2,{},{},all", hex_key(9), class())).unwrap_err();
    assert_eq!(error, ImportError::OtherKey { line: 1, id: id("m2") });
}

#[test]
fn an_import_moves_a_known_device_and_tells_it_with_a_higher_version() {
    let mut registry = Registry::default();
    let enter = |registry: &mut Registry, list: &str| {
        let planned = plan(registry, list).unwrap();
        let versions: Vec<u64> = planned.assignments.iter().map(|new| new.version).collect();
        for new in planned.assignments {
            registry.enter(new.into_device(Bytes::new()));
        }
        (versions, planned.unchanged)
    };
    let of_class = |class: &str, groups: &str| format!("m1,{},{class},{groups}", hex_key(1));
    let (first, other) = (class(), ClassId([8; 16]).to_hex());
    assert_eq!(enter(&mut registry, &of_class(&first, "all")), (vec![1], 0));
    assert_eq!(enter(&mut registry, &of_class(&first, "all north")), (vec![2], 0), "other groups");
    assert_eq!(enter(&mut registry, &of_class(&other, "all north")), (vec![3], 0), "another class");
    assert_eq!(enter(&mut registry, &of_class(&other, "all north")), (vec![], 1));
    let device = registry.device(&id("m1")).unwrap();
    assert_eq!((device.class, device.assignment_version), (ClassId([8; 16]), 3));
}

#[test]
fn a_mark_before_the_text_and_a_heading_in_any_case_are_passed_over() {
    let registry = Registry::default();
    let list = format!("\u{feff}Id,PUBLIC KEY\nid,{},{}\n", hex_key(1), class());
    let planned = plan(&registry, &list).unwrap();
    assert_eq!(planned.assignments[0].device, id("id"), "only the first line may be a heading");
}

#[test]
fn an_import_is_taken_whole_or_not_at_all_and_the_error_names_the_line() {
    let mut registry = Registry::default();
    registry.enrol(enrolment("known", 9));
    accept(&mut registry, "known", 9);
    let (key, class) = (hex_key(1), class());
    let good = format!("m1,{key},{class},all");
    for (bad, line, what) in [
        (format!("known,{key},{class},all"), 2, "another key"),
        (format!("m1,{key},{class},all"), 2, "line 1 too"),
        (format!("m 2,{key},{class},all"), 2, "device id"),
        (format!("m2,abc,{class},all"), 2, "COSE_Key"),
        (format!("m2,{}00,{class},all", key), 2, "COSE_Key"),
        (format!("m2,{key},1234,all"), 2, "32 hexadecimal digits"),
        (format!("m2,{key},{class},all all"), 2, "twice"),
        (format!("m2,{key},{class},a,b"), 2, "more than four fields"),
        (format!("m2,{key}"), 2, "expected id,public key,class,groups"),
    ] {
        let error = plan(&registry, &format!("{good}\n{bad}\n")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("line {line}: ")) && error.contains(what), "{bad}: {error}");
    }
    assert!(read_import(&[0xff, 0xfe]).is_err());
    assert_eq!(registry.accepted(), 1);
}

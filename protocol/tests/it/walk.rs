//! What the static walk refuses, and by which name.

use whimbrel_protocol::codec::{DecodeError, Writer};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{
    Command, ComponentId, ComponentIndex, Condition, Content, Feature, Manifest, ManifestError, Parameter,
    ReportPolicy, Section, Sequence, Severable, consts,
};

use crate::samples::{
    class, condition, content, fetch, image_match, sequence, set, source, vendor, with_install,
};

fn walk(content: Content) -> Result<(), ManifestError> {
    Manifest::new(content)?.walk()
}

/// Puts a sequence somewhere into a manifest.
type Place<'p> = &'p dyn Fn(&mut Content, Sequence);

/// A command that our types don't have, with the argument that the drafts give it.
fn other(label: i64) -> Command {
    let mut writer = Writer::new();
    match label {
        19 => writer.map(1).int(21).text("u"),
        34 | 35 => writer.map(1).int(0).map(0),
        _ => writer.uint(15),
    };
    Command::Other(label, writer.into_bytes())
}

#[test]
fn every_command_that_is_not_run_is_refused_by_name_wherever_it_stands() {
    let feature = Feature::Command;
    let mut table = Vec::new();
    for label in [4, 6, 18, 22, 24, 26, 27, 28, 29] {
        table.push((label, ManifestError::NotExecuted { feature: feature(label) }));
    }
    for label in [7, 8, 11, 19, 31, 33, 34, 35, -257, -1_000_000] {
        table.push((label, ManifestError::NotInProfile { feature: feature(label) }));
    }
    for label in [0, 9, 10, 13, 16, 17, 30, 36, 255, i64::MAX, -1, -256] {
        table.push((label, ManifestError::Unknown { feature: feature(label) }));
    }
    for (label, error) in table {
        let command = other(label);
        let placed = |place: &dyn Fn(&mut Content, Sequence)| {
            let mut content = content();
            place(&mut content, sequence(std::slice::from_ref(&command)));
            walk(content)
        };
        let good = || sequence(&[image_match()]);
        let places: [Place<'_>; 8] = [
            &|content, bad| content.shared.0.extend(bad.0),
            &|content, bad| content.validate = Some(bad),
            &|content, bad| content.invoke = Some(bad),
            &|content, bad| content.load = Some(bad),
            &|content, bad| content.install = Some(Severable::Inline(bad)),
            &|content, bad| content.install = Some(Severable::<Sequence>::sever(bad)),
            &|content, bad| content.shared.0.push(Command::RunSequence(bad)),
            // The branch that is never tried.
            &|content, bad| {
                let branches = vec![good(), good(), sequence(&[Command::RunSequence(bad)])];
                content.validate.as_mut().unwrap().0.push(Command::TryEach { branches, or_nothing: true });
            },
        ];
        for (number, place) in places.into_iter().enumerate() {
            assert_eq!(placed(place), Err(error), "command {label} at place {number}");
        }
    }
}

#[test]
fn every_parameter_that_is_not_used_is_refused_by_name() {
    let feature = Feature::Parameter;
    let refusal = |label: i64, encoded: &[u8]| {
        let parameter = Parameter::Other(label, encoded.to_vec());
        let mut content = content();
        content.shared.0.push(set(&[parameter]));
        walk(content)
    };
    for label in [4, 12, 18, 19, 22, 24, 26, 27, 28, 29] {
        let error = ManifestError::NotExecuted { feature: feature(label) };
        assert_eq!(refusal(label, &[0x01]), Err(error));
    }
    for label in [23, 30, -257, -300] {
        let error = ManifestError::NotInProfile { feature: feature(label) };
        assert_eq!(refusal(label, &[0x01]), Err(error));
    }
    // A vendor that is a private enterprise number.
    let error = ManifestError::NotInProfile { feature: feature(1) };
    assert_eq!(refusal(1, &[0xd8, 0x70, 0x41, 0x05]), Err(error));
    for label in [0, 6, 7, 11, 15, 16, 20, 31, 1000, -1, -256] {
        let error = ManifestError::Unknown { feature: feature(label) };
        assert_eq!(refusal(label, &[0x01]), Err(error));
    }
}

#[test]
fn sections_components_and_index_lists_that_are_not_run_are_refused() {
    let executed = |feature| Err(ManifestError::NotExecuted { feature });
    let some = || sequence(&[image_match()]);
    let load = Content { load: Some(some()), ..content() };
    assert_eq!(walk(load), executed(Feature::Member(consts::manifest::LOAD)));
    for fetch in [Severable::Inline(some()), Severable::<Sequence>::sever(some())] {
        let payload_fetch = Content { payload_fetch: Some(fetch), ..content() };
        assert_eq!(walk(payload_fetch), executed(Feature::Member(consts::manifest::PAYLOAD_FETCH)));
    }
    let two = vec![ComponentId::app(), ComponentId::new(&[b"app", b"cfg"]).unwrap()];
    assert_eq!(walk(Content { components: two, ..content() }), executed(Feature::Components(2)));

    let index = |index| {
        let mut content = content();
        content.shared.0.insert(0, Command::SetComponentIndex(index));
        walk(content)
    };
    assert_eq!(index(ComponentIndex::One(0)), Ok(()));
    assert_eq!(index(ComponentIndex::All), Ok(()));
    let list = ManifestError::NotInProfile { feature: Feature::IndexList };
    assert_eq!(index(ComponentIndex::List(vec![0])), Err(list));
    for beyond in [1, 7, u64::MAX] {
        let error = ManifestError::IndexRange { index: beyond, components: 1 };
        assert_eq!(index(ComponentIndex::One(beyond)), Err(error));
    }
}

#[test]
fn members_that_no_version_will_have_are_refused_by_name() {
    let base = Manifest::new(content()).unwrap().bytes().to_vec();
    assert_eq!(base[0], 0xa4);
    let with_member = |key: u8| {
        // Behind or before validate, 7, where the order demands it.
        let mut bytes = base.clone();
        bytes[0] = 0xa5;
        let validate = bytes.windows(2).rposition(|window| window == [0x07, 0x43]).unwrap();
        let at = if key < 7 { validate } else { bytes.len() };
        let head: &[u8] = if key < 24 { &[key][..] } else { &[0x18, key][..] };
        let member = [head, &[0x41, 0x00]].concat();
        bytes.splice(at..at, member);
        Manifest::decode(&bytes).map(drop)
    };
    for key in [5, 14, 15, 18, 24] {
        let error = ManifestError::NotInProfile { feature: Feature::Member(i64::from(key)) };
        assert_eq!(with_member(key), Err(error));
    }
    for key in [10, 11, 12, 13, 17, 19, 21, 22, 25, 99] {
        let error = DecodeError::UnknownKey { what: "manifest", key: i64::from(key) };
        assert_eq!(with_member(key), Err(error.into()));
    }
    let mut version_2 = base;
    version_2[2] = 2;
    assert_eq!(Manifest::decode(&version_2), Err(ManifestError::Version { got: 2 }));
}

#[test]
fn fetch_stands_in_install_and_invoke_in_invoke() {
    let misplaced = |section, command| Err(ManifestError::Misplaced { section, command });
    let run = |command: &Command| Command::RunSequence(sequence(std::slice::from_ref(command)));
    for command in [fetch(), run(&fetch())] {
        let mut shared = content();
        shared.shared.0.push(command.clone());
        assert_eq!(walk(shared), misplaced(Section::Shared, 21));
        let mut validate = content();
        validate.validate.as_mut().unwrap().0.push(command.clone());
        assert_eq!(walk(validate), misplaced(Section::Validate, 21));
        let invoke = Content { invoke: Some(sequence(&[command])), ..content() };
        assert_eq!(walk(invoke), misplaced(Section::Invoke, 21));
    }
    let invoke = Command::Invoke(ReportPolicy::ON_FAILURE);
    assert_eq!(walk(with_install(&[run(&invoke)])), misplaced(Section::Install, 23));
    let mut shared = content();
    shared.shared.0.push(invoke.clone());
    assert_eq!(walk(shared), misplaced(Section::Shared, 23));
    assert_eq!(walk(Content { invoke: Some(sequence(&[run(&invoke)])), ..content() }), Ok(()));
}

#[test]
fn the_shared_sequence_always_checks_vendor_and_class() {
    let ids = || set(&[Parameter::VendorId(vendor()), Parameter::ClassId(class())]);
    let image = || set(&[Parameter::ImageDigest(Digest([1; 32])), Parameter::ImageSize(1)]);
    let (vendor, other_class) =
        (condition(Condition::VendorIdentifier), condition(Condition::ClassIdentifier));
    let shared = |commands: &[Command]| {
        let mut all = vec![ids(), image()];
        all.extend(commands.iter().cloned());
        walk(Content { shared: Sequence(all), ..content() })
    };
    let lacks = |command| Err(ManifestError::SharedLacks { command });
    assert_eq!(shared(&[vendor.clone(), other_class.clone()]), Ok(()));
    assert_eq!(shared(std::slice::from_ref(&vendor)), lacks(2));
    assert_eq!(shared(std::slice::from_ref(&other_class)), lacks(1));
    assert_eq!(shared(&[]), lacks(1));
    // In every branch is enough, in one of them is not, nor where failing it is allowed.
    let branch = |commands: &[Command]| sequence(commands);
    let each = |one: &[Command], two: &[Command], or_nothing| Command::TryEach {
        branches: vec![branch(one), branch(two)],
        or_nothing,
    };
    let both = [vendor.clone(), other_class.clone()];
    assert_eq!(shared(&[each(&both, &both, false)]), Ok(()));
    assert_eq!(shared(&[each(&both, &both, true)]), lacks(1));
    assert_eq!(shared(&[each(&both, std::slice::from_ref(&vendor), false)]), lacks(2));
    assert_eq!(shared(&[Command::RunSequence(branch(&both))]), Ok(()));
    let soft = [set(&[Parameter::SoftFailure(true)]), vendor.clone(), other_class.clone()];
    assert_eq!(shared(&[Command::RunSequence(branch(&soft))]), lacks(1));
    let hard = [set(&[Parameter::SoftFailure(false)]), vendor, other_class];
    assert_eq!(shared(&[Command::RunSequence(branch(&hard))]), Ok(()));
    // A branch that always fails never gets past.
    assert_eq!(shared(&[each(&both, &[condition(Condition::Abort)], false)]), Ok(()));
}

#[test]
fn every_command_has_its_parameters_on_every_way() {
    let unset =
        |section, command, parameter| Err(ManifestError::ParameterUnset { section, command, parameter });
    let install = |commands: &[Command]| walk(with_install(commands));
    assert_eq!(install(&[source(1), fetch(), image_match()]), Ok(()));
    assert_eq!(install(&[fetch(), source(1)]), unset(Section::Install, 21, 21));
    assert_eq!(install(&[set(&[Parameter::Uri("mq:1".into())]), fetch()]), unset(Section::Install, 21, 25));
    let without_image = |parameters: &[Parameter]| {
        let mut content = with_install(&[source(1), fetch()]);
        let mut all = vec![Parameter::VendorId(vendor()), Parameter::ClassId(class())];
        all.extend(parameters.iter().cloned());
        content.shared.0[0] = set(&all);
        walk(content)
    };
    // Digest and size come before the fetch.
    assert_eq!(without_image(&[Parameter::ImageSize(1)]), unset(Section::Install, 21, 3));
    assert_eq!(without_image(&[Parameter::ImageDigest(Digest([1; 32]))]), unset(Section::Install, 21, 14));
    // Set in one branch of two, in a branch that may fail, in a sequence that may end early.
    let either = |or_nothing| Command::TryEach {
        branches: vec![
            sequence(&[source(1)]),
            sequence(&[condition(Condition::Abort)]),
            sequence(&[source(2), image_match()]),
        ],
        or_nothing,
    };
    assert_eq!(install(&[either(false), fetch()]), Ok(()));
    assert_eq!(install(&[either(true), fetch()]), unset(Section::Install, 21, 21));
    let soft =
        Command::RunSequence(sequence(&[set(&[Parameter::SoftFailure(true)]), image_match(), source(1)]));
    assert_eq!(install(&[soft, fetch()]), unset(Section::Install, 21, 21));
    let hard = Command::RunSequence(sequence(&[image_match(), source(1)]));
    assert_eq!(install(&[hard, fetch()]), Ok(()));
    // One section does not prepare another.
    let slot = condition(Condition::ComponentSlot);
    let mut content = with_install(&[set(&[Parameter::ComponentSlot(1)]), slot.clone()]);
    assert_eq!(walk(content.clone()), Ok(()));
    content.validate.as_mut().unwrap().0.push(slot);
    assert_eq!(walk(content), unset(Section::Validate, 5, 5));
    // The conditions of the shared sequence.
    for (bare, parameter) in [(Condition::VendorIdentifier, 1), (Condition::ImageNotMatch, 3)] {
        let shared = sequence(&[condition(bare)]);
        let label = bare.label();
        assert_eq!(walk(Content { shared, ..self::content() }), unset(Section::Shared, label, parameter));
    }
}

#[test]
fn nothing_is_installed_that_is_not_validated() {
    assert_eq!(walk(content()), Ok(()));
    assert_eq!(walk(Content { validate: None, ..content() }), Err(ManifestError::NotValidated));
    let validate = |commands: &[Command]| walk(Content { validate: Some(sequence(commands)), ..content() });
    assert_eq!(validate(&[condition(Condition::ImageNotMatch)]), Err(ManifestError::NotValidated));
    let or_nothing = Command::TryEach {
        branches: vec![sequence(&[image_match()]), sequence(&[image_match()])],
        or_nothing: true,
    };
    assert_eq!(validate(&[or_nothing]), Err(ManifestError::NotValidated));
    let soft = Command::RunSequence(sequence(&[set(&[Parameter::SoftFailure(true)]), image_match()]));
    assert_eq!(validate(&[soft]), Err(ManifestError::NotValidated));
    assert_eq!(validate(&[Command::RunSequence(sequence(&[image_match()]))]), Ok(()));
}

#[test]
fn soft_failure_is_for_branches_and_sequences() {
    for soft in [true, false] {
        let bare = set(&[Parameter::SoftFailure(soft)]);
        let error = Err(ManifestError::SoftFailureOutside { section: Section::Install });
        assert_eq!(walk(with_install(std::slice::from_ref(&bare))), error);
        let run = Command::RunSequence(sequence(std::slice::from_ref(&bare)));
        assert_eq!(walk(with_install(&[run])), Ok(()));
        let branches = vec![sequence(std::slice::from_ref(&bare)), sequence(&[image_match()])];
        assert_eq!(walk(with_install(&[Command::TryEach { branches, or_nothing: false }])), Ok(()));
    }
}

#[test]
fn sequences_have_a_maximum_of_commands_and_of_depth() {
    let count = |count: usize| walk(with_install(&vec![image_match(); count]));
    assert_eq!(count(64), Ok(()));
    let too_long = |got, limit, what| ManifestError::Malformed(DecodeError::TooLong { what, got, limit });
    assert_eq!(count(65), Err(too_long(130, 128, "command sequence")));
    // Nested ones count too.
    let nested = |inner: usize| {
        walk(with_install(&[
            Command::RunSequence(sequence(&vec![image_match(); inner])),
            Command::RunSequence(sequence(&vec![image_match(); 31])),
        ]))
    };
    assert_eq!(nested(31), Ok(()));
    assert_eq!(nested(32), Err(too_long(65, 64, "section's commands")));
    let deep = |depth: usize| {
        let wrap = |inner: Command, _| Command::RunSequence(sequence(&[inner]));
        walk(with_install(&[(0..depth).fold(image_match(), wrap)]))
    };
    assert_eq!(deep(3), Ok(()));
    for depth in [4, 5, 40] {
        let error = deep(depth);
        assert!(
            matches!(error, Err(ManifestError::Malformed(DecodeError::Depth { limit: 3, .. }))),
            "{error:?}"
        );
    }
    let many = |count: u8| {
        let components = (0..count).map(|number| ComponentId::new(&[&[number]]).unwrap()).collect();
        Manifest::new(Content { components, ..content() }).map(drop)
    };
    assert_eq!(many(8), Ok(()));
    assert_eq!(many(9), Err(too_long(9, 8, "components")));
    let value = |what| Err(ManifestError::Malformed(DecodeError::Value { what }));
    assert_eq!(many(0), value("components"));
    let twice = vec![ComponentId::app(), ComponentId::app()];
    assert_eq!(Manifest::new(Content { components: twice, ..content() }).map(drop), value("components"));
}

#[test]
fn malformed_sequences_are_refused_by_name() {
    let value = |what| ManifestError::Malformed(DecodeError::Value { what });
    let truncated = |at| ManifestError::Malformed(DecodeError::Truncated { at });
    let unknown_type = |what, at| ManifestError::Malformed(DecodeError::Type { what, at });
    let table = [
        ("80", value("length of a command sequence")),
        ("83 030f 03", value("length of a command sequence")),
        ("82 03", truncated(2)),
        ("82 03 10", value("reporting policy")),
        ("82 03 f5", unknown_type("reporting policy", 2)),
        ("82 f5 0f", unknown_type("command", 1)),
        ("82 0c f4", value("component index")),
        ("82 0c 80", value("component indices")),
        ("82 0f 80", value("branches of a try each")),
        ("82 0f 81 43 82030f", value("branches of a try each")),
        ("82 0f 82 43 82030f f6", value("branches of a try each")),
        ("82 0f 82 f6 43 82030f", unknown_type("command sequence", 3)),
        ("82 14 a0", value("parameters")),
        ("82 14 a1 0e 00", value("image size")),
        ("82 14 a1 01 4100", DecodeError::Length { what: "vendor id", got: 1, want: 16 }.into()),
        ("82 14 a1 02 40", DecodeError::Length { what: "class id", got: 0, want: 16 }.into()),
        ("82 14 a1 03 43 822f40", DecodeError::Length { what: "digest", got: 0, want: 32 }.into()),
        ("82 14 a1 03 40", truncated(0)),
        ("82 14 a1 03 44 82382a40", ManifestError::DigestAlgorithm { alg: -43 }),
        ("82 14 a1 0d 01", unknown_type("soft failure", 4)),
        ("82 14 a2 0e01 0e01", DecodeError::Duplicate { at: 5 }.into()),
        ("82 14 a2 0e01 0501", DecodeError::Unsorted { at: 5 }.into()),
        ("82 03 0f 00", DecodeError::Trailing { count: 1 }.into()),
        ("9f 03 0f ff", DecodeError::Indefinite { at: 0 }.into()),
        ("82 18 03 0f", DecodeError::NotShortest { at: 1 }.into()),
    ];
    for (bytes, error) in table {
        let bytes_of = hex::decode(bytes.replace(' ', "")).unwrap();
        assert_eq!(Sequence::decode(&bytes_of), Err(error), "{bytes}");
    }
}

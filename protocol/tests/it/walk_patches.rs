//! What the static walk refuses where a second component is the image that runs, and by which name.

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{
    Command, ComponentId, ComponentIndex, Condition, Content, Feature, Manifest, ManifestError, Parameter,
    ReportPolicy, Section, Sequence, Severable,
};

use crate::samples::{
    base, class, condition, content, fetch, image_match, patch_transfer, release_with_patches, sequence, set,
    source, vendor,
};

fn walk(content: Content) -> Result<(), ManifestError> {
    Manifest::new(content)?.walk()
}

pub(crate) fn select(component: u64) -> Command {
    Command::SetComponentIndex(ComponentIndex::One(component))
}

/// What describes a patch.
pub(crate) fn patch(seed: u8) -> Command {
    let transfer = patch_transfer(seed);
    set(&[Parameter::Uri(transfer.uri()), Parameter::FetchArguments(transfer)])
}

pub(crate) fn base_is(seed: u8) -> Command {
    let base = base(seed);
    set(&[Parameter::ImageDigest(base.digest), Parameter::ImageSize(base.size)])
}

pub(crate) fn soft(soft: bool) -> Command {
    set(&[Parameter::SoftFailure(soft)])
}

/// The usual parts with two components.
pub(crate) fn two(install: &[Command]) -> Content {
    let mut content = content();
    content.components.push(ComponentId::app_running());
    content.shared.0.insert(0, select(0));
    content.validate = Some(sequence(&[select(0), image_match()]));
    content.install = Some(Severable::Inline(sequence(install)));
    content
}

fn install(commands: &[Command]) -> Result<(), ManifestError> {
    walk(two(commands))
}

pub(crate) fn either(branches: &[&[Command]], or_nothing: bool) -> Command {
    Command::TryEach { branches: branches.iter().map(|branch| sequence(branch)).collect(), or_nothing }
}

fn run(commands: &[Command]) -> Command {
    Command::RunSequence(sequence(commands))
}

/// `12 1, 20 {base}, 3, 12 0`.
pub(crate) fn matched(seed: u8) -> [Command; 4] {
    [select(1), base_is(seed), image_match(), select(0)]
}

const UNMATCHED: Result<(), ManifestError> = Err(ManifestError::BaseUnmatched { section: Section::Install });

fn unset(command: i64) -> Result<(), ManifestError> {
    Err(ManifestError::IndexUnset { section: Section::Install, command })
}

#[test]
fn the_template_is_accepted_with_any_number_of_patches() {
    for count in 0..=8 {
        assert_eq!(release_with_patches(count).build().map(|manifest| manifest.walk()), Ok(Ok(())));
    }
}

#[test]
fn the_second_component_is_the_image_that_runs_or_none() {
    let app = ComponentId::app;
    let id = |parts: &[&[u8]]| ComponentId::new(parts).unwrap();
    let good = two(&[select(0), source(1), fetch()]);
    assert_eq!(walk(good.clone()), Ok(()));
    for components in [
        vec![app(), id(&[b"app", b"cfg"])],
        vec![ComponentId::app_running(), app()],
        vec![id(&[b"mcu2"]), id(&[b"mcu2", b"run"])],
        vec![app(), ComponentId::app_running(), id(&[b"cfg"])],
    ] {
        let feature = Feature::Components(components.len());
        let refused = walk(Content { components, ..good.clone() });
        assert_eq!(refused, Err(ManifestError::NotExecuted { feature }));
    }
}

#[test]
fn every_sequence_chooses_its_component_before_it_does_anything() {
    let branch = [source(1), fetch()];
    let good: [&[Command]; 2] = [&[select(0), image_match()], &[select(0), source(1)]];
    assert_eq!(install(&[source(1)]), unset(20));
    assert_eq!(install(&[image_match(), select(0)]), unset(3));
    assert_eq!(install(&[condition(Condition::ComponentSlot)]), unset(5));
    assert_eq!(install(&[fetch()]), unset(21));
    // In a nested sequence, and behind it, once more.
    assert_eq!(install(&[select(0), either(&[&[image_match()], &[select(0)]], false)]), unset(3));
    assert_eq!(install(&[select(0), either(&[&[select(0)], &branch], false)]), unset(20));
    assert_eq!(install(&[select(0), either(&good, false), fetch()]), unset(21));
    assert_eq!(install(&[select(0), either(&good, true), source(1)]), unset(20));
    assert_eq!(install(&[select(0), run(&[image_match()])]), unset(3));
    assert_eq!(install(&[select(0), run(&[select(1)]), image_match()]), unset(3));
    assert_eq!(install(&[select(0), run(&[soft(true), select(0)]), image_match()]), unset(3));
    // What is not about a component needs none.
    assert_eq!(install(&[either(&[&[condition(Condition::Abort)], &[select(0)]], true)]), Ok(()));
    assert_eq!(install(&[run(&[soft(true), condition(Condition::Abort)])]), Ok(()));
    // In the other sections.
    let index = |section, command| Err(ManifestError::IndexUnset { section, command });
    let good = two(&[select(0), source(1), fetch()]);
    let mut shared = good.clone();
    shared.shared.0.remove(0);
    assert_eq!(walk(shared), index(Section::Shared, 20));
    let validate = Content { validate: Some(sequence(&[image_match()])), ..good.clone() };
    assert_eq!(walk(validate), index(Section::Validate, 3));
    let invoke = Sequence(vec![Command::Invoke(ReportPolicy::ON_FAILURE)]);
    assert_eq!(walk(Content { invoke: Some(invoke), ..good.clone() }), index(Section::Invoke, 23));
    // There is no command for both.
    let mut all = good;
    all.shared.0.push(Command::SetComponentIndex(ComponentIndex::All));
    assert_eq!(walk(all), Err(ManifestError::NotExecuted { feature: Feature::IndexAll }));
    assert_eq!(install(&[select(2)]), Err(ManifestError::IndexRange { index: 2, components: 2 }));
}

#[test]
fn what_runs_is_only_read() {
    let only_read = |section, command| Err(ManifestError::OnlyRead { section, command, component: 1 });
    let to_1 = [select(1), base_is(1), source(1), fetch()];
    assert_eq!(install(&to_1), only_read(Section::Install, 21));
    assert_eq!(install(&[select(0), either(&[&to_1, &[select(0)]], false)]), only_read(Section::Install, 21));
    let slot = [select(1), set(&[Parameter::ComponentSlot(0)]), condition(Condition::ComponentSlot)];
    assert_eq!(install(&slot), only_read(Section::Install, 5));
    let invoke = Some(sequence(&[select(1), Command::Invoke(ReportPolicy::ON_FAILURE)]));
    let invoked = walk(Content { invoke, ..two(&[select(0), source(1), fetch()]) });
    assert_eq!(invoked, only_read(Section::Invoke, 23));
    // Writing to it by another command is refused as everywhere.
    for label in [18, 22] {
        let refused = install(&[select(1), Command::Other(label, vec![0x02])]);
        let feature = Feature::Command(label);
        assert_eq!(refused, Err(ManifestError::NotExecuted { feature }));
    }
}

#[test]
fn a_patch_starts_from_what_runs() {
    let with_base = |component: u8| {
        let mut transfer = patch_transfer(1);
        transfer.base = Some(component);
        set(&[Parameter::Uri(transfer.uri()), Parameter::FetchArguments(transfer)])
    };
    let fetched = |component| [&matched(1)[..], &[with_base(component), fetch()]].concat();
    assert_eq!(install(&fetched(1)), Ok(()));
    for component in [0, 2, 7] {
        assert_eq!(install(&fetched(component)), Err(ManifestError::PatchBase { component }));
    }
    // With one component there is nothing that runs.
    let one = crate::samples::with_install(&[patch(1), fetch()]);
    assert_eq!(walk(one), Err(ManifestError::PatchBase { component: 1 }));
}

#[test]
fn a_patch_is_fetched_only_behind_a_match_of_its_base() {
    let [to_run, base_is, holds, to_app] = matched(1);
    let fetch_patch = [patch(1), fetch()];
    let chain = |parts: &[&[Command]]| install(&parts.concat());
    assert_eq!(chain(&[&matched(1), &fetch_patch]), Ok(()));
    assert_eq!(chain(&[&[select(0)], &fetch_patch]), UNMATCHED);
    // A match of the target, or that it is not there, is not enough.
    assert_eq!(chain(&[&[select(0), image_match()], &fetch_patch]), UNMATCHED);
    let not_there = [to_run.clone(), base_is.clone(), condition(Condition::ImageNotMatch), to_app.clone()];
    assert_eq!(chain(&[&not_there, &fetch_patch]), UNMATCHED);
    // Nor is one that may have failed, or that only another branch had.
    let perhaps = run(&[soft(true), to_run.clone(), base_is.clone(), holds.clone()]);
    assert_eq!(chain(&[&[perhaps, to_app.clone()], &fetch_patch]), UNMATCHED);
    let surely = run(&[to_run, base_is, holds]);
    assert_eq!(chain(&[&[surely, to_app.clone()], &fetch_patch]), Ok(()));
    let one_of_two = |or_nothing, other: &[Command]| {
        let each = either(&[&matched(1), other], or_nothing);
        chain(&[&[each, select(0)], &fetch_patch])
    };
    assert_eq!(one_of_two(false, &matched(2)), Ok(()));
    assert_eq!(one_of_two(true, &matched(2)), UNMATCHED);
    assert_eq!(one_of_two(false, &[select(0)]), UNMATCHED);
    assert_eq!(one_of_two(false, &[condition(Condition::Abort)]), Ok(()));
}

#[test]
fn a_patch_that_a_failed_branch_described_is_still_one_behind_it() {
    // The full payload is described before; what comes in between may have described a patch.
    let install =
        |between: &[Command], after: &[Command]| install(&[&[select(0), source(1)], between, after].concat());
    let full = [select(0), source(1), fetch()];
    let bare = [select(0), fetch()];
    assert_eq!(install(&[], &bare), Ok(()));
    // The branch with the patch fails, the next one fetches what is described by then.
    let leaves = [select(0), patch(1), condition(Condition::Abort)];
    assert_eq!(install(&[], &[either(&[&leaves, &bare], false)]), UNMATCHED);
    assert_eq!(install(&[], &[either(&[&bare, &leaves], false)]), Ok(()));
    assert_eq!(install(&[], &[either(&[&leaves, &full], false)]), Ok(()));
    assert_eq!(install(&[either(&[&leaves, &[select(0)]], false)], &bare), UNMATCHED);
    assert_eq!(install(&[either(&[&leaves, &leaves], true)], &bare), UNMATCHED);
    assert_eq!(install(&[either(&[&[select(0)], &leaves], false)], &bare), Ok(()));
    let perhaps = run(&[soft(true), select(0), patch(1), condition(Condition::Abort)]);
    assert_eq!(install(std::slice::from_ref(&perhaps), &bare), UNMATCHED);
    assert_eq!(install(&[perhaps], &full), Ok(()));
    // Described in one of two branches is enough.
    let one = either(&[&[select(0), image_match(), patch(1)], &[select(0), source(1)]], false);
    assert_eq!(install(&[one], &bare), UNMATCHED);
    // In the shared sequence too.
    let mut shared = two(&[select(0), fetch()]);
    shared.shared.0.push(patch(1));
    assert_eq!(walk(shared), UNMATCHED);
}

#[test]
fn what_is_described_for_one_component_says_nothing_of_the_other() {
    let raw_to_run = [select(1), source(1)];
    let patch_to_run = [select(1), patch(1)];
    let chain = |parts: &[&[Command]]| install(&parts.concat());
    let (full, patched) = ([select(0), source(1)], [select(0), source(1), patch(1)]);
    let fetched = [select(0), fetch()];
    // What the target fetches stays a patch, and stays the full payload.
    assert_eq!(chain(&[&patched, &raw_to_run, &fetched]), UNMATCHED);
    assert_eq!(chain(&[&full, &patch_to_run, &fetched]), Ok(()));
    assert_eq!(chain(&[&patched, &raw_to_run, &matched(1), &[fetch()]]), Ok(()));
    // The same in a sequence of its own, whether or not that may fail softly.
    assert_eq!(chain(&[&patched, &[run(&raw_to_run)], &fetched]), UNMATCHED);
    assert_eq!(chain(&[&full, &[run(&patch_to_run)], &fetched]), Ok(()));
    let perhaps = |commands: &[Command]| run(&[&[soft(true)], commands].concat());
    assert_eq!(chain(&[&patched, &[perhaps(&raw_to_run)], &fetched]), UNMATCHED);
    assert_eq!(chain(&[&full, &[perhaps(&patch_to_run)], &fetched]), Ok(()));
    assert_eq!(
        chain(&[&full, &[perhaps(&[select(0), patch(1), select(1), source(1)])], &fetched]),
        UNMATCHED
    );
    // Where branches meet, and behind one that failed.
    let each = |branches: &[&[Command]]| either(branches, false);
    assert_eq!(chain(&[&patched, &[each(&[&raw_to_run, &[select(0)]])], &fetched]), UNMATCHED);
    assert_eq!(chain(&[&full, &[each(&[&patch_to_run, &[select(0)]])], &fetched]), Ok(()));
    let fails = [&patch_to_run[..], &[condition(Condition::Abort)]].concat();
    assert_eq!(chain(&[&full, &[each(&[&fails, &fetched])]]), Ok(()));
    let nested = [run(&[select(0), patch(1)]), select(0), source(1), condition(Condition::Abort)];
    assert_eq!(chain(&[&full, &[each(&[&nested, &fetched])]]), UNMATCHED);
    let nested =
        [each(&[&[select(0)], &[select(0), patch(1)]]), select(0), source(1), condition(Condition::Abort)];
    assert_eq!(chain(&[&full, &[each(&[&nested, &fetched])]]), UNMATCHED);
}

#[test]
fn parameters_are_those_of_the_chosen_component() {
    let lacks = |command, parameter| {
        Err(ManifestError::ParameterUnset { section: Section::Install, command, parameter })
    };
    // The target's digest is not the base's.
    assert_eq!(install(&[select(1), image_match()]), lacks(3, 3));
    assert_eq!(
        install(&[select(1), set(&[Parameter::ImageDigest(Digest([1; 32]))]), image_match()]),
        lacks(3, 14)
    );
    assert_eq!(install(&[select(1), source(1), select(0), fetch()]), lacks(21, 21));
    // A match of the base validates nothing.
    let validate = Some(sequence(&matched(1)));
    let refused = walk(Content { validate, ..two(&[select(0), source(1), fetch()]) });
    assert_eq!(refused, Err(ManifestError::NotValidated));
    // Vendor and class are the device's, whichever component they are asked of.
    let ids = set(&[Parameter::VendorId(vendor()), Parameter::ClassId(class())]);
    let image = set(&[Parameter::ImageDigest(Digest([1; 32])), Parameter::ImageSize(131_072)]);
    let (vendor, class) = (Condition::VendorIdentifier, Condition::ClassIdentifier);
    let shared = sequence(&[select(1), ids, condition(vendor), condition(class), select(0), image]);
    assert_eq!(walk(Content { shared, ..two(&[select(0), source(1), fetch()]) }), Ok(()));
}

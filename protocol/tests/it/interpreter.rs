//! The interpreter: templates, try-each, soft failure, and a second opinion written as plain recursion.

use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::envelope::{Envelope, Verified};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::{
    Command, ComponentIndex, Condition, Content, FetchPlan, Identity, ImageId, Interpreter, ManifestError,
    Parameter, Procedure, ReleaseManifest, ReportPolicy, ReportReason, RunError, Section, Severable, Step,
    TransferDescriptor,
};

use crate::samples::{
    base, class, condition, content, ed25519_key, fetch, image, image_match, patch_transfer, release,
    release_per_slot, release_with_patches, sequence, set, signed, source, vendor, verified, with_install,
};
use crate::walk_patches::{base_is, matched, patch, select, two};

pub(crate) fn identity() -> Identity {
    Identity { vendor: vendor(), class: class(), target_slot: 0 }
}

fn verified_release(release: &ReleaseManifest) -> Envelope<Verified> {
    let key = ed25519_key(1);
    signed(release, &[&key]).verify_with_keys(&[key.public()], 1, Accept::STRICT).unwrap()
}

/// Everything that was asked, with the answers that `answer` gave, and how it ended.
pub(crate) fn run_with(
    envelope: &Envelope<Verified>,
    identity: &Identity,
    procedure: Procedure,
    mut answer: impl FnMut(&Step) -> bool,
) -> (Vec<Step>, Result<Step, RunError>) {
    let mut interpreter = Interpreter::new(envelope, identity, procedure).unwrap();
    let mut asked = Vec::new();
    loop {
        match interpreter.step() {
            Ok(step @ (Step::Fetch(_) | Step::ImageMatch { .. })) => {
                // Asking again changes nothing.
                assert_eq!(interpreter.step().as_ref(), Ok(&step));
                let reply = answer(&step);
                asked.push(step);
                interpreter.answer(reply);
            }
            end => {
                assert_eq!(interpreter.step(), end);
                return (asked, end);
            }
        }
    }
}

fn run(content: Content, answers: &[bool]) -> (Vec<Step>, Result<Step, RunError>) {
    let mut answers = answers.iter();
    run_with(&verified(content), &identity(), Procedure::Update, |_| *answers.next().expect("an answer"))
}

fn abort() -> Command {
    condition(Condition::Abort)
}

fn try_each(branches: &[&[Command]]) -> Command {
    Command::TryEach { branches: branches.iter().map(|branch| sequence(branch)).collect(), or_nothing: false }
}

fn try_each_or_nothing(branches: &[&[Command]]) -> Command {
    Command::TryEach { branches: branches.iter().map(|branch| sequence(branch)).collect(), or_nothing: true }
}

fn run_sequence(commands: &[Command]) -> Command {
    Command::RunSequence(sequence(commands))
}

pub(crate) fn soft(soft: bool) -> Command {
    set(&[Parameter::SoftFailure(soft)])
}

fn plan(seed: u8) -> FetchPlan {
    let image = image(seed);
    FetchPlan {
        component: 0,
        image_digest: image.digest,
        image_size: image.size,
        uri: image.uri,
        transfer: image.transfer,
        base: None,
    }
}

fn matches(seed: u8) -> Step {
    Step::ImageMatch { component: 0, digest: Digest([seed; 32]), size: 131_072, negate: false }
}

fn failed(section: Section, command: i64) -> Result<Step, RunError> {
    Err(RunError::Condition { section, command })
}

const DONE: Result<Step, RunError> = Ok(Step::Done { invoke: false });

#[test]
fn an_update_fetches_matches_and_validates() {
    let envelope = verified_release(&release());
    let (asked, end) = run_with(&envelope, &identity(), Procedure::Update, |_| true);
    assert_eq!(asked, [Step::Fetch(plan(1)), matches(1), matches(1)]);
    assert_eq!(end, DONE);
}

#[test]
fn an_invocation_validates_and_records_the_intent() {
    let envelope = verified_release(&release());
    let (asked, end) = run_with(&envelope, &identity(), Procedure::Invoke, |_| true);
    assert_eq!(asked, [matches(1)]);
    assert_eq!(end, Ok(Step::Done { invoke: true }));
    let (asked, end) = run_with(&envelope, &identity(), Procedure::Invoke, |_| false);
    assert_eq!(asked, [matches(1)]);
    assert_eq!(end, failed(Section::Validate, 3));
}

#[test]
fn the_image_for_the_slot_is_chosen() {
    let envelope = verified_release(&release_per_slot());
    for (target_slot, seed) in [(0, 1), (1, 2)] {
        let identity = Identity { target_slot, ..identity() };
        let (asked, end) = run_with(&envelope, &identity, Procedure::Update, |_| true);
        assert_eq!(asked, [Step::Fetch(plan(seed)), matches(seed), matches(seed)]);
        assert_eq!(end, DONE);
        let (asked, end) = run_with(&envelope, &identity, Procedure::Invoke, |_| true);
        assert_eq!((asked, end), (vec![matches(seed)], Ok(Step::Done { invoke: true })));
    }
    let identity = Identity { target_slot: 2, ..identity() };
    let (asked, end) = run_with(&envelope, &identity, Procedure::Update, |_| true);
    assert_eq!((asked, end), (vec![], failed(Section::Shared, 5)));
}

#[test]
fn a_manifest_for_another_vendor_or_class_ends_before_anything_is_asked() {
    let envelope = verified_release(&release());
    let other_vendor = Identity { vendor: VendorId([9; 16]), ..identity() };
    let other_class = Identity { class: ClassId([9; 16]), ..identity() };
    for (identity, command) in [(other_vendor, 1), (other_class, 2)] {
        for procedure in [Procedure::Update, Procedure::Invoke] {
            let (asked, end) = run_with(&envelope, &identity, procedure, |_| true);
            assert_eq!((asked, end.clone()), (vec![], failed(Section::Shared, command)));
            assert_eq!(ReportReason::from(end.unwrap_err()), ReportReason::ConditionFailed);
        }
    }
}

#[test]
fn a_failed_fetch_ends_the_procedure_even_where_conditions_are_soft() {
    let error = RunError::Fetch { section: Section::Install };
    let branches: [&[Command]; 2] = [&[source(1), fetch(), image_match()], &[source(2), fetch()]];
    for commands in
        [vec![source(1), fetch()], vec![try_each(&branches)], vec![try_each_or_nothing(&branches)]]
    {
        let (asked, end) = run(with_install(&commands), &[false]);
        assert_eq!(asked, [Step::Fetch(plan(1))]);
        assert_eq!(end, Err(error));
    }
    assert_eq!(ReportReason::from(error), ReportReason::OperationFailed);
}

/// How a payload that arrives and does not become the image falls back to another.
#[test]
fn an_image_that_does_not_match_after_a_fetch_falls_through_to_the_next_branch() {
    let transfer = image(2).transfer;
    let install = [try_each(&[&[source(1), fetch(), image_match()], &[source(2), fetch(), image_match()]])];
    let second = FetchPlan { uri: transfer.uri(), transfer, ..plan(1) };
    let (asked, end) = run(with_install(&install), &[true, false, true, true, true]);
    assert_eq!(
        asked,
        [Step::Fetch(plan(1)), matches(1), Step::Fetch(second.clone()), matches(1), matches(1)]
    );
    assert_eq!(end, DONE);
    // The last one is no better: the condition that failed is the error.
    let (asked, end) = run(with_install(&install), &[true, false, true, false]);
    assert_eq!(asked.len(), 4);
    assert_eq!(end, failed(Section::Install, 3));
    let (asked, end) = run(with_install(&install), &[true, true, true]);
    assert_eq!(asked.len(), 3);
    assert_eq!(end, DONE);
}

#[test]
fn an_image_that_is_there_already_is_not_fetched() {
    let install = [try_each(&[&[image_match()], &[source(1), fetch(), image_match()]])];
    let (asked, end) = run(with_install(&install), &[true, true]);
    assert_eq!((asked, end), (vec![matches(1), matches(1)], DONE));
    let (asked, end) = run(with_install(&install), &[false, true, true, true]);
    assert_eq!(asked, [matches(1), Step::Fetch(plan(1)), matches(1), matches(1)]);
    assert_eq!(end, DONE);
    // The same said the other way, with nothing as the alternative.
    let negated = Step::ImageMatch { component: 0, digest: Digest([1; 32]), size: 131_072, negate: true };
    let not_there = condition(Condition::ImageNotMatch);
    let install = [try_each_or_nothing(&[&[not_there, source(1), fetch()], &[abort()]])];
    let (asked, end) = run(with_install(&install), &[false, true]);
    assert_eq!((asked, end), (vec![negated.clone(), matches(1)], DONE));
    let (asked, end) = run(with_install(&install), &[true, true, true]);
    assert_eq!((asked, end), (vec![negated, Step::Fetch(plan(1)), matches(1)], DONE));
}

#[test]
fn nothing_is_a_branch_that_succeeds() {
    let (asked, end) = run(with_install(&[try_each_or_nothing(&[&[abort()], &[abort()]])]), &[true]);
    assert_eq!((asked, end), (vec![matches(1)], DONE));
    let (asked, end) = run(with_install(&[try_each(&[&[abort()], &[abort()]])]), &[]);
    assert_eq!((asked, end), (vec![], failed(Section::Install, 14)));
}

#[test]
fn a_branch_without_soft_failure_ends_the_try_each() {
    let branches: [&[Command]; 2] = [&[soft(false), abort()], &[source(1), fetch()]];
    for each in [try_each(&branches), try_each_or_nothing(&branches)] {
        let (asked, end) = run(with_install(&[each]), &[]);
        assert_eq!((asked, end), (vec![], failed(Section::Install, 14)));
    }
}

#[test]
fn a_sequence_ends_softly_only_where_it_says_so() {
    // Hard by default.
    let (asked, end) = run(with_install(&[run_sequence(&[abort()])]), &[]);
    assert_eq!((asked, end), (vec![], failed(Section::Install, 14)));
    // Soft: it halts, what follows it runs.
    let commands = [run_sequence(&[soft(true), abort(), source(2), fetch()]), source(1), fetch()];
    let (asked, end) = run(with_install(&commands), &[true, true]);
    assert_eq!((asked, end), (vec![Step::Fetch(plan(1)), matches(1)], DONE));
    // Soft and hard again.
    let (_, end) = run(with_install(&[run_sequence(&[soft(true), soft(false), abort()])]), &[]);
    assert_eq!(end, failed(Section::Install, 14));
}

#[test]
fn soft_failure_is_restored_behind_a_nested_sequence_and_not_inherited_by_it() {
    // A hard sequence within a soft one: its failure is taken by the soft one.
    let inner_hard = run_sequence(&[soft(true), run_sequence(&[abort()]), source(2), fetch()]);
    let (asked, end) = run(with_install(&[inner_hard, source(1), fetch()]), &[true, true]);
    assert_eq!((asked, end), (vec![Step::Fetch(plan(1)), matches(1)], DONE));
    // A soft one within a hard one leaves the hard one hard.
    let inner_soft = run_sequence(&[run_sequence(&[soft(true), abort()]), abort()]);
    let (asked, end) = run(with_install(&[inner_soft]), &[]);
    assert_eq!((asked, end), (vec![], failed(Section::Install, 14)));
    // A branch is soft again behind a sequence that is hard.
    let branch = [run_sequence(&[soft(false)]), abort()];
    let (asked, end) = run(with_install(&[try_each(&[&branch, &[source(1), fetch()]])]), &[true, true]);
    assert_eq!((asked, end), (vec![Step::Fetch(plan(1)), matches(1)], DONE));
    // A try-each without success is a failed condition for the branch around it.
    let inner = [try_each(&[&[abort()], &[abort()]])];
    let (asked, end) = run(with_install(&[try_each(&[&inner, &[source(1), fetch()]])]), &[true, true]);
    assert_eq!((asked, end), (vec![Step::Fetch(plan(1)), matches(1)], DONE));
}

#[test]
fn a_failed_branch_takes_no_parameter_back() {
    let install = [source(1), try_each(&[&[source(2), abort()], &[image_match()]]), fetch()];
    let transfer = image(2).transfer;
    let (asked, end) = run(with_install(&install), &[true, true, true]);
    let second = FetchPlan { uri: transfer.uri(), transfer, ..plan(1) };
    assert_eq!((asked, end), (vec![matches(1), Step::Fetch(second), matches(1)], DONE));
}

/// The digest that install overrides is the shared one again in validate.
#[test]
fn the_shared_sequence_runs_before_each_section() {
    let install = [set(&[Parameter::ImageDigest(Digest([7; 32]))]), image_match()];
    let (asked, end) = run(with_install(&install), &[true, true]);
    assert_eq!((asked, end), (vec![matches(7), matches(1)], DONE));
    // With a question in it, it asks before each.
    let mut with_question = content();
    with_question.shared.0.push(image_match());
    with_question.install = Some(Severable::Inline(sequence(&[source(1), fetch()])));
    let (asked, end) = run(with_question, &[true, true, true, true]);
    assert_eq!((asked, end), (vec![matches(1), Step::Fetch(plan(1)), matches(1), matches(1)], DONE));
}

#[test]
fn nothing_runs_after_invoke() {
    let invoke = Command::Invoke(ReportPolicy::ON_FAILURE);
    let content = Content { invoke: Some(sequence(&[invoke, abort(), image_match()])), ..content() };
    let (asked, end) = run_with(&verified(content), &identity(), Procedure::Invoke, |_| true);
    assert_eq!((asked, end), (vec![matches(1)], Ok(Step::Done { invoke: true })));
    // Without one, an invocation ends with no intent.
    let content = Content { invoke: Some(sequence(&[image_match()])), ..self::content() };
    let (asked, end) = run_with(&verified(content), &identity(), Procedure::Invoke, |_| true);
    assert_eq!((asked, end), (vec![matches(1), matches(1)], DONE));
}

#[test]
fn every_component_is_the_one_component() {
    for index in [ComponentIndex::One(0), ComponentIndex::All] {
        let install = [Command::SetComponentIndex(index), source(1), fetch()];
        let (asked, end) = run(with_install(&install), &[true, true]);
        assert_eq!((asked, end), (vec![Step::Fetch(plan(1)), matches(1)], DONE));
    }
}

#[test]
fn a_failed_validation_is_the_end() {
    let envelope = verified_release(&release());
    let mut count = 0;
    let (asked, end) = run_with(&envelope, &identity(), Procedure::Update, |_| {
        count += 1;
        count < 3
    });
    assert_eq!(asked.len(), 3);
    assert_eq!(end, failed(Section::Validate, 3));
}

/// What a fetch of a patch is told, and how the next branch follows where it was of no use.
#[test]
fn a_patch_is_fetched_where_its_base_runs_and_the_full_payload_where_none_does() {
    let envelope = verified_release(&release_with_patches(2));
    let holds = |seed: u8| {
        let ImageId { digest, size } = base(seed);
        Step::ImageMatch { component: 1, digest, size, negate: false }
    };
    let patch = |seed: u8| {
        let transfer = patch_transfer(seed + 100);
        let base = Some(base(seed));
        Step::Fetch(FetchPlan { uri: transfer.uri(), transfer, base, ..plan(1) })
    };
    let (full, whole) = (Step::Fetch(plan(1)), matches(1));
    let table = [
        // The first base, the second, neither.
        (vec![true, true, true, true], vec![holds(11), patch(11), whole.clone(), whole.clone()]),
        (
            vec![false, true, true, true, true],
            vec![holds(11), holds(12), patch(12), whole.clone(), whole.clone()],
        ),
        (
            vec![false, false, true, true, true],
            vec![holds(11), holds(12), full.clone(), whole.clone(), whole.clone()],
        ),
        // The first patch does not become the image, the second base is another one.
        (
            vec![true, true, false, false, true, true, true],
            vec![holds(11), patch(11), whole.clone(), holds(12), full.clone(), whole.clone(), whole.clone()],
        ),
        // Two patches for what runs, none of them good.
        (
            vec![true, true, false, true, true, false, true, true, true],
            vec![
                holds(11),
                patch(11),
                whole.clone(),
                holds(12),
                patch(12),
                whole.clone(),
                full,
                whole.clone(),
                whole,
            ],
        ),
    ];
    for (answers, steps) in table {
        let mut given = answers.iter();
        let reply = |_: &Step| *given.next().expect("an answer");
        let (asked, end) = run_with(&envelope, &identity(), Procedure::Update, reply);
        assert_eq!((asked, end), (steps, DONE), "{answers:?}");
    }
    let (asked, end) = run_with(&envelope, &identity(), Procedure::Invoke, |_| true);
    assert_eq!((asked, end), (vec![matches(1)], Ok(Step::Done { invoke: true })));
}

#[test]
fn the_base_of_a_patch_is_what_was_found_last_and_not_what_was_looked_for_in_vain() {
    let in_vain = run_sequence(&[soft(true), select(1), base_is(2), image_match()]);
    let not_there = [select(1), base_is(3), condition(Condition::ImageNotMatch)];
    let fetched = [select(0), patch(1), fetch()];
    let install = [&matched(1)[..], &[in_vain], &not_there, &fetched].concat();
    let (asked, end) = run(two(&install), &[true, false, true, true, true]);
    let [Step::ImageMatch { .. }, Step::ImageMatch { .. }, Step::ImageMatch { .. }, Step::Fetch(plan), _] =
        &asked[..]
    else {
        panic!("{asked:?}");
    };
    assert_eq!((plan.base, end), (Some(base(1)), DONE));
}

#[test]
fn a_raw_payload_of_another_size_than_its_image_is_refused_before_it_is_fetched() {
    let raw = TransferDescriptor::raw(Layout::new(12, 100_000).unwrap(), Digest([5; 32]));
    let source = set(&[Parameter::Uri(raw.uri()), Parameter::FetchArguments(raw)]);
    let (asked, end) = run(with_install(&[source, fetch()]), &[]);
    let error = RunError::TransferSize { transfer_size: 100_000, image_size: 131_072 };
    assert_eq!((asked, end), (vec![], Err(error)));
}

#[test]
fn a_manifest_that_the_walk_refuses_does_not_start() {
    let copy = Content {
        install: Some(Severable::Inline(sequence(&[try_each(&[
            &[image_match()],
            &[Command::Other(22, vec![0x02])],
        ])]))),
        ..content()
    };
    let refused = Interpreter::new(&verified(copy), &identity(), Procedure::Invoke).map(drop);
    assert!(matches!(refused, Err(ManifestError::NotExecuted { .. })));
}

#[test]
fn a_dropped_section_is_missed_only_by_the_procedure_that_needs_it() {
    let digest = Digest([3; 32]);
    let severed = Content { install: Some(Severable::Severed { digest, member: None }), ..content() };
    let envelope = verified(severed);
    let refused = Interpreter::new(&envelope, &identity(), Procedure::Update).map(drop);
    assert_eq!(refused, Err(ManifestError::SectionMissing { section: Section::Install }));
    let (asked, end) = run_with(&envelope, &identity(), Procedure::Invoke, |_| true);
    assert_eq!((asked, end), (vec![matches(1)], DONE));
}

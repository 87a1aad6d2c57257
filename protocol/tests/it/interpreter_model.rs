//! A second opinion on the interpreter, written as plain recursion after the drafts' words.

use proptest::prelude::*;
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{
    Codec, Command, ComponentIndex, Condition, Content, FetchPlan, Identity, ImageId, Parameter, Procedure,
    ReportPolicy, Section, Sequence, Severable, Step, TransferDescriptor,
};

use crate::interpreter::{identity, run_with, soft};
use crate::samples::{condition, content, fetch, image_match, set, source, verified};
use crate::walk_patches::{base_is, matched, patch, select, two};

/// A second opinion: the drafts' words as plain recursion, without the walk and the stack.
struct Model<'a> {
    identity: Identity,
    at: usize,
    values: [Values; 2],
    base: Option<ImageId>,
    answers: &'a mut dyn FnMut() -> bool,
    asked: Vec<Step>,
}

/// What is set for one component.
#[derive(Default)]
struct Values {
    digest: Option<Digest>,
    size: Option<u64>,
    slot: Option<u64>,
    uri: Option<String>,
    transfer: Option<TransferDescriptor>,
}

enum Stop {
    Condition(i64),
    Directive,
    Invoke,
}

impl Model<'_> {
    fn execute(&mut self, sequence: &Sequence, soft: &mut bool) -> Result<(), Stop> {
        for command in &sequence.0 {
            match command {
                Command::Condition(condition, _) => {
                    let holds = match condition {
                        Condition::VendorIdentifier | Condition::ClassIdentifier => true,
                        Condition::ComponentSlot => {
                            self.values[self.at].slot == Some(self.identity.target_slot)
                        }
                        Condition::Abort => false,
                        Condition::ImageMatch | Condition::ImageNotMatch => {
                            let values = &self.values[self.at];
                            let (digest, size) = (values.digest.unwrap(), values.size.unwrap());
                            let negate = *condition == Condition::ImageNotMatch;
                            self.asked.push(Step::ImageMatch { component: self.at, digest, size, negate });
                            let holds = (self.answers)();
                            if holds && !negate && self.at == 1 {
                                self.base = Some(ImageId { digest, size });
                            }
                            holds
                        }
                    };
                    if !holds {
                        return Err(Stop::Condition(condition.label()));
                    }
                }
                Command::SetComponentIndex(ComponentIndex::One(index)) => self.at = *index as usize,
                Command::SetComponentIndex(_) => self.at = 0,
                Command::OverrideParameters(parameters) => {
                    let values = &mut self.values[self.at];
                    for parameter in parameters {
                        match parameter {
                            Parameter::ImageDigest(digest) => values.digest = Some(*digest),
                            Parameter::ImageSize(size) => values.size = Some(*size),
                            Parameter::ComponentSlot(slot) => values.slot = Some(*slot),
                            Parameter::Uri(uri) => values.uri = Some(uri.clone()),
                            Parameter::FetchArguments(transfer) => values.transfer = Some(*transfer),
                            Parameter::SoftFailure(value) => *soft = *value,
                            _ => {}
                        }
                    }
                }
                Command::TryEach { branches, or_nothing } => {
                    let mut result = Err(Stop::Condition(15));
                    for branch in branches {
                        let mut soft = true;
                        result = self.execute(branch, &mut soft);
                        match &result {
                            Err(Stop::Condition(_)) if soft => {}
                            _ => break,
                        }
                        if *or_nothing {
                            result = match result {
                                Err(Stop::Condition(_)) => Err(Stop::Condition(0)),
                                other => other,
                            };
                        }
                    }
                    match result {
                        // Every branch failed softly, and nothing is allowed.
                        Err(Stop::Condition(0)) => {}
                        other => other?,
                    }
                }
                Command::RunSequence(nested) => {
                    let mut soft = false;
                    match self.execute(nested, &mut soft) {
                        Err(Stop::Condition(_)) if soft => {}
                        other => other?,
                    }
                }
                Command::Fetch(_) => {
                    let values = &self.values[self.at];
                    let transfer = values.transfer.unwrap();
                    // What the walk lets through has a base that was found.
                    let base = (transfer.codec == Codec::Patch).then(|| self.base.unwrap());
                    self.asked.push(Step::Fetch(FetchPlan {
                        component: self.at,
                        image_digest: values.digest.unwrap(),
                        image_size: values.size.unwrap(),
                        uri: values.uri.clone().unwrap(),
                        transfer,
                        base,
                    }));
                    if !(self.answers)() {
                        return Err(Stop::Directive);
                    }
                }
                Command::Invoke(_) => return Err(Stop::Invoke),
                Command::Other(..) => unreachable!("not generated"),
            }
        }
        Ok(())
    }
}

/// The model's trace: what was asked, then whether it succeeded, and with an intent.
fn model(
    content: &Content,
    procedure: Procedure,
    answers: &mut dyn FnMut() -> bool,
) -> (Vec<Step>, Option<bool>) {
    let mut model = Model {
        identity: identity(),
        at: 0,
        values: Default::default(),
        base: None,
        answers,
        asked: Vec::new(),
    };
    let sections = match procedure {
        Procedure::Update => [Section::Install, Section::Validate],
        Procedure::Invoke => [Section::Validate, Section::Invoke],
    };
    for section in sections {
        let Some(own) = content.section(section).unwrap() else {
            continue;
        };
        for sequence in [&content.shared, own] {
            model.at = 0;
            match model.execute(sequence, &mut false) {
                Ok(()) => {}
                Err(Stop::Invoke) => return (model.asked, Some(true)),
                Err(Stop::Condition(_) | Stop::Directive) => return (model.asked, None),
            }
        }
    }
    (model.asked, Some(false))
}

/// Sequences that the walk mostly accepts, because the shared sequence sets everything.
fn likely_sequences(section: Section) -> impl Strategy<Value = Sequence> {
    let leaf = prop_oneof![
        4 => Just(condition(Condition::ImageMatch)),
        2 => Just(condition(Condition::ImageNotMatch)),
        2 => Just(condition(Condition::ComponentSlot)),
        1 => Just(condition(Condition::Abort)),
        3 => (0u64..2).prop_map(|slot| set(&[Parameter::ComponentSlot(slot)])),
        2 => any::<u8>().prop_map(|seed| set(&[Parameter::ImageDigest(Digest([seed; 32]))])),
        2 => any::<u8>().prop_map(source),
        1 => Just(Command::SetComponentIndex(ComponentIndex::All)),
        2 => Just(match section {
            Section::Install => fetch(),
            Section::Invoke => Command::Invoke(ReportPolicy::ON_FAILURE),
            _ => condition(Condition::ImageMatch),
        }),
    ];
    let flat = prop::collection::vec(leaf, 1..4).prop_map(Sequence);
    flat.prop_recursive(3, 16, 3, |inner| {
        // Soft failure is set inside of nested sequences only.
        let softened = (inner.clone(), proptest::option::of(any::<bool>())).prop_map(|(mut inner, value)| {
            if let Some(value) = value {
                inner.0.insert(0, soft(value));
            }
            inner
        });
        let nested = prop_oneof![
            (prop::collection::vec(softened.clone(), 2..4), any::<bool>())
                .prop_map(|(branches, or_nothing)| Command::TryEach { branches, or_nothing }),
            softened.prop_map(Command::RunSequence),
        ];
        (inner, nested, any::<prop::sample::Index>()).prop_map(|(mut sequence, nested, at)| {
            let at = at.index(sequence.0.len() + 1);
            sequence.0.insert(at, nested);
            sequence
        })
    })
}

fn likely_contents() -> impl Strategy<Value = Content> {
    let install = proptest::option::of(likely_sequences(Section::Install));
    let invoke = proptest::option::of(likely_sequences(Section::Invoke));
    (likely_sequences(Section::Shared), install, likely_sequences(Section::Validate), invoke).prop_map(
        |(more, install, validate, invoke)| {
            let mut content = content();
            content.shared.0.insert(0, set(&[Parameter::ComponentSlot(0)]));
            content.shared.0.insert(0, source(1));
            content.shared.0.extend(more.0);
            content.install = install.map(Severable::Inline);
            content.validate = Some(validate);
            content.validate.as_mut().unwrap().0.push(image_match());
            content.invoke = invoke;
            content
        },
    )
}

/// Install sections with two components: mostly such as the walk accepts, because a base was matched before.
fn with_two_components() -> impl Strategy<Value = Content> {
    let leaf = prop_oneof![
        3 => (0u64..2).prop_map(select),
        2 => Just(image_match()),
        1 => Just(condition(Condition::ImageNotMatch)),
        1 => Just(condition(Condition::Abort)),
        2 => (1u8..4).prop_map(base_is),
        2 => (1u8..9).prop_map(patch),
        2 => (1u8..9).prop_map(source),
    ];
    let branch = (prop::collection::vec(leaf, 0..4), any::<bool>(), any::<bool>(), 0u64..2).prop_map(
        |(more, fetches, ends, at)| {
            let mut commands = vec![select(at)];
            commands.extend(more);
            if fetches {
                commands.extend([select(0), fetch(), image_match()]);
            }
            if ends {
                commands.push(condition(Condition::Abort));
            }
            Sequence(commands)
        },
    );
    let nested = prop_oneof![
        3 => (prop::collection::vec(branch.clone(), 2..4), any::<bool>())
            .prop_map(|(branches, or_nothing)| Command::TryEach { branches, or_nothing }),
        1 => (branch.clone(), any::<bool>()).prop_map(|(mut sequence, ends_softly)| {
            sequence.0.insert(0, soft(ends_softly));
            Command::RunSequence(sequence)
        }),
    ];
    (prop::collection::vec((nested, branch), 1..3), any::<bool>()).prop_map(|(parts, matched_before)| {
        let mut content = two(&[select(0), source(1)]);
        let Some(Severable::Inline(install)) = &mut content.install else { unreachable!("two makes one") };
        if matched_before {
            install.0.extend(matched(1));
        }
        for (nested, flat) in parts {
            install.0.push(nested);
            install.0.extend(flat.0);
        }
        content
    })
}

fn commands_of(sequence: &Sequence) -> usize {
    sequence
        .0
        .iter()
        .map(|command| match command {
            Command::TryEach { branches, .. } => 1 + branches.iter().map(commands_of).sum::<usize>(),
            Command::RunSequence(nested) => 1 + commands_of(nested),
            _ => 1,
        })
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_interpreter_agrees_with_plain_recursion_and_ends(
        content in prop_oneof![likely_contents(), with_two_components()],
        answers in prop::collection::vec(prop::bool::weighted(0.7), 1..40),
        update in any::<bool>(),
    ) {
        let manifest = whimbrel_protocol::manifest::Manifest::new(content.clone());
        prop_assume!(manifest.as_ref().is_ok_and(|manifest| manifest.bytes().len() < 3_500));
        prop_assume!(manifest.unwrap().walk().is_ok());
        let procedure = if update { Procedure::Update } else { Procedure::Invoke };
        // Answers repeat, so that no procedure can wait for the last of them.
        let mut given = answers.iter().cycle();
        let expected = model(&content, procedure, &mut || *given.next().unwrap());
        let mut given = answers.iter().cycle();
        let envelope = verified(content.clone());
        let (asked, end) = run_with(&envelope, &identity(), procedure, |_| *given.next().unwrap());
        let end = match end {
            Ok(Step::Done { invoke }) => Some(invoke),
            Ok(_) => unreachable!("a question is no end"),
            Err(_) => None,
        };
        prop_assert_eq!(&(asked.clone(), end), &expected);
        // It only ever consumes: at most as many questions as there are commands.
        let total = 3 * commands_of(&content.shared)
            + [Section::Install, Section::Validate, Section::Invoke]
                .into_iter()
                .filter_map(|section| content.section(section).unwrap())
                .map(commands_of)
                .sum::<usize>();
        prop_assert!(asked.len() <= total);
    }
}

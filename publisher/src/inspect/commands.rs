//! Explains the commands of a manifest in words, one on each line. Nested commands are indented.

use whimbrel_protocol::manifest::consts::{command_name, parameter_name};
use whimbrel_protocol::manifest::{Command, ComponentIndex, Condition, Parameter, Sequence};

/// The lines that explain `sequence`.
pub(super) fn lines(sequence: &Sequence) -> Vec<String> {
    let mut lines = Vec::new();
    write(&mut lines, sequence, 0);
    lines
}

/// Recursion ends after three levels, because decoding refuses deeper nesting.
fn write(lines: &mut Vec<String>, sequence: &Sequence, indent: usize) {
    for command in &sequence.0 {
        let mut line = |text: String| lines.push(format!("{:indent$}{text}", ""));
        match command {
            Command::Condition(condition, _) => line(words(*condition).into()),
            Command::SetComponentIndex(ComponentIndex::One(index)) => line(format!("take component {index}")),
            Command::SetComponentIndex(ComponentIndex::All) => line("take every component".into()),
            Command::SetComponentIndex(ComponentIndex::List(list)) => {
                line(format!("take components {list:?}"))
            }
            Command::OverrideParameters(parameters) => {
                parameters.iter().for_each(|parameter| line(format!("set {}", parameter_words(parameter))));
            }
            Command::Fetch(_) => line("fetch the payload".into()),
            Command::Invoke(_) => line("start the image".into()),
            Command::RunSequence(nested) => {
                line("run".into());
                write(lines, nested, indent + 2);
            }
            Command::TryEach { branches, or_nothing } => {
                for (number, branch) in branches.iter().enumerate() {
                    lines.push(format!("{:indent$}{}", "", if number == 0 { "try" } else { "else try" }));
                    write(lines, branch, indent + 2);
                }
                let end = if *or_nothing { "else go on" } else { "else fail" };
                lines.push(format!("{:indent$}{end}", ""));
            }
            Command::Other(label, argument) => {
                line(format!("command {label} ({}): h'{}'", command_name(*label), hex::encode(argument)));
            }
        }
    }
}

const fn words(condition: Condition) -> &'static str {
    match condition {
        Condition::VendorIdentifier => "require the vendor",
        Condition::ClassIdentifier => "require the class",
        Condition::ImageMatch => "require the image in the slot",
        Condition::ImageNotMatch => "require another image in the slot",
        Condition::ComponentSlot => "require the slot that will be written",
        Condition::Abort => "give up",
    }
}

fn parameter_words(parameter: &Parameter) -> String {
    let value = match parameter {
        Parameter::VendorId(id) => id.to_hex(),
        Parameter::ClassId(id) => id.to_hex(),
        Parameter::ImageDigest(digest) => digest.to_hex(),
        Parameter::ComponentSlot(slot) => slot.to_string(),
        Parameter::SoftFailure(soft) => soft.to_string(),
        Parameter::ImageSize(size) => size.to_string(),
        Parameter::Uri(uri) => uri.clone(),
        Parameter::FetchArguments(transfer) => {
            let layout = transfer.layout;
            format!(
                "{}, {} bytes in {} chunks of {}",
                transfer.codec.name(),
                layout.transfer_size(),
                layout.chunk_count(),
                layout.chunk_size()
            )
        }
        Parameter::Other(_, value) => format!("h'{}'", hex::encode(value)),
    };
    format!("{} to {value}", parameter_name(parameter.label()))
}

//! The line on standard error with which a program ends that cannot do what it was told.

use core::error::Error;
use std::ffi::OsStr;

/// The line: `program: what`, or under `--json` one JSON object, `{"error":"what"}`.
#[must_use]
pub fn last_line(program: &str, what: &str, json: bool) -> String {
    let what = what.replace(['\n', '\r'], " ");
    if json { serde_json::json!({ "error": what }).to_string() } else { format!("{program}: {what}") }
}

/// Whether a command line asks for JSON. This looks at the words alone, because a command line that cannot be read is
/// answered in the same way.
#[must_use]
pub fn asks_for_json<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> bool {
    args.into_iter().take_while(|arg| arg.as_ref() != "--").any(|arg| arg.as_ref() == "--json")
}

/// An error with its causes, as one line. A cause that the error before it says already is left out.
#[must_use]
pub fn of_error(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !line.ends_with(&said) {
            line.push_str(": ");
            line.push_str(&said);
        }
        next = cause.source();
    }
    line
}

/// What clap says of a wrong command line, on one line and without the usage.
#[must_use]
pub fn of_usage(rendered: &str) -> String {
    let said = rendered.split("\n\nUsage:").next().unwrap_or_default();
    let said = said.split("\n\nFor more information").next().unwrap_or_default();
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_an_object_and_people_a_line() {
        assert_eq!(last_line("prog", "no \"file\"\nhere", false), "prog: no \"file\" here");
        assert_eq!(last_line("prog", "no \"file\"\nhere", true), r#"{"error":"no \"file\" here"}"#);
    }

    #[test]
    fn json_is_asked_for_by_a_word_before_two_hyphens() {
        assert!(asks_for_json(["prog", "status", "--json"]));
        assert!(!asks_for_json(["prog", "--jsonx", "--", "--json"]));
    }

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("file: {0}")]
        Repeats(#[source] core::num::ParseIntError),
        #[error("file")]
        Leaves(#[source] core::num::ParseIntError),
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = || "x".parse::<u8>().unwrap_err();
        for sample in [Sample::Repeats(cause()), Sample::Leaves(cause())] {
            assert_eq!(of_error(&sample), "file: invalid digit found in string");
        }
    }

    #[test]
    fn usage_and_hints_of_clap_are_left_out() {
        let rendered = "error: the following required arguments were not provided:\n  --image <FILE>\n\nUsage: prog\n\n\
            For more information, try '--help'.\n";
        assert_eq!(of_usage(rendered), "the following required arguments were not provided: --image <FILE>");
    }
}

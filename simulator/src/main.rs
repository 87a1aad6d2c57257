//! `whimbrel-sim`: flags, and what they start.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

use whimbrel_sim::cli::{Cli, Command, ProfilesArgs};
use whimbrel_sim::profile::{PROFILES_TOML, Profile, Profiles};

fn main() -> ExitCode {
    let outcome = Cli::read().map_err(anyhow::Error::msg).and_then(|cli| match cli.command {
        Command::Profiles(args) => list_profiles(&args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whimbrel-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list_profiles(args: &ProfilesArgs) -> anyhow::Result<()> {
    let text = if args.toml {
        PROFILES_TOML.to_owned()
    } else {
        let described = |profile: &Profile| format!("{profile}\n    {}; {}\n", profile.about, profile.source);
        Profiles::builtin().iter().map(described).collect()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Who pipes this into `head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

//! Carries out the commands. Each family of commands has a file; this one has what they share.

mod bases;
mod build;
mod campaign;
mod device;
mod import;
mod init;
mod inspect;
mod key;
mod patch;
mod payloads;
mod progress;
mod rekeyed;
mod release;
mod status;
mod table;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use whimbrel_protocol::limits::ROOT_BYTES_MAX;
use whimbrel_protocol::trust::Root;

pub(crate) use progress::{Progress, bar};

use crate::cli::{Cli, Command, ConfigCommand, GlobalFlags, ReleaseCommand, Told};
use crate::config::{self, Config, Sources};
use crate::files;
use crate::output::{Fields, Value, plain};
use crate::release::ReleaseError;
use crate::service::{Client, ServiceError};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<()> {
    cli.global.log.unwrap_or(Told::Progress).set();
    let context = Context { flags: cli.global };
    let screen = match cli.command {
        Command::Init { folder, alg } => init::run(&folder, alg.into())?,
        Command::Key(command) => key::run(command)?,
        Command::Release(ReleaseCommand::Inspect(flags)) | Command::Inspect(flags) => {
            inspect::run(&context, &flags)?
        }
        Command::Release(command) => release::run(&context, command)?,
        Command::Campaign(command) => campaign::run(&context, command)?,
        Command::Device(command) => device::run(&context, command)?,
        Command::Status => status::run(&context)?,
        Command::Config(command) => context.settings(command)?,
    };
    context.show(&screen)
}

/// The output of a command, for people and for programs.
pub(crate) struct Screen {
    /// Lines.
    pub(crate) human: String,
    /// One JSON value on one line.
    pub(crate) json: String,
}

impl From<Fields> for Screen {
    fn from(fields: Fields) -> Self {
        Self { human: fields.human(), json: fields.json() }
    }
}

impl Screen {
    /// Gives programs the service's answer as it is, and people `human`.
    pub(crate) fn of(human: String, answer: &impl serde::Serialize) -> Self {
        let json = serde_json::to_value(answer).expect("text, numbers and lists of them have a JSON form");
        Self { human, json: json.to_string() }
    }

    /// Adds `warnings` for programs. People have been warned on standard error.
    pub(crate) fn warned(fields: Fields, warnings: Vec<String>) -> Self {
        let human = fields.human();
        let warnings = warnings.into_iter().map(Value::Text).collect::<Vec<_>>();
        Self { human, json: fields.with("warnings", warnings).json() }
    }

    /// Adds a line for people.
    pub(crate) fn and(mut self, line: &str) -> Self {
        self.human.push_str(line);
        self.human.push('\n');
        self
    }
}

/// What every command can use: the global flags, and what they and the configuration lead to.
pub(crate) struct Context {
    flags: GlobalFlags,
}

impl Context {
    /// The configuration: the file that was named, else the one in this folder if there is one.
    pub(crate) fn config(&self) -> Result<Config> {
        Ok(Config::load(&self.sources())?)
    }

    fn sources(&self) -> Sources {
        let here = || Some(PathBuf::from(config::FILE_NAME)).filter(|path| path.is_file());
        Sources::of_process(self.flags.config.clone().or_else(here), self.flags.set.clone())
    }

    /// Carries out `whimbrel config`.
    fn settings(&self, command: ConfigCommand) -> Result<Screen> {
        Ok(match command {
            ConfigCommand::Show => {
                let values = config::values(&self.sources())?;
                Screen::of(values.show(), &serde_json::to_value(values.shown())?)
            }
            ConfigCommand::Default => {
                let file = config::DEFAULT_FILE;
                Screen::of(file.into(), &serde_json::json!({ "file": file }))
            }
            ConfigCommand::Check => {
                self.config()?;
                Screen::of("the configuration is right\n".into(), &serde_json::json!({ "right": true }))
            }
        })
    }

    /// The service, as flags or configuration name it.
    pub(crate) fn client(&self) -> Result<Client> {
        let needs_config = self.flags.service.is_none() || self.flags.token_file.is_none();
        let config = if needs_config { self.config()? } else { Config::default() };
        let address = self.flags.service.clone().or(config.admin).ok_or(ServiceError::NoAddress)?;
        let token_file = self.flags.token_file.clone().or(config.token_file).ok_or(ServiceError::NoToken)?;
        Ok(Client::new(&address, &token_file)?)
    }

    /// The root that a flag names, else the configuration's if it is there.
    pub(crate) fn root(&self, flag: Option<&Path>) -> Result<Option<(PathBuf, Root)>> {
        let path = match flag {
            Some(path) => path.to_path_buf(),
            None => match self.config()?.root {
                Some(path) if path.is_file() => path,
                _ => return Ok(None),
            },
        };
        let bytes = files::read(&path, "a root", ROOT_BYTES_MAX as u64)?;
        match Root::verify(&bytes) {
            Ok(root) => Ok(Some((path, root))),
            Err(source) => Err(ReleaseError::Root { path, source }.into()),
        }
    }

    /// As [`Context::root`], for commands that need a root.
    pub(crate) fn required_root(&self, flag: Option<&Path>) -> Result<(PathBuf, Root)> {
        self.root(flag)?
            .context("no root is named: give --root FILE, or --config FILE with `root` in [service]")
    }

    /// Whether programs read the output.
    pub(crate) const fn is_json(&self) -> bool {
        self.flags.json
    }

    /// Prints to standard output. It is no error if the reader has closed it.
    pub(crate) fn show(&self, screen: &Screen) -> Result<()> {
        let mut out = io::stdout().lock();
        let written = if self.flags.json {
            writeln!(out, "{}", screen.json)
        } else {
            out.write_all(screen.human.as_bytes())
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to standard output")
            }
            _ => Ok(()),
        }
    }
}

/// Prints a warning, which is not an error, on standard error.
pub(crate) fn warn(text: &str) {
    if Told::now() >= Told::Warnings {
        drop(writeln!(io::stderr(), "whimbrel: warning: {}", plain(text)));
    }
}

/// Prints what the service says of something that is probably not meant.
pub(crate) fn warn_of(warnings: &[whimbrel_api::Warning]) {
    warnings.iter().for_each(|warning| warn(&warning.text));
}

//! Flags, log, run; nothing else.

mod cli;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use tokio::sync::watch;
use tracing::info;
use tracing_subscriber::filter::LevelFilter;
use whimbrel_agent::commands::{self, Who};
use whimbrel_agent::config::{self, Config, Sources};
use whimbrel_agent::control::{self, Exit, Reply, Request};
use whimbrel_agent::daemon::{self, Ended};
use whimbrel_agent::home::{self, Home, LOCK_PAUSE, LOCK_TRIES, boot};
use whimbrel_agent::local_trust::check_path;
use whimbrel_agent::provision::{self, Provision};
use whimbrel_settings::complaint;
use whimbrel_settings::daemon::{log, stop};

use cli::{Cli, Command, ConfigCommand, Global};

fn main() -> ExitCode {
    let json = complaint::asks_for_json(std::env::args_os());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_flags(&error, json),
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // One line: each cause says what its effect does not.
            log::say(&complaint::last_line("whimbrel-agent", &complaint::of_error(&*error), json));
            ExitCode::from(Exit::Error.code())
        }
    }
}

/// Help and version are no errors; a wrong flag is one line, without the usage that clap adds.
fn refuse_flags(error: &clap::Error, json: bool) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that went away does not matter.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    let what = format!("{} (see whimbrel-agent --help)", complaint::of_usage(&error.to_string()));
    log::say(&complaint::last_line("whimbrel-agent", &what, json));
    ExitCode::from(Exit::Error.code())
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    let Cli { global, command } = cli;
    let sources = sources(&global);
    if let Some(file) = &sources.file {
        check_path(file)?;
    }
    let daemon = matches!(command, Command::Daemon);
    start_log(global.log.as_deref().unwrap_or(if daemon { "info" } else { "error" }))?;
    let request = match command {
        Command::Daemon => return run_daemon(&sources),
        Command::Boot => {
            print(&boot(&config::storage(&sources)?)?.display().to_string())?;
            return Ok(Exit::Done.code());
        }
        Command::Config { what } => {
            let text = match what {
                ConfigCommand::Show { json: false } => config::values(&sources)?.show(),
                ConfigCommand::Show { json: true } => {
                    serde_json::to_string_pretty(&config::values(&sources)?.shown())?
                }
                ConfigCommand::Default => config::default_file(),
                ConfigCommand::Check => {
                    let config = Config::check(&sources)?;
                    home::check(&config)?;
                    "the configuration is right".to_owned()
                }
            };
            print(text.trim_end())?;
            return Ok(Exit::Done.code());
        }
        Command::Install { path } => {
            let path =
                std::path::absolute(&path).with_context(|| format!("cannot use {}", path.display()))?;
            let path = path.to_str().context("the path of a release must be UTF-8")?.to_owned();
            Request::Install { path }
        }
        Command::Provision { envelope, image, force, json } => {
            return provision(Config::load(&sources)?, &Provision { envelope, image, force }, json);
        }
        Command::Commit => Request::Commit,
        Command::Rollback => Request::Rollback,
        Command::Check => Request::Check,
        Command::Status { json } => return status(&Config::load(&sources)?, json),
    };
    let reply = carry_out(&Config::load(&sources)?, &request)?;
    say(&reply)
}

fn sources(global: &Global) -> Sources {
    let usual = PathBuf::from("agent.toml");
    let file = global.config.clone().or_else(|| usual.exists().then_some(usual));
    Sources::of_process(file, global.set.clone())
}

fn start_log(level: &str) -> anyhow::Result<()> {
    let wrong = || format!("--log {level}: must be off, error, warn, info, debug or trace");
    let level: LevelFilter = level.parse().ok().with_context(wrong)?;
    log::take_panics();
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| log::Stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

fn run_daemon(sources: &Sources) -> anyhow::Result<u8> {
    let (stop, stopped) = watch::channel(false);
    // Kept here too: its end would be taken for the signal.
    let told = stop.clone();
    let tell = move || {
        info!("told to stop");
        told.send_replace(true);
    };
    stop::on_signal("whimbrel-agent", tell).context("cannot listen for SIGTERM")?;
    let config = Config::load(sources)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon::run(config, stopped));
    drop(stop);
    // The storage thread may still be writing an image: as with a power cut, nothing has to wait for it.
    runtime.shutdown_background();
    log::finish();
    Ok(match ended? {
        Ended::Stopped => Exit::Done.code(),
        Ended::RebootNeeded => Exit::Reboot.code(),
    })
}

/// One thread: what blocks has its own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    runtime.context("the system gives no runtime")
}

/// Has the daemon do it, or does it where no daemon runs.
fn carry_out(config: &Config, request: &Request) -> anyhow::Result<Reply> {
    for _ in 0..LOCK_TRIES {
        if let Some(reply) = control::ask(&config.storage.data, request)? {
            return Ok(reply);
        }
        // Not made by a look at it: a mistyped folder stays missing.
        let makes_folder = matches!(request, Request::Install { .. });
        if !makes_folder && !config.storage.data.is_dir() {
            anyhow::bail!("there is no data folder {}: no agent has run here", config.storage.data.display());
        }
        match Home::open(config.clone()) {
            // A daemon that has just started, or another command.
            Err(error) if error.is_locked() => std::thread::sleep(LOCK_PAUSE),
            home => return carry_out_here(&mut home?, request),
        }
    }
    anyhow::bail!("{} is in use, and no agent answers there: try again", config.storage.data.display())
}

fn carry_out_here(home: &mut Home, request: &Request) -> anyhow::Result<Reply> {
    let runtime = runtime()?;
    let hooks = home.ask_hooks();
    Ok(commands::carry_out(home, request, Who::Person, move || runtime.block_on(hooks))?)
}

fn provision(config: Config, what: &Provision, json: bool) -> anyhow::Result<u8> {
    let done = provision::provision(&mut Home::open(config)?, what)?;
    if json {
        print(&serde_json::to_string(&done)?)?;
    } else {
        let version = done.version.map_or_else(String::new, |version| format!("version {version}, "));
        print(&format!(
            "slot {} holds {version}sequence {}: {} bytes, SHA-256 {}",
            done.slot, done.sequence, done.image_bytes, done.image
        ))?;
    }
    Ok(Exit::Done.code())
}

fn status(config: &Config, json: bool) -> anyhow::Result<u8> {
    let reply = carry_out(config, &Request::Status)?;
    let Some(view) = &reply.status else {
        return say(&reply);
    };
    if json {
        print(&serde_json::to_string(view)?)?;
    } else {
        print(view.in_words().trim_end())?;
    }
    Ok(reply.exit.code())
}

fn say(reply: &Reply) -> anyhow::Result<u8> {
    match reply.exit {
        Exit::Error => anyhow::bail!("{}", reply.text),
        Exit::Done | Exit::Nothing | Exit::Reboot => print(&reply.text)?,
    }
    Ok(reply.exit.code())
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

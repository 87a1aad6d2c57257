//! The program around the service: command line, log, signals, exit status.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use whimbrel_settings::complaint;
use whimbrel_settings::daemon::{log, stop};

use crate::accept::{AcceptError, accept_clock, accept_store};
use crate::cli::{CONFIG_FILE, Cli, ClockCommand, Command, ConfigCommand, StoreCommand};
use crate::config::{Config, ConfigError, Sources, default_file, values};
use crate::front::FrontError;
use crate::run::{Ready, ServiceError, check, run};

/// Runs `whimbreld` with these arguments, the program's name first. Status 0: it was told to stop; 1: it could
/// not start or not go on, and said why in one line on standard error; 70: the embedded broker died; 75: it was told
/// to stop and did not within ten seconds.
pub fn main_from_args(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = args.into_iter().collect::<Vec<_>>();
    let json = complaint::asks_for_json(&args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return explain(&error, json),
    };
    match carry_out(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string(), json);
            ExitCode::from(error.status())
        }
    }
}

impl Failure {
    /// The exit status. Whether the router is found dead by the heartbeat or while the door opens, the process ends with
    /// the same one.
    fn status(&self) -> u8 {
        match self {
            Self::Service(ServiceError::Front { error: FrontError::RouterGone }) => 70,
            _ => 1,
        }
    }
}

/// Why the program ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(
        "there is no whimbrel.toml here: make a folder with `whimbrel init DIR`, or name the file with --config"
    )]
    NoFile,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Accept(#[from] AcceptError),
    #[error(
        "--log {wanted}: {error}; off, error, warn, info, debug or trace would be right, also for parts of the program \
         as in info,rumqttc=debug"
    )]
    Log { wanted: String, error: tracing_subscriber::filter::ParseError },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    if let Some(Command::Config { what: ConfigCommand::Default }) = cli.command {
        return print(&default_file());
    }
    let sources = Sources::of_process(Some(find_config(cli.config)?), cli.set);
    match cli.command {
        Some(Command::Config { what: ConfigCommand::Show { json: true } }) => {
            let shown = serde_json::to_string_pretty(&values(&sources)?.shown());
            return print(&format!("{}\n", shown.expect("text and options become JSON")));
        }
        Some(Command::Config { what: ConfigCommand::Show { json: false } }) => {
            return print(&values(&sources)?.show());
        }
        Some(Command::Config { what: ConfigCommand::Check }) => {
            check(&Config::load(&sources)?)?;
            return print("the configuration is right\n");
        }
        Some(Command::Clock { what: ClockCommand::Accept }) => {
            return print(accept_clock(&Config::load(&sources)?)?);
        }
        Some(Command::Store { what: StoreCommand::Accept }) => {
            return print(accept_store(&Config::load(&sources)?)?);
        }
        Some(Command::Config { what: ConfigCommand::Default }) | None => {}
    }
    let system = |what| move |source| Failure::System { what, source };
    start_log(cli.log.as_deref())?;
    let (tell, told) = oneshot::channel();
    let is_told = move || {
        tracing::info!("told to stop");
        // Nobody listens any more if the service has ended by itself.
        let _unheard = tell.send(());
    };
    stop::on_signal("whimbreld", is_told).map_err(system("wait for signals"))?;
    let config = Config::load(&sources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("whimbrel-worker")
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let ended = runtime.block_on(async {
        let shutdown = async {
            let _told = told.await;
        };
        let json = cli.ready_json;
        run(config, |ready| announce(ready, json), shutdown).await.map_err(Failure::Service)
    });
    // Threads that still read the disk are not waited for.
    runtime.shutdown_background();
    log::finish();
    ended
}

fn find_config(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let here = || Some(PathBuf::from(CONFIG_FILE)).filter(|path| path.exists());
    named.or_else(here).ok_or(Failure::NoFile)
}

/// What is logged where nothing is said: the database would tell of every statement.
const LOG_DEFAULT: &str = "info,sqlx=warn";

/// What is logged. The router's own log is off unless it is asked for by name: it formats the topic of every
/// message for a span of level `error`, and takes a fifth of the CPU with that.
fn log_filter(wanted: Option<&str>) -> String {
    let wanted = wanted.filter(|wanted| !wanted.trim().is_empty()).unwrap_or(LOG_DEFAULT);
    if wanted.contains("rumqttd") { wanted.to_owned() } else { format!("{wanted},rumqttd=off") }
}

fn start_log(wanted: Option<&str>) -> Result<(), Failure> {
    log::take_panics();
    let wrong = |error| Failure::Log { wanted: wanted.unwrap_or_default().to_owned(), error };
    let filter = EnvFilter::try_new(log_filter(wanted)).map_err(wrong)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| log::Stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A program that is us and something else besides may have started one.
    let _started_already = log.try_init();
    Ok(())
}

/// What `--ready-json` prints.
#[derive(Serialize)]
struct ReadyLine {
    ready: bool,
    mqtt: Option<String>,
    admin: String,
    pid: u32,
}

fn announce(ready: Ready, json: bool) {
    let mqtt = ready.mqtt.map(|address| address.to_string());
    let line = if json {
        let line = ReadyLine { ready: true, mqtt, admin: ready.admin.to_string(), pid: std::process::id() };
        serde_json::to_string(&line).unwrap_or_default()
    } else {
        let devices =
            mqtt.map_or("devices through the broker".to_owned(), |mqtt| format!("devices at mqtt://{mqtt}"));
        format!("whimbreld serves {devices}, operators at http://{}", ready.admin)
    };
    // Whoever started us may not listen, and may not even read: that must not keep the service from its work.
    let say = move || drop(print(&format!("{line}\n")));
    let _no_thread = std::thread::Builder::new().name("ready-line".to_owned()).spawn(say);
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    printed.map_err(|source| Failure::System { what: "write to standard output", source })
}

fn complain(what: &str, json: bool) {
    log::say(&complaint::last_line("whimbreld", what, json));
}

/// Help and version as asked for; anything else in one line.
fn explain(error: &clap::Error, json: bool) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _unheard = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            let what = complaint::of_usage(&error.to_string());
            complain(&format!("{what}; `whimbreld --help` says what there is"), json);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::LinkError;

    #[test]
    fn the_router_is_silent_unless_it_is_asked_for() {
        assert_eq!(log_filter(None), format!("{LOG_DEFAULT},rumqttd=off"));
        assert_eq!(log_filter(Some("")), log_filter(None));
        assert_eq!(log_filter(Some("debug")), "debug,rumqttd=off");
        assert_eq!(log_filter(Some("warn,rumqttd=info")), "warn,rumqttd=info");
    }

    #[test]
    fn a_dead_router_has_its_own_exit_status_and_everything_else_has_1() {
        let dead = ServiceError::Front { error: FrontError::RouterGone };
        assert_eq!(Failure::from(dead).status(), 70);
        assert_eq!(Failure::from(ServiceError::Link(LinkError::ClientGone)).status(), 1);
        assert_eq!(Failure::NoFile.status(), 1);
    }
}

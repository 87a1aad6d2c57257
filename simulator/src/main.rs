//! `whimbrel-sim`: flags, and what they start.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use whimbrel_settings::complaint;
use whimbrel_sim::child::{end_with_parent, set_log};
use whimbrel_sim::cli::{Cli, Command, DemoArgs, ProfilesArgs, ServeArgs, SwarmArgs};
use whimbrel_sim::load::UpdatesArgs;
use whimbrel_sim::process::raise_open_files;
use whimbrel_sim::profile::{PROFILES_TOML, Profile, Profiles};
use whimbrel_sim::update::{Conduct, Guest, StartOptions, conduct};

fn main() -> ExitCode {
    let outcome = Cli::read().map_err(anyhow::Error::msg).and_then(carry_out);
    outcome.unwrap_or_else(|error| {
        let json = complaint::asks_for_json(std::env::args_os());
        eprintln!("{}", complaint::last_line("whimbrel-sim", &complaint::of_error(&*error), json));
        ExitCode::FAILURE
    })
}

fn carry_out(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(level) = cli.log {
        set_log(level);
    }
    match cli.command {
        Command::Demo(args) => demo(&args),
        Command::Swarm(args) => swarm(&args),
        Command::Service { args } => Ok(service(args)),
        Command::BenchServe(args) => bench_serve(&args),
        Command::BenchUpdates(args) => bench_updates(&args),
        Command::Baseline { args } => Ok(baseline(&args)),
        Command::Misbehave { plan } => Ok(misbehave(&plan)),
        Command::Profiles(args) => list_profiles(&args).map(|()| ExitCode::SUCCESS),
    }
}

/// Is the service, for the simulator that started this process.
fn service(args: Vec<OsString>) -> ExitCode {
    end_with_parent();
    whimbrel_service::main_from_args(core::iter::once(OsString::from("whimbreld")).chain(args))
}

/// Is the router alone, for the simulator that started this process.
fn baseline(args: &[OsString]) -> ExitCode {
    end_with_parent();
    whimbrel_sim::bench::baseline_main(args)
}

/// Is the clients that misbehave, for the simulator that started this process.
fn misbehave(plan: &str) -> ExitCode {
    end_with_parent();
    whimbrel_sim::misbehave::main_from_args(plan)
}

fn bench_serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    open_files(args.devices)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let comparison = runtime.block_on(whimbrel_sim::bench::serve(args))?;
    print(&if args.json { serde_json::to_string(&comparison)? + "\n" } else { comparison.to_string() })?;
    Ok(ExitCode::SUCCESS)
}

fn bench_updates(args: &UpdatesArgs) -> anyhow::Result<ExitCode> {
    raise_open_files(u64::from(args.devices) * 2 + FILES_BESIDE).ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let figures = runtime.block_on(whimbrel_sim::load::updates(args))?;
    print(&if args.json { serde_json::to_string(&figures)? + "\n" } else { figures.to_string() })?;
    Ok(verdict(&figures.objections()))
}

fn demo(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let image = match &args.image {
        Some(path) => read_image(path, u64::MAX)?,
        None => read_image(&std::env::current_exe().context("cannot find this program")?, DEMO_IMAGE_BYTES)?,
    };
    run(Conduct {
        image,
        devices: args.devices,
        start: None,
        cuts: args.cuts_per_device,
        guest: None,
        corrupt: None,
        message_bytes: None,
        run: &args.run,
    })
}

fn swarm(args: &SwarmArgs) -> anyhow::Result<ExitCode> {
    let corrupt = args.corrupt_chunk.map(|device| device.unwrap_or(args.devices / 2));
    if let Some(device) = corrupt.filter(|device| *device >= args.devices) {
        anyhow::bail!("--corrupt-chunk={device}: there are devices 0 to {}", args.devices - 1);
    }
    let guest = args.broker.as_ref().map(|broker| Guest::drawn(broker, args.prefix.clone())).transpose()?;
    run(Conduct {
        image: read_image(&args.image, u64::MAX)?,
        devices: args.devices,
        start: start(args)?,
        cuts: args.cuts_per_device,
        guest,
        corrupt,
        message_bytes: None,
        run: &args.run,
    })
}

/// What the devices run before their update.
fn start(args: &SwarmArgs) -> anyhow::Result<Option<StartOptions>> {
    let Some(path) = &args.base else { return Ok(None) };
    let (unknown_percent, flipped_percent) = (args.unknown_percent, args.flipped_percent);
    anyhow::ensure!(
        unknown_percent + flipped_percent <= 100,
        "--unknown-percent and --flipped-percent are {} together, 100 at most",
        unknown_percent + flipped_percent
    );
    Ok(Some(StartOptions { base: read_image(path, u64::MAX)?, unknown_percent, flipped_percent }))
}

/// Runs it, prints the result, and says by the exit status whether all went well.
fn run(what: Conduct<'_>) -> anyhow::Result<ExitCode> {
    let json = what.run.json;
    let files = open_files(what.devices)?;
    if let Some(guest) = what.guest.as_deref().filter(|_| !what.run.quiet) {
        eprintln!(
            "whimbrel-sim: prefix {}, service {}; {files} open files here, {} connections at the broker",
            guest.prefix,
            guest.service_id,
            u64::from(what.devices) + 1
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let report = runtime.block_on(conduct(what))?;
    print(&if json { report.to_json() + "\n" } else { report.to_string() })?;
    Ok(verdict(&report.objections()))
}

/// Makes room for the sockets of so many devices; their other ends are in the service, which needs as many. Returns how
/// many files may be open.
fn open_files(devices: u32) -> anyhow::Result<u64> {
    let files = u64::from(devices) + FILES_BESIDE;
    raise_open_files(files).map(|()| files).map_err(|most| {
        anyhow::anyhow!(
            "{devices} devices need {files} open files, and the system allows {most}: raise the limit (ulimit -n {files}, \
             as root where it is a hard limit) or take at most {} devices",
            most.saturating_sub(FILES_BESIDE)
        )
    })
}

fn verdict(objections: &[String]) -> ExitCode {
    for objection in objections {
        eprintln!("whimbrel-sim: {objection}");
    }
    if objections.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first bytes of a file, up to `most`.
fn read_image(path: &Path, most: u64) -> anyhow::Result<bytes::Bytes> {
    let wrong = || format!("cannot read the image {}", path.display());
    let file = std::fs::File::open(path).with_context(wrong)?;
    let mut image = Vec::new();
    file.take(most).read_to_end(&mut image).with_context(wrong)?;
    anyhow::ensure!(!image.is_empty(), "the image {} is empty", path.display());
    Ok(image.into())
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Who pipes this into `head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

/// The demo's image: the beginning of this program.
const DEMO_IMAGE_BYTES: u64 = 1 << 20;
/// Files that are open besides the devices' sockets.
const FILES_BESIDE: u64 = 200;

fn list_profiles(args: &ProfilesArgs) -> anyhow::Result<()> {
    let text = if args.toml {
        PROFILES_TOML.to_owned()
    } else {
        let described = |profile: &Profile| format!("{profile}\n    {}; {}\n", profile.about, profile.source);
        Profiles::builtin().iter().map(described).collect()
    };
    print(&text)
}

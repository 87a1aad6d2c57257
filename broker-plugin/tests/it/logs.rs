//! What becomes of the service if nobody takes its log, and of one that hangs.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::service_support::{On, Service};

/// A pipe that is full; as long as the reader is kept, a write waits for ever.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn closed_pipe() -> PipeWriter {
    io::pipe().unwrap().1
}

/// A disk without room.
fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A FIFO, and what opens its other end as soon as somebody reads it. Nothing is ever written.
fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// The service answers with this as its standard error, and ends well when it is told to.
fn serves_and_ends(log: impl Into<Stdio>) {
    let mut service = Service::prepare(On::Itself);
    service.launch_logging_to(log.into());
    let release = service.release(10_000, 2);
    // Each of these is logged.
    service.publish(&release);
    service.campaign(&release);
    assert_eq!(service.get("/v1/status")["broker_up"], true);
    assert_eq!(service.stop().code(), Some(0), "it ends by itself");
}

#[test]
fn a_closed_log_pipe_does_not_end_the_service() {
    serves_and_ends(closed_pipe());
}

#[test]
fn a_full_log_pipe_that_nobody_reads_does_not_stop_the_service() {
    let (reader, writer) = full_pipe();
    serves_and_ends(writer);
    drop(reader);
}

#[test]
fn a_log_on_a_full_disk_does_not_end_the_service() {
    serves_and_ends(full_disk());
}

/// Log and ready line go into one pipe, as under most supervisors.
#[test]
fn a_service_whose_ready_line_nobody_reads_still_ends_when_it_is_told_to() {
    let service = Service::prepare(On::Itself);
    let (reader, writer) = full_pipe();
    let mut command = service.command();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    // Written late in the start, long after it listens to signals.
    let database = service.path("data/whimbrel.sqlite");
    let deadline = crate::front_support::deadline();
    while !database.exists() {
        assert!(!crate::front_support::is_over(deadline));
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "it ends by itself");
    drop(reader);
}

#[test]
fn a_service_that_hangs_ends_ten_seconds_after_sigterm_with_a_status_of_its_own_and_says_so() {
    let service = Service::prepare(On::Itself);
    let config = service.path("whimbrel.toml");
    fs::remove_file(&config).unwrap();
    fifo(&config);
    let mut child = service.command().stderr(Stdio::piped()).spawn().unwrap();
    // Waits until the service reads its configuration, which never comes.
    let silent = File::options().write(true).open(&config).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    drop(silent);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("has not ended within 10 s of SIGTERM, ends now with status 75"), "{said}");
}

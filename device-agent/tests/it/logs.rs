//! What becomes of the daemon if nobody takes its log. What becomes of one that hangs is tested with the service.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use whimbrel_protocol::testing::Fixture;

use crate::rig::Device;

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

/// The daemon answers with this as its standard error, and ends well when it is told to.
fn serves_and_ends(log: impl Into<Stdio>) {
    // Nobody listens there: it has something to log several times a second.
    let mut device = Device::new(&Fixture::new(), 1);
    device.start_logging_to(log);
    device.wait_for("it has failed to connect", |status| {
        status["daemon"] == true && status["link"]["last_error"].is_string()
    });
    assert_eq!(device.terminate(), Some(0), "it ends by itself");
}

#[test]
fn a_closed_log_pipe_does_not_end_the_agent() {
    serves_and_ends(closed_pipe());
}

#[test]
fn a_full_log_pipe_that_nobody_reads_does_not_stop_the_agent() {
    let (reader, writer) = full_pipe();
    serves_and_ends(writer);
    drop(reader);
}

#[test]
fn a_log_on_a_full_disk_does_not_end_the_agent() {
    serves_and_ends(full_disk());
}

#[test]
fn a_command_whose_errors_nobody_reads_fails_as_it_should() {
    let device = Device::new(&Fixture::new(), 1);
    let mut command = device.command(&["check"]);
    assert_eq!(command.stderr(closed_pipe()).status().unwrap().code(), Some(1));
}

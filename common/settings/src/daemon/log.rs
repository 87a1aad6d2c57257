//! Log lines on standard error that never make the program wait and never end it.
//!
//! Whoever reads standard error may have gone, may have stopped reading, or may write to a disk that is full. A program
//! that writes there itself then gets an error, which the macros of the standard library answer with a panic, or waits
//! for ever, with the lock on standard error in its hands. So a thread of its own writes, to a descriptor of its own
//! and without that lock. Everybody else hands it lines through a queue that has a maximum. Lines that have no room,
//! or that could not be written, are counted, and the count is written as soon as lines flow again.
//!
//! `tracing-appender` has such a writer too. At its end it complains with `eprintln!` if lines are left over, so that
//! a full pipe makes it wait for ever and a closed one makes it panic: exactly what must not happen here.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::time::Duration;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// Bytes of lines that may wait: a burst of some thousand lines has room.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// How long the end of a program waits for lines that are not written yet.
pub(super) const FINISH: Duration = Duration::from_secs(1);
/// How long the thread waits for a descriptor that takes nothing and says so.
const PAUSE: Duration = Duration::from_millis(20);

/// Standard error as a log's writer. Each `write` is a line, never waits and never fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(log) = the_log() {
            log.add(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line of its own, and waits until everything is written, for a second at most: for the last words of a
/// program.
pub fn say(line: &str) {
    if let Some(log) = the_log() {
        log.add(format!("{line}\n").as_bytes());
        log.finish(FINISH);
    }
}

/// Waits until every line is written, for a second at most. What is not written by then is lost if the program ends.
pub fn finish() {
    if let Some(log) = the_log() {
        log.finish(FINISH);
    }
}

/// From now on a panic is told of as a line of the log. What the standard library does instead waits for whoever reads
/// standard error.
pub fn take_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let (thread, what) = (thread.name().unwrap_or("unnamed"), panic.payload_as_str().unwrap_or("?"));
        let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        say(&format!("thread '{thread}' panicked{place}: {what}{trace}"));
    }));
}

/// The log of this process, started when it is needed first. `None` if the system has no descriptor or thread for it:
/// then nothing is logged, which is better than to end.
fn the_log() -> Option<&'static Log> {
    static LOG: OnceLock<Option<Log>> = OnceLock::new();
    let start = || Log::start(File::from(io::stderr().as_fd().try_clone_to_owned()?));
    LOG.get_or_init(|| start().ok()).as_ref()
}

/// A queue of lines, and the thread that writes them.
#[derive(Debug)]
struct Log(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Locked for as long as it takes to move a line, and never while anything is written.
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that had no room or could not be written, and that nobody was told of yet.
    lost: u64,
    /// The thread has lines that it has not written yet.
    is_writing: bool,
}

impl Log {
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let theirs = Arc::clone(&queue);
        thread::Builder::new().name("log".to_owned()).spawn(move || theirs.write_to(out))?;
        Ok(Self(queue))
    }

    fn add(&self, line: &[u8]) {
        let mut lines = self.0.lock();
        if lines.bytes.saturating_add(line.len()) > WAITING_BYTES_MAX {
            lines.lost += 1;
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line.to_vec());
        self.0.changed.notify_all();
    }

    /// Waits until every line is written, for at most `limit`.
    fn finish(&self, limit: Duration) {
        let is_busy = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), limit, is_busy);
        drop(waited);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, for ever.
    fn write_to(&self, mut out: impl Write) {
        loop {
            let (batch, mut lost) = self.next_batch();
            for line in batch {
                lost += u64::from(write_whole(&mut out, &line).is_err());
            }
            if lost > 0 && write_whole(&mut out, lost_line(lost).as_bytes()).is_ok() {
                lost = 0;
            }
            let mut lines = self.lock();
            lines.lost += lost;
            lines.is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines; with them comes how many were lost after them.
    fn next_batch(&self) -> (VecDeque<Vec<u8>>, u64) {
        let is_idle = |lines: &mut Lines| lines.waiting.is_empty();
        let waited = self.changed.wait_while(self.lock(), is_idle);
        let mut lines = waited.unwrap_or_else(PoisonError::into_inner);
        lines.is_writing = true;
        lines.bytes = 0;
        (core::mem::take(&mut lines.waiting), core::mem::take(&mut lines.lost))
    }
}

fn lost_line(lost: u64) -> String {
    format!("{lost} log lines are missing here: standard error took them too slowly or not at all\n")
}

/// Writes all of `rest`. A descriptor that somebody else made non-blocking is waited for like any other.
fn write_whole(out: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Takes what it is told to take, one write after the other.
    struct Scripted {
        results: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Scripted {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.results.recv().unwrap()?;
            self.written.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted() -> (Log, Sender<io::Result<()>>, Receiver<String>) {
        let (let_through, results) = channel();
        let (written, lines) = channel();
        (Log::start(Scripted { results, written }).unwrap(), let_through, lines)
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_and_told_of_when_lines_flow_again() {
        let (log, write, lines) = scripted();
        for _ in 0..4 {
            log.add(b"gone\n");
            // The line, and the line about it.
            write.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
            write.send(Err(ErrorKind::StorageFull.into())).unwrap();
            log.finish(PATIENCE);
        }
        log.add(b"here\n");
        write.send(Ok(())).unwrap();
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "here\n");
        write.send(Ok(())).unwrap();
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), lost_line(4));
        log.add(b"more\n");
        write.send(Ok(())).unwrap();
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "more\n");
    }

    #[test]
    fn a_descriptor_that_says_that_it_would_block_is_tried_again() {
        let (log, write, lines) = scripted();
        log.add(b"late\n");
        write.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        write.send(Err(ErrorKind::Interrupted.into())).unwrap();
        write.send(Ok(())).unwrap();
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "late\n");
    }

    /// More than the queue and the pipe take together; nobody reads until all of it was logged.
    #[test]
    fn a_pipe_that_nobody_reads_makes_nobody_wait_and_what_has_no_room_is_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::start(writer).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let all = 4 * WAITING_BYTES_MAX / line.len();
        (0..all).for_each(|_| log.add(&line));
        log.finish(Duration::ZERO);
        assert!(log.0.lock().bytes <= WAITING_BYTES_MAX);
        let (mut whole, mut missing) = (0, 0);
        while whole + missing < all {
            let line = read_line(&mut reader);
            match line.split_once(' ') {
                Some((count, rest)) => {
                    assert!(rest.starts_with("log lines are missing here"), "{line}");
                    missing += count.parse::<usize>().unwrap();
                }
                None => whole += 1,
            }
        }
        assert_eq!(whole + missing, all);
        assert!(missing > all / 2, "{missing} of {all}");
    }

    fn read_line(reader: &mut PipeReader) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }
}

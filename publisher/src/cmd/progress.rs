//! What people see on standard error while a command takes long: a bar on a terminal, and a line every few seconds
//! elsewhere.

use core::time::Duration;
use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Told;
use crate::clock::Stopwatch;
use crate::units::grouped;

/// After this time people want to know that something goes on.
const FIRST_LINE_AFTER: Duration = Duration::from_secs(2);
/// Time from line to line.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Time from one redrawing of a bar to the next.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Work in progress. It is shown until this is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    lines: Option<Lines>,
}

/// A thread that writes a line now and then.
struct Lines {
    /// Dropped to end the thread.
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Shows the progress of work on `bytes`.
pub(crate) fn bar(what: &'static str, bytes: u64) -> Progress {
    let template = "{msg:12} [{bar:40}] {binary_bytes}/{binary_total_bytes} {eta}";
    Progress::start(ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden()), template, what)
}

impl Progress {
    /// Shows that something is waited for, or how many of something there are, if nobody knows how many it will be.
    pub(crate) fn open_ended(what: &'static str) -> Self {
        Self::start(
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            "{spinner} {msg} {pos}",
            what,
        )
    }

    fn start(bar: ProgressBar, template: &str, what: &'static str) -> Self {
        bar.set_style(
            ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> "),
        );
        bar.set_message(what);
        let is_terminal = std::io::stderr().is_terminal();
        let is_shown = Told::now() >= Told::Progress;
        if is_shown && is_terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(REDRAW_EVERY);
        }
        let lines = (is_shown && !is_terminal).then(|| Lines::start(bar.clone(), what));
        Self { bar, lines }
    }

    /// So much more is done.
    pub(crate) fn inc(&self, more: u64) {
        self.bar.inc(more);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        drop(self.lines.take());
    }
}

impl Lines {
    fn start(bar: ProgressBar, what: &'static str) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let work = move || {
            let begun = Stopwatch::start();
            let mut wait = FIRST_LINE_AFTER;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let line = line(what, bar.position(), bar.length(), Duration::from_secs_f64(begun.seconds()));
                // It is no error if nobody reads it.
                drop(writeln!(std::io::stderr(), "whimbrel: {line}"));
                wait = LINE_EVERY;
            }
        };
        // Without a thread there are no lines, and the work goes on.
        Self { end: Some(end), thread: thread::Builder::new().name("progress".into()).spawn(work).ok() }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to give back.
            drop(thread.join());
        }
    }
}

fn line(what: &str, done: u64, all: Option<u64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match all {
        Some(all) => {
            let percent = done.min(all).saturating_mul(100).checked_div(all).unwrap_or(100);
            format!("{what}: {percent} % of {} bytes after {seconds} s", grouped(all))
        }
        None if done > 0 => format!("{what}: {} after {seconds} s", grouped(done)),
        None => format!("{what}: {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_the_work_is_and_how_long_it_has_taken() {
        let after = Duration::from_millis(12_900);
        assert_eq!(line("sending", 50, Some(200), after), "sending: 25 % of 200 bytes after 12 s");
        assert_eq!(line("sending", 300, Some(200), after), "sending: 100 % of 200 bytes after 12 s");
        assert_eq!(line("sending", 0, Some(0), after), "sending: 100 % of 0 bytes after 12 s");
        assert_eq!(line("listing devices", 2_000, None, after), "listing devices: 2,000 after 12 s");
        assert_eq!(line("waiting for the service", 0, None, after), "waiting for the service: 12 s");
    }
}

//! The end of a program that is told to stop.
//!
//! Signals have a thread of their own. The program is told and has [`LIMIT`] to end in good order. If it does not, the
//! thread ends the process: a program whose other threads all wait for a lock, a disk or a peer still ends.

use core::time::Duration;
use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::log;

/// Time from a signal to the end of the process.
pub const LIMIT: Duration = Duration::from_secs(10);
/// The exit status of a process that did not end by itself within [`LIMIT`] (`EX_TEMPFAIL` of sysexits.h).
pub const STATUS: i32 = 75;

/// Calls `told` at the first SIGTERM or SIGINT, on a thread of its own, and ends the process with [`STATUS`] if it is
/// still there after [`LIMIT`]. Later signals change nothing. Call it before anything that may take long.
///
/// # Errors
/// The system takes no signal handler or has no thread.
pub fn on_signal(program: &'static str, told: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("stop".to_owned()).spawn(move || {
        let Some(signal) = signals.forever().next() else {
            return;
        };
        told();
        // The last line may have to wait that long for whoever reads it.
        thread::sleep(LIMIT.saturating_sub(log::FINISH));
        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
        log::say(&format!(
            "{program}: has not ended within {} s of {name}, ends now with status {STATUS}; what was not stored by now \
             is lost as in a power cut",
            LIMIT.as_secs()
        ));
        std::process::exit(STATUS);
    })?;
    Ok(())
}

//! How a program that runs for years logs and ends: `log` writes log lines so that nobody who reads them can make the
//! program wait or end it, `limiter` keeps others from filling the log, and `stop` ends the program when it is told to, whatever else happens.
//!
//! ```no_run
//! use whimbrel_settings::daemon::{log, stop};
//!
//! log::take_panics();
//! let (tell, told) = std::sync::mpsc::channel();
//! stop::on_signal("example", move || drop(tell.send(())))?;
//! // The writer that a `tracing` subscriber gets is `|| log::Stderr`.
//! drop(told.recv());
//! log::say("example: stopped");
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod limiter;
pub mod log;
pub mod stop;

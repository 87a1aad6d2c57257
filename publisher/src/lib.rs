//! The command line tool `whimbrel`: keys, releases, signing, and the commands of the operator.
//!
//! The binary `whimbrel` is a thin shell around this library. [`init`] makes a folder to start with, [`keys`] and
//! [`release`] work on files and need no service, [`inspect`] explains any file or message of ours, [`service`]
//! speaks to the update service's admin API.
//!
//! Standard output has the result, for people or, with `--json`, for programs. Progress and warnings go to
//! standard error. An error is one line that says what is wrong, where, and what would be right.

#![forbid(unsafe_code)]

extern crate alloc;

pub mod cli;
pub mod clock;
mod cmd;
pub mod config;
pub mod files;
pub mod init;
pub mod inspect;
pub mod keys;
pub mod output;
pub mod passwords;
pub mod patch;
pub mod release;
pub mod service;
pub mod units;

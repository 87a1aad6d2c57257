//! The update service's admin API, as the command line uses it.
//!
//! JSON over HTTP on the loopback, with a bearer token. What the service answers is passed on as it is with
//! `--json`, so that a program sees the API itself; for people the commands make tables of it.

mod client;
mod error;

pub use client::{Client, Missing, Release, UploadProgress};
pub use error::ServiceError;

//! The update service's admin API, as the command line uses it.
//!
//! JSON over HTTP on the loopback, with a bearer token. Paths and bodies are those of [`whimbrel_api`]. With `--json`
//! a program sees what the service answered; for people the commands make tables of it.

mod client;
mod error;

pub use client::{Client, UploadProgress};
pub use error::ServiceError;

//! The update service's admin API, as the command line uses it.
//!
//! It is JSON over HTTP on the loopback interface, with a bearer token. [`whimbrel_api`] has the paths and
//! bodies. With `--json` a program gets the service's answer as it is; for people the commands make tables of
//! it.

mod client;
mod error;

pub use client::{Client, UploadProgress};
pub use error::ServiceError;

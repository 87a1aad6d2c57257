//! End to end: real processes, real sockets, real brokers; and the house rules that span crates.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod documents;
mod hostile_broker;
mod kills;
mod licences;
mod one_device_updates;
mod refused_releases;
mod schema;
mod tidy;

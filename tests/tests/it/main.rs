//! End to end: real processes, real sockets, real brokers; and the house rules that span crates.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
// Tests run where std is.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc)]

mod documents;
mod hostile_broker;
mod kills;
mod licences;
mod one_device_updates;
mod refused_releases;
mod schema;
mod tidy;

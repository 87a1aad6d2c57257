//! End to end: real processes, real sockets, real brokers; and the house rules that span crates.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
// Tests always have std.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc)]

mod bad_input;
mod broker_limits;
mod command_lines;
mod documents;
mod full_disks;
mod hostile_broker;
mod kills;
mod licences;
mod one_device_updates;
mod one_thread;
mod patches;
mod readme;
mod refused_releases;
mod schema;
mod tidy;

//! The simulator's plumbing on real sockets and against a real broker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

extern crate alloc;

mod accounting;
mod broker;
mod children;
mod commands;
mod hostile_broker;
mod links;
mod loads;
mod support;
mod swarms;
mod updates;

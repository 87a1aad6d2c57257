//! The simulator's plumbing on real sockets and against a real broker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod accounting;
mod broker;
mod children;
mod hostile_broker;
mod links;
mod support;

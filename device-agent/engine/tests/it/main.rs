//! The device engine, driven by a small host against a service in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

extern crate alloc;

mod gates;
mod host;
mod starting;
mod updates;
mod waits;

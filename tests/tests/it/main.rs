//! End to end: real processes, real sockets, real brokers; and the house rules that span crates.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod licences;
mod schema;
mod tidy;

//! Starts and stops what the end-to-end tests need: brokers, services, agents, and a proxy that misbehaves.
//!
//! Everything here is a real process on a free port of the loopback interface, with its files in a temporary folder.
//! It ends, and its files are removed, when its value is dropped.
//!
//! | file | what |
//! |---|---|
//! | `bundle` | a folder with keys for every role, and releases, all made by `whimbrel` |
//! | `service` | `whimbreld`, with its own broker or attached to another |
//! | `broker` | mosquitto |
//! | `agent` | `whimbrel-agent` |
//! | `proxy` | stands between devices and broker: counts, slows down, misbehaves |
//! | `stage` | all of them put together, with one device or more |
//! | `forge` | documents that a thief of keys, or a hostile broker, would publish |
//! | `disk` | a small disk that can be filled |
//! | `process`, `frames`, `clock` | parts that the others use |
//!
//! With `E2E_IGNORE_RETAIN=1` in the environment every proxy behaves like a broker that ignores `retain`, so
//! that the whole suite can be run against one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what is used by tests only may panic")]

extern crate alloc;

pub mod agent;
pub mod broker;
pub mod bundle;
pub mod clock;
pub mod disk;
pub mod forge;
pub mod frames;
pub mod process;
pub mod proxy;
pub mod seed;
pub mod service;
pub mod stage;

//! The protocol core of Whimbrel: everything that a device and a service must agree on.
//!
//! Formats ([`codec`], [`cose`], [`trust`], SUIT manifests, messages), arithmetic (chunks, windows) and the
//! two state machines. No I/O, no clock, no log, no randomness: the host feeds inputs and carries out outputs.
//!
//! `SPEC.md` beside this crate is the protocol in words; the code cites its sections.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod chunk;
pub mod codec;
pub mod cose;
pub mod device;
pub mod disk;
pub mod envelope;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod patch;
pub mod retry;
pub mod server;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod topic;
pub mod trust;
pub mod version;

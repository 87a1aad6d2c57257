//! The protocol core of Whimbrel: everything that a device and a service must agree on.
//!
//! ```
//! use whimbrel_protocol::message::State;
//! use whimbrel_protocol::testing::{Pair, PairOptions, Verdict};
//!
//! // Both machines on a link in virtual time: a release of 20,000 bytes is ordered, in chunks of 4 KiB.
//! let mut pair = Pair::with_release(PairOptions::default(), vec![7; 20_000], 12);
//! assert_eq!(pair.run_until(State::Confirmed, 3_600_000), Verdict::Done);
//! assert_eq!(pair.medium.running_image(), [7; 20_000]);
//! ```
//!
//! How a host drives one of them: see [`device`].
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

#[cfg(not(any(feature = "ed25519", feature = "p256")))]
compile_error!("one of the features ed25519 and p256 is needed: a device must verify signatures");

pub mod chunk;
pub mod codec;
pub mod cose;
pub mod device;
pub mod disk;
pub mod envelope;
mod errors;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod patch;
pub mod retry;
#[cfg(feature = "server")]
pub mod server;
mod sorted;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod topic;
pub mod trust;
pub mod version;

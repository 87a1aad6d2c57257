//! Strict, deterministic CBOR (RFC 8949 section 4.2.1).
//!
//! Everything that arrives from the network goes through [`Reader`]: shortest integers, definite
//! lengths, ascending unique map keys, no trailing bytes, no allocation, every length checked against
//! a limit before it is believed. [`Writer`] makes the one encoding that the reader accepts, so that
//! decode then encode is the identity on every accepted input.

mod error;
mod map;
mod read;
mod write;

pub use error::DecodeError;
pub use map::MapReader;
pub use read::{Item, Reader};
pub use write::Writer;

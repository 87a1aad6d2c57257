//! Strict, deterministic CBOR (RFC 8949 section 4.2.1).
//!
//! Everything that arrives from the network goes through [`Reader`]. It accepts only shortest integers,
//! definite lengths, ascending unique map keys, and no trailing bytes. It checks every length against a limit
//! before it relies on it. [`Writer`] makes the only encoding that the reader accepts, so that decoding an
//! input and encoding it again gives the same bytes.

mod error;
mod map;
mod read;
mod write;

pub use error::DecodeError;
pub use map::MapReader;
pub use read::{Item, Reader};
pub use write::Writer;

/// Bytes that the shortest form of `argument` takes in a head, after the first one.
const fn argument_width(argument: u64) -> usize {
    match argument {
        0..=23 => 0,
        24..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

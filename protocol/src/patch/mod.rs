//! The patch format: an image as what differs from an earlier one (SPEC section 5.5).
//!
//! [`Header`] says from what to what and how much memory it takes; [`Decoder`] turns patch bytes, in order, into
//! image bytes, in order, and reads the old image at random. It has no I/O: the host feeds it, gives it room for
//! output, and answers what it reads through [`Base`]. Its whole state is plain data ([`Decoder::save`]).

mod copy;
mod correction;
mod decoder;
mod engine;
mod error;
mod header;
mod literal;
mod map;
mod model;
mod numbers;
mod predict;
mod range;
mod region;
mod script;
mod state;
mod table;
mod window;

pub use decoder::{Base, Decoder, INPUT_MARGIN};
pub use engine::Engine;
pub use error::{DecodeFailure, PatchError};
pub use header::{Architecture, Header, Tuning};
pub use map::Entry;
pub use predict::Mode;
pub use range::{Coder, TAIL_BYTES_MAX, last_value};
pub use region::{Region, SEGMENTS_MAX, Segment};
pub use script::{BLOCK_BYTES, MATCH_BYTES_MAX, Op, Script};

//! The patch format, which describes an image by its differences to an earlier one (SPEC section 5.5).
//!
//! [`Header`] names both images and says how much memory a decoder needs. [`Decoder`] turns patch bytes into image
//! bytes, both from start to end, and reads the old image in any order. It has no I/O: the host feeds it, gives it
//! room for output, and lets it read the old image through [`Base`]. Its whole state can be saved ([`Decoder::save`]).

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

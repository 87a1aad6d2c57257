//! The patch format: an image as what differs from an earlier one (SPEC section 5.5).
//!
//! [`Header`] says from what to what and how much memory it takes; [`Decoder`] turns patch bytes, in order, into
//! image bytes, in order, and reads the old image at random. It has no I/O: the host feeds it, gives it room for
//! output, and answers what it reads through [`Base`]. Its whole state is plain data ([`Decoder::save`]).

mod decoder;
mod error;
mod header;

pub use decoder::{Base, Decoder, INPUT_MARGIN};
pub use error::{DecodeFailure, PatchError};
pub use header::{Architecture, Header, Tuning};

//! What the types are on the wire, and the document that describes them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

extern crate alloc;

mod document;
mod wire;

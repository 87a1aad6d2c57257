//! The update service of Whimbrel.

#![forbid(unsafe_code)]

extern crate alloc;

pub mod attach;
mod clock;
pub mod front;

//! Properties that hold for all bytes; each is a function that panics where one does not.

pub mod mutator;
mod property;

pub use property::{End, patch};

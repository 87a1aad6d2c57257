//! Images, slots and which of them starts.

mod slot;

pub use slot::{Slot, SlotFacts};

//! Images, slots and which of them starts.
//!
//! Everything here works on a [`Disk`](whimbrel_protocol::disk::Disk); what is done when, is decided by the
//! session and put into order by [`Storage`](crate::storage::Storage).

mod bootloader;
mod image;
mod lzma;
mod slot;

pub(crate) use bootloader::{BootControl, BootEnvironment, TrialBoot};
pub(crate) use image::hash_medium;
pub(crate) use lzma::{Decoding, LzmaError, decode};
pub use slot::{Slot, SlotFacts};

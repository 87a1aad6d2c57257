//! Images, slots and which of them starts.
//!
//! Everything here works on a [`Disk`](whimbrel_protocol::disk::Disk); what is done when, is decided by the
//! session and put into order by [`Storage`](crate::storage::Storage).

mod bootloader;
mod error;
mod image;
mod lzma;
mod patch;
mod slot;

pub(crate) use bootloader::{BootControl, BootEnvironment, TrialBoot};
pub(crate) use error::PayloadFailure;
pub(crate) use image::hash_medium;
pub(crate) use lzma::{Decoding, decode};
pub(crate) use patch::{Applier, Applying};
pub use slot::{Slot, SlotFacts};

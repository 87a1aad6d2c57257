//! The device engine of Whimbrel.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
mod controller;
mod device;
mod image;
mod inventory;
mod memory;
pub mod slot;
pub mod storage;
mod two_copies;

pub use controller::{Controller, Effect, Gate, Input, Output, Pending, Verdict};
pub use device::Device;
pub use inventory::{Accepts, Finding, Inventory, StartError};
pub use memory::MemoryDisk;
pub use storage::{Done, Job};

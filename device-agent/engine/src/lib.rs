//! The device engine of Whimbrel.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
mod image;
mod memory;
pub mod slot;
pub mod storage;
mod two_copies;

pub use memory::MemoryDisk;

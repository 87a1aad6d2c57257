//! Thousands of virtual devices on shaped links against a real broker.

extern crate alloc;

pub mod clock;
pub mod error;
pub mod link;
pub mod meter;
pub mod mqtt;
pub mod outage;
pub mod profile;
pub mod seed;
pub mod shape;

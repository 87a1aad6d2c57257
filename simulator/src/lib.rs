//! Thousands of virtual devices on shaped links against a real broker.

extern crate alloc;

pub mod bench;
pub mod broker;
pub mod child;
pub mod cli;
pub mod clock;
pub mod control;
pub mod disk;
pub mod error;
pub mod fleet;
pub mod link;
pub mod load;
pub mod medium;
pub mod meter;
pub mod misbehave;
pub mod mqtt;
pub mod outage;
pub mod process;
pub mod profile;
pub mod progress;
pub mod report;
pub mod seed;
pub mod shape;
pub mod swarm;
pub mod update;
pub mod words;

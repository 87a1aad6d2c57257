//! What the end-to-end tests start and stop: brokers, services, agents, and a proxy that misbehaves.
//!
//! Everything here is a real process on a free port of the loopback interface with its files in a temporary
//! folder, and is gone when its value is dropped.

extern crate alloc;

pub mod agent;
pub mod broker;
pub mod bundle;
pub mod clock;
pub mod frames;
pub mod process;
pub mod proxy;
pub mod service;

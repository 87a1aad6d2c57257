//! The device agent of Whimbrel: the shell around [`DeviceSession`](whimbrel_protocol::device::DeviceSession)
//! on Linux.

extern crate alloc;

mod agent;
mod books;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod daemon;
pub mod disk;
pub mod error;
pub mod home;
pub mod hooks;
pub mod identity;
pub mod mqtt;
pub mod standalone;
pub mod status;
mod telling;
mod worker;

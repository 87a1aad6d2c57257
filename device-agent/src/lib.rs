//! The device agent of Whimbrel: the host of the device engine ([`whimbrel_engine`]) on Linux.

extern crate alloc;

mod agent;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod daemon;
pub mod disk;
pub mod error;
mod events;
pub mod home;
pub mod hooks;
pub mod identity;
mod link_view;
pub mod local_trust;
pub mod mqtt;
mod outcome;
pub mod provision;
mod same_id;
pub mod standalone;
pub mod status;
mod worker;

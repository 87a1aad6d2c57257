//! The update service of Whimbrel: serves signed releases to devices over MQTT.
//!
//! | part | what |
//! |---|---|
//! | [`front`] | the embedded broker: our own front door on rumqttd's router |
//! | [`attach`] | the link to the embedded broker, or to any other |
//! | `service`, `sessions` | the task that decides; one protocol session for each device |
//! | [`registry`], [`catalog`], [`campaign`] | devices, releases, who gets what |
//! | [`bases`] | images that devices run and a release has no patch for |
//! | [`serving`] | payload bytes, framed once and shared; who is told to come back later |
//! | [`store`] | what must not be lost |
//! | [`signing`] | the keys that the service signs with |
//! | [`admin`] | the API for operators |
//! | [`config`], [`metrics`] | what it is told; what it counts |
//!
//! [`run`] is the whole service; [`main_from_args`] is the program around it, so that another binary can be it.

#![forbid(unsafe_code)]

extern crate alloc;

pub mod admin;
pub mod attach;
pub mod bases;
pub mod campaign;
pub mod catalog;
mod cli;
mod clock;
pub mod config;
pub mod front;
pub mod metrics;
mod program;
pub mod registry;
mod run;
mod service;
pub mod serving;
mod sessions;
pub mod signing;
pub mod store;

pub use program::main_from_args;
pub use run::{Ready, ServiceError, run};

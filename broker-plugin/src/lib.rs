//! The update service of Whimbrel: serves signed releases to devices over MQTT.
//!
//! A program of your own can be the service: it reads the same configuration as `whimbreld`, runs until it is told to
//! stop, and may do other things besides.
//!
//! ```no_run
//! use std::path::PathBuf;
//! use whimbrel_service::config::{Config, Sources};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // `whimbrel init fleet` makes such a folder, with keys and a configuration. Settings of one's own come last.
//! let file = Some(PathBuf::from("fleet/whimbrel.toml"));
//! let config = Config::load(&Sources::of_process(file, vec!["broker.listen=127.0.0.1:0".to_owned()]))?;
//!
//! let ready = |ready: whimbrel_service::Ready| {
//!     println!("devices at {:?}, operators at {}", ready.mqtt, ready.admin);
//! };
//! let shutdown = async {
//!     let _ctrl_c = tokio::signal::ctrl_c().await;
//! };
//! // Inside a multi-threaded tokio runtime. Returns when everything that was acknowledged is stored.
//! whimbrel_service::run(config, ready, shutdown).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`run`] is the whole service; [`main_from_args`] is the program around it, so that another binary can be it.
//!
//! The service has two halves, machines without I/O, clock or log. [`fleet`] decides: which devices there are, which
//! releases, who gets what. [`serving`] moves bytes, for one link to a broker; any number of them work over one fleet.
//! The task in `service` feeds both and carries out what they put out.
//!
//! | part | what |
//! |---|---|
//! | [`fleet`] | devices, releases, campaigns, documents; what operators change and ask |
//! | [`serving`] | one protocol session for each device, admission, payload bytes that are framed once and shared |
//! | `service`, `run` | the task around them; everything put together |
//! | [`front`] | the embedded broker: a door that carries our own topics, and rumqttd's router for the application's |
//! | [`access`], [`passwords`] | what that door asks about devices |
//! | [`attach`] | the link to the embedded broker, or to any other |
//! | [`store`] | what must not be lost |
//! | [`signing`] | the keys that the service signs with |
//! | [`admin`] | the API for operators |
//! | [`config`], [`metrics`] | what it is told; what it counts |

#![forbid(unsafe_code)]

extern crate alloc;

mod accept;
pub mod access;
pub mod admin;
pub mod attach;
mod cli;
mod clock;
mod clock_guard;
pub mod config;
pub mod fleet;
pub mod front;
pub mod metrics;
mod offline_keys;
pub mod passwords;
mod program;
mod run;
mod service;
pub mod serving;
pub mod signing;
pub mod store;
mod store_guard;

pub use program::main_from_args;
pub use run::{Ready, ServiceError, run};

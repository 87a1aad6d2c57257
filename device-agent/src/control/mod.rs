//! How people and scripts talk to a running agent: one JSON object a line over a Unix socket in the data folder.
//!
//! Whoever may open the socket (mode 0600) may say everything; who may not is kept out by the file system.

mod client;
mod server;
mod wire;

pub use client::{answers, ask, socket_path};
pub(crate) use server::{Asked, Listener};
pub use wire::{Exit, Reply, Request};

//! What can go wrong at the front door that its owner has to know; what clients do wrong is counted instead.

use core::net::SocketAddr;

use thiserror::Error;

/// Why the front door did not open, or why a link to the router could not be made or used.
#[derive(Debug, Error)]
pub enum FrontError {
    /// A setting is out of its range.
    #[error("front door: {setting} is {got}, expected {expected}")]
    Setting {
        /// Name of the field of [`FrontConfig`](super::FrontConfig).
        setting: &'static str,
        /// What it is.
        got: String,
        /// What would be right.
        expected: String,
    },
    /// What the door and its router hold may grow beyond what the owner allows.
    #[error(
        "front door: the broker may need {needed} bytes of memory and memory_budget allows {budget}; \
         lower devices_max or connections_max, or raise the budget"
    )]
    MemoryBudget {
        /// What [`FrontConfig::memory_worst_case`](super::FrontConfig::memory_worst_case) says.
        needed: u64,
        /// What the settings allow.
        budget: u64,
    },
    /// The address can't be listened on.
    #[error("front door: cannot listen on {address}")]
    Listen {
        /// Where the door should have opened.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A thread or the runtime could not be started.
    #[error("front door: cannot start {what}")]
    Start {
        /// Which one.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The router takes no more links, or has stopped.
    #[error("front door: the router does not answer")]
    RouterGone,
}

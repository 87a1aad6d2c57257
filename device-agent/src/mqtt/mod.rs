//! The one connection to the broker.
//!
//! [`Link`] keeps it up in a task of its own and says what happens on it; [`Uplink`] sends on one connection and
//! dies with it, so that nothing meant for an old connection reaches a new one. What is sent and what is believed
//! is the session's business.

mod error;
mod link;
mod reconnect;

pub use error::LinkError;
pub use link::{Link, LinkEvent, LinkSettings, Stuck, Uplink};

//! The one connection to the broker.
//!
//! [`Link`] keeps it up in a task of its own and says what happens on it; [`Uplink`] sends on one connection and
//! dies with it, so that nothing meant for an old connection reaches a new one. What is sent and what is believed
//! is the session's business.

mod error;
mod limits;
mod link;
mod reconnect;
mod subscriptions;

pub use error::LinkError;
pub use limits::{BrokerLimits, FILE as LIMITS_FILE};
pub use link::{Link, LinkEvent, LinkSettings, Stuck, Uplink};
pub use subscriptions::Filter;

//! How the service hangs on its broker: one trait, two implementations.
//!
//! [`EmbeddedLink`] is the service's end of our own [front door](crate::front); [`ClientLink`] is a client of any MQTT
//! 3.1.1 broker. The service gets what is sent to `{prefix}/d/+/q` and `{prefix}/d/+/r`, publishes to the rest, and must not depend on more than the weaker of the two gives: messages may be lost and may come twice,
//! and after [`LinkEvent::Up`] nothing that was published before is sure to be known.

mod client;
mod embedded;
mod error;

use alloc::collections::BTreeMap;
use core::future::Future;

use bytes::Bytes;
use serde::Serialize;
use whimbrel_api::Attachment;
use whimbrel_protocol::ids::DeviceId;

pub use client::{BrokerUrl, ClientConfig, ClientCounters, ClientLink, Retain};
pub use embedded::EmbeddedLink;
pub use error::LinkError;

/// What arrives from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and subscribed. Retained documents have to be published again: the broker may be a new one, and
    /// what was queued when the last connection ended is lost.
    Up,
    /// Not connected, also after each attempt that failed. What is published now is discarded.
    Down {
        /// Why, in words for a person.
        reason: String,
    },
    /// A message of a device.
    Message(Incoming),
}

/// A message from a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Where it was published; not checked.
    pub topic: Bytes,
    /// Unverified bytes.
    pub payload: Bytes,
    /// The broker had kept it; nobody may publish such a message to the service.
    pub retained: bool,
}

/// How much trouble the broker should take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

/// A message to devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to publish it: UTF-8 without wildcards.
    pub topic: Bytes,
    /// Shared with the broker, not copied, if the broker is embedded.
    pub payload: Bytes,
    /// At which QoS; the embedded broker delivers at the QoS of each subscription whatever this says.
    pub delivery: Delivery,
    /// Should the broker keep it for those who subscribe later? An empty payload makes it forget.
    pub retain: bool,
}

impl Outgoing {
    /// This message goes to one device, once.
    #[must_use]
    pub const fn to_device(topic: Bytes, payload: Bytes) -> Self {
        Self { topic, payload, delivery: Delivery::AtMostOnce, retain: false }
    }
}

/// A connection to a broker, subscribed to what devices send to the service.
pub trait BrokerLink {
    /// Waits for the next event. Cancel-safe.
    ///
    /// # Errors
    /// The link is gone for good, and the process should end.
    fn next(&mut self) -> impl Future<Output = Result<LinkEvent, LinkError>>;

    /// Queues a message; several may be queued before [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`LinkError::QueueFull`], [`LinkError::BadTopic`], [`LinkError::NotOurs`], [`LinkError::TooLarge`]: this message
    /// is not sent, the link goes on.
    fn publish(&mut self, message: Outgoing) -> Result<(), LinkError>;

    /// Hands what is queued to the broker, one wake-up for all. Waits while the broker is behind, and never for
    /// the caller of [`next`](Self::next). Cancel-safe: what was not handed over stays queued.
    ///
    /// # Errors
    /// The link is gone for good, and the process should end.
    fn flush(&mut self) -> impl Future<Output = Result<(), LinkError>>;

    /// A device is as it is now: told for each that is known before the first event, and whenever one has changed.
    /// `assignment` is the document that is in force for it. A broker of our own keeps that for the device's next
    /// subscription, and ends its subscriptions to groups that it has left; another broker cannot be told.
    fn device_is(&mut self, _device: &DeviceId, _assignment: Option<&Bytes>) {}

    /// The word by which operators are told how the service meets its broker.
    fn attachment(&self) -> Attachment;

    /// The numbers that this side has counted, each with its name.
    fn counted(&self) -> BTreeMap<String, u64>;
}

/// The numbers of a flat object.
fn numbers(counters: &impl Serialize) -> BTreeMap<String, u64> {
    let Ok(serde_json::Value::Object(counters)) = serde_json::to_value(counters) else {
        return BTreeMap::new();
    };
    counters.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))).collect()
}

/// Messages that may be queued before a flush.
pub const QUEUE_MAX: usize = 16 * 1024;

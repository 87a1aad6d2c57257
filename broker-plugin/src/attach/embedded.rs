//! The service behind the door in its own process.
//!
//! Payloads are shared with every connection, never copied. What devices send waits in the door's short queue, from
//! which nothing is lost; what the service sends is in the clients' outboxes when a flush returns.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use whimbrel_api::Attachment;
use whimbrel_protocol::ids::DeviceId;
use whimbrel_protocol::topic::{self, Address, Channel};

use super::error::check_topic;
use super::{BrokerLink, Incoming, LinkError, LinkEvent, Outgoing, QUEUE_MAX, numbers};
use crate::front::{Counters, Exchange, FromDevice, FrontDoor, ToDevices};

/// The service's end of the exchange behind a [`FrontDoor`].
pub struct EmbeddedLink {
    exchange: Arc<Exchange>,
    messages: mpsc::Receiver<FromDevice>,
    unsent: Vec<ToDevices>,
    is_up: bool,
    counters: Arc<Counters>,
}

impl EmbeddedLink {
    /// Takes the service's end of a door.
    ///
    /// # Errors
    /// [`LinkError::Taken`]: a door has one service.
    pub fn open(door: &FrontDoor) -> Result<Self, LinkError> {
        let exchange = Arc::clone(door.exchange());
        let messages = exchange.inbox().open().ok_or(LinkError::Taken)?;
        let counters = Arc::clone(door.counters());
        Ok(Self { exchange, messages, unsent: Vec::new(), is_up: false, counters })
    }
}

impl BrokerLink for EmbeddedLink {
    async fn next(&mut self) -> Result<LinkEvent, LinkError> {
        if !self.is_up {
            self.is_up = true;
            return Ok(LinkEvent::Up);
        }
        match self.messages.recv().await {
            Some(FromDevice { topic, payload }) => {
                Ok(LinkEvent::Message(Incoming { topic, payload, retained: false }))
            }
            // The exchange holds the other end.
            None => Err(LinkError::Taken),
        }
    }

    fn publish(&mut self, message: Outgoing) -> Result<(), LinkError> {
        if self.unsent.len() >= QUEUE_MAX {
            return Err(LinkError::QueueFull { limit: QUEUE_MAX });
        }
        let Outgoing { topic, payload, retain, .. } = message;
        let text = check_topic(&topic)?;
        match topic::parse(self.exchange.prefix(), text) {
            Some(Address { channel, device }) if !matches!(channel, Channel::Requests | Channel::Reports) => {
                self.unsent.push(ToDevices { channel, device, topic, payload, retain });
                Ok(())
            }
            _ => Err(LinkError::NotOurs { topic: text.to_owned() }),
        }
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.exchange.publish(self.unsent.drain(..));
        Ok(())
    }

    fn device_is(&mut self, device: &DeviceId, assignment: Option<&Bytes>) {
        self.exchange.device_is(device, assignment);
    }

    fn attachment(&self) -> Attachment {
        Attachment::Embedded
    }

    fn counted(&self) -> BTreeMap<String, u64> {
        numbers(&*self.counters)
    }
}

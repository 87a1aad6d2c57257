//! The service as a client of any MQTT 3.1.1 broker.
//!
//! A task of its own moves the packets: `connection` connects again and again, `conversation` is one connection,
//! `lost` why it ends, `wire` its packets; `watch` says what operators are told. Between that task and the service
//! are two bounded channels. The service waits when the one to the broker is full, and takes events aside while it
//! waits, so that neither side ever waits for the other in a circle.
//!
//! The packets are framed here and not by a client library, because MQTT 3.1.1 gives a client no say in how long
//! messages may be: any device may publish as much as its broker takes, and a library ends the connection at a
//! packet over its limit. Here such a message is skipped as it comes, acknowledged and counted, and nothing that a
//! device publishes ends the link. To keep devices to their own topics is left to the broker.

mod config;
mod connection;
mod conversation;
mod lost;
mod watch;
mod wire;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;

use serde::Serialize;
use tokio::sync::mpsc;
use whimbrel_api::Attachment;

use super::error::check_topic;
use super::{BrokerLink, LinkError, LinkEvent, Outgoing, QUEUE_MAX, numbers};
use crate::front::Counters;

pub use config::{BrokerUrl, ClientConfig, Retain};

/// A connection to a broker that comes back whenever it is lost.
pub struct ClientLink {
    to_broker: mpsc::Sender<Outgoing>,
    from_broker: mpsc::Receiver<LinkEvent>,
    /// Queued, not handed over.
    unsent: VecDeque<Outgoing>,
    /// Events that came while the service was waiting in `flush`.
    aside: VecDeque<LinkEvent>,
    up: bool,
    packet_bytes_max: usize,
    counters: Arc<ClientCounters>,
}

/// What the link counts. Serialises as one flat object of numbers for the admin API.
#[derive(Debug, Default, Serialize)]
pub struct ClientCounters {
    /// Connections made and subscribed.
    pub connected: AtomicU64,
    /// Connections lost, and attempts that failed.
    pub lost: AtomicU64,
    /// Attempts that the broker refused at login, among those.
    pub refused_logins: AtomicU64,
    /// Messages from the broker.
    pub messages_in: AtomicU64,
    /// Messages written to the broker.
    pub messages_out: AtomicU64,
    /// Messages from the broker that were longer than any of ours; skipped, and acknowledged at QoS 1.
    pub ignored_too_large: AtomicU64,
    /// Messages from the broker ignored because the service was too far behind.
    pub ignored_behind: AtomicU64,
    /// Messages that the broker should have kept, and was not asked to.
    pub retain_left_out: AtomicU64,
    /// Messages of the service discarded because there was no connection.
    pub discarded: AtomicU64,
}

impl ClientLink {
    /// Starts to connect. Must be called inside a tokio runtime; the task ends with this link.
    ///
    /// # Errors
    /// [`LinkError::Setting`].
    pub fn start(config: ClientConfig) -> Result<Self, LinkError> {
        config.check()?;
        let (to_broker, requests) = mpsc::channel(CHANNEL_MESSAGES);
        let (events, from_broker) = mpsc::channel(CHANNEL_MESSAGES);
        let counters = Arc::new(ClientCounters::default());
        let packet_bytes_max = config.packet_bytes_max;
        tokio::spawn(connection::keep(config, requests, events, Arc::clone(&counters)));
        Ok(Self {
            to_broker,
            from_broker,
            unsent: VecDeque::new(),
            aside: VecDeque::new(),
            up: false,
            packet_bytes_max,
            counters,
        })
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<ClientCounters> {
        &self.counters
    }

    /// Notes what an event says about the connection. After that, the service has not seen it yet.
    fn note(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Up => self.up = true,
            LinkEvent::Down { .. } => self.up = false,
            LinkEvent::Message(_) => {}
        }
    }

    fn put_aside(&mut self, event: LinkEvent) {
        self.note(&event);
        let message = matches!(event, LinkEvent::Message(_));
        if message && self.aside.len() >= ASIDE_MAX {
            Counters::count(&self.counters.ignored_behind);
        } else {
            self.aside.push_back(event);
        }
    }
}

impl BrokerLink for ClientLink {
    async fn next(&mut self) -> Result<LinkEvent, LinkError> {
        if let Some(event) = self.aside.pop_front() {
            return Ok(event);
        }
        let event = self.from_broker.recv().await.ok_or(LinkError::ClientGone)?;
        self.note(&event);
        Ok(event)
    }

    fn publish(&mut self, message: Outgoing) -> Result<(), LinkError> {
        if self.unsent.len() >= QUEUE_MAX {
            return Err(LinkError::QueueFull { limit: QUEUE_MAX });
        }
        check_topic(&message.topic)?;
        let bytes = message.topic.len() + message.payload.len();
        let limit = self.packet_bytes_max - HEADER_BYTES_MAX;
        if bytes > limit {
            return Err(LinkError::TooLarge { bytes, limit });
        }
        self.unsent.push_back(message);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.unsent.is_empty() {
            if !self.up {
                Counters::add_len(&self.counters.discarded, self.unsent.len());
                self.unsent.clear();
                break;
            }
            let event = tokio::select! {
                biased;
                place = self.to_broker.reserve() => {
                    let place = place.map_err(|_| LinkError::ClientGone)?;
                    if let Some(message) = self.unsent.pop_front() {
                        place.send(message);
                    }
                    continue;
                }
                event = self.from_broker.recv() => event.ok_or(LinkError::ClientGone)?,
            };
            self.put_aside(event);
        }
        Ok(())
    }

    fn attachment(&self) -> Attachment {
        Attachment::Client
    }

    fn counted(&self) -> BTreeMap<String, u64> {
        numbers(&*self.counters)
    }
}

/// Messages in each of the two channels.
const CHANNEL_MESSAGES: usize = 1024;
/// Events that are kept for the service while it waits in `flush`.
const ASIDE_MAX: usize = 16 * 1024;
/// Fixed header, length of the topic, packet identifier.
const HEADER_BYTES_MAX: usize = 5 + 2 + 2;

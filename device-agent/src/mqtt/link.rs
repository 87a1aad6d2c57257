//! Keeps the connection up. rumqttc's event loop lives and dies with one connection.
//!
//! Why a new event loop for every connection: rumqttc carries unsent and unacknowledged requests over, and after
//! some losses never publishes again (known upstream, not fixed in 0.25). With clean sessions nothing of the old
//! one is worth keeping; the session says again what still matters.

use alloc::sync::Arc;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, NetworkOptions, Outgoing, QoS, SubAck,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use whimbrel_protocol::time::Instant;
use whimbrel_settings::Secret;

use super::LinkError;
use super::reconnect::Reconnect;
use super::subscriptions::{Filter, Subscriptions, Suspects};
use crate::clock::Clock;
use crate::config::Config;
use crate::local_trust::check_path;

/// What happens on the connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// The broker accepted a connection. Nothing is subscribed to on it yet.
    Up(Uplink),
    /// A message arrived.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
    },
    /// The broker refused subscriptions.
    NotSubscribed {
        /// Their topics.
        topics: Vec<String>,
    },
    /// There is no connection, or none any more. Another attempt follows.
    Down(LinkError),
}

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Name or address; IPv6 addresses in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The MQTT client id.
    pub client_id: String,
    /// User name, if any.
    pub user: Option<String>,
    /// File with the password, read anew for every connection.
    pub password_file: Option<PathBuf>,
    /// Longest silence towards the broker.
    pub keepalive: Duration,
    /// How long connecting, or writing, may take.
    pub connect_limit: Duration,
    /// Range of the first wait.
    pub reconnect_base: Duration,
    /// Largest range of a wait.
    pub reconnect_cap: Duration,
    /// Largest packet, in bytes, in both directions.
    pub packet_bytes_max: usize,
    /// Where the waits' randomness comes from.
    pub seed: u64,
}

/// Bytes of a packet beyond the message that it carries: header, topic, packet id, and some to spare.
const PACKET_OVERHEAD_BYTES: usize = 128;
/// Events that wait to be taken. More make the broker wait.
const EVENTS_MAX: usize = 16;
/// Requests that wait to be sent.
const REQUESTS_MAX: usize = 32;
/// Messages at QoS 1 that wait for their acknowledgement.
const INFLIGHT_MAX: u16 = 10;
/// How long hanging up in good order may take.
const GOODBYE: Duration = Duration::from_secs(2);

impl LinkSettings {
    /// The settings that `config` asks for.
    #[must_use]
    pub fn of(config: &Config, seed: u64) -> Self {
        let broker = &config.broker;
        Self {
            host: broker.url.host.clone(),
            port: broker.url.port,
            client_id: config.client_id.clone(),
            user: broker.user.clone(),
            password_file: broker.password_file.clone(),
            keepalive: broker.keepalive,
            connect_limit: broker.connect_limit,
            reconnect_base: broker.reconnect_base,
            reconnect_cap: broker.reconnect_cap,
            packet_bytes_max: config.download.message_bytes_max + PACKET_OVERHEAD_BYTES,
            seed,
        }
    }

    fn options(&self) -> Result<MqttOptions, LinkError> {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options
            .set_keep_alive(self.keepalive)
            .set_clean_session(true)
            .set_inflight(INFLIGHT_MAX)
            .set_max_packet_size(self.packet_bytes_max, self.packet_bytes_max);
        if let Some(user) = &self.user {
            self.password_file.as_deref().map(check_path).transpose()?;
            let password = self.password_file.as_deref().map(Secret::first_line).transpose()?;
            options.set_credentials(user, password.as_ref().map_or("", Secret::expose));
        }
        Ok(options)
    }

    fn network(&self) -> NetworkOptions {
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(self.connect_limit.as_secs().max(1));
        network
    }
}

/// The connection, kept up by a task of its own.
#[derive(Debug)]
pub struct Link {
    events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts to connect, after a random wait.
    #[must_use]
    pub fn start(settings: LinkSettings, clock: Clock) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        Self { events, task: tokio::spawn(keep_up(settings, clock, sender)) }
    }

    /// The next event. Cancel-safe. `None` after the task has ended, which it does by a panic only.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.events.recv().await
    }

    /// Hangs up in good order, where there is a connection, and ends.
    pub async fn close(mut self, uplink: Option<Uplink>) {
        if let Some(uplink) = uplink {
            let sent = uplink.client.try_disconnect().is_ok();
            let gone = async {
                while let Some(event) = self.events.recv().await {
                    if matches!(event, LinkEvent::Down(_)) {
                        break;
                    }
                }
            };
            if sent {
                drop(tokio::time::timeout(GOODBYE, gone).await);
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends on one connection.
#[derive(Clone, Debug)]
pub struct Uplink {
    client: AsyncClient,
    hang_up: Arc<Notify>,
    subscriptions: Arc<Mutex<Subscriptions>>,
    clock: Clock,
}

/// The broker has taken nothing for so long that the queue is full: the connection is as good as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

impl Uplink {
    /// Queues a message, never retained.
    ///
    /// # Errors
    /// [`Stuck`] where the queue is full.
    pub fn publish(&self, topic: String, payload: Vec<u8>, at_least_once: bool) -> Result<(), Stuck> {
        let qos = if at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        self.client.try_publish(topic, qos, false, payload).map_err(|_| Stuck)
    }

    /// Subscribes to `filters`, a few with each packet, and one by one those at which this broker closed a connection
    /// before. Gives the topics that are left out, because it did so again and again.
    ///
    /// # Errors
    /// [`Stuck`] where the queue is full.
    pub fn subscribe(&self, filters: Vec<Filter>) -> Result<Vec<String>, Stuck> {
        // Held until the packets are queued, so that they go out in the order in which they are counted.
        let mut subscriptions = self.subscriptions();
        let (packets, left_out) = subscriptions.add(filters, self.clock.now());
        packets.into_iter().try_for_each(|packet| self.send_subscribe(packet))?;
        Ok(left_out)
    }

    fn send_subscribe(&self, packet: Vec<Filter>) -> Result<(), Stuck> {
        let filters = packet.into_iter().map(|Filter { topic, at_least_once, .. }| {
            SubscribeFilter::new(topic, if at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce })
        });
        self.client.try_subscribe_many(filters).map_err(|_| Stuck)
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker acknowledged a SUBSCRIBE: sends the next one. Gives the topics that it refused.
    fn acknowledged(&self, acknowledgement: &SubAck) -> Vec<String> {
        let mut subscriptions = self.subscriptions();
        let (topics, next) = subscriptions.acknowledged(acknowledgement.pkid);
        if let Some(packet) = next
            && self.send_subscribe(packet).is_err()
        {
            self.hang_up();
        }
        let codes = acknowledgement.return_codes.iter();
        let refused =
            topics.into_iter().zip(codes).filter(|(_, code)| **code == SubscribeReasonCode::Failure);
        refused.map(|(topic, _)| topic).collect()
    }

    /// Ends this connection at once. The next one follows after the usual wait.
    pub fn hang_up(&self) {
        self.hang_up.notify_one();
    }
}

async fn keep_up(settings: LinkSettings, clock: Clock, events: mpsc::Sender<LinkEvent>) {
    let mut reconnect = Reconnect::new(settings.seed, settings.reconnect_base, settings.reconnect_cap);
    let mut suspects = Suspects::default();
    loop {
        clock.sleep(reconnect.next_wait()).await;
        let mut up_since = None;
        let error = match settings.options() {
            Ok(options) => {
                let (client, mut event_loop) = AsyncClient::new(options, REQUESTS_MAX);
                event_loop.set_network_options(settings.network());
                let subscriptions = Arc::new(Mutex::new(Subscriptions::of(suspects.clone())));
                let uplink = Uplink { client, hang_up: Arc::new(Notify::new()), subscriptions, clock };
                let error = tokio::select! {
                    error = hold(&mut event_loop, &uplink, &events, clock, &mut up_since) => error,
                    () = uplink.hang_up.notified() => Some(LinkError::HungUp),
                };
                let mut subscriptions = uplink.subscriptions();
                let error = error.map(|error| match error {
                    LinkError::Lost(why) => match subscriptions.closed(clock.now()) {
                        Some(topics) => LinkError::Subscribing { topics, why },
                        None => LinkError::Lost(why),
                    },
                    other => other,
                });
                suspects = subscriptions.suspects();
                error
            }
            Err(error) => Some(error),
        };
        if let Some(since) = up_since {
            reconnect.ended_after(since.until(clock.now()));
        }
        let Some(error) = error else {
            return;
        };
        if events.send(LinkEvent::Down(error)).await.is_err() {
            return;
        }
    }
}

/// Holds one connection until it ends; says since when it was up. `None`: nobody listens any more.
async fn hold(
    event_loop: &mut EventLoop,
    uplink: &Uplink,
    events: &mpsc::Sender<LinkEvent>,
    clock: Clock,
    up_since: &mut Option<Instant>,
) -> Option<LinkError> {
    loop {
        let error = match event_loop.poll().await {
            Ok(event) => {
                if matches!(event, Event::Incoming(Incoming::ConnAck(_))) {
                    *up_since = Some(clock.now());
                }
                deliver(event, uplink, events).await?;
                continue;
            }
            Err(error) => error,
        };
        // What arrived whole before the end counts: nobody should have to send it twice.
        while let Some(event) = event_loop.state.events.pop_front() {
            deliver(event, uplink, events).await?;
        }
        return Some(error.into());
    }
}

async fn deliver(event: Event, uplink: &Uplink, events: &mpsc::Sender<LinkEvent>) -> Option<()> {
    let event = match event {
        Event::Incoming(Incoming::ConnAck(_)) => LinkEvent::Up(uplink.clone()),
        Event::Incoming(Incoming::Publish(publish)) => {
            LinkEvent::Message { topic: publish.topic, payload: publish.payload }
        }
        Event::Incoming(Incoming::SubAck(acknowledgement)) => {
            let topics = uplink.acknowledged(&acknowledgement);
            if topics.is_empty() {
                return Some(());
            }
            LinkEvent::NotSubscribed { topics }
        }
        Event::Outgoing(Outgoing::Subscribe(id)) => {
            uplink.subscriptions().sent(id);
            return Some(());
        }
        Event::Incoming(_) | Event::Outgoing(_) => return Some(()),
    };
    events.send(event).await.ok()
}

//! The task that keeps a connection to the broker: connect, subscribe, move messages, and again.

use alloc::sync::Arc;
use core::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use whimbrel_protocol::retry::Backoff;
use whimbrel_protocol::topic;

use super::{ClientConfig, ClientCounters};
use crate::attach::{Delivery, Incoming, LinkEvent, Outgoing};
use crate::clock;
use crate::front::Counters;

/// Connects again and again until nobody wants the events any more.
pub(super) async fn keep(
    config: ClientConfig,
    mut requests: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<LinkEvent>,
    counters: Arc<ClientCounters>,
) {
    tokio::select! {
        () = connect_for_ever(&config, &mut requests, &events, &counters) => {}
        () = events.closed() => {}
    }
}

async fn connect_for_ever(
    config: &ClientConfig,
    requests: &mut mpsc::Receiver<Outgoing>,
    events: &mpsc::Sender<LinkEvent>,
    counters: &ClientCounters,
) {
    let mut backoff = Backoff::new(config.seed, WAIT_BASE_MS, WAIT_CAP_MS);
    loop {
        // The first attempt is made at once: there are few services, and their devices wait for them.
        let began = clock::now();
        let lost = connect_once(config, requests, events, counters).await;
        Counters::count(&counters.lost);
        let reason = lost.to_string();
        tracing::warn!(broker = %config.broker, reason, "broker lost");
        if events.send(LinkEvent::Down { reason }).await.is_err() || matches!(lost, Lost::Unwanted) {
            return;
        }
        if began.elapsed() >= LASTED {
            backoff.reset();
        }
        sleep(Duration::from_millis(backoff.next_wait_ms())).await;
    }
}

/// Why a connection ended, or was not made.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the broker refused the login: {0:?}")]
    LoginRefused(rumqttc::ConnectReturnCode),
    #[error("the broker refused the subscription to {filter}")]
    SubscriptionRefused { filter: String },
    #[error("the broker has not answered for {0:?}")]
    Silent(Duration),
    #[error("the broker has not acknowledged enough to send another message for {0:?}")]
    Stuck(Duration),
    #[error("{0}")]
    Connection(ConnectionError),
    #[error("the service has ended")]
    Unwanted,
}

impl From<ConnectionError> for Lost {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code) => Self::LoginRefused(code),
            error => Self::Connection(error),
        }
    }
}

/// One connection from CONNECT to its end.
async fn connect_once(
    config: &ClientConfig,
    requests: &mut mpsc::Receiver<Outgoing>,
    events: &mpsc::Sender<LinkEvent>,
    counters: &ClientCounters,
) -> Lost {
    let (client, mut event_loop) = AsyncClient::new(options(config), REQUESTS);
    event_loop.set_network_options(network_options());
    let early = match subscribe(config, &client, &mut event_loop).await {
        Ok(early) => early,
        Err(lost) => {
            if matches!(lost, Lost::LoginRefused(_)) {
                Counters::count(&counters.refused_logins);
            }
            return lost;
        }
    };
    // What was queued for the last connection is not worth sending now.
    while requests.try_recv().is_ok() {
        Counters::count(&counters.discarded);
    }
    Counters::count(&counters.connected);
    tracing::info!(broker = %config.broker, "broker connected");
    if events.send(LinkEvent::Up).await.is_err() {
        return Lost::Unwanted;
    }
    // Both halves run side by side in this task: the event loop is polled while a publish waits for it.
    tokio::select! {
        lost = read(config, &mut event_loop, early, events, counters) => lost,
        lost = write(config, &client, requests, counters) => lost,
    }
}

/// Waits for CONNACK, subscribes, and waits for SUBACK. Returns messages that came before it.
async fn subscribe(
    config: &ClientConfig,
    client: &AsyncClient,
    event_loop: &mut EventLoop,
) -> Result<Vec<Publish>, Lost> {
    let filters = [
        SubscribeFilter::new(topic::all_requests(&config.prefix), QoS::AtMostOnce),
        SubscribeFilter::new(topic::all_reports(&config.prefix), QoS::AtLeastOnce),
    ];
    let mut early = Vec::new();
    loop {
        match poll(config, event_loop).await? {
            Event::Incoming(Packet::ConnAck(_)) => {
                client
                    .try_subscribe_many(filters.clone())
                    .expect("its queue is empty and its filters are valid");
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                for (filter, code) in filters.iter().zip(&ack.return_codes) {
                    if *code == SubscribeReasonCode::Failure {
                        return Err(Lost::SubscriptionRefused { filter: filter.path.clone() });
                    }
                }
                return Ok(early);
            }
            Event::Incoming(Packet::Publish(publish)) if early.len() < EARLY_MAX => early.push(publish),
            _ => {}
        }
    }
}

/// Passes on messages of the broker until the connection ends.
async fn read(
    config: &ClientConfig,
    event_loop: &mut EventLoop,
    early: Vec<Publish>,
    events: &mpsc::Sender<LinkEvent>,
    counters: &ClientCounters,
) -> Lost {
    for publish in early {
        if pass_on(publish, events, counters).await.is_err() {
            return Lost::Unwanted;
        }
    }
    loop {
        match poll(config, event_loop).await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if pass_on(publish, events, counters).await.is_err() {
                    return Lost::Unwanted;
                }
            }
            Ok(_) => {}
            Err(lost) => return lost,
        }
    }
}

/// The next thing that happens on the connection. A healthy one pings, so that something always does; the time
/// limit is for a broker that accepts no more bytes, which the event loop would wait for without end.
async fn poll(config: &ClientConfig, event_loop: &mut EventLoop) -> Result<Event, Lost> {
    let limit = patience(config);
    match timeout(limit, event_loop.poll()).await {
        Ok(event) => Ok(event?),
        Err(_) => Err(Lost::Silent(limit)),
    }
}

async fn pass_on(
    publish: Publish,
    events: &mpsc::Sender<LinkEvent>,
    counters: &ClientCounters,
) -> Result<(), mpsc::error::SendError<LinkEvent>> {
    Counters::count(&counters.messages_in);
    if publish.payload.len() > MESSAGE_BYTES_MAX {
        Counters::count(&counters.ignored_too_large);
        return Ok(());
    }
    let message =
        Incoming { topic: Bytes::from(publish.topic), payload: publish.payload, retained: publish.retain };
    events.send(LinkEvent::Message(message)).await
}

/// Hands the service's messages to the client library until there are no more.
async fn write(
    config: &ClientConfig,
    client: &AsyncClient,
    requests: &mut mpsc::Receiver<Outgoing>,
    counters: &ClientCounters,
) -> Lost {
    while let Some(message) = requests.recv().await {
        let Ok(topic) = String::from_utf8(message.topic.to_vec()) else { continue };
        let qos = match message.delivery {
            Delivery::AtMostOnce => QoS::AtMostOnce,
            Delivery::AtLeastOnce => QoS::AtLeastOnce,
        };
        let publishing = client.publish_bytes(topic, qos, message.retain, message.payload);
        match timeout(patience(config), publishing).await {
            Ok(Ok(())) => Counters::count(&counters.messages_out),
            // The event loop has gone; its half says why.
            Ok(Err(_)) => core::future::pending().await,
            // It sends nothing more while too much is not acknowledged, and it would wait for ever.
            Err(_) => return Lost::Stuck(patience(config)),
        }
    }
    Lost::Unwanted
}

/// How long the connection may make no progress.
fn patience(config: &ClientConfig) -> Duration {
    config.keep_alive * 2 + CONNECT_LIMIT
}

fn options(config: &ClientConfig) -> MqttOptions {
    let mut options = MqttOptions::new(&config.client_id, &config.broker.host, config.broker.port);
    options
        .set_clean_session(true)
        .set_keep_alive(config.keep_alive)
        .set_max_packet_size(config.packet_bytes_max, config.packet_bytes_max);
    if let Some((name, password)) = &config.login {
        options.set_credentials(name, password);
    }
    options
}

fn network_options() -> NetworkOptions {
    let mut options = NetworkOptions::new();
    options.set_tcp_nodelay(true);
    options.set_connection_timeout(CONNECT_LIMIT.as_secs());
    options
}

/// No message of a device is longer; the rest of the packet limit is only there to survive those who try.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Requests that the client library queues.
const REQUESTS: usize = 64;
/// Messages kept that came between SUBSCRIBE and SUBACK.
const EARLY_MAX: usize = 1024;
/// Time to connect and log in, and for a write.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Waits between attempts: full jitter over 1 s, then more, at most 60 s.
const WAIT_BASE_MS: u64 = 1_000;
const WAIT_CAP_MS: u64 = 60_000;
/// A connection that has lasted this long has worked.
const LASTED: Duration = Duration::from_secs(60);

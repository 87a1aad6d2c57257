//! The task that keeps a connection to the broker: connect, move messages until it ends, and again.

use alloc::sync::Arc;
use core::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use whimbrel_protocol::retry::Backoff;

use super::conversation::{self, CONNECT_LIMIT, Lost};
use super::{ClientConfig, ClientCounters};
use crate::attach::{LinkEvent, Outgoing};
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
        if matches!(lost, Lost::LoginRefused(_)) {
            Counters::count(&counters.refused_logins);
        }
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

/// One connection from its first packet to its end.
async fn connect_once(
    config: &ClientConfig,
    requests: &mut mpsc::Receiver<Outgoing>,
    events: &mpsc::Sender<LinkEvent>,
    counters: &ClientCounters,
) -> Lost {
    let (from_broker, to_broker) = match open(config).await {
        Ok(socket) => socket.into_split(),
        Err(lost) => return lost,
    };
    let conversation = match conversation::log_in(config, counters, from_broker, to_broker).await {
        Ok(conversation) => conversation,
        Err(lost) => return lost,
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
    conversation.run(requests, events).await
}

async fn open(config: &ClientConfig) -> Result<TcpStream, Lost> {
    let address = format!("{}:{}", config.broker.host, config.broker.port);
    let socket = match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
        Ok(socket) => socket.map_err(Lost::Connection)?,
        Err(_) => return Err(Lost::Silent(CONNECT_LIMIT)),
    };
    socket.set_nodelay(true).map_err(Lost::Connection)?;
    Ok(socket)
}

/// Waits between attempts: full jitter over 1 s, then more, at most 60 s.
const WAIT_BASE_MS: u64 = 1_000;
const WAIT_CAP_MS: u64 = 60_000;
/// A connection that has lasted this long has worked.
const LASTED: Duration = Duration::from_secs(60);

//! The task that keeps a connection to the broker: connect, move messages until it ends, and again.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use whimbrel_protocol::retry::Backoff;
use whimbrel_protocol::time::UnixTime;
use whimbrel_protocol::topic;

use super::conversation::{self, CONNECT_LIMIT};
use super::lost::Lost;
use super::watch::{Notice, Watch};
use super::{ClientConfig, ClientCounters};
use crate::attach::{LinkEvent, Outgoing};
use crate::clock::{self, Clock};
use crate::front::Counters;

/// Connects again and again until nobody wants the events any more.
pub(super) async fn keep(
    config: ClientConfig,
    mut requests: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<LinkEvent>,
    counters: Arc<ClientCounters>,
) {
    let watch = Mutex::new(Watch::new(&config.client_id, config.retain));
    let keeper = Keeper {
        config: &config,
        counters: &counters,
        watch: &watch,
        clock: Clock::start(UnixTime::default()),
    };
    tokio::select! {
        () = keeper.connect_for_ever(&mut requests, &events) => {}
        () = keeper.tell_for_ever() => {}
        () = events.closed() => {}
    }
}

struct Keeper<'a> {
    config: &'a ClientConfig,
    counters: &'a ClientCounters,
    watch: &'a Mutex<Watch>,
    clock: Clock,
}

impl Keeper<'_> {
    async fn connect_for_ever(
        &self,
        requests: &mut mpsc::Receiver<Outgoing>,
        events: &mpsc::Sender<LinkEvent>,
    ) {
        let mut backoff = Backoff::new(self.config.seed, WAIT_BASE_MS, WAIT_CAP_MS);
        loop {
            // The first attempt is made at once: there are few services, and their devices wait for them.
            let began = clock::now();
            let (lost, at_retain) = self.connect_once(requests, events).await;
            Counters::count(&self.counters.lost);
            if matches!(lost, Lost::LoginRefused(_)) {
                Counters::count(&self.counters.refused_logins);
            }
            let (reason, notices) = self.watch().ended(self.now_ms(), lost.end(at_retain), lost.to_string());
            self.tell(notices);
            if events.send(LinkEvent::Down { reason }).await.is_err() || matches!(lost, Lost::Unwanted) {
                return;
            }
            if began.elapsed() >= LASTED {
                backoff.reset();
            }
            sleep(Duration::from_millis(backoff.next_wait_ms())).await;
        }
    }

    /// One connection from its first packet to its end; and whether it ended where the broker was asked to keep
    /// something.
    async fn connect_once(
        &self,
        requests: &mut mpsc::Receiver<Outgoing>,
        events: &mpsc::Sender<LinkEvent>,
    ) -> (Lost, bool) {
        let (from_broker, to_broker) = match open(self.config).await {
            Ok(socket) => socket.into_split(),
            Err(lost) => return (lost, false),
        };
        let retains = self.watch().retains();
        let made = conversation::log_in(self.config, self.counters, retains, from_broker, to_broker).await;
        let conversation = match made {
            Ok(conversation) => conversation,
            Err(lost) => return (lost, false),
        };
        // What was queued for the last connection is not worth sending now.
        while requests.try_recv().is_ok() {
            Counters::count(&self.counters.discarded);
        }
        Counters::count(&self.counters.connected);
        let notice = self.watch().connected(self.now_ms());
        self.tell(notice);
        if events.send(LinkEvent::Up).await.is_err() {
            return (Lost::Unwanted, false);
        }
        conversation.run(requests, events).await
    }

    /// Logs what becomes due with time.
    async fn tell_for_ever(&self) {
        loop {
            sleep(TELL_EVERY).await;
            let heard = Counters::read(&self.counters.messages_in) > 0;
            let notices = self.watch().due(self.now_ms(), heard);
            self.tell(notices);
        }
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().as_millis()
    }

    fn tell(&self, notices: impl IntoIterator<Item = Notice>) {
        let (broker, prefix) = (&self.config.broker, &self.config.prefix);
        for notice in notices {
            match notice {
                Notice::Connected => tracing::info!(%broker, "broker link up"),
                Notice::Lost { reason } => tracing::warn!(%broker, reason, "broker link down"),
                Notice::LostAgain { reason, times, connected } => {
                    tracing::warn!(%broker, reason, times, connected, "broker link down again within a minute");
                }
                Notice::RetainLeftOut => tracing::warn!(
                    %broker,
                    "the broker keeps no messages (retain flag): none are marked any more, and devices that come later \
                     ask for what they missed; broker.retain = \"off\" spares the two lost connections"
                ),
                Notice::NobodyHeard { for_ms } => tracing::warn!(
                    %broker,
                    requests = topic::all_requests(prefix),
                    reports = topic::all_reports(prefix),
                    user = self.config.login.as_ref().map(|(user, _)| user),
                    for_s = for_ms / 1000,
                    "no device has been heard: do devices use this broker and this prefix, and do the broker's rules let \
                     us subscribe?"
                ),
            }
        }
    }
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
/// How often it is looked whether there is something to say that no event brings about.
const TELL_EVERY: Duration = Duration::from_secs(10);

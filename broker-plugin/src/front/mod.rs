//! The front door of the embedded broker: an MQTT server for the update service's own topics, with rumqttd's router
//! behind it for the topics of the application.
//!
//! The door accepts the sockets itself (MQTT 3.1.1 and 5 on one port) and decides who comes in and what each device may
//! read and write. What it does with a message depends on the topic alone:
//!
//! 1. The service's own topics (`q`, `r`, `c`, `s`, `g`, `t`) go through the `exchange`, by device id and group. The
//!    router never sees them: its matching of each topic with every filter costs more than an update.
//! 2. A message of a device waits in the `inbox` for the service, and its connection reads nothing meanwhile. Places are
//!    given in turn, so that a device that sends without end delays the others by one message a round.
//! 3. A message of the service waits in the `outbox` of each client that has subscribed. The service waits for nobody:
//!    what a client does not take is lost beyond a bound, and counted.
//! 4. Retained documents lie in the exchange. It is given every device's assignment when the service starts, without
//!    a message, so that nothing has to be announced and a subscription is a look at a map.
//! 5. When the service says that a device has changed, its subscriptions to groups that it is no longer in end.
//! 6. Topics that the configuration allows the application go through the router. A connection gets a `router_link`
//!    when it uses one for the first time: rumqttd's router alone is fast and sound as long as nothing reaches it that
//!    it can't bear, and is killed by some of what clients do.
//!
//! | file | decides |
//! |---|---|
//! | `config` | settings, and whether all that may be held fits the memory |
//! | `waiting`, `connection`, `handshake` | a socket until CONNACK; one connection's bytes |
//! | `shares` | whose place is given up where clients share a number of them |
//! | `slow_logins` | passwords that are slow to check, one after the other |
//! | `access` | identity, topics, the [`Access`] trait |
//! | `conversation`, `codec`, `acks` | packets after CONNACK |
//! | `exchange`, `inbox`, `outbox` | the service's own topics |
//! | `output` | what is to be written to a client, payloads uncopied |
//! | `seats` | takeover; places of devices that the operator knows, and of strangers |
//! | `router_link`, `link`, `heartbeat` | links that can't kill the router; a dead router ends the process |
//! | `counters`, `end`, `notices` | everything that happens has a number; what the operator has to know is logged |
//!
//! What this door does not do: TLS, persistent sessions (`session present` is always 0), QoS 2, wildcards,
//! `$` topics, shared subscriptions, topic aliases, and other version 5 properties of messages. A filter that is
//! subscribed again keeps its QoS and does not bring its retained message again.

mod access;
mod acks;
mod codec;
mod config;
mod connection;
mod conversation;
mod counters;
mod end;
mod error;
mod exchange;
mod handshake;
mod heartbeat;
mod inbox;
mod link;
mod notices;
mod outbox;
mod output;
mod router_link;
mod seats;
mod shares;
mod slow_logins;
mod waiting;

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::thread::{self, JoinHandle};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::sleep;
use whimbrel_protocol::ids::Prefix;

pub use access::{Access, Login, Refusal};
pub(crate) use codec::{Fault, lengths as packet_lengths};
pub use config::FrontConfig;
pub use counters::Counters;
pub use error::FrontError;
pub use heartbeat::{OnRouterDeath, RouterDeath, end_process};
pub use link::{Link, RouterHandle};

pub(crate) use exchange::{Exchange, ToDevices};
pub(crate) use inbox::FromDevice;

use access::TopicRules;
use heartbeat::Heartbeat;
use notices::Notices;
use outbox::Pool;
use seats::Seats;
use slow_logins::SlowLogins;
use waiting::WaitingRoom;

/// What all connections share.
pub(crate) struct Shared {
    config: FrontConfig,
    rules: TopicRules,
    access: Arc<dyn Access>,
    exchange: Arc<Exchange>,
    router: RouterHandle,
    seats: Seats,
    slow_logins: SlowLogins,
    notices: Notices,
    /// One permit for each client that may be connected.
    places: Arc<Semaphore>,
    /// Building a link blocks a thread; few at once are as fast as many.
    builders: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// An open front door. Dropping it closes it.
pub struct FrontDoor {
    local_addr: SocketAddr,
    exchange: Arc<Exchange>,
    router: RouterHandle,
    counters: Arc<Counters>,
    close: watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    heartbeat: Option<Heartbeat>,
}

impl FrontDoor {
    /// Starts the router and opens the door. `on_router_death` should end the process, as [`end_process`] does:
    /// nothing is delivered any more, and a router can't be started again in place.
    ///
    /// # Errors
    /// [`FrontError`]: a setting is wrong, the memory budget is too small, the address is taken.
    pub fn open(
        config: FrontConfig,
        access: Arc<dyn Access>,
        on_router_death: OnRouterDeath,
    ) -> Result<Self, FrontError> {
        config.check()?;
        let rules = TopicRules::new(
            config.prefix.clone(),
            &config.application_publish,
            &config.application_subscribe,
        )?;
        let address = config.listen;
        let runtime = start_runtime(config.worker_threads)?;
        let listener = listen(&runtime, address).and_then(|it| Ok((it.local_addr()?, it)));
        let (local_addr, listener) = match listener {
            Ok(listener) => listener,
            Err(source) => {
                runtime.shutdown_background(); // To drop it would panic where the caller is async.
                return Err(FrontError::Listen { address, source });
            }
        };
        let started = RouterHandle::start(config.router())
            .and_then(|router| Ok((Heartbeat::start(&router, on_router_death)?, router)));
        let (heartbeat, router) = match started {
            Ok(started) => started,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let counters = Arc::new(Counters::default());
        let exchange = Exchange::new(
            config.prefix.clone(),
            Arc::clone(&access),
            Arc::clone(&counters),
            Pool::new(config.bounds()),
            config.devices_max,
            config.groups_max,
        );
        let shared = Arc::new(Shared {
            rules,
            access,
            exchange: Arc::clone(&exchange),
            router: router.clone(),
            seats: Seats::new(config.devices_max, config.strangers_max),
            slow_logins: SlowLogins::default(),
            notices: Notices::default(),
            places: Arc::new(Semaphore::new(config.connections_max)),
            builders: Arc::new(Semaphore::new(BUILDERS)),
            counters: Arc::clone(&counters),
            config,
        });
        let (close, closed) = watch::channel(false);
        let server = thread::Builder::new()
            .name("mqtt-front".to_owned())
            .spawn(move || {
                runtime.block_on(accept_all(&listener, &shared, closed));
                runtime.shutdown_timeout(CLOSE_LIMIT);
            })
            .map_err(|source| FrontError::Start { what: "the front door's thread", source })?;
        tracing::info!(%local_addr, "front door open");
        let (server, heartbeat) = (Some(server), Some(heartbeat));
        Ok(Self { local_addr, exchange, router, counters, close, server, heartbeat })
    }

    /// Where it listens; the port is the real one where the settings say 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// First level of all topics.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        self.exchange.prefix()
    }

    /// What carries the service's own topics.
    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// The router behind the door, which carries topics of the application.
    #[must_use]
    pub fn router(&self) -> &RouterHandle {
        &self.router
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops accepting, tells the clients, closes their connections, and returns. Blocks for at most a few
    /// seconds. The router's thread stays until the process ends.
    pub fn close(mut self) {
        self.close_now();
    }

    fn close_now(&mut self) {
        self.close.send_replace(true);
        if let Some(server) = self.server.take() {
            let _panicked = server.join();
            tracing::info!("front door closed");
        }
        drop(self.heartbeat.take());
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        self.close_now();
    }
}

fn start_runtime(worker_threads: usize) -> Result<Runtime, FrontError> {
    Builder::new_multi_thread()
        .worker_threads(worker_threads)
        // For building links, and for passwords that are slow to check.
        .max_blocking_threads(2 * BUILDERS + slow_logins::AT_ONCE)
        .thread_name("mqtt-worker")
        .enable_all()
        .build()
        .map_err(|source| FrontError::Start { what: "the front door's runtime", source })
}

fn listen(runtime: &Runtime, address: SocketAddr) -> io::Result<TcpListener> {
    let _inside = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `closed` changes, then waits for the connections to end.
async fn accept_all(listener: &TcpListener, shared: &Arc<Shared>, mut closed: watch::Receiver<bool>) {
    let room = WaitingRoom::new(shared.config.waiting_max);
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                pause = ACCEPT_PAUSE_MIN;
                Counters::count(&shared.counters.accepted);
                let connection = connection::serve(
                    Arc::clone(shared),
                    prepare(socket),
                    peer,
                    room.enter(peer),
                    closed.clone(),
                );
                let alive = alive.clone();
                tokio::spawn(async move {
                    connection.await;
                    drop(alive);
                });
            }
            Err(error) => {
                // No descriptor left, most likely: those who leave make room, and to ask at once burns a core.
                Counters::count(&shared.counters.accept_errors);
                tracing::warn!(reason = %error, "accept failed");
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = closed.changed() => break,
                }
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
    drop(alive);
    let _late = tokio::time::timeout(CLOSE_LIMIT, all_gone.recv()).await;
}

fn prepare(socket: TcpStream) -> TcpStream {
    // Without it each acknowledgement waits for the next; where it can't be set, things are only slower.
    let _slower = socket.set_nodelay(true);
    socket
}

/// Connections that the system holds until they are accepted: a fleet may come back at once.
const BACKLOG: u32 = 1024;
/// Links built at once.
const BUILDERS: usize = 4;
/// Waits after a failed accept, doubled from one to the other.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections have this long to end when the door closes.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

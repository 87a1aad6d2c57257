//! Puts the service together, runs it, takes it apart.

use alloc::sync::Arc;
use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;
use std::thread;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::access::{FleetAccess, Membership};
use crate::admin::{self, AdminToken, TokenError};
use crate::attach::{BrokerLink, BrokerUrl, ClientConfig, ClientLink, EmbeddedLink, LinkError, Retain};
use crate::clock::Clock;
use crate::config::{BrokerConfig, Config};
use crate::fleet;
use crate::front::{FrontDoor, FrontError, end_process};
use crate::metrics::Counters;
use crate::offline_keys;
use crate::passwords;
use crate::service::{Parts, Service};
use crate::serving;
use crate::signing::{Authority, SigningError};
use crate::store::{
    DataLock, DatabaseFile, PayloadFolder, Payloads, SignedMark, Snapshot, SqliteStore, Store as _,
    StoreError, StoreHandle,
};
use crate::store_guard::StoreDoubt;

/// The service serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where devices connect; `None` if the service is a client of another broker.
    pub mqtt: Option<SocketAddr>,
    /// Where operators connect.
    pub admin: SocketAddr,
}

/// Why the service did not start, or ended.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// Root or keys.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The admin token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Database or payloads.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the embedded broker holds could outgrow what the owner allows.
    #[error(
        "the broker may need {needed} bytes of memory and limits.broker-memory allows {budget}: lower limits.devices, \
         limits.connections or limits.groups, or raise it"
    )]
    Memory {
        /// What it may need, in bytes.
        needed: u64,
        /// What it may have.
        budget: u64,
    },
    /// No device could log in.
    #[error(
        "no device could log in: set broker.passwords to the file that `whimbrel device password` writes, or          broker.open = true, with which anybody may connect as any device"
    )]
    NoLogin,
    /// The embedded broker did not start.
    #[error("{error}{}", cause(error))]
    Front {
        /// Why.
        error: FrontError,
    },
    /// The link to the broker is gone for good, or could not be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The admin API can't listen.
    #[error("the admin API cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A thread could not be started, or ended by itself.
    #[error("the service's thread {what}")]
    Thread {
        /// What happened to it.
        what: String,
    },
}

fn cause(error: &FrontError) -> String {
    core::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"))
}

/// Requests of operators that wait for the service.
const REQUESTS: usize = 64;
// The limits of a stop: together they are shorter than `whimbrel_settings::daemon::stop::LIMIT`.
/// Requests of operators that have begun may take this long when the service stops.
const ADMIN_LIMIT: Duration = Duration::from_secs(3);
/// The store gets this long to store what it was handed when the service stops. Nobody was told that the rest is
/// stored.
const STORE_LIMIT: Duration = Duration::from_secs(4);

/// Runs the service until `shutdown` is ready. `ready` is called once, when devices and operators are served.
///
/// Must be called inside a multi-threaded tokio runtime. If the embedded broker dies, the process ends, with a
/// message and exit status 70.
///
/// # Errors
/// [`ServiceError`]: it did not start, or could not go on.
pub async fn run(
    config: Config,
    ready: impl FnOnce(Ready),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServiceError> {
    let (authority, token) = check(&config)?;
    offline_keys::warn(&config.authority, authority.root());
    let (authority, token) = (Arc::new(authority), Arc::new(token));
    // Up to here nothing was made that was not there.
    let _lock = DataLock::take(&config.data)?;
    let folder = PayloadFolder::open(&config.data)?;
    let uploaded = folder.count()?;
    let payloads: Arc<dyn Payloads> = Arc::new(folder);
    let database = config.data.join("whimbrel.sqlite");
    let mut store = SqliteStore::open(&database).await?;
    let database = DatabaseFile::opened(&database)?;
    let prepared = match prepare(&config, &mut store, uploaded).await {
        Ok(prepared) => prepared,
        Err(error) => {
            store.close().await;
            return Err(error);
        }
    };
    let Prepared { snapshot, clock, listener, admin, membership, broker, mark, store_doubt } = prepared;
    let expires = authority.root().expires;
    if expires <= clock.today() {
        tracing::warn!(expires = expires.as_secs(), "root of trust has expired, make a new one");
    }
    let mqtt = broker.address();
    let (requests, to_do) = mpsc::channel(REQUESTS);
    let (stop_service, stopped) = oneshot::channel();
    let (store, store_task) = StoreHandle::start(store);
    let counters = Arc::new(Counters::default());
    let parts = Parts {
        fleet: fleet_settings(&config),
        serving: serving_settings(&config),
        authority: Arc::clone(&authority),
        snapshot,
        store: store.clone(),
        payloads: Arc::clone(&payloads),
        membership,
        counters,
        requests: to_do,
        stop: stopped,
        elsewhere: Handle::current(),
        seed: random_seed(),
        clock: clock.clone(),
        store_doubt,
        mark: Arc::new(mark),
    };
    let (door, service) = broker.start_service(parts)?;
    let mut service_ended = service;

    let (stop_admin, mut admin_stopped) = watch::channel(false);
    let context = admin::Context {
        requests,
        store,
        payloads,
        authority,
        token,
        clock,
        places: Arc::new(Semaphore::new(config.limits.admin_requests)),
        payload_bytes_max: config.limits.payload_bytes,
    };
    let mut admin_task: JoinHandle<std::io::Result<()>> =
        tokio::spawn(admin::serve(listener, context, async move {
            let _sender_gone = admin_stopped.changed().await;
        }));
    tracing::info!(%admin, mqtt = mqtt.map(|address| address.to_string()), "service ready");
    ready(Ready { mqtt, admin });

    let mut gone = None;
    let ended = tokio::select! {
        () = shutdown => None,
        error = database.until_gone() => {
            tracing::error!(reason = %error, "database gone");
            gone = Some(error);
            None
        }
        ended = &mut service_ended => Some(ended),
    };
    tracing::info!("service stopping");
    stop_admin.send_replace(true);
    if timeout(ADMIN_LIMIT, &mut admin_task).await.is_err() {
        admin_task.abort();
    }
    let ended = match ended {
        Some(ended) => ended,
        None => {
            let _ended_already = stop_service.send(());
            service_ended.await
        }
    };
    if let Some(door) = door {
        // Closing waits for threads.
        let _closed = tokio::task::spawn_blocking(move || door.close()).await;
    }
    if timeout(STORE_LIMIT, store_task).await.is_err() {
        tracing::error!("store did not finish in time");
    }
    tracing::info!("service stopped");
    match gone {
        Some(error) => Err(error.into()),
        None => ended,
    }
}

/// What can fail while others use the service's ports, or the disk.
struct Prepared {
    snapshot: Snapshot,
    clock: Clock,
    listener: TcpListener,
    admin: SocketAddr,
    membership: Membership,
    broker: Broker,
    mark: SignedMark,
    store_doubt: Option<StoreDoubt>,
}

async fn prepare(config: &Config, store: &mut SqliteStore, uploaded: u64) -> Result<Prepared, ServiceError> {
    store.limit_bytes(config.limits.database_bytes).await?;
    let snapshot = store.load().await?;
    let (handed_out, marked) = (snapshot.handed_out, SignedMark::read(&config.data));
    let store_doubt = StoreDoubt::of(handed_out, marked, uploaded);
    let known = handed_out.max(marked.unwrap_or_default());
    let mark = match store_doubt {
        None => SignedMark::begin(&config.data, known)?,
        Some(_) => SignedMark::doubted(&config.data, known),
    };
    let clock = Clock::start(snapshot.beacon_issued);
    let listen_error = |source| ServiceError::Listen { address: config.admin, source };
    let listener = TcpListener::bind(config.admin).await.map_err(listen_error)?;
    let admin = listener.local_addr().map_err(listen_error)?;
    let membership = Membership::default();
    // Before the door opens: whoever is accepted is no stranger there from the first moment on.
    for device in &snapshot.devices {
        membership.enter(device);
    }
    let broker = Broker::start(config, &membership).await?;
    Ok(Prepared { snapshot, clock, listener, admin, membership, broker, mark, store_doubt })
}

/// Reads the files that the configuration names and checks the broker's limits. Makes and changes nothing.
///
/// # Errors
/// [`ServiceError`]: the first thing with which the service would not start.
pub(crate) fn check(config: &Config) -> Result<(Authority, AdminToken), ServiceError> {
    let read = (Authority::load(&config.authority)?, AdminToken::load(&config.token_file)?);
    check_broker(config)?;
    Ok(read)
}

/// What the broker, or the link to it, would refuse whatever else happens.
fn check_broker(config: &Config) -> Result<(), ServiceError> {
    match &config.broker {
        BrokerConfig::Embedded { passwords: None, open: false, .. } => Err(ServiceError::NoLogin),
        BrokerConfig::Embedded { front, .. } => front.check().map_err(front_error),
        BrokerConfig::Client { url, client_id, login, retain } => {
            client_config(config, url, client_id, login.as_ref(), *retain).check().map_err(ServiceError::Link)
        }
    }
}

fn client_config(
    config: &Config,
    url: &BrokerUrl,
    client_id: &str,
    login: Option<&(String, String)>,
    retain: Retain,
) -> ClientConfig {
    let client = ClientConfig::new(url.clone(), client_id.to_owned(), random_seed());
    ClientConfig { login: login.cloned(), retain, prefix: config.prefix.clone(), ..client }
}

fn front_error(error: FrontError) -> ServiceError {
    match error {
        FrontError::MemoryBudget { needed, budget } => ServiceError::Memory { needed, budget },
        error => ServiceError::Front { error },
    }
}

fn fleet_settings(config: &Config) -> fleet::Settings {
    fleet::Settings {
        prefix: config.prefix.clone(),
        beacon_every_ms: millis(config.beacon_every),
        beacon_life_s: config.beacon_life.as_secs(),
        releases_max: config.limits.releases,
    }
}

fn serving_settings(config: &Config) -> serving::Settings {
    serving::Settings {
        prefix: config.prefix.clone(),
        sessions_max: config.limits.sessions,
        session_idle_ms: millis(config.limits.session_idle),
        frame_cache_bytes: config.limits.frame_cache_bytes,
        payload_cache_bytes: config.limits.payload_cache_bytes,
        rates: config.limits.rates(),
        broker_forgets: matches!(config.broker, BrokerConfig::Client { .. }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A seed for jitter; if the system has no randomness, any number will do.
fn random_seed() -> u64 {
    let mut seed = [0; 8];
    if getrandom::fill(&mut seed).is_err() {
        return u64::from(std::process::id());
    }
    u64::from_ne_bytes(seed)
}

/// The broker, up and running or being connected to.
enum Broker {
    Embedded { door: FrontDoor, link: Box<EmbeddedLink> },
    Client(ClientLink),
}

impl Broker {
    async fn start(config: &Config, membership: &Membership) -> Result<Self, ServiceError> {
        match &config.broker {
            BrokerConfig::Embedded { front, passwords, open } => {
                if *open {
                    tracing::warn!(
                        "broker.open is true: anybody may connect as any device that has no password"
                    );
                }
                if let Some(file) = passwords {
                    tokio::spawn(passwords::watch(Arc::downgrade(file)));
                }
                let (membership, passwords) = (membership.clone(), passwords.clone());
                let access = FleetAccess { membership, passwords, open: *open };
                let front = (**front).clone();
                // Opening the door waits for threads.
                let opening = tokio::task::spawn_blocking(move || {
                    let door = FrontDoor::open(front, Arc::new(access), Box::new(end_process))?;
                    let link = EmbeddedLink::open(&door);
                    Ok((door, link))
                });
                let opened = opening.await.map_err(|error| thread_error(&error))?;
                let (door, link) = opened.map_err(front_error)?;
                Ok(Self::Embedded { door, link: Box::new(link?) })
            }
            BrokerConfig::Client { url, client_id, login, retain } => {
                let client = client_config(config, url, client_id, login.as_ref(), *retain);
                Ok(Self::Client(ClientLink::start(client)?))
            }
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Embedded { door, .. } => Some(door.local_addr()),
            Self::Client(_) => None,
        }
    }

    /// Gives the service a thread of its own. The future is ready when it has ended.
    fn start_service(self, parts: Parts) -> Result<(Option<FrontDoor>, ServiceEnded), ServiceError> {
        match self {
            Self::Embedded { door, link } => Ok((Some(door), spawn_service(*link, parts)?)),
            Self::Client(link) => Ok((None, spawn_service(link, parts)?)),
        }
    }
}

fn thread_error(error: &tokio::task::JoinError) -> ServiceError {
    ServiceError::Thread { what: format!("ended by itself: {error}") }
}

type ServiceEnded = core::pin::Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send>>;

fn spawn_service<L: BrokerLink + Send + 'static>(
    link: L,
    parts: Parts,
) -> Result<ServiceEnded, ServiceError> {
    let (tell, told) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| ServiceError::Thread { what: format!("has no timers: {error}") })?;
    let spawned = thread::Builder::new().name("whimbrel-core".to_owned()).spawn(move || {
        let ended = runtime.block_on(Service::new(link, parts).run());
        let _nobody_waits = tell.send(ended);
    });
    spawned.map_err(|error| ServiceError::Thread { what: format!("cannot be started: {error}") })?;
    Ok(Box::pin(async move {
        match told.await {
            Ok(ended) => Ok(ended?),
            // Panicked; what it said is on standard error.
            Err(_) => Err(ServiceError::Thread { what: "ended by itself".to_owned() }),
        }
    }))
}

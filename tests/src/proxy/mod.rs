//! A proxy between devices and broker that does what a hostile or broken broker could do.
//!
//! It understands MQTT packets, so that it changes messages and never MQTT's own framing. It also counts, so
//! that tests can assert on traffic.
//!
//! `relay` moves bytes, `verb` changes messages, `memory` keeps what passed, `traffic` counts.

mod memory;
mod relay;
mod traffic;
mod verb;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};

use tokio::net::TcpListener;
use whimbrel_protocol::retry::Jitter;

pub use memory::Message;
pub use traffic::Traffic;
pub use verb::Verb;

use crate::clock::{Deadline, PATIENCE};
use memory::Memory;
use verb::Lot;

/// A running proxy; its threads end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct State {
    shared: Mutex<Shared>,
    /// Notified whenever something passes.
    passed: Condvar,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    verb: Verb,
    /// Drops retained messages, as a broker does that ignores `retain`.
    ignore_retain: bool,
    /// Bytes per second towards a device; 0 for no limit.
    rate: u64,
    jitter: Jitter,
    lot: Lot,
    traffic: BTreeMap<String, Traffic>,
    memory: Memory,
    /// The messages that passed before the verb was set and were not delivered again yet.
    old: Vec<Message>,
    /// Rises with every cut of all connections.
    cuts: u64,
}

/// The variable that makes every proxy behave like a broker that ignores `retain`.
const IGNORE_RETAIN: &str = "E2E_IGNORE_RETAIN";

impl State {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder panics")
    }
}

impl Proxy {
    /// Starts a proxy in front of `upstream`.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Shared {
            upstream,
            verb: Verb::Pass,
            ignore_retain: std::env::var_os(IGNORE_RETAIN).is_some(),
            rate: 0,
            jitter: Jitter::new(1),
            lot: Lot::default(),
            traffic: BTreeMap::new(),
            memory: Memory::default(),
            old: Vec::new(),
            cuts: 0,
        };
        let state = Arc::new(State { shared: Mutex::new(shared), passed: Condvar::new() });
        let of_task = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay::connection(client, Arc::clone(&of_task)));
            }
        });
        Self { address, state, runtime: Some(runtime) }
    }

    /// The address to which devices connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the broker's address, for connections from now on.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.state.lock().upstream = upstream;
    }

    /// Sets what it does to messages from now on.
    pub fn set(&self, verb: Verb) {
        let mut shared = self.state.lock();
        shared.lot = Lot::default();
        shared.old = shared.memory.messages();
        shared.verb = verb;
    }

    /// Sets whether it drops retained messages from now on.
    pub fn ignore_retain(&self, ignore: bool) {
        self.state.lock().ignore_retain = ignore;
    }

    /// Bytes per second towards each device; 0 for no limit.
    pub fn set_rate(&self, rate: u64) {
        self.state.lock().rate = rate;
    }

    /// What passed to and from `device`.
    #[must_use]
    pub fn traffic(&self, device: &str) -> Traffic {
        self.state.lock().traffic.get(device).cloned().unwrap_or_default()
    }

    /// The latest messages that passed to and from `device`, oldest first.
    #[must_use]
    pub fn messages(&self, device: &str) -> Vec<Message> {
        let mut messages = self.state.lock().memory.messages();
        messages.retain(|message| message.device == device);
        messages
    }

    /// Waits until `is` accepts the traffic to and from `device`.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn wait_for_traffic(&self, device: &str, mut is: impl FnMut(&Traffic) -> bool) -> Traffic {
        let deadline = Deadline::after(PATIENCE);
        let mut shared = self.state.lock();
        loop {
            let traffic = shared.traffic.get(device).cloned().unwrap_or_default();
            if is(&traffic) {
                return traffic;
            }
            let left = deadline.left();
            assert!(!left.is_zero(), "waited in vain for traffic of {device}: {traffic:?}");
            shared = self.state.passed.wait_timeout(shared, left).expect("no holder panics").0;
        }
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.state.lock().cuts += 1;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

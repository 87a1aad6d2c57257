//! Links to rumqttd's router, made so that they can't kill it.
//!
//! The router trusts its links: a `Ready` from a link that it has dropped panics its thread, and with it the whole
//! broker. So the router must never drop a link by itself, and a link must leave in the right order: everything
//! that it has sent is processed first, then its Disconnect, then nothing more. A link's packets are read by *any*
//! of its events, so that a Disconnect put into its queue while an earlier event is still on the way would
//! overtake a `Ready` behind that event. [`Link`] therefore hands itself to the *reaper* when it is dropped, from
//! wherever and for whatever reason: a thread that may block, lets the router catch up, and only then
//! disconnects.

use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;
use std::sync::mpsc;
use std::thread;

use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet, PingReq};
use rumqttd::{Notification, Router, RouterConfig};

use super::error::FrontError;
use crate::clock;

/// Makes links to one router. Clones share it.
///
/// The service's own link is made with it, and load tests that want the bare router may.
#[derive(Clone)]
pub struct RouterHandle {
    build: Arc<Build>,
    grave: mpsc::Sender<Corpse>,
}

/// `Event`, the item of the router's channel, is not exported, so that the type of its sender can't be written
/// down: a closure holds it.
type Build = dyn Fn(&str) -> Result<(LinkTx, LinkRx), FrontError> + Send + Sync;

/// The sending half of a link.
///
/// Dropping it disconnects it, in order. Its notifications are no longer delivered then.
pub struct Link {
    /// `None` only while it is being dropped.
    tx: Option<LinkTx>,
    held: Option<Held>,
    grave: mpsc::Sender<Corpse>,
}

/// What a link keeps hold of until the router has forgotten it: the seat of its client, its place in the house.
pub(crate) type Held = Box<dyn Any + Send>;

/// A link on its way out.
struct Corpse {
    tx: LinkTx,
    held: Option<Held>,
}

impl RouterHandle {
    /// Starts a router and its reaper. The router's thread ends only with the process: it has no way to be stopped.
    pub(crate) fn start(config: RouterConfig) -> Result<Self, FrontError> {
        let events = Router::new(0, config).spawn();
        let build: Arc<Build> = Arc::new(move |id| {
            // Always a clean session: what the router keeps of an old one can be neither bounded nor trusted.
            let built = LinkBuilder::new(id, events.clone()).build();
            built.map(|(tx, rx, _ack)| (tx, rx)).map_err(|_| FrontError::RouterGone)
        });
        let (tx, rx) = build(".reaper")?;
        let (grave, corpses) = mpsc::channel();
        thread::Builder::new()
            .name("mqtt-reaper".to_owned())
            .spawn(move || reap(tx, rx, &corpses))
            .map_err(|source| FrontError::Start { what: "the reaper thread", source })?;
        Ok(Self { build, grave })
    }

    /// Makes a link; blocks until the router has taken it in.
    ///
    /// `id` must be unique among the links that live; two with the same id kill the router. Ids with a full stop
    /// can't collide with a client's. Where the router dies at this very moment, the call may never return: the
    /// process is about to end.
    ///
    /// # Errors
    /// [`FrontError::RouterGone`] where the router has stopped or is full.
    pub fn link(&self, id: &str) -> Result<(Link, LinkRx), FrontError> {
        self.link_holding(id, None)
    }

    /// Makes a link that holds something until it is gone.
    pub(crate) fn link_holding(&self, id: &str, held: Option<Held>) -> Result<(Link, LinkRx), FrontError> {
        let (tx, rx) = (self.build)(id)?;
        Ok((Link { tx: Some(tx), held, grave: self.grave.clone() }, rx))
    }
}

impl Link {
    /// Queues packets for the router; it sees them at the next [`Link::notify`].
    pub fn queue(&self, packets: impl IntoIterator<Item = Packet>) {
        self.tx().buffer().extend(packets);
    }

    /// How many packets the router has not taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.tx().buffer().len()
    }

    /// Tells the router that packets are queued: one event for all of them. Blocks for as long as the
    /// router's channel is full, which is at most milliseconds, because the router never waits for a link.
    ///
    /// # Errors
    /// [`FrontError::RouterGone`] where the router has stopped.
    pub fn notify(&mut self) -> Result<(), FrontError> {
        // The crate's own `notify` is private; to leave a filter that nobody has is the packet that does nothing.
        self.tx_mut().unsubscribe("").map(drop).map_err(|_| FrontError::RouterGone)
    }

    /// As [`Link::notify`], without waiting; `Ok(false)` where the channel is full now.
    pub(crate) fn try_notify(&mut self) -> Result<bool, FrontError> {
        match self.tx_mut().try_unsubscribe("") {
            Ok(_) => Ok(true),
            Err(LinkError::TrySend(flume::TrySendError::Full(_))) => Ok(false),
            Err(_) => Err(FrontError::RouterGone),
        }
    }

    /// Forgets packets that the router has not taken yet.
    pub(crate) fn forget_queued(&self) {
        self.tx().buffer().clear();
    }

    fn tx(&self) -> &LinkTx {
        self.tx.as_ref().expect("only drop takes it")
    }

    fn tx_mut(&mut self) -> &mut LinkTx {
        self.tx.as_mut().expect("only drop takes it")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(tx) = self.tx.take() {
            // The reaper ends when the last handle is gone; then the process is ending and nobody waits.
            drop(self.grave.send(Corpse { tx, held: self.held.take() }));
        }
    }
}

/// Disconnects the links that were dropped, until no link can be made any more.
fn reap(tx: LinkTx, mut rx: LinkRx, corpses: &mpsc::Receiver<Corpse>) {
    let mut tx = tx;
    while let Ok(first) = corpses.recv() {
        let batch: Vec<Corpse> = core::iter::once(first).chain(corpses.try_iter().take(BATCH_MAX)).collect();
        if let Err(FrontError::RouterGone) = catch_up(&mut tx, &mut rx) {
            tracing::error!("router does not answer the reaper");
            continue; // Dropping the batch frees its seats; the heartbeat decides about the process.
        }
        for Corpse { mut tx, held } in batch {
            let reason_code = DisconnectReasonCode::NormalDisconnection;
            tx.buffer().push_back(Packet::Disconnect(Disconnect { reason_code }, None));
            let _gone = tx.unsubscribe("");
            // Only now: a new link of the same client comes behind this one in the router's channel.
            drop(held);
        }
    }
}

/// Waits until the router has processed all events that were sent before.
fn catch_up(tx: &mut LinkTx, rx: &mut LinkRx) -> Result<(), FrontError> {
    tx.buffer().push_back(Packet::PingReq(PingReq));
    tx.unsubscribe("").map_err(|_| FrontError::RouterGone)?;
    let deadline = clock::now() + CATCH_UP_LIMIT;
    loop {
        match rx.recv_deadline(deadline) {
            Ok(Some(notification)) => {
                if is_pong(notification) {
                    return Ok(());
                }
            }
            Ok(None) => {}
            Err(_) => return Err(FrontError::RouterGone),
        }
    }
}

/// Is this the router's answer to a ping?
pub(crate) fn is_pong(notification: Notification) -> bool {
    matches!(Option::<Packet>::from(notification), Some(Packet::PingResp(_)))
}

/// Links disconnected after one wait.
const BATCH_MAX: usize = 256;
/// A router that has not caught up in this time never will.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

//! A connection's link on the router, made when the client uses a topic of the application for the first time.
//!
//! A device that only gets updates never needs one and costs the router nothing. What a connection holds (its seat, its
//! place in the house) goes to the link when that is made, because a newer connection of the same client must not make
//! its own link before the router has forgotten this one.

use alloc::sync::Arc;
use core::future::pending;

use rumqttd::Notification;
use rumqttd::local::LinkRx;
use rumqttd::protocol::Packet;

use super::Shared;
use super::counters::Counters;
use super::end::End;
use super::link::{Held, Link};

/// A link, or what it will hold.
pub(crate) struct RouterLink {
    id: String,
    held: Option<Held>,
    made: Option<(Link, LinkRx)>,
    /// Packets are queued that the router has not been told of.
    queued: bool,
}

impl RouterLink {
    /// No link yet; `id` is the id that it will have.
    pub(crate) fn none(id: String, held: Held) -> Self {
        Self { id, held: Some(held), made: None, queued: false }
    }

    /// Makes the link, if it is not there.
    pub(crate) async fn link(&mut self, shared: &Shared) -> Result<(), End> {
        if self.made.is_some() {
            return Ok(());
        }
        let builder =
            Arc::clone(&shared.builders).acquire_owned().await.expect("the semaphore is never closed");
        let (id, router, held) = (self.id.clone(), shared.router.clone(), self.held.take());
        // Building blocks. When this future is dropped meanwhile, the link is dropped by the closure's end.
        let built = tokio::task::spawn_blocking(move || {
            let built = router.link_holding(&id, held);
            drop(builder);
            built
        });
        match built.await {
            Ok(Ok(made)) => self.made = Some(made),
            _ => return Err(End::RouterGone),
        }
        Counters::count(&shared.counters.router_links);
        Ok(())
    }

    /// Queues a packet for the router; without a link nothing is queued.
    pub(crate) fn queue(&mut self, packet: Packet) {
        if let Some((link, _)) = &self.made {
            link.queue([packet]);
            self.queued = true;
        }
    }

    /// Tells the router what is queued.
    pub(crate) fn notify(&mut self) -> Result<(), End> {
        if let Some((link, _)) = &mut self.made
            && core::mem::take(&mut self.queued)
        {
            link.notify()?;
        }
        Ok(())
    }

    /// Waits for the router; for ever without a link. Cancel-safe. `None` says only that others have emptied the queue.
    pub(crate) async fn next(&mut self) -> Result<Option<Notification>, End> {
        match &mut self.made {
            Some((_, rx)) => rx.next().await.map_err(|_| End::RouterGone),
            None => pending().await,
        }
    }

    /// Wakes the link after the router has parked it.
    pub(crate) async fn wake(&mut self) -> Result<(), End> {
        match &mut self.made {
            Some((_, rx)) => rx.wake().await.map_err(|_| End::RouterGone),
            None => Ok(()),
        }
    }
}

//! What goes to the broker with the next flush.

use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use bytes::Bytes;

use crate::attach::{BrokerLink, Delivery, LinkError, LinkEvent, Outgoing};
use crate::metrics::Counters;

/// The link, and what was given to it since the last flush.
pub(super) struct Outbox<L> {
    pub(super) link: L,
    pub(super) up: bool,
    /// Messages since the last flush.
    pub(super) queued: usize,
    counters: Arc<Counters>,
}

impl<L: BrokerLink> Outbox<L> {
    pub(super) fn new(link: L, counters: Arc<Counters>) -> Self {
        Self { link, up: false, queued: 0, counters }
    }

    /// Goes on with whatever the link is to do next: hands over what is queued (`None`), else waits for an event.
    /// While the broker is behind, no messages are taken in.
    pub(super) async fn move_on(&mut self) -> Result<Option<LinkEvent>, LinkError> {
        if self.queued > 0 {
            self.link.flush().await?;
            self.queued = 0;
            return Ok(None);
        }
        self.link.next().await.map(Some)
    }

    /// Whether more should be queued before what is queued goes out. Small batches stay in the caches of the CPU; and
    /// where the broker is behind, nothing is piled up here.
    pub(super) const fn has_room(&self) -> bool {
        self.queued < BATCH_MESSAGES
    }

    /// Sends something to one device.
    pub(super) fn send(&mut self, topic: Bytes, payload: Bytes) {
        self.publish(Outgoing { topic, payload, delivery: Delivery::AtMostOnce, retain: false });
    }

    /// Publishes something that the broker keeps.
    pub(super) fn retain(&mut self, topic: String, payload: Bytes) {
        let topic = Bytes::from(topic);
        self.publish(Outgoing { topic, payload, delivery: Delivery::AtLeastOnce, retain: true });
    }

    fn publish(&mut self, message: Outgoing) {
        if !self.up {
            return; // Devices ask again; what is retained is published when the link is up.
        }
        match self.link.publish(message) {
            Ok(()) => {
                self.queued += 1;
                Counters::count(&self.counters.messages_out);
            }
            Err(error) => {
                Counters::count(&self.counters.publish_failures);
                tracing::warn!(reason = %error, "message not sent");
            }
        }
    }
}

/// Messages that go out together; one request more may be answered.
const BATCH_MESSAGES: usize = 256;

/// What a future that can be dropped gives right now; `None` where it would have to wait.
pub(super) async fn already<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

//! The service as a link on the router in its own process.
//!
//! Payloads are shared with the router's logs and with every connection, never copied. The link subscribes at
//! QoS 0 to both filters: inside a process an acknowledgement adds nothing, because the router keeps its log
//! whether or not anyone acknowledges, and a log that rolls over is lost at either QoS. What is lost is counted.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::time::Duration;

use bytes::Bytes;
use rumqttd::local::LinkRx;
use rumqttd::protocol::{Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe};
use rumqttd::{Forward, Notification};
use whimbrel_api::Attachment;
use whimbrel_protocol::topic;

use super::error::check_topic;
use super::{BrokerLink, Incoming, LinkError, LinkEvent, Outgoing, QUEUE_MAX, numbers};
use crate::front::{Counters, FrontDoor, FrontError, Link};

/// A link on the router behind a [`FrontDoor`]. Use it on a thread of its own: telling the router may block for
/// milliseconds.
pub struct EmbeddedLink {
    link: Link,
    rx: LinkRx,
    unsent: Vec<Packet>,
    /// Number of the next request and of the next report in the router's logs.
    next_request: Option<u64>,
    next_report: Option<u64>,
    counters: Arc<Counters>,
}

impl EmbeddedLink {
    /// Makes the link and subscribes. Its id can't be guessed, and no client can take it.
    ///
    /// # Errors
    /// [`LinkError::RouterGone`].
    pub fn open(door: &FrontDoor) -> Result<Self, LinkError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| FrontError::Start { what: "the service's link", source: error.into() })?;
        let id = format!(".service-{:016x}", u64::from_be_bytes(random));
        let (mut link, rx) = door.router().link(&id)?;
        let filters = [topic::all_requests(door.prefix()), topic::all_reports(door.prefix())];
        let filters = filters.into_iter().map(at_most_once).collect();
        link.queue([Packet::Subscribe(Subscribe { pkid: 1, filters }, None)]);
        link.notify()?;
        let counters = Arc::clone(door.counters());
        Ok(Self { link, rx, unsent: Vec::new(), next_request: None, next_report: None, counters })
    }

    fn take(&mut self, notification: Notification) -> Result<Option<LinkEvent>, LinkError> {
        match notification {
            Notification::Forward(Forward { publish, cursor, .. }) => {
                self.count_lost(&publish.topic, cursor);
                let Publish { topic, payload, retain, .. } = publish;
                Ok(Some(LinkEvent::Message(Incoming { topic, payload, retained: retain })))
            }
            Notification::Unschedule => {
                // The router has parked this link. All that came before has been taken, so that it may go on.
                Counters::count(&self.counters.links_unparked);
                self.rx.ready().map_err(|_| FrontError::RouterGone)?;
                Ok(None)
            }
            Notification::Disconnect(..) => Err(FrontError::RouterGone.into()),
            other => {
                let subscribed = matches!(Option::<Packet>::from(other), Some(Packet::SubAck(..)));
                Ok(subscribed.then_some(LinkEvent::Up))
            }
        }
    }

    /// The numbers of a log have no gaps: where one is left out, the log has rolled over this reader.
    fn count_lost(&mut self, topic: &[u8], cursor: Option<(u64, u64)>) {
        let Some((_, number)) = cursor else { return };
        let next = if topic::is_of_requests(topic) { &mut self.next_request } else { &mut self.next_report };
        let lost = next.map_or(0, |next| number.saturating_sub(next));
        *next = Some(number + 1);
        if lost > 0 {
            Counters::add(&self.counters.messages_lost, lost);
            tracing::warn!(lost, "messages of devices lost: the service is behind");
        }
    }

    fn hand_over(&mut self) -> Result<(), LinkError> {
        self.link.queue(self.unsent.drain(..));
        Ok(self.link.notify()?)
    }
}

impl BrokerLink for EmbeddedLink {
    async fn next(&mut self) -> Result<LinkEvent, LinkError> {
        loop {
            // `None` says only that others have emptied the queue in between.
            let notification = self.rx.next().await.map_err(|_| FrontError::RouterGone)?;
            if let Some(notification) = notification
                && let Some(event) = self.take(notification)?
            {
                return Ok(event);
            }
        }
    }

    fn publish(&mut self, message: Outgoing) -> Result<(), LinkError> {
        if self.unsent.len() >= QUEUE_MAX {
            return Err(LinkError::QueueFull { limit: QUEUE_MAX });
        }
        check_topic(&message.topic)?;
        let publish = Publish::new::<Bytes>(message.topic, message.payload, message.retain);
        self.unsent.push(Packet::Publish(publish, None));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        if !self.unsent.is_empty() {
            self.hand_over()?;
        }
        while self.link.queued() > QUEUE_MAX {
            // The router takes all at once when it comes to this link; until then there is enough for it to do.
            tokio::time::sleep(BEHIND_PAUSE).await;
            self.link.notify()?;
        }
        Ok(())
    }

    fn attachment(&self) -> Attachment {
        Attachment::Embedded
    }

    fn counted(&self) -> BTreeMap<String, u64> {
        numbers(&*self.counters)
    }
}

fn at_most_once(path: String) -> Filter {
    Filter {
        path,
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::OnEverySubscribe,
    }
}

/// Time between two looks at a router that is behind.
const BEHIND_PAUSE: Duration = Duration::from_millis(1);

//! What is said on one connection after CONNACK: which packets of the client reach the router, and which
//! notifications of the router reach the client. No I/O; [`session`](super::session) moves the bytes.
//!
//! The router drops a link for many reasons, and to be dropped is what a link must never be
//! ([`link`](super::link)). So nothing goes to the router but what it is known to bear: a PUBLISH to one of the
//! device's own topics without properties, a SUBSCRIBE for filters that are exact, allowed and new, an
//! UNSUBSCRIBE for filters it has, and acknowledgements in order. Everything else is answered here.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    Filter, Packet, PingResp, PubAck, PubAckReason, Publish, QoS, RetainForwardRule, SubAck, Subscribe,
    SubscribeReasonCode, UnsubAck, UnsubAckReason, Unsubscribe,
};
use rumqttd::{Forward, Notification};
use whimbrel_protocol::ids::DeviceId;

use super::Shared;
use super::access::Reading;
use super::acks::Acks;
use super::codec::{Codec, Frame, Kind};
use super::counters::Counters;
use super::end::End;
use super::output::{Added, Output};

/// The state of one connection's protocol.
pub(crate) struct Conversation {
    shared: Arc<Shared>,
    device: DeviceId,
    codec: Codec,
    terms: Terms,
    acks: Acks,
    subscriptions: Vec<Subscription>,
    /// SUBACKs that wait for the router to know their filters, in order.
    subacks: VecDeque<SubAck>,
}

/// What the client said in CONNECT about what it can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Largest packet, in bytes.
    pub(crate) packet_bytes_max: usize,
    /// Highest QoS granted to its subscriptions: 0 where it can't take the router's 100 messages in flight.
    pub(crate) qos_max: QoS,
}

/// A filter that the router knows for this connection.
#[derive(Debug)]
struct Subscription {
    /// Exact: also the topic of each message it brings.
    filter: Box<str>,
    qos: QoS,
    /// Number of the next message in the router's log; `None` before the first.
    next: Option<u64>,
}

/// What [`Conversation::deliver`] has done with a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Answered or passed on.
    Done,
    /// The router has parked the link, and must be woken when everything is written.
    Parked,
}

impl Conversation {
    pub(crate) fn new(shared: Arc<Shared>, device: DeviceId, codec: Codec, terms: Terms) -> Self {
        Self {
            shared,
            device,
            codec,
            terms,
            acks: Acks::default(),
            subscriptions: Vec::new(),
            subacks: VecDeque::new(),
        }
    }

    /// Takes the whole packets out of what the client has sent; adds what the router has to see to `to_router`
    /// and the answers to `to_client`, also when it ends with an error.
    pub(crate) fn receive(
        &mut self,
        input: &mut BytesMut,
        to_router: &mut Vec<Packet>,
        to_client: &mut Output,
    ) -> Result<(), End> {
        while let Some(frame) = Frame::take(input, self.shared.config.packet_bytes_max)? {
            Counters::count(&self.shared.counters.packets_in);
            match frame.kind() {
                Kind::Publish => to_router.push(self.publish(frame)?),
                Kind::PubAck => self.puback(frame, to_router)?,
                Kind::Subscribe => self.subscribe(frame, to_router, to_client)?,
                Kind::Unsubscribe => self.unsubscribe(frame, to_router, to_client)?,
                Kind::PingReq => self.codec.write(Packet::PingResp(PingResp), to_client.packets())?,
                Kind::Disconnect => {
                    let with_will = self.codec.is_v5() && frame.disconnect_reason() != 0;
                    return Err(End::Disconnected { with_will });
                }
                Kind::Connect | Kind::Other => return Err(End::Malformed),
            }
        }
        Ok(())
    }

    /// Turns a notification of the router into bytes for the client.
    pub(crate) fn deliver(
        &mut self,
        notification: Notification,
        to_router: &mut Vec<Packet>,
        to_client: &mut Output,
    ) -> Result<Delivered, End> {
        match notification {
            Notification::Unschedule => return Ok(Delivered::Parked),
            Notification::Forward(forward) => self.forward(forward, to_router, to_client)?,
            Notification::Disconnect(..) => return Err(End::RouterGone),
            other => match Option::<Packet>::from(other) {
                Some(Packet::SubAck(..)) => {
                    let ack = self.subacks.pop_front().ok_or(End::RouterGone)?;
                    self.codec.write(Packet::SubAck(ack, None), to_client.packets())?;
                }
                Some(Packet::PubAck(ack, _)) => {
                    self.codec.write(Packet::PubAck(ack, None), to_client.packets())?
                }
                _ => {} // UNSUBACKs were answered when they were asked for.
            },
        }
        Ok(Delivered::Done)
    }

    /// The codec, for what is said outside the conversation.
    pub(crate) fn codec(&self) -> &Codec {
        &self.codec
    }

    fn publish(&mut self, frame: Frame) -> Result<Packet, End> {
        match frame.qos() {
            0 | 1 => {}
            2 => return Err(End::PublishQos2),
            _ => return Err(End::Malformed),
        }
        if frame.retain() {
            return Err(End::PublishRetain);
        }
        let Packet::Publish(mut publish, properties) = self.codec.read(frame)? else {
            return Err(End::Malformed);
        };
        if properties.is_some_and(|properties| properties.topic_alias.is_some()) {
            return Err(End::PublishAlias);
        }
        if !self.shared.rules.may_publish(&self.device, &publish.topic) {
            return Err(End::PublishTopic);
        }
        // The properties are left out: the router keeps them but does not count them to the size of its log.
        own_memory(&mut publish);
        Ok(Packet::Publish(publish, None))
    }

    fn puback(&mut self, frame: Frame, to_router: &mut Vec<Packet>) -> Result<(), End> {
        let Packet::PubAck(ack, _) = self.codec.read(frame)? else { return Err(End::Malformed) };
        if self.acks.acknowledged(ack.pkid) {
            self.pass_acks(to_router);
        } else {
            self.count(|counters| &counters.stranger_acks);
        }
        Ok(())
    }

    fn pass_acks(&mut self, to_router: &mut Vec<Packet>) {
        while let Some(pkid) = self.acks.next_in_order() {
            to_router.push(Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None));
        }
    }

    fn subscribe(
        &mut self,
        frame: Frame,
        to_router: &mut Vec<Packet>,
        to_client: &mut Output,
    ) -> Result<(), End> {
        let Packet::Subscribe(Subscribe { pkid, filters }, properties) = self.codec.read(frame)? else {
            return Err(End::Malformed);
        };
        // Subscription identifiers are not available, as CONNACK says.
        if pkid == 0 || filters.len() > FILTERS_MAX || properties.is_some_and(|it| it.id.is_some()) {
            return Err(End::Malformed);
        }
        let mut new = Vec::new();
        let return_codes = filters.into_iter().map(|filter| self.grant(filter, &mut new)).collect();
        let ack = SubAck { pkid, return_codes };
        if new.is_empty() {
            return Ok(self.codec.write(Packet::SubAck(ack, None), to_client.packets())?);
        }
        if self.subacks.len() >= SUBACKS_MAX {
            return Err(End::Malformed);
        }
        self.subacks.push_back(ack);
        to_router.push(Packet::Subscribe(Subscribe { pkid, filters: new }, None));
        Ok(())
    }

    /// Decides about one filter; adds it to `new` where the router has to learn it. A filter that is subscribed
    /// already keeps its QoS: the router can't change it.
    fn grant(&mut self, wanted: Filter, new: &mut Vec<Filter>) -> SubscribeReasonCode {
        if let Some(known) = self.subscriptions.iter().find(|known| *known.filter == *wanted.path) {
            return SubscribeReasonCode::Success(known.qos);
        }
        if self.subscriptions.len() >= FILTERS_MAX || !self.may_read(&wanted.path) {
            self.count(|counters| &counters.subscribe_refused);
            return SubscribeReasonCode::Failure;
        }
        let qos = if wanted.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { self.terms.qos_max };
        self.subscriptions.push(Subscription { filter: wanted.path.as_str().into(), qos, next: None });
        new.push(Filter {
            path: wanted.path,
            qos,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        });
        SubscribeReasonCode::Success(qos)
    }

    fn may_read(&self, filter: &str) -> bool {
        match self.shared.rules.reading(&self.device, filter) {
            Reading::Allowed => true,
            Reading::Refused => false,
            Reading::Group(group) => {
                if !self.shared.access.in_group(&self.device, &group) {
                    return false;
                }
                let admitted = self.shared.seats.admit_group(&group);
                if !admitted {
                    self.count(|counters| &counters.subscribe_refused_groups_max);
                }
                admitted
            }
        }
    }

    fn unsubscribe(
        &mut self,
        frame: Frame,
        to_router: &mut Vec<Packet>,
        to_client: &mut Output,
    ) -> Result<(), End> {
        let Packet::Unsubscribe(Unsubscribe { pkid, mut filters }, _) = self.codec.read(frame)? else {
            return Err(End::Malformed);
        };
        if pkid == 0 || filters.is_empty() || filters.len() > FILTERS_MAX {
            return Err(End::Malformed);
        }
        let mut reasons = Vec::with_capacity(filters.len());
        filters.retain(|filter| {
            let known = self.subscriptions.iter().position(|known| *known.filter == **filter);
            reasons.push(match known {
                Some(_) => UnsubAckReason::Success,
                None => UnsubAckReason::NoSubscriptionExisted,
            });
            known.map(|position| self.subscriptions.swap_remove(position)).is_some()
        });
        // The router answers once for each filter that it knows and never for others.
        self.codec.write(Packet::UnsubAck(UnsubAck { pkid, reasons }, None), to_client.packets())?;
        if !filters.is_empty() {
            to_router.push(Packet::Unsubscribe(Unsubscribe { pkid, filters }, None));
        }
        Ok(())
    }

    fn forward(
        &mut self,
        forward: Forward,
        to_router: &mut Vec<Packet>,
        to_client: &mut Output,
    ) -> Result<(), End> {
        let Forward { cursor, publish, .. } = forward;
        self.count_lost(&publish.topic, cursor);
        let Added { pkid, fits } = to_client.publish(&self.codec, publish, self.terms.packet_bytes_max)?;
        if let Some(pkid) = pkid {
            self.acks.sent(pkid);
        }
        if fits {
            self.count(|counters| &counters.messages_out);
            return Ok(());
        }
        // MQTT 5 section 3.1.2.11.4: act as if it had been sent.
        self.count(|counters| &counters.messages_too_large_for_client);
        if let Some(pkid) = pkid {
            self.acks.acknowledged(pkid);
            self.pass_acks(to_router);
        }
        Ok(())
    }

    /// The numbers of a log have no gaps: where one is left out, the log has rolled over the reader.
    fn count_lost(&mut self, topic: &[u8], cursor: Option<(u64, u64)>) {
        let Some((_, number)) = cursor else { return }; // A retained message has none.
        let known = self.subscriptions.iter_mut().find(|known| known.filter.as_bytes() == topic);
        let Some(subscription) = known else { return };
        let lost = subscription.next.map_or(0, |next| number.saturating_sub(next));
        subscription.next = Some(number + 1);
        Counters::add(&self.shared.counters.messages_lost, lost);
    }

    fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        Counters::count(counter(&self.shared.counters));
    }
}

/// Copies topic and payload out of the connection's read buffer, which the router's log would pin otherwise.
pub(crate) fn own_memory(publish: &mut Publish) {
    let topic_len = publish.topic.len();
    let mut both = Vec::with_capacity(topic_len + publish.payload.len());
    both.extend_from_slice(&publish.topic);
    both.extend_from_slice(&publish.payload);
    let mut topic = Bytes::from(both);
    publish.payload = topic.split_off(topic_len);
    publish.topic = topic;
}

/// Most filters in one packet, and most that a connection may have.
const FILTERS_MAX: usize = 64;
/// Most SUBSCRIBEs of a connection that the router may be behind with.
const SUBACKS_MAX: usize = 64;

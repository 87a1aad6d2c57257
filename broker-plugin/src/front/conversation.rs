//! What is said on one connection after CONNACK: where the packets of the client go, and what reaches the client. No
//! I/O; [`connection`](super::connection) moves the bytes.
//!
//! The service's own topics go through the [`exchange`](super::exchange). Topics of the application go through a
//! link on the router, and the router drops a link for many reasons, which is what must never happen to a link
//! ([`link`](super::link)). So nothing goes to the router but what it is known to bear: a PUBLISH of QoS 0 to one of
//! the device's application topics without properties, a SUBSCRIBE of QoS 0 for filters that are exact, allowed and
//! new, and an UNSUBSCRIBE for filters it has. Acknowledgements are the door's own in both directions.

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
use super::access::{Publishing, Reading};
use super::acks::InFlight;
use super::codec::{Codec, Frame, Kind};
use super::counters::Counters;
use super::end::End;
use super::exchange::Client;
use super::inbox::FromDevice;
use super::outbox::Message;
use super::output::Output;

/// The state of one connection's protocol.
pub(crate) struct Conversation {
    shared: Arc<Shared>,
    device: DeviceId,
    codec: Codec,
    terms: Terms,
    client: Client,
    in_flight: InFlight,
    /// Filters of the application that the router knows.
    subscriptions: Vec<Subscription>,
    /// SUBACKs that wait for the router to know their filters, in order.
    subacks: VecDeque<SubAck>,
}

/// What the client said in CONNECT about what it can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Largest packet, in bytes.
    pub(crate) packet_bytes_max: usize,
    /// Highest QoS granted to its subscriptions: 0 where it can't take the door's 100 messages in flight.
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

/// What is to be done for a packet of the client.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: it was answered.
    Answered,
    /// Hand this to the service, then [`Conversation::acknowledge`].
    Service(FromDevice, Option<u16>),
    /// Hand this to the router, then [`Conversation::acknowledge`].
    Router(Box<Packet>, Option<u16>),
}

/// What [`Conversation::notice`] has made of a notification of the router.
#[derive(Debug)]
pub(crate) enum Noticed {
    /// Answered, or nothing for the client.
    Done,
    /// A message to deliver.
    Message(Message),
    /// The router has parked the link, and must be woken when everything is written.
    Parked,
}

impl Conversation {
    pub(crate) fn new(
        shared: Arc<Shared>,
        device: DeviceId,
        codec: Codec,
        terms: Terms,
        client: Client,
    ) -> Self {
        Self {
            shared,
            device,
            codec,
            terms,
            client,
            in_flight: InFlight::default(),
            subscriptions: Vec::new(),
            subacks: VecDeque::new(),
        }
    }

    /// Takes one whole packet out of what the client has sent; `None` where there is none.
    pub(crate) fn take(&mut self, input: &mut BytesMut, to_client: &mut Output) -> Result<Option<Step>, End> {
        let Some(frame) = Frame::take(input, self.shared.config.packet_bytes_max)? else { return Ok(None) };
        Counters::count(&self.shared.counters.packets_in);
        match frame.kind() {
            Kind::Publish => return self.publish(frame).map(Some),
            Kind::PubAck => self.puback(frame)?,
            Kind::Subscribe => return self.subscribe(frame, to_client).map(Some),
            Kind::Unsubscribe => return self.unsubscribe(frame, to_client).map(Some),
            Kind::PingReq => self.codec.write(Packet::PingResp(PingResp), to_client.packets())?,
            Kind::Disconnect => {
                let with_will = self.codec.is_v5() && frame.disconnect_reason() != 0;
                return Err(End::Disconnected { with_will });
            }
            Kind::Connect | Kind::Other => return Err(End::Malformed),
        }
        Ok(Some(Step::Answered))
    }

    /// A message of the client has reached its place.
    pub(crate) fn acknowledge(&self, pkid: Option<u16>, to_client: &mut Output) -> Result<(), End> {
        let Some(pkid) = pkid else { return Ok(()) };
        let ack = PubAck { pkid, reason: PubAckReason::Success };
        Ok(self.codec.write(Packet::PubAck(ack, None), to_client.packets())?)
    }

    /// The next message that waits for the client and may be sent now.
    pub(crate) fn next_message(&self) -> Option<Message> {
        self.client.outbox().pop(self.has_room())
    }

    /// Whether another message may be sent that has to be acknowledged.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.has_room()
    }

    /// The connection's place in the exchange.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Adds a message to what is written to the client.
    pub(crate) fn deliver(&mut self, message: Message, to_client: &mut Output) -> Result<(), End> {
        let pkid = (message.qos != QoS::AtMostOnce).then(|| self.in_flight.send());
        if to_client.publish(&self.codec, message, pkid, self.terms.packet_bytes_max)? {
            self.count(|counters| &counters.messages_out);
            return Ok(());
        }
        // MQTT 5 section 3.1.2.11.4: act as if it had been sent.
        self.count(|counters| &counters.messages_too_large_for_client);
        if let Some(pkid) = pkid {
            self.in_flight.acknowledged(pkid);
        }
        Ok(())
    }

    /// Takes a notification of the router.
    pub(crate) fn notice(
        &mut self,
        notification: Notification,
        to_client: &mut Output,
    ) -> Result<Noticed, End> {
        match notification {
            Notification::Unschedule => return Ok(Noticed::Parked),
            Notification::Forward(forward) => return Ok(self.forwarded(forward)),
            Notification::Disconnect(..) => return Err(End::RouterGone),
            other => {
                // UNSUBACKs were answered when they were asked for.
                if let Some(Packet::SubAck(..)) = Option::<Packet>::from(other) {
                    let ack = self.subacks.pop_front().ok_or(End::RouterGone)?;
                    self.codec.write(Packet::SubAck(ack, None), to_client.packets())?;
                }
            }
        }
        Ok(Noticed::Done)
    }

    /// Ends the conversation and gives the connection's place in the exchange back.
    pub(crate) fn into_codec(self) -> Codec {
        self.codec
    }

    fn publish(&mut self, frame: Frame) -> Result<Step, End> {
        let qos = frame.qos();
        match qos {
            0 | 1 => {}
            2 => return Err(End::PublishQos2),
            _ => return Err(End::Malformed),
        }
        if frame.retain() {
            return Err(End::PublishRetain);
        }
        let pkid = (qos == 1).then(|| frame.publish_pkid()).flatten();
        let Packet::Publish(publish, properties) = self.codec.read(frame)? else {
            return Err(End::Malformed);
        };
        if properties.is_some_and(|properties| properties.topic_alias.is_some()) {
            return Err(End::PublishAlias);
        }
        let publishing = self.shared.rules.publishing(&self.device, &publish.topic);
        let (topic, payload) = own_memory(&publish);
        match publishing {
            Publishing::Ours => Ok(Step::Service(FromDevice { topic, payload }, pkid)),
            // Of QoS 0, and without properties: the router keeps them but does not count them to the size of its log.
            Publishing::Application => {
                let publish = Publish::new(topic, payload, false);
                Ok(Step::Router(Box::new(Packet::Publish(publish, None)), pkid))
            }
            Publishing::Refused => Err(End::PublishTopic),
        }
    }

    fn puback(&mut self, frame: Frame) -> Result<(), End> {
        let Packet::PubAck(ack, _) = self.codec.read(frame)? else { return Err(End::Malformed) };
        if !self.in_flight.acknowledged(ack.pkid) {
            self.count(|counters| &counters.stranger_acks);
        }
        Ok(())
    }

    fn subscribe(&mut self, frame: Frame, to_client: &mut Output) -> Result<Step, End> {
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
            self.codec.write(Packet::SubAck(ack, None), to_client.packets())?;
            return Ok(Step::Answered);
        }
        if self.subacks.len() >= SUBACKS_MAX {
            return Err(End::Malformed);
        }
        self.subacks.push_back(ack);
        let subscribe = Subscribe { pkid, filters: new };
        Ok(Step::Router(Box::new(Packet::Subscribe(subscribe, None)), None))
    }

    /// Decides about one filter; adds it to `new` where the router has to learn it. A filter that is subscribed
    /// already keeps its QoS.
    fn grant(&mut self, wanted: Filter, new: &mut Vec<Filter>) -> SubscribeReasonCode {
        let qos = if wanted.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { self.terms.qos_max };
        match self.granted(wanted.path, qos, new) {
            Some(qos) => SubscribeReasonCode::Success(qos),
            None => {
                self.count(|counters| &counters.subscribe_refused);
                SubscribeReasonCode::Failure
            }
        }
    }

    fn granted(&mut self, path: String, qos: QoS, new: &mut Vec<Filter>) -> Option<QoS> {
        let full = self.subscriptions.len() + self.client.outbox().subscriptions() >= FILTERS_MAX;
        match self.shared.rules.reading(&self.device, &path) {
            Reading::Refused => None,
            Reading::Ours(channel) if full => self.client.outbox().granted(&channel),
            Reading::Ours(channel) => self.client.subscribe(&channel, &path, qos),
            Reading::Application => {
                let known = self.subscriptions.iter().find(|known| *known.filter == *path);
                if full || known.is_some() {
                    return known.map(|known| known.qos);
                }
                self.subscriptions.push(Subscription { filter: path.as_str().into(), qos, next: None });
                new.push(Filter {
                    path,
                    qos: QoS::AtMostOnce,
                    nolocal: false,
                    preserve_retain: false,
                    retain_forward_rule: RetainForwardRule::OnEverySubscribe,
                });
                Some(qos)
            }
        }
    }

    fn unsubscribe(&mut self, frame: Frame, to_client: &mut Output) -> Result<Step, End> {
        let Packet::Unsubscribe(Unsubscribe { pkid, mut filters }, _) = self.codec.read(frame)? else {
            return Err(End::Malformed);
        };
        if pkid == 0 || filters.is_empty() || filters.len() > FILTERS_MAX {
            return Err(End::Malformed);
        }
        let mut reasons = Vec::with_capacity(filters.len());
        filters.retain(|filter| {
            let known = self.subscriptions.iter().position(|known| *known.filter == **filter);
            let of_router = known.map(|position| self.subscriptions.swap_remove(position)).is_some();
            let had = of_router
                || match self.shared.rules.reading(&self.device, filter) {
                    Reading::Ours(channel) => self.client.unsubscribe(&channel),
                    Reading::Application | Reading::Refused => false,
                };
            reasons.push(if had { UnsubAckReason::Success } else { UnsubAckReason::NoSubscriptionExisted });
            of_router
        });
        // The router answers once for each filter that it knows and never for others.
        self.codec.write(Packet::UnsubAck(UnsubAck { pkid, reasons }, None), to_client.packets())?;
        if filters.is_empty() {
            return Ok(Step::Answered);
        }
        let unsubscribe = Unsubscribe { pkid, filters };
        Ok(Step::Router(Box::new(Packet::Unsubscribe(unsubscribe, None)), None))
    }

    /// A message of the application. The numbers of a log have no gaps: where one is left out, the log has rolled over
    /// the reader.
    fn forwarded(&mut self, forward: Forward) -> Noticed {
        let Forward { cursor, publish, .. } = forward;
        let known = self.subscriptions.iter_mut().find(|known| known.filter.as_bytes() == publish.topic);
        let Some(subscription) = known else { return Noticed::Done }; // It has just been given up.
        if let Some((_, number)) = cursor {
            // A retained message has no number.
            let lost = subscription.next.map_or(0, |next| number.saturating_sub(next));
            subscription.next = Some(number + 1);
            Counters::add(&self.shared.counters.messages_lost, lost);
        }
        let Publish { topic, payload, retain, .. } = publish;
        Noticed::Message(Message { topic, payload, qos: subscription.qos, retain })
    }

    fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        Counters::count(counter(&self.shared.counters));
    }
}

/// Topic and payload, copied out of the connection's read buffer, which whoever keeps them would pin otherwise.
pub(crate) fn own_memory(publish: &Publish) -> (Bytes, Bytes) {
    let topic_len = publish.topic.len();
    let mut both = Vec::with_capacity(topic_len + publish.payload.len());
    both.extend_from_slice(&publish.topic);
    both.extend_from_slice(&publish.payload);
    let mut topic = Bytes::from(both);
    let payload = topic.split_off(topic_len);
    (topic, payload)
}

/// Most filters in one packet, and most that a connection may have.
const FILTERS_MAX: usize = 64;
/// Most SUBSCRIBEs of a connection that the router may be behind with.
const SUBACKS_MAX: usize = 64;

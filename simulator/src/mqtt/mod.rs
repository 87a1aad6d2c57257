//! A thin MQTT 3.1.1 client over any byte stream.
//!
//! It exists because thousands of clients share this process: no task, no channel and no buffer that an idle client
//! would hold (rumqttc's own takes 26 KB each), and because every byte must be accounted for, also those of a message
//! that a cut left half. Packets are rumqttc's, read and written by its public codec. It reconnects nothing and repeats
//! nothing: sessions are clean, and what must survive a connection is the business of the session above.

mod cut;
mod outbox;

use core::future::poll_fn;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe, SubscribeFilter,
};
use rumqttc::mqttbytes::v4::{Login, SubscribeReasonCode};
use rumqttc::mqttbytes::{self, QoS};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::control::Control;
use crate::error::ClientError;
use crate::meter::{Class, Classify, Ledger};

use cut::cut_publish;
use outbox::{OUTBOX_BYTES_MAX, Outbox};

const CONNECTION: Class = Class::Control(Control::Connection);

/// How a client presents itself, and what it takes.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Client id, at most [`TEXT_BYTES_MAX`] bytes.
    pub client_id: String,
    /// User name and password, where the broker wants them.
    pub login: Option<(String, String)>,
    /// Longest silence that the broker should bear, in real seconds; 0 is without end, which some brokers refuse.
    pub keep_alive_s: u16,
    /// Largest packet that is taken from the broker, without its fixed header.
    pub packet_bytes_max: usize,
    /// Says what a message is for.
    pub classify: Classify,
}

/// How often a message arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0: at most once.
    AtMostOnce,
    /// QoS 1: at least once, acknowledged by the broker.
    AtLeastOnce,
}

/// What happened on the connection.
#[derive(Debug)]
pub enum Event {
    /// A message, acknowledged already where it had to be.
    Message {
        /// Where it was published.
        topic: String,
        /// What it says.
        payload: Bytes,
        /// Whether the broker had kept it.
        retained: bool,
    },
    /// A subscription was answered; false for each filter that the broker refused.
    Subscribed(Vec<bool>),
    /// The broker has a message that was published at least once; its number as [`Client::publish`] gave it.
    Acknowledged(u16),
    /// The broker answered a ping.
    Pong,
    /// Bytes arrived that do not complete a packet yet.
    Activity,
}

/// A connected client.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    /// The beginning of a packet; nothing while none is under way.
    inbox: BytesMut,
    outbox: Outbox,
    options: ClientOptions,
    last_id: u16,
    /// Messages that the broker has not acknowledged.
    unacknowledged: Vec<u16>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Logs in, and says whether the broker kept a session, which no broker should as none is asked for.
    ///
    /// # Errors
    /// [`ClientError`]: refused, not MQTT, a text too long, or the connection failed. Nothing is counted then, because
    /// the count begins with CONNACK.
    pub async fn login(
        stream: S,
        options: ClientOptions,
        ledger: &mut Ledger,
    ) -> Result<(Self, bool), ClientError> {
        let mut connect = Connect::new(within(&options.client_id, "client id")?);
        connect.keep_alive = options.keep_alive_s;
        if let Some((user, password)) = &options.login {
            let (username, password) = (within(user, "user name")?, within(password, "password")?);
            connect.login = Some(Login { username, password });
        }
        let mut client = Self {
            stream,
            inbox: BytesMut::new(),
            outbox: Outbox::default(),
            options,
            last_id: 0,
            unacknowledged: Vec::new(),
        };
        // What is written and read before CONNACK has an account of its own.
        let mut before = Ledger::default();
        client.send(&Packet::Connect(connect), CONNECTION)?;
        let answer = loop {
            match poll_fn(|cx| client.poll_incoming(cx, &mut before)).await? {
                Incoming::Part => {}
                Incoming::Whole(Packet::ConnAck(answer), _) => break answer,
                Incoming::Whole(..) => return Err(ClientError::Unexpected("not CONNACK after CONNECT")),
            }
        };
        if answer.code != ConnectReturnCode::Success {
            return Err(ClientError::Refused { code: answer.code as u8 });
        }
        ledger.connected(before.mqtt_bytes_up);
        ledger.read(before.mqtt_bytes_down);
        ledger.received(CONNACK_BYTES, CONNECTION);
        Ok((client, answer.session_present))
    }

    /// Queues a message, and gives its number where it will be acknowledged. [`Client::next`] sends it.
    ///
    /// # Errors
    /// [`ClientError::TooLong`] where the topic is too long, [`ClientError::Full`] where the link has not taken what was
    /// published before or too much waits to be acknowledged; nothing is queued then.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: Bytes,
        delivery: Delivery,
    ) -> Result<Option<u16>, ClientError> {
        let class = (self.options.classify)(topic, &payload);
        let mut publish = Publish::from_bytes(within(topic, "topic")?, delivery.qos(), payload);
        let id = match delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce if self.unacknowledged.len() >= UNACKNOWLEDGED_MAX => {
                let queued = self.unacknowledged.len();
                return Err(ClientError::Full {
                    what: "acknowledgements",
                    queued,
                    limit: UNACKNOWLEDGED_MAX,
                });
            }
            Delivery::AtLeastOnce => Some(self.next_id()),
        };
        publish.pkid = id.unwrap_or(0);
        self.send(&Packet::Publish(publish), class)?;
        self.unacknowledged.extend(id);
        Ok(id)
    }

    /// Queues a subscription to exact topics, answered by [`Event::Subscribed`] in their order.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub fn subscribe(&mut self, topics: &[(String, Delivery)]) -> Result<(), ClientError> {
        let filters = topics
            .iter()
            .map(|(topic, delivery)| {
                Ok(SubscribeFilter { path: within(topic, "topic")?, qos: delivery.qos() })
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        let pkid = self.next_id();
        self.send(&Packet::Subscribe(Subscribe { pkid, filters }), Class::Control(Control::Subscription))
    }

    /// Queues a ping.
    ///
    /// # Errors
    /// [`ClientError::Full`].
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.send(&Packet::PingReq, Class::Control(Control::Ping))
    }

    /// Whether a message of usual length can be published now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_BYTES_MAX / 2 && self.unacknowledged.len() < UNACKNOWLEDGED_MAX
    }

    /// Bytes that the link has not taken yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Messages that the broker has not acknowledged yet.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// The stream below.
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// Sends what is queued and waits for what happens next. May be dropped and called again; nothing is lost.
    ///
    /// # Errors
    /// [`ClientError`]: the connection is over, and [`Client::finish`] settles the account.
    pub async fn next(&mut self, ledger: &mut Ledger) -> Result<Event, ClientError> {
        poll_fn(|cx| self.poll_next(cx, ledger)).await
    }

    /// [`Client::next`] for callers that poll several things with one task.
    ///
    /// # Errors
    /// As [`Client::next`].
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        ledger: &mut Ledger,
    ) -> Poll<Result<Event, ClientError>> {
        loop {
            match ready!(self.poll_incoming(cx, ledger))? {
                Incoming::Part => return Poll::Ready(Ok(Event::Activity)),
                Incoming::Whole(packet, bytes) => {
                    if let Some(event) = self.settle(packet, bytes, ledger)? {
                        return Poll::Ready(Ok(event));
                    }
                }
            }
        }
    }

    /// Says good-bye, waits until all is sent and the broker has closed. Its last messages are counted, not handed out.
    ///
    /// [`Client::finish`] settles the account, whether or not this was waited for to its end.
    ///
    /// # Errors
    /// [`ClientError`], as far as it got.
    pub async fn close(&mut self, ledger: &mut Ledger) -> Result<(), ClientError> {
        self.send(&Packet::Disconnect, CONNECTION)?;
        let mut stopped = false;
        poll_fn(|cx| {
            while !self.outbox.is_empty() {
                ready!(self.outbox.poll_write(&mut self.stream, cx, ledger))?;
            }
            if !stopped {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                stopped = true;
            }
            loop {
                match ready!(self.poll_incoming(cx, ledger)) {
                    Ok(Incoming::Part) => {}
                    Ok(Incoming::Whole(packet, bytes)) => self.count(&packet, bytes, ledger),
                    Err(ClientError::Closed) => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }

    /// Ends the connection, and counts what had arrived of a message that is cut short by that.
    pub fn finish(self, ledger: &mut Ledger) -> S {
        let bytes = self.inbox.len() as u64;
        let (payload_bytes, class) = match cut_publish(&self.inbox) {
            Some((topic, payload)) if !payload.is_empty() => {
                (payload.len() as u64, (self.options.classify)(topic, payload))
            }
            _ => (0, Class::Control(Control::Other)),
        };
        ledger.received_cut_short(bytes, payload_bytes, class);
        self.stream
    }

    /// Sends what is queued, and takes in what comes.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
        ledger: &mut Ledger,
    ) -> Poll<Result<Incoming, ClientError>> {
        let mut read_some = false;
        loop {
            let before = self.inbox.len();
            match Packet::read(&mut self.inbox, self.options.packet_bytes_max) {
                Ok(packet) => {
                    let bytes = before.saturating_sub(self.inbox.len()) as u64;
                    return Poll::Ready(Ok(Incoming::Whole(packet, bytes)));
                }
                // Room for the rest of a packet whose length is known; its header comes in with whatever is read.
                Err(mqttbytes::Error::InsufficientBytes(missing)) if missing > HEADER_BYTES_MAX => {
                    self.inbox.reserve(missing);
                }
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => {
                    // The codec takes a packet that it cannot read out of the inbox all the same.
                    let bytes = before.saturating_sub(self.inbox.len()) as u64;
                    ledger.received_cut_short(bytes, 0, Class::Control(Control::Other));
                    return Poll::Ready(Err(ClientError::Packet(error)));
                }
            }
            if read_some {
                return Poll::Ready(Ok(Incoming::Part));
            }
            if !self.outbox.is_empty() {
                // Whether or not all of it went, the stream has the task's waker for the rest.
                if let Poll::Ready(outcome) = self.outbox.poll_write(&mut self.stream, cx, ledger) {
                    outcome?;
                    if !self.outbox.is_empty() {
                        continue;
                    }
                }
            }
            if self.inbox.is_empty() {
                // An idle device keeps no buffer.
                self.inbox = BytesMut::new();
            }
            let read = ready!(self.poll_fill(cx))?;
            if read == 0 {
                return Poll::Ready(Err(ClientError::Closed));
            }
            ledger.read(read);
            read_some = true;
        }
    }

    /// Reads what is there into the inbox, by way of the stack: a waiting device holds no memory to read into.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, ClientError>> {
        let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH_BYTES];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
        self.inbox.extend_from_slice(scratch.filled());
        Poll::Ready(Ok(scratch.filled().len() as u64))
    }

    /// Counts a packet, answers it if it wants an answer, and says what it means.
    fn settle(
        &mut self,
        packet: Packet,
        bytes: u64,
        ledger: &mut Ledger,
    ) -> Result<Option<Event>, ClientError> {
        self.count(&packet, bytes, ledger);
        match packet {
            Packet::Publish(message) => {
                match message.qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => self.send(
                        &Packet::PubAck(PubAck::new(message.pkid)),
                        Class::Control(Control::Acknowledgement),
                    )?,
                    QoS::ExactlyOnce => return Err(ClientError::Unexpected("a message of QoS 2")),
                }
                let Publish { topic, payload, retain: retained, .. } = message;
                Ok(Some(Event::Message { topic, payload, retained }))
            }
            Packet::PubAck(ack) => {
                // An acknowledgement of what was not sent means nothing.
                let place = self.unacknowledged.iter().position(|id| *id == ack.pkid);
                Ok(place.map(|place| Event::Acknowledged(self.unacknowledged.swap_remove(place))))
            }
            Packet::SubAck(ack) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                Ok(Some(Event::Subscribed(ack.return_codes.iter().map(granted).collect())))
            }
            Packet::PingResp => Ok(Some(Event::Pong)),
            Packet::UnsubAck(_) => Ok(None),
            Packet::ConnAck(_) => Err(ClientError::Unexpected("a second CONNACK")),
            _ => Err(ClientError::Unexpected("one that only clients send")),
        }
    }

    fn count(&self, packet: &Packet, bytes: u64, ledger: &mut Ledger) {
        let class = match packet {
            Packet::Publish(message) => (self.options.classify)(&message.topic, &message.payload),
            Packet::ConnAck(_) => CONNECTION,
            Packet::SubAck(_) => Class::Control(Control::Subscription),
            Packet::PubAck(_) => Class::Control(Control::Acknowledgement),
            Packet::PingResp => Class::Control(Control::Ping),
            _ => Class::Control(Control::Other),
        };
        ledger.received(bytes, class);
    }

    fn send(&mut self, packet: &Packet, class: Class) -> Result<(), ClientError> {
        self.outbox.push(packet, class)
    }

    /// The next packet number, from 1 on, that no unacknowledged message has.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.unacknowledged.contains(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

/// What came in.
enum Incoming {
    /// A packet, and its length on the wire.
    Whole(Packet, u64),
    /// Bytes that do not complete one.
    Part,
}

impl Delivery {
    const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce => QoS::AtLeastOnce,
        }
    }
}

/// A text that MQTT can frame and that no reasonable broker refuses.
fn within(text: &str, what: &'static str) -> Result<String, ClientError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ClientError::TooLong { what, got: text.len(), limit: TEXT_BYTES_MAX });
    }
    Ok(text.to_owned())
}

/// Most bytes of a topic, a client id, a user name or a password.
pub const TEXT_BYTES_MAX: usize = 256;
/// Most messages that wait to be acknowledged.
pub const UNACKNOWLEDGED_MAX: usize = 16;
/// Most that is read in one go.
const SCRATCH_BYTES: usize = 16 * 1024;
/// Longest fixed header: type and a length of four bytes.
const HEADER_BYTES_MAX: usize = 5;
const CONNACK_BYTES: u64 = 4;

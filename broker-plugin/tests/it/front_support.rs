//! An open door with a service behind it, and a client that says exactly what a test wants it to say.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rumqttd::local::LinkRx;
use rumqttd::protocol::{PingReq, Publish};
use whimbrel_protocol::ids::{DeviceId, GroupName};
use whimbrel_service::attach::{
    BrokerLink, Delivery, EmbeddedLink, Incoming, LinkError, LinkEvent, Outgoing,
};
use whimbrel_service::front::{Access, Counters, FrontConfig, FrontDoor, Link, Login, Refusal};

pub(crate) use crate::front_packets::{connect, packet, publish, subscribe, unsubscribe};

/// A guard against waiting for ever; nothing is expected to take this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// When patience ends that begins now.
#[allow(clippy::disallowed_methods, reason = "tests wait in real time")]
pub(crate) fn deadline() -> std::time::Instant {
    std::time::Instant::now() + PATIENCE
}

/// Whether patience has ended.
#[allow(clippy::disallowed_methods, reason = "tests wait in real time")]
pub(crate) fn is_over(deadline: std::time::Instant) -> bool {
    std::time::Instant::now() >= deadline
}

/// Rules for tests: everyone is in group `all`, `banned` may not connect, `locked` needs a password, and
/// `later` is told to come back. The operator knows all devices but `stranger...`.
pub(crate) struct TestAccess;

impl Access for TestAccess {
    fn login(&self, login: &Login<'_>) -> Result<(), Refusal> {
        match login.device.as_str() {
            "banned" => Err(Refusal::NotAuthorized),
            "later" => Err(Refusal::Busy),
            "locked" if login.password != Some("key") => Err(Refusal::BadPassword),
            _ => Ok(()),
        }
    }

    fn is_known(&self, device: &DeviceId) -> bool {
        !device.as_str().starts_with("stranger")
    }

    fn in_group(&self, _device: &DeviceId, group: &GroupName) -> bool {
        group.as_str() == "all" || group.as_str().starts_with("many")
    }
}

/// A door on a free port and a service that answers each request `x` on the device's answer topic with `re:x`.
pub(crate) struct House {
    pub(crate) door: FrontDoor,
    service: Option<JoinHandle<()>>,
    orders: tokio::sync::mpsc::UnboundedSender<Outgoing>,
    heard: mpsc::Receiver<Incoming>,
    probes: std::cell::Cell<u32>,
    application: std::cell::RefCell<(Link, LinkRx)>,
}

impl House {
    pub(crate) fn open() -> Self {
        Self::open_with(|_| {})
    }

    pub(crate) fn open_with(adapt: impl FnOnce(&mut FrontConfig)) -> Self {
        let mut config = FrontConfig { listen: "127.0.0.1:0".parse().unwrap(), ..FrontConfig::default() };
        adapt(&mut config);
        let on_death = Box::new(|death| panic!("{death}"));
        let door = FrontDoor::open(config, Arc::new(TestAccess), on_death).unwrap();
        let link = EmbeddedLink::open(&door).unwrap();
        let (orders, to_do) = tokio::sync::mpsc::unbounded_channel();
        let (tell, heard) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let service = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(link, to_do, &tell, &ready));
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        let application = std::cell::RefCell::new(door.router().link(".application").unwrap());
        Self { door, service: Some(service), orders, heard, probes: std::cell::Cell::new(0), application }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.door.local_addr()
    }

    /// Publishes as the service, or as the application what is not the service's.
    pub(crate) fn publish(&self, topic: &str, payload: &[u8], retain: bool) {
        if !topic.starts_with("ota/") {
            let copy = Bytes::copy_from_slice;
            let publish = Publish::new(copy(topic.as_bytes()), copy(payload), retain);
            let link = &mut self.application.borrow_mut().0;
            link.queue([rumqttd::protocol::Packet::Publish(publish, None)]);
            return link.notify().unwrap();
        }
        self.orders
            .send(Outgoing {
                topic: Bytes::copy_from_slice(topic.as_bytes()),
                payload: Bytes::copy_from_slice(payload),
                delivery: Delivery::AtLeastOnce,
                retain,
            })
            .unwrap();
    }

    /// Waits until the router has all that was published before as the application.
    pub(crate) fn all_published_to_the_router(&self) {
        let (link, rx) = &mut *self.application.borrow_mut();
        link.queue([rumqttd::protocol::Packet::PingReq(PingReq)]);
        link.notify().unwrap();
        let answers = core::iter::repeat_with(|| rx.recv_deadline(deadline()).unwrap()).flatten();
        let mut packets = answers.map(Option::<rumqttd::protocol::Packet>::from);
        assert!(packets.any(|packet| matches!(packet, Some(rumqttd::protocol::Packet::PingResp(_)))));
    }

    /// Waits until the door has all that was published before.
    pub(crate) fn all_published(&self) {
        let mut client = Client::let_in(self.addr(), 4, "witness");
        assert_eq!(client.subscribe(&[("ota/d/witness/c", 0)]), [0]);
        self.publish("ota/d/witness/c", b"the last", false);
        assert_eq!(client.expect_publish().payload, b"the last");
        client.disconnect();
    }

    /// The next message that the service has got.
    pub(crate) fn hear(&self) -> Incoming {
        self.heard.recv_timeout(PATIENCE).unwrap()
    }

    /// Everything that the service has got so far. What was sent before this call through the door and
    /// acknowledged is in it, because the router's answers come in order.
    pub(crate) fn heard_so_far(&self) -> Vec<Incoming> {
        let mark = self.prove_serving();
        let mut all = Vec::new();
        loop {
            let message = self.hear();
            if message.payload == mark {
                return all;
            }
            all.push(message);
        }
    }

    /// A new client connects, asks the service and gets its answer. Returns what it asked.
    pub(crate) fn prove_serving(&self) -> Bytes {
        let number = self.probes.get();
        self.probes.set(number + 1);
        let id = format!("probe-{}", number % 8);
        self.prove_that_it_serves(Client::let_in(self.addr(), 4, &id), &id)
    }

    /// A client that was let in as `id` asks the service and gets its answer. Returns what it asked.
    pub(crate) fn prove_that_it_serves(&self, mut client: Client, id: &str) -> Bytes {
        let number = self.probes.get();
        let question = format!("question {number}");
        assert_eq!(client.subscribe(&[(&format!("ota/d/{id}/c"), 0)]), [0]);
        client.publish(&format!("ota/d/{id}/q"), question.as_bytes(), 0, false);
        let answer = client.expect_publish();
        assert_eq!(answer.payload, format!("re:{question}").as_bytes());
        client.disconnect();
        Bytes::from(question)
    }

    pub(crate) fn count(&self, counter: impl FnOnce(&Counters) -> &std::sync::atomic::AtomicU64) -> u64 {
        Counters::read(counter(self.door.counters()))
    }

    /// Waits until a counter has reached a value.
    pub(crate) fn await_count(
        &self,
        value: u64,
        counter: impl Fn(&Counters) -> &std::sync::atomic::AtomicU64,
    ) {
        let deadline = deadline();
        while !is_over(deadline) {
            if self.count(&counter) >= value {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} and not {value}: {:?}", self.count(&counter), self.door.counters());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let (closed, _) = tokio::sync::mpsc::unbounded_channel();
        drop(std::mem::replace(&mut self.orders, closed));
        if let Some(service) = self.service.take() {
            let outcome = service.join();
            assert!(outcome.is_ok() || std::thread::panicking(), "the service's thread has panicked");
        }
    }
}

async fn serve(
    mut link: EmbeddedLink,
    mut orders: tokio::sync::mpsc::UnboundedReceiver<Outgoing>,
    tell: &mpsc::Sender<Incoming>,
    ready: &mpsc::Sender<()>,
) {
    loop {
        tokio::select! {
            event = link.next() => match event.unwrap() {
                LinkEvent::Up => ready.send(()).unwrap(),
                LinkEvent::Down { reason } => panic!("{reason}"),
                LinkEvent::Message(message) => {
                    if let Some(device) = message.topic.strip_suffix(b"/q") {
                        link.publish(Outgoing {
                            topic: Bytes::from([device, b"/c"].concat()),
                            payload: Bytes::from([b"re:", &message.payload[..]].concat()),
                            delivery: Delivery::AtMostOnce,
                            retain: false,
                        }).unwrap();
                    }
                    let _nobody_listens = tell.send(message);
                }
            },
            order = orders.recv() => match order {
                Some(order) => match link.publish(order) {
                    // Tests try topics on which the service says nothing.
                    Ok(()) | Err(LinkError::NotOurs { .. }) => {}
                    Err(error) => panic!("{error}"),
                },
                None => return,
            },
        }
        link.flush().await.unwrap();
    }
}

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

/// A PUBLISH taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) pkid: u16,
}

/// What a CONNECT says.
#[derive(Clone, Default)]
pub(crate) struct Hello<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user_name: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    pub(crate) keep_alive: u16,
    /// Topic, payload, QoS, retain.
    pub(crate) will: Option<(&'a str, &'a [u8], u8, bool)>,
    /// Properties of version 5, encoded.
    pub(crate) properties: &'a [u8],
}

/// A client that says what it is told to.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) level: u8,
}

impl Client {
    /// Connects the socket and says nothing.
    pub(crate) fn silent(addr: SocketAddr, level: u8) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, level }
    }

    /// Connects and is let in.
    pub(crate) fn let_in(addr: SocketAddr, level: u8, client_id: &str) -> Self {
        let hello = Hello { client_id, keep_alive: 60, ..Hello::default() };
        let (client, code) = Self::knock(addr, level, &hello);
        assert_eq!(code, Some(0), "{client_id}");
        client
    }

    /// Sends a CONNECT and returns the return code of CONNACK; `None` where the socket was closed instead.
    pub(crate) fn knock(addr: SocketAddr, level: u8, hello: &Hello<'_>) -> (Self, Option<u8>) {
        let mut client = Self::silent(addr, level);
        client.send(&connect(level, hello));
        let code = client.receive().map(|packet| {
            assert_eq!(packet.first, 0x20);
            assert_eq!(packet.body[0], 0, "session present");
            packet.body[1]
        });
        (client, code)
    }

    /// Sends bytes; false where the other side has closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet; `None` where the socket is closed.
    pub(crate) fn receive(&mut self) -> Option<Packet> {
        let mut first = [0];
        self.read_exact(&mut first)?;
        let (mut len, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.read_exact(&mut body)?;
        Some(Packet { first: first[0], body })
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                ) =>
            {
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads until the socket is closed; returns the reason of the server's DISCONNECT if there was one.
    pub(crate) fn expect_closed(&mut self) -> Option<u8> {
        let mut farewell = None;
        while let Some(packet) = self.receive() {
            if packet.first == 0xE0 {
                farewell = Some(packet.body[0]);
            }
        }
        farewell
    }

    /// Whether nothing comes for this long. What comes is left to be received.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(looked, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    pub(crate) fn expect_publish(&mut self) -> Published {
        let packet = self.receive().expect("a PUBLISH and not the end");
        self.published(&packet)
    }

    pub(crate) fn published(&self, packet: &Packet) -> Published {
        assert_eq!(packet.first >> 4, 3, "{packet:?}");
        let topic_len = usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
        let topic = String::from_utf8(packet.body[2..2 + topic_len].to_vec()).unwrap();
        let mut rest = &packet.body[2 + topic_len..];
        let qos = packet.first >> 1 & 3;
        let mut pkid = 0;
        if qos > 0 {
            pkid = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        if self.level == 5 {
            assert_eq!(rest[0], 0, "no properties");
            rest = &rest[1..];
        }
        Published { topic, payload: rest.to_vec(), qos, retain: packet.first & 1 == 1, pkid }
    }

    /// Sends a SUBSCRIBE and returns the return codes.
    pub(crate) fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.send(&subscribe(self.level, 7, filters));
        let ack = self.receive().expect("a SUBACK and not the end");
        assert_eq!((ack.first, &ack.body[..2]), (0x90, &[0, 7][..]));
        ack.body[if self.level == 5 { 3 } else { 2 }..].to_vec()
    }

    /// Sends a PUBLISH; packet identifier 9 where it has one.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        self.send(&publish(self.level, topic.as_bytes(), payload, qos, retain));
    }

    /// Sends a PUBLISH of QoS 1; false where the answer was the end of the connection.
    pub(crate) fn publish_acked(&mut self, topic: &str, payload: &[u8]) -> bool {
        self.publish(topic, payload, 1, false);
        match self.receive() {
            Some(packet) if packet.first == 0x40 => true,
            Some(packet) if packet.first == 0xE0 => {
                self.expect_closed();
                false
            }
            Some(packet) => panic!("{packet:?}"),
            None => false,
        }
    }

    pub(crate) fn ack(&mut self, pkid: u16) {
        let [high, low] = pkid.to_be_bytes();
        self.send(&[0x40, 2, high, low]);
    }

    pub(crate) fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.receive().expect("a PINGRESP and not the end").first, 0xD0);
    }

    pub(crate) fn disconnect(mut self) {
        self.try_send(&[0xE0, 0]);
    }

    /// Closes without a word, with a reset.
    pub(crate) fn vanish(self) {
        let _closed_already = self.stream.shutdown(Shutdown::Both);
    }
}

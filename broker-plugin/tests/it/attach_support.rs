//! A link that is driven on a thread of its own, and brokers for it to hang on: mosquitto, and one that follows
//! a script.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tempfile::TempDir;
use whimbrel_service::attach::{
    BrokerLink, ClientConfig, ClientLink, Delivery, Incoming, LinkError, LinkEvent, Outgoing,
};

use crate::front_support::{Client, PATIENCE, Packet};

/// What the link's thread is told to do.
enum Order {
    /// Queue these and flush once.
    Publish(Vec<Outgoing>),
    /// Do it this many times without looking at what comes in.
    Repeat(usize, Outgoing),
}

/// A link on its own thread, as the service drives it.
pub(crate) struct Driven {
    orders: Option<tokio::sync::mpsc::UnboundedSender<Order>>,
    events: mpsc::Receiver<LinkEvent>,
    results: mpsc::Receiver<Result<(), LinkError>>,
    thread: Option<JoinHandle<()>>,
}

impl Driven {
    /// Starts the thread; `make` is called on it, inside its runtime.
    pub(crate) fn start<L: BrokerLink>(make: impl FnOnce() -> L + Send + 'static) -> Self {
        let (orders, to_do) = tokio::sync::mpsc::unbounded_channel();
        let (tell, events) = mpsc::channel();
        let (report, results) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { drive(make(), to_do, &tell, &report).await });
        });
        Self { orders: Some(orders), events, results, thread: Some(thread) }
    }

    pub(crate) fn client(config: ClientConfig) -> Self {
        Self::start(move || ClientLink::start(config).unwrap())
    }

    pub(crate) fn publish(&self, topic: &str, payload: &[u8], delivery: Delivery, retain: bool) {
        self.publish_all(vec![outgoing(topic, payload, delivery, retain)]).unwrap();
    }

    /// Queues and flushes; the first error that the link has given.
    pub(crate) fn publish_all(&self, messages: Vec<Outgoing>) -> Result<(), LinkError> {
        self.order(Order::Publish(messages));
        self.results.recv_timeout(PATIENCE).unwrap()
    }

    /// Publishes many, one flush each, without taking events; returns at once.
    pub(crate) fn flood(&self, count: usize, message: Outgoing) {
        self.order(Order::Repeat(count, message));
    }

    /// Waits until a flood is over.
    pub(crate) fn flooded(&self) {
        self.results.recv_timeout(PATIENCE).unwrap().unwrap();
    }

    fn order(&self, order: Order) {
        self.orders.as_ref().unwrap().send(order).ok().unwrap();
    }

    pub(crate) fn event(&self) -> LinkEvent {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// The next message; a lost connection is a failure.
    pub(crate) fn message(&self) -> Incoming {
        match self.event() {
            LinkEvent::Message(message) => message,
            event => panic!("{event:?}"),
        }
    }

    /// Waits for the connection; returns the reasons of failed attempts.
    pub(crate) fn await_up(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        loop {
            match self.event() {
                LinkEvent::Up => return reasons,
                LinkEvent::Down { reason } => reasons.push(reason),
                LinkEvent::Message(_) => {}
            }
        }
    }

    /// Whether no event came that was not taken.
    pub(crate) fn has_said_nothing(&self) -> bool {
        self.events.try_recv().is_err()
    }

    /// Waits for the loss of the connection, or a failed attempt.
    pub(crate) fn await_down(&self) -> String {
        loop {
            if let LinkEvent::Down { reason } = self.event() {
                return reason;
            }
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(outcome.is_ok() || std::thread::panicking(), "the link's thread has panicked");
        }
    }
}

async fn drive<L: BrokerLink>(
    mut link: L,
    mut orders: tokio::sync::mpsc::UnboundedReceiver<Order>,
    tell: &mpsc::Sender<LinkEvent>,
    report: &mpsc::Sender<Result<(), LinkError>>,
) {
    loop {
        let order = tokio::select! {
            event = link.next() => {
                let _nobody_listens = tell.send(event.unwrap());
                continue;
            }
            order = orders.recv() => order,
        };
        let Some(order) = order else { return };
        let result = match order {
            Order::Publish(messages) => {
                let queued = messages.into_iter().try_for_each(|message| link.publish(message));
                link.flush().await.and(queued)
            }
            Order::Repeat(count, message) => {
                let mut result = Ok(());
                for _ in 0..count {
                    result = result.and(link.publish(message.clone()));
                    result = link.flush().await.and(result);
                }
                result
            }
        };
        let _nobody_listens = report.send(result);
    }
}

pub(crate) fn outgoing(topic: &str, payload: &[u8], delivery: Delivery, retain: bool) -> Outgoing {
    let copy = Bytes::copy_from_slice;
    Outgoing { topic: copy(topic.as_bytes()), payload: copy(payload), delivery, retain }
}

/// A mosquitto in a folder of its own; killed when dropped.
pub(crate) struct Mosquitto {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one that lets everyone in.
    pub(crate) fn start() -> Self {
        Self::start_with(&["allow_anonymous true"])
    }

    pub(crate) fn start_with(settings: &[&str]) -> Self {
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            // Between this and mosquitto's bind someone else may take the port: then another is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let own = [
                format!("listener {port} 127.0.0.1"),
                "max_queued_messages 0".to_owned(),
                "max_inflight_messages 1000".to_owned(),
                "set_tcp_nodelay true".to_owned(),
            ];
            let lines: Vec<&str> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
            std::fs::write(folder.path().join("mosquitto.conf"), lines.join("\n")).unwrap();
            let mut broker = Self { folder, port, child: None };
            if broker.restart() {
                return broker;
            }
        }
        panic!("mosquitto did not start on any port");
    }

    /// Starts it again on the same port; false where it has ended at once.
    pub(crate) fn restart(&mut self) -> bool {
        self.kill();
        let mut child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed for this test: apt-get install mosquitto");
        while std::net::TcpStream::connect(self.addr()).is_err() {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::yield_now();
        }
        self.child = Some(child);
        true
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn config(addr: SocketAddr) -> ClientConfig {
    ClientConfig::new(format!("mqtt://{addr}").parse().unwrap(), "service".to_owned(), 1)
}

/// A broker that does what a test says. The script is called with each connection and its number from 0.
pub(crate) struct Scripted {
    addr: SocketAddr,
}

impl Scripted {
    /// The listener's thread ends with the process.
    pub(crate) fn start(mut script: impl FnMut(usize, Client) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                script(number, Client { stream, level: 4 });
            }
        });
        Self { addr }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// The broker's side of CONNECT and SUBSCRIBE; false where the client has gone.
pub(crate) fn let_in(client: &mut Client) -> bool {
    let Some(connect) = client.receive() else { return false };
    assert_eq!(connect.first, 0x10);
    client.send(&[0x20, 2, 0, 0]);
    let Some(Packet { first: 0x82, body }) = client.receive() else { return false };
    client.send(&[0x90, 4, body[0], body[1], 0, 1]);
    true
}

//! The socket of a misbehaving client: MQTT 3.1.1 without any of the care that a device takes.

use core::net::{Ipv4Addr, SocketAddr};
use std::io;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, Login, Publish, Subscribe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{Client, Counters};

/// A connection that is reset when it is dropped, so that thousands of them leave nothing behind.
#[derive(Debug)]
pub(super) struct Raw {
    stream: TcpStream,
}

/// Bytes of CONNACK.
const CONNACK: usize = 4;
/// How small the receive buffer of a client is that does not read.
const SMALL_BUFFER: u32 = 2048;

impl Raw {
    /// Opens a connection and says nothing.
    pub(super) async fn open(client: &Client) -> io::Result<Self> {
        let broker = client.plan.broker;
        let socket = if broker.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if broker.ip() == Ipv4Addr::LOCALHOST {
            // Every address in 127/8 is this machine; 127.0.0.1 is where the honest devices are.
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 66, 0, client.number.saturating_add(1)), 0)))?;
        }
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
        let stream = socket.connect(broker).await?;
        stream.set_zero_linger()?;
        stream.set_nodelay(true)?;
        Counters::add(&client.counters.connections, 1);
        Ok(Self { stream })
    }

    /// Logs in under the client's own id.
    pub(super) async fn log_in(client: &Client) -> io::Result<Self> {
        let mut raw = Self::open(client).await?;
        raw.send(&connect(client, client.id.as_str())?).await?;
        raw.answered().await?;
        Ok(raw)
    }

    /// Waits for CONNACK.
    pub(super) async fn answered(&mut self) -> io::Result<()> {
        let mut answer = [0; CONNACK];
        self.stream.read_exact(&mut answer).await?;
        match answer {
            [_, _, _, 0] => Ok(()),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

/// CONNECT under this id.
pub(super) fn connect(client: &Client, id: &str) -> io::Result<BytesMut> {
    let mut connect = Connect::new(id);
    connect.keep_alive = 60;
    connect.login = client.plan.login.clone().map(|(username, password)| Login { username, password });
    let mut bytes = BytesMut::new();
    connect.write(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// PUBLISH of a message at most once.
pub(super) fn publish(topic: String, payload: impl Into<Bytes>) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    let publish = Publish::from_bytes(topic, QoS::AtMostOnce, payload.into());
    publish.write(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// SUBSCRIBE to one topic.
pub(super) fn subscribe(topic: String) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    let mut subscribe = Subscribe::new(topic, QoS::AtMostOnce);
    subscribe.pkid = 1;
    subscribe.write(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

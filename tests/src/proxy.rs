//! A proxy between devices and broker that does what a hostile or broken broker could do.
//!
//! It understands MQTT packets, so that what it does is done to messages and never to MQTT's own framing. It
//! also counts, which is how tests assert on traffic.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use whimbrel_protocol::message::{ChunkMessage, Refusal, RefusalCode};
use whimbrel_protocol::retry::Jitter;

use crate::frames::{self, Frame};

/// What it does to messages on their way to a device, beside passing them on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// Nothing.
    #[default]
    Pass,
    /// Flips one bit in the payload of one chunk message in this many.
    Flip {
        /// One in this many.
        one_in: u64,
    },
    /// Delivers everything of earlier days again: each signed document and chunk message once more, later.
    ReplayOld,
    /// Delivers to each device what another one got, on the device's own topic.
    CrossDeliver,
    /// Drops one message to a device in this many.
    Withhold {
        /// One in this many; 1 drops all.
        one_in: u64,
    },
    /// Delivers empty retained messages on the retained topics of a device.
    EmptyRetain,
    /// Puts a forged refusal before one message in this many.
    ForgeRefusal {
        /// One in this many.
        one_in: u64,
    },
    /// Delivers this many chunk messages that nobody asked for behind each one.
    Flood {
        /// How many.
        count: u32,
    },
    /// Drops retained messages, as a broker does that ignores `retain`.
    IgnoreRetain,
}

/// What passed, by device.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Chunk requests of the device.
    pub chunk_requests: u64,
    /// Manifest requests of the device.
    pub document_requests: u64,
    /// Payload bytes of chunk messages that were delivered whole.
    pub chunk_bytes: u64,
    /// Messages that the verb was applied to.
    pub tampered: u64,
    /// Hellos of the device.
    pub hellos: u64,
    /// Reports that were sent.
    pub reports: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    verb: Verb,
    /// Bytes per second towards a device; 0 for no limit.
    rate: u64,
    jitter: Jitter,
    traffic: BTreeMap<String, Traffic>,
    /// The last messages that devices got on their answers topic.
    seen: Vec<(String, Vec<u8>)>,
    /// Rises with every cut of all connections.
    cuts: u64,
}

/// A running proxy; its threads end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// Messages that are kept for replaying.
const SEEN_MAX: usize = 64;

impl Proxy {
    /// Starts a proxy in front of `upstream`.
    ///
    /// # Panics
    /// Where no port is free.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Mutex::new(Shared {
            upstream,
            verb: Verb::Pass,
            rate: 0,
            jitter: Jitter::new(1),
            traffic: BTreeMap::new(),
            seen: Vec::new(),
            cuts: 0,
        }));
        let of_task = shared.clone();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, of_task.clone()));
            }
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Where devices connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder panics")
    }

    /// What it does from now on.
    pub fn set(&self, verb: Verb) {
        self.shared().verb = verb;
    }

    /// Bytes per second towards each device; 0 for no limit.
    pub fn set_rate(&self, rate: u64) {
        self.shared().rate = rate;
    }

    /// What passed to and from `device`.
    #[must_use]
    pub fn traffic(&self, device: &str) -> Traffic {
        self.shared().traffic.get(device).cloned().unwrap_or_default()
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.shared().cuts += 1;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connection(client: TcpStream, shared: Arc<Mutex<Shared>>) {
    let (upstream, cuts) = {
        let shared = shared.lock().expect("no holder panics");
        (shared.upstream, shared.cuts)
    };
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = relay(from_client, to_server, shared.clone(), Way::Up);
    let down = relay(from_server, to_client, shared.clone(), Way::Down);
    let cut = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if shared.lock().expect("no holder panics").cuts != cuts {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {}, () = cut => {} }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    shared: Arc<Mutex<Shared>>,
    way: Way,
) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 4096];
    loop {
        let Ok(count) = from.read(&mut chunk).await else { return };
        if count == 0 {
            return;
        }
        buffer.extend(chunk.iter().take(count));
        while let Some(frame) = frames::take(&mut buffer) {
            let (out, rate) = {
                let mut shared = shared.lock().expect("no holder panics");
                let out = match way {
                    Way::Up => shared.up(frame),
                    Way::Down => shared.down(frame),
                };
                (out, shared.rate)
            };
            for frame in out {
                if send(&mut to, &frame, if way == Way::Down { rate } else { 0 }).await.is_err() {
                    return;
                }
                if way == Way::Down {
                    shared.lock().expect("no holder panics").delivered(&frame);
                }
            }
        }
    }
}

async fn send(to: &mut tokio::net::tcp::OwnedWriteHalf, frame: &Frame, rate: u64) -> std::io::Result<()> {
    if rate == 0 {
        return to.write_all(&frame.bytes).await;
    }
    // In pieces of 50 ms, so that a kill finds messages half sent.
    let piece = usize::try_from((rate / 20).max(1)).unwrap_or(usize::MAX);
    for bytes in frame.bytes.chunks(piece) {
        to.write_all(bytes).await?;
        let ms = (bytes.len() as u64 * 1000).div_ceil(rate);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    Ok(())
}

/// The device and the leaf of a device's topic.
fn device_of(topic: &str) -> Option<(&str, &str)> {
    let rest = topic.split_once("/d/")?.1;
    rest.split_once('/')
}

impl Shared {
    fn of(&mut self, device: &str) -> &mut Traffic {
        self.traffic.entry(device.to_owned()).or_default()
    }

    fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.jitter.below(count) == 0
    }

    fn up(&mut self, frame: Frame) -> Vec<Frame> {
        let publish =
            frame.publish().map(|publish| (publish.topic.to_owned(), publish.payload.first().copied()));
        let Some((topic, first)) = publish else { return vec![frame] };
        if let Some((device, leaf)) = device_of(&topic) {
            let traffic = self.of(device);
            match (leaf, first) {
                ("q", Some(0x11)) => traffic.hellos += 1,
                ("q", Some(0x12)) => traffic.chunk_requests += 1,
                ("q", Some(0x14)) => traffic.document_requests += 1,
                ("r", _) => traffic.reports += 1,
                _ => {}
            }
        }
        vec![frame]
    }

    fn delivered(&mut self, frame: &Frame) {
        let Some(publish) = frame.publish() else { return };
        if let (Some((device, "c")), Some(0x18)) = (device_of(publish.topic), publish.payload.first()) {
            let head = chunk_head(publish.payload);
            let bytes = (publish.payload.len() - head) as u64;
            let device = device.to_owned();
            self.of(&device).chunk_bytes += bytes;
        }
    }

    fn down(&mut self, mut frame: Frame) -> Vec<Frame> {
        let Some(publish) = frame.publish() else { return vec![frame] };
        let (topic, payload, retain) = (publish.topic.to_owned(), publish.payload.to_vec(), publish.retain);
        if self.verb == Verb::IgnoreRetain && retain {
            return Vec::new();
        }
        let Some((device, "c")) = device_of(&topic) else { return vec![frame] };
        let is_chunk = payload.first() == Some(&0x18);
        let out = match self.verb.clone() {
            Verb::Pass | Verb::IgnoreRetain => vec![frame],
            Verb::Flip { one_in } => {
                if is_chunk && self.one_in(one_in) {
                    let bytes = payload.len() - chunk_head(&payload);
                    let at = usize::try_from(self.jitter.below(bytes as u64)).unwrap_or(0);
                    frame.flip_from_end(at);
                    self.of(device).tampered += 1;
                }
                vec![frame]
            }
            Verb::ReplayOld => {
                let old =
                    self.seen.iter().filter(|(known, _)| known == device).map(|(_, bytes)| bytes.clone());
                let old: Vec<_> = old.take(2).collect();
                self.of(device).tampered += old.len() as u64;
                let old = old.into_iter().map(|bytes| frames::publish(&topic, &bytes, false));
                old.chain([frame]).collect()
            }
            Verb::CrossDeliver => {
                let other = self.seen.iter().rev().find(|(known, _)| known != device);
                let other = other.map(|(_, bytes)| frames::publish(&topic, bytes, false));
                self.of(device).tampered += u64::from(other.is_some());
                other.into_iter().chain([frame]).collect()
            }
            Verb::Withhold { one_in } => {
                if self.one_in(one_in) {
                    self.of(device).tampered += 1;
                    Vec::new()
                } else {
                    vec![frame]
                }
            }
            Verb::EmptyRetain => {
                self.of(device).tampered += 2;
                let prefix = topic.split_once("/d/").map_or("ota", |(prefix, _)| prefix).to_owned();
                let own = topic.trim_end_matches('c').to_owned() + "s";
                vec![
                    frames::publish(&own, &[], true),
                    frames::publish(&format!("{prefix}/g/all"), &[], true),
                    frame,
                ]
            }
            Verb::ForgeRefusal { one_in } => {
                if !self.one_in(one_in) {
                    return self.keep(device, payload, vec![frame]);
                }
                self.of(device).tampered += 1;
                let codes =
                    [RefusalCode::Unknown, RefusalCode::NotYours, RefusalCode::Busy, RefusalCode::Version];
                let pick = usize::try_from(self.jitter.below(4)).unwrap_or(0);
                let code = codes.into_iter().nth(pick).unwrap_or(RefusalCode::Busy);
                let refusal = Refusal { code, retry_after_s: Some(1) };
                vec![frames::publish(&topic, &refusal.encode(), false), frame]
            }
            Verb::Flood { count } => {
                if !is_chunk {
                    return self.keep(device, payload, vec![frame]);
                }
                self.of(device).tampered += u64::from(count);
                let flood = (0..count).map(|_| frames::publish(&topic, &payload, false));
                core::iter::once(frame.clone()).chain(flood).collect()
            }
        };
        self.keep(device, payload, out)
    }

    fn keep(&mut self, device: &str, payload: Vec<u8>, out: Vec<Frame>) -> Vec<Frame> {
        if self.seen.len() >= SEEN_MAX {
            self.seen.remove(0);
        }
        self.seen.push((device.to_owned(), payload));
        out
    }
}

/// Bytes of a chunk message before the chunks.
fn chunk_head(payload: &[u8]) -> usize {
    use whimbrel_protocol::message::Answer;
    match Answer::decode(payload) {
        Ok(Answer::Chunk(ChunkMessage { bytes, .. })) => payload.len() - bytes.len(),
        _ => payload.len(),
    }
}

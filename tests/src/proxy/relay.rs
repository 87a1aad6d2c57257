//! Moves packets between a device and its broker, at the link's rate.

use alloc::sync::Arc;
use core::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::State;
use crate::frames::{self, Frame};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// The side of a connection that packets come from.
struct Source {
    half: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Source {
    /// The next whole packet; `None` if the peer has gone.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = frames::take(&mut self.buffer) {
                return Some(frame);
            }
            let mut bytes = [0; 4096];
            let count = self.half.read(&mut bytes).await.ok().filter(|count| *count > 0)?;
            self.buffer.extend(bytes.get(..count)?);
        }
    }
}

/// Serves one connection of a device until either side is gone, or the proxy cuts it.
pub(super) async fn connection(client: TcpStream, state: Arc<State>) {
    let (upstream, cuts) = {
        let shared = state.lock();
        (shared.upstream, shared.cuts)
    };
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut client = Source { half: from_client, buffer: Vec::new() };
    let server = Source { half: from_server, buffer: Vec::new() };
    let cut = async {
        while state.lock().cuts == cuts {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let both = async {
        let connect = client.next().await?;
        let id = connect.client_id()?;
        let device = id.strip_suffix("-ota").unwrap_or(id).to_owned();
        state.lock().of(&device).connections += 1;
        to_server.write_all(&connect.bytes).await.ok()?;
        tokio::select! {
            gone = relay(client, to_server, &device, &state, Way::Up) => gone,
            gone = relay(server, to_client, &device, &state, Way::Down) => gone,
        }
    };
    tokio::select! { _ = both => {}, () = cut => {} }
}

async fn relay(
    mut from: Source,
    mut to: OwnedWriteHalf,
    device: &str,
    state: &State,
    way: Way,
) -> Option<()> {
    loop {
        let frame = from.next().await?;
        let frames = {
            let mut shared = state.lock();
            match way {
                Way::Up => shared.up(device, frame),
                Way::Down => shared.down(device, frame),
            }
        };
        state.passed.notify_all();
        for frame in frames {
            match way {
                Way::Up => to.write_all(&frame.bytes).await.ok()?,
                Way::Down => deliver(&mut to, &frame, device, state).await?,
            }
        }
    }
}

/// Writes a packet to a device, in pieces of 20 ms of the rate, so that a kill finds messages half sent.
async fn deliver(to: &mut OwnedWriteHalf, frame: &Frame, device: &str, state: &State) -> Option<()> {
    let rate = state.lock().rate;
    let piece = match rate {
        0 => frame.bytes.len(),
        rate => usize::try_from((rate / 50).max(1)).unwrap_or(usize::MAX),
    };
    let mut written = 0;
    for bytes in frame.bytes.chunks(piece.max(1)) {
        to.write_all(bytes).await.ok()?;
        state.lock().count_written(device, frame, written..written + bytes.len());
        state.passed.notify_all();
        written += bytes.len();
        if let Some(micros) = (bytes.len() as u64 * 1_000_000).checked_div(rate) {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }
    Some(())
}

//! The side of the socket that the agent is on.

use alloc::sync::Arc;
use core::time::Duration;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::debug;

use super::{Reply, Request, socket_path};
use crate::error::AgentError;

/// A request with the place for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// Listens on the socket until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    requests: mpsc::Receiver<Asked>,
    task: JoinHandle<()>,
    path: PathBuf,
}

/// Connections at once. More wait.
const CONNECTIONS_MAX: usize = 8;
/// Most bytes of a request.
const REQUEST_BYTES_MAX: u64 = 8 * 1024;
/// How long a request may take to arrive.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// Listens in the data folder, which must be locked: a socket that lies there is a dead one.
    ///
    /// # Errors
    /// [`AgentError::Control`].
    pub(crate) fn start(data: &Path) -> Result<Self, AgentError> {
        let path = socket_path(data);
        let failed = |error| AgentError::Control { path: path.clone(), action: "listen on", error };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let (sender, requests) = mpsc::channel(CONNECTIONS_MAX);
        Ok(Self { requests, task: tokio::spawn(accept(listener, sender)), path })
    }

    /// The next request. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        self.requests.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        drop(fs::remove_file(&self.path));
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, requests).await {
                debug!(reason = %error, "control connection failed");
            }
            drop(place);
        });
    }
}

/// One request, one answer.
async fn serve(stream: UnixStream, requests: mpsc::Sender<Asked>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut line = String::new();
    let mut reading = BufReader::new(reading.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(REQUEST_LIMIT, reading.read_line(&mut line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            if requests.send(Asked { request, reply }).await.is_err() {
                return Ok(());
            }
            match answer.await {
                Ok(answer) => answer,
                Err(_) => Reply::error(&"the agent starts anew: ask again"),
            }
        }
        Err(error) => Reply::error(&format!("the agent does not know this command: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    writing.write_all(&bytes).await?;
    writing.shutdown().await
}

//! The side of the socket that commands are on.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Reply, Request};
use crate::error::AgentError;
use crate::local_trust::Folder;

/// The socket of the agent with this data folder.
#[must_use]
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Whether an agent listens in this data folder.
#[must_use]
pub fn answers(data: &Path) -> bool {
    UnixStream::connect(socket_path(data)).is_ok()
}

/// Most bytes of an answer.
const REPLY_BYTES_MAX: u64 = 256 * 1024;

/// Asks the agent that has this data folder, and waits for the answer for as long as that takes. `None` where no
/// agent listens.
///
/// # Errors
/// [`AgentError::Control`], [`AgentError::Untrusted`].
pub fn ask(data: &Path, request: &Request) -> Result<Option<Reply>, AgentError> {
    // A socket in a folder of somebody else may be anybody's.
    match Folder::open(data) {
        Err(error) if error.is_missing() => return Ok(None),
        folder => drop(folder?),
    }
    let path = socket_path(data);
    let failed = |action, error| AgentError::Control { path: path.clone(), action, error };
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed("connect to", error)),
    };
    let mut line = serde_json::to_vec(request).map_err(|error| failed("write to", error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|error| failed("write to", error))?;
    let mut reply = String::new();
    let count = BufReader::new(stream.take(REPLY_BYTES_MAX))
        .read_line(&mut reply)
        .map_err(|error| failed("read from", error))?;
    if count == 0 {
        let error = io::Error::other("the agent went away before it answered");
        return Err(failed("read from", error));
    }
    serde_json::from_str(&reply).map(Some).map_err(|error| failed("read from", error.into()))
}

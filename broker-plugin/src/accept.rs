//! `whimbreld clock accept` and `store accept`: tell the service that runs on this machine that its clock, or its
//! database, is right.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use thiserror::Error;
use whimbrel_api::{ClockAccepted, ErrorBody, StoreAccepted, routes};

use crate::admin::{AdminToken, TokenError};
use crate::config::Config;

/// Why it was not accepted.
#[derive(Debug, Error)]
pub(crate) enum AcceptError {
    /// There is no token to show.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token's file cannot be read.
    #[error("cannot read the admin token {path}: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nobody answers.
    #[error("no service answers at {address} ({source}): start it, it is told while it runs")]
    Unreachable {
        /// Where it should be.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The service refused.
    #[error("the service at {address} refused: {reason}")]
    Refused {
        /// Where it is.
        address: SocketAddr,
        /// What it says.
        reason: String,
    },
}

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks the service that `config` names; what to print.
///
/// # Errors
/// [`AcceptError`].
pub(crate) fn accept_clock(config: &Config) -> Result<&'static str, AcceptError> {
    let accepted: ClockAccepted = accept(config, routes::CLOCK_ACCEPT)?;
    Ok(if accepted.doubted {
        "the clock is accepted, and the service signs again\n"
    } else {
        "the service had no doubt about its clock; nothing was changed\n"
    })
}

/// The same for the database.
///
/// # Errors
/// [`AcceptError`].
pub(crate) fn accept_store(config: &Config) -> Result<&'static str, AcceptError> {
    let accepted: StoreAccepted = accept(config, routes::STORE_ACCEPT)?;
    Ok(if accepted.doubted {
        "the database is accepted, and the service signs above all that was signed before\n"
    } else {
        "the service had no doubt about its database; nothing was changed\n"
    })
}

fn accept<T: DeserializeOwned>(config: &Config, route: &str) -> Result<T, AcceptError> {
    let path = &config.token_file;
    AdminToken::load(path)?;
    let token =
        std::fs::read_to_string(path).map_err(|source| AcceptError::Read { path: path.clone(), source })?;
    let address = config.admin;
    let answer =
        post(address, route, token.trim()).map_err(|source| AcceptError::Unreachable { address, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let refused = |reason: String| AcceptError::Refused { address, reason };
    if !head.starts_with("HTTP/1.1 200") {
        let reason = serde_json::from_str::<ErrorBody>(body).map(|body| body.error);
        return Err(refused(reason.unwrap_or_else(|_| head.lines().next().unwrap_or_default().to_owned())));
    }
    serde_json::from_str(body).map_err(|error| refused(format!("its answer is not understood: {error}")))
}

fn post(address: SocketAddr, route: &str, token: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(
        stream,
        "POST {route} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

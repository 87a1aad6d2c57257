//! Why a request to the service failed.

use std::path::PathBuf;

use thiserror::Error;

use crate::files::FileError;

/// Why a request to the service failed.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// Nothing says where the service is.
    #[error(
        "no service is named: run where {} is, or give --config FILE, or --service HOST:PORT and --token-file FILE",
        crate::config::FILE_NAME
    )]
    NoAddress,
    /// Nothing says which token to show.
    #[error("no token is named: give --token-file FILE, or --config FILE with `token-file` in [service]")]
    NoToken,
    /// The address is none.
    #[error("`{got}` is no address of a service: HOST:PORT or http://HOST:PORT would be right")]
    Address {
        /// What was given.
        got: String,
    },
    /// The file of the token could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The token's file does not hold a token.
    #[error("{} holds no token: one line of 8 to 256 visible ASCII characters would be right", .path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// Nobody answers.
    #[error(
        "no service answers at {address} ({reason}): start it with `whimbreld --config whimbrel.toml`, or give --service"
    )]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// The connection broke, or no answer came in time.
    #[error("connection to the service at {address} broke: {reason}; running the command again is safe")]
    Broken {
        /// Where the service is.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The service refused.
    #[error("service refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The service's own line.
        message: String,
    },
    /// The token is not the service's.
    #[error(
        "service at {address} refused the token: give the file that its `token-file` names by --token-file"
    )]
    Unauthorised {
        /// Where the service is.
        address: String,
    },
    /// What answers is not the service, or another version of it.
    #[error("what answers at {address} is no update service of this version: {reason}")]
    Answer {
        /// Where it is.
        address: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

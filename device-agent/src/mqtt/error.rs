//! Why a connection ended or did not come about.

use rumqttc::{ConnectReturnCode, ConnectionError, StateError, mqttbytes};
use thiserror::Error;
use whimbrel_settings::SecretError;

use crate::local_trust::Untrusted;

/// Why there is no connection (any more).
#[derive(Debug, Error)]
pub enum LinkError {
    /// The broker does not want us.
    #[error("the broker refuses the login: {}", reason(*.0))]
    Refused(ConnectReturnCode),
    /// The password cannot be read.
    #[error("broker.password-file: {0}")]
    Password(#[from] SecretError),
    /// Somebody else could change the password's file.
    #[error("broker.password-file: {0}")]
    Untrusted(#[from] Untrusted),
    /// The broker sent a packet above the limit.
    #[error("the broker sent a packet of {got} bytes, which is more than download.message-size allows")]
    Oversized {
        /// Its bytes.
        got: usize,
    },
    /// It took too long.
    #[error("the broker does not answer in time")]
    Timeout,
    /// The network or the broker ended it.
    #[error("{0}")]
    Lost(String),
    /// The broker ended it between SUBSCRIBE and SUBACK.
    #[error("closed when we subscribed to {}: {why}", topics.join(", "))]
    Subscribing {
        /// What we subscribed to.
        topics: Vec<String>,
        /// What the network said.
        why: String,
    },
    /// We ended it.
    #[error("hung up")]
    HungUp,
}

/// What is said if the broker closed the connection properly.
const CLOSED: &str = "the broker closed the connection";

impl LinkError {
    /// Whether the broker closed the connection properly, as it does when the same client connects again.
    #[must_use]
    pub fn is_close_by_broker(&self) -> bool {
        matches!(self, Self::Lost(why) if why == CLOSED)
    }

    /// The name that counters use; stable.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Password(_) | Self::Untrusted(_) => "password",
            Self::Oversized { .. } => "oversized",
            Self::Timeout => "timeout",
            Self::Lost(_) => "lost",
            Self::Subscribing { .. } => "subscribing",
            Self::HungUp => "hung-up",
        }
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code) => Self::Refused(code),
            ConnectionError::NetworkTimeout
            | ConnectionError::FlushTimeout
            | ConnectionError::MqttState(StateError::AwaitPingResp) => Self::Timeout,
            ConnectionError::MqttState(StateError::Deserialization(
                mqttbytes::Error::PayloadSizeLimitExceeded(got),
            )) => Self::Oversized { got },
            ConnectionError::MqttState(StateError::ConnectionAborted) => Self::Lost(CLOSED.to_owned()),
            ConnectionError::MqttState(StateError::Deserialization(mqttbytes::Error::Io(error)))
            | ConnectionError::MqttState(StateError::Io(error))
            | ConnectionError::Io(error) => Self::Lost(error.to_string()),
            other => Self::Lost(other.to_string()),
        }
    }
}

const fn reason(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::BadUserNamePassword => "bad user name or password",
        ConnectReturnCode::NotAuthorized => "not authorized",
        ConnectReturnCode::BadClientId => "it does not take this client id",
        ConnectReturnCode::ServiceUnavailable => "it is not available",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::Success => "no reason given",
    }
}

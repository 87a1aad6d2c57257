//! Why a connection to the broker ended, or was not made.

use core::time::Duration;
use std::io;

use super::watch::End;
use super::wire::Malformed;

/// Why a connection ended, or was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("{0}")]
    Connection(io::Error),
    #[error("the broker has not answered for {0:?}")]
    Silent(Duration),
    #[error(
        "the broker closed the connection before it answered the login: is this its port for MQTT without TLS?"
    )]
    ClosedAtLogin,
    #[error("the broker refused the login: {}", refusal(*.0))]
    LoginRefused(u8),
    #[error("the broker refused the subscription to {0}")]
    SubscriptionRefused(String),
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker sent what is not MQTT 3.1.1")]
    Malformed,
    #[error("the broker has acknowledged a message that was not sent")]
    NeverSent,
    #[error("the broker has not taken a byte for {0:?}")]
    Stalled(Duration),
    #[error("the broker has not acknowledged enough to send another message for {0:?}")]
    Stuck(Duration),
    #[error("the service has ended")]
    Unwanted,
}

impl Lost {
    /// For counting what happens again and again.
    fn kind(&self) -> &'static str {
        match self {
            Self::Connection(_) => "connection",
            Self::Silent(_) => "silent",
            Self::ClosedAtLogin => "closed at login",
            Self::LoginRefused(_) => "login refused",
            Self::SubscriptionRefused(_) => "subscription refused",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::NeverSent => "never sent",
            Self::Stalled(_) => "stalled",
            Self::Stuck(_) => "stuck",
            Self::Unwanted => "unwanted",
        }
    }

    /// What the watch makes of it.
    pub(super) fn end(&self, at_retain: bool) -> End {
        let by_broker = matches!(self, Self::Closed | Self::Connection(_));
        End { kind: self.kind(), by_broker, at_retain: at_retain && by_broker }
    }
}

/// What a CONNACK says (MQTT 3.1.1 section 3.2.2.3).
fn refusal(code: u8) -> String {
    match code {
        1 => "it does not speak MQTT 3.1.1".to_owned(),
        2 => "it does not take the client id".to_owned(),
        3 => "it is not available".to_owned(),
        4 => "wrong user name or password".to_owned(),
        5 => "not authorized".to_owned(),
        code => format!("code {code}"),
    }
}

impl From<Malformed> for Lost {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

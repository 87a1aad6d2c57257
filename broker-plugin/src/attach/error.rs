//! What can go wrong with a link to a broker.

use thiserror::Error;

/// Why a message is not sent, or why the link is gone for good.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The embedded broker has a service already. For good.
    #[error("the embedded broker has a service already")]
    Taken,
    /// The client's task has stopped. For good.
    #[error("the connection to the broker has been given up")]
    ClientGone,
    /// Too many messages were queued without a flush.
    #[error("{limit} messages are queued already, flush first")]
    QueueFull {
        /// How many may be.
        limit: usize,
    },
    /// The topic is not one that can be published to.
    #[error("{topic:?} is not a topic to publish to, expected 1 to 65,535 bytes of UTF-8 without + and #")]
    BadTopic {
        /// The topic, with what is not UTF-8 replaced.
        topic: String,
    },
    /// The topic is not one on which devices hear the service.
    #[error(
        "{topic:?} is not a topic of the update service to devices, which is all that the embedded broker's service may publish to"
    )]
    NotOurs {
        /// The topic.
        topic: String,
    },
    /// The message is larger than the link's limit.
    #[error("a message of {bytes} bytes is too large, at most {limit} go in a packet")]
    TooLarge {
        /// Topic and payload.
        bytes: usize,
        /// How many may be.
        limit: usize,
    },
    /// A setting of the client is wrong.
    #[error("broker {setting} {got:?}: expected {expected}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// What it is.
        got: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// A topic as text, if it may be published to.
pub(super) fn check_topic(topic: &[u8]) -> Result<&str, LinkError> {
    match core::str::from_utf8(topic) {
        Ok(text) if (1..=65_535).contains(&text.len()) && !text.contains(['+', '#', '\0']) => Ok(text),
        _ => Err(LinkError::BadTopic { topic: String::from_utf8_lossy(topic).into_owned() }),
    }
}

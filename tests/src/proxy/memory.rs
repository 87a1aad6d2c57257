//! Keeps the latest messages that passed, which a hostile broker could replay or deliver to others.

use alloc::collections::VecDeque;

use super::traffic::is_chunk;

/// A message that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The device that sent it, or that it was sent to.
    pub device: String,
    /// Whether the device sent it.
    pub up: bool,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The latest messages. Their number is limited for each device and kind separately.
#[derive(Debug, Default)]
pub(super) struct Memory {
    messages: VecDeque<Message>,
}

/// Number of messages that are kept for each device: of chunks, and of others in each direction.
const CHUNKS_MAX: usize = 12;
const OTHERS_MAX: usize = 64;

impl Memory {
    pub(super) fn messages(&self) -> Vec<Message> {
        self.messages.iter().cloned().collect()
    }

    pub(super) fn keep(&mut self, message: Message) {
        let chunk = is_chunk(&message.payload);
        let like = |other: &Message| {
            other.device == message.device && other.up == message.up && is_chunk(&other.payload) == chunk
        };
        let most = if chunk { CHUNKS_MAX } else { OTHERS_MAX };
        if self.messages.iter().filter(|other| like(other)).count() >= most
            && let Some(oldest) = self.messages.iter().position(like)
        {
            self.messages.remove(oldest);
        }
        self.messages.push_back(message);
    }
}

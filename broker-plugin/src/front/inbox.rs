//! What devices send to the service, in a short queue that is fair between connections.
//!
//! A connection waits for its place, with one message, and reads nothing meanwhile. Places are given in the order in
//! which connections began to wait: whoever sends without end gets one place in each round, like everybody else.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

/// A message of a device to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FromDevice {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Inbox {
    places: mpsc::Sender<FromDevice>,
    /// Until the service has taken it.
    messages: Mutex<Option<mpsc::Receiver<FromDevice>>>,
}

/// The service has stopped listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceGone;

impl Inbox {
    pub(crate) fn new() -> Self {
        let (places, messages) = mpsc::channel(INBOX_MESSAGES);
        Self { places, messages: Mutex::new(Some(messages)) }
    }

    /// Waits for a place, and puts the message there.
    pub(crate) async fn send(&self, message: FromDevice) -> Result<(), ServiceGone> {
        self.places.send(message).await.map_err(|_| ServiceGone)
    }

    /// The service's end; `None` where it was taken before.
    pub(crate) fn open(&self) -> Option<mpsc::Receiver<FromDevice>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Messages in the queue; the service takes 64 at a time.
pub(crate) const INBOX_MESSAGES: usize = 256;

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;

    fn message(text: &str) -> FromDevice {
        FromDevice { topic: Bytes::new(), payload: Bytes::copy_from_slice(text.as_bytes()) }
    }

    #[tokio::test]
    async fn a_connection_that_sends_without_end_gets_one_place_in_each_round() {
        let inbox = Arc::new(Inbox::new());
        let mut messages = inbox.open().unwrap();
        assert!(inbox.open().is_none());
        let send = |who: &'static str| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move { while inbox.send(message(who)).await.is_ok() {} })
        };
        let flood = send("flood");
        while inbox.places.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        let others = [send("one"), send("two")];
        tokio::task::yield_now().await;
        for _ in 0..INBOX_MESSAGES {
            assert_eq!(messages.recv().await.unwrap(), message("flood"));
            tokio::task::yield_now().await;
        }
        // From here on everybody has waited.
        let mut got = Vec::new();
        for _ in 0..300 {
            got.push(messages.recv().await.unwrap());
            tokio::task::yield_now().await;
        }
        let of = |who| got.iter().filter(|one| **one == message(who)).count();
        for who in ["flood", "one", "two"] {
            assert!((90..=110).contains(&of(who)), "{who}: {}", of(who));
        }
        drop(messages);
        for task in [flood].into_iter().chain(others) {
            task.await.unwrap();
        }
    }
}

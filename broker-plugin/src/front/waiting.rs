//! Sockets that have not been let in yet: a bounded number, in which the oldest makes room for the newest.
//!
//! A client that connects and says nothing costs a descriptor until its time is up. To turn newcomers away
//! when the room is full would hand the door to whoever fills it; the one that has been silent for longest is
//! the least likely to be a device.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// The waiting room.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    places: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next_number: u64,
    /// By order of arrival; to drop the sender is to tell the socket to leave.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place in the room; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    evicted: oneshot::Receiver<()>,
    room: Arc<WaitingRoom>,
}

impl WaitingRoom {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, inside: Mutex::default() })
    }

    /// Takes a place; where the room is full, the oldest has to leave.
    pub(crate) fn enter(self: &Arc<Self>) -> Ticket {
        let (stay, evicted) = oneshot::channel();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        while inside.waiting.len() >= self.places && inside.waiting.pop_first().is_some() {}
        let number = inside.next_number;
        inside.next_number += 1;
        inside.waiting.insert(number, stay);
        Ticket { number, evicted, room: Arc::clone(self) }
    }
}

impl Ticket {
    /// Waits until this place is needed by a newer socket.
    pub(crate) async fn evicted(&mut self) {
        let _dropped = (&mut self.evicted).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = self.room.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_silent_socket_makes_room() {
        let room = WaitingRoom::new(2);
        let mut first = room.enter();
        let second = room.enter();
        let _third = room.enter();
        first.evicted().await;
        drop(second);
        let mut fourth = room.enter();
        assert_eq!(room.inside.lock().unwrap().waiting.len(), 2);
        tokio::select! {
            biased;
            () = fourth.evicted() => panic!("there was room"),
            () = core::future::ready(()) => {}
        }
    }
}

//! Sockets that have not been let in yet: a bounded number, shared by address.
//!
//! A client that connects and says nothing costs a descriptor until its time is up. To turn newcomers away
//! when the room is full would hand the door to whoever fills it. So the address that has most sockets here gives up the
//! one that has waited for longest: a host that fills the room pushes out its own sockets.

use alloc::sync::Arc;
use core::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::shares::Shares;

/// The waiting room.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    /// To drop the sender is to tell the socket to leave.
    waiting: Mutex<Shares<oneshot::Sender<()>>>,
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
        Arc::new(Self { waiting: Mutex::new(Shares::new(places)) })
    }

    /// Takes a place; where the room is full, somebody of the address with most of them has to leave.
    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Ticket {
        let (stay, evicted) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, _told_to_leave) = waiting.enter(peer.into(), stay);
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
        let mut waiting = self.room.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let _told_before = waiting.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1883)
    }

    async fn is_told_to_leave(ticket: &mut Ticket) -> bool {
        tokio::select! {
            biased;
            () = ticket.evicted() => true,
            () = core::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn the_longest_silent_socket_makes_room() {
        let room = WaitingRoom::new(2);
        let peer = from("192.0.2.1");
        let mut first = room.enter(peer);
        let second = room.enter(peer);
        let _third = room.enter(peer);
        first.evicted().await;
        drop(second);
        let mut fourth = room.enter(peer);
        assert_eq!(room.waiting.lock().unwrap().len(), 2);
        assert!(!is_told_to_leave(&mut fourth).await, "there was room");
    }

    #[tokio::test]
    async fn a_host_that_fills_the_waiting_room_pushes_out_nobody_but_itself() {
        let room = WaitingRoom::new(8);
        let mut slow = room.enter(from("192.0.2.1"));
        let mut flood: Vec<Ticket> = (0..3500).map(|_| room.enter(from("198.51.100.7"))).collect();
        assert!(!is_told_to_leave(&mut slow).await);
        let mut late = room.enter(from("192.0.2.2"));
        let _more: Vec<Ticket> = (0..3500).map(|_| room.enter(from("198.51.100.7"))).collect();
        assert!(!is_told_to_leave(&mut slow).await && !is_told_to_leave(&mut late).await);
        assert!(is_told_to_leave(flood.last_mut().unwrap()).await);
    }
}

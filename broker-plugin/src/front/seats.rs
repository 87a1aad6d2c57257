//! Which clients are connected.
//!
//! Each client has a *seat*. A new connection of the same client tells the one before it to leave, and gets the
//! seat when that one has gone and the router has forgotten its link, if it had one. Seats are never freed: the
//! router keeps logs for every device that has used a topic of the application, so that the number of devices ever
//! seen must have a limit anyway.

use alloc::sync::Arc;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, watch};
use whimbrel_protocol::ids::DeviceId;

use super::access::Role;

/// All seats.
#[derive(Debug)]
pub(crate) struct Seats {
    devices_max: usize,
    devices: Mutex<HashMap<DeviceId, [Arc<Seat>; 2]>>,
}

/// The place of one client.
#[derive(Debug)]
struct Seat {
    /// Number of the newest connection that wants it.
    newest: watch::Sender<u64>,
    taken: Arc<tokio::sync::Mutex<()>>,
}

/// A connection's claim on the seat of its client.
#[derive(Debug)]
pub(crate) struct Claim {
    seat: Arc<Seat>,
    number: u64,
    newest: watch::Receiver<u64>,
}

/// A seat that is sat on; dropping it frees it.
pub(crate) type Taken = OwnedMutexGuard<()>;

impl Seats {
    pub(crate) fn new(devices_max: usize) -> Self {
        Self { devices_max, devices: Mutex::default() }
    }

    /// Claims the seat of a client and tells whoever sits there to leave. `None` if the device is new and
    /// `devices_max` have been seen.
    pub(crate) fn claim(&self, device: &DeviceId, role: Role) -> Option<Claim> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if !devices.contains_key(device) && devices.len() >= self.devices_max {
            return None;
        }
        let [own, agent] = devices.entry(device.clone()).or_insert_with(|| [Seat::new(), Seat::new()]);
        let seat = Arc::clone(match role {
            Role::Device => own,
            Role::Agent => agent,
        });
        seat.newest.send_modify(|number| *number += 1);
        let newest = seat.newest.subscribe();
        let number = *newest.borrow();
        Some(Claim { seat, number, newest })
    }
}

impl Seat {
    fn new() -> Arc<Self> {
        Arc::new(Self { newest: watch::Sender::new(0), taken: Arc::default() })
    }
}

impl Claim {
    /// Waits for the seat; `None` as soon as a newer connection wants it too: that one may sit there already.
    pub(crate) async fn take(&mut self) -> Option<Taken> {
        let free = Arc::clone(&self.seat.taken).lock_owned();
        tokio::select! {
            biased;
            () = self.superseded() => None,
            taken = free => Some(taken),
        }
    }

    /// Waits until a newer connection wants the seat.
    pub(crate) async fn superseded(&mut self) {
        while *self.newest.borrow_and_update() == self.number {
            if self.newest.changed().await.is_err() {
                core::future::pending::<()>().await; // The seat outlives its claims.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    #[tokio::test]
    async fn the_newest_of_many_connections_gets_the_seat_and_the_others_leave() {
        let seats = Seats::new(10);
        let mut first = seats.claim(&device("m1"), Role::Device).unwrap();
        let seat = first.take().await.unwrap();
        let mut second = seats.claim(&device("m1"), Role::Device).unwrap();
        let mut third = seats.claim(&device("m1"), Role::Device).unwrap();
        first.superseded().await;
        drop(seat);
        assert!(second.take().await.is_none());
        assert!(third.take().await.is_some());
    }

    #[tokio::test]
    async fn a_connection_that_was_overtaken_on_its_way_to_the_seat_does_not_wait_for_it() {
        let seats = Seats::new(10);
        let mut slow = seats.claim(&device("m1"), Role::Device).unwrap();
        let mut newest = seats.claim(&device("m1"), Role::Device).unwrap();
        let _seat = newest.take().await.unwrap();
        assert!(slow.take().await.is_none());
    }

    #[tokio::test]
    async fn a_devices_own_client_and_its_agent_do_not_take_each_others_seat() {
        let seats = Seats::new(10);
        let mut own = seats.claim(&device("m1"), Role::Device).unwrap();
        let _own = own.take().await.unwrap();
        let mut agent = seats.claim(&device("m1"), Role::Agent).unwrap();
        assert!(agent.take().await.is_some());
        // A device that is called like another's agent has a seat of its own.
        let mut other = seats.claim(&device("m1-ota"), Role::Device).unwrap();
        assert!(other.take().await.is_some());
    }

    #[test]
    fn new_devices_beyond_the_limit_are_refused_and_known_ones_are_not() {
        let seats = Seats::new(2);
        for id in ["m1", "m2", "m1"] {
            assert!(seats.claim(&device(id), Role::Device).is_some(), "{id}");
        }
        assert!(seats.claim(&device("m3"), Role::Device).is_none());
        assert!(seats.claim(&device("m2"), Role::Agent).is_some());
    }
}

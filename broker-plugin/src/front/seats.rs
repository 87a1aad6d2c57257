//! Which clients are connected, and what the door keeps for them.
//!
//! Each client has a *seat*. A new connection of the same client tells the one before it to leave, and gets the
//! seat when that one's link is gone. Devices that the operator knows have seats for good, up to a limit that
//! counts only them. All others, *strangers*, share a small pool: when it is full, the longest idle stranger of the address
//! that has most of them leaves. So nobody who invents device ids keeps a device of the fleet out, and a device
//! that is new gets in at any time.

use alloc::sync::Arc;
use core::net::SocketAddr;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, watch};
use whimbrel_protocol::ids::DeviceId;

use super::access::{Access, Role};
use super::shares::Shares;

/// All seats.
#[derive(Debug)]
pub(crate) struct Seats {
    devices_max: usize,
    devices: Mutex<Devices>,
}

#[derive(Debug)]
struct Devices {
    known: HashMap<DeviceId, Pair>,
    strangers: HashMap<DeviceId, Stranger>,
    /// The strangers' places, by the order in which they were heard.
    pool: Shares<DeviceId>,
    /// Seats of strangers that were told to leave and may not have done so yet. Without them the same client
    /// could sit twice.
    leaving: HashMap<DeviceId, Pair>,
    /// At so many of them it is looked who has left.
    leaving_many: usize,
}

/// The seats of a device's own client and of its agent.
type Pair = [Arc<Seat>; 2];

#[derive(Debug)]
struct Stranger {
    seats: Pair,
    number: u64,
}

/// The place of one client.
#[derive(Debug)]
struct Seat {
    /// Number of the newest connection that wants it, or [`NOBODY`].
    newest: watch::Sender<u64>,
    taken: Arc<tokio::sync::Mutex<()>>,
}

/// The number of no connection: whoever sits there has to leave.
const NOBODY: u64 = 0;

/// A connection's claim on the seat of its client.
#[derive(Debug)]
pub(crate) struct Claim {
    seat: Arc<Seat>,
    number: u64,
    newest: watch::Receiver<u64>,
    /// Its device was a stranger when it came.
    pub(crate) is_stranger: bool,
}

/// Why a connection has to give up its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The same client has connected again.
    ToNewer,
    /// A stranger needed the place of the stranger that was idle for longest.
    ToStranger,
}

/// A seat that is sat on; dropping it frees it.
pub(crate) type Taken = OwnedMutexGuard<()>;

impl Seats {
    pub(crate) fn new(devices_max: usize, strangers_max: usize) -> Self {
        let devices = Devices {
            known: HashMap::new(),
            strangers: HashMap::new(),
            pool: Shares::new(strangers_max),
            leaving: HashMap::new(),
            leaving_many: LEAVING_MANY,
        };
        Self { devices_max, devices: Mutex::new(devices) }
    }

    /// Claims the seat of a client and tells whoever sits there to leave. `None` if the operator knows the device and
    /// there are `devices_max` others.
    pub(crate) fn claim(
        &self,
        device: &DeviceId,
        role: Role,
        peer: SocketAddr,
        access: &dyn Access,
    ) -> Option<Claim> {
        let is_stranger = !access.is_known(device);
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let [own, agent] = if is_stranger {
            devices.stranger(device, peer, access)
        } else {
            devices.known(device, self.devices_max, access)?
        };
        let seat = match role {
            Role::Device => own,
            Role::Agent => agent,
        };
        // Never the number of nobody, also after more connections than a device lives to make.
        seat.newest.send_modify(|number| *number = number.wrapping_add(1).max(NOBODY + 1));
        let newest = seat.newest.subscribe();
        let number = *newest.borrow();
        Some(Claim { seat, number, newest, is_stranger })
    }

    /// A stranger has said something, so that others are idle for longer than it.
    pub(crate) fn heard(&self, device: &DeviceId) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Devices { strangers, pool, .. } = &mut *devices;
        if let Some(stranger) = strangers.get_mut(device)
            && let Some(number) = pool.used(stranger.number)
        {
            stranger.number = number;
        }
    }
}

impl Devices {
    /// The seats of a device that the operator knows.
    fn known(&mut self, device: &DeviceId, devices_max: usize, access: &dyn Access) -> Option<Pair> {
        if let Some(seats) = self.known.get(device) {
            return Some(seats.clone());
        }
        if self.known.len() >= devices_max {
            self.known.retain(|id, seats| access.is_known(id) || is_used(seats));
        }
        if self.known.len() >= devices_max {
            return None;
        }
        let seats = self.former(device);
        self.known.insert(device.clone(), seats.clone());
        Some(seats)
    }

    /// The seats of a stranger; another one may have to leave.
    fn stranger(&mut self, device: &DeviceId, peer: SocketAddr, access: &dyn Access) -> Pair {
        if let Some(stranger) = self.strangers.get_mut(device) {
            stranger.number = self.pool.used(stranger.number).unwrap_or(stranger.number);
            return stranger.seats.clone();
        }
        // It may have been known until it was reset.
        let seats = self.known.remove(device).unwrap_or_else(|| self.former(device));
        let (number, gone) = self.pool.enter(peer.into(), device.clone());
        self.strangers.insert(device.clone(), Stranger { seats: seats.clone(), number });
        if let Some((id, Stranger { seats, .. })) = gone.and_then(|id| self.strangers.remove_entry(&id)) {
            // Accepted while it was connected, it stays; its next connection has a seat for good.
            if !access.is_known(&id) {
                seats.iter().for_each(|seat| seat.newest.send_modify(|number| *number = NOBODY));
            }
            self.keep_until_left(id, seats);
        }
        seats
    }

    /// The seats that a device had in another capacity, or new ones.
    fn former(&mut self, device: &DeviceId) -> Pair {
        if let Some(Stranger { seats, number }) = self.strangers.remove(device) {
            let _left_the_pool = self.pool.leave(number);
            return seats;
        }
        self.leaving.remove(device).unwrap_or_else(|| [Seat::new(), Seat::new()])
    }

    fn keep_until_left(&mut self, device: DeviceId, seats: Pair) {
        self.leaving.insert(device, seats);
        if self.leaving.len() >= self.leaving_many {
            self.leaving.retain(|_, seats| is_used(seats));
            // Looking costs as much as there are, so that it is done only after they have doubled.
            self.leaving_many = LEAVING_MANY.max(2 * self.leaving.len());
        }
    }
}

/// Whether anybody sits on one of the seats, or waits for it.
fn is_used(seats: &Pair) -> bool {
    seats.iter().any(|seat| Arc::strong_count(seat) > 1 || Arc::strong_count(&seat.taken) > 1)
}

/// At this many seats of strangers who were told to leave it is looked for the first time who has left.
const LEAVING_MANY: usize = 64;

impl Seat {
    fn new() -> Arc<Self> {
        Arc::new(Self { newest: watch::Sender::new(NOBODY), taken: Arc::default() })
    }
}

impl Claim {
    /// Waits for the seat. Gives up as soon as a newer connection wants it too: that one may sit there already.
    pub(crate) async fn take(&mut self) -> Result<Taken, GivenUp> {
        let free = Arc::clone(&self.seat.taken).lock_owned();
        tokio::select! {
            biased;
            why = self.given_up() => Err(why),
            taken = free => Ok(taken),
        }
    }

    /// Waits until the seat has to be given up.
    pub(crate) async fn given_up(&mut self) -> GivenUp {
        loop {
            match *self.newest.borrow_and_update() {
                number if number == self.number => {}
                NOBODY => return GivenUp::ToStranger,
                _ => return GivenUp::ToNewer,
            }
            if self.newest.changed().await.is_err() {
                core::future::pending::<()>().await; // The seat outlives its claims.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use whimbrel_protocol::ids::GroupName;

    use super::super::access::{Login, Refusal};
    use super::*;

    fn device(id: &str) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    /// Knows all devices but those whose names begin with `x`, until they are accepted.
    #[derive(Default)]
    struct Operator {
        accepted: Mutex<HashSet<DeviceId>>,
    }

    impl Access for Operator {
        fn login(&self, _login: &Login<'_>) -> Result<(), Refusal> {
            Ok(())
        }

        fn is_known(&self, device: &DeviceId) -> bool {
            !device.as_str().starts_with('x') || self.accepted.lock().unwrap().contains(device)
        }

        fn in_group(&self, _device: &DeviceId, _group: &GroupName) -> bool {
            true
        }
    }

    struct Door {
        seats: Seats,
        operator: Operator,
    }

    impl Door {
        fn new(devices_max: usize, strangers_max: usize) -> Self {
            Self { seats: Seats::new(devices_max, strangers_max), operator: Operator::default() }
        }

        fn claim(&self, id: &str, role: Role) -> Option<Claim> {
            self.claim_from(id, role, "192.0.2.1")
        }

        fn claim_from(&self, id: &str, role: Role, address: &str) -> Option<Claim> {
            let peer = SocketAddr::new(address.parse().unwrap(), 1);
            self.seats.claim(&device(id), role, peer, &self.operator)
        }
    }

    async fn has_to_leave(claim: &mut Claim) -> Option<GivenUp> {
        tokio::select! {
            biased;
            why = claim.given_up() => Some(why),
            () = core::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn the_newest_of_many_connections_gets_the_seat_and_the_others_leave() {
        let door = Door::new(10, 10);
        let mut first = door.claim("m1", Role::Device).unwrap();
        let seat = first.take().await.unwrap();
        let mut second = door.claim("m1", Role::Device).unwrap();
        let mut third = door.claim("m1", Role::Device).unwrap();
        assert_eq!(first.given_up().await, GivenUp::ToNewer);
        drop(seat);
        assert_eq!(second.take().await.unwrap_err(), GivenUp::ToNewer);
        assert!(third.take().await.is_ok());
    }

    #[tokio::test]
    async fn a_connection_that_was_overtaken_on_its_way_to_the_seat_does_not_wait_for_it() {
        let door = Door::new(10, 10);
        let mut slow = door.claim("m1", Role::Device).unwrap();
        let mut newest = door.claim("m1", Role::Device).unwrap();
        let _seat = newest.take().await.unwrap();
        assert!(slow.take().await.is_err());
    }

    #[tokio::test]
    async fn a_devices_own_client_and_its_agent_do_not_take_each_others_seat() {
        let door = Door::new(10, 10);
        let mut own = door.claim("m1", Role::Device).unwrap();
        let _own = own.take().await.unwrap();
        let mut agent = door.claim("m1", Role::Agent).unwrap();
        assert!(agent.take().await.is_ok());
        // A device that is called like another's agent has a seat of its own.
        let mut other = door.claim("m1-ota", Role::Device).unwrap();
        assert!(other.take().await.is_ok());
    }

    #[test]
    fn new_devices_beyond_the_limit_are_refused_and_known_ones_are_not() {
        let door = Door::new(2, 10);
        for id in ["m1", "m2", "m1"] {
            assert!(door.claim(id, Role::Device).is_some(), "{id}");
        }
        assert!(door.claim("m3", Role::Device).is_none());
        assert!(door.claim("m2", Role::Agent).is_some());
    }

    #[tokio::test]
    async fn invented_ids_take_no_seat_of_a_device_and_push_out_each_other() {
        let door = Door::new(2, 4);
        let mut m1 = door.claim("m1", Role::Device).unwrap();
        let mut pending = door.claim_from("x-pending", Role::Device, "192.0.2.2").unwrap();
        let mut invented: Vec<Claim> =
            (0..5000).map(|number| door.claim(&format!("x{number}"), Role::Device).unwrap()).collect();
        assert_eq!(has_to_leave(&mut m1).await, None);
        assert_eq!(has_to_leave(&mut pending).await, None, "it comes from elsewhere");
        for (number, claim) in invented.iter_mut().enumerate() {
            let expected = (number < 4997).then_some(GivenUp::ToStranger);
            assert_eq!(has_to_leave(claim).await, expected, "{number}");
        }
        assert!(door.claim("m2", Role::Device).is_some(), "never seen before, and the operator knows it");
        drop(invented);
        let devices = door.seats.devices.lock().unwrap();
        assert_eq!((devices.known.len(), devices.strangers.len(), devices.pool.len()), (2, 4, 4));
        assert!(devices.leaving.len() <= 5000);
    }

    #[tokio::test]
    async fn the_stranger_that_was_silent_for_longest_goes() {
        let door = Door::new(1, 2);
        let mut first = door.claim("x1", Role::Device).unwrap();
        let mut second = door.claim("x2", Role::Device).unwrap();
        door.seats.heard(&device("x1"));
        let _third = door.claim("x3", Role::Device).unwrap();
        assert_eq!(has_to_leave(&mut first).await, None);
        assert_eq!(has_to_leave(&mut second).await, Some(GivenUp::ToStranger));
    }

    #[tokio::test]
    async fn a_stranger_that_was_told_to_leave_and_comes_again_does_not_sit_twice() {
        let door = Door::new(1, 1);
        let mut first = door.claim("x1", Role::Device).unwrap();
        let seat = first.take().await.unwrap();
        let _other = door.claim("x2", Role::Device).unwrap();
        assert_eq!(first.given_up().await, GivenUp::ToStranger);
        let mut again = door.claim("x1", Role::Device).unwrap();
        tokio::select! {
            biased;
            taken = again.take() => panic!("{taken:?} while the seat is sat on"),
            () = core::future::ready(()) => {}
        }
        drop((first, seat));
        assert!(again.take().await.is_ok());
    }

    #[tokio::test]
    async fn a_stranger_that_is_accepted_meanwhile_stays_and_one_that_is_reset_is_a_stranger_again() {
        let door = Door::new(1, 1);
        let mut first = door.claim("x1", Role::Device).unwrap();
        door.operator.accepted.lock().unwrap().insert(device("x1"));
        let mut second = door.claim("x2", Role::Device).unwrap();
        assert_eq!(has_to_leave(&mut first).await, None);
        assert!(!door.claim("x1", Role::Agent).unwrap().is_stranger);
        assert!(door.claim("m1", Role::Agent).is_none(), "the one place of known devices is taken");
        drop(first);
        door.operator.accepted.lock().unwrap().clear();
        assert!(door.claim("m1", Role::Agent).is_some(), "who is no longer known makes room");
        assert!(door.claim("x1", Role::Agent).unwrap().is_stranger);
        assert_eq!(has_to_leave(&mut second).await, Some(GivenUp::ToStranger));
    }

    #[test]
    fn seats_of_strangers_who_have_left_are_not_kept() {
        let door = Door::new(1, 1);
        for number in 0..1000 {
            drop(door.claim(&format!("x{number}"), Role::Device));
        }
        assert!(door.seats.devices.lock().unwrap().leaving.len() <= LEAVING_MANY);
    }
}

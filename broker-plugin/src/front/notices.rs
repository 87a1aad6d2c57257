//! What the operator has to know of clients that are not served: a log line for each kind, at most once a minute, with
//! how many there were.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use whimbrel_protocol::ids::DeviceId;

use super::access::Refusal;
use crate::clock;

/// The lines of one door.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    login: Notice,
    device: Notice,
    place: Notice,
    stranger: Notice,
    waiting: Notice,
}

/// One kind of line.
#[derive(Debug, Default)]
struct Notice(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    /// What happened since then.
    unsaid: u64,
}

impl Notices {
    pub(crate) fn login_refused(&self, device: &DeviceId, peer: SocketAddr, refusal: Refusal) {
        let Some(count) = self.login.due(clock::now()) else { return };
        match refusal {
            Refusal::BadPassword => tracing::warn!(
                %device, %peer, count,
                "logins refused: the password is wrong or there is none; `whimbrel device password ID` makes one"
            ),
            Refusal::NotAuthorized | Refusal::Busy => {
                tracing::warn!(%device, %peer, count, reason = ?refusal, "logins refused");
            }
        }
    }

    pub(crate) fn no_seat(&self, device: &DeviceId, limit: usize) {
        if let Some(count) = self.device.due(clock::now()) {
            tracing::warn!(%device, limit, count, "devices refused: raise limits.devices");
        }
    }

    pub(crate) fn no_place(&self, device: &DeviceId, limit: usize) {
        if let Some(count) = self.place.due(clock::now()) {
            tracing::warn!(%device, limit, count, "devices refused: raise limits.connections");
        }
    }

    pub(crate) fn stranger_made_room(&self, device: &DeviceId, peer: SocketAddr) {
        if let Some(count) = self.stranger.due(clock::now()) {
            tracing::warn!(
                %device, %peer, count,
                "devices that are not accepted make room for each other: limits.strangers are connected"
            );
        }
    }

    pub(crate) fn made_room_before_connack(&self, peer: SocketAddr) {
        if let Some(count) = self.waiting.due(clock::now()) {
            tracing::warn!(%peer, count, "sockets closed before CONNACK: too many come at once from this address");
        }
    }
}

impl Notice {
    /// It has happened again: how often since the last line, if it is time for one.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.unsaid += 1;
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            return None;
        }
        said.last = Some(now);
        Some(core::mem::take(&mut said.unsaid))
    }
}

/// Time between two lines of one kind.
const EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_is_said_once_a_minute_with_its_number() {
        let notice = Notice::default();
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(notice.due(at(0)), Some(1));
        assert_eq!(notice.due(at(1)), None);
        assert_eq!(notice.due(at(59)), None);
        assert_eq!(notice.due(at(60)), Some(3));
        assert_eq!(notice.due(at(61)), None);
    }
}

//! Whether another device has this one's id, or the service has accepted another key for it: what people are told.

use alloc::collections::VecDeque;

use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{DeviceId, KeyId};
use whimbrel_protocol::time::Instant;

/// What suggests that this id is not this device's alone.
#[derive(Debug, Default)]
pub(crate) struct SameId {
    /// The key that the service has accepted, if it is not this device's.
    accepted: Option<KeyId>,
    /// When the broker closed connections, the last few.
    closed: VecDeque<Instant>,
}

/// So many connections that the broker closes, one soon after the other, are told of.
const CLOSED_MAX: usize = 3;
/// Within this time.
const CLOSED_WITHIN_MS: u64 = 600_000;

impl SameId {
    /// The service answered. If it has accepted another key, it says so next.
    pub(crate) const fn answered(&mut self) {
        self.accepted = None;
    }

    /// The service has accepted another key.
    pub(crate) const fn other_key(&mut self, accepted: KeyId) {
        self.accepted = Some(accepted);
    }

    /// The broker closed a connection, as it does when the same client connects again.
    pub(crate) fn closed(&mut self, now: Instant) {
        if self.closed.len() >= CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(now);
    }

    /// What people are told: a line each.
    pub(crate) fn in_words(&self, device: &DeviceId, own: Option<Fingerprint>, now: Instant) -> Vec<String> {
        let other = self.accepted.map(|accepted| other_key(device, own, accepted));
        [other, self.closed_again(device, now)].into_iter().flatten().collect()
    }

    /// Says that the broker closes one connection after the other, if it does.
    pub(crate) fn closed_again(&self, device: &DeviceId, now: Instant) -> Option<String> {
        let first = self.closed.front().filter(|_| self.closed.len() >= CLOSED_MAX)?;
        let minutes = CLOSED_WITHIN_MS / 60_000;
        (now.millis_since(*first) <= CLOSED_WITHIN_MS).then(|| {
            format!(
                "the broker closed {CLOSED_MAX} connections within {minutes} min: does another device, or a copy of \
                 this one, have the id {device} too?"
            )
        })
    }
}

fn other_key(device: &DeviceId, own: Option<Fingerprint>, accepted: KeyId) -> String {
    let [a, b, c, d] = accepted.0;
    let own = own.map_or_else(|| "FINGERPRINT".to_owned(), |own| own.to_string());
    format!(
        "the service has accepted another key for {device} ({a:02x}{b:02x}-{c:02x}{d:02x}-...), not this one's \
         ({own}), and reports do not count: if this is the right device, `whimbrel device reset {device}`, then \
         `whimbrel device accept {device} --fingerprint {own}`; if another device has this id, give one of them \
         another"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "meter-17";

    fn words(same: &SameId, ms: u64) -> Vec<String> {
        let own = Some("9f1c-02aa-7d3e-51b0".parse().unwrap());
        same.in_words(&DeviceId::new(DEVICE).unwrap(), own, Instant::from_millis(ms))
    }

    #[test]
    fn a_device_with_another_key_than_the_accepted_one_says_which_and_what_to_do() {
        let mut same = SameId::default();
        same.answered();
        assert_eq!(words(&same, 0), Vec::<String>::new());
        same.other_key(KeyId([0x1a, 2, 3, 0xff]));
        let said = words(&same, 0).join("\n");
        for part in [
            "1a02-03ff-",
            "`whimbrel device reset meter-17`",
            "`whimbrel device accept meter-17 --fingerprint 9f1c-02aa-7d3e-51b0`",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        same.answered();
        assert_eq!(words(&same, 0), Vec::<String>::new(), "its own key was accepted");
    }

    #[test]
    fn a_device_that_is_taken_over_again_and_again_asks_who_else_has_its_id() {
        let mut same = SameId::default();
        let closed = |same: &mut SameId, ms| same.closed(Instant::from_millis(ms));
        closed(&mut same, 0);
        closed(&mut same, 30_000);
        assert_eq!(words(&same, 30_000), Vec::<String>::new());
        closed(&mut same, 60_000);
        let said = words(&same, 60_000).join("\n");
        assert!(said.contains("have the id meter-17 too?"), "{said}");
        // Long apart they say nothing.
        closed(&mut same, 3_000_000);
        assert_eq!(words(&same, 3_000_000), Vec::<String>::new());
    }
}

//! The messages of QoS 1 that a client has not acknowledged: their numbers, and how many there may be.
//!
//! Clients may acknowledge in any order (MQTT 3.1.1 section 4.6 asks for order, few check), and hostile ones send
//! what they like.

/// Messages that a client has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    last: u16,
    outstanding: Vec<u16>,
}

impl InFlight {
    /// Whether one more may be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.outstanding.len() < IN_FLIGHT_MAX.into()
    }

    /// The number of a message that is sent now; not one that is outstanding.
    pub(crate) fn send(&mut self) -> u16 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.outstanding.contains(&self.last) {
                self.outstanding.push(self.last);
                return self.last;
            }
        }
    }

    /// The client has acknowledged; false where nothing is outstanding under this number.
    pub(crate) fn acknowledged(&mut self, pkid: u16) -> bool {
        let known = self.outstanding.iter().position(|sent| *sent == pkid);
        known.map(|at| self.outstanding.swap_remove(at)).is_some()
    }
}

/// Messages of QoS 1 that are sent before the first acknowledgement.
pub(crate) const IN_FLIGHT_MAX: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(in_flight: &mut InFlight) -> Vec<u16> {
        let mut sent = Vec::new();
        while in_flight.has_room() {
            sent.push(in_flight.send());
        }
        sent
    }

    #[test]
    fn acknowledgements_in_any_order_make_room() {
        let mut in_flight = InFlight::default();
        assert_eq!(fill(&mut in_flight), (1..=100).collect::<Vec<_>>());
        assert!(in_flight.acknowledged(77) && in_flight.acknowledged(1));
        assert_eq!(fill(&mut in_flight), [101, 102]);
    }

    #[test]
    fn acknowledgements_that_nobody_asked_for_are_strangers() {
        let mut in_flight = InFlight::default();
        assert!(!in_flight.acknowledged(1));
        assert_eq!(in_flight.send(), 1);
        assert!(
            !in_flight.acknowledged(0) && !in_flight.acknowledged(2) && !in_flight.acknowledged(u16::MAX)
        );
        assert!(in_flight.acknowledged(1));
        assert!(!in_flight.acknowledged(1), "twice");
    }

    #[test]
    fn numbers_come_round_again_and_pass_over_one_that_is_outstanding() {
        let mut in_flight = InFlight::default();
        for _ in 0..5 {
            assert!(in_flight.send() > 0);
        }
        for number in [1, 2, 4, 5] {
            assert!(in_flight.acknowledged(number));
        }
        let mut seen = Vec::new();
        for _ in 0..u32::from(u16::MAX) + 10 {
            let number = in_flight.send();
            seen.push(number);
            assert!(in_flight.acknowledged(number));
        }
        assert!(!seen.contains(&0) && !seen.contains(&3), "3 is outstanding and 0 is no number");
        assert!(in_flight.acknowledged(3));
    }
}

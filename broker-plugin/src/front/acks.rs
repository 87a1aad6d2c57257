//! Puts the acknowledgements of a client in the order in which the router wants them.
//!
//! The router drops a link whose PUBACKs are out of order or unknown. Clients may send them in any order (MQTT
//! 3.1.1 section 4.6 asks for order, few check), and hostile ones send what they like.

use alloc::collections::VecDeque;

/// Messages of QoS 1 that a client has not acknowledged, oldest first. The router sends at most 100 before the
/// first acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    outstanding: VecDeque<(u16, Acked)>,
}

type Acked = bool;

impl Acks {
    /// A message was sent to the client.
    pub(crate) fn sent(&mut self, pkid: u16) {
        self.outstanding.push_back((pkid, false));
    }

    /// The client has acknowledged; false where nothing is outstanding under this number.
    pub(crate) fn acknowledged(&mut self, pkid: u16) -> bool {
        match self.outstanding.iter_mut().find(|(sent, acked)| *sent == pkid && !acked) {
            Some((_, acked)) => {
                *acked = true;
                true
            }
            None => false,
        }
    }

    /// The next acknowledgement that the router may see: the oldest message's.
    pub(crate) fn next_in_order(&mut self) -> Option<u16> {
        match self.outstanding.front() {
            Some(&(pkid, true)) => {
                self.outstanding.pop_front();
                Some(pkid)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order(acks: &mut Acks) -> Vec<u16> {
        core::iter::from_fn(|| acks.next_in_order()).collect()
    }

    #[test]
    fn acknowledgements_leave_in_the_order_of_the_messages() {
        let mut acks = Acks::default();
        (1..=5).for_each(|pkid| acks.sent(pkid));
        assert!(acks.acknowledged(3) && acks.acknowledged(2));
        assert!(in_order(&mut acks).is_empty());
        assert!(acks.acknowledged(1));
        assert_eq!(in_order(&mut acks), [1, 2, 3]);
        assert!(acks.acknowledged(5) && acks.acknowledged(4));
        assert_eq!(in_order(&mut acks), [4, 5]);
    }

    #[test]
    fn acknowledgements_that_nobody_asked_for_are_strangers() {
        let mut acks = Acks::default();
        assert!(!acks.acknowledged(1));
        acks.sent(1);
        assert!(!acks.acknowledged(0) && !acks.acknowledged(2) && !acks.acknowledged(u16::MAX));
        assert!(acks.acknowledged(1));
        assert!(!acks.acknowledged(1), "twice");
        assert_eq!(in_order(&mut acks), [1]);
        assert!(!acks.acknowledged(1), "after it has left");
    }

    #[test]
    fn numbers_may_come_round_again() {
        let mut acks = Acks::default();
        for round in 0..3 {
            for pkid in 1..=100 {
                acks.sent(pkid);
            }
            for pkid in (1..=100).rev() {
                assert!(acks.acknowledged(pkid), "{round} {pkid}");
            }
            assert_eq!(in_order(&mut acks), (1..=100).collect::<Vec<_>>());
        }
    }
}

//! A bounded number of places that clients share by where they come from.
//!
//! If all places are taken, the address that has most of them gives up the one that was used least recently. So a host
//! that fills the places only pushes out itself, while clients that all come through one proxy push out whoever has
//! been idle for longest.

use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;
use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;

/// Where a client comes from: an IPv4 address, or the first 64 bits of an IPv6 address, which one host has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin(IpAddr);

impl From<SocketAddr> for Origin {
    fn from(peer: SocketAddr) -> Self {
        Self(match peer.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The places, each with what its holder left there.
#[derive(Debug)]
pub(crate) struct Shares<T> {
    places: usize,
    next_number: u64,
    /// By the order of their last use.
    holders: BTreeMap<u64, (Origin, T)>,
    numbers: HashMap<Origin, BTreeSet<u64>>,
    /// Every origin by how many places it has, and by the number of the oldest.
    largest: BTreeSet<(usize, Reverse<u64>, Origin)>,
}

impl<T> Shares<T> {
    /// `places` of them, at least one.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places,
            next_number: 0,
            holders: BTreeMap::new(),
            numbers: HashMap::new(),
            largest: BTreeSet::new(),
        }
    }

    /// Takes a place. Returns its number, and what was left at the place that had to be given up for it.
    pub(crate) fn enter(&mut self, origin: Origin, left_here: T) -> (u64, Option<T>) {
        let number = self.insert(origin, left_here);
        let is_full = self.holders.len() > self.places;
        let given_up = is_full.then(|| self.largest.last().map(|&(_, Reverse(oldest), _)| oldest)).flatten();
        (number, given_up.and_then(|oldest| self.leave(oldest)))
    }

    /// Gives a place back; what was left there, if it was still held.
    pub(crate) fn leave(&mut self, number: u64) -> Option<T> {
        let (origin, left_here) = self.holders.remove(&number)?;
        self.change(origin, |numbers| {
            numbers.remove(&number);
        });
        Some(left_here)
    }

    /// A place was used now; returns its new number.
    pub(crate) fn used(&mut self, number: u64) -> Option<u64> {
        let &(origin, _) = self.holders.get(&number)?;
        self.leave(number).map(|left_here| self.insert(origin, left_here))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.holders.len()
    }

    fn insert(&mut self, origin: Origin, left_here: T) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.holders.insert(number, (origin, left_here));
        self.change(origin, |numbers| {
            numbers.insert(number);
        });
        number
    }

    fn change(&mut self, origin: Origin, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let rank =
            |numbers: &BTreeSet<u64>| numbers.first().map(|oldest| (numbers.len(), Reverse(*oldest), origin));
        let numbers = self.numbers.entry(origin).or_default();
        if let Some(before) = rank(numbers) {
            self.largest.remove(&before);
        }
        change(numbers);
        match rank(numbers) {
            Some(after) => {
                self.largest.insert(after);
            }
            None => {
                self.numbers.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        SocketAddr::new(text.parse().unwrap(), 1).into()
    }

    #[test]
    fn the_address_with_most_places_gives_up_its_oldest() {
        let mut shares = Shares::new(4);
        let (flood, meter) = (origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(shares.enter(meter, 0), (0, None));
        for number in 1..4 {
            assert_eq!(shares.enter(flood, number).1, None);
        }
        // The oldest of all belongs to somebody else, and stays.
        for number in 4..100 {
            assert_eq!(shares.enter(flood, number).1, Some(number - 3));
        }
        assert_eq!(shares.leave(0), Some(0));
        assert_eq!(shares.leave(0), None);
        assert_eq!((shares.len(), shares.enter(meter, 100).1), (3, None));
    }

    #[test]
    fn among_addresses_with_as_many_places_the_least_recently_used_goes() {
        let mut shares = Shares::new(3);
        for (number, address) in [(0, "192.0.2.1"), (1, "192.0.2.9"), (2, "192.0.2.5")] {
            assert_eq!(shares.enter(origin(address), number), (number, None));
        }
        assert_eq!(shares.used(0), Some(3));
        assert_eq!(shares.used(0), None, "it has another number now");
        for (address, goes) in [("192.0.2.7", 1), ("192.0.2.2", 2), ("192.0.2.3", 0)] {
            assert_eq!(shares.enter(origin(address), 9).1, Some(goes));
        }
    }

    #[test]
    fn one_place_belongs_to_the_newest() {
        let mut shares = Shares::new(1);
        assert_eq!(shares.enter(origin("192.0.2.9"), 1).1, None);
        assert_eq!(shares.enter(origin("192.0.2.1"), 2).1, Some(1));
        assert_eq!(shares.enter(origin("192.0.2.9"), 3).1, Some(2));
    }

    #[test]
    fn an_ipv6_host_is_one_origin_and_an_ipv4_host_is_the_same_in_both_forms() {
        assert_eq!(origin("2001:db8:1:2::7"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::7"), origin("2001:db8:1:3::7"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }
}

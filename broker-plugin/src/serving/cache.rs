//! Bytes that are kept as long as there is room for them.

use alloc::collections::VecDeque;
use core::hash::Hash;
use std::collections::HashMap;

use bytes::Bytes;

/// A cache of shared bytes with a limit on their sum. What was not used since it was last looked at goes first
/// (second chance): as good as least recently used, and a hit writes one flag.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    held: HashMap<K, Held>,
    queue: VecDeque<K>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Held {
    bytes: Bytes,
    used: bool,
}

impl<K: Copy + Eq + Hash> Cache<K> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { held: HashMap::new(), queue: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn find(&mut self, key: &K) -> Option<&Bytes> {
        let held = self.held.get_mut(key)?;
        held.used = true;
        Some(&held.bytes)
    }

    /// Keeps `bytes`, unless they are larger than the whole cache.
    pub(crate) fn keep(&mut self, key: K, bytes: Bytes) {
        if bytes.len() > self.bytes_max || self.held.contains_key(&key) {
            return;
        }
        while self.bytes + bytes.len() > self.bytes_max {
            self.make_room();
        }
        self.bytes += bytes.len();
        self.queue.push_back(key);
        self.held.insert(key, Held { bytes, used: false });
    }

    fn make_room(&mut self) {
        let Some(key) = self.queue.pop_front() else { return };
        match self.held.get_mut(&key) {
            Some(held) if held.used => {
                held.used = false;
                self.queue.push_back(key);
            }
            Some(held) => {
                self.bytes -= held.bytes.len();
                self.held.remove(&key);
            }
            None => {}
        }
    }

    /// Bytes that are kept.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    #[test]
    fn a_cache_never_holds_more_than_its_limit_and_what_is_used_stays() {
        let mut cache = Cache::new(100);
        cache.keep(0, of(10));
        for key in 1..1000 {
            assert!(cache.find(&0).is_some(), "{key}");
            cache.keep(key, of(10));
            assert!(cache.bytes() <= 100 && cache.held.len() <= 10 && cache.queue.len() <= 10);
        }
        assert!(cache.find(&1).is_none() && cache.find(&999).is_some());
    }

    #[test]
    fn a_cache_is_filled_to_its_last_byte() {
        let mut cache = Cache::new(100);
        (0..10).for_each(|key| cache.keep(key, of(10)));
        assert!((0..10).all(|key| cache.find(&key).is_some()));
        assert_eq!(cache.bytes(), 100);
        let mut cache = Cache::new(100);
        cache.keep(1, of(100));
        assert!(cache.find(&1).is_some());
        cache.keep(2, of(1));
        assert!(cache.find(&2).is_some());
        assert_eq!(cache.bytes(), 1);
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let mut cache = Cache::new(100);
        cache.keep(1, of(60));
        cache.keep(2, of(101));
        assert!(cache.find(&2).is_none() && cache.find(&1).is_some());
        cache.keep(1, of(50));
        assert_eq!(cache.bytes(), 60);
    }
}

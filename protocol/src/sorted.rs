//! Small collections in order, as sorted vectors.
//!
//! A session keeps tens of entries where it keeps any: at that size a sorted vector is as fast as a B-tree, and takes
//! 8 KB less flash on a Cortex-M4.

use alloc::vec::Vec;

/// Values by key, in ascending order of the keys.
#[derive(Clone, Debug)]
pub(crate) struct SortedMap<K, V>(Vec<(K, V)>);

/// Keys in ascending order, each once.
#[derive(Clone, Debug)]
pub(crate) struct SortedSet<K>(SortedMap<K, ()>);

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + Ord, V> SortedMap<K, V> {
    fn place(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(known, _)| *known)
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let at = self.place(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.place(key).is_ok()
    }

    /// Enters a value; the one that it replaces is given back.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(key) {
            Ok(at) => self.0.get_mut(at).map(|(_, known)| core::mem::replace(known, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.place(key).ok()?;
        Some(self.0.remove(at).1)
    }
}

impl<K> Default for SortedSet<K> {
    fn default() -> Self {
        Self(SortedMap::default())
    }
}

impl<K: Copy + Ord> SortedSet<K> {
    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = K> {
        self.0.0.iter().map(|(key, ())| *key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.0.contains(key)
    }

    pub(crate) fn insert(&mut self, key: K) {
        self.0.insert(key, ());
    }

    pub(crate) fn remove(&mut self, key: K) {
        self.0.remove(key);
    }
}

/// Sorts a few values in place, equal ones in the order that they had. The standard library's stable sort, made for
/// many, takes 4 KB of flash.
pub(crate) fn sort_few_by_key<T, K: Ord>(values: &mut [T], key: impl Fn(&T) -> K) {
    for end in 1..values.len() {
        let mut at = end;
        while let Some([before, this]) = at.checked_sub(1).and_then(|from| values.get_mut(from..=at))
            && key(before) > key(this)
        {
            core::mem::swap(before, this);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sorted_map_does_what_a_b_tree_does(
            steps in proptest::collection::vec((0..12_u8, any::<Option<u16>>()), 0..60),
        ) {
            let (mut map, mut model) = (SortedMap::default(), BTreeMap::new());
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(key), model.get(&key));
                prop_assert_eq!(map.contains(key), model.contains_key(&key));
                prop_assert!(map.0.iter().map(|(key, value)| (key, value)).eq(&model), "in order");
            }
        }

        #[test]
        fn a_few_are_sorted_as_the_stable_sort_does(
            values in proptest::collection::vec((0..5_u8, any::<u8>()), 0..20),
        ) {
            let (mut ours, mut want) = (values.clone(), values);
            sort_few_by_key(&mut ours, |(key, _)| *key);
            want.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(ours, want);
        }
    }
}

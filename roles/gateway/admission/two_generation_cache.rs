//! A cache of bounded size that evicts entries that were not used recently.

use std::collections::HashMap;
use std::hash::Hash;

/// A cache that consists of two maps. New entries go into the young map. When the young map is full, it replaces the old one.
///
/// An entry that is taken and inserted again moves to the young map, and is evicted only after a whole generation of other
/// entries has been inserted. No operation has to search for an entry to evict.
#[derive(Debug)]
pub(in crate::roles::gateway) struct TwoGenerationCache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Eq + Hash, V> TwoGenerationCache<K, V> {
    /// Creates an empty cache that holds at most twice `generation_max` entries.
    pub(in crate::roles::gateway) fn new(generation_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: generation_max.max(1) }
    }

    /// Removes and returns the entry of a key.
    pub(in crate::roles::gateway) fn take(&mut self, key: &K) -> Option<V> {
        let young = self.young.remove(key);
        let old = self.old.remove(key);
        young.or(old)
    }

    /// Returns the value of a key. This does not count as a use.
    pub(in crate::roles::gateway) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.young.get_mut(key) {
            Some(value) => Some(value),
            None => self.old.get_mut(key),
        }
    }

    /// Inserts an entry as the newest. If the young map is full, entries for which `live` returns `false` are evicted
    /// first.
    pub(in crate::roles::gateway) fn insert(
        &mut self,
        key: K,
        value: V,
        live: impl Fn(&V) -> bool,
    ) {
        if self.young.len() >= self.generation_max {
            self.young.retain(|_, value| live(value));
            // If at most half of the entries are left, the scan freed enough room to justify its cost.
            if self.young.len() > self.generation_max / 2 {
                self.old = std::mem::take(&mut self.young);
            }
        }
        self.young.insert(key, value);
    }

    /// Returns the number of entries.
    #[cfg(test)]
    pub(in crate::roles::gateway) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_never_grows_beyond_two_generations() {
        let mut map = TwoGenerationCache::new(100);
        for key in 0..10_000 {
            map.insert(key, (), |()| true);
            assert!(map.len() <= 200, "{}", map.len());
        }
    }

    #[test]
    fn a_used_entry_is_not_evicted() {
        let mut map = TwoGenerationCache::new(100);
        map.insert(u32::MAX, "kept", |_| true);
        for key in 0..10_000 {
            map.insert(key, "passing", |_| true);
            let kept = map.take(&u32::MAX).unwrap();
            map.insert(u32::MAX, kept, |_| true);
        }
        assert_eq!(map.take(&u32::MAX), Some("kept"));
    }

    #[test]
    fn entries_that_are_not_live_are_evicted_first() {
        let mut map = TwoGenerationCache::new(4);
        for key in 0..4 {
            map.insert(key, key, |_| true);
        }
        map.insert(4, 4, |value| *value == 3);
        assert_eq!((map.take(&0), map.take(&3), map.take(&4)), (None, Some(3), Some(4)));
    }
}

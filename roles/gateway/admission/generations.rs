//! A map of bounded size that forgets what was not used for longest.

use std::collections::HashMap;
use std::hash::Hash;

/// Two maps: new entries go to the young one; when it is full it becomes the old one, and the old one is dropped.
///
/// What is used moves to the young map. So an entry is lost only when as many others as one generation
/// holds were used since, and no operation ever looks for a victim.
#[derive(Debug)]
pub(in crate::roles::gateway) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// An empty map that never holds more than twice `generation_max` entries.
    pub(in crate::roles::gateway) fn new(generation_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: generation_max.max(1) }
    }

    /// Takes the entry of a key out.
    pub(in crate::roles::gateway) fn take(&mut self, key: &K) -> Option<V> {
        let young = self.young.remove(key);
        let old = self.old.remove(key);
        young.or(old)
    }

    /// Keeps an entry as the newest. Where room is needed, entries that are not `live` go first.
    pub(in crate::roles::gateway) fn put(&mut self, key: K, value: V, live: impl Fn(&V) -> bool) {
        if self.young.len() >= self.generation_max {
            self.young.retain(|_, value| live(value));
            // At half and less the sweep itself made room for long enough to have paid for it.
            if self.young.len() > self.generation_max / 2 {
                self.old = std::mem::take(&mut self.young);
            }
        }
        self.young.insert(key, value);
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(in crate::roles::gateway) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_grows_beyond_two_generations() {
        let mut map = Generations::new(100);
        for key in 0..10_000 {
            map.put(key, (), |()| true);
            assert!(map.len() <= 200, "{}", map.len());
        }
    }

    #[test]
    fn what_is_used_stays() {
        let mut map = Generations::new(100);
        map.put(u32::MAX, "kept", |_| true);
        for key in 0..10_000 {
            map.put(key, "passing", |_| true);
            let kept = map.take(&u32::MAX).unwrap();
            map.put(u32::MAX, kept, |_| true);
        }
        assert_eq!(map.take(&u32::MAX), Some("kept"));
    }

    #[test]
    fn the_dead_go_first() {
        let mut map = Generations::new(4);
        for key in 0..4 {
            map.put(key, key, |_| true);
        }
        map.put(4, 4, |value| *value == 3);
        assert_eq!((map.take(&0), map.take(&3), map.take(&4)), (None, Some(3), Some(4)));
    }
}

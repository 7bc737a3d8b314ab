//! A map for a few thousand entries at most: pairs in the order of their keys.
//!
//! Guarantees: iteration in the order of the keys; a lookup takes the logarithm of their number. An insertion moves what is behind it. Each type
//! of map has some 600 bytes of code; a `BTreeMap` has 6 KB, which is why this one is here. Leaves to others: large maps.

use std::borrow::Borrow;

/// Pairs in the order of their keys, each of which is there once.
#[derive(Debug, Clone)]
pub(crate) struct SortedMap<K, V> {
    pairs: Vec<(K, V)>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> SortedMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pairs.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.pairs.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.pairs.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.pairs.iter_mut().map(|(_, value)| value)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.pairs.retain(|(_, value)| keep(value));
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.pairs.binary_search_by(|(other, _)| other.borrow().cmp(key))
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|at| &self.pairs[at].1)
    }

    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|at| &mut self.pairs[at].1)
    }

    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(at) => self.pairs[at].1 = value,
            Err(at) => self.pairs.insert(at, (key, value)),
        }
    }

    /// The value of a key, which is there afterwards.
    pub(crate) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = self.place(&key).unwrap_or_else(|at| {
            self.pairs.insert(at, (key, V::default()));
            at
        });
        &mut self.pairs[at].1
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|at| self.pairs.remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_says_what_a_map_of_the_standard_library_says() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut sorted, mut model) = (SortedMap::new(), BTreeMap::new());
        for step in 0..5000u32 {
            let key = random.u8(0..40).to_string();
            match random.u8(0..6) {
                0 => assert_eq!(sorted.remove(key.as_str()), model.remove(key.as_str())),
                1 => assert_eq!(sorted.or_default(key.clone()), model.entry(key).or_default()),
                2 => assert_eq!(sorted.get_mut(key.as_str()).copied(), model.get_mut(key.as_str()).copied()),
                3 if step % 50 == 0 => {
                    sorted.retain(|value| value % 3 > 0);
                    model.retain(|_, value| *value % 3 > 0);
                }
                _ => {
                    sorted.insert(key.clone(), step);
                    model.insert(key, step);
                }
            }
            sorted.values_mut().chain(model.values_mut()).for_each(|value| *value += 1);
            assert!(sorted.iter().eq(model.iter()) && sorted.keys().eq(model.keys()), "step {step}");
            assert!(sorted.values().eq(model.values()) && sorted.len() == model.len());
            assert_eq!(sorted.get("7"), model.get("7"));
        }
    }
}

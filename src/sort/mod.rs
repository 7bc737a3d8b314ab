//! Sorting for what is not on the way of a call.
//!
//! Guarantees: the order is stable, and what is in order already costs no memory. The sort itself is compiled once, over places, because a copy
//! of it for each type has 4 KB. Leaves to others: sorting that has to be quick.

mod map;

use std::cmp::Ordering;

pub(crate) use map::SortedMap;

/// Sorts by the order that `compare` gives.
pub fn by<T>(items: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
    if items.windows(2).all(|pair| compare(&pair[0], &pair[1]) != Ordering::Greater) {
        return;
    }
    let mut from: Vec<usize> = (0..items.len()).collect();
    places(&mut from, &mut |a, b| compare(&items[a], &items[b]));
    // Place `at` gets the item that stood at `from[at]`: each circle of such moves is gone round once.
    for begin in 0..items.len() {
        let mut at = begin;
        while from[at] != begin {
            let next = from[at];
            items.swap(at, next);
            from[at] = at;
            at = next;
        }
        from[at] = at;
    }
}

/// Sorts by what `key` gives.
pub fn by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    by(items, |a, b| key(a).cmp(&key(b)));
}

#[inline(never)]
fn places(from: &mut [usize], compare: &mut dyn FnMut(usize, usize) -> Ordering) {
    from.sort_by(|a, b| compare(*a, *b));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_sorted_as_the_standard_library_sorts_them() {
        let mut rng = fastrand::Rng::with_seed(1);
        for len in (0..40).chain([1000]) {
            for _ in 0..50 {
                let mut items: Vec<(u8, usize)> = (0..len).map(|place| (rng.u8(..9), place)).collect();
                let mut expected = items.clone();
                expected.sort_by_key(|item| item.0);
                by_key(&mut items, |item| item.0);
                assert_eq!(items, expected);
                expected.sort_by_key(|item| std::cmp::Reverse(item.1));
                by(&mut items, |a, b| b.1.cmp(&a.1));
                assert_eq!(items, expected);
            }
        }
    }
}

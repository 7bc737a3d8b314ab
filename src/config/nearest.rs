//! The known option that an unknown one most resembles.
//!
//! Guarantees: nothing is suggested that has little in common with what was written. Leaves to others: the sentence around it.

/// The candidate nearest to `wrong`, if one is near enough to be what was meant.
pub(super) fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let wrong = plain(wrong);
    if wrong.is_empty() || wrong.len() > LONGEST {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let known = plain(candidate);
        let distance = distance(&wrong, &known);
        let part = wrong.len() > 2 && contains(&known, &wrong);
        let near = part || distance * 2 <= wrong.len().max(2);
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Lower case, and one separator: `tcp_keepalive` and `tcp.keepalive` differ in nothing that matters here.
fn plain(text: &str) -> Vec<char> {
    text.chars().map(|c| if matches!(c, '_' | '-') { '.' } else { c.to_ascii_lowercase() }).collect()
}

fn contains(whole: &[char], part: &[char]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// Levenshtein's distance, with one row of memory.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] =
        ["tcp.keepalive_idle", "tcp.keepalive_count", "auth.password", "sentinel.password", "db", "pool.max"];

    #[test]
    fn what_was_meant_is_found() {
        for (wrong, meant) in [
            ("tcp_keepalive", "tcp.keepalive_idle"),
            ("password", "auth.password"),
            ("pool_max", "pool.max"),
            ("Pool.Max", "pool.max"),
            ("pol.mx", "pool.max"),
            ("dv", "db"),
        ] {
            assert_eq!(nearest(wrong, KEYS.into_iter()), Some(meant), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_found_for_something_else() {
        for wrong in ["", "zzzz", "x", "colour", &"p".repeat(1000)] {
            assert_eq!(nearest(wrong, KEYS.into_iter()), None, "{wrong}");
        }
    }

    #[test]
    fn the_distance_counts_single_changes() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
        assert_eq!(distance(&chars("abc"), &chars("abc")), 0);
    }
}

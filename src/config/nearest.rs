//! The known name (of an option, of a service) that an unknown one most resembles, by Levenshtein's distance.
//!
//! Guarantees: nothing is suggested that has little in common with what was written. Leaves to others: the sentence around it.

/// The candidate nearest to `wrong`, if one is near enough to be what was meant.
pub fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let wrong = plain(wrong);
    let length = wrong.chars().count();
    if length == 0 || length > LONGEST {
        return None;
    }
    let mut best: Option<((bool, usize), &str)> = None;
    for candidate in candidates {
        let known = plain(candidate);
        let distance = if same_words(&wrong, &known) { 0 } else { strsim::levenshtein(&wrong, &known) };
        let part = length > 2 && known.contains(&wrong);
        let near = part || distance * 2 <= length.max(2);
        // What was written in full is meant rather than what only looks like it.
        let rank = (distance > 0 && !part, distance);
        if near && best.is_none_or(|(least, _)| rank < least) {
            best = Some((rank, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Whether both have the same words, in whatever order.
fn same_words(a: &str, b: &str) -> bool {
    let words = |text: &str| {
        let mut words: Vec<String> = text.split('.').map(str::to_owned).collect();
        crate::sort::by(&mut words, Ord::cmp);
        words
    };
    words(a) == words(b)
}

/// Lower case, and one separator: `tcp_keepalive` and `tcp.keepalive` differ in nothing that matters here.
fn plain(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '_' | '-') { '.' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 10] = [
        "service",
        "sentinel.addrs",
        "tcp.keepalive_idle",
        "tcp.keepalive_count",
        "auth.password",
        "auth.username",
        "sentinel.password",
        "timeout.sentinel",
        "db",
        "pool.max",
    ];

    #[test]
    fn what_was_meant_is_found() {
        for (wrong, meant) in [
            ("tcp_keepalive", "tcp.keepalive_idle"),
            ("password", "auth.password"),
            ("pool_max", "pool.max"),
            ("Pool.Max", "pool.max"),
            ("pol.mx", "pool.max"),
            ("dv", "db"),
            ("username", "auth.username"),
            ("sentinel.timeout", "timeout.sentinel"),
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
}

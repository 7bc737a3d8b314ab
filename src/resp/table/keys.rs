//! Where the keys of a command are.
//!
//! Guarantees: never fails; a missing or malformed argument means fewer keys, because the server will refuse the command. Leaves to
//! others: which shard a key is on.

use super::spec::{Flags, Keys};
use super::{lookup, lookup2};

/// The indexes of the keys in a whole command.
pub fn keys(args: &[&[u8]]) -> Vec<usize> {
    let mut found = Vec::new();
    each_key(args, &mut |at| found.push(at));
    found
}

/// Calls `found` with the index of each key in a whole command.
pub fn each_key(args: &[&[u8]], found: &mut dyn FnMut(usize)) {
    let Some(mut spec) = args.first().and_then(|name| lookup(name)) else { return };
    if let (true, Some(sub)) = (spec.flags.has(Flags::CONTAINER), args.get(1)) {
        spec = lookup2(args[0], sub).unwrap_or(spec);
    }
    match spec.keys {
        Keys::None => {}
        Keys::Range { first, last, step } => {
            let end = if last < 0 { args.len() as isize + last as isize } else { last as isize };
            let end = (end + 1).clamp(0, args.len() as isize) as usize;
            (first as usize..end).step_by(step as usize).for_each(found);
        }
        Keys::Counted { front, at, step } => counted(args, [front, at, step].map(usize::from), found),
        Keys::Streams => streams(args, found),
        Keys::Store => {
            (1..args.len().min(2)).for_each(&mut *found);
            if let Some(at) = stored_at(spec.name, args) {
                found(at);
            }
        }
        Keys::Migrate => migrate(args, found),
    }
}

fn counted(args: &[&[u8]], [front, at, step]: [usize; 3], found: &mut dyn FnMut(usize)) {
    let Some(count) = args.get(at).and_then(|text| number(text)) else { return };
    if front > 0 {
        found(front);
    }
    (at + 1..args.len()).step_by(step).take(count).for_each(found);
}

/// STREAMS is followed by as many keys as ids. No argument before it can look like it, except the names after GROUP.
fn streams(args: &[&[u8]], found: &mut dyn FnMut(usize)) {
    let skipped = if args.get(1).is_some_and(|arg| arg.eq_ignore_ascii_case(b"GROUP")) { 4 } else { 1 };
    let place = args.iter().skip(skipped).position(|arg| arg.eq_ignore_ascii_case(b"STREAMS"));
    if let Some(place) = place {
        let first = place + skipped + 1;
        (first..first + (args.len() - first) / 2).for_each(found);
    }
}

/// The last STORE or STOREDIST counts, as in the server; options that take values are stepped over as it does.
fn stored_at(name: &str, args: &[&[u8]]) -> Option<usize> {
    let is_sort = name == "SORT";
    let mut at = match name {
        "SORT" => 2,
        "GEORADIUS" => 6,
        _ => 5,
    };
    let mut stored = None;
    while let Some(arg) = args.get(at) {
        let is = |word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
        if is("STORE") || (!is_sort && is("STOREDIST")) {
            at += 1;
            stored = (at < args.len()).then_some(at).or(stored);
        } else if is_sort && (is("BY") || is("GET") || is("LIMIT")) {
            at += 1 + usize::from(is("LIMIT"));
        }
        at += 1;
    }
    stored
}

fn migrate(args: &[&[u8]], found: &mut dyn FnMut(usize)) {
    if args.get(3).is_some_and(|key| !key.is_empty()) {
        return found(3);
    }
    let mut at = 6;
    while let Some(arg) = args.get(at) {
        if arg.eq_ignore_ascii_case(b"KEYS") {
            return (at + 1..args.len()).for_each(found);
        }
        at += 1 + usize::from(arg.eq_ignore_ascii_case(b"AUTH")) + 2 * usize::from(arg.eq_ignore_ascii_case(b"AUTH2"));
    }
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Vec<usize> {
        keys(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn keys_newer_than_the_server_of_the_tests_are_found() {
        assert_eq!(of("MSETEX 2 a 1 b 2 EX 10"), [2, 4]);
        assert_eq!(of("JSON.MGET a b $"), [1, 2]);
        assert_eq!(of("JSON.MSET a $ 1 b $ 2"), [1, 4]);
        assert_eq!(of("TS.MADD a 1 2 b 1 2"), [1, 4]);
        assert_eq!(of("TDIGEST.MERGE d 2 a b COMPRESSION 5"), [1, 3, 4]);
        assert_eq!(of("HGETEX h FIELDS 1 f"), [1]);
        assert_eq!(of("FT.SEARCH idx *"), []);
    }

    #[test]
    fn malformed_commands_have_fewer_keys() {
        for command in
            ["", "GET", "EVAL x", "EVAL x y", "ZUNIONSTORE d -1 a", "XREAD STREAMS", "SORT", "MIGRATE h p", "OBJECT"]
        {
            assert_eq!(of(command), [], "{command}");
        }
        assert_eq!(of("EVAL x 18446744073709551615 a"), [3]);
        assert_eq!(of("BLPOP a"), [] as [usize; 0]);
    }
}

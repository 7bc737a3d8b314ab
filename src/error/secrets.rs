//! The secrets of the process, and what servers say without them.
//!
//! Guarantees: a secret is known as long as anything in the process holds it, an old connection included, and its text stays in one place;
//! no lock, because a forked child must not inherit one. Leaves to others: who holds a secret (config), and that what a server says comes
//! through here before it enters a message, an event, a line of the log or the topology.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use zeroize::Zeroizing;

/// The text of a secret.
pub type SecretText = Arc<Held>;

static KNOWN: ArcSwapOption<Vec<Weak<Held>>> = ArcSwapOption::const_empty();

/// A text that is known while it is held.
#[derive(PartialEq, Eq)]
pub struct Held(Zeroizing<String>);

impl Deref for Held {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Held {
    /// The last one leaves no memory behind.
    fn drop(&mut self) {
        know(None);
    }
}

/// What is shown in the place of a secret.
const STARS: &str = "***";
/// Shorter ones are not looked for: they stand in many words by chance.
const LEAST: usize = 4;
/// Servers cut long arguments, so the beginning of a long secret counts as the secret.
const HEAD: usize = 16;
/// The first words of servers' errors, which tell nothing if they are a secret as well.
const CODES: &[&str] = &[
    "ERR",
    "WRONGPASS",
    "NOAUTH",
    "NOPERM",
    "WRONGTYPE",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "BUSY",
    "BUSYKEY",
    "NOREPLICAS",
    "MISCONF",
    "OOM",
    "NOSCRIPT",
    "EXECABORT",
    "UNBLOCKED",
    "DENIED",
    "NOPROTO",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    "NOQUORUM",
    "NOGOODSLAVE",
    "INPROG",
    "NOGROUP",
    "BUSYGROUP",
    "NOTBUSY",
    "UNKILLABLE",
];

/// Keeps a secret. One with the same text that is known already is shared.
pub fn keep(text: String) -> SecretText {
    if text.len() < LEAST {
        return hold(text);
    }
    if let Some(held) = living().into_iter().find(|held| ***held == *text) {
        // The second text is wiped.
        drop(Zeroizing::new(text));
        return held;
    }
    let kept = hold(text);
    know(Some(&kept));
    kept
}

/// The secrets that are held.
fn living() -> Vec<SecretText> {
    KNOWN.load_full().map_or_else(Vec::new, |known| known.iter().filter_map(Weak::upgrade).collect())
}

/// Holds a text that is no secret in the same way: what servers say is shown with it.
pub fn hold(text: String) -> SecretText {
    Arc::new(Held(Zeroizing::new(text)))
}

/// Knows those that are held, and this one.
fn know(kept: Option<&SecretText>) {
    KNOWN.rcu(|known| {
        let living = known.iter().flat_map(|known| known.iter()).filter(|held| held.strong_count() > 0).cloned();
        let all: Vec<_> = living.chain(kept.map(Arc::downgrade)).collect();
        (!all.is_empty()).then(|| Arc::new(all))
    });
}

/// A text of a server without the secrets of this process.
pub fn clean(text: &str) -> Cow<'_, str> {
    let secrets = living();
    let next = |rest: &str| secrets.iter().filter_map(|secret| rest.find(head(secret))).min();
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = next(rest) {
        out.push_str(&rest[..at]);
        out.push_str(STARS);
        rest = &rest[end_of(&rest[at..], &secrets) + at..];
    }
    if out.is_empty() {
        return text.into();
    }
    out.push_str(rest);
    out.into()
}

/// What of a secret is looked for.
fn head(secret: &str) -> &str {
    let end = (HEAD..secret.len()).find(|at| secret.is_char_boundary(*at)).unwrap_or(secret.len());
    &secret[..end]
}

/// Where what is secret at the beginning of a text ends: with the secret of which most stands there, and with those that begin in it.
fn end_of(text: &str, secrets: &[SecretText]) -> usize {
    let (mut at, mut end) = (0, 0);
    while at <= end && at < text.len() {
        let rest = &text[at..];
        for secret in secrets.iter().filter(|secret| rest.starts_with(head(secret))) {
            let same = rest.chars().zip(secret.chars()).take_while(|(one, other)| one == other);
            end = end.max(at + same.map(|(one, _)| one.len_utf8()).sum::<usize>());
        }
        at += rest.chars().next().map_or(1, char::len_utf8);
        if at == end {
            break;
        }
    }
    end
}

/// The line of an error. Its first word stays if it is one that servers send.
pub fn clean_line(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    match line.split_once(' ') {
        Some((code, rest)) if CODES.contains(&code) => format!("{code} {}", clean(rest)),
        None if CODES.contains(&&*line) => line.into_owned(),
        _ => clean(&line).into_owned(),
    }
}

/// Any bytes of a server as a text without secrets.
pub fn clean_bytes(bytes: &[u8]) -> String {
    clean(&String::from_utf8_lossy(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_replaced_and_what_nobody_holds_is_not() {
        let [first, same] = [keep("qz7-one".into()), keep("qz7-one".into())];
        assert!(Arc::ptr_eq(&first, &same), "one text is kept once");
        assert_eq!(clean("said qz7-one and qz7-one"), "said *** and ***");
        drop(first);
        assert_eq!(clean("qz7-one"), "***", "somebody holds it still");
        drop(same);
        assert_eq!(clean("qz7-one"), "qz7-one");
        let _short = keep("qz7".into());
        assert_eq!(clean("qz7"), "qz7");
    }

    #[test]
    fn a_secret_in_another_one_a_cut_one_and_one_in_other_letters_is_replaced() {
        let _held = [
            "qz8-in",
            "long qz8-in long",
            "qz8-0123456789abcdef-ghijkl",
            "qz8-\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}-x",
        ]
        .map(|text| keep(text.into()));
        assert_eq!(clean("(long qz8-in long) qz8-in"), "(***) ***");
        assert_eq!(clean("args: 'qz8-0123456789abcdef-g' 'qz8-01'"), "args: '***' 'qz8-01'");
        assert_eq!(clean("qz8-\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}-x!"), "***!");
    }

    #[test]
    fn of_two_secrets_with_one_beginning_neither_leaves_an_end_and_neither_do_those_that_overlap() {
        let _held = ["qz0-prod-redis-cluster-a:Tk7Qz1", "qz0-prod-redis-cluster-sentinel:Xx9longer", "Qz1tail"]
            .map(|text| keep(text.into()));
        let said = "ERR odd qz0-prod-redis-cluster-a:Tk7Qz1 and qz0-prod-redis-cluster-sentinel:Xx9longer, qz0-prod-redis-cluster-a:Tk7Qz1tail.";
        assert_eq!(clean(said), "ERR odd *** and ***, ***.");
        assert_eq!(clean("Qz1tailQz1tail"), "******");
    }

    #[test]
    fn the_code_of_a_line_stays_and_another_first_word_may_be_a_secret() {
        let _held = ["WRONGPASS", "qz9-first"].map(|text| keep(text.into()));
        assert_eq!(clean_line(b"WRONGPASS no WRONGPASS"), "WRONGPASS no ***");
        assert_eq!(clean_line(b"WRONGPASS"), "WRONGPASS");
        assert_eq!(clean_line(b"qz9-first is no user"), "*** is no user");
        assert_eq!(clean_line(b"qz9-first"), "***");
    }
}

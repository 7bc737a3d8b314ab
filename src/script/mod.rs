//! The scripts that the clients of a handle have sent: their bodies by their hashes. Pure, but for its lock.
//!
//! Guarantees: bounded in number and in bytes; the script that was used longest ago is forgotten first. A hash of a server is
//! understood in any case of letters. Leaves to others: which commands have scripts (plan), and what is sent (call).

mod sha1;

use std::sync::Arc;

use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

/// How many scripts are kept.
pub const MOST: usize = 512;
/// How many bytes they have together; a script of a quarter of this is not kept.
pub const MOST_BYTES: usize = 4 << 20;

/// A hash as it is sent.
pub type Sha = [u8; 40];

/// Scripts that were sent.
pub struct Scripts {
    known: Lock<Known>,
}

#[derive(Default)]
struct Known {
    scripts: Vec<Script>,
    bytes: usize,
    /// Counts the uses.
    clock: u64,
}

struct Script {
    sha: Sha,
    body: Arc<[u8]>,
    used: u64,
}

impl Default for Scripts {
    fn default() -> Self {
        Self { known: Lock::new(Rank::Scripts, Known::default()) }
    }
}

impl Scripts {
    /// Keeps a body. Returns its hash if it was known before: then a server probably knows it, too.
    pub fn note(&self, body: &[u8]) -> Option<Sha> {
        let find = |script: &Script| script.body.len() == body.len() && *script.body == *body;
        if let Some(script) = self.known.lock().find(find) {
            return Some(script.sha);
        }
        if body.len() >= MOST_BYTES / 4 {
            return None;
        }
        // The hash takes its time, and other threads need not wait for it.
        let script = Script { sha: sha1::hex(body), body: body.into(), used: 0 };
        self.known.lock().keep(script);
        None
    }

    /// How many are kept, and how many bytes they have.
    pub fn figures(&self) -> (usize, usize) {
        let known = self.known.lock();
        (known.scripts.len(), known.bytes)
    }

    /// The body with this hash.
    pub fn body(&self, sha: &[u8]) -> Option<Arc<[u8]>> {
        self.known.lock().find(|script| script.sha.eq_ignore_ascii_case(sha)).map(|script| Arc::clone(&script.body))
    }
}

impl Known {
    fn find(&mut self, is_it: impl Fn(&Script) -> bool) -> Option<&Script> {
        self.clock += 1;
        let script = self.scripts.iter_mut().find(|script| is_it(script))?;
        script.used = self.clock;
        Some(script)
    }

    fn keep(&mut self, script: Script) {
        // Another thread may have kept it meanwhile.
        if self.find(|known| known.sha == script.sha).is_some() {
            return;
        }
        while self.scripts.len() >= MOST || self.bytes + script.body.len() > MOST_BYTES {
            let oldest = self.scripts.iter().enumerate().min_by_key(|(_, script)| script.used);
            let Some((at, _)) = oldest else { break };
            self.bytes -= self.scripts.swap_remove(at).body.len();
        }
        self.bytes += script.body.len();
        self.scripts.push(Script { used: self.clock, ..script });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_found_by_its_hash_in_any_case_of_letters() {
        let scripts = Scripts::default();
        assert_eq!(scripts.note(b"return 1"), None);
        let sha = scripts.note(b"return 1").expect("known by now");
        assert_eq!(&sha, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        for sha in [&sha[..], &sha.to_ascii_uppercase()] {
            assert_eq!(scripts.body(sha).as_deref(), Some(&b"return 1"[..]));
        }
        assert!(scripts.body(&sha[1..]).is_none() && scripts.body(b"").is_none() && scripts.note(b"").is_none());
    }

    #[test]
    fn the_script_that_was_used_longest_ago_is_forgotten_first() {
        let scripts = Scripts::default();
        let body = |n: usize| format!("return {n}").into_bytes();
        let sha = |n: usize| sha1::hex(&body(n));
        (0..MOST).for_each(|n| _ = scripts.note(&body(n)));
        assert!(scripts.body(&sha(0)).is_some() && scripts.note(&body(1)).is_some(), "used again");
        (MOST..MOST + 10).for_each(|n| _ = scripts.note(&body(n)));
        let kept: Vec<usize> = (0..MOST + 10).filter(|n| scripts.body(&sha(*n)).is_some()).collect();
        assert_eq!(kept, [0, 1].into_iter().chain(12..MOST + 10).collect::<Vec<_>>());
    }

    #[test]
    fn the_bytes_are_bounded_and_a_huge_script_is_not_kept() {
        let scripts = Scripts::default();
        let body = |n: u8, len: usize| vec![n; len];
        assert_eq!((scripts.note(&body(1, MOST_BYTES / 4)), scripts.note(&body(1, MOST_BYTES / 4))), (None, None));
        (0..9).for_each(|n| _ = scripts.note(&body(n, MOST_BYTES / 8)));
        let kept: Vec<u8> = (0..9).filter(|n| scripts.body(&sha1::hex(&body(*n, MOST_BYTES / 8))).is_some()).collect();
        assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(scripts.figures(), (8, MOST_BYTES));
    }
}

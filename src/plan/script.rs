//! The two forms of a script in a plan: by its body (EVAL) and by its hash (EVALSHA).
//!
//! Only the last command of a plan has two forms: nothing follows it, so it alone can be sent again in its other form without
//! running anything twice. A hash elsewhere is replaced by its body before anything is sent.
//!
//! Guarantees: every body that passes is kept; the bytes of both forms differ in the last command only. Leaves to others: the kept
//! scripts (the room `script`), and which form is sent when (call).

use std::cell::OnceCell;
use std::sync::Arc;

use super::{Plan, Shape, Stretch, What};
use crate::lane::{Bytes, Unit};
use crate::resp::encode;
use crate::resp::list;
use crate::script::Scripts;

/// In which commands of a list the hash of a script is left as it is, because its body can follow if the server lacks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// In each, because each is a call of its own.
    Each,
    /// In the last one.
    Last,
    /// In none.
    None,
}

/// The form of the last command that the caller did not give.
pub(super) enum OtherForm {
    /// All bytes of the plan, with the hash in place of the body. Sent first.
    Hash(Vec<u8>),
    /// The body, and the last command with it. Sent when the server does not know the hash.
    Body(Arc<[u8]>, OnceCell<Vec<u8>>),
}

/// What a command has to do with scripts.
enum Role {
    /// EVAL, EVAL_RO: the name of its other form.
    Body(&'static [u8]),
    /// EVALSHA, EVALSHA_RO: the same.
    Hash(&'static [u8]),
    /// SCRIPT LOAD.
    Load,
}

fn role(args: &[&[u8]]) -> Option<Role> {
    let is = |at: usize, word: &[u8]| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    match args.len() {
        3.. if is(0, b"EVAL") => Some(Role::Body(b"EVALSHA")),
        3.. if is(0, b"EVAL_RO") => Some(Role::Body(b"EVALSHA_RO")),
        3.. if is(0, b"EVALSHA") => Some(Role::Hash(b"EVAL")),
        3.. if is(0, b"EVALSHA_RO") => Some(Role::Hash(b"EVAL_RO")),
        3 if is(0, b"SCRIPT") && is(1, b"LOAD") => Some(Role::Load),
        _ => None,
    }
}

/// Appends a command with another name and another first argument.
fn append(out: &mut Vec<u8>, args: &[&[u8]], name: &[u8], script: &[u8]) {
    let changed: Vec<&[u8]> = [name, script].into_iter().chain(args[2..].iter().copied()).collect();
    encode::command(out, &changed);
}

impl Plan<'_> {
    /// Keeps the bodies of a plan, and finds the other form of its last command. `shortens`: a body that was kept before is sent as
    /// its hash first.
    #[cold]
    pub(crate) fn use_scripts(&mut self, scripts: &Scripts, shortens: bool) {
        let (last, atomic) = (self.count() as usize - 1, self.is_atomic());
        let mut other = None;
        self.each(|at, args| match role(args) {
            Some(Role::Body(name)) => {
                let known = scripts.note(args[1]).filter(|_| shortens && at == last && !atomic);
                other = known.map(|sha| OtherForm::Hash(self.with_last(args, name, &sha)));
            }
            Some(Role::Hash(_)) if at == last && !atomic => {
                other = scripts.body(args[1]).map(|body| OtherForm::Body(body, OnceCell::new()));
            }
            Some(Role::Load) => _ = scripts.note(args[2]),
            _ => {}
        });
        self.other = other.map(Box::new);
    }

    /// The bytes of this plan with another last command.
    fn with_last(&self, args: &[&[u8]], name: &[u8], script: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let What::List(list) = &self.what {
            let end = list.commands().last().map_or(0, |command| command.range().start);
            bytes.extend_from_slice(&list.bytes()[..end]);
        }
        append(&mut bytes, args, name, script);
        bytes
    }

    /// The commands with the bodies of the scripts in place of their hashes, but for what is kept; `None`: nothing is to be changed.
    #[cold]
    pub(crate) fn spelled_out(&self, scripts: &Scripts, keep: Keep) -> Option<Vec<u8>> {
        match &self.what {
            What::Args(args) => {
                let mut bytes = Vec::new();
                encode::command(&mut bytes, args);
                spelled_out(&bytes, scripts, keep)
            }
            What::One(list) | What::List(list) | What::Atomic(list, _) => spelled_out(list.bytes(), scripts, keep),
        }
    }

    /// Whether the last command has two forms.
    pub(crate) fn has_forms(&self) -> bool {
        self.other.is_some()
    }

    /// Whether the first form is not the caller's own.
    pub(crate) fn is_shortened(&self) -> bool {
        matches!(self.other.as_deref(), Some(OtherForm::Hash(_)))
    }

    /// The unit to send.
    #[inline]
    pub(crate) fn unit_of(&self, stretch: Stretch) -> Unit<'_> {
        match &self.other {
            None => self.unit(stretch.from),
            Some(other) => self.unit_in_form(other, stretch),
        }
    }

    #[cold]
    fn unit_in_form<'b>(&'b self, other: &'b OtherForm, stretch: Stretch) -> Unit<'b> {
        let unit = self.unit(stretch.from);
        match self.form(other, stretch) {
            Some(bytes) => Unit { bytes: Bytes::Raw(bytes), ..unit },
            None => unit,
        }
    }

    /// The bytes from the command at `from` on, if they are not the caller's own.
    fn form<'b>(&'b self, other: &'b OtherForm, stretch: Stretch) -> Option<&'b [u8]> {
        match other {
            OtherForm::Hash(bytes) => (!stretch.by_body).then_some(bytes),
            OtherForm::Body(body, made) => stretch.by_body.then(|| &made.get_or_init(|| self.last_by_body(body))[..]),
        }
    }

    fn last_by_body(&self, body: &[u8]) -> Vec<u8> {
        let (mut bytes, last) = (Vec::new(), self.count() as usize - 1);
        self.each(|at, args| {
            if let Some(Role::Hash(name)) = role(args).filter(|_| at == last) {
                append(&mut bytes, args, name, body);
            }
        });
        bytes
    }

    /// The length of the first command of a stretch: if fewer bytes were sent nothing was executed.
    pub(crate) fn first_len_of(&self, stretch: Stretch) -> usize {
        let is_last = stretch.from + 1 == self.count() as usize;
        let form = self.other.as_ref().filter(|_| is_last).and_then(|other| self.form(other, stretch));
        form.map_or_else(|| self.first_len(stretch.from), <[u8]>::len)
    }

    /// Visits the commands: each with its position.
    fn each(&self, mut look: impl FnMut(usize, &[&[u8]])) {
        match &self.what {
            What::Args(args) => look(0, args),
            What::One(list) | What::List(list) | What::Atomic(list, _) => {
                for (at, command) in list.commands().enumerate() {
                    look(at, &command.args().collect::<Vec<_>>());
                }
            }
        }
    }
}

/// As [`Plan::spelled_out`], of encoded commands. What is not well formed is left as it is.
pub(crate) fn spelled_out(commands: &[u8], scripts: &Scripts, keep: Keep) -> Option<Vec<u8>> {
    let list = list::parse(commands).ok()?;
    let (last, mut changed, mut bytes) = (list.len().saturating_sub(1), false, Vec::new());
    for (at, command) in list.commands().enumerate() {
        let stays = match keep {
            Keep::Each => true,
            Keep::Last => at == last,
            Keep::None => false,
        };
        let args: Vec<&[u8]> = command.args().collect();
        let known = match role(&args).filter(|_| !stays) {
            Some(Role::Hash(name)) => scripts.body(args[1]).map(|body| (name, body)),
            _ => None,
        };
        changed |= known.is_some();
        match known {
            Some((name, body)) => append(&mut bytes, &args, name, &body),
            None => bytes.extend_from_slice(command.bytes()),
        }
    }
    changed.then_some(bytes)
}

/// A plan of the same shape for other bytes.
pub(crate) fn reshaped(bytes: &[u8], shape: Shape) -> crate::error::Result<Plan<'_>> {
    match shape {
        Shape::One => Plan::one(bytes),
        Shape::List => Plan::list(bytes),
        Shape::Atomic => Plan::atomic(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| {
            encode::command(&mut bytes, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        });
        bytes
    }

    /// Scripts that know these bodies, and the hash of the first.
    fn knowing(bodies: &[&str]) -> (Scripts, String) {
        let scripts = Scripts::default();
        bodies.iter().for_each(|body| _ = scripts.note(body.as_bytes()));
        let sha = scripts.note(bodies[0].as_bytes()).expect("known");
        (scripts, String::from_utf8(sha.to_vec()).unwrap())
    }

    fn sent(plan: &Plan<'_>, stretch: Stretch) -> (Vec<u8>, Option<u32>) {
        let (unit, mut bytes) = (plan.unit_of(stretch), Vec::new());
        unit.bytes.append_to(&mut bytes).unwrap();
        (bytes, unit.list)
    }

    const FIRST: Stretch = Stretch { from: 0, by_body: false };

    #[test]
    fn a_body_that_was_seen_before_goes_out_as_its_hash_and_then_as_it_is() {
        let (scripts, sha) = knowing(&["b"]);
        for (name, other) in [("EVAL", "EVALSHA"), ("eval_ro", "EVALSHA_RO")] {
            let (own, short) = (encoded(&[&format!("{name} b 1 k")]), encoded(&[&format!("{other} {sha} 1 k")]));
            let mut plan = Plan::one(&own).unwrap();
            plan.use_scripts(&scripts, true);
            let by_body = Stretch { by_body: true, ..FIRST };
            assert_eq!((sent(&plan, FIRST), sent(&plan, by_body)), ((short.clone(), None), (own.clone(), None)));
            assert_eq!((plan.first_len_of(FIRST), plan.first_len_of(by_body)), (short.len(), own.len()));
            plan.use_scripts(&scripts, false);
            assert!(sent(&plan, FIRST).0 == own && !plan.has_forms(), "a submitted one stays as it is");
        }
        let (words, own) = (["EVAL", "new", "0"].map(str::as_bytes), encoded(&["EVAL new 0"]));
        for round in 0..2 {
            let mut plan = Plan::command(&words).unwrap();
            plan.use_scripts(&scripts, true);
            assert_eq!((sent(&plan, FIRST).0 == own, plan.is_shortened()), (round == 0, round == 1));
        }
    }

    #[test]
    fn of_a_list_only_the_last_command_has_two_forms() {
        let (scripts, sha) = knowing(&["b"]);
        let own = encoded(&["EVAL b 0", "SET k v", "EVAL b 0"]);
        let short = encoded(&["EVAL b 0", "SET k v", &format!("EVALSHA {sha} 0")]);
        let mut plan = Plan::list(&own).unwrap();
        plan.use_scripts(&scripts, true);
        assert_eq!(sent(&plan, FIRST), (short, Some(3)));
        assert_eq!(sent(&plan, Stretch { from: 2, by_body: true }), (encoded(&["EVAL b 0"]), Some(1)));
        assert_eq!(plan.first_len_of(FIRST), encoded(&["EVAL b 0"]).len());
        let own = encoded(&["SET k v", &format!("EVALSHA {sha} 0")]);
        let mut plan = Plan::list(&own).unwrap();
        plan.use_scripts(&scripts, true);
        assert_eq!(sent(&plan, FIRST), (own.clone(), Some(2)));
        assert_eq!(sent(&plan, Stretch { from: 1, by_body: true }), (encoded(&["EVAL b 0"]), Some(1)));
        let mut atomic = Plan::atomic(&own).unwrap();
        atomic.use_scripts(&scripts, true);
        assert!(!atomic.has_forms());
    }

    #[test]
    fn a_hash_in_any_other_place_is_spelled_out() {
        let (scripts, sha) = knowing(&["b"]);
        let list = encoded(&[&format!("EVALSHA {sha} 1 k"), "EVALSHA unknown 0", &format!("evalsha_ro {sha} 0")]);
        let all = encoded(&["EVAL b 1 k", "EVALSHA unknown 0", "EVAL_RO b 0"]);
        let but_last = encoded(&["EVAL b 1 k", "EVALSHA unknown 0", &format!("evalsha_ro {sha} 0")]);
        assert_eq!(spelled_out(&list, &scripts, Keep::None), Some(all));
        assert_eq!(spelled_out(&list, &scripts, Keep::Last), Some(but_last));
        assert_eq!(spelled_out(&list, &scripts, Keep::Each), None);
        assert_eq!(spelled_out(&encoded(&["EVAL b 0", "GET k"]), &scripts, Keep::None), None);
        assert_eq!(spelled_out(b"rubbish", &scripts, Keep::None), None);
    }

    #[test]
    fn a_loaded_script_is_kept_and_what_is_no_script_has_one_form() {
        let scripts = Scripts::default();
        let bytes = encoded(&["script load b", "EVAL c 0", "GET k"]);
        let mut plan = Plan::list(&bytes).unwrap();
        assert!(plan.has_scripts());
        plan.use_scripts(&scripts, true);
        assert!(scripts.note(b"b").is_some() && scripts.note(b"c").is_some() && !plan.has_forms());
        for line in ["EVAL b", "EVALSHA b", "SCRIPT LOAD", "SCRIPT LOAD b c", "SCRIPT EXISTS b", "FCALL b 0"] {
            let bytes = encoded(&[line]);
            let mut plan = Plan::one(&bytes).unwrap();
            plan.use_scripts(&scripts, true);
            assert!(!plan.has_forms(), "{line}");
        }
        let get = encoded(&["GET k"]);
        assert!(!Plan::one(&get).unwrap().has_scripts());
    }
}

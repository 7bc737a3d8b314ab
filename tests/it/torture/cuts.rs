//! Connections that a scenario ends on purpose, and the errors that this excuses.
//!
//! A write that has been sent and not answered when its connection ends may have been executed: nobody but the server can tell. Of each
//! cut that is one write of one writer at most; whatever fails besides is a fault of the library.

use super::figures::Outcome;
use super::probe::{Sample, Seen};
use crate::support::Node;
use std::time::{Duration, Instant};

/// A reader that has not run yet leaves a reply before the end of the connection, and who looks at the connection sees the reply.
const MARGIN: Duration = Duration::from_millis(1);

/// From just before a cut was asked for until its answer had come.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    asked: Instant,
    answered: Instant,
}

impl Cut {
    fn of(node: &Node, command: &[&str]) -> Cut {
        // Connected before the clock starts.
        let mut connection = node.connect().expect("the node answers");
        Cut::by(|| drop(connection.cmd(command).expect("the node answers")))
    }
    /// Ends every ordinary connection to a node.
    pub fn all(node: &Node) -> Cut {
        Cut::of(node, &["CLIENT", "KILL", "TYPE", "normal"])
    }
    /// Ends the connections of this name to a node, one after the other: each is a cut.
    pub fn named(node: &Node, name: &str) -> Vec<Cut> {
        let ids = node.clients_named(name).into_iter().map(|one| one.id.to_string());
        ids.map(|id| Cut::of(node, &["CLIENT", "KILL", "ID", &id])).collect()
    }
    /// Whatever this does.
    pub fn by(cut: impl FnOnce()) -> Cut {
        let asked = Instant::now();
        cut();
        Cut { asked, answered: Instant::now() }
    }

    fn meets(&self, write: &Sample) -> bool {
        write.began <= self.answered + MARGIN && write.ended >= self.asked
    }
}

/// Takes the errors out of what is judged that the cuts excuse: of each cut one write that was under way.
pub fn excuse(outcome: &mut Outcome, seen: &Seen, cuts: &[Cut]) {
    let mut left = cuts.to_vec();
    let mut excused = Vec::new();
    for write in &seen.writes {
        let Err((kind, _)) = &write.outcome else { continue };
        let cut = left.iter().position(|cut| kind.maybe() && cut.meets(write));
        if let Some(cut) = cut {
            left.remove(cut);
            excused.push(kind.clone());
        }
    }
    outcome.excuse(&format!("under way at {} cuts", cuts.len()), excused);
}

#[test]
fn a_cut_excuses_one_doubtful_write_that_it_met() {
    use super::probe::Kind;
    use vigie::error::flags;
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let write = |began: u64, ended: u64, flags: u32| {
        let outcome = Err((Kind { name: "IO".into(), flags }, String::new()));
        Sample { number: 1, began: at(began), ended: at(ended), outcome }
    };
    let left = |writes: &[Sample]| {
        let mut outcome = Outcome::default();
        for write in writes {
            let Err((kind, _)) = &write.outcome else { continue };
            *outcome.errors.entry(kind.clone()).or_default() += 1;
        }
        let seen = Seen { writes: writes.to_vec(), ..Seen::default() };
        excuse(&mut outcome, &seen, &[Cut { asked: at(100), answered: at(110) }]);
        outcome.errors.values().sum::<usize>()
    };
    let maybe = flags::MAYBE_EXECUTED;
    assert_eq!(left(&[write(90, 105, maybe)]), 0);
    assert_eq!(left(&[write(105, 120, maybe)]), 0);
    assert_eq!(left(&[write(90, 105, maybe), write(106, 108, maybe)]), 1, "one of each cut");
    assert_eq!(left(&[write(90, 99, maybe)]), 1, "over before");
    assert_eq!(left(&[write(112, 120, maybe)]), 1, "begun after");
    assert_eq!(left(&[write(90, 105, flags::RETRYABLE)]), 1, "surely not executed: it should have been sent again");
}

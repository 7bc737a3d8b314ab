//! What a replica's own word about its link means for a subscription on it: without the link its primary's messages do not arrive, and
//! the connection looks alive all the same.
//!
//! Guarantees: no I/O; a link that was down, or that leads to another node than before, is a gap since the last time that it was known to
//! be up. A replica that was cut off for a moment and goes on where it was has missed nothing, because messages are part of what is
//! replicated. Leaves to others: asking (wishes), telling (subscription).

use std::time::Instant;

use crate::net::Role;

/// What is known of the link of one replica.
#[derive(Debug)]
pub(super) struct Link {
    /// The node that it follows, as the replica calls it.
    leader: Option<(String, u16)>,
    /// Its last word was that the link is down.
    down: bool,
    /// When it was asked last.
    pub(super) asked: Instant,
}

/// What its word means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Messages arrive.
    Up,
    /// Messages arrive again. What they missed is to be told, for this reason.
    Again(String),
    /// Messages do not arrive. The second time in a row another node is better.
    Down { again: bool },
    /// It says nothing about a link.
    Nothing,
}

impl Link {
    pub(super) fn new(now: Instant) -> Self {
        Self { leader: None, down: false, asked: now }
    }

    pub(super) fn hear(&mut self, role: &Role) -> Word {
        let Role::Replica { host, port, state, .. } = role else { return Word::Nothing };
        if state.is_empty() {
            return Word::Nothing;
        }
        if state != "connected" {
            return Word::Down { again: std::mem::replace(&mut self.down, true) };
        }
        let at = (host.clone(), *port);
        let before = self.leader.replace(at);
        let moved = before.filter(|before| Some(before) != self.leader.as_ref());
        match (std::mem::take(&mut self.down), moved) {
            (_, Some((host, port))) => Word::Again(format!("the replica followed {host}:{port} before")),
            (true, None) => Word::Again("the replica's link to its primary was down".to_owned()),
            (false, None) => Word::Up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(port: u16, state: &str) -> Role {
        Role::Replica { host: "10.0.0.1".into(), port, state: state.into(), offset: 0, writes: false }
    }

    #[test]
    fn a_link_that_stays_up_proves_that_messages_arrive() {
        let mut link = Link::new(Instant::now());
        assert_eq!([link.hear(&role(1, "connected")), link.hear(&role(1, "connected"))], [Word::Up, Word::Up]);
        assert_eq!(link.hear(&Role::Unknown), Word::Nothing);
        assert_eq!(link.hear(&Role::Primary { offset: 0, replicas: Vec::new() }), Word::Nothing);
    }

    #[test]
    fn a_link_that_was_down_or_moved_is_told_when_it_is_up_again() {
        let mut link = Link::new(Instant::now());
        link.hear(&role(1, "connected"));
        assert_eq!(link.hear(&role(1, "connect")), Word::Down { again: false });
        assert_eq!(link.hear(&role(1, "sync")), Word::Down { again: true });
        assert!(matches!(link.hear(&role(1, "connected")), Word::Again(why) if why.contains("was down")));
        assert_eq!(link.hear(&role(1, "connected")), Word::Up);
        assert!(matches!(link.hear(&role(2, "connected")), Word::Again(why) if why.contains("10.0.0.1:1")));
        assert_eq!(link.hear(&role(2, "connected")), Word::Up);
    }
}

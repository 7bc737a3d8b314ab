//! What a replica's own word about its link means for a subscription on it: without the link its primary's messages do not arrive, and
//! the connection looks alive all the same.
//!
//! Guarantees: no I/O; a link that was down, or that leads to another node than before, is a gap since the last time that it was known to
//! be up. A replica that was cut off for a moment and goes on where it was has missed nothing, because messages are part of what is
//! replicated. Leaves to others: asking (wishes), telling (subscription).

use std::time::{Duration, Instant};

use crate::config::Endpoint;
use crate::net::Role;

/// A replica that is still connected to the primary before may be so for this long; Sentinels tell it to follow the next one in seconds.
/// Then the name by which it calls its primary is taken for another one of the present primary, or for a replica between them.
const BEHIND: Duration = Duration::from_secs(60);

/// What is known of the link of one replica.
#[derive(Debug)]
pub(super) struct Link {
    /// The node that it follows, as the replica calls it.
    leader: Option<(String, u16)>,
    /// The primary of the service when it was seen to follow that node.
    under: Option<Endpoint>,
    /// Since when the service has had another one.
    behind: Option<Instant>,
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
        Self { leader: None, under: None, behind: None, down: false, asked: now }
    }

    /// `primary`: that of the service, by what is known.
    pub(super) fn hear(&mut self, role: &Role, primary: Option<&Endpoint>, now: Instant) -> Word {
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
        let is_first = self.under.is_none();
        if moved.is_none() && !is_first && self.is_behind(host, *port, primary, now) {
            return Word::Nothing;
        }
        (self.under, self.behind) = (primary.cloned(), None);
        match (std::mem::take(&mut self.down), moved) {
            (_, Some((host, port))) => Word::Again(format!("the replica followed {host}:{port} before")),
            (true, None) => Word::Again("the replica's link to its primary was down".to_owned()),
            (false, None) => Word::Up,
        }
    }
}

impl Link {
    /// Whether it seems to follow the primary before: a frozen one keeps its replicas connected, and what is published at the next one
    /// does not come here.
    fn is_behind(&mut self, host: &str, port: u16, primary: Option<&Endpoint>, now: Instant) -> bool {
        let follows =
            |of: &Endpoint| matches!(of, Endpoint::Tcp { host: name, port: number } if name == host && *number == port);
        if self.under.as_ref() == primary || primary.is_some_and(follows) {
            return false;
        }
        now.saturating_duration_since(*self.behind.get_or_insert(now)) < BEHIND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Link {
        fn hear_now(&mut self, role: &Role) -> Word {
            self.hear(role, None, Instant::now())
        }
    }

    fn role(port: u16, state: &str) -> Role {
        Role::Replica { host: "10.0.0.1".into(), port, state: state.into(), offset: 0, writes: false }
    }

    #[test]
    fn a_link_that_stays_up_proves_that_messages_arrive() {
        let mut link = Link::new(Instant::now());
        assert_eq!([link.hear_now(&role(1, "connected")), link.hear_now(&role(1, "connected"))], [Word::Up, Word::Up]);
        assert_eq!(link.hear_now(&Role::Unknown), Word::Nothing);
        assert_eq!(link.hear_now(&Role::Primary { offset: 0, replicas: Vec::new() }), Word::Nothing);
    }

    #[test]
    fn a_link_that_was_down_or_moved_is_told_when_it_is_up_again() {
        let mut link = Link::new(Instant::now());
        link.hear_now(&role(1, "connected"));
        assert_eq!(link.hear_now(&role(1, "connect")), Word::Down { again: false });
        assert_eq!(link.hear_now(&role(1, "sync")), Word::Down { again: true });
        assert!(matches!(link.hear_now(&role(1, "connected")), Word::Again(why) if why.contains("was down")));
        assert_eq!(link.hear_now(&role(1, "connected")), Word::Up);
        assert!(matches!(link.hear_now(&role(2, "connected")), Word::Again(why) if why.contains("10.0.0.1:1")));
        assert_eq!(link.hear_now(&role(2, "connected")), Word::Up);
    }

    /// A frozen primary keeps its replicas connected.
    #[test]
    fn a_link_to_the_primary_before_proves_nothing() {
        let (mut link, now) = (Link::new(Instant::now()), Instant::now());
        let at = |port| Endpoint::tcp("10.0.0.1", port).unwrap();
        assert_eq!(link.hear(&role(1, "connected"), Some(&at(1)), now), Word::Up);
        assert_eq!(link.hear(&role(1, "connected"), Some(&at(2)), now), Word::Nothing);
        assert!(matches!(link.hear(&role(2, "connected"), Some(&at(2)), now), Word::Again(_)));
        assert_eq!(link.hear(&role(2, "connected"), Some(&at(2)), now), Word::Up);
        // It was told to follow the next one before this process knew.
        assert!(matches!(link.hear(&role(3, "connected"), Some(&at(2)), now), Word::Again(_)));
        assert_eq!(link.hear(&role(3, "connected"), Some(&at(3)), now), Word::Up);
        // It calls its primary by another name, or follows another replica.
        assert_eq!(link.hear(&role(3, "connected"), Some(&at(4)), now), Word::Nothing);
        assert_eq!(link.hear(&role(3, "connected"), Some(&at(4)), now + BEHIND), Word::Up);
    }
}

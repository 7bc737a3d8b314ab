//! The fence: who has spoken of a failover, and whether writes are held back for it (rules 5 to 8). No I/O, no waiting.
//!
//! Guarantees: goes up with the first word of any Sentinel; each counts once, under however many addresses it speaks; comes down when each of those who spoke has taken it back, by a verified
//! switch, or when it has been up for `failover.fence_max`. Leaves to others: who asks, who waits.

use std::time::{Duration, Instant};

use super::identity::Identity;

/// The fence of one service.
#[derive(Debug, Default)]
pub struct Fence {
    /// Those who have spoken of a failover, each since when.
    holders: Vec<(Identity, Instant)>,
    up_since: Option<Instant>,
    /// It has been up for too long: those who hold it now count no more until they speak anew.
    expired: Vec<Identity>,
}

impl Fence {
    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Whether this Sentinel has spoken of a failover that is not over.
    pub fn is_held_by(&self, sentinel: &Identity) -> bool {
        self.holders.iter().any(|(holder, _)| holder == sentinel)
    }

    /// A Sentinel speaks of a failover by an event; true when the fence goes up by it.
    pub fn raise(&mut self, sentinel: &Identity, now: Instant) -> bool {
        self.expired.retain(|held| held != sentinel);
        self.hold(sentinel, now)
    }

    /// A Sentinel shows the flag of a failover in progress, which says nothing new about one that has expired.
    pub fn flagged(&mut self, sentinel: &Identity, now: Instant) -> bool {
        !self.expired.contains(sentinel) && self.hold(sentinel, now)
    }

    fn hold(&mut self, sentinel: &Identity, now: Instant) -> bool {
        if !self.holders.iter().any(|(holder, _)| holder == sentinel) {
            self.holders.push((sentinel.clone(), now));
        }
        let rises = self.up_since.is_none();
        self.up_since.get_or_insert(now);
        rises
    }

    /// A Sentinel has given its failover up, or, asked after `asked`, does not show the flag; true when the fence comes down by it.
    pub fn release(&mut self, sentinel: &Identity, asked: Option<Instant>) -> bool {
        self.expired.retain(|held| held != sentinel);
        self.holders.retain(|(holder, since)| holder != sentinel || asked.is_some_and(|asked| *since >= asked));
        self.holders.is_empty() && self.up_since.take().is_some()
    }

    /// A switch was verified; true when the fence comes down by it.
    pub fn clear(&mut self) -> bool {
        self.holders.clear();
        self.expired.clear();
        self.up_since.take().is_some()
    }

    /// When it will have been up for too long.
    pub fn expires_at(&self, max: Duration) -> Option<Instant> {
        self.up_since.map(|since| since + max)
    }

    /// Brings it down because it has been up for too long.
    pub fn expire(&mut self) -> bool {
        self.expired.extend(self.holders.drain(..).map(|(holder, _)| holder));
        self.up_since.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Identity {
        Identity::Id(port.to_string())
    }

    #[test]
    fn it_stays_up_until_all_who_spoke_have_taken_it_back() {
        let (mut fence, now) = (Fence::default(), Instant::now());
        assert!(fence.raise(&at(1), now));
        assert!(!fence.raise(&at(2), now));
        assert!(!fence.release(&at(1), None));
        assert!(fence.release(&at(2), None));
        assert!(!fence.is_up() && !fence.release(&at(2), None));
    }

    #[test]
    fn a_switch_clears_it_and_an_expiry_lasts_until_the_next_word() {
        let (mut fence, now) = (Fence::default(), Instant::now());
        fence.raise(&at(1), now);
        assert!(fence.clear() && !fence.is_up());
        fence.raise(&at(1), now);
        assert!(fence.expire());
        assert!(!fence.flagged(&at(1), now) && !fence.is_up());
        assert!(fence.raise(&at(1), now));
    }

    #[test]
    fn a_missing_flag_releases_only_what_was_held_before_the_question() {
        let (mut fence, now) = (Fence::default(), Instant::now());
        fence.flagged(&at(1), now);
        assert!(!fence.release(&at(1), Some(now)));
        assert!(fence.release(&at(1), Some(now + Duration::from_millis(1))));
    }
}

//! What Sentinels have announced lately: several of them announce the same, and a program is told once.
//!
//! Guarantees: an event costs the same however many came before it; memory has a bound. Leaves to others: what an event means
//! (`handle_state`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::events::SentinelEvent;
use crate::config::Endpoint;

/// For how long the same event of another Sentinel is the same announcement.
const SAME: Duration = Duration::from_secs(3);
/// How many are remembered. Those beyond are told each time.
const MOST: usize = 4096;

/// The events of the last seconds.
#[derive(Default)]
pub(super) struct RecentEvents {
    seen: HashMap<String, Announced>,
    /// When those that are too old were last removed.
    swept: Option<Instant>,
}

/// When an event was first announced, and by which Sentinels.
struct Announced {
    since: Instant,
    by: Vec<Endpoint>,
}

impl Announced {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < SAME
    }
}

impl RecentEvents {
    /// Whether the event is new: announced for the first time, or again by the same Sentinel.
    pub(super) fn is_new(&mut self, now: Instant, from: &Endpoint, event: &SentinelEvent) -> bool {
        self.sweep(now);
        let key = format!("{} {:?}", event.channel, (&event.service, &event.about));
        match self.seen.get_mut(&key).filter(|known| known.is_recent(now)) {
            Some(known) if !known.by.contains(from) => {
                known.by.push(from.clone());
                false
            }
            _ => {
                if self.seen.len() < MOST || self.seen.contains_key(&key) {
                    self.seen.insert(key, Announced { since: now, by: vec![from.clone()] });
                }
                true
            }
        }
    }

    /// Removes what is too old, once in a while: at each event it would cost more the more there are.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SAME) {
            self.seen.retain(|_, known| known.is_recent(now));
            self.swept = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::events;

    fn event(port: u16) -> SentinelEvent {
        let payload = format!("slave 10.0.0.1:{port} 10.0.0.1 {port} @ s 10.0.0.2 6379");
        events::parse("+sdown", &payload).expect("an event")
    }

    fn at(port: u16) -> Endpoint {
        Endpoint::Tcp { host: "10.0.0.3".into(), port }
    }

    #[test]
    fn the_same_from_another_sentinel_is_not_new_and_from_the_same_one_it_is() {
        let (mut recent, now) = (RecentEvents::default(), Instant::now());
        let [a, b] = [1, 2].map(at);
        assert!(recent.is_new(now, &a, &event(1)) && !recent.is_new(now, &b, &event(1)));
        assert!(recent.is_new(now, &b, &event(2)), "about another replica");
        assert!(recent.is_new(now, &a, &event(1)), "it says so again");
        assert!(recent.is_new(now + SAME, &b, &event(1)), "that was long ago");
    }

    #[test]
    fn a_flood_of_different_events_is_bounded() {
        let (mut recent, now) = (RecentEvents::default(), Instant::now());
        let from = at(1);
        assert!((1..=2 * MOST as u16).all(|port| recent.is_new(now, &from, &event(port))));
        assert_eq!(recent.seen.len(), MOST);
        assert!(recent.is_new(now + SAME, &from, &event(1)));
        assert_eq!(recent.seen.len(), 1, "the old ones are gone");
    }
}

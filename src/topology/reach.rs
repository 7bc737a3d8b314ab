//! Waits for the first Sentinel when a handle is created that is to wait for one. How long and how often to try serves `fixed`, too.
//!
//! Guarantees: ends with the first Sentinel that answers, or at the deadline; the error gives the latest failure of
//! each Sentinel. Refused credentials, and certificates, end it at once. Leaves to others: everything that follows (service).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::{Ask, CommandLinks, Ticket};
use super::peers::SentinelList;
use super::report;
use super::round::Asked;
use crate::config::{Endpoint, Settings};
use crate::error::{Error, Result, Status};
use crate::net::LinkOptions;
use crate::resp::encode;
use crate::sort::SortedMap;
use crate::sys::poll::Found;
use crate::sys::thread;
use crate::sys::waker::Waker;
use crate::time::Deadline;

/// The pause between two attempts: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// The time that is left for the last attempt.
const LAST_ATTEMPT: Duration = Duration::from_millis(20);

/// Tries until one Sentinel has answered a PING.
pub(super) fn reach_any(settings: &Settings, list: &SentinelList, deadline: Deadline) -> Result<()> {
    let mut failures = SortedMap::new();
    insist(deadline, || reach_once(settings, list, &mut failures, deadline))
}

/// Tries until it succeeds, with pauses, or until the deadline. Waiting helps neither against refused credentials nor against a certificate.
pub(super) fn insist(deadline: Deadline, mut once: impl FnMut() -> Result<()>) -> Result<()> {
    let mut pause = PAUSES.0;
    loop {
        let error = match once() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let left = deadline.left().map(|left| left.saturating_sub(LAST_ATTEMPT));
        if matches!(error.status(), Status::Auth | Status::Tls) || left.is_some_and(|left| left.is_zero()) {
            return Err(error);
        }
        thread::sleep(left.map_or(pause, |left| pause.min(left)));
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// `failures`: how earlier attempts at each Sentinel ended, for those that this attempt does not wait for.
fn reach_once(
    settings: &Settings,
    list: &SentinelList,
    failures: &mut SortedMap<String, Error>,
    deadline: Deadline,
) -> Result<()> {
    let timeout = deadline.left_or(settings.sentinel.timeout);
    let options = Arc::new(LinkOptions::of_sentinel(&settings.sentinel));
    let (mut links, mut asked) = (CommandLinks::default(), Vec::new());
    for member in list.members() {
        let endpoint: Endpoint = settings.sentinel.address_map.apply(&member.endpoint);
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &[b"PING"]);
        let ticket = Ticket { asker: 0, index: asked.len() };
        links.ask(&endpoint, &options, Ask { ticket, bytes, replies: 1, timeout, urgent: true, info_since: None });
        let (given, known_id, place) = (member.given, member.id, usize::MAX);
        asked.push(Asked { announced: member.endpoint, endpoint, given, counts: true, known_id, place, end: None });
    }
    // Without a waker the result of a lookup is noticed at the next event or timeout.
    let waker = Waker::new().ok().map(Arc::new);
    // Connecting, the handshake and the answer may each take timeout.sentinel.
    let limit = Instant::now() + deadline.left_or(timeout * 3);
    loop {
        let ended = links.drive(&Found::all(), waker.as_ref());
        for (ticket, outcome) in ended {
            match outcome {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let asked = &mut asked[ticket.index];
                    failures.insert(asked.endpoint.to_string(), error.clone());
                    asked.end = Some(Err(error));
                }
            }
        }
        if asked.iter().all(|one| one.end.is_some()) || Instant::now() >= limit {
            break;
        }
        links.wait(waker.as_ref(), limit);
    }
    for asked in asked.iter_mut().filter(|asked| asked.end.is_none()) {
        asked.end = failures.get(&asked.endpoint.to_string()).cloned().map(Err);
    }
    let what = format!("(after {} ms)", deadline.elapsed().as_millis());
    Err(report::nobody(&what, &asked, &report::said(&asked)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_an_earlier_attempt_has_shown_is_not_lost_with_the_last_one() {
        let mut config = Config::new();
        config.set("sentinel.addrs", "127.0.0.1:1,127.0.0.1:2").unwrap();
        let settings = config.settings().unwrap();
        let list = SentinelList::new(&settings.sentinel.addrs);
        let known = Error::new(Status::Connect, "cannot connect: Connection refused");
        let mut failures = SortedMap::new();
        failures.insert(String::from("127.0.0.1:1"), known);
        let error = reach_once(&settings, &list, &mut failures, Deadline::after(Duration::ZERO)).unwrap_err();
        let parts = ["127.0.0.1:1: cannot connect: Connection refused", "127.0.0.1:2: not waited for"];
        assert!(parts.iter().all(|part| error.message().contains(part)), "{error:?}");
    }
}

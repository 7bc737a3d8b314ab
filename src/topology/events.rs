//! The events that a Sentinel publishes on its channels, as data.
//!
//! Guarantees: a malformed event is ignored; only events of this form are acted on, whatever else is published. The
//! payloads are as sentinel.c writes them: `<kind> <name> <ip> <port>`, followed by ` @ <service> <ip> <port>` unless
//! it is about a primary; `+switch-master` has `<service> <old ip> <old port> <new ip> <new port>`. Leaves to others:
//! what follows from an event.

use crate::config::Endpoint;
use crate::error::clean;
use crate::resp::{Kind, Reply};

/// An event of a Sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelEvent {
    /// The service.
    pub service: String,
    /// What happened.
    pub kind: EventKind,
    /// The channel, as announced.
    pub channel: String,
    /// The node that it is about: `host:port`.
    pub about: String,
    /// The primary at that time, as this Sentinel saw it.
    pub primary: Option<Endpoint>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A failover has begun; its election is not decided yet (rule 5).
    FailoverBegins,
    /// A failover goes on.
    FailoverGoesOn,
    /// A failover goes on; this replica was selected.
    Selected(Endpoint),
    /// The selected replica was promoted: the leader is committed to it.
    Promoted(Endpoint),
    /// The failover was aborted.
    Aborted,
    /// The primary changed: from, to.
    Switched(Endpoint, Endpoint),
    /// This Sentinel considers the primary down, or not any more, subjectively or objectively.
    PrimaryDown(bool),
    /// An event about a replica.
    Replica,
    /// An event about the other Sentinels.
    Peers,
    /// Any other event about the service: its description has changed.
    Other,
}

impl SentinelEvent {
    /// Whether nodes may have changed their roles: what was learned by connecting to them does not count any more.
    pub fn is_change_of_nodes(&self) -> bool {
        let switches = matches!(self.kind, EventKind::Switched(..) | EventKind::Selected(_) | EventKind::Promoted(_));
        switches || self.channel == "+reboot"
    }
}

/// Reads a message of a subscription, in both protocols: `message`, `pmessage`.
pub fn read(reply: &Reply) -> Option<SentinelEvent> {
    if !matches!(reply.kind(0), Kind::Array | Kind::Push) {
        return None;
    }
    let text = |index| {
        reply.child(0, index).and_then(|node| reply.bytes(node)).and_then(|text| std::str::from_utf8(text).ok())
    };
    match text(0)? {
        "pmessage" => parse(text(2)?, text(3)?),
        "message" => parse(text(1)?, text(2)?),
        _ => None,
    }
}

/// The channels of a Sentinel are shorter; the name of one goes into the events of the library.
const MOST_CHANNEL: usize = 64;

/// Reads an event by its channel and payload.
pub fn parse(channel: &str, payload: &str) -> Option<SentinelEvent> {
    if channel.len() > MOST_CHANNEL {
        return None;
    }
    let words: Vec<&str> = payload.split(' ').collect();
    if channel == "+switch-master" {
        let [service, old, old_port, new, new_port, ..] = words[..] else { return None };
        let event_kind = EventKind::Switched(endpoint(old, old_port)?, endpoint(new, new_port)?);
        let (about, primary) = (clean(&format!("{new}:{new_port}")).into_owned(), endpoint(old, old_port));
        return Some(SentinelEvent {
            service: service.into(),
            kind: event_kind,
            channel: channel.into(),
            about,
            primary,
        });
    }
    let [kind, name, ip, port, ..] = words[..] else { return None };
    let service = match kind {
        "master" => name,
        _ => words.get(4).filter(|at| **at == "@").and_then(|_| words.get(5)).copied()?,
    };
    let event_kind = match (channel, kind) {
        ("+selected-slave", _) => EventKind::Selected(endpoint(ip, port)?),
        ("+promoted-slave", _) => EventKind::Promoted(endpoint(ip, port)?),
        ("+try-failover", "master") => EventKind::FailoverBegins,
        ("+elected-leader", "master") => EventKind::FailoverGoesOn,
        (channel, _) if channel.starts_with("+failover-state-") => EventKind::FailoverGoesOn,
        (channel, "master") if channel.starts_with("-failover-abort-") => EventKind::Aborted,
        ("+sdown" | "+odown", "master") => EventKind::PrimaryDown(true),
        ("-sdown" | "-odown", "master") => EventKind::PrimaryDown(false),
        (_, "slave") => EventKind::Replica,
        (_, "sentinel") => EventKind::Peers,
        _ => EventKind::Other,
    };
    let primary = match kind {
        "master" => endpoint(ip, port),
        _ => words.get(6).zip(words.get(7)).and_then(|(ip, port)| endpoint(ip, port)),
    };
    Some(SentinelEvent {
        service: service.into(),
        kind: event_kind,
        channel: shown(channel),
        about: clean(&format!("{ip}:{port}")).into_owned(),
        primary,
    })
}

/// What an operator can do about an event that needs one.
pub(super) fn advice(channel: &str) -> Option<&'static str> {
    match channel {
        "+reboot" => Some(
            "what the server had not saved is gone, everything if it saves nothing; its replicas copy what it has now",
        ),
        // The vote of one Sentinel: another one may lead, or it tries again.
        "-failover-abort-not-elected" => None,
        "-failover-abort-no-good-slave" => Some(
            "no replica can be promoted: look at their replica-priority (not 0), their links and their age, or bring the primary back",
        ),
        channel if channel.starts_with("-failover-abort-") => Some(
            "look at the log of this Sentinel and of the replica that was to be promoted, or bring the primary back",
        ),
        _ => None,
    }
}

/// The channels of Sentinels, without their signs and without the word behind it that some have. Programs act on these names, so they stay
/// as they are also where a password is the same word.
const CHANNELS: &[&str] = &[
    "reset-master",
    "slave",
    "failover-state",
    "failover-abort",
    "failover-detected",
    "failover-end",
    "slave-reconf",
    "dup-sentinel",
    "sentinel",
    "sdown",
    "odown",
    "new-epoch",
    "vote-for-leader",
    "try-failover",
    "elected-leader",
    "selected-slave",
    "promoted-slave",
    "switch-master",
    "tilt",
    "reboot",
    "monitor",
    "set",
    "config-update-from",
    "convert-to-slave",
    "fix-slave-config",
    "role-change",
    "script-error",
    "script-timeout",
    "script-child",
    "monitor-master",
];

/// A channel as events name it.
fn shown(channel: &str) -> String {
    let name = channel.trim_start_matches(['+', '-']);
    let known = CHANNELS.iter().filter_map(|known| name.strip_prefix(known)).min_by_key(|rest| rest.len());
    match known {
        Some(rest) => format!(
            "{}{}",
            &channel[..channel.len() - rest.len()],
            if rest.len() < 4 { rest.into() } else { clean(rest) }
        ),
        None => clean(channel).into_owned(),
    }
}

fn endpoint(host: &str, port: &str) -> Option<Endpoint> {
    Endpoint::tcp(host, port.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_kind(channel: &str, payload: &str) -> Option<(String, EventKind)> {
        parse(channel, payload).map(|event| (event.service, event.kind))
    }

    fn at(port: u16) -> Endpoint {
        Endpoint::tcp("127.0.0.1", port).unwrap()
    }

    #[test]
    fn events_are_read_as_sentinel_writes_them() {
        let of = |kind| Some(("m".to_owned(), kind));
        assert_eq!(read_kind("+switch-master", "m 127.0.0.1 1 127.0.0.1 2"), of(EventKind::Switched(at(1), at(2))));
        assert_eq!(read_kind("+try-failover", "master m 127.0.0.1 1"), of(EventKind::FailoverBegins));
        assert_eq!(read_kind("+elected-leader", "master m 127.0.0.1 1"), of(EventKind::FailoverGoesOn));
        assert_eq!(read_kind("+failover-state-select-slave", "master m 127.0.0.1 1"), of(EventKind::FailoverGoesOn));
        assert_eq!(read_kind(&"+x".repeat(33), "master m 127.0.0.1 1"), None, "a name that no Sentinel has");
        let slave = "slave 127.0.0.1:2 127.0.0.1 2 @ m 127.0.0.1 1";
        assert_eq!(read_kind("+selected-slave", slave), of(EventKind::Selected(at(2))));
        assert_eq!(read_kind("+failover-state-wait-promotion", slave), of(EventKind::FailoverGoesOn));
        assert_eq!(read_kind("+promoted-slave", slave), of(EventKind::Promoted(at(2))));
        assert_eq!(read_kind("-failover-abort-no-good-slave", "master m 127.0.0.1 1"), of(EventKind::Aborted));
        assert_eq!(read_kind("+odown", "master m 127.0.0.1 1 #quorum 2/2"), of(EventKind::PrimaryDown(true)));
        assert_eq!(read_kind("+sdown", slave), of(EventKind::Replica));
        assert_eq!(read_kind("+sentinel", "sentinel abc 127.0.0.1 9 @ m 127.0.0.1 1"), of(EventKind::Peers));
    }

    #[test]
    fn what_is_of_another_shape_is_no_event() {
        for (channel, payload) in [
            ("+switch-master", "m 127.0.0.1 1 127.0.0.1"),
            ("+switch-master", "m 127.0.0.1 x 127.0.0.1 2"),
            ("+new-epoch", "7"),
            ("+selected-slave", "slave a b c @ m 127.0.0.1 1"),
            ("+sdown", "slave a 127.0.0.1 2"),
            ("", ""),
        ] {
            assert_eq!(parse(channel, payload), None, "{channel} {payload}");
        }
    }
}

//! What a Sentinel announces on its channels: events as data.
//!
//! Guarantees: an event of a strange shape is none; only events of this form are acted on, whatever else is published. Payloads
//! as sentinel.c writes them: `<kind> <name> <ip> <port>`, with ` @ <service> <ip> <port>` behind everything that is not a primary;
//! `+switch-master` is `<service> <old ip> <old port> <new ip> <new port>`. Leaves to others: what follows from an event.

use crate::config::Endpoint;
use crate::resp::{Kind, Reply};

/// An event, with the service that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The service.
    pub service: String,
    /// What happened.
    pub what: What,
    /// The channel, as announced.
    pub channel: String,
    /// Whom it is about: `host:port`.
    pub about: String,
    /// The primary at the time, in this Sentinel's eyes.
    pub primary: Option<Endpoint>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A failover has begun: whether it wins its election is open (rule 5).
    FailoverBegins,
    /// A failover goes on.
    FailoverGoesOn,
    /// A failover goes on, and this replica was chosen.
    Selected(Endpoint),
    /// The chosen replica was promoted: the leader is committed to it.
    Promoted(Endpoint),
    /// The failover was given up.
    Aborted,
    /// The primary changed: from, to.
    Switched(Endpoint, Endpoint),
    /// The primary is (or is not) down, subjectively or objectively, in the eyes of this Sentinel.
    PrimaryDown(bool),
    /// Something about a replica.
    Replica,
    /// Something about the other Sentinels.
    Peers,
    /// Anything else about the service: its description has changed.
    Other,
}

impl News {
    /// Whether a node may be another than it was: what was learnt of it by connecting to it does not count any more.
    pub fn is_change_of_nodes(&self) -> bool {
        let switches = matches!(self.what, What::Switched(..) | What::Selected(_) | What::Promoted(_));
        switches || self.channel == "+reboot"
    }
}

/// Reads a message of a subscription, in both protocols: `message`, `pmessage`.
pub fn read(reply: &Reply) -> Option<News> {
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

/// Reads an event by its channel and payload.
pub fn parse(channel: &str, payload: &str) -> Option<News> {
    let words: Vec<&str> = payload.split(' ').collect();
    if channel == "+switch-master" {
        let [service, old, old_port, new, new_port, ..] = words[..] else { return None };
        let what = What::Switched(endpoint(old, old_port)?, endpoint(new, new_port)?);
        let (about, primary) = (format!("{new}:{new_port}"), endpoint(old, old_port));
        return Some(News { service: service.into(), what, channel: channel.into(), about, primary });
    }
    let [kind, name, ip, port, ..] = words[..] else { return None };
    let service = match kind {
        "master" => name,
        _ => words.get(4).filter(|at| **at == "@").and_then(|_| words.get(5)).copied()?,
    };
    let what = match (channel, kind) {
        ("+selected-slave", _) => What::Selected(endpoint(ip, port)?),
        ("+promoted-slave", _) => What::Promoted(endpoint(ip, port)?),
        ("+try-failover", "master") => What::FailoverBegins,
        ("+elected-leader", "master") => What::FailoverGoesOn,
        (channel, _) if channel.starts_with("+failover-state-") => What::FailoverGoesOn,
        (channel, "master") if channel.starts_with("-failover-abort-") => What::Aborted,
        ("+sdown" | "+odown", "master") => What::PrimaryDown(true),
        ("-sdown" | "-odown", "master") => What::PrimaryDown(false),
        (_, "slave") => What::Replica,
        (_, "sentinel") => What::Peers,
        _ => What::Other,
    };
    let primary = match kind {
        "master" => endpoint(ip, port),
        _ => words.get(6).zip(words.get(7)).and_then(|(ip, port)| endpoint(ip, port)),
    };
    Some(News { service: service.into(), what, channel: channel.into(), about: format!("{ip}:{port}"), primary })
}

fn endpoint(host: &str, port: &str) -> Option<Endpoint> {
    Endpoint::tcp(host, port.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(channel: &str, payload: &str) -> Option<(String, What)> {
        parse(channel, payload).map(|news| (news.service, news.what))
    }

    fn at(port: u16) -> Endpoint {
        Endpoint::tcp("127.0.0.1", port).unwrap()
    }

    #[test]
    fn events_are_read_as_sentinel_writes_them() {
        let of = |what| Some(("m".to_owned(), what));
        assert_eq!(what("+switch-master", "m 127.0.0.1 1 127.0.0.1 2"), of(What::Switched(at(1), at(2))));
        assert_eq!(what("+try-failover", "master m 127.0.0.1 1"), of(What::FailoverBegins));
        assert_eq!(what("+elected-leader", "master m 127.0.0.1 1"), of(What::FailoverGoesOn));
        assert_eq!(what("+failover-state-select-slave", "master m 127.0.0.1 1"), of(What::FailoverGoesOn));
        let slave = "slave 127.0.0.1:2 127.0.0.1 2 @ m 127.0.0.1 1";
        assert_eq!(what("+selected-slave", slave), of(What::Selected(at(2))));
        assert_eq!(what("+failover-state-wait-promotion", slave), of(What::FailoverGoesOn));
        assert_eq!(what("+promoted-slave", slave), of(What::Promoted(at(2))));
        assert_eq!(what("-failover-abort-no-good-slave", "master m 127.0.0.1 1"), of(What::Aborted));
        assert_eq!(what("+odown", "master m 127.0.0.1 1 #quorum 2/2"), of(What::PrimaryDown(true)));
        assert_eq!(what("+sdown", slave), of(What::Replica));
        assert_eq!(what("+sentinel", "sentinel abc 127.0.0.1 9 @ m 127.0.0.1 1"), of(What::Peers));
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

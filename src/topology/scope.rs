//! Which channels of a Sentinel a user may hear: what to subscribe to, and what instead if that is refused.
//!
//! Guarantees: all channels if permitted, else those that are acted upon; a refusal is remembered, so that the next
//! connection does not repeat it. No I/O. Leaves to others: what replaces refused channels (handle_state).

use crate::resp::encode;

/// The channels that are acted upon.
const CHANNELS: &[&str] = &[
    "+try-failover",
    "+elected-leader",
    "+failover-state-select-slave",
    "+failover-state-send-slaveof-noone",
    "+failover-state-wait-promotion",
    "+failover-state-reconf-slaves",
    "+failover-state-update-config",
    "+selected-slave",
    "+promoted-slave",
    "+switch-master",
    "-failover-abort-not-elected",
    "-failover-abort-no-good-slave",
    "-failover-abort-slave-timeout",
    "-failover-abort-master-is-back",
    "+sdown",
    "-sdown",
    "+odown",
    "-odown",
    "+reboot",
    "+slave",
    "+sentinel",
];

/// The forms of the subscription; each is tried when the previous one was refused. The server compares patterns
/// literally with those of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wording {
    Everything,
    BothSigns,
    Table,
    OneByOne,
}

/// A subscription that is requested, and what was refused.
#[derive(Debug)]
pub(super) struct Scope {
    wording: Wording,
    /// Answers that are still to come.
    due: usize,
    granted: usize,
    /// The channels that are refused even one by one, and the last refusal.
    refused: Vec<&'static str>,
    why: String,
    /// What was refused before the subscription was renewed: valid until the renewal is answered.
    before: Option<String>,
}

/// The state of a subscription after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// More answers are to come.
    Waits,
    /// These bytes are to be sent.
    Asks(Vec<u8>),
    /// It is over: granted, or refused for good.
    Done,
}

impl Scope {
    pub(super) fn new() -> Self {
        let (refused, why) = (Vec::new(), String::new());
        Self { wording: Wording::Everything, due: 0, granted: 0, refused, why, before: None }
    }

    /// Starts again with all channels, on the same connection: more may be permitted by now.
    pub(super) fn renew(&mut self) {
        *self = Self { before: self.deaf(), ..Self::new() };
    }

    /// The subscription to send, in the first form that was not refused.
    pub(super) fn ask(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        (self.granted, self.due) = (0, 1);
        self.refused.clear();
        match self.wording {
            Wording::Everything => encode::command(&mut out, &[b"PSUBSCRIBE", b"*"]),
            Wording::BothSigns => {
                self.due = 2;
                encode::command(&mut out, &[b"PSUBSCRIBE", b"+*", b"-*"]);
            }
            Wording::Table => {
                self.due = CHANNELS.len();
                let mut words: Vec<&[u8]> = vec![b"SUBSCRIBE"];
                words.extend(CHANNELS.iter().map(|channel| channel.as_bytes()));
                encode::command(&mut out, &words);
            }
            Wording::OneByOne => {
                self.due = CHANNELS.len();
                for channel in CHANNELS {
                    encode::command(&mut out, &[b"SUBSCRIBE", channel.as_bytes()]);
                }
            }
        }
        out
    }

    /// Whether answers are still to come.
    pub(super) fn is_asking(&self) -> bool {
        self.due > 0
    }

    /// A confirmation came.
    pub(super) fn grant(&mut self) -> Stands {
        self.granted += 1;
        self.end_one()
    }

    /// A refusal came, in these words.
    pub(super) fn refuse(&mut self, line: &str) -> Stands {
        line.clone_into(&mut self.why);
        self.wording = match self.wording {
            Wording::Everything => Wording::BothSigns,
            Wording::BothSigns => Wording::Table,
            Wording::Table => Wording::OneByOne,
            Wording::OneByOne => {
                self.refused.extend(CHANNELS.get(CHANNELS.len() - self.due.min(CHANNELS.len())));
                return self.end_one();
            }
        };
        Stands::Asks(self.ask())
    }

    fn end_one(&mut self) -> Stands {
        self.due = self.due.saturating_sub(1);
        if self.due == 0 { Stands::Done } else { Stands::Waits }
    }

    /// Which channels are not heard, and why; `None`: all that matter are.
    pub(super) fn deaf(&self) -> Option<String> {
        if self.is_asking() && self.before.is_some() {
            return self.before.clone();
        }
        let all = self.granted == 0;
        (!self.refused.is_empty()).then(|| match all {
            true => format!("refused: {}", self.why),
            false => format!("refused: {} of {} channels: {}", self.refused.len(), CHANNELS.len(), self.why),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: &str = "NOPERM no channels";

    /// The commands that are sent with this many refusals before everything is permitted.
    fn refused(times: usize) -> (Scope, Vec<String>) {
        let mut scope = Scope::new();
        let mut asked = vec![String::from_utf8(scope.ask()).unwrap()];
        for _ in 0..times {
            if let Stands::Asks(bytes) = scope.refuse(NO) {
                asked.push(String::from_utf8(bytes).unwrap());
            }
        }
        while scope.due > 0 {
            scope.grant();
        }
        (scope, asked)
    }

    #[test]
    fn less_is_asked_for_when_more_is_refused_and_the_refusal_is_remembered() {
        for times in 0..=3 {
            let (mut scope, asked) = refused(times);
            assert_eq!((asked.len(), scope.deaf()), (times + 1, None));
            assert_eq!(String::from_utf8(scope.ask()).unwrap(), asked[times], "the next connection asks the same");
            scope.renew();
            assert_eq!(String::from_utf8(scope.ask()).unwrap(), asked[0]);
            assert_eq!(scope.deaf(), None);
        }
        let (_, asked) = refused(3);
        assert!(asked[0].contains("\r\n*\r\n") && asked[1].contains("+*\r\n$2\r\n-*"));
        assert!(asked[2].starts_with("*22") && asked[3].starts_with("*2\r\n$9\r\nSUBSCRIBE"));
    }

    #[test]
    fn what_stays_refused_is_told() {
        let (scope, _) = refused(3 + 2);
        assert_eq!(scope.refused, ["+try-failover", "+elected-leader"]);
        assert_eq!(scope.deaf().as_deref(), Some("refused: 2 of 21 channels: NOPERM no channels"));
        let (mut scope, _) = refused(3 + CHANNELS.len());
        let deaf = Some("refused: NOPERM no channels".to_owned());
        assert_eq!(scope.deaf(), deaf);
        scope.renew();
        let _ = scope.ask();
        assert_eq!(scope.deaf(), deaf, "until it is answered");
        assert_eq!((scope.grant(), scope.deaf()), (Stands::Done, None));
    }
}

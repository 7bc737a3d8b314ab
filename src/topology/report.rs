//! What the Sentinels said, for people: error messages that name each of them, and one line for each.
//!
//! Guarantees: "nobody answered", "nobody knows the name" and "no usable primary" are different errors; each says what
//! every Sentinel said, up to a limit. No I/O.

use super::answer::{Answer, Heard};
use super::round::Asked;
use super::snapshot::SentinelView;
use crate::config::nearest;
use crate::error::{Error, Status, clean, flags, quoted};
use crate::sort;
use crate::time::Deadline;
use std::time::Instant;

/// How many Sentinels an error message quotes.
const QUOTED: usize = 10;

/// The error of a discovery without a candidate.
pub fn failure(service: &str, asked: &[Asked], status: Status, why: &str, deadline: Deadline) -> Error {
    let said = said(asked);
    let after = deadline.elapsed().as_millis();
    let answered = || asked.iter().filter_map(Asked::answer);
    if answered().next().is_none() {
        return nobody(&format!("when asked about service {} (after {after} ms)", quoted(service)), asked, &said);
    }
    if answered().all(|answer| matches!(answer.heard, Heard::Unknown)) {
        let text = format!(
            "no Sentinel that answered knows the service {}; {} (after {after} ms): {said}",
            quoted(service),
            known_instead(service, answered())
        );
        return Error::new(Status::UnknownService, text);
    }
    let text = format!("service {}: {why} (after {after} ms): {said}", quoted(service));
    Error::new(status, text).with_flags(flags::RETRYABLE)
}

/// The services that the Sentinels know, in case the name is mistyped: first the one that it most resembles.
fn known_instead<'a>(wrong: &str, answers: impl Iterator<Item = &'a Answer> + Clone) -> String {
    let mut names: Vec<&str> = answers.clone().flat_map(|answer| &answer.services).map(String::as_str).collect();
    sort::by_key(&mut names, |name| *name);
    names.dedup();
    let mut shown: Vec<String> = names.iter().take(QUOTED).map(|name| quoted(name)).collect();
    match names.len() {
        0 if answers.clone().any(|answer| answer.hides_services) => {
            return String::from("the ACL user of sentinel.username may not ask which ones they know (INFO)");
        }
        0 => return String::from("they know none"),
        all if all > QUOTED => shown.push(format!("and {} more", all - QUOTED)),
        _ => {}
    }
    let meant = nearest(wrong, names.into_iter());
    let meant = meant.map_or_else(String::new, |name| format!("did you mean {}? ", quoted(name)));
    format!("{meant}they know {}", shown.join(", "))
}

/// The error if no candidate could be verified. What the Sentinels said helps with a wrong or an unreachable node, but
/// not with a node that refused.
pub fn unverified(service: &str, asked: &[Asked], error: Error) -> Error {
    let error = error.in_context(format_args!("service {}", quoted(service)));
    match error.status() {
        Status::NoPrimary | Status::Role => error.with_note(format_args!("; the Sentinels: {}", said(asked))),
        _ => error,
    }
}

/// The error if no Sentinel answered; refused credentials are another error than silence.
pub fn nobody(what: &str, asked: &[Asked], said: &str) -> Error {
    let failures = asked.iter().filter_map(|asked| asked.end.as_ref().and_then(|end| end.as_ref().err()));
    let silent = [Status::Connect, Status::Resolve, Status::Timeout, Status::Io];
    let mut reached = failures.filter(|error| !silent.contains(&error.status())).peekable();
    if reached.peek().is_some() {
        let refusals: Vec<_> = reached.collect();
        if refusals.iter().all(|error| error.status() == Status::Auth) {
            let all = |code: &str| refusals.iter().all(|error| error.server_code() == code);
            // NOPERM: the credentials were accepted. NOAUTH: none were given.
            let text = if all("NOPERM") {
                format!(
                    "the ACL user of sentinel.username lacks a permission at the Sentinels {what}; grant what they name: {said}"
                )
            } else if all("NOAUTH") {
                format!("the Sentinels want a password {what}; set the option sentinel.password: {said}")
            } else {
                format!("the Sentinels refuse sentinel.username and sentinel.password {what}: {said}")
            };
            return Error::new(Status::Auth, text);
        }
        if refusals.iter().all(|error| error.status() == Status::Tls) {
            return Error::new(Status::Tls, format!("no TLS with any Sentinel {what}: {said}"));
        }
    }
    Error::new(Status::NoSentinel, format!("no Sentinel answered {what}: {said}")).with_flags(flags::RETRYABLE)
}

/// What each Sentinel said, as one line.
pub fn said(asked: &[Asked]) -> String {
    let mut parts: Vec<_> =
        asked.iter().take(QUOTED).map(|asked| format!("{}: {}", asked.endpoint, state(asked).1)).collect();
    if asked.len() > QUOTED {
        parts.push(format!("and {} more", asked.len() - QUOTED));
    }
    parts.join("; ")
}

/// What each Sentinel said, for the snapshot. `strangers`: the indices of those of another deployment.
pub fn views(asked: &[Asked], strangers: &[usize]) -> Vec<SentinelView> {
    let since = Instant::now();
    let view = |(index, asked): (usize, &Asked)| {
        let (state, text) = match state(asked) {
            ("ok", text) if strangers.contains(&index) => ("stranger", format!("of another deployment: {text}")),
            state => state,
        };
        let refused = asked.answer().map(|answer| answer.refused.join("; ")).filter(|lines| !lines.is_empty());
        let tilt = asked.answer().is_some_and(|answer| answer.tilt);
        SentinelView { endpoint: asked.endpoint.clone(), state, tilt, text, refused, since }
    };
    asked.iter().enumerate().map(view).collect()
}

fn state(asked: &Asked) -> (&'static str, String) {
    match &asked.end {
        None => ("skipped", String::from("not waited for")),
        Some(Err(error)) => ("failed", error.message().to_owned()),
        Some(Ok(Answer { tilt: true, heard: Heard::Known(view), .. })) => {
            ("unused", format!("in TILT mode, believed only when all are: {} (epoch {})", view.primary, view.epoch))
        }
        Some(Ok(answer)) => match &answer.heard {
            Heard::Unknown => ("unknown", String::from("does not know the service")),
            Heard::NoAddress(why) => ("unused", why.clone()),
            Heard::Known(view) if view.flags.is_empty() => ("ok", format!("{} (epoch {})", view.primary, view.epoch)),
            Heard::Known(view) => {
                ("ok", format!("{} (epoch {}, flags {})", view.primary, view.epoch, clean(&view.flags)))
            }
        },
    }
}

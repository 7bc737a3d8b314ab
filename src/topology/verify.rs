//! Asks a node that is named as the primary whether it is one.
//!
//! Guarantees: ends at its deadline; accepts an address only if the server there says that it is a primary, or tells its role by no
//! command that this user may call; a node that a pause keeps from being dialled is not dialled. Leaves to others: who names it
//! (discovery: Sentinels; fixed: the configuration), and what follows (finish).

use std::sync::Arc;

use super::judge::{Candidate, Known};
use super::pauses::Pauses;
use super::source::Source;
use crate::config::{ClientSettings, Endpoint, Settings};
use crate::error::{Error, Result, Status, flags};
use crate::net::{Conn, ConnectOptions, Expect, Pause, Role};
use crate::time::Deadline;

/// A connection to a verified primary.
pub struct Verified {
    /// The connection.
    pub conn: Conn,
    /// How it was opened.
    pub options: ConnectOptions,
}

/// Asks the candidates for their role, in the order of trust.
pub(super) fn verify<'a>(
    candidates: &'a [Candidate],
    settings: &Settings,
    known: &Known,
    voices: usize,
    pauses: &Pauses,
    deadline: Deadline,
) -> Result<(&'a Candidate, Option<Verified>)> {
    let mut failure = None;
    for (place, candidate) in candidates.iter().enumerate() {
        if let Some(candidate) = unasked(candidate, settings, known, pauses) {
            return Ok((candidate, None));
        }
        let endpoint = settings.client.address_map.apply(&candidate.primary);
        let pause = pauses.of_primary(&endpoint, candidate.epoch, &settings.client.retry);
        let error = match ask_role(candidate, &endpoint, settings, &pause, deadline) {
            Ok(verified) => return Ok((candidate, Some(verified))),
            Err(error) => error,
        };
        let next_has_most = candidates.get(place + 1).is_some_and(|next| next.voices.len() * 2 > voices);
        let goes_on = match error.status() {
            Status::Auth => false,
            Status::Role => true,
            // The next candidate may be the old primary, whose writes would be lost: only a lone voice yields to a
            // majority.
            _ => candidate.voices.len() < 2 && next_has_most,
        };
        failure = failure.or(Some(error));
        if !goes_on {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Status::NoPrimary, "no candidate")))
}

/// The candidate, if it need not be asked: it is the known primary and has confirmed its role, or the pools ask it
/// often enough.
pub(super) fn unasked<'a>(
    candidate: &'a Candidate,
    settings: &Settings,
    known: &Known,
    pauses: &Pauses,
) -> Option<&'a Candidate> {
    if known.primary.as_ref() != Some(&candidate.primary) || known.epoch != candidate.epoch {
        return None;
    }
    if known.trusted && !candidate.tilt {
        // Every connection to it is asked for its role, so a poll need not open one.
        return Some(candidate);
    }
    let endpoint = settings.client.address_map.apply(&candidate.primary);
    let pause = pauses.of_primary(&endpoint, candidate.epoch, &settings.client.retry);
    // It is the primary, but cannot serve at the moment.
    let cannot_serve = pause.reason().is_some_and(|error| error.status() == Status::Server);
    (cannot_serve || pause.has_told_role()).then_some(candidate)
}

/// Asks the candidate for its role, with the credentials of the data nodes, unless a pause forbids to dial it.
fn ask_role(
    candidate: &Candidate,
    endpoint: &Endpoint,
    settings: &Settings,
    pause: &Arc<Pause>,
    deadline: Deadline,
) -> Result<Verified> {
    let source = Source::of(settings);
    let named = match source {
        Source::Sentinels => {
            format!("the primary that {} Sentinels name (epoch {})", candidate.voices.len(), candidate.epoch)
        }
        Source::Fixed => String::from("the primary of the configuration"),
    };
    let asked = pause.attempt_to_ask().and_then(|attempt| {
        let options = role_options(&settings.client);
        let opened = Conn::open(endpoint, &options, deadline);
        let asked = opened.and_then(|conn| match &conn.info().role {
            role if role.is_primary() || (*role == Role::Unknown && !candidate.tilt) => Ok(Verified { conn, options }),
            role => {
                let stale = if source == Source::Sentinels { ": a stale address" } else { "" };
                let text = format!("{endpoint}, {named}, has the role {role}{stale}");
                Err(Error::new(Status::Role, text).with_endpoint(endpoint).with_flags(flags::RETRYABLE))
            }
        });
        attempt.told(&asked);
        asked
    });
    match asked {
        Ok(verified) => Ok(verified),
        Err(error) => match error.status() {
            Status::Auth | Status::Tls | Status::Unsupported | Status::Config | Status::Role => Err(error),
            // Errors that do not go away by themselves.
            Status::Server | Status::Connect if !error.has(flags::RETRYABLE) => Err(error),
            _ => {
                let silent = matches!(error.status(), Status::Connect | Status::Timeout | Status::Resolve);
                // A node that ends the connection has been reached, and a lack of descriptors says nothing about it.
                let unreached = silent
                    && !matches!(error.errno(), 0 | libc::ECONNRESET | libc::EPIPE | libc::EMFILE | libc::ENFILE);
                let context = format!("cannot verify {endpoint}, {named}");
                let error = error.with_status(Status::NoPrimary).in_context(context).with_flags(flags::RETRYABLE);
                Err(if unreached && source == Source::Sentinels {
                    error.with_note(unreachable(&candidate.primary))
                } else {
                    error
                })
            }
        },
    }
}

/// The advice for an address that Sentinels reach and this process does not.
fn unreachable(announced: &Endpoint) -> String {
    format!(
        "; the Sentinels announce {announced}: if it cannot be reached from here (NAT, containers), the option address.map \
         gives the address that can"
    )
}

/// The options with which the clients of the service connect, so that one of them can use the connection. Only the role
/// matters here: a server that is still loading is a primary too.
fn role_options(client: &ClientSettings) -> ConnectOptions {
    let mut options = ConnectOptions::of_node(client, Expect::Named);
    options.handshake.lineage = true;
    options
}

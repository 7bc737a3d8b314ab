//! Runs a program's commands at the Sentinels: at the first that answers, at one, or at all; and lists the services of a deployment.
//!
//! Guarantees: a command goes to the next Sentinel only if it just reads, or if it was not sent completely; under "all" every
//! Sentinel gets it once, under whatever names it is known; a call ends at its deadline. Runs on the caller's thread, on
//! connections of its own that end with the call. Leaves to others: what a command does (admin), the typed form of its reply (resp), and
//! which thread that is where the program's does not wait (submitted).

use std::collections::HashSet;
use std::io::IoSlice;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::admin::{AdminCommand, Effect, To};
use super::admin_call::AdminCall;
use super::answer::{self, Peer};
use super::identity::{Identity, Speaker};
use super::report;
use super::round::Asked;
use super::sentinel::Sentinel;
use super::service::Urgency;
use super::shared::closed;
use super::source::Source;
use super::table::{self, DeploymentRow};
use crate::config::{Endpoint, SENTINEL_PORT, Settings};
use crate::error::{Error, Result, Status, clean, flags, quoted};
use crate::net::{Conn, ConnectOptions};
use crate::resp::{Body, Reply, ReplyBuilder, Want, encode, typed};
use crate::sort::{self, SortedMap};
use crate::sys::thread;
use crate::time::Deadline;

/// How often a Sentinel that was reset is asked whether it knows its replicas again.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked for where all services are listed.
pub(super) const SERVICES: &str = "the services";

/// Why a Sentinel gave no reply.
struct Failure {
    error: Error,
    /// Whether all of the command was handed to the kernel: it may have run.
    sent: bool,
}

/// How Sentinels are asked for one call.
pub(super) struct Asking<'a> {
    settings: Arc<Settings>,
    deadline: Deadline,
    /// Of a submitted call, which may be ended from outside.
    admin_call: Option<&'a AdminCall>,
}

impl Asking<'_> {
    /// The limit for one Sentinel: one that hangs leaves time for the others.
    fn share(&self) -> Deadline {
        self.deadline.within(self.settings.sentinel.timeout)
    }

    fn open(&self, announced: &Endpoint) -> Result<Conn> {
        self.admin_call.map_or(Ok(()), AdminCall::check)?;
        let endpoint = self.settings.sentinel.address_map.apply(announced);
        let options = ConnectOptions::of_sentinel(&self.settings.sentinel);
        Conn::open_noted(&endpoint, &options, self.deadline, &|socket| {
            self.admin_call.iter().for_each(|admin_call| admin_call.watch(socket));
        })
    }
}

/// A program's call: what is needed to ask any Sentinel.
struct Caller<'a> {
    command: AdminCommand<'a>,
    bytes: Vec<u8>,
    typed: bool,
    asking: Asking<'a>,
}

impl<'a> Deref for Caller<'a> {
    type Target = Asking<'a>;

    fn deref(&self) -> &Asking<'a> {
        &self.asking
    }
}

impl Caller<'_> {
    /// Sends the command, and waits for its reply until then.
    fn exchange(&self, conn: &mut Conn, until: Deadline) -> std::result::Result<Reply, Failure> {
        self.admin_call.iter().for_each(|admin_call| admin_call.note_sent());
        let sent = conn.exchange(&mut [IoSlice::new(&self.bytes)], Want::One, None, until);
        sent.map_err(|failed| Failure { sent: failed.sent >= self.bytes.len(), error: failed.error })
    }

    /// Opens a connection, and runs the command on it.
    fn ask(&self, announced: &Endpoint, until: Deadline) -> std::result::Result<Reply, Failure> {
        let mut conn = self.open(announced).map_err(|error| Failure { error, sent: false })?;
        self.exchange(&mut conn, until)
    }

    /// The reply as the program gets it; an error reply is an error.
    fn answer(&self, announced: &Endpoint, reply: Reply) -> Result<Reply> {
        match reply.error_line(0) {
            Some(line) => Err(Error::from_server(line, announced)),
            None => self.shaped(reply),
        }
    }

    fn shaped(&self, reply: Reply) -> Result<Reply> {
        if self.typed { typed::typed(self.command.args(), reply) } else { Ok(reply) }
    }

    /// The error of a command that failed at one Sentinel.
    fn failed(&self, failure: Failure) -> Error {
        let error = failure.error.in_context(self.command.name());
        match failure.sent && self.command.effect != Effect::Reads {
            true => error.with_flags(flags::MAYBE_EXECUTED),
            false => error.with_flags(flags::RETRYABLE),
        }
    }
}

impl Sentinel {
    /// Runs a command, which is given without the word SENTINEL. Under [`To::All`] the reply is a MAP from each address to its reply,
    /// or to an ERROR node.
    pub fn exec(&self, command: &[&[u8]], to: To<'_>, typed: bool, deadline: Deadline) -> Result<Reply> {
        let command = self.looked_up(command, to, deadline)?;
        self.run(command, to, typed, self.asking(deadline, None))
    }

    /// The services that the Sentinels watch, each with its primary. With `follow` each is discovered and verified, and followed from
    /// then on.
    pub fn services(self: &Arc<Self>, follow: bool, deadline: Deadline) -> Result<Reply> {
        self.check_askable(SERVICES)?;
        self.list_services(follow, &self.asking(deadline, None))
    }

    /// The command, or why it is refused before anything is sent.
    pub(super) fn looked_up<'a>(
        &self,
        command: &'a [&'a [u8]],
        to: To<'_>,
        deadline: Deadline,
    ) -> Result<AdminCommand<'a>> {
        let command = AdminCommand::new(command)?;
        command.check(to)?;
        if let To::At(address) = to {
            endpoint(address)?;
        }
        self.check_askable(&command.name())?;
        check_time(&command.name(), deadline)?;
        Ok(command)
    }

    pub(super) fn asking<'a>(&self, deadline: Deadline, admin_call: Option<&'a AdminCall>) -> Asking<'a> {
        Asking { settings: self.settings(), deadline, admin_call }
    }

    /// Runs a command that was looked up.
    pub(super) fn run<'a>(
        &self,
        command: AdminCommand<'a>,
        to: To<'_>,
        typed: bool,
        asking: Asking<'a>,
    ) -> Result<Reply> {
        let caller = Caller { bytes: command.bytes(), command, typed, asking };
        match to {
            To::First => self.exec_first(&caller),
            To::At(address) => exec_at(&caller, &endpoint(address)?),
            To::All => self.exec_all(&caller),
        }
    }

    /// What [`Sentinel::services`] does.
    pub(super) fn list_services(self: &Arc<Self>, follow: bool, asking: &Asking<'_>) -> Result<Reply> {
        self.learn_peers(asking);
        let (mut rows, mut asked) = (SortedMap::new(), Vec::new());
        let mut met = HashSet::new();
        for speaker in self.shared().list().reachable() {
            let until = asking.share();
            let heard = match asking.open(&speaker.announced) {
                Ok(mut conn) => {
                    if !met.insert(identity(&mut conn, &speaker, until)) {
                        // The same Sentinel under another name.
                        continue;
                    }
                    list(&mut conn, &mut rows, until)
                }
                Err(error) => Err(error),
            };
            asked.push((speaker, heard));
        }
        if asked.iter().all(|(_, heard)| heard.is_err()) {
            let failures = asked.into_iter().filter_map(|(speaker, heard)| Some((speaker, heard.err()?))).collect();
            return Err(nobody(SERVICES, failures, asking.deadline));
        }
        if follow {
            asking.admin_call.map_or(Ok(()), AdminCall::check)?;
            self.follow(&mut rows, asking.deadline);
        }
        let mut out = ReplyBuilder::new();
        out.map();
        for (name, row) in rows.iter() {
            out.text(name);
            table::deployment(&mut out, row);
        }
        out.end();
        out.try_finish()
    }

    /// Discovers all of them at the same time.
    fn follow(self: &Arc<Self>, rows: &mut SortedMap<String, DeploymentRow>, deadline: Deadline) {
        let services: Vec<_> = rows.keys().map(|name| self.service(name)).collect();
        let before: Vec<u64> = services.iter().map(|service| service.discovered()).collect();
        services.iter().for_each(|service| service.request_discovery(Urgency::Soon));
        for ((service, before), row) in services.iter().zip(before).zip(rows.values_mut()) {
            match service.discover(before, deadline) {
                Ok(snapshot) => {
                    (row.verified, row.epoch) = (true, snapshot.epoch);
                    row.primary = snapshot.primary.as_ref().map(ToString::to_string);
                }
                Err(error) => row.error = Some(error.message().to_owned()),
            }
        }
    }

    pub(super) fn check_askable(&self, what: &str) -> Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        match self.shared().source() {
            Source::Sentinels => Ok(()),
            Source::Fixed => Err(Error::new(
                Status::Unsupported,
                format!(
                    "{what}: there is no Sentinel to ask, because the configuration gives the primary (redis:// or primary.addr); \
                     vigie_cmd_exec() asks it for ROLE and INFO"
                ),
            )),
        }
    }

    /// Asks one after the other, until one answers.
    fn exec_first(&self, caller: &Caller<'_>) -> Result<Reply> {
        let mut failures = Vec::new();
        let mut speakers = self.shared().list().reachable();
        if caller.command.effect != Effect::Reads {
            // Always in the same order: two Sentinels that are told to fail over at the same time promote two replicas.
            sort::by_key(&mut speakers, |speaker| speaker.announced.to_string());
        }
        let last = speakers.len().saturating_sub(1);
        for (place, speaker) in speakers.into_iter().enumerate() {
            if caller.deadline.is_over() {
                break;
            }
            let until = if place == last { caller.deadline } else { caller.share() };
            match caller.ask(&speaker.announced, until) {
                Ok(reply) => return caller.answer(&speaker.announced, reply),
                Err(failure) if failure.sent && caller.command.effect != Effect::Reads => {
                    return Err(caller.failed(failure));
                }
                Err(failure) => failures.push((speaker, failure.error)),
            }
        }
        Err(nobody(&caller.command.name(), failures, caller.deadline))
    }

    fn exec_all(&self, caller: &Caller<'_>) -> Result<Reply> {
        self.learn_peers(&caller.asking);
        let (mut out, mut met, mut failures) = (ReplyBuilder::new(), HashSet::new(), Vec::new());
        let (mut answered, mut refusal, mut accepted) = (false, None, false);
        // Set when no further Sentinel may be reset.
        let mut stop = None;
        out.map();
        for speaker in self.shared().list().reachable() {
            let outcome = match &stop {
                Some(why) => Err(Failure { error: Error::clone(why), sent: false }),
                None => match caller.open(&speaker.announced) {
                    Ok(mut conn) => {
                        if !met.insert(identity(&mut conn, &speaker, caller.share())) {
                            // The same Sentinel under another name.
                            continue;
                        }
                        self.exec_one_of_all(caller, &mut conn, &mut stop)
                    }
                    Err(error) => Err(Failure { error, sent: false }),
                },
            };
            out.text(&speaker.announced.to_string());
            match outcome {
                Ok(reply) => {
                    answered = true;
                    match reply.error_line(0) {
                        Some(line) => {
                            refusal.get_or_insert_with(|| Error::from_server(line, &speaker.announced));
                            out.reply(&reply);
                        }
                        None => {
                            accepted = true;
                            let shaped = caller.shaped(reply)?;
                            out.reply(&shaped);
                        }
                    }
                }
                Err(failure) => {
                    let maybe = failure.sent && caller.command.effect != Effect::Reads;
                    let note = if maybe { " (it was sent, and may have run)" } else { "" };
                    let error = failure.error;
                    out.error(&format!("{} {}{note}", error.status().info().name, error.message()));
                    failures.push((speaker, error));
                }
            }
        }
        out.end();
        let reply = out.try_finish()?;
        if let Some(refusal) = refusal.filter(|_| !accepted) {
            let note = "; no Sentinel has accepted it, and vigie_error_reply() has what each said";
            return Err(refusal.in_context(caller.command.name()).with_note(note).with_reply(reply));
        }
        match answered {
            true => Ok(reply),
            false => Err(nobody(&caller.command.name(), failures, caller.deadline).with_reply(reply)),
        }
    }

    /// Runs the command at one Sentinel of all. A Sentinel that was reset has to know its replicas again before the next one is reset:
    /// otherwise none of them could fail over to any.
    fn exec_one_of_all(
        &self,
        caller: &Caller<'_>,
        conn: &mut Conn,
        stop: &mut Option<Error>,
    ) -> std::result::Result<Reply, Failure> {
        if !caller.command.is("RESET") {
            return caller.exchange(conn, caller.share());
        }
        let not_asked = |error: Error| Failure { error: error.in_context("its replicas, before RESET"), sent: false };
        let before = replicas(conn, caller.share(), Listed::Usable).map_err(not_asked)?;
        let reply = caller.exchange(conn, caller.share())?;
        if let Err(error) = await_replicas(conn, &before, caller) {
            *stop = Some(error.in_context(format_args!(
                "not sent, because {} was reset and does not know its replicas again",
                conn.endpoint()
            )));
        }
        Ok(reply)
    }

    /// Learns the other Sentinels, if no discovery has done so: only the given ones are known before it. What is not found out here
    /// the questions that follow will show.
    fn learn_peers(&self, asking: &Asking<'_>) {
        if self.all().iter().any(|service| service.discovered() > 0) {
            return;
        }
        for speaker in self.shared().list().reachable() {
            let until = asking.share();
            let heard = asking.open(&speaker.announced).and_then(|mut conn| others(&mut conn, until));
            if let Ok(peers) = heard {
                self.shared().list().learn(&peers, asking.settings.sentinel.max_peers);
                return;
            }
        }
    }
}

/// The other Sentinels that one lists for any of its services.
fn others(conn: &mut Conn, until: Deadline) -> Result<Vec<Peer>> {
    let masters = question(conn, &[b"SENTINEL", b"MASTERS"], until)?;
    let mut all: Vec<Peer> = Vec::new();
    for name in masters.children(0).map(|id| text(&masters, id, "name")) {
        let listed = answer::peers(&question(conn, &[b"SENTINEL", b"SENTINELS", name.as_bytes()], until)?);
        all.extend(listed.into_iter().filter(|peer| !all.contains(peer)).collect::<Vec<_>>());
    }
    Ok(all)
}

/// Runs the command at one address.
fn exec_at(caller: &Caller<'_>, announced: &Endpoint) -> Result<Reply> {
    match caller.ask(announced, caller.deadline) {
        Ok(reply) => caller.answer(announced, reply),
        Err(failure) => Err(caller.failed(failure)),
    }
}

/// The address of a Sentinel, as a program gives it.
fn endpoint(address: &str) -> Result<Endpoint> {
    Endpoint::parse(address, SENTINEL_PORT)
        .map_err(|error| Error::new(Status::InvalidArg, format!("address: {}", error.message())))
}

/// Refuses what there is no time for.
pub(super) fn check_time(what: &str, deadline: Deadline) -> Result<()> {
    match deadline.is_over() {
        false => Ok(()),
        true => Err(Error::new(Status::Timeout, format!("{what} was not sent: timeout_ms leaves no time"))),
    }
}

/// Who answers there.
fn identity(conn: &mut Conn, speaker: &Speaker, until: Deadline) -> String {
    let mut question = Vec::new();
    encode::command(&mut question, &[b"SENTINEL", b"MYID"]);
    let told = conn.request(&question, Want::One, until).ok().filter(|reply| reply.error_line(0).is_none());
    let id = told.and_then(|reply| reply.bytes(0).map(|id| String::from_utf8_lossy(id).into_owned()));
    match (id, &speaker.identity) {
        (Some(id), _) => clean(&id).into_owned(),
        (None, Identity::Id(id)) => id.clone(),
        (None, Identity::At(endpoint)) => endpoint.to_string(),
    }
}

/// The error if no Sentinel answered, with what happened at each.
fn nobody(what: &str, failures: Vec<(Speaker, Error)>, deadline: Deadline) -> Error {
    let asked = |(speaker, error): (Speaker, Error)| Asked {
        endpoint: speaker.announced.clone(),
        announced: speaker.announced,
        given: true,
        counts: true,
        known_id: None,
        place: usize::MAX,
        end: Some(Err(error)),
    };
    let asked: Vec<Asked> = failures.into_iter().map(asked).collect();
    let said = if asked.is_empty() { String::from("none is known") } else { report::said(&asked) };
    report::nobody(&format!("{what} (after {} ms)", deadline.elapsed().as_millis()), &asked, &said)
}

/// Which replicas are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    All,
    /// Those without a flag of trouble: only these are expected to be known again.
    Usable,
}

/// The replicas of each service of one Sentinel.
fn replicas(conn: &mut Conn, until: Deadline, which: Listed) -> Result<SortedMap<String, Vec<String>>> {
    let mut known = SortedMap::new();
    let masters = question(conn, &[b"SENTINEL", b"MASTERS"], until)?;
    for name in masters.children(0).map(|id| text(&masters, id, "name")) {
        let reply = question(conn, &[b"SENTINEL", b"REPLICAS", name.as_bytes()], until)?;
        let listed = reply.children(0).filter(|id| which == Listed::All || is_usable(&reply, *id));
        let nodes = listed.map(|id| format!("{}:{}", text(&reply, id, "ip"), text(&reply, id, "port")));
        known.insert(name, nodes.collect());
    }
    Ok(known)
}

fn is_usable(reply: &Body, id: u32) -> bool {
    let flags = text(reply, id, "flags");
    !flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"))
}

/// Waits until a Sentinel lists these replicas again.
fn await_replicas(conn: &mut Conn, before: &SortedMap<String, Vec<String>>, caller: &Caller<'_>) -> Result<()> {
    let mut missed = None;
    loop {
        let now = match replicas(conn, caller.share(), Listed::All) {
            Ok(now) => now,
            // The time ended during a question: what is missing says more.
            Err(error) if caller.deadline.is_over() => return Err(missed.unwrap_or(error)),
            Err(error) => return Err(error),
        };
        let missing = before.iter().find_map(|(name, nodes)| {
            let is_known = |node: &&String| now.get(name).is_some_and(|known| known.contains(*node));
            nodes.iter().find(|node| !is_known(node)).map(|node| (name, node))
        });
        let Some((name, node)) = missing else { return Ok(()) };
        let after = caller.deadline.elapsed().as_millis();
        let text = format!("{node} of service {} is missing (after {after} ms)", quoted(name));
        let error = Error::new(Status::Timeout, text);
        if caller.deadline.is_over() {
            return Err(error);
        }
        missed = Some(error);
        thread::sleep(caller.deadline.left_or(LOOK));
    }
}

/// Asks a question whose error reply is an error.
fn question(conn: &mut Conn, command: &[&[u8]], until: Deadline) -> Result<Reply> {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, command);
    let reply = conn.request(&bytes, Want::One, until)?;
    match reply.error_line(0) {
        Some(line) => Err(Error::from_server(line, conn.endpoint())),
        None => Ok(reply),
    }
}

/// A field of an entry, as text; empty if it is missing.
fn text(reply: &Body, id: u32, key: &str) -> String {
    let found = reply.find(id, key.as_bytes()).and_then(|id| reply.bytes(id));
    found.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// Adds what one Sentinel says of its services. The view with the highest epoch counts. During a failover SENTINEL MASTERS shows the
/// new epoch with the old address (rule 1), so the address is asked for by name.
fn list(conn: &mut Conn, rows: &mut SortedMap<String, DeploymentRow>, until: Deadline) -> Result<()> {
    let masters = question(conn, &[b"SENTINEL", b"MASTERS"], until)?;
    for id in masters.children(0) {
        let (name, number) = (text(&masters, id, "name"), |key: &str| text(&masters, id, key).parse().unwrap_or(0));
        let address = question(conn, &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()], until)?;
        let part = |index| address.child(0, index).and_then(|id| address.bytes(id));
        let primary = part(0).zip(part(1)).and_then(|(host, port)| {
            let port = std::str::from_utf8(port).ok()?.parse().ok()?;
            Endpoint::tcp(&String::from_utf8_lossy(host), port).ok()
        });
        let row = rows.or_default(name);
        row.named_by += 1;
        if row.named_by == 1 || number("config-epoch") > row.epoch {
            row.epoch = number("config-epoch");
            row.primary = primary.map(|primary| primary.to_string());
            row.flags = clean(&text(&masters, id, "flags")).into_owned();
            (row.quorum, row.replicas) = (number("quorum"), number("num-slaves"));
        }
    }
    Ok(())
}

//! The handshake of a connection: credentials, name, protocol, database, and the server's role.
//!
//! Guarantees: no I/O (bytes out, replies in), so that it runs blocking under a connection and polled under a Sentinel link; it
//! takes one round trip with a server that knows HELLO, or with protocol 2, and two with an older one, once for each node; a server
//! whose role is known and not the expected one is refused. Only refusals that pass by themselves are RETRYABLE; the others name
//! the option that asked for what was refused. Leaves to others: the clock, and which server the errors name.
//!
//! The role: ROLE is in the first flight. If it is refused, HELLO has given the role already; if HELLO has not, or if the node that
//! a replica follows is needed, INFO replication is asked in one more flight. A server that refuses all of them passes with
//! [`Role::Unknown`].
//!
//! PING is part of the flight because a server that is loading its data answers every other command of it.

use super::role::{Replication, Role, Tells};
use crate::config::{ClientSettings, Credentials, Protocol, SentinelSettings};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{Kind, Reply, encode};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The expected role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A server that takes writes.
    Primary,
    /// A server that follows another.
    Replica,
    /// A Sentinel.
    Sentinel,
    /// Any server that speaks RESP, including one that is still loading.
    Any,
    /// A server that others name as the primary: its role is to be learned, and its refusals are no errors ([`ServerInfo::unmet`]).
    Named,
}

/// The options of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeOptions {
    /// User and password.
    pub auth: Credentials,
    /// The database; 0 needs no command.
    pub db: u32,
    /// The protocol wanted.
    pub protocol: Protocol,
    /// The name shown in CLIENT LIST.
    pub client_name: Option<String>,
    /// Ask not to be evicted.
    pub no_evict: bool,
    /// Ask that reads do not touch the keys' age.
    pub no_touch: bool,
    /// The role that is needed.
    pub expect: Expect,
    /// Ask for the replication id as well, in the same flight.
    pub lineage: bool,
    /// What the connections to the same node have agreed on; shared by all clones.
    pub agreed: Agreed,
}

/// The protocol that `protocol = auto` has led to at one node: all its connections use the same, because the types of replies
/// differ.
#[derive(Debug, Clone, Default)]
pub struct Agreed(Arc<AtomicU8>);

/// It is found out, and no part of what was wanted.
impl PartialEq for Agreed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Agreed {}

impl Agreed {
    fn protocol(&self) -> Option<u8> {
        Some(self.0.load(Ordering::Acquire)).filter(|protocol| *protocol != 0)
    }

    /// What all have agreed on, which is this if it is the first.
    fn settle(&self, protocol: u8) -> u8 {
        self.0.compare_exchange(0, protocol, Ordering::AcqRel, Ordering::Acquire).err().unwrap_or(protocol)
    }

    /// Whether a connection that was opened without it may be one of the node's: true for the first one, and for those with the
    /// same protocol.
    fn admits(&self, protocol: u8) -> bool {
        self.settle(protocol) == protocol
    }

    /// Another server has come to this address.
    fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }
}

impl HandshakeOptions {
    /// Asks for nothing but this role.
    pub fn plain(expect: Expect) -> Self {
        Self {
            auth: Credentials::default(),
            db: 0,
            protocol: Protocol::Auto,
            client_name: None,
            no_evict: false,
            no_touch: false,
            expect,
            lineage: false,
            agreed: Agreed::default(),
        }
    }

    /// For a connection that runs commands on a data node: everything that the settings ask for.
    pub fn of_node(settings: &ClientSettings, expect: Expect) -> Self {
        Self {
            db: settings.db,
            protocol: settings.protocol,
            no_evict: settings.no_evict,
            no_touch: settings.no_touch,
            ..Self::of_inquiry(settings, expect)
        }
    }

    /// For a connection that only asks a data node for its role.
    pub fn of_inquiry(settings: &ClientSettings, expect: Expect) -> Self {
        let (auth, client_name) = (settings.auth.clone(), settings.client_name.clone());
        Self { auth, client_name, ..Self::plain(expect) }
    }

    /// For a connection to a Sentinel.
    pub fn of_sentinel(settings: &SentinelSettings) -> Self {
        let (auth, client_name) = (settings.auth.clone(), settings.client_name.clone());
        Self { auth, client_name, ..Self::plain(Expect::Sentinel) }
    }

    /// The same options, for a node that agrees on a protocol of its own.
    pub fn for_another_node(&self) -> Self {
        Self { agreed: Agreed::default(), ..self.clone() }
    }

    /// Whether a connection that was opened with `others` could have been opened with these.
    pub fn would_have_got(&self, others: &Self, info: &ServerInfo) -> bool {
        let same = self.auth == others.auth
            && self.db == others.db
            && self.protocol == others.protocol
            && self.client_name == others.client_name
            && (self.no_evict, self.no_touch) == (others.no_evict, others.no_touch);
        same && !info.unmet && (self.protocol != Protocol::Auto || self.agreed.admits(info.protocol))
    }
}

/// What is known of the server after the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// 2 or 3.
    pub protocol: u8,
    /// Its role.
    pub role: Role,
    /// The command that gave the role.
    pub tells: Tells,
    /// The answer to INFO replication, if it was asked; `None` if it was refused.
    pub replication: Option<Replication>,
    /// INFO replication was asked.
    pub asked_info: bool,
    /// The number of this connection since the start of the server; 0 if the server does not tell it.
    pub id: u64,
    /// Something that was asked for was refused, or the server cannot serve yet.
    pub unmet: bool,
    /// As HELLO gives it, 7.2.4 as 0x070204; 0 if it does not.
    pub version: u32,
}

/// The first three numbers of a version.
fn version(text: &[u8]) -> u32 {
    let number = |part: &[u8]| {
        part.iter()
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0, |n: u32, digit| n.saturating_mul(10).saturating_add(u32::from(*digit - b'0')))
    };
    let mut parts = text.split(|byte| *byte == b'.');
    (0..3).fold(0, |whole, _| whole << 8 | number(parts.next().unwrap_or_default()).min(255))
}

impl ServerInfo {
    /// For a server of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            protocol: 2,
            role: Role::Unknown,
            tells: Tells::Nothing,
            replication: None,
            asked_info: false,
            id: 0,
            unmet: false,
            version: 0,
        }
    }
}

/// What to do after a reply.
#[derive(Debug)]
pub enum Step {
    /// Read the next reply.
    More,
    /// Send these bytes, then read.
    Send(Vec<u8>),
    /// The connection may be used.
    Done(ServerInfo),
}

/// One command whose reply is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Hello,
    Auth,
    SetName,
    SetInfo,
    /// The number of the connection, which HELLO would have given.
    Id,
    NoEvict,
    NoTouch,
    Select,
    Ping,
    Role,
    Info,
    /// HELLO for the role alone, on a connection that was opened without it.
    HelloRole,
}

/// A connection's number in a reply; 0 if there is none.
fn number(reply: &Reply, node: u32) -> u64 {
    reply.int(node).and_then(|id| u64::try_from(id).ok()).unwrap_or_default()
}

/// A handshake in progress.
pub struct Handshake {
    options: HandshakeOptions,
    due: VecDeque<Asked>,
    info: ServerInfo,
    /// The role that HELLO gave.
    hello_role: Option<Role>,
    /// HELLO has been refused, so that it need not be asked again.
    hello_refused: bool,
    /// HELLO was refused as unknown: the rest of the flight is void, and another one follows.
    without_hello: bool,
    /// An error apart from the role. A wrong role is reported first.
    deferred: Option<Error>,
    /// A reply has come.
    is_answered: bool,
}

impl Handshake {
    /// A new handshake.
    pub fn new(options: HandshakeOptions) -> Self {
        let (due, info) = (VecDeque::new(), ServerInfo::unknown());
        let (hello_role, deferred) = (None, None);
        Self {
            options,
            due,
            info,
            hello_role,
            hello_refused: false,
            without_hello: false,
            deferred,
            is_answered: false,
        }
    }

    /// The bytes to send first.
    pub fn first(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let agreed_2 = self.options.protocol == Protocol::Auto && self.options.agreed.protocol() == Some(2);
        self.hello_refused = agreed_2;
        if agreed_2 || self.options.protocol == Protocol::Resp2 {
            self.greet_without_hello(&mut out);
        } else {
            self.greet_with_hello(&mut out);
        }
        self.introduce(&mut out);
        out
    }

    /// Whether no reply has come.
    pub fn is_unanswered(&self) -> bool {
        !self.is_answered
    }

    /// Takes the next reply.
    pub fn feed(&mut self, reply: &Reply) -> Result<Step> {
        self.is_answered = true;
        let Some(asked) = self.due.pop_front() else {
            return Err(Error::new(Status::Protocol, "a reply came that was not asked for"));
        };
        if self.without_hello {
            return Ok(self.feed_void());
        }
        match reply.error_line(0) {
            Some(line) => self.refused(asked, &without_secrets(line, &self.options.auth)),
            None => self.accepted(asked, reply),
        }
    }

    /// How many replies are still due.
    pub fn due(&self) -> usize {
        self.due.len()
    }

    fn say(&mut self, out: &mut Vec<u8>, asked: Asked, args: &[&[u8]]) {
        encode::command(out, args);
        self.due.push_back(asked);
    }

    fn greet_with_hello(&mut self, out: &mut Vec<u8>) {
        let auth = self.options.auth.clone();
        let name = self.options.client_name.clone();
        let mut args: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some((user, password)) = login(&auth) {
            args.extend([b"AUTH".as_slice(), user.unwrap_or("default").as_bytes(), password]);
        }
        if let Some(name) = &name {
            args.extend([b"SETNAME".as_slice(), name.as_bytes()]);
        }
        self.say(out, Asked::Hello, &args);
    }

    fn greet_without_hello(&mut self, out: &mut Vec<u8>) {
        let auth = self.options.auth.clone();
        match login(&auth) {
            Some((Some(user), password)) => self.say(out, Asked::Auth, &[b"AUTH", user.as_bytes(), password]),
            Some((None, password)) => self.say(out, Asked::Auth, &[b"AUTH", password]),
            None => {}
        }
        if let Some(name) = self.options.client_name.clone() {
            self.say(out, Asked::SetName, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
        }
        if self.options.expect != Expect::Sentinel {
            self.say(out, Asked::Id, &[b"CLIENT", b"ID"]);
        }
    }

    /// What follows either greeting.
    fn introduce(&mut self, out: &mut Vec<u8>) {
        self.say(out, Asked::SetInfo, &[b"CLIENT", b"SETINFO", b"LIB-NAME", b"vigie"]);
        self.say(out, Asked::SetInfo, &[b"CLIENT", b"SETINFO", b"LIB-VER", env!("CARGO_PKG_VERSION").as_bytes()]);
        if self.options.expect != Expect::Sentinel {
            if self.options.no_evict {
                self.say(out, Asked::NoEvict, &[b"CLIENT", b"NO-EVICT", b"ON"]);
            }
            if self.options.no_touch {
                self.say(out, Asked::NoTouch, &[b"CLIENT", b"NO-TOUCH", b"ON"]);
            }
            if self.options.db != 0 {
                self.say(out, Asked::Select, &[b"SELECT", self.options.db.to_string().as_bytes()]);
            }
            if self.options.expect != Expect::Any {
                self.say(out, Asked::Ping, &[b"PING"]);
            }
        }
        if self.options.lineage && !self.info.asked_info {
            self.ask_info(out);
        }
        self.say(out, Asked::Role, &[b"ROLE"]);
    }

    fn ask_info(&mut self, out: &mut Vec<u8>) {
        self.info.asked_info = true;
        self.say(out, Asked::Info, &[b"INFO", b"replication"]);
    }

    /// A reply of the flight that the refusal of HELLO has made void.
    fn feed_void(&mut self) -> Step {
        if !self.due.is_empty() {
            return Step::More;
        }
        (self.without_hello, self.info.asked_info) = (false, false);
        let mut out = Vec::with_capacity(256);
        self.greet_without_hello(&mut out);
        self.introduce(&mut out);
        Step::Send(out)
    }

    fn accepted(&mut self, asked: Asked, reply: &Reply) -> Result<Step> {
        match asked {
            Asked::Hello => self.hello(reply),
            Asked::Id => {
                self.info.id = number(reply, 0);
                Ok(Step::More)
            }
            Asked::HelloRole => {
                self.hello_role = Role::of_hello(reply);
                Ok(Step::More)
            }
            Asked::Info => {
                self.info.replication = Replication::parse(reply);
                self.informed()
            }
            Asked::Role => {
                let role = Role::parse(reply)
                    .ok_or_else(|| Error::new(Status::Protocol, "the answer to ROLE is not a role"))?;
                self.judge(role, Tells::Role)
            }
            _ => Ok(Step::More),
        }
    }

    fn hello(&mut self, reply: &Reply) -> Result<Step> {
        if !matches!(reply.kind(0), Kind::Map | Kind::Array) {
            return Err(Error::new(Status::Protocol, "the answer to HELLO is not that of a Redis or Valkey server"));
        }
        let proto = reply.find(0, b"proto").and_then(|id| reply.int(id));
        self.info.protocol = if proto == Some(2) { 2 } else { 3 };
        self.info.id = reply.find(0, b"id").map_or(0, |id| number(reply, id));
        self.info.version = reply.find(0, b"version").and_then(|id| reply.bytes(id)).map_or(0, version);
        self.hello_role = Role::of_hello(reply);
        Ok(Step::More)
    }

    fn refused(&mut self, asked: Asked, line: &[u8]) -> Result<Step> {
        if line.starts_with(b"NOAUTH") {
            return Err(self.wants_password());
        }
        if let Some(error) = refusal(line) {
            let of_node = error.status() == Status::Auth && self.options.expect != Expect::Sentinel;
            // A refusal by the Sentinels is reported once for all of them.
            return Err(if of_node { error.with_note("; correct auth.username and auth.password") } else { error });
        }
        let transient = is_transient(line);
        match asked {
            Asked::Hello if transient => Err(server_error("HELLO", line)),
            Asked::Hello => self.refused_hello(line),
            Asked::Auth if transient => Err(server_error("AUTH", line)),
            Asked::Auth => Err(server_error("AUTH", line).with_status(Status::Auth)),
            // Old servers and restricted users lack these; nothing depends on them.
            Asked::SetInfo | Asked::Id | Asked::HelloRole => Ok(Step::More),
            Asked::SetName if is_unknown(line) || line.starts_with(b"NOPERM") => Ok(Step::More),
            Asked::Ping if !transient => Ok(Step::More),
            Asked::Info => self.informed(),
            Asked::Role if transient => Err(server_error("ROLE", line)),
            Asked::Role => self.without_role(),
            Asked::NoEvict => Ok(self.defer(unmet("client.no_evict=true", "CLIENT NO-EVICT", line))),
            Asked::NoTouch => Ok(self.defer(unmet("client.no_touch=true", "CLIENT NO-TOUCH", line))),
            Asked::SetName => {
                let option = format!("client.name={}", self.options.client_name.as_deref().unwrap_or_default());
                Ok(self.defer(unmet(&option, "CLIENT SETNAME", line)))
            }
            Asked::Ping => Ok(self.defer(server_error("PING", line))),
            Asked::Select => Ok(self.defer(no_database(self.options.db, line))),
        }
    }

    /// The server's own text for that is meant for people at its console.
    fn wants_password(&self) -> Error {
        let prefix = if self.options.expect == Expect::Sentinel { "sentinel" } else { "auth" };
        let text = match self.options.auth.is_empty() {
            true => format!("NOAUTH: it wants a password, and none is set ({prefix}.username, {prefix}.password)"),
            false => format!("NOAUTH: it does not know {prefix}.username and {prefix}.password by now"),
        };
        Error::new(Status::Auth, text).with_server_code("NOAUTH")
    }

    /// With `protocol = auto` any refusal means that the server does not speak 3; once the node has, only a plain one does.
    fn refused_hello(&mut self, line: &[u8]) -> Result<Step> {
        let is_plain = is_unknown(line) || line.starts_with(b"NOPROTO");
        if self.options.protocol == Protocol::Resp3 {
            return Err(server_error("HELLO", line).with_status(Status::Unsupported).in_context("protocol=3"));
        }
        if self.options.agreed.protocol() == Some(3) {
            if !is_plain {
                return Err(server_error("HELLO, which was understood before", line)
                    .with_status(Status::Connect)
                    .with_flags(flags::RETRYABLE));
            }
            self.options.agreed.forget();
        }
        (self.without_hello, self.hello_refused) = (true, true);
        Ok(Step::More)
    }

    /// ROLE was refused: the role from HELLO is enough, except that a replica's link is worth one more flight.
    fn without_role(&mut self) -> Result<Step> {
        let link_wanted = self.options.expect == Expect::Replica;
        let asks_info = self.options.expect != Expect::Sentinel
            && !self.info.asked_info
            && (self.hello_role.is_none() || link_wanted);
        if !asks_info {
            return self.judge_without_role();
        }
        let mut out = Vec::with_capacity(64);
        if self.hello_role.is_none() && !self.hello_refused && self.options.protocol == Protocol::Resp2 {
            self.say(&mut out, Asked::HelloRole, &[b"HELLO", b"2"]);
        }
        self.ask_info(&mut out);
        Ok(Step::Send(out))
    }

    /// INFO was answered or refused: the role is final, unless ROLE is still due.
    fn informed(&mut self) -> Result<Step> {
        if self.due.is_empty() { self.judge_without_role() } else { Ok(Step::More) }
    }

    fn judge_without_role(&mut self) -> Result<Step> {
        let told = self.info.replication.as_ref().map(|told| (told.role.clone(), Tells::Info));
        let hello = self.hello_role.take().map(|role| (role, Tells::Hello(self.info.protocol)));
        // HELLO is cheaper when it is asked repeatedly.
        let (role, tells) = match (told, hello) {
            (Some((role, _)), Some((_, by_hello))) => (role, by_hello),
            (told, hello) => told.or(hello).unwrap_or((Role::Unknown, Tells::Nothing)),
        };
        self.judge(role, tells)
    }

    fn defer(&mut self, error: Error) -> Step {
        self.deferred.get_or_insert(error);
        Step::More
    }

    /// Ends the handshake. A wrong role is reported first, because it often explains the rest.
    fn judge(&mut self, role: Role, tells: Tells) -> Result<Step> {
        let wanted = match (self.options.expect, &role) {
            (Expect::Any | Expect::Named, _)
            | (_, Role::Unknown)
            | (Expect::Replica, Role::Replica { .. })
            | (Expect::Sentinel, Role::Sentinel(_)) => None,
            (Expect::Primary, role) if role.is_primary() => None,
            (Expect::Primary, _) => Some("a primary"),
            (Expect::Replica, _) => Some("a replica"),
            (Expect::Sentinel, _) => Some("a Sentinel"),
        };
        if let Some(wanted) = wanted {
            return Err(wrong_role(wanted, &role));
        }
        match self.deferred.take() {
            Some(_) if self.options.expect == Expect::Named => self.info.unmet = true,
            Some(error) => return Err(error),
            None => {}
        }
        let protocol = self.info.protocol;
        if self.options.protocol == Protocol::Auto && self.options.agreed.settle(protocol) != protocol {
            let text = "connections that were opened at the same time came to different protocols";
            return Err(Error::new(Status::Connect, text).with_flags(flags::RETRYABLE));
        }
        (self.info.role, self.info.tells) = (role, tells);
        Ok(Step::Done(std::mem::replace(&mut self.info, ServerInfo::unknown())))
    }
}

/// User and password, if there is something to authenticate with.
fn login(auth: &Credentials) -> Option<(Option<&str>, &[u8])> {
    auth.password.as_ref().map(|password| (auth.username.as_deref(), password.expose().as_bytes()))
}

fn wrong_role(wanted: &str, role: &Role) -> Error {
    if wanted == "a Sentinel" {
        return Error::new(Status::Role, format!("not a Sentinel: its role is {role}"));
    }
    let text = format!("asked for {wanted}, but its role is {role}");
    Error::new(Status::Role, text).with_flags(flags::RETRYABLE)
}

/// The error for a refusal whose meaning does not depend on the command.
fn refusal(line: &[u8]) -> Option<Error> {
    let starts = |begin: &str| line.len() >= begin.len() && line[..begin.len()].eq_ignore_ascii_case(begin.as_bytes());
    if starts("ERR max number of clients") {
        return Some(
            server_error("connection refused", line).with_status(Status::Connect).with_flags(flags::RETRYABLE),
        );
    }
    if starts("DENIED") {
        return Some(server_error("connection refused", line).with_status(Status::Connect));
    }
    let auth = ["WRONGPASS", "ERR invalid password", "ERR AUTH ", "ERR Client sent AUTH", "ERR invalid username"];
    if auth.iter().any(|begin| starts(begin)) {
        return Some(server_error("authentication failed", line).with_status(Status::Auth));
    }
    None
}

/// Refusals that pass by themselves.
/// The server's error for an unknown command quotes the arguments, cut short. Those of AUTH and HELLO contain the password.
fn without_secrets(line: &[u8], auth: &Credentials) -> Vec<u8> {
    const QUOTES: &[u8] = b"with args beginning with";
    let end = memchr::memmem::find(line, QUOTES).map_or(line.len(), |at| at + QUOTES.len());
    let mut shown = line[..end].to_vec();
    if end < line.len() {
        shown.extend_from_slice(b" ***");
    }
    let Some(password) = auth.password.as_ref().filter(|password| !password.is_empty()) else { return shown };
    // The code in front is the server's own word.
    let code = shown.iter().position(|byte| *byte == b' ').unwrap_or(shown.len());
    let password = password.expose().as_bytes();
    let mut from = code;
    while let Some(at) = memchr::memmem::find(&shown[from..], password) {
        shown.splice(from + at..from + at + password.len(), *b"***");
        from += at + 3;
    }
    shown
}

fn is_transient(line: &[u8]) -> bool {
    ["LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN"].iter().any(|code| line.starts_with(code.as_bytes()))
}

fn is_unknown(line: &[u8]) -> bool {
    let line = line.to_ascii_lowercase();
    line.starts_with(b"err unknown command")
        || line.starts_with(b"err unknown subcommand")
        || line.starts_with(b"err unrecognized client")
        || line.starts_with(b"err syntax error")
}

fn server_error(what: &str, line: &[u8]) -> Error {
    let error = Error::from_server(line, "").in_context(what);
    if is_transient(line) { error.with_flags(flags::RETRYABLE) } else { error }
}

/// The advice where a server ended a plain connection before it answered anything, or answered with a record of TLS. `option`: the
/// switch.
pub(super) fn perhaps_tls(option: &str) -> String {
    format!("; a port that speaks TLS does that: if it is one, set \"{option}\" to on")
}

/// The first byte of the alert with which a server of TLS answers plain text.
pub(super) const TLS_ALERT: u8 = 0x15;

/// The database that the option asks for is refused.
pub fn no_database(db: u32, line: &[u8]) -> Error {
    unmet(&format!("db={db}"), "SELECT", line)
}

/// The error for an option that the server refuses.
fn unmet(option: &str, command: &str, line: &[u8]) -> Error {
    let error = server_error(command, line).in_context(option);
    if is_transient(line) {
        return error;
    }
    if line.starts_with(b"NOPERM") {
        let note = format!("; the user needs the permission for {command}, or leave the option out");
        return error.with_status(Status::Auth).with_note(note);
    }
    if is_unknown(line) {
        let note = format!("; the server does not know {command}: leave the option out");
        return error.with_status(Status::Unsupported).with_note(note);
    }
    let remedy = match command {
        "SELECT" => "; choose a database that the server has (its own option \"databases\" says how many)",
        _ => "; correct the option, or leave it out",
    };
    error.with_status(Status::Config).with_note(remedy)
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;

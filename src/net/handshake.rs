//! The first words on a connection: who we are, which protocol, which database, and what the server's role is.
//!
//! Guarantees: no I/O (bytes out, replies in), so that it runs blocking under a connection and polled under a Sentinel link; one round trip
//! with a server that knows HELLO, or with protocol 2, and two with an older one; nothing passes whose role is not the one
//! asked for. Leaves to others: the clock, and which server the errors speak of.
//!
//! PING goes along because every other command of the flight answers while a server is loading its data: it does not.

use super::role::Role;
use crate::config::{Credentials, Protocol};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{Kind, Reply, encode};
use std::collections::VecDeque;

/// Whom one expects to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A server that takes writes.
    Primary,
    /// A server that follows another.
    Replica,
    /// A Sentinel.
    Sentinel,
    /// Anybody who speaks RESP, a server that is still loading included.
    Any,
}

/// What to say.
#[derive(Debug, Clone)]
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
}

/// What is known of the server afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// 2 or 3.
    pub protocol: u8,
    /// What it says it is.
    pub role: Role,
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
    NoEvict,
    NoTouch,
    Select,
    Ping,
    Role,
}

/// A handshake under way.
pub struct Handshake {
    options: HandshakeOptions,
    due: VecDeque<Asked>,
    protocol: u8,
    /// HELLO was refused as unknown: the rest of the flight is void, and another one follows.
    without_hello: bool,
    /// What is wrong apart from the role, which is told first if it is wrong too.
    deferred: Option<Error>,
}

impl Handshake {
    /// A handshake that has not said anything yet.
    pub fn new(options: HandshakeOptions) -> Self {
        Self { options, due: VecDeque::new(), protocol: 2, without_hello: false, deferred: None }
    }

    /// The bytes to send first.
    pub fn first(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        if self.options.protocol == Protocol::Resp2 {
            self.greet_without_hello(&mut out);
        } else {
            self.greet_with_hello(&mut out);
        }
        self.introduce(&mut out);
        out
    }

    /// Takes the next reply.
    pub fn feed(&mut self, reply: &Reply) -> Result<Step> {
        let Some(asked) = self.due.pop_front() else {
            return Err(Error::new(Status::Protocol, "a reply came that was not asked for"));
        };
        if self.without_hello {
            return Ok(self.feed_void());
        }
        match reply.error_line(0) {
            Some(line) => self.refused(asked, line),
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
        self.say(out, Asked::Role, &[b"ROLE"]);
    }

    /// A reply of the flight that HELLO's refusal has made void.
    fn feed_void(&mut self) -> Step {
        if !self.due.is_empty() {
            return Step::More;
        }
        self.without_hello = false;
        let mut out = Vec::with_capacity(256);
        self.greet_without_hello(&mut out);
        self.introduce(&mut out);
        Step::Send(out)
    }

    fn accepted(&mut self, asked: Asked, reply: &Reply) -> Result<Step> {
        match asked {
            Asked::Hello => self.hello(reply),
            Asked::Role => {
                let role = Role::parse(reply)
                    .ok_or_else(|| Error::new(Status::Protocol, "the answer to ROLE is not a role"))?;
                self.judge(role)
            }
            _ => Ok(Step::More),
        }
    }

    fn hello(&mut self, reply: &Reply) -> Result<Step> {
        if !matches!(reply.kind(0), Kind::Map | Kind::Array) {
            return Err(Error::new(Status::Protocol, "the answer to HELLO is not that of a Redis or Valkey server"));
        }
        let proto = reply.find(0, b"proto").and_then(|id| reply.int(id));
        self.protocol = if proto == Some(2) { 2 } else { 3 };
        Ok(Step::More)
    }

    fn refused(&mut self, asked: Asked, line: &[u8]) -> Result<Step> {
        if let Some(error) = refusal(line) {
            return Err(error);
        }
        match asked {
            Asked::Hello if is_unknown(line) || line.starts_with(b"NOPROTO") => self.refused_hello(line),
            Asked::Hello => Err(server_error("HELLO", line)),
            Asked::Auth if is_transient(line) => Err(server_error("AUTH", line)),
            Asked::Auth => Err(server_error("AUTH", line).with_status(Status::Auth)),
            // Old servers and narrow users lack these; nothing depends on them.
            Asked::SetInfo => Ok(Step::More),
            Asked::SetName if is_unknown(line) || line.starts_with(b"NOPERM") => Ok(Step::More),
            Asked::Ping if !is_transient(line) => Ok(Step::More),
            Asked::Role if is_unknown(line) => self.judge(Role::Unknown),
            Asked::Role if line.starts_with(b"NOPERM") => {
                let note = "; the user needs the permission +role: every connection is asked for its role";
                Err(server_error("ROLE", line).with_status(Status::Auth).with_note(note))
            }
            Asked::Role => Err(server_error("ROLE", line)),
            Asked::NoEvict => Ok(self.defer(unmet("client.no_evict", "CLIENT NO-EVICT", line))),
            Asked::NoTouch => Ok(self.defer(unmet("client.no_touch", "CLIENT NO-TOUCH", line))),
            Asked::SetName => Ok(self.defer(server_error("CLIENT SETNAME", line))),
            Asked::Ping => Ok(self.defer(server_error("PING", line))),
            Asked::Select => Ok(self.defer(server_error("SELECT", line))),
        }
    }

    fn refused_hello(&mut self, line: &[u8]) -> Result<Step> {
        if self.options.protocol == Protocol::Resp3 {
            let note = "; protocol is set to 3, which this server does not speak";
            return Err(server_error("HELLO", line).with_status(Status::Unsupported).with_note(note));
        }
        self.without_hello = true;
        Ok(Step::More)
    }

    fn defer(&mut self, error: Error) -> Step {
        self.deferred.get_or_insert(error);
        Step::More
    }

    /// The last word: a wrong role is told first, because it often explains the rest.
    fn judge(&mut self, role: Role) -> Result<Step> {
        let wanted = match (self.options.expect, &role) {
            (Expect::Any, _)
            | (Expect::Primary, Role::Primary { .. })
            | (Expect::Replica, Role::Replica { .. })
            | (Expect::Sentinel, Role::Sentinel(_)) => None,
            (Expect::Primary, _) => Some("a primary"),
            (Expect::Replica, _) => Some("a replica"),
            (Expect::Sentinel, _) => Some("a Sentinel"),
        };
        match (wanted, self.deferred.take()) {
            (Some(wanted), _) => Err(wrong_role(wanted, &role)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Step::Done(ServerInfo { protocol: self.protocol, role })),
        }
    }
}

/// User and password, if there is something to authenticate with.
fn login(auth: &Credentials) -> Option<(Option<&str>, &[u8])> {
    auth.password.as_ref().map(|password| (auth.username.as_deref(), password.expose().as_bytes()))
}

fn wrong_role(wanted: &str, role: &Role) -> Error {
    if wanted == "a Sentinel" {
        return Error::new(Status::Role, format!("not a Sentinel: its ROLE says {role}"));
    }
    // A server that cannot say its role will not learn to: trying again is no use.
    let retry = if *role == Role::Unknown { 0 } else { flags::RETRYABLE };
    Error::new(Status::Role, format!("asked for {wanted}, but its ROLE says {role}")).with_flags(retry)
}

/// Refusals that mean the same whatever was asked.
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
    let auth =
        ["NOAUTH", "WRONGPASS", "ERR invalid password", "ERR AUTH ", "ERR Client sent AUTH", "ERR invalid username"];
    if auth.iter().any(|begin| starts(begin)) {
        return Some(server_error("authentication failed", line).with_status(Status::Auth));
    }
    None
}

/// Refusals that pass by themselves.
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

fn unmet(option: &str, command: &str, line: &[u8]) -> Error {
    let error = server_error(command, line);
    if line.starts_with(b"NOPERM") {
        return error.with_status(Status::Auth).in_context(option);
    }
    if is_unknown(line) { error.with_status(Status::Unsupported).in_context(option) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::resp::{Decoded, Decoder, Limits, Want};

    const HELLO: &str = "%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n";
    const PRIMARY: &str = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    const REPLICA: &str = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:7000\r\n$9\r\nconnected\r\n:5\r\n";
    const SENTINEL: &str = "*2\r\n$8\r\nsentinel\r\n*0\r\n";
    const OK: &str = "+OK\r\n";
    const UNKNOWN: &str = "-ERR unknown command 'X'\r\n";

    fn options(expect: Expect) -> HandshakeOptions {
        HandshakeOptions {
            auth: Credentials::default(),
            db: 0,
            protocol: Protocol::Auto,
            client_name: None,
            no_evict: false,
            no_touch: false,
            expect,
        }
    }

    fn password(password: &str) -> Credentials {
        Credentials { username: None, password: Some(Secret::new(password)) }
    }

    /// Feeds the replies; what was sent (all flights, as words) and how it ended.
    fn talk(options: HandshakeOptions, replies: &[&str]) -> (Vec<String>, Result<ServerInfo>) {
        let mut handshake = Handshake::new(options);
        let mut flights = vec![words(&handshake.first())];
        let mut decoder = Decoder::new(Limits::default());
        for wire in replies {
            let (_, Some(Decoded::Reply(reply))) = decoder.decode(wire.as_bytes(), Want::One).unwrap() else {
                panic!("{wire:?} is no whole reply")
            };
            match handshake.feed(&reply) {
                Ok(Step::More) => {}
                Ok(Step::Send(bytes)) => flights.push(words(&bytes)),
                Ok(Step::Done(info)) => return (flights, Ok(info)),
                Err(error) => return (flights, Err(error)),
            }
        }
        panic!("not ended; sent {flights:?}");
    }

    fn words(bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        let words: Vec<_> =
            text.split("\r\n").filter(|word| !word.starts_with(['*', '$']) && !word.is_empty()).collect();
        words.join(" ")
    }

    fn fails(options: HandshakeOptions, replies: &[&str]) -> Error {
        talk(options, replies).1.unwrap_err()
    }

    #[test]
    fn one_flight_says_it_all() {
        let mut all = options(Expect::Primary);
        all.auth = Credentials { username: Some("bob".into()), password: Some(Secret::new("pa ss")) };
        (all.db, all.client_name) = (9, Some("me".into()));
        (all.no_evict, all.no_touch) = (true, true);
        let (sent, ended) = talk(all, &[HELLO, OK, OK, OK, OK, OK, "+PONG\r\n", PRIMARY]);
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "HELLO 3 AUTH bob pa ss SETNAME me CLIENT SETINFO LIB-NAME vigie CLIENT SETINFO LIB-VER {version} \
             CLIENT NO-EVICT ON CLIENT NO-TOUCH ON SELECT 9 PING ROLE"
        );
        assert_eq!(sent, [expected]);
        assert_eq!(ended.unwrap().protocol, 3);
    }

    #[test]
    fn an_old_server_gets_a_second_flight() {
        let mut old = options(Expect::Primary);
        (old.auth, old.db, old.client_name) = (password("pw"), 2, Some("me".into()));
        let noauth = "-NOAUTH Authentication required.\r\n";
        let first = [UNKNOWN, noauth, noauth, noauth, noauth, noauth];
        let second = [OK, OK, UNKNOWN, UNKNOWN, OK, "+PONG\r\n", PRIMARY];
        let (sent, ended) = talk(old.clone(), &[first.as_slice(), &second].concat());
        assert!(sent[0].starts_with("HELLO 3 AUTH default pw SETNAME me"), "{sent:?}");
        assert!(sent[1].starts_with("AUTH pw CLIENT SETNAME me CLIENT SETINFO"), "{sent:?}");
        assert_eq!(ended.unwrap().protocol, 2);
        old.protocol = Protocol::Resp3;
        assert_eq!(fails(old, &first).status(), Status::Unsupported);
    }

    #[test]
    fn protocol_2_needs_one_flight_and_no_hello() {
        let mut two = options(Expect::Replica);
        (two.protocol, two.auth) = (Protocol::Resp2, password("pw"));
        let (sent, ended) = talk(two, &[OK, OK, OK, "+PONG\r\n", REPLICA]);
        assert!(sent.len() == 1 && sent[0].starts_with("AUTH pw CLIENT SETINFO"), "{sent:?}");
        assert_eq!(ended.unwrap().protocol, 2);
    }

    #[test]
    fn a_sentinel_is_asked_for_nothing_that_it_lacks() {
        let mut data = options(Expect::Sentinel);
        (data.db, data.no_evict, data.no_touch) = (3, true, true);
        let (sent, ended) = talk(data, &[HELLO, OK, OK, SENTINEL]);
        assert!(!sent[0].contains("SELECT") && !sent[0].contains("NO-") && !sent[0].contains("PING"), "{sent:?}");
        assert_eq!(ended.unwrap().role, Role::Sentinel(vec![]));
        let error = fails(options(Expect::Sentinel), &[HELLO, OK, OK, PRIMARY]);
        assert!(error.status() == Status::Role && error.message().contains("not a Sentinel"), "{error}");
    }

    #[test]
    fn row_7_refused_credentials_are_one_auth_error() {
        for line in [
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            "-NOAUTH HELLO must be called with the client already authenticated\r\n",
        ] {
            assert_eq!(fails(options(Expect::Primary), &[line]).status(), Status::Auth);
        }
        let mut two = options(Expect::Primary);
        (two.protocol, two.auth) = (Protocol::Resp2, password("secret-word"));
        for line in [
            "-ERR invalid password\r\n",
            "-ERR Client sent AUTH, but no password is set\r\n",
            "-ERR AUTH <password> called without any password configured for the default user.\r\n",
            "-ERR wrong number of arguments for 'auth' command\r\n",
        ] {
            let error = fails(two.clone(), &[line]);
            assert!(error.status() == Status::Auth && !error.message().contains("secret-word"), "{error}");
        }
        let noperm = "-NOPERM this user has no permissions to run the 'role' command\r\n";
        let error = fails(options(Expect::Primary), &[HELLO, OK, OK, "+PONG\r\n", noperm]);
        assert!(error.status() == Status::Auth && error.message().contains("+role"), "{error}");
    }

    #[test]
    fn loading_is_told_unless_the_role_is_wrong() {
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        let error = fails(options(Expect::Primary), &[HELLO, OK, OK, loading, PRIMARY]);
        assert_eq!((error.status(), error.server_code()), (Status::Server, "LOADING"));
        assert!(error.has(flags::RETRYABLE));
        let error = fails(options(Expect::Primary), &[HELLO, OK, OK, loading, REPLICA]);
        assert!(error.status() == Status::Role && error.has(flags::RETRYABLE), "{error}");
        assert!(error.message().contains("replica of 127.0.0.1:7000"), "{error}");
    }

    #[test]
    fn what_narrow_users_lack_is_not_needed_and_what_was_asked_for_is() {
        let noperm = "-NOPERM no permissions\r\n";
        assert!(talk(options(Expect::Primary), &[HELLO, noperm, noperm, noperm, PRIMARY]).1.is_ok());
        let mut wanted = options(Expect::Primary);
        (wanted.no_touch, wanted.db) = (true, 99);
        let unknown = "-ERR unknown subcommand 'NO-TOUCH'. Try CLIENT HELP.\r\n";
        let range = "-ERR DB index is out of range\r\n";
        let error = fails(wanted.clone(), &[HELLO, OK, OK, unknown, range, "+PONG\r\n", PRIMARY]);
        assert!(error.status() == Status::Unsupported && error.message().contains("client.no_touch"), "{error}");
        let error = fails(wanted, &[HELLO, OK, OK, OK, range, "+PONG\r\n", PRIMARY]);
        assert!(error.status() == Status::Server && error.message().contains("SELECT"), "{error}");
    }

    #[test]
    fn a_full_server_is_worth_another_try_and_a_server_without_role_is_not() {
        let error = fails(options(Expect::Any), &["-ERR max number of clients reached\r\n"]);
        assert!(error.status() == Status::Connect && error.has(flags::RETRYABLE), "{error}");
        let old = [HELLO, OK, OK, "+PONG\r\n", UNKNOWN];
        assert!(!fails(options(Expect::Primary), &old).has(flags::RETRYABLE));
        assert_eq!(talk(options(Expect::Any), &[HELLO, OK, OK, UNKNOWN]).1.unwrap().role, Role::Unknown);
    }

    #[test]
    fn rubbish_is_a_protocol_error() {
        assert_eq!(fails(options(Expect::Any), &["+hello\r\n"]).status(), Status::Protocol);
        assert_eq!(fails(options(Expect::Any), &[HELLO, OK, OK, "+master\r\n"]).status(), Status::Protocol);
    }
}

//! What a subscription is to hear, what its server was asked for, and what an answer means.
//!
//! Guarantees: no I/O; a wish lasts until it is taken back, over any number of connections; each answer is matched with the command
//! that it belongs to, in RESP2 and in RESP3; what the program asked for is told, what was asked again on its behalf is not, unless it
//! is refused. Leaves to others: connections, and what follows from a refusal (subscription).

use std::collections::{HashMap, HashSet, VecDeque};

use crate::error::{Error, Result, Status, clean_line};
use crate::net::Role;
use crate::resp::{self, Reply, ReplyBuilder, encode};
use crate::sort;

/// The three kinds of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Channel,
    Pattern,
    Shard,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

    /// The commands that begin and end it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Kind::Channel => ("SUBSCRIBE", "UNSUBSCRIBE"),
            Kind::Pattern => ("PSUBSCRIBE", "PUNSUBSCRIBE"),
            Kind::Shard => ("SSUBSCRIBE", "SUNSUBSCRIBE"),
        }
    }
}

/// What can be listened to: a kind and a name.
pub(super) type Subject = (Kind, Vec<u8>);

/// A command that a program gives to a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Join(Vec<Subject>),
    /// Without subjects: all of this kind.
    Leave(Kind, Vec<Subject>),
    Ping(Vec<u8>),
}

impl Request {
    /// Reads a command.
    pub(super) fn read(args: &[&[u8]]) -> Result<Self> {
        let (name, rest) = args.split_first().map_or((&[][..], &[][..]), |(name, rest)| (*name, rest));
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        let subjects = |kind| rest.iter().map(|name| (kind, name.to_vec())).collect();
        for kind in Kind::ALL {
            let (join, leave) = kind.words();
            if is(join) && rest.is_empty() {
                return Err(Error::new(Status::InvalidArg, format!("{join}: it names no channel")));
            }
            if is(join) {
                return Ok(Self::Join(subjects(kind)));
            }
            if is(leave) {
                return Ok(Self::Leave(kind, subjects(kind)));
            }
        }
        match (is("PING"), rest) {
            (true, []) => Ok(Self::Ping(Vec::new())),
            (true, [text]) => Ok(Self::Ping(text.to_vec())),
            (true, _) => Err(Error::new(Status::InvalidArg, "PING: it has more than one argument")),
            (false, _) => {
                let text = format!(
                    "{}: a subscription takes SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE, UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE and PING; \
                     run other commands on the client",
                    String::from_utf8_lossy(name).chars().take(64).collect::<String>()
                );
                Err(Error::new(Status::Unsupported, text))
            }
        }
    }
}

/// How far a wish has come.
#[derive(Debug, Clone)]
enum Stand {
    /// The present server has not been asked.
    Wished,
    Asked,
    /// The server has confirmed it.
    Heard,
    Refused(Error),
}

/// A command whose answer is due.
#[derive(Debug)]
enum Asked {
    /// `tells`: the program waits for this answer.
    Join(Subject, bool),
    Leave(Subject),
    /// The program's own PING, with its text.
    Ping(Vec<u8>),
    /// A PING of the library.
    Life,
    /// ROLE, on a replica: whether messages arrive there.
    Role,
    /// AUTH, because the credentials were changed.
    Auth,
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message.
    Message(Reply),
    /// The answer to a command of the program.
    Answer(Reply),
    /// The server refuses a subject.
    Refused(Error),
    /// The role of the node.
    Role(Role),
    /// Nothing that the program is told.
    Nothing,
}

struct Wish {
    stand: Stand,
    /// The program waits for the answer.
    tells: bool,
    /// Its place in the order of the program.
    order: u64,
}

/// The wishes of a subscription.
#[derive(Default)]
pub(super) struct Wishes {
    wished: HashMap<Subject, Wish>,
    next: u64,
    /// The server was asked to end these, and has not confirmed it.
    leaving: HashSet<Subject>,
    pings: VecDeque<Vec<u8>>,
    due: VecDeque<Asked>,
    /// How many subjects of the connection before this one has not answered yet.
    renewing: usize,
}

impl Wishes {
    /// Whether there is a reason for a connection.
    pub(super) fn is_any(&self) -> bool {
        !self.wished.is_empty() || !self.pings.is_empty()
    }

    /// Whether a server has confirmed anything, so that messages may come.
    pub(super) fn hears_any(&self) -> bool {
        self.wished.values().any(|wish| matches!(wish.stand, Stand::Heard))
    }

    /// Whether an answer is due.
    pub(super) fn awaits(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether the server has answered all that was asked again after a loss.
    pub(super) fn is_renewed(&self) -> bool {
        self.renewing == 0
    }

    /// Takes a request, and adds to `out` what the server has to be sent; without a connection nothing is sent.
    pub(super) fn take(&mut self, request: &Request, out: Option<&mut Vec<u8>>) {
        match request {
            Request::Join(subjects) => self.join(subjects, out),
            Request::Leave(kind, subjects) if subjects.is_empty() => {
                let mut all: Vec<_> = self.wished.iter().filter(|((of, _), _)| of == kind).collect();
                sort::by_key(&mut all, |(_, wish)| wish.order);
                let all: Vec<_> = all.into_iter().map(|(subject, _)| subject.clone()).collect();
                self.leave(&all, out);
            }
            Request::Leave(_, subjects) => self.leave(subjects, out),
            Request::Ping(text) => match out {
                Some(out) => self.ping(text.clone(), out),
                None => self.pings.push_back(text.clone()),
            },
        }
    }

    fn join(&mut self, subjects: &[Subject], mut out: Option<&mut Vec<u8>>) {
        for subject in subjects {
            self.next += 1;
            let new = Wish { stand: Stand::Wished, tells: true, order: self.next };
            let wish = self.wished.entry(subject.clone()).or_insert(new);
            wish.tells = true;
            if !matches!(wish.stand, Stand::Heard) {
                wish.stand = if out.is_some() { Stand::Asked } else { Stand::Wished };
            }
            if let Some(out) = &mut out {
                ask(out, subject.0.words().0, &subject.1);
                self.due.push_back(Asked::Join(subject.clone(), true));
            }
        }
    }

    fn leave(&mut self, subjects: &[Subject], mut out: Option<&mut Vec<u8>>) {
        for subject in subjects {
            self.wished.remove(subject);
            if let Some(out) = &mut out {
                ask(out, subject.0.words().1, &subject.1);
                self.leaving.insert(subject.clone());
                self.due.push_back(Asked::Leave(subject.clone()));
            }
        }
    }

    fn ping(&mut self, text: Vec<u8>, out: &mut Vec<u8>) {
        match text.is_empty() {
            true => encode::command(out, &[b"PING"]),
            false => encode::command(out, &[b"PING", &text]),
        }
        self.due.push_back(Asked::Ping(text));
    }

    /// Asks for a sign of life.
    pub(super) fn ask_for_life(&mut self, out: &mut Vec<u8>) {
        encode::command(out, &[b"PING"]);
        self.due.push_back(Asked::Life);
    }

    /// Asks for the role, which is a sign of life, too. Only RESP3 allows that beside subscriptions.
    pub(super) fn ask_for_role(&mut self, out: &mut Vec<u8>) {
        encode::command(out, &[b"ROLE"]);
        self.due.push_back(Asked::Role);
    }

    /// Authenticates anew. Only RESP3 allows that beside subscriptions.
    pub(super) fn authenticate(&mut self, command: &[&[u8]], out: &mut Vec<u8>) {
        encode::command(out, command);
        self.due.push_back(Asked::Auth);
    }

    /// Subscribes to every wished name again, on a new connection.
    pub(super) fn connected(&mut self, out: &mut Vec<u8>) {
        let mut all: Vec<_> = self.wished.iter_mut().collect();
        sort::by_key(&mut all, |(_, wish)| wish.order);
        for (subject, wish) in all {
            ask(out, subject.0.words().0, &subject.1);
            wish.stand = Stand::Asked;
            self.due.push_back(Asked::Join(subject.clone(), wish.tells));
            self.renewing += 1;
        }
        for text in std::mem::take(&mut self.pings) {
            self.ping(text, out);
        }
    }

    /// The connection is gone. What was not answered is asked again on the next one.
    pub(super) fn lost(&mut self) {
        self.wished.values_mut().for_each(|wish| wish.stand = Stand::Wished);
        self.leaving.clear();
        self.renewing = 0;
        for asked in self.due.drain(..) {
            if let Asked::Ping(text) = asked {
                self.pings.push_back(text);
            }
        }
    }

    /// What the outcome of a request is: `None` while it is open.
    pub(super) fn outcome(&self, request: &Request) -> Option<Result<()>> {
        match request {
            Request::Join(subjects) => {
                let stands = subjects.iter().filter_map(|subject| self.wished.get(subject)).map(|wish| &wish.stand);
                let refused = stands.clone().find_map(|stand| match stand {
                    Stand::Refused(error) => Some(error.clone()),
                    _ => None,
                });
                let is_open = stands.clone().any(|stand| matches!(stand, Stand::Wished | Stand::Asked));
                if is_open { None } else { Some(refused.map_or(Ok(()), Err)) }
            }
            Request::Leave(kind, subjects) if subjects.is_empty() => {
                (!self.leaving.iter().any(|(of, _)| of == kind)).then_some(Ok(()))
            }
            Request::Leave(_, subjects) => {
                (!subjects.iter().any(|subject| self.leaving.contains(subject))).then_some(Ok(()))
            }
            Request::Ping(text) => {
                let is_this = |asked: &Asked| matches!(asked, Asked::Ping(other) if other == text);
                (!self.pings.contains(text) && !self.due.iter().any(is_this)).then_some(Ok(()))
            }
        }
    }

    /// Takes what the server of this name has sent. An error ends the connection.
    pub(super) fn hear(&mut self, reply: Reply, server: &str) -> Result<Heard> {
        if let Some(line) = reply.error_line(0) {
            return self.refused(line, server);
        }
        let is_list = matches!(reply.kind(0), resp::Kind::Array | resp::Kind::Push);
        let word = reply.child(0, 0).filter(|_| is_list).and_then(|node| reply.bytes(node)).unwrap_or_default();
        match word {
            b"message" | b"pmessage" | b"smessage" => return Ok(Heard::Message(reply.into_push())),
            b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" => {}
            _ => return self.pong(&reply, server),
        }
        let name = reply.child(0, 1).and_then(|node| reply.bytes(node)).unwrap_or_default();
        let is_answer = self.due.front().is_some_and(|asked| asked.is_answered_by(word, name));
        if !is_answer {
            // A server ends subscriptions by itself where a shard moves.
            return if word.starts_with(b"sun") { Ok(Heard::Answer(reply.into_push())) } else { Err(unasked(server)) };
        }
        match self.due.pop_front() {
            Some(Asked::Join(subject, tells)) => {
                self.renewing = self.renewing.saturating_sub(1);
                if let Some(wish) = self.wished.get_mut(&subject) {
                    (wish.stand, wish.tells) = (Stand::Heard, false);
                }
                Ok(if tells { Heard::Answer(reply.into_push()) } else { Heard::Nothing })
            }
            Some(Asked::Leave(subject)) => {
                self.leaving.remove(&subject);
                Ok(Heard::Answer(reply.into_push()))
            }
            _ => Ok(Heard::Nothing),
        }
    }

    fn refused(&mut self, line: &[u8], server: &str) -> Result<Heard> {
        if line.starts_with(b"NOAUTH") {
            // What was asked is asked again on the next connection, which logs in.
            let text = format!("{server} answered NOAUTH on a connection that it had accepted");
            return Err(Error::new(Status::Auth, text).with_server_code("NOAUTH").with_endpoint(server));
        }
        let (command, name) = match self.due.pop_front() {
            Some(Asked::Join(subject, _)) => {
                self.renewing = self.renewing.saturating_sub(1);
                let error = refusal(subject.0.words().0, &subject.1, line, server);
                if let Some(wish) = self.wished.get_mut(&subject) {
                    (wish.stand, wish.tells) = (Stand::Refused(error.clone()), false);
                }
                return Ok(Heard::Refused(error));
            }
            Some(Asked::Leave(subject)) => {
                self.leaving.remove(&subject);
                (subject.0.words().1, subject.1)
            }
            Some(Asked::Ping(text)) => ("PING", text),
            // A refusal is a sign of life, too: the user may not be permitted to PING.
            Some(Asked::Life | Asked::Role) => return Ok(Heard::Nothing),
            Some(Asked::Auth) => {
                // Of the line only its code is shown: what follows may quote the command.
                let code = clean_line(line.split(|byte| *byte == b' ').next().unwrap_or_default());
                let text = format!("{server} refuses the changed user and password: {code}");
                return Err(Error::new(Status::Auth, text).with_endpoint(server));
            }
            None => return Err(Error::from_server(line, server)),
        };
        Ok(Heard::Refused(refusal(command, &name, line, server)))
    }

    fn pong(&mut self, reply: &Reply, server: &str) -> Result<Heard> {
        match self.due.pop_front() {
            Some(Asked::Life | Asked::Auth) => Ok(Heard::Nothing),
            Some(Asked::Role) => Ok(Role::parse(reply).map_or(Heard::Nothing, Heard::Role)),
            Some(Asked::Ping(text)) => {
                let mut pong = ReplyBuilder::new();
                pong.push().text("pong").bytes(&text).end();
                Ok(Heard::Answer(pong.finish()))
            }
            _ => {
                let text = format!("{server}: a reply of type {:?} came that was not asked for", reply.kind(0));
                Err(Error::new(Status::Protocol, text).with_endpoint(server))
            }
        }
    }
}

impl Asked {
    fn is_answered_by(&self, word: &[u8], name: &[u8]) -> bool {
        let (command, wanted) = match self {
            Asked::Join((kind, name), _) => (kind.words().0, name),
            Asked::Leave((kind, name)) => (kind.words().1, name),
            Asked::Ping(_) | Asked::Life | Asked::Role | Asked::Auth => return false,
        };
        word.eq_ignore_ascii_case(command.as_bytes()) && name == wanted.as_slice()
    }
}

/// One name in each command: a server refuses a command as a whole.
fn ask(out: &mut Vec<u8>, command: &str, name: &[u8]) {
    encode::command(out, &[command.as_bytes(), name]);
}

/// A refusal, with what was refused for programs to read.
fn refusal(command: &str, name: &[u8], line: &[u8], server: &str) -> Error {
    let mut what = ReplyBuilder::new();
    what.array().text(command).bytes(name).end();
    let shown: String = String::from_utf8_lossy(name).chars().take(128).collect();
    Error::from_server(line, server).with_note(format_args!(" ({command} {shown})")).with_reply(what.finish())
}

fn unasked(server: &str) -> Error {
    let text = format!("{server}: a subscription was confirmed that was not asked for");
    Error::new(Status::Protocol, text).with_endpoint(server)
}

#[cfg(test)]
#[path = "wishes_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz_tests;

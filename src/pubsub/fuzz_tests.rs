//! What a subscription may hear: answers and messages of an honest server in RESP2 and RESP3, between its requests, and what no honest
//! server sends, in pieces, through a connection's wire and decoder to the wishes. `make fuzz` gives this ten minutes.
//!
//! What must hold: nothing panics or runs without end; what was subscribed to stays wished for until it is taken back; messages come out in
//! their order; with an honest server every request has an outcome in the end, and every message comes out.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::net::{Filled, In, Sending, Socket, Wire};
use crate::resp::{Decoded, Decoder, Kind as Type, Limits, Want};
use crate::sys::fuzz::{self, Input};

const NAMES: [&[u8]; 5] = [b"a", b"b", b"news.*", b"", b"\x00\r\n"];

/// One run: the wishes, their connection, and a server.
struct Run {
    wishes: Wishes,
    near: Wire,
    input: In,
    far: Wire,
    /// What the server has not sent, and the commands that it has not answered.
    waiting: Vec<u8>,
    due: VecDeque<Vec<Vec<u8>>>,
    push: bool,
    tampered: bool,
    said: u64,
    heard: u64,
    requests: Vec<Request>,
    ended: u32,
}

/// The commands in these bytes.
fn commands(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let (mut decoder, mut at, mut all) = (Decoder::new(Limits::default()), 0, Vec::new());
    while let (used, Some(Decoded::Reply(reply))) = decoder.decode(&bytes[at..], Want::One).expect("RESP") {
        at += used;
        all.push(reply.children(0).map(|child| reply.bytes(child).expect("a text").to_vec()).collect());
    }
    all
}

impl Run {
    fn new() -> Self {
        let (near, far) = Socket::pair().expect("two sockets");
        Self {
            wishes: Wishes::default(),
            near: Wire::new(Arc::new(near)),
            input: In::new(Limits::default(), 64, 4096),
            far: Wire::new(Arc::new(far)),
            waiting: Vec::new(),
            due: VecDeque::new(),
            push: true,
            tampered: false,
            said: 0,
            heard: 0,
            requests: Vec::new(),
            ended: 0,
        }
    }

    fn request(&mut self, request: Request) {
        let mut out = Vec::new();
        self.wishes.take(&request, Some(&mut out));
        self.due.extend(commands(&out));
        self.requests.push(request);
    }

    fn ask(&mut self, ask: fn(&mut Wishes, &mut Vec<u8>)) {
        let mut out = Vec::new();
        ask(&mut self.wishes, &mut out);
        self.due.extend(commands(&out));
    }

    /// The server says this.
    fn say(&mut self, parts: &[&[u8]], count: Option<i64>) {
        let mark = if self.push { '>' } else { '*' };
        let length = parts.len() + usize::from(count.is_some());
        self.waiting.extend_from_slice(format!("{mark}{length}\r\n").as_bytes());
        for part in parts {
            self.waiting.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            self.waiting.extend_from_slice(part);
            self.waiting.extend_from_slice(b"\r\n");
        }
        count.iter().for_each(|count| self.waiting.extend_from_slice(format!(":{count}\r\n").as_bytes()));
    }

    /// The server answers the next command as it should, or refuses it.
    fn answer(&mut self, refuses: bool) {
        let Some(command) = self.due.pop_front() else { return };
        let word = command[0].to_ascii_lowercase();
        match (&*word, refuses) {
            (_, true) => self.waiting.extend_from_slice(b"-NOPERM no permissions to access a channel\r\n"),
            (b"ping", _) if self.push => self.waiting.extend_from_slice(b"+PONG\r\n"),
            (b"ping", _) => self.say(&[b"pong", command.get(1).map_or(b"", |text| text)], None),
            (b"role", _) => self.waiting.extend_from_slice(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            _ => self.say(&[&word, &command[1]], Some(1)),
        }
    }

    fn message(&mut self, kind: usize) {
        self.said += 1;
        let text = self.said.to_string();
        match kind {
            0 => self.say(&[b"message", b"a", text.as_bytes()], None),
            1 => self.say(&[b"pmessage", b"news.*", b"a", text.as_bytes()], None),
            _ => self.say(&[b"smessage", b"a", text.as_bytes()], None),
        }
    }

    /// Hands so many bytes to the client, and has it hear them.
    fn deliver(&mut self, most: usize) {
        let bytes: Vec<u8> = self.waiting.drain(..self.waiting.len().min(most)).collect();
        let mut parts = [IoSlice::new(&bytes)];
        let mut sending = Sending::new(&mut parts);
        while !sending.is_done() {
            let is_full = self.far.send(&mut sending).is_err();
            if !self.hear() {
                return self.begin_anew();
            }
            assert!(!is_full || !sending.is_done());
        }
    }

    /// False: the connection is to be ended.
    fn hear(&mut self) -> bool {
        loop {
            match self.near.fill(&mut self.input, Some(Duration::ZERO)) {
                Ok(Filled::Closed) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            loop {
                match self.input.drain(Want::One) {
                    Ok(Some(Decoded::Reply(reply) | Decoded::Push(reply))) => match self.wishes.hear(reply, "server") {
                        Ok(Heard::Message(reply)) => self.count(&reply),
                        Ok(_) => {}
                        Err(_) => return false,
                    },
                    Ok(Some(Decoded::Skipped)) => {}
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
        }
    }

    fn count(&mut self, reply: &Reply) {
        assert!(reply.kind(0) == Type::Push, "messages are pushes, whatever the protocol");
        let text =
            reply.children(0).last().and_then(|last| reply.bytes(last)).and_then(|text| std::str::from_utf8(text).ok());
        if let (false, Some(number)) = (self.tampered, text.and_then(|text| text.parse().ok())) {
            assert!(number == self.heard + 1, "messages in their order");
            self.heard = number;
        }
    }

    /// Another connection: everything is asked for again.
    fn begin_anew(&mut self) {
        let (near, far) = Socket::pair().expect("two sockets");
        (self.near, self.far) = (Wire::new(Arc::new(near)), Wire::new(Arc::new(far)));
        self.input = In::new(Limits::default(), 64, 4096);
        self.waiting.clear();
        self.due.clear();
        self.heard = self.said;
        self.ended += 1;
        let wished = self.wishes.wished.len();
        self.wishes.lost();
        assert!(!self.wishes.awaits() && !self.wishes.hears_any());
        self.ask(Wishes::connected);
        assert_eq!(self.wishes.wished.len(), wished, "a wish lasts");
    }

    fn step(&mut self, input: &mut Input<'_>, what: u8) {
        let subject = |input: &mut Input<'_>| {
            let kind = Kind::ALL[input.below(3)];
            (kind, NAMES[input.below(NAMES.len())].to_vec())
        };
        match what % 16 {
            0 | 1 => {
                let subjects = (0..=input.below(3)).map(|_| subject(input)).collect();
                self.request(Request::Join(subjects));
            }
            2 => {
                let (kind, name) = subject(input);
                self.request(Request::Leave(kind, if name.is_empty() { Vec::new() } else { vec![(kind, name)] }));
            }
            3 => self.request(Request::Ping(input.bytes(3))),
            4 => self.ask(Wishes::ask_for_life),
            5 if self.push => self.ask(Wishes::ask_for_role),
            6..=8 => self.answer(what & 0x80 != 0),
            9 => self.message(input.below(3)),
            10 => self.deliver(1 + input.below(64)),
            11 => self.deliver(usize::MAX),
            12 => self.begin_anew(),
            13 => {
                self.tampered = true;
                let at = input.below(self.waiting.len() + 1);
                let raw = input.bytes(16);
                self.waiting.splice(at..at, raw).for_each(drop);
            }
            14 if !self.waiting.is_empty() => {
                self.tampered = true;
                let at = input.below(self.waiting.len());
                self.waiting[at] ^= 1 << input.below(8);
            }
            15 => {
                self.tampered = true;
                let words: [&[u8]; 6] =
                    [b"message", b"subscribe", b"punsubscribe", b"sunsubscribe", b"pong", b"invalidate"];
                let word = words[input.below(words.len())];
                let name = NAMES[input.below(NAMES.len())];
                self.say(&[word, name, b"x"][..1 + input.below(3)], (what & 0x80 != 0).then_some(0));
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        if self.tampered {
            return self.deliver(usize::MAX);
        }
        while !self.due.is_empty() {
            self.answer(false);
        }
        self.deliver(usize::MAX);
        assert!(!self.wishes.awaits() && self.wishes.is_renewed(), "all was answered");
        assert_eq!(self.heard, self.said, "all was heard");
        for request in &self.requests {
            assert!(self.wishes.outcome(request).is_some(), "{request:?} has no outcome");
        }
    }
}

#[test]
fn fuzz_pushes_and_messages() {
    fuzz::run("pushes and messages into a subscription", |input| {
        let mut input = Input(input);
        let mut run = Run::new();
        run.push = input.byte().is_none_or(|byte| byte % 2 == 0);
        while let Some(what) = input.byte() {
            run.step(&mut input, what);
        }
        run.finish();
        u64::from(run.tampered)
            | u64::from(run.ended.min(3)) << 1
            | run.heard.min(7) << 3
            | (run.wishes.wished.len() as u64) << 6
    });
}

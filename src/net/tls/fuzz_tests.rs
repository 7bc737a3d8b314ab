//! Records as no honest server sends them, into a channel: changed, cut, doubled, invented, in pieces, in and after the handshake, while
//! plaintext is sent. `make fuzz` gives this ten minutes.
//!
//! What must hold: nothing panics or runs without end; what is given out is the beginning of what the server has said, byte by byte; as long
//! as nothing was changed on the way all of it is, and the server hears what counts as sent; after an error nothing is given out.

use std::cell::RefCell;
use std::io::{ErrorKind, Write};

use super::*;
use crate::sys::fuzz::{self, Input};

/// So many changes of keys without data between them an honest server makes at most: rustls, as BoringSSL, takes 32.
const MOST_CHANGES: u32 = 32;
/// More than this is neither said nor sent.
const MOST: usize = 200_000;

/// One run: a channel, the server behind it, and what was said.
struct Run {
    tls: Tls,
    peer: RefCell<Peer>,
    /// What the server has said, and what was given out of it.
    said: Vec<u8>,
    given: Vec<u8>,
    /// What counts as sent.
    sent: Vec<u8>,
    offered: usize,
    /// The bytes on their way were changed.
    tampered: bool,
    ready: bool,
    /// Receiving has failed, or either direction has.
    deaf: bool,
    failed: bool,
    /// The server has said that it says nothing more.
    closed: bool,
    /// Its changes of keys since it said something.
    changes: u32,
}

impl Run {
    fn new() -> Self {
        let (tls, peer) = fresh();
        let (said, given, sent, offered) = Default::default();
        let (tampered, ready, deaf, failed, closed) = Default::default();
        let changes = 0;
        Self { tls, peer, said, given, sent, offered, tampered, ready, deaf, failed, closed, changes }
    }

    /// The client takes so many bytes in.
    fn receive(&mut self, most: usize) {
        let (peer, given) = (&self.peer, &mut self.given);
        let recv = |into: &mut [u8]| {
            let room = into.len().min(most.max(1));
            peer.borrow_mut().give(&mut into[..room])
        };
        let send = |bytes: &[u8]| peer.borrow_mut().take(bytes);
        if !self.ready {
            match self.tls.advance(recv, send) {
                Ok(ready) => self.ready = ready,
                Err(_) => self.failed = true,
            }
            return;
        }
        let before = given.len();
        let got = self.tls.fill(&mut [0; 20_000], recv, send, &mut |bytes| given.extend_from_slice(bytes));
        assert!(!self.deaf || given.len() == before, "plaintext after an error");
        self.deaf |= got.is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
        self.failed |= self.deaf;
        assert!(self.said.starts_with(given), "what is given out was not said");
    }

    fn say(&mut self, length: usize) {
        let mut peer = self.peer.borrow_mut();
        if peer.server.is_handshaking() || self.closed || self.said.len() > MOST {
            return;
        }
        let from = self.said.len();
        let text: Vec<u8> = (from..from + length).map(|at| (at % 253) as u8).collect();
        if peer.server.writer().write_all(&text).is_err() {
            // The client has told the server that its records were changed.
            assert!(self.tampered);
            return;
        }
        self.changes = if length > 0 { 0 } else { self.changes };
        self.said.extend(text);
        peer.say();
    }

    fn put(&mut self, length: usize) {
        if !self.ready || self.sent.len() > MOST {
            return;
        }
        // What was encrypted once is offered again.
        self.offered = self.offered.max(self.sent.len() + length);
        let text = numbers(self.offered);
        match put(&self.tls, &self.peer, &[&text[self.sent.len()..]]) {
            Ok(more) => self.sent = text[..self.sent.len() + more].to_vec(),
            Err(error) => self.failed |= error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Changes what waits for the client.
    fn tamper(&mut self, input: &mut Input<'_>, how: u8) {
        let waiting = &self.peer.get_mut().waiting;
        let at = input.below(waiting.len() + 1);
        let end = waiting.len().min(at + input.below(40));
        (self.tampered, self.peer.get_mut().may_fail) = (true, true);
        let waiting = &mut self.peer.get_mut().waiting;
        match how {
            0 if at < waiting.len() => waiting[at] ^= 1 << input.below(8),
            1 => drop(waiting.drain(at..end)),
            2 => waiting.splice(at..at, input.bytes(24)).for_each(drop),
            3 => {
                let twice = waiting[at..end].to_vec();
                waiting.splice(at..at, twice).for_each(drop);
            }
            4 => waiting.truncate(at),
            // A header and what follows it.
            _ => {
                let length = input.below(300);
                let kind = [20, 21, 22, 23, 24][input.below(5)];
                let mut record = vec![kind, 3, 3, (length >> 8) as u8, length as u8];
                record.extend(input.bytes(length));
                waiting.splice(at..at, record).for_each(drop);
            }
        }
    }

    fn step(&mut self, input: &mut Input<'_>, what: u8) {
        match what % 16 {
            0 | 1 => self.receive(input.below(20_000)),
            2 => self.receive(1 + input.below(16)),
            3 => self.receive(usize::MAX),
            4 | 5 => self.say(input.below(40_000)),
            6 => self.say(input.below(64)),
            7 => self.put(input.below(40_000)),
            8 => self.peer.get_mut().room = input.below(20_000),
            9 => self.peer.get_mut().room = usize::MAX,
            10 if self.changes < MOST_CHANGES => {
                self.changes += 1;
                let peer = self.peer.get_mut();
                let _ = peer.server.refresh_traffic_keys();
                peer.say();
            }
            11 => {
                let (peer, tls) = (&self.peer, &self.tls);
                let looked = tls.look(|into| peer.borrow_mut().give(into), |bytes| peer.borrow_mut().take(bytes));
                assert!(looked.is_some(), "nobody else receives");
            }
            12 => {
                self.closed = true;
                self.peer.get_mut().server.send_close_notify();
                self.peer.get_mut().say();
            }
            10 => {}
            other => self.tamper(input, (other - 13) * 2 + (what >> 7)),
        }
    }

    /// Everything arrives that is under way.
    fn finish(&mut self) {
        self.peer.get_mut().room = usize::MAX;
        for _ in 0..1000 {
            let before = (self.given.len(), self.peer.borrow().waiting.len(), self.ready);
            self.receive(usize::MAX);
            let after = (self.given.len(), self.peer.borrow().waiting.len(), self.ready);
            if before == after {
                break;
            }
        }
        if !self.tampered {
            assert!(self.ready && !self.failed && self.given == self.said, "an honest server was not understood");
            let rest = put(&self.tls, &self.peer, &[]);
            assert!(rest.is_ok());
            assert!(self.peer.borrow().heard.starts_with(&self.sent), "what counts as sent was not heard");
        }
    }
}

#[test]
fn fuzz_tls_records() {
    fuzz::run("TLS records into the channel", one);
}

fn one(input: &[u8]) -> u64 {
    let mut input = Input(input);
    let mut run = Run::new();
    if input.byte().is_some_and(|byte| byte % 4 != 0) {
        for _ in 0..20 {
            run.receive(usize::MAX);
        }
        assert!(run.ready);
    }
    while let Some(what) = input.byte() {
        run.step(&mut input, what);
    }
    run.finish();
    let given = usize::BITS - run.given.len().leading_zeros();
    u64::from(run.tampered) | u64::from(run.failed) << 1 | u64::from(run.ready) << 2 | u64::from(given) << 3
}

/// What a run of ten minutes has found: 59 changes of keys in a row.
#[test]
fn the_input_that_was_found() {
    one(include_bytes!("found.bin"));
}

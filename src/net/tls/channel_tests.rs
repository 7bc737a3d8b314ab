//! A channel against a server of rustls in the same thread: what counts as sent, and in which order records leave.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::super::connector::Connector;
use super::*;
use crate::config::{ClientSettings, Endpoint, TlsVerify};

/// A certificate of nobody, made for these tests: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x.
const PEM: &[u8] = include_bytes!("test.pem");

/// A kernel and a server behind it.
struct Peer {
    server: ServerConnection,
    /// How many bytes the kernel takes.
    room: usize,
    heard: Vec<u8>,
    /// What waits for the client.
    waiting: Vec<u8>,
    /// The server may be told something that ends the session.
    may_fail: bool,
}

impl Peer {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room -= taken;
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let is_read = self.server.read_tls(&mut rest).is_ok_and(|read| read > 0);
            let is_fine = is_read && self.server.process_new_packets().is_ok();
            assert!(is_fine || self.may_fail);
            let _ = self.server.reader().read_to_end(&mut self.heard);
            if !is_fine {
                break;
            }
        }
        self.say();
        Ok(taken)
    }

    fn say(&mut self) {
        while self.server.wants_write() {
            self.server.write_tls(&mut self.waiting).unwrap();
        }
    }

    fn give(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let given = into.len().min(self.waiting.len());
        if given == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        into[..given].copy_from_slice(&self.waiting[..given]);
        self.waiting.drain(..given);
        Ok(given)
    }
}

/// A channel before its handshake.
fn fresh() -> (Tls, RefCell<Peer>) {
    let mut settings = ClientSettings::default().tls;
    (settings.on, settings.verify) = (true, TlsVerify::None);
    let endpoint = Endpoint::Tcp { host: "localhost".into(), port: 1 };
    let tls = Connector::of(&settings).unwrap().begin(&endpoint).unwrap();
    let (cert, key) = (CertificateDer::from_pem_slice(PEM).unwrap(), PrivateKeyDer::from_pem_slice(PEM).unwrap());
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let server = ServerConnection::new(Arc::new(builder.with_single_cert(vec![cert], key).unwrap())).unwrap();
    let (heard, waiting) = Default::default();
    (tls, RefCell::new(Peer { server, room: usize::MAX, heard, waiting, may_fail: false }))
}

/// A channel whose handshake is over.
fn connected() -> (Tls, RefCell<Peer>) {
    let (tls, peer) = fresh();
    while !advance(&tls, &peer) {}
    (tls, peer)
}

fn advance(tls: &Tls, peer: &RefCell<Peer>) -> bool {
    tls.advance(|into| peer.borrow_mut().give(into), |bytes| peer.borrow_mut().take(bytes)).unwrap()
}

fn put(tls: &Tls, peer: &RefCell<Peer>, parts: &[&[u8]]) -> io::Result<usize> {
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    tls.put(&parts, |bytes| peer.borrow_mut().take(bytes))
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

#[test]
fn rule_24_plaintext_counts_as_sent_when_the_kernel_has_its_whole_record() {
    let (tls, peer) = connected();
    let all = numbers(3 * RECORD + 100);
    let mut sent = 0;
    // The kernel takes a few bytes at a time: no count runs ahead of what the server can read, nor stays behind it.
    while sent < all.len() {
        peer.borrow_mut().room = 5000;
        match put(&tls, &peer, &[&all[sent..]]) {
            Ok(more) => sent += more,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert_eq!(peer.borrow().heard.len(), sent, "the server has what counts as sent, and no more");
        assert_eq!(tls.has_unsent(), sent < all.len());
    }
    assert!(peer.borrow().heard == all);
}

#[test]
fn parts_of_all_lengths_arrive_in_order() {
    let (tls, peer) = connected();
    let all = numbers(200_000);
    for cuts in
        [vec![0, 1, 2, 3], vec![5, 16_384, 16_385, 60_000], vec![10, 100_000, 100_001], vec![16_000, 17_000, 33_500]]
    {
        peer.borrow_mut().heard.clear();
        let bounds: Vec<usize> = std::iter::once(0).chain(cuts).chain([all.len()]).collect();
        let mut sent = 0;
        while sent < all.len() {
            let parts: Vec<&[u8]> =
                bounds.windows(2).filter(|pair| pair[1] > sent).map(|pair| &all[pair[0].max(sent)..pair[1]]).collect();
            sent += put(&tls, &peer, &parts).unwrap();
        }
        assert!(peer.borrow().heard == all, "{bounds:?}");
    }
}

#[test]
fn an_answer_to_new_keys_waits_behind_plaintext_that_is_on_its_way() {
    let (tls, peer) = connected();
    let all = numbers(2 * RECORD);
    peer.borrow_mut().room = RECORD + 3000;
    assert_eq!(put(&tls, &peer, &[&all]).unwrap(), RECORD);
    {
        let mut peer = peer.borrow_mut();
        peer.server.refresh_traffic_keys().unwrap();
        peer.server.writer().write_all(b"+OK\r\n").unwrap();
        peer.say();
        peer.room = usize::MAX;
    }
    let mut plain = Vec::new();
    let mut cipher = vec![0; 4096];
    while plain.is_empty() {
        let recv = |into: &mut [u8]| peer.borrow_mut().give(into);
        tls.fill(&mut cipher, recv, |bytes| peer.borrow_mut().take(bytes), &mut |bytes| plain.extend_from_slice(bytes))
            .unwrap();
    }
    assert_eq!(plain, b"+OK\r\n");
    assert!(peer.borrow().heard.len() == RECORD && tls.has_unsent(), "only its sender may count the second record");
    let mut sent = RECORD;
    while sent < all.len() {
        sent += put(&tls, &peer, &[&all[sent..]]).unwrap();
    }
    assert_eq!(put(&tls, &peer, &[b"under the new keys"]).unwrap(), 18);
    let heard = &peer.borrow().heard;
    assert!(heard[..all.len()] == all && heard[all.len()..] == *b"under the new keys");
}

#[test]
fn a_look_takes_nothing_away_and_sees_through_what_is_no_plaintext() {
    let (tls, peer) = connected();
    let look = || tls.look(|into| peer.borrow_mut().give(into), |bytes| peer.borrow_mut().take(bytes)).unwrap();
    // The tickets behind the handshake bring nothing.
    assert_eq!(look().unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.borrow_mut().server.writer().write_all(b"+PONG\r\n").unwrap();
    peer.borrow_mut().say();
    assert_eq!(look().unwrap(), Some(b'+'));
    assert!(tls.is_ahead());
    let mut plain = Vec::new();
    let got = tls.fill(&mut [0; 100], |_| unreachable!("it was received"), |_| Ok(0), &mut |bytes| {
        plain.extend_from_slice(bytes)
    });
    assert!(got.unwrap() == Got::Part && plain == b"+PONG\r\n" && !tls.is_ahead());
    // A part of a record is not nothing.
    peer.borrow_mut().server.writer().write_all(b"+PONG\r\n").unwrap();
    peer.borrow_mut().say();
    let rest = peer.borrow_mut().waiting.split_off(10);
    assert_eq!(look().unwrap(), Some(0));
    peer.borrow_mut().waiting = rest;
    assert_eq!(look().unwrap(), Some(b'+'));
    peer.borrow_mut().server.send_close_notify();
    peer.borrow_mut().say();
    assert_eq!(look().unwrap(), Some(b'+'), "what came before the end comes first");
    let _ = tls.fill(&mut [0; 100], |_| unreachable!("it was received"), |_| Ok(0), &mut |_| ());
    assert_eq!(look().unwrap(), None);
}

#[test]
fn the_end_is_told_once_and_never_behind_a_part_of_a_record() {
    let (tls, peer) = connected();
    let end = || tls.end(|bytes| peer.borrow_mut().take(bytes));
    peer.borrow_mut().room = 5000;
    assert_eq!(put(&tls, &peer, &[&numbers(RECORD)]).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.borrow_mut().room = usize::MAX;
    end();
    assert!(peer.borrow_mut().server.process_new_packets().is_ok_and(|state| !state.peer_has_closed()));
    assert_eq!(put(&tls, &peer, &[&numbers(RECORD)]).unwrap(), RECORD);
    let before = peer.borrow().heard.len();
    end();
    end();
    assert!(peer.borrow_mut().server.process_new_packets().is_ok_and(|state| state.peer_has_closed()));
    assert!(put(&tls, &peer, &[b"behind the end"]).is_err() && peer.borrow().heard.len() == before);
}

#[path = "fuzz_tests.rs"]
mod fuzz_tests;

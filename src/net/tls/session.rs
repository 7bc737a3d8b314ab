//! One connection's TLS: ciphertext in, plaintext out, and the reverse. No I/O, no lock.
//!
//! Guarantees: records come out in the order in which they were made; the first error stays; what the server sent before an error, or
//! before it ended the session, is given out first. Leaves to others: what belongs to whom (channel).

use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::explain::Facts;
use crate::error::TlsFault;

/// The most that a record adds to its plaintext: header, explicit nonce, type and tag.
const RECORD: usize = 64;

pub(super) struct Session {
    conn: UnbufferedClientConnection,
    pub(super) facts: Facts,
    /// Ciphertext that is no whole record yet.
    incoming: Vec<u8>,
    /// Records that were made without plaintext: of the handshake, and answers.
    pub(super) produced: Vec<u8>,
    /// Plaintext that came when nobody was reading.
    pub(super) ahead: Vec<u8>,
    /// A thread receives at this moment: nobody else may, because bytes would be decrypted out of order.
    pub(super) receiving: bool,
    /// The handshake is over.
    pub(super) ready: bool,
    /// The server has ended the session.
    pub(super) closed: bool,
    fault: Option<TlsFault>,
}

impl Session {
    pub(super) fn new(conn: UnbufferedClientConnection, facts: Facts) -> Self {
        Self {
            conn,
            facts,
            incoming: Vec::new(),
            produced: Vec::new(),
            ahead: Vec::new(),
            receiving: false,
            ready: false,
            closed: false,
            fault: None,
        }
    }

    /// What has gone wrong, if something has.
    pub(super) fn fault(&self) -> Option<std::io::Error> {
        self.fault.clone().map(|fault| std::io::Error::new(std::io::ErrorKind::InvalidData, fault))
    }

    /// Whether a part of a record waits for its rest.
    pub(super) fn has_part(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Takes ciphertext in, and hands out the plaintext of all records that are whole.
    pub(super) fn take(&mut self, ciphertext: &[u8], sink: &mut dyn FnMut(&[u8])) {
        self.incoming.extend_from_slice(ciphertext);
        self.advance(sink);
    }

    /// Takes ciphertext in, and keeps its plaintext.
    pub(super) fn take_ahead(&mut self, ciphertext: &[u8]) {
        let mut ahead = std::mem::take(&mut self.ahead);
        self.take(ciphertext, &mut |bytes| ahead.extend_from_slice(bytes));
        self.ahead = ahead;
    }

    /// Whether receiving has produced something for the server.
    pub(super) fn has_answer(&self) -> bool {
        !self.produced.is_empty()
    }

    /// Does what can be done without more ciphertext.
    pub(super) fn advance(&mut self, sink: &mut dyn FnMut(&[u8])) {
        if self.fault.is_some() {
            return self.incoming.clear();
        }
        let mut start = 0;
        while self.fault.is_none() {
            let UnbufferedStatus { mut discard, state } = self.conn.process_tls_records(&mut self.incoming[start..]);
            let mut is_over = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        sink(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.produced),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                Ok(ConnectionState::WriteTraffic(_)) => (self.ready, is_over) = (true, true),
                Ok(_) => is_over = true,
                Err(error) => {
                    self.fault = Some(TlsFault::new(self.facts.explain(&error)));
                    is_over = true;
                }
            }
            start += discard;
            if is_over {
                break;
            }
        }
        if self.fault.is_some() {
            self.take_alert(start);
            start = self.incoming.len();
        }
        self.incoming.drain(..start);
        if self.incoming.is_empty() && self.incoming.capacity() > 64 * 1024 {
            self.incoming = Vec::new();
        }
    }

    /// The alert that tells the server why: the one message that an error leaves. Nothing may be decoded after it.
    fn take_alert(&mut self, start: usize) {
        let state = self.conn.process_tls_records(&mut self.incoming[start..]).state;
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
            encode(&mut data, &mut self.produced);
        }
    }

    /// Makes one record of this plaintext, which is no longer than a record may be, behind all that was produced before.
    pub(super) fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), std::io::Error> {
        self.take_ahead(&[]);
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        out.append(&mut self.produced);
        let mut room = plaintext.len() + RECORD;
        loop {
            let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                self.conn.process_tls_records(&mut self.incoming).state
            else {
                return Err(failed("TLS is not ready to send"));
            };
            let end = out.len();
            out.resize(end + room, 0);
            match traffic.encrypt(plaintext, &mut out[end..]) {
                Ok(written) => {
                    out.truncate(end + written);
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(needed)) => {
                    out.truncate(end);
                    room = needed.required_size;
                }
                Err(EncryptError::EncryptExhausted) => {
                    out.truncate(end);
                    return Err(failed(
                        "this session has encrypted as much as its keys may; the next one has new keys",
                    ));
                }
            }
        }
    }
}

fn failed(text: &str) -> std::io::Error {
    std::io::Error::other(TlsFault::new(text.to_owned()))
}

fn encode(data: &mut rustls::unbuffered::EncodeTlsData<'_, rustls::client::ClientConnectionData>, out: &mut Vec<u8>) {
    let end = out.len();
    let mut room = 0;
    loop {
        out.resize(end + room, 0);
        match data.encode(&mut out[end..]) {
            Ok(written) => return out.truncate(end + written),
            Err(EncodeError::InsufficientSize(needed)) if room < needed.required_size => room = needed.required_size,
            Err(_) => return out.truncate(end),
        }
    }
}

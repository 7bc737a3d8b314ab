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
/// The header of a record; its last two bytes are the length of what follows.
const HEADER: usize = 5;
/// A buffer that has grown beyond this is freed once it is empty.
const KEEP: usize = 64 * 1024;

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
    /// The server was told that nothing follows.
    over: bool,
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
            over: false,
            fault: None,
        }
    }

    /// What has gone wrong, if something has.
    pub(super) fn fault(&self) -> Option<std::io::Error> {
        self.fault.clone().map(|fault| std::io::Error::new(std::io::ErrorKind::InvalidData, fault))
    }

    /// The certificate that the server has shown.
    pub(super) fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.conn.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }

    /// Whether a part of a record waits for its rest.
    pub(super) fn has_part(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Takes ciphertext in, and hands out the plaintext of all records that are whole. A record is decrypted where it is; only one that
    /// came in parts is put together first.
    pub(super) fn take(&mut self, ciphertext: &mut [u8], sink: &mut dyn FnMut(&[u8])) {
        if self.incoming.is_empty() {
            let used = self.process(ciphertext, sink);
            return self.incoming.extend_from_slice(&ciphertext[used..]);
        }
        let missing = missing(&self.incoming, ciphertext).unwrap_or(ciphertext.len());
        let (part, rest) = ciphertext.split_at_mut(missing.min(ciphertext.len()));
        self.incoming.extend_from_slice(part);
        self.advance(sink);
        if !rest.is_empty() {
            // What is left of a message that needs several records at once stays in front of them.
            self.take(rest, sink);
        }
    }

    /// Takes ciphertext in, and keeps its plaintext.
    pub(super) fn take_ahead(&mut self, ciphertext: &mut [u8]) {
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
        let mut incoming = std::mem::take(&mut self.incoming);
        let used = self.process(&mut incoming, sink);
        incoming.drain(..used);
        if !incoming.is_empty() || incoming.capacity() <= KEEP {
            self.incoming = incoming;
        }
    }

    /// Hands out the plaintext of the records that are whole, and returns how many bytes they had. After an error nothing is left.
    fn process(&mut self, records: &mut [u8], sink: &mut dyn FnMut(&[u8])) -> usize {
        let mut start = 0;
        while self.fault.is_none() {
            let UnbufferedStatus { mut discard, state } = self.conn.process_tls_records(&mut records[start..]);
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
                    self.take_alert(&mut records[start + discard..]);
                }
            }
            start += discard;
            if is_over {
                return start;
            }
        }
        records.len()
    }

    /// The alert that tells the server why: the one message that an error leaves. Nothing may be decoded after it.
    fn take_alert(&mut self, records: &mut [u8]) {
        let state = self.conn.process_tls_records(records).state;
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
            encode(&mut data, &mut self.produced);
        }
    }

    /// The record that tells the server that nothing follows. `None`: the session is not in a state for it.
    pub(super) fn end(&mut self) -> Option<Vec<u8>> {
        if !self.ready || self.over || self.fault.is_some() || self.has_answer() {
            return None;
        }
        self.over = true;
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.conn.process_tls_records(&mut self.incoming).state
        else {
            return None;
        };
        let mut record = vec![0; RECORD];
        let length = traffic.queue_close_notify(&mut record).ok()?;
        record.truncate(length);
        Some(record)
    }

    /// Makes one record of this plaintext, which is no longer than a record may be, behind all that was produced before.
    pub(super) fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), std::io::Error> {
        self.take_ahead(&mut []);
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        if self.over {
            return Err(failed("this connection was closed"));
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

/// How many of the bytes that follow complete the record that has begun. `None`: its header is not there yet, or nothing is missing.
fn missing(begun: &[u8], more: &[u8]) -> Option<usize> {
    let byte = |at: usize| begun.iter().chain(more).nth(at).copied().map(usize::from);
    let whole = HEADER + (byte(HEADER - 2)? << 8 | byte(HEADER - 1)?);
    whole.checked_sub(begun.len()).filter(|missing| *missing > 0)
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

//! A connection to one Sentinel that never waits: connect, shake hands, send, decode.
//!
//! Guarantees: [`Link::drive`] does what can be done now and returns; the Sentinel's own credentials are the only ones sent; ROLE has said
//! sentinel before anything else is asked. Leaves to others: what is asked, when to poll, and how long to wait.

use crate::config::{ClientSettings, Credentials, Endpoint, Protocol, SentinelSettings, TcpSettings};
use crate::error::{Error, Result, Status, flags};
use crate::net::resolve::{self, Lookup};
use crate::net::{Agreed, Dial, Expect, Handshake, HandshakeOptions, ServerInfo, Socket, Step, Waker};
use crate::resp::{DecodeError, Decoded, Decoder, Limits, Reply, Want};
use crate::sys::poll::PollFd;
use crate::time::Deadline;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes taken from a socket at a time.
const RECEIVE: usize = 2 * 1024;

/// How to reach Sentinels.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    tcp: TcpSettings,
    limits: Limits,
    auth: Credentials,
    client_name: Option<String>,
    expect: Expect,
}

impl LinkOptions {
    /// To a data node, as the settings say.
    pub fn for_node(settings: &ClientSettings, expect: Expect) -> Self {
        let (tcp, limits, auth) = (settings.tcp, settings.limits, settings.auth.clone());
        Self { tcp, limits, auth, client_name: settings.client_name.clone(), expect }
    }

    /// To a Sentinel, as the settings say.
    pub fn new(settings: &SentinelSettings) -> Self {
        let limits = &settings.limits;
        Self {
            tcp: settings.tcp,
            limits: Limits { max_bytes: limits.max_bytes, max_depth: limits.max_depth, max_nodes: limits.max_nodes },
            auth: settings.auth.clone(),
            client_name: settings.client_name.clone(),
            expect: Expect::Sentinel,
        }
    }

    fn handshake(&self) -> Handshake {
        Handshake::new(HandshakeOptions {
            auth: self.auth.clone(),
            db: 0,
            protocol: Protocol::Auto,
            client_name: self.client_name.clone(),
            no_evict: false,
            no_touch: false,
            expect: self.expect,
            lineage: false,
            agreed: Agreed::default(),
        })
    }
}

/// What came of driving a link.
#[derive(Debug)]
pub enum Event {
    /// The handshake is over: the Sentinel may be asked.
    Ready,
    /// A reply.
    Reply(Reply),
    /// Something that was not asked for: a message of a subscription.
    Push(Reply),
}

/// A connection to one Sentinel.
pub struct Link {
    endpoint: Endpoint,
    options: Arc<LinkOptions>,
    state: State,
    until: Deadline,
    decoder: Decoder,
    unsent: Vec<u8>,
    info: Option<ServerInfo>,
}

enum State {
    Resolving(Lookup),
    /// To one address, how long that may take, and the addresses after it.
    Connecting(Dial, Instant, Vec<SocketAddr>),
    Greeting(Arc<Socket>, Box<Handshake>),
    Ready(Arc<Socket>),
    Dead,
}

impl Link {
    /// Begins to connect; `until` is when the Sentinel must have answered. The waker is woken when its name is resolved.
    pub fn begin(endpoint: Endpoint, options: Arc<LinkOptions>, until: Deadline, waker: Option<&Arc<Waker>>) -> Self {
        let decoder = Decoder::new(options.limits);
        let (host, port) = match &endpoint {
            Endpoint::Tcp { host, port } => (host.as_str(), *port),
            // The configuration has none for Sentinels; address.map might lead to one.
            Endpoint::Unix(_) => ("", 0),
        };
        let state = State::Resolving(resolve::begin(host, port, waker));
        Self { endpoint, options, state, until, decoder, unsent: Vec::new(), info: None }
    }

    /// How far it has come: connecting, greeting, ready.
    pub fn phase(&self) -> u8 {
        match &self.state {
            State::Resolving(_) | State::Connecting(..) => 0,
            State::Greeting(..) => 1,
            State::Ready(_) | State::Dead => 2,
        }
    }

    /// What the handshake found out, once it is over.
    pub fn info(&self) -> Option<&ServerInfo> {
        self.info.as_ref()
    }

    /// What to poll for; nothing while a name is being resolved, and when the link is dead.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        let (dial, socket) = match &self.state {
            State::Resolving(_) | State::Dead => (None, None),
            State::Connecting(dial, ..) => (Some(dial), None),
            State::Greeting(socket, _) | State::Ready(socket) => (None, Some(socket)),
        };
        let connected = socket.map(|socket| PollFd::new(socket.fd(), true, !self.unsent.is_empty()));
        dial.into_iter().flat_map(Dial::poll_fds).chain(connected)
    }

    /// When it wants to be driven though nothing happened.
    pub fn wakes_at(&self) -> Option<Instant> {
        match &self.state {
            // Once: after that only the answer helps, and that wakes by itself.
            State::Resolving(_) => {
                let end = self.until.end().map(|end| end - self.patience() + Duration::from_millis(1));
                end.filter(|at| *at > Instant::now())
            }
            State::Connecting(dial, until, rest) => {
                let next = (!rest.is_empty()).then_some(*until);
                [dial.wakes_at(), next].into_iter().flatten().min()
            }
            _ => None,
        }
    }

    /// Sends bytes as soon as the Sentinel takes them.
    pub fn send(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<()> {
        self.unsent.extend_from_slice(bytes);
        self.drive(events)
    }

    /// Does what can be done without waiting. After an error the link is dead.
    pub fn drive(&mut self, events: &mut Vec<Event>) -> Result<()> {
        loop {
            match self.advance(events) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.state = State::Dead;
                    return Err(error.with_endpoint(&self.endpoint));
                }
            }
        }
    }

    /// One transition; false when there is nothing to do but wait.
    fn advance(&mut self, events: &mut Vec<Event>) -> Result<bool> {
        match std::mem::replace(&mut self.state, State::Dead) {
            State::Resolving(lookup) => self.resolved(lookup),
            State::Connecting(dial, until, rest) => self.connected(dial, until, rest),
            State::Greeting(socket, handshake) => {
                self.state = State::Greeting(socket, handshake);
                self.exchange(events)
            }
            State::Ready(socket) => {
                self.state = State::Ready(socket);
                self.exchange(events)
            }
            State::Dead => Err(Error::new(Status::Io, "the connection is closed")),
        }
    }

    fn resolved(&mut self, lookup: Lookup) -> Result<bool> {
        if matches!(self.endpoint, Endpoint::Unix(_)) {
            return Err(Error::new(Status::Config, "a Sentinel is reached by TCP only"));
        }
        match lookup.poll(self.patience()) {
            None => {
                self.state = State::Resolving(lookup);
                Ok(false)
            }
            Some(addresses) => {
                let mut addresses = addresses?;
                addresses.reverse();
                self.start(addresses, io::Error::from(io::ErrorKind::AddrNotAvailable))
            }
        }
    }

    /// Half of the time may go into resolving, then the last good addresses are used.
    fn patience(&self) -> Duration {
        self.until.budget().unwrap_or(Duration::from_secs(2)) / 2
    }

    /// Starts with the next address; the addresses come last first.
    fn start(&mut self, mut addresses: Vec<SocketAddr>, mut last: io::Error) -> Result<bool> {
        while let Some(address) = addresses.pop() {
            let tries = u32::try_from(addresses.len()).map_or(u32::MAX, |rest| rest.saturating_add(1));
            match Dial::begin(address, &self.options.tcp, &|_| ()) {
                Ok(dial) => {
                    let share = self.until.left_or(Duration::from_secs(60)) / tries;
                    self.state = State::Connecting(dial, Instant::now() + share, addresses);
                    return Ok(false);
                }
                Err(error) => last = error,
            }
        }
        Err(self.broken("cannot connect", &last))
    }

    fn connected(&mut self, mut dial: Dial, until: Instant, rest: Vec<SocketAddr>) -> Result<bool> {
        match dial.advance(&self.options.tcp, &|_| ()) {
            Ok(Some(socket)) => {
                let mut handshake = Box::new(self.options.handshake());
                self.unsent = handshake.first();
                self.state = State::Greeting(socket, handshake);
                return Ok(true);
            }
            Ok(None) => {}
            Err(error) => return self.start(rest, error),
        }
        if !rest.is_empty() && Instant::now() >= until {
            return self.start(rest, io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        self.state = State::Connecting(dial, until, rest);
        Ok(false)
    }

    /// Sends what is left, receives what is there.
    fn exchange(&mut self, events: &mut Vec<Event>) -> Result<bool> {
        self.flush()?;
        let mut bytes = [0; RECEIVE];
        let (State::Greeting(socket, _) | State::Ready(socket)) = &self.state else { return Ok(false) };
        match socket.try_recv(&mut bytes) {
            Ok(0) => Err(self.broken("connection closed", &io::Error::from_raw_os_error(libc::ECONNRESET))),
            Ok(got) => self.decode(&bytes[..got], events).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(self.broken("receive", &error)),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let (State::Greeting(socket, _) | State::Ready(socket)) = &self.state else { return Ok(()) };
        let mut sent = 0;
        while sent < self.unsent.len() {
            match socket.send(&self.unsent[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.broken("send", &error)),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    fn decode(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<()> {
        while !bytes.is_empty() {
            let (used, decoded) = self.decoder.decode(bytes, Want::One).map_err(undecodable)?;
            bytes = &bytes[used..];
            match decoded {
                Some(Decoded::Reply(reply)) => self.take(reply, events)?,
                Some(Decoded::Push(reply)) => events.push(Event::Push(reply)),
                Some(Decoded::Skipped) | None => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, reply: Reply, events: &mut Vec<Event>) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Dead) {
            State::Greeting(socket, mut handshake) => match handshake.feed(&reply)? {
                Step::More => self.state = State::Greeting(socket, handshake),
                Step::Send(bytes) => {
                    self.unsent.extend_from_slice(&bytes);
                    self.state = State::Greeting(socket, handshake);
                    self.flush()?;
                }
                Step::Done(info) => {
                    self.info = Some(info);
                    self.state = State::Ready(socket);
                    events.push(Event::Ready);
                }
            },
            other => {
                self.state = other;
                events.push(Event::Reply(reply));
            }
        }
        Ok(())
    }

    /// The error of somebody who waited for this link in vain.
    pub fn timed_out(&self, after: Duration) -> Error {
        let what = match &self.state {
            State::Resolving(lookup) => return lookup.timed_out(),
            State::Connecting(..) => "no connection",
            State::Greeting(..) => "no answer to the handshake",
            State::Ready(_) | State::Dead => "no answer",
        };
        Error::new(Status::Timeout, format!("{what} within {} ms", after.as_millis())).with_endpoint(&self.endpoint)
    }

    fn broken(&self, what: &str, cause: &io::Error) -> Error {
        let after = self.until.elapsed().as_millis();
        Error::from_io(Status::Connect, what, cause)
            .with_note(format_args!(" (after {after} ms)"))
            .with_flags(flags::RETRYABLE)
    }
}

fn undecodable(error: DecodeError) -> Error {
    match error {
        DecodeError::Protocol(text) => Error::new(Status::Protocol, text),
        DecodeError::Limit(text) => Error::new(Status::Limit, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sys::poll;

    #[test]
    fn a_lost_first_packet_costs_a_sentinel_no_second() {
        let (listener, address, _held) = crate::net::full_listener();
        let mut config = Config::new();
        config.set("sentinel.addrs", &address.to_string()).unwrap();
        let options = Arc::new(LinkOptions::new(&config.settings().unwrap().sentinel));
        let endpoint = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
        let mut link = Link::begin(endpoint, options, Deadline::after(Duration::from_secs(20)), None);
        let mut events = Vec::new();
        link.drive(&mut events).unwrap();
        // Its first packet is lost by now; there is room for another.
        while listener.accept().is_ok() {}
        let mut begun = Vec::new();
        while let State::Connecting(dial, ..) = &link.state {
            begun = dial.begun();
            let mut fds: Vec<PollFd> = link.poll_fds().collect();
            assert_eq!(fds.len(), begun.len());
            let next = link.wakes_at().map(|at| at.saturating_duration_since(Instant::now()));
            poll::wait(&mut fds, Some(next.unwrap_or(Duration::from_secs(20)))).unwrap();
            link.drive(&mut events).unwrap();
        }
        let State::Greeting(socket, _) = &link.state else { panic!("not connected") };
        assert_eq!(begun.len(), 2);
        assert!(Arc::ptr_eq(socket, &begun[1]), "the first one sends again only after a second");
    }
}

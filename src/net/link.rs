//! A connection that never waits: it resolves, connects, shakes hands, sends and decodes, each when poll says that it can be done.
//!
//! Guarantees: [`Link::drive`] does what can be done now and returns, and reads a bounded number of bytes; the server has shown the
//! expected role before anything else is asked; a Sentinel gets only the credentials for Sentinels; a link that is idle keeps no
//! receive buffer. Leaves to others: what is asked, when to poll, and how long to wait.

use super::Connector;
use super::dial::Dial;
use super::handshake::{self, Expect, Handshake, HandshakeOptions, ServerInfo, Step};
use super::resolve::{self, Lookup};
use super::wire::{Filled, In, Out, Wire};
use crate::config::{ClientSettings, Endpoint, SentinelSettings, TcpSettings};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{DecodeError, Decoded, Limits, Reply, Want};
use crate::sys::poll::PollFd;
use crate::sys::waker::Waker;
use crate::time::Deadline;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The size of one receive: answers of Sentinels are short.
const RECEIVE: usize = 2 * 1024;
/// Bounds of a Sentinel's reply: the INFO of thousands of services has some hundred KiB.
const MOST_BYTES: usize = 64 << 20;
const MOST_NODES: usize = 1 << 20;
/// Receives in a row, after which others have their turn: a server may send faster than it is read.
const MOST_RECEIVES: usize = 32;

/// How to open a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkOptions {
    tcp: TcpSettings,
    tls: Option<Arc<Connector>>,
    /// The option that switches TLS on for these.
    tls_option: &'static str,
    limits: Limits,
    handshake: HandshakeOptions,
}

impl LinkOptions {
    /// To a data node that is asked what it is, under a client's settings.
    pub fn of_node(settings: &ClientSettings, expect: Expect) -> Self {
        let handshake = HandshakeOptions::of_inquiry(settings, expect);
        let (tls, tls_option) = (Connector::of(&settings.tls), settings.tls.prefix);
        Self { tcp: settings.tcp, tls, tls_option, limits: settings.limits, handshake }
    }

    /// To a Sentinel, under the settings for Sentinels.
    pub fn of_sentinel(settings: &SentinelSettings) -> Self {
        let handshake = HandshakeOptions::of_sentinel(settings);
        let limits = Limits {
            max_bytes: settings.limits.max_bytes.min(MOST_BYTES),
            max_nodes: settings.limits.max_nodes.min(MOST_NODES),
            ..settings.limits
        };
        let (tls, tls_option) = (Connector::of(&settings.tls), settings.tls.prefix);
        Self { tcp: settings.tcp, tls, tls_option, limits, handshake }
    }
}

/// What driving a link has brought.
#[derive(Debug)]
pub enum LinkEvent {
    /// The handshake is over: the server may be asked.
    Ready,
    /// A reply.
    Reply(Reply),
    /// A message that was not asked for: that of a subscription.
    Push(Reply),
}

/// A connection that is polled.
pub struct Link {
    endpoint: Endpoint,
    options: Arc<LinkOptions>,
    state: LinkState,
    until: Deadline,
    input: In,
    output: Out,
    info: Option<ServerInfo>,
}

enum LinkState {
    Resolving(Lookup),
    /// Connecting to one address, until when, and the addresses after it.
    Connecting(Dial, Instant, Vec<SocketAddr>),
    /// The handshake of TLS.
    Securing(Wire),
    Greeting(Wire, Box<Handshake>),
    Ready(Wire),
    Dead,
}

impl Link {
    /// Begins to connect. `until`: when the server must have answered. The waker is woken when the name is resolved.
    pub fn begin(endpoint: Endpoint, options: Arc<LinkOptions>, until: Deadline, waker: Option<&Arc<Waker>>) -> Self {
        let input = In::new(options.limits, RECEIVE, RECEIVE);
        let (host, port) = match &endpoint {
            Endpoint::Tcp { host, port } => (host.as_str(), *port),
            // The configuration allows no Unix socket for Sentinels, but address.map might lead to one.
            Endpoint::Unix(_) => ("", 0),
        };
        let state = LinkState::Resolving(resolve::begin(host, port, waker));
        Self { endpoint, options, state, until, input, output: Out::default(), info: None }
    }

    /// Its state in a word: connecting, greeting, ready.
    pub fn phase(&self) -> u8 {
        match &self.state {
            LinkState::Resolving(_) | LinkState::Connecting(..) => 0,
            LinkState::Securing(_) | LinkState::Greeting(..) => 1,
            LinkState::Ready(_) | LinkState::Dead => 2,
        }
    }

    /// Where it leads to, once it is ready.
    pub fn peer(&self) -> Option<SocketAddr> {
        let LinkState::Ready(wire) = &self.state else { return None };
        wire.socket().peer().parse().ok()
    }

    /// What the handshake found out, once it is over.
    pub fn info(&self) -> Option<&ServerInfo> {
        self.info.as_ref()
    }

    /// What to poll for; nothing while a name is being resolved, and when the link is dead.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        let dial = if let LinkState::Connecting(dial, ..) = &self.state { Some(dial) } else { None };
        let connected =
            self.wire().map(|wire| PollFd::new(wire.fd(), true, !self.output.is_empty() || wire.has_unsent()));
        dial.into_iter().flat_map(Dial::poll_fds).chain(connected)
    }

    fn wire(&self) -> Option<&Wire> {
        match &self.state {
            LinkState::Securing(wire) | LinkState::Greeting(wire, _) | LinkState::Ready(wire) => Some(wire),
            LinkState::Resolving(_) | LinkState::Connecting(..) | LinkState::Dead => None,
        }
    }

    /// When it has to be driven even if nothing happens.
    pub fn wakes_at(&self) -> Option<Instant> {
        match &self.state {
            // Only once: after that it waits for the answer, which wakes it.
            LinkState::Resolving(_) => {
                let end = self.until.end().map(|end| end - self.patience() + Duration::from_millis(1));
                end.filter(|at| *at > Instant::now())
            }
            LinkState::Connecting(dial, until, rest) => {
                let next = (!rest.is_empty()).then_some(*until);
                [dial.wakes_at(), next].into_iter().flatten().min()
            }
            _ => None,
        }
    }

    /// Sends bytes as soon as the server takes them; not before [`LinkEvent::Ready`].
    pub fn send(&mut self, bytes: &[u8], events: &mut Vec<LinkEvent>) -> Result<()> {
        self.output.push(bytes);
        self.drive(events)
    }

    /// Does what can be done without waiting. What the server sends beyond a bound stays in the socket, and poll tells of it again.
    /// After an error the link is dead.
    pub fn drive(&mut self, events: &mut Vec<LinkEvent>) -> Result<()> {
        let mut receives = 0;
        loop {
            match self.advance(events) {
                Ok(true) if receives == MOST_RECEIVES => return Ok(()),
                Ok(true) => receives += 1,
                Ok(false) => {
                    self.input.relax();
                    return Ok(());
                }
                Err(error) => {
                    self.state = LinkState::Dead;
                    return Err(error.with_endpoint(&self.endpoint));
                }
            }
        }
    }

    /// Makes one transition. False: there is nothing to do but wait.
    fn advance(&mut self, events: &mut Vec<LinkEvent>) -> Result<bool> {
        match std::mem::replace(&mut self.state, LinkState::Dead) {
            LinkState::Resolving(lookup) => self.resolved(lookup),
            LinkState::Connecting(dial, until, rest) => self.connected(dial, until, rest),
            LinkState::Securing(wire) => self.secure(wire),
            connected @ (LinkState::Greeting(..) | LinkState::Ready(_)) => {
                self.state = connected;
                self.exchange(events)
            }
            LinkState::Dead => Err(Error::new(Status::Io, "the connection is closed")),
        }
    }

    fn resolved(&mut self, lookup: Lookup) -> Result<bool> {
        if matches!(self.endpoint, Endpoint::Unix(_)) {
            return Err(Error::new(Status::Config, "a Sentinel is reached by TCP only"));
        }
        match lookup.poll(self.patience()) {
            None => {
                self.state = LinkState::Resolving(lookup);
                Ok(false)
            }
            Some(addresses) => {
                let mut addresses = addresses?;
                addresses.reverse();
                self.start(addresses, io::Error::from(io::ErrorKind::AddrNotAvailable))
            }
        }
    }

    /// Resolving may take half of the time; then the last good addresses are used.
    fn patience(&self) -> Duration {
        self.until.budget().unwrap_or(Duration::from_secs(2)) / 2
    }

    /// Starts with the next address. The list is in reverse order.
    fn start(&mut self, mut addresses: Vec<SocketAddr>, mut last: io::Error) -> Result<bool> {
        while let Some(address) = addresses.pop() {
            let tries = u32::try_from(addresses.len()).map_or(u32::MAX, |rest| rest.saturating_add(1));
            match Dial::begin(address, &self.options.tcp, &|_| ()) {
                Ok(dial) => {
                    let share = self.until.left_or(Duration::from_secs(60)) / tries;
                    self.state = LinkState::Connecting(dial, Instant::now() + share, addresses);
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
                let tls = self.options.tls.as_ref().map(|connector| connector.begin(&self.endpoint)).transpose()?;
                self.state = LinkState::Securing(Wire::secured(socket, tls));
                return Ok(true);
            }
            Ok(None) => {}
            Err(error) => return self.start(rest, error),
        }
        if !rest.is_empty() && Instant::now() >= until {
            return self.start(rest, io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        self.state = LinkState::Connecting(dial, until, rest);
        Ok(false)
    }

    /// Goes on with the handshake of TLS; when it is over, or where there is none, the greeting begins.
    fn secure(&mut self, wire: Wire) -> Result<bool> {
        if !wire.secure().map_err(|error| self.broken("TLS handshake", &error))? {
            self.state = LinkState::Securing(wire);
            return Ok(false);
        }
        let mut handshake = Box::new(Handshake::new(self.options.handshake.for_another_node()));
        self.output = Out::default();
        self.output.push(&handshake.first());
        self.state = LinkState::Greeting(wire, handshake);
        Ok(true)
    }

    /// Sends what is left, receives what is there.
    fn exchange(&mut self, events: &mut Vec<LinkEvent>) -> Result<bool> {
        self.flush()?;
        let (LinkState::Greeting(wire, _) | LinkState::Ready(wire)) = &self.state else { return Ok(false) };
        match wire.fill(&mut self.input, Some(Duration::ZERO)) {
            Ok(Filled::Closed) => {
                Err(self.broken("connection closed", &io::Error::from_raw_os_error(libc::ECONNRESET)))
            }
            Ok(_) => self.decode(events).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(self.broken("receive", &error)),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let (LinkState::Greeting(wire, _) | LinkState::Ready(wire)) = &self.state else { return Ok(()) };
        wire.flush(&mut self.output).map_err(|error| self.broken("send", &error))
    }

    fn decode(&mut self, events: &mut Vec<LinkEvent>) -> Result<()> {
        while let Some(decoded) = self.input.drain(Want::One).map_err(|error| self.undecodable(&error))? {
            match decoded {
                Decoded::Reply(reply) => self.take(reply, events)?,
                Decoded::Push(reply) => events.push(LinkEvent::Push(reply)),
                Decoded::Skipped => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, reply: Reply, events: &mut Vec<LinkEvent>) -> Result<()> {
        match std::mem::replace(&mut self.state, LinkState::Dead) {
            LinkState::Greeting(wire, mut handshake) => match handshake.feed(&reply)? {
                Step::More => self.state = LinkState::Greeting(wire, handshake),
                Step::Send(bytes) => {
                    self.output.push(&bytes);
                    self.state = LinkState::Greeting(wire, handshake);
                    self.flush()?;
                }
                Step::Done(info) => {
                    self.info = Some(info);
                    self.state = LinkState::Ready(wire);
                    events.push(LinkEvent::Ready);
                }
            },
            other => {
                self.state = other;
                events.push(LinkEvent::Reply(reply));
            }
        }
        Ok(())
    }

    /// The error when the time of this link is over.
    pub fn timed_out(&self, after: Duration) -> Error {
        let what = match &self.state {
            LinkState::Resolving(lookup) => return lookup.timed_out(),
            LinkState::Connecting(..) => "no connection",
            LinkState::Securing(wire) => {
                return self.late(&format!("{} (after {} ms)", wire.unfinished(), after.as_millis()));
            }
            LinkState::Greeting(..) => "no answer to the handshake",
            LinkState::Ready(_) | LinkState::Dead => "no answer",
        };
        self.late(&format!("{what} within {} ms", after.as_millis()))
    }

    fn late(&self, text: &str) -> Error {
        Error::new(Status::Timeout, text).with_endpoint(&self.endpoint)
    }

    fn undecodable(&self, error: &DecodeError) -> Error {
        let is_alert = self.is_unanswered() && self.input.first() == Some(handshake::TLS_ALERT);
        let error = error.error(error.to_string());
        if is_alert { self.perhaps_tls(error) } else { error }
    }

    /// Nothing was understood of a server that was greeted without TLS.
    fn is_unanswered(&self) -> bool {
        match &self.state {
            LinkState::Greeting(wire, handshake) => !wire.is_secured() && handshake.is_unanswered(),
            _ => false,
        }
    }

    fn perhaps_tls(&self, error: Error) -> Error {
        error.with_note(handshake::perhaps_tls(self.options.tls_option))
    }

    fn broken(&self, what: &str, cause: &io::Error) -> Error {
        let after = self.until.elapsed().as_millis();
        let error = Error::from_io(Status::Connect, what, cause).with_note(format_args!(" (after {after} ms)"));
        let error = if self.is_unanswered() { self.perhaps_tls(error) } else { error };
        if error.status() == Status::Tls { error } else { error.with_flags(flags::RETRYABLE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sys::poll;

    fn link_to(address: SocketAddr) -> Link {
        let mut config = Config::new();
        config.set("sentinel.addrs", &address.to_string()).unwrap();
        let settings = config.settings().unwrap().sentinel;
        let options = Arc::new(LinkOptions::of_sentinel(&settings));
        Link::begin(settings.addrs[0].clone(), options, Deadline::after(Duration::from_secs(20)), None)
    }

    #[test]
    fn one_that_sends_faster_than_it_is_read_leaves_others_their_turn() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut link = link_to(listener.local_addr().unwrap());
        let mut events = Vec::new();
        let drive = |link: &mut Link, events: &mut Vec<LinkEvent>| {
            let mut fds: Vec<PollFd> = link.poll_fds().collect();
            poll::wait(&mut fds, Some(Duration::from_millis(20))).unwrap();
            link.drive(events).unwrap();
        };
        while !matches!(link.state, LinkState::Greeting(..)) {
            drive(&mut link, &mut events);
        }
        let (mut peer, _) = listener.accept().unwrap();
        // Three times what is read in one go; the kernel takes it without a reader.
        let replies = MOST_RECEIVES * RECEIVE * 3 / 4;
        std::io::Write::write_all(&mut peer, &b"+x\r\n".repeat(replies)).unwrap();
        if let LinkState::Greeting(wire, _) = std::mem::replace(&mut link.state, LinkState::Dead) {
            link.state = LinkState::Ready(wire);
        }
        let mut turns = 0;
        while events.len() < replies {
            let before = events.len();
            drive(&mut link, &mut events);
            assert!(events.len() - before <= (MOST_RECEIVES + 1) * RECEIVE / 4, "in one turn");
            turns += 1;
        }
        assert!(turns >= 3, "{turns} turns");
    }

    #[test]
    fn a_lost_first_packet_costs_a_sentinel_no_second() {
        let (listener, address, _held) = super::super::full_listener();
        let mut link = link_to(address);
        let mut events = Vec::new();
        link.drive(&mut events).unwrap();
        // Its first packet is lost by now; there is room for another.
        while listener.accept().is_ok() {}
        let mut begun = Vec::new();
        while let LinkState::Connecting(dial, ..) = &link.state {
            begun = dial.begun();
            let mut fds: Vec<PollFd> = link.poll_fds().collect();
            assert_eq!(fds.len(), begun.len());
            let next = link.wakes_at().map(|at| at.saturating_duration_since(Instant::now()));
            poll::wait(&mut fds, Some(next.unwrap_or(Duration::from_secs(20)))).unwrap();
            link.drive(&mut events).unwrap();
        }
        let LinkState::Greeting(wire, _) = &link.state else { panic!("not connected") };
        assert_eq!(begun.len(), 2);
        assert!(Arc::ptr_eq(wire.socket(), &begun[1]), "the first one sends again only after a second");
    }
}

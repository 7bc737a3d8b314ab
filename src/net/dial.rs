//! Dials one address: makes up to two connections, and takes the first that is there.
//!
//! Guarantees: never waits; a lost packet delays an attempt by at most a quarter of a second. Leaves to others: how long an attempt
//! may take, and the addresses after this one.

use super::socket::Socket;
use crate::config::TcpSettings;
use crate::sys::poll::{self, PollFd};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After this time a second connection is begun beside the first one: the kernel repeats the first packet only after a second.
const SECOND: Duration = Duration::from_millis(250);

/// A connection that is being made.
pub struct Dial {
    address: SocketAddr,
    begun: Vec<Arc<Socket>>,
    second_at: Option<Instant>,
}

impl Dial {
    /// Begins. `note` is called with each socket before anything waits for it.
    pub fn begin(address: SocketAddr, tcp: &TcpSettings, note: &dyn Fn(&Arc<Socket>)) -> io::Result<Self> {
        let first = start(&address, tcp, note)?;
        Ok(Self { address, begun: vec![first], second_at: Some(Instant::now() + SECOND) })
    }

    /// Does what can be done now. Returns the connection once there is one.
    pub fn advance(&mut self, tcp: &TcpSettings, note: &dyn Fn(&Arc<Socket>)) -> io::Result<Option<Arc<Socket>>> {
        let mut fds: Vec<PollFd> = self.poll_fds().collect();
        poll::wait(&mut fds, Some(Duration::ZERO))?;
        // The server would give the same answer to the other one.
        if let Some(at) = fds.iter().position(PollFd::writable) {
            let socket = self.begun.swap_remove(at);
            return socket.connect_result().map(|()| Some(socket));
        }
        if self.second_at.take_if(|at| Instant::now() >= *at).is_some() {
            // Without a descriptor for a second one the first one has to do.
            self.begun.extend(start(&self.address, tcp, note));
        }
        Ok(None)
    }

    /// What to poll for.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.begun.iter().map(|socket| PollFd::new(socket.fd(), false, true))
    }

    /// When it has to be driven even if nothing happens.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.second_at
    }
}

fn start(address: &SocketAddr, tcp: &TcpSettings, note: &dyn Fn(&Arc<Socket>)) -> io::Result<Arc<Socket>> {
    let socket = Socket::start(address, tcp).map(Arc::new)?;
    note(&socket);
    Ok(socket)
}

#[cfg(test)]
pub(crate) use tests::full_listener;

#[cfg(test)]
mod tests {
    use super::*;

    impl Dial {
        /// The connections that were begun, in their order.
        pub(crate) fn begun(&self) -> Vec<Arc<Socket>> {
            self.begun.clone()
        }
    }

    /// A listener that has no place for another connection, and those that have taken them all: a first packet gets no answer until they are
    /// accepted, which does not wait.
    pub(crate) fn full_listener() -> (socket2::Socket, SocketAddr, Vec<socket2::Socket>) {
        let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = new();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        loop {
            let socket = new();
            match socket.connect_timeout(&address.into(), Duration::from_millis(80)) {
                Ok(()) => held.push(socket),
                Err(_) => return (listener, address, held),
            }
        }
    }
}

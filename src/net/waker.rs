//! Wakes a thread that waits in poll for sockets.
//!
//! Guarantees: a wake-up is never lost (it stays until [`Waker::clear`]); any number of them cost one return from poll.

use super::socket::Socket;
use std::io;
use std::os::fd::RawFd;

/// A pair of joined sockets: one is written to by those who wake, the other is polled.
#[derive(Debug)]
pub struct Waker {
    wake: Socket,
    polled: Socket,
}

impl Waker {
    /// A waker that nobody has used yet.
    pub fn new() -> io::Result<Self> {
        let (wake, polled) = Socket::pair()?;
        Ok(Self { wake, polled })
    }

    /// Makes [`Waker::fd`] readable.
    pub fn wake(&self) {
        // A full buffer already wakes; nothing else can fail while both ends are ours.
        let _ = self.wake.send_now(&[0]);
    }

    /// Takes all wake-ups so far.
    pub fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!(self.polled.recv_now(&mut bytes), Ok(got) if got == bytes.len()) {}
    }

    /// The descriptor to poll for reading.
    pub fn fd(&self) -> RawFd {
        self.polled.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{PollFd, wait};
    use std::time::Duration;

    #[test]
    fn wakes_until_cleared() {
        let waker = Waker::new().unwrap();
        let mut fds = [PollFd::new(waker.fd(), true, false)];
        for _ in 0..100 {
            waker.wake();
        }
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        waker.clear();
        assert_eq!(wait(&mut fds, Some(Duration::ZERO)).unwrap(), 0);
    }
}

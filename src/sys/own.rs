//! A socket of the library, which is of one process.
//!
//! Guarantees: a forked child closes its copy at the fork (sockets), and leaves the number alone from then on, because it may stand for
//! something else. Leaves to others: what a child does not do with it (net/socket).

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::AsRawFd;

use super::{fork, sockets};

/// See the first lines of this file.
pub struct Own<S: AsRawFd> {
    socket: ManuallyDrop<S>,
    generation: u32,
}

impl<S: AsRawFd> Own<S> {
    /// A socket that was just opened.
    pub fn new(socket: S) -> Self {
        sockets::mark(socket.as_raw_fd());
        Self { socket: ManuallyDrop::new(socket), generation: fork::generation() }
    }

    /// Whether this process has opened it.
    pub fn is_here(&self) -> bool {
        self.generation == fork::generation()
    }
}

impl<S: AsRawFd> Deref for Own<S> {
    type Target = S;

    #[inline(always)]
    fn deref(&self) -> &S {
        &self.socket
    }
}

impl<S: AsRawFd> Drop for Own<S> {
    fn drop(&mut self) {
        if !self.is_here() {
            return;
        }
        sockets::unmark(self.socket.as_raw_fd());
        // SAFETY: it is dropped once, here, and not used after that.
        unsafe { ManuallyDrop::drop(&mut self.socket) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child_tests::holds_in_a_child;
    use std::os::fd::RawFd;
    use std::os::unix::net::UnixStream;

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: fcntl with F_GETFD takes and returns numbers.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    #[test]
    fn a_child_has_no_copy_of_a_socket_and_leaves_its_number_alone() {
        let (own, other) = UnixStream::pair().unwrap();
        let (number, other_number) = (own.as_raw_fd(), other.as_raw_fd());
        let mut own = Some(Own::new(own));
        assert!(holds_in_a_child(|| {
            let mut right = !is_open(number) && is_open(other_number) && own.as_ref().is_some_and(|own| !own.is_here());
            // SAFETY: dup2 takes and returns numbers.
            right &= unsafe { libc::dup2(other_number, number) } == number;
            own = None;
            right && is_open(number)
        }));
        assert!(is_open(number) && own.is_some_and(|own| own.is_here() && sockets::is_marked(number)));
    }
}

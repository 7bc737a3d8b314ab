//! Wakes a thread that waits in poll, or an event loop: a pipe with bytes in it.
//!
//! Guarantees: nothing here blocks; a wake-up is never lost (it stays until [`Waker::clear`]), and any number of them cost one return from
//! poll; both ends are CLOEXEC; no SIGPIPE, because the reading end stays here. Leaves to others: when to wake, and for what.
//!
//! A pipe and no eventfd: event loops may read what they poll, byte by byte (`queue`), and an eventfd refuses that.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// How many bytes are read at once.
const BYTES: usize = 64;

/// A pipe: a wake-up writes to it, and the waiting thread polls it.
#[derive(Debug)]
pub struct Waker {
    read: OwnedFd,
    write: OwnedFd,
}

impl Waker {
    /// A new waker.
    pub fn new() -> io::Result<Self> {
        let (read, write) = ends()?;
        Ok(Self { read, write })
    }

    /// The descriptor to poll for reading.
    pub fn fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    /// Another descriptor of the reading end, for a user that may read from it or even close it.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.read.try_clone()
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        let byte = 0u8;
        // A full pipe is readable already, so that nothing is lost then.
        // SAFETY: the descriptor is owned, so open; one byte of this frame is read.
        retry(|| unsafe { libc::write(self.write.as_raw_fd(), (&raw const byte).cast(), 1) });
    }

    /// Consumes all wake-ups so far.
    pub fn clear(&self) {
        let mut bytes = [0u8; BYTES];
        // SAFETY: the descriptor is owned, so open; so many bytes of this frame are written.
        let mut take = || unsafe { libc::read(self.read.as_raw_fd(), bytes.as_mut_ptr().cast(), BYTES) };
        while usize::try_from(retry(&mut take)) == Ok(BYTES) {}
    }
}

/// Calls again after a signal, which may interrupt even what does not wait; every other failure means that there was nothing to do.
fn retry(mut call: impl FnMut() -> isize) -> isize {
    loop {
        let done = call();
        if done >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return done;
        }
    }
}

#[cfg(not(target_vendor = "apple"))]
fn ends() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: writes two descriptors into memory of this frame.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just opened, and nobody else knows them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Without pipe2 the flags are set afterwards.
#[cfg(target_vendor = "apple")]
fn ends() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: writes two descriptors into memory of this frame.
    if unsafe { libc::pipe(fds.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just opened, and nobody else knows them.
    let ends = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
    for fd in fds {
        // SAFETY: the descriptor is open; the calls take and give plain numbers. A new pipe has no other flags to keep.
        let failed = unsafe {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) < 0 || libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) < 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{PollFd, wait};
    use std::time::Duration;

    fn readable(waker: &Waker) -> bool {
        wait(&mut [PollFd::new(waker.fd(), true, false)], Some(Duration::ZERO)).unwrap() == 1
    }

    #[test]
    fn wakes_until_cleared() {
        let waker = Waker::new().unwrap();
        assert!(!readable(&waker));
        waker.clear();
        for count in [1, 2, BYTES - 1, BYTES, BYTES + 1, 1000] {
            (0..count).for_each(|_| waker.wake());
            assert!(readable(&waker), "{count}");
            waker.clear();
            assert!(!readable(&waker), "{count}");
        }
    }

    #[test]
    fn a_full_pipe_does_not_block_and_no_end_is_inherited() {
        let waker = Waker::new().unwrap();
        let shared = waker.share().unwrap();
        for _ in 0..100_000 {
            waker.wake();
        }
        assert!(readable(&waker));
        for end in [&shared, &waker.read, &waker.write] {
            // SAFETY: the descriptors are open; the calls take and give plain numbers.
            let (of_fd, of_file) =
                unsafe { (libc::fcntl(end.as_raw_fd(), libc::F_GETFD), libc::fcntl(end.as_raw_fd(), libc::F_GETFL)) };
            assert!(of_fd & libc::FD_CLOEXEC != 0 && of_file & libc::O_NONBLOCK != 0);
        }
        drop(shared);
        waker.clear();
        waker.wake();
        assert!(readable(&waker), "closing a shared end closes that one alone");
    }
}

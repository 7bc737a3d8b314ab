//! A pipe that carries one thing: "look here". One end is given to an event loop.
//!
//! Guarantees: nothing here blocks; both ends are CLOEXEC; no SIGPIPE, even when the application closes the end that it was
//! given, because a second reading end stays here. Leaves to others: when there is something to look at (`queue`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A pipe for single bytes.
#[derive(Debug)]
pub struct Pipe {
    given: OwnedFd,
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// An empty pipe.
    pub fn new() -> io::Result<Self> {
        let (read, write) = ends()?;
        Ok(Self { given: read.try_clone()?, read, write })
    }

    /// The descriptor that others poll, and may read.
    pub fn fd(&self) -> RawFd {
        self.given.as_raw_fd()
    }

    /// Puts one byte in. A full pipe is readable already, so that nothing is lost then.
    pub fn put(&self) {
        let byte = 0u8;
        // SAFETY: the descriptor is owned, so open; one byte of this frame is read.
        retry(|| unsafe { libc::write(self.write.as_raw_fd(), (&raw const byte).cast(), 1) });
    }

    /// Takes one byte out, unless somebody else has.
    pub fn take(&self) {
        let mut byte = 0u8;
        // SAFETY: the descriptor is owned, so open; one byte of this frame is written.
        retry(|| unsafe { libc::read(self.read.as_raw_fd(), (&raw mut byte).cast(), 1) });
    }
}

/// A signal may interrupt even what does not wait; every other failure means that there was nothing to do.
fn retry(mut call: impl FnMut() -> isize) {
    while call() < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {}
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

    fn readable(pipe: &Pipe) -> bool {
        wait(&mut [PollFd::new(pipe.fd(), true, false)], Some(Duration::ZERO)).unwrap() == 1
    }

    #[test]
    fn a_byte_makes_it_readable_until_it_is_taken() {
        let pipe = Pipe::new().unwrap();
        assert!(!readable(&pipe));
        pipe.take();
        pipe.put();
        assert!(readable(&pipe));
        pipe.take();
        assert!(!readable(&pipe));
    }

    #[test]
    fn a_full_pipe_does_not_block_and_neither_end_is_inherited() {
        let pipe = Pipe::new().unwrap();
        for _ in 0..100_000 {
            pipe.put();
        }
        assert!(readable(&pipe));
        for end in [&pipe.given, &pipe.read, &pipe.write] {
            // SAFETY: the descriptors are open; the calls take and give plain numbers.
            let (of_fd, of_file) =
                unsafe { (libc::fcntl(end.as_raw_fd(), libc::F_GETFD), libc::fcntl(end.as_raw_fd(), libc::F_GETFL)) };
            assert!(of_fd & libc::FD_CLOEXEC != 0 && of_file & libc::O_NONBLOCK != 0);
        }
    }
}

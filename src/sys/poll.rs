//! poll(2): waiting for several descriptors at once.
//!
//! Guarantees: reports everything that the kernel does; an interruption by a signal counts as "nothing yet", so a caller checks its
//! clock after each return; a failure takes a moment, so that a loop around a wait does not spin. Leaves to others: the life of the
//! descriptors (they must stay open during the call), and what a failure means (a receive or a send without waiting tells as much).

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::rank::may_wait;

/// A descriptor to wait for, and afterwards what it is ready for.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for these directions. With neither, only an error or a hang-up is reported.
    pub fn new(fd: RawFd, read: bool, write: bool) -> Self {
        let mut events = 0;
        if read {
            events |= libc::POLLIN;
        }
        if write {
            events |= libc::POLLOUT;
        }
        Self(libc::pollfd { fd, events, revents: 0 })
    }

    /// Waits for the end of what the peer sends, even if there is something before it that was not received yet. Where the system cannot
    /// tell that, only the end of both directions is reported.
    pub fn for_hang_up(fd: RawFd) -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let events = libc::POLLRDHUP;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let events = 0;
        Self(libc::pollfd { fd, events, revents: 0 })
    }

    /// Whether anything was reported.
    pub fn is_reported(&self) -> bool {
        self.0.revents != 0
    }

    /// Whether a receive would not wait; an error and a hang-up count, because the receive is what tells about them.
    pub fn readable(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0
    }

    /// Whether a send would not wait; an error and a hang-up count likewise.
    pub fn writable(&self) -> bool {
        self.0.revents & (libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0
    }
}

/// What a wait has found: which descriptors are ready.
#[derive(Debug)]
pub struct Found {
    all: bool,
    fds: Vec<RawFd>,
}

impl Found {
    /// Where nothing is known: each may be ready.
    pub fn all() -> Self {
        Self { all: true, fds: Vec::new() }
    }

    /// What was not waited for is not ready.
    pub fn none() -> Self {
        Self { all: false, fds: Vec::new() }
    }

    /// After a wait for these.
    pub fn of(fds: &[PollFd]) -> Self {
        Self { all: false, fds: fds.iter().filter(|fd| fd.0.revents != 0).map(|fd| fd.0.fd).collect() }
    }

    /// Whether one of these is ready, or there is none that could be waited for.
    pub fn concerns(&self, fds: impl Iterator<Item = PollFd>) -> bool {
        let mut fds = fds.peekable();
        self.all || fds.peek().is_none() || fds.any(|fd| self.fds.contains(&fd.0.fd))
    }
}

/// How long a failing wait takes: without memory, or above the limit of descriptors (RLIMIT_NOFILE).
const REST: Duration = Duration::from_millis(5);

/// Waits until one of them is ready or the time is over (`None`: no limit). Returns how many are ready.
pub fn wait(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    wait_or_interrupted(fds, timeout).map(Option::unwrap_or_default)
}

/// As [`wait`]; `None`: a signal has ended the wait.
pub fn wait_or_interrupted(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<Option<usize>> {
    for fd in fds.iter_mut() {
        fd.0.revents = 0;
    }
    if timeout != Some(Duration::ZERO) {
        may_wait("poll");
    }
    let count = libc::nfds_t::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: PollFd is a transparent pollfd, so `fds` is an array of `count` of them, borrowed exclusively for the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr().cast::<libc::pollfd>(), count, millis(timeout)) };
    match usize::try_from(ready) {
        Ok(ready) => Ok(Some(ready)),
        Err(_) => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                return Ok(None);
            }
            std::thread::sleep(timeout.map_or(REST, |timeout| timeout.min(REST)));
            Err(error)
        }
    }
}

/// Rounded up, so that a wait for the last fraction of a millisecond does not become a spin.
fn millis(timeout: Option<Duration>) -> libc::c_int {
    timeout.map_or(-1, |time| libc::c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn reports_what_is_ready_and_only_that() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut fds = [PollFd::new(a.as_raw_fd(), true, false)];
        assert_eq!(wait(&mut fds, Some(Duration::ZERO)).unwrap(), 0);
        assert!(!fds[0].readable());
        b.write_all(b"x").unwrap();
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(fds[0].readable() && !fds[0].writable());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_hang_up_is_seen_behind_what_was_not_received() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut fds = [PollFd::for_hang_up(a.as_raw_fd())];
        b.write_all(b"x").unwrap();
        wait(&mut fds, Some(Duration::ZERO)).unwrap();
        assert!(!fds[0].is_reported());
        drop(b);
        wait(&mut fds, None).unwrap();
        assert!(fds[0].is_reported());
    }

    #[test]
    fn a_hang_up_counts_as_readable() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        let mut fds = [PollFd::new(a.as_raw_fd(), true, false)];
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(fds[0].readable());
    }

    /// In a child, because the limit holds for the whole process.
    #[test]
    fn a_failure_takes_a_moment() {
        // SAFETY: the child lowers its own limit, polls, and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the limit is read from this frame.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) };
            let mut fds = [PollFd::new(0, true, false)];
            let begun = std::time::Instant::now();
            let failed = (0..4).filter(|_| wait(&mut fds, None).is_err()).count();
            let rested = begun.elapsed() >= REST * 4;
            let at_once = wait(&mut fds, Some(Duration::ZERO)).is_err();
            // SAFETY: ends the process.
            unsafe { libc::_exit(if failed == 4 && rested && at_once { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: a child of this process; writes into memory of this frame.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "poll did not fail, or its failures take no time");
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_waited_for() {
        assert_eq!(millis(Some(Duration::from_micros(1))), 1);
        assert_eq!(millis(Some(Duration::ZERO)), 0);
        assert_eq!(millis(Some(Duration::MAX)), libc::c_int::MAX);
        assert_eq!(millis(None), -1);
    }
}

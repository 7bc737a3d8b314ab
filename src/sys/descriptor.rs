//! Writing to a descriptor that belongs to the program: a file, a pipe, a terminal or a socket.
//!
//! Guarantees: a write never waits for a reader where the system can promise it (a pipe or a socket of Linux), and elsewhere only if another
//! process takes the room between two calls; the flags of the descriptor, which its other users share, stay as they are. Leaves to others: threads
//! in which SIGPIPE is blocked (thread).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::poll::{self, PollFd};

/// The most bytes that are written at once: what a pipe takes as a whole (PIPE_BUF), so that lines of several writers do not mix.
pub const AT_ONCE: usize = 4096;

/// What became of a write.
#[derive(Debug)]
pub enum Wrote {
    /// So many bytes were taken.
    Bytes(usize),
    /// There is no room at the moment.
    Full,
    /// Nothing can be written to it any more: the descriptor is closed, or its reader is gone.
    Over(io::Error),
}

/// A descriptor of the program, kept under a number of its own: what the program does with its number, and what gets that number after
/// a close, changes nothing here.
#[derive(Debug)]
pub struct Kept {
    number: RawFd,
    own: OwnedFd,
}

/// Where a descriptor is kept.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    number: RawFd,
    own: RawFd,
    /// Its device and its number there.
    file: Option<(u64, u64)>,
}

impl Kept {
    /// Keeps a descriptor that is open for writing. Programs that this process executes do not inherit it.
    pub fn of(number: RawFd) -> io::Result<Self> {
        // Not among the standard descriptors, which a program may have closed and expects to get again.
        // SAFETY: fcntl with F_DUPFD_CLOEXEC takes and returns numbers, and returns an error for an invalid descriptor.
        let own = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
        if own < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just opened, and nobody else knows it.
        let own = unsafe { OwnedFd::from_raw_fd(own) };
        // SAFETY: fcntl with F_GETFL takes and returns numbers.
        let flags = unsafe { libc::fcntl(own.as_raw_fd(), libc::F_GETFL) };
        match flags & libc::O_ACCMODE {
            _ if flags < 0 => Err(io::Error::last_os_error()),
            libc::O_RDONLY => Err(io::Error::from_raw_os_error(libc::EBADF)),
            _ => Ok(Self { number, own }),
        }
    }

    /// By which a forked child finds its copy.
    pub fn place(&self) -> Place {
        Place { number: self.number, own: self.own.as_raw_fd(), file: file(self.own.as_raw_fd()) }
    }

    /// Keeps what the parent process had kept at this place, if that is open still.
    pub fn inherited(place: Place) -> Option<Self> {
        // The program may have closed it in the child, and opened something else under the number.
        place.file.filter(|kept| file(place.own).as_ref() == Some(kept))?;
        Self::of(place.own).ok().map(|kept| Self { number: place.number, ..kept })
    }

    /// The program's number for it.
    pub fn number(&self) -> RawFd {
        self.number
    }

    /// Writes at most [`AT_ONCE`] bytes, as many as there is room for now. To be called with SIGPIPE blocked.
    pub fn write_now(&self, bytes: &[u8]) -> Wrote {
        let (fd, bytes) = (self.own.as_raw_fd(), &bytes[..bytes.len().min(AT_ONCE)]);
        match poll::wait(&mut [PollFd::new(fd, false, true)], Some(Duration::ZERO)) {
            Ok(0) => return Wrote::Full,
            // The write below reports what is wrong with the descriptor.
            Ok(_) => {}
            Err(_) => return Wrote::Full,
        }
        let wrote = if is_file(fd) { write(fd, bytes) } else { write_without_waiting(fd, bytes) };
        match usize::try_from(wrote) {
            Ok(wrote) => Wrote::Bytes(wrote),
            Err(_) => failed(io::Error::last_os_error()),
        }
    }
}

fn failed(error: io::Error) -> Wrote {
    match error.raw_os_error().unwrap_or(0) {
        libc::EINTR | libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC | libc::EDQUOT => Wrote::Full,
        _ => Wrote::Over(error),
    }
}

/// Whether it is a regular file. A write to one does not wait for a reader, and the file system may refuse every write that must not wait
/// (RWF_NOWAIT).
fn is_file(fd: RawFd) -> bool {
    stat(fd).is_some_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFREG)
}

/// What tells a file, a pipe or a socket from all others that are open.
#[allow(clippy::unnecessary_cast)] // not every system has these types
fn file(fd: RawFd) -> Option<(u64, u64)> {
    stat(fd).map(|found| (found.st_dev as u64, found.st_ino as u64))
}

fn stat(fd: RawFd) -> Option<libc::stat> {
    // SAFETY: all zeros are a value of this structure.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: fstat writes into `found` alone, and returns an error for an invalid descriptor.
    (unsafe { libc::fstat(fd, &raw mut found) } == 0).then_some(found)
}

fn write(fd: RawFd, bytes: &[u8]) -> isize {
    // SAFETY: write reads `bytes.len()` bytes of `bytes`, and returns an error for an invalid descriptor.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }
}

/// Writes to a pipe or a socket. Another process may have filled it since the poll, so the kernel is asked not to wait; kernels that cannot do
/// that for this kind of descriptor get a plain write.
#[cfg(target_os = "linux")]
fn write_without_waiting(fd: RawFd, bytes: &[u8]) -> isize {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: pwritev2 reads the one part that `part` describes, which outlives the call; position -1 means the current one.
    let wrote = unsafe { libc::pwritev2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT) };
    let refused = [libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL, libc::ESPIPE];
    match io::Error::last_os_error().raw_os_error() {
        Some(code) if wrote < 0 && refused.contains(&code) => write(fd, bytes),
        _ => wrote,
    }
}

#[cfg(not(target_os = "linux"))]
fn write_without_waiting(fd: RawFd, bytes: &[u8]) -> isize {
    write(fd, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    fn pipe() -> (File, File) {
        let mut fds = [-1; 2];
        // SAFETY: writes two descriptors into memory of this frame.
        assert_eq!(unsafe { libc::pipe(fds.as_mut_ptr()) }, 0);
        // SAFETY: both were just opened, and nobody else knows them.
        let [read, write] = fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        (read, write)
    }

    fn kept(file: &File) -> Kept {
        Kept::of(file.as_raw_fd()).unwrap()
    }

    #[test]
    fn a_full_pipe_is_told_and_goes_on_when_it_is_read() {
        let (mut read, write) = pipe();
        let (kept, line) = (kept(&write), [b'x'; 100]);
        let mut taken = 0;
        while let Wrote::Bytes(bytes) = kept.write_now(&line) {
            taken += bytes;
            assert!(taken < 1 << 24, "a pipe without end");
        }
        assert!(matches!(kept.write_now(&line), Wrote::Full));
        read.read_exact(&mut vec![0; AT_ONCE]).unwrap();
        assert!(matches!(kept.write_now(&line), Wrote::Bytes(100)));
    }

    #[test]
    fn a_descriptor_that_is_no_use_is_told() {
        let (read, write) = pipe();
        for fd in [read.as_raw_fd(), i32::MAX] {
            assert_eq!(Kept::of(fd).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
        let kept = kept(&write);
        drop(read);
        assert!(matches!(kept.write_now(b"x"), Wrote::Over(error) if error.raw_os_error() == Some(libc::EPIPE)));
    }

    #[test]
    fn what_is_kept_stays_the_same_whatever_becomes_of_the_number() {
        let ((mut read, write), (other_read, other_write)) = (pipe(), pipe());
        let kept = kept(&write);
        // SAFETY: both are open; the number stands for the other pipe from now on.
        assert!(unsafe { libc::dup2(other_write.as_raw_fd(), write.as_raw_fd()) } >= 0);
        assert!(matches!(kept.write_now(b"line"), Wrote::Bytes(4)));
        let mut got = [0; 4];
        read.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"line");
        assert!(
            poll::wait(&mut [PollFd::new(other_read.as_raw_fd(), true, false)], Some(Duration::ZERO)).unwrap() == 0
        );
        // SAFETY: fcntl with F_GETFD takes and returns numbers.
        let flags = unsafe { libc::fcntl(kept.own.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC, "programs that are executed do not inherit it");
    }

    #[test]
    fn what_the_parent_kept_is_found_again_unless_its_number_stands_for_something_else() {
        let ((mut read, write), (_other_read, other_write)) = (pipe(), pipe());
        let kept = kept(&write);
        let place = kept.place();
        let again = Kept::inherited(place).unwrap();
        assert_eq!(again.number(), write.as_raw_fd());
        assert!(matches!(again.write_now(b"line"), Wrote::Bytes(4)));
        let mut got = [0; 4];
        read.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"line");
        // SAFETY: both are open; the number of what is kept stands for the other pipe from now on.
        assert!(unsafe { libc::dup2(other_write.as_raw_fd(), kept.own.as_raw_fd()) } >= 0);
        assert!(Kept::inherited(place).is_none());
        drop(kept);
        assert!(Kept::inherited(place).is_none());
    }
}

//! recv(2) with flags into an initialised buffer: socket2 offers it only for uninitialised ones, std without flags.
//!
//! Guarantees: writes only into the buffer, and says how much.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Receives with these flags of recv(2). 0 bytes into a buffer that is not empty: the peer has closed.
pub fn recv(socket: BorrowedFd<'_>, buf: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the descriptor is borrowed, so open; the buffer is exclusively ours and its own length is passed.
    let got = unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

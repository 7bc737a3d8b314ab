//! recv(2) with flags, into an initialised buffer or behind the end of a vector: socket2 offers neither, std no flags.
//!
//! Guarantees: writes only into the buffer, or into what the vector has reserved, and says how much.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::rank::may_wait;

/// Receives with these flags of recv(2). 0 bytes into a buffer that is not empty: the peer has closed.
#[inline]
pub fn recv(socket: BorrowedFd<'_>, buf: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    if flags & libc::MSG_DONTWAIT == 0 {
        may_wait("a receive");
    }
    // SAFETY: the descriptor is borrowed, so open; the buffer is exclusively ours and its own length is passed.
    let got = unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Receives behind the end of a vector, at most `most` bytes and no more than it has reserved. 0 bytes when there is room: the peer
/// has closed.
pub fn recv_append(socket: BorrowedFd<'_>, into: &mut Vec<u8>, most: usize, flags: libc::c_int) -> io::Result<usize> {
    if flags & libc::MSG_DONTWAIT == 0 {
        may_wait("a receive");
    }
    let spare = into.spare_capacity_mut();
    let room = spare.len().min(most);
    // SAFETY: the descriptor is borrowed, so open; `room` bytes of the vector's spare memory are exclusively ours.
    let got = unsafe { libc::recv(socket.as_raw_fd(), spare.as_mut_ptr().cast(), room, flags) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?.min(room);
    // SAFETY: the kernel has written the first `got` bytes behind the old end, within the capacity.
    unsafe { into.set_len(into.len() + got) };
    Ok(got)
}

//! What unit tests of forked children share.

/// Runs this in a child, which an alarm ends if it hangs, and says whether it held there.
pub fn holds_in_a_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs the body and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: plain numbers, in a process of its own.
        unsafe { libc::alarm(20) };
        let held = body();
        // SAFETY: ends the process.
        unsafe { libc::_exit(libc::c_int::from(!held)) };
    }
    let mut status = -1;
    // SAFETY: a child of this process; writes into memory of this frame.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status == 0
}

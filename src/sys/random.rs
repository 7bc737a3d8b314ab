//! Random numbers: for jitter, for the order of Sentinels, for the choice of replicas. Not for secrets.
//!
//! Guarantees: each thread has its own generator, which needs no system call; a forked child draws other numbers than its parent
//! and its siblings, although it inherits the generator's memory. Leaves to others: what the numbers are for.

use std::cell::RefCell;

use fastrand::Rng;

use super::fork;

struct Seeded {
    generation: u32,
    rng: Rng,
}

impl Seeded {
    fn new() -> Self {
        Self { generation: fork::generation(), rng: Rng::with_seed(seed()) }
    }
}

/// A generator, seeded by this thread's own.
pub fn rng() -> Rng {
    thread_local!(static SEEDED: RefCell<Seeded> = RefCell::new(Seeded::new()));
    let draw = |seeded: &RefCell<Seeded>| {
        let mut seeded = seeded.borrow_mut();
        if seeded.generation != fork::generation() {
            *seeded = Seeded::new();
        }
        seeded.rng.u64(..)
    };
    // The generator of a thread that is ending may be gone.
    Rng::with_seed(SEEDED.try_with(draw).unwrap_or_else(|_| seed()))
}

/// A seed from the kernel; without it, from values that two processes hardly share.
fn seed() -> u64 {
    let mut seed = [0; 8];
    #[cfg(target_os = "linux")]
    // SAFETY: writes into memory of this frame, at most as many bytes as it has.
    let drawn = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), libc::GRND_NONBLOCK) };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: writes into memory of this frame, at most as many bytes as it has.
    let drawn = unsafe { libc::getentropy(seed.as_mut_ptr().cast(), seed.len()) + seed.len() as libc::c_int };
    if usize::try_from(drawn) == Ok(seed.len()) {
        return u64::from_ne_bytes(seed);
    }
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec of this frame. The monotonic clock, because nothing in the library reads the wall clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let nanos = (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64);
    let place = (&raw const seed) as u64;
    nanos ^ (u64::from(std::process::id()) << 32) ^ place.rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd};

    fn draw() -> u64 {
        rng().u64(..)
    }

    /// The first number of a forked child.
    fn drawn_by_a_child() -> u64 {
        let mut ends = [-1; 2];
        // SAFETY: writes two descriptors into memory of this frame; nobody else knows them.
        let (mut read, write) = unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            (std::fs::File::from_raw_fd(ends[0]), std::fs::File::from_raw_fd(ends[1]))
        };
        // SAFETY: the child draws, writes to a pipe and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let drawn = draw().to_ne_bytes();
            // SAFETY: the descriptor is open; eight bytes of this frame are read; then the process ends.
            unsafe {
                libc::write(write.as_raw_fd(), drawn.as_ptr().cast(), drawn.len());
                libc::_exit(0);
            }
        }
        drop(write);
        let mut drawn = [0; 8];
        read.read_exact(&mut drawn).unwrap();
        // SAFETY: a child of this process; no status is wanted.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        u64::from_ne_bytes(drawn)
    }

    #[test]
    fn children_draw_other_numbers_than_their_parent_and_each_other() {
        draw();
        let drawn = [drawn_by_a_child(), drawn_by_a_child(), draw()];
        assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2] && drawn[0] != drawn[2], "{drawn:?}");
    }
}

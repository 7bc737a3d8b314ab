//! cost URI SIZE: what one open client costs: heap, threads, allocations per GET. A process of its own, so that nothing else is in
//! the figures and the counting of allocations slows nobody else. Prints a line for each: name, value, target.

use std::cell::Cell;
use std::ffi::c_void;
use std::time::{Duration, Instant};

use compare::candidate::key;
use compare::fail;
use compare::vigie::{Client, Sentinel};

const CALLS: u64 = 1000;

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

/// Stands in for the C library's, for this program and for the shared library alike.
#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    count();
    // SAFETY: the same call, one name further in.
    unsafe { __libc_malloc(size) }
}
/// As `malloc`.
#[unsafe(no_mangle)]
extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    count();
    // SAFETY: as above.
    unsafe { __libc_calloc(number, size) }
}
/// As `malloc`; to grow is to allocate.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    count();
    // SAFETY: as above.
    unsafe { __libc_realloc(old, size) }
}

fn heap() -> f64 {
    // SAFETY: no arguments.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as f64
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn get(client: &Client, key: &str, size: usize) {
    if client.exec(&[b"GET", key.as_bytes()]).len_of_text() != Some(size) {
        fail("a wrong answer");
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, uri, size] = args.as_slice() else { fail("usage: cost URI SIZE") };
    let size = size.parse().unwrap_or_else(|_| fail("SIZE is a number"));
    let key = key(size);

    let (threads_before, heap_before) = (threads(), heap());
    let sentinel = Sentinel::open(uri);
    let client = sentinel.client(false, &[]).unwrap_or_else(|e| fail(e));
    get(&client, &key, size);
    let kilobytes = (heap() - heap_before) / 1000.0;
    // What was started at once for the first call goes again within moments.
    let began = Instant::now();
    while threads() - threads_before > 2 && began.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let own_threads = threads() - threads_before;

    (0..CALLS).for_each(|_| get(&client, &key, size)); // buffers have grown to what they need
    let before = ALLOCATIONS.with(Cell::get);
    (0..CALLS).for_each(|_| get(&client, &key, size));
    let allocations = (ALLOCATIONS.with(Cell::get) - before) as f64 / CALLS as f64;

    println!("allocations per GET\t{allocations:.3}\t<= 1");
    println!("heap of an open client with one connection, KB\t{kilobytes:.1}\t< 100");
    println!("library threads of an open client\t{own_threads}\t<= 2");
}

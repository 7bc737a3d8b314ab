//! Decoding from memory, next to hiredis in one run: LRANGE of 10,000 x 32 bytes and a bulk of 1 MiB, as they come off a socket in
//! pieces.
//!
//! Both build their whole reply tree and free it. Allocations of both are counted by standing in for malloc. With BENCH_FIGURES set
//! the figures are added to that file, a line each: name, value, target.

use std::ffi::{c_char, c_int, c_void};
use std::io::Write;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use vigie::resp::{Decoded, Decoder, Limits, Want};

const ROUNDS: usize = 5;
const REPLIES: u32 = 100;
const ELEMENTS: usize = 10_000;
const BULK: usize = 1024 * 1024;
const PIECE: usize = 16 * 1024;

#[link(name = "hiredis")]
unsafe extern "C" {
    fn redisReaderCreate() -> *mut c_void;
    fn redisReaderFeed(reader: *mut c_void, buf: *const c_char, len: usize) -> c_int;
    fn redisReaderGetReply(reader: *mut c_void, reply: *mut *mut c_void) -> c_int;
    fn redisReaderFree(reader: *mut c_void);
    fn freeReplyObject(reply: *mut c_void);
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Stands in for the C library's, for hiredis and for Rust alike.
#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    ALLOCATIONS.fetch_add(1, Relaxed);
    // SAFETY: the same call, one name further in.
    unsafe { __libc_malloc(size) }
}
/// As `malloc`.
#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    ALLOCATIONS.fetch_add(1, Relaxed);
    // SAFETY: as above.
    unsafe { __libc_calloc(count, size) }
}
/// As `malloc`; to grow is to allocate.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    ALLOCATIONS.fetch_add(1, Relaxed);
    // SAFETY: as above.
    unsafe { __libc_realloc(old, size) }
}

/// What one of the two did per reply.
struct Figures {
    micros: f64,
    allocations: f64,
}

fn measure(mut decode: impl FnMut()) -> Figures {
    let (allocated, began) = (ALLOCATIONS.load(Relaxed), Instant::now());
    for _ in 0..REPLIES {
        decode();
    }
    let micros = began.elapsed().as_secs_f64() * 1e6 / f64::from(REPLIES);
    Figures { micros, allocations: (ALLOCATIONS.load(Relaxed) - allocated) as f64 / f64::from(REPLIES) }
}

fn by_hiredis(reader: *mut c_void, input: &[u8]) {
    let mut reply = null_mut();
    for piece in input.chunks(PIECE) {
        // SAFETY: the reader lives until the end of main, and copies the piece.
        let fed = unsafe {
            redisReaderFeed(reader, piece.as_ptr().cast(), piece.len()) | redisReaderGetReply(reader, &mut reply)
        };
        assert_eq!(fed, 0, "hiredis refuses the input");
    }
    assert!(!reply.is_null(), "hiredis has no reply");
    // SAFETY: the reply is ours and not used again.
    unsafe { freeReplyObject(reply) };
}

fn by_vigie(decoder: &mut Decoder, input: &[u8]) {
    for piece in input.chunks(PIECE) {
        let (used, done) = decoder.decode(piece, Want::One).expect("vigie takes the input");
        assert_eq!(used, piece.len());
        if let Some(Decoded::Reply(reply)) = done {
            let size = reply.bytes(0).map_or(reply.count(0) as usize, <[u8]>::len);
            assert!(size == ELEMENTS || size == BULK, "vigie has {size}");
            return;
        }
    }
    panic!("vigie has no reply");
}

fn median(of: &[Figures], what: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(what).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The medians of both, interleaved: hiredis first.
fn next_to_each_other(input: &[u8]) -> [Figures; 2] {
    // SAFETY: no arguments; freed below.
    let reader = unsafe { redisReaderCreate() };
    let mut decoder = Decoder::new(Limits::default());
    let (mut hiredis, mut vigie) = (Vec::new(), Vec::new());
    by_hiredis(reader, input);
    by_vigie(&mut decoder, input);
    for _ in 0..ROUNDS {
        hiredis.push(measure(|| by_hiredis(reader, input)));
        vigie.push(measure(|| by_vigie(&mut decoder, input)));
    }
    // SAFETY: the last use.
    unsafe { redisReaderFree(reader) };
    [hiredis, vigie]
        .map(|all| Figures { micros: median(&all, |f| f.micros), allocations: median(&all, |f| f.allocations) })
}

/// Prints a figure beside its target, and notes it where BENCH_FIGURES says.
fn line(what: &str, value: f64, target: &str, met: bool) {
    println!("  {what:<62} {value:>8.2}   target {target:<8} {}", if met { "met" } else { "MISSED" });
    if let Some(path) = std::env::var_os("BENCH_FIGURES") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("BENCH_FIGURES opens");
        writeln!(file, "{what}\t{value:.3}\t{target}").expect("BENCH_FIGURES can be written");
    }
}

fn at_least(what: &str, [hiredis, vigie]: &[Figures; 2], bound: f64) {
    println!("  hiredis {:.1} us, {:.0} allocations", hiredis.micros, hiredis.allocations);
    println!("  vigie {:.1} us, {:.2} allocations", vigie.micros, vigie.allocations);
    let ratio = hiredis.micros / vigie.micros;
    line(&format!("decoding {what}: speed, vigie to hiredis"), ratio, &format!(">= {bound}"), ratio >= bound * 0.95);
}

fn main() {
    let mut list = format!("*{ELEMENTS}\r\n").into_bytes();
    for i in 0..ELEMENTS {
        list.extend(format!("$32\r\n{i:032}\r\n").bytes());
    }
    let bulk = [format!("${BULK}\r\n").as_bytes(), &[b'x'; BULK], b"\r\n"].concat();

    println!("Decoding, {ROUNDS} interleaved rounds of {REPLIES} replies, medians");
    let figures = next_to_each_other(&list);
    assert!(figures[0].allocations >= ELEMENTS as f64, "hiredis allocates each element: the counter does not count");
    at_least("LRANGE of 10,000 x 32 bytes", &figures, 6.0);
    let allocations = figures[1].allocations;
    line("decoding LRANGE of 10,000 x 32 bytes: allocations", allocations, "<= 9", allocations <= 9.0);
    at_least("a bulk of 1 MiB", &next_to_each_other(&bulk), 2.9);
}

//! How often the decoder asks for memory: once for a small reply, three times for a list of any length. And what it does when it gets none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vigie::resp::{Decoded, Decoder, Limits, Reply, ReplyBuilder, Want, table};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
    /// Blocks above this size are not to be had.
    static LARGEST: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn is_refused(bytes: usize) -> bool {
    LARGEST.try_with(|largest| bytes > largest.get()).unwrap_or(false)
}

fn count(bytes: usize) {
    // A thread that is ending has no counter any more, and nothing to count.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    let _ = BYTES.try_with(|total| total.set(total.get() + bytes));
}

// SAFETY: every call goes to the system's allocator unchanged, or gives the null that says that there is no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        if is_refused(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        if is_refused(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = COUNT.get();
    let result = run();
    (result, COUNT.get() - before)
}

/// Runs this with no block larger than so many bytes to be had.
fn without_blocks_above<T>(largest: usize, run: impl FnOnce() -> T) -> T {
    LARGEST.set(largest);
    let result = run();
    LARGEST.set(usize::MAX);
    result
}

fn decode(decoder: &mut Decoder, mut input: &[u8], piece: usize) -> Reply {
    loop {
        let (used, done) = decoder.decode(&input[..piece.min(input.len())], Want::One).expect("valid");
        input = &input[used..];
        match done {
            Some(Decoded::Reply(reply)) => return reply,
            other => assert!(other.is_none() && !input.is_empty()),
        }
    }
}

fn bulk(len: usize) -> Vec<u8> {
    [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat()
}

fn list(count: usize, len: usize) -> Vec<u8> {
    [format!("*{count}\r\n").into_bytes(), bulk(len).repeat(count)].concat()
}

#[test]
fn allocations_do_not_grow_with_the_reply() {
    for (name, input, piece, most) in [
        ("GET 64", bulk(64), 16 << 10, 1),
        ("SET", b"+OK\r\n".to_vec(), 16 << 10, 1),
        ("INCR", b":123456\r\n".to_vec(), 16 << 10, 1),
        ("GET 1 MiB", bulk(1 << 20), usize::MAX, 2),
        ("GET 1 MiB in pieces", bulk(1 << 20), 16 << 10, 2),
        ("MGET 3", list(3, 10), 16 << 10, 2),
        ("MGET 3 of 64", list(3, 64), 16 << 10, 3),
        ("LRANGE 10000", list(10_000, 32), usize::MAX, 3),
        ("LRANGE 10000 in pieces", list(10_000, 32), 16 << 10, 3),
    ] {
        let mut decoder = Decoder::new(Limits::default());
        // A connection has answered its handshake before.
        decode(&mut decoder, &list(14, 8), usize::MAX);
        decode(&mut decoder, &bulk(64), 3);
        let (_reply, allocations) = counted(|| decode(&mut decoder, &input, piece));
        assert!(allocations <= most, "{name}: {allocations}");
    }
}

#[test]
fn an_announcement_reserves_little() {
    let before = BYTES.get();
    for input in ["*16000000\r\n".to_owned(), "*100\r\n".repeat(100), "%8000000\r\n".to_owned()] {
        let mut decoder = Decoder::new(Limits::default());
        assert!(matches!(decoder.decode(input.as_bytes(), Want::One), Ok((_, None))));
    }
    assert!(BYTES.get() - before < 8 << 20, "{} bytes", BYTES.get() - before);
}

/// What is announced is reserved for 65,536 nodes; beyond them the table grows with what comes, and that can be refused, too.
#[test]
fn without_memory_for_its_nodes_a_reply_is_refused_and_the_process_goes_on() {
    const MANY: usize = 150_000;
    let numbers = format!("*{MANY}\r\n{}", ":1\r\n".repeat(MANY));
    let texts = format!("*{MANY}\r\n{}", "$1\r\nx\r\n".repeat(MANY));
    let doubles = format!("*{MANY}\r\n{}", ",0.5\r\n".repeat(MANY));
    let nested = format!("*{MANY}\r\n{}*1\r\n:2\r\n", ":1\r\n".repeat(MANY - 1));
    let deep = format!("*1\r\n{nested}");
    for (name, input) in
        [("numbers", &numbers), ("texts", &texts), ("doubles", &doubles), ("nested", &nested), ("deep", &deep)]
    {
        let mut decoder = Decoder::new(Limits::default());
        let refused = without_blocks_above(2 << 20, || decoder.decode(input.as_bytes(), Want::One).map(|_| ()));
        let error = refused.expect_err(name).to_string();
        assert!(error.contains("no memory"), "{name}: {error}");
        // With memory it is a reply like any other.
        let reply = decode(&mut Decoder::new(Limits::default()), input.as_bytes(), usize::MAX);
        assert_eq!(reply.children(0).len(), if name == "deep" { 1 } else { MANY }, "{name}");
        let (mut whole, mut part) = (ReplyBuilder::new(), ReplyBuilder::new());
        assert_eq!(part.part(&reply, 0).try_finish().expect(name).children(0).len(), reply.children(0).len());
        let copied = without_blocks_above(2 << 20, || whole.array().part(&reply, 0).end().try_finish().map(|_| ()));
        assert!(copied.expect_err(name).message().contains("no memory"), "{name}");
    }
}

#[test]
fn a_lookup_asks_for_none() {
    let commands: [&[&[u8]]; 4] =
        [&[b"get", b"k"], &[b"CLIENT", b"list"], &[b"BLPOP", b"a", b"1"], &[b"XREAD", b"STREAMS", b"s", b"0"]];
    let ((), allocations) = counted(|| {
        for args in commands {
            assert!(table::classify(&mut args.iter().copied()).spec.is_some());
        }
    });
    assert_eq!(allocations, 0);
}

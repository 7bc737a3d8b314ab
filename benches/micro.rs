//! The small parts by themselves: encode, decode, a lane that several threads share, the queue, the shard of a key. `cargo bench --bench micro`.
//!
//! For work on one of them: criterion says whether a change made it faster. What users feel is measured by `make bench`.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::scope;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use vigie::config::{ClientSettings, Endpoint, LaneSettings};
use vigie::lane::{Bytes, Lane, Unit};
use vigie::net::{Conn, ConnectOptions, Expect};
use vigie::queue::{Event, Queue, kind};
use vigie::resp::{Decoded, Decoder, Limits, Want, encode, list};
use vigie::shard::{Hash, Map, Tags};
use vigie::time::Deadline;

const GREETING: &[u8] = b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";
/// What one receive brings.
const PIECE: usize = 16 * 1024;
/// Events in one drain.
const BATCH: usize = 256;

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let value = vec![b'x'; 1024];
    let mut out = Vec::with_capacity(4096);
    let commands: [(&str, &[&[u8]]); 2] = [("GET", &[b"GET", b"bench:64"]), ("SET 1 KiB", &[b"SET", b"key", &value])];
    for (name, args) in commands {
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                encode::command(&mut out, black_box(args));
            });
        });
    }
    let mut gets = Vec::new();
    (0..64).for_each(|_| encode::command(&mut gets, &[b"GET", b"bench:64"]));
    group.bench_function("look through a list of 64", |b| {
        b.iter(|| {
            list::parse(black_box(&gets)).expect("it is valid").commands().map(|c| c.name().len()).sum::<usize>()
        });
    });
    group.finish();
}

/// Everything that is there, piece by piece; the reply is freed.
fn decode(decoder: &mut Decoder, input: &[u8]) {
    for piece in input.chunks(PIECE) {
        if let (_, Some(Decoded::Reply(reply))) = decoder.decode(piece, Want::One).expect("it is valid") {
            black_box(reply);
            return;
        }
    }
    panic!("the reply is not whole");
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let text = |len: usize| [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat();
    let lrange = [b"*10000\r\n", text(32).repeat(10_000).as_slice()].concat();
    for (name, input) in [("64 bytes", text(64)), ("1 MiB", text(1024 * 1024)), ("10,000 x 32 bytes", lrange)] {
        let mut decoder = Decoder::new(Limits::default());
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |b| b.iter(|| decode(&mut decoder, black_box(&input))));
    }
    group.finish();
}

/// Answers each PING; ends with the connection.
fn answer_pings(mut stream: TcpStream) {
    let (mut received, mut open, mut answers) = (vec![0; PIECE], 0, Vec::new());
    while let Ok(more @ 1..) = stream.read(&mut received) {
        open += more;
        answers.clear();
        (0..open / PING.len()).for_each(|_| answers.extend_from_slice(PONG));
        open %= PING.len();
        if stream.write_all(&answers).is_err() {
            return;
        }
    }
}

/// A lane to a server that knows PING.
fn lane() -> Lane {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let mut stream = listener.accept().expect("the lane comes").0;
        stream.set_nodelay(true).expect("a socket option");
        let _ = stream.read(&mut [0; 4096]).expect("the handshake comes");
        stream.write_all(GREETING).expect("the handshake is answered");
        answer_pings(stream);
    });
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port };
    let settings = ClientSettings { timeout_connect: Duration::from_secs(5), ..ClientSettings::default() };
    let options = ConnectOptions::of_node(&settings, Expect::Any);
    let conn = Conn::open(&endpoint, &options, Deadline::after(Duration::from_secs(5))).expect("it opens");
    Lane::new(conn.into_wire(), endpoint.to_string(), LaneSettings::default())
}

fn ping(lane: &Lane) {
    let unit = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
    black_box(lane.exec(unit, Deadline::after(Duration::from_secs(5))).expect("it is answered"));
}

/// The time of so many calls, shared by the callers of one lane: with two and more the roles of writer and reader go from one to
/// another.
fn shared(lane: &Lane, callers: u64, calls: u64) -> Duration {
    let began = Instant::now();
    scope(|threads| {
        for caller in 0..callers {
            let mine = calls / callers + u64::from(caller < calls % callers);
            threads.spawn(move || (0..mine).for_each(|_| ping(lane)));
        }
    });
    began.elapsed()
}

fn handing_over(c: &mut Criterion) {
    let mut group = c.benchmark_group("lane");
    group.sample_size(20); // many calls in each, next to which the starting of threads is nothing
    for callers in [1, 2, 8, 64] {
        let lane = lane();
        group.bench_function(format!("PING, callers: {callers}"), |b| {
            b.iter_custom(|calls| shared(&lane, callers, calls));
        });
    }
    group.finish();
}

fn queueing(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(BATCH as u64));
    let queue = Queue::create(BATCH).expect("a queue");
    let mut events = Vec::with_capacity(BATCH);
    let mut drain = move |queue: &Queue| {
        assert_eq!(queue.drain(Deadline::after(Duration::ZERO), &mut events, BATCH), BATCH);
        events.clear();
    };
    group.bench_function("push 256, drain", |b| {
        b.iter(|| {
            for token in 0..BATCH as u64 {
                queue.push(Event { kind: kind::TOPOLOGY, token, outcome: Ok(None) });
            }
            drain(&queue);
        });
    });
    group.bench_function("reserve and complete 256, drain", |b| {
        b.iter(|| {
            let credits = queue.reserve(0, BATCH).expect("there is room");
            credits.for_each(|reservation| reservation.complete(Ok(None)));
            drain(&queue);
        });
    });
    group.finish();
}

/// What a sharded call does before it is a call of one shard.
fn sharding(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard");
    let names = || (1..=4).map(|number| format!("node_{number}")).collect();
    let ways = [(Hash::Crc32, Tags::Rediscluster), (Hash::Crc16, Tags::Cluster), (Hash::Rendezvous, Tags::Cluster)];
    for (hash, tags) in ways {
        let map = Map::new(names(), hash, tags);
        group.bench_function(format!("a key, {}", hash.name()), |b| {
            b.iter(|| map.locate(black_box(b"user:100000{t1}")).expect("a good tag").shard);
        });
        let get: [&[u8]; 2] = [b"GET", b"user:100000"];
        group.bench_function(format!("a GET, {}", hash.name()), |b| {
            b.iter(|| black_box(map.route(black_box(&get)).expect("a good command")));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for part in [encoding, decoding, handing_over, queueing, sharding] {
        part(&mut criterion);
    }
    criterion.final_summary();
}

//! The command table against a real server: what the server calls a write is no read here, and keys are where the
//! server finds them.
//!
//! Starts its own redis-server on a Unix socket in a directory of its own, and ends it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vigie::resp::table::{self, Flags, Keys, Named};
use vigie::resp::{Decoded, Decoder, Kind, Limits, Reply, Want, encode};

struct Server {
    child: Child,
    dir: PathBuf,
    stream: UnixStream,
    decoder: Decoder,
}

impl Server {
    fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("vigie-table-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the server");
        let socket = dir.join("s");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(&dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "no server after 10 s: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        Self { child, dir, stream, decoder: Decoder::new(Limits::default()) }
    }

    fn ask(&mut self, args: &[&[u8]]) -> Reply {
        let mut bytes = Vec::new();
        encode::command(&mut bytes, args);
        self.stream.write_all(&bytes).expect("sent");
        let mut buffer = vec![0; 16 << 10];
        loop {
            let len = self.stream.read(&mut buffer).expect("an answer");
            assert!(len > 0, "the server closed the connection over {:?}", args[0].escape_ascii().to_string());
            match self.decoder.decode(&buffer[..len], Want::One).expect("RESP") {
                (_, Some(Decoded::Reply(reply))) => return reply,
                (used, _) => assert_eq!(used, len),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        let removed = std::fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            ended.expect("the server has ended");
            removed.expect("its directory is gone");
        }
    }
}

/// Name in capitals (with its container's in front) and flags of every command of the server.
fn server_commands(server: &mut Server) -> Vec<(String, Vec<String>)> {
    let reply = server.ask(&[b"COMMAND"]);
    let mut commands = Vec::new();
    let mut rows: Vec<u32> = reply.children(0).collect();
    while let Some(row) = rows.pop() {
        let text = |id: u32| String::from_utf8_lossy(reply.bytes(id).expect("text")).into_owned();
        let field = |index| reply.child(row, index).expect("a field of COMMAND");
        let name = text(field(0)).to_ascii_uppercase().replace('|', " ");
        commands.push((name, reply.children(field(2)).map(text).collect()));
        rows.extend(reply.children(field(9)));
    }
    assert!(commands.len() > 300, "only {} commands", commands.len());
    commands
}

fn find(name: &str) -> Option<&'static table::Spec> {
    match name.split_once(' ') {
        Some((container, sub)) => table::lookup2(container.as_bytes(), sub.as_bytes()),
        None => table::lookup(name.as_bytes()),
    }
}

/// Errors of the table about a command, by the flags of the server.
fn faults(name: &str, flags: &[String]) -> Vec<String> {
    let is = |flag: &str| flags.iter().any(|one| one == flag);
    let Some(spec) = find(name) else { return vec![format!("{name} is not known")] };
    let mut faults = Vec::new();
    let mut fault = |wrong: bool, what: &str| wrong.then(|| faults.push(format!("{name} {what}")));
    let reads = spec.flags.has(Flags::READ);
    let repeats = spec.flags.has_any(Flags::READ.and(Flags::REPEAT));
    fault(is("write") && repeats, "writes, and is READ or REPEAT here");
    // No exception is needed: commands that block or have a cursor are READ with another flag.
    fault(is("readonly") && !reads, "only reads, and is not READ here");
    // PFCOUNT may store its result in the key's cache, on replicas too; the value stays the same.
    fault(is("may_replicate") && reads && name != "PFCOUNT", "reaches replicas, and is READ here");
    // XREAD and XREADGROUP block only with BLOCK: classify() sees to it.
    let may_block = spec.flags.has(Flags::BLOCK) || name.starts_with("XREAD");
    fault(is("blocking") && !may_block, "blocks, and is not BLOCK here");
    let subscribes = spec.flags.has(Flags::SUBSCRIBE);
    fault(is("pubsub") && name.contains("SUBSCRIBE") != subscribes, "is about subscriptions or not");
    if reads && !is("readonly") {
        fault(!spec.flags.has_any(Flags::NO_KEYS.and(Flags::CONTAINER)), "has keys, and is READ here alone");
        fault(!NOT_ABOUT_DATA.contains(&name) && !name.contains(' '), "is READ here alone");
    }
    faults
}

/// READ rows that the server does not flag as such: they have no keys, and report on the server itself.
const NOT_ABOUT_DATA: &[&str] = &["PING", "ECHO", "INFO", "LASTSAVE", "ROLE", "TIME", "COMMAND"];

#[test]
fn no_write_of_the_server_is_a_read_here_and_no_read_is_none_there() {
    let mut server = Server::start("flags");
    let faults: Vec<String> =
        server_commands(&mut server).iter().flat_map(|(name, flags)| faults(name, flags)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The replies of newer servers to COMMAND; the head of the file says which.
const RECORDED: &str = include_str!("resp_support/commands.txt");

#[test]
fn the_commands_of_newer_servers_are_known_for_what_they_are() {
    let mut wrong = Vec::new();
    let (mut rows, mut writes) = (0, Vec::new());
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(';').collect();
        let [name, flags, places, ..] = fields[..] else { panic!("not a row: {line}") };
        let flags: Vec<String> = flags.split(',').map(str::to_owned).collect();
        wrong.extend(faults(name, &flags));
        if let (false, Some(spec)) = (flags.iter().any(|flag| flag == "movablekeys"), find(name)) {
            let places: Vec<i64> = places.split(',').map(|place| place.parse().expect("a number")).collect();
            let here = match spec.keys {
                Keys::None | Keys::Channels { .. } => vec![0, 0, 0],
                Keys::Range { first, last, step, .. } => vec![first.into(), last.into(), step.into()],
                other => panic!("{name} has its keys at {other:?} here, at {places:?} there"),
            };
            // The channels of a shard, and the cursor of CLUSTERSCAN, stand where keys would.
            let is_key = !spec.flags.has(Flags::SUBSCRIBE) && !["SPUBLISH", "CLUSTERSCAN"].contains(&name);
            if is_key && here != places {
                wrong.push(format!("{name} has its keys at {here:?} here, at {places:?} there"));
            }
        }
        rows += 1;
        let args: Vec<&[u8]> = name.split(' ').map(str::as_bytes).collect();
        let class = table::classify(&mut args.iter().copied());
        if flags.iter().any(|flag| flag == "write") {
            // Some write only with certain arguments: class.rs has tests of these.
            let by_arguments = find(name).is_some_and(|spec| spec.flags.has(Flags::ARGS));
            assert!(by_arguments || !class.is_repeatable(), "{name} would be sent twice");
            writes.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(rows > 400 && writes.len() > 120, "{rows} rows, {} writes", writes.len());
    for newer in ["HGETDEL", "HGETEX", "HSETEX", "XACKDEL", "XDELEX", "DELIFEQ", "MSETEX", "HEXPIRE", "VADD"] {
        assert!(writes.contains(&newer), "{newer} is not in the record");
    }
}

/// One command per line; every form of key position that Redis 7.0 has.
const SAMPLES: &str = "\
GET a|SET a b|GETRANGE a 0 1|MGET a b c|MSET a 1 b 2|MSETNX a 1 b 2|DEL a b|UNLINK a b|EXISTS a a|TOUCH a b|EXPIRE a 1|TTL a
PTTL a|EXPIRETIME a|TYPE a|DUMP a|RESTORE a 0 x|COPY a b|RENAME a b|RENAMENX a b|MOVE a 1|PERSIST a|RANDOMKEY|DBSIZE|KEYS *|SCAN 0
SORT a|SORT a BY w_* GET # STORE d|SORT a STORE c STORE d|SORT a BY STORE GET STORE LIMIT 0 STORE|SORT_RO a BY w_*|APPEND a b|INCR a|DECRBY a 2
GETDEL a|GETEX a|GETSET a b|SETEX a 1 b|PSETEX a 1 b|SETNX a b|SETRANGE a 0 b|STRLEN a|SUBSTR a 0 1|LCS a b|SETBIT a 0 1
GETBIT a 0|BITCOUNT a|BITPOS a 1|BITOP AND d a b|BITOP NOT d a|BITFIELD a GET u8 0|BITFIELD a SET u8 0 1|BITFIELD_RO a GET u8 0|PFADD a b|PFCOUNT a b|PFMERGE d a b
LINDEX a 0|LLEN a|LPOS a b|LRANGE a 0 1|LINSERT a BEFORE b c|LPOP a|LPUSH a b|LPUSHX a b|LREM a 0 b|LSET a 0 b|LTRIM a 0 1|RPOP a
LMOVE a b LEFT LEFT|RPOPLPUSH a b|LMPOP 2 a b LEFT|BLPOP a b 1|BRPOP a 1|BLMOVE a b LEFT LEFT 1|BRPOPLPUSH a b 1|BLMPOP 1 2 a b LEFT
BZPOPMIN a b 1|BZPOPMAX a 1|BZMPOP 1 2 a b MIN|ZMPOP 1 a MAX|SADD a b|SREM a b|SPOP a|SCARD a|SISMEMBER a b|SMISMEMBER a b c
SRANDMEMBER a|SMEMBERS a|SMOVE a b m|SDIFF a b|SINTER a b|SUNION a b|SINTERCARD 2 a b LIMIT 1|SDIFFSTORE d a b|SINTERSTORE d a|SUNIONSTORE d a b
SSCAN a 0|HSET a f v|HGET a f|HGETALL a|HDEL a f g|HMGET a f g|HSCAN a 0|HRANDFIELD a|HINCRBYFLOAT a f 1|ZADD a 1 m|ZRANGE a 0 1
ZRANGESTORE d a 0 1|ZUNION 2 a b|ZINTER 2 a b WEIGHTS 1 2|ZDIFF 2 a b|ZINTERCARD 2 a b|ZUNIONSTORE d 2 a b|ZINTERSTORE d 1 a|ZDIFFSTORE d 2 a b
ZSCAN a 0|ZSCORE a m|ZMSCORE a m n|ZRANDMEMBER a|ZREMRANGEBYSCORE a 0 1|GEOADD a 1 1 m|GEODIST a m n|GEOPOS a m|GEOHASH a m
GEORADIUS a 1 1 1 m|GEORADIUS a 1 1 1 m STORE d|GEORADIUS a 1 1 1 m COUNT 1 STOREDIST d|GEORADIUSBYMEMBER a m 1 m STORE d
GEORADIUS_RO a 1 1 1 m|GEORADIUSBYMEMBER_RO a m 1 m|GEOSEARCH a FROMMEMBER m BYRADIUS 1 m|GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m
XADD a * f v|XLEN a|XRANGE a - +|XDEL a 1-1|XREAD STREAMS a b 0 0|XREAD COUNT 1 BLOCK 1 STREAMS a 0|XREADGROUP GROUP g c STREAMS a b > >
XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a >|XACK a g 1-1|XPENDING a g|XCLAIM a g c 0 1-1|XAUTOCLAIM a g c 0 0|XTRIM a MAXLEN 1
XGROUP CREATE a g $|XGROUP DESTROY a g|XGROUP HELP|XINFO STREAM a|XINFO GROUPS a|XSETID a 1-1|EVAL x 2 a b c|EVALSHA x 0|EVALSHA x 0 a
EVAL_RO x 1 a|EVALSHA_RO x 1 a b|FCALL f 2 a b|FCALL_RO f 1 a|OBJECT ENCODING a|OBJECT FREQ a|OBJECT HELP|MEMORY USAGE a|MEMORY DOCTOR
MIGRATE h 1 a 0 1|MIGRATE h 1  0 1 KEYS a b|MIGRATE h 1  0 1 COPY AUTH KEYS KEYS a|MIGRATE h 1  0 1 AUTH2 KEYS KEYS KEYS a b|WATCH a b
PUBLISH a b|SPUBLISH a b|SSUBSCRIBE a|SUBSCRIBE a|PING|INFO|CLIENT LIST|CONFIG GET x|SELECT 1|WAIT 1 1|PFDEBUG GETREG a|RESTORE-ASKING a 0 x
HMSET a f v|HSETNX a f v|HKEYS a|HVALS a|HLEN a|HSTRLEN a f|ZINCRBY a 1 m|ZPOPMIN a|ZRANK a m|ZREVRANGE a 0 1|ZLEXCOUNT a - +";

fn samples() -> Vec<Vec<&'static [u8]>> {
    let commands = SAMPLES.lines().flat_map(|line| line.split('|'));
    commands.map(|command| command.split(' ').map(str::as_bytes).collect()).collect()
}

/// The keys of a command as this library finds them, each with whether it may be written.
fn keys_here(args: &[&[u8]]) -> Vec<(usize, bool)> {
    match table::named(args) {
        Ok(Named::Keys(places)) => places.iter().map(|at| (at, places.is_written(at))).collect(),
        Ok(_) => Vec::new(),
        Err(error) => panic!("{}: {error}", args.join(&b' ').escape_ascii()),
    }
}

/// The same as the server finds them.
fn keys_there(server: &mut Server, args: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
    let reply = server.ask(&[&[&b"COMMAND"[..], b"GETKEYSANDFLAGS"], args].concat());
    if reply.kind(0) != Kind::Array {
        let error = reply.error_line(0).expect("an array or an error");
        let line = args.join(&b' ').escape_ascii().to_string();
        assert!(error.ends_with(b"no key arguments"), "{line}: {}", error.escape_ascii());
        return Vec::new();
    }
    let key = |row| {
        let [key, flags] = [0, 1].map(|at| reply.child(row, at).expect("a key and its flags"));
        let only_reads = reply.children(flags).any(|flag| reply.bytes(flag) == Some(b"RO"));
        (reply.bytes(key).expect("a key").to_vec(), !only_reads)
    };
    reply.children(0).map(key).collect()
}

/// What counts as written here although the server says that it is read: what WATCH guards, what XREADGROUP changes the groups of, and a
/// BITFIELD that only gets.
const CAUTIOUS: &[&str] = &["BITFIELD", "WATCH", "XREADGROUP"];
/// What the server calls written although the value stays the same: PFCOUNT may keep its result in the key.
const ONLY_A_CACHE: &str = "PFCOUNT";

fn key_faults(server: &mut Server, args: &[&[u8]]) -> Option<String> {
    let line = args.join(&b' ').escape_ascii().to_string();
    let name = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
    let there = keys_there(server, args);
    let here: Vec<_> = keys_here(args).into_iter().map(|(at, written)| (args[at].to_vec(), written)).collect();
    let is_same = here.len() == there.len()
        && here.iter().zip(&there).all(|(here, there)| {
            let excepted = name == ONLY_A_CACHE || (here.1 && CAUTIOUS.contains(&&*name));
            here.0 == there.0 && (here.1 == there.1 || excepted)
        });
    (!is_same).then(|| format!("{line}: {here:?} here, {there:?} there"))
}

#[test]
fn keys_are_where_the_server_finds_them_and_written_if_it_writes_them() {
    let mut server = Server::start("keys");
    // COMMAND GETKEYS takes no command without arguments.
    let samples: Vec<_> = samples().into_iter().filter(|args| args.len() > 1).collect();
    assert!(samples.len() > 150);
    let faults: Vec<String> = samples.iter().filter_map(|args| key_faults(&mut server, args)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A command with as many arguments as it needs. `None`: its keys depend on what the arguments say.
fn made_up(spec: &table::Spec, arity: i64) -> Option<Vec<Vec<u8>>> {
    let Keys::Range { first, step, .. } = spec.keys else { return None };
    let mut args: Vec<Vec<u8>> = spec.name.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    let least = usize::try_from(arity.abs()).expect("a small number");
    let whole = if arity < 0 { usize::from(first) + 2 * usize::from(step) } else { least };
    (args.len()..least.max(whole)).for_each(|at| args.push(format!("a{at}").into_bytes()));
    Some(args)
}

/// Every command of the table that the server has: made up where its keys stand in a range, and else among the samples.
#[test]
fn every_command_of_the_server_has_its_keys_where_the_server_finds_them() {
    let mut server = Server::start("all");
    let reply = server.ask(&[b"COMMAND"]);
    let (mut faults, mut tried, mut sampled) = (Vec::new(), 0, Vec::new());
    let mut rows: Vec<u32> = reply.children(0).collect();
    while let Some(row) = rows.pop() {
        rows.extend(reply.children(reply.child(row, 9).expect("its sub-commands")));
        let name = reply.child(row, 0).and_then(|id| reply.bytes(id)).expect("a name");
        let name = String::from_utf8_lossy(name).to_ascii_uppercase().replace('|', " ");
        let spec = find(&name).unwrap_or_else(|| panic!("{name} is not known"));
        let arity = reply.child(row, 1).and_then(|id| reply.int(id)).expect("an arity");
        match made_up(spec, arity) {
            Some(args) => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                faults.extend(key_faults(&mut server, &args));
                tried += 1;
            }
            None if matches!(spec.keys, Keys::None | Keys::Channels { .. }) => {}
            None => sampled.push(name),
        }
    }
    let lacks_sample = |name: &&String| !samples().iter().any(|args| args[0].eq_ignore_ascii_case(name.as_bytes()));
    let without: Vec<_> = sampled.iter().filter(lacks_sample).collect();
    assert!(faults.is_empty() && without.is_empty(), "{faults:#?}, without a sample: {without:?}");
    assert!(tried > 140 && sampled.len() > 20, "{tried} made up, {} sampled", sampled.len());
}

#[test]
fn what_reads_leaves_the_data_as_it_was() {
    let mut server = Server::start("effects");
    for fill in ["SET a 5", "LPUSH l x y", "SADD s x", "HSET h f v", "ZADD z 1 m", "XADD x 1-1 f v", "PFADD p x"] {
        let reply = server.ask(&fill.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        assert_ne!(reply.kind(0), Kind::Error, "{fill}");
    }
    let changes = |server: &mut Server| {
        let info = server.ask(&[b"INFO", b"persistence"]);
        let text = String::from_utf8_lossy(info.bytes(0).expect("text")).into_owned();
        text.lines().find(|line| line.starts_with("rdb_changes_since_last_save")).expect("counted").to_owned()
    };
    let before = changes(&mut server);
    let mut tried = 0;
    for args in samples() {
        let class = table::classify(&mut args.iter().copied());
        if !class.flags.has_any(Flags::READ.and(Flags::REPEAT)) || class.blocks.is_some() {
            continue;
        }
        for key in ["a", "l", "s", "h", "z", "x", "p"] {
            let mut args = args.clone();
            keys_here(&args).into_iter().for_each(|(at, _)| args[at] = key.as_bytes());
            server.ask(&args);
            tried += 1;
        }
        assert_eq!(changes(&mut server), before, "{}", args.join(&b' ').escape_ascii());
    }
    assert!(tried > 400, "only {tried}");
}

//! What a command becomes on several shards: which operation runs it, or why it is refused.
//!
//! Guarantees: a refused command has sent nothing. Leaves to others: where its keys are (map), and the operations themselves.

use super::confirmed::Confirmed;
use super::gather::{Combine, Gather, Part};
use super::map::Placed;
use super::moves::{self, ListEnd, ListMove};
use super::rename::{Rename, Way};
use super::scan::Scan;
use super::setnx::{self, SetNx};
use super::sets::{Algebra, Move, Store};
use super::task::{Ask, Task};
use crate::client::CallFlags;
use crate::client::steps::Operation;
use crate::error::{Error, Result, Status, quoted};
use crate::resp::encode;
use crate::resp::table::{self, Flags};

type Boxed = Box<dyn Operation>;

/// A command whose keys are on several shards.
pub(super) fn over_several(task: Task, args: &[&[u8]], keys: &[Placed]) -> Result<Boxed> {
    let name = args[0].to_ascii_uppercase();
    let by_shard = |combine, with: usize| gather(&task, combine, args, keys, with);
    match &name[..] {
        b"MGET" => by_shard(Combine::Values, 0),
        b"DEL" | b"UNLINK" | b"EXISTS" | b"TOUCH" => by_shard(Combine::Sum, 0),
        b"MSET" => by_shard(Combine::Same, 1),
        b"SUNION" => by_shard(Combine::Union, 0),
        b"SINTER" => by_shard(Combine::Intersection, 0),
        b"SDIFF" => Ok(Box::new(Gather::new(task.clone(), Combine::Difference, difference(args, keys)?))),
        _ => Ok(Box::new(Confirmed::new(task.clone(), in_steps(task, &name, args, keys)?))),
    }
}

/// A command of which one step follows another.
fn in_steps(task: Task, name: &[u8], args: &[&[u8]], keys: &[Placed]) -> Result<Boxed> {
    // What may run twice is the whole command, and not one of its steps: the answer to the second time would say that there was nothing to do.
    let flags = match name {
        b"SUNIONSTORE" | b"SINTERSTORE" | b"SDIFFSTORE" => task.flags,
        _ => task.flags.without(CallFlags::IDEMPOTENT),
    };
    let task = Task { flags, ..task };
    Ok(match name {
        b"MSETNX" => Box::new(SetNx { parts: setnx_parts(args, keys)?, task, phase: setnx::Phase::Begin }),
        b"SUNIONSTORE" => store(task, Algebra::Union, args, keys)?,
        b"SINTERSTORE" => store(task, Algebra::Intersection, args, keys)?,
        b"SDIFFSTORE" => store(task, Algebra::Difference, args, keys)?,
        b"SMOVE" if args.len() == 4 => {
            Box::new(Move::new(task, owned(args, keys[0]), owned(args, keys[1]), args[3].to_vec()))
        }
        b"RPOPLPUSH" if args.len() == 3 => list_move(task, args, keys, ListEnd::Right, ListEnd::Left, None),
        b"BRPOPLPUSH" if args.len() == 4 => list_move(task, args, keys, ListEnd::Right, ListEnd::Left, Some(args[3])),
        b"LMOVE" if args.len() == 5 => list_move(task, args, keys, end(args[3])?, end(args[4])?, None),
        b"BLMOVE" if args.len() == 6 => list_move(task, args, keys, end(args[3])?, end(args[4])?, Some(args[5])),
        b"RENAME" | b"RENAMENX" | b"COPY" => {
            let way = way(name, args, &task, keys)?;
            Box::new(Rename::new(task, way, owned(args, keys[0]), owned(args, keys[1])))
        }
        _ => return Err(task.state.map.cross_shard(args, keys)),
    })
}

fn owned(args: &[&[u8]], key: Placed) -> (usize, Vec<u8>) {
    (key.shard, args[key.at].to_vec())
}

/// One question for each shard, with all of its keys, and with so many arguments behind each of them.
fn gather(task: &Task, combine: Combine, args: &[&[u8]], keys: &[Placed], with: usize) -> Result<Boxed> {
    let parts = parts(args[0], args, keys, with)?;
    Ok(Box::new(Gather::new(task.clone(), combine, parts).of(args)))
}

/// How large one shard's command is.
#[derive(Clone, Copy, Default)]
struct Extent {
    keys: usize,
    len: usize,
    /// The index of its part, once it has one.
    part: usize,
}

fn parts(name: &[u8], args: &[&[u8]], keys: &[Placed], with: usize) -> Result<Vec<(Part, Ask)>> {
    let behind = |key: &Placed| &args[key.at + 1..key.at + 1 + with];
    let most = keys.iter().map(|key| key.shard + 1).max().unwrap_or_default();
    // The length of each shard's command comes first, so that each is written in one piece.
    let mut extents = vec![Extent::default(); most];
    let mut shards = 0;
    for key in keys {
        let extent = &mut extents[key.shard];
        shards += usize::from(extent.keys == 0);
        extent.keys += 1;
        extent.len += encode::argument_len(args[key.at]);
        if with > 0 {
            extent.len += behind(key).iter().map(|arg| encode::argument_len(arg)).sum::<usize>();
        }
    }
    let mut parts: Vec<(Part, encode::Growing)> = Vec::with_capacity(shards);
    for (place, key) in keys.iter().enumerate() {
        let extent = &mut extents[key.shard];
        // Its first key.
        if extent.keys > 0 {
            let mut command =
                encode::Growing::try_new(1 + extent.keys * (1 + with), encode::argument_len(name) + extent.len)?;
            command.add(name);
            parts.push((Part { shard: key.shard, keys: Vec::with_capacity(extent.keys) }, command));
            (extent.keys, extent.part) = (0, parts.len() - 1);
        }
        let (part, command) = &mut parts[extent.part];
        part.keys.push(place);
        command.add(args[key.at]);
        if with > 0 {
            behind(key).iter().for_each(|arg| command.add(arg));
        }
    }
    let ask = |(part, command): (Part, encode::Growing)| {
        let ask = Ask { shard: part.shard, commands: command.finish(), form: CallFlags::EACH };
        (part, ask)
    };
    Ok(parts.into_iter().map(ask).collect())
}

/// The first set as it is, and the union of the others on each shard.
fn difference(args: &[&[u8]], keys: &[Placed]) -> Result<Vec<(Part, Ask)>> {
    let Some((first, rest)) = keys.split_first() else { return Ok(Vec::new()) };
    let first = (Part { shard: first.shard, keys: vec![0] }, Ask::one(first.shard, &[b"SMEMBERS", args[first.at]])?);
    let mut asks = vec![first];
    asks.extend(parts(b"SUNION", args, rest, 0)?);
    Ok(asks)
}

fn store(task: Task, algebra: Algebra, args: &[&[u8]], keys: &[Placed]) -> Result<Boxed> {
    let Some((destination, sources)) = keys.split_first() else {
        return Err(Error::new(Status::InvalidArg, "a destination and its sources are missing"));
    };
    let parts = match algebra {
        Algebra::Union => parts(b"SUNION", args, sources, 0)?,
        Algebra::Intersection => parts(b"SINTER", args, sources, 0)?,
        Algebra::Difference => difference(args, sources)?,
    };
    let asks = parts.into_iter().map(|(_, ask)| ask).collect();
    Ok(Box::new(Store::new(task, algebra, asks, owned(args, *destination))))
}

fn setnx_parts(args: &[&[u8]], keys: &[Placed]) -> Result<Vec<setnx::Part>> {
    let mut parts: Vec<setnx::Part> = Vec::new();
    for key in keys {
        let pair = (encode::try_copy(args[key.at])?, encode::try_copy(args[key.at + 1])?);
        match parts.iter_mut().find(|part| part.shard == key.shard) {
            Some(part) => part.pairs.push(pair),
            None => parts.push(setnx::Part { shard: key.shard, pairs: vec![pair] }),
        }
    }
    Ok(parts)
}

fn end(word: &[u8]) -> Result<ListEnd> {
    if word.eq_ignore_ascii_case(b"LEFT") {
        return Ok(ListEnd::Left);
    }
    if word.eq_ignore_ascii_case(b"RIGHT") {
        return Ok(ListEnd::Right);
    }
    let text = format!("{} is neither LEFT nor RIGHT; nothing was sent", quoted(&String::from_utf8_lossy(word)));
    Err(Error::new(Status::InvalidArg, text))
}

fn list_move(
    task: Task,
    args: &[&[u8]],
    keys: &[Placed],
    pops: ListEnd,
    pushes: ListEnd,
    seconds: Option<&[u8]>,
) -> Boxed {
    let ((from, from_key), (to, to_key)) = (owned(args, keys[0]), owned(args, keys[1]));
    Box::new(ListMove {
        task,
        from: (from, from_key, pops),
        to: (to, to_key, pushes),
        blocks: seconds.map(<[u8]>::to_vec),
        phase: moves::Phase::Begin,
    })
}

fn way(name: &[u8], args: &[&[u8]], task: &Task, keys: &[Placed]) -> Result<Way> {
    match (name, &args[3..]) {
        (b"RENAME", []) => Ok(Way::Rename),
        (b"RENAMENX", []) => Ok(Way::RenameNx),
        (b"COPY", []) => Ok(Way::Copy(false)),
        (b"COPY", [word]) if word.eq_ignore_ascii_case(b"REPLACE") => Ok(Way::Copy(true)),
        // COPY to another database.
        _ => Err(task.state.map.cross_shard(args, keys)),
    }
}

/// How a command without a key is run.
enum Keyless {
    /// On every server; a map of their answers.
    Each,
    /// On every server; the sum.
    Sum,
    /// On every server; the elements of all.
    Union,
    /// On every server; what all of them say.
    Same,
    Scan,
    /// On every server; one of their keys, by chance.
    RandomKey,
}

/// Commands without a key that are for all servers.
const KEYLESS: &[(&[u8], Keyless)] = &[
    (b"PING", Keyless::Each),
    (b"INFO", Keyless::Each),
    (b"TIME", Keyless::Each),
    (b"LASTSAVE", Keyless::Each),
    (b"ROLE", Keyless::Each),
    (b"CONFIG", Keyless::Each),
    (b"CLIENT", Keyless::Each),
    (b"SAVE", Keyless::Each),
    (b"BGSAVE", Keyless::Each),
    (b"BGREWRITEAOF", Keyless::Each),
    (b"FLUSHALL", Keyless::Each),
    (b"FLUSHDB", Keyless::Each),
    (b"SLOWLOG", Keyless::Each),
    (b"LATENCY", Keyless::Each),
    (b"MEMORY", Keyless::Each),
    (b"ACL", Keyless::Each),
    (b"MODULE", Keyless::Each),
    (b"SCRIPT", Keyless::Same),
    (b"FUNCTION", Keyless::Same),
    (b"DBSIZE", Keyless::Sum),
    (b"KEYS", Keyless::Union),
    (b"SCAN", Keyless::Scan),
    (b"RANDOMKEY", Keyless::RandomKey),
];

/// A command without a key. `None`: it goes to the shard of the option, or is refused.
pub(super) fn without_key(task: Task, args: &[&[u8]]) -> Result<Option<Boxed>> {
    let Some((_, how)) = KEYLESS.iter().find(|(name, _)| name.eq_ignore_ascii_case(args[0])) else { return Ok(None) };
    // What changes the connection's state is refused, as by any other client.
    if table::classify(&mut args.iter().copied()).flags.has(Flags::STATE) {
        return Ok(None);
    }
    let servers = task.state.servers().to_vec();
    // Only the primaries know how many keys there are.
    let task = task.on_primary();
    let combine = match how {
        Keyless::Each => Combine::ByShard,
        Keyless::Sum => Combine::Sum,
        Keyless::Union => Combine::Union,
        Keyless::Same => Combine::Same,
        Keyless::RandomKey => Combine::Any,
        Keyless::Scan => return Ok(Some(Box::new(Scan::new(task, args, servers)?))),
    };
    let ask = |shard: usize| Ok((Part { shard, keys: Vec::new() }, Ask::one(shard, args)?));
    let parts = servers.into_iter().map(ask).collect::<Result<Vec<_>>>()?;
    Ok(Some(Box::new(Gather::new(task, combine, parts).of(args))))
}

/// Whether it is about the data or the settings of all shards, so that one of them alone has no answer to it.
pub(super) fn is_for_all(args: &[&[u8]]) -> bool {
    let is = |name: &[u8]| name.eq_ignore_ascii_case(args[0]);
    KEYLESS.iter().any(|(name, _)| is(name)) && !is(b"PING") && !is(b"TIME")
}

/// Why a transaction, which is on one shard, does not take a command for all of them.
#[cold]
pub(super) fn all_in_one(args: &[&[u8]]) -> Error {
    let name = String::from_utf8_lossy(args[0]).to_ascii_uppercase();
    let text = format!(
        "flags: VIGIE_CALL_ATOMIC: {} is for all shards, and a transaction is on one of them: run it by itself, or, if one shard is meant, in a \
         session for one of its keys (vigie_session_for()); nothing was sent",
        quoted(&name)
    );
    Error::new(Status::CrossShard, text)
}

/// Why a transaction has no shard.
#[cold]
pub(super) fn atomic_over_several(one: &str, other: &str) -> Error {
    let text = format!(
        "flags: VIGIE_CALL_ATOMIC: the keys of a transaction have to be on one shard, and these are on {one} and {other}; nothing was \
         sent"
    );
    Error::new(Status::CrossShard, text)
}

/// Why a command without a key has no shard.
#[cold]
pub(super) fn homeless(args: &[&[u8]]) -> Error {
    let name = String::from_utf8_lossy(args[0]).to_ascii_uppercase();
    let text = format!(
        "{} has no key that says on which shard it is to run: set the option \"shard.default_node\", or take a session for a key \
         (vigie_session_for()); nothing was sent",
        quoted(&name)
    );
    Error::new(Status::Unsupported, text)
}

/// Why a command that the table does not have has no shard.
#[cold]
pub(super) fn unknown(args: &[&[u8]]) -> Error {
    let name = String::from_utf8_lossy(args[0]).to_ascii_uppercase();
    let text = format!(
        "{} is not known to this version, and so is not where its keys are: run it in a session for its key (vigie_session_for()); \
         nothing was sent",
        quoted(&name)
    );
    Error::new(Status::Unsupported, text)
}

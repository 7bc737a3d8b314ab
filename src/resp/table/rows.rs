//! The rows of the command table, grouped by what they have in common.
//!
//! Guarantees: made at compile time. Sources: `COMMAND` of Redis 7.0, 8.0 and 8.2 and of Valkey 8.0 and 9.1, the manuals for modules and
//! for what is newer.

use super::spec::{Flags, Keys, Spec, Writes};

/// The longest name.
pub(super) const LONGEST: usize = 40;

const NONE: Flags = Flags::NONE;
const READ: Flags = Flags::READ;
const BLOCK: Flags = Flags::BLOCK.and(Flags::ARGS);
const REPEAT: Flags = Flags::REPEAT;
const STATE: Flags = Flags::STATE;
const SLOW: Flags = Flags::SLOW;
const ARGS: Flags = Flags::ARGS;
const TXN: Flags = Flags::TXN.and(STATE);
const SUB: Flags = Flags::SUBSCRIBE.and(STATE);
const BOX: Flags = Flags::CONTAINER;
const BIG_READ: Flags = READ.and(SLOW);
const SCAN: Flags = READ.and(Flags::SCAN);

const NO: Keys = Keys::None;
const ONE: Keys = range(1, 1, 1);
const TWO: Keys = range(1, 2, 1);
const REST: Keys = range(1, -1, 1);
const SECOND: Keys = range(2, 2, 1);
const ALL_BUT_LAST: Keys = range(1, -2, 1);

const fn range(first: u8, last: i8, step: u8) -> Keys {
    Keys::Range { first, last, step, writes: Writes::All }
}

/// As a range with every key, of which only one is written.
const fn writing(writes: Writes, first: u8, last: i8) -> Keys {
    Keys::Range { first, last, step: 1, writes }
}

const fn channels(first: u8, last: i8) -> Keys {
    Keys::Channels { first, last }
}

const fn counted(at: u8) -> Keys {
    Keys::Counted { front: 0, at, step: 1 }
}

const fn store_counted() -> Keys {
    Keys::Counted { front: 1, at: 2, step: 1 }
}

/// Properties, places of the keys, and the names that have both, separated by commas.
type Group = (Flags, Keys, &'static str);

const GROUPS: &[Group] = &[
    // Keys and strings.
    (
        READ,
        ONE,
        "DUMP,EXPIRETIME,PEXPIRETIME,PTTL,TTL,TYPE,GET,GETBIT,GETRANGE,STRLEN,SUBSTR,BITCOUNT,BITPOS,BITFIELD_RO,DIGEST",
    ),
    (READ, REST, "EXISTS,TOUCH,MGET,PFCOUNT"),
    (READ, NO, "RANDOMKEY,DBSIZE"),
    (
        NONE,
        ONE,
        "EXPIRE,EXPIREAT,PEXPIRE,PEXPIREAT,PERSIST,MOVE,RESTORE,RESTORE-ASKING,APPEND,DECR,DECRBY,INCR,INCRBY,INCRBYFLOAT,\
         GETDEL,GETEX,GETSET,PSETEX,SET,SETEX,SETNX,SETRANGE,SETBIT,PFADD,DELEX,DELIFEQ",
    ),
    (NONE, REST, "DEL,UNLINK"),
    (NONE, writing(Writes::First, 1, -1), "PFMERGE"),
    (NONE, writing(Writes::Last, 1, 2), "COPY"),
    (NONE, TWO, "RENAME,RENAMENX"),
    (NONE, range(1, -1, 2), "MSET,MSETNX"),
    (NONE, Keys::Counted { front: 0, at: 1, step: 2 }, "MSETEX"),
    (SLOW, writing(Writes::First, 2, -1), "BITOP"),
    (ARGS, ONE, "BITFIELD"),
    (BIG_READ, TWO, "LCS"),
    (BIG_READ, NO, "KEYS"),
    (SCAN, NO, "SCAN,CLUSTERSCAN"),
    (SCAN, ONE, "SSCAN,HSCAN,ZSCAN"),
    (SLOW.and(ARGS), Keys::Store, "SORT"),
    (BIG_READ, ONE, "SORT_RO"),
    (SLOW, Keys::Migrate, "MIGRATE"),
    // Lists.
    (READ, ONE, "LINDEX,LLEN,LPOS,LRANGE"),
    (NONE, ONE, "LINSERT,LPOP,LPUSH,LPUSHX,LREM,LSET,LTRIM,RPOP,RPUSH,RPUSHX"),
    (NONE, TWO, "LMOVE,RPOPLPUSH"),
    (NONE, counted(1), "LMPOP"),
    (BLOCK, ALL_BUT_LAST, "BLPOP,BRPOP,BZPOPMIN,BZPOPMAX"),
    (BLOCK, TWO, "BLMOVE,BRPOPLPUSH"),
    (BLOCK, counted(2), "BLMPOP,BZMPOP"),
    // Sets.
    (READ, ONE, "SCARD,SISMEMBER,SMISMEMBER,SRANDMEMBER"),
    (BIG_READ, ONE, "SMEMBERS"),
    (BIG_READ, REST, "SDIFF,SINTER,SUNION"),
    (BIG_READ, counted(1), "SINTERCARD"),
    (NONE, ONE, "SADD,SPOP,SREM"),
    (NONE, TWO, "SMOVE"),
    (SLOW, writing(Writes::First, 1, -1), "SDIFFSTORE,SINTERSTORE,SUNIONSTORE"),
    // Hashes.
    (READ, ONE, "HEXISTS,HGET,HGETALL,HKEYS,HLEN,HMGET,HRANDFIELD,HSTRLEN,HVALS,HTTL,HPTTL,HEXPIRETIME,HPEXPIRETIME"),
    (
        NONE,
        ONE,
        "HDEL,HINCRBY,HINCRBYFLOAT,HMSET,HSET,HSETNX,HEXPIRE,HEXPIREAT,HPEXPIRE,HPEXPIREAT,HPERSIST,HGETDEL,HGETEX,HSETEX",
    ),
    // Sorted sets and places.
    (
        READ,
        ONE,
        "ZCARD,ZCOUNT,ZLEXCOUNT,ZMSCORE,ZRANDMEMBER,ZRANGE,ZRANGEBYLEX,ZRANGEBYSCORE,ZRANK,ZREVRANGE,ZREVRANGEBYLEX,\
         ZREVRANGEBYSCORE,ZREVRANK,ZSCORE,GEODIST,GEOHASH,GEOPOS,GEORADIUS_RO,GEORADIUSBYMEMBER_RO,GEOSEARCH",
    ),
    (NONE, ONE, "ZADD,ZINCRBY,ZPOPMAX,ZPOPMIN,ZREM,ZREMRANGEBYLEX,ZREMRANGEBYRANK,ZREMRANGEBYSCORE,GEOADD"),
    (NONE, writing(Writes::First, 1, 2), "ZRANGESTORE,GEOSEARCHSTORE"),
    (NONE, counted(1), "ZMPOP"),
    (BIG_READ, counted(1), "ZDIFF,ZINTER,ZINTERCARD,ZUNION"),
    (SLOW, store_counted(), "ZDIFFSTORE,ZINTERSTORE,ZUNIONSTORE"),
    (ARGS, Keys::Store, "GEORADIUS,GEORADIUSBYMEMBER"),
    // Streams.
    (READ, ONE, "XLEN,XPENDING,XRANGE,XREVRANGE"),
    (NONE, ONE, "XACK,XACKDEL,XADD,XAUTOCLAIM,XCFGSET,XCLAIM,XDEL,XDELEX,XSETID,XTRIM"),
    (READ.and(ARGS), Keys::Streams, "XREAD"),
    (ARGS, Keys::Streams, "XREADGROUP"),
    (BOX, NO, "XGROUP,XINFO"),
    (NONE, SECOND, "XGROUP CREATE,XGROUP CREATECONSUMER,XGROUP DELCONSUMER,XGROUP DESTROY,XGROUP SETID"),
    (READ, SECOND, "XINFO CONSUMERS,XINFO GROUPS,XINFO STREAM"),
    (READ, NO, "XGROUP HELP,XINFO HELP"),
    // Vector sets.
    (READ, ONE, "VCARD,VDIM,VEMB,VGETATTR,VINFO,VISMEMBER,VLINKS,VRANDMEMBER,VRANGE,VSIM"),
    (NONE, ONE, "VADD,VREM,VSETATTR"),
    // Scripts and functions.
    (Flags::SCRIPT, counted(2), "EVAL,EVALSHA,FCALL"),
    (Flags::SCRIPT.and(READ), counted(2), "EVAL_RO,FCALL_RO"),
    // A loaded script is not replicated, unlike a function: it is on the node that SCRIPT LOAD went to.
    (Flags::SCRIPT.and(READ).and(Flags::LOCAL), counted(2), "EVALSHA_RO"),
    (BOX, NO, "SCRIPT,FUNCTION"),
    // Each node has its own scripts and subscribers; those of the primary are meant.
    (REPEAT, NO, "SCRIPT EXISTS,SCRIPT SHOW"),
    (READ, NO, "SCRIPT HELP,FUNCTION DUMP,FUNCTION HELP,FUNCTION LIST,FUNCTION STATS"),
    (Flags::LOADS, NO, "SCRIPT LOAD"),
    (NONE, NO, "SCRIPT KILL,FUNCTION DELETE,FUNCTION KILL,FUNCTION LOAD"),
    (SLOW, NO, "SCRIPT FLUSH,FUNCTION FLUSH,FUNCTION RESTORE"),
    (STATE, NO, "SCRIPT DEBUG"),
    // Messages. A replica would deliver a published one only to its own subscribers.
    (NONE, channels(1, 1), "PUBLISH,SPUBLISH"),
    (SUB, channels(1, -1), "SUBSCRIBE,SSUBSCRIBE,UNSUBSCRIBE,SUNSUBSCRIBE"),
    (SUB, NO, "PSUBSCRIBE,PUNSUBSCRIBE"),
    (BOX, NO, "PUBSUB"),
    (REPEAT, NO, "PUBSUB CHANNELS,PUBSUB HELP,PUBSUB NUMPAT,PUBSUB SHARDCHANNELS"),
    (REPEAT, channels(2, -1), "PUBSUB NUMSUB,PUBSUB SHARDNUMSUB"),
    // The connection and its transaction. A server hangs up on POST and HOST:, and a MONITOR never ends.
    (STATE, NO, "AUTH,HELLO,QUIT,RESET,SELECT,ASKING,READONLY,READWRITE,MONITOR,SYNC,PSYNC,REPLCONF,POST,HOST:"),
    (TXN, NO, "MULTI,EXEC,DISCARD,UNWATCH"),
    (TXN, REST, "WATCH"),
    (READ, NO, "PING,ECHO"),
    (BLOCK, NO, "WAIT,WAITAOF"),
    // An unknown sub-command of CLIENT may be about the connection.
    (BOX.and(STATE), NO, "CLIENT"),
    (READ, NO, "CLIENT GETNAME,CLIENT GETREDIR,CLIENT HELP,CLIENT ID,CLIENT INFO,CLIENT LIST,CLIENT TRACKINGINFO"),
    (NONE, NO, "CLIENT KILL,CLIENT PAUSE,CLIENT UNBLOCK,CLIENT UNPAUSE"),
    (
        STATE,
        NO,
        "CLIENT CACHING,CLIENT CAPA,CLIENT IMPORT-SOURCE,CLIENT NO-EVICT,CLIENT NO-TOUCH,CLIENT REPLY,CLIENT SETINFO,\
         CLIENT SETNAME,CLIENT TRACKING",
    ),
    // The server.
    (READ, NO, "INFO,LASTSAVE,LOLWUT,ROLE,TIME"),
    (NONE, NO, "BGREWRITEAOF,BGSAVE,FAILOVER,REPLICAOF,SLAVEOF,SWAPDB"),
    (SLOW, NO, "FLUSHALL,FLUSHDB,SAVE,SHUTDOWN,PFSELFTEST,TRIMSLOTS"),
    (NONE, SECOND, "PFDEBUG"),
    (BOX.and(READ), NO, "COMMAND"),
    (
        READ,
        NO,
        "COMMAND COUNT,COMMAND DOCS,COMMAND GETKEYS,COMMAND GETKEYSANDFLAGS,COMMAND HELP,COMMAND INFO,COMMAND LIST",
    ),
    (BOX, NO, "ACL,CLUSTER,COMMANDLOG,CONFIG,HOTKEYS,LATENCY,MEMORY,MODULE,OBJECT,SENTINEL,SLOWLOG"),
    // DEBUG may stop the server for a while.
    (BOX.and(SLOW), NO, "DEBUG"),
    (SLOW, SECOND, "DEBUG HTSTATS-KEY,DEBUG LISTPACK,DEBUG OBJECT,DEBUG QUICKLIST,DEBUG SDSLEN"),
    (SLOW, range(2, -1, 1), "DEBUG DIGEST-VALUE"),
    (READ, NO, "ACL CAT,ACL DRYRUN,ACL GENPASS,ACL GETUSER,ACL HELP,ACL LIST,ACL USERS,ACL WHOAMI"),
    (NONE, NO, "ACL DELUSER,ACL LOAD,ACL LOG,ACL SAVE,ACL SETUSER"),
    (READ, NO, "CONFIG GET,CONFIG HELP,MODULE HELP,MODULE LIST,SLOWLOG GET,SLOWLOG HELP,SLOWLOG LEN"),
    (NONE, NO, "CONFIG RESETSTAT,CONFIG REWRITE,CONFIG SET,MODULE LOAD,MODULE LOADEX,MODULE UNLOAD,SLOWLOG RESET"),
    (READ, NO, "COMMANDLOG GET,COMMANDLOG HELP,COMMANDLOG LEN,HOTKEYS GET,HOTKEYS HELP"),
    (NONE, NO, "COMMANDLOG RESET,HOTKEYS RESET,HOTKEYS START,HOTKEYS STOP"),
    (
        READ,
        NO,
        "LATENCY DOCTOR,LATENCY GRAPH,LATENCY HELP,LATENCY HISTOGRAM,LATENCY HISTORY,LATENCY LATEST,\
         MEMORY DOCTOR,MEMORY HELP,MEMORY MALLOC-STATS,MEMORY STATS,OBJECT HELP",
    ),
    (NONE, NO, "LATENCY RESET,MEMORY PURGE"),
    (READ, SECOND, "MEMORY USAGE,OBJECT ENCODING,OBJECT FREQ,OBJECT IDLETIME,OBJECT REFCOUNT"),
    (
        READ,
        NO,
        "CLUSTER COUNT-FAILURE-REPORTS,CLUSTER COUNTKEYSINSLOT,CLUSTER GETKEYSINSLOT,CLUSTER GETSLOTMIGRATIONS,\
         CLUSTER HELP,CLUSTER INFO,CLUSTER KEYSLOT,CLUSTER LINKS,CLUSTER MYID,CLUSTER MYSHARDID,CLUSTER NODES,\
         CLUSTER REPLICAS,CLUSTER SHARDS,CLUSTER SLAVES,CLUSTER SLOT-STATS,CLUSTER SLOTS",
    ),
    (
        NONE,
        NO,
        "CLUSTER ADDSLOTS,CLUSTER ADDSLOTSRANGE,CLUSTER BUMPEPOCH,CLUSTER CANCELSLOTMIGRATIONS,CLUSTER DELSLOTS,\
         CLUSTER DELSLOTSRANGE,CLUSTER FAILOVER,CLUSTER FLUSHSLOT,CLUSTER FLUSHSLOTS,CLUSTER FORGET,CLUSTER MEET,\
         CLUSTER MIGRATESLOTS,CLUSTER MIGRATION,CLUSTER REPLICATE,CLUSTER RESET,CLUSTER SAVECONFIG,\
         CLUSTER SET-CONFIG-EPOCH,CLUSTER SETSLOT",
    ),
    (STATE, NO, "CLUSTER SYNCSLOTS"),
    // A Sentinel.
    (
        READ,
        NO,
        "SENTINEL CKQUORUM,SENTINEL GET-MASTER-ADDR-BY-NAME,SENTINEL GET-PRIMARY-ADDR-BY-NAME,SENTINEL HELP,\
         SENTINEL INFO-CACHE,SENTINEL MASTER,SENTINEL MASTERS,SENTINEL MYID,SENTINEL PENDING-SCRIPTS,SENTINEL PRIMARY,\
         SENTINEL PRIMARIES,SENTINEL REPLICAS,SENTINEL SENTINELS,SENTINEL SLAVES",
    ),
    (
        NONE,
        NO,
        "SENTINEL CONFIG,SENTINEL DEBUG,SENTINEL FAILOVER,SENTINEL FLUSHCONFIG,SENTINEL IS-MASTER-DOWN-BY-ADDR,\
         SENTINEL IS-PRIMARY-DOWN-BY-ADDR,SENTINEL MONITOR,SENTINEL REMOVE,SENTINEL RESET,SENTINEL SET,\
         SENTINEL SIMULATE-FAILURE",
    ),
    // JSON.
    (READ, ONE, "JSON.ARRINDEX,JSON.ARRLEN,JSON.GET,JSON.OBJKEYS,JSON.OBJLEN,JSON.RESP,JSON.STRLEN,JSON.TYPE"),
    (READ, ALL_BUT_LAST, "JSON.MGET"),
    (
        NONE,
        ONE,
        "JSON.ARRAPPEND,JSON.ARRINSERT,JSON.ARRPOP,JSON.ARRTRIM,JSON.CLEAR,JSON.DEL,JSON.FORGET,JSON.MERGE,\
         JSON.NUMINCRBY,JSON.NUMMULTBY,JSON.NUMPOWBY,JSON.SET,JSON.STRAPPEND,JSON.TOGGLE",
    ),
    (NONE, range(1, -1, 3), "JSON.MSET"),
    (BOX, NO, "JSON.DEBUG"),
    (READ, SECOND, "JSON.DEBUG MEMORY"),
    (READ, NO, "JSON.DEBUG HELP"),
    // Search: an index is no key. What opens or reads a cursor stays on the primary and is not sent twice.
    (READ, NO, "FT._LIST,FT.DICTDUMP,FT.EXPLAIN,FT.EXPLAINCLI,FT.INFO,FT.SPELLCHECK,FT.SYNDUMP,FT.TAGVALS"),
    (BIG_READ, NO, "FT.SEARCH"),
    (BIG_READ.and(ARGS), NO, "FT.AGGREGATE,FT.HYBRID,FT.PROFILE"),
    (READ, ONE, "FT.SUGGET,FT.SUGLEN"),
    (NONE, ONE, "FT.SUGADD,FT.SUGDEL"),
    (
        NONE,
        NO,
        "FT.ALIASADD,FT.ALIASDEL,FT.ALIASUPDATE,FT.ALTER,FT.CREATE,FT.DICTADD,FT.DICTDEL,FT.DROPINDEX,FT.SYNUPDATE",
    ),
    (BOX, NO, "FT.CONFIG,FT.CURSOR"),
    (READ, NO, "FT.CONFIG GET,FT.CONFIG HELP"),
    (NONE, NO, "FT.CONFIG SET,FT.CURSOR DEL,FT.CURSOR GC,FT.CURSOR READ"),
    // Time series.
    (READ, ONE, "TS.GET,TS.INFO,TS.RANGE,TS.REVRANGE"),
    (READ, NO, "TS.MGET,TS.QUERYINDEX"),
    (BIG_READ, NO, "TS.MRANGE,TS.MREVRANGE"),
    (NONE, ONE, "TS.ADD,TS.ALTER,TS.CREATE,TS.DECRBY,TS.DEL,TS.INCRBY"),
    (NONE, TWO, "TS.CREATERULE,TS.DELETERULE"),
    (NONE, range(1, -1, 3), "TS.MADD"),
    // Filters and sketches.
    (
        READ,
        ONE,
        "BF.CARD,BF.EXISTS,BF.INFO,BF.MEXISTS,CF.COUNT,CF.EXISTS,CF.INFO,CF.MEXISTS,CMS.INFO,CMS.QUERY,TOPK.COUNT,\
         TOPK.INFO,TOPK.LIST,TOPK.QUERY,TDIGEST.BYRANK,TDIGEST.BYREVRANK,TDIGEST.CDF,TDIGEST.INFO,TDIGEST.MAX,TDIGEST.MIN,\
         TDIGEST.QUANTILE,TDIGEST.RANK,TDIGEST.REVRANK,TDIGEST.TRIMMED_MEAN",
    ),
    (SCAN, ONE, "BF.SCANDUMP,CF.SCANDUMP"),
    (
        NONE,
        ONE,
        "BF.ADD,BF.INSERT,BF.LOAD,BF.LOADCHUNK,BF.MADD,BF.RESERVE,CF.ADD,CF.ADDNX,CF.COMPACT,CF.DEL,CF.INSERT,CF.INSERTNX,\
         CF.LOADCHUNK,CF.RESERVE,CMS.INCRBY,CMS.INITBYDIM,CMS.INITBYPROB,TOPK.ADD,TOPK.INCRBY,TOPK.RESERVE,TDIGEST.ADD,\
         TDIGEST.CREATE,TDIGEST.RESET",
    ),
    (NONE, store_counted(), "CMS.MERGE,TDIGEST.MERGE"),
];

/// All commands, in the order of the groups.
pub(super) static SPECS: [Spec; COUNT] = SPECS_MADE;
const SPECS_MADE: [Spec; COUNT] = specs();
const COUNT: usize = count();

const fn count() -> usize {
    let mut total = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        let names = GROUPS[group].2.as_bytes();
        let mut at = 0;
        total += 1;
        while at < names.len() {
            total += (names[at] == b',') as usize;
            at += 1;
        }
        group += 1;
    }
    total
}

const fn specs() -> [Spec; COUNT] {
    let mut specs = [const { Spec { name: "", flags: NONE, keys: NO, space: 0 } }; COUNT];
    let (mut row, mut group) = (0, 0);
    while group < GROUPS.len() {
        let (flags, keys, names) = GROUPS[group];
        let mut names = names.as_bytes();
        let has_keys = !matches!(keys, Keys::None | Keys::Channels { .. }) || flags.has(Flags::CONTAINER);
        let flags = if has_keys { flags } else { flags.and(Flags::NO_KEYS) };
        while !names.is_empty() {
            let (name, rest) = first_name(names);
            assert!(!name.is_empty() && name.len() <= LONGEST, "a name does not fit");
            specs[row] = Spec { name, flags, keys, space: space_in(name) };
            names = rest;
            row += 1;
        }
        group += 1;
    }
    assert!(row == COUNT, "a list of names ends with a comma");
    specs
}

/// The name before the first comma, and what follows it.
const fn first_name(names: &'static [u8]) -> (&'static str, &'static [u8]) {
    let mut at = 0;
    while at < names.len() && names[at] != b',' {
        at += 1;
    }
    let (name, rest) = names.split_at(at);
    let Ok(name) = std::str::from_utf8(name) else { panic!("a name is no text") };
    (name, if rest.is_empty() { rest } else { rest.split_at(1).1 })
}

const fn space_in(name: &str) -> u8 {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b' ' {
            return at as u8;
        }
        at += 1;
    }
    0
}

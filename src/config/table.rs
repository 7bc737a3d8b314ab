//! The option table: the one place that knows which options exist. Parser, messages, description and CONFIGURATION.md come from it.
//!
//! Guarantees: each option writes one typed place of [`Settings`], so none can be accepted and ignored; the environment is never read.
//! Durations are whole milliseconds (`250`) or have a unit behind the number: `250ms`, `5s`, `1m`. Leaves to others: checks across
//! options (settings), the texts of values (value, list, uri).

use std::time::Duration;

use super::endpoint::{DATA_PORT, Endpoint};
use super::list;
use super::map::AddressMap;
use super::nearest::nearest;
use super::secret::Secret;
use super::settings::{
    Fallback, ForkMode, LogFormat, LogLevel, MonitorMode, Overflow, Pick, ProbePolicy, Protocol, Replicas, Settings,
    ShardHash, ShardTags, TlsVerify, TlsVersion,
};
use super::value::{self, shown};
use crate::error::{Error, Result, Status};

use OptionKind::{
    Address, Addresses, Bool, CountOrAll, DurationOrOff, Float, Integer, IntegerOrOff, Map, Name, Seconds, Sentinels,
    Text, Uri, Word,
};

/// The type of an option, its range, and the place that it writes.
pub(super) enum OptionKind {
    /// Stands for several options; `Config::set` splits it.
    Uri,
    /// Addresses whose entries may carry credentials, which `Config::set` separates.
    Sentinels(fn(&mut Settings, Vec<Endpoint>)),
    Text(fn(&mut Settings, Option<String>)),
    /// Without blanks and control characters; the second: printable ASCII only.
    Name(fn(&mut Settings, Option<String>), bool),
    Secret(fn(&mut Settings, Option<Secret>)),
    Bool(fn(&mut Settings, bool)),
    Integer(u64, u64, fn(&mut Settings, u64)),
    IntegerOrOff(u64, u64, fn(&mut Settings, Option<u64>)),
    /// A number, or `all`.
    CountOrAll(u64, fn(&mut Settings, Replicas)),
    Float(f64, f64, fn(&mut Settings, f64)),
    Duration(u64, u64, fn(&mut Settings, Duration)),
    /// In whole seconds, for what the kernel counts so.
    Seconds(u64, u64, fn(&mut Settings, Duration)),
    DurationOrOff(u64, u64, fn(&mut Settings, Option<Duration>)),
    Word(Words),
    Addresses(fn(&mut Settings, Vec<Endpoint>)),
    /// One address, a Unix socket included; empty: none.
    Address(fn(&mut Settings, Option<Endpoint>)),
    Map(fn(&mut Settings, AddressMap)),
}

/// The words of an option, each with what it writes.
type Words = &'static [(&'static str, fn(&mut Settings))];

/// One row.
pub(super) struct Opt {
    pub(super) key: &'static str,
    pub(super) default: &'static str,
    pub(super) kind: OptionKind,
    pub(super) text: &'static str,
    pub(super) since: &'static str,
    /// Whether it can be changed while the sentinel handle is open.
    pub(super) dynamic: bool,
    /// Whether a client may have its own value.
    pub(super) per_client: bool,
}

const fn opt(key: &'static str, default: &'static str, kind: OptionKind, text: &'static str) -> Opt {
    Opt { key, default, kind, text, since: "0.1.0", dynamic: false, per_client: false }
}

impl Opt {
    const fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    const fn per_client(mut self) -> Self {
        self.per_client = true;
        self
    }
}

/// In milliseconds, as all ranges of durations.
const DAY: u64 = 86_400_000;
const TEN_MINUTES: u64 = 600_000;

/// Every option, grouped by prefix.
pub(super) static OPTIONS: &[Opt] = &[
    opt(
        "uri",
        "",
        Uri,
        "All in one: `redis-sentinel://user:password@host1:26379,host2,[::1]:26380/service?key=value`, or without \
         Sentinels `redis://user:password@host:6379/db?key=value` (`primary.addr`). User and password are those of the data \
         nodes; each key of the query is an option of this page. A URI of one kind replaces the addresses of the other. \
         `rediss-sentinel://` and `rediss://`: the same with TLS (`tls`, and `sentinel.tls` for the Sentinels).",
    ),
    opt("service", "", Name(|s, v| s.service = v, false), "The service of clients that are made without naming one."),
    opt("db", "0", Integer(0, 2_147_483_647, |s, v| s.client.db = small(v)), "The database of every connection.")
        .dynamic()
        .per_client(),
    opt(
        "protocol",
        "auto",
        Word(&[
            ("auto", |s| s.client.protocol = Protocol::Auto),
            ("2", |s| s.client.protocol = Protocol::Resp2),
            ("3", |s| s.client.protocol = Protocol::Resp3),
        ]),
        "RESP version. `auto`: 3 where the server knows it, else 2; all connections to one node speak the same.",
    ),
    opt(
        "monitor",
        "on",
        Word(&[
            ("on", |s| s.sentinel.monitor.mode = MonitorMode::On),
            ("off", |s| s.sentinel.monitor.mode = MonitorMode::Off),
            ("disconnect", |s| s.sentinel.monitor.mode = MonitorMode::Disconnect),
        ]),
        "Whether the Sentinels are watched. `on`: their events are subscribed to, and they are polled; \
         `disconnect`: they are polled, and no connection to them is kept between polls; `off`: they are asked \
         when something fails. Without their events nothing holds writes back in time: with `disconnect` and `off` \
         acknowledged writes can be lost in a planned failover, and `write.replicas` may be `all` only.",
    ),
    opt(
        "fork",
        "error",
        Word(&[
            ("error", |s| s.client.fork = ForkMode::Error),
            ("reopen", |s| s.client.fork = ForkMode::Reopen),
        ]),
        "What a handle that was made before fork() does in the child. `error`: every call gives VIGIE_ERR_FORKED. `reopen`: at its first \
         use there it is made anew, with threads and connections of the child; for the Sentinels and for clients, but not for sessions, \
         queues and what else belongs to a conversation. docs/fork.md has what the child keeps.",
    )
    .per_client(),
    opt(
        "tls",
        "off",
        Word(&[("on", |s| s.client.tls.on = true), ("off", |s| s.client.tls.on = false)]),
        "Whether connections to the data nodes are encrypted. Never over a Unix socket. The Sentinels have `sentinel.tls`; \
         a URI that begins with `rediss-sentinel://` sets both.",
    ),
    opt(
        "sentinel.addrs",
        "",
        Sentinels(|s, v| s.sentinel.addrs = v),
        "The Sentinels, with commas between: `host`, `host:port`, `[ipv6]:port` (port 26379 if none is \
         given), or `redis://[user][:password]@host:port`, whose user and password become \
         `sentinel.username` and `sentinel.password` for all of them. An address given twice counts once.",
    ),
    opt("sentinel.username", "", Text(|s, v| s.sentinel.auth.username = v), "ACL user at the Sentinels.").dynamic(),
    opt(
        "sentinel.password",
        "",
        OptionKind::Secret(|s, v| s.sentinel.auth.password = v),
        "Password of the Sentinels. They are never sent that of the data nodes.",
    )
    .dynamic(),
    opt(
        "sentinel.min_others",
        "0",
        Integer(0, 1000, |s, v| s.sentinel.min_others = small(v)),
        "How many other Sentinels one must know for its answers to count.",
    ),
    opt(
        "sentinel.max_peers",
        "64",
        Integer(0, 1024, |s, v| s.sentinel.max_peers = size(v)),
        "How many Sentinels are learned at most from the ones given; 0: none.",
    ),
    opt(
        "sentinel.tls",
        "off",
        Word(&[("on", |s| s.sentinel.tls.on = true), ("off", |s| s.sentinel.tls.on = false)]),
        "Whether connections to the Sentinels are encrypted. The data nodes have `tls`. Entries of `sentinel.addrs` that begin with \
         `rediss://` set it, too.",
    ),
    opt(
        "sentinel.tls.ca",
        "",
        Text(|s, v| s.sentinel.tls.ca = v),
        "File with the certificates (PEM) of those who may sign a server's certificate. Empty: those of `tls.ca`; \
         `system`: those of the system.",
    ),
    opt(
        "sentinel.tls.cert",
        "",
        Text(|s, v| s.sentinel.tls.cert = v),
        "File with the certificate (PEM) that is shown to a Sentinel that asks for one. Needs `sentinel.tls.key`. Empty: `tls.cert` \
         with `tls.key`.",
    ),
    opt(
        "sentinel.tls.key",
        "",
        Text(|s, v| s.sentinel.tls.key = v),
        "File with the key (PEM) of `sentinel.tls.cert`.",
    ),
    opt(
        "sentinel.tls.key_password",
        "",
        OptionKind::Secret(|s, v| s.sentinel.tls.key_password = v),
        "Password of `sentinel.tls.key`, if the key is encrypted (PKCS#8, PBES2, as openssl writes it).",
    ),
    opt(
        "sentinel.tls.server_name",
        "",
        Name(|s, v| s.sentinel.tls.server_name = v, true),
        "The name that a Sentinel's certificate must be for, and that is sent to it (SNI). Empty: the host that is connected to.",
    ),
    opt(
        "sentinel.tls.min_version",
        "1.2",
        Word(&[
            ("1.2", |s| s.sentinel.tls.min_version = TlsVersion::Tls12),
            ("1.3", |s| s.sentinel.tls.min_version = TlsVersion::Tls13),
        ]),
        "The oldest version of TLS that is spoken.",
    ),
    opt(
        "sentinel.tls.verify",
        "full",
        Word(&[
            ("full", |s| s.sentinel.tls.verify = TlsVerify::Full),
            ("ca", |s| s.sentinel.tls.verify = TlsVerify::Ca),
            ("none", |s| s.sentinel.tls.verify = TlsVerify::None),
        ]),
        "What is checked of a Sentinel's certificate, as in `tls.verify`.",
    ),
    opt(
        "primary.addr",
        "",
        Address(|s, v| s.fixed.primary = v),
        "The primary, where there are no Sentinels: `host`, `host:port`, `[ipv6]:port` (port 6379 if none is given), or \
         `unix:/path`. It stands in place of `sentinel.addrs`, and `redis://host:port/db` sets it. It is asked for its role as \
         everywhere, and no other primary is looked for: when it is dead or demoted, calls wait for it within their timeouts. \
         Every service name leads to it, and none is needed. Options about Sentinels, failovers and majorities (`sentinel.*`, \
         `monitor`, `failover.*`, `timeout.sentinel`, `write.majority_ms`) may be set and have no effect, so that one program runs \
         with and without Sentinels.",
    ),
    opt(
        "auth.username",
        "",
        Text(|s, v| s.client.auth.username = v),
        "ACL user at the data nodes; needs `auth.password`.",
    )
    .dynamic(),
    opt(
        "auth.password",
        "",
        OptionKind::Secret(|s, v| s.client.auth.password = v),
        "Password at the data nodes, primary and replicas.",
    )
    .dynamic(),
    opt(
        "tls.ca",
        "",
        Text(|s, v| s.client.tls.ca = v),
        "File with the certificates (PEM) of those who may sign a server's certificate. Empty or `system`: those of the system, from \
         the usual places.",
    ),
    opt(
        "tls.cert",
        "",
        Text(|s, v| s.client.tls.cert = v),
        "File with the certificate (PEM) that is shown to a server that asks for one, and the certificates between it and its \
         CA behind it. Needs `tls.key`.",
    ),
    opt(
        "tls.key",
        "",
        Text(|s, v| s.client.tls.key = v),
        "File with the key (PEM) of `tls.cert`.",
    ),
    opt(
        "tls.key_password",
        "",
        OptionKind::Secret(|s, v| s.client.tls.key_password = v),
        "Password of `tls.key`, if the key is encrypted (PKCS#8, PBES2, as openssl writes it).",
    ),
    opt(
        "tls.server_name",
        "",
        Name(|s, v| s.client.tls.server_name = v, true),
        "The name that a server's certificate must be for, and that is sent to it (SNI). Empty: the host that is connected to, a name or \
         an address.",
    ),
    opt(
        "tls.min_version",
        "1.2",
        Word(&[
            ("1.2", |s| s.client.tls.min_version = TlsVersion::Tls12),
            ("1.3", |s| s.client.tls.min_version = TlsVersion::Tls13),
        ]),
        "The oldest version of TLS that is spoken.",
    ),
    opt(
        "tls.verify",
        "full",
        Word(&[
            ("full", |s| s.client.tls.verify = TlsVerify::Full),
            ("ca", |s| s.client.tls.verify = TlsVerify::Ca),
            ("none", |s| s.client.tls.verify = TlsVerify::None),
        ]),
        "What is checked of a server's certificate. `full`: its signers, its dates and its names; `ca`: not the names; `none`: \
         nothing, so that anybody between here and the server can read and change everything.",
    ),
    opt(
        "client.name",
        "",
        Name(|s, v| s.client.client_name = v, true),
        "The name of every connection in CLIENT LIST; printable ASCII without blanks.",
    ),
    opt("client.no_evict", "false", Bool(|s, v| s.client.no_evict = v), "Sends CLIENT NO-EVICT on."),
    opt("client.no_touch", "false", Bool(|s, v| s.client.no_touch = v), "Sends CLIENT NO-TOUCH on."),
    opt(
        "timeout.call",
        "5000",
        OptionKind::Duration(1, DAY, |s, v| s.client.timeout_call = v),
        "The timeout of a call that gives none: waiting, connecting, discovery, sending, retrying and reading \
         together. A call without a limit is given `VIGIE_TIMEOUT_NONE`.",
    )
    .per_client(),
    opt(
        "timeout.connect",
        "1000",
        OptionKind::Duration(1, TEN_MINUTES, |s, v| s.client.timeout_connect = v),
        "How long one connection may take, including its handshake.",
    )
    .per_client(),
    opt(
        "timeout.sentinel",
        "500",
        OptionKind::Duration(1, TEN_MINUTES, |s, v| s.sentinel.timeout = v),
        "How long one Sentinel may take to connect and answer. All are asked at the same time.",
    ),
    opt(
        "tcp.keepalive_idle",
        "15000",
        Seconds(1000, 32_767_000, |s, v| s.client.tcp.keepalive_idle = v),
        "Silence before the first keepalive probe, in whole seconds.",
    ),
    opt(
        "tcp.keepalive_interval",
        "5000",
        Seconds(1000, 32_767_000, |s, v| s.client.tcp.keepalive_interval = v),
        "Time between keepalive probes, in whole seconds.",
    ),
    opt(
        "tcp.keepalive_count",
        "3",
        Integer(1, 127, |s, v| s.client.tcp.keepalive_count = small(v)),
        "Unanswered probes after which a connection is given up.",
    ),
    opt(
        "tcp.user_timeout",
        "30000",
        DurationOrOff(1, DAY, |s, v| s.client.tcp.user_timeout = v.unwrap_or_default()),
        "How long sent bytes may stay unacknowledged before a connection is given up; `off`: the system's \
         own limit.",
    ),
    opt(
        "pool.min",
        "0",
        Integer(0, 10_000, |s, v| s.client.pool.min = size(v)),
        "Connections to a node that are kept open and warm.",
    )
    .per_client(),
    opt(
        "pool.max",
        "16",
        Integer(2, 10_000, |s, v| s.client.pool.max = size(v)),
        "Most connections of one client to one node, shared ones (lanes) and loans together.",
    )
    .per_client(),
    opt(
        "pool.idle",
        "300000",
        DurationOrOff(1, DAY, |s, v| s.client.pool.idle = v),
        "When an unused connection above `pool.min` is closed; `off`: never.",
    )
    .per_client(),
    opt(
        "pool.lifetime",
        "off",
        DurationOrOff(1, 30 * DAY, |s, v| s.client.pool.lifetime = v),
        "The age at which a connection is replaced, even if it works; `off`: never.",
    )
    .per_client(),
    opt(
        "pool.wait",
        "off",
        DurationOrOff(0, DAY, |s, v| s.client.pool.wait = v),
        "How long a call waits for a connection of its own; 0: not at all (POOL_BUSY); `off`: until its \
         deadline.",
    )
    .per_client(),
    opt(
        "pool.eager",
        "false",
        Bool(|s, v| s.client.pool.eager = v),
        "Whether making a client connects at once, and fails if the primary cannot be reached; else the \
         first call connects.",
    )
    .per_client(),
    opt(
        "lane.max",
        "4",
        Integer(1, 1000, |s, v| s.client.lane.wanted = Some(size(v))),
        "Most shared connections to one node. Must be below `pool.max`; left at its default it is reduced to fit a \
         small one.",
    )
    .per_client(),
    opt(
        "lane.share_at",
        "3.25",
        Float(1.0, 10_000.0, |s, v| s.client.lane.share_at = v),
        "Mean number of calls in flight from which on all calls share one connection; with fewer each thread uses \
         one of its own, if there are enough.",
    )
    .per_client(),
    opt(
        "lane.hold_calls",
        "3",
        Integer(0, 100_000, |s, v| s.client.lane.hold_calls = small(v)),
        "How many calls must be in flight on a shared connection before sending may be delayed, so that several \
         calls go out in one send.",
    )
    .per_client(),
    opt(
        "lane.hold_rtt_us",
        "150",
        Integer(0, 1_000_000, |s, v| s.client.lane.hold_rtt = Duration::from_micros(v)),
        "Round trip, in microseconds, up to which sending may be delayed; with many calls in flight up to 4 microseconds for each \
         of them (24 with TLS). 0: never.",
    )
    .per_client(),
    opt(
        "lane.spin_us",
        "0",
        Integer(0, 10_000, |s, v| s.client.lane.spin = Duration::from_micros(v)),
        "How long, in microseconds, a caller looks for its reply without sleeping; 0: not at all. Only while the \
         client has no other call in flight and there is more than one processor; after a wait in vain the next 63 \
         calls sleep. A single thread gets its replies sooner, at the cost of a busy processor.",
    )
    .per_client(),
    opt(
        "lane.silent",
        "1000",
        OptionKind::Duration(10, TEN_MINUTES, |s, v| s.client.lane.silent = v),
        "A shared connection with replies due counts as dead after this silence, or after twice the call's timeout \
         if that is longer.",
    )
    .per_client(),
    opt(
        "submit.max_bytes",
        "67108864",
        Integer(1024, 1 << 40, |s, v| s.client.submit_bytes = size(v)),
        "Bytes of submitted calls that are not over, and of replies that are not drained, which a queue may hold before \
         this client's submits are refused with QUEUE_FULL.",
    )
    .per_client(),
    opt(
        "sub.max_messages",
        "65536",
        Integer(1, 1 << 30, |s, v| s.client.sub.max_messages = size(v)),
        "Messages that a subscription holds until they are drained. They take nothing of the capacity of the queue.",
    )
    .per_client(),
    opt(
        "sub.max_bytes",
        "67108864",
        Integer(1024, 1 << 40, |s, v| s.client.sub.max_bytes = size(v)),
        "The bytes of memory that these messages may take, about. One message is always held, whatever its size.",
    )
    .per_client(),
    opt(
        "sub.overflow",
        "drop-oldest",
        Word(&[
            ("drop-oldest", |s| s.client.sub.overflow = Overflow::DropOldest),
            ("disconnect", |s| s.client.sub.overflow = Overflow::Disconnect),
        ]),
        "What happens when a subscription holds as much as it may. `drop-oldest`: the oldest message makes room for a new \
         one; `disconnect`: the connection is closed, what is held stays, and when half of it is drained the subscription is \
         made anew, with SUB_GAP. Both: DROPPED has the number of messages that were received and lost.",
    )
    .per_client(),
    opt(
        "sub.ping",
        "2000",
        OptionKind::Duration(20, TEN_MINUTES, |s, v| s.client.sub.ping = v),
        "The silence after which the server of a subscription is sent a PING. Without an answer within the same time the \
         connection is given up, and made anew.",
    )
    .per_client(),
    opt(
        "retry.max",
        "0",
        Integer(0, 1_000_000, |s, v| s.client.retry.max = small(v)),
        "How often a command is repeated at most; 0: as often as its deadline allows. Only what is safe to \
         repeat is repeated.",
    )
    .per_client(),
    opt(
        "retry.backoff_min",
        "10",
        OptionKind::Duration(1, TEN_MINUTES, |s, v| s.client.retry.backoff_min = v),
        "The first pause between two attempts.",
    )
    .per_client(),
    opt(
        "retry.backoff_max",
        "500",
        OptionKind::Duration(1, TEN_MINUTES, |s, v| s.client.retry.backoff_max = v),
        "The longest pause between two attempts.",
    )
    .per_client(),
    opt(
        "retry.noreplicas",
        "false",
        Bool(|s, v| s.client.retry.noreplicas = v),
        "Whether a command that the server refused with NOREPLICAS is repeated.",
    )
    .per_client(),
    opt(
        "retry.misconf",
        "false",
        Bool(|s, v| s.client.retry.misconf = v),
        "Whether a command that the server refused with MISCONF is repeated.",
    )
    .per_client(),
    opt(
        "monitor.interval",
        "5000",
        OptionKind::Duration(100, DAY, |s, v| s.sentinel.monitor.interval = v),
        "How often the Sentinels are polled, in milliseconds, plus or minus a tenth. This finds what their events \
         have missed.",
    ),
    opt(
        "failover.fence",
        "on",
        Word(&[("on", |s| s.sentinel.failover.fence = true), ("off", |s| s.sentinel.failover.fence = false)]),
        "Whether writes are held back, within their own timeouts, from the first sign of a failover until the \
         switch. The Sentinels' events trigger it, so it needs `monitor` on. Off, or without `monitor` on: writes \
         acknowledged by a primary that is being replaced can be lost.",
    ),
    opt(
        "failover.fence_max",
        "10000",
        OptionKind::Duration(100, TEN_MINUTES, |s, v| s.sentinel.failover.fence_max = v),
        "The longest time for which writes are held back.",
    ),
    opt(
        "failover.probe",
        "auto",
        Word(&[
            ("auto", |s| s.sentinel.failover.probe = ProbePolicy::Auto),
            ("eager", |s| s.sentinel.failover.probe = ProbePolicy::Eager),
            ("off", |s| s.sentinel.failover.probe = ProbePolicy::Off),
        ]),
        "When the replica chosen for promotion is believed to be the primary. `auto`: at once when the old primary \
         is dead, else when the leading Sentinel is committed to it; `eager`: at once, which saves about a second in \
         a planned failover; `off`: only switches that the Sentinels announce. Where it is believed at once, it is \
         believed about a second before its leader is committed: the writes of that second are lost if the leader dies \
         within it and another replica is promoted.",
    ),
    opt(
        "write.replicas",
        "0",
        CountOrAll(255, |s, v| s.client.write.replicas = v),
        "How many replicas must have a write (every command that does not only read is one, CLIENT PAUSE too) before it counts as done, or `all`: every one that the Sentinels \
         list; in a session too, in a transaction behind EXEC. Fewer in time: REPLICAS with their number. A number needs `failover.fence` and `monitor` on.",
    )
    .per_client(),
    opt(
        "write.aof",
        "off",
        Word(&[("on", |s| s.client.write.aof = true), ("off", |s| s.client.write.aof = false)]),
        "Whether a write counts as done only when it is on the disk of the primary, and on those of as many replicas as \
         `write.replicas` or VIGIE_CALL_REPLICAS(n) asks for (WAITAOF). Not in time: REPLICAS, though it has run. Needs Redis 7.2 or Valkey, and \
         `appendonly yes` on each of these nodes. With `appendfsync everysec` a write may take up to 2 s: `timeout.call` must leave that time.",
    )
    .per_client(),
    opt(
        "write.majority_ms",
        "off",
        DurationOrOff(200, DAY, |s, v| s.client.write.majority = v),
        "Writes are refused when no majority of the Sentinels has named the primary for this long. At least twice \
         `monitor.interval`.",
    )
    .per_client(),
    opt(
        "script.cache",
        "on",
        Word(&[("on", |s| s.client.script_cache = true), ("off", |s| s.client.script_cache = false)]),
        "Whether the scripts of EVAL and SCRIPT LOAD are kept (512 of them, 4 MiB). An EVAL of a script that was seen before \
         goes out as EVALSHA, and a server that does not know the script of an EVALSHA, after a failover or SCRIPT FLUSH, \
         gets it as EVAL: docs/scripts.md says where.",
    )
    .per_client(),
    opt(
        "shard.hash",
        "crc32",
        Word(&[
            ("crc32", |s| s.client.shard.hash = ShardHash::Crc32),
            ("crc16", |s| s.client.shard.hash = ShardHash::Crc16),
            ("rendezvous", |s| s.client.shard.hash = ShardHash::Rendezvous),
        ]),
        "On a client of vigie_shards_for(): which shard a key is on. `crc32`: CRC-32 modulo the number of shards, as rediscluster          does it. `crc16`: by the slots of Redis Cluster, shared evenly in the order of the shards. `rendezvous`: highest random          weight by the names of the shards, so that one more of them moves as few keys as can be.",
    )
    .per_client(),
    opt(
        "shard.tags",
        "auto",
        Word(&[
            ("auto", |s| s.client.shard.tags = None),
            ("rediscluster", |s| s.client.shard.tags = Some(ShardTags::Rediscluster)),
            ("cluster", |s| s.client.shard.tags = Some(ShardTags::Cluster)),
            ("none", |s| s.client.shard.tags = Some(ShardTags::None)),
        ]),
        "Which part of a key says on which shard it is. `rediscluster`: of `real{hash}` what is in the braces, and the key is stored          as `real`; other keys with braces are refused. `cluster`: what is between the first braces, as in Redis Cluster, and the          key is stored as it is. `none`: the whole key. `auto`: `rediscluster` with `shard.hash` crc32, else `cluster`.",
    )
    .per_client(),
    opt(
        "shard.primaries_only",
        "off",
        Word(&[("on", |s| s.client.shard.primaries_only = true), ("off", |s| s.client.shard.primaries_only = false)]),
        "Whether reads of a client of vigie_shards_for() go to the primaries, too. Off: to fit replicas, as those of          vigie_split_for().",
    )
    .per_client(),
    opt(
        "shard.default_node",
        "",
        Text(|s, v| s.client.shard.default_node = v.unwrap_or_default()),
        "The shard (`node_1`) of commands that have no key and are not for all shards. Without one they are refused.",
    )
    .per_client(),
    opt(
        "shard.degraded",
        "off",
        Word(&[("on", |s| s.client.shard.degraded = true), ("off", |s| s.client.shard.degraded = false)]),
        "Whether vigie_shards_for() opens the handle though a shard is down. `off`: each primary is asked with a PING, all at the same \
         time and within `timeout.call`, and one that does not answer, or is no primary, is the error. `on`: nothing is asked.",
    )
    .per_client(),
    opt(
        "replica.addrs",
        "",
        Addresses(|s, v| s.fixed.replicas = v),
        "The replicas of `primary.addr`, with commas between: `host:port`. A replica is read from while it follows that \
         primary by its own word, as where Sentinels list it.",
    ),
    opt(
        "replica.pick",
        "round-robin",
        Word(&[
            ("round-robin", |s| s.client.replica.pick = Pick::RoundRobin),
            ("random", |s| s.client.replica.pick = Pick::Random),
            ("latency", |s| s.client.replica.pick = Pick::Latency),
            ("preferred", |s| s.client.replica.pick = Pick::Preferred),
        ]),
        "How a replica is chosen among the fit ones. `latency`: the one that answers fastest; `preferred`: \
         those of `replica.preferred` first.",
    )
    .per_client(),
    opt(
        "replica.fallback",
        "primary",
        Word(&[
            ("primary", |s| s.client.replica.fallback = Fallback::Primary),
            ("error", |s| s.client.replica.fallback = Fallback::Error),
        ]),
        "What a read does when no replica is fit: use the primary, or fail with NO_REPLICA.",
    )
    .per_client(),
    opt(
        "replica.preferred",
        "",
        Addresses(|s, v| s.client.replica.preferred = v),
        "Replicas to use first, best first, as Sentinels announce them: `host:port`, with commas between. \
         Used by `replica.pick` = `preferred`.",
    )
    .per_client(),
    opt(
        "replica.max_lag",
        "off",
        IntegerOrOff(0, 1 << 50, |s, v| s.client.replica.max_lag = v),
        "How many bytes of the replication stream a replica may be behind its primary and still be read from; one \
         behind by more, or not connected to the primary, is skipped. Measured about once a second by ROLE on the \
         primary; while the primary is down or being replaced, the last measurement counts. After a failover, replicas that still follow the old primary are read from for up to 10 s, \
         until the Sentinels have turned them to the new one: reads have been seen 3 s behind what the new primary had acknowledged, \
         and 5 s with three replicas and `parallel-syncs` 1. What must not be behind is read from the primary.",
    )
    .per_client(),
    opt(
        "reply.max_bytes",
        "536936448",
        Integer(1024, 1 << 40, |s, v| s.client.limits.max_bytes = size(v)),
        "Most bytes of text in one reply.",
    ),
    opt(
        "reply.max_depth",
        "128",
        Integer(1, 4096, |s, v| s.client.limits.max_depth = size(v)),
        "Most aggregates inside one another in one reply.",
    ),
    opt(
        "reply.max_nodes",
        "16777216",
        Integer(1, 4_294_967_295, |s, v| s.client.limits.max_nodes = size(v)),
        "Most values in one reply, aggregates included.",
    ),
    opt(
        "address.map",
        "",
        Map(|s, v| s.client.address_map = v),
        "From the addresses that Sentinels announce to those that can be reached from here (NAT, \
         containers): `from=to`, with commas between. `10.0.0.1:6379=127.0.0.1:7000` maps one address, \
         `10.0.0.2=host2` a host with all its ports, `10.0.0.3:6379=unix:/run/redis.sock` leads to a Unix \
         socket. An exact address counts before a host.",
    )
    .dynamic(),
    opt(
        "log.level",
        "off",
        Word(&[
            ("off", |s| s.log.level = LogLevel::Off),
            ("error", |s| s.log.level = LogLevel::Error),
            ("warning", |s| s.log.level = LogLevel::Warning),
            ("info", |s| s.log.level = LogLevel::Info),
            ("debug", |s| s.log.level = LogLevel::Debug),
        ]),
        "Which lines the log has, each level with those before it. `error`: nothing works until somebody acts; `warning`: \
         failovers, and what is lost; `info`: all that is told of the deployment; `debug`: connections, one by one. They go to `log.fd` \
         and to queues that watch VIGIE_EVENT_LOG. [docs/logs.md](docs/logs.md) lists them.",
    )
    .dynamic(),
    opt(
        "log.fd",
        "off",
        IntegerOrOff(0, 2_147_483_647, |s, v| s.log.fd = v.and_then(|fd| i32::try_from(fd).ok())),
        "A descriptor of the program that lines of the log are written to, such as 2 (stderr), a file, a pipe or a socket. The \
         library keeps a duplicate of it, so that lines go nowhere else when the program closes its number; it changes no flags. Nothing \
         is written after `vigie_sentinel_close()`, or after this option was set again, also to the same number. Lines that nobody reads in time are dropped and counted; nothing waits for them.",
    )
    .dynamic(),
    opt(
        "log.format",
        "text",
        Word(&[("text", |s| s.log.format = LogFormat::Text), ("json", |s| s.log.format = LogFormat::Json)]),
        "How a line is written to `log.fd`. `text`: `key=value` with blanks between, a value that is not a plain word in double quotes as in \
         JSON; `json`: one object.",
    )
    .dynamic(),
];

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Added to the error of a `timeout.call` without a limit.
const NO_LIMIT: &str = "; for a call without a limit give VIGIE_TIMEOUT_NONE as its timeout_ms";

/// Names that other clients use for an option, where the spelling would not lead to it.
const MEANT: [(&str, &str); 12] = [
    ("pool.size", "pool.max"),
    ("max.connections", "pool.max"),
    ("timeout.command", "timeout.call"),
    ("sentinel", "sentinel.addrs"),
    ("sentinels", "sentinel.addrs"),
    ("hosts", "sentinel.addrs"),
    ("replicas", "replica.addrs"),
    ("master", "service"),
    ("master.name", "service"),
    ("primary", "service"),
    ("database", "db"),
    ("timeout", "timeout.call"),
];

/// The row of a key, or an error that names the nearest one.
pub(super) fn find(key: &str) -> Result<&'static Opt> {
    if let Some(option) = OPTIONS.iter().find(|option| option.key == key) {
        return Ok(option);
    }
    let meant = MEANT.iter().find(|(other, _)| other.eq_ignore_ascii_case(&key.replace(['_', '-'], ".")));
    let near = || nearest(key, OPTIONS.iter().map(|option| option.key));
    let hint = match meant.map(|(_, known)| *known).or_else(near) {
        Some(known) => format!("did you mean {known:?}?"),
        None => "CONFIGURATION.md lists those that exist".to_owned(),
    };
    Err(Error::new(Status::Config, format!("unknown option {}: {hint}", shown(key))))
}

impl Opt {
    /// Reads the text and writes it to its place. A secret is never quoted.
    pub(super) fn put(&self, settings: &mut Settings, text: &str) -> Result<()> {
        let done = match &self.kind {
            OptionKind::Uri => Err("it can only be taken apart by a configuration".to_owned()),
            OptionKind::Sentinels(set) => {
                return list::sentinels(text).map(|list| set(settings, list.addrs)).map_err(|f| f.named(self.key));
            }
            OptionKind::Addresses(set) => {
                return list::addresses(text, DATA_PORT).map(|v| set(settings, v)).map_err(|f| f.named(self.key));
            }
            OptionKind::Address(set) => {
                return list::address(text, DATA_PORT).map(|v| set(settings, v)).map_err(|f| f.named(self.key));
            }
            OptionKind::Map(set) => return list::map(text).map(|v| set(settings, v)).map_err(|f| f.named(self.key)),
            OptionKind::Text(set) => {
                set(settings, some(text));
                Ok(())
            }
            OptionKind::Secret(set) => {
                set(settings, some(text).map(Secret::new));
                Ok(())
            }
            OptionKind::Name(set, ascii) => name(text, *ascii).map(|v| set(settings, v)),
            OptionKind::Bool(set) => value::switch(text).map(|v| set(settings, v)),
            OptionKind::Integer(min, max, set) => value::integer(text, *min, *max).map(|v| set(settings, v)),
            OptionKind::IntegerOrOff(_, _, set) if text == "off" => {
                set(settings, None);
                Ok(())
            }
            OptionKind::IntegerOrOff(min, max, set) => value::integer(text, *min, *max).map(|v| set(settings, Some(v))),
            OptionKind::CountOrAll(_, set) if text == "all" => {
                set(settings, Replicas::All);
                Ok(())
            }
            OptionKind::CountOrAll(max, set) => {
                let number = value::integer(text, 0, *max).map_err(|what| what + ", or all");
                number.map(|v| match small(v) {
                    0 => set(settings, Replicas::None),
                    n => set(settings, Replicas::AtLeast(n)),
                })
            }
            OptionKind::Float(min, max, set) => value::float(text, *min, *max).map(|v| set(settings, v)),
            OptionKind::Duration(min, max, set) => {
                let done = value::duration(text, *min, *max).map(|v| set(settings, v));
                done.map_err(|what| if self.key == "timeout.call" { what + NO_LIMIT } else { what })
            }
            OptionKind::Seconds(min, max, set) => seconds(text, *min, *max).map(|v| set(settings, v)),
            OptionKind::DurationOrOff(_, _, set) if text == "off" => {
                set(settings, None);
                Ok(())
            }
            OptionKind::DurationOrOff(min, max, set) => {
                value::duration(text, *min, *max).map(|v| set(settings, Some(v)))
            }
            OptionKind::Word(words) => word(text, words).map(|set| set(settings)),
        };
        done.map_err(|what| Error::new(Status::Config, format!("option {:?}: {what}", self.key)))
    }

    /// The type, as the description gives it.
    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            OptionKind::Uri => "uri",
            OptionKind::Sentinels(_) | OptionKind::Addresses(_) => "addresses",
            OptionKind::Address(_) => "address",
            OptionKind::Text(_) | OptionKind::Name(..) => "text",
            OptionKind::Secret(_) => "secret",
            OptionKind::Bool(_) => "bool",
            OptionKind::Integer(..) => "integer",
            OptionKind::Float(..) => "number",
            OptionKind::Duration(..) | OptionKind::Seconds(..) | OptionKind::DurationOrOff(..) => "duration",
            OptionKind::CountOrAll(..) | OptionKind::IntegerOrOff(..) => "integer",
            OptionKind::Word(_) => "word",
            OptionKind::Map(_) => "map",
        }
    }

    /// The range, as the description gives it; empty where the text says everything.
    pub(super) fn range(&self) -> String {
        match &self.kind {
            OptionKind::Bool(_) => "true, false".to_owned(),
            OptionKind::Integer(min, max, _) => format!("{min} to {max}"),
            OptionKind::IntegerOrOff(min, max, _) => format!("{min} to {max}, off"),
            OptionKind::CountOrAll(max, _) => format!("0 to {max}, all"),
            OptionKind::Float(min, max, _) => format!("{min} to {max}"),
            OptionKind::Duration(min, max, _) => format!("{min} to {max} ms"),
            OptionKind::Seconds(min, max, _) => format!("{min} to {max} ms, whole seconds"),
            OptionKind::DurationOrOff(min, max, _) => format!("{min} to {max} ms, off"),
            OptionKind::Word(words) => words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "),
            OptionKind::Uri | OptionKind::Sentinels(_) | OptionKind::Addresses(_) | OptionKind::Map(_) => String::new(),
            OptionKind::Address(_) | OptionKind::Text(_) | OptionKind::Name(..) | OptionKind::Secret(_) => {
                String::new()
            }
        }
    }

    /// Whether its value must not be shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.kind, OptionKind::Secret(_))
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn name(text: &str, ascii: bool) -> std::result::Result<Option<String>, String> {
    let fits = |c: char| if ascii { c.is_ascii_graphic() } else { !c.is_whitespace() && !c.is_control() };
    if text.chars().all(fits) {
        return Ok(some(text));
    }
    let what = if ascii { "printable ASCII without blanks" } else { "a name without blanks or control characters" };
    Err(format!("{} is not {what}", shown(text)))
}

fn seconds(text: &str, min: u64, max: u64) -> std::result::Result<Duration, String> {
    let duration = value::duration(text, min, max)?;
    if duration.subsec_nanos() != 0 {
        return Err(format!("{} is not a whole number of seconds (1000, 2000, ... or 1s, 2s, ...)", shown(text)));
    }
    Ok(duration)
}

fn word(text: &str, words: Words) -> std::result::Result<fn(&mut Settings), String> {
    let find = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, set)| *set);
    // `on` and `off` among words are a switch, with its other spellings.
    let as_switch = || value::switch(text).ok().and_then(|on| find(if on { "on" } else { "off" }));
    find(text).or_else(as_switch).ok_or_else(|| {
        let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        format!("{} is none of: {known}", shown(text))
    })
}

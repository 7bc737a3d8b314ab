//! The configuration as the other rooms read it: typed, complete, checked.
//!
//! Guarantees: `Default` is what the option table says (a test compares them); what [`super::Config::settings`] gives has passed every
//! check across options; a `Settings` never changes, a change makes a new one. Leaves to others: keys and texts (table).

use std::time::Duration;

use super::endpoint::Endpoint;
use super::map::AddressMap;
use super::secret::{Credentials, Secret};
use super::table;
use crate::error::{Error, Result, Status};
use crate::resp::Limits;

/// The settings of a sentinel handle and its clients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// How to reach and judge the Sentinels.
    pub sentinel: SentinelSettings,
    /// How to reach and use the data nodes, unless a client overrides it.
    pub client: ClientSettings,
    /// The service of clients that name none.
    pub service: Option<String>,
    /// The nodes of a deployment without Sentinels.
    pub fixed: FixedSettings,
    /// What is written to the log, and where.
    pub log: LogSettings,
}

/// What is written to the log, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Lines of this level and of more important ones.
    pub level: LogLevel,
    /// The descriptor that they are written to, beside the queues that watch them.
    pub fd: Option<i32>,
    /// How a line is written to it.
    pub format: LogFormat,
}

/// How important a line of the log is: the more important, the smaller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// No line has this level: nothing is written.
    #[default]
    Off,
    /// What this program cannot do until somebody acts.
    Error,
    /// What changes how calls are served, and what is about to.
    Warning,
    /// What is known of the deployment, step by step.
    Info,
    /// Connections, one by one.
    Debug,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`, with blanks between.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// The nodes of a deployment without Sentinels: either its primary is given, or Sentinels are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FixedSettings {
    /// The primary; `None`: Sentinels name it.
    pub primary: Option<Endpoint>,
    /// Its replicas.
    pub replicas: Vec<Endpoint>,
    /// They are not given: the primary says which are connected to it.
    pub asks_for_replicas: bool,
}

/// The settings for the Sentinels.
#[derive(Debug, Clone, PartialEq)]
pub struct SentinelSettings {
    /// The Sentinels given, each once, at least one unless the primary is fixed.
    pub addrs: Vec<Endpoint>,
    /// The Sentinels' own credentials; those of the data nodes never go there.
    pub auth: Credentials,
    /// Whether and how connections to them are encrypted.
    pub tls: TlsSettings,
    /// How long one Sentinel may take to answer.
    pub timeout: Duration,
    /// How many other Sentinels a Sentinel must know for its answer to count.
    pub min_others: u32,
    /// How many Sentinels may be learned beyond those given.
    pub max_peers: usize,
    /// From announced addresses to reachable ones.
    pub address_map: AddressMap,
    /// The same as for the data nodes.
    pub tcp: TcpSettings,
    /// The same as for the data nodes.
    pub limits: Limits,
    /// The same as for the data nodes.
    pub client_name: Option<String>,
    /// Whether and how the Sentinels are watched.
    pub monitor: MonitorSettings,
    /// What is done about a failover.
    pub failover: FailoverSettings,
}

/// How the Sentinels are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorSettings {
    /// Whether they are.
    pub mode: MonitorMode,
    /// How often they are asked, beside their events.
    pub interval: Duration,
}

/// Whether the Sentinels are watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MonitorMode {
    /// Their events are subscribed to, and they are polled.
    #[default]
    On,
    /// They are asked when something fails.
    Off,
    /// They are polled, and no connection is kept.
    Disconnect,
}

/// What is done about a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailoverSettings {
    /// Whether writes are held back as soon as a Sentinel reports a failover.
    pub fence: bool,
    /// The longest time for which writes are held back.
    pub fence_max: Duration,
    /// When the replica chosen for promotion is taken at its word.
    pub probe: ProbePolicy,
}

/// When the replica chosen for promotion is taken at its word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProbePolicy {
    /// When the old primary is dead; else when the leading Sentinel is committed.
    #[default]
    Auto,
    /// As soon as it says that it is a primary.
    Eager,
    /// Never: only switches that the Sentinels announce.
    Off,
}

/// How many replicas must have a write before it counts as done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteSettings {
    /// How many.
    pub replicas: Replicas,
    /// Whether the primary and these replicas must have the write on disk.
    pub aof: bool,
    /// Writes are refused if no majority of the Sentinels has named the primary for this long.
    pub majority: Option<Duration>,
}

/// How many replicas must have a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replicas {
    /// None has to.
    #[default]
    None,
    /// This many.
    AtLeast(u32),
    /// Every one that the Sentinels list.
    All,
}

/// The settings for the data nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSettings {
    /// The data nodes' credentials.
    pub auth: Credentials,
    /// Whether and how connections to them are encrypted.
    pub tls: TlsSettings,
    /// The database of every connection.
    pub db: u32,
    /// RESP version.
    pub protocol: Protocol,
    /// The name of every connection.
    pub client_name: Option<String>,
    /// Whether `CLIENT NO-EVICT on` is sent.
    pub no_evict: bool,
    /// Whether `CLIENT NO-TOUCH on` is sent.
    pub no_touch: bool,
    /// How long a connection may take, including its handshake.
    pub timeout_connect: Duration,
    /// The budget of a call that gives none.
    pub timeout_call: Duration,
    /// Socket options.
    pub tcp: TcpSettings,
    /// Connections to one node.
    pub pool: PoolSettings,
    /// Shared connections.
    pub lane: LaneSettings,
    /// Bytes of submitted calls and undrained replies that a queue may hold.
    pub submit_bytes: usize,
    /// What a subscription holds, and when it asks for a sign of life.
    pub sub: SubSettings,
    /// What is tried again, and when.
    pub retry: RetrySettings,
    /// Which replica reads.
    pub replica: ReplicaSettings,
    /// When a write counts as done.
    pub write: WriteSettings,
    /// Whether scripts are sent by their hashes, and by their bodies where a server does not know the hash.
    pub script_cache: bool,
    /// How large a reply may be.
    pub limits: Limits,
    /// From announced addresses to reachable ones.
    pub address_map: AddressMap,
    /// How keys are spread over several shards.
    pub shard: ShardSettings,
    /// What a handle does in a forked child.
    pub fork: ForkMode,
}

/// What a handle does in a forked child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForkMode {
    /// It refuses every call.
    #[default]
    Error,
    /// It works, with threads and connections of the child.
    Reopen,
}

/// How keys are spread over several shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardSettings {
    /// Which shard a key is on.
    pub hash: ShardHash,
    /// Which part of a key counts; `None`: as the hash has it.
    pub tags: Option<ShardTags>,
    /// Reads go to the primaries too.
    pub primaries_only: bool,
    /// The shard of commands without a key; "": they are refused.
    pub default_node: String,
    /// The handle opens though a shard is down.
    pub degraded: bool,
}

/// Which shard a key is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ShardHash {
    /// CRC-32, modulo the number of shards.
    #[default]
    Crc32,
    /// CRC-16, in slots as Redis Cluster has them.
    Crc16,
    /// Highest random weight by the names of the shards.
    Rendezvous,
}

/// Which part of a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardTags {
    /// `real{hash}`: the hash counts, and the key is stored as `real`.
    Rediscluster,
    /// What is between the first braces counts, and the key is stored as it is.
    Cluster,
    /// The whole key counts.
    None,
}

/// Whether and how connections of one kind are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// What the names of its options begin with, for messages.
    pub prefix: &'static str,
    /// Whether they are.
    pub on: bool,
    /// The file with the certificates that are trusted; `None`: those of the system.
    pub ca: Option<String>,
    /// The files with the client's certificate and its key: both or none.
    pub cert: Option<String>,
    /// See [`TlsSettings::cert`].
    pub key: Option<String>,
    /// The password of an encrypted key.
    pub key_password: Option<Secret>,
    /// The name that the certificate must be for, and that is sent as SNI; `None`: the host that is dialled.
    pub server_name: Option<String>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// What is checked of the server's certificate.
    pub verify: TlsVerify,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    Tls12,
    /// 1.3.
    Tls13,
}

/// What is checked of a server's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVerify {
    /// The signature of a trusted CA, the dates and the names.
    #[default]
    Full,
    /// The same without the names.
    Ca,
    /// Nothing.
    None,
}

/// RESP version of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP3 where the server knows it, else RESP2.
    #[default]
    Auto,
    /// Always RESP2.
    Resp2,
    /// RESP3 or an error.
    Resp3,
}

/// Socket options. The kernel counts keepalive in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSettings {
    /// Silence before the first probe.
    pub keepalive_idle: Duration,
    /// Time between probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub keepalive_count: u32,
    /// How long sent data may stay unacknowledged; zero: the system decides.
    pub user_timeout: Duration,
}

/// Connections of a client to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections kept warm.
    pub min: usize,
    /// Lanes and loans together; at least 2.
    pub max: usize,
    /// When an unused connection is closed.
    pub idle: Option<Duration>,
    /// The age at which a connection is replaced.
    pub lifetime: Option<Duration>,
    /// How long to wait for a loan; `None`: until the deadline.
    pub wait: Option<Duration>,
    /// Whether opening a client connects at once.
    pub eager: bool,
}

/// Shared connections of a client to one node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneSettings {
    /// How many lanes there may be: never more than `pool.max` - 1.
    pub max: usize,
    /// What was set; `None` if it was left at its default, which yields to a small `pool.max`.
    pub wanted: Option<usize>,
    /// Calls in flight per lane from which on another lane is opened.
    pub share_at: f64,
    /// How many calls must be in flight before bytes are corked.
    pub hold_calls: u32,
    /// The round trip up to which bytes are corked.
    pub hold_rtt: Duration,
    /// How long a lone caller spins for its reply before it sleeps; zero: not at all.
    pub spin: Duration,
    /// How many batches may be unanswered before bytes are corked. Not an option: it follows from the use of the lane.
    pub hold_batches: usize,
    /// The least silence, with replies due, after which a lane counts as dead.
    pub silent: Duration,
}

/// Subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubSettings {
    /// Messages that one holds until they are drained.
    pub max_messages: usize,
    /// Their bytes.
    pub max_bytes: usize,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// The silence after which its server is asked for a sign of life; also how long that may take.
    pub ping: Duration,
}

/// What happens when a subscription is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest message is dropped for a new one.
    #[default]
    DropOldest,
    /// The connection is closed, and opened again when half of the messages are drained.
    Disconnect,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// Most repetitions; 0: until the deadline.
    pub max: u32,
    /// The first pause.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Whether NOREPLICAS is tried again.
    pub noreplicas: bool,
    /// Whether MISCONF is tried again.
    pub misconf: bool,
}

/// How a replica is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pick {
    /// By turn.
    #[default]
    RoundRobin,
    /// By chance.
    Random,
    /// The one that answers fastest.
    Latency,
    /// The first fit one of `replica.preferred`, then by turn.
    Preferred,
}

/// What happens when no replica is fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// The primary reads.
    #[default]
    Primary,
    /// The call fails.
    Error,
}

/// Reading from replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// How a replica is chosen.
    pub pick: Pick,
    /// What happens when none is fit.
    pub fallback: Fallback,
    /// Addresses as Sentinels announce them, best first.
    pub preferred: Vec<Endpoint>,
    /// How many bytes a replica may be behind; `None`: any number.
    pub max_lag: Option<u64>,
}

impl Default for SentinelSettings {
    fn default() -> Self {
        Self {
            addrs: Vec::new(),
            auth: Credentials::default(),
            tls: TlsSettings::plain("sentinel.tls"),
            timeout: Duration::from_millis(500),
            min_others: 0,
            max_peers: 64,
            address_map: AddressMap::default(),
            tcp: TcpSettings::default(),
            limits: Limits::default(),
            client_name: None,
            monitor: MonitorSettings { mode: MonitorMode::On, interval: Duration::from_secs(5) },
            failover: FailoverSettings { fence: true, fence_max: Duration::from_secs(10), probe: ProbePolicy::Auto },
        }
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            auth: Credentials::default(),
            tls: TlsSettings::plain("tls"),
            db: 0,
            protocol: Protocol::Auto,
            client_name: None,
            no_evict: false,
            no_touch: false,
            timeout_connect: Duration::from_secs(1),
            timeout_call: Duration::from_secs(5),
            tcp: TcpSettings::default(),
            pool: PoolSettings::default(),
            lane: LaneSettings::default(),
            submit_bytes: 64 << 20,
            sub: SubSettings::default(),
            retry: RetrySettings::default(),
            replica: ReplicaSettings::default(),
            write: WriteSettings::default(),
            script_cache: true,
            limits: Limits::default(),
            address_map: AddressMap::default(),
            shard: ShardSettings::default(),
            fork: ForkMode::default(),
        }
    }
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            keepalive_idle: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(5),
            keepalive_count: 3,
            user_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { min: 0, max: 16, idle: Some(Duration::from_secs(300)), lifetime: None, wait: None, eager: false }
    }
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self {
            max: LANES,
            wanted: None,
            share_at: 3.25,
            hold_calls: 3,
            hold_rtt: Duration::from_micros(150),
            hold_batches: 1,
            spin: Duration::ZERO,
            silent: Duration::from_secs(1),
        }
    }
}

impl Default for SubSettings {
    fn default() -> Self {
        Self { max_messages: 65_536, max_bytes: 64 << 20, overflow: Overflow::DropOldest, ping: Duration::from_secs(2) }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max: 0,
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(500),
            noreplicas: false,
            misconf: false,
        }
    }
}

impl TlsSettings {
    /// No TLS.
    fn plain(prefix: &'static str) -> Self {
        Self {
            prefix,
            on: false,
            ca: None,
            cert: None,
            key: None,
            key_password: None,
            server_name: None,
            min_version: TlsVersion::default(),
            verify: TlsVerify::default(),
        }
    }

    /// The option of this name, as messages show it.
    fn name(&self, rest: &str) -> String {
        format!("\"{}.{rest}\"", self.prefix)
    }

    /// An option that has no effect while these connections are not encrypted.
    fn idle_option(&self) -> Option<&'static str> {
        let set = [
            ("ca", self.ca.is_some()),
            ("cert", self.cert.is_some()),
            ("key", self.key.is_some()),
            ("key_password", self.key_password.is_some()),
            ("server_name", self.server_name.is_some()),
            ("min_version", self.min_version != TlsVersion::default()),
            ("verify", self.verify != TlsVerify::default()),
        ];
        set.into_iter().find(|(_, is_set)| *is_set).map(|(name, _)| name)
    }

    /// Checks across the options. `also_for`: they count for other connections as well, which are encrypted.
    fn settle(&self, also_for: bool) -> Result<()> {
        if let (false, false, Some(name)) = (self.on, also_for, self.idle_option()) {
            let (name, switch) = (self.name(name), self.prefix);
            return refuse(format_args!(
                "option {name} is set and \"{switch}\" is off: set \"{switch}\" to on, or leave the option out"
            ));
        }
        let (cert, key) = (self.name("cert"), self.name("key"));
        match (&self.cert, &self.key, &self.key_password) {
            (Some(_), None, _) => refuse(format_args!("option {cert} is set without {key}")),
            (None, Some(_), _) => refuse(format_args!("option {key} is set without {cert}")),
            (None, None, Some(_)) => refuse(format_args!("option {} is set without {key}", self.name("key_password"))),
            _ => Ok(()),
        }
    }

    /// What is left out is as for the data nodes.
    fn fill_from(&mut self, nodes: &Self) {
        if self.ca.is_none() {
            self.ca.clone_from(&nodes.ca);
        }
        if self.cert.is_none() {
            (self.cert, self.key) = (nodes.cert.clone(), nodes.key.clone());
            self.key_password.clone_from(&nodes.key_password);
        }
    }
}

/// The error of a change that an open handle does not take.
pub(super) fn is_fixed(key: &str) -> Error {
    let text = format!("option {key:?} cannot be changed while the sentinel handle is open: make a new handle");
    Error::new(Status::Config, text)
}

/// Lanes when `lane.max` is left at its default.
const LANES: usize = 4;

impl Settings {
    /// The same with one option changed while handles are open; only options marked "at any time" can be.
    pub fn with(&self, key: &str, value: &str) -> Result<Self> {
        let option = table::find(key)?;
        if !option.dynamic {
            return Err(is_fixed(key));
        }
        let mut settings = self.clone();
        option.put(&mut settings, value)?;
        settings.settle()?;
        Ok(settings)
    }

    /// Checks across options, and gives both sides what they share.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.client.settle()?;
        self.sentinel.tcp = self.client.tcp;
        self.sentinel.limits = self.client.limits;
        self.sentinel.client_name.clone_from(&self.client.client_name);
        self.sentinel.address_map.clone_from(&self.client.address_map);
        check_auth(&self.sentinel.auth, "sentinel")?;
        if (self.client.tls.on || self.sentinel.tls.on) && !cfg!(feature = "tls") {
            let text = "TLS is not in this build: options \"tls\" and \"sentinel.tls\" must be off";
            return Err(Error::new(Status::Unsupported, text));
        }
        self.client.tls.settle(self.sentinel.tls.on && self.fixed.primary.is_none())?;
        if self.fixed.primary.is_some() {
            return self.settle_fixed();
        }
        let sentinel = &self.sentinel;
        if !self.fixed.replicas.is_empty() {
            return refuse(
                "option \"replica.addrs\" needs \"primary.addr\": the Sentinels list the replicas of their services",
            );
        }
        if sentinel.addrs.is_empty() {
            return refuse("no Sentinel is given: set \"sentinel.addrs\" or \"uri\"");
        }
        sentinel.tls.settle(false)?;
        let others = sentinel.addrs.len() - 1 + sentinel.max_peers;
        if sentinel.min_others as usize > others {
            return refuse(format_args!(
                "option \"sentinel.min_others\" is {} but no more than {others} others can ever be known \
                 (\"sentinel.addrs\" and \"sentinel.max_peers\")",
                sentinel.min_others
            ));
        }
        self.client.settle_with(sentinel)?;
        if self.sentinel.tls.on {
            self.sentinel.tls.fill_from(&self.client.tls);
        }
        Ok(())
    }

    /// The same for a primary that is given, which nobody watches.
    pub fn without_sentinels(mut self) -> Self {
        self.sentinel =
            SentinelSettings { tcp: self.client.tcp, limits: self.client.limits, ..SentinelSettings::default() };
        self.sentinel.client_name.clone_from(&self.client.client_name);
        self.sentinel.address_map.clone_from(&self.client.address_map);
        self.sentinel.monitor.mode = MonitorMode::Off;
        self.service = None;
        self
    }

    /// Checks what is set for a fixed primary. There is nobody to watch, and the service needs no name.
    fn settle_fixed(&mut self) -> Result<()> {
        let Some(primary) = &self.fixed.primary else { return Ok(()) };
        if !self.sentinel.addrs.is_empty() {
            return refuse(
                "options \"primary.addr\" and \"sentinel.addrs\" are both set: either the primary is given, or the Sentinels that name it",
            );
        }
        if self.fixed.replicas.contains(primary) {
            return refuse(format_args!("option \"replica.addrs\" names the primary ({primary})"));
        }
        self.sentinel.monitor.mode = MonitorMode::Off;
        self.sentinel.tls.on = false;
        self.service.get_or_insert_with(|| primary.to_string());
        self.client.settle_with(&self.sentinel)
    }
}

impl SentinelSettings {
    /// What keeps writes from being held back as soon as a Sentinel reports a failover; `None`: nothing, or there is no Sentinel, and
    /// so no failover.
    pub fn lacks_guard(&self) -> Option<&'static str> {
        if self.addrs.is_empty() {
            return None;
        }
        match (self.failover.fence, self.monitor.mode) {
            (false, _) => Some("\"failover.fence\" on"),
            (true, MonitorMode::Off | MonitorMode::Disconnect) => {
                Some("\"monitor\" on, because the Sentinels' events raise the fence")
            }
            (true, MonitorMode::On) => None,
        }
    }
}

impl ClientSettings {
    /// Checks across options, and fits `lane.max` to `pool.max`.
    pub(super) fn settle(&mut self) -> Result<()> {
        check_auth(&self.auth, "auth")?;
        let (min, max) = (self.pool.min, self.pool.max);
        if min > max {
            return refuse(format_args!("option \"pool.min\" ({min}) is above \"pool.max\" ({max})"));
        }
        let most = max.saturating_sub(1);
        self.lane.max = match self.lane.wanted {
            Some(wanted) if wanted > most => {
                return refuse(format_args!(
                    "option \"lane.max\" ({wanted}) must be below \"pool.max\" ({max}): a place is kept for a loan"
                ));
            }
            Some(wanted) => wanted,
            None => LANES.min(most),
        };
        let RetrySettings { backoff_min, backoff_max, .. } = self.retry;
        if backoff_min > backoff_max {
            let (min, max) = (backoff_min.as_millis(), backoff_max.as_millis());
            return refuse(format_args!("option \"retry.backoff_min\" ({min}) is above \"retry.backoff_max\" ({max})"));
        }
        if self.replica.pick == Pick::Preferred && self.replica.preferred.is_empty() {
            return refuse("option \"replica.pick\" is preferred but \"replica.preferred\" names no address");
        }
        Ok(())
    }

    /// Checks against what is set for the sentinel handle.
    pub fn settle_with(&self, sentinel: &SentinelSettings) -> Result<()> {
        if let (Replicas::AtLeast(_), Some(missing)) = (self.write.replicas, sentinel.lacks_guard()) {
            // Measured: a replica that is not promoted goes on acknowledging writes that are lost (rule 16).
            return refuse(format_args!(
                "option \"write.replicas\" below all needs {missing}: those acknowledged may be lost"
            ));
        }
        // Without Sentinels there is no majority to lose.
        let Some(majority) = self.write.majority.filter(|_| !sentinel.addrs.is_empty()) else { return Ok(()) };
        let least = sentinel.monitor.interval * 2;
        if sentinel.monitor.mode == MonitorMode::Off {
            return refuse("option \"write.majority_ms\" needs \"monitor\" on: otherwise the Sentinels are not asked");
        }
        if majority < least {
            return refuse(format_args!(
                "option \"write.majority_ms\" ({}) must be at least twice \"monitor.interval\" ({})",
                majority.as_millis(),
                sentinel.monitor.interval.as_millis()
            ));
        }
        Ok(())
    }
}

fn check_auth(auth: &Credentials, prefix: &str) -> Result<()> {
    if auth.username.is_some() && auth.password.is_none() {
        return refuse(format_args!(
            "option \"{prefix}.username\" is set without \"{prefix}.password\" (set the password first, clear it last)"
        ));
    }
    Ok(())
}

fn refuse<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::new(Status::Config, what.to_string()))
}

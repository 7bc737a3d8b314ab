//! A deployment: primaries, replicas and Sentinels as real processes, ready when `start` returns.
//!
//! The Sentinels get their ids and each other's addresses in the configuration, so that the tests need not wait for the hello
//! messages that they exchange every two seconds. They start after the replicas are in sync, so that their first look is the final
//! one.

use super::client::Login;
use super::netns::{Host, Network};
use super::node::{Node, Role, Spec, join};
use super::ports::{self, Port};
use super::resp::Value;
use super::server::Feature;
use super::wait::{self, eventually, eventually_some};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

/// The longest wait for anything that Sentinel does by itself; a failover after SIGKILL takes about 2.5 s.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Much more than what all servers of a test run write.
const PLENTY: u64 = 4 << 30;

/// Where the servers keep their files: in memory, if there is plenty. A Sentinel saves its state before it votes, and the disk of a
/// busy machine takes seconds for that.
fn root() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let is_better = std::env::var_os("TMPDIR").is_none() && is_writable(&memory) && room(c"/dev/shm") > PLENTY;
    if is_better { memory } else { std::env::temp_dir() }
}

fn is_writable(dir: &std::path::Path) -> bool {
    let probe = dir.join(format!("vigie-probe-{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
}

/// The free bytes of a file system.
fn room(dir: &std::ffi::CStr) -> u64 {
    // SAFETY: all zeros are a value of this structure.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and the structure lives on this stack frame.
    let is_known = unsafe { libc::statvfs(dir.as_ptr(), &raw mut found) } == 0;
    if is_known { found.f_bavail.saturating_mul(found.f_frsize) } else { 0 }
}

/// Which nodes share a host of the test network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Every node has its own host.
    Apart,
    /// Data node i and Sentinel i share host i: the first host carries the primary and the first Sentinel.
    Paired,
}

/// What to start; see `Deployment::new`.
#[derive(Clone)]
pub struct Builder {
    name: String,
    services: Vec<String>,
    replicas: usize,
    sentinels: usize,
    quorum: usize,
    down_after: u64,
    failover_timeout: u64,
    password: Option<String>,
    acl: Option<(String, String)>,
    sentinel_password: Option<String>,
    sentinel_acl: Option<(String, String)>,
    hostnames: bool,
    ipv6: bool,
    unix_socket: bool,
    network: Option<Layout>,
    conf: Vec<String>,
    sentinel_conf: Vec<String>,
    node_conf: BTreeMap<String, Vec<String>>,
    bind_addr: BTreeMap<String, String>,
    server: Option<String>,
    tls: Option<TlsPlan>,
    sentinel_tls: Option<TlsPlan>,
}

/// What the TLS ports of servers show, whom they trust, and whether they want a client certificate.
#[derive(Clone)]
pub struct TlsPlan {
    pub ca: String,
    pub pair: super::certs::Pair,
    pub wants_clients: bool,
}

impl TlsPlan {
    /// The lines of a server that speaks TLS only on its port, or that only has what it needs to speak TLS to others.
    fn conf(&self, port: Option<u16>, replication: bool) -> String {
        let Self { ca, pair, wants_clients } = self;
        let word = |on: bool| if on { "yes" } else { "no" };
        let port = port.map(|port| format!("port 0\ntls-port {port}\n")).unwrap_or_default();
        format!(
            "{port}tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {ca}\ntls-auth-clients {}\ntls-replication {}\n",
            pair.cert,
            pair.key,
            word(*wants_clients),
            word(replication)
        )
    }
}

pub struct Deployment {
    plan: Builder,
    seed: u64,
    dir: PathBuf,
    nodes: RwLock<Vec<Arc<Node>>>,
    hosts: RwLock<Vec<Arc<Host>>>,
    network: Option<Network>,
}

impl Builder {
    /// Names of the services; each has its own primary and replicas, all watched by the same Sentinels.
    pub fn services<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Builder {
        self.services = names.into_iter().map(Into::into).collect();
        self
    }
    /// Replicas of each service.
    pub fn replicas(mut self, count: usize) -> Builder {
        self.replicas = count;
        self
    }
    pub fn sentinels(mut self, count: usize) -> Builder {
        self.sentinels = count;
        self
    }
    pub fn quorum(mut self, count: usize) -> Builder {
        self.quorum = count;
        self
    }
    pub fn down_after(mut self, ms: u64) -> Builder {
        self.down_after = ms;
        self
    }
    pub fn failover_timeout(mut self, ms: u64) -> Builder {
        self.failover_timeout = ms;
        self
    }
    /// Password of the default user of the data nodes.
    pub fn password(mut self, password: &str) -> Builder {
        self.password = Some(password.into());
        self
    }
    /// ACL user of the data nodes; without `password` the default user is switched off.
    pub fn acl(mut self, user: &str, password: &str) -> Builder {
        self.acl = Some((user.into(), password.into()));
        self
    }
    pub fn sentinel_password(mut self, password: &str) -> Builder {
        self.sentinel_password = Some(password.into());
        self
    }
    pub fn sentinel_acl(mut self, user: &str, password: &str) -> Builder {
        self.sentinel_acl = Some((user.into(), password.into()));
        self
    }
    /// Sentinels resolve and announce host names: every address is `localhost:port`.
    pub fn hostnames(mut self, on: bool) -> Builder {
        self.hostnames = on;
        self
    }
    /// Everything on `::1`.
    pub fn ipv6(mut self, on: bool) -> Builder {
        self.ipv6 = on;
        self
    }
    /// The program that all nodes run, where it is not the usual one.
    pub fn server(mut self, path: &str) -> Builder {
        self.server = Some(path.into());
        self
    }
    /// Data nodes speak TLS and nothing else. The kit asks them over their Unix sockets.
    pub fn tls(mut self, plan: TlsPlan) -> Builder {
        self.tls = Some(plan);
        self
    }
    /// The same for the Sentinels.
    pub fn sentinel_tls(mut self, plan: TlsPlan) -> Builder {
        self.sentinel_tls = Some(plan);
        self
    }
    /// Data nodes also listen on a Unix socket: `Node::unix_addr`.
    pub fn unix_socket(mut self, on: bool) -> Builder {
        self.unix_socket = on;
        self
    }
    /// Nodes run on hosts of a network of their own (see netns.rs); check `netns::available()` first.
    pub fn network(mut self, layout: Layout) -> Builder {
        self.network = Some(layout);
        self
    }
    /// A configuration line for all data nodes.
    pub fn conf(mut self, line: &str) -> Builder {
        self.conf.push(line.into());
        self
    }
    /// A configuration line for all Sentinels, at the end of the file.
    pub fn sentinel_conf(mut self, line: &str) -> Builder {
        self.sentinel_conf.push(line.into());
        self
    }
    /// A configuration line for one node (`mymaster-0` is the first primary, `mymaster-1` its first replica,
    /// `sentinel-0` the first Sentinel).
    pub fn node_conf(mut self, node: &str, line: &str) -> Builder {
        self.node_conf.entry(node.into()).or_default().push(line.into());
        self
    }
    /// The address on which one node listens and from which it connects, for example `127.0.0.2`.
    pub fn bind_addr(mut self, node: &str, ip: &str) -> Builder {
        self.bind_addr.insert(node.into(), ip.into());
        self
    }

    /// Starts everything and returns when all replicas are in sync and all Sentinels know it.
    pub fn start(self) -> Deployment {
        for _ in 0..5 {
            let mut deployment = Deployment::empty(self.clone());
            match deployment.boot() {
                Ok(()) => return deployment,
                // Another program took one of the ports after it was tried and before the server's bind.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => panic!("{} does not start: {error}", self.name),
            }
        }
        panic!("{} found no free ports in five attempts", self.name);
    }

    fn login(&self) -> Login {
        match (&self.password, &self.acl) {
            (Some(password), _) => Login::password(password),
            (None, Some((user, password))) => Login::acl(user, password),
            (None, None) => Login::default(),
        }
    }
    fn sentinel_login(&self) -> Login {
        match (&self.sentinel_password, &self.sentinel_acl) {
            (Some(password), _) => Login::password(password),
            (None, Some((user, password))) => Login::acl(user, password),
            (None, None) => Login::default(),
        }
    }

    /// Host part of a node's address.
    fn host_of(&self, node: &str, host: Option<&Arc<Host>>) -> String {
        match (self.bind_addr.get(node), host) {
            (Some(ip), _) => ip.clone(),
            (None, Some(host)) => host.ip().into(),
            (None, None) if self.hostnames => "localhost".into(),
            (None, None) if self.ipv6 => "::1".into(),
            (None, None) => "127.0.0.1".into(),
        }
    }

    /// Lines that both kinds of nodes share.
    fn common_conf(&self, node: &str, host: &str, port: u16, dir: &str) -> String {
        let bind = if host == "localhost" { "127.0.0.1 -::1" } else { host };
        let mut conf = format!("port {port}\nbind {bind}\ndir {dir}\nprotected-mode no\ndaemonize no\n");
        if self.bind_addr.contains_key(node) {
            let _ = writeln!(conf, "bind-source-addr {host}");
        }
        conf
    }

    fn extra(&self, node: &str, shared: &[String], conf: &mut String) {
        for line in shared.iter().chain(self.node_conf.get(node).into_iter().flatten()) {
            let _ = writeln!(conf, "{line}");
        }
    }

    fn data_conf(&self, node: &str, base: String, primary: Option<(&str, u16)>, socket: Option<&PathBuf>) -> String {
        // hz: the end of the child that feeds a replica is noticed by the clock tick, by default every 100 ms. Not diskless: such a
        // replica is listed as in sync up to a second before it receives writes, and a test that ends the primary then loses them.
        let mut conf = base + "save \"\"\nappendonly no\nhz 100\nrepl-diskless-sync no\n";
        conf += "repl-ping-replica-period 1\n";
        if let Some(socket) = socket {
            let _ = writeln!(conf, "unixsocket {}\nunixsocketperm 700", socket.display());
        }
        if let Some(password) = &self.password {
            let _ = writeln!(conf, "requirepass {password}\nmasterauth {password}");
        }
        if let Some((user, password)) = &self.acl {
            let _ = writeln!(conf, "user {user} on >{password} ~* &* +@all");
            if self.password.is_none() {
                let _ = writeln!(conf, "user default off\nmasteruser {user}\nmasterauth {password}");
            }
        }
        if self.hostnames {
            conf += "replica-announce-ip localhost\n";
        }
        if let Some((host, port)) = primary {
            let _ = writeln!(conf, "replicaof {host} {port}");
        }
        self.extra(node, &self.conf, &mut conf);
        conf
    }

    /// `primaries` and `replicas` give each service's addresses, `others` the other Sentinels' addresses and ids.
    fn sentinel_conf_text(&self, node: &str, base: String, id: &str, data: &Addresses, others: &[Other]) -> String {
        let mut conf = base + &format!("sentinel myid {id}\n");
        if self.hostnames {
            conf += "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel announce-ip localhost\n";
        }
        if let Some(password) = &self.sentinel_password {
            let _ = writeln!(conf, "requirepass {password}\nsentinel sentinel-pass {password}");
        }
        if let Some((user, password)) = &self.sentinel_acl {
            let _ = writeln!(conf, "user {user} on >{password} ~* &* +@all");
            if self.sentinel_password.is_none() {
                conf += "user default off\n";
                let _ = writeln!(conf, "sentinel sentinel-user {user}\nsentinel sentinel-pass {password}");
            }
        }
        for (service, nodes) in data {
            let (host, port) = &nodes[0];
            let _ = writeln!(conf, "sentinel monitor {service} {host} {port} {}", self.quorum);
            let _ = writeln!(conf, "sentinel down-after-milliseconds {service} {}", self.down_after);
            let _ = writeln!(conf, "sentinel failover-timeout {service} {}", self.failover_timeout);
            if let Some(password) = self.login().password {
                let _ = writeln!(conf, "sentinel auth-pass {service} {password}");
            }
            if let Some(user) = self.login().user {
                let _ = writeln!(conf, "sentinel auth-user {service} {user}");
            }
            for (host, port) in &nodes[1..] {
                let _ = writeln!(conf, "sentinel known-replica {service} {host} {port}");
            }
            for (host, port, id) in others {
                let _ = writeln!(conf, "sentinel known-sentinel {service} {host} {port} {id}");
            }
        }
        self.extra(node, &self.sentinel_conf, &mut conf);
        conf
    }
}

/// Per service the addresses of its data nodes, the primary first.
type Addresses = Vec<(String, Vec<(String, u16)>)>;
/// Another Sentinel: host, port, id.
type Other = (String, u16, String);

impl Deployment {
    /// One service `mymaster` with one primary, two replicas and three Sentinels (quorum 2, down-after 1 s,
    /// failover-timeout 4 s), unless the builder is told otherwise. The name is for messages.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(name: &str) -> Builder {
        Builder {
            name: name.into(),
            services: vec!["mymaster".into()],
            replicas: 2,
            sentinels: 3,
            quorum: 2,
            down_after: 1000,
            failover_timeout: 4000,
            password: None,
            acl: None,
            sentinel_password: None,
            sentinel_acl: None,
            hostnames: false,
            ipv6: false,
            unix_socket: false,
            network: None,
            conf: Vec::new(),
            sentinel_conf: Vec::new(),
            node_conf: BTreeMap::new(),
            bind_addr: BTreeMap::new(),
            server: None,
            tls: None,
            sentinel_tls: None,
        }
    }

    fn empty(plan: Builder) -> Deployment {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = root().join(format!("vigie-{}-{number}-{}", std::process::id(), plan.name));
        fs::create_dir_all(&dir).expect("a directory for the servers");
        let network = plan.network.map(|_| Network::new());
        let (nodes, hosts) = (RwLock::default(), RwLock::default());
        Deployment { plan, seed: wait::seed(), dir, nodes, hosts, network }
    }

    fn boot(&mut self) -> io::Result<()> {
        let plan = self.plan.clone();
        let mut data: Addresses = Vec::new();
        for service in &plan.services {
            let primary = self.launch_data(service, 0, None)?;
            data.push((service.clone(), vec![(primary.host().into(), primary.port())]));
        }
        // A replica that finds no primary tries again only after a second.
        self.await_up()?;
        for (service, nodes) in &mut data {
            for index in 1..=plan.replicas {
                let replica = self.launch_data(service, index, Some(nodes[0].clone()))?;
                nodes.push((replica.host().into(), replica.port()));
            }
        }
        self.await_up()?;
        for service in &plan.services {
            self.await_synced(service, self.data_nodes(service)[0].clone());
        }
        self.launch_sentinels(&data)?;
        self.await_up()?;
        if plan.sentinels > 0 {
            // A Sentinel that started before its peers has found their ports closed, and tries again after a ping period.
            self.debug_all("ping-period", 50);
            plan.services.iter().for_each(|service| self.wait_ready(service));
            self.debug_all("ping-period", 1000);
        }
        Ok(())
    }

    fn add(&self, node: Node) -> Arc<Node> {
        let node = Arc::new(node);
        self.nodes.write().expect("no panic under the lock").push(node.clone());
        node
    }

    fn await_up(&self) -> io::Result<()> {
        self.nodes().iter().try_for_each(|node| node.await_up())
    }

    /// A new host, or the existing one of the data node with this number.
    fn netns(&self, paired_with: Option<usize>) -> Option<Arc<Host>> {
        let network = self.network.as_ref()?;
        let mut hosts = self.hosts.write().expect("no panic under the lock");
        let shared = paired_with.filter(|_| self.plan.network == Some(Layout::Paired));
        if let Some(host) = shared.and_then(|index| hosts.get(index)) {
            return Some(host.clone());
        }
        hosts.push(Arc::new(network.host()));
        hosts.last().cloned()
    }

    fn launch_data(&self, service: &str, index: usize, primary: Option<(String, u16)>) -> io::Result<Arc<Node>> {
        let name = format!("{service}-{index}");
        let (netns, port) = (self.netns(None), ports::reserve());
        let (host, dir) = (self.plan.host_of(&name, netns.as_ref()), self.dir.join(&name));
        let tls = self.plan.tls.is_some();
        let socket = (self.plan.unix_socket || tls).then(|| dir.join("s"));
        let mut base = self.plan.common_conf(&name, &host, port.number, &dir.display().to_string());
        base += &self.plan.tls.as_ref().map(|plan| plan.conf(Some(port.number), true)).unwrap_or_default();
        let primary = primary.as_ref().map(|(host, port)| (host.as_str(), *port));
        let conf = self.plan.data_conf(&name, base, primary, socket.as_ref());
        let (role, login, server) = (Role::Data, self.plan.login(), self.plan.server.clone());
        let spec = Spec {
            name,
            role,
            service: Some(service.into()),
            host,
            port,
            dir,
            conf,
            login,
            socket,
            netns,
            server,
            tls,
        };
        Ok(self.add(Node::launch(spec)?))
    }

    fn launch_sentinels(&self, data: &Addresses) -> io::Result<()> {
        let plan = &self.plan;
        let planned: Vec<(Port, Option<Arc<Host>>, Other)> = (0..plan.sentinels)
            .map(|index| {
                let (port, netns) = (ports::reserve(), self.netns(Some(index)));
                let host = plan.host_of(&format!("sentinel-{index}"), netns.as_ref());
                let id = format!("{:032x}{:08x}", fastrand::u128(..), fastrand::u32(..));
                let other = (host, port.number, id);
                (port, netns, other)
            })
            .collect();
        let all: Vec<Other> = planned.iter().map(|(_, _, other)| other.clone()).collect();
        for (index, (port, netns, (host, _, id))) in planned.into_iter().enumerate() {
            let name = format!("sentinel-{index}");
            let dir = self.dir.join(&name);
            let others: Vec<Other> = all.iter().filter(|other| other.2 != id).cloned().collect();
            let mut base = plan.common_conf(&name, &host, port.number, &dir.display().to_string());
            let tls = plan.sentinel_tls.is_some();
            let socket = tls.then(|| dir.join("s"));
            if let (Some(own), Some(socket)) = (&plan.sentinel_tls, &socket) {
                base += &own.conf(Some(port.number), plan.tls.is_some());
                let _ = writeln!(base, "unixsocket {}\nunixsocketperm 700", socket.display());
            } else if let Some(plan) = &plan.tls {
                // Plain itself, it knows the nodes by TLS.
                base += &plan.conf(None, true);
            }
            let conf = plan.sentinel_conf_text(&name, base, &id, data, &others);
            let (role, login, server) = (Role::Sentinel, plan.sentinel_login(), plan.server.clone());
            let spec = Spec { name, role, service: None, host, port, dir, conf, login, socket, netns, server, tls };
            self.add(Node::launch(spec)?);
        }
        Ok(())
    }

    fn await_synced(&self, service: &str, primary: Arc<Node>) {
        let replicas: Vec<_> =
            self.data_nodes(service).into_iter().filter(|node| node.port() != primary.port()).collect();
        for replica in &replicas {
            eventually(&format!("{} in sync", replica.name()), PATIENCE, || {
                replica.info("replication").get("master_link_status").is_some_and(|status| status == "up")
            });
        }
        eventually(&format!("{} serves its replicas", primary.name()), PATIENCE, || {
            let info = primary.info("replication");
            let online = info.values().filter(|value| value.contains("state=online")).count();
            online == replicas.len()
        });
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }
    /// The test network; panics when the deployment was not asked for one.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("a deployment with .network(..)")
    }
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.read().expect("no panic under the lock").clone()
    }
    /// All data nodes of a service; the first is the one that began as primary.
    pub fn data_nodes(&self, service: &str) -> Vec<Arc<Node>> {
        self.nodes().into_iter().filter(|node| node.service() == Some(service)).collect()
    }
    pub fn sentinel_nodes(&self) -> Vec<Arc<Node>> {
        self.nodes().into_iter().filter(|node| node.role() == Role::Sentinel).collect()
    }
    /// The Sentinels that can answer (`Node::is_serving`).
    pub fn serving_sentinels(&self) -> Vec<Arc<Node>> {
        self.sentinel_nodes().into_iter().filter(|node| node.is_serving()).collect()
    }
    pub fn node(&self, name: &str) -> Arc<Node> {
        let found = self.nodes().into_iter().find(|node| node.name() == name);
        found.unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Host and port of the primary, as most serving Sentinels name it.
    #[track_caller]
    pub fn primary(&self, service: &str) -> String {
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        for sentinel in self.serving_sentinels() {
            if let Some(addr) = told_primary(&sentinel, service) {
                *votes.entry(addr).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.unwrap_or_else(|| panic!("no Sentinel tells the primary of {service}")).0
    }
    /// The node that the Sentinels name as the primary.
    #[track_caller]
    pub fn primary_node(&self, service: &str) -> Arc<Node> {
        let addr = self.primary(service);
        let found = self.data_nodes(service).into_iter().find(|node| ends_with_port(&addr, node.port()));
        found.unwrap_or_else(|| panic!("no node of {service} is {addr}"))
    }
    /// The primary after what has happened so far: a failover under way is waited for, as far as it comes to an end. Where Sentinels or
    /// nodes are cut off and never agree, the one that most Sentinels name.
    #[track_caller]
    pub fn settled_primary(&self, service: &str) -> Arc<Node> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            let told: Vec<_> = self.serving_sentinels().iter().filter_map(|one| told_primary(one, service)).collect();
            let agreed = told.first().filter(|first| told.iter().all(|addr| addr == *first));
            let lone =
                self.lone_primary(service).filter(|node| agreed.is_some_and(|at| ends_with_port(at, node.port())));
            if let Some(node) = lone {
                return node;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.primary_node(service)
    }
    /// The data node that says that it is a primary, if no other one does; also while the Sentinels do not agree.
    pub fn lone_primary(&self, service: &str) -> Option<Arc<Node>> {
        let says_master = |node: &Arc<Node>| {
            let role = node.try_cmd(&["ROLE"]);
            role.is_ok_and(|role| role.items().first().is_some_and(|word| word.text() == "master"))
        };
        let nodes = self.data_nodes(service);
        let mut primaries = nodes.into_iter().filter(|node| node.is_serving() && says_master(node));
        primaries.next().filter(|_| primaries.next().is_none())
    }
    /// How often a Sentinel has promoted a replica, by the logs of all Sentinels.
    pub fn promotions(&self) -> usize {
        self.sentinel_nodes().iter().map(|node| node.logged("+failover-state-wait-promotion ")).sum()
    }
    /// The data nodes other than the primary, including dead ones.
    #[track_caller]
    pub fn replica_nodes(&self, service: &str) -> Vec<Arc<Node>> {
        let primary = self.primary_node(service);
        self.data_nodes(service).into_iter().filter(|node| node.port() != primary.port()).collect()
    }

    /// `host:port` of each Sentinel.
    pub fn sentinel_addrs(&self) -> Vec<String> {
        self.sentinel_nodes().iter().map(|node| node.addr()).collect()
    }
    /// `redis-sentinel://[user:password@]h:p,h:p,h:p/service` of the first service; the login is the data nodes'.
    pub fn sentinel_uri(&self) -> String {
        let login = match self.plan.login() {
            Login { password: Some(password), user } => format!("{}:{password}@", user.unwrap_or_default()),
            _ => String::new(),
        };
        format!("redis-sentinel://{login}{}/{}", self.sentinel_addrs().join(","), self.plan.services[0])
    }

    /// Starts one more replica of the present primary and waits until it is in sync. The Sentinels find it within
    /// ten seconds: `wait_known`.
    pub fn add_replica(&self, service: &str) -> Arc<Node> {
        let primary = self.primary_node(service);
        let index = self.data_nodes(service).len();
        let replica = self.launch_data(service, index, Some((primary.host().into(), primary.port())));
        let replica = replica.expect("the replica starts");
        replica.await_up().expect("a free port");
        self.await_link(&replica);
        replica
    }
    /// Waits until a replica's link to its primary is up.
    #[track_caller]
    pub fn await_link(&self, replica: &Node) {
        eventually(&format!("{} in sync", replica.name()), PATIENCE, || {
            let info = replica.try_cmd(&["INFO", "replication"]).map(|reply| reply.text()).unwrap_or_default();
            info.contains("master_link_status:up")
        });
    }

    /// SENTINEL FAILOVER on the first serving Sentinel, repeated while it answers INPROG or NOGOODSLAVE. Returns the old primary;
    /// `wait_switched` waits for the end.
    #[track_caller]
    pub fn failover(&self, service: &str) -> Arc<Node> {
        let sentinel = self.serving_sentinels().into_iter().next().expect("a serving Sentinel");
        self.failover_by(service, &sentinel)
    }
    /// As `failover`, on a chosen Sentinel.
    #[track_caller]
    pub fn failover_by(&self, service: &str, sentinel: &Node) -> Arc<Node> {
        let old = self.primary_node(service);
        eventually(&format!("{} begins a failover of {service}", sentinel.name()), PATIENCE, || {
            let reply = sentinel.cmd(&["SENTINEL", "FAILOVER", service]);
            let text = reply.text();
            let later = text.starts_with("INPROG") || text.starts_with("NOGOODSLAVE");
            assert!(reply.is_ok() || later, "SENTINEL FAILOVER {service}: {text}");
            reply.is_ok()
        });
        old
    }
    /// Waits until all serving Sentinels name the same primary, another one than `old`, and it says so itself.
    #[track_caller]
    pub fn wait_switched(&self, service: &str, old: &Node) -> Arc<Node> {
        eventually_some(&format!("all Sentinels left {} as primary of {service}", old.addr()), PATIENCE, || {
            let told: Option<Vec<String>> =
                self.serving_sentinels().iter().map(|sentinel| told_primary(sentinel, service)).collect();
            let told = told?;
            let first = told.first()?;
            let same = told.iter().all(|addr| addr == first) && !ends_with_port(first, old.port());
            let new = self.data_nodes(service).into_iter().find(|node| ends_with_port(first, node.port()))?;
            let role = new.try_cmd(&["ROLE"]).ok()?.items().first()?.text();
            (same && role == "master").then_some(new)
        })
    }
    /// Waits until all serving Sentinels have `flag` (`s_down`, `o_down`, `disconnected`) on a node.
    #[track_caller]
    pub fn wait_flag(&self, service: &str, node: &Node, flag: &str) {
        eventually(&format!("all Sentinels see {flag} on {}", node.name()), PATIENCE, || {
            let has = |sentinel: &Arc<Node>| flags_of(sentinel, service, node).is_some_and(|flags| has(&flags, flag));
            self.serving_sentinels().iter().filter(|sentinel| sentinel.port() != node.port()).all(has)
        });
    }
    #[track_caller]
    pub fn wait_s_down(&self, service: &str, node: &Node) {
        self.wait_flag(service, node, "s_down");
    }
    /// Waits until all serving Sentinels list the node without any flag of trouble.
    #[track_caller]
    pub fn wait_known(&self, service: &str, node: &Node) {
        eventually(&format!("all Sentinels know {}", node.name()), PATIENCE, || {
            let knows = |sentinel: &Arc<Node>| {
                flags_of(sentinel, service, node).is_some_and(|flags| !flags.contains(',') && !flags.contains("down"))
            };
            self.serving_sentinels().iter().filter(|sentinel| sentinel.port() != node.port()).all(knows)
        });
    }
    /// Waits until every serving Sentinel sees the service whole: the primary without trouble, every running replica
    /// in sync with it, all other Sentinels connected.
    #[track_caller]
    pub fn wait_ready(&self, service: &str) {
        for sentinel in self.serving_sentinels() {
            let began = Instant::now();
            while let Some(missing) = self.unready(&sentinel, service) {
                assert!(began.elapsed() < PATIENCE, "{} of {service}: waited in vain for: {missing}", sentinel.name());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    /// What a Sentinel does not know yet.
    fn unready(&self, sentinel: &Node, service: &str) -> Option<String> {
        let master = sentinel.try_cmd(&["SENTINEL", "MASTER", service]).ok()?;
        let field = |key: &str| master.field(key).unwrap_or_default();
        let (replicas, sentinels) = (self.data_nodes(service).len() - 1, self.sentinel_nodes().len() - 1);
        let expected = [("flags", "master".to_string()), ("num-slaves", replicas.to_string())];
        let expected = expected.into_iter().chain([("num-other-sentinels", sentinels.to_string())]);
        for (key, value) in expected {
            if field(key) != value {
                return Some(format!("{key} {value}, is {}", field(key)));
            }
        }
        let replicas = sentinel.try_cmd(&["SENTINEL", "REPLICAS", service]).ok()?;
        let others = sentinel.try_cmd(&["SENTINEL", "SENTINELS", service]).ok()?;
        let good = |entry: &Value| {
            let flags = entry.field("flags").unwrap_or_default();
            flags == "sentinel" || flags == "slave" && entry.field("master-link-status").as_deref() == Some("ok")
        };
        let bad = replicas.items().iter().chain(others.items()).find(|entry| !good(entry))?;
        Some(format!("no trouble on {:?}, flags {:?}", bad.field("name"), bad.field("flags")))
    }
    /// Polls a condition on the deployment.
    #[track_caller]
    pub fn wait_for(&self, what: &str, timeout: Duration, mut condition: impl FnMut(&Deployment) -> bool) {
        eventually(what, timeout, || condition(self));
    }
    /// SENTINEL DEBUG on all Sentinels (before Redis 7.0 they keep their periods): for example `info-period`, `publish-period`, in ms. Users have the
    /// default periods; shorten them only if the timing is not the subject of the test.
    pub fn sentinel_debug(&self, option: &str, ms: u64) {
        if !Feature::SentinelDebug.is_there() {
            return;
        }
        for reply in self.debug_all(option, ms) {
            assert!(reply.is_ok(), "SENTINEL DEBUG {option}: {}", reply.text());
        }
    }
    /// Call it after a failover: lets the Sentinels demote the old primary within moments instead of ten seconds. Not before a
    /// failover: they would demote the new primary, too.
    pub fn hurry(&self) {
        self.sentinel_debug("info-period", 100);
        self.sentinel_debug("publish-period", 100);
    }
    /// The usual periods again, so that the next failover may come.
    pub fn calm(&self) {
        self.sentinel_debug("info-period", 10_000);
        self.sentinel_debug("publish-period", 2000);
    }
    fn debug_all(&self, option: &str, ms: u64) -> Vec<Value> {
        let sentinels = self.serving_sentinels();
        sentinels.iter().map(|sentinel| sentinel.cmd(&["SENTINEL", "DEBUG", option, &ms.to_string()])).collect()
    }

    fn report(&self) {
        eprintln!("deployment {} (seed {}), kept in {}", self.plan.name, self.seed, self.dir.display());
        for node in self.nodes() {
            let state = if node.is_running() { "" } else { " (ended)" };
            eprintln!("--- {} {} pid {}{state}\n{}", node.name(), node.addr(), node.pid(), node.log_tail(30));
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
        self.nodes().iter().for_each(|node| node.kill());
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The primary, as one Sentinel names it.
pub fn told_primary(sentinel: &Node, service: &str) -> Option<String> {
    let reply = sentinel.try_cmd(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", service]).ok()?;
    let [host, port] = reply.items() else { return None };
    Some(join(&host.text(), port.text().parse().ok()?))
}

/// The flags that a Sentinel gives to a node, wherever it lists it.
pub fn flags_of(sentinel: &Node, service: &str, node: &Node) -> Option<String> {
    let port = node.port().to_string();
    let is_node = |entry: &Value| entry.field("port").as_deref() == Some(&port);
    let master = sentinel.try_cmd(&["SENTINEL", "MASTER", service]).ok()?;
    if is_node(&master) {
        return master.field("flags");
    }
    let listed = ["REPLICAS", "SENTINELS"].map(|list| sentinel.try_cmd(&["SENTINEL", list, service]));
    let entries = listed.iter().flatten().flat_map(Value::items);
    entries.into_iter().find(|entry| is_node(entry))?.field("flags")
}

fn has(flags: &str, flag: &str) -> bool {
    flags.split(',').any(|one| one == flag)
}

fn ends_with_port(addr: &str, port: u16) -> bool {
    addr.rsplit(':').next() == Some(port.to_string().as_str())
}

//! Hosts that can vanish: network namespaces on a bridge of their own, and packets dropped between them.
//!
//! Needs root, `ip` and `iptables`. The test itself stays in its namespace and reaches each host over the bridge. Everything is
//! removed on drop; the remains of a killed test run are removed by the next one.

use super::{ports, proc};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A bridge with hosts.
pub struct Network {
    /// Prefix of all names: `vg`, the pid of the test, `x`, a number.
    prefix: String,
    subnet: u16,
    hosts: AtomicU32,
    _lock: UnixListener,
}

/// One host: a namespace with one address. Drops affect packets; connections stay open and receive nothing.
pub struct Host {
    name: String,
    /// The end of its link that is on the bridge.
    link: String,
    ip: String,
    /// Changes of the rules are one at a time.
    rules: Mutex<()>,
    vanished: AtomicBool,
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args);
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[track_caller]
fn ip(args: &str) {
    let words: Vec<&str> = args.split_whitespace().collect();
    run("ip", &words).unwrap_or_else(|error| panic!("{error}"));
}

/// Can namespaces be made and packets be dropped here? Tried once per process.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        sweep();
        let pid = std::process::id();
        let (name, bridge) = (format!("vg{pid}try"), format!("vg{pid}b"));
        let steps = [
            vec!["ip", "netns", "add", &name],
            vec!["ip", "netns", "exec", &name, "iptables", "-w", "-A", "INPUT", "-s", "198.18.0.1", "-j", "DROP"],
            vec!["ip", "link", "add", &bridge, "type", "bridge"],
        ];
        let all = steps.iter().all(|step| run(step[0], &step[1..]).is_ok());
        let _ = run("ip", &["link", "del", &bridge]);
        let _ = run("ip", &["netns", "del", &name]);
        all
    })
}

/// Removes what earlier runs left behind whose process is gone.
fn sweep() {
    let dead = |name: &str| -> bool {
        let digits: String = name.strip_prefix("vg").unwrap_or("").chars().take_while(char::is_ascii_digit).collect();
        digits.parse().is_ok_and(|pid| !proc::exists(pid))
    };
    let spaces = run("ip", &["netns", "list"]).unwrap_or_default();
    for name in spaces.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| dead(name)) {
        let _ = run("ip", &["netns", "del", name]);
    }
    let links = run("ip", &["-o", "link"]).unwrap_or_default();
    for line in links.lines() {
        let name = line.split(": ").nth(1).and_then(|name| name.split('@').next()).unwrap_or("");
        if dead(name) {
            let _ = run("ip", &["link", "del", name]);
        }
    }
}

impl Network {
    pub fn new() -> Network {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(available(), "network namespaces do not work here; ask netns::available() first");
        let prefix = format!("vg{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // 198.18.0.0/15 is set aside for tests of networks; the third byte is locked machine-wide.
        let free = (0..250).find_map(|subnet| Some((subnet, ports::lock("net", subnet)?)));
        let (subnet, lock) = free.expect("a free test network");
        let network = Network { prefix, subnet, hosts: AtomicU32::new(0), _lock: lock };
        let bridge = network.bridge();
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add 198.18.{subnet}.254/24 dev {bridge}"));
        ip(&format!("link set {bridge} up"));
        network
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    /// Address of the test itself in this network.
    pub fn client_ip(&self) -> String {
        format!("198.18.{}.254", self.subnet)
    }

    /// Adds a host.
    pub fn host(&self) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let (name, link) = (format!("{}n{number}", self.prefix), format!("{}h{number}", self.prefix));
        let host = Host {
            ip: format!("198.18.{}.{number}", self.subnet),
            name,
            link,
            rules: Mutex::new(()),
            vanished: AtomicBool::new(false),
        };
        let (name, link) = (&host.name, &host.link);
        ip(&format!("netns add {name}"));
        ip(&format!("link add {link} type veth peer name eth0 netns {name}"));
        ip(&format!("link set {link} master {} up", self.bridge()));
        ip(&format!("-n {name} addr add {}/24 dev eth0", host.ip));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        host
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &self.bridge()]);
    }
}

impl Host {
    /// Name of the namespace, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its address, reachable from the test and from the other hosts of the network.
    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// A command that runs `program` on this host; the process number is that of `program` itself.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn iptables(&self, args: &[&str]) {
        let _one = self.rules.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut all = vec!["netns", "exec", &self.name, "iptables", "-w"];
        all.extend_from_slice(args);
        run("ip", &all).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The host vanishes: every packet in and out is dropped, its own loopback excepted.
    pub fn vanish(&self) {
        self.vanished.store(true, Ordering::Relaxed);
        self.iptables(&["-I", "INPUT", "!", "-i", "lo", "-j", "DROP"]);
        self.iptables(&["-I", "OUTPUT", "!", "-o", "lo", "-j", "DROP"]);
    }
    pub fn is_vanished(&self) -> bool {
        self.vanished.load(Ordering::Relaxed)
    }
    /// Packets from `ip` are dropped on arrival (one way).
    pub fn drop_from(&self, ip: &str) {
        self.iptables(&["-I", "INPUT", "-s", ip, "-j", "DROP"]);
    }
    /// Packets to `ip` are dropped before they leave (one way).
    pub fn drop_to(&self, ip: &str) {
        self.iptables(&["-I", "OUTPUT", "-d", ip, "-j", "DROP"]);
    }
    /// Packets to and from `ip` are dropped.
    pub fn cut_off(&self, ip: &str) {
        self.drop_from(ip);
        self.drop_to(ip);
    }
    /// TCP to `port` of this host is answered with a reset.
    pub fn reject(&self, port: u16) {
        let port = port.to_string();
        let reset = ["-p", "tcp", "--dport", &port, "-j", "REJECT", "--reject-with", "tcp-reset"];
        self.iptables(&[&["-I", "INPUT"], &reset[..]].concat());
    }
    /// All packets pass again.
    pub fn heal(&self) {
        self.iptables(&["-F"]);
        self.vanished.store(false, Ordering::Relaxed);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Orphaned TCP sockets keep a namespace alive for minutes after its name is gone: the link must go by itself.
        let _ = run("ip", &["link", "del", &self.link]);
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

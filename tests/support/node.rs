//! One server process (data node or Sentinel): start, fault, ask.

use super::client::{Client, Login, TIMEOUT};
use super::netns::Host;
use super::ports::Port;
use super::resp::Value;
use super::{proc, wait};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Data,
    Sentinel,
}

/// What a node is made of.
pub struct Spec {
    /// `mymaster-0`, `sentinel-2`.
    pub name: String,
    pub role: Role,
    /// Service of a data node.
    pub service: Option<String>,
    /// Host part of the address, as clients dial it.
    pub host: String,
    pub port: Port,
    pub dir: PathBuf,
    pub conf: String,
    pub login: Login,
    pub socket: Option<PathBuf>,
    /// The network namespace it runs in.
    pub netns: Option<Arc<Host>>,
    /// The program, where it is not the usual one.
    pub server: Option<String>,
    /// Its port speaks TLS.
    pub tls: bool,
}

pub struct Node {
    spec: Spec,
    child: Mutex<Child>,
}

/// One line of CLIENT LIST.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    pub id: u64,
    pub name: String,
    pub addr: String,
    pub db: u32,
    pub age: u64,
    pub idle: u64,
    pub flags: String,
    pub cmd: String,
    pub fields: BTreeMap<String, String>,
}

impl ClientInfo {
    /// Whether it has subscribed to patterns, whatever its last command is: a PING between messages is a command, too.
    pub fn listens(&self) -> bool {
        self.fields.get("psub").is_some_and(|patterns| patterns != "0")
    }
}

/// The server binary: `VIGIE_SERVER` (for example `valkey-server`), or `redis-server`.
pub fn server_binary() -> String {
    std::env::var("VIGIE_SERVER").unwrap_or_else(|_| "redis-server".into())
}

impl Node {
    /// Writes the configuration and starts the process. `await_up` waits until it serves.
    pub fn launch(spec: Spec) -> io::Result<Node> {
        fs::create_dir_all(&spec.dir)?;
        fs::write(spec.dir.join("node.conf"), &spec.conf)?;
        let child = Mutex::new(run(&spec)?);
        Ok(Node { spec, child })
    }

    /// Waits until this very process answers. `AddrInUse` when another program took the port first.
    pub fn await_up(&self) -> io::Result<()> {
        let what = format!("{} on port {} answers", self.spec.name, self.spec.port.number);
        let pid = self.pid().to_string();
        wait::eventually_some(&what, Duration::from_secs(20), || {
            if !self.is_running() {
                let log = self.log_tail(30);
                assert!(log.contains("in use"), "{} ended at its start:\n{log}", self.spec.name);
                return Some(Err(io::ErrorKind::AddrInUse.into()));
            }
            let info = self.try_cmd(&["INFO", "server"]).ok()?.text();
            (parse_info(&info).get("process_id") == Some(&pid)).then_some(Ok(()))
        })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }
    pub fn role(&self) -> Role {
        self.spec.role
    }
    pub fn service(&self) -> Option<&str> {
        self.spec.service.as_deref()
    }
    pub fn host(&self) -> &str {
        &self.spec.host
    }
    pub fn port(&self) -> u16 {
        self.spec.port.number
    }
    /// `host:port`, or `[v6]:port`.
    pub fn addr(&self) -> String {
        join(&self.spec.host, self.port())
    }
    /// `unix:/path`, if the deployment was asked for Unix sockets.
    pub fn unix_addr(&self) -> Option<String> {
        self.spec.socket.as_ref().map(|path| format!("unix:{}", path.display()))
    }
    pub fn dir(&self) -> &Path {
        &self.spec.dir
    }
    /// The network namespace it runs in; panics when the deployment was not asked for a network.
    pub fn netns(&self) -> &Host {
        self.spec.netns.as_ref().expect("a deployment with .network(..)")
    }
    pub fn log_path(&self) -> PathBuf {
        self.spec.dir.join("node.log")
    }
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// False after `kill` or when the process ended by itself; a stopped process is running.
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }
    pub fn is_stopped(&self) -> bool {
        proc::state(self.pid()) == Some('T')
    }
    /// Whether it can answer: it is neither dead nor stopped, nor on a host that vanished.
    pub fn is_serving(&self) -> bool {
        let vanished = self.spec.netns.as_ref().is_some_and(|host| host.is_vanished());
        self.is_running() && !self.is_stopped() && !vanished
    }

    /// SIGKILL; the process is gone when this returns.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
    /// SIGSTOP: connections stay, nothing is answered.
    pub fn stop(&self) {
        proc::signal(self.pid(), libc::SIGSTOP);
        proc::await_stopped(self.pid(), true);
    }
    /// SIGCONT.
    pub fn cont(&self) {
        proc::signal(self.pid(), libc::SIGCONT);
        proc::await_stopped(self.pid(), false);
    }
    /// Starts the process again (killing it first if necessary): with the same port and directory, and with the configuration file
    /// as Sentinel has last rewritten it. Data nodes come back empty.
    pub fn restart(&self) {
        self.kill();
        *self.child() = run(&self.spec).expect("the server starts");
        self.await_up().expect("the port is still ours");
    }

    /// A logged-in connection; over the Unix socket where the port speaks TLS, which the kit does not.
    pub fn connect(&self) -> io::Result<Client> {
        let addr = if self.spec.tls { self.unix_addr() } else { None };
        Client::login(&addr.unwrap_or_else(|| self.addr()), &self.spec.login, TIMEOUT)
    }
    /// One command on a connection of its own (so a WAIT here waits for nothing). Panics if the node does not answer; error replies
    /// are values.
    #[track_caller]
    pub fn cmd<A: AsRef<[u8]>>(&self, args: &[A]) -> Value {
        if args.first().is_some_and(|word| matches!(word.as_ref(), b"ROLE" | b"INFO" | b"PING")) {
            return self.look(&show(args), |client| client.cmd(args));
        }
        match self.try_cmd(args) {
            Ok(value) => value,
            Err(error) => panic!("{} to {} ({}): {error}", show(args), self.spec.name, self.addr()),
        }
    }
    pub fn try_cmd<A: AsRef<[u8]>>(&self, args: &[A]) -> io::Result<Value> {
        self.connect()?.cmd(args)
    }
    /// A section of INFO as key and value.
    #[track_caller]
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        self.look("INFO", |client| Ok(parse_info(&client.cmd(&["INFO", section])?.text())))
    }
    /// Asks what may be asked again: a Sentinel that makes a node a replica ends its connections at any moment.
    #[track_caller]
    fn look<T>(&self, what: &str, ask: impl Fn(&mut Client) -> io::Result<T>) -> T {
        let mut tries = 0;
        loop {
            match self.connect().and_then(|mut client| ask(&mut client)) {
                Ok(answer) => return answer,
                Err(error) if tries == 5 || error.kind() == io::ErrorKind::ConnectionRefused => {
                    panic!("{what} of {} ({}): {error}", self.spec.name, self.addr())
                }
                Err(_) => tries += 1,
            }
        }
    }
    /// As `info`, when the connection may be ended meanwhile.
    pub fn try_info(&self, section: &str) -> io::Result<BTreeMap<String, String>> {
        Ok(parse_info(&self.try_cmd(&["INFO", section])?.text()))
    }
    /// First word of ROLE: `master`, `slave`, `sentinel`.
    #[track_caller]
    pub fn role_word(&self) -> String {
        self.look("ROLE", |client| Ok(client.cmd(&["ROLE"])?.items().first().map(Value::text).unwrap_or_default()))
    }
    /// Calls per command since the start or the last CONFIG RESETSTAT (`get`, `client|list`).
    #[track_caller]
    pub fn commandstats(&self) -> BTreeMap<String, u64> {
        let calls = |(key, value): (String, String)| -> Option<(String, u64)> {
            let calls = value.split(',').find_map(|part| part.strip_prefix("calls="))?.parse().ok()?;
            Some((key.strip_prefix("cmdstat_")?.to_string(), calls))
        };
        self.info("commandstats").into_iter().filter_map(calls).collect()
    }
    /// Calls of one command (lower case).
    #[track_caller]
    pub fn calls(&self, command: &str) -> u64 {
        self.commandstats().get(command).copied().unwrap_or(0)
    }
    /// CLIENT LIST without the connection that asked.
    #[track_caller]
    pub fn client_list(&self) -> Vec<ClientInfo> {
        let (own, list) = self.look("CLIENT LIST", |client| {
            Ok((client.cmd(&["CLIENT", "ID"])?.int(), client.cmd(&["CLIENT", "LIST"])?.text()))
        });
        list.lines().map(client_info).filter(|info| Some(info.id as i64) != own).collect()
    }
    /// The clients with this name.
    #[track_caller]
    pub fn clients_named(&self, name: &str) -> Vec<ClientInfo> {
        self.client_list().into_iter().filter(|info| info.name == name).collect()
    }

    /// How often this text is in the log.
    pub fn logged(&self, text: &str) -> usize {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).matches(text).count()
    }
    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(spec: &Spec) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(spec.dir.join("node.log"))?;
    let server = spec.server.clone().unwrap_or_else(server_binary);
    let mut command = match &spec.netns {
        Some(host) => host.command(&server),
        None => Command::new(&server),
    };
    command.arg(spec.dir.join("node.conf"));
    if spec.role == Role::Sentinel {
        command.arg("--sentinel");
    }
    // Lines before the log is open, and the reason of a failed start, go to the same file.
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
    proc::spawn(command)
}

/// `host:port` with brackets for IPv6.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `key:value` lines.
pub fn parse_info(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.into(), value.trim().into())).collect()
}

fn client_info(line: &str) -> ClientInfo {
    let pairs = line.split(' ').filter_map(|word| word.split_once('='));
    let fields: BTreeMap<String, String> = pairs.map(|(key, value)| (key.into(), value.into())).collect();
    let text = |key: &str| fields.get(key).cloned().unwrap_or_default();
    ClientInfo {
        id: text("id").parse().unwrap_or(0),
        name: text("name"),
        addr: text("addr"),
        db: text("db").parse().unwrap_or(0),
        age: text("age").parse().unwrap_or(0),
        idle: text("idle").parse().unwrap_or(0),
        flags: text("flags"),
        cmd: text("cmd"),
        fields,
    }
}

fn show<A: AsRef<[u8]>>(args: &[A]) -> String {
    args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref()).into_owned()).collect::<Vec<_>>().join(" ")
}

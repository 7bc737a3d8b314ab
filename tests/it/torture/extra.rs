//! What section B needs besides the kit: Sentinels that come later, names that move, a primary known by a proxy's address.

use crate::calls::SERVICE;
use crate::support::client::Client;
use crate::support::{Deployment, Node, Proxy, Value, eventually, proc};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Processor time that the library's threads have taken in all, those that have ended included.
pub fn library_time() -> Duration {
    static SEEN: Mutex<BTreeMap<i32, u64>> = Mutex::new(BTreeMap::new());
    let mut seen = SEEN.lock().expect("no panic under the lock");
    for (id, name) in proc::threads() {
        let stat = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).unwrap_or_default();
        if let (true, Some(run)) = (name.starts_with("vigie-"), stat.split(' ').next().and_then(|run| run.parse().ok()))
        {
            seen.insert(id, run);
        }
    }
    Duration::from_nanos(seen.values().sum())
}

/// Connections that a Sentinel has taken, and commands that it has executed.
pub fn load(node: &Node) -> (u64, u64) {
    let info = node.info("stats");
    let number = |key: &str| info.get(key).and_then(|text| text.parse().ok()).unwrap_or_default();
    (number("total_connections_received"), number("total_commands_processed"))
}

/// The library's subscriptions at a Sentinel.
pub fn subscriptions(node: &Node) -> usize {
    let listens = |field: Option<&String>| field.is_some_and(|count| count != "0");
    let clients = node.clients_named(super::rig::NAME);
    clients.iter().filter(|client| listens(client.fields.get("psub")) || listens(client.fields.get("sub"))).count()
}

/// Has the replicas and the Sentinels know the primary by the address of a proxy.
pub fn move_primary_behind(deployment: &Deployment, proxy: &Proxy) {
    let port = proxy.port().to_string();
    let replicas = deployment.replica_nodes(SERVICE);
    for replica in &replicas {
        assert!(replica.cmd(&["REPLICAOF", "127.0.0.1", &port]).is_ok());
    }
    for replica in &replicas {
        deployment.await_link(replica);
    }
    deployment.hurry();
    for sentinel in deployment.sentinel_nodes() {
        assert!(sentinel.cmd(&["SENTINEL", "REMOVE", SERVICE]).is_ok());
    }
    for sentinel in deployment.sentinel_nodes() {
        watch(|args| sentinel.cmd(args), "127.0.0.1", &port);
    }
    deployment.wait_ready(SERVICE);
    deployment.sentinel_debug("info-period", 10_000);
    deployment.sentinel_debug("publish-period", 2000);
}

fn watch(cmd: impl Fn(&[&str]) -> Value, host: &str, port: &str) {
    assert!(cmd(&["SENTINEL", "MONITOR", SERVICE, host, port, "2"]).is_ok());
    assert!(cmd(&["SENTINEL", "SET", SERVICE, "down-after-milliseconds", "1000", "failover-timeout", "6000"]).is_ok());
}

/// A Sentinel that was not there from the beginning; ends with this value.
pub struct Added {
    host: String,
    port: u16,
    child: Child,
}

impl Added {
    pub fn start(host: &str, port: u16, primary: &Node, deployment: &Deployment) -> Added {
        let dir: PathBuf = deployment.dir().join(format!("added-{port}"));
        fs::create_dir_all(&dir).expect("a directory");
        let conf = format!(
            "port {port}\nbind {host}\ndir {}\nprotected-mode no\nsentinel announce-ip {host}\nsentinel monitor {SERVICE} {} {} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 6000\n",
            dir.display(),
            primary.host(),
            primary.port()
        );
        let path = dir.join("sentinel.conf");
        fs::write(&path, conf).expect("a configuration");
        let mut command = Command::new(crate::support::node::server_binary());
        command.arg(path).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let added = Added { host: host.into(), port, child: proc::spawn(command).expect("a Sentinel starts") };
        eventually("the added Sentinel answers", Duration::from_secs(10), || added.try_cmd(&["PING"]).is_some());
        // Its peers learn of it by what it publishes on the primary, every two seconds.
        let _ = added.try_cmd(&["SENTINEL", "DEBUG", "publish-period", "200", "info-period", "200"]);
        added
    }
    pub fn addr(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
    fn try_cmd(&self, args: &[&str]) -> Option<Value> {
        let mut client = Client::login(&self.addr(), &Default::default(), Duration::from_secs(2)).ok()?;
        client.cmd(args).ok()
    }
    #[track_caller]
    pub fn cmd(&self, args: &[&str]) -> Value {
        // A machine that is busy may let it wait for longer than one try takes.
        let answer = (0..5).find_map(|_| self.try_cmd(args));
        answer.unwrap_or_else(|| panic!("{} does not answer {args:?}", self.addr()))
    }
    /// Waits until it knows so many others, and the replicas.
    pub fn await_peers(&self, count: usize) {
        eventually("the added Sentinel knows the others", Duration::from_secs(15), || {
            let master = self.cmd(&["SENTINEL", "MASTER", SERVICE]);
            let field = |key: &str| master.field(key).and_then(|text| text.parse::<usize>().ok()).unwrap_or_default();
            field("num-other-sentinels") == count && field("num-slaves") >= 1
        });
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Host names that exist for one thread and those that it starts.
pub struct Names {
    path: PathBuf,
    names: Vec<String>,
}

impl Names {
    pub fn point_to(&self, ip: &str) {
        let mut text = String::from("127.0.0.1 localhost\n");
        self.names.iter().for_each(|name| text.push_str(&format!("{ip} {name}\n")));
        fs::write(&self.path, text).expect("the names are written");
    }
}

/// Runs a job on a thread with a mount namespace of its own, in which these names are known.
pub fn with_names<T: Send>(names: &[&str], ip: &str, job: impl FnOnce(&Names) -> T + Send) -> T {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let path = std::env::temp_dir().join(format!("vigie-hosts-{}", std::process::id()));
    let names = Names { path, names };
    names.point_to(ip);
    // A thread of the library that is there already would not know them.
    eventually("no thread of the library", Duration::from_secs(6), || proc::threads_named("vigie-").is_empty());
    let result = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                own_hosts(&names.path);
                job(&names)
            })
            .join()
    });
    let _ = fs::remove_file(&names.path);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Puts a file in the place of /etc/hosts, for this thread and those that it starts.
fn own_hosts(path: &std::path::Path) {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let (none, root, hosts) = (text("none"), text("/"), text("/etc/hosts"));
    let source = text(path.to_str().expect("a plain path"));
    let nothing = std::ptr::null();
    // SAFETY: the strings outlive the calls; a new namespace for this thread touches no memory.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none.as_ptr(), root.as_ptr(), nothing, libc::MS_REC | libc::MS_PRIVATE, nothing.cast()) == 0
            && libc::mount(source.as_ptr(), hosts.as_ptr(), nothing, libc::MS_BIND, nothing.cast()) == 0
    };
    assert!(done, "a mount namespace: {}", std::io::Error::last_os_error());
}

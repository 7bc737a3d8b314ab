//! Processes: starts children that cannot outlive the test run, and lists what this process holds open.

use super::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// The thread that starts all children: the kernel ties PR_SET_PDEATHSIG to the *thread* that forked, and the threads
/// of tests end long before the process does.
fn spawner() -> &'static Sender<Job> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        thread("kit-spawner", move || inbox.into_iter().for_each(|job| job()));
        jobs
    })
}

/// Starts a child that gets SIGKILL when this process ends, however it ends.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: between fork and exec only the two async-signal-safe calls prctl and getppid are made.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before prctl took effect.
            if libc::getppid() != parent as i32 { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
        });
    }
    let (answer, result) = channel();
    let job: Job = Box::new(move || drop(answer.send(command.spawn())));
    spawner().send(job).expect("the spawner lives as long as the process");
    result.recv().expect("the spawner answers")
}

/// A thread of the kit; its name begins with `kit-`, so that counts of the library's threads can leave it out.
pub fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    assert!(name.starts_with("kit-"));
    let builder = std::thread::Builder::new().name(name.into()).stack_size(256 << 10);
    builder.spawn(body).expect("a thread starts")
}

/// Sends a signal to a process of our own.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: kill has no memory effects; the caller owns the process and has not reaped it.
    let result = unsafe { libc::kill(pid as i32, signal) };
    assert_eq!(result, 0, "signal {signal} to {pid}: {}", io::Error::last_os_error());
}

/// Does a process (or its zombie) with this number exist?
pub fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

/// State letter of a process as in `/proc/pid/stat`: `T` is stopped.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until SIGSTOP or SIGCONT has taken effect.
pub fn await_stopped(pid: u32, stopped: bool) {
    let what = format!("process {pid} {}", if stopped { "stopped" } else { "running again" });
    wait::eventually(&what, Duration::from_secs(5), || (state(pid) == Some('T')) == stopped);
}

/// Open descriptors of this process: number and what it leads to (`socket:[123]`, `/tmp/x`, ...).
pub fn descriptors() -> BTreeMap<i32, String> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let name = |entry: fs::DirEntry| -> Option<(i32, String)> {
        let number = entry.file_name().to_str()?.parse().ok()?;
        // The descriptor of this very listing is closed by now, or belongs to another thread that just closed it.
        Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
    };
    entries.flatten().filter_map(name).filter(|(_, target)| !target.ends_with("/fd")).collect()
}

/// Threads of this process: number and name.
pub fn threads() -> BTreeMap<i32, String> {
    let entries = fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let name = |entry: fs::DirEntry| -> Option<(i32, String)> {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, comm.trim().to_string()))
    };
    entries.flatten().filter_map(name).collect()
}

/// Names of the threads that begin with `prefix`.
pub fn threads_named(prefix: &str) -> Vec<String> {
    threads().into_values().filter(|name| name.starts_with(prefix)).collect()
}

/// TCP sockets of this process whose peer has one of `ports`, in any state that still holds a descriptor. Unlike a
/// plain count of descriptors it is not disturbed by tests that run at the same time: the kernel lists a socket twice when
/// others come and go between two reads of its table.
pub fn sockets_to(ports: &[u16]) -> usize {
    let ours = descriptors();
    let ours: BTreeSet<&str> =
        ours.values().filter_map(|name| name.strip_prefix("socket:[")?.strip_suffix(']')).collect();
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let to_one = |line: &str| -> Option<String> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(2)?.rsplit(':').next()?, 16).ok()?;
        let inode = *fields.get(9)?;
        (ports.contains(&port) && ours.contains(inode)).then(|| inode.to_owned())
    };
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(to_one).collect::<BTreeSet<_>>().len()
}

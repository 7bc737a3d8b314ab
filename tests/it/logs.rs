//! The log: a failover is read back from it, it has no secret, and nothing waits for who reads it.

use crate::calls;
use crate::stage;
use crate::support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calls::*;
use stage::{SOON, stage};
use support::*;
use vigie::client::Target;
use vigie::config::{LogFormat, LogLevel, LogSettings};
use vigie::error::Status;
use vigie::log::{Log, lines};
use vigie::queue::{Queue, kind};
use vigie::sys::descriptor::Kept;
use vigie::time::Deadline;
use vigie::topology::Sentinel;

const NODE_SECRET: &str = "n0de-s3cret";
const SENTINEL_SECRET: &str = "s3ntinel-p4ss";
const WRONG_SECRET: &str = "wr0ng-0ne";

/// A file that lines are written to.
struct LogFile {
    file: File,
    path: std::path::PathBuf,
}

impl LogFile {
    fn in_dir(dir: &std::path::Path, name: &str) -> LogFile {
        let path = dir.join(name);
        LogFile { file: File::create(&path).expect("the directory is ours"), path }
    }

    fn fd(&self) -> String {
        self.file.as_raw_fd().to_string()
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// The place of the first line from here on that has all these parts.
    #[track_caller]
    fn find(&self, from: usize, parts: &[&str]) -> usize {
        eventually_some(&format!("{parts:?} in the log"), SOON, || {
            let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
            self.lines().iter().skip(from).position(has_all).map(|at| at + from)
        })
    }
}

fn events_of(queue: &Queue) -> Vec<String> {
    let mut events = Vec::new();
    queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
    assert!(events.iter().all(|event| event.kind == kind::LOG && event.token == 3), "{events:?}");
    events.into_iter().map(|event| json(&event.outcome.expect("a line").expect("a map"))).collect()
}

#[test]
fn a_failover_is_read_back_from_the_log_and_no_secret_is_in_it() {
    let d = Deployment::new("log-failover").password(NODE_SECRET).sentinel_password(SENTINEL_SECRET).start();
    let log = LogFile::in_dir(d.dir(), "vigie.log");
    let addrs = d.sentinel_addrs();
    let uri =
        format!("redis-sentinel://:{NODE_SECRET}@{}/{SERVICE}?sentinel.password={SENTINEL_SECRET}", addrs.join(","));
    let config = config(&[("uri", &uri), ("log.level", "debug"), ("log.fd", &log.fd()), ("client.name", "orders")]);
    let sentinel = Sentinel::create(config.settings().expect("settings"), None).expect("a handle");
    let queue = Queue::create(10_000).expect("a queue");
    sentinel.watch(kind::LOG, &queue, 3).expect("a watch");
    let client = open(&sentinel, Target::Primary, &[]);
    ok(&client, "SET k v");
    for addr in &addrs {
        log.find(0, &["target=sentinel", "message=\"the Sentinel is listened to\"", addr]);
    }
    let old = d.failover(SERVICE).addr();
    eventually("it writes to the new primary", SOON, || cmd(&client, "SET k w").is_ok() && d.primary(SERVICE) != old);
    let (old, new) = (old, d.primary(SERVICE));

    // In the order in which it happened.
    let begun = log.find(0, &["target=log", "level=info", "message=\"the log begins\"", "version=", "pid="]);
    assert_eq!(begun, 0);
    let up = log.find(0, &["level=warning", "target=fence", "message=\"writes are held back\"", "service=mymaster"]);
    let line = &log.lines()[up];
    assert!(line.contains("cause=+try-failover") || line.contains("cause=failover_in_progress"), "{line}");
    // A poll that sees the flag first names nobody.
    let named = addrs.iter().any(|addr| line.contains(addr)) || line.contains("cause=failover_in_progress");
    assert!(named, "by whose word: {line}");
    let probe = log.find(up, &["target=failover", "message=\"the candidate is asked for its role\"", &new]);
    log.find(up, &["target=replica", "cause=+selected-slave", &format!("replica={new}")]);
    let candidate = log.find(probe, &["message=\"the candidate says that it is a primary\"", &new, "taken="]);
    let switch =
        log.find(candidate, &["target=topology", &format!("from={old} to={new}"), "epoch=", "cause=", " gap_ms="]);
    log.find(switch, &["target=fence", "message=\"writes pass again\"", "cause=switched", "held_ms="]);
    log.find(
        switch,
        &[
            "target=pool",
            "its connections are closed\"",
            &format!("node={old} role=primary target=primary client=orders"),
            "connections=",
        ],
    );

    // Each connection, with the reason for its end.
    let opened = log
        .find(0, &["level=debug", "target=connection", "message=\"a connection was opened\"", &format!("node={old}")]);
    log.find(opened, &["target=connection", "message=\"a connection was closed\"", &format!("node={old}"), "cause="]);

    // Credentials that are refused are told, and not shown.
    for (key, value) in [("auth.password", WRONG_SECRET), ("sentinel.password", WRONG_SECRET)] {
        sentinel.configure(key, value).expect("it can be changed");
    }
    log.find(switch, &["level=info", "target=config", "message=\"the user or the password was changed\"", "of=nodes"]);
    log.find(switch, &["target=config", "of=Sentinels"]);
    fails(Status::Auth, cmd(&client, "GET k"));
    log.find(switch, &["level=warning", "message=\"a node refuses the user or the password\"", "credentials_refused"]);
    for node in d.sentinel_nodes() {
        node.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }
    log.find(switch, &["target=sentinel", "message=\"the Sentinel is gone\"", "cause=refused"]);
    log.find(switch, &["level=error", "target=degraded", "cause=refused"]);
    sentinel.close();
    let (written, told) = (log.lines(), events_of(&queue));
    for secret in [NODE_SECRET, SENTINEL_SECRET, WRONG_SECRET] {
        let leak = written.iter().chain(&told).find(|line| line.contains(secret));
        assert!(leak.is_none(), "{leak:?}");
    }
    assert!(written.iter().all(|line| line.starts_with("time=20") && line.contains(" level=") && line.len() < 4096));
    // The watch began after the first line.
    assert_eq!(written.len(), told.len() + 1, "{written:#?}\n{told:#?}");
    let moments = |lines: &[String]| -> Vec<String> {
        let moment = |line: &String| line.split(['=', ' ', '"']).find(|part| part.ends_with('Z')).map(str::to_owned);
        lines.iter().filter_map(moment).collect()
    };
    let moments = [moments(&written[1..]), moments(&told)];
    assert!(moments[0] == moments[1] && moments[0].is_sorted(), "the same lines, in the order of their times");
}

#[test]
fn the_death_of_the_primary_is_one_line_before_any_sentinel_speaks() {
    let stage = stage(1, &[("log.level", "info"), ("retry.backoff_max", "20")]);
    stage.listened();
    let queue = Queue::create(1000).expect("a queue");
    stage.sentinel.watch(kind::LOG, &queue, 3).expect("a watch");
    let client = open(&stage.sentinel, Target::Primary, &[]);
    ok(&client, "SET k v");
    let mut told = Vec::new();
    let mut lines = || {
        told.extend(events_of(&queue).into_iter().filter(|line| line.contains("the primary has failed")));
        told.clone()
    };
    assert!(lines().is_empty());
    stage.p.down();
    for _ in 0..5 {
        let _ = client.cmd_exec(&[b"SET", b"k", b"v"], Default::default(), vigie::client::Timeout::Ms(60));
    }
    let lines = lines();
    let line = lines.first().expect("told at the first failure");
    assert!(line.contains(&stage.p.addr()) && line.contains("\"warning\""), "{line}");
    assert_eq!(lines.len(), 1, "not for each connection: {lines:?}");
    stage.p.up();
    let serves = eventually_some("it serves again", SOON, || {
        let _ = client.cmd_exec(&[b"SET", b"k", b"v"], Default::default(), vigie::client::Timeout::Ms(60));
        events_of(&queue).into_iter().find(|line| line.contains("the primary serves again"))
    });
    assert!(serves.contains(&stage.p.addr()) && serves.contains("\"after_ms\":"), "{serves}");
}

#[test]
fn a_primary_that_hangs_is_told_before_any_sentinel_speaks_and_once_that_it_serves_again() {
    let d = Deployment::new("log-hang").replicas(0).sentinels(1).down_after(60_000).start();
    let log = LogFile::in_dir(d.dir(), "vigie.log");
    let uri = format!("redis-sentinel://{}/{SERVICE}", d.sentinel_addrs().join(","));
    let config = config(&[("uri", &uri), ("log.level", "warning"), ("log.fd", &log.fd())]);
    let sentinel = Sentinel::create(config.settings().expect("settings"), None).expect("a handle");
    let client = open(&sentinel, Target::Primary, &[]);
    ok(&client, "SET k v");
    let primary = d.primary_node(SERVICE);
    let node = format!("node={}", primary.addr());
    let hangs = ["level=warning", "target=primary", "message=\"the primary does not answer", &node, "silent_ms="];
    let serves = ["level=warning", "target=primary", "message=\"the primary serves again\"", &node, "after_ms="];
    let mut from = 0;
    for _ in 0..2 {
        primary.stop();
        let call = spawn({
            let client = Arc::clone(&client);
            move || cmd(&client, "GET k").is_ok()
        });
        let at = log.find(from, &hangs);
        primary.cont();
        assert!(call.recv_timeout(SOON).expect("an answer"));
        from = log.find(at, &serves) + 1;
    }
    let lines = log.lines();
    let told = lines.iter().filter(|line| line.contains("target=primary")).count();
    assert_eq!(told, 4, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("target=fence")), "{lines:#?}");
}

#[test]
fn an_aborted_failover_and_a_reboot_are_warnings_that_say_what_to_do() {
    let stage = stage(1, &[("log.level", "warning")]);
    stage.listened();
    let queue = Queue::create(1000).expect("a queue");
    stage.sentinel.watch(kind::LOG, &queue, 3).expect("a watch");
    stage.begin(0);
    stage.abort(0, "not-elected");
    stage.begin(0);
    stage.abort(0, "no-good-slave");
    stage.word(0, "+reboot");
    stage.word(0, "+kit-end");
    stage.told.wait_word("+kit-end");
    let told: Vec<_> = events_of(&queue).into_iter().filter(|line| line.contains("\"notice\"")).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("a failover was aborted") && told[0].contains("replica-priority"), "{told:#?}");
    assert!(told[1].contains("a server was restarted") && told[1].contains("+reboot"), "{told:#?}");
}

#[test]
fn a_level_admits_its_lines_and_what_is_more_important_and_off_admits_none() {
    let stage = stage(1, &[]);
    stage.listened();
    let queue = Queue::create(100).expect("a queue");
    stage.sentinel.watch(kind::LOG, &queue, 3).expect("a watch");
    let mut turn = 0;
    let mut told_at = |level: &str| {
        stage.sentinel.configure("log.level", level).expect("it can be changed");
        events_of(&queue);
        turn += 1;
        stage.begin(0);
        stage.abort(0, "not-elected");
        let end = format!("+kit-end-{turn}");
        stage.word(0, &end);
        stage.told.wait_word(&end);
        let told = events_of(&queue);
        let count = |word: &str| told.iter().filter(|line| line.contains(&format!("\"level\":\"{word}\""))).count();
        [count("error"), count("warning"), count("info")]
    };
    assert_eq!(told_at("off"), [0, 0, 0]);
    assert_eq!(told_at("error"), [0, 0, 0]);
    let [error, warning, info] = told_at("warning");
    assert!(error == 0 && warning >= 2 && info == 0, "{error} {warning} {info}");
    let [_, warning, info] = told_at("info");
    assert!(warning >= 2 && info >= 1, "{warning} {info}");
    assert_eq!(told_at("off"), [0, 0, 0]);
}

/// What a thread has read of a pipe so far.
struct Reading(Arc<Mutex<String>>, std::thread::JoinHandle<()>);

impl Reading {
    fn of(mut read: File) -> Reading {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reads = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(got @ 1..) = read.read(&mut some) {
                shared.lock().expect("no panic").push_str(std::str::from_utf8(&some[..got]).expect("text"));
            }
        });
        Reading(text, reads)
    }

    /// Nobody has the other end any more.
    #[track_caller]
    fn until_end(&self) {
        eventually("the end of the pipe", SOON, || self.1.is_finished());
    }

    /// The lines, once this is in one of them.
    #[track_caller]
    fn until(&self, part: &str) -> Vec<String> {
        let text = || self.0.lock().expect("no panic").trim_start_matches('.').to_owned();
        eventually(part, SOON, || text().contains(part) && text().ends_with('\n'));
        text().lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_pipe_that_nobody_reads_delays_no_failover() {
    let (read, write) = full_pipe();
    let fd = write.as_raw_fd().to_string();
    let stage = stage(3, &[("log.level", "info"), ("log.fd", &fd), ("log.format", "json")]);
    stage.listened();
    stage.begin(0);
    stage.select(0);
    stage.told.wait_fence(true, "+try-failover");
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    stage.told.wait_fence(false, "switched");
    // Read at last, all of it is there.
    let told = Reading::of(read).until("writes pass again");
    assert!(told.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{told:#?}");
    for message in ["the log begins", "writes are held back", "the service has another primary"] {
        assert!(told.iter().any(|line| line.contains(message)), "{message} in {told:#?}");
    }
}

#[test]
fn lines_that_nobody_reads_are_counted_in_their_place() {
    const LINES: usize = 20_000;
    let (read, write) = full_pipe();
    let settings = LogSettings { level: LogLevel::Info, fd: Some(write.as_raw_fd()), format: LogFormat::Text };
    let log = Log::new(&settings, Some(Kept::of(write.as_raw_fd()).expect("it is open")), drop);
    for number in 0..LINES {
        log.write(lines::PROBE, &|out| {
            out.text("number").int(number as i64);
        });
    }
    let told = Reading::of(read);
    let count = |line: &str| line.split("count=").nth(1).map(|count| count.parse::<usize>().expect("a number"));
    let dropped = told.until("lines were dropped").iter().find_map(|line| count(line)).expect("the count");
    log.write(lines::PROBE, &|out| {
        out.text("number").text("last");
    });
    let all = told.until("number=last");
    let kept: Vec<&String> = all.iter().filter(|line| line.contains("number=") && !line.contains("last")).collect();
    assert!(dropped > 0 && kept.len() + dropped == LINES, "{} and {dropped}", kept.len());
    // The oldest ones are kept: they have the cause.
    assert!(kept.iter().enumerate().all(|(number, line)| line.ends_with(&format!("number={number}"))), "{all:#?}");
    assert!(count(&all[kept.len()]).is_some(), "in their place: {:?}", all[kept.len()]);
    log.end().wait();
    log.write(lines::PROBE, &|out| {
        out.text("number").text("late");
    });
    assert!(
        !told.until("number=last").iter().any(|line| line.contains("late")),
        "the descriptor is the program's again"
    );
}

#[test]
fn a_descriptor_that_cannot_be_written_to_is_refused_by_name() {
    let (read, _write) = full_pipe();
    for fd in [read.as_raw_fd().to_string(), i32::MAX.to_string()] {
        let settings = config(&[("uri", "redis://127.0.0.1:1"), ("log.fd", &fd)]).settings().expect("settings");
        let error = fails(Status::Config, Sentinel::create(settings, None));
        assert!(error.message().contains(&format!("option \"log.fd\": {fd} is no descriptor")), "{error}");
    }
}

#[test]
fn lines_go_to_the_file_that_was_set_also_when_its_number_stands_for_another_one() {
    let [(first, write), (second, other)] = [pipe(), pipe()];
    let fd = write.as_raw_fd().to_string();
    let config = config(&[("uri", "redis://127.0.0.1:1"), ("log.level", "debug"), ("log.fd", &fd)]);
    let sentinel = Sentinel::create(config.settings().expect("settings"), None).expect("a handle");
    let (first, second) = (Reading::of(first), Reading::of(second));
    first.until("\"the log begins\"");
    // SAFETY: both are open; the number of the first pipe stands for the second one from now on.
    assert!(unsafe { libc::dup2(other.as_raw_fd(), write.as_raw_fd()) } >= 0);
    sentinel.configure("log.format", "json").expect("it can be changed");
    first.until("\"message\":\"the log begins\"");
    // Set again, it stands for what it is now.
    sentinel.configure("log.fd", &fd).expect("it is open");
    assert_eq!(second.until("the log begins").len(), 1, "nothing came before");
    first.until_end();
    sentinel.close();
    drop((write, other));
    second.until_end();
}

#[test]
fn a_file_that_hangs_holds_up_no_close_and_keeps_no_thread_awake() {
    let (master, slave) = terminal();
    let settings = LogSettings { level: LogLevel::Info, fd: Some(slave.as_raw_fd()), format: LogFormat::Text };
    let log = Log::new(&settings, Some(Kept::of(slave.as_raw_fd()).expect("it is open")), drop);
    let hangs = || {
        log.write(lines::PROBE, &|out| {
            out.text("text").text(&"x".repeat(1500));
        });
        let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
        tasks.flatten().any(|task| {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            read("comm").starts_with("vigie-dialer") && read("syscall").starts_with(&format!("{} ", libc::SYS_write))
        })
    };
    // Seen twice: one that goes on is not in the call for long.
    eventually("a write hangs", SOON, || {
        hangs() && {
            std::thread::yield_now();
            hangs()
        }
    });
    let (done, ended) = std::sync::mpsc::channel();
    let (one, other) = (Arc::clone(&log), done.clone());
    std::thread::spawn(move || {
        let before = thread_cpu();
        let off = LogSettings { fd: None, ..settings };
        one.configure(&off, None).wait();
        one.end().wait();
        other.send(thread_cpu() - before).expect("the test waits");
    });
    let used = ended.recv_timeout(SOON).expect("it does not wait for the file");
    assert!(used < Duration::from_millis(40), "it sleeps meanwhile: {used:?}");
    drop(log);
    // The write ends when the terminal is gone, and what was kept with it.
    drop((master, slave));
}

/// The time that this thread has used the processor.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes into memory of this frame.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A terminal whose output nobody reads: there, a write waits after a look that said there is room.
fn terminal() -> (File, File) {
    let (mut master, mut slave) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: writes two descriptors into memory of this frame; the other outputs are not wanted.
    assert_eq!(unsafe { libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), none.cast()) }, 0);
    // SAFETY: both were just opened, and nobody else knows them.
    [master, slave].map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) })).into()
}

fn pipe() -> (File, File) {
    let mut fds = [-1; 2];
    // SAFETY: writes two descriptors into memory of this frame.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: both were just opened, and nobody else knows them.
    fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) })).into()
}

/// A pipe without room for one byte more.
fn full_pipe() -> (File, File) {
    let (read, write) = pipe();
    let set = |flags: i32| {
        // SAFETY: the descriptor is open; the call takes a plain number.
        assert_eq!(unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETFL, flags) }, 0);
    };
    set(libc::O_NONBLOCK);
    for size in [4096, 1] {
        while (&write).write(&vec![b'.'; size]).is_ok() {}
    }
    set(0);
    (read, write)
}

/// Each step of each server is answered with an error, and with a reply of another kind, that repeats both passwords.
#[test]
fn what_a_server_repeats_of_a_password_is_in_no_message_event_line_or_topology() {
    let said = format!("{NODE_SECRET} {SENTINEL_SECRET} {NODE_SECRET}");
    let wrong = || Value::Array(vec![Value::bulk(&said), Value::bulk(format!("h {said}")), Value::bulk(&said)]);
    let nodes = ["HELLO", "AUTH", "CLIENT SETNAME", "SELECT", "ROLE", "INFO", "SET k v", "EVAL", "SUBSCRIBE", "PING"];
    let sentinels = ["HELLO", "AUTH", "ROLE", "SENTINEL MYID", "SENTINEL GET-MASTER-ADDR-BY-NAME", "SENTINEL MASTER"];
    let others = ["SENTINEL REPLICAS", "SENTINEL SENTINELS", "INFO", "PSUBSCRIBE", "PING"];
    let of_sentinels = sentinels.into_iter().chain(others).map(|step| (step, false));
    let steps = nodes.into_iter().map(|step| (step, true)).chain(of_sentinels);
    std::thread::scope(|scope| {
        for (step, of_node) in steps {
            let (said, wrong) = (&said, &wrong);
            scope.spawn(move || {
                let codes =
                    ["ERR", "NOPERM", "WRONGPASS", NODE_SECRET].map(|code| Fault::Error(format!("{code} {said}")));
                for fault in codes.into_iter().chain([Fault::Reply(wrong()), Fault::Reply(Value::bulk(said))]) {
                    let text = all_that_is_said(step, of_node, fault);
                    let leak = [NODE_SECRET, SENTINEL_SECRET].into_iter().find(|secret| text.contains(secret));
                    assert!(leak.is_none(), "{step}, of a node: {of_node}: {leak:?} in {text}");
                }
            });
        }
    });
}

/// Everything that a program can read while a server answers a step like this.
fn all_that_is_said(step: &str, of_node: bool, fault: Fault) -> String {
    let primary = Scripted::primary();
    let watch = Scripted::sentinel(SERVICE, &primary.addr());
    primary.state(|state| state.door.login = Some(Login::password(NODE_SECRET)));
    watch.state(|state| state.door.login = Some(Login::password(SENTINEL_SECRET)));
    match of_node {
        true => primary.fault(step, fault),
        false => watch.fault(step, fault),
    }
    let uri = format!("redis-sentinel://:{NODE_SECRET}@{}/{SERVICE}?sentinel.password={SENTINEL_SECRET}", watch.addr());
    let options =
        [("uri", uri.as_str()), ("log.level", "debug"), ("db", "1"), ("client.name", "c"), ("timeout.call", "300")];
    let sentinel = Sentinel::create(config(&options).settings().expect("settings"), None).expect("a handle");
    let queue = Queue::create(10_000).expect("a queue");
    sentinel.watch(kind::LOG | kind::CONNECTION | vigie::topology::WATCHABLE, &queue, 3).expect("a watch");
    let client = open(&sentinel, Target::Split, &[]);
    let mut said = String::new();
    for command in ["SET k v", "GET k", "EVAL x 0"] {
        said +=
            &cmd(&client, command).err().map(|error| format!("{error}{}\n", error.server_code())).unwrap_or_default();
    }
    said += &client
        .session(None)
        .and_then(|session| cmd(&session, "SET k v"))
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default();
    let asked = sentinel.refresh(Some(SERVICE), vigie::time::Deadline::after(Duration::from_millis(300)));
    said += &asked.err().map(|error| error.to_string()).unwrap_or_default();
    let topology = sentinel.topology(Some(SERVICE)).expect("a topology").to_json().expect("JSON");
    said += &text(&topology);
    said += &text(&vigie::client::stats_of(&sentinel).expect("statistics").to_json().expect("JSON"));
    drop(client);
    sentinel.close();
    let mut events = Vec::new();
    queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
    let told = events.into_iter().map(|event| match event.outcome {
        Ok(reply) => reply.map(|reply| json(&reply)).unwrap_or_default(),
        Err(error) => error.to_string(),
    });
    said + &told.collect::<Vec<_>>().join("\n")
}

//! Feature rows 1 to 21: what is configured, and what that changes on the wire.

use crate::api;
use crate::support;

use api::*;
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::time::Duration;
use support::*;
use vigie::client::{Client, Target, Timeout};
use vigie::config::Config;
use vigie::error::{Error, Status, flags};
use vigie::time::Deadline;
use vigie::topology::Sentinel;

const SHORT: Timeout = Timeout::Ms(700);

/// A primary with one Sentinel.
fn small(name: &str) -> deployment::Builder {
    Deployment::new(name).replicas(0).sentinels(1).quorum(1)
}

fn refused(key: &str, value: &str) -> Error {
    let mut config = Config::new();
    match config.set(key, value).and_then(|()| config.settings()) {
        Ok(_) => panic!("{key} = {value} is taken"),
        Err(error) => error,
    }
}

#[test]
fn row_1_several_sentinel_addresses() {
    let d = small("row1").start();
    let (a, b) = (refuse(), refuse());
    let addrs = [a.addr(), b.addr(), d.sentinel_addrs()[0].clone()];
    let client = client(&connect(&uri(&addrs), &[]), Target::Primary);
    assert_eq!(text(&cmd(&client, &["SET", "k", "v"]), 0), "OK");
    assert_eq!(d.primary_node(SERVICE).cmd(&["GET", "k"]).text(), "v");
}

#[test]
fn row_2_sentinel_addresses_as_url() {
    let d = small("row2").sentinel_password("watch:pw").start();
    let addr = &d.sentinel_addrs()[0];
    let mut config = Config::new();
    config.set("sentinel.addrs", &format!("redis://:watch%3Apw@{addr}")).expect("a URL of a Sentinel");
    config.set("service", SERVICE).expect("a service");
    let sentinel = Sentinel::create(config.settings().expect("settings"), None).expect("a handle");
    assert_eq!(text(&cmd(&client(&sentinel, Target::Primary), &["SET", "k", "v"]), 0), "OK");
    for (bad, named) in [("redis://:secret@h:70000", "h:70000"), ("http://h:1", "http://h"), ("redis://:secret@", "")] {
        let error = refused("sentinel.addrs", &format!("{addr},{bad}"));
        assert_eq!(error.status(), Status::Config, "{error:?}");
        let message = error.message();
        assert!(message.contains("entry 2") && message.contains(named) && !message.contains("secret"), "{error:?}");
    }
    // The scheme with TLS is never replaced by plain text, and does not mix with it.
    let error = refused("sentinel.addrs", &format!("{addr},rediss://:secret@h:26379"));
    assert!(error.status() == Status::Config && error.message().contains("TLS"), "{error:?}");
    assert!(error.message().contains("entry 2") && !error.message().contains("secret"), "{error:?}");
    let described = api::config("redis-sentinel://h", &[("sentinel.addrs", "rediss://:secret@h:26379")]).describe();
    let value = |key| described.iter().find(|row| row.key == key).map(|row| row.value.clone()).unwrap_or_default();
    assert_eq!(
        (value("sentinel.tls"), value("sentinel.addrs"), value("tls")),
        ("on".into(), "h:26379".into(), "off".into())
    );
}

#[test]
fn row_3_sentinel_list_hygiene() {
    let node = Scripted::primary();
    let fake = Scripted::sentinel(SERVICE, &node.addr());
    let five = vec![fake.addr(); 5];
    let sentinel = connect(&uri(&five), &[("monitor", "off")]);
    let client = client(&sentinel, Target::Primary);
    assert_eq!((fake.accepted(), node.accepted()), (0, 0), "opening does no I/O");
    cmd(&client, &["SET", "k", "v"]);
    assert_eq!((fake.accepted(), fake.peak()), (1, 1));
    assert_eq!(sentinels(&client.topology().expect("known")).len(), 1);

    let mut messages = BTreeSet::new();
    for (key, value) in [("sentinel.addrs", ""), ("uri", "redis-sentinel:///s"), ("db", "0")] {
        let error = refused(key, value);
        assert_eq!(error.status(), Status::Config, "{error:?}");
        messages.insert(error.message().to_owned());
    }
    let error = refused("sentinel.addrs", &format!("{},h:70000", fake.addr()));
    assert!(error.status() == Status::Config && error.message().contains("h:70000"), "{error:?}");
    messages.insert(error.message().to_owned());
    let nameless = connect(&format!("redis-sentinel://{}", fake.addr()), &[]);
    for name in [None, Some("")] {
        let error = Client::open(&nameless, name, Target::Primary, None).err().expect("no service is named");
        assert!(error.status() == Status::Config && error.message().contains("service"), "{error:?}");
        messages.insert(error.message().to_owned());
    }
    assert_eq!(messages.len(), 5, "each fault has its own sentence: {messages:#?}");
    assert_eq!((fake.accepted(), node.accepted()), (1, 1), "no fault did any I/O");
}

#[test]
fn row_4_unknown_option_is_rejected_by_name() {
    let error = refused("tcp_keepalive", "1");
    assert!(error.status() == Status::Config && error.message().contains("\"tcp_keepalive\""), "{error:?}");
    assert!(error.message().contains("tcp.keepalive"), "the nearest one is named: {error:?}");
    let error = refused("uri", "redis-sentinel://h/s?tcp_keepalive=1");
    assert!(error.status() == Status::Config && error.message().contains("\"tcp_keepalive\""), "{error:?}");

    let page = include_str!("../../CONFIGURATION.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeMap<&str, String> =
        rows.map(|(key, rest)| (key, rest.split(" | ").nth(2).unwrap_or_default().trim().replace('`', ""))).collect();
    let described: BTreeSet<&str> = Config::new().describe().iter().map(|option| option.key).collect();
    assert_eq!(documented.keys().copied().collect::<BTreeSet<_>>(), described);
    let own = [("uri", "redis-sentinel://h1,h2/s"), ("sentinel.addrs", "h1,h2"), ("address.map", "a:1=b:2")];
    let own: BTreeMap<&str, &str> = own.into_iter().chain([("auth.username", "u"), ("auth.password", "p")]).collect();
    let mut whole = Config::new();
    // The URI comes first, because it replaces the options that it names.
    whole.set("uri", own["uri"]).expect("a URI");
    for (key, default) in documented.iter().filter(|(key, _)| **key != "uri") {
        let value = own.get(key).copied().unwrap_or(default);
        whole.set(key, value).unwrap_or_else(|error| panic!("{key} = {value}: {error:?}"));
    }
    let settings = whole.settings().unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((settings.sentinel.addrs.len(), settings.client.auth.username.as_deref()), (2, Some("u")));
    let sentinel = Sentinel::create(settings, None).expect("a handle with every option set");
    Client::open(&sentinel, Some("s"), Target::Split, None).expect("a client with every option set");
}

#[test]
fn row_5_configurations_are_neither_changed_nor_shared() {
    let d = small("row5").start();
    let node = d.primary_node(SERVICE);
    let shown = |config: &Config| format!("{:?}", config.describe());
    let base = config(&d.sentinel_uri(), &[("client.name", "row5"), ("timeout.call", "4s")]);
    let mut wide = Config::new();
    let mut narrow = Config::new();
    for (config, options) in [
        (&mut wide, [("db", "1"), ("pool.min", "3"), ("pool.max", "5")]),
        (&mut narrow, [("db", "2"), ("pool.min", "0"), ("pool.max", "2")]),
    ] {
        options.iter().for_each(|(key, value)| config.set(key, value).expect("an option"));
    }
    let before = [shown(&base), shown(&wide), shown(&narrow)];
    let sentinel = Sentinel::create(base.settings().expect("settings"), None).expect("a handle");
    let settings = sentinel.settings();
    let open = |config: &Config| Client::open(&sentinel, None, Target::Primary, Some(config)).expect("a client");
    let clients = [open(&wide), open(&narrow)];
    let args: Vec<String> = ["INCR", "n"].map(String::from).to_vec();
    for _ in 0..500 {
        for client in &clients {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            cmd(client, &args);
        }
    }
    assert_eq!(before, [shown(&base), shown(&wide), shown(&narrow)]);
    assert_eq!(args, ["INCR", "n"]);
    assert!(*settings == *sentinel.settings());
    // A configuration that is changed after the handle was created changes nothing in it.
    wide.set("db", "7").expect("an option");
    for (client, db) in clients.iter().zip([1, 2]) {
        assert_eq!(text(&cmd(client, &["GET", "n"]), 0), "500", "both had a database of their own");
        let list = || node.clients_named("row5").into_iter().filter(|info| info.db == db).count();
        let wanted = if db == 1 { 3 } else { 1 };
        eventually(&format!("{wanted} connections in database {db}"), Duration::from_secs(3), || list() == wanted);
    }
    assert!(node.clients_named("row5").iter().all(|info| [1, 2].contains(&info.db)));
}

#[test]
fn row_6_db_index_on_every_connection() {
    let d = Deployment::new("row6").start();
    let options = [("db", "9"), ("pool.min", "5"), ("pool.max", "5"), ("client.name", "row6")];
    let sentinel = connect(&d.sentinel_uri(), &options);
    let (writer, reader) = (client(&sentinel, Target::Primary), client(&sentinel, Target::Replica));
    let all_in_9 = |node: &Node, count: usize| {
        eventually(&format!("{count} connections in database 9 on {}", node.name()), Duration::from_secs(5), || {
            let list = node.clients_named("row6");
            list.len() == count && list.iter().all(|info| info.db == 9)
        });
    };
    cmd(&writer, &["SET", "k", "v"]);
    let old = d.primary_node(SERVICE);
    all_in_9(&old, 5);
    assert_eq!(old.info("keyspace").keys().collect::<Vec<_>>(), ["db9"]);
    let replicas = d.replica_nodes(SERVICE);
    eventually("both replicas are read from, in database 9", Duration::from_secs(5), || {
        (0..4).all(|_| text(&cmd(&reader, &["GET", "k"]), 0) == "v")
    });
    replicas.iter().for_each(|replica| all_in_9(replica, 5));

    d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    d.hurry();
    wait_served_by(&writer, new.port());
    cmd(&writer, &["SET", "after", "v"]);
    assert_eq!(text(&cmd(&writer, &["GET", "after"]), 0), "v");
    eventually("five connections in database 9 on the new primary", Duration::from_secs(5), || {
        let list = new.clients_named("row6");
        list.len() >= 5 && list.iter().all(|info| info.db == 9)
    });
    assert_eq!(new.info("keyspace").keys().collect::<Vec<_>>(), ["db9"]);
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn row_7_data_node_password() {
    let password = "pä/ss@w:r#d%41?&=,ö漢";
    let d = Deployment::new("row7").replicas(1).password(password).start();
    let hosts = d.sentinel_addrs().join(",");
    let by_uri = |login: &str| connect(&format!("redis-sentinel://{login}{hosts}/{SERVICE}"), &[]);
    let by_option = connect(&uri(&d.sentinel_addrs()), &[("auth.password", password)]);
    for sentinel in [by_uri(&format!(":{}@", percent(password))), by_option] {
        assert_eq!(text(&cmd(&client(&sentinel, Target::Primary), &["SET", "k", "v"]), 0), "OK");
        let mut own = Config::new();
        own.set("replica.fallback", "error").expect("an option");
        let reader = Client::open(&sentinel, None, Target::Replica, Some(&own)).expect("a client");
        assert_eq!(text(&cmd(&reader, &["PING"]), 0), "PONG");
    }
    assert!(d.replica_nodes(SERVICE)[0].commandstats().contains_key("ping"));
    for login in ["", ":wrong@", ":p%C3%A4@"] {
        let sentinel = by_uri(login);
        for target in [Target::Primary, Target::Replica] {
            // Opening is lazy; the first use fails, and at once: waiting would not help.
            let client = client(&sentinel, target);
            let (error, took, pace) = paced(|| fails(&client, &["GET", "k"], Timeout::Default));
            assert_eq!(error.status(), Status::Auth, "{login} {target:?}: {error:?}");
            assert!(!error.has(flags::RETRYABLE) && !error.message().contains("wrong:"), "{error:?}");
            pace.judge("a refused login", took, Duration::from_secs(1));
        }
    }
}

#[test]
fn row_9_separate_sentinel_credentials() {
    let (data, watch) = ("data-pw-1", "watch-pw-2");
    let d = small("row9").password(data).sentinel_password(watch).start();
    let options = [("auth.password", data), ("sentinel.password", watch)];
    let real = connect(&uri(&d.sentinel_addrs()), &options);
    assert_eq!(text(&cmd(&client(&real, Target::Primary), &["SET", "k", "v"]), 0), "OK");

    let node = Scripted::primary();
    node.state(|state| state.door.login = Some(client::Login::password(data)));
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    // One server needs the password of the Sentinels, one needs none, one needs another that is not configured.
    fakes[0].state(|state| state.door.login = Some(client::Login::password(watch)));
    fakes[2].state(|state| state.door.login = Some(client::Login::password("other")));
    for options in [&options[..], &options[..1]] {
        let sentinel = connect(&uri_of(&fakes), options);
        assert_eq!(text(&cmd(&client(&sentinel, Target::Primary), &["SET", "k", "v"]), 0), "OK");
    }
    fakes.iter().for_each(|fake| assert!(fake.count("*") > 0 && !fake.saw(data), "{:?}", fake.commands()));
    assert!(fakes[0].saw(watch) && !node.saw(watch));
}

#[test]
fn row_13_connect_timeout_is_separate_for_sentinel_and_data() {
    let hole = blackhole();
    // The Sentinel does not answer the connection: timeout.sentinel counts.
    let sentinel = connect(&uri(&[hole.addr()]), &[("timeout.sentinel", "1000"), ("timeout.connect", "8000")]);
    let error = about(1000, || refresh(&sentinel).expect_err("no Sentinel"));
    assert!(error.status() == Status::NoSentinel && error.message().contains(&hole.addr()), "{error:?}");
    // The data node does not: timeout.connect counts.
    let fakes = Scripted::sentinels(3, SERVICE, &hole.addr());
    let sentinel = connect(&uri_of(&fakes), &[("timeout.sentinel", "8000"), ("timeout.connect", "1000")]);
    let error = about(1000, || refresh(&sentinel).expect_err("no primary"));
    assert!(error.status() == Status::NoPrimary && error.message().contains(&hole.addr()), "{error:?}");
}

#[test]
fn row_14_command_timeout() {
    let d = small("row14").start();
    let client = client(&connect(&d.sentinel_uri(), &[("timeout.call", "500")]), Target::Primary);
    cmd(&client, &["SET", "k", "v"]);
    let node = d.primary_node(SERVICE);
    node.stop();
    for (args, budget, ms, may_have_run) in [
        (&["SET", "k", "w"][..], Timeout::Default, 500, Some(true)),
        // A read may be sent again when the silent connection is given up; then it does not matter.
        (&["GET", "k"], Timeout::Default, 500, None),
        // By now the connection was given up, and another cannot be opened: this call was certainly not executed.
        (&["SET", "k", "x"], Timeout::Ms(300), 300, Some(false)),
    ] {
        let (error, took, pace) = paced(|| fails(&client, args, budget));
        assert_eq!(error.status(), Status::Timeout, "{args:?}: {error:?}");
        assert!(took >= Duration::from_millis(ms), "{args:?} took {took:?}");
        pace.judge(args[0], took, Duration::from_millis(ms + 50));
        let flagged = error.has(flags::MAYBE_EXECUTED);
        assert!(may_have_run.is_none_or(|may| may == flagged), "{args:?}: {error:?}");
    }
    node.cont();
    eventually("the client goes on", Duration::from_secs(5), || try_cmd(&client, &["PING"], Timeout::Default).is_ok());
}

#[test]
fn row_15_whole_discovery_has_one_deadline() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    for pattern in ["@accept", "SENTINEL"] {
        fakes.iter().for_each(|fake| fake.fault(pattern, Fault::Stall));
        let sentinel = connect(&uri_of(&fakes), &[("timeout.sentinel", "800")]);
        let error = about(800, || refresh(&sentinel).expect_err("nobody answers"));
        assert_eq!(error.status(), Status::NoSentinel, "{error:?}");
        assert!(fakes.iter().all(|fake| error.message().contains(&fake.addr())), "{error:?}");
        let client = client(&sentinel, Target::Primary);
        let error = at_most(1100, || fails(&client, &["GET", "k"], Timeout::Ms(1000)));
        assert_eq!(error.status(), Status::NoSentinel, "{error:?}");
        // Less time than one Sentinel may take: the call's own deadline applies nevertheless.
        let error = at_most(220, || fails(&client, &["GET", "k"], Timeout::Ms(200)));
        assert!([Status::Timeout, Status::NoSentinel].contains(&error.status()), "{error:?}");
        fakes.iter().for_each(|fake| fake.clear_faults());
    }
}

/// The sockets of this process that are connected to a port.
fn sockets_to(port: u16, mut look: impl FnMut(SockRef<'_>)) -> usize {
    let numbers = proc::descriptors().into_iter().filter(|(_, name)| name.starts_with("socket:"));
    let mut count = 0;
    for (fd, _) in numbers {
        // SAFETY: if another test has closed it meanwhile the calls below fail, or they concern a socket that is not looked at further.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = SockRef::from(&fd);
        let peer = socket.peer_addr().ok().and_then(|addr| addr.as_socket());
        if peer.is_some_and(|peer| peer.port() == port) {
            count += 1;
            look(socket);
        }
    }
    count
}

#[test]
fn row_16_tcp_keepalive_options() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    let options = [
        ("tcp.keepalive_idle", "1s"),
        ("tcp.keepalive_interval", "3s"),
        ("tcp.keepalive_count", "5"),
        ("tcp.user_timeout", "7s"),
        ("timeout.sentinel", "3s"),
        ("monitor", "off"),
        ("pool.min", "3"),
    ];
    let sentinel = connect(&uri_of(&fakes), &options);
    let client = client(&sentinel, Target::Primary);
    cmd(&client, &["SET", "k", "v"]);
    let check = |socket: SockRef<'_>| {
        let secs = |value: std::io::Result<Duration>| value.expect("an option").as_secs();
        assert!(socket.keepalive().expect("an option") && socket.tcp_nodelay().expect("an option"));
        assert_eq!(secs(socket.tcp_keepalive_time()), 1);
        assert_eq!(secs(socket.tcp_keepalive_interval()), 3);
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 5);
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(7)));
    };
    eventually("three connections", Duration::from_secs(3), || node.connections() == 3);
    assert_eq!(sockets_to(node.port(), check), 3);
    // The connection to a Sentinel exists while it is asked.
    fakes[0].fault("SENTINEL MYID", Fault::Stall);
    fakes[1].fault("SENTINEL MYID", Fault::Stall);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| refresh(&sentinel));
        fakes[0].wait_count("SENTINEL MYID", 2, Duration::from_secs(3));
        let seen = sockets_to(fakes[0].port(), check);
        fakes.iter().for_each(|fake| fake.clear_faults());
        assert_eq!(seen, 1);
        asking.join().expect("no panic").expect("found in the end");
    });
}

#[test]
fn row_19_min_other_sentinels() {
    let d = Deployment::new("row19").replicas(1).start();
    let open = |min: &str| connect(&d.sentinel_uri(), &[("sentinel.min_others", min)]);
    for target in [Target::Primary, Target::Replica] {
        assert_eq!(text(&cmd(&client(&open("2"), target), &["PING"]), 0), "PONG");
        let error = fails(&client(&open("3"), target), &["PING"], SHORT);
        assert_eq!(error.status(), Status::NoPrimary, "{target:?}: {error:?}");
        let message = error.message();
        assert!(message.contains("2 other") && message.contains("sentinel.min_others asks for 3"), "{error:?}");
    }
    // Reachable Sentinels count, not those that are only known.
    d.sentinel_nodes()[2].kill();
    for target in [Target::Primary, Target::Replica] {
        assert_eq!(text(&cmd(&client(&open("1"), target), &["PING"]), 0), "PONG");
        let error = fails(&client(&open("2"), target), &["PING"], SHORT);
        let reason = error.message().contains("1 other") && error.message().contains("asks for 2");
        assert!(error.status() == Status::NoPrimary && reason, "{target:?}: {error:?}");
    }
}

#[test]
fn row_20_default_timeout_bears_a_slow_sentinel() {
    let node = Scripted::primary();
    let fake = Scripted::sentinel(SERVICE, &node.addr());
    let proxy = Proxy::start(&fake.addr());
    proxy.delay(Way::Down, Duration::from_millis(400));
    // The rest of the timeout is a reserve for a loaded machine.
    let client = eventually_some("it answers", Duration::from_secs(10), || {
        let settings = config(&uri(&[proxy.addr()]), &[("pool.eager", "true")]).settings().expect("settings");
        let sentinel = Sentinel::create(settings, Some(Deadline::after(Duration::from_secs(5)))).ok()?;
        Client::open(&sentinel, None, Target::Primary, None).ok()
    });
    assert_eq!(text(&cmd(&client, &["PING"]), 0), "PONG");
}

#[test]
fn row_21_missing_service_is_distinct() {
    let d = small("row21").start();
    let sentinel = connect(&d.sentinel_uri(), &[]);
    for target in [Target::Primary, Target::Replica, Target::Split] {
        let client = Client::open(&sentinel, Some("nobody"), target, None).expect("a client");
        let (error, took, pace) = paced(|| fails(&client, &["GET", "k"], Timeout::Default));
        assert!(error.status() == Status::UnknownService && error.message().contains("nobody"), "{error:?}");
        pace.judge("what waiting would not help", took, Duration::from_millis(500));
    }
    let error = sentinel.refresh(Some("nobody"), Deadline::after(Duration::from_secs(5))).expect_err("unknown");
    assert_eq!(error.status(), Status::UnknownService, "{error:?}");

    let (a, b) = (refuse(), refuse());
    let sentinel = connect(&uri(&[a.addr(), b.addr()]), &[]);
    for target in [Target::Primary, Target::Replica, Target::Split] {
        let error = at_most(770, || fails(&client(&sentinel, target), &["GET", "k"], SHORT));
        assert_eq!(error.status(), Status::NoSentinel, "{target:?}: {error:?}");
        assert!(error.has(flags::RETRYABLE) && error.message().contains(&a.addr()), "{error:?}");
    }
    let settings = |addr: String| config(&uri(&[addr]), &[]).settings().expect("settings");
    let soon = Some(Deadline::after(Duration::from_millis(300)));
    let error = Sentinel::create(settings(a.addr()), soon).expect_err("nobody listens");
    assert_eq!(error.status(), Status::NoSentinel, "{error:?}");
}

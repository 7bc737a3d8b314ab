//! TLS: to data nodes, to Sentinels, to both, by real servers; what goes wrong with it, and what the messages say.

use crate::calls;
use crate::stage::SOON;
use crate::support;

use std::sync::Arc;

use calls::*;
use support::*;
use vigie::client::Client;
use vigie::error::{Status, flags};

fn plan(ca: &Ca, pair: &Pair) -> TlsPlan {
    TlsPlan { ca: ca.file(), pair: pair.clone(), wants_clients: false }
}

/// A plain scripted Sentinel, and a client of the node that it names.
fn client_at(addr: &str, options: &[(&str, &str)]) -> (FakeSentinel, Arc<Client>) {
    let sentinel = told(addr, &[]);
    let options = [&[("tls", "on")], options].concat();
    let client = to_primary(&handle(&sentinel, &options), &[]);
    (sentinel, client)
}

/// The message of a call that fails by TLS, at once and not at its deadline.
#[track_caller]
fn refused(client: &Client) -> String {
    let error = fails(Status::Tls, cmd(client, "SET k v"));
    assert!(!error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{error:?}");
    error.message().to_owned()
}

#[test]
fn row_10_nodes_and_sentinels_that_speak_tls_only() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let pair = ca.local("server");
    let d = Deployment::new("tls").tls(plan(&ca, &pair)).sentinel_tls(plan(&ca, &pair)).start();
    let file = ca.file();
    let both = sentinel_of(&d, &[("tls", "on"), ("sentinel.tls", "on"), ("tls.ca", &file)]);
    let client = to_primary(&both, &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    assert_eq!(ok(&client, "GET k"), "v");
    assert_eq!(d.primary_node(SERVICE).cmd(&["GET", "k"]).text(), "v");
    let uri = format!("redis{}?tls.ca={file}", d.sentinel_uri().strip_prefix("redis").expect("a scheme"));
    let uri = uri.replacen("redis-", "rediss-", 1);
    let by_uri = to_primary(&crate::api::connect(&uri, &[]), &[]);
    assert_eq!(ok(&by_uri, "GET k"), "v");
}

#[test]
fn row_10_tls_nodes_with_a_plain_sentinel_and_the_reverse() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let plan = plan(&ca, &ca.local("server"));
    let nodes = Deployment::new("tls-nodes").replicas(1).sentinels(1).quorum(1).tls(plan.clone()).start();
    let client = to_primary(&sentinel_of(&nodes, &[("tls", "on"), ("tls.ca", &ca.file())]), &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    let sentinels = Deployment::new("tls-watch").replicas(1).sentinels(1).quorum(1).sentinel_tls(plan).start();
    let handle = sentinel_of(&sentinels, &[("sentinel.tls", "on"), ("sentinel.tls.ca", &ca.file())]);
    assert_eq!(ok(&to_primary(&handle, &[]), "SET k v"), "OK");
}

#[test]
fn scenario_54_each_side_has_a_ca_of_its_own_and_one_sentinel_an_expired_certificate() {
    if lacks(Feature::Tls) {
        return;
    }
    let (for_nodes, for_sentinels) = (Ca::new(), Ca::new());
    let d = Deployment::new("two-cas").replicas(0).sentinels(0).tls(plan(&for_nodes, &for_nodes.local("node"))).start();
    let fakes = Scripted::sentinels(3, SERVICE, &d.node("mymaster-0").addr());
    let pairs = [for_sentinels.expired("old"), for_sentinels.local("b"), for_sentinels.local("c")];
    let doors: Vec<_> = fakes.iter().zip(&pairs).map(|(fake, pair)| TlsDoor::open(&fake.addr(), pair)).collect();
    let addrs: Vec<_> = doors.iter().map(TlsDoor::addr).collect();
    let (nodes, sentinels) = (for_nodes.file(), for_sentinels.file());
    let options = [("tls", "on"), ("tls.ca", &*nodes), ("sentinel.tls", "on"), ("sentinel.max_peers", "0")];
    let handle = sentinel_at(&addrs, &[&options[..], &[("sentinel.tls.ca", &sentinels)]].concat());
    let client = to_primary(&handle, &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    // A discovery that two have answered does not wait for the third for long: it is told of when its failure came in time.
    eventually("the third says why", std::time::Duration::from_secs(20), || {
        let topology = crate::api::refresh(&handle).expect("two answer");
        let told = crate::api::sentinels(&topology);
        let old = told.iter().find(|told| told.addr == addrs[0]).expect("it is listed");
        let is_told = old.text.contains("has expired: renew it");
        assert!(is_told || old.state == "skipped", "{old:?}");
        is_told
    });
    // With the nodes' CA for the Sentinels, none is believed.
    let mixed = sentinel_at(&addrs, &options);
    let error = fails(Status::Tls, cmd(&to_primary(&mixed, &[]), "GET k"));
    assert!(
        error.message().contains("set \"sentinel.tls.ca\"") && error.message().contains("(\"tls.ca\" is for"),
        "{error}"
    );
    // Waiting for the first Sentinel ends at once, too.
    let all = addrs.join(",");
    let wanted: Vec<_> = [&[("sentinel.addrs", &*all)][..], &options].concat();
    let settings = config(&wanted).settings().expect("options");
    let created = vigie::topology::Sentinel::create(settings, Some(vigie::time::Deadline::never()));
    fails(Status::Tls, created.map(|_| ()));
}

#[test]
fn a_certificate_that_is_refused_says_what_to_change() {
    let (ca, other) = (Ca::new(), Ca::new());
    let file = ca.file();
    let node = Scripted::primary();
    let cases = [
        (other.local("unknown"), "set \"tls.ca\" to the file with the certificate of its CA"),
        (ca.expired("expired"), "has expired: renew it"),
        (ca.sign("named", 9, Some("subjectAltName=DNS:elsewhere.example")), "is not for 127.0.0.1 but for"),
        (
            ca.sign("common", 9, Some("extendedKeyUsage=serverAuth")),
            "no subjectAltName, and its common name does not count",
        ),
        (ca.sign("first", 9, None), "is of version 1: make one of version 3"),
        (ca.sign("mail", 9, Some("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=clientAuth")), "is not for servers"),
    ];
    for (pair, sentence) in &cases {
        let door = TlsDoor::open(&node.addr(), pair);
        let (_sentinel, client) = client_at(&door.addr(), &[("tls.ca", &file)]);
        let text = refused(&client);
        assert!(text.contains(sentence) && text.contains(&door.addr()), "{}: {text}", pair.cert);
    }
    // The names do not count with `ca`, and nothing does with `none`.
    let serves = |pair: &Pair, options: &[(&str, &str)]| {
        let door = TlsDoor::open(&node.addr(), pair);
        let (_sentinel, client) = client_at(&door.addr(), options);
        cmd(&client, "PING").is_ok()
    };
    let by_ca = [("tls.ca", &*file), ("tls.verify", "ca")];
    assert!(serves(&cases[2].0, &by_ca) && serves(&cases[3].0, &by_ca));
    assert!(!serves(&cases[0].0, &by_ca) && !serves(&cases[1].0, &by_ca));
    assert!(cases.iter().all(|(pair, _)| serves(pair, &[("tls.verify", "none")])));
    let named = [("tls.ca", &*file), ("tls.server_name", "elsewhere.example")];
    assert!(serves(&cases[2].0, &named) && !serves(&ca.local("here"), &named));
}

/// A real primary that speaks TLS only, a scripted plain Sentinel that names it, and options that fit.
fn tls_node(name: &str, ca: &Ca, wants_clients: bool) -> Deployment {
    let plan = TlsPlan { wants_clients, ..plan(ca, &ca.local("server")) };
    Deployment::new(name).replicas(0).sentinels(0).tls(plan).start()
}

#[test]
fn a_client_certificate_that_is_wanted_is_named_and_shown() {
    if lacks(Feature::Tls) {
        return;
    }
    let (ca, other) = (Ca::new(), Ca::new());
    let d = tls_node("wants", &ca, true);
    let (node, file) = (d.node("mymaster-0"), ca.file());
    // TLS 1.3: the server looks at the client's certificate when the client's handshake is over, and its refusal is read later. 1.2: in
    // the handshake.
    let refusal = |options: &[(&str, &str)]| {
        let (_sentinel, client) = client_at(&node.addr(), &[&[("tls.ca", &*file)], options].concat());
        refused(&client)
    };
    let text = refusal(&[]);
    assert!(text.contains("the server wants a client certificate: set \"tls.cert\" and \"tls.key\""), "{text}");
    node.cmd(&["CONFIG", "SET", "tls-protocols", "TLSv1.2"]);
    let text = refusal(&[]);
    assert!(text.contains("client certificate"), "{text}");
    let text = refusal(&[("tls.min_version", "1.3")]);
    assert!(text.contains("does not speak TLS 1.3: set \"tls.min_version\" to 1.2"), "{text}");
    node.cmd(&["CONFIG", "SET", "tls-protocols", ""]);
    let stranger = other.local("stranger");
    let text = refusal(&[("tls.cert", &stranger.cert), ("tls.key", &stranger.key)]);
    assert!(text.contains("does not know the CA of the client certificate"), "{text}");

    let known = ca.local("client");
    let (_sentinel, client) =
        client_at(&node.addr(), &[("tls.ca", &file), ("tls.cert", &known.cert), ("tls.key", &known.key)]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    let encrypted = ca.encrypt(&known, "open sesame");
    let with_key = [("tls.ca", &*file), ("tls.cert", &encrypted.cert), ("tls.key", &encrypted.key)];
    let whole = [&with_key[..], &[("tls.key_password", "open sesame")]].concat();
    assert_eq!(ok(&client_at(&node.addr(), &whole).1, "GET k"), "v");
}

/// The error of a handle that cannot be made.
fn unmade(options: &[(&str, &str)]) -> String {
    let options = [&[("sentinel.addrs", "127.0.0.1:1"), ("service", SERVICE), ("tls", "on")], options].concat();
    let settings = config(&options).settings().expect("settings that fit together");
    let error = vigie::topology::Sentinel::create(settings, None).expect_err("the files are of no use");
    assert_eq!(error.status(), Status::Config, "{error}");
    error.message().to_owned()
}

#[test]
fn files_that_are_no_use_are_named_when_the_handle_is_made() {
    let ca = Ca::new();
    let (one, two) = (ca.local("one"), ca.local("two"));
    let locked = ca.encrypt(&one, "open sesame");
    let empty = ca.dir().join("empty").display().to_string();
    std::fs::write(&empty, "no PEM here\n").expect("a file");
    let file = ca.file();
    let pair = |cert: &str, key: &str| [("tls.ca", file.clone()), ("tls.cert", cert.into()), ("tls.key", key.into())];
    let of_pair = |cert: &str, key: &str, more: &[(&str, &str)]| {
        let pair = pair(cert, key);
        unmade(&[&pair.each_ref().map(|(name, value)| (*name, value.as_str()))[..], more].concat())
    };
    for (text, words) in [
        (unmade(&[("tls.ca", "/no/such/file")]), ["\"tls.ca\"", "cannot read /no/such/file: No such file"]),
        (unmade(&[("tls.ca", &empty)]), ["\"tls.ca\"", "holds no certificate"]),
        (of_pair(&one.cert, &two.key, &[]), ["\"tls.key\"", "it is not the key of the certificate in \"tls.cert\""]),
        (of_pair(&one.cert, &empty, &[]), ["\"tls.key\"", "holds no private key"]),
        (of_pair(&empty, &one.key, &[]), ["\"tls.cert\"", "holds no certificate"]),
        (of_pair(&locked.cert, &locked.key, &[]), ["\"tls.key\"", "is encrypted: set \"tls.key_password\""]),
        (
            of_pair(&locked.cert, &locked.key, &[("tls.key_password", "open barley")]),
            ["\"tls.key_password\"", "it does not open"],
        ),
        (
            unmade(&[("tls.ca", &file), ("tls.server_name", "no..name")]),
            ["\"tls.server_name\"", "\"no..name\" is no name"],
        ),
    ] {
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("open barley"), "{text}");
    }
}

/// Asks until the error contains this: a call of a busy machine may end before the server has answered its handshake.
#[track_caller]
fn says(client: &Client, what: &str) {
    eventually(what, SOON, || within(client, "GET k", 1500).expect_err("no common language").message().contains(what));
}

#[test]
fn tls_to_a_plain_port_and_plain_text_to_a_tls_port_say_so() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let (plain, file) = (single("plain"), ca.file());
    let (_sentinel, client) = client_at(&plain.node("mymaster-0").addr(), &[("tls.ca", &file)]);
    says(&client, "set \"tls\" to off");
    let d = tls_node("secured", &ca, false);
    let sentinel = told(&d.node("mymaster-0").addr(), &[]);
    says(&to_primary(&handle(&sentinel, &[]), &[]), "set \"tls\" to on");
    // The same with a Sentinel, and with a server that answers with an alert.
    let door = TlsDoor::open(&sentinel.addr(), &ca.local("sentinel"));
    let handle = sentinel_at(&[door.addr()], &[]);
    says(&to_primary(&handle, &[]), "set \"sentinel.tls\" to on");
    let door = TlsDoor::open(&d.node("mymaster-0").addr(), &ca.local("node"));
    let sentinel = told(&door.addr(), &[]);
    says(&to_primary(&calls::handle(&sentinel, &[]), &[]), "set \"tls\" to on");
}

#[test]
fn a_planned_failover_under_tls_loses_no_write() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let plan = plan(&ca, &ca.local("server"));
    let d = Deployment::new("tls-failover").tls(plan.clone()).sentinel_tls(plan).start();
    let handle = sentinel_of(&d, &[("tls", "on"), ("sentinel.tls", "on"), ("tls.ca", &ca.file())]);
    let client = to_primary(&handle, &[]);
    ok(&client, "SET warm up");
    let writer = crate::writer::Writer::start(&client, 20_000);
    writer.wait(100);
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    writer.wait_after(std::time::Instant::now());
    let written = writer.stop();
    assert!(
        written.missing(&new).is_empty() && written.doubled(&new) == 0 && written.errors.is_empty(),
        "{:?}",
        written.errors
    );
}

#[test]
fn all_kinds_of_calls_work_over_tls() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let d = tls_node("kinds", &ca, false);
    let (_sentinel, client) = client_at(&d.node("mymaster-0").addr(), &[("tls.ca", &ca.file())]);
    // Many records in both directions, by a lane, by a loan, and submitted.
    for size in [0, 1, 100, 16_384, 16_385, 300_000, 5 << 20] {
        let value: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let (set, get) = ([&b"SET"[..], b"large", &value], [&b"GET"[..], b"large"]);
        let flags = vigie::client::CallFlags::default();
        client.cmd_exec(&set, flags, vigie::client::Timeout::Ms(20_000)).expect("it is set");
        let reply = client.cmd_exec(&get, flags, vigie::client::Timeout::Ms(20_000)).expect("it is there");
        assert!(reply.bytes(0) == Some(&value[..]), "{size}");
    }
    let lines: Vec<String> = (0..1000).map(|n| format!("SET k{n} {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(run(&client, &lines).expect("a list").count(0), 1000);
    let queue = crate::completions::queue(2000);
    for n in 0..1000 {
        let flags = vigie::client::CallFlags::from_bits(0).expect("flags");
        let bytes = list(&[&format!("GET k{n}")]);
        client.cmds_submit(&bytes, flags, vigie::client::Timeout::Default, &queue, n).expect("room");
    }
    let events = crate::completions::drain(&queue, 1000);
    for (n, event) in events.iter().enumerate() {
        let reply = event.outcome.as_ref().expect("an answer").as_ref().expect("a reply");
        assert_eq!((event.token, json(reply)), (n as u64, format!("[\"{n}\"]")));
    }
    let own = client.session(None).expect("a session");
    assert_eq!(ok(&own, "WATCH k1") + &ok(&own, "MULTI"), "OKOK");
    assert_eq!(ok(&own, "SET k1 changed"), "QUEUED");
    assert_eq!(json(&cmd(&own, "EXEC").expect("EXEC runs")), "[\"OK\"]");
    let blocking = spawn({
        let client = Arc::clone(&client);
        move || cmd(&client, "BLPOP jobs 20").map(|reply| json(&reply))
    });
    eventually("it waits", std::time::Duration::from_secs(20), || {
        d.node("mymaster-0").info("clients")["blocked_clients"] == "1"
    });
    ok(&client, "RPUSH jobs one");
    assert_eq!(join(&blocking).expect("an element"), "[\"jobs\",\"one\"]");
    // Many threads share a lane.
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let client = Arc::clone(&client);
            spawn(move || (0..300).filter(|_| ok(&client, &format!("INCR n{thread}")).is_empty()).count())
        })
        .collect();
    assert!(threads.iter().all(|thread| join(thread) == 0));
    assert!((0..8).all(|thread| ok(&client, &format!("GET n{thread}")) == "300"));
}

#[test]
fn records_that_come_in_pieces_and_new_keys_in_between_change_nothing() {
    let ca = Ca::new();
    let node = Scripted::primary();
    let door = TlsDoor::open(&node.addr(), &ca.local("server"));
    let (_sentinel, client) = client_at(&door.addr(), &[("tls.ca", &ca.file())]);
    let value = "x".repeat(40_000);
    ok(&client, &format!("SET k {value}"));
    for _ in 0..20 {
        door.rekey();
        assert_eq!(ok(&client, "GET k"), value);
    }
    for piece in [1000, 7, 1] {
        door.trickle(piece);
        assert_eq!(ok(&client, "SET small v"), "OK");
        assert_eq!(ok(&client, "GET small"), "v", "{piece}");
    }
}

#[test]
fn the_next_connection_resumes_the_session_of_the_one_before() {
    let ca = Ca::new();
    let node = Scripted::primary();
    let door = TlsDoor::open(&node.addr(), &ca.local("server"));
    let (_sentinel, client) = client_at(&door.addr(), &[("tls.ca", &ca.file())]);
    for _ in 0..5 {
        let own = client.session(None).expect("a session");
        ok(&own, "SELECT 1");
    }
    let (resumed, whole) = door.handshakes();
    assert!(resumed >= 3 && whole <= 2, "{resumed} resumed, {whole} whole");
}

#[test]
fn files_that_change_are_read_again_and_of_a_pair_that_does_not_fit_the_last_good_one_stays() {
    if lacks(Feature::Tls) {
        return;
    }
    use vigie::queue::kind;
    let (ca, other) = (Ca::new(), Ca::new());
    let d = tls_node("reload", &ca, true);
    let (file, mine) = (ca.file(), ca.local("mine"));
    let sentinel = told(&d.node("mymaster-0").addr(), &[]);
    let options = [("tls", "on"), ("tls.ca", &*file), ("tls.cert", &mine.cert), ("tls.key", &mine.key)];
    let handle = handle(&sentinel, &[&options[..], &[("monitor.interval", "200")]].concat());
    let queue = crate::completions::queue(1000);
    handle.watch(kind::NOTICE, &queue, 7).expect("a watch");
    let client = to_primary(&handle, &[]);
    let opens = || client.session(None).and_then(|own| cmd(&own, "SELECT 0")).map(|_| ());
    // Nobody polls there, and nobody has a reason to look at the primary again.
    let node = d.node("mymaster-0").addr();
    let alone = [&[("primary.addr", &*node), ("monitor", "off")][..], &options].concat();
    let alone =
        vigie::topology::Sentinel::create(config(&alone).settings().expect("settings"), None).expect("a handle");
    let told_alone = crate::completions::queue(1000);
    alone.watch(kind::NOTICE, &told_alone, 7).expect("a watch");
    let client_alone = open(&alone, vigie::client::Target::Primary, &[]);
    let opens_alone = || client_alone.session(None).and_then(|own| cmd(&own, "SELECT 0")).map(|_| ());
    opens_alone().expect("a good pair");
    opens().expect("a good pair");
    // Another certificate, of a CA that the server does not know, and its key a moment later: a pair that does not fit is not used.
    let next = other.local("next");
    std::fs::copy(&next.cert, &mine.cert).expect("a copy");
    opens().expect("the last good pair stays");
    opens_alone().expect("the last good pair stays");
    let kept = |queue: &vigie::queue::Queue| {
        let mut events = Vec::new();
        queue.drain(vigie::time::Deadline::after(std::time::Duration::from_millis(50)), &mut events, 100);
        events
            .into_iter()
            .filter_map(|event| event.outcome.ok().flatten())
            .map(|reply| json(&reply))
            .find(|text| text.contains("certificates_kept"))
    };
    for queue in [&queue, &told_alone] {
        let notice = eventually_some("a notice", std::time::Duration::from_secs(20), || kept(queue));
        assert!(notice.contains("it is not the key of the certificate"), "{notice}");
    }
    std::fs::copy(&next.key, &mine.key).expect("a copy");
    let text = fails(Status::Tls, opens()).message().to_owned();
    assert!(text.contains("does not know the CA of the client certificate"), "{text}");
    let again = ca.local("again");
    std::fs::copy(&again.cert, &mine.cert).expect("a copy");
    std::fs::copy(&again.key, &mine.key).expect("a copy");
    opens().expect("the new pair");
    // A file that is gone is no use either.
    std::fs::remove_file(&mine.key).expect("it is there");
    opens().expect("the last good pair stays");
    // Nor is a pipe, which nobody may ever write to.
    let made = std::process::Command::new("mkfifo").arg(&mine.key).status().expect("mkfifo");
    assert!(made.success());
    opens().expect("the last good pair stays");
}

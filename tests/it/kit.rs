//! Tests of the test kit itself: what it starts, breaks and leaves behind.

use crate::support;

use std::time::{Duration, Instant};
use support::client::Login;
use support::*;

const SERVICE: &str = "mymaster";

#[test]
fn a_deployment_is_whole_when_start_returns() {
    let (d, took, pace) = paced(|| Deployment::new("whole").start());
    println!("start took {took:?}");
    pace.judge("the start", took, Duration::from_secs(5));
    let primary = d.primary_node(SERVICE);
    assert_eq!(d.primary(SERVICE), d.node("mymaster-0").addr());
    assert_eq!(primary.role_word(), "master");
    assert_eq!(d.replica_nodes(SERVICE).len(), 2);
    let mut client = primary.connect().expect("the primary answers");
    assert!(ask(&mut client, "SET k v").is_ok());
    assert_eq!(ask(&mut client, "WAIT 2 5000"), Value::Int(2));
    for replica in d.replica_nodes(SERVICE) {
        assert_eq!(replica.cmd(&["GET", "k"]).text(), "v");
        assert!(replica.cmd(&["SET", "k", "w"]).text().starts_with("READONLY"));
    }
    for sentinel in d.sentinel_nodes() {
        assert_eq!(sentinel.role_word(), "sentinel");
        assert!(sentinel.cmd(&["SENTINEL", "CKQUORUM", SERVICE]).text().starts_with("OK 3 usable"));
    }
    assert_eq!(d.sentinel_uri(), format!("redis-sentinel://{}/mymaster", d.sentinel_addrs().join(",")));
}

#[test]
fn nothing_is_left_behind() {
    let d = Deployment::new("leftover").replicas(1).sentinels(1).quorum(1).start();
    let (pids, dir): (Vec<u32>, _) = (d.nodes().iter().map(|node| node.pid()).collect(), d.dir().clone());
    let ports: Vec<u16> = d.nodes().iter().map(|node| node.port()).collect();
    assert_eq!(pids.len(), 3);
    assert!(dir.is_dir() && pids.iter().all(|pid| proc::exists(*pid)));
    let client = d.node("mymaster-0").connect().expect("the primary answers");
    // The servers close the connections that the kit has ended in their own time.
    eventually("one connection is left", deployment::PATIENCE, || proc::sockets_to(&ports) == 1);
    drop(client);
    eventually("none is left", deployment::PATIENCE, || proc::sockets_to(&ports) == 0);
    drop(d);
    assert!(!dir.exists() && pids.iter().all(|pid| !proc::exists(*pid)));
}

#[test]
fn a_failed_test_keeps_its_directory() {
    let failed = std::thread::spawn(|| {
        let d = Deployment::new("failed").replicas(0).sentinels(0).start();
        std::panic::panic_any((d.dir().clone(), d.node("mymaster-0").pid()));
    });
    let payload = failed.join().expect_err("the thread panics");
    let (dir, pid) = payload.downcast_ref::<(std::path::PathBuf, u32)>().expect("our own payload");
    assert!(dir.join("mymaster-0/node.log").is_file());
    assert!(!proc::exists(*pid));
    std::fs::remove_dir_all(dir).expect("the directory is ours");
}

#[test]
fn a_planned_failover_switches() {
    let d = Deployment::new("planned").start();
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    assert_ne!(new.port(), old.port());
    assert_eq!(d.primary(SERVICE), new.addr());
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back() {
    let d = Deployment::new("killed").start();
    let old = d.primary_node(SERVICE);
    let began = Instant::now();
    old.kill();
    assert!(!old.is_running() && old.try_cmd(&["PING"]).is_err());
    d.wait_switched(SERVICE, &old);
    println!("switched after {:?}", began.elapsed());
    d.wait_s_down(SERVICE, &old);
    old.restart();
    assert_eq!(old.cmd(&["PING"]).text(), "PONG");
    // On a machine that stalls for a second the Sentinels replace the new one, too.
    assert_eq!(d.settled_primary(SERVICE).role_word(), "master");
}

#[test]
fn a_stopped_primary_keeps_its_connections_and_is_replaced() {
    let d = Deployment::new("stopped").start();
    let old = d.primary_node(SERVICE);
    let mut client = old.connect().expect("the primary answers");
    client.set_timeout(Duration::from_millis(50)).expect("a timeout");
    old.stop();
    assert!(old.is_running() && !old.is_serving());
    let error = client.cmd(&["PING"]).expect_err("a stopped server is silent");
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    d.wait_switched(SERVICE, &old);
    client.set_timeout(Duration::from_secs(5)).expect("a timeout");
    old.cont();
    assert_eq!(client.read().expect("the answer comes late").text(), "PONG");
}

#[test]
fn two_services_share_the_sentinels() {
    let d = Deployment::new("two").services(["node_1", "node_2"]).replicas(1).start();
    assert_ne!(d.primary("node_1"), d.primary("node_2"));
    let old = d.failover("node_2");
    d.wait_switched("node_2", &old);
    assert_eq!(d.primary("node_1"), d.node("node_1-0").addr());
}

#[test]
fn passwords_of_both_sides() {
    let d = Deployment::new("secret").password("data-pw").sentinel_password("watch-pw").start();
    let primary = d.primary_node(SERVICE);
    let sentinel = &d.sentinel_nodes()[0];
    assert!(primary.cmd(&["PING"]).text() == "PONG" && sentinel.cmd(&["PING"]).text() == "PONG");
    for (node, wrong) in [(&primary, "watch-pw"), (sentinel, "data-pw")] {
        let mut client = Client::connect(&node.addr()).expect("the port is open");
        assert!(client.cmd(&["PING"]).expect("an answer").text().starts_with("NOAUTH"));
        assert!(Client::login(&node.addr(), &Login::password(wrong), Duration::from_secs(5)).is_err());
    }
    assert!(d.sentinel_uri().starts_with("redis-sentinel://:data-pw@"));
    let old = d.failover(SERVICE);
    d.wait_switched(SERVICE, &old);
}

#[test]
fn acl_users_of_both_sides() {
    let d = Deployment::new("acl").acl("app", "data-pw").sentinel_acl("watch", "watch-pw").start();
    assert_eq!(d.primary_node(SERVICE).cmd(&["ACL", "WHOAMI"]).text(), "app");
    assert_eq!(d.sentinel_nodes()[1].cmd(&["ACL", "WHOAMI"]).text(), "watch");
    let old = d.failover(SERVICE);
    d.wait_switched(SERVICE, &old);
}

#[test]
fn host_names_are_announced() {
    let d = Deployment::new("names").hostnames(true).start();
    assert!(d.primary(SERVICE).starts_with("localhost:"));
    let sentinel = &d.sentinel_nodes()[0];
    let replicas = sentinel.cmd(&["SENTINEL", "REPLICAS", SERVICE]);
    assert!(replicas.items().iter().all(|entry| entry.field("ip").as_deref() == Some("localhost")));
    let old = d.failover(SERVICE);
    assert!(d.wait_switched(SERVICE, &old).addr().starts_with("localhost:"));
}

#[test]
fn ipv6_and_unix_sockets() {
    let d = Deployment::new("six").ipv6(true).unix_socket(true).replicas(1).start();
    assert!(d.primary(SERVICE).starts_with("[::1]:"));
    let primary = d.primary_node(SERVICE);
    let mut client = Client::connect(&primary.unix_addr().expect("a socket")).expect("the socket is open");
    assert_eq!(client.cmd(&["PING"]).expect("an answer").text(), "PONG");
}

#[test]
fn every_node_can_have_an_address_of_its_own() {
    if lacks(Feature::SourceAddress) {
        return;
    }
    let d = Deployment::new("addrs").bind_addr("mymaster-1", "127.0.0.2").bind_addr("sentinel-2", "127.0.0.3").start();
    let sentinel = &d.sentinel_nodes()[0];
    let ips = |list| -> Vec<String> {
        let reply = sentinel.cmd(&["SENTINEL", list, SERVICE]);
        reply.items().iter().filter_map(|entry| entry.field("ip")).collect()
    };
    assert!(ips("REPLICAS").contains(&"127.0.0.2".to_string()));
    assert!(ips("SENTINELS").contains(&"127.0.0.3".to_string()));
}

#[test]
fn a_replica_can_be_added() {
    let d = Deployment::new("added").replicas(1).sentinels(1).quorum(1).start();
    d.sentinel_debug("info-period", 100);
    let replica = d.add_replica(SERVICE);
    d.wait_known(SERVICE, &replica);
    assert_eq!(d.replica_nodes(SERVICE).len(), 2);
}

#[test]
fn configuration_lines_reach_the_nodes() {
    let d = Deployment::new("conf").conf("databases 20").node_conf("mymaster-1", "replica-priority 0").start();
    let get = |node: &str, key: &str| d.node(node).cmd(&["CONFIG", "GET", key]).field(key).unwrap_or_default();
    assert_eq!(get("mymaster-0", "databases"), "20");
    assert_eq!(
        (get("mymaster-1", "replica-priority"), get("mymaster-2", "replica-priority")),
        ("0".into(), "100".into())
    );
}

#[test]
fn what_a_node_tells_of_its_clients() {
    if lacks(Feature::SubCommands) {
        return;
    }
    let d = Deployment::new("clients").replicas(0).sentinels(0).start();
    let node = d.node("mymaster-0");
    let mut client = node.connect().expect("the node answers");
    for command in [&["CLIENT", "SETNAME", "me"][..], &["SELECT", "9"], &["GET", "a"], &["GET", "b"]] {
        client.cmd(command).expect("an answer");
    }
    let list = node.clients_named("me");
    assert_eq!((list.len(), list[0].db, list[0].cmd.as_str()), (1, 9, "get"));
    // The kit's own questions come over connections of their own, and the server may notice their ends late.
    eventually("only it is left", Duration::from_secs(20), || node.client_list().len() == 1);
    assert_eq!(node.calls("get"), 2);
    assert_eq!(node.calls("client|setname"), 1);
}

#[test]
fn a_seed_stays_the_same_in_a_test() {
    assert_eq!(seed(), seed());
}

#[test]
fn a_host_vanishes() {
    if !netns::available() {
        return;
    }
    let d = Deployment::new("vanish").network(Layout::Paired).start();
    let (old, first) = (d.node("mymaster-0"), d.node("sentinel-0"));
    assert_eq!(old.host(), first.host());
    let mut client = old.connect().expect("the primary answers");
    client.set_timeout(Duration::from_millis(100)).expect("a timeout");
    old.netns().vanish();
    assert!(client.cmd(&["PING"]).is_err());
    // The first Sentinel vanished with it, so only the others are asked.
    assert_eq!(d.serving_sentinels().len(), 2);
    d.wait_switched(SERVICE, &old);
    old.netns().heal();
    d.wait_switched(SERVICE, &old);
}

#[test]
fn a_host_is_cut_off_one_way() {
    if !netns::available() {
        return;
    }
    let d = Deployment::new("oneway").network(Layout::Apart).replicas(0).sentinels(0).start();
    let node = d.node("mymaster-0");
    let mut client = node.connect().expect("the node answers");
    client.set_timeout(Duration::from_millis(100)).expect("a timeout");
    node.netns().drop_to(&d.network().client_ip());
    assert!(client.cmd(&["SET", "k", "v"]).is_err());
    node.netns().heal();
    assert_eq!(node.cmd(&["GET", "k"]).text(), "v");
    node.netns().reject(node.port());
    assert_eq!(node.try_cmd(&["PING"]).expect_err("a reset").kind(), std::io::ErrorKind::ConnectionRefused);
    let name = node.netns().name().to_string();
    let spaces = || {
        let output = std::process::Command::new("ip").args(["netns", "list"]).output().expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(spaces().contains(&name));
    drop((d, node));
    assert!(!spaces().contains(&name));
}

/// Longer than anything takes here, also on a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn dial(addr: &str) -> Client {
    Client::connect_within(addr, LONG).expect("the server takes connections")
}

/// Asserts that nothing comes for a while.
#[track_caller]
fn is_silent(client: &mut Client) {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    client.set_timeout(Duration::from_millis(600)).expect("a timeout");
    let error = client.read().expect_err("nothing comes");
    assert!(matches!(error.kind(), TimedOut | WouldBlock), "{error}");
    client.set_timeout(LONG).expect("a timeout");
}

/// Asserts that this command has no answer.
#[track_caller]
fn is_not_answered(client: &mut Client, command: &str) {
    client.send(&command.split(' ').collect::<Vec<_>>()).expect("sent");
    is_silent(client);
}

fn ask(client: &mut Client, command: &str) -> Value {
    let words: Vec<&str> = command.split(' ').collect();
    client.cmd(&words).unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// True if the connection ends.
fn is_over(client: &mut Client) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    !client.read().is_err_and(|error| matches!(error.kind(), TimedOut | WouldBlock))
}

#[test]
fn a_refused_port_and_a_blackhole() {
    let refused = refuse();
    let error = Client::connect(&refused.addr()).err().expect("nobody listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let hole = blackhole();
    for _ in 0..3 {
        let error = Client::connect_within(&hole.addr(), Duration::from_millis(200)).err().expect("no handshake");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}

#[test]
fn a_scripted_sentinel_answers_like_a_real_one() {
    if lacks(Feature::SentinelDebug) {
        return;
    }
    let d = Deployment::new("compare").replicas(1).sentinels(2).start();
    let real = &d.sentinel_nodes()[0];
    let fakes = Scripted::sentinels(2, SERVICE, &d.primary(SERVICE));
    let fake = &fakes[0];
    fake.service(SERVICE, |state| state.add_replica(&d.replica_nodes(SERVICE)[0].addr()));
    let mut client = dial(&fake.addr());
    for command in ["SENTINEL GET-MASTER-ADDR-BY-NAME mymaster", "SENTINEL MASTER none", "ROLE", "PING"] {
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(ask(&mut client, command), real.cmd(&words), "{command}");
    }
    assert_eq!(ask(&mut client, "SENTINEL GET-MASTER-ADDR-BY-NAME none"), Value::NilArray);
    // Every field of the scripted server is one of the real server, in the same order.
    for list in ["MASTERS", "REPLICAS mymaster", "SLAVES mymaster", "SENTINELS mymaster"] {
        let command = format!("SENTINEL {list}");
        let keys = |reply: Value| -> Vec<String> {
            assert_eq!(reply.items().len(), 1, "{command}: {reply:?}");
            reply.items()[0].items().iter().step_by(2).map(Value::text).collect()
        };
        let words: Vec<&str> = command.split(' ').collect();
        let (ours, mut theirs) = (keys(ask(&mut client, &command)), keys(real.cmd(&words)));
        theirs.retain(|key| ours.contains(key));
        assert_eq!(ours, theirs, "{command}");
    }
    let info = node::parse_info(&ask(&mut client, "INFO sentinel").text());
    let known = real.info("sentinel");
    assert!(info.keys().all(|key| known.contains_key(key)), "{info:?} against {known:?}");
    assert_eq!(info["master0"], format!("name=mymaster,status=ok,address={},slaves=1,sentinels=2", d.primary(SERVICE)));
    assert_eq!(ask(&mut client, "HELLO 3").field("mode").as_deref(), Some("sentinel"));
    assert_eq!(ask(&mut client, "SENTINEL MASTER mymaster").field("config-epoch").as_deref(), Some("1"));
}

#[test]
fn the_state_of_a_scripted_sentinel_can_change() {
    let fake = Scripted::sentinel(SERVICE, "127.0.0.1:7001");
    let (mut client, mut listener) = (dial(&fake.addr()), dial(&fake.addr()));
    let subscribed = ask(&mut listener, "PSUBSCRIBE +switch*");
    assert_eq!(subscribed.items()[0].text(), "psubscribe");
    assert_eq!(fake.switch_master(SERVICE, "10.0.0.9:7002"), 1);
    let message = listener.read().expect("a message");
    assert_eq!(message.items()[3].text(), "mymaster 127.0.0.1 7001 10.0.0.9 7002");
    let master = ask(&mut client, "SENTINEL MASTER mymaster");
    assert_eq!((master.field("ip"), master.field("config-epoch")), (Some("10.0.0.9".into()), Some("2".into())));
    fake.state(|state| state.tilt = true);
    assert!(ask(&mut client, "INFO").text().contains("sentinel_tilt:1"));
    fake.state(|state| state.door.login = Some(Login::password("pw")));
    let mut late = dial(&fake.addr());
    assert!(ask(&mut late, "SENTINEL MASTER mymaster").text().starts_with("NOAUTH"));
    assert!(ask(&mut late, "AUTH no").text().starts_with("WRONGPASS"));
    assert!(ask(&mut late, "AUTH pw").is_ok());
    assert!(ask(&mut late, "HELLO 3 AUTH default pw SETNAME me").field("proto").is_some());
    assert!(fake.saw("pw") && !fake.saw("data-pw"));
    assert_eq!((fake.accepted(), fake.connections(), fake.peak()), (3, 3, 3));
    assert!(fake.sessions().iter().any(|session| session.name == "me" && session.protocol == 3));
}

#[test]
fn a_scripted_node_plays_all_roles() {
    let node = Scripted::primary();
    let mut client = dial(&node.addr());
    assert_eq!(ask(&mut client, "ROLE").items()[0].text(), "master");
    assert!(ask(&mut client, "SET n 41").is_ok());
    assert_eq!(ask(&mut client, "INCR n"), Value::Int(42));
    assert_eq!(ask(&mut client, "GET none"), Value::Nil);
    node.state(|state| state.role = FakeRole::replica_of("127.0.0.1:7001"));
    let role = ask(&mut client, "ROLE");
    let role: Vec<String> = role.items().iter().map(Value::text).collect();
    assert_eq!(role, ["slave", "127.0.0.1", "7001", "connected", "1000"]);
    assert!(ask(&mut client, "SET n 1").text().starts_with("READONLY"));
    node.state(|state| state.masterdown = true);
    assert!(ask(&mut client, "GET n").text().starts_with("MASTERDOWN"));
    node.state(|state| (state.masterdown, state.loading) = (false, true));
    assert!(ask(&mut client, "GET n").text().starts_with("LOADING"));
    assert!(ask(&mut client, "SELECT 3").is_ok());
    node.state(|state| (state.loading, state.door.hello, state.door.setinfo) = (false, false, false));
    assert!(ask(&mut client, "HELLO 3").text().starts_with("ERR unknown command"));
    assert!(ask(&mut client, "CLIENT SETINFO lib-name x").is_error());
    assert_eq!((node.sessions()[0].db, node.count("CLIENT SETINFO")), (3, 1));
}

#[test]
fn a_scripted_server_listens_on_other_families() {
    for listen in [Listen::V6, Listen::Unix] {
        let node = Scripted::node_on(listen, FakeRole::Primary);
        assert_eq!(ask(&mut dial(&node.addr()), "PING").text(), "PONG", "{}", node.addr());
    }
}

#[test]
fn scripted_faults_on_single_commands() {
    let node = Scripted::primary();
    let addr = node.addr();
    node.fault_times("GET", 1, Fault::Error("BUSY later".into()));
    let mut client = dial(&addr);
    assert_eq!(ask(&mut client, "get k").text(), "BUSY later");
    assert_eq!(ask(&mut client, "GET k"), Value::Nil);
    node.fault_after("INCR", 1, Fault::Lost);
    assert_eq!(ask(&mut client, "INCR n"), Value::Int(1));
    assert!(client.cmd(&["INCR", "n"]).is_err());
    let mut client = dial(&addr);
    assert_eq!(ask(&mut client, "GET n").text(), "2");
    node.fault_times("INCR", 1, Fault::Close);
    assert!(client.cmd(&["INCR", "n"]).is_err());
    node.fault_times("INCR", 1, Fault::Reset);
    let error = dial(&addr).cmd(&["INCR", "n"]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut client = dial(&addr);
    assert_eq!(ask(&mut client, "GET n").text(), "2");
    node.fault_times("GET", 1, Fault::Half);
    client.send(&["GET", "n"]).expect("sent");
    assert_eq!(client.read_bytes(100).expect("half a reply"), b"$1\r");
    let mut client = dial(&addr);
    node.fault_times("GET", 1, Fault::Pieces(1, Duration::from_millis(1)));
    assert_eq!(ask(&mut client, "GET n").text(), "2");
    node.fault_times("GET", 1, Fault::Endless);
    client.send(&["GET", "n"]).expect("sent");
    assert_eq!(client.read_bytes(13).expect("an announcement"), b"*1000000000\r\n");
    node.fault("@accept", Fault::Raw(b"rubbish\r\n".to_vec()));
    assert_eq!(dial(&addr).read_bytes(9).expect("bytes"), b"rubbish\r\n");
}

#[test]
fn a_scripted_server_stalls_and_goes_down() {
    let node = Scripted::primary();
    let mut client = dial(&node.addr());
    node.fault("*", Fault::Stall);
    is_not_answered(&mut client, "PING");
    node.clear_faults();
    assert_eq!(client.read().expect("the answer comes late").text(), "PONG");
    node.fault_times("PING", 1, Fault::Delay(Duration::from_millis(60)));
    let began = Instant::now();
    ask(&mut client, "PING");
    assert!(began.elapsed() >= Duration::from_millis(60));
    node.down();
    assert!(is_over(&mut client));
    assert_eq!(
        Client::connect(&node.addr()).err().map(|error| error.kind()),
        Some(std::io::ErrorKind::ConnectionRefused)
    );
    node.up();
    assert_eq!(ask(&mut dial(&node.addr()), "PING").text(), "PONG");
}

#[test]
fn a_handler_can_answer_anything() {
    let server = Scripted::start(|call| match call.word(0).as_str() {
        "COUNT" => Act::Reply(Value::Int(call.args.len() as i64)),
        "BYE" => Act::Last(Value::ok()),
        _ => Act::Silence,
    });
    let mut client = dial(&server.addr());
    assert_eq!(ask(&mut client, "COUNT a b"), Value::Int(3));
    client.send(&["HUSH"]).expect("sent");
    is_silent(&mut client);
    assert!(ask(&mut client, "BYE").is_ok() && is_over(&mut client));
    assert_eq!(server.commands(), ["COUNT a b", "HUSH", "BYE"]);
}

#[test]
fn a_proxy_delays_trickles_and_swallows() {
    let node = Scripted::primary();
    let proxy = Proxy::start(&node.addr());
    let mut client = Client::connect(&proxy.addr()).expect("the proxy takes connections");
    let mut timed = |command: &str| {
        let began = Instant::now();
        ask(&mut client, command);
        began.elapsed()
    };
    timed("PING");
    proxy.delay(Way::Up, Duration::from_millis(40));
    proxy.delay(Way::Down, Duration::from_millis(40));
    let took = timed("PING");
    assert!(took >= Duration::from_millis(80), "{took:?}");
    proxy.clear();
    proxy.trickle(Way::Down, 1, Duration::from_millis(10));
    let took = timed("PING");
    assert!(took >= Duration::from_millis(60), "seven bytes took {took:?}");
    proxy.clear();
    proxy.swallow(Way::Down, true);
    let mut client = dial(&proxy.addr());
    is_not_answered(&mut client, "SET k v");
    proxy.clear();
    assert_eq!(ask(&mut client, "GET k").text(), "v");
    proxy.stall(Way::Up, true);
    is_not_answered(&mut client, "SET k w");
    assert_eq!(node.count("SET"), 1);
    proxy.clear();
    assert!(client.read().expect("the answer comes late").is_ok());
    assert_eq!((proxy.accepted(), proxy.connections()), (2, 2));
    assert!(proxy.bytes(Way::Up) > 100 && proxy.bytes(Way::Down) > 20);
}

#[test]
fn a_proxy_traps_single_commands() {
    let node = Scripted::primary();
    let proxy = Proxy::start(&node.addr());
    proxy.trap("INCR", Trap::LoseReply);
    assert!(dial(&proxy.addr()).cmd(&["INCR", "n"]).is_err());
    proxy.trap("INCR", Trap::CloseBefore);
    assert!(dial(&proxy.addr()).cmd(&["INCR", "n"]).is_err());
    let mut client = dial(&proxy.addr());
    assert_eq!(ask(&mut client, "GET n").text(), "1");
    proxy.trap("GET", Trap::CutReply(2));
    client.send(&["GET", "n"]).expect("sent");
    assert_eq!(client.read_bytes(100).expect("a part of the reply"), b"$1");
    assert_eq!(proxy.traps_left(), 0);
    eventually("the proxy has let go of all", Duration::from_secs(2), || proxy.connections() == 0);
}

#[test]
fn a_proxy_drops_published_messages() {
    let fake = Scripted::sentinel(SERVICE, "127.0.0.1:7001");
    let proxy = Proxy::start(&fake.addr());
    let mut client = dial(&proxy.addr());
    ask(&mut client, "SUBSCRIBE +switch-master +sdown");
    client.read().expect("the second channel");
    proxy.drop_chunks(Way::Down, "switch-master");
    fake.switch_master(SERVICE, "127.0.0.1:7002");
    is_silent(&mut client);
    fake.publish("+sdown", "master mymaster 127.0.0.1 7002");
    assert_eq!(client.read().expect("a message").items()[1].text(), "+sdown");
}

#[test]
fn a_proxy_cuts_resets_and_refuses() {
    let node = Scripted::primary();
    let proxy = Proxy::start(&node.addr());
    let mut client = dial(&proxy.addr());
    ask(&mut client, "PING");
    proxy.cut();
    assert!(is_over(&mut client));
    let mut client = dial(&proxy.addr());
    ask(&mut client, "PING");
    proxy.reset();
    assert_eq!(client.read().expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    let mut client = dial(&proxy.addr());
    ask(&mut client, "PING");
    proxy.refuse();
    assert!(Client::connect(&proxy.addr()).is_err());
    ask(&mut client, "PING");
    proxy.listen();
    proxy.pause_accept(true);
    is_not_answered(&mut dial(&proxy.addr()), "PING");
    proxy.pause_accept(false);
    let other = Scripted::replica(&node.addr());
    proxy.retarget(&other.addr());
    assert_eq!(ask(&mut dial(&proxy.addr()), "ROLE").items()[0].text(), "slave");
    assert!(ask(&mut client, "SET k v").is_ok());
}

#[test]
fn threads_and_descriptors_are_told_apart() {
    let node = Scripted::primary();
    let mut client = dial(&node.addr());
    ask(&mut client, "PING");
    assert_eq!(proc::sockets_to(&[node.port()]), 1);
    assert!(!proc::threads_named("kit-scripted").is_empty());
    let sockets = proc::descriptors().into_values().filter(|name| name.starts_with("socket:")).count();
    assert!(sockets >= 3, "a listener and both ends of a connection, found {sockets}");
    drop(client);
    assert_eq!(proc::sockets_to(&[node.port()]), 0);
}

//! Tests of the test kit itself: what it starts, breaks and leaves behind.

mod support;

use std::time::{Duration, Instant};
use support::client::Login;
use support::*;

const SERVICE: &str = "mymaster";

#[test]
fn a_deployment_is_whole_when_start_returns() {
    let began = Instant::now();
    let d = Deployment::new("whole").start();
    let took = began.elapsed();
    println!("start took {took:?}");
    assert!(took < Duration::from_secs(5), "start took {took:?}");
    let primary = d.primary_node(SERVICE);
    assert_eq!(d.primary(SERVICE), d.node("mymaster-0").addr());
    assert_eq!(primary.role_word(), "master");
    assert_eq!(d.replica_nodes(SERVICE).len(), 2);
    assert!(primary.cmd(&["SET", "k", "v"]).is_ok());
    assert_eq!(primary.cmd(&["WAIT", "2", "5000"]), Value::Int(2));
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
    assert_eq!(proc::sockets_to(&ports), 1);
    drop(client);
    assert_eq!(proc::sockets_to(&ports), 0);
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
    let new = d.wait_switched(SERVICE, &old);
    println!("switched after {:?}", began.elapsed());
    d.wait_s_down(SERVICE, &old);
    old.restart();
    assert_eq!(old.cmd(&["PING"]).text(), "PONG");
    assert_eq!(new.role_word(), "master");
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
    let d = Deployment::new("clients").replicas(0).sentinels(0).start();
    let node = d.node("mymaster-0");
    let mut client = node.connect().expect("the node answers");
    for command in [&["CLIENT", "SETNAME", "me"][..], &["SELECT", "9"], &["GET", "a"], &["GET", "b"]] {
        client.cmd(command).expect("an answer");
    }
    let list = node.clients_named("me");
    assert_eq!((list.len(), list[0].db, list[0].cmd.as_str()), (1, 9, "get"));
    assert_eq!(node.client_list().len(), 1);
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
    // The first Sentinel vanished with it: only the others are asked.
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
}

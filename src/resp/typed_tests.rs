//! Typed replies: what servers of four versions said, as it was recorded, and what none of them says.

use super::*;
use crate::resp::{Decoded, Decoder, Limits, Want};

/// What a server said: to whom, over which protocol, to which command.
struct Said {
    node: String,
    protocol: String,
    command: Vec<String>,
    reply: Reply,
}

const RECORDED: &[(&str, &str)] = &[
    ("redis-6.2", include_str!("typed_replies/redis-6.2.txt")),
    ("redis-7.0", include_str!("typed_replies/redis-7.0.txt")),
    ("redis-8.0", include_str!("typed_replies/redis-8.0.txt")),
    ("valkey-9.1", include_str!("typed_replies/valkey-9.1.txt")),
];

fn unescaped(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").into_bytes()
}

fn decoded(bytes: &[u8]) -> Reply {
    match Decoder::new(Limits::default()).decode(bytes, Want::One) {
        Ok((_, Some(Decoded::Reply(reply)))) => reply,
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// A file has two lines for each reply: `node protocol command`, and the bytes that came.
fn recorded(text: &str) -> Vec<Said> {
    let lines: Vec<&str> = text.lines().collect();
    let said = |pair: &[&str]| {
        let mut words = pair[0].split(' ').map(str::to_owned);
        let (node, protocol) = (words.next().unwrap(), words.next().unwrap());
        let command: Vec<String> = words.filter(|word| word != "SENTINEL").collect();
        Said { node, protocol, command, reply: decoded(&unescaped(pair[1])) }
    };
    lines.chunks_exact(2).map(said).collect()
}

fn typed_of(command: &[&str], reply: Reply) -> Reply {
    let command: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
    typed(&command, reply).unwrap()
}

fn json(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.to_json().unwrap().bytes(0).unwrap_or_default()).into_owned()
}

fn find(said: &[Said], protocol: &str, node: &str, command: &str) -> Reply {
    let is_it = |one: &&Said| one.protocol == protocol && one.node == node && one.command.join(" ") == command;
    let one = said.iter().find(is_it).unwrap_or_else(|| panic!("{node} {protocol} {command} was not recorded"));
    typed_of(&command.split(' ').collect::<Vec<_>>(), one.reply.clone())
}

fn field(reply: &Reply, at: u32, key: &str) -> u32 {
    reply.find(at, key.as_bytes()).unwrap_or_else(|| panic!("no {key} in {}", json(reply)))
}

/// Calls `check` with the replies of each server, over each protocol.
fn each(check: impl Fn(&dyn Fn(&str, &str) -> Reply, &str)) {
    for (server, text) in RECORDED {
        let said = recorded(text);
        for protocol in ["RESP2", "RESP3"] {
            check(&|node, command| find(&said, protocol, node, command), &format!("{server} {protocol}"));
        }
    }
}

#[test]
fn row_83_an_instance_has_numbers_flags_as_a_set_and_all_its_fields() {
    each(|said, who| {
        let master = said("sentinel", "MASTER mymaster");
        assert_eq!((master.kind(0), master.count(0) % 2), (Kind::Map, 0), "{who}");
        for (key, value) in [("config-epoch", 3), ("quorum", 2), ("num-slaves", 1), ("num-other-sentinels", 1)] {
            let id = field(&master, 0, key);
            assert_eq!((master.kind(id), master.int(id)), (Kind::Int, Some(value)), "{who}: {key}");
        }
        let flags = field(&master, 0, "flags");
        assert_eq!((master.kind(flags), master.count(flags)), (Kind::Set, 1), "{who}");
        assert_eq!(master.bytes(master.child(flags, 0).unwrap()), Some(&b"master"[..]), "{who}");
        assert_eq!(master.kind(field(&master, 0, "runid")), Kind::String, "{who}");
        let masters = said("sentinel", "MASTERS");
        assert_eq!((masters.kind(0), masters.count(0)), (Kind::Array, 1), "{who}");
        for list in ["REPLICAS mymaster", "SLAVES mymaster"] {
            let replicas = said("sentinel", list);
            let first = replicas.child(0, 0).unwrap();
            for key in ["port", "slave-priority", "slave-repl-offset", "master-link-down-time", "master-port"] {
                assert_eq!(replicas.kind(field(&replicas, first, key)), Kind::Int, "{who}: {key}");
            }
            let status = field(&replicas, first, "master-link-status");
            assert_eq!(replicas.bytes(status), Some(&b"ok"[..]), "{who}");
        }
        let others = said("sentinel", "SENTINELS mymaster");
        let first = others.child(0, 0).unwrap();
        assert_eq!(others.kind(field(&others, first, "voted-leader-epoch")), Kind::Int, "{who}");
        assert_eq!(others.bytes(field(&others, first, "voted-leader")), Some(&b"?"[..]), "{who}");
        assert_eq!(said("sentinel", "PENDING-SCRIPTS").kind(0), Kind::Array, "{who}");
    });
}

/// All that a server said is there again, as text or as a number that is written the same.
#[test]
fn nothing_that_a_server_said_is_lost() {
    fn texts(reply: &Reply) -> Vec<String> {
        let all = 0..u32::try_from(reply.nodes().len()).unwrap();
        let text = |id| match reply.kind(id) {
            Kind::Int => reply.int(id).map(|value| value.to_string()),
            _ => reply.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        };
        all.filter_map(text).collect()
    }
    for (server, text) in RECORDED {
        let said = recorded(text);
        assert!(said.len() > 40, "{server}");
        for Said { command, reply, .. } in &said {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let after = texts(&typed_of(&words, reply.clone())).join("\n");
            for before in texts(reply).iter().flat_map(|text| text.split(['\r', '\n', ','])) {
                let pieces: Vec<&str> = before.splitn(2, ':').filter(|_| !before.starts_with('#')).collect();
                let is_there = after.contains(before) || pieces.iter().all(|piece| after.contains(piece));
                assert!(is_there, "{server} {command:?}: {before:?} is missing in {after}");
            }
        }
    }
}

#[test]
fn row_84_an_address_is_a_pair_with_a_number_and_an_unknown_name_gives_null() {
    each(|said, who| {
        let known = json(&said("sentinel", "GET-MASTER-ADDR-BY-NAME mymaster"));
        assert!(known.starts_with(r#"["127.0.0.1",23"#) && known.ends_with(']'), "{who}: {known}");
        assert_eq!(said("sentinel", "GET-MASTER-ADDR-BY-NAME nobody").kind(0), Kind::Null, "{who}");
        // An error stays the server's.
        assert_eq!(said("sentinel", "MASTER nobody").kind(0), Kind::Error, "{who}");
    });
}

#[test]
fn row_87_and_88_quorum_cache_configuration_and_id() {
    each(|said, who| {
        let quorum = said("sentinel", "CKQUORUM mymaster");
        assert_eq!(quorum.int(field(&quorum, 0, "usable")), Some(2), "{who}");
        let cache = said("sentinel", "INFO-CACHE mymaster");
        let nodes = field(&cache, 0, "mymaster");
        assert_eq!(cache.count(nodes), 2, "{who}: the primary and its replica");
        let primary = cache.child(nodes, 0).unwrap();
        assert_eq!(cache.kind(field(&cache, primary, "age_ms")), Kind::Int, "{who}");
        let info = field(&cache, primary, "info");
        assert_eq!(cache.int(field(&cache, info, "connected_slaves")), Some(1), "{who}");
        assert_eq!(cache.bytes(field(&cache, info, "role")), Some(&b"master"[..]), "{who}");
        let config = said("sentinel", "CONFIG GET *");
        assert_eq!(config.bytes(field(&config, 0, "resolve-hostnames")), Some(&b"no"[..]), "{who}");
        assert_eq!(config.int(field(&config, 0, "announce-port")), Some(0), "{who}");
        assert_eq!(said("sentinel", "MYID").bytes(0).map(<[u8]>::len), Some(40), "{who}");
        assert_eq!(said("sentinel", "FLUSHCONFIG").bytes(0), Some(&b"OK"[..]), "{who}");
    });
}

#[test]
fn row_90_roles_of_sentinels_and_data_nodes() {
    each(|said, who| {
        assert_eq!(said("sentinel", "PING").bytes(0), Some(&b"PONG"[..]), "{who}");
        assert_eq!(json(&said("sentinel", "ROLE")), r#"{"role":"sentinel","services":["mymaster"]}"#, "{who}");
        let primary = said("primary", "ROLE");
        assert!(primary.int(field(&primary, 0, "offset")).unwrap() > 0, "{who}");
        let replica = primary.child(field(&primary, 0, "replicas"), 0).unwrap();
        for key in ["port", "offset"] {
            assert_eq!(primary.kind(field(&primary, replica, key)), Kind::Int, "{who}: {key}");
        }
        let replica = json(&said("replica", "ROLE"));
        assert!(replica.starts_with(r#"{"role":"slave","host":"127.0.0.1","port":23"#), "{who}: {replica}");
        assert!(replica.contains(r#","state":"connected","offset":"#), "{who}: {replica}");
        let info = said("replica", "INFO replication");
        assert_eq!(info.int(field(&info, 0, "slave_read_only")), Some(1), "{who}");
        assert_eq!(info.bytes(field(&info, 0, "master_link_status")), Some(&b"up"[..]), "{who}");
    });
}

#[test]
fn what_no_server_says_stays_as_it_came() {
    let list = |items: &[&str]| {
        let mut out = ReplyBuilder::new();
        out.array();
        items.iter().for_each(|item| _ = out.text(item));
        out.end();
        out.finish()
    };
    let odd = ["a key alone"];
    for command in ["MASTER", "MASTERS", "GET-MASTER-ADDR-BY-NAME", "CKQUORUM", "INFO-CACHE", "ROLE", "INFO"] {
        for reply in [list(&odd), list(&["x", "y", "z"]), ReplyBuilder::new().int(7).finish(), Reply::null()] {
            assert_eq!(json(&typed_of(&[command], reply.clone())), json(&reply), "{command}");
        }
    }
    // A command that has no typed form, or none that is known.
    assert_eq!(json(&typed_of(&["SET", "flags", "a,b"], list(&["flags", "a,b"]))), r#"["flags","a,b"]"#);
    // An unknown field and an odd number are texts; an empty list of flags is an empty set.
    let entry = list(&["port", "007", "new-field", "12", "flags", ""]);
    assert_eq!(json(&typed_of(&["master", "m"], entry)), r#"{"port":"007","new-field":"12","flags":[]}"#);
    let many = list(&["flags", "master,s_down,o_down", "s-down-time", "5200"]);
    let many = typed_of(&["MASTER"], many);
    assert_eq!((many.count(field(&many, 0, "flags")), many.int(field(&many, 0, "s-down-time"))), (3, Some(5200)));
}

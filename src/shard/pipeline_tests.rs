//! Lists, dealt out: order, bytes, and what goes apart.

use super::pipeline::*;
use super::*;
use crate::error::Status;
use crate::resp::{encode, list};

fn two() -> Map {
    Map::new(vec!["node_1".into(), "node_2".into()], Hash::Crc32, Tags::Rediscluster)
}

fn encoded(commands: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        encode::command(&mut bytes, &command.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    }
    bytes
}

fn part(shard: usize, at: &[usize], commands: &[&str]) -> Part {
    Part { shard, at: at.to_vec(), bytes: encoded(commands) }
}

#[test]
fn the_commands_of_each_shard_go_together_in_their_order() {
    let bytes = encoded(&["SET foo 1", "SET z{bar} 2", "GET foo", "PUBLISH foo m", "GET a{bar}", "GET bar"]);
    let steps = deal(&two(), list::parse(&bytes).unwrap()).unwrap();
    let wanted = vec![
        part(1, &[0, 2, 3], &["SET foo 1", "GET foo", "PUBLISH foo m"]),
        part(0, &[1, 4, 5], &["SET z 2", "GET a", "GET bar"]),
    ];
    assert_eq!(steps, [Step::Together(wanted)]);
}

#[test]
fn a_command_of_no_single_shard_is_passed_by_no_other() {
    let bytes = encoded(&["GET foo", "MGET foo bar{t}", "GET foo", "GET bar", "PING", "NOSUCH x"]);
    let steps = deal(&two(), list::parse(&bytes).unwrap()).unwrap();
    let [Step::Together(first), Step::Apart(mget), Step::Together(second), Step::Apart(ping), Step::Apart(unknown)] =
        &steps[..]
    else {
        panic!("{steps:?}")
    };
    assert_eq!(*first, [part(1, &[0], &["GET foo"])]);
    assert_eq!(*second, [part(1, &[2], &["GET foo"]), part(0, &[3], &["GET bar"])]);
    assert_eq!((mget.at, mget.args[2], mget.route.args(&mget.args)[2]), (1, &b"bar{t}"[..], &b"bar"[..]));
    assert!(matches!(mget.route.to, Where::Many(_)));
    assert_eq!((ping.at, &ping.route.to, unknown.at, &unknown.route.to), (4, &Where::Keyless, 5, &Where::Unknown));
}

#[test]
fn a_list_with_a_bad_command_is_dealt_out_to_nobody() {
    for (commands, said) in [
        (&["GET foo", "GET x{"][..], "command 2 of 2: key 'x{'"),
        (&["MSET a", "GET foo", "PING"], "command 1 of 3: MSET"),
        (&["GET"], "GET: its key"),
    ] {
        let bytes = encoded(commands);
        let error = deal(&two(), list::parse(&bytes).unwrap()).expect_err(said);
        assert_eq!(error.status(), Status::InvalidArg);
        assert!(error.message().starts_with(said), "{error}");
    }
    assert!(deal(&two(), list::parse(b"").unwrap()).unwrap().is_empty());
}

/// Every command comes out once, and what is not stripped comes out byte for byte.
#[test]
fn any_list_comes_out_whole_and_in_order() {
    let mut random = fastrand::Rng::with_seed(5);
    let words = ["GET k", "SET k v", "DEL k l", "PING", "PUBLISH k v", "MGET k l m", "EVAL x 0"];
    for _ in 0..2_000 {
        let commands: Vec<String> = (0..random.usize(..8))
            .map(|_| words[random.usize(..words.len())].replace('k', &format!("k{}", random.u8(..20))))
            .collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let bytes = encoded(&commands);
        let (mut seen, mut passed) = (Vec::new(), 0);
        for step in deal(&two(), list::parse(&bytes).unwrap()).unwrap() {
            match step {
                Step::Together(parts) => {
                    assert!(!parts.is_empty());
                    for part in parts {
                        assert!(part.at.windows(2).all(|pair| pair[0] < pair[1]) && part.at[0] >= passed);
                        let own: Vec<&str> = part.at.iter().map(|at| commands[*at]).collect();
                        assert_eq!(part.bytes, encoded(&own));
                        seen.extend(part.at);
                    }
                }
                Step::Apart(apart) => {
                    assert!(seen.iter().all(|at| *at < apart.at), "{commands:?}");
                    (passed, _) = (apart.at, seen.push(apart.at));
                }
            }
        }
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..commands.len()), "{commands:?}: {seen:?}");
    }
}

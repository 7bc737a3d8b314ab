//! From keys and commands to shards: which, and with which bytes.

use super::*;
use crate::error::Status;
use crate::resp::encode;

fn map(count: usize, hash: Hash, tags: Tags) -> Map {
    Map::new((1..=count).map(|number| format!("node_{number}")).collect(), hash, tags)
}

fn two() -> Map {
    map(2, Hash::Crc32, Tags::Rediscluster)
}

fn words(command: &str) -> Vec<&[u8]> {
    command.split(' ').map(str::as_bytes).collect()
}

fn to(map: &Map, command: &str) -> Where {
    map.route(&words(command)).expect(command).to
}

#[test]
fn row_108_a_key_with_a_tag_is_where_the_tag_is() {
    let map = two();
    let name = |key: &str| map.name(map.locate(key.as_bytes()).expect(key).shard).to_owned();
    assert_eq!(["foo", "bar", "foobar"].map(name), ["node_2", "node_1", "node_2"]);
    assert_eq!(map.locate(b"bar{foo}").unwrap(), Located { shard: 1, stored: b"bar" });
    assert_eq!((map.len(), map.name(2), map.hash(), map.tags()), (2, "", Hash::Crc32, Tags::Rediscluster));
    assert!(map.locate(b"x{").is_err());
    let cluster = Map::new(map.names().to_vec(), Hash::Crc16, Tags::Cluster);
    // The slots 12182 and 5061.
    assert_eq!(cluster.locate(b"bar{foo}").unwrap(), Located { shard: 1, stored: b"bar{foo}" });
    assert_eq!(cluster.locate(b"bar").unwrap().shard, 0);
}

#[test]
fn the_tags_and_slots_of_redis_cluster_are_those_of_its_cluster_keyslot() {
    for (key, wanted) in
        [("{foo}x", 12182), ("foo", 12182), ("bar{hello}{foo}", 866), ("a{{b}}", 6215), ("x{}{a}", 15756)]
    {
        let part = Tags::Cluster.of(key.as_bytes()).expect(key).part;
        assert_eq!(hash::slot(part), wanted, "{key}");
    }
}

#[test]
fn keys_are_split_by_shard_in_their_order() {
    let keys: [&[u8]; 6] = [b"foo", b"bar", b"x{bar}", b"foobar", b"foo", b"y{foo}"];
    let groups = two().split(&keys).unwrap();
    let wanted = [
        Group { shard: 1, at: vec![0, 3, 4, 5], stored: vec![&b"foo"[..], b"foobar", b"foo", b"y"] },
        Group { shard: 0, at: vec![1, 2], stored: vec![&b"bar"[..], b"x"] },
    ];
    assert_eq!(groups, wanted);
    assert!(two().split(&[]).unwrap().is_empty());
    assert!(two().split(&[b"a", b"x{"]).is_err());
}

#[test]
fn a_command_is_routed_by_all_of_its_keys() {
    let map = two();
    let one = |command: &str, shard| assert_eq!(to(&map, command), Where::One(shard), "{command}");
    one("GET foo", 1);
    one("get bar", 0);
    one("MSET foo 1 foobar 2", 1);
    one("BITOP XOR foo foobar", 1);
    one("EVAL x 1 foo bar", 1);
    one("XREAD COUNT 1 STREAMS bar 0", 0);
    one("OBJECT ENCODING foo", 1);
    let placed = |at, shard, is_written| Placed { at, shard, is_written };
    assert_eq!(to(&map, "COPY foo bar"), Where::Many(vec![placed(1, 1, false), placed(2, 0, true)]));
    assert_eq!(
        to(&map, "ZUNIONSTORE foo 2 bar foobar"),
        Where::Many(vec![placed(1, 1, true), placed(3, 0, false), placed(4, 1, false)])
    );
    assert_eq!(to(&map, "SORT bar BY foo STORE foo"), Where::Many(vec![placed(1, 0, false), placed(5, 1, true)]));
    for keyless in ["PING", "DBSIZE", "EVAL x 0", "CONFIG GET x", "KEYS *", "PSUBSCRIBE a*"] {
        assert_eq!(to(&map, keyless), Where::Keyless, "{keyless}");
    }
    assert_eq!(to(&map, "NOSUCH foo"), Where::Unknown);
    for bad in ["GET", "GET x{", "EVAL x y", "MSET a 1 b{"] {
        assert_eq!(map.route(&words(bad)).expect_err(bad).status(), Status::InvalidArg, "{bad}");
    }
}

#[test]
fn row_134_channels_are_routed_by_their_names_and_sent_as_they_are() {
    let map = two();
    assert_eq!(to(&map, "PUBLISH foo x"), Where::Channel(1));
    assert_eq!(to(&map, "SUBSCRIBE bar"), Where::Channel(0));
    let Where::Channels(placed) = to(&map, "SUBSCRIBE foo bar") else { panic!("on two shards") };
    assert_eq!(placed.iter().map(|one| (one.at, one.shard)).collect::<Vec<_>>(), [(1, 1), (2, 0)]);
    let tagged = map.route(&[b"PUBLISH", b"bar{foo}", b"x"]).unwrap();
    assert_eq!(tagged, Route { to: Where::Channel(1), stripped: None });
    let whole = Placement::new(Hash::Crc32, map.names()).shard(b"x{");
    assert_eq!(map.shard_of_channel(b"x{").unwrap(), whole, "braces that are no tag are text");
}

#[test]
fn row_111_tags_are_stripped_from_every_key_and_from_nothing_else() {
    let map = two();
    for (given, sent) in [
        ("RENAME a{t} b{t}", Some("RENAME a b")),
        ("MGET x bar{foo}", Some("MGET x bar")),
        ("MSET a{x} {v} b v{w}", Some("MSET a {v} b v{w}")),
        ("EVAL {body} 1 a{t} arg{t}", Some("EVAL {body} 1 a arg{t}")),
        ("SORT a{t} BY w{x}_* STORE d{t}", Some("SORT a BY w{x}_* STORE d")),
        ("XREAD STREAMS s{t} r{t} 0 0", Some("XREAD STREAMS s r 0 0")),
        ("OBJECT ENCODING k{t}", Some("OBJECT ENCODING k")),
        ("GET plain", None),
        ("ECHO {a}", None),
        ("NOSUCH a{t}", None),
        ("SET a {v}", None),
    ] {
        let given = words(given);
        let route = map.route(&given).unwrap();
        let hand_made = sent.map(words);
        assert_eq!(route.stripped, hand_made, "{}", given.join(&b' ').escape_ascii());
        let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
        encode::command(&mut bytes, route.args(&given));
        encode::command(&mut wanted, hand_made.as_ref().unwrap_or(&given));
        assert_eq!(bytes, wanted);
    }
    let cluster = self::map(2, Hash::Crc16, Tags::Cluster);
    assert!(cluster.route(&words("RENAME a{t} b{t}")).unwrap().stripped.is_none());
}

#[test]
fn keys_on_several_shards_are_named_with_their_shards() {
    let map = two();
    let command = words("sinterstore foo bar foobar");
    let Where::Many(keys) = to(&map, "sinterstore foo bar foobar") else { panic!("on two shards") };
    let error = map.cross_shard(&command, &keys);
    assert_eq!(error.status(), Status::CrossShard);
    let said = "SINTERSTORE needs all of its keys on one shard: 'foo' on node_2, 'bar' on node_1, 'foobar' on node_2;";
    assert!(error.message().starts_with(said), "{error}");
    let many: Vec<Placed> = (0..20).map(|_| keys[0]).collect();
    assert!(map.cross_shard(&command, &many).message().contains("and 12 more"));
}

/// What is routed by hand, key by key, is what a whole command is routed to.
#[test]
fn any_list_of_keys_goes_where_its_keys_are() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..5_000 {
        let hash = [Hash::Crc32, Hash::Crc16, Hash::Rendezvous][random.usize(..3)];
        let map = map(random.usize(1..6), hash, [Tags::Rediscluster, Tags::Cluster, Tags::None][random.usize(..3)]);
        let keys: Vec<String> =
            (0..random.usize(1..5)).map(|_| format!("k{}{{{}}}", random.u8(..9), random.u8(..4))).collect();
        let args: Vec<&[u8]> =
            std::iter::once("DEL").chain(keys.iter().map(String::as_str)).map(str::as_bytes).collect();
        let located: Vec<Located> = args[1..].iter().map(|key| map.locate(key).expect("a good tag")).collect();
        let route = map.route(&args).expect("a good command");
        assert!(route.args(&args)[1..].iter().eq(located.iter().map(|one| &one.stored)));
        match route.to {
            Where::One(shard) => assert!(located.iter().all(|one| one.shard == shard)),
            Where::Many(placed) => {
                assert!(placed.iter().map(|one| one.shard).eq(located.iter().map(|one| one.shard)));
                assert!(placed.iter().any(|one| one.shard != placed[0].shard));
            }
            other => panic!("{other:?}"),
        }
        let groups = map.split(&args[1..]).expect("good tags");
        assert_eq!(groups.iter().map(|group| group.at.len()).sum::<usize>(), located.len());
        for group in groups {
            assert!(group.at.windows(2).all(|two| two[0] < two[1]));
            assert!(group.at.iter().all(|at| located[*at].shard == group.shard));
            assert!(group.at.iter().zip(&group.stored).all(|(at, stored)| located[*at].stored == *stored));
        }
    }
}

//! Where keys are, for what the server of the tests does not know (tests/it/resp_table.rs has the rest), and for malformed commands.

use super::*;

fn named_of(command: &str) -> Result<Named> {
    named(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn keys(command: &str) -> Vec<usize> {
    match named_of(command).expect(command) {
        Named::Keys(places) => {
            assert_eq!(places.iter().count(), places.len(), "{command}");
            places.iter().collect()
        }
        other => panic!("{command}: {other:?}"),
    }
}

fn written(command: &str) -> Vec<usize> {
    match named_of(command).expect(command) {
        Named::Keys(places) => places.iter().filter(|at| places.is_written(*at)).collect(),
        other => panic!("{command}: {other:?}"),
    }
}

#[test]
fn keys_newer_than_the_server_of_the_tests_are_found() {
    assert_eq!(keys("MSETEX 2 a 1 b 2 EX 10"), [2, 4]);
    assert_eq!(keys("json.mget a b $"), [1, 2]);
    assert_eq!(keys("JSON.MSET a $ 1 b $ 2"), [1, 4]);
    assert_eq!(keys("JSON.DEBUG MEMORY a"), [2]);
    assert_eq!(keys("TS.MADD a 1 2 b 1 2"), [1, 4]);
    assert_eq!(keys("TDIGEST.MERGE d 2 a b COMPRESSION 5"), [1, 3, 4]);
    assert_eq!(keys("HGETEX h FIELDS 1 f"), [1]);
    assert_eq!(named_of("FT.SEARCH idx *").unwrap(), Named::Nothing);
}

#[test]
fn what_is_only_read_is_told_from_what_is_written() {
    for (command, wanted) in [
        ("GET a", &[][..]),
        ("SET a 1", &[1]),
        ("COPY a b", &[2]),
        ("RENAME a b", &[1, 2]),
        ("SUNIONSTORE d a b", &[1]),
        ("BITOP AND d a b", &[2]),
        ("ZUNIONSTORE d 2 a b", &[1]),
        ("ZRANGESTORE d a 0 1", &[1]),
        ("PFMERGE d a", &[1]),
        ("SORT a", &[]),
        ("SORT a STORE d", &[3]),
        ("GEORADIUS a 1 1 1 m STOREDIST d", &[7]),
        ("EVAL x 2 a b", &[3, 4]),
        ("EVAL_RO x 2 a b", &[]),
        ("SMOVE a b m", &[1, 2]),
        ("MSET a 1 b 2", &[1, 3]),
    ] {
        assert_eq!(written(command), wanted, "{command}");
    }
}

#[test]
fn a_command_without_keys_is_told_from_one_that_is_not_known() {
    for command in
        ["PING", "dbsize", "KEYS *", "EVAL x 0 a", "FCALL f 0", "CLIENT LIST", "OBJECT HELP", "OBJECT", "COMMAND"]
    {
        assert_eq!(named_of(command).unwrap(), Named::Nothing, "{command}");
    }
    for command in ["NOSUCH a", "MYMODULE.GET a", "OBJECT NOSUCH a", "DEBUG NOSUCH a", "CLIENT NOSUCH", "GET\0 a"] {
        assert_eq!(named_of(command).unwrap(), Named::Unknown, "{command}");
    }
}

#[test]
fn channels_are_no_keys() {
    for (command, wanted) in [
        ("PUBLISH a x", &[1][..]),
        ("spublish a x", &[1]),
        ("SUBSCRIBE a b", &[1, 2]),
        ("SSUBSCRIBE a", &[1]),
        ("UNSUBSCRIBE a", &[1]),
        ("PUBSUB NUMSUB a b", &[2, 3]),
    ] {
        let Named::Channels(places) = named_of(command).unwrap() else { panic!("{command}") };
        assert_eq!(places.iter().collect::<Vec<_>>(), wanted, "{command}");
    }
    for command in ["UNSUBSCRIBE", "PUBSUB NUMSUB", "PSUBSCRIBE a*", "PUBSUB CHANNELS a"] {
        assert_eq!(named_of(command).unwrap(), Named::Nothing, "{command}");
    }
}

#[test]
fn a_malformed_command_is_refused_with_the_argument_that_is_wrong() {
    assert!(named(&[]).is_err());
    for (command, said) in [
        ("GET", "argument 1"),
        ("DEL", "argument 1"),
        ("RENAME a", "argument 2"),
        ("BLPOP a", "argument 1"),
        ("BLPOP", "argument 1"),
        ("BITOP AND", "argument 2"),
        ("OBJECT ENCODING", "argument 2"),
        ("MSET a 1 b", "2 arguments"),
        ("JSON.MSET a $", "3 arguments"),
        ("EVAL x", "argument 2"),
        ("EVAL x y", "is 'y'"),
        ("EVAL x ", "is ''"),
        ("EVAL x +1 a", "is '+1'"),
        ("EVAL x 01 a", "is '01'"),
        ("EVAL x 2 a", "says that it has 2 keys, and there are 1"),
        ("EVAL x 9223372036854775807 a", "there are 1"),
        ("EVAL x 18446744073709551615 a", "there are 1"),
        ("EVAL x 18446744073709551616 a", "is '18446744073709551616'"),
        ("MSETEX 2 a 1 b", "there are 1"),
        ("ZUNIONSTORE d -1 a", "is '-1'"),
        ("ZUNIONSTORE d", "argument 2"),
        ("SINTERCARD 0 a", "needs one"),
        ("XREAD COUNT 1", "STREAMS is missing"),
        ("XREAD STREAMS", "0 arguments"),
        ("XREAD STREAMS a b 0", "3 arguments"),
        ("XREADGROUP GROUP STREAMS c", "STREAMS is missing"),
        ("SORT", "argument 1"),
        ("MIGRATE h p", "argument 3"),
        ("MIGRATE h 1  0 1 KEYS", "argument 3"),
    ] {
        let error = named_of(command).expect_err(command);
        assert_eq!(error.status(), Status::InvalidArg, "{command}");
        let name = command.split(' ').next().unwrap_or_default();
        assert!(error.message().starts_with(name) && error.message().contains(said), "{command}: {error}");
    }
}

/// Whatever the arguments are, an index is one of an argument, and the command's name is none.
#[test]
fn any_arguments_are_looked_through_without_a_panic() {
    let words: [&[u8]; 14] = [
        b"", b"0", b"1", b"2", b"3", b"-1", b"STREAMS", b"GROUP", b"KEYS", b"STORE", b"AUTH2", b"LIMIT", b"k", b"\xff",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for spec in super::super::all() {
        for _ in 0..200 {
            let mut args: Vec<&[u8]> = spec.name.split(' ').map(str::as_bytes).collect();
            (0..random.usize(..9)).for_each(|_| args.push(words[random.usize(..words.len())]));
            if let Ok(Named::Keys(places) | Named::Channels(places)) = named(&args) {
                let found: Vec<usize> = places.iter().collect();
                let is_sound = !found.is_empty() && found.iter().all(|at| (1..args.len()).contains(at));
                assert!(is_sound && found.len() == places.len(), "{args:?}: {found:?}");
            }
        }
    }
}

//! The forms of tags, in all three modes.

use super::tags::*;
use crate::error::Status;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("parts of a text")
}

#[test]
fn row_109_a_well_formed_tag_counts_and_is_stripped() {
    for (key, part, stored) in [
        ("bar{foo}", "foo", "bar"),
        ("plain", "plain", "plain"),
        ("a}b", "a}b", "a}b"),
        ("", "", ""),
        ("user:1{t}", "t", "user:1"),
        ("ü{漢字}", "漢字", "ü"),
    ] {
        let tagged = Tags::Rediscluster.of(key.as_bytes()).expect(key);
        assert_eq!((text(tagged.part), text(tagged.stored)), (part, stored), "{key}");
    }
    let binary = Tags::Rediscluster.of(b"\0\xff{\x80}").expect("bytes need not be text");
    assert_eq!((binary.part, binary.stored), (&b"\x80"[..], &b"\0\xff"[..]));
}

#[test]
fn row_110_a_bad_tag_is_refused_with_its_reason() {
    for (key, reason) in [
        ("{foo}", "would be empty"),
        ("{foo}bar", "would be empty"),
        ("{", "would be empty"),
        ("{}", "would be empty"),
        ("x{a}y", "text stands behind"),
        ("x{a", "not closed"),
        ("x{", "not closed"),
        ("x{}", "nothing stands between"),
        ("x{a}{b}", "several tags"),
        ("x}{a}", "a '}' stands in front"),
        ("a{{b}}", "within each other"),
        ("a{b}}", "more closing"),
    ] {
        let error = Tags::Rediscluster.of(key.as_bytes()).expect_err(key);
        assert_eq!(error.status(), Status::InvalidArg, "{key}");
        let is_said =
            error.message().contains(reason) && error.message().contains(&format!("key '{key}' has a bad tag"));
        assert!(is_said, "{key}: {error}");
    }
    let long = Tags::Rediscluster.of(&[&[b'x'; 5000][..], b"{"].concat()).expect_err("not closed");
    assert!(long.message().len() < 400, "a long key is cut: {long}");
}

#[test]
fn the_tags_of_redis_cluster_count_and_stay() {
    for (key, part) in [
        ("bar{foo}", "foo"),
        ("plain", "plain"),
        ("{foo}", "foo"),
        ("{foo}bar", "foo"),
        ("x{a}y", "a"),
        ("x{a", "x{a"),
        ("x{", "x{"),
        ("x{}", "x{}"),
        ("x{}{a}", "x{}{a}"),
        ("x{a}{b}", "a"),
        ("x}{a}", "a"),
        ("a{{b}}", "{b"),
        ("a{b}}", "b"),
        ("{", "{"),
        ("{}", "{}"),
        ("a}b", "a}b"),
        ("", ""),
    ] {
        let tagged = Tags::Cluster.of(key.as_bytes()).expect(key);
        assert_eq!((text(tagged.part), text(tagged.stored)), (part, key), "{key}");
        let whole = Tags::None.of(key.as_bytes()).expect(key);
        assert_eq!((text(whole.part), text(whole.stored)), (key, key), "{key}");
    }
}

#[test]
fn any_bytes_make_a_key_or_an_error_and_never_an_empty_name() {
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..100_000 {
        let key: Vec<u8> = (0..random.usize(..8)).map(|_| b"{}ab"[random.usize(..4)]).collect();
        let opens = key.iter().filter(|byte| **byte == b'{').count();
        match Tags::Rediscluster.of(&key) {
            Ok(tagged) if opens == 0 => assert_eq!((tagged.part, tagged.stored), (&key[..], &key[..])),
            Ok(tagged) => {
                assert!(!tagged.stored.is_empty() && !tagged.part.is_empty() && opens == 1, "{}", key.escape_ascii());
                assert_eq!([tagged.stored, b"{", tagged.part, b"}"].concat(), key);
            }
            Err(error) => assert!(opens > 0, "{}: {error}", key.escape_ascii()),
        }
        assert_eq!(Tags::Cluster.of(&key).expect("no form is bad").stored, &key[..]);
    }
}

#[test]
fn the_name_of_a_channel_is_no_key_and_never_refused() {
    for (name, part) in [("news", "news"), ("news{eu}", "eu"), ("{eu}", "{eu}"), ("a{b", "a{b")] {
        assert_eq!(text(Tags::Rediscluster.of_channel(name.as_bytes())), part, "{name}");
    }
    assert_eq!(Tags::Cluster.of_channel(b"{eu}news"), b"eu");
}

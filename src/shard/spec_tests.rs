//! What shards a list of texts names, and what is refused.

use super::spec::*;
use crate::error::Status;

fn fixed(shard: &Shard) -> &Fixed {
    match &shard.target {
        Target::Fixed(fixed) => fixed,
        Target::Service(name) => panic!("{}: service {name}", shard.name),
    }
}

#[test]
fn row_107_names_give_the_order_and_not_the_list() {
    let spec = Spec::parse(&["node_2=sentinel:b", "node_3=redis://h3", "node_1=sentinel:a"]).unwrap();
    assert_eq!(spec.names(), ["node_1", "node_2", "node_3"]);
    assert_eq!(spec.shards[0].target, Target::Service("a".into()));
    assert_eq!(spec.shards[1].target, Target::Service("b".into()));
    assert_eq!(fixed(&spec.shards[2]).primary.to_string(), "h3:6379");
    assert!(spec.needs_sentinels() && spec.db.is_none());
    assert!(!Spec::parse(&["node_1=redis://h"]).unwrap().needs_sentinels());
}

#[test]
fn row_107_gaps_and_other_names_are_refused() {
    for (texts, said) in [
        (&[][..], "0 are given"),
        (&["node_2=sentinel:a"], "node_2 is given, but there are 1 shards"),
        (&["node_1=sentinel:a", "node_3=sentinel:b"], "without gaps"),
        (&["node_1=sentinel:a", "node_1=sentinel:b"], "node_1 is given twice"),
        (&["node_1=sentinel:a", "node_0=sentinel:b"], "'node_0' in text 2 of 2"),
        (&["node_01=sentinel:a"], "'node_01' in text 1 of 1"),
        (&["node_=sentinel:a"], "'node_' in text"),
        (&["Node_1=sentinel:a"], "'Node_1' in text"),
        (&["node_1a=sentinel:a"], "'node_1a' in text"),
        (&["node_99999999999999999999=sentinel:a"], "in text 1"),
        (&["shard=sentinel:a"], "'shard' in text"),
        (&["sentinel:a"], "text 1 of 1 has no name"),
        (&["node_1=sentinel:"], "name of a service"),
        (&["node_1=sentinel:a b"], "name of a service"),
        (&["node_1=h:6379"], "neither sentinel:SERVICE nor"),
        (&["node_1="], "neither sentinel:SERVICE nor"),
        (&["node_1=redis-sentinel://h/s"], "neither sentinel:SERVICE nor"),
        (&["node_1=redis://h:0"], "shards: node_1: option \"uri\""),
        (&["node_1=redis://h/x"], "number of a database"),
        (&["node_1=redis://h?timeout.call=1"], "options cannot stand"),
        (&["node_1=redis://h|h2"], "no host name"),
        (&["node_1=redis://h|"], "no host name"),
    ] {
        let error = Spec::parse(texts).expect_err(&format!("{texts:?}"));
        assert_eq!(error.status(), Status::Config, "{texts:?}");
        assert!(error.message().contains(said), "{texts:?}: {error}");
    }
    let many = vec!["node_1=sentinel:a"; MOST_SHARDS + 1];
    assert!(Spec::parse(&many).expect_err("too many").message().contains("1 to 1024"));
}

#[test]
fn a_uri_has_its_own_credentials_and_its_database() {
    let spec = Spec::parse(&["node_1=redis://ann:p%7Cw@h1:7000/2", "node_2=REDIS://h2/2"]).unwrap();
    let [first, second] = [0, 1].map(|at| fixed(&spec.shards[at]));
    let auth = first.auth.as_ref().expect("credentials");
    assert_eq!(auth.username.as_deref(), Some("ann"));
    assert_eq!(auth.password.as_ref().expect("a password").expose(), "p|w");
    assert_eq!((first.primary.to_string().as_str(), first.tls), ("h1:7000", false));
    assert!(second.auth.is_none(), "the handle's are used");
    assert_eq!(spec.db, Some(2));
    assert_eq!(Spec::parse(&["node_1=redis://h1/0"]).unwrap().db, Some(0));
    assert_eq!(Spec::parse(&["node_1=redis://h1/"]).unwrap().db, None);
    if cfg!(feature = "tls") {
        let spec = Spec::parse(&["node_1=rediss://h1|rediss://h2"]).unwrap();
        assert!(fixed(&spec.shards[0]).tls);
    }
}

#[test]
fn databases_that_differ_are_refused() {
    for (texts, said) in [
        (["node_1=redis://h1/1", "node_2=redis://h2/2"], "node_1 names database 1 and node_2 names 2"),
        (["node_1=redis://h1", "node_2=redis://h2/2"], "node_1 names database none and node_2 names 2"),
        (["node_2=redis://h2/0", "node_1=redis://h1"], "node_2 names database 0 and node_1 names none"),
    ] {
        let error = Spec::parse(&texts).expect_err(said);
        assert!(error.message().contains(said), "{error}");
    }
    let mixed = Spec::parse(&["node_1=redis://h1/3", "node_2=sentinel:a"]).unwrap();
    assert_eq!(mixed.db, Some(3), "a service names none, and has that of the others");
}

#[test]
fn row_113_a_primary_may_come_with_its_replica() {
    let spec = Spec::parse(&["node_1=redis://a:b|redis@h1|redis://h2:1", "node_2=redis://h3|redis://h3:6379"]).unwrap();
    let [first, second] = [0, 1].map(|at| fixed(&spec.shards[at]));
    assert_eq!(first.replicas.iter().map(ToString::to_string).collect::<Vec<_>>(), ["h2:1"]);
    let password = first.auth.as_ref().and_then(|auth| auth.password.as_ref()).expect("a password");
    assert_eq!(password.expose(), "b|redis", "no scheme follows, so it belongs to the password");
    assert!(second.replicas.is_empty(), "a primary that is its own replica has none");
    for differs in ["redis://x:y@h2", "redis://h2/4", "redis://ann:other@h2"] {
        let error = Spec::parse(&[&format!("node_1=redis://ann:pw@h1|{differs}")]).expect_err(differs);
        assert!(error.message().contains("give the same, or none"), "{differs}: {error}");
    }
    assert!(Spec::parse(&["node_1=redis://ann:pw@h1/4|redis://ann:pw@h2/4"]).is_ok());
}

#[test]
fn row_119_one_server_under_two_names_is_found() {
    let spec = Spec::parse(&[
        "node_1=redis://H1:6379",
        "node_2=sentinel:a",
        "node_3=redis://h1|redis://h2",
        "node_4=sentinel:b",
        "node_5=sentinel:a",
        "node_6=redis://h1:6380",
    ]);
    assert_eq!(spec.unwrap().aliases(), [0, 1, 0, 3, 1, 5]);
}

#[test]
fn no_piece_of_a_password_is_shown() {
    for text in [
        "redis://u:SECRET@h",
        "redis://u:SECRET@h?db=1",
        "node_1=redis://u:SECRET@h:x",
        "node_1=redis://u:SECRET",
        "node_1=redis://u:SECRET@h/SECRET",
        "node_1=redis://u:SECRET@h?a=SECRET",
        "node_1=redis://u:SECRET@h?timeout.call=1",
        "node_1=redis://u:SECRET@h|redis://u:SECRET2@h2",
        "node_1=redis://u:p|SECRET",
        "node_1=u:SECRET@h",
        "u:SECRET@h=redis://h",
    ] {
        let error = Spec::parse(&[text]).expect_err(text);
        assert!(!error.message().contains("SECRET"), "{text}: {error}");
    }
    let spec = Spec::parse(&["node_1=redis://u:SECRET@h"]).unwrap();
    assert!(!format!("{spec:?}").contains("SECRET"));
}

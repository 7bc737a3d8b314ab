//! The handshake, reply by reply, without a socket.

use super::*;
use crate::config::Secret;
use crate::resp::{Decoded, Decoder, Limits, Want};

const HELLO: &str = "%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n";
const PRIMARY: &str = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
const REPLICA: &str = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:7000\r\n$9\r\nconnected\r\n:5\r\n";
const SENTINEL: &str = "*2\r\n$8\r\nsentinel\r\n*0\r\n";
const OK: &str = "+OK\r\n";
const ID: &str = ":7\r\n";
const UNKNOWN: &str = "-ERR unknown command 'X'\r\n";

fn options(expect: Expect) -> HandshakeOptions {
    HandshakeOptions::plain(expect)
}

fn password(password: &str) -> Credentials {
    Credentials { username: None, password: Some(Secret::new(password)) }
}

/// Feeds the replies; what was sent (all flights, as words) and how it ended.
fn talk(options: HandshakeOptions, replies: &[&str]) -> (Vec<String>, Result<ServerInfo>) {
    let mut handshake = Handshake::new(options);
    let mut flights = vec![words(&handshake.first())];
    let mut decoder = Decoder::new(Limits::default());
    for wire in replies {
        let (_, Some(Decoded::Reply(reply))) = decoder.decode(wire.as_bytes(), Want::One).unwrap() else {
            panic!("{wire:?} is no whole reply")
        };
        match handshake.feed(&reply) {
            Ok(Step::More) => {}
            Ok(Step::Send(bytes)) => flights.push(words(&bytes)),
            Ok(Step::Done(info)) => return (flights, Ok(info)),
            Err(error) => return (flights, Err(error)),
        }
    }
    panic!("not ended; sent {flights:?}");
}

fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<_> = text.split("\r\n").filter(|word| !word.starts_with(['*', '$']) && !word.is_empty()).collect();
    words.join(" ")
}

fn fails(options: HandshakeOptions, replies: &[&str]) -> Error {
    talk(options, replies).1.unwrap_err()
}

#[test]
fn one_flight_says_it_all() {
    let mut all = options(Expect::Primary);
    all.auth = Credentials { username: Some("bob".into()), password: Some(Secret::new("pa ss")) };
    (all.db, all.client_name) = (9, Some("me".into()));
    (all.no_evict, all.no_touch) = (true, true);
    let (sent, ended) = talk(all, &[HELLO, OK, OK, OK, OK, OK, "+PONG\r\n", PRIMARY]);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "HELLO 3 AUTH bob pa ss SETNAME me CLIENT SETINFO LIB-NAME vigie CLIENT SETINFO LIB-VER {version} \
         CLIENT NO-EVICT ON CLIENT NO-TOUCH ON SELECT 9 PING ROLE"
    );
    assert_eq!(sent, [expected]);
    assert_eq!(ended.unwrap().protocol, 3);
}

#[test]
fn an_old_server_gets_a_second_flight() {
    let mut old = options(Expect::Primary);
    (old.auth, old.db, old.client_name) = (password("pw"), 2, Some("me".into()));
    let noauth = "-NOAUTH Authentication required.\r\n";
    let first = [UNKNOWN, noauth, noauth, noauth, noauth, noauth];
    let second = [OK, OK, ID, UNKNOWN, UNKNOWN, OK, "+PONG\r\n", PRIMARY];
    let (sent, ended) = talk(old.clone(), &[first.as_slice(), &second].concat());
    assert!(sent[0].starts_with("HELLO 3 AUTH default pw SETNAME me"), "{sent:?}");
    assert!(sent[1].starts_with("AUTH pw CLIENT SETNAME me CLIENT ID CLIENT SETINFO"), "{sent:?}");
    let told = ended.unwrap();
    assert_eq!((told.protocol, told.id), (2, 7), "as HELLO would have told");
    old.protocol = Protocol::Resp3;
    assert_eq!(fails(old, &first).status(), Status::Unsupported);
}

#[test]
fn protocol_2_needs_one_flight_and_no_hello() {
    let mut two = options(Expect::Replica);
    (two.protocol, two.auth) = (Protocol::Resp2, password("pw"));
    let (sent, ended) = talk(two, &[OK, UNKNOWN, OK, OK, "+PONG\r\n", REPLICA]);
    assert!(sent.len() == 1 && sent[0].starts_with("AUTH pw CLIENT ID CLIENT SETINFO"), "{sent:?}");
    assert_eq!(ended.unwrap().protocol, 2);
}

#[test]
fn a_sentinel_is_asked_for_nothing_that_it_lacks() {
    let mut data = options(Expect::Sentinel);
    (data.db, data.no_evict, data.no_touch) = (3, true, true);
    let (sent, ended) = talk(data, &[HELLO, OK, OK, SENTINEL]);
    assert!(!sent[0].contains("SELECT") && !sent[0].contains("NO-") && !sent[0].contains("PING"), "{sent:?}");
    assert_eq!(ended.unwrap().role, Role::Sentinel(vec![]));
    let error = fails(options(Expect::Sentinel), &[HELLO, OK, OK, PRIMARY]);
    assert!(error.status() == Status::Role && error.message().contains("not a Sentinel"), "{error}");
}

#[test]
fn row_7_refused_credentials_are_one_auth_error() {
    for line in [
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        "-NOAUTH HELLO must be called with the client already authenticated\r\n",
    ] {
        assert_eq!(fails(options(Expect::Primary), &[line]).status(), Status::Auth);
    }
    let mut two = options(Expect::Primary);
    (two.protocol, two.auth) = (Protocol::Resp2, password("secret-word"));
    for line in [
        "-ERR invalid password\r\n",
        "-ERR Client sent AUTH, but no password is set\r\n",
        "-ERR AUTH <password> called without any password configured for the default user.\r\n",
        "-ERR wrong number of arguments for 'auth' command\r\n",
    ] {
        let error = fails(two.clone(), &[line]);
        assert!(error.status() == Status::Auth && !error.message().contains("secret-word"), "{error}");
    }
}

#[test]
fn a_password_that_is_not_set_is_told_as_such() {
    let line = "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
                <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n";
    for (expect, option) in [(Expect::Primary, "auth.password"), (Expect::Sentinel, "sentinel.password")] {
        let error = fails(options(expect), &[line]);
        assert_eq!((error.status(), error.server_code()), (Status::Auth, "NOAUTH"));
        assert!(error.message().contains("none is set") && error.message().contains(option), "{error}");
        assert!(!error.message().contains("<proto>"), "{error}");
    }
}

#[test]
fn a_password_that_the_server_quotes_is_not_told() {
    let secret = "sEcReTpw".repeat(20);
    // Redis cuts each argument after 128 bytes.
    let quoted = format!("with args beginning with: '3' 'AUTH' 'default' '{}' ", &secret[..128]);
    let lines = [
        format!("-ERR unknown command 'HELLO', {quoted}\r\n"),
        format!("-ERR unknown command 'AUTH', {quoted}\r\n"),
        format!("-ERR '{secret}' is not the password, '{secret}' is wrong\r\n"),
        format!("-WRONGPASS {secret}\r\n"),
        format!("-LOADING {secret}\r\n"),
    ];
    for expect in [Expect::Primary, Expect::Sentinel] {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            for line in &lines {
                let password = Some(Secret::new(secret.clone()));
                let auth = Credentials { username: None, password };
                let error = fails(HandshakeOptions { auth, protocol, ..options(expect) }, &[line]);
                assert!(!error.message().contains("sEcReTpw"), "{error}");
                assert!(error.message().contains("***"), "what was left out is marked: {error}");
            }
        }
    }
}

#[test]
fn loading_is_told_unless_the_role_is_wrong() {
    let loading = "-LOADING Redis is loading the dataset in memory\r\n";
    let error = fails(options(Expect::Primary), &[HELLO, OK, OK, loading, PRIMARY]);
    assert_eq!((error.status(), error.server_code()), (Status::Server, "LOADING"));
    assert!(error.has(flags::RETRYABLE));
    let error = fails(options(Expect::Primary), &[HELLO, OK, OK, loading, REPLICA]);
    assert!(error.status() == Status::Role && error.has(flags::RETRYABLE), "{error}");
    assert!(error.message().contains("replica of 127.0.0.1:7000"), "{error}");
}

#[test]
fn what_narrow_users_lack_is_not_needed_and_what_was_asked_for_is() {
    let noperm = "-NOPERM no permissions\r\n";
    assert!(talk(options(Expect::Primary), &[HELLO, noperm, noperm, noperm, PRIMARY]).1.is_ok());
    let mut wanted = options(Expect::Primary);
    (wanted.no_touch, wanted.db) = (true, 99);
    let unknown = "-ERR unknown subcommand 'NO-TOUCH'. Try CLIENT HELP.\r\n";
    let range = "-ERR DB index is out of range\r\n";
    let error = fails(wanted.clone(), &[HELLO, OK, OK, unknown, range, "+PONG\r\n", PRIMARY]);
    assert!(error.status() == Status::Unsupported && error.message().contains("client.no_touch=true"), "{error}");
    let select = |line: &str| fails(wanted.clone(), &[HELLO, OK, OK, OK, line, "+PONG\r\n", PRIMARY]);
    for (line, status) in [(range, Status::Config), (noperm, Status::Auth), (UNKNOWN, Status::Unsupported)] {
        let error = select(line);
        assert_eq!(error.status(), status);
        assert!(error.message().contains("db=99: SELECT") && !error.has(flags::RETRYABLE), "{error:?}");
    }
    assert!(select("-LOADING Redis is loading the dataset in memory\r\n").has(flags::RETRYABLE));
    let mut named = options(Expect::Primary);
    (named.client_name, named.protocol) = (Some("me".into()), Protocol::Resp2);
    let error = fails(named, &["-ERR Client names cannot contain that\r\n", ID, OK, OK, "+PONG\r\n", PRIMARY]);
    assert!(error.message().contains("client.name=me") && !error.has(flags::RETRYABLE), "{error:?}");
}

#[test]
fn a_full_server_is_worth_another_try_and_one_that_admits_nobody_is_not() {
    let error = fails(options(Expect::Any), &["-ERR max number of clients reached\r\n"]);
    assert!(error.status() == Status::Connect && error.has(flags::RETRYABLE), "{error}");
    let error = fails(options(Expect::Any), &["-DENIED Redis is running in protected mode\r\n"]);
    assert!(error.status() == Status::Connect && !error.has(flags::RETRYABLE), "{error}");
}

const NOPERM: &str = "-NOPERM this user has no permissions to run the 'role' command\r\n";

fn hello(role: &str) -> String {
    format!("%2\r\n+proto\r\n:3\r\n+role\r\n+{role}\r\n")
}

fn info(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn what_a_named_primary_refuses_is_told_and_no_error() {
    let mut named = options(Expect::Named);
    (named.db, named.no_evict) = (3, true);
    let with = |evict: &str, select: &str, ping: &str, role: &str| {
        talk(named.clone(), &[HELLO, OK, OK, evict, select, ping, role]).1.unwrap()
    };
    let told = with(OK, OK, "+PONG\r\n", PRIMARY);
    assert!(told.role.is_primary() && !told.unmet);
    assert!(named.would_have_got(&named, &told));
    let others: [fn(&mut HandshakeOptions); 5] = [
        |other| other.db = 0,
        |other| other.no_evict = false,
        |other| other.client_name = Some("it".into()),
        |other| other.auth = password("p"),
        |other| other.protocol = Protocol::Resp2,
    ];
    for change in others {
        let mut other = named.clone();
        change(&mut other);
        assert!(!other.would_have_got(&named, &told));
    }
    // All connections of a pool speak the same.
    let two = ServerInfo { protocol: 2, ..told };
    assert!(!named.would_have_got(&named, &two));
    for told in [
        with(UNKNOWN, OK, "+PONG\r\n", PRIMARY),
        with(OK, "-ERR DB index is out of range\r\n", "+PONG\r\n", PRIMARY),
        with(OK, OK, "-LOADING Redis is loading the dataset in memory\r\n", PRIMARY),
    ] {
        assert!(told.role.is_primary() && told.unmet && !named.would_have_got(&named, &told), "{told:?}");
    }
    assert!(!with(OK, OK, "+PONG\r\n", REPLICA).role.is_primary());
}

#[test]
fn hello_tells_the_role_where_role_is_refused_and_costs_nothing() {
    for refused in [NOPERM, UNKNOWN] {
        let (sent, ended) = talk(options(Expect::Primary), &[&hello("master"), OK, OK, "+PONG\r\n", refused]);
        let told = ended.unwrap();
        assert!(told.role.is_primary() && told.tells == Tells::Hello(3) && sent.len() == 1, "{told:?} {sent:?}");
    }
    let error = fails(options(Expect::Primary), &[&hello("replica"), OK, OK, "+PONG\r\n", NOPERM]);
    assert!(error.status() == Status::Role && error.has(flags::RETRYABLE), "{error}");
    let sentinel = "%2\r\n+proto\r\n:3\r\n+mode\r\n+sentinel\r\n";
    assert!(talk(options(Expect::Sentinel), &[sentinel, OK, OK, NOPERM]).1.is_ok());
    let error = fails(options(Expect::Sentinel), &[&hello("master"), OK, OK, NOPERM]);
    assert!(error.message().contains("not a Sentinel"), "{error}");
    assert!(!fails(options(Expect::Primary), &[&hello("master"), OK, OK, "+PONG\r\n", "+master\r\n"]).has(1));
}

#[test]
fn info_tells_what_hello_does_not() {
    let primary = info("role:master\r\nmaster_replid:abc\r\n");
    let (sent, ended) = talk(options(Expect::Primary), &[HELLO, OK, OK, "+PONG\r\n", NOPERM, &primary]);
    assert!(sent[1] == "INFO replication" && ended.unwrap().tells == Tells::Info, "{sent:?}");
    let replica = info("role:slave\r\nmaster_host:h\r\nmaster_port:7000\r\nmaster_link_status:up\r\n");
    let first = [&hello("replica"), OK, OK, "+PONG\r\n", NOPERM];
    let (sent, ended) = talk(options(Expect::Replica), &[first.as_slice(), &[&replica]].concat());
    let told = ended.unwrap();
    assert_eq!((sent.len(), told.tells), (2, Tells::Hello(3)));
    assert!(told.role.to_string().contains("h:7000 (link: connected)"), "{told:?}");
    let mut two = options(Expect::Primary);
    two.protocol = Protocol::Resp2;
    let hello_2 = hello("master").replace(":3", ":2");
    let (sent, ended) = talk(two, &[ID, OK, OK, "+PONG\r\n", NOPERM, &hello_2, NOPERM]);
    assert!(sent[1] == "HELLO 2 INFO replication" && ended.unwrap().tells == Tells::Hello(2), "{sent:?}");
}

#[test]
fn who_may_ask_for_nothing_is_let_through_with_an_unknown_role() {
    for expect in [Expect::Primary, Expect::Replica, Expect::Any] {
        let mut options = options(expect);
        options.protocol = Protocol::Resp2;
        let ping = if expect == Expect::Any { &[][..] } else { &["+PONG\r\n"] };
        let (_, ended) = talk(options, &[&[NOPERM, OK, OK], ping, &[NOPERM, UNKNOWN, NOPERM]].concat());
        let told = ended.unwrap();
        assert!(told.role == Role::Unknown && told.tells == Tells::Nothing && told.asked_info, "{told:?}");
    }
    let loading = "-LOADING Redis is loading the dataset in memory\r\n";
    let error = fails(options(Expect::Primary), &[&hello("master"), OK, OK, "+PONG\r\n", loading]);
    assert!(error.has(flags::RETRYABLE), "what passes is waited for: {error}");
}

#[test]
fn the_replication_id_comes_with_the_role_in_one_flight() {
    let mut any = options(Expect::Any);
    any.lineage = true;
    let told = info("role:master\r\nmaster_replid:abc\r\n");
    let (sent, ended) = talk(any.clone(), &[HELLO, OK, OK, &told, PRIMARY]);
    assert!(sent.len() == 1 && sent[0].ends_with("INFO replication ROLE"), "{sent:?}");
    assert_eq!(ended.unwrap().replication.map(|told| told.id).as_deref(), Some("abc"));
    assert!(talk(any.clone(), &[HELLO, OK, OK, NOPERM, PRIMARY]).1.unwrap().replication.is_none());
    let (sent, ended) = talk(any.clone(), &[HELLO, OK, OK, &told, NOPERM]);
    assert!(sent.len() == 1 && ended.unwrap().role.is_primary(), "it is not asked twice");
    let old = [UNKNOWN, UNKNOWN, UNKNOWN, &told, PRIMARY, ID, UNKNOWN, UNKNOWN, &told, PRIMARY];
    assert!(talk(any, &old).1.unwrap().replication.is_some());
}

#[test]
fn any_refusal_of_hello_leads_to_the_older_protocol_but_those_that_pass_or_are_about_the_login() {
    let second = [ID, OK, OK, "+PONG\r\n", PRIMARY];
    for line in ["-ERR invalid protocol\r\n", "-NOPERM hello\r\n", "-NOPROTO sorry\r\n", "-ERR syntax\r\n"] {
        let (sent, ended) = talk(options(Expect::Primary), &[&[line, OK, OK, OK, OK], second.as_slice()].concat());
        assert!(sent.len() == 2 && ended.unwrap().protocol == 2, "{line}");
        let mut three = options(Expect::Primary);
        three.protocol = Protocol::Resp3;
        let error = fails(three, &[line]);
        assert!(error.message().contains("protocol=3") && !error.has(flags::RETRYABLE), "{error}");
    }
    for line in ["-LOADING Redis is loading\r\n", "-BUSY a script runs\r\n", "-ERR max number of clients reached\r\n"] {
        assert!(fails(options(Expect::Primary), &[line]).has(flags::RETRYABLE), "{line}");
    }
    assert_eq!(fails(options(Expect::Primary), &["-WRONGPASS no\r\n"]).status(), Status::Auth);
}

#[test]
fn the_connections_of_a_node_come_to_one_protocol() {
    let old = options(Expect::Primary);
    let odd = "-ERR the proxy has a bad moment\r\n";
    let (first, second) = ([odd, OK, OK, OK, OK], [ID, OK, OK, "+PONG\r\n", PRIMARY]);
    assert_eq!(talk(old.clone(), &[first.as_slice(), &second].concat()).1.unwrap().protocol, 2);
    let (sent, ended) = talk(old, &second);
    assert!(sent.len() == 1 && !sent[0].contains("HELLO") && ended.unwrap().protocol == 2, "{sent:?}");
    let new = options(Expect::Primary);
    assert_eq!(talk(new.clone(), &[HELLO, OK, OK, "+PONG\r\n", PRIMARY]).1.unwrap().protocol, 3);
    let error = fails(new.clone(), &[odd]);
    assert!(error.status() == Status::Connect && error.has(flags::RETRYABLE), "{error}");
    // An older server was put in its place.
    assert_eq!(talk(new.clone(), &[&[UNKNOWN, OK, OK, OK, OK], second.as_slice()].concat()).1.unwrap().protocol, 2);
    assert!(talk(new, &second).0[0].starts_with("CLIENT ID CLIENT SETINFO"));
}

#[test]
fn rubbish_is_a_protocol_error() {
    assert_eq!(fails(options(Expect::Any), &["+hello\r\n"]).status(), Status::Protocol);
    assert_eq!(fails(options(Expect::Any), &[HELLO, OK, OK, "+master\r\n"]).status(), Status::Protocol);
}

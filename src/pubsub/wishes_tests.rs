//! The wishes against answers as servers give them, without a connection.

use super::*;

const SERVER: &str = "10.0.0.1:6379";

fn read(line: &str) -> Request {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    Request::read(&words).unwrap()
}

/// Takes a command; returns what is sent for it.
fn sent(wishes: &mut Wishes, line: &str) -> String {
    let mut out = Vec::new();
    wishes.take(&read(line), Some(&mut out));
    commands(&out)
}

fn commands(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let words = text.split("\r\n").filter(|part| !part.starts_with('$') && !part.is_empty());
    words.map(|word| if word.starts_with('*') { "|" } else { word }).collect::<Vec<_>>().join(" ")
}

fn reply(words: &[&str], push: bool) -> Reply {
    let mut out = ReplyBuilder::new();
    if push {
        out.push()
    } else {
        out.array()
    };
    for word in words {
        match word.parse() {
            Ok(number) => out.int(number),
            Err(_) => out.text(word),
        };
    }
    out.end().finish()
}

fn hear(wishes: &mut Wishes, words: &str, push: bool) -> Heard {
    wishes.hear(reply(&words.split(' ').collect::<Vec<_>>(), push), SERVER).unwrap()
}

fn error(line: &str) -> Reply {
    ReplyBuilder::new().error(line).finish()
}

#[test]
fn commands_are_read_and_others_refused() {
    assert_eq!(read("subscribe a b"), Request::Join(vec![(Kind::Channel, b"a".into()), (Kind::Channel, b"b".into())]));
    assert_eq!(read("PUnsubscribe"), Request::Leave(Kind::Pattern, Vec::new()));
    assert_eq!(read("SUNSUBSCRIBE x"), Request::Leave(Kind::Shard, vec![(Kind::Shard, b"x".into())]));
    assert_eq!((read("PING"), read("ping x")), (Request::Ping(Vec::new()), Request::Ping(b"x".into())));
    for (line, status) in [
        ("SUBSCRIBE", Status::InvalidArg),
        ("SSUBSCRIBE", Status::InvalidArg),
        ("PING a b", Status::InvalidArg),
        ("GET a", Status::Unsupported),
        ("MONITOR", Status::Unsupported),
    ] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let refused = Request::read(&words).unwrap_err();
        assert_eq!(refused.status(), status, "{line}");
        assert!(refused.message().contains(line.split(' ').next().unwrap()), "{refused}");
    }
}

#[test]
fn each_name_is_asked_for_by_itself_and_its_answer_is_told() {
    for push in [false, true] {
        let mut wishes = Wishes::default();
        assert_eq!(sent(&mut wishes, "SUBSCRIBE a b"), "| SUBSCRIBE a | SUBSCRIBE b");
        assert!(wishes.awaits() && !wishes.hears_any());
        assert!(matches!(hear(&mut wishes, "subscribe a 1", push), Heard::Answer(_)));
        assert!(wishes.hears_any() && wishes.outcome(&read("SUBSCRIBE a")).is_some());
        assert!(wishes.outcome(&read("SUBSCRIBE a b")).is_none());
        let Heard::Message(message) = hear(&mut wishes, "message a text", push) else { panic!("a message") };
        assert_eq!((message.kind(0), message.bytes(3)), (crate::resp::Kind::Push, Some(&b"text"[..])));
        hear(&mut wishes, "subscribe b 2", push);
        assert!(wishes.outcome(&read("SUBSCRIBE a b")).is_some_and(|outcome| outcome.is_ok()));
        assert_eq!(sent(&mut wishes, "UNSUBSCRIBE"), "| UNSUBSCRIBE a | UNSUBSCRIBE b");
        assert!(wishes.outcome(&read("UNSUBSCRIBE")).is_none() && !wishes.is_any());
        for line in ["unsubscribe a 1", "unsubscribe b 0"] {
            assert!(matches!(hear(&mut wishes, line, push), Heard::Answer(_)));
        }
        assert!(wishes.outcome(&read("UNSUBSCRIBE")).is_some() && !wishes.awaits());
    }
}

#[test]
fn a_new_connection_is_asked_for_everything_and_tells_only_what_the_program_waits_for() {
    let mut wishes = Wishes::default();
    sent(&mut wishes, "SUBSCRIBE told");
    hear(&mut wishes, "subscribe told 1", true);
    sent(&mut wishes, "PSUBSCRIBE open*");
    sent(&mut wishes, "UNSUBSCRIBE left");
    sent(&mut wishes, "PING x");
    wishes.lost();
    assert!(!wishes.awaits() && !wishes.hears_any());
    assert!(wishes.outcome(&read("UNSUBSCRIBE left")).is_some(), "no server has it any more");
    wishes.take(&read("SSUBSCRIBE later"), None);
    let mut out = Vec::new();
    wishes.connected(&mut out);
    assert_eq!(commands(&out), "| SUBSCRIBE told | PSUBSCRIBE open* | SSUBSCRIBE later | PING x");
    assert!(matches!(hear(&mut wishes, "subscribe told 1", true), Heard::Nothing));
    assert!(matches!(hear(&mut wishes, "psubscribe open* 2", true), Heard::Answer(_)));
    assert!(!wishes.is_renewed());
    assert!(matches!(hear(&mut wishes, "ssubscribe later 1", true), Heard::Answer(_)));
    assert!(wishes.is_renewed());
    assert!(matches!(wishes.hear(ReplyBuilder::new().text("x").finish(), SERVER).unwrap(), Heard::Answer(_)));
    assert!(wishes.outcome(&read("PING x")).is_some());
}

#[test]
fn a_refusal_concerns_one_name_and_is_asked_again_on_the_next_connection() {
    let mut wishes = Wishes::default();
    sent(&mut wishes, "SUBSCRIBE good bad");
    hear(&mut wishes, "subscribe good 1", true);
    let Heard::Refused(refused) = wishes.hear(error("NOPERM no channel"), SERVER).unwrap() else { panic!("refused") };
    assert_eq!((refused.server_code(), refused.endpoint()), ("NOPERM", SERVER));
    assert!(refused.message().contains("SUBSCRIBE bad"), "{refused}");
    assert_eq!(refused.reply().and_then(|what| what.bytes(2)), Some(&b"bad"[..]));
    let outcome = wishes.outcome(&read("SUBSCRIBE good bad")).expect("it is over");
    assert_eq!(outcome.unwrap_err().server_code(), "NOPERM");
    assert!(wishes.outcome(&read("SUBSCRIBE good")).is_some_and(|outcome| outcome.is_ok()));
    wishes.lost();
    let mut out = Vec::new();
    wishes.connected(&mut out);
    assert_eq!(commands(&out), "| SUBSCRIBE good | SUBSCRIBE bad", "in the order of the program");
    hear(&mut wishes, "subscribe good 1", true);
    assert!(!wishes.is_renewed());
    assert!(matches!(wishes.hear(error("NOPERM no channel"), SERVER).unwrap(), Heard::Refused(_)), "told again");
    assert!(wishes.is_renewed());
}

#[test]
fn every_form_of_a_sign_of_life_is_taken() {
    let forms = [
        ReplyBuilder::new().text_of(crate::resp::Kind::Status, b"PONG").finish(),
        reply(&["pong", ""], false),
        error("NOPERM ping"),
    ];
    for pong in forms {
        let mut wishes = Wishes::default();
        let mut out = Vec::new();
        wishes.ask_for_life(&mut out);
        assert_eq!(commands(&out), "| PING");
        assert!(matches!(wishes.hear(pong, SERVER).unwrap(), Heard::Nothing));
        assert!(!wishes.awaits());
    }
}

#[test]
fn what_was_not_asked_for_ends_the_connection() {
    let mut wishes = Wishes::default();
    sent(&mut wishes, "SUBSCRIBE a");
    for odd in [reply(&["subscribe", "b", "1"], true), reply(&["unsubscribe", "a", "0"], true)] {
        assert_eq!(wishes.hear(odd, SERVER).unwrap_err().status(), Status::Protocol);
    }
    hear(&mut wishes, "subscribe a 1", true);
    assert_eq!(wishes.hear(error("ERR odd"), SERVER).unwrap_err().status(), Status::Server);
    assert_eq!(wishes.hear(ReplyBuilder::new().int(1).finish(), SERVER).unwrap_err().status(), Status::Protocol);
}

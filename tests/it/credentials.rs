//! Credentials that change while everything runs: calls, sessions, subscriptions and Sentinels go on under the next user, and what a server
//! refuses is told.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, Subscription, Timeout};
use vigie::error::Status;
use vigie::queue::{Event, Queue, kind};
use vigie::resp::Kind;
use vigie::time::Deadline;

const SOON: Duration = Duration::from_secs(30);
/// What both users may do.
const ALL: [&str; 4] = ["resetchannels", "~*", "&*", "+@all"];

fn allow(node: &Node, user: &str, password: &str) {
    let password = format!(">{password}");
    node.cmd(&[&["ACL", "SETUSER", user, "reset", "on", &password][..], &ALL].concat());
}

/// How many connections this user has there, by the server's account.
fn connections(node: &Node, user: &str) -> usize {
    let list = node.cmd(&["CLIENT", "LIST"]).text();
    list.lines().filter(|line| line.split(' ').any(|word| word == format!("user={user}"))).count()
}

struct Listener {
    sub: Arc<Subscription>,
    queue: Arc<Queue>,
    events: Vec<Event>,
}

impl Listener {
    fn new(client: &Client) -> Self {
        let queue = completions::queue(64);
        let sub = client.subscription(&queue, 1, None).expect("an open client");
        sub.exec(&[b"SUBSCRIBE", b"news"], Timeout::Ms(30_000)).expect("subscribed");
        Self { sub, queue, events: Vec::new() }
    }

    /// What comes up to this message, as JSON.
    fn until(&mut self, message: &str) -> Vec<String> {
        let mut came = Vec::new();
        let end = Deadline::after(SOON);
        loop {
            assert!(!end.is_over(), "{message} did not come: {came:?}");
            while self.events.is_empty() && !end.is_over() {
                self.queue.drain(end, &mut self.events, 100);
            }
            for event in self.events.drain(..) {
                came.push(event.outcome.map_or_else(|error| error.to_string(), |reply| json(&reply.expect("a reply"))));
            }
            if came.iter().any(|text| text.contains(message)) {
                return came;
            }
        }
    }
}

/// A session that submits.
struct Line {
    own: Arc<Client>,
    queue: Arc<Queue>,
}

impl Line {
    fn new(client: &Arc<Client>) -> Self {
        Self { own: client.session(None).expect("a session"), queue: completions::queue(64) }
    }

    /// What each of these calls says, or all of them as one transaction.
    fn says(&mut self, lines: &[&str], flags: u32) -> Vec<String> {
        let each = if flags == 0 { CallFlags::EACH } else { flags };
        let (count, flags) =
            (if flags == 0 { lines.len() } else { 1 }, CallFlags::from_bits(each).expect("known flags"));
        self.own.cmds_submit(&list(lines), flags, Timeout::Ms(30_000), &self.queue, 1).expect("taken");
        let events = completions::drain(&self.queue, count);
        let said = |event: &Event| match &event.outcome {
            Ok(Some(reply)) if reply.kind(0) == Kind::Array => json(reply),
            _ => completions::said(event),
        };
        events.iter().map(said).collect()
    }
}

#[test]
fn user_and_password_change_together_for_calls_sessions_subscriptions_and_sentinels() {
    let d = Deployment::new("credentials").replicas(0).sentinels(1).quorum(1).start();
    let (node, watch) = (d.node("mymaster-0"), d.sentinel_nodes().remove(0));
    for server in [&node, &watch] {
        allow(server, "ada", "one");
        allow(server, "bea", "two");
    }
    let of = |user: &str, password: &str| {
        config(&[
            ("auth.username", user),
            ("auth.password", password),
            ("sentinel.username", user),
            ("sentinel.password", password),
        ])
    };
    let first = [("auth.username", "ada"), ("auth.password", "one"), ("sentinel.username", "ada")];
    let sentinel = sentinel_of(&d, &[&first[..], &[("sentinel.password", "one")]].concat());
    let old = sentinel_of(&d, &[&first[..], &[("sentinel.password", "one"), ("protocol", "2")]].concat());
    let (client, client2) = (to_primary(&sentinel, &[]), to_primary(&old, &[]));
    let (own, busy) = (client.session(None).expect("a session"), client.session(None).expect("a session"));
    let mut line = Line::new(&client);
    assert_eq!(line.says(&["ACL WHOAMI"], 0), ["ada"]);
    assert_eq!(
        ok(&own, "SELECT 3") + &ok(&own, "SET k v") + &ok(&busy, "MULTI") + &ok(&busy, "SET in it"),
        "OKOKOKQUEUED"
    );
    let (mut three, mut two) = (Listener::new(&client), Listener::new(&client2));
    ok(&client, "GET k");
    let waits = spawn({
        let client = Arc::clone(&client);
        move || cmd(&client, "BLPOP jobs 20").map(|reply| json(&reply))
    });
    eventually("it waits", SOON, || node.info("clients")["blocked_clients"] == "1");
    // Options that cannot change, and a config that does not fit together, change nothing.
    let fixed = config(&[("auth.username", "bea"), ("auth.password", "two"), ("pool.max", "3")]);
    fails(Status::Config, sentinel.configure_all(&fixed));
    assert_eq!(ok(&client, "ACL WHOAMI"), "ada");

    for handle in [&sentinel, &old] {
        handle.configure_all(&of("bea", "two")).expect("dynamic options");
    }
    assert_eq!(ok(&client, "ACL WHOAMI") + &ok(&own, "ACL WHOAMI") + &ok(&own, "GET k"), "beabeav");
    assert_eq!(json(&cmd(&busy, "EXEC").expect("as the user that began it")), "[\"OK\"]");
    // Its connection stays, and calls behind each other wait for one login.
    let id = line.says(&["CLIENT ID"], 0);
    assert_eq!(line.says(&["ACL WHOAMI", "ACL WHOAMI", "CLIENT ID"], 0)[..2], ["bea", "bea"]);
    assert_eq!(line.says(&["CLIENT ID"], 0), id);
    assert_eq!(ok(&busy, "ACL WHOAMI"), "bea");
    ok(&client, "RPUSH jobs one");
    assert_eq!(join(&waits).expect("an element"), "[\"jobs\",\"one\"]");
    eventually("nobody is ada at the node", SOON, || connections(&node, "ada") == 0);
    eventually("nobody is ada at the Sentinel", SOON, || connections(&watch, "ada") == 0);
    for server in [&node, &watch] {
        server.cmd(&["ACL", "DELUSER", "ada"]);
    }
    eventually("both listen", SOON, || node.cmd(&["PUBLISH", "news", "last"]).int() == Some(2));
    let (of_three, of_two) = (three.until("last"), two.until("last"));
    assert!(!of_three.iter().any(|text| text.contains("gap_ms")), "{of_three:?}");
    assert!(of_two.iter().any(|text| text.contains("\"cause\":\"credentials\"")), "{of_two:?}");
    assert_eq!(ok(&client, "ACL WHOAMI") + &ok(&own, "ACL WHOAMI"), "beabea");

    // What a server refuses is told once, and a right password heals it.
    let queue = completions::queue(100);
    sentinel.watch(kind::NOTICE, &queue, 7).expect("a watch");
    sentinel.configure("auth.password", "wrong").expect("a dynamic option");
    for _ in 0..3 {
        fails(Status::Auth, cmd(&client, "GET k"));
    }
    for _ in 0..2 {
        let told = line.says(&["GET k"], 0).concat();
        assert!(told.starts_with("Auth ") && told.contains("WRONGPASS") && told.contains("nothing was sent"), "{told}");
    }
    let refused = ok_is_refused(&own);
    assert!(refused.contains("WRONGPASS") && refused.contains("nothing was sent"), "{refused}");
    let mut events = Vec::new();
    queue.drain(Deadline::after(SOON), &mut events, 100);
    let notices: Vec<_> =
        events.into_iter().filter_map(|event| event.outcome.ok().flatten()).map(|map| json(&map)).collect();
    let told = notices.iter().filter(|text| text.contains("credentials_refused")).count();
    assert!(told == 1 && !notices.concat().contains("wrong"), "{notices:?}");
    sentinel.configure("auth.password", "two").expect("a dynamic option");
    assert_eq!(ok(&client, "ACL WHOAMI") + &ok(&own, "ACL WHOAMI"), "beabea");
    // A transaction that is under way is not interrupted by a login, which follows it.
    assert_eq!(line.says(&["ACL WHOAMI", "WATCH k"], 0), ["bea", "OK"]);
    allow(&node, "cyd", "three");
    sentinel.configure_all(&config(&[("auth.username", "cyd"), ("auth.password", "three")])).expect("dynamic options");
    assert_eq!(line.says(&["SET k w"], CallFlags::ATOMIC), ["[\"OK\"]"]);
    assert_eq!(line.says(&["ACL WHOAMI"], 0), ["cyd"]);
    // A session that logged in by itself keeps its user.
    assert_eq!(line.says(&["AUTH bea two"], 0), ["OK"]);
    sentinel.configure("auth.password", "three").expect("a dynamic option");
    assert_eq!(line.says(&["ACL WHOAMI"], 0), ["bea"]);
}

/// The texts of the notices of a watch so far.
fn notices(queue: &Queue) -> Vec<String> {
    let mut events = Vec::new();
    queue.drain(Deadline::after(Duration::from_millis(20)), &mut events, 100);
    events.into_iter().filter_map(|event| event.outcome.ok().flatten()).map(|map| json(&map)).collect()
}

/// As where the tokens of users expire: the server ends the connections, and the old password is of no use any more.
#[test]
fn a_password_that_is_over_ends_connections_is_told_and_the_next_one_heals_everything() {
    let d = Deployment::new("expiry").replicas(0).sentinels(1).quorum(1).start();
    let node = d.node("mymaster-0");
    allow(&node, "ada", "one");
    let options = [("auth.username", "ada"), ("auth.password", "one"), ("monitor.interval", "200"), ("retry.max", "2")];
    let sentinel = sentinel_of(&d, &options);
    let client = to_primary(&sentinel, &[]);
    let watch = completions::queue(100);
    sentinel.watch(kind::NOTICE, &watch, 7).expect("a watch");
    let mut listener = Listener::new(&client);
    let (own, mut line) = (client.session(None).expect("a session"), Line::new(&client));
    let mut submits = Line { own: Arc::clone(&client), queue: completions::queue(64) };
    let all = |line: &mut Line, submits: &mut Line| {
        let mut said = vec![cmd(&client, "ACL WHOAMI"), cmd(&own, "ACL WHOAMI")];
        let mut said: Vec<String> = said
            .drain(..)
            .map(|one| one.map_or_else(|error| format!("{:?}", error.status()), |reply| text(&reply)))
            .collect();
        said.extend(line.says(&["ACL WHOAMI"], 0));
        said.extend(submits.says(&["ACL WHOAMI"], 0));
        said
    };
    assert_eq!(all(&mut line, &mut submits), ["ada"; 4]);
    allow(&node, "ada", "two");
    node.cmd(&["CLIENT", "KILL", "USER", "ada"]);
    fails(Status::Auth, cmd(&client, "GET k"));
    let refused = submits.says(&["GET k"], 0).concat();
    assert!(refused.starts_with("Auth "), "{refused}");
    // Sessions have lost what they were about, and say so.
    fails(Status::Io, cmd(&own, "GET k"));
    assert!(line.says(&["GET k"], 0).concat().starts_with("Io "));
    let told = eventually_some("a notice", SOON, || {
        notices(&watch).into_iter().find(|text| text.contains("credentials_refused"))
    });
    assert!(told.contains("WRONGPASS") && told.contains(&node.addr()), "{told}");
    sentinel.configure("auth.password", "two").expect("a dynamic option");
    let again = client.session(None).expect("a session");
    let mut line = Line::new(&client);
    eventually("all are back", SOON, || {
        cmd(&client, "ACL WHOAMI").is_ok()
            && cmd(&again, "ACL WHOAMI").is_ok()
            && submits.says(&["ACL WHOAMI"], 0) == ["ada"]
    });
    assert_eq!(line.says(&["ACL WHOAMI"], 0), ["ada"]);
    eventually("it listens again", SOON, || node.cmd(&["PUBLISH", "news", "back"]).int() == Some(1));
    let came = listener.until("back");
    assert!(came.iter().any(|text| text.contains("gap_ms")), "{came:?}");
}

/// A server that forgets that a connection had logged in.
#[test]
fn noauth_on_an_open_connection_is_told_and_the_next_call_is_behind_a_login() {
    let node = Scripted::primary();
    node.state(|state| state.door.login = Some(Login::password("one")));
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[("auth.password", "one")]);
    let client = to_primary(&sentinel, &[]);
    let notes = completions::queue(100);
    sentinel.watch(kind::NOTICE, &notes, 7).expect("a watch");
    let expire = |word: &str| node.fault_times(word, 1, Fault::Error("NOAUTH Authentication required.".into()));
    let expect_notice = |what: &str| {
        let text = eventually_some(what, SOON, || {
            notices(&notes).into_iter().find(|text| text.contains("credentials_refused"))
        });
        assert!(text.contains("answered NOAUTH") && text.contains(&node.addr()), "{what}: {text}");
        // What is set next is told anew.
        sentinel.configure("auth.password", "one").expect("a dynamic option");
    };
    let logins = || node.log().iter().filter(|entry| entry.args[0] == b"AUTH").count();

    ok(&client, "SET k v");
    expire("GET");
    assert_eq!(fails(Status::Server, cmd(&client, "GET k")).server_code(), "NOAUTH");
    assert_eq!(ok(&client, "GET k"), "v");
    expect_notice("a pooled connection");

    let mut submits = Line { own: Arc::clone(&client), queue: completions::queue(64) };
    assert_eq!(submits.says(&["ECHO a"], 0), ["a"]);
    expire("ECHO");
    let refused = submits.says(&["ECHO b"], 0).concat();
    assert!(refused.contains("NOAUTH"), "{refused}");
    eventually("the next one has logged in", SOON, || submits.says(&["ECHO c"], 0) == ["c"]);
    expect_notice("a lane for submits");

    let (own, mut line) = (client.session(None).expect("a session"), Line::new(&client));
    assert_eq!(ok(&own, "GET k") + &line.says(&["GET k"], 0).concat(), "vv");
    let before = logins();
    expire("ECHO");
    assert_eq!(fails(Status::Server, cmd(&own, "ECHO a")).server_code(), "NOAUTH");
    assert_eq!((ok(&own, "ECHO b"), logins()), ("b".into(), before + 1));
    expect_notice("a session");
    expire("ECHO");
    assert!(line.says(&["ECHO a"], 0).concat().contains("NOAUTH"));
    assert_eq!((line.says(&["ECHO b"], 0), logins()), (vec!["b".into()], before + 2));
    expect_notice("a session that submits");

    let mut listener = Listener::new(&client);
    expire("PING");
    listener.sub.exec(&[b"PING", b"there"], Timeout::Ms(30_000)).expect("on the next connection");
    let came = listener.until("there");
    assert!(came.concat().contains("\"cause\":\"credentials\""), "{came:?}");
    expect_notice("a subscription");
}

/// With a pause of a minute after a refusal: none of it is left once the password is right.
#[test]
fn a_corrected_password_serves_the_next_call_whatever_was_refused_before() {
    let d = Deployment::new("corrected")
        .password("right")
        .sentinel_password("right")
        .replicas(0)
        .sentinels(1)
        .quorum(1)
        .start();
    let node = d.node("mymaster-0");
    let patient = [
        ("retry.backoff_min", "60000"),
        ("retry.backoff_max", "60000"),
        ("auth.password", "right"),
        ("sentinel.password", "right"),
    ];
    let sentinel = sentinel_of(&d, &patient);
    let (client, queue) = (to_primary(&sentinel, &[]), completions::queue(16));
    let own = client.session(None).expect("a session");
    let submitted = || {
        let list = list(&["ACL WHOAMI"]);
        client.cmds_submit(&list, CallFlags::default(), Timeout::Ms(20_000), &queue, 5).expect("room for it");
        completions::one(&queue).1
    };
    assert_eq!(ok(&client, "ACL WHOAMI") + &ok(&own, "ACL WHOAMI"), "defaultdefault");
    assert!(submitted().is_ok());
    let all = |password: &str| config(&[("auth.password", password), ("sentinel.password", password)]);
    let one_by_one = |password: &str| {
        ["auth.password", "sentinel.password"].iter().try_for_each(|key| sentinel.configure(key, password))
    };
    for turn in 0..4 {
        let set =
            |password: &str| if turn % 2 == 0 { sentinel.configure_all(&all(password)) } else { one_by_one(password) };
        set("wrong").expect("dynamic options");
        for _ in 0..5 {
            fails(Status::Auth, cmd(&client, "GET k"));
            fails(Status::Auth, cmd(&own, "GET k"));
            fails(Status::Auth, submitted());
        }
        // Somebody goes on while the password is corrected, and shares no refusal with those that come after that.
        let busy = (0..4).map(|_| {
            let client = Arc::clone(&client);
            spawn(move || (0..50).for_each(|_| drop(cmd(&client, "GET k"))))
        });
        let busy: Vec<_> = busy.collect();
        set("right").expect("dynamic options");
        assert_eq!(ok(&client, "ACL WHOAMI") + &ok(&own, "ACL WHOAMI"), "defaultdefault", "turn {turn}");
        assert!(submitted().is_ok(), "turn {turn}");
        busy.iter().for_each(|busy| join(busy));
        sentinel.refresh(None, Deadline::after(SOON)).expect("the Sentinel is asked with the right one");
    }
    // A subscription that was refused listens again, too.
    let quick = sentinel_of(&d, &patient[2..]);
    let mut listener = Listener::new(&to_primary(&quick, &[]));
    quick.configure_all(&all("wrong")).expect("dynamic options");
    node.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    listener.until("WRONGPASS");
    quick.configure_all(&all("right")).expect("dynamic options");
    eventually("it listens again", SOON, || node.cmd(&["PUBLISH", "news", "healed"]).int() == Some(1));
    listener.until("healed");
}

/// The message of a session's command whose credentials are refused.
fn ok_is_refused(own: &Client) -> String {
    fails(Status::Auth, cmd(own, "GET k")).message().to_owned()
}

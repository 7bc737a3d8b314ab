//! Subscriptions: messages in order and beside everything else, what survives the loss of a connection and a failover, what is told of
//! gaps, losses and refusals.

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use calls::*;
use completions::queue;
use stage::{Stage, stage};
use support::pace::unhindered;
use support::*;
use vigie::client::{Client, Subscription, Timeout, close_all};
use vigie::error::{Result, Status};
use vigie::queue::{Event, Queue, kind};
use vigie::resp::Kind;
use vigie::time::Deadline;
use vigie::topology::Sentinel;

/// What no machine exceeds.
const SOON: Duration = Duration::from_secs(30);
const TOKEN: u64 = 7;

/// A subscription with a queue of its own.
struct Listener {
    sub: Arc<Subscription>,
    queue: Arc<Queue>,
    /// Drained, and not asked for yet.
    events: Vec<Event>,
}

impl Listener {
    fn new(client: &Client, options: &[(&str, &str)]) -> Self {
        let queue = queue(16);
        let overrides = (!options.is_empty()).then(|| config(options));
        let sub = client.subscription(&queue, TOKEN, overrides.as_ref()).expect("an open client");
        Self { sub, queue, events: Vec::new() }
    }

    /// One that listens, with the answers drained.
    fn on(client: &Client, line: &str) -> Self {
        let mut listener = Self::new(client, &[]);
        listener.exec(line).expect("subscribed");
        (1..line.split(' ').count()).for_each(|_| _ = listener.next());
        listener
    }

    fn exec(&self, line: &str) -> Result<()> {
        exec(&self.sub, line, Timeout::Ms(SOON.as_millis() as u64))
    }

    #[track_caller]
    fn next_event(&mut self) -> Event {
        let end = Deadline::after(SOON);
        while self.events.is_empty() {
            assert!(!end.is_over(), "no event came");
            self.queue.drain(end, &mut self.events, 1000);
        }
        let event = self.events.remove(0);
        assert_eq!(event.token, TOKEN, "{event:?}");
        event
    }

    #[track_caller]
    fn next(&mut self) -> String {
        shown(&self.next_event())
    }

    /// The gap that is told next, with what comes before it left out.
    #[track_caller]
    fn gap(&mut self) -> Gap {
        loop {
            let event = self.next_event();
            if event.kind == kind::SUB_GAP {
                return Gap::read(&event);
            }
        }
    }

    /// The gap, which is told next.
    #[track_caller]
    fn gap_first(&mut self) -> Gap {
        let event = self.next_event();
        assert_eq!(event.kind, kind::SUB_GAP, "{}", shown(&event));
        Gap::read(&event)
    }

    /// Nothing has come, or comes within a moment.
    #[track_caller]
    fn nothing_more(&mut self) {
        self.queue.drain(Deadline::after(Duration::from_millis(50)), &mut self.events, 1000);
        assert!(self.events.is_empty(), "{:?}", self.events.iter().map(shown).collect::<Vec<_>>());
    }
}

/// A handle of this primary, without Sentinels.
fn fixed(node: &FakeNode) -> Arc<Sentinel> {
    let settings = config(&[("primary.addr", &node.addr()), ("service", SERVICE)]).settings().expect("options");
    Sentinel::create(settings, None).expect("a handle")
}

fn exec(sub: &Subscription, line: &str, timeout: Timeout) -> Result<()> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    sub.exec(&words, timeout)
}

fn shown(event: &Event) -> String {
    match (event.kind, &event.outcome) {
        (kind::MESSAGE, Ok(Some(reply))) => {
            assert_eq!(reply.kind(0), Kind::Push);
            let part = |id| reply.bytes(id).map_or_else(|| reply.int(id).unwrap_or(-1).to_string(), lossy);
            reply.children(0).map(part).collect::<Vec<_>>().join(" ")
        }
        (kind::DROPPED, Ok(Some(reply))) => format!("dropped {}", reply.int(0).expect("a number")),
        (kind::SUB_GAP, Ok(Some(reply))) => format!("gap {}", json(reply)),
        (_, Err(error)) => format!("{:?} {error}", error.status()),
        other => panic!("{other:?}"),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Debug)]
struct Gap {
    from: String,
    to: String,
    cause: String,
    ms: u64,
}

impl Gap {
    fn read(event: &Event) -> Self {
        let Ok(Some(reply)) = &event.outcome else { panic!("a gap carries a map") };
        let at = |key: &str| reply.find(0, key.as_bytes()).unwrap_or_else(|| panic!("no {key}: {}", json(reply)));
        let word = |key: &str| lossy(reply.bytes(at(key)).expect("a text"));
        assert_eq!(word("service"), SERVICE);
        assert!(!word("reason").is_empty());
        let ms = reply.int(at("gap_ms")).and_then(|ms| u64::try_from(ms).ok()).expect("a length of time");
        Self { from: word("from"), to: word("to"), cause: word("cause"), ms }
    }
}

fn publish(node: &Node, channel: &str, text: &str) -> i64 {
    node.cmd(&["PUBLISH", channel, text]).int().expect("a number of receivers")
}

#[test]
fn row_97_subscriptions_take_no_place_of_commands_and_messages_come_in_order() {
    let d = single("pubsub-97");
    let client = to_primary(&sentinel_of(&d, &[]), &[("pool.max", "2")]);
    let mut listeners: Vec<_> = (0..5).map(|_| Listener::on(&client, "SUBSCRIBE news")).collect();
    assert_eq!(ok(&client, "SET k v"), "OK");
    let session = client.session(None).expect("a session");
    assert_eq!(ok(&session, "GET k"), "v", "lane and loan fit into pool.max beside five subscriptions");
    assert!(primary_pool(&client).get("size") <= 2, "{:?}", pools(&client));
    let node = d.primary_node(SERVICE);
    let mut publisher = node.connect().expect("a connection");
    for n in 0..1000 {
        assert_eq!(publisher.cmd(&["PUBLISH", "news", &n.to_string()]).expect("published"), Value::Int(5));
    }
    for listener in &mut listeners {
        for n in 0..1000 {
            assert_eq!(listener.next(), format!("message news {n}"));
        }
        listener.nothing_more();
    }
}

#[test]
fn channels_patterns_and_shard_channels_come_and_go_in_both_protocols() {
    if lacks(Feature::ShardChannels) {
        return;
    }
    let d = single("pubsub-kinds");
    let node = d.primary_node(SERVICE);
    for protocol in ["2", "3"] {
        let client = to_primary(&sentinel_of(&d, &[("protocol", protocol)]), &[]);
        let mut all = Listener::new(&client, &[]);
        all.exec("SUBSCRIBE a b").expect("subscribed");
        all.exec("psubscribe a* x?").expect("subscribed");
        all.exec("SSUBSCRIBE s").expect("subscribed");
        for line in ["subscribe a 1", "subscribe b 2", "psubscribe a* 3", "psubscribe x? 4", "ssubscribe s 1"] {
            assert_eq!(all.next(), line);
        }
        assert_eq!(publish(&node, "a", "1"), 2);
        assert_eq!(publish(&node, "xy", "2"), 1);
        assert_eq!(node.cmd(&["SPUBLISH", "s", "3"]).int(), Some(1));
        for line in ["message a 1", "pmessage a* a 1", "pmessage x? xy 2", "smessage s 3"] {
            assert_eq!(all.next(), line);
        }
        all.exec("PING").expect("answered");
        all.exec("PING lively").expect("answered");
        assert_eq!([all.next(), all.next()], ["pong ", "pong lively"]);
        all.exec("UNSUBSCRIBE a").expect("unsubscribed");
        all.exec("PUNSUBSCRIBE").expect("unsubscribed");
        for line in ["unsubscribe a 3", "punsubscribe a* 2", "punsubscribe x? 1"] {
            assert_eq!(all.next(), line);
        }
        assert_eq!((publish(&node, "a", "no"), publish(&node, "b", "4")), (0, 1));
        assert_eq!(all.next(), "message b 4");
        for (line, status) in [("GET a", Status::Unsupported), ("SUBSCRIBE", Status::InvalidArg)] {
            assert_eq!(all.exec(line).expect_err("refused").status(), status);
        }
        all.nothing_more();
    }
}

#[test]
fn an_event_loop_gets_messages_by_the_descriptor_and_submits_are_not_crowded_out() {
    let d = single("pubsub-loop");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let listener = Listener::on(&client, "SUBSCRIBE c");
    let node = d.primary_node(SERVICE);
    let fd = listener.queue.fd();
    let readable = |ms| {
        vigie::sys::poll::wait(&mut [vigie::sys::poll::PollFd::new(fd, true, false)], Some(Duration::from_millis(ms)))
            .unwrap_or(0)
            > 0
    };
    assert!(!readable(0));
    (0..500).for_each(|n| assert_eq!(publish(&node, "c", &n.to_string()), 1));
    assert!(readable(20_000));
    // The queue has room for 16 events, and holds as many calls beside 500 messages.
    let flags = vigie::client::CallFlags::from_bits(completions::EACH).expect("known");
    let lines = vec!["PING"; 16];
    client.cmds_submit(&list(&lines), flags, Timeout::Default, &listener.queue, 100).expect("there is room");
    let (mut messages, mut completions, mut events) = (0, 0, Vec::new());
    while messages < 500 || completions < 16 {
        assert!(readable(20_000), "{messages} messages, {completions} completions");
        while listener.queue.drain(Deadline::after(Duration::ZERO), &mut events, 64) == 64 {}
        for event in events.drain(..) {
            match event.kind {
                kind::COMPLETION => completions += 1,
                _ => {
                    assert_eq!(shown(&event), format!("message c {messages}"));
                    messages += 1;
                }
            }
        }
    }
    assert_eq!((messages, completions), (500, 16));
}

#[test]
fn a_lost_connection_is_made_anew_and_the_gap_is_told() {
    let d = single("pubsub-lost");
    let client = to_primary(&sentinel_of(&d, &[("client.name", "listens")]), &[]);
    let mut listener = Listener::on(&client, "SUBSCRIBE a b");
    let node = d.primary_node(SERVICE);
    assert_eq!(publish(&node, "a", "before"), 1);
    assert_eq!(listener.next(), "message a before");
    for _ in 0..3 {
        assert!(node.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]).int().expect("a number") >= 1);
        let gap = listener.gap();
        assert_eq!((&*gap.from, &*gap.to, &*gap.cause), (&*node.addr(), &*node.addr(), "lost"));
        assert_eq!(publish(&node, "b", "after"), 1, "confirmed is confirmed");
        assert_eq!(listener.next(), "message b after");
    }
    // A wish that comes while there is no connection is kept; its answer is told.
    node.kill();
    eventually("the loss is seen", SOON, || {
        let asked = exec(&listener.sub, "SUBSCRIBE c", Timeout::Ms(30));
        asked.is_err_and(|error| error.status() == Status::Timeout && error.message().contains("goes on trying"))
    });
    node.restart();
    let gap = listener.gap();
    assert_eq!(gap.cause, "lost");
    eventually("it listens to the new channel", SOON, || publish(&node, "c", "new") == 1);
    eventually_some("the message", SOON, || (listener.next() == "message c new").then_some(()));
}

#[test]
fn a_silent_server_is_noticed_and_an_idle_one_is_asked_for_a_sign_of_life() {
    let d = Deployment::new("pubsub-silent").replicas(0).sentinels(1).quorum(1).down_after(600_000).start();
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let node = d.primary_node(SERVICE);
    let mut listener = Listener::new(&client, &[("sub.ping", "200")]);
    listener.exec("SUBSCRIBE a").expect("subscribed");
    assert_eq!(listener.next(), "subscribe a 1");
    let before = node.calls("ping");
    // While nobody drains, and while a drain waits.
    eventually("it is pinged", SOON, || node.calls("ping") >= before + 2);
    listener.nothing_more();
    let began = Instant::now();
    node.stop();
    let silent = Duration::from_millis(900);
    std::thread::sleep(silent);
    node.cont();
    let gap = listener.gap();
    assert_eq!(gap.cause, "silent");
    let ms = began.elapsed().as_millis() as u64;
    assert!(gap.ms >= 400 && gap.ms <= ms + 400, "{} ms of {ms}", gap.ms);
    assert_eq!(publish(&node, "a", "on"), 1);
    assert_eq!(listener.next(), "message a on");
}

/// A subscriber that has messages from behind a gap before it hears of the gap takes them for the next ones.
#[test]
fn a_gap_is_told_before_the_messages_behind_it() {
    let node = Scripted::primary();
    let client = to_primary(&fixed(&node), &[]);
    let mut listener = Listener::on(&client, "SUBSCRIBE a b");
    let early = ">3\r\n+subscribe\r\n+a\r\n:1\r\n>3\r\n+message\r\n+a\r\n+early\r\n";
    node.fault_times("SUBSCRIBE a", 1, Fault::Raw(early.into()));
    node.fault_times("SUBSCRIBE b", 1, Fault::Stall);
    node.close_all();
    // It is held back as long as the other channel is not confirmed; that connection is lost, too.
    eventually("it is subscribed again", SOON, || node.count("SUBSCRIBE b") == 2);
    listener.nothing_more();
    node.fault_times("SUBSCRIBE a", 1, Fault::Raw(early.replace("early", "late").into()));
    node.close_all();
    assert_eq!(listener.gap_first().cause, "lost");
    assert_eq!([listener.next(), listener.next()], ["message a early", "message a late"]);
}

/// A server that confirms and then closes is not there any more than one that refuses connections.
#[test]
fn a_server_that_ends_each_connection_is_not_stormed() {
    let node = Scripted::primary();
    let client = to_primary(&fixed(&node), &[]);
    let mut listener = Listener::on(&client, "SUBSCRIBE a");
    node.fault("SUBSCRIBE", Fault::Last(b">3\r\n+subscribe\r\n+a\r\n:1\r\n".into()));
    let began = Instant::now();
    node.close_all();
    eventually("it tries on", SOON, || node.count("SUBSCRIBE") >= 14);
    // The pauses are at least half of 10, 20, 40 ... 500 ms, from the second attempt on.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    node.clear_faults();
    node.close_all();
    eventually_some("it listens again", SOON, || (node.publish("a", "on") > 0).then_some(()));
    eventually_some("the message", SOON, || (listener.next() == "message a on").then_some(()));
}

/// What has not come as a whole is a sign of life, too.
#[test]
fn a_message_that_takes_long_to_arrive_arrives() {
    let node = Scripted::primary();
    let client = to_primary(&fixed(&node), &[]);
    let mut listener = Listener::new(&client, &[("sub.ping", "500")]);
    node.fault("SUBSCRIBE", Fault::Pieces(1, Duration::from_millis(45)));
    listener.exec("SUBSCRIBE a").expect("it comes in the end");
    assert_eq!((listener.next().as_str(), node.count("SUBSCRIBE")), ("subscribe a 1", 1));
}

/// Attempts and discoveries that fail in turn have different errors.
#[test]
fn a_primary_that_is_gone_for_long_is_told_once() {
    let node = Scripted::primary();
    let client = to_primary(&fixed(&node), &[("timeout.call", "100")]);
    let mut listener = Listener::on(&client, "SUBSCRIBE a");
    node.fault("HELLO", Fault::Close);
    node.close_all();
    let error = listener.next_event().outcome.expect_err("no connection");
    assert!(error.message().contains(&node.addr()) && error.status() != Status::Timeout, "why there is none: {error}");
    let before = node.count("HELLO");
    eventually("it has tried again and again", SOON, || node.count("HELLO") >= before + 10);
    listener.nothing_more();
    node.clear_faults();
    assert_eq!(listener.gap_first().cause, "lost");
}

/// Publishes on the primary until the subscriber has it, and checks that the gap is told before.
fn moves(name: &str, cause: &str, fail: impl FnOnce(&Deployment) -> Arc<Node>) {
    let d = Deployment::new(name).start();
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let mut listener = Listener::on(&client, "SUBSCRIBE news");
    let old = d.primary_node(SERVICE);
    assert_eq!(publish(&old, "news", "first"), 1);
    assert_eq!(listener.next(), "message news first");
    let began = Instant::now();
    assert_eq!(fail(&d).addr(), old.addr());
    let new = d.wait_switched(SERVICE, &old);
    let gap = eventually_some("the gap is told", SOON, || {
        let gap = listener.gap();
        (gap.to == new.addr()).then_some(gap)
    });
    assert!(gap.from == old.addr() || gap.from == new.addr(), "{gap:?}");
    assert!(gap.cause == cause || gap.cause == "switched", "{gap:?}");
    assert!(gap.ms <= began.elapsed().as_millis() as u64 + 2500, "{gap:?}");
    eventually("a message of the new primary arrives", SOON, || publish(&new, "news", "second") == 1);
    assert_eq!(listener.next(), "message news second");
    if old.is_stopped() {
        old.cont();
    }
    listener.nothing_more();
}

#[test]
fn row_98_scenario_64_a_subscriber_follows_a_killed_primary() {
    moves("pubsub-killed", "lost", |d| {
        let old = d.primary_node(SERVICE);
        old.kill();
        old
    });
}

#[test]
fn row_98_scenario_64_a_subscriber_leaves_a_stopped_primary() {
    moves("pubsub-stopped", "silent", |d| {
        let old = d.primary_node(SERVICE);
        old.stop();
        old
    });
}

#[test]
fn row_98_scenario_64_a_subscriber_follows_a_planned_failover() {
    moves("pubsub-planned", "switched", |d| d.failover(SERVICE));
}

#[test]
fn free_and_close_end_a_subscription_at_once() {
    let d = single("pubsub-close");
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    let node = d.primary_node(SERVICE);
    let pubsub = || {
        // The Sentinels' own subscriptions stay.
        let ours = |client: &&node::ClientInfo| client.flags.contains('P') && !client.name.starts_with("sentinel");
        node.client_list().iter().filter(ours).count()
    };
    // Freed: what was not drained is gone.
    let mut freed = Listener::on(&client, "SUBSCRIBE a");
    assert_eq!(publish(&node, "a", "lost"), 1);
    eventually("it is in the queue", SOON, || {
        vigie::sys::poll::wait(
            &mut [vigie::sys::poll::PollFd::new(freed.queue.fd(), true, false)],
            Some(Duration::from_millis(10)),
        )
        .unwrap_or(0)
            > 0
    });
    freed.sub.free();
    freed.nothing_more();
    eventually("its connection is closed", SOON, || pubsub() == 0);
    assert_eq!(freed.exec("SUBSCRIBE b").expect_err("freed").status(), Status::Closed);
    // A waiting caller is answered when the client is closed, and the last event says so.
    let mut closed = Listener::on(&client, "SUBSCRIBE a");
    node.stop();
    let (sub, waiting) = (Arc::clone(&closed.sub), closed.sub.clone());
    let caller = spawn(move || exec(&sub, "SUBSCRIBE late", Timeout::Unlimited));
    eventually("the caller waits", SOON, || exec(&waiting, "SUBSCRIBE later", Timeout::Ms(20)).is_err());
    let (outcome, took) = timed(|| close_all(&sentinel, Timeout::Ms(5000)));
    outcome.expect("nothing runs");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(join(&caller).expect_err("closed").status(), Status::Closed);
    assert!(closed.next().starts_with("Closed the client of service"), "the last event");
    node.cont();
    closed.nothing_more();
    eventually("its connection is closed", SOON, || pubsub() == 0);
    assert_eq!(client.subscription(&closed.queue, 1, None).map(|_| ()).expect_err("closed").status(), Status::Closed);
    // A queue that is gone ends its subscription.
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let gone = Listener::on(&client, "SUBSCRIBE a");
    gone.queue.close();
    publish(&node, "a", "to nobody");
    eventually("its connection is closed", SOON, || pubsub() == 0);
    assert_eq!(gone.exec("SUBSCRIBE b").expect_err("closed").status(), Status::Closed);
}

#[test]
fn a_session_makes_no_subscription_and_bad_options_are_refused() {
    let d = single("pubsub-bad");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let session = client.session(None).expect("a session");
    let refused = |client: &Client, options: &[(&str, &str)]| {
        client.subscription(&queue(1), 0, Some(&config(options))).map(|_| ()).expect_err("refused").status()
    };
    assert_eq!(refused(&session, &[]), Status::InvalidState);
    assert_eq!(refused(&client, &[("auth.password", "x")]), Status::Config);
}

#[test]
fn a_full_buffer_drops_the_oldest_messages_and_tells_how_many() {
    let d = single("pubsub-drop");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let node = d.primary_node(SERVICE);
    let mut listener = Listener::new(&client, &[("sub.max_messages", "10")]);
    listener.exec("SUBSCRIBE c").expect("subscribed");
    assert_eq!(listener.next(), "subscribe c 1");
    (0..100).for_each(|n| assert_eq!(publish(&node, "c", &n.to_string()), 1));
    // The answer comes behind the messages, so they have all been received.
    listener.exec("PING").expect("answered");
    assert_eq!(listener.next(), "dropped 90");
    (90..100).for_each(|n| assert_eq!(listener.next(), format!("message c {n}")));
    assert_eq!(listener.next(), "pong ");
    listener.nothing_more();
    // By bytes.
    let mut listener = Listener::new(&client, &[("sub.max_bytes", "1024")]);
    listener.exec("SUBSCRIBE b").expect("subscribed");
    assert_eq!(listener.next(), "subscribe b 1");
    let large = "x".repeat(3000);
    (0..3).for_each(|_| assert_eq!(publish(&node, "b", &large), 1));
    listener.exec("PING").expect("answered");
    assert_eq!([listener.next(), listener.next()], ["dropped 2".into(), format!("message b {large}")]);
}

#[test]
fn a_full_buffer_may_end_the_connection_until_half_of_it_is_drained() {
    let d = single("pubsub-full");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let node = d.primary_node(SERVICE);
    let mut listener = Listener::new(&client, &[("sub.max_messages", "10"), ("sub.overflow", "disconnect")]);
    listener.exec("SUBSCRIBE c").expect("subscribed");
    assert_eq!(listener.next(), "subscribe c 1");
    let mut published = 0;
    eventually("the connection is closed", SOON, || {
        published += 1;
        publish(&node, "c", &published.to_string()) == 0
    });
    assert!(published > 11, "{published}");
    // It stays closed while the buffer is full.
    assert_eq!(exec(&listener.sub, "PING", Timeout::Ms(200)).expect_err("closed").status(), Status::Timeout);
    let mut events = Vec::new();
    while events.len() < 11 {
        events.push(listener.next());
    }
    let dropped: i32 = events[0].strip_prefix("dropped ").expect("the loss").parse().expect("a number");
    assert!(dropped >= 1 && dropped < published - 10, "{dropped} of {published}");
    assert_eq!(events[1..], (1..=10).map(|n| format!("message c {n}")).collect::<Vec<_>>());
    let gap = listener.gap();
    assert_eq!((&*gap.from, &*gap.to, &*gap.cause), (&*node.addr(), &*node.addr(), "overflow"));
    assert_eq!(publish(&node, "c", "on"), 1);
    eventually_some("the next message", SOON, || (listener.next() == "message c on").then_some(()));
}

#[test]
fn refused_channels_and_credentials_are_told_one_by_one() {
    let d = single("pubsub-acl");
    let node = d.primary_node(SERVICE);
    let acl = |words: &str| {
        let words: Vec<_> = ["ACL", "SETUSER", "app"].into_iter().chain(words.split(' ')).collect();
        assert!(node.cmd(&words).is_ok());
    };
    acl("on >pw ~* +@all resetchannels &news &more");
    let credentials = [("auth.username", "app"), ("auth.password", "pw")];
    let client = to_primary(&sentinel_of(&d, &credentials), &[]);
    let mut listener = Listener::new(&client, &[]);
    let refused = listener.exec("SUBSCRIBE news secret more").expect_err("one is refused");
    assert_eq!(
        (refused.status(), refused.server_code(), refused.endpoint()),
        (Status::Server, "NOPERM", &*node.addr())
    );
    assert_eq!(listener.next(), "subscribe news 1");
    let event = listener.next_event();
    let error = event.outcome.expect_err("refused");
    assert!(error.server_code() == "NOPERM" && error.message().contains("SUBSCRIBE secret"), "{error}");
    assert_eq!(error.reply().map(json).as_deref(), Some(r#"["SUBSCRIBE","secret"]"#));
    assert_eq!(listener.next(), "subscribe more 2");
    assert_eq!((publish(&node, "news", "1"), publish(&node, "more", "2")), (1, 1));
    assert_eq!([listener.next(), listener.next()], ["message news 1", "message more 2"]);
    // The right to a channel is taken back: the server ends the connection, and refuses the channel on the next one.
    acl("resetchannels &more");
    assert!(listener.next().starts_with("gap "), "what has come since stands behind it");
    let mut seen: Vec<String> = (0..2).map(|_| listener.next()).collect();
    seen.sort();
    assert!(seen[0].contains("SUBSCRIBE news") && seen[1].contains("SUBSCRIBE secret"), "{seen:?}");
    assert_eq!((publish(&node, "news", "3"), publish(&node, "more", "4")), (0, 1));
    assert_eq!(listener.next(), "message more 4");
    // A right that was given: the program asks again.
    acl("&secret");
    listener.exec("SUBSCRIBE secret").expect("subscribed");
    assert_eq!(listener.next(), "subscribe secret 2");
    // The password is changed: that is told once, and tried on.
    acl("resetpass >other");
    assert!(node.cmd(&["CLIENT", "KILL", "USER", "app"]).int().expect("a number") >= 1);
    let error = listener.next_event().outcome.expect_err("refused");
    assert!(error.status() == Status::Auth && !error.message().contains("pw"), "{error}");
    std::thread::sleep(Duration::from_millis(300));
    listener.nothing_more();
    acl(">pw");
    assert_eq!(listener.gap().cause, "lost");
    assert_eq!(publish(&node, "secret", "5"), 1);
    assert!(listener.next().contains("SUBSCRIBE news"), "it is still refused");
    assert_eq!(listener.next(), "message secret 5");
}

/// The process holds them all: no thread for each, and no place of a pool.
#[test]
fn a_thousand_subscriptions_in_one_process() {
    const MANY: usize = 1000;
    let d = single("pubsub-1000");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let node = d.primary_node(SERVICE);
    let queue = queue(16);
    let subs: Vec<_> = (0..MANY as u64)
        .map(|token| {
            let sub = client.subscription(&queue, token, None).expect("an open client");
            exec(&sub, &format!("SUBSCRIBE all own-{token}"), Timeout::DontWait).expect("noted");
            sub
        })
        .collect();
    let (mut answers, mut messages, mut events) = (0, vec![0; MANY], Vec::new());
    let end = Deadline::after(SOON * 4);
    let mut drain = |wanted: &mut dyn FnMut(&Event) -> bool| {
        loop {
            assert!(!end.is_over(), "it takes too long");
            queue.drain(end, &mut events, 1000);
            // Each event is looked at, those behind the last one wanted, too.
            let mut done = false;
            events.drain(..).for_each(|event| done |= wanted(&event));
            if done {
                break;
            }
        }
    };
    drain(&mut |_| {
        answers += 1;
        answers == 2 * MANY
    });
    assert_eq!(publish(&node, "all", "x"), MANY as i64);
    assert_eq!(publish(&node, "own-777", "y"), 1);
    let mut count = 0;
    drain(&mut |event| {
        messages[event.token as usize] += 1;
        count += 1;
        count == MANY + 1
    });
    assert!(messages.iter().enumerate().all(|(token, count)| *count == 1 + usize::from(token == 777)));
    assert!(proc::threads_named("vigie").len() <= 8 + 40, "{:?}", proc::threads());
    assert!(client.stats().is_ok() && pools(&client).iter().all(|pool| pool.get("size") <= 1), "{:?}", pools(&client));
    // All of them follow.
    assert!(node.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]).int().expect("a number") >= MANY as i64);
    let mut gaps = 0;
    drain(&mut |event| {
        gaps += usize::from(event.kind == kind::SUB_GAP);
        gaps == MANY
    });
    assert_eq!(publish(&node, "all", "z"), MANY as i64);
    drop(subs);
}

/// An idle subscription costs no thread: the monitor and the poller are there, and nothing else.
#[test]
fn idle_subscriptions_leave_two_threads() {
    alone(concat!(module_path!(), "::idle_subscriptions_leave_two_threads"), || {
        let d = single("pubsub-idle");
        let start = held();
        let sentinel = sentinel_of(&d, &[]);
        let client = to_primary(&sentinel, &[]);
        let listeners: Vec<_> = (0..20).map(|_| Listener::on(&client, "SUBSCRIBE c")).collect();
        eventually("two threads are left", SOON, || proc::threads_named("vigie").len() <= 2);
        assert_eq!(publish(&d.primary_node(SERVICE), "c", "x"), 20);
        for mut listener in listeners {
            assert_eq!(listener.next(), "message c x");
            listener.sub.free();
        }
        drop((client, sentinel));
        back_to(start);
    });
}

/// On a replica a living connection proves nothing: without its link no message arrives.
#[test]
fn a_subscription_on_a_replica_follows_its_link() {
    let d = Deployment::new("pubsub-replica").start();
    let client = to_replicas(&sentinel_of(&d, &[]), &[]);
    let mut listener = Listener::new(&client, &[("sub.ping", "100")]);
    listener.exec("SUBSCRIBE news").expect("subscribed");
    assert_eq!(listener.next(), "subscribe news 1");
    let old = d.primary_node(SERVICE);
    let listens = |node: &Node| node.cmd(&["PUBSUB", "NUMSUB", "news"]).items()[1].int() == Some(1);
    assert!(!listens(&old), "it listens to a replica");
    let at = d.replica_nodes(SERVICE).into_iter().find(|node| listens(node)).expect("one of them");
    assert_eq!(publish(&old, "news", "first"), 0, "nobody listens here");
    assert_eq!(listener.next(), "message news first");
    listener.nothing_more();
    d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    let gap = listener.gap();
    // A Sentinel ends the connections of a replica that it promotes or turns to another primary, in its own time; a busy machine may
    // leave the replica silent before.
    assert_eq!(gap.from, at.addr(), "{gap:?}");
    assert!(matches!(&*gap.cause, "switched" | "lost" | "link" | "silent"), "{gap:?}");
    eventually_some("a message of the new primary", SOON, || {
        publish(&new, "news", "second");
        listener.queue.drain(Deadline::after(Duration::from_millis(200)), &mut listener.events, 1000);
        let texts: Vec<_> = listener.events.drain(..).map(|event| shown(&event)).collect();
        texts.iter().any(|text| text == "message news second").then_some(())
    });
}

/// In RESP2 a connection with subscriptions takes no ROLE: there the PING has to do.
#[test]
fn a_subscription_on_a_replica_is_kept_alive_in_resp2() {
    let d = Deployment::new("pubsub-replica-2").replicas(1).start();
    let client = to_replicas(&sentinel_of(&d, &[("protocol", "2")]), &[]);
    let mut listener = Listener::new(&client, &[("sub.ping", "50")]);
    listener.exec("SUBSCRIBE news").expect("subscribed");
    assert_eq!(listener.next(), "subscribe news 1");
    let replica = &d.replica_nodes(SERVICE)[0];
    let before = replica.calls("ping");
    eventually("it is pinged", SOON, || replica.calls("ping") >= before + 3);
    publish(&d.primary_node(SERVICE), "news", "on");
    assert_eq!(listener.next(), "message news on");
    listener.nothing_more();
}

/// Waits for an event of this queue.
fn wait_for(stage: &Stage, queue: &Queue, what: &str, is_meant: impl Fn(&Event) -> bool) {
    let (mut events, end) = (Vec::new(), Deadline::after(SOON));
    while !events.iter().any(&is_meant) {
        assert!(!end.is_over(), "no {what}: {:#?}", stage.told.all());
        queue.drain(end, &mut events, 1);
    }
}

/// How long it takes from the word of a Sentinel to the fence.
fn fence_delay(stage: &Stage, queue: &Queue) -> Duration {
    let wait = |on: bool| {
        wait_for(stage, queue, &format!("fence {on}"), |event| {
            let Ok(Some(reply)) = &event.outcome else { return false };
            reply.find(0, b"on").and_then(|id| reply.int(id)) == Some(i64::from(on))
        });
    };
    let ((), took) = unhindered(|| {
        stage.begin(0);
        wait(true);
    });
    stage.abort(0, "not-elected");
    wait(false);
    // An answer from before the end must not raise the next fence.
    stage.quiet();
    took
}

/// How long it takes from the word of the Sentinels to the next primary. The two nodes take turns.
fn switch_delay(stage: &Stage, queue: &Queue, turn: usize) -> Duration {
    let (from, to) = if turn % 2 == 0 { (&stage.p, &stage.r) } else { (&stage.r, &stage.p) };
    from.state(|state| state.role = FakeRole::replica_of(&to.addr()));
    to.state(|state| state.role = FakeRole::Primary);
    let ((), took) = unhindered(|| {
        for one in &stage.watch {
            one.switch_master(SERVICE, &to.addr());
        }
        wait_for(stage, queue, "switch", |event| event.kind == kind::TOPOLOGY);
    });
    stage.wait_primary(&to.addr());
    stage.watch.iter().for_each(|one| {
        one.service(SERVICE, |state| {
            state.replicas.clear();
            state.add_replica(&from.addr());
        });
    });
    // A discovery that has just been made delays the next one.
    stage.quiet();
    took
}

/// Publishes 250 messages for two subscribers every 5 ms while it is on, which is 100,000 a second.
#[derive(Default)]
struct Flood {
    on: AtomicBool,
    over: AtomicBool,
    published: AtomicUsize,
}

impl Flood {
    fn publish(&self, node: &Node) {
        let mut publisher = node.connect().expect("a connection");
        let command = format!("*3\r\n$7\r\nPUBLISH\r\n$5\r\nflood\r\n$64\r\n{}\r\n", "x".repeat(64));
        let batch = command.repeat(250);
        let mut next = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            if self.on.load(Ordering::Relaxed) {
                publisher.send_bytes(batch.as_bytes()).expect("sent");
                (0..250).for_each(|_| assert_eq!(publisher.read().expect("published"), Value::Int(2)));
                self.published.fetch_add(500, Ordering::Relaxed);
            } else {
                next = Instant::now();
            }
            next += Duration::from_millis(5);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn turn_on(&self) {
        let before = self.published.load(Ordering::Relaxed);
        self.on.store(true, Ordering::Relaxed);
        eventually("the flood flows", SOON, || self.published.load(Ordering::Relaxed) >= before + 5000);
    }

    /// Takes so many samples without the flood and in it, in turn, and asserts that the median is at most 5 ms later in the flood.
    fn delays_little(&self, what: &str, count: usize, mut sample: impl FnMut() -> Duration) {
        let pacing = Pacing::start();
        let (mut calm, mut flooded) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.on.store(false, Ordering::Relaxed);
            calm.push(sample());
            self.turn_on();
            flooded.push(sample());
        }
        let pace = pacing.stop();
        calm.sort();
        flooded.sort();
        let (calm, flooded) = (calm[count / 2], flooded[count / 2]);
        println!("{what} after {calm:?}, in the flood after {flooded:?}");
        pace.judge(&format!("the delay of {what}"), flooded.saturating_sub(calm), Duration::from_millis(5));
    }
}

/// Messages are never read on the thread that listens to the Sentinels.
#[test]
fn a_flood_of_messages_delays_a_fence_and_a_switch_by_5_ms_at_most() {
    let stage = stage(3, &[]);
    stage.listened();
    let d = single("pubsub-flood");
    let node = d.primary_node(SERVICE);
    assert!(node.cmd(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]).is_ok());
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    // One that only the poller reads, one that a drain reads.
    let (unread, read) = (Listener::on(&client, "SUBSCRIBE flood"), Listener::on(&client, "SUBSCRIBE flood"));
    let (fences, switches) = (queue(1000), queue(1000));
    stage.sentinel.watch(kind::FENCE, &fences, 1).expect("a watch");
    stage.sentinel.watch(kind::TOPOLOGY, &switches, 2).expect("a watch");
    let flood = Flood::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut events = Vec::new();
            while !flood.over.load(Ordering::Relaxed) {
                read.queue.drain(Deadline::after(Duration::from_millis(20)), &mut events, 1000);
                events.clear();
            }
        });
        scope.spawn(|| flood.publish(&node));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            flood.delays_little("a fence", 31, || fence_delay(&stage, &fences));
            let mut turn = 0;
            flood.delays_little("a switch", 15, || {
                turn += 1;
                switch_delay(&stage, &switches, turn - 1)
            });
        }));
        flood.over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    println!("{} messages", flood.published.load(Ordering::Relaxed));
    drop(unread);
}

#[test]
fn a_subscription_over_tls_hears_in_order_and_is_made_anew() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let plan = TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: false };
    let d = Deployment::new("tls-sub").replicas(0).sentinels(0).tls(plan).start();
    let node = d.node("mymaster-0");
    let sentinel = told(&node.addr(), &[]);
    let client = to_primary(&handle(&sentinel, &[("tls", "on"), ("tls.ca", &ca.file())]), &[]);
    let mut listener = Listener::on(&client, "SUBSCRIBE news");
    // Messages of many records, and many messages in one.
    let large = "x".repeat(100_000);
    for n in 0..200 {
        let text = if n % 50 == 0 { format!("{n} {large}") } else { n.to_string() };
        ok(&client, &format!("PUBLISH news {}", text.replace(' ', "-")));
    }
    for n in 0..200 {
        let heard = listener.next();
        assert!(heard.starts_with(&format!("message news {n}")) && (heard.len() > 100_000) == (n % 50 == 0), "{n}");
    }
    node.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(listener.gap().cause, "lost");
    ok(&client, "PUBLISH news again");
    assert_eq!(listener.next(), "message news again");
}

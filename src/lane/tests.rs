//! Tests of the lane's inner state: panics of role holders, the bounds of the writer's role. Peers are plain sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::scope;
use std::time::{Duration, Instant};

use super::role::LaneRole;
use super::{Bytes, Lane, Outcome, Point, Unit};
use crate::config::{ClientSettings, Endpoint, LaneSettings};
use crate::error::Status;
use crate::net::{Conn, ConnectOptions, Expect};
use crate::time::{Deadline, Passage, WriteLease};

const GREETING: &[u8] = b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// A lane to a server that runs this after the handshake. It never corks.
fn lane_to(talk: impl FnOnce(TcpStream) + Send + 'static) -> Lane {
    lane_with(Duration::ZERO, talk)
}

fn lane_with(spin: Duration, talk: impl FnOnce(TcpStream) + Send + 'static) -> Lane {
    // Most tests are not about silence: on a loaded machine a server may be silent for long between two steps.
    lane_of(spin, Duration::from_secs(60), talk)
}

fn lane_of(spin: Duration, silent: Duration, talk: impl FnOnce(TcpStream) + Send + 'static) -> Lane {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(GREETING).unwrap();
        talk(stream);
    });
    let settings = ClientSettings { timeout_connect: Duration::from_secs(5), ..ClientSettings::default() };
    let options = ConnectOptions::of_node(&settings, Expect::Any);
    let conn = Conn::open(&endpoint, &options, Deadline::after(Duration::from_secs(5))).unwrap();
    let hold_rtt = Duration::ZERO;
    Lane::new(
        conn.into_wire(),
        endpoint.to_string(),
        LaneSettings { hold_rtt, spin, silent, ..LaneSettings::default() },
    )
}

fn ping(lane: &Lane) -> Outcome {
    lane.exec(
        Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false },
        Deadline::never(),
    )
}

/// Reads until this many PINGs are there.
fn hear(stream: &mut TcpStream, pings: usize) {
    stream.read_exact(&mut vec![0; pings * PING.len()]).unwrap();
}

fn until(lane: &Lane, in_flight: usize) {
    while lane.lock().in_flight() < in_flight {
        std::thread::yield_now();
    }
}

/// Twenty callers without a deadline; the holder of the role panics at this point. All others must be answered; the caller that
/// panics gets the panic.
fn panics_at(point: Point, answers: usize) -> (usize, Vec<super::Failure>) {
    let (go, wait) = channel::<()>();
    let lane = lane_to(move |mut stream| {
        hear(&mut stream, 20);
        wait.recv().unwrap();
        stream.write_all(&PONG.repeat(answers)).unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    let (mut good, mut panicked, mut failures) = (0, 0, Vec::new());
    scope(|threads| {
        let calls: Vec<_> = (0..20).map(|_| threads.spawn(|| ping(&lane))).collect();
        until(&lane, 20);
        assert!(lane.hook.set(Box::new(move |_, at| assert!(at != point, "on purpose"))).is_ok());
        go.send(()).unwrap();
        for call in calls {
            match call.join() {
                Err(_) => panicked += 1,
                Ok(Ok(_)) => good += 1,
                Ok(Err(failure)) => failures.push(failure),
            }
        }
    });
    assert_eq!(panicked, 1);
    assert!(lane.is_dead() && lane.in_flight() == 0);
    (good, failures)
}

/// Without a bound the caller that reads would do so as long as the server sends.
#[test]
fn pushes_without_end_do_not_hold_a_call_beyond_its_deadline() {
    let lane = lane_to(|mut stream| {
        hear(&mut stream, 1);
        let pushes = b">1\r\n+x\r\n".repeat(8192);
        while stream.write_all(&pushes).is_ok() {}
    });
    let unit = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
    let failure = lane.exec(unit, Deadline::after(Duration::from_millis(100))).unwrap_err();
    assert_eq!(failure.error.status(), Status::Timeout, "{:?}", failure.error);
    lane.shut(crate::error::Error::new(Status::Closed, "the end"));
}

/// Where reading is slow the end of each deadline is noticed late, as after a stop of the process.
#[test]
fn pushes_without_end_do_not_hold_a_call_whose_reader_is_slow() {
    let lane = lane_to(|mut stream| {
        hear(&mut stream, 1);
        let pushes = b">1\r\n+x\r\n".repeat(8192);
        // Not for ever, so that a call that is held ends, too.
        for _ in 0..600 {
            if stream.write_all(&pushes).is_err() {
                return;
            }
        }
    });
    let slow = |_: &Lane, at| {
        if at == Point::Received {
            std::thread::sleep(Duration::from_millis(15));
        }
    };
    assert!(lane.hook.set(Box::new(slow)).is_ok());
    let unit = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
    let failure = lane.exec(unit, Deadline::after(Duration::from_millis(100))).unwrap_err();
    assert_eq!(failure.error.status(), Status::Timeout, "{:?}", failure.error);
    lane.shut(crate::error::Error::new(Status::Closed, "the end"));
}

#[test]
fn a_panic_while_receiving_is_told_to_all_others() {
    let (good, failures) = panics_at(Point::Received, 3);
    assert_eq!((good, failures.len()), (0, 19));
    assert!(failures.iter().all(|failure| failure.sent == PING.len() && failure.error.status() == Status::Internal));
}

#[test]
fn a_panic_after_units_were_popped_still_hands_their_replies_over() {
    let (good, failures) = panics_at(Point::Popped, 20);
    // The one that panicked had a reply too, and could not return it.
    assert_eq!((good, failures.len()), (19, 0));
}

#[test]
fn a_panic_of_the_writer_leaves_everybody_in_doubt_whose_bytes_it_had() {
    let lane = lane_to(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {});
    let (at_point, sending) = channel();
    let (go, wait) = channel::<()>();
    let ends = std::sync::Mutex::new((at_point, wait));
    let hook = move |_: &Lane, at| {
        if at == Point::Sent {
            let (at_point, wait) = &*ends.lock().unwrap();
            at_point.send(()).unwrap();
            wait.recv().unwrap();
            panic!("on purpose");
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    scope(|threads| {
        let writer = threads.spawn(|| ping(&lane));
        sending.recv().unwrap();
        let behind: Vec<_> = (0..10).map(|_| threads.spawn(|| ping(&lane))).collect();
        until(&lane, 11);
        go.send(()).unwrap();
        assert!(writer.join().is_err());
        for call in behind {
            // Theirs were still in the append buffer.
            assert_eq!(call.join().unwrap().unwrap_err().sent, 0);
        }
    });
    let st = lane.lock();
    assert_eq!(st.sent, PING.len() as u64, "what the panicking writer had handed to the kernel counts as sent");
}

#[test]
fn half_a_command_is_never_left_in_the_buffer() {
    let mut st = super::LaneState::new();
    let ping = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
    let pushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        super::slot::scope(|_, completer| {
            st.push(
                super::Entry::new(super::Waiter::Caller(completer), &ping, crate::time::Deadline::never()),
                |buffer| {
                    buffer.extend_from_slice(b"*1\r\n$4\r\nPI");
                    panic!("on purpose");
                },
            )
        })
    }));
    assert!(pushed.is_err() && !st.has_unsent() && st.in_flight() == 0);
}

#[test]
fn a_writer_hands_its_role_on_while_others_append() {
    let lane = lane_to(|mut stream| {
        let mut piece = [0; 4096];
        let mut heard = 0;
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            heard += n;
            let _ = stream.write_all(&PONG.repeat(heard / PING.len()));
            heard %= PING.len();
        }
    });
    // While the first caller sends, others keep appending: the first one must be released nevertheless.
    let lane = Arc::new(lane);
    let rounds = Arc::new(AtomicUsize::new(0));
    let first = std::thread::current().id();
    let hook = {
        let (lane, rounds) = (Arc::downgrade(&lane), rounds.clone());
        move |_: &Lane, at| {
            if at != Point::Sending || std::thread::current().id() != first {
                return;
            }
            rounds.fetch_add(1, Ordering::Relaxed);
            assert!(rounds.load(Ordering::Relaxed) < 40, "the writer's role is not handed on");
            let lane = lane.upgrade().unwrap();
            let before = lane.pushes();
            let other = lane.clone();
            std::thread::spawn(move || ping(&other));
            while lane.pushes() == before {
                std::thread::yield_now();
            }
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    assert!(ping(&lane).is_ok());
    let rounds = rounds.load(Ordering::Relaxed);
    assert!((2..=18).contains(&rounds), "{rounds} rounds");
    let begun = Instant::now();
    while lane.lock().in_flight() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "those who appended were forgotten");
        std::thread::yield_now();
    }
}

#[test]
fn a_reader_is_never_ordered_to_write() {
    // The second caller is the reader, and its bytes are the only ones that are left when the writer has done its rounds.
    let lane = lane_to(|mut stream| {
        hear(&mut stream, 2);
        stream.write_all(&PONG.repeat(2)).unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    let lane = Arc::new(lane);
    let first = std::thread::current().id();
    let (done, reader) = channel();
    let hook = {
        let (lane, done) = (Arc::downgrade(&lane), std::sync::Mutex::new(Some(done)));
        move |_: &Lane, at| {
            let Some(done) =
                done.lock().unwrap().take_if(|_| at == Point::Sent && std::thread::current().id() == first)
            else {
                return;
            };
            let lane = lane.upgrade().unwrap();
            let other = lane.clone();
            std::thread::spawn(move || done.send(ping(&other)).unwrap());
            while lane.lock().reader.is_free() {
                std::thread::yield_now();
            }
            let st = lane.lock();
            assert!(matches!(st.writer, LaneRole::Taken(writer) if st.last_unsent_live(writer).is_none()));
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    assert!(ping(&lane).is_ok());
    assert!(reader.recv_timeout(Duration::from_secs(10)).unwrap().is_ok());
}

#[test]
fn what_was_appended_while_another_wrote_is_held_as_long_as_anything_else() {
    let (tell, early) = channel();
    let mut lane = lane_to(move |mut stream| {
        hear(&mut stream, 1);
        // Far longer than until the second caller looks again, far shorter than the cork's timer.
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let early = stream.read_exact(&mut [0; PING.len()]).is_ok();
        stream.set_read_timeout(None).unwrap();
        stream.write_all(PONG).unwrap();
        if !early {
            hear(&mut stream, 1);
        }
        stream.write_all(PONG).unwrap();
        tell.send(early).unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    lane.settings = LaneSettings { hold_calls: 1, hold_rtt: Duration::from_secs(10), ..LaneSettings::default() };
    lane.lock().set_srtt_us(2e6);
    let first = std::thread::current().id();
    let hook = move |lane: &Lane, at| {
        if at == Point::Sent && std::thread::current().id() == first {
            until(lane, 2);
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    scope(|threads| {
        let second = threads.spawn(|| {
            until(&lane, 1);
            ping(&lane)
        });
        assert!(ping(&lane).is_ok() && second.join().unwrap().is_ok());
    });
    assert!(!early.recv().unwrap(), "sent long before the end of the hold");
}

#[test]
fn a_large_reply_goes_on_where_its_leader_left_it() {
    const BIG: usize = 3_000_000;
    let (go, wait) = channel::<()>();
    let lane = lane_to(move |mut stream| {
        let body: Vec<u8> = (0..BIG).map(|at| (at % 253) as u8).collect();
        let head = format!("${BIG}\r\n");
        hear(&mut stream, 3);
        // The first caller's large reply comes in part, and then nothing until its deadline has passed.
        stream.write_all(&[head.as_bytes(), &body[..BIG / 2]].concat()).unwrap();
        wait.recv().unwrap();
        stream.write_all(&[&body[BIG / 2..], b"\r\n", head.as_bytes(), &body, b"\r\n+PONG\r\n"].concat()).unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    scope(|threads| {
        let first = threads.spawn(|| {
            let unit =
                Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
            lane.exec(unit, Deadline::after(Duration::from_millis(300)))
        });
        until(&lane, 1);
        let second = threads.spawn(|| ping(&lane));
        until(&lane, 2);
        let third = threads.spawn(|| ping(&lane));
        let failure = first.join().unwrap().unwrap_err();
        assert_eq!((failure.sent, failure.error.status()), (PING.len(), Status::Timeout));
        go.send(()).unwrap();
        let reply = second.join().unwrap().unwrap();
        let text = reply.bytes(0).unwrap();
        assert!(text.len() == BIG && text.iter().enumerate().all(|(at, byte)| *byte == (at % 253) as u8));
        assert_eq!(third.join().unwrap().unwrap().bytes(0), Some(&b"PONG"[..]));
    });
    assert!(!lane.is_dead() && lane.in_flight() == 0);
}

/// Reads until the end, or until this many bytes are there; in pieces that leave the client's socket full for long.
fn hear_all(stream: &mut TcpStream, most: usize) -> Vec<u8> {
    let (mut heard, mut piece) = (Vec::new(), [0; 9000]);
    while heard.len() < most {
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => heard.extend_from_slice(&piece[..n]),
            _ => break,
        }
    }
    heard
}

fn set(lane: &Lane, args: &[&[u8]], deadline: Deadline) -> Outcome {
    lane.exec(Unit { bytes: Bytes::Args(args), list: None, at_most_once: false, lease: None, atomic: false }, deadline)
}

fn encoded(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Bytes::Args(args).append_to(&mut bytes).unwrap();
    bytes
}

#[test]
fn large_arguments_arrive_whole_among_those_of_others() {
    let mut random = fastrand::Rng::with_seed(3);
    let sizes = [0, 5, 16_383, 16_384, 70_000, 300_000, 2_000_000];
    let calls: Vec<Vec<Vec<u8>>> = (0..60u8)
        .map(|call| (0..random.usize(2..6)).map(|_| vec![call; sizes[random.usize(..sizes.len())]]).collect())
        .collect();
    let total = calls.iter().map(|args| encoded(&args.iter().map(Vec::as_slice).collect::<Vec<_>>()).len()).sum();
    let (tell, heard) = channel();
    let lane = lane_to(move |mut stream| {
        tell.send(hear_all(&mut stream, total)).unwrap();
        stream.write_all(&PONG.repeat(60)).unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    scope(|threads| {
        for args in &calls {
            let lane = &lane;
            threads.spawn(move || {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                assert!(set(lane, &args, Deadline::never()).is_ok());
            });
        }
    });
    // Each call's bytes are together, whatever the order of the calls.
    let heard = heard.recv().unwrap();
    let mut rest = &heard[..];
    let mut commands: Vec<Vec<u8>> =
        calls.iter().map(|args| encoded(&args.iter().map(Vec::as_slice).collect::<Vec<_>>())).collect();
    while !rest.is_empty() {
        let next = commands.iter().position(|command| rest.starts_with(command)).expect("a command that nobody sent");
        rest = &rest[commands.swap_remove(next).len()..];
    }
    assert!(commands.is_empty() && !lane.is_dead());
}

#[test]
fn a_death_in_the_middle_of_a_large_argument_counts_what_the_kernel_took() {
    let (tell, heard) = channel();
    let (go, wait) = channel::<()>();
    let lane = lane_to(move |mut stream| {
        wait.recv().unwrap();
        tell.send(hear_all(&mut stream, usize::MAX)).unwrap();
    });
    let (at_point, sending) = channel();
    let at_point = std::sync::Mutex::new(at_point);
    let hook = move |_: &Lane, at| {
        if at == Point::Sent {
            at_point.lock().unwrap().send(()).unwrap();
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    let large: Vec<u8> = (0..64 << 20).map(|at| (at % 251) as u8).collect();
    let args = [b"SET", &b"key"[..], &large];
    let failure = scope(|threads| {
        let call = threads.spawn(|| set(&lane, &args, Deadline::never()));
        sending.recv().unwrap();
        let behind = threads.spawn(|| set(&lane, &args, Deadline::never()));
        until(&lane, 2);
        lane.shut(crate::error::Error::new(Status::Io, "on purpose"));
        assert_eq!(behind.join().unwrap().unwrap_err().sent, 0);
        call.join().unwrap().unwrap_err()
    });
    go.send(()).unwrap();
    let heard = heard.recv().unwrap();
    assert!(failure.sent > 0 && failure.sent == heard.len(), "{} sent, {} heard", failure.sent, heard.len());
    assert!(encoded(&args).starts_with(&heard));
}

#[test]
fn a_deadline_in_the_middle_of_a_large_argument_leaves_the_stream_whole() {
    let (tell, heard) = channel();
    let (go, wait) = channel::<()>();
    let large: Vec<u8> = (0..32 << 20).map(|at| (at % 251) as u8).collect();
    let args = [b"SET", &b"key"[..], &large, b"PX", b"7"];
    let command = encoded(&args);
    let len = command.len();
    let lane = lane_to(move |mut stream| {
        wait.recv().unwrap();
        tell.send(hear_all(&mut stream, len + PING.len())).unwrap();
        stream.write_all(b"+first\r\n+second\r\n").unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    let failure = set(&lane, &args, Deadline::after(Duration::from_millis(300))).unwrap_err();
    assert_eq!((failure.sent, failure.error.status()), (len, Status::Timeout));
    let taken = lane.lock().sent as usize;
    assert!(0 < taken && taken < len, "{taken} of {len} bytes were taken before anybody read");
    go.send(()).unwrap();
    assert_eq!(ping(&lane).unwrap().bytes(0), Some(&b"second"[..]));
    assert!(heard.recv().unwrap() == [&command[..], PING].concat());
}

/// What became of a PING, and how often its caller looked for the reply without sleeping. The server
/// answers after the third look, or after that time.
fn spins(spin: Duration, rests: u32, calls: usize, patience: Duration) -> (Outcome, usize) {
    let (go, wait) = channel::<()>();
    let lane = lane_with(spin, move |mut stream| {
        hear(&mut stream, 1);
        let _ = wait.recv_timeout(patience);
        let _ = stream.write_all(PONG);
        let _ = stream.read(&mut [0; 64]);
    });
    lane.hints.spin_pauses.store(rests, Ordering::Relaxed);
    let looked = Arc::new(AtomicUsize::new(0));
    let hook = {
        let (looked, go) = (looked.clone(), std::sync::Mutex::new(go));
        move |_: &Lane, at| {
            if at == Point::Spinning && looked.fetch_add(1, Ordering::Relaxed) == 2 {
                let _ = go.lock().unwrap().send(());
            }
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    let unit = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
    let outcome = lane.exec_among(unit, Deadline::never(), Some(&AtomicUsize::new(calls)));
    (outcome, looked.load(Ordering::Relaxed))
}

#[test]
fn a_lone_caller_looks_for_its_reply_without_sleeping() {
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1) {
        return;
    }
    let long = Duration::from_secs(10);
    let (outcome, looked) = spins(long, 0, 1, long);
    assert!(outcome.is_ok() && looked >= 3, "{looked}");
    for (spin, rests, calls) in [(Duration::ZERO, 0, 1), (long, 0, 2), (long, 1, 1)] {
        let (outcome, looked) = spins(spin, rests, calls, Duration::from_millis(50));
        assert!(outcome.is_ok() && looked == 0, "{spin:?} {rests} {calls}: {looked}");
    }
}

#[test]
fn a_deadline_ends_the_looking_and_so_does_its_own_limit() {
    let lane_spins = |spin| {
        let begun = Instant::now();
        let lane = lane_with(spin, |mut stream| while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {});
        let unit = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
        let deadline = Deadline::after(Duration::from_millis(60));
        let failure = lane.exec_among(unit, deadline, Some(&AtomicUsize::new(1))).unwrap_err();
        assert_eq!((failure.sent, failure.error.status()), (PING.len(), Status::Timeout));
        assert!(begun.elapsed() >= Duration::from_millis(60) && begun.elapsed() < Duration::from_secs(10));
        assert!(lane.hints.spin_pauses.load(Ordering::Relaxed) > 0, "it was in vain");
    };
    lane_spins(Duration::from_secs(100));
    lane_spins(Duration::from_millis(5));
}

const TOO_LONG: &[u8] = b"ERR Protocol error: too long";

#[test]
fn what_the_server_said_before_a_send_failed_is_read_first() {
    let ((go, wait), (gone, is_gone)) = (channel::<()>(), channel::<()>());
    let lane = lane_to(move |mut stream| {
        wait.recv().unwrap();
        stream.write_all(b"-ERR Protocol error: too long\r\n").unwrap();
        drop(stream);
        gone.send(()).unwrap();
    });
    let ends = std::sync::Mutex::new(Some((go, is_gone)));
    let hook = move |_: &Lane, at| {
        if let (Point::Sending, Some((go, is_gone))) = (at, ends.lock().unwrap().take()) {
            // The first send is answered with a reset, the second one fails.
            go.send(()).unwrap();
            is_gone.recv().unwrap();
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    let outcome = set(&lane, &[b"SET", b"k", &vec![b'x'; 24 << 20]], Deadline::never());
    assert_eq!(outcome.unwrap().error_line(0), Some(TOO_LONG));
    assert!(lane.is_dead() && lane.in_flight() == 0);
}

#[test]
fn a_writer_whose_send_fails_leaves_what_was_said_to_the_reader() {
    let (go, wait) = channel::<()>();
    let lane = lane_to(move |mut stream| {
        hear(&mut stream, 1);
        wait.recv().unwrap();
        stream.write_all(&[PONG, b"-ERR Protocol error: too long\r\n"].concat()).unwrap();
    });
    let (has_read, read) = channel::<()>();
    let (writer, reader) = (std::sync::Mutex::new(Some((go, read))), std::sync::Mutex::new(Some(has_read)));
    let hook = move |lane: &Lane, at| match at {
        // The PING has been sent: this is the large one.
        Point::Sending if lane.lock().in_flight() == 2 => {
            if let Some((go, read)) = writer.lock().unwrap().take() {
                go.send(()).unwrap();
                read.recv().unwrap();
            }
        }
        Point::Received => {
            if let Some(has_read) = reader.lock().unwrap().take() {
                has_read.send(()).unwrap();
                while !lane.lock().writer.is_free() {
                    std::thread::yield_now();
                }
            }
        }
        _ => {}
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    scope(|threads| {
        let reader = threads.spawn(|| ping(&lane));
        while lane.lock().reader.is_free() {
            std::thread::yield_now();
        }
        let outcome = set(&lane, &[b"SET", b"k", &vec![b'x'; 24 << 20]], Deadline::never());
        assert_eq!(outcome.unwrap().error_line(0), Some(TOO_LONG));
        assert_eq!(reader.join().unwrap().unwrap().bytes(0), Some(&b"PONG"[..]));
    });
    lane.check();
    assert!(lane.is_dead() && lane.in_flight() == 0);
}

/// A PING that is sent only as long as the lease lasts.
fn leased_ping(lane: &Lane, lease: &Arc<WriteLease>) -> Outcome {
    let unit =
        Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: true, lease: Some(lease), atomic: false };
    lane.exec(unit, Deadline::never())
}

fn a_lease() -> Arc<WriteLease> {
    let lease = Arc::new(WriteLease::default());
    lease.set(Passage::Until(Instant::now() + Duration::from_secs(60)));
    lease
}

#[test]
fn what_waits_for_a_writer_when_its_lease_ends_is_taken_back_and_the_rest_goes_on() {
    let lane = lane_to(|mut stream| {
        for _ in 0..3 {
            hear(&mut stream, 1);
            stream.write_all(PONG).unwrap();
        }
        let _ = stream.read(&mut [0; 64]);
    });
    let lease = a_lease();
    assert!(leased_ping(&lane, &lease).is_ok());
    // The first writer is at work until the others have appended and the lease is over.
    let (entered, enter) = channel();
    let (leave, left) = channel::<()>();
    let (left, first) = (std::sync::Mutex::new(Some(left)), std::sync::atomic::AtomicBool::new(true));
    let hook = move |_: &Lane, at| {
        if at == Point::Sending && first.swap(false, Ordering::Relaxed) {
            entered.send(()).unwrap();
            left.lock().unwrap().take().unwrap().recv().unwrap();
        }
    };
    assert!(lane.hook.set(Box::new(hook)).is_ok());
    scope(|scope| {
        let writer = scope.spawn(|| ping(&lane));
        enter.recv().unwrap();
        let leased: Vec<_> = (0..2).map(|_| scope.spawn(|| leased_ping(&lane, &lease))).collect();
        let other = scope.spawn(|| ping(&lane));
        until(&lane, 4);
        lease.set(Passage::Shut);
        leave.send(()).unwrap();
        for fenced in leased {
            let failure = fenced.join().unwrap().unwrap_err();
            assert_eq!((failure.sent, failure.error.status()), (0, Status::Fenced));
        }
        assert!(writer.join().unwrap().is_ok() && other.join().unwrap().is_ok());
    });
    assert!(!lane.is_dead());
}

#[test]
fn bytes_on_a_lease_that_is_renewed_or_needed_no_more_are_sent() {
    let lane = lane_to(|mut stream| {
        for _ in 0..2 {
            hear(&mut stream, 1);
            stream.write_all(PONG).unwrap();
        }
        let _ = stream.read(&mut [0; 64]);
    });
    let lease = a_lease();
    lease.set(Passage::Until(Instant::now()));
    let failure = leased_ping(&lane, &lease).unwrap_err();
    assert_eq!((failure.sent, failure.error.status()), (0, Status::Fenced));
    for passage in [Passage::Until(Instant::now() + Duration::from_secs(60)), Passage::Open] {
        lease.set(passage);
        assert!(leased_ping(&lane, &lease).is_ok(), "{passage:?}");
    }
    assert!(!lane.is_dead());
}

#[test]
fn a_lease_that_ends_in_the_middle_of_a_command_ends_the_connection() {
    let (shut, shutting) = channel();
    let lane = lane_to(move |mut stream| {
        // It takes no more than a little, until the lease is over.
        let _ = stream.read(&mut [0; 4096]);
        let () = shutting.recv().unwrap();
        while stream.read(&mut [0; 65_536]).is_ok_and(|n| n > 0) {}
    });
    let lease = a_lease();
    scope(|scope| {
        let large = vec![b'x'; 40_000_000];
        let (lane, lease) = (&lane, &lease);
        let call = scope.spawn(move || {
            let args: [&[u8]; 3] = [b"SET", b"k", &large];
            let unit =
                Unit { bytes: Bytes::Args(&args), list: None, at_most_once: true, lease: Some(lease), atomic: false };
            lane.exec(unit, Deadline::never())
        });
        let begun = Instant::now();
        while lane.wire.wait(false, true, Some(Duration::ZERO)).unwrap().write || lane.in_flight() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the socket is never full");
            std::thread::yield_now();
        }
        lease.set(Passage::Shut);
        shut.send(()).unwrap();
        let failure = call.join().unwrap().unwrap_err();
        assert!(failure.sent < 40_000_000 && failure.error.status() == Status::Io, "{failure:?}");
    });
    assert!(lane.is_dead());
}

/// Waits until the peer's answer is there.
fn await_answer(lane: &Lane) {
    assert!(lane.wire.wait(true, false, Some(Duration::from_secs(20))).unwrap().read);
}

/// As after a stop of the process: the clock has gone on, the replies are still in the socket, and the reader has not run yet.
#[test]
fn a_lane_is_not_silent_with_something_to_read() {
    const SILENT: Duration = Duration::from_secs(1);
    let (go, wait) = channel::<()>();
    let lane = lane_of(Duration::ZERO, SILENT, move |mut stream| {
        hear(&mut stream, 1);
        wait.recv().unwrap();
        stream.write_all(PONG).unwrap();
        hear(&mut stream, 1);
        let _ = stream.read(&mut [0; 64]);
    });
    let unasked = || {
        let unit = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
        assert_eq!(lane.exec(unit, Deadline::after(Duration::ZERO)).unwrap_err().sent, PING.len());
    };
    let judged_after_silence = || {
        while lane.lock().silent_beyond(SILENT).is_none() {
            std::thread::yield_now();
        }
        lane.lock().reader.take(super::NOBODY);
        lane.check();
        lane.lock().reader.give_up();
    };
    unasked();
    go.send(()).unwrap();
    await_answer(&lane);
    judged_after_silence();
    assert!(!lane.is_dead(), "the answer is there");
    lane.check();
    assert_eq!(lane.in_flight(), 0);
    // Without anything to read it is.
    unasked();
    judged_after_silence();
    assert!(lane.is_dead());
}

#[test]
fn a_lane_is_not_silent_while_its_peer_has_room_for_what_it_waits_for() {
    const SILENT: Duration = Duration::from_secs(1);
    const LARGE: usize = 32 << 20;
    let text = vec![b'x'; LARGE];
    let with_half_a_command = || {
        let (go, wait) = channel::<()>();
        let lane = lane_of(Duration::ZERO, SILENT, move |mut stream| {
            wait.recv().unwrap();
            stream.read_exact(&mut vec![0; 16 << 20]).unwrap();
            let _ = wait.recv();
        });
        let failure = set(&lane, &[b"SET", b"k", &text], Deadline::after(Duration::ZERO)).unwrap_err();
        assert!(failure.sent > 0);
        (lane, go)
    };
    // On a machine that stands still for a second the call itself finds its peer silent, and without room.
    let (lane, go) = (0..20).map(|_| with_half_a_command()).find(|(lane, _)| !lane.is_dead()).expect("one in time");
    go.send(()).unwrap();
    assert!(lane.wire.wait(false, true, Some(Duration::from_secs(20))).unwrap().write);
    while lane.lock().silent_beyond(SILENT).is_none() {
        std::thread::yield_now();
    }
    drop(lane.kill_if_silent(lane.lock()));
    assert!(!lane.is_dead(), "the peer takes what is sent");
}

/// As after a stop of the process: a caller that reads finds its deadline long passed, and its bytes have just been sent.
#[test]
fn a_reader_that_was_stopped_waits_a_moment_for_its_answer() {
    let lane = lane_to(|mut stream| {
        let mut byte = [0; PING.len()];
        while stream.read_exact(&mut byte).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(PONG).unwrap();
        }
    });
    let missed = Deadline::after(Duration::ZERO);
    while !missed.is_missed() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // More than once: a machine that stands still for longer than that moment takes it away.
    let unit = || Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
    assert!((0..50).any(|_| lane.exec(unit(), missed).is_ok()), "its answer came");
    assert!(!lane.is_dead());
}

/// As after a stop of the process: a caller finds its deadline long passed, and the reader has not run yet.
#[test]
fn a_caller_that_was_stopped_waits_a_moment_for_the_one_who_reads() {
    let lane = lane_to(|mut stream| {
        let mut byte = [0; PING.len()];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(PONG).unwrap();
        }
    });
    let missed = Deadline::after(Duration::ZERO);
    while !missed.is_missed() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // More than once: a machine that stands still for longer than that moment takes it away.
    let unit = || Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
    let answered = (0..50).any(|_| {
        lane.lock().reader.take(super::NOBODY);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| lane.exec(unit(), missed));
            await_answer(&lane);
            // It has looked at the clock by now.
            std::thread::sleep(Duration::from_millis(20));
            lane.lock().reader.give_up();
            lane.check();
            call.join().unwrap().is_ok()
        })
    });
    assert!(answered, "its answer was there");
    assert!(!lane.is_dead());
}

/// What was sent behind a transaction that the server did not end was queued: its `QUEUED` is nobody's reply.
#[test]
fn a_transaction_that_is_left_open_ends_the_lane_before_another_call_is_answered() {
    let whole = super::transaction::wrap(PING).unwrap();
    for abandoned in [false, true] {
        let (sent, len) = (channel::<()>(), whole.len());
        let (go, wait) = sent;
        let lane = Arc::new(lane_to(move |mut stream| {
            stream.read_exact(&mut vec![0; len]).unwrap();
            hear(&mut stream, 1);
            wait.recv().unwrap();
            stream.write_all(b"+OK\r\n+QUEUED\r\n-ERR unknown command 'EXEC'\r\n+QUEUED\r\n").unwrap();
            let _ = stream.read(&mut [0; 64]);
        }));
        let unit = Unit { bytes: Bytes::Raw(&whole), list: Some(3), at_most_once: true, lease: None, atomic: true };
        std::thread::scope(|scope| {
            let deadline = if abandoned { Deadline::after(Duration::from_millis(20)) } else { Deadline::never() };
            let (own, shared) = (unit, &lane);
            let transaction = scope.spawn(move || shared.exec(own, deadline));
            until(&lane, 1);
            let other = scope.spawn(move || ping(shared));
            until(&lane, 2);
            if abandoned {
                assert_eq!(transaction.join().unwrap().unwrap_err().error.status(), Status::Timeout);
                go.send(()).unwrap();
            } else {
                go.send(()).unwrap();
                let replies = transaction.join().unwrap().expect("its own replies are complete");
                assert!(super::transaction::is_left_open(&replies));
            }
            let failure = other.join().unwrap().expect_err("nobody gets QUEUED for a reply");
            assert!(failure.error.message().contains("did not end a transaction"), "{}", failure.error);
            assert!(failure.sent > 0 && lane.is_dead());
        });
    }
}

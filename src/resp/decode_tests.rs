//! The decoder by examples: each type, each limit, each kind of error, in one piece and byte by byte.

use super::{DecodeError, Decoded, Decoder, Kind, Limits, Reply, Want};

type Outcome = Result<(usize, Option<Decoded>), DecodeError>;

fn json(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.to_json().unwrap().bytes(0).unwrap_or_default()).into_owned()
}

/// Decodes whole and byte by byte, and insists on the same outcome.
fn decode_with(limits: Limits, input: &[u8], want: Want) -> Outcome {
    let whole = Decoder::new(limits).decode(input, want);
    let mut decoder = Decoder::new(limits);
    let mut pieces = Ok((input.len(), None));
    for (at, byte) in input.iter().enumerate() {
        match decoder.decode(std::slice::from_ref(byte), want) {
            Ok((used, None)) => assert_eq!(used, 1),
            Ok((used, done)) => {
                pieces = Ok((at + used, done));
                break;
            }
            Err(error) => {
                pieces = Err(error);
                break;
            }
        }
    }
    match (&whole, &pieces) {
        (Err(DecodeError::Protocol(_)), Err(DecodeError::Protocol(_))) => {}
        _ => assert_eq!(whole, pieces, "{}", input.escape_ascii()),
    }
    whole
}

fn one(input: &[u8]) -> Reply {
    match decode_with(Limits::default(), input, Want::One) {
        Ok((used, Some(Decoded::Reply(reply)))) if used == input.len() => reply,
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

fn fault(input: &[u8]) -> String {
    match decode_with(Limits::default(), input, Want::One) {
        Err(DecodeError::Protocol(text)) => text,
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

#[test]
fn what_a_server_sends_back_is_not_in_the_message() {
    let echoes: [&[u8]; 12] = [
        b"@HELLO 3 AUTH default n0de-s3cret\r\n",
        b"n0de-s3cret\r\n",
        b":n0de-s3cret\r\n",
        b"$n0de-s3cret\r\n",
        b"$-n0de-s3cret\r\n",
        b"+n0de-s3cret\n",
        b",n0de-s3cret\r\n",
        b"(n0de-s3cret\r\n",
        b"#n0de-s3cret\r\n",
        b";n0de-s3cret\r\n",
        b"=11\r\nn0de-s3cret\r\n",
        b"$1\r\nn0de-s3cret\r\n",
    ];
    for input in echoes {
        let text = fault(input);
        assert!(!["n0", "0d", "de", "s3", "cr"].iter().any(|part| text.replace("0x", "").contains(part)), "{text}");
    }
}

#[test]
fn every_type_is_read() {
    let cases: [(&[u8], Kind, &str); 27] = [
        (b"+OK\r\n", Kind::Status, "\"OK\""),
        (b"+\r\n", Kind::Status, "\"\""),
        (b"-ERR no\r\n", Kind::Error, "{\"error\":\"ERR no\"}"),
        (b":-42\r\n", Kind::Int, "-42"),
        (b":+7\r\n", Kind::Int, "7"),
        (b":9223372036854775807\r\n", Kind::Int, "9223372036854775807"),
        (b":-9223372036854775808\r\n", Kind::Int, "-9223372036854775808"),
        (b"$-1\r\n", Kind::Null, "null"),
        (b"*-1\r\n", Kind::Null, "null"),
        (b"_\r\n", Kind::Null, "null"),
        (b"$0\r\n\r\n", Kind::String, "\"\""),
        (b"$4\r\na\r\nb\r\n", Kind::String, "\"a\\r\\nb\""),
        (b"#t\r\n", Kind::Bool, "true"),
        (b"#f\r\n", Kind::Bool, "false"),
        (b",1.5e3\r\n", Kind::Double, "1500.0"),
        (b",-inf\r\n", Kind::Double, "\"-inf\""),
        (b",nan\r\n", Kind::Double, "\"nan\""),
        (b"(-123456789012345678901234567890\r\n", Kind::Bignum, "\"-123456789012345678901234567890\""),
        (b"!6\r\nERR\nxy\r\n", Kind::Error, "{\"error\":\"ERR\\nxy\"}"),
        (b"=7\r\ntxt:abc\r\n", Kind::Verbatim, "\"abc\""),
        (b"*0\r\n", Kind::Array, "[]"),
        (b"%0\r\n", Kind::Map, "{}"),
        (b"*3\r\n:1\r\n$1\r\na\r\n$-1\r\n", Kind::Array, "[1,\"a\",null]"),
        (b"%2\r\n+a\r\n:1\r\n:2\r\n*1\r\n_\r\n", Kind::Map, "{\"a\":1,\"2\":[null]}"),
        (b"~2\r\n:1\r\n:2\r\n", Kind::Set, "[1,2]"),
        (b"*2\r\n*2\r\n:1\r\n*1\r\n:2\r\n*1\r\n*0\r\n", Kind::Array, "[[1,[2]],[[]]]"),
        (b"*4\r\n:0\r\n*1\r\n:1\r\n:2\r\n*1\r\n:3\r\n", Kind::Array, "[0,[1],2,[3]]"),
    ];
    for (input, kind, expected) in cases {
        let reply = one(input);
        assert_eq!(reply.kind(0), kind, "{}", input.escape_ascii());
        assert_eq!(json(&reply), expected, "{}", input.escape_ascii());
    }
}

#[test]
fn texts_have_a_nul_behind_them() {
    let reply = one(b"*3\r\n$2\r\nab\r\n+c\r\n=4\r\ntxt:\r\n");
    assert_eq!(reply.bytes_nul(1), Some(&b"ab\0"[..]));
    assert_eq!(reply.bytes_nul(2), Some(&b"c\0"[..]));
    assert_eq!(reply.bytes_nul(3), Some(&b"\0"[..]));
    assert_eq!(reply.bytes_nul(4), None);
    assert_eq!(reply.bytes(0), None);
    assert_eq!(one(b"*1\r\n-ERR x\r\n").error_line(1), Some(&b"ERR x"[..]));
}

#[test]
fn questions_to_a_reply_are_total() {
    let reply = one(b"*4\r\n$1\r\na\r\n$2\r\n12\r\n+b\r\n$3\r\n1.5\r\n");
    assert_eq!(reply.find(0, b"a").and_then(|id| reply.int(id)), Some(12));
    assert_eq!(reply.find(0, b"b").and_then(|id| reply.double(id)), Some(1.5));
    assert_eq!(reply.find(0, b"12"), None, "a value is no key");
    assert_eq!((reply.child(0, 3), reply.child(0, 4), reply.child(1, 0)), (Some(4), None, None));
    assert_eq!((reply.kind(99), reply.count(99), reply.int(99), reply.int(1)), (Kind::None, 0, None, None));
    assert_eq!(reply.subtree(99).kind(0), Kind::Null);
}

#[test]
fn a_list_is_the_children_of_one_array() {
    let input = b"+OK\r\n*1\r\n:1\r\n-ERR\r\n+next\r\n";
    let Ok((used, Some(Decoded::Reply(reply)))) = decode_with(Limits::default(), input, Want::List(3)) else {
        panic!()
    };
    assert_eq!((used, json(&reply).as_str()), (input.len() - 7, "[\"OK\",[1],{\"error\":\"ERR\"}]"));
    assert_eq!(decode_with(Limits::default(), input, Want::Skip(4)), Ok((input.len(), Some(Decoded::Skipped))));
    let empty = Decoder::new(Limits::default()).decode(b"+x\r\n", Want::List(0));
    assert!(matches!(empty, Ok((0, Some(Decoded::Reply(reply)))) if json(&reply) == "[]"));
}

#[test]
fn attributes_are_dropped_wherever_they_are() {
    assert_eq!(json(&one(b"|1\r\n+k\r\n*2\r\n:1\r\n:2\r\n:5\r\n")), "5");
    assert_eq!(json(&one(b"*2\r\n|1\r\n+k\r\n|1\r\n+i\r\n+j\r\n$1\r\nv\r\n:1\r\n|0\r\n:2\r\n")), "[1,2]");
}

#[test]
fn a_push_does_not_end_the_unit() {
    let input = b">1\r\n+a\r\n+OK\r\n>2\r\n+b\r\n*1\r\n:1\r\n:2\r\n+x\r\n";
    for want in [Want::List(2), Want::Skip(2)] {
        let mut decoder = Decoder::new(Limits::default());
        let (mut at, mut pushes) = (0, Vec::new());
        let unit = loop {
            let (used, done) = decoder.decode(&input[at..], want).expect("valid");
            at += used;
            match done.expect("whole") {
                Decoded::Push(reply) => pushes.push(json(&reply)),
                unit => break unit,
            }
            assert_eq!(decoder.is_idle(), pushes.len() == 1);
        };
        assert_eq!(pushes, ["[\"a\"]", "[\"b\",[1]]"]);
        assert!(decoder.is_idle() && at == input.len() - 4);
        match unit {
            Decoded::Reply(reply) => assert_eq!(json(&reply), "[\"OK\",2]"),
            other => assert_eq!(other, Decoded::Skipped),
        }
    }
}

#[test]
fn what_is_not_resp_is_quoted() {
    for input in [
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"$3\r\nabcd\r\n",
        b"$3\r\nabc\n\n",
        b"$-2\r\n",
        b"*-2\r\n",
        b"%-1\r\n",
        b":\r\n",
        b":1 \r\n",
        b":-\r\n",
        b":9223372036854775808\r\n",
        b":99999999999999999999\r\n",
        b"$1\n",
        b"$1\rx",
        b"+OK\n",
        b"#x\r\n",
        b"_x\r\n",
        b",abc\r\n",
        b",infinity\r\n",
        b",\r\n",
        b"(12x\r\n",
        b"(\r\n",
        b"=3\r\ntxt\r\n",
        b"=5\r\ntxtab\r\n",
        b"*1\r\n>1\r\n:1\r\n",
        b">1\r\n>1\r\n:1\r\n",
        b"|1\r\n+k\r\n>1\r\n:1\r\n",
    ] {
        assert!(!fault(input).is_empty());
    }
    assert_eq!(fault(b"HTTP and so on\r\n"), "no reply begins like this (it begins with the byte 0x48)");
    for input in [&b"$?\r\n"[..], b"*?\r\n", b"%?\r\n", b"~?\r\n", b";4\r\n"] {
        assert!(fault(input).starts_with("streamed replies are not supported"));
    }
}

#[test]
fn a_dead_decoder_repeats_its_error() {
    let mut decoder = Decoder::new(Limits::default());
    let error = decoder.decode(b"x", Want::One).expect_err("no type");
    assert_eq!(decoder.decode(b"+OK\r\n", Want::One), Err(error));
    assert!(!decoder.is_idle());
}

#[test]
fn limits_hold_when_a_length_is_announced() {
    let limits = Limits { max_bytes: 100, max_depth: 3, max_nodes: 10 };
    let is_over = |input: &[u8]| matches!(decode_with(limits, input, Want::One), Err(DecodeError::Limit(_)));
    assert!(is_over(b"$100\r\n"));
    assert!(!is_over(b"$99\r\n"));
    assert!(is_over(b"*10\r\n"));
    assert!(!is_over(b"*9\r\n"));
    assert!(is_over(b"%5\r\n"));
    assert!(is_over(b"*9223372036854775807\r\n"));
    assert!(is_over(b"*5\r\n*5\r\n"));
    // What is dropped counts, too, or a unit might never end.
    assert!(is_over(b"|4\r\n+a\r\n:1\r\n+b\r\n:2\r\n|1\r\n:3\r\n"));
    assert!(is_over(&b"|0\r\n".repeat(10)) && !is_over(&b"|0\r\n".repeat(9)));
    assert!(is_over(b"|1\r\n+a\r\n*8\r\n"));
    assert!(is_over(b"*1\r\n*1\r\n*1\r\n*1\r\n"));
    assert!(!is_over(b"*1\r\n*1\r\n*1\r\n:1\r\n"));
    assert!(is_over(b"|1\r\n|1\r\n|1\r\n|1\r\n"));
    assert!(is_over(b"*2\r\n$50\r\n01234567890123456789012345678901234567890123456789\r\n$50\r\n"));
    let line = |len| [b"+".as_slice(), &vec![b'x'; len], b"\r\n"].concat();
    assert!(is_over(&line(100)));
    assert!(!is_over(&line(99)));
    let line = line(70_000);
    assert!(matches!(decode_with(Limits::default(), &line, Want::One), Err(DecodeError::Limit(_))));
    let skipped = decode_with(limits, b"*20\r\n$100\r\n", Want::Skip(1));
    assert!(matches!(skipped, Ok((_, None))), "what is not kept has no size");
    assert!(matches!(decode_with(limits, b"*1\r\n*1\r\n*1\r\n*1\r\n", Want::Skip(1)), Err(DecodeError::Limit(_))));
}

/// Whole texts and texts in pieces are decoded by different paths: tests each length at which a path changes.
#[test]
fn texts_of_every_length_are_read_alike() {
    let bulk = |len: usize| [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat();
    for len in [0, 1, 9, 10, 63, 64, 65, 99, 100, 103, 104, 105, 999, 1000, 4096, 9999, 10_000] {
        let text = [&vec![b'x'; len], &b"\0"[..]].concat();
        assert_eq!(one(&bulk(len)).bytes_nul(0), Some(&text[..]), "{len} alone");
        let mixed = [&b"*5\r\n"[..], &bulk(len), b":7\r\n", &bulk(3), b"$-1\r\n", &bulk(len)].concat();
        let reply = one(&mixed);
        let texts = (1..6).map(|child| reply.bytes_nul(child)).collect::<Vec<_>>();
        assert_eq!(texts, [Some(&text[..]), None, Some(&b"xxx\0"[..]), None, Some(&text[..])], "{len} in a list");
        assert_eq!((reply.int(2), reply.kind(4)), (Some(7), Kind::Null));

        let limits = |max_bytes| Limits { max_bytes, ..Limits::default() };
        let kept = len + 1;
        assert!(decode_with(limits(kept), &bulk(len), Want::One).is_ok());
        assert!(decode_with(limits(kept - 1), &bulk(len), Want::One).is_err());
        let list = [&b"*3\r\n"[..], &bulk(len).repeat(3)].concat();
        assert!(decode_with(limits(3 * kept), &list, Want::One).is_ok());
        assert!(decode_with(limits(3 * kept - 1), &list, Want::One).is_err());
    }
    for wrong in
        ["$3\r\nabcd\n", "$3\r\nabc\rx", "$3\rxabc\r\n", "$12x\r\n", "*2\r\n$1\r\na\r\n$3\r\nabcd\n", "*1\r\n:1\rx"]
    {
        assert!(matches!(decode_with(Limits::default(), wrong.as_bytes(), Want::One), Err(DecodeError::Protocol(_))));
    }
}

#[test]
fn a_deep_reply_is_no_deep_call() {
    let limits = Limits { max_depth: 1 << 20, ..Limits::default() };
    let mut input = b"*1\r\n".repeat(200_000);
    input.extend_from_slice(b":1\r\n");
    let Ok((_, Some(Decoded::Reply(reply)))) = Decoder::new(limits).decode(&input, Want::One) else { panic!() };
    assert_eq!(reply.nodes().len(), 200_001);
    assert!(json(&reply.subtree(0)).starts_with("[[["));
}

/// Feeds pieces of random size, now through a buffer and now straight into the reply where that is offered; gives the units and
/// how many bytes went straight.
fn in_pieces(input: &[u8], wants: &[Want], random: &mut fastrand::Rng) -> (Result<Vec<Decoded>, DecodeError>, usize) {
    let mut decoder = Decoder::new(Limits::default());
    let (mut rest, mut units, mut straight) = (input, Vec::new(), 0);
    // Rarely the smallest size, with which a reply of megabytes takes a second.
    let most = [3, 700, 700, 700, 700, 40_000, 40_000, 40_000, 40_000, 1 << 20, 1 << 20, 1 << 20][random.usize(..12)];
    while !rest.is_empty() {
        let piece = random.usize(1..=most).min(rest.len());
        let offered = random.u8(..8) > 0;
        let direct = offered.then(|| {
            decoder.receive(|data, most| {
                let n = piece.min(most);
                assert!(data.capacity() - data.len() >= most, "what may be appended is reserved");
                data.extend_from_slice(&rest[..n]);
                Ok(n)
            })
        });
        let mut input = match direct.flatten() {
            Some(got) => {
                let n = got.unwrap();
                (rest, straight) = (&rest[n..], straight + n);
                &rest[..0]
            }
            None => {
                let input = &rest[..piece];
                rest = &rest[piece..];
                input
            }
        };
        loop {
            let want = wants
                .get(units.iter().filter(|unit| !matches!(unit, Decoded::Push(_))).count())
                .copied()
                .unwrap_or(Want::One);
            match decoder.decode(input, want) {
                Err(error) => return (Err(error), straight),
                Ok((used, done)) => {
                    units.extend(done);
                    input = &input[used..];
                }
            }
            if input.is_empty() {
                break;
            }
        }
    }
    (Ok(units), straight)
}

#[test]
fn what_is_received_straight_into_a_reply_is_the_same_reply() {
    let text = |kind: u8, len: usize| {
        let body: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        [format!("{}{len}\r\n", kind as char).as_bytes(), &body[..], b"\r\n"].concat()
    };
    let verbatim = [b"=100000\r\ntxt:".as_slice(), &[b'v'; 99_996], b"\r\n"].concat();
    let input = [
        text(b'$', 65_537),
        [b"*3\r\n", &text(b'$', 70_000)[..], b":1\r\n", &text(b'$', 300_000)].concat(),
        [b">2\r\n+news\r\n", &text(b'$', 90_000)[..]].concat(),
        verbatim,
        text(b'$', 200_000),
        [b"|1\r\n+a\r\n", &text(b'$', 80_000)[..], b"+OK\r\n"].concat(),
        [text(b'!', 66_000), text(b'$', 2_500_000)].concat(),
        b"+end\r\n".to_vec(),
    ]
    .concat();
    let wants = [Want::One, Want::One, Want::One, Want::Skip(1), Want::One, Want::List(2), Want::One];
    let mut whole = (Decoder::new(Limits::default()), &input[..], Vec::new());
    for want in wants {
        loop {
            let (used, done) = whole.0.decode(whole.1, want).unwrap();
            whole.1 = &whole.1[used..];
            let is_push = matches!(done, Some(Decoded::Push(_)));
            whole.2.extend(done);
            if !is_push {
                break;
            }
        }
    }
    assert!(whole.1.is_empty() && whole.2.len() == 8);
    let (mut random, mut total) = (fastrand::Rng::with_seed(7), 0);
    for _ in 0..40 {
        let (units, straight) = in_pieces(&input, &wants, &mut random);
        // Not with assert_eq, which would print megabytes.
        assert!(units.unwrap() == whole.2, "the same replies however they are received");
        total += straight;
    }
    assert!(total > 40 * input.len() / 4, "{total} bytes went straight");
}

#[test]
fn room_follows_what_was_received() {
    let mut decoder = Decoder::new(Limits::default());
    assert!(decoder.receive(|_, _| Ok(0)).is_none(), "nothing has begun");
    decoder.decode(b"$530000000\r\nx", Want::One).unwrap();
    let (mut received, mut reserved) = (1, 0);
    while received < 100 << 20 {
        let got = decoder.receive(|data, most| {
            assert!(most > 0 && most <= 1 << 20);
            reserved = data.capacity();
            data.resize(data.len() + most, b'x');
            Ok(most)
        });
        received += got.unwrap().unwrap();
        assert!(reserved <= (64 << 20) + received, "{reserved} bytes for {received}");
    }
    assert!(!decoder.is_idle());
}

#[test]
fn no_room_is_given_for_what_is_not_kept_or_is_small() {
    for (input, want) in [
        (&b"$100000\r\nx"[..], Want::Skip(1)),
        (b"|1\r\n+a\r\n$100000\r\nx", Want::One),
        (b"$65536\r\nx", Want::One),
        (b"*1\r\n$1000", Want::One),
    ] {
        let mut decoder = Decoder::new(Limits::default());
        decoder.decode(input, want).unwrap();
        assert!(decoder.receive(|_, _| Ok(0)).is_none(), "{}", input.escape_ascii());
    }
}

#[test]
fn a_text_received_straight_must_end_as_any_other() {
    let mut decoder = Decoder::new(Limits::default());
    decoder.decode(b"$70000\r\n", Want::One).unwrap();
    let got = decoder.receive(|data, most| {
        data.resize(data.len() + most, b'x');
        Ok(most)
    });
    assert_eq!(got.unwrap().unwrap(), 70_002);
    assert!(matches!(decoder.decode(b"", Want::One), Err(DecodeError::Protocol(_))));
    // A receive that fails changes nothing.
    let mut decoder = Decoder::new(Limits::default());
    decoder.decode(b"$70000\r\n", Want::One).unwrap();
    assert!(decoder.receive(|_, _| Err(std::io::ErrorKind::WouldBlock.into())).unwrap().is_err());
    let rest = [&[b'y'; 70_000][..], b"\r\n"].concat();
    let Ok((70_002, Some(Decoded::Reply(reply)))) = decoder.decode(&rest, Want::One) else { panic!() };
    assert_eq!(reply.bytes(0), Some(&[b'y'; 70_000][..]));
}

#[test]
fn a_list_is_completed_with_the_line_that_refuses_its_rest_and_with_no_other() {
    let refused = |input: &[u8], want: Want| {
        let mut decoder = Decoder::new(Limits::default());
        assert!(matches!(decoder.decode(input, want), Ok((_, None))), "{}", input.escape_ascii());
        let reply = decoder.refuse_rest();
        assert!(reply.is_none() || decoder.is_idle());
        reply.map(|reply| json(&reply))
    };
    let line = r#"{"error":"ERR Protocol error: x"}"#;
    let whole = format!("[1,{line},{line},{line}]");
    assert_eq!(refused(b":1\r\n-ERR Protocol error: x\r\n", Want::List(4)), Some(whole));
    let nested = format!("[[1],{line},{line}]");
    assert_eq!(refused(b"*1\r\n:1\r\n-ERR Protocol error: x\r\n", Want::List(3)), Some(nested));
    // Any other error is the answer to one command; an error inside a reply is no answer; a skipped unit has no waiter.
    assert_eq!(refused(b"-ERR no\r\n", Want::List(2)), None);
    assert_eq!(refused(b"-ERR Protocol error: x\r\n:1\r\n", Want::List(3)), None);
    assert_eq!(refused(b"-ERR Protocol error: x\r\n:1", Want::List(3)), None);
    assert_eq!(refused(b"-ERR Protocol error: x\r\n$9\r\nab", Want::List(3)), None);
    assert_eq!(refused(b"*2\r\n-ERR Protocol error: x\r\n", Want::One), None);
    assert_eq!(refused(b"*2\r\n-ERR Protocol error: x\r\n", Want::List(2)), None);
    assert_eq!(refused(b"-ERR Protocol error: x\r\n", Want::Skip(2)), None);
    assert_eq!(refused(b"", Want::List(2)), None);
}

//! packages/vectors is true to the library: what its own encoder and decoder do with them, and what the tables say of each status.
//!
//! The packages of the languages are tested with the same files, so a mistake in them would be a mistake in five places.

use crate::installed::root;

use serde_json::Value as Json;
use vigie::error::{Error, Status, flags};
use vigie::resp::{Decoded, Decoder, Kind, Limits, Reply, Want, encode};

fn file(name: &str) -> Json {
    let path = root().join("packages/vectors").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cases of one list, of which there are at least so many.
fn cases(file: &Json, list: &str, least: usize) -> Vec<Json> {
    let cases = file[list].as_array().unwrap_or_else(|| panic!("no list {list}"));
    assert!(cases.len() >= least, "only {} in {list}", cases.len());
    let mut names: Vec<_> = cases.iter().map(|case| (case["protocol"].as_i64(), case["name"].as_str())).collect();
    names.retain(|(_, name)| name.is_some());
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name of {list} stands there twice");
    cases.clone()
}

fn text<'a>(case: &'a Json, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("no text {key} in {case}"))
}

fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len() % 2 == 0, "{digits}");
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal") as u8;
    digits.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn unhex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn argument(argument: &Json) -> Vec<u8> {
    match argument.as_object().and_then(|one| one.iter().next()) {
        Some((kind, value)) if kind == "text" => value.as_str().expect("text").as_bytes().to_vec(),
        Some((kind, value)) if kind == "bytes" => hex(value.as_str().expect("hex")),
        Some((kind, value)) if kind == "integer" => {
            let digits = value.as_str().expect("digits");
            assert_eq!(digits.parse::<i128>().expect("an integer").to_string(), digits);
            digits.as_bytes().to_vec()
        }
        _ => panic!("not an argument: {argument}"),
    }
}

#[test]
fn the_librarys_encoder_gives_the_bytes_of_encode_json() {
    let file = file("encode.json");
    for case in cases(&file, "commands", 15) {
        let args: Vec<Vec<u8>> = case["args"].as_array().expect("args").iter().map(argument).collect();
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(unhex(&bytes), text(&case, "resp"), "{}", text(&case, "name"));
    }
    for case in cases(&file, "floats", 15) {
        let bits = u64::from_str_radix(text(&case, "bits"), 16).expect("64 bits");
        let read: f64 = text(&case, "as").parse().expect("a number");
        assert_eq!(read.to_bits(), bits, "{}", text(&case, "name"));
    }
    cases(&file, "refused", 5);
}

fn decode(case: &Json) -> Result<Decoded, String> {
    let (bytes, mut decoder) = (hex(text(case, "reply")), Decoder::new(Limits::default()));
    let mut rest = &bytes[..];
    let mut pushed = None;
    loop {
        let (used, done) = decoder.decode(rest, Want::One).map_err(|error| error.to_string())?;
        rest = &rest[used..];
        match done {
            Some(Decoded::Push(push)) => pushed = Some(push),
            Some(done) => {
                assert!(rest.is_empty(), "{}: {} bytes are left", text(case, "name"), rest.len());
                return Ok(done);
            }
            None => return pushed.map(Decoded::Push).ok_or_else(|| format!("{}: it is not whole", text(case, "name"))),
        }
    }
}

/// Whether a node of a reply is what the notation of packages/vectors/README.md says.
fn is(reply: &Reply, id: u32, value: &Json) -> bool {
    let bytes = || reply.bytes(id) == Some(&hex(text(value, "hex"))[..]);
    let digits = || reply.bytes(id) == Some(text(value, "value").as_bytes());
    let children = |list: &[Json]| {
        let ids: Vec<u32> = reply.children(id).collect();
        ids.len() == list.len() && ids.iter().zip(list).all(|(id, value)| is(reply, *id, value))
    };
    let items = || children(value["items"].as_array().expect("items"));
    match (text(value, "type"), reply.kind(id)) {
        ("null", Kind::Null) => true,
        ("string", Kind::String) | ("status", Kind::Status) | ("verbatim", Kind::Verbatim) => bytes(),
        ("error", Kind::Error) => {
            let line = hex(text(value, "hex"));
            line.split(|byte| *byte == b' ').next() == Some(text(value, "code").as_bytes()) && bytes()
        }
        ("int", Kind::Int) => reply.int(id).map(|int| int.to_string()).as_deref() == Some(text(value, "value")),
        ("double", Kind::Double) => is_double(reply.double(id).expect("a double"), value),
        ("bool", Kind::Bool) => reply.int(id) == Some(i64::from(value["value"].as_bool().expect("a bool"))),
        ("bignum", Kind::Bignum) => digits(),
        ("array", Kind::Array) | ("set", Kind::Set) | ("push", Kind::Push) => items(),
        ("map", Kind::Map) => {
            let entries = value["entries"].as_array().expect("entries");
            assert!(entries.iter().all(|entry| entry.as_array().is_some_and(|pair| pair.len() == 2)), "{value}");
            children(&entries.iter().flat_map(|entry| entry.as_array().expect("a pair").clone()).collect::<Vec<_>>())
        }
        ("nested", Kind::Array) => is_nested(reply, id, value),
        _ => false,
    }
}

fn is_nested(reply: &Reply, mut id: u32, value: &Json) -> bool {
    for _ in 0..value["depth"].as_u64().expect("a number") {
        let Some(child) = reply.child(id, 0).filter(|_| reply.count(id) == 1) else { return false };
        id = child;
    }
    is(reply, id, &value["value"])
}

fn is_double(double: f64, value: &Json) -> bool {
    if text(value, "value") == "nan" {
        return double.is_nan();
    }
    let bits = u64::from_str_radix(text(value, "bits"), 16).expect("64 bits");
    double.to_bits() == bits && text(value, "value").parse::<f64>().expect("a number").to_bits() == bits
}

#[test]
fn the_librarys_decoder_gives_the_values_of_decode_json() {
    let file = file("decode.json");
    for case in cases(&file, "replies", 70) {
        let name = text(&case, "name");
        let Ok(Decoded::Reply(reply)) = decode(&case) else { panic!("{name}: no reply") };
        assert!(is(&reply, 0, &case["value"]), "{name}: {reply:?} is not {}", case["value"]);
    }
    for case in cases(&file, "pushes", 3) {
        let Ok(Decoded::Push(push)) = decode(&case) else { panic!("{}: no message", text(&case, "name")) };
        assert!(is(&push, 0, &case["value"]), "{}: {push:?} is not {}", text(&case, "name"), case["value"]);
    }
    for case in cases(&file, "errors", 5) {
        let Ok(Decoded::Reply(reply)) = decode(&case) else { panic!("{}: no reply", text(&case, "name")) };
        let error = Error::from_server(reply.error_line(0).expect("an error"), "host:1");
        assert_eq!((error.server_code(), error.message()), (text(&case, "code"), text(&case, "message")));
    }
    for case in cases(&file, "refused", 10) {
        assert_eq!(text(&case, "status"), Status::Protocol.info().name);
        assert!(decode(&case).is_err(), "{} is taken", text(&case, "name"));
    }
}

/// The class of a status by the ranges of errors.json.
fn by_range(file: &Json, status: i64) -> String {
    let ranges = cases(file, "ranges", 5);
    let end = |range: &Json, key: &str| range[key].as_i64().expect("a number");
    let found = ranges.iter().find(|range| end(range, "from") >= status && end(range, "to") <= status);
    text(found.unwrap_or_else(|| panic!("{status} is in no range")), "class").to_owned()
}

#[test]
fn errors_json_has_every_status_and_a_class_for_each() {
    let file = file("errors.json");
    let classes = cases(&file, "classes", 10);
    let parent = |class: &str| {
        let row = classes.iter().find(|row| text(row, "class") == class);
        row.unwrap_or_else(|| panic!("{class} is no class"))["parent"].as_str()
    };
    let statuses = cases(&file, "statuses", 1);
    let listed: Vec<_> = statuses.iter().map(|row| (row["status"].as_i64(), text(row, "name"))).collect();
    let known: Vec<_> = Status::ALL.iter().map(|info| (Some(i64::from(info.status.code())), info.name)).collect();
    assert_eq!(listed, known);
    for row in &statuses {
        let (class, range) = (text(row, "class"), by_range(&file, row["status"].as_i64().expect("a number")));
        let is_own = ["TxnAborted", "CrossShard", "Replicas", "ScanInterrupted"].contains(&class);
        assert!(class == range || parent(class) == Some(&range) || is_own && parent(class) == Some("Error"), "{row}");
    }
    for row in cases(&file, "server_codes", 20) {
        assert_eq!((text(&row, "parent"), parent("Server")), ("Server", Some("Error")));
        assert_eq!(Error::from_server(text(&row, "line").as_bytes(), "host:1").server_code(), text(&row, "code"));
    }
    let bits: Vec<_> = cases(&file, "flags", 3).iter().map(|row| row["flag"].as_u64()).collect();
    assert_eq!(bits, [flags::RETRYABLE, flags::MAYBE_EXECUTED, flags::FAILOVER].map(|bit| Some(bit.into())));
}

//! The decoder against another implementation of RESP2 and RESP3.
//!
//! Its maps and sets are hash tables: keys here are distinct texts, members distinct, and order does not count.

use crate::resp_support;

use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::{decode as resp2, types::OwnedFrame as Frame2};
use redis_protocol::resp3::{decode::complete as resp3, types::OwnedFrame as Frame3};
use resp_support::{Value, scalar};
use vigie::resp::{Decoded, Decoder, Kind, Limits, Want};

fn many(kind: Kind, values: impl IntoIterator<Item = Value>) -> Value {
    Value::Many(kind, values.into_iter().collect())
}

fn from2(frame: Frame2) -> Value {
    match frame {
        Frame2::SimpleString(text) => Value::Text(Kind::Status, text),
        Frame2::Error(text) => Value::Text(Kind::Error, text.into_bytes()),
        Frame2::Integer(value) => Value::Int(value),
        Frame2::BulkString(text) => Value::Text(Kind::String, text),
        Frame2::Array(frames) => many(Kind::Array, frames.into_iter().map(from2)),
        Frame2::Null => Value::Null,
    }
}

fn from3(frame: Frame3) -> Value {
    match frame {
        Frame3::BlobString { data, .. } => Value::Text(Kind::String, data),
        Frame3::BlobError { data, .. } => Value::Text(Kind::Error, data),
        Frame3::SimpleString { data, .. } => Value::Text(Kind::Status, data),
        Frame3::SimpleError { data, .. } => Value::Text(Kind::Error, data.into_bytes()),
        Frame3::Boolean { data, .. } => Value::Bool(data),
        Frame3::Null => Value::Null,
        Frame3::Number { data, .. } => Value::Int(data),
        Frame3::Double { data, .. } => Value::Double(if data.is_nan() { f64::NAN } else { data }.to_bits()),
        Frame3::BigNumber { data, .. } => Value::Text(Kind::Bignum, data),
        Frame3::VerbatimString { data, .. } => Value::Text(Kind::Verbatim, data),
        Frame3::Array { data, .. } => many(Kind::Array, data.into_iter().map(from3)),
        Frame3::Push { data, .. } => many(Kind::Push, data.into_iter().map(from3)),
        Frame3::Set { data, .. } => many(Kind::Set, data.into_iter().map(from3)),
        Frame3::Map { data, .. } => {
            many(Kind::Map, data.into_iter().flat_map(|(key, value)| [from3(key), from3(value)]))
        }
        other => panic!("{other:?} is no reply"),
    }
}

/// Maps and sets in one order, for comparison.
fn ordered(value: Value) -> Value {
    let Value::Many(kind, values) = value else { return value };
    let mut values: Vec<Value> = values.into_iter().map(ordered).collect();
    let step = match kind {
        Kind::Map => 2,
        Kind::Set => 1,
        _ => return Value::Many(kind, values),
    };
    let mut groups: Vec<Vec<Value>> = values.chunks(step).map(<[Value]>::to_vec).collect();
    groups.sort_by_cached_key(|group| format!("{group:?}"));
    values = groups.concat();
    Value::Many(kind, values)
}

fn ours(input: &[u8]) -> Option<(Value, usize)> {
    match Decoder::new(Limits::default()).decode(input, Want::One) {
        Ok((used, Some(Decoded::Reply(reply) | Decoded::Push(reply)))) => Some((ordered(Value::read(&reply, 0)), used)),
        _ => None,
    }
}

fn keyed(values: Vec<Value>) -> Vec<Value> {
    let key = |at: usize| Value::Text(Kind::String, format!("key {at}").into_bytes());
    values.into_iter().enumerate().flat_map(|(at, value)| [key(at), value]).collect()
}

fn members(values: Vec<Value>) -> Vec<Value> {
    keyed(values).into_iter().step_by(2).collect()
}

fn value3() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 30, 5, |inner| {
        let some = vec(inner.clone(), 0..5);
        prop_oneof![
            some.clone().prop_map(|values| Value::Many(Kind::Array, values)),
            some.clone().prop_map(|values| Value::Many(Kind::Map, keyed(values))),
            some.clone().prop_map(|values| Value::Many(Kind::Set, members(values))),
            (some, inner).prop_map(|(notes, value)| match value {
                // It allows neither two attributes in a row nor one in front of null.
                bare @ (Value::Noted(..) | Value::Null) => bare,
                value => Value::Noted(keyed(notes), Box::new(value)),
            }),
        ]
    })
}

/// RESP2 as bytes: both forms of NULL, and numbers with and without a sign.
fn bytes2() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        any::<i64>().prop_map(|value| format!(":{value}\r\n").into_bytes()),
        "[ -~]{0,30}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
        "[A-Z]{1,5} [ -~]{0,30}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
        vec(any::<u8>(), 0..200).prop_map(|text| [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        vec(inner, 0..6).prop_map(|parts| [format!("*{}\r\n", parts.len()).into_bytes(), parts.concat()].concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resp2_is_read_alike(input in bytes2()) {
        let (frame, used) = resp2::decode(&input).expect("valid").expect("whole");
        prop_assert_eq!(ours(&input), Some((from2(frame), used)));
    }

    #[test]
    fn resp3_is_read_alike(value in value3()) {
        let mut input = Vec::new();
        value.encode(&mut input);
        let (frame, used) = resp3::decode(&input).expect("valid").expect("whole");
        prop_assert_eq!(ours(&input), Some((ordered(from3(frame)), used)));
    }

    #[test]
    fn a_push_is_read_alike(values in vec(value3(), 0..4)) {
        let mut input = Vec::new();
        Value::Many(Kind::Push, values).encode(&mut input);
        let (frame, used) = resp3::decode(&input).expect("valid").expect("whole");
        prop_assert_eq!(ours(&input), Some((ordered(from3(frame)), used)));
    }

    /// With one byte changed both may refuse it; where both read it, they read the same.
    #[test]
    fn a_damaged_reply_is_not_read_otherwise(input in bytes2(), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut input = input;
        let place = place.index(input.len());
        input[place] = byte;
        let is_resp2 = |byte: &u8| b"+-:$*".contains(byte);
        if let (Some(ours), Ok(Some((frame, used)))) = (ours(&input), resp2::decode(&input)) {
            prop_assume!(input.first().is_some_and(is_resp2));
            prop_assert_eq!(ours, (from2(frame), used));
        }
    }
}

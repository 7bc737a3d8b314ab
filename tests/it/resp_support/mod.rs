//! Random replies for the tests of the decoder: values, how a server would write them, and how they read back.

use proptest::collection::vec;
use proptest::prelude::*;
use vigie::resp::{Kind, Reply};

/// A reply as plain data. Doubles are kept as bits, so that NaN equals itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Text(Kind, Vec<u8>),
    Int(i64),
    Double(u64),
    Bool(bool),
    Many(Kind, Vec<Value>),
    /// Attributes in front of a value: they do not read back.
    Noted(Vec<Value>, Box<Value>),
}

impl Value {
    /// The bytes of a server.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut line = |first: char, text: &str| out.extend_from_slice(format!("{first}{text}\r\n").as_bytes());
        match self {
            Value::Null => line('_', ""),
            Value::Int(value) => line(':', &value.to_string()),
            Value::Bool(value) => line('#', if *value { "t" } else { "f" }),
            Value::Double(bits) => match f64::from_bits(*bits) {
                value if value.is_nan() => line(',', "nan"),
                value => line(',', &format!("{value:?}")),
            },
            Value::Text(kind, bytes) => text(*kind, bytes, out),
            Value::Many(kind, values) => many(*kind, values, out),
            Value::Noted(notes, value) => {
                line('|', &(notes.len() / 2).to_string());
                notes.iter().for_each(|note| note.encode(out));
                value.encode(out);
            }
        }
    }

    /// What a reply says through its questions.
    pub fn read(reply: &Reply, id: u32) -> Value {
        match reply.kind(id) {
            Kind::Null => Value::Null,
            Kind::Int => Value::Int(reply.int(id).expect("a number")),
            Kind::Bool => Value::Bool(reply.int(id).expect("a truth value") == 1),
            Kind::Double => Value::Double(reply.double(id).expect("a number").to_bits()),
            kind if kind.is_aggregate() => {
                let children = (0..reply.count(id)).map(|index| reply.child(id, index).expect("a child"));
                Value::Many(kind, children.map(|child| Value::read(reply, child)).collect())
            }
            kind => {
                let with_nul = reply.bytes_nul(id).expect("a text");
                assert_eq!(with_nul.last(), Some(&0));
                Value::Text(kind, with_nul[..with_nul.len() - 1].to_vec())
            }
        }
    }
}

fn text(kind: Kind, bytes: &[u8], out: &mut Vec<u8>) {
    let (first, front, is_line) = match kind {
        Kind::Status => ('+', "", true),
        Kind::Error if !bytes.contains(&b'\n') => ('-', "", true),
        Kind::Error => ('!', "", false),
        Kind::Bignum => ('(', "", true),
        Kind::Verbatim => ('=', "txt:", false),
        _ => ('$', "", false),
    };
    let len = if is_line { String::new() } else { format!("{}\r\n", bytes.len() + front.len()) };
    out.extend_from_slice(format!("{first}{len}{front}").as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn many(kind: Kind, values: &[Value], out: &mut Vec<u8>) {
    let (first, count) = match kind {
        Kind::Map => ('%', values.len() / 2),
        Kind::Set => ('~', values.len()),
        Kind::Push => ('>', values.len()),
        _ => ('*', values.len()),
    };
    out.extend_from_slice(format!("{first}{count}\r\n").as_bytes());
    values.iter().for_each(|value| value.encode(out));
}

fn of(kind: Kind) -> impl Fn(Vec<u8>) -> Value + Clone {
    move |bytes| Value::Text(kind, bytes)
}

/// A value without children.
pub fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(|value| Value::Double(if value.is_nan() { f64::NAN } else { value }.to_bits())),
        vec(any::<u8>(), 0..40).prop_map(of(Kind::String)),
        vec(any::<u8>(), 90..300).prop_map(of(Kind::String)),
        "[ -~]{0,40}".prop_map(String::into_bytes).prop_map(of(Kind::Status)),
        "[A-Z]{1,9} [ -~]{0,20}\n?".prop_map(String::into_bytes).prop_map(of(Kind::Error)),
        "-?[0-9]{1,60}".prop_map(String::into_bytes).prop_map(of(Kind::Bignum)),
        vec(any::<u8>(), 0..20).prop_map(of(Kind::Verbatim)),
    ]
}

//! RESP for the kit: one value type, encoded as RESP2 or RESP3, decoded from RESP2 and the maps and pushes of RESP3.

use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read};

/// A reply, as the kit's own client reads it and the scripted servers send it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    NilArray,
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Array(Vec<Value>),
    /// A map in RESP3; in RESP2 a flat array of keys and values.
    Map(Vec<(Value, Value)>),
    /// Out of band in RESP3; in RESP2 an array.
    Push(Vec<Value>),
}

impl Value {
    pub fn ok() -> Value {
        Value::Simple("OK".into())
    }
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bulk(bytes.as_ref().to_vec())
    }
    pub fn error(line: impl Into<String>) -> Value {
        Value::Error(line.into())
    }
    pub fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Value {
        Value::Array(texts.into_iter().map(Value::bulk).collect())
    }
    /// A map of texts, in the given order.
    pub fn fields<V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (&'static str, V)>) -> Value {
        Value::Map(fields.into_iter().map(|(key, value)| (Value::bulk(key), Value::bulk(value))).collect())
    }
    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }
    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil | Value::NilArray)
    }
    pub fn is_ok(&self) -> bool {
        matches!(self, Value::Simple(line) if line == "OK")
    }
    /// Text of a string, status, error or number; empty for anything else.
    pub fn text(&self) -> String {
        match self {
            Value::Simple(line) | Value::Error(line) => line.clone(),
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Int(number) => number.to_string(),
            _ => String::new(),
        }
    }
    /// A number, or text that is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => self.text().parse().ok(),
        }
    }
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Push(items) => items,
            _ => &[],
        }
    }
    /// The text at `key` of a map, also of a flat array of keys and values.
    pub fn field(&self, key: &str) -> Option<String> {
        match self {
            Value::Map(pairs) => pairs.iter().find(|(name, _)| name.text() == key).map(|(_, value)| value.text()),
            _ => self.items().chunks_exact(2).find(|pair| pair[0].text() == key).map(|pair| pair[1].text()),
        }
    }

    /// Appends the value as RESP2 (`protocol` 2) or RESP3 (3).
    pub fn encode(&self, protocol: u8, out: &mut Vec<u8>) {
        let three = protocol >= 3;
        match self {
            Value::Nil => out.extend_from_slice(if three { b"_\r\n" } else { b"$-1\r\n" }),
            Value::NilArray => out.extend_from_slice(if three { b"_\r\n" } else { b"*-1\r\n" }),
            Value::Simple(line) => header(out, '+', line),
            Value::Error(line) => header(out, '-', line),
            Value::Int(number) => header(out, ':', number),
            Value::Bulk(bytes) => {
                header(out, '$', bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Value::Array(items) => encode_all(out, '*', items, protocol),
            Value::Push(items) => encode_all(out, if three { '>' } else { '*' }, items, protocol),
            Value::Map(pairs) => {
                if three {
                    header(out, '%', pairs.len())
                } else {
                    header(out, '*', pairs.len() * 2)
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }
    pub fn to_bytes(&self, protocol: u8) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(protocol, &mut out);
        out
    }
}

fn header(out: &mut Vec<u8>, kind: char, rest: impl fmt::Display) {
    out.extend_from_slice(format!("{kind}{rest}\r\n").as_bytes());
}

fn encode_all(out: &mut Vec<u8>, kind: char, items: &[Value], protocol: u8) {
    header(out, kind, items.len());
    for item in items {
        item.encode(protocol, out);
    }
}

/// Appends a command as an array of bulk strings.
pub fn encode_command<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    header(out, '*', args.len());
    for arg in args {
        header(out, '$', arg.as_ref().len());
        out.extend_from_slice(arg.as_ref());
        out.extend_from_slice(b"\r\n");
    }
}

fn bad(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Reads one line without its CRLF; the end of the stream is an error.
fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\r\n") {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "connection closed"));
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Reads one value.
pub fn decode(from: &mut impl BufRead) -> io::Result<Value> {
    let line = read_line(from)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad(format!("not RESP: {line:?}")))?;
    let number = || rest.parse::<i64>().map_err(|_| bad(format!("not a number: {line:?}")));
    Ok(match kind {
        "+" | "," | "#" | "(" => Value::Simple(rest.into()),
        "-" => Value::Error(rest.into()),
        ":" => Value::Int(number()?),
        "_" => Value::Nil,
        "$" | "=" | "!" if rest == "-1" => Value::Nil,
        "$" | "=" | "!" => {
            let mut bytes = vec![0; number()? as usize + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Value::Bulk(bytes)
        }
        "*" if rest == "-1" => Value::NilArray,
        "*" | "~" => Value::Array(decode_all(from, number()?)?),
        ">" => Value::Push(decode_all(from, number()?)?),
        "%" => {
            let pairs = (0..number()?).map(|_| Ok((decode(from)?, decode(from)?)));
            Value::Map(pairs.collect::<io::Result<_>>()?)
        }
        _ => return Err(bad(format!("not RESP: {line:?}"))),
    })
}

fn decode_all(from: &mut impl BufRead, count: i64) -> io::Result<Vec<Value>> {
    (0..count).map(|_| decode(from)).collect()
}

/// The number in a header line of this kind; `None` when the line is not complete yet.
fn header_of(from: &mut &[u8], kind: u8) -> io::Result<Option<usize>> {
    let Ok(line) = read_line(from) else { return Ok(None) };
    let number = line.strip_prefix(char::from(kind)).and_then(|rest| rest.parse().ok());
    number.map(Some).ok_or_else(|| bad(format!("not in a command: {line:?}")))
}

/// Takes one whole command (array of bulk strings, or an inline line) from the front of `input`: its arguments and
/// length; `None` when it is not complete yet.
pub fn parse_command(input: &[u8]) -> io::Result<Option<(Vec<Vec<u8>>, usize)>> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut from = input;
    if input[0] != b'*' {
        return match read_line(&mut from) {
            Ok(line) => {
                let args = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
                Ok(Some((args, input.len() - from.len())))
            }
            Err(_) => Ok(None),
        };
    }
    // Sizes first: a command of many megabytes comes in many pieces, and each piece asks again.
    let Some(count) = header_of(&mut from, b'*')? else { return Ok(None) };
    let mut found = Vec::new();
    for _ in 0..count {
        let Some(size) = header_of(&mut from, b'$')? else { return Ok(None) };
        let Some((arg, rest)) = from.split_at_checked(size) else { return Ok(None) };
        let Some(rest) = rest.get(2..) else { return Ok(None) };
        found.push(arg);
        from = rest;
    }
    Ok(Some((found.into_iter().map(<[u8]>::to_vec).collect(), input.len() - from.len())))
}

//! The grammar of one header line, which begins with a type byte and ends with CRLF.
//!
//! Guarantees: nothing is kept and nothing is read twice; a short line is refused after 32 bytes and a long one after 64 KiB,
//! however the input is cut. Leaves to others: texts and aggregates (`decode`).

use super::DecodeError;
use super::node::{Kind, Node};

/// The longest line that holds a length, a number or a flag.
pub(super) const SHORT: usize = 32;
/// The longest line that holds a text.
pub(super) const LONG: usize = 64 << 10;

/// What a header line announces, or is.
#[derive(Debug)]
pub(super) enum Head<'a> {
    /// A value without text.
    Value(Node),
    /// A value whose text is the line.
    Line(Kind, &'a [u8]),
    /// The header of a text of this many bytes.
    Text(Kind, usize),
    /// The header of an aggregate with this many children.
    Aggregate(Kind, u64),
    /// The header of an attribute with this many nodes, before the value that it belongs to.
    Attribute(u64),
}

/// A line and how long it was; `None` when it is not complete.
pub(super) type Parsed<'a> = Result<Option<(Head<'a>, usize)>, DecodeError>;

/// Whether a line of this type holds a text, and may be long.
pub(super) fn is_long(first: u8) -> bool {
    matches!(first, b'+' | b'-' | b'(' | b',')
}

/// Reads the line at the start of `input`, which is not empty.
// Always inlined: its result is too large for registers, and storing it costs a fifth of a small reply.
#[inline(always)]
pub(super) fn parse(input: &[u8]) -> Parsed<'_> {
    let first = input[0];
    match first {
        b'$' | b'*' | b':' | b'%' | b'~' | b'>' | b'=' | b'!' | b'|' => match number(input) {
            Number::Whole(value, used) => Ok(Some((numbered(input, first, value)?, used))),
            Number::Partial => Ok(None),
            Number::Bad => Err(not_a_number(input, first)),
        },
        b'+' | b'-' | b'(' | b',' => line(input),
        b'_' | b'#' => flag(input),
        b';' => Err(streamed(input)),
        _ => Err(protocol("no reply begins like this", input)),
    }
}

enum Number {
    Whole(i64, usize),
    Partial,
    Bad,
}

/// The number behind the type byte, and the length of the whole line.
#[inline]
fn number(input: &[u8]) -> Number {
    let mut at = 1;
    let sign = input.get(1).copied();
    let negative = sign == Some(b'-');
    at += usize::from(negative || sign == Some(b'+'));
    let start = at;
    let mut value: u64 = 0;
    while let Some(&byte) = input.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        // 19 digits always fit into 64 bits, so that a wrong number cannot look like a right one.
        if at - start == 19 {
            return Number::Bad;
        }
        value = value * 10 + u64::from(digit);
        at += 1;
    }
    match (input.get(at), input.get(at + 1)) {
        (None, _) => return Number::Partial,
        (Some(b'\r'), None) if at > start => return Number::Partial,
        (Some(b'\r'), Some(b'\n')) if at > start => {}
        _ => return Number::Bad,
    }
    let signed = if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() };
    signed.map_or(Number::Bad, |signed| Number::Whole(signed, at + 2))
}

/// A bulk string that is whole at the start of the input: its text with the carriage return behind it, and its bytes in all.
///
/// `None` for anything else, be it incomplete, wrong, or only unusual: [`parse`] knows which.
#[inline(always)]
pub(super) fn whole_text(input: &[u8]) -> Option<(&[u8], usize)> {
    let (len, start) = length(input)?;
    let text = input.get(start..)?.get(..len + 2)?;
    let (text, end) = text.split_at(len + 1);
    (text[len] == b'\r' && end == b"\n").then_some((text, start + len + 2))
}

/// What the header line of a bulk string says, and how long the line is.
#[inline(always)]
fn length(input: &[u8]) -> Option<(usize, usize)> {
    // The shortest bulk string has as many bytes, so that a usual length needs only one look at the end of the input.
    let &[b'$', a, b, c, d, e] = input.first_chunk()? else { return None };
    let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
    let (first, second, third) = (digit(a), digit(b), digit(c));
    if first > 9 {
        return None;
    }
    if second > 9 {
        return (b == b'\r' && c == b'\n').then_some((first, 4));
    }
    let two = first * 10 + second;
    if third > 9 {
        return (c == b'\r' && d == b'\n').then_some((two, 5));
    }
    if d == b'\r' && e == b'\n' { Some((two * 10 + third, 6)) } else { long_length(input) }
}

/// As [`length`], of four digits or more.
fn long_length(input: &[u8]) -> Option<(usize, usize)> {
    match number(input) {
        Number::Whole(len, used) if len < i64::from(i32::MAX) => Some((usize::try_from(len).ok()?, used)),
        _ => None,
    }
}

/// A whole number with its line at the start of the input. `None` for anything else.
#[inline]
pub(super) fn whole_int(input: &[u8]) -> Option<(Node, usize)> {
    match number(input) {
        Number::Whole(value, used) if input[0] == b':' => Some((Node::int(value), used)),
        _ => None,
    }
}

#[inline]
fn numbered<'a>(input: &[u8], first: u8, value: i64) -> Result<Head<'a>, DecodeError> {
    if first == b':' {
        return Ok(Head::Value(Node::int(value)));
    }
    let Ok(count) = u64::try_from(value) else {
        return if value == -1 && matches!(first, b'$' | b'*') {
            Ok(Head::Value(Node::NULL))
        } else {
            Err(protocol("a negative length", input))
        };
    };
    // At most 2^63 - 1, so twice as much still fits.
    let text = |kind| match isize::try_from(value) {
        Ok(len) if len < isize::MAX - 2 => Ok(Head::Text(kind, len.unsigned_abs())),
        _ => Err(DecodeError::Limit(format!("a text of {value} bytes is announced, more than there are addresses"))),
    };
    match first {
        b'$' => text(Kind::String),
        b'=' => text(Kind::Verbatim),
        b'!' => text(Kind::Error),
        b'*' => Ok(Head::Aggregate(Kind::Array, count)),
        b'~' => Ok(Head::Aggregate(Kind::Set, count)),
        b'>' => Ok(Head::Aggregate(Kind::Push, count)),
        b'%' => Ok(Head::Aggregate(Kind::Map, count * 2)),
        _ => Ok(Head::Attribute(count * 2)),
    }
}

/// A line of text; the search for its end is the only one that pays for memchr.
fn line(input: &[u8]) -> Parsed<'_> {
    let window = &input[..input.len().min(LONG)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() == LONG { Err(too_long()) } else { Ok(None) };
    };
    let text = match &input[1..end] {
        [text @ .., b'\r'] => text,
        _ => return Err(protocol("a line ends without a carriage return", &input[..end + 1])),
    };
    let head = match input[0] {
        b'+' => Head::Line(Kind::Status, text),
        b'-' => Head::Line(Kind::Error, text),
        b'(' if is_whole_number(text) => Head::Line(Kind::Bignum, text),
        b',' => match double(text) {
            Some(value) => Head::Value(Node::double(value)),
            None => return Err(protocol("not a number", input)),
        },
        _ => return Err(protocol("not a whole number", input)),
    };
    Ok(Some((head, end + 1)))
}

fn flag(input: &[u8]) -> Parsed<'_> {
    let (known, node) = match (input[0], input.get(1)) {
        (b'_', _) => (&b"_\r\n"[..], Node::NULL),
        (_, Some(b'f')) => (&b"#f\r\n"[..], Node::bool(false)),
        _ => (&b"#t\r\n"[..], Node::bool(true)),
    };
    let both = input.len().min(known.len());
    if input[..both] != known[..both] {
        return Err(protocol("neither null nor a truth value", input));
    }
    Ok((both == known.len()).then_some((Head::Value(node), both)))
}

fn is_whole_number(text: &[u8]) -> bool {
    let digits = match text {
        [b'-' | b'+', digits @ ..] => digits,
        digits => digits,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// A number as the protocol writes it. Other forms that Rust would read (`infinity`) are refused.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    match text {
        b"inf" | b"+inf" => return Some(f64::INFINITY),
        b"-inf" => return Some(f64::NEG_INFINITY),
        b"nan" | b"-nan" => return Some(f64::NAN),
        _ => {}
    }
    let is_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    if text.iter().all(is_number) { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

fn not_a_number(input: &[u8], first: u8) -> DecodeError {
    if input.get(1) == Some(&b'?') && first != b':' {
        return streamed(input);
    }
    protocol("not a number", input)
}

fn streamed(input: &[u8]) -> DecodeError {
    protocol("streamed replies are not supported", input)
}

fn too_long() -> DecodeError {
    DecodeError::Limit(format!("a line of text has more than {LONG} bytes"))
}

/// A protocol error. Of what was read only the first byte is shown: a server may have sent back a password.
#[cold]
pub(super) fn protocol(what: &str, bytes: &[u8]) -> DecodeError {
    let first = bytes.first().map_or_else(String::new, |first| format!(" (it begins with the byte 0x{first:02x})"));
    DecodeError::Protocol(format!("{what}{first}"))
}

//! Commands as RESP: an array of bulk strings.
//!
//! Guarantees: the buffer grows once per command; large arguments need not be copied ([`Pieces`]). Leaves to others: reading such
//! lists (`list`).

use std::iter::once;

use crate::error::{Error, Result};

/// An argument or a list of at least this size is sent without copying it.
const LARGE: usize = 16 * 1024;

/// A copy of a value, which may be large.
pub fn try_copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Error::no_memory(bytes.len(), "a value"))?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Appends one command, unless there is no memory for it.
#[inline]
pub fn try_command(out: &mut Vec<u8>, args: &[&[u8]]) -> Result<()> {
    let len = command_len(args);
    out.try_reserve(len).map_err(|_| Error::no_memory(len, "a command"))?;
    write(out, args, len);
    Ok(())
}

/// Appends one small command of the library itself.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    write(out, args, command_len(args));
}

/// Appends encoded commands, unless there is no memory for them.
pub fn try_encoded(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    out.try_reserve(bytes.len()).map_err(|_| Error::no_memory(bytes.len(), "commands"))?;
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a command of this length: into the place that it takes, because each growth of a vector costs more than a small argument.
#[inline(always)]
fn write(out: &mut Vec<u8>, args: &[&[u8]], len: usize) {
    let start = out.len();
    out.resize(start + len, 0);
    let mut place = put_head(&mut out[start..], b'*', args.len());
    for arg in args {
        place = put_argument(place, arg);
    }
}

/// Writes an argument at the beginning of the place, and returns what is left of it.
#[inline(always)]
fn put_argument<'a>(place: &'a mut [u8], arg: &[u8]) -> &'a mut [u8] {
    let (text, rest) = put_head(place, b'$', arg.len()).split_at_mut(arg.len());
    text.copy_from_slice(arg);
    let (end, rest) = rest.split_at_mut(2);
    end.copy_from_slice(b"\r\n");
    rest
}

/// A command whose arguments come one by one, once their number and [`argument_len`]s are known.
pub struct Growing {
    bytes: Vec<u8>,
    at: usize,
}

impl Growing {
    /// A command of so many arguments, which take so many bytes.
    pub fn try_new(argc: usize, len: usize) -> Result<Self> {
        let (mut bytes, len) = (Vec::new(), digits(argc) + 3 + len);
        bytes.try_reserve_exact(len).map_err(|_| Error::no_memory(len, "a command"))?;
        bytes.resize(len, 0);
        let left = put_head(&mut bytes, b'*', argc).len();
        Ok(Self { at: len - left, bytes })
    }

    /// The next argument. There has to be room for it.
    #[inline(always)]
    pub fn add(&mut self, arg: &[u8]) {
        self.at = self.bytes.len() - put_argument(&mut self.bytes[self.at..], arg).len();
    }

    /// The whole command.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// How many bytes an argument takes.
#[inline(always)]
pub fn argument_len(arg: &[u8]) -> usize {
    digits(arg.len()) + arg.len() + 5
}

/// Writes `$3\r\n` at the beginning of the place, and returns what is left of it.
#[inline(always)]
fn put_head(place: &mut [u8], first: u8, number: usize) -> &mut [u8] {
    if number < 10 {
        // Most arguments: the loop below costs more than all of this.
        let (line, rest) = place.split_at_mut(4);
        line.copy_from_slice(&[first, b'0' + number as u8, b'\r', b'\n']);
        return rest;
    }
    let (line, rest) = place.split_at_mut(digits(number) + 3);
    let (digits, end) = line.split_at_mut(line.len() - 2);
    end.copy_from_slice(b"\r\n");
    let mut number = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits[0] = first;
    rest
}

/// How many bytes [`try_command`] appends.
#[inline(always)]
pub fn command_len(args: &[&[u8]]) -> usize {
    let texts: usize = args.iter().map(|arg| argument_len(arg)).sum();
    texts + digits(args.len()) + 3
}

/// Commands in pieces: small arguments are copied together, large ones stay where they are.
pub struct Pieces<'a> {
    small: Vec<u8>,
    /// The large pieces, each with its position in `small`.
    large: Vec<(usize, &'a [u8])>,
    len: usize,
}

impl<'a> Pieces<'a> {
    /// One command, if any of its arguments is large.
    pub fn of(args: &[&'a [u8]]) -> Option<Self> {
        if args.iter().all(|arg| arg.len() < LARGE) {
            return None;
        }
        let mut this = Self { small: Vec::new(), large: Vec::new(), len: command_len(args) };
        head(&mut this.small, b'*', args.len());
        for arg in args {
            head(&mut this.small, b'$', arg.len());
            if arg.len() < LARGE {
                this.small.extend_from_slice(arg);
            } else {
                this.large.push((this.small.len(), arg));
            }
            this.small.extend_from_slice(b"\r\n");
        }
        Some(this)
    }

    /// Encoded commands, if they are large.
    pub fn encoded(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= LARGE).then(|| Self { small: Vec::new(), large: vec![(0, bytes)], len: bytes.len() })
    }

    /// How many bytes they are together; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The pieces, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let before = self.large.iter().flat_map(move |&(at, large)| {
            let small = &self.small[std::mem::replace(&mut from, at)..at];
            [small, large]
        });
        before.chain(once(&self.small[self.large.last().map_or(0, |&(at, _)| at)..]))
    }

    /// Appends all but the first `skip` bytes to a buffer, unless there is no memory for them.
    pub fn append_from(&self, mut skip: usize, out: &mut Vec<u8>) -> Result<()> {
        let len = self.len - skip;
        out.try_reserve(len).map_err(|_| Error::no_memory(len, "a command"))?;
        for piece in self.iter() {
            let skipped = skip.min(piece.len());
            out.extend_from_slice(&piece[skipped..]);
            skip -= skipped;
        }
        Ok(())
    }
}

#[inline]
fn digits(number: usize) -> usize {
    match number {
        // Most lengths are short, and a logarithm takes longer.
        0..=9 => 1,
        10..=99 => 2,
        _ => number.ilog10() as usize + 1,
    }
}

fn head(out: &mut Vec<u8>, first: u8, number: usize) {
    let start = out.len();
    out.resize(start + digits(number) + 3, 0);
    put_head(&mut out[start..], first, number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_command() {
        let (large, larger) = (vec![b'x'; LARGE], vec![b'y'; LARGE + 1]);
        let all: [&[&[u8]]; 4] = [
            &[&large],
            &[b"SET", b"k", &large],
            &[b"MSET", b"a", &larger, b"b", &large, b"c", b""],
            &[&large, &larger],
        ];
        for args in all {
            let mut whole = Vec::new();
            command(&mut whole, args);
            let pieces = Pieces::of(args).unwrap();
            assert_eq!((pieces.len(), pieces.iter().collect::<Vec<_>>().concat()), (whole.len(), whole.clone()));
            let is_copy = |piece: &[u8]| piece.len() >= LARGE && !args.iter().any(|arg| arg.as_ptr() == piece.as_ptr());
            assert!(!pieces.iter().any(is_copy), "what is large is not copied");
            for skip in
                [0, 1, 17, LARGE + 3, whole.len() - 1, whole.len()].into_iter().filter(|&skip| skip <= whole.len())
            {
                let mut rest = b"before".to_vec();
                pieces.append_from(skip, &mut rest).unwrap();
                assert!(rest == [b"before", &whole[skip..]].concat());
            }
        }
        assert!(Pieces::of(&[b"GET", &large[1..]]).is_none() && Pieces::encoded(&large[1..]).is_none());
        assert_eq!(Pieces::encoded(&large).unwrap().iter().collect::<Vec<_>>().concat(), large);
    }

    #[test]
    fn a_command_is_as_long_as_foretold() {
        let long = vec![b'x'; 1000];
        for args in [&[&b"PING"[..]][..], &[b"SET", b"k", b""], &[b"ECHO", &long], &[&b"a"[..]; 10], &[]] {
            let mut out = Vec::new();
            command(&mut out, args);
            assert_eq!(out.len(), command_len(args));
            let mut growing = Growing::try_new(args.len(), args.iter().map(|arg| argument_len(arg)).sum()).unwrap();
            args.iter().for_each(|arg| growing.add(arg));
            assert_eq!(growing.finish(), out);
        }
        let mut out = Vec::new();
        command(&mut out, &[b"GET", b"a\r\nb"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
        assert_eq!(usize::MAX.to_string().len(), 20, "the line buffer holds every number");
    }
}

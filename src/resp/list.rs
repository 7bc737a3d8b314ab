//! Lists of commands as a caller passes them: RESP arrays of bulk strings, one after another.
//!
//! Guarantees: as strict as the strictest server, so that no server refuses or misunderstands what is accepted here; no allocation.
//! Leaves to others: what the commands are (`table`).

use std::ops::Range;

use crate::error::{Error, Result, Status};

/// A checked list.
#[derive(Debug, Clone, Copy)]
pub struct CommandList<'a> {
    bytes: &'a [u8],
    len: usize,
}

/// One command of a list.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    list: &'a [u8],
    range: Range<usize>,
    argc: usize,
    first: usize,
}

/// Checks a whole list.
pub fn parse(list: &[u8]) -> Result<CommandList<'_>> {
    let len = commands(list).try_fold(0, |len, command| command.map(|_| len + 1))?;
    Ok(CommandList { bytes: list, len })
}

/// The commands of a list that is checked on the way. An error is the last item.
pub fn commands<'a>(list: &'a [u8]) -> impl Iterator<Item = Result<Command<'a>>> + use<'a> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < list.len()).then(|| {
            let start = at;
            at = list.len();
            let (argc, first) = head(list, start, b'*')?;
            if argc == 0 {
                return Err(fault(start, "a command without a name"));
            }
            let mut next = first;
            for _ in 0..argc {
                next = argument(list, next)?.end + 2;
            }
            at = next;
            Ok(Command { list, range: start..next, argc, first })
        })
    })
}

/// One command that this library has encoded, without a look at its arguments.
pub fn unchecked(bytes: &[u8]) -> Result<Command<'_>> {
    debug_assert!(parse(bytes).is_ok_and(|list| list.len() == 1), "one command");
    let (argc, first) = head(bytes, 0, b'*')?;
    Ok(Command { list: bytes, range: 0..bytes.len(), argc, first })
}

impl<'a> CommandList<'a> {
    /// How many commands there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The whole list, as it is sent.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The commands in order.
    pub fn commands(&self) -> impl Iterator<Item = Command<'a>> + use<'a> {
        // The list was checked: an error cannot come, and would end it.
        commands(self.bytes).map_while(Result::ok)
    }
}

impl<'a> Command<'a> {
    /// How many arguments it has, its name included.
    pub fn argc(&self) -> usize {
        self.argc
    }

    /// A list of this command alone.
    pub fn alone(&self) -> CommandList<'a> {
        CommandList { bytes: self.bytes(), len: 1 }
    }

    /// Where it is in the list.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Its bytes in the list.
    pub fn bytes(&self) -> &'a [u8] {
        &self.list[self.range()]
    }

    /// Where its arguments are in the list, its name first.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let (list, mut at, mut left) = (self.list, self.first, self.argc);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let arg = argument(list, at).ok()?;
            at = arg.end + 2;
            Some(arg)
        })
    }

    /// Its arguments, its name first.
    pub fn args(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let list = self.list;
        self.ranges().map(move |range| &list[range])
    }

    /// Its name.
    pub fn name(&self) -> &'a [u8] {
        self.args().next().unwrap_or_default()
    }
}

/// `*3\r\n` or `$3\r\n`: the number, and where the next byte is.
#[inline(always)]
fn head(list: &[u8], at: usize, first: u8) -> Result<(usize, usize)> {
    // Most numbers have one digit, or two.
    match list.get(at..at + 5) {
        Some(&[kind, digit @ b'0'..=b'9', b'\r', b'\n', _]) if kind == first => Ok((usize::from(digit - b'0'), at + 4)),
        Some(&[kind, ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', b'\n']) if kind == first => {
            Ok((usize::from(ten - b'0') * 10 + usize::from(one - b'0'), at + 5))
        }
        _ => long_head(list, at, first),
    }
}

#[cold]
#[inline(never)]
fn long_head(list: &[u8], at: usize, first: u8) -> Result<(usize, usize)> {
    if list.get(at) != Some(&first) {
        return Err(fault(at, if first == b'*' { "no command begins here" } else { "no argument begins here" }));
    }
    let mut number: usize = 0;
    let mut next = at + 1;
    while let Some(digit) = list.get(next).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        // Ten digits are more than a server takes, and fit.
        if next - at > 10 {
            return Err(fault(at, "a number with too many digits"));
        }
        number = number * 10 + usize::from(digit);
        next += 1;
    }
    let digits = next - at - 1;
    // A server closes the connection over a leading zero.
    if digits == 0 || (digits > 1 && list[at + 1] == b'0') || number > i32::MAX as usize {
        return Err(fault(at, "not a length"));
    }
    if list.get(next..next + 2) != Some(b"\r\n") {
        return Err(fault(next, "a length is not followed by CRLF"));
    }
    Ok((number, next + 2))
}

/// The position of the argument whose header is at `at`. CRLF follows the argument.
#[inline]
fn argument(list: &[u8], at: usize) -> Result<Range<usize>> {
    let (len, start) = head(list, at, b'$')?;
    let end = start + len;
    // Compared byte by byte: built for size, a comparison of slices is a call.
    if !matches!(list.get(end..end + 2), Some([b'\r', b'\n'])) {
        return Err(fault(at, "an argument is not as long as it says"));
    }
    Ok(start..end)
}

#[cold]
fn fault(at: usize, what: &str) -> Error {
    Error::new(Status::InvalidArg, format!("commands: {what} (at byte {at})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::encode;

    #[test]
    fn commands_come_out_as_they_went_in() {
        let commands: [&[&[u8]]; 3] = [&[b"SET", b"k", b"a\r\nb"], &[b"PING"], &[b"ECHO", b""]];
        let mut bytes = Vec::new();
        commands.iter().for_each(|args| encode::command(&mut bytes, args));
        let list = parse(&bytes).expect("valid");
        assert_eq!((list.len(), list.is_empty(), list.bytes()), (3, false, &bytes[..]));
        let mut end = 0;
        for (command, args) in list.commands().zip(commands) {
            assert!(command.args().eq(args.iter().copied()));
            assert!(command.ranges().map(|range| &bytes[range]).eq(args.iter().copied()));
            assert_eq!((command.argc(), command.name(), command.range().start), (args.len(), args[0], end));
            end = command.range().end;
            assert_eq!(command.bytes().len(), encode::command_len(args));
        }
        assert_eq!((end, list.commands().count()), (bytes.len(), 3));
        assert!(parse(b"").expect("empty").is_empty());
    }

    #[test]
    fn what_a_server_would_refuse_is_refused_with_its_place() {
        for (bytes, at) in [
            (&b"PING\r\n"[..], 0),
            (b"*0\r\n", 0),
            (b"*-1\r\n", 0),
            (b"*01\r\n$1\r\na\r\n", 0),
            (b"*1\n$1\r\na\r\n", 2),
            (b"*1\r\n$1\r\na\r\n*1\r\n", 15),
            (b"*1\r\n$1\r\na\r\n*1", 13),
            (b"*1\r\n$2\r\na\r\n", 4),
            (b"*1\r\n$0\r\na\r\n", 4),
            (b"*1\r\n:1\r\n", 4),
            (b"*1\r\n$-1\r\n", 4),
            (b"*1\r\n$99999999999\r\na\r\n", 4),
            (b"*1\r\n$18446744073709551615\r\na\r\n", 4),
            (b"*2147483648\r\n", 0),
            (b"*2\r\n$1\r\na\r\n", 11),
        ] {
            let error = parse(bytes).expect_err("not valid");
            assert_eq!(error.status(), Status::InvalidArg);
            assert!(error.message().ends_with(&format!("(at byte {at})")), "{}: {error}", bytes.escape_ascii());
        }
    }
}

//! Commands as RESP: an array of bulk strings.
//!
//! Guarantees: one growth of the buffer per command. Leaves to others: reading such lists (`list`).

/// Appends one command.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.reserve(command_len(args));
    head(out, b'*', args.len());
    for arg in args {
        head(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// How many bytes [`command`] appends.
pub fn command_len(args: &[&[u8]]) -> usize {
    let texts: usize = args.iter().map(|arg| digits(arg.len()) + arg.len() + 5).sum();
    texts + digits(args.len()) + 3
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn head(out: &mut Vec<u8>, first: u8, number: usize) {
    let mut line = [0; 24];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut rest = number;
    loop {
        at -= 1;
        line[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line[at - 1] = first;
    out.extend_from_slice(&line[at - 1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_as_long_as_foretold() {
        let long = vec![b'x'; 1000];
        for args in [&[&b"PING"[..]][..], &[b"SET", b"k", b""], &[b"ECHO", &long], &[&b"a"[..]; 10], &[]] {
            let mut out = Vec::new();
            command(&mut out, args);
            assert_eq!(out.len(), command_len(args));
        }
        let mut out = Vec::new();
        command(&mut out, &[b"GET", b"a\r\nb"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
        assert_eq!(usize::MAX.to_string().len(), 20, "the line buffer holds every number");
    }
}

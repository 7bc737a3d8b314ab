//! A line, split into words as redis-cli does it (`sdssplitargs`): blanks part words, quotes hold them together.
//!
//! Guarantees: bytes go through as they are, UTF-8 or not. Leaves to others: what the words mean.

/// Splits a line. An error says what is wrong with it.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (mut words, mut rest) = (Vec::new(), line);
    loop {
        rest = rest.trim_ascii_start();
        // The vertical tab is a blank in C, and not in Rust.
        if let Some(behind) = rest.strip_prefix(b"\x0b") {
            rest = behind;
            continue;
        }
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, behind) = one(rest)?;
        words.push(word);
        rest = behind;
    }
}

/// The word at the beginning of a text, and what stands behind it.
fn one(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let mut word = Vec::new();
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            byte if is_blank(byte) => break,
            b'"' | b'\'' => {
                rest = quoted(byte, behind, &mut word)?;
                match rest.first() {
                    Some(next) if !is_blank(*next) => {
                        return Err("a closing quote is followed by neither a blank nor the end");
                    }
                    _ => return Ok((word, rest)),
                }
            }
            _ => word.push(byte),
        }
        rest = behind;
    }
    Ok((word, rest))
}

/// Reads up to the closing quote, and returns what stands behind it.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    loop {
        rest = match rest {
            [] => return Err("a quote is not closed"),
            [byte, behind @ ..] if *byte == quote => return Ok(behind),
            [b'\\', b'\'', behind @ ..] if quote == b'\'' => push(word, b'\'', behind),
            [b'\\', b'x', high, low, behind @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                push(word, digit(*high) << 4 | digit(*low), behind)
            }
            [b'\\', byte, behind @ ..] if quote == b'"' => push(word, escaped(*byte), behind),
            [byte, behind @ ..] => push(word, *byte, behind),
        };
    }
}

fn push<'a>(word: &mut Vec<u8>, byte: u8, behind: &'a [u8]) -> &'a [u8] {
    word.push(byte);
    behind
}

fn escaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn digit(byte: u8) -> u8 {
    char::from(byte).to_digit(16).unwrap_or_default() as u8
}

/// As `isspace` in C; redis-cli also ends a line at a zero byte, which here is a byte like others.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

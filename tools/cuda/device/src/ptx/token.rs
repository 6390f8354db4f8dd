//! Tokens of PTX.

use super::PtxError;

/// A token. Texts are slices of the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// A name, an opcode or a register, without its dots.
    Word(&'a str),
    /// An integer. PTX has 64 bits; the sign is a token of its own.
    Integer(u64),
    /// `0f` and 8 digits: the bits of a number.
    F32(u32),
    /// `0d` and 16 digits.
    F64(u64),
    Text(&'a str),
    Sign(char),
}

/// A token, and the line and byte where it starts.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    pub token: Token<'a>,
    pub line: u32,
    pub start: usize,
}

/// Splits a PTX text into tokens.
pub fn tokens(source: &str) -> Result<Vec<Placed<'_>>, PtxError> {
    let mut found = Vec::with_capacity(source.len() / 4);
    let (mut at, mut line) = (0, 1);
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if c == '\n' {
            line += 1;
            at += 1;
        } else if c.is_whitespace() {
            at += c.len_utf8();
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").ok_or_else(|| PtxError::new(line, "the comment does not end"))? + 2;
            line += rest[..end].matches('\n').count() as u32;
            at += end;
        } else {
            let (token, length) = token(rest, c).map_err(|text| PtxError::new(line, text))?;
            found.push(Placed { token, line, start: at });
            at += length;
        }
    }
    Ok(found)
}

fn token(rest: &str, first: char) -> Result<(Token<'_>, usize), String> {
    if first.is_ascii_digit() {
        return number(rest);
    }
    if first == '"' {
        let end = rest[1..].find('"').ok_or("the text does not end")?;
        return Ok((Token::Text(&rest[1..=end]), end + 2));
    }
    let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    if length > 0 {
        return Ok((Token::Word(&rest[..length]), length));
    }
    if ".,;:{}[]()<>@!|+-=&*~_".contains(first) {
        return Ok((Token::Sign(first), 1));
    }
    Err(format!("unexpected character `{first}`"))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || c == '%'
}

fn number(rest: &str) -> Result<(Token<'_>, usize), String> {
    // `16x256b` and `1d` after a dot are parts of opcodes.
    let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    let text = &rest[..length];
    let word = Ok((Token::Word(text), length));
    let hex = |digits: &str| u64::from_str_radix(digits, 16);
    let lower = text.to_ascii_lowercase();
    let token = if let Some(digits) = lower.strip_prefix("0f").filter(|d| d.len() == 8) {
        hex(digits).map(|bits| Token::F32(bits as u32))
    } else if let Some(digits) = lower.strip_prefix("0d").filter(|d| d.len() == 16) {
        hex(digits).map(Token::F64)
    } else if let Some(digits) = lower.strip_prefix("0x") {
        hex(digits.trim_end_matches('u')).map(Token::Integer)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        u64::from_str_radix(digits.trim_end_matches('u'), 2).map(Token::Integer)
    } else {
        lower.trim_end_matches('u').parse::<u64>().map(Token::Integer)
    };
    match token {
        Ok(token) => Ok((token, length)),
        Err(_) => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_lines() {
        let found = tokens("// a\n/* b\nc */ mov.b32 %r1, 0x10; // d\n0f3F800000 0d3FF0000000000000 7U -3").unwrap();
        let plain: Vec<_> = found.iter().map(|p| p.token).collect();
        let one = Token::F64(1f64.to_bits());
        assert_eq!(
            plain[..6],
            [
                Token::Word("mov"),
                Token::Sign('.'),
                Token::Word("b32"),
                Token::Word("%r1"),
                Token::Sign(','),
                Token::Integer(16)
            ]
        );
        assert_eq!(
            plain[7..],
            [Token::F32(1f32.to_bits()), one, Token::Integer(7), Token::Sign('-'), Token::Integer(3)]
        );
        assert_eq!((found[0].line, found[7].line), (3, 4));
    }
}

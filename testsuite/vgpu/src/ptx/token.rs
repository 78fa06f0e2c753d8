//! PTX text to tokens with lines.

use super::PtxError;

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, a number, a directive or a mnemonic.
    Word(String),
    /// A string, without its quotes.
    Text(String),
    /// One character of punctuation.
    Mark(char),
}

/// Whether a character is part of a word. A colon is, where another follows: `.shared::cta`.
fn in_word(bytes: &[u8], at: usize) -> bool {
    match bytes[at] {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | b'%' | b'.' => true,
        b':' => bytes.get(at + 1) == Some(&b':') || (at > 0 && bytes[at - 1] == b':'),
        _ => false,
    }
}

/// The tokens of a text, each with its line.
pub(super) fn tokens(text: &str) -> Result<Vec<(u32, Token)>, PtxError> {
    let bytes = text.as_bytes();
    let (mut at, mut line, mut found) = (0, 1u32, Vec::new());
    while at < bytes.len() {
        let rest = &bytes[at..];
        if bytes[at] == b'\n' {
            line += 1;
            at += 1;
        } else if bytes[at].is_ascii_whitespace() {
            at += 1;
        } else if rest.starts_with(b"//") {
            at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            let Some(end) = rest.windows(2).position(|pair| pair == b"*/") else {
                return Err(PtxError { line, what: "a comment without an end".into() });
            };
            line += rest[..end].iter().filter(|byte| **byte == b'\n').count() as u32;
            at += end + 2;
        } else if bytes[at] == b'"' {
            let Some(end) = rest[1..].iter().position(|byte| *byte == b'"') else {
                return Err(PtxError { line, what: "a string without an end".into() });
            };
            found.push((line, Token::Text(String::from_utf8_lossy(&rest[1..=end]).into())));
            at += end + 2;
        } else if in_word(bytes, at) {
            let start = at;
            while at < bytes.len() && in_word(bytes, at) {
                at += 1;
            }
            found.push((line, Token::Word(String::from_utf8_lossy(&bytes[start..at]).into())));
        } else if bytes[at].is_ascii_graphic() {
            found.push((line, Token::Mark(bytes[at] as char)));
            at += 1;
        } else {
            return Err(PtxError { line, what: format!("the byte {:#04x} is not PTX", bytes[at]) });
        }
    }
    Ok(found)
}

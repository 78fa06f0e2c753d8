//! The bytes that each token stands for. Grammars speak of bytes, models of tokens.

use crate::tokenizer::Tokenizer;

/// What a token id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenBytes {
    /// These bytes of text.
    Text(Vec<u8>),
    /// A special token of this name, which stands for no text.
    Special(String),
    /// No token: the model has a row for the id, the tokenizer has no token.
    Unused,
}

/// How a tokenizer spells bytes in its vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// A character for each byte (Radford et al.: Language models are unsupervised multitask learners, 2019).
    ByteLevel,
    /// Text with `▁` for a blank, and `<0x0A>` for bytes without a character (Kudo, Richardson: SentencePiece, 2018).
    Sentences,
}

impl Tokenizer {
    /// What each id below the vocabulary stands for; none if the tokenizer spells bytes in a way that is not known here.
    pub fn token_bytes(&self) -> Option<Vec<TokenBytes>> {
        let spelling = self.spelling()?;
        let added = self.added_tokens();
        let one = |id: u32| match (added.get(&id), self.piece(id)) {
            (Some((name, true)), _) => TokenBytes::Special(name.clone()),
            (Some((text, false)), _) => TokenBytes::Text(text.clone().into_bytes()),
            (None, Some(piece)) => TokenBytes::Text(spelling.bytes(&piece)),
            (None, None) => TokenBytes::Unused,
        };
        Some((0..self.vocabulary() as u32).map(one).collect())
    }

    fn spelling(&self) -> Option<Spelling> {
        let decoder = self.decoder_json();
        let says = |word: &str| decoder.contains(word);
        if says("ByteLevel") {
            return Some(Spelling::ByteLevel);
        }
        (says("ByteFallback") || says("Metaspace") || says("\u{2581}")).then_some(Spelling::Sentences)
    }
}

impl Spelling {
    fn bytes(self, piece: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => {
                let byte = |c: char| byte_of(c).map_or_else(|| c.to_string().into_bytes(), |byte| vec![byte]);
                piece.chars().flat_map(byte).collect()
            }
            Spelling::Sentences => {
                let hex = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => piece.replace('\u{2581}', " ").into_bytes(),
                }
            }
        }
    }
}

/// The byte that a character of a byte-level vocabulary stands for: printable ones stand for themselves, and the others
/// for those that are left, in order from U+0100.
fn byte_of(c: char) -> Option<u8> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let code = u32::from(c);
    if code < 256 {
        return printable(code).then_some(code as u8);
    }
    (0..256).filter(|byte| !printable(*byte)).nth(code as usize - 256).map(|byte| byte as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let bytes: Vec<u8> = (0..400).filter_map(char::from_u32).filter_map(byte_of).collect();
        let mut sorted = bytes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=255).collect::<Vec<u8>>());
        assert_eq!(
            (byte_of('\u{120}'), byte_of('\u{10a}'), byte_of('A')),
            (Some(b' '), Some(b'\n'), Some(b'A'))
        );
    }

    #[test]
    fn sentence_pieces_spell_blanks_and_bytes() {
        assert_eq!(Spelling::Sentences.bytes("\u{2581}a\u{2581}"), b" a ");
        assert_eq!(Spelling::Sentences.bytes("<0x0A>"), b"\n");
        assert_eq!(Spelling::Sentences.bytes("<0x>"), b"<0x>");
        assert_eq!(Spelling::ByteLevel.bytes("\u{120}h\u{c3}\u{a9}"), " h\u{e9}".as_bytes());
    }
}

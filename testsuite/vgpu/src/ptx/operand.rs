//! Operands of instructions.

use super::module::Reader;
use super::token::Token;
use super::{Operand, PtxError};

/// A number as PTX writes it: decimal, `0x`, with a trailing `U`.
pub(super) fn integer(word: &str) -> Option<i64> {
    let digits = word.strip_suffix('U').unwrap_or(word);
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|value| value as i64),
        None => digits.parse::<u64>().ok().map(|value| value as i64),
    }
}

impl Reader {
    /// The operands up to `;`.
    pub(super) fn operands(&mut self) -> Result<Vec<Operand>, PtxError> {
        let mut found = Vec::new();
        if self.take_mark(';') {
            return Ok(found);
        }
        loop {
            found.push(self.operand()?);
            if self.take_mark(';') {
                return Ok(found);
            }
            self.want(',')?;
        }
    }

    fn operand(&mut self) -> Result<Operand, PtxError> {
        if self.take_mark('[') {
            return self.address();
        }
        if self.take_mark('{') {
            return Ok(Operand::Vector(self.list('}')?));
        }
        if self.take_mark('!') {
            return Ok(Operand::Not(self.word()?));
        }
        if self.take_mark('-') {
            let word = self.word()?;
            let value = integer(&word).ok_or_else(|| self.error(format!("-{word} is no number")))?;
            return Ok(Operand::Integer(value.wrapping_neg()));
        }
        let word = self.word()?;
        if self.take_mark('|') {
            return Ok(Operand::Pair(word, self.word()?));
        }
        self.literal_or_name(word)
    }

    fn literal_or_name(&self, word: String) -> Result<Operand, PtxError> {
        let bad = || self.error(format!("{word} is no literal"));
        if let Some(hex) = word.strip_prefix("0f").or_else(|| word.strip_prefix("0F")) {
            return u32::from_str_radix(hex, 16).map(Operand::F32).map_err(|_| bad());
        }
        if let Some(hex) = word.strip_prefix("0d").or_else(|| word.strip_prefix("0D")) {
            return u64::from_str_radix(hex, 16).map(Operand::F64).map_err(|_| bad());
        }
        match word.as_bytes().first() {
            Some(b'0'..=b'9') => integer(&word).map(Operand::Integer).ok_or_else(bad),
            _ if word == "_" => Ok(Operand::Sink),
            _ => Ok(Operand::Name(word)),
        }
    }

    fn list(&mut self, end: char) -> Result<Vec<Operand>, PtxError> {
        let mut found = vec![self.operand()?];
        while !self.take_mark(end) {
            self.want(',')?;
            found.push(self.operand()?);
        }
        Ok(found)
    }

    fn address(&mut self) -> Result<Operand, PtxError> {
        let word = self.word()?;
        let (base, mut offset) = match integer(&word) {
            Some(value) => (None, value),
            None => (Some(word), 0),
        };
        let mut coordinates = Vec::new();
        loop {
            if self.take_mark(']') {
                return Ok(Operand::Address { base, offset, coordinates });
            } else if self.take_mark('+') {
                let minus = self.take_mark('-');
                let word = self.word()?;
                let value = integer(&word).ok_or_else(|| self.error(format!("{word} is no offset")))?;
                offset = offset.wrapping_add(if minus { value.wrapping_neg() } else { value });
            } else if self.take_mark('-') {
                let word = self.word()?;
                let value = integer(&word).ok_or_else(|| self.error(format!("{word} is no offset")))?;
                offset = offset.wrapping_sub(value);
            } else {
                self.want(',')?;
                self.want('{')?;
                coordinates = self.list('}')?;
            }
        }
    }

    /// A word.
    pub(super) fn word(&mut self) -> Result<String, PtxError> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(self.error(format!("wanted a word, found {other:?}"))),
        }
    }
}

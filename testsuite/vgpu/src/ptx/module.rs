//! Modules, entries and their statements.

use super::operand::integer;
use super::token::{Token, tokens};
use super::{Entry, Instruction, Module, Param, PtxError, RegisterClass, SharedVar, Statement};

/// A place among tokens.
pub(super) struct Reader {
    tokens: Vec<(u32, Token)>,
    at: usize,
}

/// Reads a module.
pub fn parse(text: &str) -> Result<Module, PtxError> {
    let mut reader = Reader { tokens: tokens(text)?, at: 0 };
    let mut module = Module::default();
    while let Some(token) = reader.next() {
        match token {
            Token::Word(word) => reader.directive(&word, &mut module)?,
            other => return Err(reader.error(format!("wanted a directive, found {other:?}"))),
        }
    }
    Ok(module)
}

impl Reader {
    fn directive(&mut self, word: &str, module: &mut Module) -> Result<(), PtxError> {
        match word {
            ".version" | ".address_size" => self.word().map(|_| ()),
            ".target" => {
                module.target = self.word()?;
                while self.take_mark(',') {
                    self.word()?;
                }
                Ok(())
            }
            ".file" => self.skip_file(),
            ".visible" | ".extern" | ".weak" => Ok(()),
            ".shared" => {
                let shared = self.shared()?;
                module.shared.push(shared);
                Ok(())
            }
            ".entry" => {
                let entry = self.entry()?;
                module.entries.push(entry);
                Ok(())
            }
            other => Err(self.error(format!("the directive {other} is not known here"))),
        }
    }

    /// `.file 1 "name"`, possibly with a date and a size.
    fn skip_file(&mut self) -> Result<(), PtxError> {
        self.word()?;
        if !matches!(self.next(), Some(Token::Text(_))) {
            return Err(self.error("wanted the name of a file".into()));
        }
        while self.take_mark(',') {
            self.word()?;
        }
        Ok(())
    }

    /// `.align 16 .b8 sm[1024];` after `.shared`.
    fn shared(&mut self) -> Result<SharedVar, PtxError> {
        let (mut align, mut word) = (1, self.word()?);
        if word == ".align" {
            align = self.number()?;
            word = self.word()?;
        }
        let size = type_bytes(&word).ok_or_else(|| self.error(format!("{word} is no type")))?;
        let name = self.word()?;
        let mut bytes = size;
        if self.take_mark('[') {
            let count = if self.peek_mark(']') { 0 } else { self.number()? };
            bytes = size.saturating_mul(count);
            self.want(']')?;
        }
        self.want(';')?;
        Ok(SharedVar { name, align: align.max(size), bytes })
    }

    fn entry(&mut self) -> Result<Entry, PtxError> {
        let mut entry = Entry { name: self.word()?, ..Entry::default() };
        if self.take_mark('(') && !self.take_mark(')') {
            let mut end = 0;
            loop {
                let param = self.param(end)?;
                end = param.offset + param.bytes;
                entry.params.push(param);
                if self.take_mark(')') {
                    break;
                }
                self.want(',')?;
            }
        }
        while !self.take_mark('{') {
            match self.word()?.as_str() {
                ".reqntid" => entry.required_threads = Some(self.extents()?),
                ".maxntid" => entry.max_threads = Some(self.extents()?),
                ".minnctapersm" | ".maxnreg" | ".reqnctapercluster" | ".maxclusterrank" => {
                    self.extents()?;
                }
                ".explicitcluster" => {}
                other => return Err(self.error(format!("the directive {other} of an entry is not known"))),
            }
        }
        self.body(&mut entry)?;
        Ok(entry)
    }

    /// `.param .u64 .ptr .global .align 16 name` or `.param .align 64 .b8 name[128]`.
    fn param(&mut self, after: u32) -> Result<Param, PtxError> {
        let (mut align, mut size, mut pointer) = (1, None, false);
        let name = loop {
            let word = self.word()?;
            match word.as_str() {
                ".param" | ".global" | ".shared" | ".const" | ".local" => {}
                ".ptr" => pointer = true,
                ".align" if pointer => {
                    self.number()?;
                }
                ".align" => align = self.number()?,
                other if other.starts_with('.') => {
                    size = type_bytes(other);
                    size.ok_or_else(|| self.error(format!("{other} is no type")))?;
                }
                _ => break word,
            }
        };
        let size = size.ok_or_else(|| self.error(format!("the parameter {name} has no type")))?;
        let mut bytes = size;
        if self.take_mark('[') {
            bytes = size.saturating_mul(self.number()?);
            self.want(']')?;
        }
        let offset = after.next_multiple_of(align.max(size));
        Ok(Param { name, bytes, offset })
    }

    fn extents(&mut self) -> Result<[u32; 3], PtxError> {
        let mut found = [self.number()?, 1, 1];
        for extent in &mut found[1..] {
            if self.take_mark(',') {
                *extent = self.number()?;
            }
        }
        Ok(found)
    }

    fn body(&mut self, entry: &mut Entry) -> Result<(), PtxError> {
        let mut depth = 0u32;
        loop {
            if self.take_mark('{') {
                depth += 1;
                entry.body.push(Statement::Open);
                continue;
            }
            if self.take_mark('}') {
                if depth == 0 {
                    return Ok(());
                }
                depth -= 1;
                entry.body.push(Statement::Close);
                continue;
            }
            if self.take_mark(';') {
                continue;
            }
            let line = self.line();
            let guard = self.guard()?;
            let word = self.word()?;
            match word.as_str() {
                ".reg" => entry.body.push(self.registers()?),
                ".shared" => {
                    let shared = self.shared()?;
                    entry.shared.push(shared);
                }
                ".loc" => self.skip_loc(),
                ".pragma" => while !matches!(self.next(), Some(Token::Mark(';')) | None) {},
                _ if self.take_mark(':') => entry.body.push(Statement::Label(word, line)),
                _ if word.starts_with('.') => {
                    return Err(self.error(format!("the directive {word} is not known in a body")));
                }
                _ => {
                    let operands = self.operands()?;
                    let instruction = Instruction { line, guard, mnemonic: word, operands };
                    entry.body.push(Statement::Instruction(instruction));
                }
            }
        }
    }

    fn guard(&mut self) -> Result<Option<(String, bool)>, PtxError> {
        if !self.take_mark('@') {
            return Ok(None);
        }
        let negated = self.take_mark('!');
        Ok(Some((self.word()?, negated)))
    }

    /// `.loc 1 2 3` ends with its line.
    fn skip_loc(&mut self) {
        let line = self.line();
        while self.at < self.tokens.len() && self.tokens[self.at].0 == line {
            self.at += 1;
        }
    }

    fn registers(&mut self) -> Result<Statement, PtxError> {
        let word = self.word()?;
        let class = match word.as_str() {
            ".pred" => RegisterClass::Predicate,
            ".b16" | ".u16" | ".s16" | ".f16" => RegisterClass::B16,
            ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" => RegisterClass::B32,
            ".b64" | ".u64" | ".s64" | ".f64" => RegisterClass::B64,
            other => return Err(self.error(format!("registers of type {other} are not known"))),
        };
        let mut names = Vec::new();
        loop {
            let name = self.word()?;
            let mut count = None;
            if self.take_mark('<') {
                count = Some(self.number()?);
                self.want('>')?;
            }
            names.push((name, count));
            if self.take_mark(';') {
                return Ok(Statement::Registers(class, names));
            }
            self.want(',')?;
        }
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).map(|(_, token)| token.clone());
        self.at += 1;
        token
    }

    fn number(&mut self) -> Result<u32, PtxError> {
        let word = self.word()?;
        let value = integer(&word).and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| self.error(format!("wanted a number, found {word}")))
    }

    fn peek_mark(&self, mark: char) -> bool {
        matches!(self.tokens.get(self.at), Some((_, Token::Mark(found))) if *found == mark)
    }

    /// Takes a mark if it stands here.
    pub(super) fn take_mark(&mut self, mark: char) -> bool {
        let found = self.peek_mark(mark);
        self.at += usize::from(found);
        found
    }

    /// Takes a mark that must stand here.
    pub(super) fn want(&mut self, mark: char) -> Result<(), PtxError> {
        if self.take_mark(mark) {
            return Ok(());
        }
        let found = self.tokens.get(self.at).map(|(_, token)| token.clone());
        Err(self.error(format!("wanted {mark:?}, found {found:?}")))
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at.min(self.tokens.len().saturating_sub(1))).map_or(1, |(line, _)| *line)
    }

    /// An error at the last token that was taken.
    pub(super) fn error(&self, what: String) -> PtxError {
        let at = self.at.saturating_sub(1).min(self.tokens.len().saturating_sub(1));
        PtxError { line: self.tokens.get(at).map_or(1, |(line, _)| *line), what }
    }
}

/// The bytes of a fundamental type.
fn type_bytes(name: &str) -> Option<u32> {
    match name {
        ".b8" | ".u8" | ".s8" => Some(1),
        ".b16" | ".u16" | ".s16" | ".f16" => Some(2),
        ".b32" | ".u32" | ".s32" | ".f32" => Some(4),
        ".b64" | ".u64" | ".s64" | ".f64" => Some(8),
        _ => None,
    }
}

//! Operands to registers.

use super::super::op::Op;
use super::super::program::{Arg, Reg, Special};
use super::names::reg;
use super::{Decoder, error};
use crate::forms::Class;
use crate::forms::memory::Access;
use crate::ptx::{Operand, PtxError, RegisterClass};

impl Decoder {
    pub(super) fn predicate_register(&self, name: &str, line: u32) -> Result<u32, PtxError> {
        match self.names.register(name) {
            Some((RegisterClass::Predicate, at)) => Ok(at),
            _ => Err(error(line, format!("{name} is no predicate"))),
        }
    }

    /// The number of the register that a letter of a signature wants as a destination.
    pub(super) fn destination(
        &mut self,
        letter: char,
        operand: &Operand,
        line: u32,
    ) -> Result<u32, PtxError> {
        match self.register(letter, operand, true, line)? {
            Reg::Word(at) | Reg::Long(at) | Reg::Predicate(at) => Ok(at),
            Reg::Sink => Ok(match letter {
                'd' => self.temporary_long(),
                'p' => self.temporary(RegisterClass::Predicate),
                _ => self.temporary(RegisterClass::B32),
            }),
        }
    }

    /// The same as a source.
    pub(super) fn source(&mut self, letter: char, operand: &Operand, line: u32) -> Result<u32, PtxError> {
        match self.register(letter, operand, false, line)? {
            Reg::Word(at) | Reg::Long(at) | Reg::Predicate(at) => Ok(at),
            Reg::Sink => Err(error(line, "_ is no source")),
        }
    }

    fn temporary(&mut self, class: RegisterClass) -> u32 {
        let counter = match class {
            RegisterClass::Predicate => &mut self.program.predicates,
            RegisterClass::B16 | RegisterClass::B32 => &mut self.program.words,
            RegisterClass::B64 => &mut self.program.longs,
        };
        *counter += 1;
        *counter - 1
    }

    fn temporary_long(&mut self) -> u32 {
        self.temporary(RegisterClass::B64)
    }

    fn word_constant(&mut self, value: u32) -> u32 {
        let same = self.program.word_constants.iter().find(|(_, known)| *known == value);
        if let Some((at, _)) = same {
            return *at;
        }
        let at = self.temporary(RegisterClass::B32);
        self.program.word_constants.push((at, value));
        at
    }

    fn long_constant(&mut self, value: u64) -> u32 {
        let same = self.program.long_constants.iter().find(|(_, known)| *known == value);
        if let Some((at, _)) = same {
            return *at;
        }
        let at = self.temporary_long();
        self.program.long_constants.push((at, value));
        at
    }

    fn predicate_constant(&mut self, value: bool) -> u32 {
        let at = self.temporary(RegisterClass::Predicate);
        self.program.predicate_constants.push((at, value));
        at
    }

    fn special(&mut self, special: Special) -> u32 {
        if let Some((at, _)) = self.program.specials.iter().find(|(_, known)| *known == special) {
            return *at;
        }
        let at = self.temporary(RegisterClass::B32);
        self.program.specials.push((at, special));
        at
    }

    /// A register, an immediate or a symbol, where a letter of a signature stands.
    pub(super) fn register(
        &mut self,
        letter: char,
        operand: &Operand,
        writes: bool,
        line: u32,
    ) -> Result<Reg, PtxError> {
        let wrong = |found: String| error(line, format!("wanted {}, found {found}", wanted(letter)));
        match operand {
            Operand::Sink if writes => Ok(Reg::Sink),
            Operand::Name(name) => match self.names.register(name) {
                Some((class, at)) => self.named(letter, (class, at), writes, line),
                None if writes => Err(error(line, format!("the register {name} is not declared"))),
                None => self.symbol(letter, name, line),
            },
            _ if writes => Err(wrong(format!("{operand:?}"))),
            Operand::Integer(value) => match letter {
                'h' | 'y' => Ok(Reg::Word(self.word_constant(*value as u32 & 0xffff))),
                'x' => Ok(Reg::Word(self.word_constant(*value as u32 & 0xff))),
                'w' | 'z' => Ok(Reg::Word(self.word_constant(*value as u32))),
                'd' => Ok(Reg::Long(self.long_constant(*value as u64))),
                _ => Ok(Reg::Predicate(self.predicate_constant(*value != 0))),
            },
            Operand::F32(bits) if matches!(letter, 'w' | 'z') => Ok(Reg::Word(self.word_constant(*bits))),
            Operand::F64(bits) if letter == 'd' => Ok(Reg::Long(self.long_constant(*bits))),
            Operand::Not(name) if letter == 'p' => {
                let from = self.predicate_register(name, line)?;
                let to = self.temporary(RegisterClass::Predicate);
                let inst = self.push(Op::Predicate1(|a| !a), self.guard, Class::Integer, line);
                [inst.d, inst.a] = [to, from];
                Ok(Reg::Predicate(to))
            }
            other => Err(wrong(format!("{other:?}"))),
        }
    }

    fn named(
        &mut self,
        letter: char,
        (class, at): (RegisterClass, u32),
        writes: bool,
        line: u32,
    ) -> Result<Reg, PtxError> {
        let fits = match letter {
            'p' => class == RegisterClass::Predicate,
            'h' => class == RegisterClass::B16,
            'w' => class == RegisterClass::B32,
            'd' => class == RegisterClass::B64,
            // Sources of conversions may be wider than they need be.
            'x' | 'y' => class != RegisterClass::Predicate,
            'z' => matches!(class, RegisterClass::B32 | RegisterClass::B64),
            _ => false,
        };
        if fits && !("xyz".contains(letter) && class == RegisterClass::B64) {
            return Ok(reg(class, at));
        }
        if !writes && class == RegisterClass::B64 && "xyz".contains(letter) {
            let to = self.temporary(RegisterClass::B32);
            let low = Op::WordFromLong(|a, out| crate::forms::lanes1(a, out, |a: u64| a as u32));
            let inst = self.push(low, self.guard, Class::Convert, line);
            [inst.d, inst.a] = [to, at];
            return Ok(Reg::Word(to));
        }
        Err(error(line, format!("wanted {}, found a register of {class:?}", wanted(letter))))
    }

    fn symbol(&mut self, letter: char, name: &str, line: u32) -> Result<Reg, PtxError> {
        if let Some(special) = Special::parse(name) {
            if letter == 'w' {
                return Ok(Reg::Word(self.special(special)));
            }
            return Err(error(line, format!("{name} has 32 bits, wanted {}", wanted(letter))));
        }
        let Some(address) = self.names.symbol(name) else {
            return Err(error(line, format!("{name} is no register, variable or parameter that is known")));
        };
        match letter {
            'd' => Ok(Reg::Long(self.long_constant(address))),
            'w' => Ok(Reg::Word(self.word_constant(address as u32))),
            _ => Err(error(line, format!("wanted {}, found the address {name}", wanted(letter)))),
        }
    }

    /// An operand of an instruction with many: `a` is an address, `A` a tensor's, `v` a vector of words.
    pub(super) fn arg(
        &mut self,
        letter: char,
        operand: &Operand,
        writes: bool,
        line: u32,
    ) -> Result<Arg, PtxError> {
        match (letter, operand) {
            ('a', _) => self.address(operand, line).map(|(base, offset)| Arg::Address(base, offset)),
            ('A', Operand::Address { base, offset, coordinates }) => {
                let plain = Operand::Address { base: base.clone(), offset: *offset, coordinates: Vec::new() };
                let (base, offset) = self.address(&plain, line)?;
                let part = |element: &Operand| self.register('w', element, false, line);
                let coordinates = coordinates.iter().map(part).collect::<Result<_, _>>()?;
                Ok(Arg::Tensor(base, offset, coordinates))
            }
            ('v', Operand::Vector(elements)) => {
                let part = |element: &Operand| self.register('w', element, writes, line);
                Ok(Arg::Vector(elements.iter().map(part).collect::<Result<_, _>>()?))
            }
            ('v', _) => Ok(Arg::Vector(vec![self.register('w', operand, writes, line)?])),
            _ => Ok(Arg::Reg(self.register(letter, operand, writes, line)?)),
        }
    }

    /// The register and offset of an address.
    pub(super) fn address(&mut self, operand: &Operand, line: u32) -> Result<(u32, i64), PtxError> {
        let Operand::Address { base, offset, coordinates } = operand else {
            return Err(error(line, format!("wanted an address, found {operand:?}")));
        };
        if !coordinates.is_empty() {
            return Err(error(line, "an address with coordinates is no place for this instruction"));
        }
        let Some(name) = base else { return Ok((self.long_constant(*offset as u64), 0)) };
        match self.names.register(name) {
            Some((RegisterClass::B64, at)) => Ok((at, *offset)),
            Some((RegisterClass::B32, at)) => {
                let to = self.temporary_long();
                let widen = Op::LongFromWord(|a, out| crate::forms::lanes1(a, out, u64::from));
                let inst = self.push(widen, self.guard, Class::Integer, line);
                [inst.d, inst.a] = [to, at];
                Ok((to, *offset))
            }
            Some(_) => Err(error(line, format!("{name} is no address"))),
            None => {
                let address = self.names.symbol(name);
                let address = address.ok_or_else(|| error(line, format!("{name} is not declared")))?;
                Ok((self.long_constant(address), *offset))
            }
        }
    }

    /// The registers of a load or store.
    pub(super) fn elements(
        &mut self,
        operand: &Operand,
        access: Access,
        writes: bool,
        line: u32,
    ) -> Result<Vec<Reg>, PtxError> {
        let elements = match operand {
            Operand::Vector(elements) => elements.clone(),
            other => vec![other.clone()],
        };
        if elements.len() != usize::from(access.count) {
            return Err(error(line, format!("wanted {} registers, found {}", access.count, elements.len())));
        }
        let mut found = Vec::new();
        for element in &elements {
            let class = match element {
                Operand::Name(name) => self.names.register(name).map(|(class, _)| class),
                _ => None,
            };
            // A register may be wider than the element.
            let letter = match (access.bytes, class) {
                (8, _) | (_, Some(RegisterClass::B64)) => 'd',
                (4, _) | (_, Some(RegisterClass::B32)) => 'w',
                _ => 'h',
            };
            found.push(self.register(letter, element, writes, line)?);
        }
        Ok(found)
    }
}

/// A letter of a signature in words.
fn wanted(letter: char) -> &'static str {
    match letter {
        'h' => "16 bits",
        'w' => "32 bits",
        'd' => "64 bits",
        'p' => "a predicate",
        'x' => "at least 8 bits",
        'y' => "at least 16 bits",
        'z' => "at least 32 bits",
        'v' => "a vector",
        _ => "an address",
    }
}

//! From statements to a program: names become numbers, immediates become registers, mnemonics become operations.

mod names;
mod operands;

use super::flow::reconverge;
use super::op::{Inst, Op, Shuffle};
use super::program::{Arg, Program, Reg};
use crate::forms::{self, Class, Form, memory};
use crate::memory::shared_layout;
use crate::ptx::{Entry, Instruction, Module, Operand, PtxError, Statement};
use names::Names;

/// A program under construction.
pub(super) struct Decoder {
    names: Names,
    program: Program,
    /// Branches whose targets are not known yet: instruction, scope, label.
    jumps: Vec<(usize, usize, String, u32)>,
    /// What stands before the instruction at hand, for those that it needs before it.
    guard: super::op::Guard,
}

/// Makes an entry of a module ready to run.
pub(crate) fn decode(text: &str, module: &Module, entry: &Entry) -> Result<Program, PtxError> {
    let variables: Vec<_> = module.shared.iter().chain(&entry.shared).cloned().collect();
    let (places, static_shared) = shared_layout(&variables);
    let program = Program {
        name: entry.name.clone(),
        params: entry.params.clone(),
        required_threads: entry.required_threads,
        max_threads: entry.max_threads,
        code: Vec::new(),
        lists: Vec::new(),
        words: 0,
        longs: 0,
        predicates: 0,
        word_constants: Vec::new(),
        long_constants: Vec::new(),
        predicate_constants: Vec::new(),
        specials: Vec::new(),
        static_shared,
        lines: text.lines().map(String::from).collect(),
    };
    let mut decoder =
        Decoder { names: Names::new(places, &entry.params), program, jumps: Vec::new(), guard: None };
    for statement in &entry.body {
        decoder.statement(statement)?;
    }
    decoder.finish()
}

fn error(line: u32, what: impl Into<String>) -> PtxError {
    PtxError { line, what: what.into() }
}

impl Decoder {
    fn statement(&mut self, statement: &Statement) -> Result<(), PtxError> {
        match statement {
            Statement::Open => self.names.open(),
            Statement::Close => self.names.close(),
            Statement::Registers(class, names) => {
                for (name, count) in names {
                    self.names.declare(&mut self.program, *class, name, *count);
                }
            }
            Statement::Label(name, line) => {
                let at = self.program.code.len() as u32;
                if !self.names.label(name, at) {
                    return Err(error(*line, format!("the label {name} stands twice")));
                }
            }
            Statement::Instruction(instruction) => self.instruction(instruction)?,
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Program, PtxError> {
        // A body ends as `ret` does.
        let line = self.program.code.last().map_or(1, |inst| inst.line);
        self.push(Op::Exit, None, Class::Control, line);
        for (at, scope, label, line) in std::mem::take(&mut self.jumps) {
            let target = self.names.find_label(scope, &label);
            let target = target.ok_or_else(|| error(line, format!("the label {label} is not there")))?;
            self.program.code[at].d = target;
        }
        reconverge(&mut self.program.code);
        Ok(self.program)
    }

    /// Appends an instruction without operands and returns it.
    fn push(&mut self, op: Op, guard: super::op::Guard, class: Class, line: u32) -> &mut Inst {
        let inst =
            Inst { op, guard, d: 0, a: 0, b: 0, c: 0, offset: 0, list: u32::MAX, class: class as u8, line };
        self.program.code.push(inst);
        let last = self.program.code.len() - 1;
        &mut self.program.code[last]
    }

    fn instruction(&mut self, raw: &Instruction) -> Result<(), PtxError> {
        let guard = match &raw.guard {
            Some((name, negated)) => Some((self.predicate_register(name, raw.line)?, *negated)),
            None => None,
        };
        self.guard = guard;
        let head = raw.mnemonic.split('.').next().unwrap_or_default();
        match head {
            "bra" => self.branch(raw, guard),
            "ld" => self.load(raw, guard),
            "st" => self.store(raw, guard),
            "atom" | "red" => self.atomic(raw, guard, head == "atom"),
            "shfl" => self.shuffle(raw, guard),
            "mov" if raw.operands.iter().any(|operand| matches!(operand, Operand::Vector(_))) => {
                self.parts(raw, guard)
            }
            _ => self.by_table(raw, guard),
        }
    }

    fn unknown(&self, raw: &Instruction) -> PtxError {
        error(
            raw.line,
            format!(
                "{} with {} operands is no form that the virtual GPU knows",
                raw.mnemonic,
                raw.operands.len()
            ),
        )
    }

    fn branch(&mut self, raw: &Instruction, guard: super::op::Guard) -> Result<(), PtxError> {
        let (["bra" | "bra.uni"], [Operand::Name(label)]) =
            ([raw.mnemonic.as_str()], raw.operands.as_slice())
        else {
            return Err(self.unknown(raw));
        };
        let scope = self.names.scope();
        self.jumps.push((self.program.code.len(), scope, label.clone(), raw.line));
        self.push(Op::Branch, guard, Class::Control, raw.line);
        Ok(())
    }

    fn by_table(&mut self, raw: &Instruction, guard: super::op::Guard) -> Result<(), PtxError> {
        let form: &Form = forms::find(&raw.mnemonic).ok_or_else(|| self.unknown(raw))?;
        let fits = |signature: &&str| arity(signature) == raw.operands.len();
        let signature = form.signature.split(' ').find(fits).ok_or_else(|| self.unknown(raw))?;
        if !form.op.is_arithmetic() {
            return self.many(raw, guard, form, signature);
        }
        let mut places = [0u32; 5];
        for (at, (letter, operand)) in signature.chars().zip(&raw.operands).enumerate() {
            places[at] = if at == 0 {
                self.destination(letter, operand, raw.line)?
            } else {
                self.source(letter, operand, raw.line)?
            };
        }
        let (class, line) = (form.class, raw.line);
        let mut list = u32::MAX;
        if signature.len() == 5 {
            list = self.list(vec![Arg::Reg(Reg::Word(places[4]))]);
        }
        let inst = self.push(form.op.clone(), guard, class, line);
        [inst.d, inst.a, inst.b, inst.c] = [places[0], places[1], places[2], places[3]];
        inst.list = list;
        Ok(())
    }

    /// An instruction whose operands are a list.
    fn many(
        &mut self,
        raw: &Instruction,
        guard: super::op::Guard,
        form: &Form,
        signature: &str,
    ) -> Result<(), PtxError> {
        let letters: Vec<char> = signature.chars().filter(|letter| *letter != '>').collect();
        let writes = !signature.starts_with('>');
        let mut args = Vec::new();
        for (at, (letter, operand)) in letters.iter().zip(&raw.operands).enumerate() {
            if *letter == 'e' {
                self.pair(operand, &mut args, raw)?;
                continue;
            }
            args.push(self.arg(*letter, operand, writes && at == 0, raw.line)?);
        }
        let list = self.list(args);
        self.push(form.op.clone(), guard, form.class, raw.line).list = list;
        Ok(())
    }

    fn list(&mut self, args: Vec<Arg>) -> u32 {
        self.program.lists.push(args);
        self.program.lists.len() as u32 - 1
    }

    fn load(&mut self, raw: &Instruction, guard: super::op::Guard) -> Result<(), PtxError> {
        let access = memory::access(raw.mnemonic.split('.').skip(1)).ok_or_else(|| self.unknown(raw))?;
        let wanted = 2 + usize::from(access.policy);
        if raw.operands.len() != wanted {
            return Err(self.unknown(raw));
        }
        let registers = self.elements(&raw.operands[0], access, true, raw.line)?;
        let class = class_of(access.space);
        let list = self.list(vec![Arg::Vector(registers)]);
        let place = match (access.space, &raw.operands[1]) {
            (memory::Space::Param, Operand::Address { base: Some(name), offset, .. }) => {
                self.names.param(name).map(|place| i64::from(place) + offset)
            }
            _ => None,
        };
        if let Some(place) = place {
            let inst = self.push(Op::LoadParameter(access), guard, Class::Integer, raw.line);
            (inst.offset, inst.list) = (place, list);
            return Ok(());
        }
        let (base, offset) = self.address(&raw.operands[1], raw.line)?;
        let inst = self.push(Op::Load(access), guard, class, raw.line);
        [inst.a, inst.list] = [base, list];
        inst.offset = offset;
        Ok(())
    }

    fn store(&mut self, raw: &Instruction, guard: super::op::Guard) -> Result<(), PtxError> {
        let access = memory::access(raw.mnemonic.split('.').skip(1)).ok_or_else(|| self.unknown(raw))?;
        let wanted = 2 + usize::from(access.policy);
        if raw.operands.len() != wanted || access.space == memory::Space::Param {
            return Err(self.unknown(raw));
        }
        let registers = self.elements(&raw.operands[1], access, false, raw.line)?;
        let (base, offset) = self.address(&raw.operands[0], raw.line)?;
        let list = self.list(vec![Arg::Vector(registers)]);
        let inst = self.push(Op::Store(access), guard, class_of(access.space), raw.line);
        [inst.a, inst.list] = [base, list];
        inst.offset = offset;
        Ok(())
    }

    fn atomic(&mut self, raw: &Instruction, guard: super::op::Guard, returns: bool) -> Result<(), PtxError> {
        let words = raw.mnemonic.split('.').skip(1);
        let atomic = memory::atomic(words).ok_or_else(|| self.unknown(raw))?;
        let first = usize::from(returns);
        if raw.operands.len() != first + 1 + usize::from(atomic.operands) {
            return Err(self.unknown(raw));
        }
        let letter =
            ['h', 'w', 'd'][usize::from(atomic.bytes.trailing_zeros() as u8).saturating_sub(1).min(2)];
        let mut args = vec![Arg::Reg(Reg::Sink)];
        if returns {
            args[0] = self.arg(letter, &raw.operands[0], true, raw.line)?;
        }
        for operand in &raw.operands[first + 1..] {
            args.push(self.arg(letter, operand, false, raw.line)?);
        }
        let (base, offset) = self.address(&raw.operands[first], raw.line)?;
        let list = self.list(args);
        let inst = self.push(Op::Atomic(atomic), guard, class_of(atomic.space), raw.line);
        [inst.a, inst.list] = [base, list];
        inst.offset = offset;
        Ok(())
    }

    fn shuffle(&mut self, raw: &Instruction, guard: super::op::Guard) -> Result<(), PtxError> {
        let mode = match raw.mnemonic.as_str() {
            "shfl.sync.up.b32" => Shuffle::Up,
            "shfl.sync.down.b32" => Shuffle::Down,
            "shfl.sync.bfly.b32" => Shuffle::Butterfly,
            "shfl.sync.idx.b32" => Shuffle::Index,
            _ => return Err(self.unknown(raw)),
        };
        let [destination, a, b, c, mask] = raw.operands.as_slice() else { return Err(self.unknown(raw)) };
        let mut args = Vec::new();
        self.pair(destination, &mut args, raw)?;
        for operand in [a, b, c, mask] {
            args.push(self.arg('w', operand, false, raw.line)?);
        }
        let list = self.list(args);
        self.push(Op::Shuffle(mode), guard, Class::Synchronise, raw.line).list = list;
        Ok(())
    }

    /// A destination `%r|%p`, of which the predicate may be missing.
    fn pair(&mut self, operand: &Operand, args: &mut Vec<Arg>, raw: &Instruction) -> Result<(), PtxError> {
        let Operand::Pair(word, predicate) = operand else {
            args.push(self.arg('w', operand, true, raw.line)?);
            args.push(Arg::Reg(Reg::Sink));
            return Ok(());
        };
        let named = |name: &String| if name == "_" { Operand::Sink } else { Operand::Name(name.clone()) };
        args.push(self.arg('w', &named(word), true, raw.line)?);
        args.push(self.arg('p', &named(predicate), true, raw.line)?);
        Ok(())
    }

    /// `mov.b64 {%r1, %r2}, %rd1;` and its like.
    fn parts(&mut self, raw: &Instruction, guard: super::op::Guard) -> Result<(), PtxError> {
        let bits = match raw.mnemonic.as_str() {
            "mov.b64" => 64,
            "mov.b32" => 32,
            _ => return Err(self.unknown(raw)),
        };
        let [to, from] = raw.operands.as_slice() else { return Err(self.unknown(raw)) };
        let [to, from] = [(to, true), (from, false)].map(|(operand, writes)| {
            let elements = match operand {
                Operand::Vector(elements) => elements.clone(),
                other => vec![other.clone()],
            };
            let letter = match bits / elements.len() as u32 {
                64 => 'd',
                32 => 'w',
                16 => 'h',
                _ => return Err(self.unknown(raw)),
            };
            let part = |element: &Operand| self.register(letter, element, writes, raw.line);
            elements.iter().map(part).collect::<Result<Vec<Reg>, _>>()
        });
        let list = self.list(vec![Arg::Vector(to?), Arg::Vector(from?)]);
        let inst = self.push(Op::Parts, guard, Class::Integer, raw.line);
        [inst.list, inst.c] = [list, bits];
        Ok(())
    }
}

/// The number of operands of a signature.
fn arity(signature: &str) -> usize {
    signature.chars().filter(|letter| *letter != '>').count()
}

/// What an access counts as; generic ones count as global.
fn class_of(space: memory::Space) -> Class {
    match space {
        memory::Space::Shared | memory::Space::Cluster => Class::Shared,
        memory::Space::Global | memory::Space::Generic => Class::Global,
        memory::Space::Param => Class::Integer,
    }
}

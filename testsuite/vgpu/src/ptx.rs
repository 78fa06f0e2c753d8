//! PTX as text: a module, its entry, and the statements of its body, as yet without meaning.
//!
//! The reader takes what LLVM's NVPTX back end prints and what inline assembly adds to it: braces that open a scope with
//! registers and labels of its own. What a mnemonic means is the business of [`crate::forms`].

mod module;
mod operand;
mod token;

pub use module::parse;

use thiserror::Error;

/// A text that is no PTX module that we know.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("PTX line {line}: {what}")]
pub struct PtxError {
    /// The line, counted from 1.
    pub line: u32,
    /// What was wanted and what was found.
    pub what: String,
}

/// A module with its entries.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// What `.target` names: `sm_90a`.
    pub target: String,
    /// Shared variables outside of entries; `bytes` 0 is the dynamic part.
    pub shared: Vec<SharedVar>,
    /// The entries in order.
    pub entries: Vec<Entry>,
}

/// A variable in shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedVar {
    /// Its name.
    pub name: String,
    /// Its alignment in bytes.
    pub align: u32,
    /// Its size in bytes; 0 for `.extern .shared x[]`.
    pub bytes: u32,
}

/// A parameter of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u32,
    /// Its place among the parameters, in bytes, aligned as its type wants.
    pub offset: u32,
}

/// A kernel.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its parameters in order.
    pub params: Vec<Param>,
    /// Threads of a block as `.reqntid` demands.
    pub required_threads: Option<[u32; 3]>,
    /// The most threads of a block by `.maxntid`.
    pub max_threads: Option<[u32; 3]>,
    /// Shared variables in it.
    pub shared: Vec<SharedVar>,
    /// Its body.
    pub body: Vec<Statement>,
}

/// A piece of a body.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// `{`: names declared from here on end at the matching brace.
    Open,
    /// `}`
    Close,
    /// `.reg .b32 %r<41>;` or `.reg .pred p;`
    Registers(RegisterClass, Vec<(String, Option<u32>)>),
    /// `$L__BB0_1:`
    Label(String, u32),
    /// Anything else.
    Instruction(Instruction),
}

/// The width of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegisterClass {
    /// `.pred`
    Predicate,
    /// 16 bits
    B16,
    /// 32 bits
    B32,
    /// 64 bits
    B64,
}

/// An instruction as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The line on which it starts.
    pub line: u32,
    /// The predicate before it, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode with its modifiers: `ld.global.v4.b32`.
    pub mnemonic: String,
    /// What follows, in order.
    pub operands: Vec<Operand>,
}

/// An operand as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, a variable or a label.
    Name(String),
    /// `_`
    Sink,
    /// A whole number, in two's complement.
    Integer(i64),
    /// `0fXXXXXXXX`
    F32(u32),
    /// `0dXXXXXXXXXXXXXXXX`
    F64(u64),
    /// `!%p`
    Not(String),
    /// `%r|%p`
    Pair(String, String),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `[base+offset]` or `[base, {x, y}]`
    Address {
        /// A register or a variable; none for an absolute address.
        base: Option<String>,
        /// Bytes added.
        offset: i64,
        /// Coordinates of a tensor copy.
        coordinates: Vec<Operand>,
    },
}

//! The forms of instructions that are known: one table, from a mnemonic to what it takes and what it does.
//!
//! A row is a pattern of mnemonics, a signature and an operation. `{a,b}` in a pattern stands for either; an empty choice
//! is allowed: `add.rn{,.ftz}.f32`. A signature has one letter an operand, the destination first: `h`, `w` and `d` are
//! registers of 16, 32 and 64 bits, `p` a predicate. Loads, stores and the like are rows of [`memory`], since their
//! qualifiers combine freely. A mnemonic without a row is refused.

mod cluster;
mod convert;
pub(crate) mod copies;
mod float;
mod half_pairs;
mod integer;
mod lanes;
mod logic;
pub(crate) mod memory;
mod synchronise;
pub(crate) mod tensor;

pub use lanes::{D, LANES, W};
pub(crate) use lanes::{lanes1, lanes2, lanes3, mask2};

use crate::exec::Op;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A row of the table.
#[derive(Clone)]
pub struct Form {
    /// The mnemonics, with choices in braces.
    pub pattern: &'static str,
    /// The operands, the destination first.
    pub signature: &'static str,
    /// What it counts as.
    pub(crate) class: Class,
    /// What it does.
    pub(crate) op: Op,
}

/// What an instruction counts as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Whole numbers, bits, predicates, moves.
    Integer,
    /// Floating point.
    Float,
    /// Approximations of the special function unit.
    Special,
    /// Conversions.
    Convert,
    /// Loads, stores and atomics of global memory.
    Global,
    /// The same of shared memory, and the matrix loads and stores.
    Shared,
    /// `mma.sync` and `wgmma`.
    Tensor,
    /// Asynchronous copies.
    Copy,
    /// Barriers, fences, votes, shuffles.
    Synchronise,
    /// Branches and ends.
    Control,
}

impl Class {
    /// All classes, in the order of the counters.
    pub const ALL: [Class; 10] = [
        Class::Integer,
        Class::Float,
        Class::Special,
        Class::Convert,
        Class::Global,
        Class::Shared,
        Class::Tensor,
        Class::Copy,
        Class::Synchronise,
        Class::Control,
    ];
}

/// A row from its parts.
fn form(class: Class, pattern: &'static str, signature: &'static str, op: Op) -> Form {
    Form { pattern, signature, class, op }
}

/// All rows of arithmetic, in the order of the documentation.
pub fn table() -> &'static [Form] {
    static TABLE: OnceLock<Vec<Form>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut rows = integer::rows();
        rows.extend(logic::rows());
        rows.extend(float::rows());
        rows.extend(half_pairs::rows());
        rows.extend(convert::rows());
        rows.extend(synchronise::rows());
        rows.extend(tensor::rows());
        rows.extend(copies::rows());
        rows.extend(cluster::rows());
        rows
    })
}

/// All forms in words, one a line, for the documentation.
pub fn known() -> Vec<String> {
    let free = [
        "bra{,.uni} label".to_string(),
        memory::access_grammar(),
        memory::atomic_grammar().to_string(),
        "shfl.sync.{up,down,bfly,idx}.b32 w|p, w, w, w, w".to_string(),
        "mov.{b32,b64} between a register and a vector of its parts".to_string(),
    ];
    let row = |row: &Form| format!("{} {}", row.pattern, row.signature);
    free.into_iter().chain(table().iter().map(row)).collect()
}

/// The row of a mnemonic with a number of operands.
pub(crate) fn find(mnemonic: &str) -> Option<&'static Form> {
    static NAMES: OnceLock<BTreeMap<String, usize>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let rows = table().iter().enumerate();
        rows.flat_map(|(at, row)| expand(row.pattern).into_iter().map(move |name| (name, at))).collect()
    });
    names.get(mnemonic).map(|at| &table()[*at])
}

/// The mnemonics that a pattern stands for.
pub fn expand(pattern: &str) -> Vec<String> {
    let Some((start, rest)) = pattern.split_once('{') else { return vec![pattern.into()] };
    let Some((choices, end)) = rest.split_once('}') else { return vec![pattern.into()] };
    let ends = expand(end);
    let with =
        |choice: &str| -> Vec<String> { ends.iter().map(|end| format!("{start}{choice}{end}")).collect() };
    choices.split(',').flat_map(with).collect()
}

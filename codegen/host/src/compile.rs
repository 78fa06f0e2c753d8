//! The pipeline.

use crate::code::Code;
use crate::emit::{Program, emit};
use crate::facts::Facts;
use crate::micro::Isa;
use crate::schedule::{self, Schedule};
use crate::{CodegenError, HostKernel};
use sinter_ir::TileProgram;

/// Compiles one tile program.
///
/// # Errors
/// If the program is malformed, or this machine lacks `isa`.
pub fn compile(tile: &TileProgram, isa: Isa) -> Result<HostKernel, CodegenError> {
    let mut kernels = compile_all(&[tile], isa)?;
    Ok(kernels.remove(0))
}

/// Compiles tile programs into one piece of machine code; the kernels are in the programs' order.
///
/// # Errors
/// If a program is malformed, or this machine lacks `isa`.
pub fn compile_all(tiles: &[&TileProgram], isa: Isa) -> Result<Vec<HostKernel>, CodegenError> {
    let mut code = Code::new(isa)?;
    let (mut schedules, mut functions) = (Vec::new(), Vec::new());
    for (number, tile) in tiles.iter().enumerate() {
        let plan = prepare(tile)?;
        functions.push(code.define(&tile.name, number, |calls, func| emit(plan.program(), calls, func))?);
        schedules.push(plan.schedule);
    }
    let (entries, code) = code.finish(&functions)?;
    let kernel = |((tile, schedule), entry): ((&&TileProgram, Schedule), _)| HostKernel {
        name: tile.name.clone(),
        entry,
        units: schedule.units,
        scratch_bytes: schedule.scratch,
        code: code.clone(),
    };
    Ok(tiles.iter().zip(schedules).zip(entries).map(kernel).collect())
}

/// The schedule of a tile program and its Cranelift intermediate form, or why there is none.
pub fn emit_text(tile: &TileProgram, isa: Isa) -> String {
    let text = || -> Result<String, CodegenError> {
        let mut code = Code::new(isa)?;
        let plan = prepare(tile)?;
        let text = code.text(|calls, func| emit(plan.program(), calls, func));
        Ok(format!("; {}: {}\n{text}", tile.name, plan.schedule))
    };
    text().unwrap_or_else(|error| format!("; {error}\n"))
}

/// A program, ready to be emitted.
struct Prepared {
    tile: TileProgram,
    facts: Facts,
    schedule: Schedule,
}

impl Prepared {
    fn program(&self) -> Program<'_> {
        Program { tile: &self.tile, facts: &self.facts, schedule: &self.schedule }
    }
}

/// Everything before emission.
fn prepare(tile: &TileProgram) -> Result<Prepared, CodegenError> {
    // Facts come first: they refuse what is malformed, and every later step asks them.
    let facts = Facts::of(tile)?;
    // An axis may move from the grid into the stores, which changes the facts.
    let tile = schedule::sink(tile, &facts);
    let facts = Facts::of(&tile)?;
    let schedule = schedule::choose(&tile, &facts);
    Ok(Prepared { tile, facts, schedule })
}

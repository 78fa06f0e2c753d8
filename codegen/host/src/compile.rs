//! The pipeline.

use crate::code::Code;
use crate::emit::{Program, emit};
use crate::facts::Facts;
use crate::micro::Isa;
use crate::schedule::cost::{Cost, Machine, Shape, Size, least};
use crate::schedule::{self, Choice, Choices, FEW_ROWS, Schedule, Way};
use crate::{CodegenError, HostKernel};
use sinter_ir::{Dim, FewRows, HostForm, TileProgram};

/// Compiles one tile program, run as the cost model chooses for a machine of one thread.
///
/// # Errors
/// If the program is malformed, or this machine lacks `isa`.
pub fn compile(tile: &TileProgram, isa: Isa) -> Result<HostKernel, CodegenError> {
    let mut kernels = compile_all(&[tile], isa)?;
    Ok(kernels.remove(0))
}

/// Compiles tile programs, run as the cost model chooses for a machine of one thread, into one piece of machine code; the
/// kernels are in the programs' order.
///
/// # Errors
/// If a program is malformed, or this machine lacks `isa`.
pub fn compile_all(tiles: &[&TileProgram], isa: Isa) -> Result<Vec<HostKernel>, CodegenError> {
    let machine = Machine::typical(isa, 1);
    let chosen = tiles.iter().map(|tile| Ok((*tile, choose(tile, &machine)?)));
    let chosen = chosen.collect::<Result<Vec<_>, CodegenError>>()?;
    compile_as(&chosen, isa)
}

/// Compiles tile programs, each to be run as chosen, into one piece of machine code; the kernels are in the programs' order.
///
/// # Errors
/// If a program is malformed or cannot be run so, or this machine lacks `isa`.
pub fn compile_as(tiles: &[(&TileProgram, Choices)], isa: Isa) -> Result<Vec<HostKernel>, CodegenError> {
    let mut code = Code::new(isa)?;
    let (mut plans, mut functions) = (Vec::new(), Vec::new());
    for (tile, choices) in tiles {
        let mut forms = Vec::new();
        for ways in distinct(choices) {
            let plan = prepare(tile, ways)?;
            let id =
                code.define(&tile.name, functions.len(), |calls, func| emit(plan.program(), calls, func))?;
            forms.push((functions.len(), plan.schedule));
            functions.push(id);
        }
        plans.push(forms);
    }
    let (entries, code) = code.finish(&functions)?;
    let kernel = |((tile, choices), forms): (&(&TileProgram, Choices), Vec<(usize, Schedule)>)| {
        let scratch_bytes = forms.iter().map(|(_, schedule)| schedule.scratch).max().unwrap_or(0);
        let form = |(function, schedule): &(usize, Schedule), choice: Choice| HostForm {
            entry: entries[*function],
            units: schedule.units.clone(),
            alone: choice.alone,
        };
        let (first, last) = (&forms[0], &forms[forms.len() - 1]);
        let apart = forms.len() > 1 || choices.few.alone != choices.many.alone;
        let few =
            apart.then(|| FewRows { rows: rows(tile), at_most: FEW_ROWS, form: form(first, choices.few) });
        let (name, any) = (tile.name.clone(), form(last, choices.many));
        HostKernel { name, any, few, scratch_bytes, code: code.clone() }
    };
    Ok(tiles.iter().zip(plans).map(kernel).collect())
}

/// The rows of a launch of a program, by which few and many are told apart: the outermost axis of its grid.
pub fn rows(tile: &TileProgram) -> Dim {
    tile.grid.first().map_or(Dim::of(1), |axis| tile.axes[*axis].extent)
}

/// The ways that need code of their own: of few rows, and of many. Products whose units are the same share code, which looks
/// at the rows.
fn distinct(Choices { few, many }: &Choices) -> Vec<[Way; 2]> {
    match (few.way, many.way) {
        (one, other) if one == other => vec![[one, other]],
        (one @ Way::Contract { panels, .. }, other @ Way::Contract { panels: same, .. })
            if panels == same =>
        {
            vec![[one, other]]
        }
        (one, other) => vec![[one, one], [other, other]],
    }
}

/// Every way in which a program can be run.
///
/// # Errors
/// If the program is malformed.
pub fn candidates(tile: &TileProgram) -> Result<Vec<Choice>, CodegenError> {
    let facts = Facts::of(tile)?;
    let sunk = schedule::sink(tile, &facts);
    let mut ways = schedule::ways(&sunk, &Facts::of(&sunk)?);
    if sunk != *tile && matches!(schedule::ways(tile, &facts)[..], [Way::Points { .. }]) {
        ways.push(Way::Points { inner: false });
    }
    let both = |way| [Choice { way, alone: false }, Choice { way, alone: true }];
    Ok(ways.into_iter().flat_map(both).collect())
}

/// Every way in which a program can be run, and what of it the cost depends on.
fn shaped(tile: &TileProgram) -> Result<(Vec<Choice>, Shape), CodegenError> {
    let all = candidates(tile)?;
    let first = prepare(tile, [all[0].way; 2])?;
    let shape = Shape::of(&first.tile, &first.schedule, tile);
    Ok((all, shape))
}

/// What each way of running a program takes on a machine, the choice first: a pure function of program, launch and machine.
///
/// # Errors
/// If the program is malformed.
pub fn ranked(
    tile: &TileProgram,
    size: &Size,
    machine: &Machine,
) -> Result<Vec<(Choice, Cost)>, CodegenError> {
    let (mut all, shape) = shaped(tile)?;
    if rows(tile).eval(&size.binding()) <= FEW_ROWS {
        // Few rows are one block, however large a block may be.
        let block = all[0].way.block();
        all.retain(|choice| choice.way.block() == block);
    }
    let costs: Vec<Cost> = all.iter().map(|choice| shape.cost(*choice, size, machine)).collect();
    let first = least(&costs);
    let mut ranked: Vec<(Choice, Cost)> = all.into_iter().zip(costs).collect();
    // The choice comes first although another may be less by a hair.
    ranked[..=first].rotate_right(1);
    ranked[1..].sort_by(|(_, a), (_, b)| a.nanos().total_cmp(&b.nanos()));
    Ok(ranked)
}

/// How a program is run where nothing was measured: in launches of few rows and of many, what takes least.
///
/// # Errors
/// If the program is malformed.
pub fn choose(tile: &TileProgram, machine: &Machine) -> Result<Choices, CodegenError> {
    let (all, shape) = shaped(tile)?;
    let chosen = |size: Size| {
        let costs: Vec<Cost> = all.iter().map(|choice| shape.cost(*choice, &size, machine)).collect();
        all[least(&costs)]
    };
    Ok(Choices { few: chosen(Size::FEW), many: chosen(Size::MANY) })
}

/// The schedule of a tile program and its Cranelift intermediate form, or why there is none.
pub fn emit_text(tile: &TileProgram, isa: Isa) -> String {
    let text = || -> Result<String, CodegenError> {
        let mut code = Code::new(isa)?;
        let mut text = String::new();
        for ways in distinct(&choose(tile, &Machine::typical(isa, 1))?) {
            let plan = prepare(tile, ways)?;
            let body = code.text(|calls, func| emit(plan.program(), calls, func));
            text += &format!("; {}: {}\n{body}", tile.name, plan.schedule);
        }
        Ok(text)
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
fn prepare(tile: &TileProgram, ways: [Way; 2]) -> Result<Prepared, CodegenError> {
    // Facts come first: they refuse what is malformed, and every later step asks them.
    let facts = Facts::of(tile)?;
    let (tile, facts) = if ways[1] == (Way::Points { inner: false }) {
        (tile.clone(), facts)
    } else {
        // An axis may move from the grid into the stores, which changes the facts.
        let tile = schedule::sink(tile, &facts);
        let facts = Facts::of(&tile)?;
        (tile, facts)
    };
    let schedule = schedule::schedule(&tile, &facts, ways);
    let schedule = schedule.ok_or_else(|| CodegenError::Unfit {
        kernel: tile.name.clone(),
        choice: Choice { way: ways[1], alone: false }.to_string(),
    })?;
    Ok(Prepared { tile, facts, schedule })
}

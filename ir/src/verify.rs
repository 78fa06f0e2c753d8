//! The verifiers. They collect every violation and name the line that breaks a rule.
//!
//! Rules of graphs:
//! 1. Operands are defined before they are used.
//! 2. The type of every node is what the type rules infer.
//! 3. Inputs, weights and states have distinct names; so have the outputs.
//! 4. Outputs exist.
//!
//! Rules of tile programs:
//! 1. Parameters, axes and expressions that are mentioned exist; expressions use earlier ones only.
//! 2. A load or store has one index for each dimension of its parameter.
//! 3. A stage's result is used only by later stages, and only where its own axes are in scope.
//! 4. Stores go to writable parameters; loads never come from parameters that are only written.

use crate::{Access, Expr, ExprId, Graph, Index, Load, Stage, TileProgram, Type, infer};
use std::collections::BTreeSet;

/// One broken rule, with the line of the text form that breaks it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{place}: {rule}")]
pub struct Violation {
    /// The value, stage or parameter.
    pub place: String,
    /// What is wrong.
    pub rule: String,
}

fn violation(place: impl ToString, rule: impl Into<String>) -> Violation {
    Violation { place: place.to_string(), rule: rule.into() }
}

/// All violations in a graph; none if it is well formed.
pub fn verify(graph: &Graph) -> Vec<Violation> {
    let mut found = Vec::new();
    let (mut leaves, mut outputs) = (BTreeSet::new(), BTreeSet::new());
    for (value, node) in graph.nodes.iter() {
        if node.args.iter().any(|arg| *arg >= value) {
            found.push(violation(value, "an operand is not defined before it is used"));
            continue;
        }
        let types: Vec<&Type> = node.args.iter().map(|arg| graph.ty(*arg)).collect();
        match infer(&node.op, &types) {
            Ok(ty) if ty == node.ty => {}
            Ok(ty) => found.push(violation(value, format!("is {}, but its operation gives {ty}", node.ty))),
            Err(reason) => found.push(violation(value, reason)),
        }
        if let Some(name) = node.op.leaf_name()
            && !leaves.insert(name)
        {
            found.push(violation(value, format!("the name {name:?} is taken")));
        }
    }
    for (name, value) in &graph.outputs {
        if graph.nodes.get(*value).is_none() {
            found.push(violation(value, "an output that is not defined"));
        }
        if !outputs.insert(name) {
            found.push(violation(value, format!("the output {name:?} is named twice")));
        }
    }
    found
}

/// All violations in a tile program; none if it is well formed.
pub fn verify_tile(tile: &TileProgram) -> Vec<Violation> {
    let mut checker = TileChecker { tile, found: Vec::new() };
    for (id, expr) in tile.exprs.iter() {
        checker.expr(id, expr);
    }
    for (number, stage) in tile.stages.iter().enumerate() {
        checker.stage(number, stage);
    }
    checker.found
}

struct TileChecker<'a> {
    tile: &'a TileProgram,
    found: Vec<Violation>,
}

impl TileChecker<'_> {
    fn expr(&mut self, id: ExprId, expr: &Expr) {
        match expr {
            Expr::Apply(op, args) => {
                if args.len() != op.arity() || args.iter().any(|arg| *arg >= id) {
                    self.found.push(violation(id, format!("{} has wrong operands", op.name())));
                }
            }
            Expr::Cast(_, arg) if *arg >= id => self.found.push(violation(id, "uses a later expression")),
            Expr::Load(load) => self.load(&id.to_string(), load),
            Expr::Index(index) => self.index(&id.to_string(), index),
            Expr::Stage(stage) if stage.0 as usize >= self.tile.stages.len() => {
                self.found.push(violation(id, format!("there is no {stage}")));
            }
            Expr::Const(_) | Expr::Cast(..) | Expr::Stage(_) => {}
        }
    }

    fn load(&mut self, place: &str, load: &Load) {
        match self.tile.params.get(load.param) {
            None => self.found.push(violation(place, format!("there is no {}", load.param))),
            Some(param) => {
                if param.ty.rank() != load.index.len() {
                    let rule = format!(
                        "{} has rank {}, indexed by {}",
                        param.name,
                        param.ty.rank(),
                        load.index.len()
                    );
                    self.found.push(violation(place, rule));
                }
                if param.access == Access::Write {
                    self.found.push(violation(place, format!("{} is only written", param.name)));
                }
            }
        }
        load.index.iter().for_each(|index| self.index(place, index));
    }

    fn index(&mut self, place: &str, index: &Index) {
        for axis in index.axes() {
            if self.tile.axes.get(axis).is_none() {
                self.found.push(violation(place, format!("there is no axis {axis}")));
            }
        }
    }

    fn stage(&mut self, number: usize, stage: &Stage) {
        let place = format!("s{number}");
        for root in stage.roots() {
            for used in self.tile.stages_of(root) {
                if used.0 as usize >= number {
                    self.found.push(violation(&place, format!("uses {used}, which comes later")));
                }
            }
        }
        if let Stage::Store { param, index, .. } = stage {
            let writable = self
                .tile
                .params
                .get(*param)
                .is_some_and(|param| param.access != Access::Read && param.ty.rank() == index.len());
            if !writable {
                self.found
                    .push(violation(&place, format!("cannot store to {param} with {} indices", index.len())));
            }
        }
    }
}

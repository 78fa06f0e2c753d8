//! The verifiers. They collect every violation and name the line that breaks a rule.
//!
//! Rules of graphs:
//! 1. Operands are defined before they are used.
//! 2. The type of every node is what the type rules infer.
//! 3. Inputs, weights and states have distinct names; so have the outputs.
//! 4. Outputs exist.
//!
//! Rules of tile programs:
//! 1. Parameters, axes, expressions and stages that are mentioned exist; expressions use earlier ones only.
//! 2. A load or store has one index for each dimension of its parameter; divisors are not zero.
//! 3. A stage's result is used only by later stages; a store has none.
//! 4. Stores go to writable parameters; loads never come from parameters that are only written.
//! 5. Halves of bytes are read-only whole numbers, an even number to a row.

use crate::{
    Access, Atom, AxisId, DType, Expr, ExprId, Graph, Index, Layout, Load, ParamId, Stage, TileParam,
    TileProgram, Type, infer,
};
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

/// All violations in a tile program; none if it is well formed. Any program may be given, whatever its ids say.
pub fn verify_tile(tile: &TileProgram) -> Vec<Violation> {
    let mut checker = TileChecker { tile, found: Vec::new() };
    for axis in &tile.grid {
        checker.axis("grid", *axis);
    }
    for (id, param) in tile.params.iter().filter(|(_, param)| param.layout == Layout::Halves) {
        checker.halves(id, param);
    }
    for (id, expr) in tile.exprs.iter() {
        checker.expr(id, expr);
    }
    for (number, stage) in tile.stages.iter().enumerate() {
        checker.stage(&format!("s{number}"), stage);
    }
    // What an expression reaches can be walked only where every operand exists and comes earlier.
    if checker.found.is_empty() {
        checker.order();
    }
    checker.found
}

struct TileChecker<'a> {
    tile: &'a TileProgram,
    found: Vec<Violation>,
}

impl TileChecker<'_> {
    fn broken(&mut self, place: impl ToString, rule: impl Into<String>) {
        self.found.push(violation(place, rule));
    }

    fn axis(&mut self, place: &str, axis: AxisId) {
        if self.tile.axes.get(axis).is_none() {
            self.broken(place, format!("there is no axis {axis}"));
        }
    }

    fn expr(&mut self, id: ExprId, expr: &Expr) {
        match expr {
            Expr::Apply(op, args) => {
                if args.len() != op.arity() || args.iter().any(|arg| *arg >= id) {
                    self.broken(id, format!("{} has wrong operands", op.name()));
                }
            }
            Expr::Cast(_, arg) if *arg >= id => self.broken(id, "uses a later expression"),
            Expr::Load(load) => self.load(&id.to_string(), load),
            Expr::Index(index) => self.index(&id.to_string(), index),
            Expr::Stage(stage) => match self.tile.stages.get(stage.0 as usize) {
                None => self.broken(id, format!("there is no {stage}")),
                Some(Stage::Store { .. }) => self.broken(id, format!("{stage} is a store and has no result")),
                Some(_) => {}
            },
            Expr::Const(_) | Expr::Cast(..) => {}
        }
    }

    fn load(&mut self, place: &str, load: &Load) {
        self.element(place, load.param, &load.index);
        if let Some(param) = self.tile.params.get(load.param)
            && param.access == Access::Write
        {
            self.broken(place, format!("{} is only written", param.name));
        }
    }

    fn halves(&mut self, id: ParamId, param: &TileParam) {
        let last = param.ty.shape.last().and_then(|last| last.as_const());
        let good = param.access == Access::Read && param.ty.dtype == DType::I8;
        if !good || last.is_none_or(|last| last % 2 == 1) {
            self.broken(id, "halves of bytes are read-only i8, an even number to a row");
        }
    }

    fn element(&mut self, place: &str, param: ParamId, indices: &[Index]) {
        match self.tile.params.get(param) {
            None => self.broken(place, format!("there is no {param}")),
            Some(def) if def.ty.rank() != indices.len() => {
                let (rank, found) = (def.ty.rank(), indices.len());
                self.broken(place, format!("{} has rank {rank}, indexed by {found}", def.name));
            }
            Some(_) => {}
        }
        indices.iter().for_each(|index| self.index(place, index));
    }

    fn index(&mut self, place: &str, index: &Index) {
        for (atom, _) in &index.terms {
            match atom {
                Atom::Axis(axis) => self.axis(place, *axis),
                Atom::Div(inner, divisor) | Atom::Mod(inner, divisor) => {
                    if *divisor == 0 {
                        self.broken(place, "divides by zero");
                    }
                    self.index(place, inner);
                }
                Atom::Load(load) => self.load(place, load),
            }
        }
    }

    fn stage(&mut self, place: &str, stage: &Stage) {
        for root in stage.roots() {
            if self.tile.exprs.get(root).is_none() {
                self.broken(place, format!("there is no {root}"));
            }
        }
        match stage {
            Stage::Reduce { axis, .. } => self.axis(place, *axis),
            Stage::Mma { axis, a, b } => {
                self.axis(place, *axis);
                self.load(place, a);
                self.load(place, b);
            }
            Stage::Online { axis, lanes, value, .. } => {
                self.axis(place, *axis);
                self.axis(place, *lanes);
                self.load(place, value);
            }
            Stage::Store { axes, param, index, .. } => {
                axes.iter().for_each(|axis| self.axis(place, *axis));
                self.element(place, *param, index);
                if let Some(def) = self.tile.params.get(*param)
                    && def.access == Access::Read
                {
                    self.broken(place, format!("{} is only read", def.name));
                }
            }
        }
    }

    fn order(&mut self) {
        for (number, stage) in self.tile.stages.iter().enumerate() {
            let used = stage.roots().into_iter().flat_map(|root| self.tile.stages_of(root));
            let late: Vec<_> = used.filter(|used| used.0 as usize >= number).collect();
            for used in late {
                self.broken(format!("s{number}"), format!("uses {used}, which comes later"));
            }
        }
    }
}

//! The meaning of tile programs: every grid point in order, every stage anew wherever the axes stand that it depends on.
//! Slow and plain on purpose; the back ends are compared with it.

use crate::{
    Access, Atom, AxisId, Binding, Expr, ExprId, Index, Layout, Load, Monoid, ParamId, Real, ScalarOp, Stage,
    StageId, Tensor, TileProgram,
};
use std::collections::BTreeSet;

/// Runs a tile program on `params`, one tensor for each parameter in order; those that are written must be allocated.
/// Panics if a tensor's shape is not the parameter's, or an index is outside.
pub fn evaluate_tile<R: Real>(tile: &TileProgram, binding: &Binding, params: &mut [Tensor<R>]) {
    let extents: Vec<usize> = tile.axes.values().map(|axis| axis.extent.eval(binding) as usize).collect();
    for (param, tensor) in tile.params.values().zip(params.iter()) {
        let stored = param.stored();
        let shape: Vec<usize> = stored.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
        assert_eq!(shape, tensor.shape, "shape of {}", param.name);
    }
    let point = vec![0; extents.len()];
    let kept = tile.stages.iter().map(|_| None).collect();
    let mut machine = Machine { tile, extents, point, params, free: free_axes(tile), kept };
    machine.each(&tile.grid, &mut |machine| {
        for stage in &machine.tile.stages {
            if let Stage::Store { axes, param, index, value } = stage {
                machine.each(axes, &mut |machine| {
                    let element = machine.value(*value).stored(machine.tile.params[*param].ty.dtype);
                    let at = machine.offset(*param, index);
                    machine.params[param.0 as usize].data[at] = element;
                    if machine.tile.params[*param].access == Access::ReadWrite {
                        machine.kept.fill(None);
                    }
                });
            }
        }
    });
}

/// The axes that each stage's result depends on.
fn free_axes(tile: &TileProgram) -> Vec<BTreeSet<AxisId>> {
    let mut free: Vec<BTreeSet<AxisId>> = Vec::with_capacity(tile.stages.len());
    for stage in &tile.stages {
        let mut axes = BTreeSet::new();
        for id in stage.roots().into_iter().flat_map(|root| tile.cone(root)) {
            match &tile.exprs[id] {
                Expr::Index(index) => axes.extend(index.axes()),
                Expr::Load(load) => axes.extend(load.axes()),
                Expr::Stage(used) => axes.extend(free.get(used.0 as usize).into_iter().flatten()),
                Expr::Const(_) | Expr::Apply(..) | Expr::Cast(..) => {}
            }
        }
        let folded = match stage {
            Stage::Mma { axis, a, b } => {
                axes.extend(a.axes().into_iter().chain(b.axes()));
                Some(axis)
            }
            Stage::Online { axis, value, .. } => {
                axes.extend(value.axes());
                Some(axis)
            }
            Stage::Reduce { axis, .. } => Some(axis),
            Stage::Store { .. } => None,
        };
        folded.map(|axis| axes.remove(axis));
        free.push(axes);
    }
    free
}

/// A stage's result and where the axes stood that it depends on.
type Kept<R> = Option<(Vec<usize>, R)>;

struct Machine<'a, R> {
    tile: &'a TileProgram,
    extents: Vec<usize>,
    point: Vec<usize>,
    params: &'a mut [Tensor<R>],
    free: Vec<BTreeSet<AxisId>>,
    kept: Vec<Kept<R>>,
}

impl<R: Real> Machine<'_, R> {
    fn each(&mut self, axes: &[AxisId], body: &mut dyn FnMut(&mut Self)) {
        let Some((axis, rest)) = axes.split_first() else { return body(self) };
        for at in 0..self.extents[axis.0 as usize] {
            self.point[axis.0 as usize] = at;
            self.each(rest, body);
        }
    }

    fn index(&self, index: &Index) -> i64 {
        index.terms.iter().fold(index.offset, |sum, (atom, factor)| sum + factor * self.atom(atom))
    }

    fn atom(&self, atom: &Atom) -> i64 {
        match atom {
            Atom::Axis(axis) => self.point[axis.0 as usize] as i64,
            Atom::Div(index, divisor) => self.index(index).div_euclid(*divisor as i64),
            Atom::Mod(index, divisor) => self.index(index).rem_euclid(*divisor as i64),
            Atom::Load(load) => self.load(load).to_f64() as i64,
        }
    }

    fn offset(&self, param: ParamId, index: &[Index]) -> usize {
        let tensor = &self.params[param.0 as usize];
        index.iter().zip(&tensor.shape).fold(0, |offset, (index, extent)| {
            let at = self.index(index);
            assert!(
                at >= 0 && (at as usize) < *extent,
                "index {at} of {extent} in {}",
                self.tile.params[param].name
            );
            offset * extent + at as usize
        })
    }

    fn load(&self, load: &Load) -> R {
        if self.tile.params[load.param].layout == Layout::Halves {
            return self.half(load);
        }
        self.params[load.param.0 as usize].data[self.offset(load.param, &load.index)]
    }

    /// An element that shares its byte.
    fn half(&self, load: &Load) -> R {
        let mut index = load.index.clone();
        let last = index.last().map_or(0, |last| self.index(last));
        index.iter_mut().next_back().into_iter().for_each(|at| *at = Index::constant(last.div_euclid(2)));
        let byte = self.params[load.param.0 as usize].data[self.offset(load.param, &index)].to_f64();
        let half = if last.rem_euclid(2) == 0 { byte % 16.0 } else { (byte / 16.0).floor() };
        R::from_f64(half - 8.0)
    }

    fn value(&mut self, id: ExprId) -> R {
        let tile = self.tile;
        match &tile.exprs[id] {
            Expr::Const(value) => R::from_f64(value.get()),
            Expr::Index(index) => R::from_f64(self.index(index) as f64),
            Expr::Load(load) => self.load(load),
            Expr::Stage(stage) => self.stage(*stage),
            Expr::Cast(dtype, arg) => self.value(*arg).stored(*dtype),
            Expr::Apply(ScalarOp::Select, args) => {
                let chosen = if self.value(args[0]).to_f64() != 0.0 { args[1] } else { args[2] };
                self.value(chosen)
            }
            Expr::Apply(op, args) => {
                let args: Vec<R> = args.iter().map(|arg| self.value(*arg)).collect();
                op.eval(&args)
            }
        }
    }

    fn stage(&mut self, stage: StageId) -> R {
        let number = stage.0 as usize;
        let point: Vec<usize> = self.free[number].iter().map(|axis| self.point[axis.0 as usize]).collect();
        if let Some((_, result)) = self.kept[number].as_ref().filter(|(kept, _)| *kept == point) {
            return *result;
        }
        let result = self.compute(stage);
        self.kept[number] = Some((point, result));
        result
    }

    fn compute(&mut self, stage: StageId) -> R {
        let tile = self.tile;
        match &tile.stages[stage.0 as usize] {
            Stage::Reduce { axis, monoid, value } => {
                let start = R::from_f64(if *monoid == Monoid::Sum { 0.0 } else { f64::NEG_INFINITY });
                self.fold(*axis, start, |machine, folded| {
                    let element = machine.value(*value);
                    if *monoid == Monoid::Sum {
                        folded.add(element)
                    } else {
                        ScalarOp::Max.eval(&[folded, element])
                    }
                })
            }
            Stage::Mma { axis, a, b } => self
                .fold(*axis, R::from_f64(0.0), |machine, sum| sum.add(machine.load(a).mul(machine.load(b)))),
            Stage::Online { axis, start, score, value, factor, .. } => {
                self.online(*axis, *start, *score, (value, *factor))
            }
            Stage::Store { .. } => unreachable!("a store has no result; the verifier refuses its use"),
        }
    }

    fn fold(&mut self, axis: AxisId, start: R, mut step: impl FnMut(&mut Self, R) -> R) -> R {
        let saved = self.point[axis.0 as usize];
        let mut folded = start;
        for at in 0..self.extents[axis.0 as usize] {
            self.point[axis.0 as usize] = at;
            folded = step(self, folded);
        }
        self.point[axis.0 as usize] = saved;
        folded
    }

    /// Two passes: the bounds `from` and `to` are promises about the score, so the full range gives the same.
    fn online(
        &mut self,
        axis: AxisId,
        start: Option<ExprId>,
        score: ExprId,
        (value, factor): (&Load, Option<ExprId>),
    ) -> R {
        let (zero, lowest) = (R::from_f64(0.0), R::from_f64(f64::NEG_INFINITY));
        let start = start.map(|start| self.value(start));
        let max = self.fold(axis, start.unwrap_or(lowest), |machine, max| {
            ScalarOp::Max.eval(&[max, machine.value(score)])
        });
        if max.to_f64() == f64::NEG_INFINITY {
            return zero;
        }
        let weight = |machine: &mut Self| machine.value(score).sub(max).apply(f64::exp);
        let first = start.map_or(zero, |start| start.sub(max).apply(f64::exp));
        let sum = self.fold(axis, first, |machine, sum| sum.add(weight(machine)));
        let weighted = self.fold(axis, zero, |machine, acc| {
            let weight = weight(machine);
            if weight.to_f64() == 0.0 {
                return acc;
            }
            let factor = factor.map(|factor| machine.value(factor));
            let weight = factor.map_or(weight, |factor| weight.mul(factor));
            acc.add(weight.mul(machine.load(value)))
        });
        weighted.div(sum)
    }
}

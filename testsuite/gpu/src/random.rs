//! Random tile programs: grids, loops, stages and indices of any kind.

use crate::launch::Stream;
use sinter_ir::ScalarOp::*;
use sinter_ir::*;

/// Every index into a tensor is taken modulo this.
pub const EXTENT: usize = 6;

struct Maker {
    stream: Stream,
    tile: TileProgram,
    numbers: Vec<ParamId>,
    wholes: ParamId,
}

fn remainder(index: Index) -> Index {
    Index::atom(Atom::Mod(Box::new(index), EXTENT as u64))
}

/// The random program of a seed. Its parameters hold numbers but for the one of type u32, which holds whole numbers below
/// [`EXTENT`].
pub fn program(seed: u64) -> TileProgram {
    let mut stream = Stream(seed.wrapping_mul(2654435761).wrapping_add(99));
    stream.next_bits();
    let tile = TileProgram { name: format!("random{seed}"), ..TileProgram::default() };
    let mut maker = Maker { stream, tile, numbers: Vec::new(), wholes: ParamId(0) };
    maker.wholes = maker.param("i", DType::U32, [EXTENT.into()], Access::Read);
    for at in 0..3 {
        let dtype = [DType::F32, DType::Bf16, DType::F16][maker.stream.below(3)];
        let wide: Dim = [6, 8, 12, 16][maker.stream.below(4)].into();
        let shape = if at == 1 { [Sym::T.into(), wide] } else { [wide, 8.into()] };
        let param = maker.param("x", dtype, shape, Access::Read);
        maker.numbers.push(param);
    }
    let dtype = [DType::F32, DType::Bf16][maker.stream.below(2)];
    let panels = maker.param("w", dtype, [9.into(), 7.into()], Access::Read);
    maker.tile.params[panels].layout = Layout::Panels;
    maker.numbers.push(panels);
    maker.fill();
    maker.tile
}

impl Maker {
    fn param(&mut self, name: &str, dtype: DType, shape: impl Into<Vec<Dim>>, access: Access) -> ParamId {
        let (name, ty) = (name.into(), Type::new(dtype, shape));
        self.tile.params.push(TileParam { name, ty, access, layout: Layout::Rows })
    }

    fn axis(&mut self, name: &str, extent: impl Into<Dim>) -> AxisId {
        self.tile.axes.push(Axis { name: name.into(), extent: extent.into() })
    }

    fn apply(&mut self, op: ScalarOp, args: &[ExprId]) -> ExprId {
        self.tile.expr(Expr::Apply(op, args.into()))
    }

    /// An index below [`EXTENT`].
    fn index(&mut self, axes: &[AxisId], depth: usize) -> Index {
        let axis = Index::axis(axes[self.stream.below(axes.len())]);
        match self.stream.below(if depth == 0 { 4 } else { 7 }) {
            0 | 1 => remainder(axis),
            2 => {
                let other = Index::axis(axes[self.stream.below(axes.len())]);
                let factor = self.stream.below(5) as i64 - 2;
                remainder(axis.times(factor).plus(&other).plus(&Index::constant(-1)))
            }
            3 => Index::constant(self.stream.below(EXTENT) as i64),
            4 => {
                let index = vec![self.index(axes, depth - 1)];
                Index::atom(Atom::Load(Box::new(Load { param: self.wholes, index })))
            }
            5 => {
                let inner = self.index(axes, depth - 1).plus(&axis.times(4));
                remainder(Index::atom(Atom::Div(Box::new(inner), 4)).plus(&Index::constant(-1)))
            }
            _ => remainder(self.index(axes, depth - 1).plus(&axis)),
        }
    }

    /// A load whose last index is mostly an axis by itself, so that elements lie side by side.
    fn load(&mut self, axes: &[AxisId]) -> Load {
        let param = self.numbers[self.stream.below(self.numbers.len())];
        let last = axes[axes.len() - 1];
        let extent = self.tile.axes[last].extent.as_const();
        let shape = self.tile.params[param].ty.shape.clone();
        let fits = extent.is_some_and(|extent| shape[1].as_const().is_some_and(|all| extent <= all));
        let first = self.index(axes, 2);
        let second = if fits && self.stream.below(4) > 0 { Index::axis(last) } else { self.index(axes, 2) };
        Load { param, index: vec![first, second] }
    }

    fn number(&mut self, axes: &[AxisId], known: &[ExprId], depth: usize) -> ExprId {
        if depth == 0 || self.stream.below(4) == 0 {
            return match self.stream.below(6) {
                0 => self.tile.expr(Expr::Const(Float::new(0.5))),
                1 => {
                    let index = self.index(axes, 1);
                    self.tile.expr(Expr::Index(index))
                }
                2 if !known.is_empty() => known[self.stream.below(known.len())],
                _ => {
                    let load = self.load(axes);
                    self.tile.expr(Expr::Load(load))
                }
            };
        }
        let x = self.number(axes, known, depth - 1);
        let y = self.number(axes, known, depth - 1);
        match self.stream.below(11) {
            0 => self.apply(Add, &[x, y]),
            1 => self.apply(Sub, &[x, y]),
            2 => self.apply(Mul, &[x, y]),
            3 => self.apply(Max, &[x, y]),
            4 => self.apply(Min, &[x, y]),
            5 => self.apply(Tanh, &[x]),
            6 => self.apply(Erf, &[x]),
            7 => {
                let bounded = self.apply(Tanh, &[x]);
                let op = [Exp, Sin, Cos, Abs, Neg][self.stream.below(5)];
                self.apply(op, &[bounded])
            }
            8 => {
                let square = self.apply(Mul, &[x, x]);
                let half = self.tile.expr(Expr::Const(Float::new(0.5)));
                let sum = self.apply(Add, &[square, half]);
                let op = [Sqrt, Rsqrt, Recip, Log][self.stream.below(4)];
                self.apply(op, &[sum])
            }
            9 => {
                let index = self.index(axes, 1);
                let (here, limit) = (self.tile.expr(Expr::Index(index)), Expr::Const(Float::new(3.0)));
                let limit = self.tile.expr(limit);
                let op = [Lt, Le, Eq][self.stream.below(3)];
                let first = self.apply(op, &[here, limit]);
                self.apply(Select, &[first, x, y])
            }
            _ => self.tile.expr(Expr::Cast(DType::F32, x)),
        }
    }

    fn stage(&mut self, grid: &[AxisId], known: &[ExprId]) -> ExprId {
        let extent: Dim = [1.into(), 8.into(), 7.into(), 6.into(), Sym::T.into()][self.stream.below(5)];
        let axis = self.axis("k", extent);
        let axes = [grid, &[axis]].concat();
        let stage = match self.stream.below(5) {
            0 => Stage::Mma { axis, a: self.load(&axes), b: self.load(&axes) },
            1 => {
                let lanes = self.axis("l", 3);
                let score = self.number(&axes, known, 2);
                let start = (self.stream.below(2) == 0).then(|| self.number(grid, known, 1));
                let factor = (self.stream.below(3) == 0).then(|| self.number(&axes, known, 1));
                let value = self.load(&axes);
                Stage::Online { axis, from: None, to: None, start, score, lanes, value, factor }
            }
            _ => {
                let monoid = [Monoid::Sum, Monoid::Max][self.stream.below(2)];
                Stage::Reduce { axis, monoid, value: self.number(&axes, known, 2) }
            }
        };
        self.tile.stages.push(stage);
        self.tile.expr(Expr::Stage(StageId(self.tile.stages.len() as u32 - 1)))
    }

    fn fill(&mut self) {
        let t = self.axis("t", Sym::T);
        let h = self.axis("h", EXTENT);
        let grid = [vec![t, h], vec![t], vec![h, t]][self.stream.below(3)].clone();
        self.tile.grid = grid.clone();
        let mut known = Vec::new();
        for _ in 0..self.stream.below(3) {
            let result = self.stage(&grid, &known);
            known.push(result);
        }
        for _ in 0..1 + self.stream.below(2) {
            let width = [1, 3, 8, 6][self.stream.below(4)];
            let inner = match self.stream.below(3) {
                0 => vec![],
                1 => vec![self.axis("d", width)],
                _ => vec![self.axis("e", 2), self.axis("d", width)],
            };
            let axes = [&grid[..], &inner[..]].concat();
            // A stage that depends on the store's own axes is computed at each of them.
            let own = if self.stream.below(3) == 0 { vec![self.stage(&axes, &known)] } else { vec![] };
            let value = self.number(&axes, &[&known[..], &own[..]].concat(), 3);
            let dims: Vec<Dim> = axes.iter().map(|axis| self.tile.axes[*axis].extent).collect();
            let dtype = [DType::F32, DType::Bf16, DType::F16][self.stream.below(3)];
            let param = self.param("y", dtype, dims, Access::Write);
            let index = axes.iter().map(|axis| Index::axis(*axis)).collect();
            self.tile.stages.push(Stage::Store { axes: inner, param, index, value });
        }
    }
}

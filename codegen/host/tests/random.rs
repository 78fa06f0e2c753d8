//! Random tile programs: grids, loops, stages and indices of any kind, against the naive evaluator.

mod launch;

use launch::*;
use sinter_ir::ScalarOp::*;
use sinter_ir::*;

struct Maker {
    stream: Stream,
    b: Build,
    /// Tensors to read: of numbers, and of whole numbers below the extent of every dimension.
    numbers: Vec<ParamId>,
    wholes: ParamId,
}

/// The least extent of an axis of the grid or of a tensor; every index is taken modulo this.
const EXTENT: usize = 6;

impl Maker {
    fn new(seed: u64) -> Self {
        let mut stream = Stream(seed);
        stream.next();
        let mut b = Build::new("random");
        let mut numbers = Vec::new();
        let formats = [DType::F32, DType::Bf16, DType::F16];
        for at in 0..3 {
            let extra = stream.below(3);
            let dims: [Dim; 2] = [(EXTENT + extra).into(), Sym::T.into()];
            let dims = if at == 1 { [dims[1], dims[0]] } else { dims };
            numbers.push(b.input("x", formats[stream.below(3)], &dims));
        }
        let panels = b.panels("w", [DType::F32, DType::Bf16][stream.below(2)], 9, 7);
        numbers.push(panels);
        let wholes = b.input("i", DType::U32, &[EXTENT.into()]);
        Self { stream, b, numbers, wholes }
    }

    /// An index below [`EXTENT`].
    fn index(&mut self, axes: &[AxisId], depth: usize) -> Index {
        let axis = ax(axes[self.stream.below(axes.len())]);
        let extent = EXTENT as u64;
        match self.stream.below(if depth == 0 { 3 } else { 6 }) {
            0 | 1 => rem(axis, extent),
            2 => {
                let other = ax(axes[self.stream.below(axes.len())]);
                rem(
                    axis.times(self.stream.below(5) as i64 - 2).plus(&other).plus(&Index::constant(-1)),
                    extent,
                )
            }
            3 => {
                let inner = self.index(axes, depth - 1);
                read(self.wholes, &[inner])
            }
            4 => {
                let inner = self.index(axes, depth - 1);
                rem(div(inner.plus(&axis.times(4)), 4).plus(&Index::constant(-1)), extent)
            }
            _ => Index::constant(self.stream.below(EXTENT) as i64),
        }
    }

    fn load(&mut self, axes: &[AxisId]) -> Load {
        let param = self.numbers[self.stream.below(self.numbers.len())];
        let mut index = || {
            let index = self.index(axes, 2);
            rem(index, EXTENT as u64)
        };
        let index = [index(), index()];
        at(param, &index)
    }

    fn number(&mut self, axes: &[AxisId], known: &[ExprId], depth: usize) -> ExprId {
        let leaf = depth == 0 || self.stream.below(4) == 0;
        if leaf {
            return match self.stream.below(5) {
                0 => self.b.number(0.5),
                1 => {
                    let index = self.index(axes, 1);
                    self.b.index(index)
                }
                2 if !known.is_empty() => known[self.stream.below(known.len())],
                _ => {
                    let load = self.load(axes);
                    self.b.tile.expr(Expr::Load(load))
                }
            };
        }
        let x = self.number(axes, known, depth - 1);
        let y = self.number(axes, known, depth - 1);
        match self.stream.below(9) {
            0 => self.b.apply(Add, &[x, y]),
            1 => self.b.apply(Sub, &[x, y]),
            2 => self.b.apply(Mul, &[x, y]),
            3 => self.b.apply(Max, &[x, y]),
            4 => self.b.apply(Tanh, &[x]),
            5 => self.b.apply(Abs, &[x]),
            6 => self.b.apply(Erf, &[x]),
            7 => {
                let index = self.index(axes, 1);
                let (here, limit) = (self.b.index(index), self.b.number(3.0));
                let first = self.b.apply(Lt, &[here, limit]);
                self.b.apply(Select, &[first, x, y])
            }
            _ => self.b.apply(Min, &[x, y]),
        }
    }

    fn stage(&mut self, grid: &[AxisId], known: &[ExprId]) -> ExprId {
        let extent: Dim = [1.into(), 5.into(), 8.into(), 19.into(), Sym::T.into()][self.stream.below(5)];
        let axis = self.b.axis("k", extent);
        let axes = [grid, &[axis]].concat();
        match self.stream.below(4) {
            0 => {
                let (a, b) = (self.load(&axes), self.load(&axes));
                self.b.mma(axis, a, b)
            }
            1 => {
                let lanes = self.b.axis("l", 3);
                let score = self.number(&axes, known, 2);
                let value = self.load(&axes);
                let start = (self.stream.below(2) == 0).then(|| self.number(grid, known, 1));
                let factor = (self.stream.below(3) == 0).then(|| self.number(&axes, known, 1));
                self.b.stage(Stage::Online { axis, from: None, to: None, start, score, lanes, value, factor })
            }
            _ => {
                let monoid = [Monoid::Sum, Monoid::Max][self.stream.below(2)];
                let value = self.number(&axes, known, 2);
                self.b.reduce(axis, monoid, value)
            }
        }
    }

    fn program(mut self) -> TileProgram {
        let t = self.b.axis("t", Sym::T);
        let h = self.b.axis("h", EXTENT);
        self.b.tile.grid = vec![t, h];
        let mut known = Vec::new();
        for _ in 0..self.stream.below(3) {
            let result = self.stage(&[t, h], &known);
            known.push(result);
        }
        for _ in 0..1 + self.stream.below(2) {
            let width = [1, 3, 8, 13][self.stream.below(4)];
            let inner: Vec<AxisId> = match self.stream.below(3) {
                0 => vec![],
                1 => vec![self.b.axis("d", width)],
                _ => vec![self.b.axis("e", 2), self.b.axis("d", width)],
            };
            let axes = [&[t, h], &inner[..]].concat();
            // A stage that depends on the store's own axes is computed at each of them.
            if self.stream.below(3) == 0 {
                let result = self.stage(&axes, &known);
                known.push(result);
            }
            let value = self.number(&axes, &known, 3);
            known.retain(|id| self.b.tile.stages_of(*id).iter().all(|stage| self.on_grid(*stage)));
            let dims: Vec<Dim> = axes.iter().map(|axis| self.b.tile.axes[*axis].extent).collect();
            let dtype = [DType::F32, DType::Bf16, DType::F16][self.stream.below(3)];
            let out = self.b.output("y", dtype, &dims);
            let index: Vec<Index> = axes.iter().map(|axis| ax(*axis)).collect();
            self.b.store(&inner, out, &index, value);
        }
        self.b.tile
    }

    /// Whether a stage's loads and expressions mention no axis beyond the grid, its own loop aside.
    fn on_grid(&self, stage: StageId) -> bool {
        let own = |axes: Vec<AxisId>| {
            axes.iter().all(|axis| matches!(&self.b.tile.axes[*axis].name[..], "t" | "h" | "k" | "l"))
        };
        let load = |load: &Load| load.index.iter().all(|index| own(index.axes()));
        let expr = |root: ExprId| {
            self.b.tile.cone(root).iter().all(|id| match &self.b.tile.exprs[*id] {
                Expr::Load(l) => load(l),
                Expr::Index(index) => own(index.axes()),
                _ => true,
            })
        };
        match &self.b.tile.stages[stage.0 as usize] {
            Stage::Mma { a, b, .. } => load(a) && load(b),
            Stage::Online { score, value, factor, .. } => {
                expr(*score) && load(value) && factor.is_none_or(expr)
            }
            Stage::Reduce { value, .. } | Stage::Store { value, .. } => expr(*value),
        }
    }
}

#[test]
fn random_programs() {
    for seed in 0..400 {
        let mut tile = Maker::new(seed * 977 + 5).program();
        tile.name = format!("random{seed}");
        let mut stream = Stream(seed);
        let binding = Binding::new(7 + seed % 3, 2, 1, 16);
        let mut params: Vec<_> = tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
        params[4] = wholes(&mut stream, &[EXTENT], EXTENT);
        // Sums of at most 19 terms up to 6⁴, nested twice.
        check(&tile, &binding, &params, 1e-4);
    }
}

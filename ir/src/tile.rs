//! Tile programs: what one kernel computes, independent of how.
//!
//! A program is a grid of independent points and, at each point, a list of stages. A stage folds an expression along
//! an axis ([`Stage::Reduce`]), contracts two loads ([`Stage::Mma`]), carries the online softmax along the context
//! ([`Stage::Online`]), or stores an expression ([`Stage::Store`]). Prologues and epilogues are expressions over loads
//! and stage results, so one description covers matrix products with any epilogue, norms, attention under any mask,
//! and element-wise chains. Views are gone: they live in the indices.
//!
//! The structure decides the kernel skeleton; a back end never looks at names.

use crate::entity::entity;
use crate::op::Float;
use crate::{Codes, DType, Dim, IdVec, Monoid, ScalarOp, Type};
use serde::{Deserialize, Serialize};

entity!(
    /// A parameter of a tile program: a buffer.
    ParamId, "p"
);
entity!(
    /// A loop axis.
    AxisId, "a"
);
entity!(
    /// A scalar expression.
    ExprId, "e"
);
entity!(
    /// A stage; as an operand, its result.
    StageId, "s"
);

/// How a program uses a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Access {
    /// Loads only.
    Read,
    /// Stores only.
    Write,
    /// Both: a buffer that is changed in place, such as the KV cache.
    ReadWrite,
}

impl TileParam {
    /// The type of the tensor in memory that the parameter shows.
    pub fn stored(&self) -> Type {
        let mut ty = self.ty.clone();
        if let (Layout::Halves, Some(last)) = (self.layout, ty.shape.last_mut()) {
            (ty.dtype, last.coeff) = (DType::U8, last.coeff / 2);
        }
        ty
    }
}

/// How a parameter lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Layout {
    /// Row-major.
    Rows,
    /// A weight `[N, K]` packed in panels of 32 output columns: f32 `[⌈N/32⌉][K][32]`, bf16 `[⌈N/32⌉][⌈K/2⌉][32][2]`,
    /// padded with zeros. Of a stack `[E, N, K]`, each of the E weights so, one after the other.
    Panels,
    /// Whole numbers from −8 to 7, two to a byte, row-major: element 2i of the last axis is the lower half of byte i, 2i + 1
    /// the upper one, each plus 8. Loads only.
    Halves,
    /// A weight `[N, K]` in codes: a load dequantises. Its elements are rounded to the type of the parameter. On the host codes
    /// lie in panels ([`Codes`]), on GPUs in the order of tensor cores (`fragments.rs`).
    Codes(Codes),
}

/// One parameter.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TileParam {
    /// A name for dumps; nothing depends on it.
    pub name: String,
    /// Element type and shape as the indices see it.
    pub ty: Type,
    /// Loads, stores or both.
    pub access: Access,
    /// How it lies in memory.
    pub layout: Layout,
}

/// One loop axis: `0..extent`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Axis {
    /// A name for dumps.
    pub name: String,
    /// The number of iterations.
    pub extent: Dim,
}

/// A whole-number expression in axes: a sum of multiples of atoms.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    /// The multiples, sorted by atom, no atom twice, no factor zero.
    pub terms: Vec<(Atom, i64)>,
    /// The constant.
    pub offset: i64,
}

/// What an [`Index`] adds up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Atom {
    /// The iteration of an axis.
    Axis(AxisId),
    /// ⌊index / divisor⌋
    Div(Box<Index>, u64),
    /// index mod divisor
    Mod(Box<Index>, u64),
    /// A u32 read from memory: a token id, a slot, a page number.
    Load(Box<Load>),
}

/// A read of one element.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Load {
    /// From where.
    pub param: ParamId,
    /// One index for each dimension.
    pub index: Vec<Index>,
}

/// A scalar expression. Loads of narrow floats give f32, those of bytes whole numbers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Expr {
    /// A number.
    Const(Float),
    /// A whole number computed from axes.
    Index(Index),
    /// An element of a parameter.
    Load(Load),
    /// The result of an earlier stage at this grid point.
    Stage(StageId),
    /// A scalar function.
    Apply(ScalarOp, Vec<ExprId>),
    /// A rounding to an element type, or a conversion between integers and floats.
    Cast(DType, ExprId),
}

/// One step at a grid point.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// `value` folded along `axis`.
    Reduce {
        /// The loop.
        axis: AxisId,
        /// How elements are combined.
        monoid: Monoid,
        /// What is folded.
        value: ExprId,
    },
    /// The sum of `a · b` along `axis`, accumulated in f32.
    Mma {
        /// The summed axis.
        axis: AxisId,
        /// The activations.
        a: Load,
        /// The weights.
        b: Load,
    },
    /// Along `axis` from `from` up to `to`, the softmax of `score`-weighted sum of `value · factor`, one result for each
    /// iteration of `lanes`: the cascaded reduction (m, l, acc) with its repair. The expression `score` sees the
    /// result of stage `dot`, which is computed anew at every iteration of `axis`.
    Online {
        /// The context axis.
        axis: AxisId,
        /// The first iteration whose score can be finite; none means 0.
        from: Option<ExprId>,
        /// One past the last iteration whose score can be finite; none means the extent.
        to: Option<ExprId>,
        /// One score more, whose weight goes to no value: where m starts, with l = 1; none means −∞ and 0. It depends on
        /// the grid alone.
        start: Option<ExprId>,
        /// The score, −∞ where masked.
        score: ExprId,
        /// The axis of the result.
        lanes: AxisId,
        /// The weighted elements, indexed by `axis` and `lanes`.
        value: Load,
        /// What each element is multiplied by, the same for all lanes of an iteration of `axis`: the scale of values that
        /// are codes; none means 1. It does not count in the sum of the weights.
        factor: Option<ExprId>,
    },
    /// `value` stored at every iteration of `axes` (beyond the grid).
    Store {
        /// The loops, outermost first.
        axes: Vec<AxisId>,
        /// To where.
        param: ParamId,
        /// One index for each dimension.
        index: Vec<Index>,
        /// What is stored.
        value: ExprId,
    },
}

/// What one kernel computes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct TileProgram {
    /// The name: structure and number, such as `contract3`.
    pub name: String,
    /// The buffers, in the order of a step's arguments.
    pub params: IdVec<ParamId, TileParam>,
    /// All loop axes.
    pub axes: IdVec<AxisId, Axis>,
    /// The axes whose points are independent, outermost first.
    pub grid: Vec<AxisId>,
    /// All scalar expressions; operands come earlier.
    pub exprs: IdVec<ExprId, Expr>,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

impl Index {
    /// A constant.
    pub fn constant(offset: i64) -> Self {
        Self { terms: Vec::new(), offset }
    }
    /// One atom.
    pub fn atom(atom: Atom) -> Self {
        Self { terms: vec![(atom, 1)], offset: 0 }
    }
    /// The iteration of an axis.
    pub fn axis(axis: AxisId) -> Self {
        Self::atom(Atom::Axis(axis))
    }
    /// The constant, if it is one.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.offset)
    }
    /// The sum.
    pub fn plus(&self, other: &Index) -> Self {
        let mut sum = Self { terms: self.terms.clone(), offset: self.offset + other.offset };
        for (atom, factor) in &other.terms {
            match sum.terms.binary_search_by(|(a, _)| a.cmp(atom)) {
                Ok(at) => sum.terms[at].1 += factor,
                Err(at) => sum.terms.insert(at, (atom.clone(), *factor)),
            }
        }
        sum.terms.retain(|(_, factor)| *factor != 0);
        sum
    }
    /// The multiple.
    pub fn times(&self, factor: i64) -> Self {
        if factor == 0 {
            return Self::constant(0);
        }
        let terms = self.terms.iter().map(|(atom, f)| (atom.clone(), f * factor)).collect();
        Self { terms, offset: self.offset * factor }
    }
    /// The factor of an axis among the direct terms.
    pub fn stride(&self, axis: AxisId) -> i64 {
        self.terms.iter().find(|(atom, _)| *atom == Atom::Axis(axis)).map_or(0, |(_, factor)| *factor)
    }
    /// All axes that are mentioned, at any depth.
    pub fn axes(&self) -> Vec<AxisId> {
        let mut axes = Vec::new();
        self.collect_axes(&mut axes);
        axes.sort_unstable();
        axes.dedup();
        axes
    }
    fn collect_axes(&self, axes: &mut Vec<AxisId>) {
        for (atom, _) in &self.terms {
            match atom {
                Atom::Axis(axis) => axes.push(*axis),
                Atom::Div(index, _) | Atom::Mod(index, _) => index.collect_axes(axes),
                Atom::Load(load) => load.index.iter().for_each(|index| index.collect_axes(axes)),
            }
        }
    }
}

impl Load {
    /// All axes that the indices mention, at any depth.
    pub fn axes(&self) -> Vec<AxisId> {
        self.index.iter().flat_map(Index::axes).collect()
    }
}

impl Stage {
    /// The expressions that the stage evaluates.
    pub fn roots(&self) -> Vec<ExprId> {
        match self {
            Stage::Reduce { value, .. } | Stage::Store { value, .. } => vec![*value],
            Stage::Mma { .. } => Vec::new(),
            Stage::Online { from, to, start, score, factor, .. } => {
                [Some(*score), *from, *to, *start, *factor].into_iter().flatten().collect()
            }
        }
    }
}

impl TileProgram {
    /// The id of an expression, which is added if it is new.
    pub fn expr(&mut self, expr: Expr) -> ExprId {
        let known = self.exprs.iter().find(|(_, known)| **known == expr).map(|(id, _)| id);
        known.unwrap_or_else(|| self.exprs.push(expr))
    }
    /// All expressions below `root`, itself included, operands first.
    pub fn cone(&self, root: ExprId) -> Vec<ExprId> {
        let mut needed = vec![false; root.0 as usize + 1];
        needed[root.0 as usize] = true;
        for at in (0..needed.len()).rev().filter(|at| *at < self.exprs.len()) {
            if !needed[at] {
                continue;
            }
            match &self.exprs[ExprId(at as u32)] {
                Expr::Apply(_, args) => args.iter().for_each(|arg| needed[arg.0 as usize] = true),
                Expr::Cast(_, arg) => needed[arg.0 as usize] = true,
                Expr::Const(_) | Expr::Index(_) | Expr::Load(_) | Expr::Stage(_) => {}
            }
        }
        (0..needed.len()).filter(|at| needed[*at]).map(|at| ExprId(at as u32)).collect()
    }
    /// The stages whose results an expression uses.
    pub fn stages_of(&self, root: ExprId) -> Vec<StageId> {
        let stage = |id: &ExprId| if let Expr::Stage(stage) = &self.exprs[*id] { Some(*stage) } else { None };
        self.cone(root).iter().filter_map(stage).collect()
    }
    /// The element type of an expression's value: F32, U32, I32 or Bool.
    pub fn dtype(&self, id: ExprId) -> DType {
        match &self.exprs[id] {
            Expr::Const(_) | Expr::Stage(_) => DType::F32,
            Expr::Index(_) => DType::U32,
            Expr::Load(load) => match self.params[load.param].ty.dtype {
                DType::U8 => DType::U32,
                DType::I8 => DType::I32,
                dtype if dtype.is_float() => DType::F32,
                dtype => dtype,
            },
            Expr::Apply(op, _) if op.is_predicate() => DType::Bool,
            Expr::Apply(op, args) => self.dtype(args[usize::from(*op == ScalarOp::Select)]),
            Expr::Cast(dtype, _) if dtype.is_float() => DType::F32,
            Expr::Cast(DType::U8, _) => DType::U32,
            Expr::Cast(DType::I8, _) => DType::I32,
            Expr::Cast(dtype, _) => *dtype,
        }
    }
}

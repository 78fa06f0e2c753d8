//! What is known about each expression and stage before any code is emitted: the axes it depends on, whether it reads
//! memory that the program itself changes, and whether it may be evaluated where its value is not wanted.

use crate::CodegenError;
use sinter_ir::{
    Access, Atom, AxisId, DType, Expr, ExprId, IdVec, Index, Layout, Load, ParamId, ScalarOp, Stage, StageId,
    TileProgram, verify_tile,
};

/// The most axes of a program: the bits of an [`AxisSet`].
const MAX_AXES: usize = 128;

/// A set of axes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct AxisSet(u128);

impl AxisSet {
    pub(crate) fn of(axes: &[AxisId]) -> Self {
        Self(axes.iter().fold(0, |set, axis| set | 1 << axis.0))
    }
    pub(crate) fn has(self, axis: AxisId) -> bool {
        self.0 >> axis.0 & 1 == 1
    }
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub(crate) fn without(self, axis: AxisId) -> Self {
        Self(self.0 & !(1 << axis.0))
    }
    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    pub(crate) fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
    pub(crate) fn iter(self) -> impl Iterator<Item = AxisId> {
        (0..MAX_AXES as u32).map(AxisId).filter(move |axis| self.has(*axis))
    }
}

/// What is known about an expression or a stage.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Fact {
    /// The axes that its value depends on.
    pub(crate) axes: AxisSet,
    /// It reads a parameter that the program stores to.
    pub(crate) mutable: bool,
    /// It stands below an arm of a select, where it is evaluated although the other arm may be taken: its indices may
    /// lie outside, and are clamped.
    pub(crate) guarded: bool,
}

/// What is known about a program.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Facts {
    pub(crate) exprs: IdVec<ExprId, Fact>,
    pub(crate) stages: IdVec<StageId, Fact>,
    stored: Vec<ParamId>,
}

impl Facts {
    /// Checks a program and collects its facts.
    pub(crate) fn of(tile: &TileProgram) -> Result<Self, CodegenError> {
        check(tile)?;
        let store = |stage: &Stage| if let Stage::Store { param, .. } = stage { Some(*param) } else { None };
        let mut facts = Self {
            exprs: tile.exprs.values().map(|_| Fact::default()).collect(),
            stages: tile.stages.iter().map(|_| Fact::default()).collect(),
            stored: tile.stages.iter().filter_map(store).collect(),
        };
        // An expression may use a stage, and a stage the expressions before and after it: a second look at what the
        // first one found is enough for each stage, as stages use earlier ones only.
        for _ in 0..=tile.stages.len() {
            let before = facts.clone();
            facts.depend(tile);
            if facts == before {
                break;
            }
        }
        facts.guard(tile);
        Ok(facts)
    }

    pub(crate) fn is_stored(&self, param: ParamId) -> bool {
        self.stored.contains(&param)
    }

    pub(crate) fn load(&self, load: &Load) -> Fact {
        let own = Fact { mutable: self.is_stored(load.param), ..Fact::default() };
        load.index.iter().fold(own, |fact, index| fact.and(self.index(index)))
    }

    pub(crate) fn index(&self, index: &Index) -> Fact {
        index.terms.iter().fold(Fact::default(), |fact, (atom, _)| fact.and(self.atom(atom)))
    }

    pub(crate) fn atom(&self, atom: &Atom) -> Fact {
        match atom {
            Atom::Axis(axis) => Fact { axes: AxisSet::of(&[*axis]), ..Fact::default() },
            Atom::Div(index, _) | Atom::Mod(index, _) => self.index(index),
            Atom::Load(load) => self.load(load),
        }
    }

    /// Whether a store changes what its own value reads at another iteration: then its order counts. Reading just the
    /// element that is stored is harmless.
    pub(crate) fn overlaps(&self, tile: &TileProgram, store: &Stage) -> bool {
        let Stage::Store { axes, param, index, value } = store else { return false };
        let moving = index.iter().fold(AxisSet::default(), |set, index| set.with(self.index(index).axes));
        let once = AxisSet::of(axes).within(moving);
        let mut loads = Vec::new();
        index.iter().for_each(|index| index_loads(index, &mut loads));
        let in_index = loads.iter().any(|load| load.param == *param);
        loads.clear();
        value_loads(tile, *value, &mut loads);
        let elsewhere = |load: &&&Load| load.param == *param && !(once && load.index == *index);
        in_index || loads.iter().any(|load| elsewhere(&load))
    }

    fn depend(&mut self, tile: &TileProgram) {
        for (id, expr) in tile.exprs.iter() {
            self.exprs[id] = match expr {
                Expr::Const(_) => Fact::default(),
                Expr::Index(index) => self.index(index),
                Expr::Load(load) => self.load(load),
                Expr::Stage(stage) => self.stages[*stage],
                Expr::Apply(_, args) => {
                    args.iter().fold(Fact::default(), |fact, arg| fact.and(self.exprs[*arg]))
                }
                Expr::Cast(_, arg) => self.exprs[*arg],
            };
        }
        for (number, stage) in tile.stages.iter().enumerate() {
            self.stages[StageId(number as u32)] = self.stage(stage);
        }
    }

    fn stage(&self, stage: &Stage) -> Fact {
        match stage {
            Stage::Reduce { axis, value, .. } => self.exprs[*value].over(*axis),
            Stage::Mma { axis, a, b } => self.load(a).and(self.load(b)).over(*axis),
            Stage::Online { axis, from, to, start, score, value, factor, .. } => {
                let factor = factor.map_or(Fact::default(), |factor| self.exprs[factor]);
                let folded = self.exprs[*score].and(self.load(value)).and(factor).over(*axis);
                [from, to, start]
                    .into_iter()
                    .flatten()
                    .fold(folded, |fact, bound| fact.and(self.exprs[*bound]))
            }
            Stage::Store { .. } => Fact::default(),
        }
    }

    fn guard(&mut self, tile: &TileProgram) {
        loop {
            let before = self.clone();
            for (id, expr) in tile.exprs.iter().rev() {
                match expr {
                    Expr::Apply(op, args) => {
                        for (position, arg) in args.iter().enumerate() {
                            let arm = *op == ScalarOp::Select && position > 0;
                            self.exprs[*arg].guarded |= self.exprs[id].guarded || arm;
                        }
                    }
                    Expr::Cast(_, arg) => self.exprs[*arg].guarded |= self.exprs[id].guarded,
                    Expr::Stage(stage) => self.stages[*stage].guarded |= self.exprs[id].guarded,
                    Expr::Const(_) | Expr::Index(_) | Expr::Load(_) => {}
                }
            }
            for (number, stage) in tile.stages.iter().enumerate() {
                if self.stages[StageId(number as u32)].guarded {
                    stage.roots().into_iter().for_each(|root| self.exprs[root].guarded = true);
                }
            }
            if *self == before {
                return;
            }
        }
    }
}

impl Fact {
    fn and(self, other: Fact) -> Fact {
        Fact {
            axes: self.axes.with(other.axes),
            mutable: self.mutable || other.mutable,
            guarded: self.guarded || other.guarded,
        }
    }
    fn over(self, axis: AxisId) -> Fact {
        Fact { axes: self.axes.without(axis), guarded: false, ..self }
    }
}

/// All loads that an expression makes, in its stages and indices too.
pub(crate) fn value_loads<'a>(tile: &'a TileProgram, root: ExprId, loads: &mut Vec<&'a Load>) {
    for id in tile.cone(root) {
        match &tile.exprs[id] {
            Expr::Load(load) => push_load(load, loads),
            Expr::Index(index) => index_loads(index, loads),
            Expr::Stage(stage) => {
                let stage = &tile.stages[stage.0 as usize];
                stage.roots().into_iter().for_each(|root| value_loads(tile, root, loads));
                match stage {
                    Stage::Mma { a, b, .. } => [a, b].into_iter().for_each(|load| push_load(load, loads)),
                    Stage::Online { value, .. } => push_load(value, loads),
                    Stage::Reduce { .. } | Stage::Store { .. } => {}
                }
            }
            Expr::Const(_) | Expr::Apply(..) | Expr::Cast(..) => {}
        }
    }
}

fn push_load<'a>(load: &'a Load, loads: &mut Vec<&'a Load>) {
    loads.push(load);
    load.index.iter().for_each(|index| index_loads(index, loads));
}

fn index_loads<'a>(index: &'a Index, loads: &mut Vec<&'a Load>) {
    for (atom, _) in &index.terms {
        match atom {
            Atom::Axis(_) => {}
            Atom::Div(inner, _) | Atom::Mod(inner, _) => index_loads(inner, loads),
            Atom::Load(load) => push_load(load, loads),
        }
    }
}

/// The rules of [`verify_tile`], and those that code generation leans on besides.
fn check(tile: &TileProgram) -> Result<(), CodegenError> {
    let mut broken: Vec<String> = verify_tile(tile).iter().map(ToString::to_string).collect();
    if tile.axes.len() > MAX_AXES {
        broken.push(format!("{} axes, at most {MAX_AXES} are wanted", tile.axes.len()));
    }
    let plain = [Layout::Rows, Layout::Halves];
    for (id, param) in tile.params.iter().filter(|(_, param)| !plain.contains(&param.layout)) {
        let constant = param.ty.shape.iter().all(|dim| dim.as_const().is_some());
        let packed = matches!(param.ty.dtype, DType::F32 | DType::Bf16) && param.access == Access::Read;
        if !matches!(param.ty.rank(), 2 | 3) || !constant || !packed {
            broken.push(format!(
                "{id}: panels are read-only matrices, or a stack of them, of f32 or bf16 of constant shape"
            ));
        } else if let Layout::Codes(codes) = param.layout
            && !(param.ty.rank() == 2 && codes.fits(param.ty.shape[1].coeff as usize))
        {
            broken.push(format!("{id}: {codes} are of matrices whose depth is whole groups"));
        }
    }
    let stored = tile.params.values().map(|param| param.ty.dtype);
    let rounded =
        tile.exprs.values().filter_map(|expr| if let Expr::Cast(to, _) = expr { Some(*to) } else { None });
    let unknown = |dtype: &DType| dtype.is_float8() && *dtype != DType::F8e4m3;
    if let Some(dtype) = stored.chain(rounded).find(unknown) {
        broken.push(format!(
            "{dtype} is a type of stored weights, kernels read and write f32, bf16, f16 and f8e4m3"
        ));
    }
    if broken.is_empty() {
        return Ok(());
    }
    Err(CodegenError::Malformed { kernel: tile.name.clone(), reason: broken.join("; ") })
}

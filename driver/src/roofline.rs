//! What a launch must move and compute at least, from the tile programs that it does.

use crate::ptx::Estimate;
use sinter_ir::{
    Access, Arg, Atom, Binding, DType, Expr, GpuLaunch, Index, Load, PAGE, ParamId, Plan, Stage, Sym,
    TileProgram, gpu_weight_bytes,
};
use std::collections::BTreeSet;

/// Tokens in the context of the step that is estimated.
pub const CONTEXT: u64 = 1024;

/// The step that is estimated: so many tokens, each of a sequence of its own with [`CONTEXT`] tokens.
pub fn binding(tokens: u64) -> Binding {
    let pages = CONTEXT / PAGE;
    Binding::new(tokens, tokens, pages, tokens * CONTEXT)
}

/// The least that a launch can do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Minimum {
    /// Bytes, each tensor once; of tables and of the KV cache only the rows that are wanted.
    pub bytes: u64,
    /// Multiplications and additions of products.
    pub operations: u64,
    /// Whether the products have 16-bit operands, which tensor cores take.
    pub matrix: bool,
}

impl Minimum {
    /// Of a launch under a binding.
    pub fn of(plan: &Plan, launch: &GpuLaunch, binding: &Binding) -> Self {
        let mut least = Self::default();
        let mut seen = BTreeSet::new();
        for step in launch.steps.iter().filter_map(|step| plan.steps.get(*step)) {
            let Some(tile) = plan.kernels.get(step.kernel) else { continue };
            for ((id, param), arg) in tile.params.iter().zip(&step.args) {
                if seen.insert(format!("{arg:?}")) {
                    let times = if param.access == Access::ReadWrite && !reads(tile, id) {
                        1
                    } else {
                        traffic(param.access)
                    };
                    least.bytes += times * bytes(plan, (tile, id), *arg, binding);
                }
            }
            for stage in &tile.stages {
                let (operations, matrix) = products(tile, stage, binding);
                least.operations += operations;
                least.matrix |= matrix;
            }
        }
        least
    }
    /// The shortest times of it.
    pub fn estimate(&self) -> Estimate {
        Estimate::of(self.bytes as f64, self.operations as f64, self.matrix)
    }
}

fn traffic(access: Access) -> u64 {
    if access == Access::ReadWrite { 2 } else { 1 }
}

fn reads(tile: &TileProgram, param: ParamId) -> bool {
    loads(tile).iter().any(|load| load.param == param)
}

/// The bytes of an argument that a step touches.
fn bytes(plan: &Plan, (tile, id): (&TileProgram, ParamId), arg: Arg, binding: &Binding) -> u64 {
    let ty = &tile.params[id].ty;
    let whole = match arg {
        Arg::Weight(weight) => plan
            .weights
            .get(weight)
            .and_then(|def| gpu_weight_bytes(&def.ty, def.layout))
            .unwrap_or_else(|| ty.bytes(binding)),
        _ => ty.bytes(binding),
    };
    let Some(rows) = chosen_rows(tile, id, binding) else { return whole };
    let all = ty.shape.first().map_or(1, |dim| dim.eval(binding)).max(1);
    whole / all * rows.min(all)
}

/// The rows of a parameter that are chosen by indices which lie in memory themselves; none if all are wanted.
fn chosen_rows(tile: &TileProgram, id: ParamId, binding: &Binding) -> Option<u64> {
    let by_memory = |index: &Index| index.terms.iter().any(|(atom, _)| loaded(atom));
    let stores = tile.stages.iter().filter_map(|stage| match stage {
        Stage::Store { param, index, .. } if *param == id => Some(index.first()),
        _ => None,
    });
    let loads = loads(tile);
    let mut firsts =
        loads.iter().filter(|load| load.param == id).map(|load| load.index.first()).chain(stores);
    let chosen = firsts.find_map(|first| first.filter(|first| by_memory(first)))?;
    Some(chosen.axes().iter().map(|axis| tile.axes[*axis].extent.eval(binding)).fold(1, u64::saturating_mul))
}

fn loaded(atom: &Atom) -> bool {
    match atom {
        Atom::Load(_) => true,
        Atom::Axis(_) => false,
        Atom::Div(index, _) | Atom::Mod(index, _) => index.terms.iter().any(|(atom, _)| loaded(atom)),
    }
}

fn loads(tile: &TileProgram) -> Vec<&Load> {
    let direct =
        tile.exprs.values().filter_map(|expr| if let Expr::Load(load) = expr { Some(load) } else { None });
    let staged = tile.stages.iter().flat_map(|stage| match stage {
        Stage::Mma { a, b, .. } => vec![a, b],
        Stage::Online { value, .. } => vec![value],
        Stage::Reduce { .. } | Stage::Store { .. } => vec![],
    });
    direct.chain(staged).collect()
}

/// The operations of a stage's products, and whether tensor cores take them.
fn products(tile: &TileProgram, stage: &Stage, binding: &Binding) -> (u64, bool) {
    let operands = match stage {
        Stage::Mma { a, b, .. } => vec![a, b],
        Stage::Online { value, .. } => vec![value],
        Stage::Reduce { .. } | Stage::Store { .. } => return (0, false),
    };
    let mut axes: BTreeSet<_> = operands.iter().flat_map(|load| &load.index).flat_map(Index::axes).collect();
    axes.extend(&tile.grid);
    let points = axes.iter().map(|axis| tile.axes[*axis].extent.eval(binding)).fold(1, u64::saturating_mul);
    let half = |load: &&Load| matches!(tile.params[load.param].ty.dtype, DType::Bf16 | DType::F16);
    (points.saturating_mul(2), operands.iter().all(half))
}

/// The values of all symbols, for a caption: `T=1, S=1, P=64`.
pub fn caption(binding: &Binding) -> String {
    crate::device::words([Sym::T, Sym::S, Sym::P].map(|sym| format!("{sym}={}", binding.get(sym))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_ir::{KernelId, Step, Type, ValueDef};

    #[test]
    fn a_product_moves_its_operands_and_its_result() {
        let tile = TileProgram::parse(TILE).unwrap();
        let types: Vec<Type> = tile.params.values().map(|param| param.ty.clone()).collect();
        let def = |at: usize, name: &str| ValueDef { name: name.into(), ty: types[at].clone() };
        let plan = Plan {
            inputs: vec![def(0, "x"), def(1, "w")],
            outputs: vec![def(2, "y")],
            steps: vec![Step {
                kernel: KernelId(0),
                args: vec![Arg::Input(0), Arg::Input(1), Arg::Output(0)],
            }],
            kernels: [tile].into_iter().collect(),
            ..Plan::default()
        };
        let launch = GpuLaunch { kernel: 0, args: plan.steps[0].args.clone(), steps: vec![0] };
        let least = Minimum::of(&plan, &launch, &binding(2));
        assert_eq!(
            (least.bytes, least.operations, least.matrix),
            ((2 * 8 + 3 * 8 + 2 * 3) * 4, 2 * 2 * 3 * 8, false)
        );
        assert!(least.estimate().a100 > 0.0);
    }

    const TILE: &str = "tile @contract0 {
  p0: f32[T, 8] read rows \"x\"
  p1: f32[3, 8] read rows \"w\"
  p2: f32[T, 3] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..3 \"n\"
  a2 = 0..8 \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  e0 = s0
  s1 = store [] p2[a0, a1] = e0
}
";
}

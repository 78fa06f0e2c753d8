//! What every device asks of a plan before it runs one: what it reads and writes, what a batch gives it, and where its
//! result is.

use crate::{Batch, RuntimeError};
use sinter_ir::{Access, Arg, Binding, DType, Layout, Plan, Sym, TileParam, Type};

/// What is known of a plan that has passed the checks.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// Which input stands at each position of the plan's inputs.
    pub(crate) inputs: Vec<Input>,
    /// The position of the result among the plan's outputs.
    pub(crate) result: usize,
}

impl Checked {
    /// Numbers in one row of the result.
    pub(crate) fn width(&self, plan: &Plan) -> usize {
        let shape = &plan.outputs[self.result].ty.shape;
        shape.last().and_then(|dim| dim.as_const()).unwrap_or(0) as usize
    }
}

/// All checks of the plan itself.
pub(crate) fn check(plan: &Plan) -> Result<Checked, RuntimeError> {
    plan.verify()?;
    accesses(plan).map_err(RuntimeError::Load)?;
    outputs(plan).map_err(RuntimeError::Load)?;
    let inputs = inputs(plan).map_err(RuntimeError::Load)?;
    let result = plan.outputs.iter().position(|output| !is_state(plan, &output.name)).unwrap_or(0);
    Ok(Checked { inputs, result })
}

/// Whether an output is a state, which is written in place.
pub(crate) fn is_state(plan: &Plan, name: &str) -> bool {
    plan.states.iter().any(|state| state.name == name)
}

/// The inputs that a batch can give, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Tokens,
    Positions,
    Slots,
    Seq,
    Table,
    Rows,
    Types,
}

impl Input {
    const ALL: [(&'static str, Input); 7] = [
        ("tokens", Input::Tokens),
        ("positions", Input::Positions),
        ("slots", Input::Slots),
        ("seq", Input::Seq),
        ("table", Input::Table),
        ("rows", Input::Rows),
        ("types", Input::Types),
    ];

    /// What a batch has for it.
    pub(crate) fn values(self, batch: &Batch) -> &[u32] {
        match self {
            Input::Tokens => &batch.tokens,
            Input::Positions => &batch.positions,
            Input::Slots => &batch.slots,
            Input::Seq => &batch.seq,
            Input::Table => &batch.table,
            Input::Rows => &batch.rows,
            Input::Types => &batch.types,
        }
    }

    fn ty(self) -> Type {
        let shape = match self {
            Input::Tokens | Input::Positions | Input::Slots | Input::Seq | Input::Types => {
                vec![Sym::T.into()]
            }
            Input::Table => vec![Sym::S.into(), Sym::P.into()],
            Input::Rows => vec![Sym::R.into()],
        };
        Type::new(DType::U32, shape)
    }
}

/// Weights and inputs are only read; layouts agree; states are written in place.
fn accesses(plan: &Plan) -> Result<(), String> {
    each_arg(plan, |param, arg, place| {
        let layout = match arg {
            Arg::Weight(id) => plan.weights[id].layout,
            _ if param.layout == Layout::Halves => Layout::Halves,
            _ => Layout::Rows,
        };
        if param.layout != layout {
            return Err(format!("{place} is {:?} for the kernel, {layout:?} in the plan", param.layout));
        }
        match (arg, param.access) {
            (Arg::Weight(_) | Arg::Input(_), Access::Write | Access::ReadWrite) => {
                Err(format!("{place} is written, but weights and inputs are only read"))
            }
            _ => Ok(()),
        }
    })
}

/// The result is one f32 tensor that some step writes; updated states are written in place, so they are no result.
fn outputs(plan: &Plan) -> Result<(), String> {
    let results: Vec<_> = plan.outputs.iter().filter(|output| !is_state(plan, &output.name)).collect();
    let [result] = results.as_slice() else {
        return Err(format!("the plan has {} results besides its states, wanted one", results.len()));
    };
    if result.ty.dtype != DType::F32 {
        return Err(format!("the result {} is {}, wanted f32", result.name, result.ty));
    }
    let mut written = false;
    each_arg(plan, |param, arg, place| match arg {
        Arg::Output(at) if is_state(plan, &plan.outputs[at].name) => {
            Err(format!("{place}: the state {} is not written in place", plan.outputs[at].name))
        }
        Arg::Output(_) if param.access == Access::Write => {
            written = true;
            Ok(())
        }
        Arg::Output(_) if !written => Err(format!("{place} is read before it is written")),
        _ => Ok(()),
    })?;
    if written { Ok(()) } else { Err(format!("no step writes {}", result.name)) }
}

fn inputs(plan: &Plan) -> Result<Vec<Input>, String> {
    let input = |def: &sinter_ir::ValueDef| {
        let known = Input::ALL.iter().find(|(name, _)| *name == def.name).map(|(_, input)| *input);
        let input =
            known.ok_or_else(|| format!("the plan wants an input {:?}, which no batch has", def.name))?;
        if def.ty != input.ty() {
            return Err(format!("the input {} is {}, wanted {}", def.name, def.ty, input.ty()));
        }
        Ok(input)
    };
    plan.inputs.iter().map(input).collect()
}

/// Calls `check` with each parameter, its argument and a name for the pair.
fn each_arg(
    plan: &Plan,
    mut check: impl FnMut(&TileParam, Arg, &str) -> Result<(), String>,
) -> Result<(), String> {
    for (number, step) in plan.steps.iter().enumerate() {
        let kernel = &plan.kernels[step.kernel];
        for (param, arg) in kernel.params.values().zip(&step.args) {
            check(param, *arg, &format!("step {number}, {} of {}", param.name, kernel.name))?;
        }
    }
    Ok(())
}

/// The largest binding that a model's steps can have, with logits of one row a sequence.
pub(crate) fn largest(limits: &crate::Limits) -> Binding {
    let pages = limits.pages as u64;
    let context = (limits.max_positions as u64).div_ceil(sinter_ir::PAGE);
    let (tokens, sequences) = (limits.max_tokens as u64, limits.max_sequences as u64);
    Binding::new(tokens, sequences, pages.min(context), pages * sinter_ir::PAGE)
}

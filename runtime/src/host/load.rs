//! What must hold before a plan's kernels may be called: plan, kernels and weights belong together.

use super::WeightBytes;
use crate::RuntimeError;
use sinter_ir::{
    Access, Arg, Binding, BufferId, DType, HostKernel, Layout, Plan, Step, Sym, TileParam, Type,
};

/// The inputs that a batch can give, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Tokens,
    Positions,
    Slots,
    Seq,
    Table,
    Rows,
}

impl Input {
    const ALL: [(&'static str, Input); 6] = [
        ("tokens", Input::Tokens),
        ("positions", Input::Positions),
        ("slots", Input::Slots),
        ("seq", Input::Seq),
        ("table", Input::Table),
        ("rows", Input::Rows),
    ];

    fn ty(self) -> Type {
        let shape = match self {
            Input::Tokens | Input::Positions | Input::Slots | Input::Seq => vec![Sym::T.into()],
            Input::Table => vec![Sym::S.into(), Sym::P.into()],
            Input::Rows => vec![Sym::R.into()],
        };
        Type::new(DType::U32, shape)
    }
}

/// The bytes of a tensor of constant shape in a layout; none if the shape is symbolic or the layout does not fit it.
pub fn packed_bytes(ty: &Type, layout: Layout) -> Option<u64> {
    let shape: Vec<u64> = ty.shape.iter().map(|dim| dim.as_const()).collect::<Option<_>>()?;
    let wide = 32u64;
    let elements = match (layout, ty.dtype, shape.as_slice()) {
        (Layout::Rows, _, shape) => shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim))?,
        (Layout::Panels, DType::F32, [n, k]) => n.div_ceil(wide).checked_mul(wide)?.checked_mul(*k)?,
        (Layout::Panels, DType::Bf16, [n, k]) => {
            n.div_ceil(wide).checked_mul(wide)?.checked_mul(k.checked_add(1)? / 2 * 2)?
        }
        (Layout::Panels, ..) => return None,
    };
    elements.checked_mul(ty.dtype.bytes() as u64)
}

/// All checks; gives which input stands at each position of the plan's inputs.
pub(super) fn check(
    plan: &Plan,
    kernels: &[HostKernel],
    weights: &[WeightBytes],
) -> Result<Vec<Input>, RuntimeError> {
    plan.verify()?;
    counts(plan, kernels, weights).map_err(RuntimeError::Load)?;
    accesses(plan).map_err(RuntimeError::Load)?;
    slots(plan).map_err(RuntimeError::Load)?;
    outputs(plan).map_err(RuntimeError::Load)?;
    inputs(plan).map_err(RuntimeError::Load)
}

fn counts(plan: &Plan, kernels: &[HostKernel], weights: &[WeightBytes]) -> Result<(), String> {
    if kernels.len() != plan.kernels.len() {
        return Err(format!("{} kernels for a plan of {}", kernels.len(), plan.kernels.len()));
    }
    for (kernel, (id, tile)) in kernels.iter().zip(plan.kernels.iter()) {
        if kernel.name != tile.name {
            return Err(format!("{id} is {} in the plan, given {}", tile.name, kernel.name));
        }
    }
    if weights.len() != plan.weights.len() {
        return Err(format!("{} weights for a plan of {}", weights.len(), plan.weights.len()));
    }
    for (weight, (id, def)) in weights.iter().zip(plan.weights.iter()) {
        let (found, wanted) = (weight.bytes().len() as u64, packed_bytes(&def.ty, def.layout));
        if wanted != Some(found) {
            let wanted = wanted.map_or("a constant shape".into(), |bytes| format!("{bytes} bytes"));
            return Err(format!("{id}, {} in {:?}, has {found} bytes, wanted {wanted}", def.ty, def.layout));
        }
        if !(weight.bytes().as_ptr() as usize).is_multiple_of(64) {
            return Err(format!("{id} does not start at a 64-byte boundary"));
        }
    }
    Ok(())
}

/// Weights and inputs are only read; layouts agree; states are written in place.
fn accesses(plan: &Plan) -> Result<(), String> {
    each_arg(plan, |param, arg, place| {
        let layout = match arg {
            Arg::Weight(id) => plan.weights[id].layout,
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

/// Every buffer lies in a slot that is large enough, and is read only while no other buffer was written over it.
fn slots(plan: &Plan) -> Result<(), String> {
    for (id, buffer) in plan.buffers.iter() {
        let slot = plan.slots.get(buffer.slot).ok_or_else(|| format!("{id} lies in no slot"))?;
        if !slot.types.contains(&buffer.ty) {
            return Err(format!("{id} is {}, which its slot has no room for", buffer.ty));
        }
    }
    let mut owners: Vec<Option<BufferId>> = vec![None; plan.slots.len()];
    for (number, step) in plan.steps.iter().enumerate() {
        let buffers: Vec<_> = buffers(plan, step).collect();
        for (id, access) in &buffers {
            let slot = plan.buffers[*id].slot;
            if *access != Access::Write && owners[slot] != Some(*id) {
                return Err(format!("step {number}: {id} is read after its slot was given to another"));
            }
            if buffers.iter().any(|(other, _)| other != id && plan.buffers[*other].slot == slot) {
                return Err(format!("step {number}: two buffers of slot {slot} at once"));
            }
        }
        for (id, _) in buffers {
            owners[plan.buffers[id].slot] = Some(id);
        }
    }
    Ok(())
}

fn buffers<'p>(plan: &'p Plan, step: &'p Step) -> impl Iterator<Item = (BufferId, Access)> + 'p {
    plan.kernels[step.kernel].params.values().zip(&step.args).filter_map(|(param, arg)| match arg {
        Arg::Buffer(id) => Some((*id, param.access)),
        _ => None,
    })
}

/// The result is one f32 tensor that some step writes; updated states are written in place, so they are no result.
fn outputs(plan: &Plan) -> Result<(), String> {
    let is_state = |name: &str| plan.states.iter().any(|state| state.name == name);
    let results: Vec<_> = plan.outputs.iter().filter(|output| !is_state(&output.name)).collect();
    let [result] = results.as_slice() else {
        return Err(format!("the plan has {} results besides its states, wanted one", results.len()));
    };
    if result.ty.dtype != DType::F32 {
        return Err(format!("the result {} is {}, wanted f32", result.name, result.ty));
    }
    let mut written = false;
    each_arg(plan, |param, arg, place| match arg {
        Arg::Output(at) if is_state(&plan.outputs[at].name) => {
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
pub(super) fn largest(limits: &crate::Limits) -> Binding {
    let pages = limits.pages as u64;
    let context = (limits.max_positions as u64).div_ceil(sinter_ir::PAGE);
    let (tokens, sequences) = (limits.max_tokens as u64, limits.max_sequences as u64);
    Binding::new(tokens, sequences, pages.min(context), pages * sinter_ir::PAGE)
}

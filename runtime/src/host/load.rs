//! What must hold before a plan's kernels may be called: plan, kernels and weights belong together.

use super::WeightBytes;
use crate::RuntimeError;
use crate::load::{self, Checked};
use sinter_ir::{Access, Arg, BufferId, DType, HostKernel, Layout, Plan, Step, Type};

/// The bytes of a tensor of constant shape in a layout; none if the shape is symbolic or the layout does not fit it.
pub fn packed_bytes(ty: &Type, layout: Layout) -> Option<u64> {
    let shape: Vec<u64> = ty.shape.iter().map(|dim| dim.as_const()).collect::<Option<_>>()?;
    let wide = 32u64;
    let product = |shape: &[u64]| shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
    let elements = match (layout, ty.dtype, shape.as_slice()) {
        (Layout::Rows, _, shape) => product(shape)?,
        (Layout::Panels, DType::F32 | DType::Bf16, [stack @ .., n, k]) if stack.len() < 2 => {
            let k = if ty.dtype == DType::Bf16 { k.checked_add(1)? / 2 * 2 } else { *k };
            n.div_ceil(wide).checked_mul(wide)?.checked_mul(k)?.checked_mul(product(stack)?)?
        }
        (Layout::Codes(codes), DType::F32 | DType::Bf16, &[n, k]) if codes.fits(k as usize) => {
            return Some(codes.bytes(n as usize, k as usize) as u64);
        }
        (Layout::Panels | Layout::Codes(_) | Layout::Halves, ..) => return None,
    };
    elements.checked_mul(ty.dtype.bytes() as u64)
}

/// All checks.
pub(super) fn check(
    plan: &Plan,
    kernels: &[HostKernel],
    weights: &[WeightBytes],
) -> Result<Checked, RuntimeError> {
    plan.verify()?;
    counts(plan, kernels, weights).map_err(RuntimeError::Load)?;
    slots(plan).map_err(RuntimeError::Load)?;
    load::check(plan)
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

//! Weights made of nothing: a plan is measured where its checkpoint is not.
//!
//! Numbers are small and no two neighbours alike; whole numbers stay below sixteen, so that those which are indices of
//! columns point to some column. A kernel's time does not depend on them.

use crate::checkpoint::{Aligned, Tensors, raw};
use anyhow::{Context, Result, bail};
use sinter_ir::{DType, Op, Plan, WeightDef};
use sinter_runtime::{WeightBytes, uniform};
use std::borrow::Cow;
use std::sync::Arc;

/// Numbers until they repeat.
const PERIOD: usize = 8191;

/// A weight for each of the plan's.
///
/// # Errors
/// If a weight is made of a tensor whose shape is not constant.
pub fn weights(plan: &Plan) -> Result<Vec<WeightBytes>> {
    plan.weights.iter().map(|(id, def)| weight(def).with_context(|| format!("{id}"))).collect()
}

fn weight(def: &WeightDef) -> Result<WeightBytes> {
    let mut tensors = Tensors::new();
    for node in def.source.nodes.values() {
        let Op::Param { name, shape, dtype } = &node.op else { continue };
        let constant = shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize));
        let Some(shape) = constant.collect::<Option<Vec<usize>>>() else {
            bail!("{name} has no constant shape");
        };
        let count = shape.iter().product();
        tensors.insert(name, (*dtype, shape, Cow::Owned(elements(*dtype, count))));
    }
    let packed = sinter_codegen_host::pack(def, &|name: &str| raw(&tensors, name))?;
    Ok(WeightBytes::new(Arc::new(Aligned(packed.bytes))))
}

/// So many elements of a type.
fn elements(dtype: DType, count: usize) -> Vec<u8> {
    let mut period = Vec::with_capacity(PERIOD * dtype.bytes());
    for at in 0..PERIOD as u64 {
        let random = uniform(11, at);
        let value = match dtype {
            DType::F32 | DType::Bf16 | DType::F16 | DType::F8e4m3 | DType::F8e5m2 => 0.1 * (random - 0.5),
            DType::F8e8m0 => 1.0,
            DType::U32 | DType::U8 | DType::I8 | DType::I32 => (16.0 * random).floor(),
            DType::Bool => random.round(),
        };
        dtype.append(value, &mut period);
    }
    let mut bytes = Vec::with_capacity(count * dtype.bytes());
    while bytes.len() < count * dtype.bytes() {
        let left = count * dtype.bytes() - bytes.len();
        bytes.extend_from_slice(&period[..left.min(period.len())]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_as_many_and_as_small_as_said() {
        assert_eq!(elements(DType::F32, 3 * PERIOD + 5).len(), 4 * (3 * PERIOD + 5));
        assert!(elements(DType::I32, PERIOD).chunks(4).all(|word| word[0] < 16 && word[1..] == [0, 0, 0]));
        let halves = elements(DType::Bf16, PERIOD);
        // A twentieth, rounded to eight bits.
        assert!(halves.chunks(2).all(|half| DType::Bf16.read(half).abs() <= 0.05 * (1.0 + 1.0 / 256.0)));
        assert!(elements(DType::F32, 0).is_empty());
    }
}
